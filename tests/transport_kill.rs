//! Ending every program at once, as the watchdog does: alone in its process, since it ends those of other tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod servers;

use gitsync::transport::kill_children;
use servers::{open_with, options};

#[test]
fn children_can_be_killed_from_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let command = format!("mkfifo {0}; cat {0}; :", fifo.display());
    let given = options(&[("GIT_SSH_COMMAND", &command)]);
    let asking =
        std::thread::spawn(move || open_with("ssh://h/r", given, "").tip("refs/heads/main").map_err(|e| e.kind));
    while !asking.is_finished() {
        kill_children();
        std::thread::yield_now();
    }
    assert!(asking.join().unwrap().is_err());
}
