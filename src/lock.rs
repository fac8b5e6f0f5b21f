//! One lock a repository, shared by all subcommands, with a queue of one place for each kind of pass.
//!
//! The lock is flock(2) on `.git/gitsync/lock` by way of fd-lock: it dies with the process, in whatever way that dies, and
//! children do not inherit it. At most one `sync` and one `tick` wait for it; a further one of the same kind has nothing to
//! add to the one that waits, and says `skipped`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use fd_lock::{RwLock, RwLockWriteGuard};
use serde::{Deserialize, Serialize};

use crate::private::PrivateDir;

const NAME: &str = "lock";

/// Who holds the lock, as written in the lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Subcommand.
    pub command: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = self.since.to_rfc3339_opts(SecondsFormat::Secs, true);
        write!(f, "gitsync {} (pid {}, since {since})", self.command, self.pid)
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Held {
    /// `None` where there was no lock file, and this pass only looks.
    guard: Option<RwLockWriteGuard<'static, File>>,
    died: bool,
    looking: bool,
}

impl Held {
    /// Whether the pass before this one died without giving the lock back: what it left half done is ours to heal.
    pub fn one_died_before_us(&self) -> bool {
        self.died
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.as_ref().filter(|_| !self.looking) {
            // An empty lock file is how the next pass knows that this one came to its end.
            let _ = guard.set_len(0);
        }
    }
}

/// How asking for the lock ended.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Held(Held),
    /// One of our kind waits for it already.
    Skipped,
    /// Somebody held it for all the time we could wait.
    Busy(Option<Holder>),
}

/// Takes the lock, waiting up to `wait` for whoever holds it.
///
/// `queued`: whether only one of this command may wait.
///
/// # Errors
/// Those of the file system.
pub fn take(
    private: &PrivateDir,
    command: &str,
    queued: bool,
    wait: Duration,
    now: impl Fn() -> DateTime<Utc>,
) -> io::Result<Taken> {
    let path = private.file(NAME);
    if let Some(guard) = try_lock(open(&path)?)? {
        return held(guard, &path, command, now());
    }
    let _place = if queued {
        match try_lock(open(&private.file(&format!("waiting-{command}")))?)? {
            Some(place) => Some(place),
            None => return Ok(Taken::Skipped),
        }
    } else {
        None
    };
    if let Some(holder) = holder(private) {
        tracing::info!(holder = %holder, "waiting for the lock");
    }
    match wait_for(open(&path)?, wait)? {
        Some(guard) => held(guard, &path, command, now()),
        None => Ok(Taken::Busy(holder(private))),
    }
}

/// Whether somebody holds the lock now, and who. For `status` and dry runs: takes nothing, writes nothing.
pub fn peek(private: &PrivateDir) -> Option<Option<Holder>> {
    let file = File::open(private.file(NAME)).ok()?;
    let lock = RwLock::new(file);
    match lock.try_read() {
        Ok(_) => None,
        Err(_) => Some(holder(private)),
    }
}

/// Takes the lock for a pass that only looks: nothing is written, and where there is no lock file yet there is nobody to
/// keep out.
///
/// # Errors
/// Those of the file system.
pub fn take_for_looking(private: &PrivateDir, wait: Duration) -> io::Result<Taken> {
    let looking = |guard| Taken::Held(Held { guard, died: false, looking: true });
    match File::open(private.file(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(looking(None)),
        Err(error) => Err(error),
        Ok(file) => match wait_for(file, wait)? {
            Some(guard) => Ok(looking(Some(guard))),
            None => Ok(Taken::Busy(holder(private))),
        },
    }
}

/// flock has no time-out. A thread of its own may block in it for ever; if it outlives our patience the process ends.
fn wait_for(file: File, wait: Duration) -> io::Result<Option<RwLockWriteGuard<'static, File>>> {
    let (tell, told) = mpsc::channel();
    std::thread::Builder::new().name("lock".into()).spawn(move || {
        let _ = tell.send(Box::leak(Box::new(RwLock::new(file))).write());
    })?;
    told.recv_timeout(wait).ok().transpose()
}

fn held(
    mut guard: RwLockWriteGuard<'static, File>,
    path: &Path,
    command: &str,
    now: DateTime<Utc>,
) -> io::Result<Taken> {
    let died = fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    let us = Holder { pid: std::process::id(), command: command.to_owned(), since: now };
    // Over what is there, and cut to length only then: the file must at no moment look as if all had ended well.
    let text = serde_json::to_vec(&us).map_err(io::Error::other)?;
    guard.rewind()?;
    guard.write_all(&text)?;
    guard.set_len(text.len() as u64)?;
    Ok(Taken::Held(Held { guard: Some(guard), died, looking: false }))
}

fn holder(private: &PrivateDir) -> Option<Holder> {
    serde_json::from_slice(&fs::read(private.file(NAME)).ok()?).ok()
}

// What a link in the lock's place leads to is not ours to write.
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NOFOLLOW).open(path)
}

fn try_lock(file: File) -> io::Result<Option<RwLockWriteGuard<'static, File>>> {
    match Box::leak(Box::new(RwLock::new(file))).try_write() {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
