//! The flags that a person can set on index entries: skip-worktree, assume-unchanged, intent-to-add.
//!
//! libgit2 drops them when it reads an index from a tree, and takes a file that skip-worktree hides as deleted. If a
//! flag is lost, a file gets committed that somebody meant to keep on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Repo, path_of};
use crate::error::{Context, Error};

const ASSUME_UNCHANGED: u16 = 0x8000;
const SKIP_WORKTREE: u16 = 1 << 14;
const INTENT_TO_ADD: u16 = 1 << 13;

/// The entries of an index that have flags, as they were when this was made.
pub(super) struct Flagged(BTreeMap<PathBuf, git2::IndexEntry>);

impl Flagged {
    pub(super) fn of(index: &git2::Index) -> Self {
        let flagged = |entry: &git2::IndexEntry| {
            entry.flags & ASSUME_UNCHANGED != 0 || entry.flags_extended & (SKIP_WORKTREE | INTENT_TO_ADD) != 0
        };
        Self(index.iter().filter(flagged).map(|entry| (path_of(&entry.path), entry)).collect())
    }

    /// Returns whether the file is hidden from git, which then ignores any change or deletion of it.
    pub(super) fn hides(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|entry| entry.flags_extended & SKIP_WORKTREE != 0)
    }

    /// Returns whether the file has intent-to-add set.
    pub(super) fn is_to_be_added(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|entry| entry.flags_extended & INTENT_TO_ADD != 0)
    }

    /// The entries hidden from git, with their paths.
    pub(super) fn unseen(&self) -> impl Iterator<Item = (&PathBuf, &git2::IndexEntry)> {
        self.0.iter().filter(|(path, _)| !self.is_to_be_added(path))
    }

    /// Writes an index as a tree, without intent-to-add entries: nothing of those is staged.
    pub(super) fn write_tree(&self, repo: &Repo, index: &mut git2::Index) -> Result<git2::Oid, git2::Error> {
        let Some(file) = index.path().filter(|_| self.0.keys().any(|path| self.is_to_be_added(path))) else {
            return index.write_tree_to(&repo.git);
        };
        // This must not change the repository's own index.
        self.write_tree_of(repo, &mut git2::Index::open(file)?)
    }

    /// [`Flagged::write_tree`] for an index that nobody else uses: it loses its intent-to-add entries.
    pub(super) fn write_tree_of(&self, repo: &Repo, staged: &mut git2::Index) -> Result<git2::Oid, git2::Error> {
        for path in self.0.keys().filter(|path| self.is_to_be_added(path)) {
            staged.remove(path, 0)?;
        }
        staged.write_tree_to(&repo.git)
    }

    /// Restores the flags in an index that was read from a tree. Intent-to-add entries are kept unless the tree has
    /// something in their place.
    pub(super) fn give_back(&self, repo: &Repo, index: &mut git2::Index) -> Result<(), Error> {
        let doing = "keeping the flags of the index";
        for (path, before) in &self.0 {
            match index.get_path(path, 0) {
                Some(mut entry) if !self.is_to_be_added(path) => {
                    entry.flags |= before.flags & ASSUME_UNCHANGED;
                    entry.flags_extended |= before.flags_extended & SKIP_WORKTREE;
                    index.add(&entry).context(doing)?;
                }
                None if self.is_to_be_added(path) && !is_taken(index, path) => {
                    // libgit2 adds an entry only if its object exists; here that is the empty blob.
                    repo.git.blob(b"").context(doing)?;
                    index.add(before).context(doing)?;
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Returns whether an index has a file at a parent folder of a path, or files below the path.
fn is_taken(index: &git2::Index, path: &Path) -> bool {
    // git2 panics on an empty path.
    let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    let above = above.any(|above| index.get_path(above, 0).is_some());
    above || index.find_prefix(path.join("")).is_ok()
}
