//! The lock between passes, with real processes: who waits, who is skipped, and what frees it.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use needs::needs;
use scene::{Scene, until};

/// A tick that holds the lock until [`let_go`].
fn holder(s: &Scene) -> Child {
    let script = format!("touch '{0}/holding'; until test -e '{0}/go'; do sleep 0.02; done", s.root().display());
    let child = s.start(&["tick", "--", "sh", "-c", &script]);
    until("the job to run", || s.root().join("holding").exists());
    child
}

fn let_go(s: &Scene) {
    fs::write(s.root().join("go"), "").unwrap();
}

fn again(s: &Scene) {
    fs::remove_file(s.root().join("go")).unwrap();
    fs::remove_file(s.root().join("holding")).unwrap();
}

/// How many processes block in flock(2) on the lock.
fn waiting(s: &Scene) -> usize {
    let inode = inode(s);
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&inode)).count()
}

fn inode(s: &Scene) -> String {
    use std::os::unix::fs::MetadataExt;
    format!(":{} ", fs::metadata(s.private().join("lock")).unwrap().ino())
}

fn wait_for(s: &Scene, count: usize) {
    until(&format!("{count} to wait for the lock"), || waiting(s) == count);
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn sync_waits_for_tick() {
    let s = Scene::new();
    let tick = holder(&s);
    s.rival_pushes("news.txt");
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    assert!(!s.ours().join("news.txt").exists());
    let_go(&s);
    s.wait(tick).exits(0).says("no-changes");
    s.wait(sync).exits(0).says("behind").ours_equals_upstream();
}

#[test]
fn tick_waits_for_sync() {
    let s = Scene::new();
    s.rival_pushes("news.txt");
    let build = format!("touch '{0}/holding'; until test -e '{0}/go'; do sleep 0.02; done", s.root().display());
    let sync = s.start(&["sync", "--build-command", &build]);
    until("the build to run", || s.root().join("holding").exists());
    let tick = s.start(&["tick", "--", "sh", "-c", "cp news.txt state/"]);
    wait_for(&s, 1);
    assert!(!s.ours().join("state/news.txt").exists());
    let_go(&s);
    s.wait(sync).exits(0).says("behind");
    s.wait(tick).exits(0).says("pushed").upstream_file("state/news.txt", "rival 2\n");
}

#[test]
fn init_sync_waits_as_well_and_is_waited_for() {
    let s = Scene::new();
    let tick = holder(&s);
    let init = s.start(&["init-sync"]);
    wait_for(&s, 1);
    let_go(&s);
    s.wait(tick).exits(0);
    s.wait(init).exits(0).says("up-to-date");
    again(&s);

    let build = format!("touch '{0}/holding'; until test -e '{0}/go'; do sleep 0.02; done", s.root().display());
    let init = s.start(&["init-sync", "--build-command", &build]);
    until("the build to run", || s.root().join("holding").exists());
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    let_go(&s);
    s.wait(init).exits(0);
    s.wait(sync).exits(0).says("up-to-date");
}

#[test]
fn one_of_each_kind_waits_and_a_further_one_is_skipped() {
    let s = Scene::new();
    let held = holder(&s);
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    let tick = s.start(&["tick", "--", "touch", "state/second"]);
    wait_for(&s, 2);
    for _ in 0..2 {
        s.sync().exits(0).says("skipped");
        s.run(&["tick", "--output", "json", "--", "touch", "state/third"]).exits(0);
        assert_eq!(s.json()["result"], "skipped");
    }
    assert_eq!(waiting(&s), 2);
    let_go(&s);
    s.wait(held).exits(0);
    s.wait(sync).exits(0).says("up-to-date");
    s.wait(tick).exits(0).says("pushed");
    assert!(s.ours().join("state/second").exists() && !s.ours().join("state/third").exists());
}

#[test]
fn a_skipped_pass_does_not_hide_the_last_real_one() {
    let s = Scene::new();
    let held = holder(&s);
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    s.sync().says("skipped");
    let_go(&s);
    s.wait(held).exits(0);
    s.wait(sync).exits(0).says("up-to-date");
    let status = fs::read_to_string(s.private().join("status.json")).unwrap();
    assert!(!status.contains("skipped"), "{status}");
}

#[test]
fn patience_that_ends_names_the_holder() {
    let s = Scene::new();
    let held = holder(&s);
    let pid = held.id();
    s.arg("--lock-wait").arg("200ms");
    for args in [vec!["sync"], vec!["tick", "--", "touch", "state/ran"], vec!["init-sync"]] {
        let began = std::time::Instant::now();
        s.run(&args).exits(75).says("error");
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{}", s.last());
        s.logs(&format!("gitsync tick (pid {pid}, since 20")).logs("--lock-wait");
    }
    assert!(!s.ours().join("state/ran").exists());
    let_go(&s);
    s.wait(held).exits(0);
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn the_holder_killed_frees_it_for_the_one_that_waits() {
    let s = Scene::new();
    let held = holder(&s);
    s.rival_pushes("news.txt");
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    signal(&held, rustix::process::Signal::KILL);
    s.wait(held);
    // The job that the killed one left is ended before anything else is done.
    s.wait(sync).exits(0).says("behind").ours_equals_upstream();
    let left = format!("until test -e '{}/go'", s.root().display());
    let running = fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let state = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&left) && !state.contains(") Z ")
    });
    assert!(!running, "the killed tick's job still runs");
}

#[test]
fn the_holder_asked_to_end_ends_its_job_and_frees_it() {
    let s = Scene::new();
    let held = holder(&s);
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    signal(&held, rustix::process::Signal::TERM);
    s.wait(held).exits(143).says("error");
    s.wait(sync).exits(0).says("up-to-date");
}

#[test]
fn a_pass_that_waits_ends_when_asked_to() {
    let s = Scene::new();
    let held = holder(&s);
    for (what, code) in [(rustix::process::Signal::TERM, 143), (rustix::process::Signal::INT, 130)] {
        let sync = s.start(&["sync", "--output", "json"]);
        wait_for(&s, 1);
        std::thread::sleep(std::time::Duration::from_millis(50));
        signal(&sync, what);
        s.wait(sync).exits(code);
        let json = s.json();
        assert_eq!((&json["result"], &json["exit_code"]), (&"error".into(), &code.into()));
        assert!(json["error"].as_str().unwrap_or_default().contains("SIG"), "{json}");
        assert!(json["duration_ms"].as_u64().unwrap() >= 50, "{json}");
    }
    // Its place in the queue is free again.
    let sync = s.start(&["sync"]);
    wait_for(&s, 1);
    let_go(&s);
    s.wait(held).exits(0);
    s.wait(sync).exits(0).says("up-to-date");
}

#[test]
fn many_at_once_all_end_and_none_fails() {
    let s = Scene::new();
    s.rival_pushes("news.txt");
    let all: Vec<Child> = (0..6).map(|_| s.start(&["sync"])).collect();
    let mut words = Vec::new();
    for child in all {
        s.wait(child).exits(0);
        words.push(s.last().stdout.trim().to_owned());
    }
    assert_eq!(words.iter().filter(|word| *word == "behind").count(), 1, "{words:?}");
    assert!(words.iter().all(|word| ["behind", "up-to-date", "skipped"].contains(&word.as_str())), "{words:?}");
    s.ours_equals_upstream().fsck();
}

#[test]
fn a_first_start_twice_at_once() {
    let s = Scene::without_ours();
    fs::create_dir(s.ours()).unwrap();
    let url = s.upstream().to_str().unwrap().to_owned();
    let all: Vec<Child> = (0..3).map(|_| s.start(&["init-sync", "--remote-url", &url])).collect();
    let mut words = Vec::new();
    for child in all {
        s.wait(child).exits(0);
        words.push(s.last().stdout.trim().to_owned());
    }
    words.sort();
    assert_eq!(words, ["cloned", "up-to-date", "up-to-date"]);
    s.ours_equals_upstream().fsck();
}

#[test]
fn repositories_do_not_wait_for_one_another() {
    let s = Scene::new();
    let held = holder(&s);
    let other = s.root().join("other");
    let url = s.upstream().to_str().unwrap().to_owned();
    s.run(&["init-sync", "--repo", other.to_str().unwrap(), "--remote-url", &url]).exits(0).says("cloned");
    let_go(&s);
    s.wait(held).exits(0);
}

#[test]
fn a_lock_file_of_any_content_is_only_a_lock_file() {
    for content in ["", "not json", "{\"pid\":1,\"command\":\"tick\",\"since\":\"2020-01-01T00:00:00Z\"}"] {
        let s = Scene::new();
        fs::write(s.private().join("lock"), content).unwrap();
        s.sync().exits(0).says("up-to-date");
        assert_eq!(fs::read_to_string(s.private().join("lock")).unwrap(), "", "given back");
    }
}

/// How many processes block in flock(2) on the `.git` folder.
fn waiting_for_the_folder(s: &Scene) -> usize {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", fs::metadata(s.ours().join(".git")).unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&inode)).count()
}

#[test]
fn the_lock_file_taken_away_still_keeps_others_out() {
    for what in ["lock", "job.lock", ""] {
        let s = Scene::new();
        let held = holder(&s);
        let away = s.private().join(what);
        if what.is_empty() {
            fs::remove_dir_all(&away).unwrap()
        } else {
            fs::remove_file(&away).unwrap()
        }
        let wait = ["--lock-wait", "300ms"];
        for (pass, job) in [("sync", &[][..]), ("tick", &["--", "touch", "state/ran"]), ("init-sync", &[])] {
            s.run(&[&[pass], &wait[..], job].concat()).exits(75).says("error").logs("--lock-wait");
        }
        s.run(&["status"]).exits(0);
        assert!(s.last().stdout.lines().any(|line| line.starts_with("lock") && line.contains("held")), "{}", s.last());
        assert!(!s.ours().join("state/ran").exists());
        // One that waits long enough gets it, and the first has come to its end by itself.
        let sync = s.start(&["sync"]);
        until("it to wait", || waiting_for_the_folder(&s) + waiting(&s) > 0);
        let_go(&s);
        s.wait(held).exits(0).says("no-changes");
        s.wait(sync).exits(0).says("up-to-date");
        s.sync().exits(0).says("up-to-date").fsck();
    }
}

#[test]
fn a_job_that_takes_the_private_folder_away_costs_nothing() {
    let s = Scene::new();
    s.tick_with("rm -rf .git/gitsync; date > state/b").exits(0).says("pushed").ours_equals_upstream();
    s.arg("--build-command").arg("true");
    s.tick_with("rm -rf .git/gitsync; date >> state/b").exits(0).says("pushed").ours_equals_upstream();
    s.sync().exits(0).says("up-to-date");
    assert!(s.private().join("status.json").exists());
}

#[test]
fn one_that_waited_for_a_file_that_is_gone_takes_the_one_that_is_there() {
    use std::os::unix::fs::MetadataExt;
    let s = Scene::new();
    let held = holder(&s);
    let sync = s.start(&["sync", "--build-command", "cp .git/gitsync/lock ../holder"]);
    wait_for(&s, 1);
    let before = fs::metadata(s.private().join("lock")).unwrap().ino();
    s.rival_pushes("news.txt");
    fs::rename(s.private().join("lock"), s.root().join("taken away")).unwrap();
    fs::write(s.private().join("lock"), "").unwrap();
    let there = fs::metadata(s.private().join("lock")).unwrap().ino();
    assert_ne!(before, there);
    let_go(&s);
    s.wait(held).exits(0);
    // The word of its end is taken back in the file that is at the path: nothing looks as if it had died.
    s.wait(sync).exits(0).says("behind");
    let holder = fs::read_to_string(s.root().join("holder")).unwrap();
    assert!(holder.contains("\"command\":\"sync\""), "the file that is there names who holds the lock: {holder}");
    assert_eq!(fs::read_to_string(s.private().join("lock")).unwrap(), "");
    s.sync().exits(0).says("up-to-date").logs_not("stale");
}

#[test]
fn a_living_gitsync_is_nobodys_orphan() {
    // As a gitsync that runs its job: it took the lock on job.lock itself, and its child has inherited it.
    let s = Scene::new();
    s.tick().exits(0);
    let mut command = s.isolated("flock");
    command.arg(s.private().join("job.lock")).args(["sh", "-c", "touch holding; sleep 600"]);
    let mut other = command.spawn().unwrap();
    until("it to run", || s.root().join("holding").exists());
    for args in [&["sync", "--lock-wait", "300ms"][..], &["tick", "--lock-wait", "300ms", "--", "true"]] {
        s.run(args).exits(75).logs(&format!("another gitsync (pid {}) runs its job", other.id()));
        assert!(other.try_wait().unwrap().is_none(), "it was ended: {}", s.last());
    }
    // Killed, its job is an orphan like any other.
    signal(&other, rustix::process::Signal::KILL);
    other.wait().unwrap();
    s.run(&["sync"]).exits(0).says("up-to-date").logs("an earlier gitsync started still runs, it is ended");
}

#[test]
fn a_folder_where_the_lock_belongs_is_moved_aside_by_init_sync_alone() {
    for name in ["lock", "waiting-sync", "job.lock"] {
        let s = Scene::new();
        s.tick().exits(0);
        let path = s.private().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("mine"), "keep me\n").unwrap();
        if name != "waiting-sync" {
            for args in [&["sync"][..], &["tick", "--", "true"]] {
                s.run(args).exits(1).logs(name);
            }
            if name == "lock" {
                s.logs("gitsync init-sync");
            }
        }
        assert_eq!(fs::read_to_string(path.join("mine")).unwrap(), "keep me\n");
        s.run(&["status"]).exits(0);
        s.init_sync().exits(0).says("up-to-date").logs("moved aside");
        s.sync().exits(0).says("up-to-date");
        s.tick().exits(0);
        let aside = s.private().join("aside");
        let kept: Vec<_> = fs::read_dir(&aside).unwrap().flatten().map(|entry| entry.path()).collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(fs::read_to_string(kept[0].join("mine")).unwrap(), "keep me\n");
    }
}

/// As on a file system that has no locks. It is not the same as a lock that somebody holds.
#[needs(strace)]
#[test]
fn a_lock_that_cannot_be_taken_is_an_error() {
    let s = Scene::new();
    let plain = s.gitsync(&["sync"]);
    let mut strace = s.isolated("strace");
    strace.args(["-f", "-qq", "-o"]).arg(s.root().join("trace")).args(["-e", "trace=flock"]);
    strace.args(["-e", "inject=flock:error=ENOLCK", "--"]).arg(plain.get_program()).args(plain.get_args());
    strace.env("GIT_SYNC_REPO", s.ours());
    s.run_this(strace).exits(1).says("error").logs("lock");
}

#[test]
fn one_started_under_a_lock_of_the_git_folder_does_not_wait_for_itself() {
    let s = Scene::new();
    let gitsync = s.gitsync(&["sync"]);
    let mut command = s.gitsync(&[] as &[&str]);
    command.env("GIT_SYNC_LOCK_WAIT", "2s");
    let mut line = s.isolated("flock");
    line.arg(s.ours().join(".git")).arg(gitsync.get_program()).arg("sync");
    line.env("GIT_SYNC_REPO", s.ours()).env("GIT_SYNC_LOCK_WAIT", "2s");
    s.run_this(line).exits(0).says("up-to-date");
}

/// The binary where every user may run it.
fn program_for_all(s: &Scene) -> std::path::PathBuf {
    fs::set_permissions(s.root(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where the program was built others may not get to. `cp` writes it: were it open here, it could not be run.
    let program = s.root().join("gitsync");
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_gitsync")).arg(&program).status().unwrap().success());
    program
}

#[needs(root)]
#[test]
fn an_include_that_this_user_may_not_read_is_named_with_its_file() {
    const NOBODY: u32 = 65534;
    let s = Scene::new();
    let program = program_for_all(&s);
    let include = s.root().join("secret.inc");
    fs::write(&include, "[a]\n\tb = c\n").unwrap();
    fs::set_permissions(&include, fs::Permissions::from_mode(0o600)).unwrap();
    s.git_ours(&["config", "include.path", include.to_str().unwrap()]);
    assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(s.ours()).status().unwrap().success());
    for args in [&["init-sync"][..], &["sync"], &["tick", "--", "true"], &["sync", "--dry-run"], &["status"]] {
        let mut command = s.isolated(&program);
        command.args(args).env("GIT_SYNC_REPO", s.ours()).uid(NOBODY).gid(NOBODY);
        s.run_this(command).exits(1).says("error");
        s.logs(&format!("includes {} (include.path)", include.display()))
            .logs(&format!("let this user read {}", include.display()));
        assert!(!s.private().join("broken").exists() && !s.private().join("damaged-config").exists(), "{}", s.last());
    }
}

/// A pass that once ran as another user is what leaves them.
#[needs(root)]
#[test]
fn another_users_lock_and_private_folder_are_named_with_their_owner() {
    const NOBODY: u32 = 65534;
    let s = Scene::new();
    let program = program_for_all(&s);
    let own = |path: &std::path::Path, user: &str| {
        assert!(Command::new("chown").args(["-R", user]).arg(path).status().unwrap().success());
    };
    let as_nobody = |args: &[&str]| {
        let mut command = s.isolated(&program);
        s.run_this({
            command.args(args).env("GIT_SYNC_REPO", s.ours()).uid(NOBODY).gid(NOBODY);
            command
        });
    };
    let said = |path: &std::path::Path, args: &[&str]| {
        as_nobody(args);
        s.exits(1).says("error").logs(&format!("{} belongs to root (uid 0), and this is ", path.display()));
        s.logs(&format!("(uid {NOBODY})"));
    };
    let passes: [&[&str]; 4] = [&["init-sync"], &["sync"], &["tick", "--", "true"], &["sync", "--dry-run"]];
    for pass in passes {
        said(&s.private(), pass);
        s.logs("run every pass as one user: as root (uid 0)").logs(&format!("chown -R {NOBODY}"));
    }
    said(&s.private(), &["status"]);
    s.logs("as the user that runs the passes");
    own(&s.ours(), "65534:65534");
    chown(s.private().join("lock"), Some(0), Some(0)).unwrap();
    fs::set_permissions(s.private().join("lock"), fs::Permissions::from_mode(0o600)).unwrap();
    for pass in passes {
        said(&s.private().join("lock"), pass);
    }
    fs::remove_dir_all(s.private()).unwrap();
    own(&s.ours(), "0:0");
    said(&s.ours().join(".git"), &["sync"]);
}
