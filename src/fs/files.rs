//! Reading files and folders without waiting and without a panic.
//!
//! Who opens a FIFO waits until somebody opens its other end, and a pass would wait with the lock held. So nothing is opened for
//! reading that could wait, and what is no file is named. std's reading of a folder panics where `close` fails; this one does not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::clock::instant;

const OPEN_FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const OPEN_FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The most that is read of what is no regular file.
const MOST_OF_A_PIPE: u64 = 1 << 20;

/// What is no file or folder, in words: "a FIFO". A link that leads to one counts, `/dev/null` does not: reading it never waits.
pub(crate) fn special(path: &Path) -> Option<&'static str> {
    rustix::fs::stat(path).ok().and_then(|stat| special_kind(&stat))
}

fn special_kind(stat: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice if is_null(stat) => None,
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        _ => None,
    }
}

fn is_null(stat: &Stat) -> bool {
    rustix::fs::stat("/dev/null").is_ok_and(|null| null.st_rdev == stat.st_rdev)
}

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the file system, and one that says what stands there where that is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = File::from(rustix::fs::openat(rustix::fs::CWD, path, OPEN_FILE, Mode::empty())?);
    check_is_file(&file)?;
    Ok(file)
}

/// Refuses what is no regular file.
///
/// # Errors
/// One that says what it is.
pub(crate) fn check_is_file(file: &File) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    match special_kind(&stat) {
        Some(kind) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a file"))),
        None if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Err(Errno::ISDIR.into()),
        None => Ok(()),
    }
}

/// A regular file's bytes.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A regular file's text.
///
/// # Errors
/// As [`open`], and one for what is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// The text of a file, or of a pipe such as a shell's `<(…)`, which may take until `until` to say all.
///
/// # Errors
/// As [`read_to_string`]; `TimedOut` where the pipe was not through by then.
pub(crate) fn read_until(path: &Path, until: Instant) -> io::Result<String> {
    if special(path) != Some("a FIFO") {
        return read_to_string(path);
    }
    let pipe = File::from(rustix::fs::openat(rustix::fs::CWD, path, OPEN_FILE, Mode::empty())?);
    let mut limited = (&pipe).take(MOST_OF_A_PIPE);
    let mut bytes = Vec::new();
    loop {
        match limited.read_to_end(&mut bytes) {
            Ok(_) => {
                return String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = until.saturating_duration_since(instant());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody wrote to its end into this FIFO"));
        }
        let pause = Timespec::try_from(left.min(Duration::from_secs(1))).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // An interrupted wait is a wait that ended early.
        let _ = poll(&mut [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)], Some(&pause));
    }
}

/// A name in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    folder: PathBuf,
    name: OsString,
    /// What stands there, no link followed.
    pub(crate) kind: FileType,
}

impl Entry {
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether this is a FIFO, a socket or a device.
    pub(crate) fn is_special(&self) -> bool {
        !matches!(self.kind, FileType::RegularFile | FileType::Directory | FileType::Symlink)
    }
}

/// What is in a folder.
///
/// # Errors
/// Those of the file system.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let fd = rustix::fs::openat(rustix::fs::CWD, folder, OPEN_FOLDER, Mode::empty())?;
    let entry = |(name, kind)| Entry { folder: folder.to_owned(), name, kind };
    Ok(list(&fd)?.into_iter().map(entry).collect())
}

/// What is in a folder that can be read; nothing where it is missing or can't be.
pub(crate) fn entries_if_any(folder: &Path) -> Vec<Entry> {
    entries(folder).unwrap_or_default()
}

/// The names in an open folder, with what stands there.
///
/// # Errors
/// Those of the file system.
pub(crate) fn list(folder: impl AsFd) -> io::Result<Vec<(OsString, FileType)>> {
    let mut all = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            let stat = rustix::fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        all.push((OsString::from_vec(name.to_vec()), kind));
    }
    Ok(all)
}

/// The first FIFO, socket or device below a folder, no link to a folder followed.
pub(crate) fn special_below(folder: &Path) -> Option<PathBuf> {
    entries_if_any(folder).into_iter().find_map(|entry| match entry.kind {
        FileType::Directory => special_below(&entry.path()),
        FileType::Symlink => special(&entry.path()).map(|_| entry.path()),
        _ if entry.is_special() => Some(entry.path()),
        _ => None,
    })
}

/// Removes a folder with all that is in it, links in it not followed. A link in its place is removed itself.
///
/// # Errors
/// Those of the file system, but for there being nothing.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    match rustix::fs::openat(rustix::fs::CWD, path, OPEN_FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(folder) => empty_folder(&folder)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) if path.is_symlink() => return std::fs::remove_file(path),
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty_folder(folder: &OwnedFd) -> io::Result<()> {
    for (name, kind) in list(folder)? {
        let mut how = AtFlags::empty();
        if kind == FileType::Directory {
            match rustix::fs::openat(folder, &name, OPEN_FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(inner) => empty_folder(&inner)?,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
            how = AtFlags::REMOVEDIR;
        }
        match rustix::fs::unlinkat(folder, &name, how) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
