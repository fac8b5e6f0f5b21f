//! A tick packs the repository's objects together where that is due, by git's own rules, and loses nothing by it.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::scene::{Scene, until};
use crate::servers::http::HttpServer;

fn count(s: &Scene, what: &str) -> usize {
    let told = s.git_ours(&["count-objects", "-v"]);
    let line = told.lines().find_map(|line| line.strip_prefix(&format!("{what}: "))).unwrap();
    line.parse().unwrap()
}

/// An instance whose repository is due: git counts the objects of one folder and takes that for all of them.
fn due() -> Scene {
    let s = Scene::new();
    s.git_ours(&["config", "gc.auto", "1"]);
    let mut number = 0;
    while fs::read_dir(s.ours().join(".git/objects/17")).map_or(0, Iterator::count) < 2 {
        s.we_write("state/seed", &format!("{number}\n"));
        s.git_ours(&["hash-object", "-w", "state/seed"]);
        number += 1;
    }
    s.tick_with("true").exits(0).says("pushed");
    s
}

const PACKED: &str = "packed together";

#[test]
fn a_tick_packs_what_is_due_and_the_next_one_has_nothing_to_do() {
    // A tick with the setting at its default leaves all as it is: so many objects are not due.
    let s = Scene::new();
    s.tick_with("echo 1 > state/new").exits(0).says("pushed").logs_not(PACKED);
    assert!(count(&s, "packs") > 0);

    // Rescues are kept through it: of a commit that lost, and of a file that was replaced.
    s.we_commit("lost").we_write("index.html", "my edit\n");
    let lost = s.our_tip();
    s.rival_pushes("index.html").sync().exits(0).says("diverged");
    let kept = s.rescues("worktree");
    assert_eq!(kept.len(), 1);
    s.git_ours(&["config", "gc.autoPackLimit", "1"]);
    s.rival_pushes("more").sync().exits(0);
    assert!(count(&s, "packs") > 1);
    s.tick_with("echo 2 > state/new").exits(0).says("pushed").logs(PACKED);
    assert_eq!(count(&s, "packs"), 1);
    s.fsck().is_kept(&lost).ours_equals_upstream();
    assert_eq!(s.git_ours(&["show", &format!("{}:index.html", kept[0])]), "my edit");

    let before = s.snapshot();
    s.tick_with("true").exits(0).says("no-changes").logs_not(PACKED);
    let after = s.snapshot();
    let record = |path: &PathBuf| path.ends_with("status.json");
    assert!(before.iter().filter(|(path, _)| !record(path)).eq(after.iter().filter(|(path, _)| !record(path))));
    s.rival_pushes("later").sync().exits(0).says("behind");
}

#[test]
fn loose_objects_are_counted_as_git_counts_them() {
    let s = due();
    s.logs(PACKED).fsck();
    // What no reference reaches stays for git's two weeks; all that is reached is in packs.
    let loose = s.git_ours(&["rev-list", "--objects", "--all", "--no-object-names", "--unpacked"]);
    assert_eq!(loose, "");
}

#[test]
fn whoever_switched_it_off_in_git_has_switched_it_off_here() {
    for (key, value) in [("gc.auto", "0"), ("maintenance.auto", "false")] {
        let s = Scene::new();
        s.git_ours(&["config", "gc.autoPackLimit", "1"]);
        s.rival_pushes("a").sync().exits(0).rival_pushes("b").sync().exits(0);
        s.git_ours(&["config", key, value]);
        s.tick_with("true").exits(0).says("no-changes").logs_not(PACKED);
        s.git_ours(&["config", "--unset", key]);
        s.tick_with("true").exits(0).says("no-changes").logs(PACKED);
    }
}

/// A `git` put before the real one, which does `what` instead of a gc.
fn with_gc(s: &Scene, what: &str) {
    let folder = s.root().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = format!("#!/bin/sh\ncase \" $* \" in *' gc '*) {what} ;; esac\nPATH='{path}' exec git \"$@\"\n");
    fs::write(folder.join("git"), script).unwrap();
    fs::set_permissions(folder.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    s.env("PATH", &format!("{}:{path}", folder.display()));
}

fn packs_due(s: &Scene) {
    s.git_ours(&["config", "gc.autoPackLimit", "1"]);
    s.rival_pushes("a").sync().exits(0).rival_pushes("b").sync().exits(0);
}

#[test]
fn a_gc_that_fails_is_a_warning_and_costs_no_tick() {
    let s = Scene::new();
    packs_due(&s);
    with_gc(&s, "echo no space >&2; exit 128");
    s.tick_with("echo 1 > state/new").exits(0).says("pushed");
    s.logs("WARN packing the repository's objects together (git gc): it exited with status 128").logs("no space");
    // It is not tried again in each tick, but a day later.
    s.tick_with("true").exits(0).says("no-changes").logs_not("git gc");
    let a_day_ago = gitsync::clock::now() - chrono::Duration::hours(25);
    fs::write(s.private().join("gc-failed"), a_day_ago.to_rfc3339()).unwrap();
    s.tick_with("true").exits(0).says("no-changes").logs("it exited with status 128");
    fs::write(s.private().join("gc-failed"), a_day_ago.to_rfc3339()).unwrap();
    fs::remove_dir_all(s.root().join("bin")).unwrap();
    s.tick_with("true").exits(0).says("no-changes").logs(PACKED);
    assert!(!s.private().join("gc-failed").exists());
}

/// A repository too large for the time that a gc has: each one writes a part of a pack and is killed.
#[test]
fn what_a_gc_that_was_ended_leaves_does_not_pile_up() {
    let s = Scene::new();
    packs_due(&s);
    let packs = s.ours().join(".git/objects/pack");
    let abandoned = packs.join("tmp_pack_killed");
    fs::write(&abandoned, "PACK").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    fs::File::options().write(true).open(&abandoned).unwrap().set_modified(long_ago).unwrap();
    // Somebody may be fetching.
    fs::write(packs.join("tmp_pack_fresh"), "PACK").unwrap();
    let left = || {
        let names = fs::read_dir(&packs).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("tmp")).collect::<Vec<_>>()
    };
    let folder = packs.display();
    with_gc(&s, &format!("echo PACK >{folder}/tmp_pack_a; echo PACK >{folder}/.tmp-7-pack-1.idx; kill -9 $$"));
    s.tick_with("echo 1 > state/new").exits(0).says("pushed").logs("WARN packing the repository's objects");
    assert_eq!(left(), ["tmp_pack_fresh"]);
    s.fsck();
}

#[test]
fn neither_hooks_nor_secrets_nor_the_environment_s_repository_have_to_do_with_it() {
    let s = Scene::new();
    packs_due(&s);
    let hook = s.ours().join(".git/hooks/pre-auto-gc");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho ran > ../hook-ran\nexit 1\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    with_gc(&s, "env > \"$HOME/env-of-gc\"");
    s.env("GIT_SYNC_TOKEN", "canary-1").env("GITHUB_TOKEN", "canary-2").env("GIT_DIR", "/nowhere");
    s.env("GIT_OBJECT_DIRECTORY", "/nowhere/objects");
    s.run(&["tick", "--", "true"]).exits(0).says("no-changes").logs(PACKED);
    assert!(!s.root().join("hook-ran").exists());
    let env = fs::read_to_string(s.root().join("home/env-of-gc")).unwrap();
    assert!(!env.contains("canary") && !env.contains("/nowhere"), "{env}");
}

#[test]
fn a_signal_in_the_middle_ends_it_and_the_tick_has_done_its_work() {
    let s = Scene::new();
    packs_due(&s);
    with_gc(&s, "echo $$ > \"$HOME/pid\"; exec sleep 1000");
    let tick = s.start(&["tick", "--", "sh", "-c", "echo 1 > state/new"]);
    let told = s.root().join("home/pid");
    until("gc runs", || fs::read_to_string(&told).is_ok_and(|text| text.ends_with('\n')));
    s.ours_equals_upstream();
    rustix::process::kill_process(rustix::process::Pid::from_child(&tick), rustix::process::Signal::TERM).unwrap();
    s.wait(tick).exits(143);
    let pid = fs::read_to_string(&told).unwrap();
    assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists());
    fs::remove_dir_all(s.root().join("bin")).unwrap();
    s.tick_with("true").exits(0).says("no-changes").logs(PACKED).fsck();
}

#[test]
fn without_git_a_tick_over_http_goes_well_and_says_so_to_who_asks() {
    let s = Scene::without_ours();
    s.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(s.root(), false);
    fs::create_dir(s.ours()).unwrap();
    let url = server.url().replace("/repo.git", "/upstream.git");
    s.run(&["init-sync", "--remote-url", &url]).exits(0).says("cloned");
    packs_due(&s);
    let bare = s.root().join("bare");
    fs::create_dir(&bare).unwrap();
    std::os::unix::fs::symlink("/bin/sh", bare.join("sh")).unwrap();
    s.env("PATH", bare.to_str().unwrap());
    s.run(&["tick", "-v", "--", "sh", "-c", "echo 1 > state/new"]).exits(0).says("pushed").logs("git gc was due");
}
