//! One lock for each repository, shared by all subcommands, with a queue of one place for each kind of pass.
//!
//! The lock is flock(2) on `.git/gitsync/lock`, through fd-lock. It is freed when the process ends, however it ends, and children
//! do not inherit it. At most one `sync` and one `tick` wait for it. A further one of the same kind would do nothing that the
//! waiting one does not do, and ends with `skipped`.
//!
//! A person or a job may remove the lock file while a pass holds it. The lock must keep others out even then, so each pass also
//! locks the `.git` folder, and checks that the file it locked is still the one at the path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use fd_lock::{RwLock, RwLockWriteGuard};
use serde::{Deserialize, Serialize};

use crate::clock::instant;
use crate::fs::files;
use crate::process::group::taker_of_lock;
use crate::state::dir::PrivateDir;
use crate::watchdog::STACK;

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
    /// `None` in a pass that only looks, if there was no lock file.
    guard: Option<Guard>,
    /// Never read, only held.
    #[allow(dead_code)]
    folder: Option<Guard>,
    died: bool,
    looking: bool,
}

impl Held {
    /// For a dry run without a repository: nothing is locked, since there is nobody to keep out.
    pub fn without_repository() -> Self {
        Self { guard: None, folder: None, died: false, looking: true }
    }

    /// Whether the pass before this one died without releasing the lock. This pass then has to heal what it left unfinished.
    pub fn one_died_before_us(&self) -> bool {
        self.died
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.as_ref().filter(|_| !self.looking) {
            // An empty lock file tells the next pass that this one ended regularly.
            let _ = guard.set_len(0);
        }
    }
}

/// The result of asking for the lock.
#[derive(Debug)]
pub enum Taken {
    /// This pass has the lock.
    Held(Held),
    /// Another pass of the same kind is already waiting for it.
    Skipped,
    /// Somebody held it for the whole time that we could wait.
    Busy(Option<Holder>),
}

/// Takes the lock, waiting up to `wait` if somebody holds it.
///
/// `queued`: whether only one of this command may wait.
///
/// # Errors
/// If the file system fails; `InvalidInput` or `IsADirectory` if the lock file's name belongs to something that is not a file.
pub fn take(
    private: &PrivateDir,
    command: &str,
    queued: bool,
    wait: Duration,
    now: impl Fn() -> DateTime<Utc>,
) -> io::Result<Taken> {
    let until = instant() + wait;
    if let Some(both) = lock_both(private, None)? {
        return held(both, &private.file(NAME), command, now());
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
    match lock_both(private, Some(until))? {
        Some(both) => held(both, &private.file(NAME), command, now()),
        None => Ok(Taken::Busy(holder(private))),
    }
}

/// `Some` if somebody holds the lock now, and who, if that is known. For `status`: takes no lock and writes nothing.
pub fn peek(private: &PrivateDir) -> Option<Option<Holder>> {
    let is_held =
        |file: File| matches!(RwLock::new(file).try_read(), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    let file_is_held = files::open(&private.file(NAME)).is_ok_and(is_held);
    (file_is_held || git_folder(private).is_ok_and(is_held)).then(|| holder(private))
}

/// Takes the lock for a pass that only looks. Nothing is written. If there is no lock file yet, there is nobody to keep out.
///
/// # Errors
/// If the file system fails.
pub fn take_for_looking(private: &PrivateDir, command: &str, queued: bool, wait: Duration) -> io::Result<Taken> {
    let until = instant() + wait;
    let path = private.file(NAME);
    let mut guard = None;
    match files::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(file) => {
            guard = try_lock(file)?;
            let waits = |file: File| try_lock(file).is_ok_and(|place| place.is_none());
            let name = format!("waiting-{command}");
            if guard.is_none() && queued && files::open(&private.file(&name)).is_ok_and(waits) {
                return Ok(Taken::Skipped);
            }
            if guard.is_none() {
                guard = lock_one(files::open(&path)?, Some(until))?;
            }
            if guard.is_none() {
                return Ok(Taken::Busy(holder(private)));
            }
        }
    }
    let folder = match lock_folder(private, Some(until)) {
        Folder::Held(folder) => Some(folder),
        Folder::NotOurs => None,
        Folder::Busy => return Ok(Taken::Busy(holder(private))),
    };
    let died = guard.is_some() && fs::metadata(&path).is_ok_and(|meta| meta.len() > 0);
    Ok(Taken::Held(Held { guard, folder, died, looking: true }))
}

type Guard = RwLockWriteGuard<'static, File>;

/// The locks on the lock file and on the `.git` folder. The second one still keeps others out if somebody removes the file.
struct Both {
    file: Guard,
    /// `None` if the file system can't lock folders, or whoever started us holds this lock for us.
    folder: Option<Guard>,
}

/// Locks both, waiting until `until` if given. `None` if somebody else holds one of them.
fn lock_both(private: &PrivateDir, until: Option<Instant>) -> io::Result<Option<Both>> {
    let path = private.file(NAME);
    // A limit, in case somebody removes the file again and again.
    for _ in 0..100 {
        let Some(mut file) = lock_one(open_in(private)?, until)? else { return Ok(None) };
        let mut folder = lock_folder(private, None);
        if let (Folder::Busy, Some(_)) = (&folder, until) {
            // Don't wait for the folder while holding the file: whoever started us may hold the folder for us (`flock .git gitsync`).
            drop(file);
            folder = lock_folder(private, until);
            let Some(again) = lock_one(open_in(private)?, until)? else { return Ok(None) };
            file = again;
        }
        let folder = match folder {
            Folder::Held(folder) => Some(folder),
            Folder::NotOurs => None,
            Folder::Busy => return Ok(None),
        };
        // Somebody may have removed the file while we waited for it. Other passes would then lock a new file.
        if is_at(&file, &path) {
            return Ok(Some(Both { file, folder }));
        }
    }
    Ok(None)
}

/// Opens the lock file. If somebody has removed the private folder, it is made again.
fn open_in(private: &PrivateDir) -> io::Result<File> {
    private.create()?;
    open(&private.file(NAME))
}

/// The result of locking the `.git` folder.
enum Folder {
    Held(Guard),
    /// Held by whoever started us, or the file system can't lock folders. Then only the lock file counts.
    NotOurs,
    Busy,
}

fn lock_folder(private: &PrivateDir, until: Option<Instant>) -> Folder {
    match git_folder(private).and_then(|folder| lock_one(folder, until)) {
        Ok(Some(folder)) => Folder::Held(folder),
        Ok(None) if is_locked_by_our_caller(private) => Folder::NotOurs,
        Ok(None) => Folder::Busy,
        Err(_) => Folder::NotOurs,
    }
}

fn lock_one(file: File, until: Option<Instant>) -> io::Result<Option<Guard>> {
    match until {
        None => try_lock(file),
        Some(until) => wait_for(file, until.saturating_duration_since(instant())),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

fn git_folder(private: &PrivateDir) -> io::Result<File> {
    let folder = private.path().parent().ok_or(io::ErrorKind::NotFound)?;
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed()).open(folder)
}

/// Whether this process inherited the lock of the `.git` folder from whoever started it.
fn is_locked_by_our_caller(private: &PrivateDir) -> bool {
    private.path().parent().is_some_and(|folder| {
        rustix::fs::stat(folder).is_ok_and(|stat| taker_of_lock("self", folder.file_name(), &stat).is_some())
    })
}

/// Waits up to `wait` for the lock. flock has no time-out, so a thread of its own blocks in it. If the time is up first, the
/// thread stays blocked, and ends with the process.
fn wait_for(file: File, wait: Duration) -> io::Result<Option<Guard>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("lock".into()).stack_size(STACK).spawn(move || {
        let _ = sender.send(Box::leak(Box::new(RwLock::new(file))).write());
    })?;
    receiver.recv_timeout(wait).ok().transpose()
}

fn held(both: Both, path: &Path, command: &str, now: DateTime<Utc>) -> io::Result<Taken> {
    let Both { mut file, folder } = both;
    let died = fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    let us = Holder { pid: std::process::id(), command: command.to_owned(), since: now };
    // Overwrite first and truncate afterwards: an empty file would mean that the last pass ended regularly.
    let text = serde_json::to_vec(&us).map_err(io::Error::other)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    Ok(Taken::Held(Held { guard: Some(file), folder, died, looking: false }))
}

fn holder(private: &PrivateDir) -> Option<Holder> {
    serde_json::from_slice(&files::read(&private.file(NAME)).ok()?).ok()
}

// A link in the lock file's place must not be followed, and opening a FIFO there must not block.
const FLAGS: i32 = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits().cast_signed();

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(FLAGS);
    let file = options.open(path)?;
    files::check_is_file(&file)?;
    Ok(file)
}

fn try_lock(file: File) -> io::Result<Option<Guard>> {
    match Box::leak(Box::new(RwLock::new(file))).try_write() {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn private() -> (tempfile::TempDir, PrivateDir) {
        let git_dir = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(git_dir.path());
        private.create().unwrap();
        (git_dir, private)
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    /// Takes it when it is free. A thread of a `take` whose time is up may hold it for a moment.
    fn take_tick(private: &PrivateDir) -> Held {
        match take(private, "tick", true, LONG, now).unwrap() {
            Taken::Held(held) => held,
            other => panic!("{other:?}"),
        }
    }

    fn look(private: &PrivateDir) -> Taken {
        take_for_looking(private, "sync", true, SHORT).unwrap()
    }

    fn text(private: &PrivateDir) -> String {
        fs::read_to_string(private.file(NAME)).unwrap()
    }

    fn us() -> Holder {
        Holder { pid: std::process::id(), command: "tick".into(), since: now() }
    }

    #[test]
    fn whoever_holds_it_is_named_until_it_is_released() {
        let (_git_dir, private) = private();
        assert_eq!(peek(&private), None);
        let held = take_tick(&private);
        assert_eq!(peek(&private), Some(Some(us())));
        let named = us().to_string();
        assert_eq!(named, format!("gitsync tick (pid {}, since 2023-11-14T22:13:20Z)", std::process::id()));
        for taken in [take(&private, "sync", true, SHORT, now).unwrap(), look(&private)] {
            assert!(matches!(&taken, Taken::Busy(Some(holder)) if *holder == us()), "{taken:?}");
        }
        drop(held);
        assert_eq!((peek(&private), text(&private).as_str()), (None, ""));
        assert!(!take_tick(&private).one_died_before_us());
    }

    #[test]
    fn one_that_did_not_release_it_has_died() {
        let (_git_dir, private) = private();
        assert!(!take_tick(&private).one_died_before_us(), "there was none before");
        assert!(!take_tick(&private).one_died_before_us(), "it was released");
        fs::write(private.file(NAME), "a longer text than ours will be".repeat(9)).unwrap();
        let held = take_tick(&private);
        assert!(held.one_died_before_us());
        assert_eq!(peek(&private), Some(Some(us())), "nothing of the old text is left");
        drop(held);
        assert!(!take_tick(&private).one_died_before_us());
    }

    #[test]
    fn one_that_only_looks_waits_like_the_others_and_writes_nothing() {
        let (_git_dir, private) = private();
        let died = || match look(&private) {
            Taken::Held(held) => held.one_died_before_us(),
            other => panic!("{other:?}"),
        };
        assert!(!died(), "there is no lock file");
        assert!(!private.file(NAME).exists());
        fs::write(private.file(NAME), "").unwrap();
        assert!(!died());
        fs::write(private.file(NAME), "somebody died").unwrap();
        assert!(died());
        let looking = look(&private);
        assert!(matches!(take(&private, "tick", true, SHORT, now).unwrap(), Taken::Busy(None)));
        drop(looking);
        assert!(take_tick(&private).one_died_before_us(), "it left to others what it saw");
    }

    #[test]
    fn one_of_a_kind_waits_and_gets_it() {
        let (_git_dir, private) = private();
        let take_it = |queued| take(&private, "sync", queued, SHORT, now).unwrap();
        let look_at_it = |queued| take_for_looking(&private, "sync", queued, SHORT).unwrap();
        let place = try_lock(open(&private.file("waiting-sync")).unwrap()).unwrap().unwrap();
        assert!(matches!(look_at_it(true), Taken::Held(_)), "nobody holds the lock");
        let held = take_tick(&private);
        for taken in [take_it(true), look_at_it(true)] {
            assert!(matches!(taken, Taken::Skipped), "{taken:?}");
        }
        for taken in [take_it(false), look_at_it(false)] {
            assert!(matches!(taken, Taken::Busy(Some(_))), "not queued: {taken:?}");
        }
        drop(place);
        for taken in [take_it(true), look_at_it(true)] {
            assert!(matches!(taken, Taken::Busy(Some(_))), "the place is free: {taken:?}");
        }
        let release = |held| std::thread::spawn(move || drop::<Held>(held));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| take(&private, "sync", true, LONG, now).unwrap());
            while try_lock(open(&private.file("waiting-sync")).unwrap()).unwrap().is_some() {
                std::thread::yield_now();
            }
            release(held).join().unwrap();
            assert!(matches!(waiting.join().unwrap(), Taken::Held(_)));
        });
        let held = take_tick(&private);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| take_for_looking(&private, "sync", true, LONG).unwrap());
            std::thread::sleep(SHORT);
            release(held).join().unwrap();
            assert!(matches!(waiting.join().unwrap(), Taken::Held(_)));
        });
    }

    #[test]
    fn something_else_at_its_name_is_an_error() {
        let (_git_dir, private) = private();
        fs::create_dir(private.file(NAME)).unwrap();
        for error in [
            take(&private, "tick", true, SHORT, now).unwrap_err(),
            take_for_looking(&private, "tick", true, SHORT).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        }
        assert_eq!(peek(&private), None);
    }
}
