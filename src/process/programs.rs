//! Programs that run: each at the head of a process group of its own, known from the moment it starts so that it can be
//! killed with all that it started, and forgotten before it is reaped.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::clock::instant;
use crate::process::group::{Family, KILL_TAKES, Subreaper};

/// How long a program that was killed may take until it can be reaped.
const REAPED_WITHIN: Duration = Duration::from_millis(200);

/// The programs now running, so that whoever ends this process can end them too.
pub(super) struct Programs(Mutex<State>);

struct State {
    running: Vec<Family>,
    /// This process is ending: no program may start any more.
    over: bool,
}

impl Programs {
    pub(super) const fn new() -> Programs {
        Programs(Mutex::new(State { running: Vec::new(), over: false }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a program in a process group of its own. `None` once all were killed: none starts after that.
    ///
    /// `adopts`: every child of ours that appears from now on is this program's. `spawn` is to spawn the command.
    pub(super) fn start(
        &self,
        command: &mut Command,
        adopts: bool,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> io::Result<Option<(Child, Family)>> {
        command.process_group(0);
        // Under the lock, so that the program cannot be missed by `kill` between its start and its entry.
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

    /// Forgets a program if `ended` says that it has ended, and answers that. Only `ended`, or what comes after this, may
    /// reap it: its number may be another's then, and must not be in the list.
    pub(super) fn forget_if(&self, family: &Family, ended: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        let ended = ended();
        if ended {
            state.running.retain(|known| known.leader() != family.leader());
        }
        ended
    }

    /// Kills every program that was not forgotten, with all that it started, and lets none start from now on: what fails
    /// because a program was killed may otherwise start the next one.
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

/// Whether every child of this process is a program of ours or what one left behind.
static ADOPTING: AtomicBool = AtomicBool::new(false);

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

/// Kills every program that reaches a remote and was not yet seen to end, with all that it started, and lets none start from
/// now on.
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
    /// Starts a program; `None` where this process is ending.
    pub(crate) fn start(command: &mut Command) -> io::Result<Option<Running>> {
        let started = PROGRAMS.start(command, ADOPTING.load(Ordering::SeqCst), Command::spawn)?;
        Ok(started.map(|(child, family)| Running { child, family, over: false }))
    }

    /// Has it ended, by `until` at the latest?
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

    /// Ends it and all it started. It is not reaped before: as long as it is not, its number is no other's.
    pub(crate) fn kill(&mut self) {
        if !self.over {
            // SIGKILL is not refused; what can hang is a process stuck in the kernel, and that is not waited for.
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
