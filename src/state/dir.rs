//! The private folder, `.git/gitsync/`: what gitsync keeps between passes. It is never committed, and only its owner can read it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::fs::atomic::{self, How};
use crate::fs::files;

/// The suffix of a file that is still being written.
const FRESH: &str = ".new";

/// The private folder of one repository.
#[derive(Clone, Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// The private folder of the repository in `git_dir`. Nothing is created.
    pub fn of(git_dir: &Path) -> Self {
        Self(git_dir.join("gitsync"))
    }

    /// Creates the folder (mode 0700) if it is missing.
    ///
    /// # Errors
    /// If the file system fails, or if there is a link in the folder's place: writes would go elsewhere.
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

    /// Refuses a folder that a job has replaced by a link: writes would go elsewhere. A missing folder is accepted.
    ///
    /// # Errors
    /// If there is something else in the folder's place.
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

    /// [`PrivateDir::file`], with as many `+` added as it takes to get a name that is not in use.
    pub fn free_file(&self, name: &str) -> PathBuf {
        let mut path = self.file(name);
        while path.symlink_metadata().is_ok() {
            path.as_mut_os_string().push("+");
        }
        path
    }

    /// Replaces a file as a whole. When this returns, the new content survives a power loss.
    ///
    /// # Errors
    /// If the file system fails. The old content is then still there.
    pub fn write_durably(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content, true)?;
        sync_dir(&self.0)
    }

    /// Replaces a file as a whole, without waiting for the disk.
    ///
    /// # Errors
    /// If the file system fails. The old content is then still there.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content, false)
    }

    fn replace(&self, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
        self.check()?;
        let fresh = self.file(&format!("{name}{FRESH}"));
        // A killed pass may have left this file. Only the holder of the lock writes here, so nobody uses it.
        remove_if_there(&fresh)?;
        let how = if durable { How::Durably } else { How::Quickly };
        atomic::replace(&self.file(name), &fresh, content, how)
    }

    /// Removes unfinished files of a killed pass. Not every pass would overwrite each of them.
    ///
    /// # Errors
    /// If the file system fails.
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

    /// Removes a file. When this returns, a power loss does not bring it back. Returns whether the file existed.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn remove_durably(&self, name: &str) -> io::Result<bool> {
        self.check()?;
        let existed = remove_if_there(&self.file(name))?;
        if existed {
            sync_dir(&self.0)?;
        }
        Ok(existed)
    }

    /// A folder in it, created if it is missing.
    ///
    /// # Errors
    /// If the file system fails, or if there is a link in the folder's place: writes would go elsewhere.
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

    /// Checks that each of `files` is a file and each of `folders` is a folder, if it exists, and moves anything else into
    /// `aside/`. Returns what was moved, with the old and the new path.
    ///
    /// `stamp`: the time, which becomes part of the new name.
    ///
    /// # Errors
    /// If the file system fails.
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

    /// Reads a file; `None` if it does not exist.
    ///
    /// # Errors
    /// If the file system fails, or if there is something that is not a file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match files::read(&self.file(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Removes a file if it exists. Returns whether it did.
///
/// # Errors
/// If the file system fails.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Syncs a folder's entries to disk.
///
/// # Errors
/// If the file system fails.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
