//! The running programs. Each leads a process group of its own. It is listed from the moment it starts, so that it can be killed
//! with everything it started, and is taken off the list before it is reaped.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::clock::instant;
use crate::process::group::{Family, KILL_TAKES, Subreaper};

/// How long to wait until a killed program can be reaped.
const REAPED_WITHIN: Duration = Duration::from_millis(200);

/// The running programs, so that whoever ends this process can end them too.
pub(super) struct Programs(Mutex<State>);

struct State {
    running: Vec<Family>,
    /// Whether this process is ending: no program may start any more.
    over: bool,
}

impl Programs {
    pub(super) const fn new() -> Programs {
        Programs(Mutex::new(State { running: Vec::new(), over: false }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a program in a process group of its own. Returns `None` after [`Programs::kill`]: no program may start then.
    ///
    /// `adopts`: every child of ours that appears from now on belongs to this program. `spawn` must spawn the command.
    pub(super) fn start(
        &self,
        command: &mut Command,
        adopts: bool,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> io::Result<Option<(Child, Family)>> {
        command.process_group(0);
        // Hold the lock during the start, so that `kill` can't miss a program that has started but is not listed yet.
        let mut state = self.state();
        if state.over {
            return Ok(None);
        }
        let before = adopts.then(Family::children_of_ours);
        let child = spawn(command)?;
        let family = Family::new(Pid::from_child(&child), before);
        state.running.push(family.clone());
        Ok(Some((child, family)))
    }

    /// Removes a program from the list if `ended` returns true, and returns that. The program may be reaped only in `ended` or
    /// later: once it is reaped, its process id may belong to another process, and must not be in the list.
    pub(super) fn forget_if(&self, family: &Family, ended: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        let ended = ended();
        if ended {
            state.running.retain(|known| known.leader() != family.leader());
        }
        ended
    }

    /// Kills every listed program with everything it started, and lets no other start. Otherwise the code that fails because its
    /// program was killed could start the next one.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        state.over = true;
        for family in &state.running {
            family.kill(KILL_TAKES);
        }
    }
}

/// The programs that [`Running::start`] has started.
static PROGRAMS: Programs = Programs::new();

/// Whether every child of this process is one of our programs or an orphan of one.
static ADOPTING: AtomicBool = AtomicBool::new(false);

/// While the returned value exists, orphans of our programs become children of this process instead of init's. So we find them
/// even if they have left the program's process group.
///
/// Only for a process in which nothing but this crate starts programs: any other child would be taken for such an orphan.
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

/// Kills every program that reaches a remote and has not been seen to end, with everything it started, and lets no other start.
///
/// For the watchdog and the signal thread, just before the process ends.
pub fn kill_children() {
    PROGRAMS.kill();
}

/// A program in its own process group, killed at the latest when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    family: Family,
    over: bool,
}

impl Running {
    /// Starts a program. Returns `None` if this process is ending.
    pub(crate) fn start(command: &mut Command) -> io::Result<Option<Running>> {
        let started = PROGRAMS.start(command, ADOPTING.load(Ordering::SeqCst), Command::spawn)?;
        Ok(started.map(|(child, family)| Running { child, family, over: false }))
    }

    /// Waits until the program has ended, or until `until`. Returns whether it has ended.
    pub(crate) fn ended_by(&mut self, until: Instant) -> bool {
        let mut pause = Duration::from_micros(200);
        loop {
            if self.try_reap() {
                return true;
            }
            let now = instant();
            if now >= until {
                return false;
            }
            std::thread::sleep(pause.min(until - now));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    pub(crate) fn try_reap(&mut self) -> bool {
        let child = &mut self.child;
        self.over = self.over || PROGRAMS.forget_if(&self.family, || !matches!(child.try_wait(), Ok(None)));
        self.over
    }

    /// Kills it and everything it started. It is reaped only afterwards: until then its process id can't be reused.
    pub(crate) fn kill(&mut self) {
        if !self.over {
            // SIGKILL can't be ignored, but a process may be stuck in the kernel. We don't wait for that.
            self.family.kill(KILL_TAKES);
            self.ended_by(instant() + REAPED_WITHIN);
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
