//! Pushes a history that libgit2 can't walk.
//!
//! libgit2 walks our history to find what the server lacks. It fails at a commit with a malformed author or date. So
//! such a push goes through a temporary repository, in which history is cut off before the first such commit, as in a
//! shallow clone. (`incoming` does the same for a fetch.) The cost is that more is sent than needed.

use std::collections::HashSet;
use std::fs;

use super::{CommitId, Repo};
use crate::error::{Context, Error, Kind};
use crate::fs::files;

const BESIDE: &str = "beside";

/// Returns whether libgit2 failed at a commit that git can read.
pub(super) fn is_odd(error: &git2::Error) -> bool {
    error.message().contains("parse signature") || error.message().contains("parse bad commit")
}

/// A temporary repository with the objects of ours; removed when this is dropped.
pub(super) struct Beside<'r> {
    repo: &'r Repo,
    /// Its handle.
    pub git: git2::Repository,
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        let _ = files::remove_folder(&self.repo.private.file(BESIDE));
    }
}

impl<'r> Beside<'r> {
    #[allow(clippy::disallowed_methods)]
    fn make(repo: &'r Repo, cut: &[CommitId]) -> Result<Self, Error> {
        let doing = "making a temporary repository";
        let folder = repo.private.file(BESIDE);
        files::remove_folder(&folder).context(doing)?;
        let folder = repo.private.folder(BESIDE).context(doing)?;
        git2::Repository::init_bare(&folder).context(doing)?;
        let lines: String = cut.iter().map(|id| format!("{id}\n")).collect();
        if !cut.is_empty() {
            fs::write(folder.join("shallow"), lines).context(doing)?;
        }
        // open_bare would not read the shallow roots.
        let flags = git2::RepositoryOpenFlags::BARE | git2::RepositoryOpenFlags::NO_SEARCH;
        let none = std::iter::empty::<&std::ffi::OsStr>();
        let git = git2::Repository::open_ext(&folder, flags, none).context(doing)?;
        Ok(Self { repo, git })
    }

    /// Makes one to push from: it has the commits that the remote lacks, with all their files, and no others. A new
    /// commit that libgit2 can't read is left out with everything before it. A remote that had it before the history
    /// was rewritten still has it; any other refuses the push.
    pub(super) fn to_push(repo: &'r Repo, commit: CommitId, expected: Option<CommitId>) -> Result<Self, Error> {
        let doing = "packing the commits to push";
        let new = match expected {
            Some(expected) => repo.only_in(commit, expected, usize::MAX)?,
            None => vec![commit],
        };
        let mut known: HashSet<CommitId> = new.iter().copied().collect();
        let mut open: Vec<CommitId> = new.iter().copied().filter(|id| repo.git.find_commit(*id).is_err()).collect();
        while let Some(id) = open.pop() {
            if known.remove(&id) {
                open.extend(repo.parents_of(id)?);
            }
        }
        if !known.contains(&commit) {
            let what =
                format!("{doing}: the author or date of commit {commit} is malformed, and libgit2 can't push it");
            let next = "push it with `git push`, or make a new commit on top of it: the next tick pushes that";
            return Err(Error::new(Kind::Refused, what, next));
        }
        let mut cut = Vec::new();
        let mut pack = repo.git.packbuilder().context(doing)?;
        for id in new.iter().filter(|id| known.contains(id)) {
            if !repo.raw_commit(*id)?.parents.iter().all(|parent| known.contains(parent)) {
                cut.push(*id);
            }
            pack.insert_commit(*id).context(doing)?;
        }
        let beside = Self::make(repo, &cut)?;
        pack.write(&beside.git.path().join("objects/pack"), 0o444).context(doing)?;
        beside.git.odb().and_then(|odb| odb.refresh()).context(doing)?;
        Ok(beside)
    }
}

impl Repo {
    /// The commits that libgit2 can read but that have a parent which it can't.
    pub(super) fn children_of_odd(&self, tips: impl Iterator<Item = CommitId>) -> Result<Vec<CommitId>, Error> {
        let mut cut = Vec::new();
        let mut seen = HashSet::new();
        let mut open: Vec<CommitId> = tips.collect();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let parents = self.parents_of(id)?;
            let odd = |id: &CommitId| self.git.find_commit(*id).is_err();
            if !odd(&id) && parents.iter().any(odd) {
                cut.push(id);
            }
            open.extend(parents);
        }
        Ok(cut)
    }
}
