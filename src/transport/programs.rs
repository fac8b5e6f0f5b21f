//! Programs that a remote is reached through: each in a process group of its own, ended with all that it started, and told
//! nothing of this repository or of secrets that are not for it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::error::{Error, Kind};
use crate::process::group::{Family, Subreaper};

/// How long a program may take to go once it has nothing more to say and nothing more is wanted of it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What the environment and repository of this process must not tell a git in another repository.
pub const REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
];

/// Ours alone: no program that we start is told of these.
pub const OWN_VARIABLES: &[&str] = &["GIT_SYNC_TOKEN", "GIT_SYNC_TOKEN_FILE", "GIT_SYNC_REMOTE_URL"];

/// The tokens are for http remotes: a remote's hooks and ssh get none.
pub const SECRET_VARIABLES: &[&str] = &["GIT_SYNC_TOKEN", "GIT_SYNC_TOKEN_FILE", "GIT_SYNC_REMOTE_URL", "GITHUB_TOKEN"];

/// The programs now running, so that whoever ends this process can end them too.
static PROGRAMS: Mutex<Programs> = Mutex::new(Programs { running: Vec::new(), over: false });

struct Programs {
    running: Vec<Family>,
    /// This process is ending: no program may start any more.
    over: bool,
}

fn programs() -> MutexGuard<'static, Programs> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether every child of this process is a program of ours or what one left behind.
static ADOPTING: AtomicBool = AtomicBool::new(false);

/// How long the kernel may take to carry out SIGKILL before we go on without.
const KILL_TAKES: Duration = Duration::from_secs(2);

/// While the answer lives, what a program started is known for its own even when it has left the program's process group
/// and its parent has died: it becomes a child of this process instead of init's.
///
/// For a process in which nothing but this crate starts programs: a child of anybody else would be taken for what a program
/// left behind.
pub fn adopt_orphans() -> Adopting {
    ADOPTING.store(true, Ordering::SeqCst);
    Adopting { _subreaper: Subreaper::become_one() }
}

/// See [`adopt_orphans`].
pub struct Adopting {
    _subreaper: Subreaper,
}

impl Drop for Adopting {
    fn drop(&mut self) {
        ADOPTING.store(false, Ordering::SeqCst);
    }
}

/// Kills every program this module started and has not yet seen end, with all that it started, and lets none start from
/// now on: what fails because a program was killed may otherwise start the next one.
///
/// For the watchdog and the signal thread, just before the process ends.
pub fn kill_children() {
    let mut programs = programs();
    programs.over = true;
    for family in &programs.running {
        family.kill(KILL_TAKES);
    }
}

/// A program in its own process group, killed at the latest when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    family: Family,
    over: bool,
}

impl Running {
    pub(super) fn start(command: &mut Command, package: &str) -> Result<Running, Error> {
        command.process_group(0);
        // Under the lock, so that the program cannot be missed by `kill_children` between its start and its entry.
        let mut programs = programs();
        if programs.over {
            return Err(Error {
                kind: Kind::Unreachable,
                what: "gitsync is being ended".to_owned(),
                next: "nothing: the next pass tries again".to_owned(),
            });
        }
        let before = ADOPTING.load(Ordering::SeqCst).then(Family::children_of_ours);
        let child = command.spawn().map_err(|e| {
            let program = command.get_program().to_string_lossy().into_owned();
            match e.kind() {
                io::ErrorKind::NotFound => Error {
                    kind: Kind::Refused,
                    what: format!("the program `{program}` that this remote needs is not installed"),
                    next: format!("install the package {package} (apt-get install {package}), or use an https:// URL"),
                },
                _ => Error {
                    kind: Kind::Unreachable,
                    what: format!("`{program}` could not be started: {e}"),
                    next: "see that the machine has processes and memory to spare".to_owned(),
                },
            }
        })?;
        let family = Family::new(Pid::from_child(&child), before);
        programs.running.push(family.clone());
        Ok(Running { child, family, over: false })
    }

    /// Has it ended, by `until` at the latest?
    pub(super) fn ended_by(&mut self, until: Instant) -> bool {
        let mut pause = Duration::from_micros(200);
        loop {
            if self.try_reap() {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            std::thread::sleep(pause.min(until - now));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    pub(super) fn try_reap(&mut self) -> bool {
        if !self.over {
            // Under the lock: once reaped, its number may be another's, and must not be in the list.
            let mut programs = programs();
            if !matches!(self.child.try_wait(), Ok(None)) {
                programs.running.retain(|family| family.leader() != self.family.leader());
                self.over = true;
            }
        }
        self.over
    }

    /// Ends it and all it started. It is not reaped before: as long as it is not, its number is no other's.
    pub(super) fn kill(&mut self) {
        if !self.over {
            // SIGKILL is not refused; what can hang is a process stuck in the kernel, and that is not waited for.
            self.family.kill(KILL_TAKES);
            self.ended_by(Instant::now() + GRACE / 10);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.try_reap() {
            self.kill();
        }
    }
}

/// A command line for a shell, with one more word.
pub(crate) fn shell(script: &str, word: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{script} {word}"));
    command
}

/// A program by its path, with one word.
pub(crate) fn program(path: &OsStr, word: &str) -> Command {
    let mut command = Command::new(path);
    command.arg(word);
    command
}
