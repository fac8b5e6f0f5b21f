//! Ends a pass that makes no progress for a minute.
//!
//! The job, the build, the network and the lock have limits of their own. This is for unforeseen waits, such as on a FIFO in the
//! place of a file that libgit2 opens. Progress is measured by the kernel's counters for the thread that runs the pass: it ran, or
//! it was woken up, or it waits for a disk (state D). A thread that sleeps in the same call, sample after sample, makes no progress.
//! So a slow disk or a busy machine is not a stall, and no loop has to report progress.
//!
//! Samples are counted, not time: a process that was stopped, or a machine that slept, only misses samples and is not ended for
//! that. Without `/proc` this guard does not exist; the limit on the whole pass still does.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a pass may make no progress, except in a wait with a limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many samples in a row must show no progress.
const SAMPLES: u32 = 12;

static STEP: Mutex<&str> = Mutex::new("beginning");

/// Sets the current step, as a phrase that can follow "while": "reading the index".
pub fn step(what: &'static str) {
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = what;
}

pub(super) fn current_step() -> &'static str {
    *STEP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watched thread, and the samples so far.
pub(super) struct Stall {
    /// The thread's folder in `/proc`.
    thread: PathBuf,
    every: Duration,
    pub(super) next: Instant,
    last: Option<Counters>,
    /// Samples in a row without progress.
    still: u32,
    /// How many waits with a limit of their own are going on.
    pub(super) excused: u32,
}

/// The kernel's counters for a thread. They grow only while the thread does something.
#[derive(PartialEq, Eq)]
struct Counters {
    processor_time: (u64, u64),
    faults: (u64, u64),
    switches: Vec<u64>,
}

impl Stall {
    /// Watches the calling thread; `None` if the system does not have these counters.
    pub(super) fn of_this_thread(patience: Duration, now: Instant) -> Option<Stall> {
        let thread = Path::new("/proc").join(std::fs::read_link("/proc/thread-self").ok()?);
        let every = patience / SAMPLES;
        Some(Stall { thread, every, next: now + every, last: None, still: 0, excused: 0 })
    }

    /// Takes a sample if one is due. Returns whether there was no progress for so long that the process has to end.
    pub(super) fn has_stalled(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        // A wait for a file to open is never excused: it is a FIFO, for example one met while talking to the remote.
        let counts = self.excused == 0 || self.opening().is_some();
        let asleep = if counts { counters_if_asleep(&self.thread) } else { None };
        self.still = if asleep.is_some() && asleep == self.last { self.still + 1 } else { 0 };
        self.last = asleep;
        self.still >= SAMPLES
    }

    /// If the thread waits in opening a file, the address of the path in our memory. `None` also if the kernel does not tell.
    fn opening(&self) -> Option<u64> {
        let call = std::fs::read_to_string(self.thread.join("syscall")).ok()?;
        let mut words = call.split_ascii_whitespace();
        let argument = match (std::env::consts::ARCH, words.next()?) {
            ("x86_64", "2") => 0,
            ("x86_64", "257" | "437") | ("aarch64", "56" | "437") => 1,
            _ => return None,
        };
        u64::from_str_radix(words.nth(argument)?.trim_start_matches("0x"), 16).ok()
    }

    /// The file that the thread waits to open, if the kernel tells.
    pub(super) fn waits_to_open(&self) -> Option<PathBuf> {
        let at = self.opening()?;
        let memory = std::fs::File::open("/proc/self/mem").ok()?;
        let mut bytes = [0; 4096];
        let count = std::os::unix::fs::FileExt::read_at(&memory, &mut bytes, at).ok()?;
        let path = bytes.get(..count)?.split(|byte| *byte == 0).next()?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
    }
}

/// The counters of a thread that sleeps until something happens; `None` while it runs, waits for a disk, or is stopped.
fn counters_if_asleep(thread: &Path) -> Option<Counters> {
    let stat = std::fs::read_to_string(thread.join("stat")).ok()?;
    // `tid (name) state …`; the name may contain blanks and brackets.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    if *fields.first()? != "S" {
        return None;
    }
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let status = std::fs::read_to_string(thread.join("status")).ok()?;
    let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
    let switches = switches.filter_map(|line| line.rsplit(':').next()?.trim().parse().ok()).collect();
    Some(Counters { processor_time: (number(11)?, number(12)?), faults: (number(7)?, number(9)?), switches })
}
