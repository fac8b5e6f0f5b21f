//! A copy of a repository for a dry run of init-sync, which repairs before it decides: the copy is repaired, and the
//! repository stays untouched.
//!
//! Packs are not copied; the copy borrows them as alternates. Loose objects are copied, because damage is found in
//! them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::incoming::Folder;
use super::{CommitId, Place, Repo};
use crate::error::{Context, Error};
use crate::fs::files;
use crate::state::dir::PrivateDir;

/// Parts of `.git` that do not matter for the branch, and may be large.
const LEFT_OUT: &[&str] = &["lfs", "modules", "hooks", "tmp_objdir-gitsync", "staging"];

/// The copy; removed when this is dropped.
pub struct Scratch {
    /// Its location: its `.git` is the copy, its work tree is the repository's.
    pub place: Place,
    /// Removed with everything in it.
    _folder: Folder,
}

impl Scratch {
    /// Copies the repository at `place`.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn of(place: &Place) -> Result<Self, Error> {
        let scratch = Self::empty(Some(place))?;
        copy(&place.git_dir, &scratch.place.git_dir).context("copying the repository for a dry run")?;
        Ok(scratch)
    }

    /// An empty location, with the work tree of `like` or a new one.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn empty(like: Option<&Place>) -> Result<Self, Error> {
        let folder = Folder::temporary()?;
        let doing = "making a folder for a dry run";
        let home = folder.0.canonicalize().context(doing)?;
        let git_dir = home.join(".git");
        fs::create_dir(&git_dir).context(doing)?;
        PrivateDir::of(&git_dir).create().context(doing)?;
        let work_dir = like.map_or_else(|| home.clone(), |place| place.work_dir.clone());
        let named = like.is_none_or(|place| place.named);
        Ok(Self { place: Place { work_dir, git_dir, named, is_scratch: true }, _folder: folder })
    }
}

impl Repo {
    /// From here on, objects written through this handle stay in memory.
    ///
    /// # Errors
    /// If the object store can't be opened.
    pub fn keep_writes_in_memory(&self) -> Result<(), Error> {
        let doing = "keeping a dry run's objects in memory";
        let odb = self.git.odb().context(doing)?;
        odb.add_new_mempack_backend(1000).map(drop).context(doing)
    }

    /// Returns whether a commit has something at a path.
    ///
    /// # Errors
    /// If the commit can't be read.
    pub fn has_path(&self, commit: CommitId, path: &Path) -> Result<bool, Error> {
        Ok(self.tree_of(commit)?.get_path(path).is_ok())
    }

    /// From here on, the local branch is assumed to be at `tip`.
    pub fn assume_tip(&self, tip: CommitId) {
        self.assumed_tip.set(Some(tip));
    }

    /// From here on, the index is assumed to be that of a commit. It exists in memory only.
    ///
    /// # Errors
    /// If the commit can't be read.
    pub fn assume_index_of(&self, commit: CommitId) -> Result<(), Error> {
        let doing = "making the index again";
        let mut index = git2::Index::new().context(doing)?;
        self.git.set_index(&mut index).context(doing)?;
        index.read_tree(&self.tree_of(commit)?).context(doing)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in files::entries(from)? {
        let name = entry.name();
        let (source, target) = (entry.path(), to.join(name));
        if LEFT_OUT.iter().any(|left_out| name == *left_out) || entry.kind == FileType::Fifo {
            continue;
        }
        let Ok(meta) = fs::metadata(&source) else { continue };
        if meta.is_file() {
            // Keep the modification time: git compares the index's with those of the files.
            fs::copy(&source, &target)?;
            if let Ok(modified) = meta.modified() {
                // Objects may be read-only, for their owner too; setting the time needs no write access.
                fs::File::open(&target)?.set_modified(modified)?;
            }
        } else if meta.is_dir() {
            fs::create_dir_all(&target)?;
            if name == "objects" { copy_objects(&source, &target)? } else { copy(&source, &target)? }
        }
    }
    Ok(())
}

/// Copies the loose objects, and writes alternates to the other stores.
fn copy_objects(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in files::entries(from)? {
        let name = entry.name();
        fs::create_dir_all(to.join("pack"))?;
        if entry.is_folder() && name.len() == 2 {
            fs::create_dir_all(to.join(name))?;
            copy(&entry.path(), &to.join(name))?;
        }
    }
    fs::create_dir_all(to.join("info"))?;
    let mut stores: Vec<PathBuf> = vec![from.canonicalize()?];
    // Relative paths start at the folder of the store that lists them.
    let borrowed = files::read_to_string(&from.join("info/alternates")).unwrap_or_default();
    stores
        .extend(borrowed.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| from.join(line)));
    let lines: Vec<String> = stores.iter().map(|store| format!("{}\n", store.display())).collect();
    fs::write(to.join("info/alternates"), lines.concat())
}
