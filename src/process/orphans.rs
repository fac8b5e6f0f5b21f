//! Jobs of a gitsync that was killed.
//!
//! The lock on the repository dies with the process that took it, its job does not. So each job inherits an open file,
//! `job.lock` in the private folder, which carries a lock (`flock` belongs to the open file, and is held as long as any
//! process has it open), and a variable that names the file, for those which close what they inherited. The file also has
//! a line in it from before the spawn until all is cleaned up: only when the lock is held or the line is there does a pass
//! look through `/proc`.

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

/// The variable by which a job's descendants are known although they closed every file they inherited. Its value names
/// the repository's `job.lock`.
pub const MARK: &str = "GITSYNC_JOB_LOCK";

const NAME: &str = "job.lock";

/// The lock on `job.lock`, held by this process and by all that inherit it.
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
        // NONBLOCK: a FIFO in its place must not hold us.
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

    /// Lets what is spawned in `spawn` inherit the lock. Nothing else may be spawned at the same time.
    pub(super) fn hand_down<T>(&self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        fcntl_setfd(&self.file, FdFlags::empty())?;
        let spawned = spawn();
        fcntl_setfd(&self.file, FdFlags::CLOEXEC)?;
        spawned
    }

    /// Says that nothing of the job is left.
    pub(super) fn clear(&self) {
        // Where this fails, the next pass looks through /proc once more.
        let _ = self.file.set_len(0);
    }

    fn is_cleared(&mut self) -> bool {
        matches!(self.file.read(&mut [0]), Ok(0))
    }

    /// The processes that hold this lock or bear its mark, and all below them; never ourselves nor those we run under.
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

    /// The error for a job of an earlier gitsync, which was killed, that still runs and could not be ended in time. Often none
    /// of it can be seen.
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

    /// Whether the process has the lock, and not just the file open, as a backup would.
    fn is_held_by(&self, pid: i32) -> bool {
        self.taker_seen_at(pid).is_some()
    }

    /// The process that took the lock which process `pid` holds, by itself or by inheritance.
    fn taker_seen_at(&self, pid: i32) -> Option<i32> {
        let ours = rustix::fs::fstat(&self.file).ok()?;
        taker_of_lock(&pid.to_string(), Some(OsStr::new(NAME)), &ours)
    }

    /// A process that took this lock itself and lives: a gitsync whose job runs, and nobody's orphan. The orphans of one that
    /// was killed have inherited theirs.
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

/// The error for what the system refused and without which no command can be run; `what` was tried, as "to …".
pub(super) fn system(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        let said = Errno::from_io_error(&error);
        // What is no file, and what the system refuses for good.
        let lasts = error.kind() == io::ErrorKind::InvalidInput
            || matches!(said, Some(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::ISDIR | Errno::ROFS));
        let what = format!("could not {what}: {error}");
        if lasts {
            let next = "take it away, or give it to the user that runs gitsync; a pass that ran as another user may have made it";
            return Error::person(what, next);
        }
        Error::retry(what, "see what the machine is short of; the next pass tries again")
    }
}

/// Ends what still runs of a job whose gitsync was killed: SIGTERM, [`GRACE`], SIGKILL. A pass calls this right after it has
/// the repository's lock, before it looks at anything a job could still be writing. Costs two system calls when all is well.
///
/// Where the processes can't be seen (another container, another user) it waits for them until `until`. Returns the numbers
/// of those it ended.
///
/// # Errors
/// [`Kind::Busy`] when something of it was still there at `until` (or shortly after it was killed, where that is later) and
/// when a gitsync that lives has its job running all that time; [`Kind::Retry`] or [`Kind::Person`] when `job.lock` can't be
/// opened.
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
                    "another gitsync (pid {pid}) runs its job in this repository, and its lock file was taken away"
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
        // Each is asked once, and what one that was asked starts is not asked at all: it is how it tidies up.
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
