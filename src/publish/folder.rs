//! A folder as an open handle. Everything is done relative to a handle, by a name without a slash, and no link is ever
//! followed: a path would be looked up anew each time, and what lies on it could have been replaced by a link meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat, openat};
use rustix::io::Errno;

/// Folders nested deeper than this are not published: each level takes an open file while it is worked on.
const DEEPEST: usize = 200;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file that may turn out to be a FIFO or a terminal must not hold us up.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    File,
    Folder,
    Link,
    Other,
}

/// What a name in a folder stands for, links not followed.
pub(super) struct Look {
    pub(super) kind: FileKind,
    pub(super) mode: Mode,
    pub(super) size: u64,
    pub(super) owner: u32,
    /// The file is known by another name as well, perhaps outside of the site.
    pub(super) shared: bool,
}

impl Look {
    // The fields are narrower on some systems.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn at(stat: &Stat) -> Look {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        };
        let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o7777);
        Look { kind, mode, size: stat.st_size as u64, owner: stat.st_uid, shared: stat.st_nlink as u64 > 1 }
    }

    /// The mode under which a web server can read it.
    pub(super) fn readable(&self) -> Mode {
        let executable = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        if self.kind == FileKind::Folder || self.mode.intersects(executable) {
            Mode::from_raw_mode(0o755)
        } else {
            Mode::from_raw_mode(0o644)
        }
    }
}

/// Whether the error means that a thing can't be renamed from here to there, though it could be copied.
pub(super) fn cannot_be_moved(error: Errno) -> bool {
    [Errno::XDEV, Errno::BUSY, Errno::INVAL, Errno::NOSYS, Errno::ACCESS, Errno::PERM, Errno::OPNOTSUPP, Errno::ROFS]
        .contains(&error)
}

#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens an absolute path in which no component is a link.
    pub(super) fn open(path: &Path) -> Result<Folder, Errno> {
        Folder::walk(path, false)
    }

    /// Like [`Folder::open`]; what is missing is made.
    pub(super) fn open_or_make(path: &Path) -> Result<Folder, Errno> {
        Folder::walk(path, true)
    }

    fn walk(path: &Path, make: bool) -> Result<Folder, Errno> {
        // Passing through a folder takes less permission than reading it.
        #[cfg(target_os = "linux")]
        let through = FOLDER.union(OFlags::PATH);
        #[cfg(not(target_os = "linux"))]
        let through = FOLDER;
        let mut at = rustix::fs::openat(rustix::fs::CWD, "/", through, Mode::empty())?;
        for component in path.components() {
            let name = match component {
                Component::RootDir => continue,
                Component::Normal(name) => name,
                Component::CurDir | Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
            };
            at = match openat(&at, name, through, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    openat(&at, name, through, Mode::empty())?
                }
                opened => opened?,
            };
        }
        openat(&at, ".", FOLDER, Mode::empty()).map(Folder)
    }

    /// A folder in this one, which is not where something else is mounted.
    pub(super) fn sub(&self, name: &OsStr) -> Result<Folder, Errno> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            match rustix::fs::openat2(&self.0, name, FOLDER, Mode::empty(), resolve) {
                // Older kernels, and the sandboxes that never heard of it.
                Err(Errno::NOSYS | Errno::PERM) => {}
                opened => return opened.map(Folder),
            }
        }
        let opened = openat(&self.0, name, FOLDER, Mode::empty())?;
        if rustix::fs::fstat(&opened)?.st_dev != rustix::fs::fstat(&self.0)?.st_dev {
            return Err(Errno::XDEV);
        }
        Ok(Folder(opened))
    }

    /// Like [`Folder::sub`], after giving ourselves the permission that its builder took from us.
    pub(super) fn sub_by_force(&self, name: &OsStr) -> Result<Folder, Errno> {
        let ours = Mode::from_raw_mode(0o700);
        let opened = match self.sub(name) {
            Err(Errno::ACCESS) => {
                self.set_mode(name, ours)?;
                self.sub(name)?
            }
            opened => opened?,
        };
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&opened.0)?.st_mode);
        if !mode.contains(ours) {
            // Where we may not, the next step says so.
            let _ = rustix::fs::fchmod(&opened.0, ours);
        }
        Ok(opened)
    }

    /// The folder that these names lead to from here.
    pub(super) fn beneath(&self, names: &[OsString]) -> Result<Folder, Errno> {
        let mut at = Folder(openat(&self.0, ".", FOLDER, Mode::empty())?);
        for name in names {
            at = at.sub(name)?;
        }
        Ok(at)
    }

    /// All names but `.` and `..`.
    pub(super) fn names(&self) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_owned()));
            }
        }
        Ok(names)
    }

    pub(super) fn look(&self, name: &OsStr) -> Result<Option<Look>, Errno> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Look::at(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn link_target(&self, name: &OsStr) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    pub(super) fn make(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o700))
    }

    pub(super) fn make_link(&self, name: &OsStr, target: &[u8]) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &self.0, name)
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, name: &OsStr) -> Result<File, Errno> {
        let fd = openat(&self.0, name, FILE, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Makes a new file, of which no reader knows yet.
    pub(super) fn new_file(&self, name: &OsStr) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.0, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
    }

    pub(super) fn set_mode(&self, name: &OsStr, mode: Mode) -> Result<(), Errno> {
        match openat(&self.0, name, FILE, Mode::empty()) {
            Ok(fd) => rustix::fs::fchmod(fd, mode),
            // We may own what we may not read. A handle that needs no permission can't be changed but by way of /proc.
            #[cfg(target_os = "linux")]
            Err(Errno::ACCESS) => {
                let fd = openat(&self.0, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                if Look::at(&rustix::fs::fstat(&fd)?).kind == FileKind::Link {
                    return Err(Errno::LOOP);
                }
                rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)), mode)
            }
            #[cfg(not(target_os = "linux"))]
            Err(Errno::ACCESS) => rustix::fs::chmodat(&self.0, name, mode, AtFlags::SYMLINK_NOFOLLOW),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_own_mode(&self, mode: Mode) -> Result<(), Errno> {
        if Mode::from_raw_mode(rustix::fs::fstat(&self.0)?.st_mode) & Mode::from_raw_mode(0o7777) == mode {
            return Ok(());
        }
        rustix::fs::fchmod(&self.0, mode)
    }

    /// Moves something, over what has the new name there if that is no folder.
    pub(super) fn rename(&self, name: &OsStr, to: &Folder, new_name: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat(&self.0, name, &to.0, new_name)
    }

    /// Waits until the names in it are on disk.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.0)
    }

    /// Waits until everything on its file system is on disk.
    pub(super) fn sync_file_system(&self) -> Result<(), Errno> {
        #[cfg(target_os = "linux")]
        return rustix::fs::syncfs(&self.0);
        #[cfg(not(target_os = "linux"))]
        {
            rustix::fs::sync();
            Ok(())
        }
    }

    /// Lets two things change places, at one moment for all readers.
    pub(super) fn exchange(&self, name: &OsStr, other: &Folder, other_name: &OsStr) -> Result<(), Errno> {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        return rustix::fs::renameat_with(&self.0, name, &other.0, other_name, RenameFlags::EXCHANGE);
        #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
        return Err(Errno::NOSYS);
    }

    /// Removes a file, a link, or a folder with all that is in it. Stops where something else is mounted.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        match self.look(name)?.map(|it| it.kind) {
            None => Ok(()),
            Some(FileKind::File | FileKind::Link | FileKind::Other) => self.unlink(name),
            Some(FileKind::Folder) => {
                let folder = self.sub_by_force(name)?;
                folder.remove_all(&folder, 0, &mut 0)?;
                rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
            }
        }
    }

    pub(super) fn unlink(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty())
    }

    /// Empties this folder, which lies `depth` below `top`. What lies too deep to hold a handle for each level is first
    /// moved up to the top.
    fn remove_all(&self, top: &Folder, depth: usize, moved: &mut u64) -> Result<(), Errno> {
        loop {
            let before = *moved;
            for name in self.names()? {
                match self.look(&name)?.map(|it| it.kind) {
                    None => {}
                    Some(FileKind::File | FileKind::Link | FileKind::Other) => self.unlink(&name)?,
                    Some(FileKind::Folder) if depth < DEEPEST => {
                        self.sub_by_force(&name)?.remove_all(top, depth + 1, moved)?;
                        rustix::fs::unlinkat(&self.0, &name, AtFlags::REMOVEDIR)?;
                    }
                    Some(FileKind::Folder) => loop {
                        *moved += 1;
                        match self.rename(&name, top, OsStr::new(&format!("too-deep-{moved}"))) {
                            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                            done => break done?,
                        }
                    },
                }
            }
            if depth > 0 || *moved == before {
                return Ok(());
            }
        }
    }

    /// Gives all folders and files below here a mode under which a web server can read them, and this folder, too. What
    /// is neither file, folder nor link (a FIFO would hang a reader) is named, and with `remove_odd` removed.
    pub(super) fn make_readable(&self, remove_odd: bool) -> io::Result<()> {
        self.make_readable_below(&mut PathBuf::new(), 0, remove_odd)
    }

    fn make_readable_below(&self, at: &mut PathBuf, depth: usize, remove_odd: bool) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("folders are nested more than {DEEPEST} deep")));
        }
        for name in self.names()? {
            at.push(&name);
            self.make_one_readable(&name, at, depth, remove_odd).map_err(|error| located(error, at))?;
            at.pop();
        }
        self.set_own_mode(Mode::from_raw_mode(0o755)).or_else(|error| if depth == 0 { Ok(()) } else { Err(error) })?;
        Ok(())
    }

    fn make_one_readable(&self, name: &OsStr, at: &mut PathBuf, depth: usize, remove_odd: bool) -> io::Result<()> {
        let Some(look) = self.look(name)? else { return Ok(()) };
        match look.kind {
            FileKind::Folder => self.sub_by_force(name)?.make_readable_below(at, depth + 1, remove_odd)?,
            FileKind::File if look.mode == look.readable() => {}
            // The same file may be known outside of the site under another name, and its mode is none of ours there.
            FileKind::File if look.shared => self.replace_by_copy(name, look.readable())?,
            FileKind::File => self.set_mode(name, look.readable())?,
            FileKind::Link => {}
            FileKind::Other => {
                tracing::warn!(target: "gitsync::publish",
                    "left out of the site, being neither file, folder nor link: {}", at.display());
                if remove_odd {
                    self.unlink(name)?;
                }
            }
        }
        Ok(())
    }

    fn replace_by_copy(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        let copy = OsString::from(".gitsync-copy");
        self.remove(&copy)?;
        self.copy_file(name, self, &copy, mode)?;
        Ok(self.rename(&copy, self, name)?)
    }

    /// Copies a file with its time.
    pub(super) fn copy_file(&self, name: &OsStr, to: &Folder, new_name: &OsStr, mode: Mode) -> io::Result<()> {
        let mut from = self.file(name)?;
        let mut copy = to.new_file(new_name)?;
        io::copy(&mut from, &mut copy)?;
        copy.set_modified(from.metadata()?.modified()?)?;
        Ok(rustix::fs::fchmod(&copy, mode)?)
    }
}

/// Says of an error where it happened, once.
fn located(error: io::Error, at: &Path) -> io::Error {
    if error.raw_os_error().is_none() {
        return error;
    }
    io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(at.as_os_str().as_bytes())))
}
