//! The site: staged, then swapped in whole.
//!
//! The rule: whoever reads the public dir sees the old site or the new one, no missing and no half-written page; a build that
//! fails changes nothing; and nothing outside the public dir and the private folder is written or removed, whatever links
//! the build, the job or the public dir hold.
//!
//! The build writes into a folder inside the private folder ([`Site::stage`]). [`Site::publish`] makes it readable for a web
//! server and swaps it in:
//!
//! - by one rename that exchanges the two folders, where both are on one file system and the public dir is no mount point.
//!   What was the site stays in the private folder until the next one is staged, so that a reader who was on his way through
//!   it arrives.
//! - file by file, where the folder itself can't be renamed, as the root of a volume can't be. All that is new or changed is
//!   first brought onto the volume, then renamed into place: the new, the changed, and at last what is no more is removed.
//!   What has not changed is not touched and keeps its time.
//!
//! Nothing is synced to disk: the site can be built again. The caller keeps a note from before the build until after the
//! publish, and builds again when it finds one; what a killed publish left is removed by the next [`Site::stage`].

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

/// What a staging folder is called in the private folder; where a left-over can't be removed, a number follows.
const STAGING: &str = "site-staging";

/// How the site gets into the public dir.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Built aside, then exchanged as a whole, or file by file where that can't be.
    #[default]
    Whole,
    /// Built aside, then file by file even where an exchange could be: for a public dir that another container or service
    /// has mounted or entered, which would go on to see the folder that was exchanged away.
    FileByFile,
    /// The build writes into the public dir itself, for builds that need their old output. A reader may see half a page,
    /// and a failed build leaves what it leaves.
    InPlace,
}

/// A public dir that may be published to, as [`check`] found it.
#[derive(Clone, Debug)]
pub struct Site {
    public_dir: PathBuf,
    private_dir: PathBuf,
    way: Way,
}

/// A folder to build into. Dropped without having been published, it is removed.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    /// The private folder, and the name in it; none for a build in place.
    aside: Option<(PathBuf, OsString)>,
}

impl Staged {
    /// The folder, absolute: what `{public_dir}` and `GITSYNC_PUBLIC_DIR` stand for in the build.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some((private_dir, name)) = self.aside.take() {
            // What can't be removed now is tried again by the next stage.
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

/// A site could not be staged or published. The old one is still up, unless the site goes in file by file: then some of it
/// may be new.
fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let what = what.into();
    move |source| {
        let source = source.into();
        let next = match source.kind() {
            io::ErrorKind::PermissionDenied => "let this user write there; the next pass tries again",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room; the next pass tries again",
            io::ErrorKind::ReadOnlyFilesystem => "mount it writable; the next pass tries again",
            _ => "see what is there; the next pass tries again",
        };
        Error::person(format!("could not {what}: {source}"), next)
    }
}

impl Site {
    /// Where readers look, absolute and without links.
    #[must_use]
    pub fn public_dir(&self) -> &Path {
        &self.public_dir
    }

    /// An empty folder to build into, after removing what killed passes left. For [`Way::InPlace`] it is the public dir as
    /// it is, made where it is missing.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn stage(&self) -> Result<Staged, Error> {
        if self.way == Way::InPlace {
            let _ = self.open_public()?;
            return Ok(Staged { path: self.public_dir.clone(), aside: None });
        }
        self.stage_aside()
    }

    /// Swaps in what was built.
    ///
    /// # Errors
    /// When nothing was built, or when something in the way can't be read, written or removed. Where the site goes in file
    /// by file, some of it may then be new; the next publish completes it.
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

    /// Takes the site down: the public dir is there and empty afterwards.
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

    /// Removes what could not be removed when a site had gone in file by file. What was exchanged away stays: readers may be in
    /// it.
    pub fn tidy(&self) {
        if self.way != Way::Whole
            && let Ok(private) = Dir::reach(&self.private_dir)
        {
            // What can't be read now is looked for again by the next pass.
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
        // By name, not by a handle from before the build: builds like to replace the folder they write to.
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
            // What lies there now is the old site, and readers may still be in it.
            staged.aside = None;
            return Ok(());
        }
        tracing::debug!(target: "gitsync::publish", "the site goes in file by file");
        files::publish(&folder, &self.open_public()?).map_err(|(what, error)| failed(self.about(&what))(error))
    }

    /// Whether the folders could be exchanged, and have been.
    fn exchange(&self, staged: &Staged) -> Result<bool, Errno> {
        let Some((private_dir, name)) = &staged.aside else { return Ok(false) };
        let (Some(parent), Some(public)) = (self.public_dir.parent(), self.public_dir.file_name()) else {
            return Ok(false);
        };
        let private = Dir::reach(private_dir)?;
        let parent = Dir::reach_or_make(parent)?;
        // A power loss must leave the old site or the new one: not the new one's names with empty pages.
        private.sub_by_force(name)?.sync_all()?;
        let exchanged = match parent.look(public)?.map(|it| it.kind) {
            None => private.rename(name, &parent, public),
            Some(FileKind::Folder) => private.exchange(name, &parent, public),
            Some(FileKind::Link | FileKind::File { .. } | FileKind::Special) => return Err(Errno::NOTDIR),
        };
        match exchanged {
            Ok(()) => {
                // Before the note goes that the site is stale.
                parent.sync()?;
                private.sync()?;
                Ok(true)
            }
            // Another file system or mount, a mount point, a file system that can't exchange, a folder from a lower layer
            // of an overlay, a parent that we may not write to.
            Err(error) if folder::cannot_be_moved(error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn about(&self, what: &str) -> String {
        format!("{what} in the public dir {}", self.public_dir.display())
    }
}
