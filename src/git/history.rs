//! Reads history as git does, even where libgit2 can't: a commit with a malformed author or date stops libgit2's walks.
//!
//! libgit2 is tried first, because it is fast if the two commits are near each other. If it gives up, the commits are
//! read as bytes and walked here.

use std::collections::HashSet;

use super::objects::Objects;
use super::raw::{self, RawCommit};
use super::{CommitId, Repo};
use crate::error::{Context, Error, Kind};

impl Repo {
    /// A commit's tree and parents.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is not here, [`Kind::Unfit`] if git itself can't read it.
    pub(crate) fn raw_commit(&self, id: CommitId) -> Result<RawCommit, Error> {
        let doing = || format!("reading commit {id}");
        let odb = self.git.odb().context(doing())?;
        let object = odb.read(id).context(doing())?;
        let read = (object.kind() == git2::ObjectType::Commit).then(|| raw::commit(object.data())).flatten();
        read.ok_or_else(|| {
            let what = format!("{id} is not a commit that git can read");
            Error::new(Kind::Unfit, what, "see `git fsck`; if the remote has this commit, repair its branch there")
        })
    }

    /// The tree of a commit.
    ///
    /// # Errors
    /// As for [`Repo::raw_commit`].
    pub(crate) fn tree_of(&self, commit: CommitId) -> Result<git2::Tree<'_>, Error> {
        self.git.find_tree(self.raw_commit(commit)?.tree).context(format!("reading the tree of commit {commit}"))
    }

    /// The commits that references point to, as far as they can be read.
    ///
    /// # Errors
    /// If the references can't be read.
    pub(super) fn ref_tips(&self) -> Result<Vec<CommitId>, Error> {
        let mut tips = Vec::new();
        for reference in self.git.references().context("reading the references")? {
            let Ok(reference) = reference else { continue };
            match reference.peel_to_commit() {
                Ok(commit) => tips.push(commit.id()),
                // One that libgit2 can't parse is still a commit.
                Err(_) => tips.extend(reference.target().filter(|target| self.has_commit(*target))),
            }
        }
        Ok(tips)
    }

    /// Returns whether a commit is here and can be read.
    pub(crate) fn has_commit(&self, id: CommitId) -> bool {
        self.raw_commit(id).is_ok()
    }

    /// Returns whether `from` is an ancestor of `tip`, but not `tip` itself.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if history is missing.
    pub(crate) fn descends(&self, tip: CommitId, from: CommitId) -> Result<bool, Error> {
        match self.history().graph_descendant_of(tip, from) {
            Ok(descends) => Ok(descends),
            Err(_) => Ok(tip != from && self.with_ancestors(tip)?.contains(&from)),
        }
    }

    /// The number of commits that only `ours` has, and the number that only `theirs` has.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if history is missing.
    pub(crate) fn ahead_behind(&self, ours: CommitId, theirs: CommitId) -> Result<(usize, usize), Error> {
        if let Ok(counts) = self.history().graph_ahead_behind(ours, theirs) {
            return Ok(counts);
        }
        let (ours, theirs) = (self.with_ancestors(ours)?, self.with_ancestors(theirs)?);
        Ok((ours.difference(&theirs).count(), theirs.difference(&ours).count()))
    }

    /// Returns whether `local` contains a commit that the remote has dropped: one that `before` contains and `tip` does
    /// not. Only for a `tip` that is an ancestor of `before`; otherwise returns false.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if history is missing.
    pub fn holds_taken_back(&self, local: CommitId, tip: CommitId, before: CommitId) -> Result<bool, Error> {
        if before == tip || !self.has_commit(before) || !self.descends(before, tip)? {
            return Ok(false);
        }
        let Ok(bases) = self.history().merge_bases(local, before) else {
            let (ours, theirs) = (self.with_ancestors(local)?, self.with_ancestors(tip)?);
            return Ok(self.with_ancestors(before)?.iter().any(|id| ours.contains(id) && !theirs.contains(id)));
        };
        for base in bases.iter() {
            if *base != tip && !self.descends(tip, *base)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether two commits have a common ancestor.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if history is missing.
    pub(crate) fn are_related(&self, one: CommitId, other: CommitId) -> Result<bool, Error> {
        match self.history().merge_base(one, other) {
            Ok(_) => Ok(true),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(false),
            Err(_) => Ok(!self.with_ancestors(one)?.is_disjoint(&self.with_ancestors(other)?)),
        }
    }

    /// The commits that `ours` contains and `theirs` does not, ancestors first; at most `most`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if history is missing.
    pub(crate) fn only_in(&self, ours: CommitId, theirs: CommitId, most: usize) -> Result<Vec<CommitId>, Error> {
        let fast = || -> Result<Vec<CommitId>, git2::Error> {
            let mut walk = self.history().revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::REVERSE)?;
            walk.push(ours)?;
            walk.hide(theirs)?;
            walk.take(most).collect()
        };
        if let Ok(commits) = fast() {
            return Ok(commits);
        }
        let mut known = self.with_ancestors(theirs)?;
        let mut commits = Vec::new();
        let mut open = vec![(ours, false)];
        while let Some((id, parents_done)) = open.pop() {
            if parents_done {
                commits.push(id);
            } else if known.insert(id) {
                open.push((id, true));
                open.extend(self.parents_of(id)?.into_iter().rev().map(|parent| (parent, false)));
            }
        }
        commits.truncate(most);
        Ok(commits)
    }

    fn with_ancestors(&self, tip: CommitId) -> Result<HashSet<CommitId>, Error> {
        let mut all = HashSet::new();
        let mut open = vec![tip];
        while let Some(id) = open.pop() {
            if all.insert(id) {
                open.extend(self.parents_of(id)?);
            }
        }
        Ok(all)
    }

    pub(super) fn parents_of(&self, id: CommitId) -> Result<Vec<CommitId>, Error> {
        let parents = self.raw_commit(id)?.parents;
        if !self.git.is_shallow() {
            return Ok(parents);
        }
        // A walk ends at a shallow root.
        let odb = self.git.odb().context("reading history")?;
        Ok(parents.into_iter().filter(|parent| odb.exists(*parent)).collect())
    }

    /// Writes a commit. libgit2 makes one only on parents that it can parse itself, and its `git_commit_create` returns
    /// success even if the object was not written, for example on a full disk.
    ///
    /// `author` and `committer` each hold a name, an address and a time, as git writes them.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn write_commit(
        &self,
        tree: git2::Oid,
        parents: &[CommitId],
        author: &git2::Signature<'_>,
        committer: &git2::Signature<'_>,
        message: &str,
    ) -> Result<CommitId, Error> {
        let bytes = commit_bytes(tree, parents, author, committer, message);
        Objects::of(&self.git)?.write(git2::ObjectType::Commit, &bytes).context("writing a commit")
    }
}

/// The bytes of a commit.
///
/// `author` and `committer` each hold a name, an address and a time, as git writes them.
pub(super) fn commit_bytes(
    tree: git2::Oid,
    parents: &[CommitId],
    author: &git2::Signature<'_>,
    committer: &git2::Signature<'_>,
    message: &str,
) -> Vec<u8> {
    let mut bytes = format!("tree {tree}\n").into_bytes();
    for parent in parents {
        bytes.extend(format!("parent {parent}\n").bytes());
    }
    for (role, who) in [("author", author), ("committer", committer)] {
        let (offset, time) = (who.when().offset_minutes(), who.when().seconds());
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        bytes.extend(format!("{role} ").bytes());
        bytes.extend(who.name_bytes());
        bytes.extend(b" <");
        bytes.extend(who.email_bytes());
        bytes.extend(format!("> {time} {sign}{hours:02}{minutes:02}\n").bytes());
    }
    bytes.push(b'\n');
    bytes.extend(message.bytes());
    bytes
}
