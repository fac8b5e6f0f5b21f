//! Operations on folders that only publishing needs: open folders without permission, make files readable, exchange, remove with
//! all content.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, openat};
use rustix::io::Errno;

use crate::fs::dir::{Dir, FileKind, Found, OPEN_DIR, OPEN_FILE};

/// Folders nested deeper than this are not published: each level needs an open file descriptor.
const DEEPEST: usize = 200;

impl Found {
    pub(super) fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.stat.st_mode) & Mode::from_raw_mode(0o7777)
    }

    /// Whether the file has other hard links, perhaps outside of the site.
    pub(super) fn is_shared(&self) -> bool {
        self.stat.st_nlink > 1
    }

    /// The mode that lets a web server read it.
    pub(super) fn readable(&self) -> Mode {
        let executable = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        if self.kind == FileKind::Folder || self.mode().intersects(executable) {
            Mode::from_raw_mode(0o755)
        } else {
            Mode::from_raw_mode(0o644)
        }
    }
}

/// Whether the error means that a file can't be renamed to its target, but could be copied.
pub(super) fn cannot_be_moved(error: Errno) -> bool {
    [Errno::XDEV, Errno::BUSY, Errno::INVAL, Errno::NOSYS, Errno::ACCESS, Errno::PERM, Errno::OPNOTSUPP, Errno::ROFS]
        .contains(&error)
}

impl Dir {
    /// Opens a folder in this one, unless it is a mount point.
    pub(super) fn sub(&self, name: &OsStr) -> Result<Dir, Errno> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            match rustix::fs::openat2(self, name, OPEN_DIR, Mode::empty(), resolve) {
                // Older kernels, and sandboxes that don't allow this call.
                Err(Errno::NOSYS | Errno::PERM) => {}
                opened => return opened.map(Dir::from),
            }
        }
        let opened = openat(self, name, OPEN_DIR, Mode::empty())?;
        if rustix::fs::fstat(&opened)?.st_dev != rustix::fs::fstat(self)?.st_dev {
            return Err(Errno::XDEV);
        }
        Ok(Dir::from(opened))
    }

    /// Like [`Dir::sub`], but first gives ourselves permission if the build has removed it.
    pub(super) fn sub_by_force(&self, name: &OsStr) -> Result<Dir, Errno> {
        let ours = Mode::from_raw_mode(0o700);
        let opened = match self.sub(name) {
            Err(Errno::ACCESS) => {
                self.set_mode(name, ours)?;
                self.sub(name)?
            }
            opened => opened?,
        };
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
        if !mode.contains(ours) {
            // If that is not allowed, the next step fails and says so.
            let _ = rustix::fs::fchmod(&opened, ours);
        }
        Ok(opened)
    }

    /// Opens the folder at this path below this one.
    pub(super) fn beneath(&self, names: &[OsString]) -> Result<Dir, Errno> {
        let mut at = Dir::from(openat(self, ".", OPEN_DIR, Mode::empty())?);
        for name in names {
            at = at.sub(name)?;
        }
        Ok(at)
    }

    /// All names except `.` and `..`.
    pub(super) fn names(&self) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_owned()));
            }
        }
        Ok(names)
    }

    pub(super) fn make(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::mkdirat(self, name, Mode::from_raw_mode(0o700))
    }

    pub(super) fn set_mode(&self, name: &OsStr, mode: Mode) -> Result<(), Errno> {
        match openat(self, name, OPEN_FILE, Mode::empty()) {
            Ok(fd) => rustix::fs::fchmod(fd, mode),
            // We may own a file that we may not read. `O_PATH` needs no permission, but such a handle can be changed only through
            // /proc.
            #[cfg(target_os = "linux")]
            Err(Errno::ACCESS) => {
                let fd = openat(self, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                if Found::of(rustix::fs::fstat(&fd)?).kind == FileKind::Link {
                    return Err(Errno::LOOP);
                }
                rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)), mode)
            }
            #[cfg(not(target_os = "linux"))]
            Err(Errno::ACCESS) => rustix::fs::chmodat(self, name, mode, AtFlags::SYMLINK_NOFOLLOW),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_own_mode(&self, mode: Mode) -> Result<(), Errno> {
        if Mode::from_raw_mode(rustix::fs::fstat(self)?.st_mode) & Mode::from_raw_mode(0o7777) == mode {
            return Ok(());
        }
        rustix::fs::fchmod(self, mode)
    }

    /// Exchanges two entries atomically.
    pub(super) fn exchange(&self, name: &OsStr, other: &Dir, other_name: &OsStr) -> Result<(), Errno> {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        return rustix::fs::renameat_with(self, name, other, other_name, RenameFlags::EXCHANGE);
        #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
        return Err(Errno::NOSYS);
    }

    /// Removes a file, a link, or a folder with everything in it. Fails at a mount point.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        match self.look(name)?.map(|it| it.kind) {
            None => Ok(()),
            Some(FileKind::File { .. } | FileKind::Link | FileKind::Special) => self.unlink(name),
            Some(FileKind::Folder) => {
                let folder = self.sub_by_force(name)?;
                folder.remove_all(&folder, 0, &mut 0)?;
                rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR)
            }
        }
    }

    /// Empties this folder, which is `depth` levels below `top`. Folders that are too deep to keep a handle for each level are first
    /// moved up to the top.
    fn remove_all(&self, top: &Dir, depth: usize, moved: &mut u64) -> Result<(), Errno> {
        loop {
            let before = *moved;
            for name in self.names()? {
                match self.look(&name)?.map(|it| it.kind) {
                    None => {}
                    Some(FileKind::File { .. } | FileKind::Link | FileKind::Special) => self.unlink(&name)?,
                    Some(FileKind::Folder) if depth < DEEPEST => {
                        self.sub_by_force(&name)?.remove_all(top, depth + 1, moved)?;
                        rustix::fs::unlinkat(self, &name, AtFlags::REMOVEDIR)?;
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

    /// Gives this folder, and all folders and files below it, a mode that lets a web server read them. Special files (a FIFO would
    /// block a reader) are named in a warning, and with `remove_odd` removed.
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
            FileKind::File { .. } if look.mode() == look.readable() => {}
            // The file may have a hard link outside of the site, where its mode must not change.
            FileKind::File { .. } if look.is_shared() => self.replace_by_copy(name, look.readable())?,
            FileKind::File { .. } => self.set_mode(name, look.readable())?,
            FileKind::Link => {}
            FileKind::Special => {
                tracing::warn!(target: "gitsync::publish",
                    "left out of the site, as it is neither file, folder nor link: {}", at.display());
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

    /// Copies a file with its modification time.
    pub(super) fn copy_file(&self, name: &OsStr, to: &Dir, new_name: &OsStr, mode: Mode) -> io::Result<()> {
        let mut from = self.open_file(name)?;
        let mut copy = to.create_file(new_name, 0o600)?;
        io::copy(&mut from, &mut copy)?;
        copy.set_modified(from.metadata()?.modified()?)?;
        Ok(rustix::fs::fchmod(&copy, mode)?)
    }
}

/// Adds the path to an error, unless it has one already.
fn located(error: io::Error, at: &Path) -> io::Error {
    if error.raw_os_error().is_none() {
        return error;
    }
    io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(at.as_os_str().as_bytes())))
}
