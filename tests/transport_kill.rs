//! Ending every program at once, as the watchdog does: alone in its process, since it ends those of other tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod servers;

use gitsync::error::Kind;
use gitsync::process::programs::kill_children;
use servers::{Upstream, open, open_with, options};

#[test]
fn children_can_be_killed_from_another_thread_and_none_starts_after_that() {
    let upstream = Upstream::new();
    let path = upstream.bare().display().to_string();
    assert!(open(&path).tip("refs/heads/main").is_ok());
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let command = format!("mkfifo {0}; cat {0}; :", fifo.display());
    let given = options(&[("GIT_SSH_COMMAND", &command)]);
    let asking =
        std::thread::spawn(move || open_with("ssh://h/r", given, "").tip("refs/heads/main").map_err(|e| e.kind));
    while !fifo.exists() {
        std::thread::yield_now();
    }
    kill_children();
    assert!(asking.join().unwrap().is_err());
    let e = open(&path).tip("refs/heads/main").unwrap_err();
    assert!(e.kind == Kind::Unreachable && e.what.contains("being ended"), "{e:?}");
}
