//! A FIFO where git or gitsync looks for a file: it is named before it is opened, and holds nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod scene;
mod servers;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use scene::{Scene, write};
use servers::http::HttpServer;
use servers::{CANARY, Upstream};

/// A run that met a FIFO and did not see it is ended by the watchdog after a minute; one that saw it takes no time.
const AT_ONCE: Duration = Duration::from_secs(20);

fn fifo(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(path);
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "{}", path.display());
}

#[track_caller]
fn at_once<'a>(s: &'a Scene, args: &[&str]) -> &'a Scene {
    let began = Instant::now();
    s.run(args);
    assert!(began.elapsed() < AT_ONCE, "it hung: {}", s.last());
    s
}

const TICK: [&str; 5] = ["tick", "--", "sh", "-c", "true"];

/// Every pass and `status` say that the file is in the way, and touch nothing.
#[track_caller]
fn all_name(s: &Scene, path: &Path) {
    let (ours, name) = (s.our_tip_by_hand(), path.display().to_string());
    for args in [&["sync"][..], &TICK, &["init-sync"], &["status"], &["sync", "--dry-run"]] {
        at_once(s, args).exits(1).logs(&format!("{name} is a FIFO"));
    }
    assert_eq!(s.our_tip_by_hand(), ours);
}

trait ByHand {
    fn our_tip_by_hand(&self) -> Vec<u8>;
}

impl ByHand for Scene {
    /// Without git, which would wait for the FIFO.
    fn our_tip_by_hand(&self) -> Vec<u8> {
        let path = self.ours().join(".git/refs/heads/main");
        if path.is_file() { fs::read(path).unwrap() } else { Vec::new() }
    }
}

#[test]
fn each_file_of_the_repository() {
    let s = Scene::new();
    s.sync().exits(0);
    let git = s.ours().join(".git");
    for name in [
        "HEAD",
        "index",
        "config",
        "config.worktree",
        "packed-refs",
        "shallow",
        "info/exclude",
        "info/attributes",
        "info/grafts",
        "objects/info/alternates",
        "objects/info/commit-graph",
        "objects/pack/pack-0123456789012345678901234567890123456789.idx",
        "objects/pack/multi-pack-index",
        "FETCH_HEAD",
        "ORIG_HEAD",
        "refs/heads/main",
        "refs/remotes/origin/main",
        "refs/gitsync/rescue/20260101T000000Z-local-0123456",
        "logs/HEAD",
        "logs/refs/heads/main",
        "logs/refs/remotes/origin/main",
    ] {
        let path = git.join(name);
        let before = fs::read(&path).ok();
        fifo(&path);
        all_name(&s, &path);
        fs::remove_file(&path).unwrap();
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
    }
    s.sync().exits(0).says("up-to-date").fsck();
}

#[test]
fn a_link_that_leads_to_one() {
    let s = Scene::new();
    fifo(&s.root().join("pipe"));
    let exclude = s.ours().join(".git/info/exclude");
    let _ = fs::remove_file(&exclude);
    fs::create_dir_all(exclude.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(s.root().join("pipe"), &exclude).unwrap();
    all_name(&s, &exclude);
}

#[test]
fn a_reference_that_a_fetch_would_read() {
    let s = Scene::new();
    let path = s.ours().join(".git/refs/heads/other");
    fifo(&path);
    s.sync().exits(0).says("up-to-date");
    s.rival_pushes("news.txt");
    at_once(&s, &["sync"]).exits(1).logs(&format!("{} is a FIFO", path.display()));
    fs::remove_file(path).unwrap();
    s.sync().exits(0).says("behind").ours_equals_upstream();
}

#[test]
fn the_pointer_to_the_repository() {
    let s = Scene::new();
    fs::rename(s.ours().join(".git"), s.root().join("elsewhere")).unwrap();
    fifo(&s.ours().join(".git"));
    for args in [&["sync"][..], &TICK, &["init-sync"], &["status"]] {
        at_once(&s, args).exits(1).logs("it is a FIFO, not a file");
    }
}

#[test]
fn each_file_of_gits_configuration_outside() {
    let s = Scene::new();
    let home = s.root().join("home");
    for name in [".gitconfig", ".config/git/config", ".config/git/ignore", ".config/git/attributes"] {
        fifo(&home.join(name));
        all_name(&s, &home.join(name));
        fs::remove_file(home.join(name)).unwrap();
    }
    let pipe = s.root().join("pipe");
    fifo(&pipe);
    for text in [
        format!("[include]\n\tpath = {}\n", pipe.display()),
        format!("[includeIf \"gitdir:/\"]\n\tpath = {}\n", pipe.display()),
        "[include]\n\tpath = ../pipe\n".to_owned(),
        "[include]\n\tpath = ~/../pipe\n".to_owned(),
        "[include]\n\tpath = more\n".to_owned(),
        format!("[core]\n\texcludesFile = {}\n", pipe.display()),
        format!("[core]\n\tattributesFile = {}\n", pipe.display()),
    ] {
        write(&home.join("more"), &format!("[include]\n\tpath = {}\n", pipe.display()));
        write(&home.join(".gitconfig"), &text);
        for args in [&["sync"][..], &TICK, &["init-sync"], &["status"]] {
            at_once(&s, args).exits(1).logs("pipe is a FIFO");
        }
    }
    write(&home.join(".gitconfig"), "[core]\n\texcludesFile = /dev/null\n\tattributesFile = /dev/null\n");
    s.sync().exits(0);
    s.tick_with("date > state/b").exits(0).says("pushed");
}

#[test]
fn the_private_folder() {
    let s = Scene::new();
    for name in ["lock", "job.lock", "intent"] {
        let path = s.private().join(name);
        fifo(&path);
        for args in [&["sync"][..], &TICK] {
            at_once(&s, args).exits(1).logs(name).logs("it is a FIFO, not a file");
        }
        at_once(&s, &["status"]).exits(0);
        at_once(&s, &["sync", "--dry-run"]);
        at_once(&s, &["init-sync"]).exits(0).says("up-to-date").logs("moved aside");
        at_once(&s, &["sync"]).exits(0).says("up-to-date");
    }
    // These are not precious, or made again.
    for name in ["status.json", "index-before", "site-stale", "site-ours", "gc-failed", "status.json.new"] {
        fifo(&s.private().join(name));
        at_once(&s, &["status"]).exits(0);
        at_once(&s, &["sync", "--build-command", "true"]).exits(0).says("up-to-date");
        at_once(&s, &TICK).exits(0).says("no-changes");
        at_once(&s, &["init-sync"]).exits(0).says("up-to-date");
    }
    fifo(&s.private().join("force-push-pending"));
    at_once(&s, &["status"]).exits(0);
    at_once(&s, &TICK);
    at_once(&s, &["init-sync"]).exits(0);
}

#[test]
fn what_a_job_leaves_in_its_folders_is_named_and_the_rest_is_committed() {
    for (make, named) in [
        ("mkfifo state/sub/.gitignore", "state/sub/.gitignore is a FIFO"),
        ("mkfifo state/sub/.gitattributes", "state/sub/.gitattributes is a FIFO"),
        ("mkfifo state/sub/p; ln -s p state/sub/.gitignore", "state/sub/.gitignore"),
        ("mkdir -p state/sub/x/y; mkfifo state/sub/x/y/.gitignore", "state/sub/x/y/.gitignore"),
    ] {
        let s = Scene::new();
        let job = format!(
            "mkdir -p state/sub state/two/deep; date > state/b; date > state/sub/c; date > state/two/deep/d; rm state/a; {make}"
        );
        at_once(&s, &["tick", "--", "sh", "-c", &job]).exits(1).says("pushed").logs(named.split(" is").next().unwrap());
        let tree = s.git_upstream(&["ls-tree", "-r", "--name-only", "main"]);
        assert!(tree.contains("state/b") && tree.contains("state/two/deep/d") && !tree.contains("state/a\n"), "{tree}");
        assert_eq!(tree.contains("state/sub/c"), make.contains("x/y"), "{tree}");
        // Nothing hangs on it later, and what was left out comes in once it can.
        at_once(&s, &["sync"]).exits(0);
        at_once(&s, &["status"]).exits(0);
        at_once(&s, &TICK).exits(1).says("no-changes");
        for name in ["state/sub/.gitignore", "state/sub/.gitattributes", "state/sub/x/y/.gitignore", "state/sub/p"] {
            let _ = fs::remove_file(s.ours().join(name));
        }
        at_once(&s, &["tick", "--", "sh", "-c", "date > state/sub/c"]).exits(0);
        assert!(s.git_upstream(&["ls-tree", "-r", "--name-only", "main"]).contains("state/sub/c"));
        s.ours_equals_upstream().fsck();
    }
}

#[test]
fn what_a_job_leaves_in_the_repository() {
    for name in ["index", "packed-refs", "info/exclude"] {
        let s = Scene::new();
        let job = format!("date > state/b; rm -f .git/{name}; mkfifo .git/{name}");
        at_once(&s, &["tick", "--", "sh", "-c", &job])
            .exits(1)
            .logs("after the job")
            .logs(&format!("{name} is a FIFO"));
        fs::remove_file(s.ours().join(".git").join(name)).unwrap();
        let build = format!("rm -f .git/{name}; mkfifo .git/{name}");
        at_once(&s, &["tick", "--build-command", &build, "--", "true"]).exits(1).logs("after the build");
        at_once(&s, &["status"]).exits(1);
        fs::remove_file(s.ours().join(".git").join(name)).unwrap();
        at_once(&s, &["init-sync", "--build-command", &build]);
        fs::remove_file(s.ours().join(".git").join(name)).unwrap();
        at_once(&s, &["sync", "--build-command", &build]);
        let _ = fs::remove_file(s.ours().join(".git").join(name));
        at_once(&s, &["tick", "--", "sh", "-c", "date >> state/c"]).exits(0).says("pushed");
        s.ours_equals_upstream().fsck();
    }
}

#[test]
fn in_one_path_of_two_and_above_both() {
    let s = Scene::new();
    at_once(&s, &["tick", "--", "sh", "-c", "mkdir audit; date > audit/e; date > state/b; mkfifo state/.gitignore"]);
    s.exits(1).says("pushed").logs("state/.gitignore");
    let tree = s.git_upstream(&["ls-tree", "-r", "--name-only", "main"]);
    assert!(tree.contains("audit/e") && tree.contains("state/a") && !tree.contains("state/b"), "{tree}");

    fs::remove_file(s.ours().join("state/.gitignore")).unwrap();
    at_once(&s, &["tick", "--", "sh", "-c", "date > state/c; mkfifo .gitignore"])
        .exits(1)
        .logs(".gitignore was left out of the commit: it is a FIFO");
    s.sync().exits(0).says("up-to-date");
    fs::remove_file(s.ours().join(".gitignore")).unwrap();
    at_once(&s, &TICK).exits(0).says("pushed");

    at_once(&s, &["tick", "--path", ".", "--", "sh", "-c", "date > f; mkfifo audit/.gitattributes"])
        .exits(1)
        .says("pushed");
    let tree = s.git_upstream(&["ls-tree", "-r", "--name-only", "main"]);
    assert!(tree.contains("audit/e") && tree.contains("\nf\n"), "{tree}");
}

#[test]
fn in_an_ignored_folder_with_tracked_files() {
    let s = Scene::new();
    s.rival_writes("state/.gitignore", "hidden/\n").rival_writes("state/hidden/t", "t\n");
    s.git_in(&s.rival(), &["add", "-f", "state/hidden/t"]);
    s.rival_commits("hidden");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0);
    at_once(&s, &["tick", "--", "sh", "-c", "date > state/b; mkdir -p state/hidden; mkfifo state/hidden/.gitignore"]);
    s.exits(1)
        .says("pushed")
        .logs("state/hidden/.gitignore was left out of the commit: it is a FIFO")
        .upstream_file("state/hidden/t", "t\n");
    assert!(s.git_upstream(&["ls-tree", "-r", "--name-only", "main"]).contains("state/b"));
}

#[test]
fn a_follow_goes_around_it() {
    let s = Scene::new();
    fifo(&s.ours().join("state/.gitignore"));
    s.rival_pushes("state/a").rival_pushes("state/new").rival_pushes("news.txt");
    at_once(&s, &["sync"]).exits(0).says("behind").logs("state/.gitignore is a FIFO").ours_equals_upstream();
    let there = fs::read_to_string(s.rival().join("state/a")).unwrap();
    s.our_file("state/a", &there);
    at_once(&s, &["init-sync"]).exits(0);

    fifo(&s.ours().join(".gitattributes"));
    s.rival_pushes("news.txt");
    for args in [&["sync"][..], &["init-sync"]] {
        at_once(&s, args).exits(1).logs(".gitattributes is a FIFO");
    }
    fs::remove_file(s.ours().join(".gitattributes")).unwrap();
    at_once(&s, &["sync"]).exits(0).says("behind").ours_equals_upstream();
}

#[test]
fn one_in_the_place_of_a_file_that_the_remote_removes_stays() {
    use std::os::unix::fs::FileTypeExt;
    let s = Scene::new();
    let path = s.ours().join("gone.txt");
    fs::remove_file(&path).unwrap();
    fifo(&path);
    fs::remove_file(s.rival().join("gone.txt")).unwrap();
    s.rival_commits("removed").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    at_once(&s, &["sync"]).exits(0).says("behind").ours_equals_upstream();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
}

#[test]
fn what_is_staged_beside_it_is_rescued_and_holds_nobody() {
    let s = Scene::new();
    s.we_write("state/a", "staged\n");
    s.git_ours(&["add", "state/a"]);
    s.we_write("state/a", "in the file\n");
    fifo(&s.ours().join("state/.gitignore"));
    s.rival_pushes("state/a");
    at_once(&s, &["sync"]).exits(0).says("behind").ours_equals_upstream();
    assert_eq!(s.rescues("worktree").len(), 1);
}

#[test]
fn a_link_from_the_remote_that_leads_to_one() {
    let s = Scene::new();
    fifo(&s.root().join("pipe"));
    std::os::unix::fs::symlink(s.root().join("pipe"), s.rival().join(".gitattributes")).unwrap();
    s.git_in(&s.rival(), &["add", "-A"]);
    s.rival_commits("a link");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    at_once(&s, &["sync"]).exits(1).logs("leads to a FIFO here");
    assert!(!s.ours().join(".gitattributes").is_symlink());
}

#[test]
fn a_replay_beside_it() {
    let s = Scene::new();
    s.we_commit("state/mine");
    s.rival_pushes("news.txt");
    fifo(&s.ours().join("state/.gitattributes"));
    at_once(&s, &["sync", "--on-divergence", "rebase"]).exits(1).logs("state/.gitattributes is a FIFO");
}

#[test]
fn a_public_dir_with_one() {
    let s = Scene::new();
    let public = s.ours().join("site");
    let build = "date > {public_dir}/index.html";
    let args = ["sync", "--replace-public-dir", "--public-dir", public.to_str().unwrap(), "--build-command", build];
    fifo(&public.join("deep/.gitignore"));
    s.rival_pushes("news.txt");
    at_once(&s, &args).exits(1).logs("site/deep/.gitignore is a FIFO");
}

#[test]
fn the_token_file() {
    let s = Scene::new();
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    server.wants("x-access-token", CANARY);
    let ours = s.root().join("clone");
    let token = s.root().join("token");
    fifo(&token);
    let (ours, url, token) = (ours.to_str().unwrap(), server.url(), token.to_str().unwrap());
    let args = ["init-sync", "--repo", ours, "--remote-url", &url, "--token-file", token];
    at_once(&s, &args).exits(1).logs("token");
    // A shell's `<(…)` is a pipe too, and says what is in it.
    let mut line = s.isolated("bash");
    let gitsync = env!("CARGO_BIN_EXE_gitsync");
    line.args([
        "-c",
        &format!("{gitsync} init-sync --repo {ours} --remote-url {url} --token-file <(sleep 0.3; echo {CANARY})"),
    ]);
    s.run_this(line).exits(0).says("cloned");
}

#[test]
fn a_dry_run_sees_it_too() {
    let s = Scene::new();
    fifo(&s.ours().join("state/.gitignore"));
    s.rival_pushes("state/a");
    for args in [&["sync", "--dry-run"][..], &["tick", "--dry-run", "--", "true"], &["init-sync", "--dry-run"]] {
        at_once(&s, args).logs("state/.gitignore");
    }
}
