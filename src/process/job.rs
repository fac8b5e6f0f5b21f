//! Runs a command with a deadline, in its own process group, and leaves no process of it behind.
//!
//! The job and the build are other people's programs: they may hang, fork, ignore signals, or print for ever. For all of them:
//! the pass goes on when the command has ended, or its time is up and at most [`GRACE`] has passed. By then no process that it
//! started is running, not even one that left the process group or the session. Its output is logged line by line while it
//! runs, and is not collected in memory.
//!
//! This differs from `Command::output` in three ways:
//!
//! - We wait for the *exit*, never for the end of the output. A grandchild that inherited the pipe may keep it open for ever.
//! - On Linux this process is a subreaper while a job runs. A descendant whose parent died becomes our child instead of init's,
//!   and we find it in `/proc`.
//! - The job inherits an open, locked file on purpose. If this process is killed, its own lock on the repository is freed at once
//!   while the job still writes. The lock on the inherited file tells the next pass that the job is still running.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGTERM};

use super::orphans::{JobLock, system};
use super::output::Lines;
use crate::clock::instant;
use crate::error::Error;
use crate::process::group::{Family, KILL_TAKES, Subreaper, name_them};
use crate::process::programs::Programs;
use crate::watchdog::Watch;

pub use super::orphans::{GRACE, MARK, end_orphans, end_orphans_within};

/// How long processes that the command started may take to end by themselves after the command has ended: the last program of a
/// pipeline, a `tee` in a process substitution.
const LINGER: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The program and its arguments, as given.
    Argv(Vec<OsString>),
    /// A command line for `sh -c`.
    Shell(String),
}

/// A command, its environment and its limits.
#[derive(Clone)]
pub struct Job<'a> {
    /// Its name in the log: `job` or `build`.
    pub label: &'static str,
    /// What to run.
    pub program: Program,
    /// Its current folder.
    pub dir: &'a Path,
    /// Variables added to our own environment.
    pub env: Vec<(OsString, OsString)>,
    /// Variables not passed on.
    pub env_remove: Vec<OsString>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long it has to end after it was asked to; [`GRACE`] except in tests.
    pub grace: Duration,
    /// The private folder of the repository, which must exist: `job.lock` is created there.
    pub private_dir: &'a Path,
    /// Tells us to end early.
    pub watch: &'a Watch,
    /// Removes secrets from a line before it is logged.
    pub redact: Option<&'a dyn Fn(&str) -> String>,
}

impl<'a> Job<'a> {
    /// A command with our environment, the usual [`GRACE`] and nothing redacted.
    #[must_use]
    pub fn new(
        label: &'static str,
        program: Program,
        dir: &'a Path,
        timeout: Duration,
        private_dir: &'a Path,
        watch: &'a Watch,
    ) -> Job<'a> {
        let (env, env_remove, redact) = (Vec::new(), Vec::new(), None);
        Job { label, program, dir, env, env_remove, timeout, grace: GRACE, private_dir, watch, redact }
    }
}

/// How a command ended. In each case none of its processes is running any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that did not come from us.
    Signalled(i32),
    /// We ended it because its time was up.
    TimedOut {
        /// The time it had.
        after: Duration,
    },
    /// We ended it because gitsync itself was asked to end.
    Stopped {
        /// The signal gitsync got.
        signal: i32,
    },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(0) => write!(f, "succeeded"),
            Ended::Exited(code) => write!(f, "exited with status {code}"),
            Ended::Signalled(signal) => write!(f, "was ended by {}", signal_name(*signal)),
            Ended::TimedOut { after } => {
                write!(f, "was ended because it took longer than {}", humantime::format_duration(*after))
            }
            Ended::Stopped { signal } => {
                write!(f, "was ended because gitsync was asked to end by {}", signal_name(*signal))
            }
        }
    }
}

/// A signal's name, such as `SIGTERM`, or `signal 42` if it has none.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// A subreaper adopts all orphans among its descendants, and SIGCHLD is for the whole process: two jobs at the same time could not
/// tell their descendants apart. A pass runs one after the other anyway. Nothing else may start a child while one is running.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs the command to its end. Its output goes to the log line by line (target `gitsync::output`, fields `from` and `stream`); its
/// input is empty.
///
/// When its time is up or the watch was asked to end, its whole process group and every descendant get SIGTERM and,
/// `grace` later, SIGKILL. Processes that it leaves running when it exits by itself are named in a warning and ended the same way.
/// If the watch was asked to end, this returns only if `on_end` does.
///
/// # Errors
/// If the command is empty or could not be started, or if a job of an earlier gitsync is still running.
pub fn run(job: &Job<'_>) -> Result<Ended, Error> {
    let mut command = command(job)?;
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let (listening, bell) = UnixStream::pair().map_err(system("make a pair of sockets"))?;
    for end in [&listening, &bell] {
        end.set_nonblocking(true).map_err(system("set up a socket"))?;
    }
    let copy = || bell.try_clone().map_err(system("copy a socket"));
    let Some(runs) = job.watch.job_begins(copy()?, job.grace) else {
        return Ok(Ended::Stopped { signal: job.watch.asked_to_end().unwrap_or(SIGTERM) });
    };
    let deadline = instant() + job.timeout;
    let last = deadline + job.grace + KILL_TAKES + Duration::from_secs(1);
    let limit = (job.watch.limit_exactly(format!("the {}", job.label), last), job.watch.excuse());

    let _child_signals = ChildSignals::to(copy()?).map_err(system("watch for the end of child processes"))?;
    let subreaper = Subreaper::become_one();
    let lock = JobLock::take(job.private_dir, job.label)?;
    command.env(MARK, lock.mark());
    let (stdout, far_end) = pipe()?;
    command.stdout(far_end);
    let (stderr, far_end) = pipe()?;
    command.stderr(far_end);

    // From the spawn on, the watch can at no moment end this process and leave the job running.
    let programs = Arc::new(Programs::new());
    let to_kill = Arc::clone(&programs);
    let on_kill = job.watch.on_kill(Box::new(move || to_kill.kill()));
    let started = programs.start(&mut command, true, |command| lock.hand_down(|| command.spawn()));
    let Some((mut child, family)) = started.map_err(|error| not_started(job, &command, &error))? else {
        return Ok(Ended::Stopped { signal: job.watch.asked_to_end().unwrap_or(SIGTERM) });
    };
    // The command holds the write ends of the pipes. While they are open, the output does not end.
    drop(command);

    let stream = |name, pipe| Stream { pipe: Some(pipe), lines: Lines::new(job.label, name, job.redact) };
    let supervision = Supervision {
        job,
        family: &family,
        deadline,
        listening,
        streams: [stream("stdout", stdout), stream("stderr", stderr)],
    };
    let (exited, forced) = supervision.run();

    // The process id of the leader, which is also that of the group, is safe to use only until the leader is reaped.
    programs.forget_if(&family, || true);
    let left = family.alive();
    let status = if exited { child.wait().ok() } else { None };
    family.reap_adopted();
    if left.is_empty() {
        lock.clear();
    } else {
        tracing::warn!(target: "gitsync::job", from = job.label,
            "the {} left processes that could not be ended: {}", job.label, name_them(&left));
    }
    drop((on_kill, subreaper, limit));
    let ended = forced.unwrap_or_else(|| match status {
        Some(status) => status.code().map_or_else(|| Ended::Signalled(status.signal().unwrap_or(0)), Ended::Exited),
        None => Ended::Signalled(signal_hook::consts::SIGKILL),
    });
    drop(runs);
    Ok(ended)
}

/// A pipe: our end, which does not block, and the command's.
fn pipe() -> Result<(io::PipeReader, io::PipeWriter), Error> {
    let (ours, far_end) = io::pipe().map_err(system("make a pipe"))?;
    rustix::io::ioctl_fionbio(&ours, true).map_err(|error| system("set up a pipe")(error.into()))?;
    Ok((ours, far_end))
}

fn command(job: &Job<'_>) -> Result<Command, Error> {
    let empty = || {
        let next = format!("give the {} a program to run", job.label);
        Error::person(format!("the {} command is empty", job.label), next)
    };
    let mut command = match &job.program {
        Program::Shell(line) if line.trim().is_empty() => return Err(empty()),
        Program::Shell(line) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(line);
            command
        }
        Program::Argv(argv) => {
            let Some((program, arguments)) = argv.split_first().filter(|(program, _)| !program.is_empty()) else {
                return Err(empty());
            };
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
    };
    for name in &job.env_remove {
        command.env_remove(name);
    }
    command.envs(job.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(job.dir).stdin(Stdio::null());
    Ok(command)
}

/// Why the command could not be started, and what to do about that.
fn not_started(job: &Job<'_>, command: &Command, error: &io::Error) -> Error {
    let (name, dir) = (Path::new(command.get_program()), job.dir);
    let is_path = name.components().count() > 1;
    // A path is relative to the folder that the command runs in.
    let path = if is_path { dir.join(name).components().collect() } else { name.to_owned() };
    let (program, path) = (name.display(), path.as_path());
    let is_line = command.get_args().len() == 0 && program.to_string().contains(char::is_whitespace);
    let (why, next) = match error.kind() {
        _ if !dir.is_dir() => {
            (format!("its folder {} does not exist", dir.display()), "check whether it was moved or removed".to_owned())
        }
        io::ErrorKind::NotFound if is_path && path.exists() => (
            format!("the interpreter of {} was not found{}", path.display(), first_line(path)),
            "install it, or correct the first line of the file".to_owned(),
        ),
        io::ErrorKind::NotFound if is_line => (
            format!("no program `{program}` was found"),
            "after -- come a program and its arguments, each as a word of its own; for a shell command line use \
             --tick-command, or -- sh -c 'LINE'"
                .to_owned(),
        ),
        io::ErrorKind::NotFound if is_path => (
            format!("there is no {}", path.display()),
            format!("check its spelling; a path is relative to the repository, {}", dir.display()),
        ),
        io::ErrorKind::NotFound => (
            format!("no program `{program}` was found in PATH"),
            format!("check its spelling and PATH; a program in the repository is ./{program}"),
        ),
        io::ErrorKind::PermissionDenied => {
            (format!("{} may not be executed", path.display()), format!("make it executable: chmod +x {program}"))
        }
        io::ErrorKind::ArgumentListTooLong => {
            (format!("`{program}`: {error}"), "shorten its arguments and the environment".to_owned())
        }
        _ => (
            format!("`{program}`: {error}"),
            "check what kind of file it is; a script starts with #! and its interpreter".to_owned(),
        ),
    };
    Error::person(format!("the {} could not be started: {why}", job.label), next)
}

/// A script's first line in brackets, if it names an interpreter.
fn first_line(script: &Path) -> String {
    let text = crate::fs::files::read(script).unwrap_or_default();
    let line = text.split(|byte| *byte == b'\n').next().filter(|line| line.starts_with(b"#!") && line.len() < 200);
    line.map(|line| format!(" ({})", String::from_utf8_lossy(line).trim_end())).unwrap_or_default()
}

/// While this exists, SIGCHLD writes to a socket, which wakes the loop of [`Supervision`].
struct ChildSignals(SigId);

impl ChildSignals {
    fn to(bell: UnixStream) -> io::Result<ChildSignals> {
        signal_hook::low_level::pipe::register(SIGCHLD, bell).map(ChildSignals)
    }
}

impl Drop for ChildSignals {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.0);
    }
}

/// Supervises a job from its start until none of its processes is left.
struct Supervision<'a> {
    job: &'a Job<'a>,
    family: &'a Family,
    deadline: Instant,
    listening: UnixStream,
    streams: [Stream<'a>; 2],
}

/// One of the command's two outputs.
struct Stream<'a> {
    /// `None` after end of file.
    pipe: Option<io::PipeReader>,
    lines: Lines<'a>,
}

enum Phase {
    /// The command itself is running.
    Running,
    /// It has ended; the processes that it started have a moment to end too.
    Lingering { until: Instant },
    /// All were sent SIGTERM.
    Asked { until: Instant },
    /// All were sent SIGKILL.
    Killed { until: Instant },
}

impl Supervision<'_> {
    /// Returns whether the command has ended (it is not reaped yet), and how, if we ended it.
    fn run(mut self) -> (bool, Option<Ended>) {
        let mut phase = Phase::Running;
        let mut forced = None;
        let mut exited = false;
        let mut look_at = instant();
        loop {
            for Stream { pipe, lines } in &mut self.streams {
                if pipe.as_mut().is_some_and(|pipe| lines.take_some(pipe).is_break()) {
                    *pipe = None;
                }
            }
            exited = exited || self.family.leader_has_exited();
            let now = instant();
            match phase {
                Phase::Running if exited => {
                    if self.family.is_gone() {
                        break;
                    }
                    phase = Phase::Lingering { until: now + LINGER };
                }
                Phase::Running => {
                    forced = match self.job.watch.asked_to_end() {
                        Some(signal) => Some(Ended::Stopped { signal }),
                        None if now >= self.deadline => Some(Ended::TimedOut { after: self.job.timeout }),
                        None => None,
                    };
                    if forced.is_some() {
                        phase = self.ask(now);
                    }
                }
                _ if now < look_at => {}
                _ if exited && self.family.is_gone() => break,
                Phase::Lingering { until } if now >= until || self.job.watch.asked_to_end().is_some() => {
                    let left = self.family.alive();
                    if !left.is_empty() {
                        tracing::warn!(target: "gitsync::job", from = self.job.label,
                            "the {} has ended and left processes running, which are ended now: {}",
                            self.job.label, name_them(&left));
                    }
                    phase = self.ask(now);
                }
                Phase::Asked { until } if now >= until => {
                    self.family.signal(Signal::KILL);
                    phase = Phase::Killed { until: now + KILL_TAKES };
                }
                Phase::Killed { until } if now >= until => break,
                // Again, for processes that were forked meanwhile.
                Phase::Killed { .. } => self.family.signal(Signal::KILL),
                Phase::Lingering { .. } | Phase::Asked { .. } => self.family.reap_adopted(),
            }
            let wait = match phase {
                Phase::Running => self.deadline.saturating_duration_since(now).min(Duration::from_secs(1)),
                _ => {
                    // SIGCHLD comes only for our own children, so look at regular intervals. But a flood of output must not
                    // cause a walk of /proc for each chunk.
                    if now >= look_at {
                        look_at = now + Duration::from_millis(20);
                    }
                    look_at.saturating_duration_since(now)
                }
            };
            self.wait(wait);
        }
        for Stream { pipe, lines } in &mut self.streams {
            if let Some(pipe) = pipe {
                lines.take_what_is_there(pipe);
            }
            lines.finish();
        }
        (exited, forced)
    }

    fn ask(&self, now: Instant) -> Phase {
        self.family.signal(Signal::TERM);
        // A stopped process can't react before it is continued.
        self.family.signal(Signal::CONT);
        Phase::Asked {
            until: now + self.job.grace.min((self.deadline + self.job.grace).saturating_duration_since(now)),
        }
    }

    /// Waits until there is output, a child has ended, the watch was asked to end, or `time` is over.
    fn wait(&self, time: Duration) {
        let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = vec![PollFd::from_borrowed_fd(self.listening.as_fd(), PollFlags::IN)];
        let pipes = self.streams.iter().filter_map(|stream| stream.pipe.as_ref());
        fds.extend(pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        // If the wait is interrupted, it has only ended early.
        let _ = poll(&mut fds, Some(&timeout));
        let _ = (&self.listening).read(&mut [0; 256]);
    }
}
