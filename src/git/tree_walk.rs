//! Looks up one path after another in a commit's tree.
//!
//! libgit2's `Tree::get_path` reads every tree above a path again, which took most of a clone's time. Here the trees
//! that the next path shares stay open.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Repo, raw};
use crate::error::{Context, Error};
use crate::fs::dir::last;
use crate::fs::walk::above;

/// An entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub(super) id: git2::Oid,
    /// The mode that git writes today.
    pub(super) mode: u32,
}

/// What a path must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// This blob, as a file or a link.
    Blob(TreeEntry),
    /// A submodule's folder, with any content.
    Submodule,
    /// Nothing that git tracks.
    Gone,
}

/// Something for each path, in the order of their bytes. A `PathBuf` is compared component by component, which takes
/// several times as long.
pub(super) type ByPath<T> = BTreeMap<OsString, T>;

pub(super) type Changes = ByPath<Want>;

/// What git wants at a path for which a tree has this entry.
pub(super) fn want_of(entry: &TreeEntry) -> Want {
    match entry.mode {
        0o160_000 => Want::Submodule,
        0o040_000 => Want::Gone,
        _ => Want::Blob(*entry),
    }
}

/// The open trees, from the top down to the folder that was looked up last.
pub(super) struct TreeWalk<'r> {
    top: git2::Tree<'r>,
    /// `None` if there is no such folder.
    open: Vec<(OsString, Option<git2::Tree<'r>>)>,
    /// The folder that was looked up last.
    at: PathBuf,
    git: &'r git2::Repository,
}

impl<'r> TreeWalk<'r> {
    /// The commit's entry at a path, if it has one.
    pub(super) fn get(&mut self, path: &Path) -> Result<Option<TreeEntry>, Error> {
        let folder = self.folder(above(path))?;
        Ok(folder.and_then(|tree| entry_of(tree, last(path).as_os_str().as_bytes())))
    }

    /// The tree of a folder, if there is one.
    pub(super) fn folder(&mut self, path: &Path) -> Result<Option<&git2::Tree<'r>>, Error> {
        if !path.as_os_str().is_empty() && self.at.as_os_str() == path.as_os_str() {
            return Ok(self.open.last().map_or(Some(&self.top), |(_, tree)| tree.as_ref()));
        }
        // If a tree can't be read, the next lookup starts at the top.
        self.at = PathBuf::new();
        let names: Vec<_> = path.components().map(|it| it.as_os_str()).collect();
        let same = self.open.iter().zip(&names).take_while(|((have, _), name)| have == *name).count();
        self.open.truncate(same);
        for name in names.iter().skip(same) {
            let above = self.open.last().map_or(Some(&self.top), |(_, tree)| tree.as_ref());
            let found = above.and_then(|tree| entry_of(tree, name.as_bytes())).filter(|it| it.mode == 0o040_000);
            let tree = found.map(|it| self.git.find_tree(it.id)).transpose().context("reading a tree")?;
            self.open.push(((*name).to_owned(), tree));
        }
        self.at = path.to_owned();
        Ok(self.open.last().map_or(Some(&self.top), |(_, tree)| tree.as_ref()))
    }
}

fn entry_of(tree: &git2::Tree<'_>, name: &[u8]) -> Option<TreeEntry> {
    let entry = tree.get_name_bytes(name)?;
    Some(TreeEntry { id: entry.id(), mode: raw::canonical(entry.filemode_raw().unsigned_abs()) })
}

impl Repo {
    /// Starts looking up paths in a tree.
    pub(super) fn walk_tree<'r>(&'r self, tree: &git2::Tree<'r>) -> TreeWalk<'r> {
        TreeWalk { top: tree.clone(), open: Vec::new(), at: PathBuf::new(), git: &self.git }
    }
}
