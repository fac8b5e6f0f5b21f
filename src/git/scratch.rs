//! A copy of a repository for a dry run of init-sync, which mends before it looks: the copy is mended, the repository is not
//! touched.
//!
//! Packs are not copied; the copy borrows them, as git's alternates do. Loose objects are: they are what damage is found in.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::incoming::Folder;
use super::{CommitId, Place, Repo};
use crate::error::{Context, Error};
use crate::fs::files;
use crate::state::dir::PrivateDir;

/// What has nothing to do with the branch, and may be large.
const LEFT_OUT: &[&str] = &["lfs", "modules", "hooks", "tmp_objdir-gitsync", "staging"];

/// The copy, which goes when this does.
pub struct Scratch {
    /// Where it is: its `.git` is the copy, its work tree is the repository's.
    pub place: Place,
    /// Removed with what is in it.
    _folder: Folder,
}

impl Scratch {
    /// A copy of the repository at `place`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(place: &Place) -> Result<Self, Error> {
        let scratch = Self::empty(Some(place))?;
        copy(&place.git_dir, &scratch.place.git_dir).context("copying the repository for a dry run")?;
        Ok(scratch)
    }

    /// An empty place, with the work tree of `like` or one of its own.
    ///
    /// # Errors
    /// Those of the file system.
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
    /// From here on what this handle writes into the store of objects stays in memory.
    ///
    /// # Errors
    /// Where the store can't be opened.
    pub fn keep_writes_in_memory(&self) -> Result<(), Error> {
        let doing = "keeping a dry run's objects in memory";
        let odb = self.git.odb().context(doing)?;
        odb.add_new_mempack_backend(1000).map(drop).context(doing)
    }

    /// Whether a commit has something at a path.
    ///
    /// # Errors
    /// Where the commit can't be read.
    pub fn has_path(&self, commit: CommitId, path: &Path) -> Result<bool, Error> {
        Ok(self.tree_of(commit)?.get_path(path).is_ok())
    }

    /// From here on the local branch is taken to be at `tip`.
    pub fn assume_tip(&self, tip: CommitId) {
        self.assumed_tip.set(Some(tip));
    }

    /// From here on the index is taken to be that of a commit. It is in memory alone.
    ///
    /// # Errors
    /// Where the commit can't be read.
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
            // As git sees it, the index is as old as it was.
            fs::copy(&source, &target)?;
            if let Ok(modified) = meta.modified() {
                // Objects may be read and not written, by their owner too; setting the time takes no more than that.
                fs::File::open(&target)?.set_modified(modified)?;
            }
        } else if meta.is_dir() {
            fs::create_dir_all(&target)?;
            if name == "objects" { copy_objects(&source, &target)? } else { copy(&source, &target)? }
        }
    }
    Ok(())
}

/// Loose objects, and a note of where the others are.
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
    // Relative ones are seen from where they are written.
    let borrowed = files::read_to_string(&from.join("info/alternates")).unwrap_or_default();
    stores
        .extend(borrowed.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| from.join(line)));
    let lines: Vec<String> = stores.iter().map(|store| format!("{}\n", store.display())).collect();
    fs::write(to.join("info/alternates"), lines.concat())
}
