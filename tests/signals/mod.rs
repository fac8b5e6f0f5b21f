//! Signals reach what a test starts, however the tests themselves were started.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A shell starts what it runs in the background with SIGINT ignored, `nohup` with SIGHUP, and gitsync leaves an ignored
/// signal ignored. A signal that has a handler here is at its default in every child.
pub fn are_heard_by_children() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let always = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always).unwrap();
        }
    });
}
