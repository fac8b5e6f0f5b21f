//! The private folder, `.git/gitsync/`: what gitsync remembers between passes, never committed, readable by the owner alone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::fs::atomic::{self, How};
use crate::fs::files;

/// What the name of a file that is being written ends with.
const FRESH: &str = ".new";

/// The private folder of one repository.
#[derive(Clone, Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// The folder's place inside `git_dir`; nothing is made yet.
    pub fn of(git_dir: &Path) -> Self {
        Self(git_dir.join("gitsync"))
    }

    /// Makes the folder (mode 0700) where it is missing.
    ///
    /// # Errors
    /// Those of the file system, and one where a link stands in the folder's place: it would lead writes elsewhere.
    pub fn create(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.0) {
            Ok(meta) if meta.is_dir() => {
                if meta.permissions().mode() & 0o777 != 0o700 {
                    fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))?;
                }
                Ok(())
            }
            Ok(_) => Err(self.is_no_folder()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&self.0)?;
                self.0.parent().map_or(Ok(()), sync_dir)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a folder that a job has replaced by a link since: it would lead writes elsewhere. One that is gone is no
    /// danger.
    ///
    /// # Errors
    /// Where something else stands in the folder's place.
    pub fn check(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.0) {
            Ok(meta) if !meta.is_dir() => Err(self.is_no_folder()),
            _ => Ok(()),
        }
    }

    fn is_no_folder(&self) -> io::Error {
        io::Error::other(format!("{} is not a folder", self.0.display()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file or folder in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// [`PrivateDir::file`], with as many `+` behind it as make it one that is not there yet.
    pub fn free_file(&self, name: &str) -> PathBuf {
        let mut path = self.file(name);
        while path.symlink_metadata().is_ok() {
            path.as_mut_os_string().push("+");
        }
        path
    }

    /// Replaces a file whole; when this returns, the new content survives a power loss.
    ///
    /// # Errors
    /// Those of the file system; the old content is then still there.
    pub fn write_durably(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content, true)?;
        sync_dir(&self.0)
    }

    /// Replaces a file whole, without waiting for the disk.
    ///
    /// # Errors
    /// Those of the file system; the old content is then still there.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content, false)
    }

    fn replace(&self, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
        self.check()?;
        let fresh = self.file(&format!("{name}{FRESH}"));
        // A pass that was killed here left this behind; only the holder of the lock writes here, so it is nobody's.
        remove_if_there(&fresh)?;
        let how = if durable { How::Durably } else { How::Quickly };
        atomic::replace(&self.file(name), &fresh, content, how)
    }

    /// Removes files that a killed pass was about to put in place: not every pass writes each of them again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear_unfinished(&self) -> io::Result<()> {
        self.check()?;
        for entry in files::entries(&self.0)? {
            let fresh = entry.name().to_string_lossy().ends_with(FRESH);
            if fresh && entry.kind == FileType::RegularFile {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes a file; when this returns, a power loss does not bring it back. Whether it was there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove_durably(&self, name: &str) -> io::Result<bool> {
        self.check()?;
        let there = remove_if_there(&self.file(name))?;
        if there {
            sync_dir(&self.0)?;
        }
        Ok(there)
    }

    /// A folder in it, made where it is missing.
    ///
    /// # Errors
    /// Those of the file system, and one where a link stands in its place: it would lead writes elsewhere.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        self.check()?;
        let path = self.file(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(path),
            Ok(_) => Err(io::Error::other(format!("{} is not a folder", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&path)?;
                Ok(path)
            }
            Err(error) => Err(error),
        }
    }

    /// Moves what is no file where one of `files` belongs, or no folder where one of `folders` does, into `aside/`. Gives what was
    /// moved, and where to.
    ///
    /// `stamp`: the time, as part of the new name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_aside_misplaced(
        &self,
        files: &[&str],
        folders: &[&str],
        stamp: &str,
    ) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        let mut moved = Vec::new();
        let files = files.iter().map(|name| (name, false));
        for (name, is_folder) in files.chain(folders.iter().map(|name| (name, true))) {
            let path = self.file(name);
            let fits = |meta: fs::Metadata| if is_folder { meta.is_dir() } else { meta.is_file() };
            if fs::symlink_metadata(&path).map_or(true, fits) {
                continue;
            }
            let mut to = self.folder("aside")?.join(format!("{name}-{stamp}"));
            while to.symlink_metadata().is_ok() {
                to.as_mut_os_string().push("+");
            }
            match fs::rename(&path, &to) {
                Ok(()) => moved.push((path, to)),
                // Another init-sync was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// A file's content, or nothing where there is none.
    ///
    /// # Errors
    /// Those of the file system, and one where what stands there is no file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match files::read(&self.file(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Removes a file where there is one.
///
/// # Errors
/// Those of the file system.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until a folder's entries are on disk.
///
/// # Errors
/// Those of the file system.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
