//! A command under a deadline, in its own process group, nothing of it left behind.
//!
//! The job and the build are other people's programs: they hang, fork, ignore signals, print for ever. What holds for all
//! of them: the pass goes on when the command has ended or its time is up, at most [`GRACE`] later; by then no process that
//! it started runs any more, not even one that left the process group or the session; and its output comes through while it
//! runs, a line at a time, at no cost in memory.
//!
//! Three things make this more than `Command::output`:
//!
//! - We wait for the *exit*, never for the end of the output. A grandchild that inherited the pipe keeps it open for ever.
//! - On Linux this process is a subreaper while a job runs, so that a descendant whose parent died is handed to us instead
//!   of to init, and a walk of `/proc` finds it.
//! - An open, locked file is handed down to the job on purpose. When this process is killed, its own lock on the repository
//!   is freed at once while the job still writes; the lock on the handed-down file shows the next pass that it does.

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

/// How long what the command started may take to end by itself once the command has: the far end of a pipeline, a
/// `tee` in a process substitution.
const LINGER: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The program and its arguments, as given.
    Argv(Vec<OsString>),
    /// A line for `sh -c`.
    Shell(String),
}

/// A command and all it may do.
#[derive(Clone)]
pub struct Job<'a> {
    /// What it is called in the log: `job` or `build`.
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
    /// How long it has after it was asked to end; [`GRACE`] but for tests.
    pub grace: Duration,
    /// The private folder of the repository, which exists: `job.lock` is there.
    pub private_dir: &'a Path,
    /// What tells us to end early.
    pub watch: &'a Watch,
    /// Takes what is secret out of a line before it is logged.
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

/// How a command ended. In each case nothing of it runs any more.
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

/// A signal as people write it: `SIGTERM`, or `signal 42` where it has no name.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// A subreaper adopts every orphan below it and SIGCHLD is one for the process: two jobs at a time could not tell their
/// descendants apart. A pass runs one after the other anyhow; nothing else may start a child while one runs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs the command to its end, its output going to the log line by line (target `gitsync::output`, fields `from` and `stream`), its
/// input empty.
///
/// When its time is up or the watch was asked to end, its whole process group and every descendant gets SIGTERM and,
/// `grace` later, SIGKILL. What it leaves running when it exits by itself is named in a warning and ended the same way.
/// With the watch asked to end, this returns only where `on_end` does.
///
/// # Errors
/// When the command is empty or could not be started, or when a job of an earlier gitsync still runs.
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

    // From the spawn on there is no moment in which the watch could end the process and leave the job.
    let programs = Arc::new(Programs::new());
    let to_kill = Arc::clone(&programs);
    let on_kill = job.watch.on_kill(Box::new(move || to_kill.kill()));
    let started = programs.start(&mut command, true, |command| lock.hand_down(|| command.spawn()));
    let Some((mut child, family)) = started.map_err(|error| not_started(job, &command, &error))? else {
        return Ok(Ended::Stopped { signal: job.watch.asked_to_end().unwrap_or(SIGTERM) });
    };
    // The command holds our ends of the pipes; with them open the output would never end.
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

    // The leader's number, and with it the group's, is ours until it is reaped: nobody may use it after that.
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

/// Our end of a pipe, which does not block, and the command's.
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
    // As the system looks for it: in the folder that the command runs in.
    let path = if is_path { dir.join(name).components().collect() } else { name.to_owned() };
    let (program, path) = (name.display(), path.as_path());
    let is_line = command.get_args().len() == 0 && program.to_string().contains(char::is_whitespace);
    let (why, next) = match error.kind() {
        _ if !dir.is_dir() => {
            (format!("its folder {} is not there", dir.display()), "see where the folder has gone".to_owned())
        }
        io::ErrorKind::NotFound if is_path && path.exists() => (
            format!("the interpreter of {} was not found{}", path.display(), first_line(path)),
            "install it, or mend the first line of the file".to_owned(),
        ),
        io::ErrorKind::NotFound if is_line => (
            format!("no program `{program}` was found"),
            "what stands after -- is a program and its arguments, each a word of its own; a line for the shell is \
             --tick-command, or -- sh -c 'LINE'"
                .to_owned(),
        ),
        io::ErrorKind::NotFound if is_path => (
            format!("there is no {}", path.display()),
            format!("check its spelling; a path is looked for from the repository, {}", dir.display()),
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
            "see what kind of file it is; a script starts with #! and its interpreter".to_owned(),
        ),
    };
    Error::person(format!("the {} could not be started: {why}", job.label), next)
}

/// A script's first line in brackets, where it names an interpreter.
fn first_line(script: &Path) -> String {
    let text = crate::fs::files::read(script).unwrap_or_default();
    let line = text.split(|byte| *byte == b'\n').next().filter(|line| line.starts_with(b"#!") && line.len() < 200);
    line.map(|line| format!(" ({})", String::from_utf8_lossy(line).trim_end())).unwrap_or_default()
}

/// SIGCHLD rings the bell for as long as this lives.
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

/// A job watched over, from its start until nothing of it is left.
struct Supervision<'a> {
    job: &'a Job<'a>,
    family: &'a Family,
    deadline: Instant,
    listening: UnixStream,
    streams: [Stream<'a>; 2],
}

/// One of the command's two outputs.
struct Stream<'a> {
    /// `None` once its end has come.
    pipe: Option<io::PipeReader>,
    lines: Lines<'a>,
}

enum Phase {
    /// The command itself runs.
    Running,
    /// It has ended, what it started has a moment to follow.
    Lingering { until: Instant },
    /// All have got SIGTERM.
    Asked { until: Instant },
    /// All have got SIGKILL.
    Killed { until: Instant },
}

impl Supervision<'_> {
    /// Whether the command has ended (it is not reaped yet), and how if that was our doing.
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
                // Again, for what was forked meanwhile.
                Phase::Killed { .. } => self.family.signal(Signal::KILL),
                Phase::Lingering { .. } | Phase::Asked { .. } => self.family.reap_adopted(),
            }
            let wait = match phase {
                Phase::Running => self.deadline.saturating_duration_since(now).min(Duration::from_secs(1)),
                _ => {
                    // Only our own children ring when they end, so look now and then; but a flood of output must not
                    // make each of its chunks a walk of /proc.
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
        // A stopped process can't act on it before it is continued.
        self.family.signal(Signal::CONT);
        Phase::Asked {
            until: now + self.job.grace.min((self.deadline + self.job.grace).saturating_duration_since(now)),
        }
    }

    /// Until there is output, a child has ended, the watch wants something, or the time is over.
    fn wait(&self, time: Duration) {
        let timeout = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = vec![PollFd::from_borrowed_fd(self.listening.as_fd(), PollFlags::IN)];
        let pipes = self.streams.iter().filter_map(|stream| stream.pipe.as_ref());
        fds.extend(pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        // An interrupted wait is a wait that ended early.
        let _ = poll(&mut fds, Some(&timeout));
        let _ = (&self.listening).read(&mut [0; 256]);
    }
}
