//! Checks whether a pass may work in the repository now, or whether somebody's operation is in progress there.

use std::path::{Path, PathBuf};

use super::{CommitId, Repo, path_of};
use crate::error::{Context, Error, Kind};
use crate::fs::files;

impl Repo {
    /// Refuses a repository in which a person or another program has an operation in progress.
    ///
    /// # Errors
    /// [`Kind::NotReady`], which says what to do.
    pub fn check_ready(&self) -> Result<(), Error> {
        let heal = "or let `gitsync init-sync` do it: it keeps what is there under refs/gitsync/rescue/";
        let doing = match self.git.state() {
            git2::RepositoryState::Clean => None,
            git2::RepositoryState::Merge => Some(("a merge", "git merge --abort")),
            git2::RepositoryState::Revert | git2::RepositoryState::RevertSequence => {
                Some(("a revert", "git revert --abort"))
            }
            git2::RepositoryState::CherryPick | git2::RepositoryState::CherryPickSequence => {
                Some(("a cherry-pick", "git cherry-pick --abort"))
            }
            git2::RepositoryState::Bisect => Some(("a bisection", "git bisect reset")),
            git2::RepositoryState::Rebase
            | git2::RepositoryState::RebaseInteractive
            | git2::RepositoryState::RebaseMerge => Some(("a rebase", "git rebase --abort")),
            git2::RepositoryState::ApplyMailbox | git2::RepositoryState::ApplyMailboxOrRebase => {
                Some(("applying mail", "git am --abort"))
            }
        };
        if let Some((what, command)) = doing {
            let what = format!("{what} is in progress in {}; nothing was touched", self.place.work_dir.display());
            return Err(Error::new(Kind::NotReady, what, format!("finish it, or `{command}`, {heal}")));
        }
        self.check_branch_is_ours_alone()?;
        if self.config()?.get_bool("core.sparsecheckout").unwrap_or(false) {
            let what = "the work tree is sparse: files that are left out of it would be committed as deleted";
            return Err(Error::new(Kind::NotReady, what, "`git sparse-checkout disable`, or use a separate clone"));
        }
        let branch = &self.names.branch;
        let symbolic = self
            .git
            .find_reference(&self.branch_ref())
            .ok()
            .and_then(|reference| reference.symbolic_target().ok().flatten().map(str::to_owned));
        if let Some(other) = symbolic {
            let what = format!("branch '{branch}' is a symbolic reference to {other}; nothing was touched");
            return Err(Error::new(
                Kind::NotReady,
                what,
                "name that branch with --branch, or make this one a real branch",
            ));
        }
        match self.head_branch()? {
            Some(name) if name == self.branch_ref() => Ok(()),
            Some(name) => {
                let short = name.strip_prefix("refs/heads/").unwrap_or(&name);
                let what = format!("the work tree is on branch '{short}', not on '{branch}'; nothing was touched");
                Err(Error::new(
                    Kind::NotReady,
                    what,
                    format!("`git switch {branch}`, or name the branch with --branch, {heal}"),
                ))
            }
            None => {
                let what = format!("HEAD is detached, not on branch '{branch}'; nothing was touched");
                Err(Error::new(Kind::NotReady, what, format!("`git switch {branch}`, {heal}")))
            }
        }
    }

    /// Refuses a branch that a linked work tree has checked out. If the branch moved, the files there would look as if
    /// a person had reverted everything new, and the next commit there would do so.
    ///
    /// # Errors
    /// [`Kind::NotReady`] if there is one.
    pub(crate) fn check_branch_is_ours_alone(&self) -> Result<(), Error> {
        let head = format!("ref: {}", self.branch_ref());
        for entry in files::entries_if_any(&self.git.commondir().join("worktrees")) {
            let linked = entry.path();
            let text = |name: &str| files::read_to_string(&linked.join(name)).unwrap_or_default().trim().to_owned();
            let dot_git = text("gitdir");
            // A work tree that was removed by hand may still be listed.
            if text("HEAD") == head && Path::new(&dot_git).exists() {
                let there = Path::new(&dot_git).parent().unwrap_or(Path::new(&dot_git)).display().to_string();
                let what = format!("'{}' is checked out in the linked work tree {there} too", self.names.branch);
                let next = format!("`git worktree remove {there}`, or `git switch` it to another branch");
                return Err(Error::new(Kind::NotReady, what, next));
            }
        }
        Ok(())
    }

    /// What a follow of a commit leaves undone, because git alone can't do it: one sentence each.
    ///
    /// # Errors
    /// If the commit can't be read.
    pub fn left_as_it_is(&self, commit: CommitId) -> Result<Vec<&'static str>, Error> {
        let tree = self.tree_of(commit)?;
        let mut notes = Vec::new();
        if tree.get_name(".gitmodules").is_some() {
            notes
                .push("the repository has submodules: their folders are left as they are, gitsync does not fetch them");
        }
        Ok(notes)
    }

    /// Finds a tracked file below a folder of the work tree. If `ours` is false, it also finds one that git neither
    /// tracks nor ignores: that is somebody's work. `folder` is relative to the top.
    ///
    /// # Errors
    /// If the index or the work tree can't be read.
    pub fn somebodys_file_in(&self, folder: &Path, ours: bool) -> Result<Option<PathBuf>, Error> {
        let doing = "looking for somebody's files in the public dir";
        let index = self.index()?;
        let tracked = index.iter().map(|entry| path_of(&entry.path)).find(|path| path.starts_with(folder));
        if tracked.is_some() || ours {
            return Ok(tracked);
        }
        self.check_rules_around(folder)?;
        let mut options = git2::DiffOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).disable_pathspec_match(true).pathspec(folder);
        let diff = self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).context(doing)?;
        let mut untracked = diff.deltas().filter(|delta| delta.status() == git2::Delta::Untracked);
        Ok(untracked.find_map(|delta| delta.new_file().path_bytes().map(path_of)))
    }
}
