//! Publishing the site: it is staged, then swapped in as a whole.
//!
//! The rules: a reader of the public dir sees the old site or the new one, with no missing and no half-written page. A failed
//! build changes nothing. Nothing outside the public dir and the private folder is written or removed, whatever links the build,
//! the job or the public dir contain.
//!
//! The build writes into a folder inside the private folder ([`Site::stage`]). [`Site::publish`] makes it readable for a web
//! server and swaps it in:
//!
//! - by one rename that exchanges the two folders, if both are on one file system and the public dir is not a mount point.
//!   The old site stays in the private folder until the next one is staged, for readers that still have it open.
//! - file by file, if the folder itself can't be renamed, such as the root of a volume. All new and changed files are first
//!   brought onto the volume, then renamed into place, the new ones before the changed ones. Last, files that are not part of the
//!   site any more are removed. Unchanged files are not touched and keep their modification times.
//!
//! The caller keeps a note from before the build until after the publish, and builds again when it finds one. What a killed
//! publish left is removed by the next [`Site::stage`].

mod command;
mod files;
mod folder;
mod owner;
mod rules;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use command::with_public_dir;
pub use rules::{Surroundings, check};

use crate::error::Error;
use crate::fs::dir::{Dir, FileKind};

/// The name of the staging folder in the private folder. If an old one can't be removed, a number is added.
const STAGING: &str = "site-staging";

/// How the site gets into the public dir.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Built in a staging folder, then exchanged as a whole, or file by file if that is not possible.
    #[default]
    Whole,
    /// Built in a staging folder, then published file by file even if an exchange is possible: for a public dir that another
    /// container or service has mounted or opened. After an exchange it would still see the old folder.
    FileByFile,
    /// The build writes into the public dir itself, for builds that need their old output. A reader may see half a page, and a
    /// failed build may leave an incomplete site.
    InPlace,
}

/// A public dir that may be published to, checked by [`check`].
#[derive(Clone, Debug)]
pub struct Site {
    public_dir: PathBuf,
    private_dir: PathBuf,
    way: Way,
}

/// A folder to build into. If it is dropped without having been published, the folder is removed.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    /// The private folder and the name in it; `None` for a build in place.
    aside: Option<(PathBuf, OsString)>,
}

impl Staged {
    /// The absolute path of the folder: the value of `{public_dir}` and `GITSYNC_PUBLIC_DIR` in the build.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some((private_dir, name)) = self.aside.take() {
            // If it can't be removed now, the next `stage` tries again.
            let _ = Dir::reach(&private_dir).and_then(|private| private.remove(&name));
        }
    }
}

fn nothing_built(at: &Path) -> Error {
    Error::person(
        format!("the build succeeded but wrote nothing to {}; the old site stays", at.display()),
        "let it write to {public_dir} or $GITSYNC_PUBLIC_DIR, or publish in place",
    )
}

/// The error for a site that could not be staged or published. The old site is still there; in a file-by-file publish, part of
/// it may be new.
fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let what = what.into();
    move |source| {
        let source = source.into();
        let next = match source.kind() {
            io::ErrorKind::PermissionDenied => "let this user write there; the next pass tries again",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room; the next pass tries again",
            io::ErrorKind::ReadOnlyFilesystem => "mount it writable; the next pass tries again",
            _ => "check what is there; the next pass tries again",
        };
        Error::person(format!("could not {what}: {source}"), next)
    }
}

impl Site {
    /// The public dir, absolute and without links.
    #[must_use]
    pub fn public_dir(&self) -> &Path {
        &self.public_dir
    }

    /// Removes what killed passes left, and creates an empty folder to build into. For [`Way::InPlace`] that is the public dir as
    /// it is; it is created if it is missing.
    ///
    /// # Errors
    /// If the folder can't be created.
    pub fn stage(&self) -> Result<Staged, Error> {
        if self.way == Way::InPlace {
            let _ = self.open_public()?;
            return Ok(Staged { path: self.public_dir.clone(), aside: None });
        }
        self.stage_aside()
    }

    /// Swaps in the site that was built.
    ///
    /// # Errors
    /// If nothing was built, or if something can't be read, written or removed. In a file-by-file publish, part of the site may
    /// then be new; the next publish completes it.
    pub fn publish(&self, staged: Staged) -> Result<(), Error> {
        if self.way == Way::InPlace {
            return self.open_public()?.make_readable(false).map_err(failed(self.about("make readable")));
        }
        let nothing = || nothing_built(&staged.path);
        match self.open_staged(&staged) {
            Ok(folder) if !folder.names().map_err(failed("read the staging folder"))?.is_empty() => {}
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(nothing()),
            Err(error) => return Err(failed("open the staging folder")(error)),
        }
        self.swap_in(staged)
    }

    /// Takes the site down: afterwards the public dir exists and is empty.
    ///
    /// # Errors
    /// As [`Site::publish`].
    pub fn empty(&self) -> Result<(), Error> {
        self.swap_in(self.stage_aside()?)
    }

    fn stage_aside(&self) -> Result<Staged, Error> {
        let about = |what: &str| format!("{what} a staging folder in {}", self.private_dir.display());
        let private = Dir::reach_or_make(&self.private_dir).map_err(failed(about("make")))?;
        let mut name = OsString::from(STAGING);
        self.remove_staged(&private).map_err(failed(about("look for")))?;
        let mut number = 1;
        while let Err(error) = private.make(&name) {
            if error != Errno::EXIST || number == 100 {
                return Err(failed(about("make"))(error));
            }
            number += 1;
            name = format!("{STAGING}-{number}").into();
        }
        if let Ok(public) = Dir::reach(&self.public_dir) {
            files::remove_left_overs(&public).map_err(failed(self.about("tidy up")))?;
        }
        Ok(Staged { path: self.private_dir.join(&name), aside: Some((self.private_dir.clone(), name)) })
    }

    /// Removes staging folders that a file-by-file publish could not remove. After an exchange the old site stays: readers may
    /// still have it open.
    pub fn tidy(&self) {
        if self.way != Way::Whole
            && let Ok(private) = Dir::reach(&self.private_dir)
        {
            // If the folder can't be read now, the next pass tries again.
            let _ = self.remove_staged(&private);
        }
    }

    fn remove_staged(&self, private: &Dir) -> Result<(), Errno> {
        for old in private.names()? {
            if old.as_encoded_bytes().starts_with(STAGING.as_bytes())
                && let Err(error) = private.remove(&old)
            {
                tracing::warn!(target: "gitsync::publish", "an old staging folder could not be removed, remove it by hand: {}: {}",
                    self.private_dir.join(old).display(), io::Error::from(error));
            }
        }
        Ok(())
    }

    fn open_staged(&self, staged: &Staged) -> Result<Dir, Errno> {
        let (private_dir, name) = staged.aside.as_ref().ok_or(Errno::NOENT)?;
        // By name, not by a handle from before the build: some builds replace the folder that they write to.
        Dir::reach(private_dir)?.sub_by_force(name)
    }

    fn open_public(&self) -> Result<Dir, Error> {
        Dir::reach_or_make(&self.public_dir).map_err(failed(self.about("open")))
    }

    fn swap_in(&self, mut staged: Staged) -> Result<(), Error> {
        let folder = self.open_staged(&staged).map_err(failed("open the staging folder"))?;
        folder.make_readable(true).map_err(failed("make what was built readable"))?;
        if self.way == Way::Whole && self.exchange(&staged).map_err(failed(self.about("exchange")))? {
            tracing::debug!(target: "gitsync::publish", "the site was exchanged as a whole");
            // The staging folder now holds the old site, which readers may still have open.
            staged.aside = None;
            return Ok(());
        }
        tracing::debug!(target: "gitsync::publish", "publishing the site file by file");
        files::publish(&folder, &self.open_public()?).map_err(|(what, error)| failed(self.about(&what))(error))
    }

    /// Exchanges the folders. Returns false if that is not possible here.
    fn exchange(&self, staged: &Staged) -> Result<bool, Errno> {
        let Some((private_dir, name)) = &staged.aside else { return Ok(false) };
        let (Some(parent), Some(public)) = (self.public_dir.parent(), self.public_dir.file_name()) else {
            return Ok(false);
        };
        let private = Dir::reach(private_dir)?;
        let parent = Dir::reach_or_make(parent)?;
        // A power loss must leave the old site or the new one, not the new names with empty pages.
        private.sub_by_force(name)?.sync_all()?;
        let exchanged = match parent.look(public)?.map(|it| it.kind) {
            None => private.rename(name, &parent, public),
            Some(FileKind::Folder) => private.exchange(name, &parent, public),
            Some(FileKind::Link | FileKind::File { .. } | FileKind::Special) => return Err(Errno::NOTDIR),
        };
        match exchanged {
            Ok(()) => {
                // The caller removes the note that the site is stale only after this.
                parent.sync()?;
                private.sync()?;
                Ok(true)
            }
            // Another file system or mount, a mount point, a file system that can't exchange, a folder from a lower layer
            // of an overlay, or a parent that we may not write to.
            Err(error) if folder::cannot_be_moved(error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn about(&self, what: &str) -> String {
        format!("{what} in the public dir {}", self.public_dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do_about_it() {
        for (kind, says) in [
            (io::ErrorKind::PermissionDenied, "let this user write there"),
            (io::ErrorKind::StorageFull, "make room"),
            (io::ErrorKind::QuotaExceeded, "make room"),
            (io::ErrorKind::ReadOnlyFilesystem, "mount it writable"),
            (io::ErrorKind::NotADirectory, "check what is there"),
        ] {
            let error = failed("open it")(io::Error::from(kind));
            assert!(error.what.starts_with("could not open it: ") && error.next.starts_with(says), "{kind}: {error:?}");
        }
    }
}
