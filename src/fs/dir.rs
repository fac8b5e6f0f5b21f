//! A directory handle that follows no links: for the work tree, the staging folder and the public dir.
//!
//! Every path is walked component by component with `O_NOFOLLOW`, so that a link planted anywhere in it, by the job or by
//! the remote, ends the walk instead of leading out of the tree (guarantee G10). Operations in a folder take a name without a
//! slash: a longer path would be resolved again each time, and one of its components may have been replaced by a link since.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

pub(crate) const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file may have been replaced by a FIFO or a terminal since it was looked at. Opening it must not block.
pub(crate) const OPEN_FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link,
    /// A folder.
    Folder,
    /// A FIFO, socket or device.
    Special,
}

/// A directory entry: its kind, and the result of `stat`, which shows whether it has changed.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its kind.
    pub kind: FileKind,
    /// What the system says about it.
    pub stat: Stat,
}

/// What a pass needs of the system's `stat`, which is more than twice as large: a follow keeps one for each file.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_size: i64,
    pub st_mtime: i64,
    pub st_ctime: i64,
    pub st_mtime_nsec: u32,
    pub st_ctime_nsec: u32,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub st_nlink: u32,
}

// The system's types differ between platforms. Nanoseconds and links fit into 32 bits.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::cast_lossless)]
impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Self {
        Self {
            st_dev: stat.st_dev as u64,
            st_ino: stat.st_ino as u64,
            st_size: stat.st_size as i64,
            st_mtime: stat.st_mtime as i64,
            st_ctime: stat.st_ctime as i64,
            st_mtime_nsec: stat.st_mtime_nsec as u32,
            st_ctime_nsec: stat.st_ctime_nsec as u32,
            st_mode: stat.st_mode as u32,
            st_uid: stat.st_uid,
            st_gid: stat.st_gid,
            st_nlink: stat.st_nlink as u32,
        }
    }
}

impl Found {
    pub(crate) fn of(stat: rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File { executable: stat.st_mode & 0o100 != 0 },
            FileType::Symlink => FileKind::Link,
            FileType::Directory => FileKind::Folder,
            _ => FileKind::Special,
        };
        Self { kind, stat: stat.into() }
    }

    /// Whether this is `staged` after its rename: only the change time may differ.
    pub fn is_placed_from(&self, staged: &Found) -> bool {
        let numbers = |s: &Stat| (s.st_dev, s.st_ino, s.st_size, s.st_mtime, s.st_mtime_nsec);
        self.kind == staged.kind && numbers(&self.stat) == numbers(&staged.stat)
    }

    /// Whether the content is still the same, as far as `stat` shows it.
    pub fn is_same(&self, other: &Found) -> bool {
        let numbers =
            |s: &Stat| (s.st_dev, s.st_ino, s.st_size, s.st_mtime, s.st_mtime_nsec, s.st_ctime, s.st_ctime_nsec);
        self.kind == other.kind && numbers(&self.stat) == numbers(&other.stat)
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

/// Where a walk to a path's parent ended.
#[derive(Debug)]
pub enum Parent {
    /// At the parent, which is open.
    There(Dir),
    /// A component is missing.
    Missing,
    /// A component is not a folder: its depth, counted from 1.
    Obstacle(usize),
}

impl Dir {
    /// Opens the top of a tree.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::openat(
            rustix::fs::CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { fd })
    }

    /// Opens an absolute path in which no component is a link.
    ///
    /// # Errors
    /// If the file system fails, or a component is a link.
    pub fn reach(path: &Path) -> Result<Dir, Errno> {
        Dir::walk(path, false)
    }

    /// Like [`Dir::reach`], and creates missing folders.
    ///
    /// # Errors
    /// As [`Dir::reach`].
    pub fn reach_or_make(path: &Path) -> Result<Dir, Errno> {
        Dir::walk(path, true)
    }

    fn walk(path: &Path, make: bool) -> Result<Dir, Errno> {
        // `O_PATH` needs no permission to read the folders on the way.
        #[cfg(target_os = "linux")]
        let through = OPEN_DIR.union(OFlags::PATH);
        #[cfg(not(target_os = "linux"))]
        let through = OPEN_DIR;
        let mut at = rustix::fs::openat(rustix::fs::CWD, "/", through, Mode::empty())?;
        for component in path.components() {
            let name = match component {
                Component::RootDir => continue,
                Component::Normal(name) => name,
                Component::CurDir | Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
            };
            at = match rustix::fs::openat(&at, name, through, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    rustix::fs::openat(&at, name, through, Mode::empty())?
                }
                opened => opened?,
            };
        }
        rustix::fs::openat(&at, ".", OPEN_DIR, Mode::empty()).map(Dir::from)
    }

    /// Walks to the folder that contains `path`'s last component.
    ///
    /// # Errors
    /// If the file system fails. A component that is missing or not a folder is no error.
    pub fn parent_of(&self, path: &Path) -> io::Result<Parent> {
        let mut at = self.again()?;
        let count = path.components().count();
        for (depth, name) in path.components().take(count.saturating_sub(1)).enumerate() {
            match at.child(name.as_os_str().as_bytes()) {
                Ok(next) => at = next,
                Err(Errno::NOENT) => return Ok(Parent::Missing),
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Parent::Obstacle(depth + 1)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Parent::There(at))
    }

    /// Walks to the folder that contains `path`'s last component, and creates missing folders. `sync`: whether to wait until those
    /// are on disk.
    ///
    /// # Errors
    /// If the file system fails; `NotADirectory` if a component is not a folder.
    pub fn make_parent_of(&self, path: &Path, sync: bool) -> io::Result<Dir> {
        let mut at = self.again()?;
        let count = path.components().count();
        for name in path.components().take(count.saturating_sub(1)) {
            let name = name.as_os_str().as_bytes();
            at = match at.child(name) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&at.fd, name, Mode::from_raw_mode(0o777)) {
                        Ok(()) if sync => at.sync()?,
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    at.child(name)?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    /// The entry with this name in this folder; `None` if there is none.
    ///
    /// # Errors
    /// If the file system fails. A missing entry is no error.
    pub fn look(&self, name: impl AsRef<Path>) -> Result<Option<Found>, Errno> {
        match rustix::fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found::of(stat))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entry at a path below this folder, without following links; `None` if there is none.
    ///
    /// # Errors
    /// If the file system fails. A missing entry is no error.
    pub fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.parent_of(path)? {
            Parent::There(parent) => Ok(parent.look(last(path))?),
            Parent::Missing | Parent::Obstacle(_) => Ok(None),
        }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// If the file system fails, or the name is a link or anything else but a regular file.
    pub fn open_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let fd = rustix::fs::openat(&self.fd, name.as_ref(), OPEN_FILE, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// Reads a regular file's bytes, or a link's target.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn read(&self, name: impl AsRef<Path>, kind: FileKind) -> io::Result<Vec<u8>> {
        match kind {
            FileKind::Link => Ok(self.link_target(name)?),
            FileKind::File { .. } => {
                let mut bytes = Vec::new();
                self.open_file(name)?.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            FileKind::Folder | FileKind::Special => Err(Errno::INVAL.into()),
        }
    }

    /// Whether a regular file or a link can be read to its end.
    pub fn is_readable(&self, name: impl AsRef<Path>, kind: FileKind) -> bool {
        match kind {
            FileKind::Link => self.link_target(name).is_ok(),
            _ => self.open_file(name).and_then(|mut file| io::copy(&mut file, &mut io::sink())).is_ok(),
        }
    }

    /// Reads a link's target.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn link_target(&self, name: impl AsRef<Path>) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&self.fd, name.as_ref(), Vec::new())?.into_bytes())
    }

    /// Removes a file or link.
    ///
    /// # Errors
    /// If the file system fails. A missing entry is no error.
    pub fn unlink(&self, name: impl AsRef<Path>) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a folder if it is empty. Returns whether it was removed.
    ///
    /// # Errors
    /// If the file system fails. A folder that is missing or not empty is no error.
    pub fn remove_empty(&self, name: impl AsRef<Path>) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a folder if there is none.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn make_folder(&self, name: impl AsRef<Path>) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.fd, name.as_ref(), Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames `from` to `to` in the folder `there`.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn rename(&self, from: impl AsRef<Path>, there: &Dir, to: impl AsRef<Path>) -> Result<(), Errno> {
        rustix::fs::renameat(&self.fd, from.as_ref(), &there.fd, to.as_ref())
    }

    /// The names in this folder, with the type of each.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn list(&self) -> io::Result<Vec<(std::ffi::OsString, FileType)>> {
        crate::fs::files::list(&self.fd)
    }

    /// Opens a folder in this one; a link is not followed.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn folder(&self, name: impl AsRef<Path>) -> io::Result<Dir> {
        Ok(self.child(name.as_ref().as_os_str().as_bytes())?)
    }

    /// Creates a new file in this folder.
    ///
    /// # Errors
    /// If the file system fails; `AlreadyExists` if the name is in use.
    pub fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::from_raw_mode(mode))?))
    }

    /// Creates a symbolic link in this folder.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn create_link(&self, name: impl AsRef<Path>, target: &[u8]) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &self.fd, name.as_ref())
    }

    /// Syncs the folder's entries to disk.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.fd)
    }

    /// Syncs this folder's whole file system to disk.
    ///
    /// # Errors
    /// If the file system fails.
    #[cfg(target_os = "linux")]
    pub fn sync_all(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(self.fd.as_fd())
    }

    /// Syncs all file systems to disk: this system has no narrower call.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn sync_all(&self) -> Result<(), Errno> {
        rustix::fs::sync();
        Ok(())
    }

    pub(super) fn child(&self, name: impl rustix::path::Arg) -> Result<Dir, Errno> {
        Ok(Self { fd: rustix::fs::openat(&self.fd, name, OPEN_DIR, Mode::empty())? })
    }

    pub(crate) fn again(&self) -> io::Result<Dir> {
        Ok(Self { fd: self.fd.try_clone()? })
    }
}

/// The last component of a path.
pub fn last(path: &Path) -> &Path {
    // Path::file_name reads the path component by component.
    let bytes = path.as_os_str().as_bytes();
    match bytes.iter().rposition(|byte| *byte == b'/').and_then(|end| bytes.get(end + 1..)) {
        Some(name) if ![&b""[..], b".", b".."].contains(&name) => Path::new(OsStr::from_bytes(name)),
        _ => path.file_name().map_or(path, Path::new),
    }
}
