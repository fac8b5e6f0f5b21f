//! The time a pass has, and the watchdog that ends one which overstays.
//!
//! The rule: no pass outlives its deadlines by more than ten seconds, whatever hangs. Time-outs inside the steps do the
//! work in all ordinary trouble; but nothing inside a step covers a name lookup that never answers, a file system that
//! sleeps, or a stderr nobody reads. So one thread stands outside of all steps and ends the process when a step has
//! overstayed. It may do so at any moment because every step of a pass is safe to be killed in: a pass that is ended here
//! is finished by the next one, exactly as after a power cut.
//!
//! Signals come through the same thread, since they ask for the same thing. A job that runs is ended first, so that no
//! process is left behind, and the reason why the process ends is told by one function, given at the start.

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

/// How long a step may stay beyond its limit before the process is ended: long enough for the step's own time-out to act
/// first, and together with [`LAST_WORDS`] below ten seconds.
pub const OVERSTAY: Duration = Duration::from_secs(5);

/// How long the last words may take before the process is killed without them: a stderr nobody reads would otherwise
/// keep the pass alive for ever.
pub const LAST_WORDS: Duration = Duration::from_secs(4);

/// The stack of each thread that is started, in bytes: what std takes by default, said so that no setting changes it.
pub const STACK: usize = 2 << 20;

/// The stack that a pass needs, in bytes.
pub const PASS_STACK: usize = 8 << 20;

/// Why the process must end now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// This signal asked for it. Whatever had to be ended first has been.
    Signal(i32),
    /// A step did not come to its end in time, nor by itself within [`OVERSTAY`] after that.
    Overstayed {
        /// The step, as a phrase: "the fetch from origin".
        waiting_for: String,
    },
    /// The pass made no progress for [`PATIENCE`], outside of what has a limit of its own.
    Stalled {
        /// In which step, as a phrase that can follow "while", with the file that it waits for where that is known.
        step: String,
    },
}

/// The watchdog. One per process; a clone is the same watch.
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
    /// Set when a signal has come: the job has been told, and has until then.
    end_by: Option<Instant>,
}

impl Watch {
    /// Starts the thread that waits for SIGTERM, SIGINT and SIGHUP and for the armed limits.
    ///
    /// `on_end` is called on a thread of its own when the process must end now, and is expected to end it. What is
    /// registered with [`Watch::on_kill`] has been called by then. Where `on_end` hangs or panics, the process is killed
    /// [`LAST_WORDS`] later. A signal that whoever started us had ignored (`nohup`, a shell's `&`) stays ignored.
    ///
    /// # Errors
    /// When the signals cannot be caught or the thread cannot be started.
    pub fn start(on_end: impl Fn(End) + Send + Sync + 'static) -> io::Result<Watch> {
        Watch::start_with(OVERSTAY, on_end)
    }

    /// [`Watch::start`] with another patience than [`OVERSTAY`].
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
            // The order matters: by the time the thread wakes, the number is there.
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
            .spawn(move || stand_watch(&watched, listening))?;
        Ok(Watch(inner))
    }

    /// Arms a limit for what may take until `at`; dropping it disarms. `what` is a phrase that can follow "waited too
    /// long for": "the fetch from origin". [`OVERSTAY`] after `at` the process is ended.
    #[must_use = "dropping the limit disarms it"]
    pub fn limit(&self, what: impl Into<String>, at: Instant) -> Limit {
        self.limit_exactly(what, at + self.0.slack)
    }

    /// Like [`Watch::limit`], for a step that has counted its own slack in.
    #[must_use = "dropping the limit disarms it"]
    pub fn limit_exactly(&self, what: impl Into<String>, at: Instant) -> Limit {
        let mut state = self.0.state();
        let id = state.fresh();
        state.limits.insert(id, (at, what.into()));
        drop(state);
        self.0.ring();
        Limit { watch: self.clone(), id }
    }

    /// From now on the process is ended where the thread that calls this makes no progress for `patience` ([`PATIENCE`] but for
    /// tests).
    pub fn guard_this_thread(&self, patience: Duration) {
        self.0.state().stall = Stall::of_this_thread(patience, instant());
        self.0.ring();
    }

    /// What is waited for until the answer is dropped has a limit of its own: no progress is no stall meanwhile.
    #[must_use = "dropping the answer ends it"]
    pub fn excuse(&self) -> Excused {
        if let Some(stall) = &mut self.0.state().stall {
            stall.excused += 1;
        }
        Excused { watch: self.clone() }
    }

    /// Registers what must be ended before the process is: a child, a process group. Dropping the answer forgets it.
    /// `kill` runs on another thread, must not wait for long, and may be called although the thing has ended meanwhile.
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

    /// With a signal waiting this does not return: what a step says when its programs were ended under it is not what the
    /// pass has to say. (It returns where `on_end` does, which only tests do.)
    pub fn end_if_asked(&self) {
        if self.asked_to_end().is_some() {
            self.0.ring();
            self.0.wait_for_the_end();
        }
    }

    /// Says that a job is about to run: from now on a signal rings `bell` instead of ending the process, and the process
    /// ends when the answer is dropped, or when `grace` and the overstay have gone by. With the process already being
    /// ended there is no answer; the caller must start nothing.
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

/// Something with a limit of its own is under way; see [`Watch::excuse`].
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

/// Something to be killed before the process ends; see [`Watch::on_kill`].
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
    /// With a signal waiting this does not return: the job is gone, now the process goes.
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
        // A panic elsewhere must not take the watchdog with it, and every change of the state is one statement.
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

fn stand_watch(inner: &Arc<Inner>, mut listening: UnixStream) {
    loop {
        let wait = match inner.look() {
            Step::End(end, kills) => return inner.end(end, kills),
            Step::Wait(until) => until.map(|until| until.saturating_duration_since(instant())),
        };
        // A time-out of zero would mean none at all.
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        if listening.set_read_timeout(wait).is_err() || matches!(listening.read(&mut [0; 64]), Ok(0)) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The signals that this process was started with ignored, as a set of bits, that of signal 1 the lowest. Linux tells;
/// elsewhere there are none.
fn ignored_from_the_start() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
