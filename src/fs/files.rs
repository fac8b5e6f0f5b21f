//! Reads files and folders without blocking and without a panic.
//!
//! Opening a FIFO blocks until somebody opens its other end, and a pass would wait there with the lock held. So files are opened
//! without blocking, and the error for a special file says what it is. The standard library's iterator over a folder panics if
//! `close` fails; this code does not.

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

/// How many bytes of a pipe are read at most.
const MOST_OF_A_PIPE: u64 = 1 << 20;

/// The kind of a special file in words, such as "a FIFO"; `None` for a file or folder. Links are followed. `/dev/null` does not
/// count, because reading it never blocks.
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
/// If the file system fails; `InvalidInput` or `IsADirectory` if it is not a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = File::from(rustix::fs::openat(rustix::fs::CWD, path, OPEN_FILE, Mode::empty())?);
    check_is_file(&file)?;
    Ok(file)
}

/// Checks that this is a regular file.
///
/// # Errors
/// If it is not. The error says what it is.
pub(crate) fn check_is_file(file: &File) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    match special_kind(&stat) {
        Some(kind) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a file"))),
        None if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Err(Errno::ISDIR.into()),
        None => Ok(()),
    }
}

/// Reads a regular file's bytes.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file's text.
///
/// # Errors
/// As [`open`]; `InvalidData` if it is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Reads the text of a file, or of a pipe such as a shell's `<(…)`, whose writer has time until `until`.
///
/// # Errors
/// As [`read_to_string`]; `TimedOut` if the pipe was not closed by then.
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
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody wrote to this FIFO and closed it in time"));
        }
        let pause = Timespec::try_from(left.min(Duration::from_secs(1))).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // If the wait is interrupted, it has only ended early.
        let _ = poll(&mut [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)], Some(&pause));
    }
}

/// An entry of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    folder: PathBuf,
    name: OsString,
    /// Its type; a link is not followed.
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

/// The entries of a folder.
///
/// # Errors
/// If the file system fails.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let fd = rustix::fs::openat(rustix::fs::CWD, folder, OPEN_FOLDER, Mode::empty())?;
    let entry = |(name, kind)| Entry { folder: folder.to_owned(), name, kind };
    Ok(list(&fd)?.into_iter().map(entry).collect())
}

/// The entries of a folder; none if it is missing or can't be read.
pub(crate) fn entries_if_any(folder: &Path) -> Vec<Entry> {
    entries(folder).unwrap_or_default()
}

/// The names in an open folder, with the type of each.
///
/// # Errors
/// If the file system fails.
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

/// The first FIFO, socket or device below a folder. Links to folders are not followed.
pub(crate) fn special_below(folder: &Path) -> Option<PathBuf> {
    entries_if_any(folder).into_iter().find_map(|entry| match entry.kind {
        FileType::Directory => special_below(&entry.path()),
        FileType::Symlink => special(&entry.path()).map(|_| entry.path()),
        _ if entry.is_special() => Some(entry.path()),
        _ => None,
    })
}

/// Removes a folder and everything in it, without following links. If `path` itself is a link, the link is removed.
///
/// # Errors
/// If the file system fails. A missing entry is no error.
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

/// Makes a folder and those above it, if they are not there.
///
/// # Errors
/// If the file system fails. `fs::create_dir_all` says "exists" where it can't look at a folder that is there.
pub fn make_folders(path: &Path) -> io::Result<()> {
    match std::fs::create_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && std::fs::metadata(path)?.is_dir() => Ok(()),
        made => made,
    }
}
