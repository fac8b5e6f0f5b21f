//! The deadlines of a pass, and the watchdog that ends a pass which exceeds them.
//!
//! The rule: no pass outlives its deadlines by more than ten seconds, whatever hangs. In ordinary trouble the time-outs inside
//! the steps are enough. But they don't cover a name lookup that never answers, a file system that hangs, or a stderr that
//! nobody reads. So one thread watches from outside, and ends the process when a step has taken too long. It may do so at any
//! moment, because every step of a pass may be killed: the next pass finishes it, exactly as after a power cut.
//!
//! The same thread handles signals, since they also end the process. A running job is ended first, so that no process is left
//! behind. One function, given at the start, reports why the process ends.

mod stall;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::clock::instant;
use stall::Stall;
pub use stall::{PATIENCE, step};

/// How long a step may exceed its limit before the process is ended: long enough for the step's own time-out to act first, and
/// together with [`LAST_WORDS`] less than ten seconds.
pub const OVERSTAY: Duration = Duration::from_secs(5);

/// How long reporting the end may take before the process is killed: a stderr that nobody reads would otherwise keep the pass
/// alive for ever.
pub const LAST_WORDS: Duration = Duration::from_secs(4);

/// The stack of each thread that is started, in bytes. It is std's default, given explicitly so that no environment variable
/// changes it.
pub const STACK: usize = 2 << 20;

/// The stack that a pass needs, in bytes.
pub const PASS_STACK: usize = 8 << 20;

/// Why the process has to end now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// This signal asked for it. A running job has been ended before.
    Signal(i32),
    /// A step did not end in time, nor within [`OVERSTAY`] after that.
    Overstayed {
        /// The step, as a phrase: "the fetch from origin".
        waiting_for: String,
    },
    /// The pass made no progress for [`PATIENCE`], and was not in a wait with a limit of its own.
    Stalled {
        /// The step, as a phrase that can follow "while", with the file that it waits for if that is known.
        step: String,
    },
}

/// The watchdog. There is one per process; clones share it.
#[derive(Clone)]
pub struct Watch(Arc<Inner>);

struct Inner {
    slack: Duration,
    /// The signal that asked us to end, 0 for none. Written in signal context, hence an atomic and not part of `state`.
    signal: Arc<AtomicUsize>,
    /// A byte written here makes the thread look at everything again.
    bell: UnixStream,
    state: Mutex<State>,
    ended: Condvar,
    on_end: Box<dyn Fn(End) + Send + Sync>,
}

type Kill = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    next: u64,
    limits: BTreeMap<u64, (Instant, String)>,
    kills: BTreeMap<u64, Kill>,
    job: Option<RunningJob>,
    stall: Option<Stall>,
    phase: Phase,
}

#[derive(Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Watching,
    Ending,
    Ended,
}

struct RunningJob {
    bell: UnixStream,
    grace: Duration,
    /// Set when a signal has come: the job has been told to end, and has time until then.
    end_by: Option<Instant>,
}

impl Watch {
    /// Starts the thread that waits for SIGTERM, SIGINT and SIGHUP and for the armed limits.
    ///
    /// `on_end` is called on a thread of its own when the process has to end now, and should end it. The functions registered
    /// with [`Watch::on_kill`] are called before. If `on_end` hangs or panics, the process is killed after [`LAST_WORDS`]. A
    /// signal that was already ignored when this process was started (`nohup`, a shell's `&`) stays ignored.
    ///
    /// # Errors
    /// If the signals can't be caught or the thread can't be started.
    pub fn start(on_end: impl Fn(End) + Send + Sync + 'static) -> io::Result<Watch> {
        Watch::start_with(OVERSTAY, on_end)
    }

    /// [`Watch::start`] with another slack than [`OVERSTAY`].
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn start_with(slack: Duration, on_end: impl Fn(End) + Send + Sync + 'static) -> io::Result<Watch> {
        let (listening, bell) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let signal = Arc::new(AtomicUsize::new(0));
        let ignored = ignored_from_the_start();
        for number in [SIGTERM, SIGINT, SIGHUP] {
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            // The order matters: when the thread wakes up, the number must be there already.
            signal_hook::flag::register_usize(number, Arc::clone(&signal), usize::try_from(number).unwrap_or(0))?;
            signal_hook::low_level::pipe::register(number, bell.try_clone()?)?;
        }
        let inner = Arc::new(Inner {
            slack,
            signal,
            bell,
            state: Mutex::default(),
            ended: Condvar::new(),
            on_end: Box::new(on_end),
        });
        let watched = Arc::clone(&inner);
        thread::Builder::new()
            .name("gitsync-watch".into())
            .stack_size(STACK)
            .spawn(move || watch_loop(&watched, listening))?;
        Ok(Watch(inner))
    }

    /// Arms a limit for a step that may take until `at`. [`OVERSTAY`] after that the process is ended. Dropping the limit disarms
    /// it. `what` is a phrase that can follow "while waiting for", such as "the fetch from origin".
    #[must_use = "dropping the limit disarms it"]
    pub fn limit(&self, what: impl Into<String>, at: Instant) -> Limit {
        self.limit_exactly(what, at + self.0.slack)
    }

    /// Like [`Watch::limit`], but the process is ended at `at`, which includes any slack.
    #[must_use = "dropping the limit disarms it"]
    pub fn limit_exactly(&self, what: impl Into<String>, at: Instant) -> Limit {
        let mut state = self.0.state();
        let id = state.fresh();
        state.limits.insert(id, (at, what.into()));
        drop(state);
        self.0.ring();
        Limit { watch: self.clone(), id }
    }

    /// From now on the process is ended if the calling thread makes no progress for `patience` ([`PATIENCE`] except in tests).
    pub fn guard_this_thread(&self, patience: Duration) {
        self.0.state().stall = Stall::of_this_thread(patience, instant());
        self.0.ring();
    }

    /// Until the returned value is dropped, the pass waits for something that has a limit of its own, and a lack of progress does
    /// not count as a stall.
    #[must_use = "dropping it ends the excuse"]
    pub fn excuse(&self) -> Excused {
        if let Some(stall) = &mut self.0.state().stall {
            stall.excused += 1;
        }
        Excused { watch: self.clone() }
    }

    /// Registers a function that ends a child or a process group before this process ends. Dropping the returned value removes it.
    /// `kill` runs on another thread, must not wait for long, and may be called after the child has ended.
    #[must_use = "dropping it forgets what was to be killed"]
    pub fn on_kill(&self, kill: Box<dyn Fn() + Send + Sync>) -> OnKill {
        let mut state = self.0.state();
        let id = state.fresh();
        state.kills.insert(id, Arc::from(kill));
        OnKill { watch: self.clone(), id }
    }

    /// The signal that asked this process to end, if any did.
    #[must_use]
    pub fn asked_to_end(&self) -> Option<i32> {
        match self.0.signal.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    /// If a signal has asked this process to end, this does not return: the error of a step whose programs were just killed is not
    /// the result of the pass. (It returns only if `on_end` does, as in tests.)
    pub fn end_if_asked(&self) {
        if self.asked_to_end().is_some() {
            self.0.ring();
            self.0.wait_for_the_end();
        }
    }

    /// To be called before a job is started. From now on a signal writes to `bell` instead of ending the process; the process then
    /// ends when the returned value is dropped, or at the latest after `grace` and the slack. Returns `None` if the process is
    /// already ending: the caller must not start anything.
    pub(crate) fn job_begins(&self, bell: UnixStream, grace: Duration) -> Option<JobRuns> {
        let mut state = self.0.state();
        if self.asked_to_end().is_some() || state.phase != Phase::Watching {
            drop(state);
            self.0.ring();
            self.0.wait_for_the_end();
            return None;
        }
        state.job = Some(RunningJob { bell, grace, end_by: None });
        Some(JobRuns { watch: self.clone() })
    }
}

/// An armed limit; see [`Watch::limit`].
#[must_use = "dropping the limit disarms it"]
pub struct Limit {
    watch: Watch,
    id: u64,
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.watch.0.state().limits.remove(&self.id);
    }
}

/// A wait that has a limit of its own; see [`Watch::excuse`].
#[must_use = "dropping it ends it"]
pub struct Excused {
    watch: Watch,
}

impl Drop for Excused {
    fn drop(&mut self) {
        if let Some(stall) = &mut self.watch.0.state().stall {
            stall.excused = stall.excused.saturating_sub(1);
        }
    }
}

/// A function to be called before the process ends; see [`Watch::on_kill`].
#[must_use = "dropping it forgets what was to be killed"]
pub struct OnKill {
    watch: Watch,
    id: u64,
}

impl Drop for OnKill {
    fn drop(&mut self) {
        self.watch.0.state().kills.remove(&self.id);
    }
}

/// A job is running; see [`Watch::job_begins`].
pub(crate) struct JobRuns {
    watch: Watch,
}

impl Drop for JobRuns {
    /// If a signal is waiting this does not return: the job has ended, so the process ends now.
    fn drop(&mut self) {
        self.watch.0.state().job = None;
        self.watch.end_if_asked();
    }
}

impl State {
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

enum Step {
    Wait(Option<Instant>),
    End(End, Vec<Kill>),
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not stop the watchdog. The state is consistent even then: every change is one statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A full pipe already means "look again".
        let _ = (&self.bell).write(&[0]);
    }

    fn wait_for_the_end(&self) {
        let state = self.state();
        drop(self.ended.wait_while(state, |state| state.phase != Phase::Ended));
    }

    fn look(&self) -> Step {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = instant();
        let mut end = None;
        let mut next = None;
        let signal = i32::try_from(self.signal.load(Ordering::SeqCst)).unwrap_or(0);
        if signal != 0 {
            match &mut state.job {
                None => end = Some(End::Signal(signal)),
                Some(job) => {
                    let end_by = *job.end_by.get_or_insert_with(|| {
                        let _ = (&job.bell).write(&[0]);
                        now + job.grace + self.slack
                    });
                    next = Some(end_by);
                    if end_by <= now {
                        end = Some(End::Signal(signal));
                    }
                }
            }
        }
        if let Some((at, what)) = state.limits.values().min_by_key(|(at, _)| *at) {
            if *at <= now {
                end.get_or_insert_with(|| End::Overstayed { waiting_for: what.clone() });
            }
            next = Some(next.map_or(*at, |next: Instant| next.min(*at)));
        }
        if let Some(stall) = &mut state.stall {
            if stall.has_stalled(now) {
                let file = stall.waits_to_open().map(|file| format!(", waiting to open {}", file.display()));
                let step = format!("{}{}", stall::current_step(), file.unwrap_or_default());
                end.get_or_insert(End::Stalled { step });
            }
            next = Some(next.map_or(stall.next, |next: Instant| next.min(stall.next)));
        }
        match end {
            None => Step::Wait(next),
            Some(end) => {
                state.phase = Phase::Ending;
                Step::End(end, state.kills.values().cloned().collect())
            }
        }
    }

    fn end(self: &Arc<Self>, end: End, kills: Vec<Kill>) {
        let (done, waiting) = mpsc::channel();
        let inner = Arc::clone(self);
        let last_words = thread::Builder::new().name("gitsync-end".into()).stack_size(STACK).spawn(move || {
            for kill in kills {
                kill();
            }
            (inner.on_end)(end);
            let _ = done.send(());
        });
        if last_words.is_err() || waiting.recv_timeout(LAST_WORDS).is_err() {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        self.state().phase = Phase::Ended;
        self.ended.notify_all();
    }
}

fn watch_loop(inner: &Arc<Inner>, mut listening: UnixStream) {
    loop {
        let wait = match inner.look() {
            Step::End(end, kills) => return inner.end(end, kills),
            Step::Wait(until) => until.map(|until| until.saturating_duration_since(instant())),
        };
        // A time-out of zero is not allowed.
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        if listening.set_read_timeout(wait).is_err() || matches!(listening.read(&mut [0; 64]), Ok(0)) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The signals that were ignored when this process was started, as a bit set; the lowest bit is signal 1. Known on Linux only;
/// elsewhere the set is empty.
fn ignored_from_the_start() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
