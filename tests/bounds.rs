//! What ends a pass that makes no progress, and what a pass can do with less than usual: a small stack, a `close` that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod scene;
mod servers;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gitsync::watchdog::{End, Watch, step};
use needs::needs;
use scene::Scene;
use servers::http::HttpServer;

const PATIENCE: Duration = Duration::from_millis(600);

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A watch whose end is told instead of ending this process.
fn watch() -> (Watch, mpsc::Receiver<End>) {
    let (tell, told) = mpsc::channel();
    let watch = Watch::start_with(Duration::ZERO, move |end| tell.send(end).unwrap()).unwrap();
    (watch, told)
}

/// Opens a FIFO, which waits for the other end, until `told` says something or `most` is over. What it said.
fn hang_in(path: &Path, watch: &Watch, told: &mpsc::Receiver<End>, most: Duration) -> Option<End> {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            watch.guard_this_thread(PATIENCE);
            step("opening what is a FIFO");
            fs::read(path).unwrap();
        });
        let end = told.recv_timeout(most).ok();
        // The other end, once somebody is there: or this would wait in its turn.
        drop(fs::OpenOptions::new().write(true).open(path).unwrap());
        end
    })
}

#[test]
fn a_thread_that_hangs_in_one_call_is_ended_and_the_step_and_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    fifo(&path);
    let (watch, told) = watch();
    let began = Instant::now();
    let end = hang_in(&path, &watch, &told, Duration::from_secs(20)).expect("nothing ended it");
    assert!(began.elapsed() >= PATIENCE, "sooner than it may: {:?}", began.elapsed());
    let End::Stalled { step } = end else { panic!("{end:?}") };
    assert!(step.starts_with("opening what is a FIFO"), "{step}");
    assert!(step.ends_with(&format!("waiting to open {}", path.display())), "{step}");
}

#[test]
fn what_has_a_limit_of_its_own_is_not_ended() {
    let (watch, told) = watch();
    watch.guard_this_thread(PATIENCE);
    let limited = watch.excuse();
    assert_eq!(told.recv_timeout(PATIENCE * 3).ok(), None);
    drop(limited);
    // The same wait without one.
    assert!(told.recv_timeout(Duration::from_secs(20)).is_ok());
}

#[test]
fn a_file_that_does_not_open_is_none_that_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    fifo(&path);
    let (watch, told) = watch();
    let opens = std::thread::scope(|scope| {
        scope.spawn(|| {
            watch.guard_this_thread(PATIENCE);
            let _limited = watch.excuse();
            fs::read(&path).unwrap();
        });
        let end = told.recv_timeout(Duration::from_secs(20)).ok();
        drop(fs::OpenOptions::new().write(true).open(&path).unwrap());
        end
    });
    assert!(matches!(opens, Some(End::Stalled { .. })), "{opens:?}");
}

#[test]
fn what_goes_on_slowly_is_not_ended() {
    let (watch, told) = watch();
    watch.guard_this_thread(PATIENCE);
    // As a slow disk lets it: each call waits, and comes back.
    let began = Instant::now();
    while began.elapsed() < PATIENCE * 3 {
        std::thread::sleep(PATIENCE / 30);
    }
    // As a large history does: no call at all.
    let began = Instant::now();
    while began.elapsed() < PATIENCE * 3 {
        std::hint::spin_loop();
    }
    assert_eq!(told.try_recv().ok(), None);
}

/// Which calls of `close` of a run end the reading of a folder, counted from 1.
fn closes_of_folders(s: &Scene, args: &[&str]) -> Vec<usize> {
    let trace = s.root().join("trace");
    let mut strace = s.isolated("strace");
    strace.args(["-q", "-e", "trace=close,getdents64", "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_gitsync")).args(args);
    s.run_this(strace.repo(s)).exits(0);
    let (mut count, mut found, mut read) = (0, Vec::new(), String::new());
    for line in fs::read_to_string(trace).unwrap().lines() {
        let fd = |start: &str| line.strip_prefix(start).map(|rest| rest.split([',', ')']).next().unwrap().to_owned());
        if let Some(fd) = fd("getdents64(") {
            read = fd;
        } else if let Some(fd) = fd("close(") {
            count += 1;
            if fd == read {
                found.push(count);
                read.clear();
            }
        }
    }
    found
}

trait InRepo {
    fn repo(self, s: &Scene) -> Command;
}

impl InRepo for Command {
    fn repo(mut self, s: &Scene) -> Command {
        self.env("GIT_SYNC_REPO", s.ours()).env("GIT_SYNC_NETWORK_TIMEOUT", "10s");
        self
    }
}

#[needs(strace)]
#[test]
fn a_close_that_fails_is_no_panic() {
    // Over http: a program whose pipe is not closed would be waited for.
    let s = Scene::without_ours();
    let server = HttpServer::over(s.root(), false);
    fs::create_dir(s.ours()).unwrap();
    s.run(&["init-sync", "--remote-url", &format!("{}/upstream.git", server.origin())]).exits(0);
    for args in [&["sync"][..], &["init-sync"], &["tick", "--", "true"], &["status"]] {
        let folders = closes_of_folders(&s, args);
        assert!(!folders.is_empty(), "{args:?} reads no folder");
        // Each alone, and all at once.
        let all_from_the_first = format!("{}+", folders[0]);
        for when in folders.iter().map(usize::to_string).chain([all_from_the_first]) {
            let mut strace = s.isolated("strace");
            strace.args([
                "-q",
                "-o",
                "/dev/null",
                "-e",
                "trace=close",
                "-e",
                &format!("inject=close:error=EIO:when={when}"),
            ]);
            strace.arg(env!("CARGO_BIN_EXE_gitsync")).args(args);
            s.run_this(strace.repo(&s));
            let last = s.last();
            assert!(last.code.is_some_and(|code| ![101, 127].contains(&code)), "close {when} of {args:?}: {last}");
            assert!(!last.stderr.contains("panicked"), "close {when} of {args:?}: {last}");
        }
    }
    s.sync().exits(0).says("up-to-date").fsck();
}

#[test]
fn a_stack_of_64_kib_is_enough() {
    let s = Scene::without_ours();
    fs::create_dir(s.ours()).unwrap();
    let deep: String = (0..90).map(|n| format!("d{n}/")).collect();
    s.rival_writes(&format!("state/{deep}file"), "deep\n");
    s.rival_commits("deep");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.git_upstream(&["config", "http.receivepack", "true"]);
    // Over http: git itself, which would serve a path under the same limit, does die of it.
    let server = HttpServer::over(s.root(), false);
    let url = format!("{}/upstream.git", server.origin());
    let small = |args: &[&str]| {
        let mut line = s.isolated("sh");
        let gitsync = env!("CARGO_BIN_EXE_gitsync");
        line.args(["-c", &format!("ulimit -s 64; exec {gitsync} \"$@\""), "sh"]).args(args);
        s.run_this(line.repo(&s));
    };
    small(&["init-sync", "--remote-url", &url]);
    s.exits(0).says("cloned").ours_equals_upstream();
    small(&["sync"]);
    s.exits(0).says("up-to-date");
    s.rival_pushes(&format!("state/{deep}news.txt"));
    small(&["sync"]);
    s.exits(0).says("behind").ours_equals_upstream();
    small(&["tick", "--", "sh", "-c", &format!("mkdir -p state/x/{deep}; date > state/x/{deep}mine")]);
    s.exits(0).says("pushed").ours_equals_upstream();
    small(&["status"]);
    s.exits(0);
    small(&["--help"]);
    s.exits(0);
    small(&["no-such-thing"]);
    s.exits(2);
}
