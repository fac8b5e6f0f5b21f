//! A command and all it has started: who they are, how to end them.
//!
//! Members are the process group of the command, every child of ours that was not there before the command (the subreaper's
//! orphans), and everything below these. Where there is no `/proc` only the group is known.
//!
//! Used for the job and the build, and for the programs that reach a remote. Two families at a time can't tell their
//! orphans apart; a pass runs one after the other.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Stat;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process_group, waitid, waitpid};

use crate::clock::instant;
use crate::fs::files;

/// How long the kernel may take to carry out SIGKILL before we go on without.
pub(crate) const KILL_TAKES: Duration = Duration::from_secs(2);

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) parent: i32,
    group: i32,
    /// Together with the number this names a process for good: numbers are used again.
    started: u64,
    dead: bool,
}

impl Process {
    /// Every process that can be seen; the dead ones that nobody has reaped are among them.
    pub(crate) fn all() -> Vec<Process> {
        let entries = files::entries_if_any(Path::new("/proc"));
        entries.iter().filter_map(|entry| entry.name().to_str()?.parse().ok()).filter_map(Process::read).collect()
    }

    fn read(pid: i32) -> Option<Process> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state parent group …`, and the name may hold blanks and brackets.
        let (open, close) = (stat.iter().position(|b| *b == b'(')?, stat.iter().rposition(|b| *b == b')')?);
        let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Process {
            pid,
            name,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            started: number(19)?,
            // A leader whose other threads go on is shown as a zombie, too.
            dead: matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1,
        })
    }

    /// Sends a signal to this very process, never to one that has got its number since.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        #[cfg(target_os = "linux")]
        if let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            if Process::read(self.pid).is_some_and(|process| process.started == self.started) {
                let _ = rustix::process::pidfd_send_signal(fd, signal);
            }
            return;
        }
        if Process::read(self.pid).is_some_and(|process| process.started == self.started) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Those for which `root` holds and all below them, the dead ones left out.
pub(crate) fn living_with_descendants(all: Vec<Process>, root: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut found: BTreeSet<i32> = all.iter().filter(|process| root(process)).map(|process| process.pid).collect();
    loop {
        let before = found.len();
        found.extend(
            all.iter().filter(|process| found.contains(&process.parent)).map(|process| process.pid).collect::<Vec<_>>(),
        );
        if found.len() == before {
            break;
        }
    }
    all.into_iter().filter(|process| !process.dead && found.contains(&process.pid)).collect()
}

/// The process that took the lock (flock) on a file which process `pid` (a number, or `self`) has open; `None` where it holds
/// none. A child inherits a lock together with the open file, and is then not the one that took it.
///
/// `name`: the file's own, so that nothing else need be looked at.
pub(crate) fn taker_of_lock(pid: &str, name: Option<&OsStr>, file: &Stat) -> Option<i32> {
    let name = name?.as_bytes();
    files::entries_if_any(Path::new(&format!("/proc/{pid}/fd"))).into_iter().find_map(|fd| {
        let to = std::fs::read_link(fd.path()).ok()?;
        // A file that was removed is shown as `job.lock (deleted)`.
        to.file_name().filter(|it| it.as_bytes().starts_with(name))?;
        let found = rustix::fs::stat(fd.path()).ok()?;
        if (found.st_dev, found.st_ino) != (file.st_dev, file.st_ino) {
            return None;
        }
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.name().display())).ok()?;
        // `lock: 1: FLOCK ADVISORY WRITE pid device:inode from to`
        let line = info.lines().find(|line| line.starts_with("lock:") && line.contains("FLOCK"))?;
        Some(line.split_ascii_whitespace().nth(5).and_then(|pid| pid.parse().ok()).unwrap_or(0))
    })
}

/// "sleep (pid 12), python3 (pid 14)", of many the first few.
pub(crate) fn name_them(processes: &[Process]) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> =
        processes.iter().take(NAMED).map(|it| format!("{} (pid {})", it.name.escape_debug(), it.pid)).collect();
    if processes.len() > NAMED {
        names.push(format!("{} more", processes.len() - NAMED));
    }
    names.join(", ")
}

/// The children of each thread of ours, as the kernel lists them where it was built to: much less to read than all of `/proc`.
fn children_by_thread() -> Option<BTreeSet<i32>> {
    let mut children = BTreeSet::new();
    for thread in files::entries(Path::new("/proc/self/task")).ok()? {
        let list = std::fs::read_to_string(thread.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

#[derive(Clone, Debug)]
pub(crate) struct Family {
    leader: Pid,
    /// Children of ours that have nothing to do with the command; `None`: none of them has, but the command itself.
    before: Option<BTreeSet<i32>>,
}

impl Family {
    /// The family of a command that was just started, which leads a process group of its own and will not be reaped for
    /// as long as the family is used.
    ///
    /// `before`: the children of ours at that time; `None` where others in this process start children too, so that a new
    /// one says nothing.
    pub(crate) fn new(leader: Pid, before: Option<BTreeSet<i32>>) -> Family {
        Family { leader, before }
    }

    pub(crate) fn leader(&self) -> Pid {
        self.leader
    }

    /// Whether the leader has ended; it is not reaped by this.
    pub(crate) fn leader_has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that somebody else reaped it: then it has exited all the more.
        !matches!(waitid(WaitId::Pid(self.leader), options), Ok(None))
    }

    pub(crate) fn children_of_ours() -> BTreeSet<i32> {
        let us = getpid().as_raw_pid();
        if let Some(children) = children_by_thread() {
            return children;
        }
        Process::all().into_iter().filter(|process| process.parent == us).map(|process| process.pid).collect()
    }

    /// The members that live, the leader among them.
    pub(crate) fn alive(&self) -> Vec<Process> {
        let (us, leader) = (getpid().as_raw_pid(), self.leader.as_raw_pid());
        living_with_descendants(Process::all(), |process| {
            process.group == leader || (process.parent == us && self.has_adopted(process))
        })
    }

    /// Whether a child of ours is one for the command's sake.
    fn has_adopted(&self, process: &Process) -> bool {
        self.before.as_ref().is_some_and(|before| !before.contains(&process.pid))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.reap_adopted();
        self.alive().is_empty()
    }

    /// Sends a signal to all members: the group at once, the others one by one.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.leader, signal);
        let leader = self.leader.as_raw_pid();
        for process in self.alive().iter().filter(|process| process.group != leader) {
            process.signal(signal);
        }
    }

    /// Kills until none is left, for at most `time`.
    pub(crate) fn kill(&self, time: Duration) {
        let until = instant() + time;
        loop {
            self.signal(Signal::KILL);
            if self.is_gone() || instant() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes the exit status of the orphans, which nobody wants but which keeps them as zombies.
    pub(crate) fn reap_adopted(&self) {
        let (us, leader) = (getpid().as_raw_pid(), self.leader.as_raw_pid());
        for process in Process::all() {
            let adopted = process.parent == us && process.pid != leader && self.has_adopted(&process);
            if adopted && process.dead {
                let _ = waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// While this lives, orphans among our descendants become our children instead of init's.
pub(crate) struct Subreaper {
    #[cfg(target_os = "linux")]
    ours: bool,
}

impl Subreaper {
    #[cfg(target_os = "linux")]
    pub(crate) fn become_one() -> Subreaper {
        // Any number switches it on. Where it fails, descendants that left the group are found by the lock they hold, a
        // pass later.
        let already = matches!(rustix::process::child_subreaper(), Ok(Some(_)));
        Subreaper { ours: !already && rustix::process::set_child_subreaper(Some(getpid())).is_ok() }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn become_one() -> Subreaper {
        Subreaper {}
    }
}

impl Drop for Subreaper {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if self.ours {
            let _ = rustix::process::set_child_subreaper(None);
        }
    }
}
