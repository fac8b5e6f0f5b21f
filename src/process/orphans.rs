//! Jobs that a killed gitsync left running.
//!
//! The lock on the repository is freed when the process that took it dies, but its job may go on. So each job inherits an open
//! file, `job.lock` in the private folder, with a lock on it (`flock` belongs to the open file, and is held as long as any
//! process has it open). It also inherits a variable that names the file, for processes that close inherited files. In addition
//! the file contains a line from before the spawn until everything is cleaned up. A pass looks through `/proc` only if the lock
//! is held or the line is there.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid};

use crate::clock::instant;
use crate::error::{Error, Kind};
use crate::fs::files;
use crate::process::group::{KILL_TAKES, Process, living_with_descendants, name_them, taker_of_lock};

/// How long a command that was asked to end has until it is killed.
pub const GRACE: Duration = Duration::from_secs(10);

/// The variable that identifies a job's descendants even if they closed every inherited file. Its value identifies the
/// repository's `job.lock`.
pub const MARK: &str = "GITSYNC_JOB_LOCK";

const NAME: &str = "job.lock";

/// The lock on `job.lock`, held by this process and by all processes that inherit it.
pub(super) struct JobLock {
    file: File,
    path: PathBuf,
    mark: String,
}

impl JobLock {
    pub(super) fn take(private_dir: &Path, label: &str) -> Result<JobLock, Error> {
        let Some(mut lock) = JobLock::open(private_dir, OFlags::CREATE)? else {
            let path = private_dir.join(NAME);
            return Err(system(format!("make {}", path.display()))(Errno::NOENT.into()));
        };
        if !lock.try_lock()? {
            return Err(lock.still_held(&lock.holders()));
        }
        let what = format!("write {}", lock.path.display());
        lock.file.set_len(0).and_then(|()| writeln!(lock.file, "{label}")).map_err(system(what))?;
        Ok(lock)
    }

    fn open(private_dir: &Path, create: OFlags) -> Result<Option<JobLock>, Error> {
        let path = private_dir.join(NAME);
        let refused = |error: Errno| system(format!("open {}", path.display()))(error.into());
        // NONBLOCK: opening a FIFO in its place must not block.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | create;
        let file = match rustix::fs::openat(rustix::fs::CWD, &path, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(refused(error)),
        };
        files::check_is_file(&file).map_err(system(format!("open {}", path.display())))?;
        let stat = rustix::fs::fstat(&file).map_err(refused)?;
        let mark = format!("{:x}-{:x}", stat.st_dev, stat.st_ino);
        Ok(Some(JobLock { file, path, mark }))
    }

    fn try_lock(&self) -> Result<bool, Error> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(system(format!("lock {}", self.path.display()))(error.into())),
        }
    }

    /// The value of [`MARK`] for a job under this lock: the file's identity, since a path may name another file in
    /// another container.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Lets the process that `spawn` starts inherit the lock. Nothing else may be started at the same time.
    pub(super) fn hand_down<T>(&self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        fcntl_setfd(&self.file, FdFlags::empty())?;
        let spawned = spawn();
        fcntl_setfd(&self.file, FdFlags::CLOEXEC)?;
        spawned
    }

    /// Records that no process of the job is left.
    pub(super) fn clear(&self) {
        // If this fails, the next pass looks through /proc once more.
        let _ = self.file.set_len(0);
    }

    fn is_cleared(&mut self) -> bool {
        matches!(self.file.read(&mut [0]), Ok(0))
    }

    /// The processes that hold this lock or have its mark, and all their descendants, but never this process or its ancestors.
    fn holders(&self) -> Vec<Process> {
        let all = Process::all();
        let mut spared = vec![getpid().as_raw_pid()];
        while let Some(parent) = all.iter().find(|it| spared.last() == Some(&it.pid)).map(|it| it.parent) {
            spared.push(parent);
        }
        let mut found = living_with_descendants(all, |it| {
            !spared.contains(&it.pid) && (self.is_held_by(it.pid) || self.marks(it.pid))
        });
        found.retain(|it| !spared.contains(&it.pid));
        found
    }

    /// The error for a job of a killed gitsync that is still running and could not be ended in time. Often its processes can't be
    /// seen.
    fn still_held(&self, by: &[Process]) -> Error {
        let pids: Vec<String> = by.iter().filter_map(pid).map(|pid| pid.to_string()).collect();
        let seen = match pids.as_slice() {
            [] => " out of sight, in another container or as another user".to_owned(),
            pids => format!(" (pid {})", pids.join(", ")),
        };
        let what = format!("a job that an earlier gitsync started still runs{seen}");
        let lock = self.path.display();
        let next = format!("end what holds {lock} open, or wait until it has ended; the next pass tries again");
        Error::new(Kind::Busy, what, next)
    }

    /// Whether the process holds the lock. Having the file open, as a backup program may, is not enough.
    fn is_held_by(&self, pid: i32) -> bool {
        self.taker_seen_at(pid).is_some()
    }

    /// The process that took the lock which process `pid` holds: `pid` itself, or one that it inherited the lock from.
    fn taker_seen_at(&self, pid: i32) -> Option<i32> {
        let ours = rustix::fs::fstat(&self.file).ok()?;
        taker_of_lock(&pid.to_string(), Some(OsStr::new(NAME)), &ours)
    }

    /// A living process that took this lock itself: a gitsync whose job is running. Orphans of a killed gitsync have inherited the
    /// lock.
    fn living_taker(&self) -> Option<u32> {
        let us = getpid().as_raw_pid();
        let all = Process::all();
        all.iter().find(|it| it.pid != us && self.taker_seen_at(it.pid) == Some(it.pid)).and_then(pid)
    }

    fn marks(&self, pid: i32) -> bool {
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
        let wanted = format!("{MARK}={}", self.mark);
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    }
}

fn pid(process: &Process) -> Option<u32> {
    u32::try_from(process.pid).ok()
}

/// The error for a system call without which no command can be run. `what` completes the phrase "could not …".
pub(super) fn system(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        let said = Errno::from_io_error(&error);
        // A special file, or a refusal that a retry will not change.
        let lasts = error.kind() == io::ErrorKind::InvalidInput
            || matches!(said, Some(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::ISDIR | Errno::ROFS));
        let what = format!("could not {what}: {error}");
        if lasts {
            let next =
                "remove it, or give it to the user that runs gitsync; a pass that ran as another user may have made it";
            return Error::person(what, next);
        }
        Error::retry(what, "check which resource the machine lacks; the next pass tries again")
    }
}

/// Ends the processes of a job whose gitsync was killed: SIGTERM, [`GRACE`], SIGKILL. A pass calls this as soon as it has
/// the repository's lock, before it looks at anything that a job could still be writing. Normally it costs two system calls.
///
/// If the processes can't be seen (another container, another user), it waits for them until `until`. Returns the ids of the
/// processes that it ended.
///
/// # Errors
/// [`Kind::Busy`] if some of them were still there at `until` (or shortly after they were killed, if that is later), or if a
/// living gitsync has its job running all that time; [`Kind::Retry`] or [`Kind::Person`] if `job.lock` can't be opened.
pub fn end_orphans(private_dir: &Path, until: Instant) -> Result<Vec<u32>, Error> {
    end_orphans_within(private_dir, until, GRACE)
}

/// [`end_orphans`] with another grace than [`GRACE`].
///
/// # Errors
/// As [`end_orphans`].
pub fn end_orphans_within(private_dir: &Path, until: Instant, grace: Duration) -> Result<Vec<u32>, Error> {
    let Some(mut lock) = JobLock::open(private_dir, OFlags::empty())? else { return Ok(Vec::new()) };
    if lock.try_lock()? && lock.is_cleared() {
        return Ok(Vec::new());
    }
    let start = instant();
    let kill_at = (start + grace).min(until.max(start));
    let give_up_at = until.max(kill_at + KILL_TAKES);
    let mut asked: Vec<Process> = Vec::new();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(pid) = lock.living_taker() {
            if instant() >= until {
                let what = format!(
                    "another gitsync (pid {pid}) runs its job in this repository, and its lock file was removed"
                );
                let next = "leave the files under .git/gitsync/ alone; the next pass tries again";
                return Err(Error::new(Kind::Busy, what, next));
            }
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let found = lock.holders();
        if found.is_empty() && lock.try_lock()? {
            lock.clear();
            return Ok(asked.iter().filter_map(pid).collect());
        }
        let now = instant();
        if now >= give_up_at {
            return Err(lock.still_held(&found));
        }
        // Each process gets one SIGTERM. What it starts after that gets none: it may be cleaning up.
        let tidying = living_with_descendants(found.clone(), |it| asked.iter().any(|known| known.pid == it.pid));
        let fresh: Vec<Process> =
            found.iter().filter(|it| !tidying.iter().any(|known| known.pid == it.pid)).cloned().collect();
        if !fresh.is_empty() {
            tracing::warn!(target: "gitsync::job",
                "a job that an earlier gitsync started still runs, it is ended: {}", name_them(&fresh));
        }
        for process in &fresh {
            process.signal(Signal::TERM);
            process.signal(Signal::CONT);
        }
        asked.extend(fresh);
        if now >= kill_at {
            found.iter().for_each(|process| process.signal(Signal::KILL));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
