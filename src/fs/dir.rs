//! A folder through a directory handle that follows no links: the work tree, the staging folder, the public dir.
//!
//! Every path is walked component by component with `O_NOFOLLOW`, so that a link planted anywhere in it, by the job or by
//! the remote, ends the walk instead of leading out of the tree (guarantee G10). What is done in a folder is done by a name
//! without a slash: a path would be looked up anew each time, and what lies on it could have been replaced by a link meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

pub(crate) const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What was a file a moment ago may be a FIFO or a terminal now, and must not hold us.
pub(crate) const OPEN_FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file; whether its owner may execute it.
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

/// What stands at a path, and the numbers by which a change of it shows.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// What it is.
    pub kind: FileKind,
    /// Its numbers.
    pub stat: Stat,
}

impl Found {
    pub(crate) fn of(stat: Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File { executable: stat.st_mode & 0o100 != 0 },
            FileType::Symlink => FileKind::Link,
            FileType::Directory => FileKind::Folder,
            _ => FileKind::Special,
        };
        Self { kind, stat }
    }

    /// Whether this is `staged` after its rename: the change time alone is another then.
    pub fn is_placed_from(&self, staged: &Found) -> bool {
        let numbers = |s: &Stat| (s.st_dev, s.st_ino, s.st_size, s.st_mtime, s.st_mtime_nsec);
        self.kind == staged.kind && numbers(&self.stat) == numbers(&staged.stat)
    }

    /// Whether this is still the same content, as far as numbers tell.
    pub fn is_same(&self, other: &Found) -> bool {
        let numbers =
            |s: &Stat| (s.st_dev, s.st_ino, s.st_size, s.st_mtime, s.st_mtime_nsec, s.st_ctime, s.st_ctime_nsec);
        self.kind == other.kind && numbers(&self.stat) == numbers(&other.stat)
    }
}

/// A folder held open.
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
    /// At the parent: the handle and the last name.
    There(Dir),
    /// A component is missing.
    Missing,
    /// A component is no folder: its depth, counted from 1.
    Obstacle(usize),
}

impl Dir {
    /// Opens the top of a tree.
    ///
    /// # Errors
    /// Those of the file system.
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
    /// Those of the file system; a link is one.
    pub fn reach(path: &Path) -> Result<Dir, Errno> {
        Dir::walk(path, false)
    }

    /// Like [`Dir::reach`]; what is missing is made.
    ///
    /// # Errors
    /// As [`Dir::reach`].
    pub fn reach_or_make(path: &Path) -> Result<Dir, Errno> {
        Dir::walk(path, true)
    }

    fn walk(path: &Path, make: bool) -> Result<Dir, Errno> {
        // Passing through a folder takes less permission than reading it.
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

    /// Walks to the folder that holds `path`'s last component.
    ///
    /// # Errors
    /// Those of the file system, but for a missing component or one that is no folder.
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

    /// Walks to the folder that holds `path`'s last component and makes the folders that are missing. `sync`: whether to wait
    /// until those are on disk.
    ///
    /// # Errors
    /// Those of the file system; `NotADirectory` where something stands in the way.
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

    /// What stands at a name in this folder.
    ///
    /// # Errors
    /// Those of the file system, but for there being nothing.
    pub fn look(&self, name: impl AsRef<Path>) -> Result<Option<Found>, Errno> {
        match rustix::fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found::of(stat))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What stands at a path below this folder, no link followed.
    ///
    /// # Errors
    /// Those of the file system, but for there being nothing.
    pub fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.parent_of(path)? {
            Parent::There(parent) => Ok(parent.look(last(path))?),
            Parent::Missing | Parent::Obstacle(_) => Ok(None),
        }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// Those of the file system; a link is one.
    pub fn open_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let fd = rustix::fs::openat(&self.fd, name.as_ref(), OPEN_FILE, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// A regular file's bytes, or a link's target.
    ///
    /// # Errors
    /// Those of the file system.
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

    /// A link's target.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn link_target(&self, name: impl AsRef<Path>) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&self.fd, name.as_ref(), Vec::new())?.into_bytes())
    }

    /// Removes a file or link.
    ///
    /// # Errors
    /// Those of the file system, but for there being nothing.
    pub fn unlink(&self, name: impl AsRef<Path>) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a folder if it is empty. Whether it went.
    ///
    /// # Errors
    /// Those of the file system, but for its holding something or not being there.
    pub fn remove_empty(&self, name: impl AsRef<Path>) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a folder where there is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make_folder(&self, name: impl AsRef<Path>) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.fd, name.as_ref(), Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts what stands at `from` in place as `to` in `there`, by one rename.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn rename(&self, from: impl AsRef<Path>, there: &Dir, to: impl AsRef<Path>) -> Result<(), Errno> {
        rustix::fs::renameat(&self.fd, from.as_ref(), &there.fd, to.as_ref())
    }

    /// The names in this folder, with what stands there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> io::Result<Vec<(std::ffi::OsString, FileType)>> {
        crate::fs::files::list(&self.fd)
    }

    /// A folder in this one, no link followed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn folder(&self, name: impl AsRef<Path>) -> io::Result<Dir> {
        Ok(self.child(name.as_ref().as_os_str().as_bytes())?)
    }

    /// Makes a new file in this folder.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` where something has that name.
    pub fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::from_raw_mode(mode))?))
    }

    /// Makes a link in this folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create_link(&self, name: impl AsRef<Path>, target: &[u8]) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &self.fd, name.as_ref())
    }

    /// Waits until the folder's entries are on disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.fd)
    }

    /// Waits until everything on this folder's file system is on disk.
    ///
    /// # Errors
    /// Those of the file system.
    #[cfg(target_os = "linux")]
    pub fn sync_all(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(self.fd.as_fd())
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// None; the system has no narrower call.
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
    path.file_name().map_or(path, Path::new)
}
