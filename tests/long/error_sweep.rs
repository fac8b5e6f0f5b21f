//! A file that can't be read, looked at or opened for once, or from now on, is no damage: nothing is put aside, nothing is
//! lost, and two passes later all is as the rule demands.
//!
//! By default a few points of each pass. `GITSYNC_SWEEP_SEED=2` takes others, `GITSYNC_SWEEP=changes` a fifth of all, and
//! `GITSYNC_SWEEP=full` all of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::oracle;
use crate::scene::Scene;
use crate::sweep;
use crate::sweep::passes::*;
use crate::sweep::{Blow, Point, Sweep, errors};
use needs::needs;

const INIT: &[&str] = &["init-sync"];

/// Two versions with objects in packs and references packed, as they are after a while.
fn packed() -> Scene {
    let s = two_versions();
    s.git_ours(&["gc", "-q"]);
    s
}

fn fails(name: &str, s: &Scene, pass: &[&str], recoveries: &[[&[&str]; 2]], rest: &[&str]) {
    fails_and_comes_to(name, s, pass, recoveries, rest, &clean);
}

fn fails_and_comes_to(
    name: &str,
    s: &Scene,
    pass: &[&str],
    recoveries: &[[&[&str]; 2]],
    rest: &[&str],
    comes_to: &dyn Fn(&Scene) -> Vec<String>,
) {
    errors::run(&Sweep {
        name,
        scene: s,
        pass,
        recoveries,
        rest,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::FEW,
        at_once: &sweep::nothing,
        comes_to,
    });
}

#[needs(strace)]
#[test]
fn init_sync_clones() {
    let s = two_versions();
    fs::remove_dir_all(s.ours()).unwrap();
    fs::create_dir_all(s.ours().join("lost+found")).unwrap();
    s.we_write("page", "a stranger's page\n").we_write("notes", "a stranger's notes\n");
    let url = s.upstream().to_str().unwrap().to_owned();
    let init: &[&str] = &["init-sync", "--remote-url", &url];
    fails("errors, init-sync, fresh", &s, init, &[[init, init], [init, TICK]], SYNC);
}

#[needs(strace)]
#[test]
fn init_sync_over_a_clone() {
    let s = packed();
    second_version(&s);
    s.we_commit("state/ours");
    unfinished_work(&s);
    fails("errors, init-sync, over a clone", &s, INIT, &[[INIT, INIT], [INIT, TICK], [SYNC, TICK]], SYNC);
}

#[needs(strace)]
#[test]
fn init_sync_up_to_date() {
    let s = packed();
    fails("errors, init-sync, up to date", &s, INIT, &[[INIT, INIT], [SYNC, TICK]], SYNC);
}

#[needs(strace)]
#[test]
fn sync_up_to_date() {
    let s = packed();
    s.sync().exits(0).says("up-to-date");
    fails("errors, sync, up to date", &s, SYNC, &[[SYNC, SYNC], [INIT, TICK]], SYNC);
}

#[needs(strace)]
#[test]
fn sync_behind() {
    let s = packed();
    second_version(&s);
    unfinished_work(&s);
    fails("errors, sync, behind", &s, SYNC, &[[SYNC, SYNC], [TICK, TICK], [INIT, SYNC]], SYNC);
}

#[needs(strace)]
#[test]
fn sync_diverged() {
    let s = packed();
    second_version(&s);
    s.we_commit("page").we_commit("turns-folder").we_commit("state/ours");
    unfinished_work(&s);
    fails("errors, sync, diverged", &s, SYNC, &[[SYNC, SYNC], [TICK, TICK]], SYNC);
}

#[needs(strace)]
#[test]
fn sync_diverged_alpha() {
    let s = packed();
    second_version(&s);
    s.alpha().we_commit("page").we_commit("state/ours");
    s.we_write("page", "my page\n");
    let recoveries: &[[&[&str]; 2]] = &[[SYNC, TICK], [TICK, SYNC]];
    fails_and_comes_to("errors, sync, diverged, alpha", &s, SYNC, recoveries, IDLE, &same_as_upstream);
}

#[needs(strace)]
#[test]
fn tick_commits_and_pushes() {
    let s = packed();
    s.we_write("page", "my page\n");
    s.we_write("staged", "mine, staged\n");
    s.git_ours(&["add", "staged"]);
    let recoveries: &[[&[&str]; 2]] = &[[TICK, TICK], [SYNC, TICK], [INIT, TICK]];
    fails_and_comes_to("errors, tick", &s, TICK, recoveries, IDLE, &same_as_upstream);
}

#[needs(strace)]
#[test]
fn tick_alpha_overwrites() {
    let s = packed();
    second_version(&s);
    s.alpha().we_commit("page").we_commit("state/ours");
    s.we_write("page", "my page\n");
    let recoveries: &[[&[&str]; 2]] = &[[TICK, TICK], [SYNC, TICK]];
    fails_and_comes_to("errors, tick, alpha, diverged", &s, TICK, recoveries, IDLE, &same_as_upstream);
}

#[needs(strace)]
#[test]
fn sync_publishes() {
    let s = with_a_site("whole");
    second_version(&s);
    let (old, new) = (site_of("v1 page\n"), site_of("v2 page\n"));
    errors::run(&Sweep {
        name: "errors, sync with a site",
        scene: &s,
        pass: SYNC,
        recoveries: &[[SYNC, SYNC], [INIT, SYNC]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::FEW,
        at_once: &|s| {
            let now = oracle::files(&s.public());
            let torn = now != old && now != new;
            torn.then(|| "the site is neither wholly the old nor wholly the new one".to_owned()).into_iter().collect()
        },
        comes_to: &|s| {
            let mut all = clean(s);
            if oracle::files(&s.public()) != new {
                all.push("the public dir does not hold exactly the fresh site".to_owned());
            }
            all
        },
    });
}

/// Runs a pass in which calls of one name fail that are about one path. Its exit code, and what it logged.
fn failing_at(s: &Scene, pass: &[&str], path: &Path, inject: &str) -> (Option<i32>, String) {
    let log = s.root().join("trace").display().to_string();
    let (call, _) = inject.split_once(':').unwrap();
    let options =
        ["-P", path.to_str().unwrap(), "-o", &log, "-e", &format!("trace={call}"), "-e", &format!("inject={inject}")];
    let out = sweep::under_strace(&s.gitsync(pass), &options.map(str::to_owned));
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// libgit2 frees an entry that it never had, where a configuration it has read before can't be read again.
#[needs(strace)]
#[test]
fn a_configuration_that_cant_be_read_crashes_nothing() {
    for call in ["openat", "read", "newfstatat"] {
        for n in 1..=10 {
            let s = Scene::without_ours();
            fs::create_dir(s.ours()).unwrap();
            let url = s.upstream().to_str().unwrap().to_owned();
            let config = s.ours().canonicalize().unwrap().join(".git/config");
            let inject = format!("{call}:error=EIO:when={n}");
            let (code, said) = failing_at(&s, &["init-sync", "--remote-url", &url], &config, &inject);
            assert!(matches!(code, Some(0 | 1 | 75)), "{inject}: {code:?} {said}");
        }
    }
}

/// libgit2 then goes by a setting that nobody made: a file came out with other line endings than the commit has.
#[needs(strace)]
#[test]
fn a_setting_that_cant_be_read_changes_no_file() {
    let s = two_versions();
    second_version(&s);
    let before = s.root().join("ours-before");
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy(&s.ours(), &before);
    let settings = s.root().canonicalize().unwrap().join("home/.gitconfig");
    for n in 1.. {
        copy(&before, &s.ours());
        let inject = format!("newfstatat:error=EACCES:when={n}");
        let (code, said) = failing_at(&s, SYNC, &settings, &inject);
        assert!(matches!(code, Some(0 | 1 | 75)), "{inject}: {code:?} {said}");
        if code == Some(0) {
            assert_eq!(clean(&s), Vec::<String>::new(), "{inject}: {said}");
        }
        if !fs::read_to_string(s.root().join("trace")).unwrap().contains("(INJECTED)") {
            assert!(n > 1, "the pass does not look at the user's settings");
            break;
        }
    }
}

/// What can't be looked at may be the repository itself: nothing is published over it.
#[needs(strace)]
#[test]
fn a_public_dir_that_cant_be_looked_at_is_not_published_to() {
    let s = with_a_site("whole");
    second_version(&s);
    let up = oracle::files(&s.public());
    for error in ["EIO", "EMFILE", "ENOMEM"] {
        let public = s.public().canonicalize().unwrap();
        let (code, said) = failing_at(&s, SYNC, &public, &format!("statx:error={error}:when=1+"));
        assert!(code == Some(75) && said.contains("can't be looked at"), "{error}: {code:?} {said}");
        assert_eq!(oracle::files(&s.public()), up);
    }
    s.sync().exits(0).says("behind");
    assert_eq!(oracle::files(&s.public()), site_of("v2 page\n"));
}

/// A pass that fails each time must not leave a file more each time.
#[needs(strace)]
#[test]
fn a_pass_that_fails_leaves_nothing_half_written() {
    let s = packed();
    second_version(&s);
    unfinished_work(&s);
    let point = Point { child: None, call: "access".into(), n: 2, blow: Blow::From("EACCES") };
    let mut complaints = Vec::new();
    let hit = sweep::strike_one(&s.gitsync(SYNC), &s.root().join("trace"), &point, &mut complaints);
    assert!(hit.struck && hit.said == "error\n" && complaints.is_empty(), "{} {complaints:?}", hit.story);
    let left = oracle::leftovers(&s.ours().join(".git/objects"));
    assert!(left.is_empty(), "{left:?}\n{}", hit.story);
}

/// The health check goes by what other passes left in it.
#[needs(strace)]
#[test]
fn a_record_that_cant_be_read_is_not_replaced() {
    let s = Scene::new();
    s.tick().exits(0);
    let record = s.private().canonicalize().unwrap().join("status.json");
    let before = fs::read(&record).unwrap();
    let (code, said) = failing_at(&s, SYNC, &record, "openat:error=EMFILE:when=1");
    assert!(code == Some(0) && said.contains("status.json could not be written"), "{code:?} {said}");
    assert_eq!(fs::read(&record).unwrap(), before);
}
