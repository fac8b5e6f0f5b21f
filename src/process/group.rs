//! A command and all processes that it has started: finding them and ending them.
//!
//! These are the members of the command's process group, every child of ours that did not exist before the command (orphans, of
//! which we are the subreaper), and all their descendants. Without `/proc` only the group is known.
//!
//! Used for the job, the build, and the programs that reach a remote. Two families at the same time could not tell their orphans
//! apart; a pass runs one after the other.

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
    /// The start time. Process ids are reused; id and start time together identify a process.
    started: u64,
    dead: bool,
}

impl Process {
    /// Every visible process, including zombies.
    pub(crate) fn all() -> Vec<Process> {
        let entries = files::entries_if_any(Path::new("/proc"));
        entries.iter().filter_map(|entry| entry.name().to_str()?.parse().ok()).filter_map(Process::read).collect()
    }

    fn read(pid: i32) -> Option<Process> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state parent group …`; the name may contain blanks and brackets.
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
            // A process whose main thread has ended while others go on is also shown as a zombie.
            dead: matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1,
        })
    }

    /// Sends a signal to this process, never to a later one with the same process id.
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

/// The processes for which `root` holds and all their descendants, without zombies.
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

/// The process that took the lock (flock) which process `pid` (a number, or `self`) holds on `file`; `None` if it holds none.
/// This may be another process: a child inherits the lock together with the open file.
///
/// `name`: the file's name. Open files with other names are skipped.
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

/// "sleep (pid 12), python3 (pid 14)", and of many processes only the first few.
pub(crate) fn name_them(processes: &[Process]) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> =
        processes.iter().take(NAMED).map(|it| format!("{} (pid {})", it.name.escape_debug(), it.pid)).collect();
    if processes.len() > NAMED {
        names.push(format!("{} more", processes.len() - NAMED));
    }
    names.join(", ")
}

/// The children of each of our threads, if the kernel was built to list them. That is much less to read than all of `/proc`.
fn children_by_thread() -> Option<BTreeSet<i32>> {
    let mut children = BTreeSet::new();
    for thread in files::entries(Path::new("/proc/self/task")).ok()? {
        let list = std::fs::read_to_string(thread.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

fn children() -> Vec<Process> {
    let us = getpid().as_raw_pid();
    match children_by_thread() {
        Some(children) => children.into_iter().filter_map(Process::read).collect(),
        None => Process::all().into_iter().filter(|process| process.parent == us).collect(),
    }
}

/// Whether orphans among our descendants become our children.
fn is_subreaper() -> bool {
    #[cfg(target_os = "linux")]
    let is_one = matches!(rustix::process::child_subreaper(), Ok(Some(_)));
    #[cfg(not(target_os = "linux"))]
    let is_one = false;
    is_one
}

/// A command and the processes that it has started.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    leader: Pid,
    /// The children of ours from before the command; later ones belong to it. `None`: no child but the command belongs to it.
    before: Option<BTreeSet<i32>>,
}

impl Family {
    /// The family of a command that was just started, leads a process group of its own, and is not reaped as long as the family
    /// is used.
    ///
    /// `before`: our children at that time. `None` if other code in this process starts children too: a new child then need not
    /// belong to the command.
    pub(crate) fn new(leader: Pid, before: Option<BTreeSet<i32>>) -> Family {
        Family { leader, before }
    }

    pub(crate) fn leader(&self) -> Pid {
        self.leader
    }

    /// Whether the leader has ended. It is not reaped here.
    pub(crate) fn leader_has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that somebody else has reaped it, so it has exited.
        !matches!(waitid(WaitId::Pid(self.leader), options), Ok(None))
    }

    pub(crate) fn children_of_ours() -> BTreeSet<i32> {
        children_by_thread().unwrap_or_else(|| children().into_iter().map(|process| process.pid).collect())
    }

    /// Whether the leader has ended and left no child to us. The orphans of a process become our children before we can see that
    /// it has ended, so nothing of the family is left then.
    fn has_no_other_child(&self) -> bool {
        let known = |pid: &i32| {
            *pid == self.leader.as_raw_pid() || self.before.as_ref().is_some_and(|before| before.contains(pid))
        };
        self.leader_has_exited() && children_by_thread().is_some_and(|children| children.iter().all(known))
    }

    /// The living members, including the leader.
    pub(crate) fn alive(&self) -> Vec<Process> {
        if is_subreaper() && self.has_no_other_child() {
            return Vec::new();
        }
        let (us, leader) = (getpid().as_raw_pid(), self.leader.as_raw_pid());
        living_with_descendants(Process::all(), |process| {
            process.group == leader || (process.parent == us && self.has_adopted(process))
        })
    }

    /// Whether a child of ours is an orphan of the command.
    fn has_adopted(&self, process: &Process) -> bool {
        self.before.as_ref().is_some_and(|before| !before.contains(&process.pid))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.reap_adopted();
        // A walk through /proc can miss a process whose parent ends meanwhile; the list of our children can't.
        if self.before.is_some() && is_subreaper() && self.leader_has_exited() && children_by_thread().is_some() {
            return self.has_no_other_child();
        }
        self.alive().is_empty()
    }

    /// Sends a signal to all members: to the group at once, to the others one by one.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.leader, signal);
        let leader = self.leader.as_raw_pid();
        for process in self.alive().iter().filter(|process| process.group != leader) {
            process.signal(signal);
        }
    }

    /// Sends SIGKILL until no member is left, for at most `time`.
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

    /// Reaps the orphans that have ended, so that they don't stay as zombies.
    pub(crate) fn reap_adopted(&self) {
        for process in children() {
            if process.pid != self.leader.as_raw_pid() && self.has_adopted(&process) && process.dead {
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
        // If this fails, the next pass finds descendants that left the group by the lock that they hold.
        Subreaper { ours: !is_subreaper() && rustix::process::set_child_subreaper(Some(getpid())).is_ok() }
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
