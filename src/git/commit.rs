//! Commits exactly the given paths.
//!
//! The commit's tree is HEAD's with the changes under the given paths and nothing else, whatever else is staged or
//! dirty (guarantee G5). What can't be committed is named and left out; the rest is committed all the same, because a
//! state file is a record of what happened.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::changed::{Changed, LeftOut, Scope};
use super::named::Unmatched;
use super::tree_edit::Edits;
use super::{CommitId, Repo, shown};
use crate::error::{Context, Error, Kind};
use crate::fs::dir::{Dir, FileKind};
use crate::watchdog::step;

/// What a commit contains.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The commit; `None` where nothing had changed.
    pub commit: Option<CommitId>,
    /// The number of files in it that are new, changed or deleted.
    pub files: usize,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
    /// The pathspecs that match nothing.
    pub unmatched: Vec<Unmatched>,
}

/// Whether a commit may be the first one of its branch.
///
/// On a branch that lost its commits, a first commit would start an unrelated history with half the files, and an alpha
/// would force-push it over the remote's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The remote was asked in this pass and has no such branch.
    Allowed,
    /// The remote has the branch, or can't be reached.
    Refused,
}

/// Where a commit is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Into the repository: objects, index, branch.
    OnDisk,
    /// Memory only: a dry run goes on as if the commit had been made.
    InMemory,
}

impl Repo {
    /// Commits what is new, changed or deleted under the paths of `scope`.
    ///
    /// # Errors
    /// As for [`Repo::changed_under`] and [`Repo::commit_changed`].
    pub fn commit_under(
        &self,
        scope: Scope<'_>,
        message: &str,
        when: DateTime<Utc>,
        first: First,
    ) -> Result<Committed, Error> {
        self.commit_changed(self.changed_under(scope)?, message, when, first, Store::OnDisk)
    }

    /// Commits what [`Repo::changed_under`] found.
    ///
    /// It writes the objects, then the index, then the branch. If it is killed between the last two, the next tick
    /// finds the same changes and makes the same commit.
    ///
    /// # Errors
    /// If the repository can't be read or written; [`Kind::Busy`] if somebody moved the branch meanwhile;
    /// [`Kind::NotReady`] if this would be the branch's first commit and `first` refuses that.
    pub fn commit_changed(
        &self,
        changed: Changed,
        message: &str,
        when: DateTime<Utc>,
        first: First,
        store: Store,
    ) -> Result<Committed, Error> {
        let Changed { paths, left_out, unmatched } = changed;
        let left_out = left_out.into_iter().collect();
        let mut done = Committed { left_out, unmatched, ..Committed::default() };
        if paths.is_empty() {
            return Ok(done);
        }
        self.check_unsigned("nothing was committed, what was written stays in the work tree")?;
        step("committing");
        let parent = self.head_tip()?;
        if parent.is_none() && first == First::Refused {
            let what = format!(
                "branch '{}' has no commit, and the remote is not known to be empty; what was written is not committed",
                self.names.branch
            );
            let next =
                "run `gitsync init-sync`: a first commit made here would start a history unrelated to the remote's";
            return Err(Error::new(Kind::NotReady, what, next));
        }
        let mut index = self.index()?;
        let edits = self.take_in(&paths, &mut index, &mut done.left_out)?;
        let before = self.head_tree()?.map(|tree| tree.id());
        let tree = self.edit_tree(before, &edits)?;
        if store == Store::OnDisk {
            self.objects_to_disk()?;
            self.index_to_disk(&mut index)?;
        }
        if before == Some(tree) {
            return Ok(done);
        }
        let (author, committer) = self.signatures(when)?;
        // Every message ends with a line end, as with git.
        let whole = format!("{}\n", message.trim_end());
        let commit = self.write_commit(tree, parent.as_slice(), &author, &committer, &whole)?;
        let summary = message.lines().next().unwrap_or_default();
        match store {
            Store::OnDisk => self.move_ref(&self.branch_ref(), parent, commit, &format!("commit: {summary}"))?,
            Store::InMemory => self.assume_tip(commit),
        }
        done.commit = Some(commit);
        done.files = edits.len();
        Ok(done)
    }

    /// Adds files to an index as git would, and returns the changes to the tree.
    fn take_in(
        &self,
        paths: &BTreeSet<PathBuf>,
        index: &mut git2::Index,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Edits, Error> {
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let mut edits = Edits::new();
        for path in paths {
            let file = match top.find(path).context(format!("looking at {}", shown(path)))? {
                Some(found) => matches!(found.kind, FileKind::File { .. } | FileKind::Link),
                None => false,
            };
            if file {
                let doing = || format!("committing {}", shown(path));
                super::index::make_way(index, path).context(doing())?;
                // This reads the file through git's filters, and stores its stat data in the index.
                if let Err(error) = index.add_path(path) {
                    let why = Error::git("can't be read", &error).what;
                    left_out.push(LeftOut { path: path.clone(), why });
                    continue;
                }
                let Some(entry) = index.get_path(path, 0) else { continue };
                edits.insert(path.clone(), Some((entry.id, entry.mode)));
            } else {
                forget(index, path).context(format!("committing {}", shown(path)))?;
                edits.insert(path.clone(), None);
            }
        }
        Ok(edits)
    }

    /// HEAD's commit; in a dry run, the one that it assumes.
    pub(super) fn head_tip(&self) -> Result<Option<CommitId>, Error> {
        self.assumed_tip.get().map_or_else(|| self.tip_of("HEAD"), |tip| Ok(Some(tip)))
    }

    pub(super) fn head_tree(&self) -> Result<Option<git2::Tree<'_>>, Error> {
        self.head_tip()?.map(|head| self.tree_of(head)).transpose()
    }
}

fn forget(index: &mut git2::Index, path: &Path) -> Result<(), git2::Error> {
    match index.remove(path, 0) {
        Err(error) if error.code() != git2::ErrorCode::NotFound => Err(error),
        _ => Ok(()),
    }
}
