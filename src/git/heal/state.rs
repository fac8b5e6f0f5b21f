//! Keeps what an unfinished merge, rebase or the like would lose.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};

use crate::error::{Context, Error};
use crate::fs::files;
use crate::git::{CommitId, Repo};
use crate::rescued::RescueKind;

impl Repo {
    /// Rescues what an unfinished merge, rebase or the like would lose, and a detached HEAD's commit. The follow that
    /// comes next ends the operation itself.
    ///
    /// # Errors
    /// If references can't be read or written.
    pub fn mend_state(&self, when: DateTime<Utc>) -> Result<(), Error> {
        let mut heads: BTreeSet<CommitId> = BTreeSet::new();
        let git_dir = &self.place.git_dir;
        // Uncommitted work that git stashed when the operation began, and would have restored at its end.
        for file in ["MERGE_AUTOSTASH", "rebase-merge/autostash", "rebase-apply/autostash"] {
            let text = files::read_to_string(&git_dir.join(file)).unwrap_or_default();
            let Ok(stash) = CommitId::from_str(text.trim()) else { continue };
            if self.git.find_commit(stash).is_ok() && !self.is_kept(stash)? {
                self.rescue(RescueKind::Worktree, stash, when, "stashed by a work left half done")?;
            }
        }
        if self.git.state() != git2::RepositoryState::Clean {
            let files = [
                "MERGE_HEAD",
                "CHERRY_PICK_HEAD",
                "REVERT_HEAD",
                "REBASE_HEAD",
                "rebase-merge/orig-head",
                "rebase-apply/orig-head",
                "rebase-merge/amend",
                "rebase-merge/stopped-sha",
            ];
            for file in files {
                let text = files::read_to_string(&git_dir.join(file)).unwrap_or_default();
                heads.extend(text.lines().filter_map(|line| CommitId::from_str(line.trim()).ok()));
            }
            tracing::warn!(state = ?self.git.state(), "a merge, rebase or the like was unfinished in the repository; it is ended here");
        }
        match self.head_branch()? {
            None => heads.extend(self.tip_of("HEAD")?),
            Some(name) if name != self.branch_ref() => {
                tracing::warn!(was = %name, "the work tree was on another branch; that branch stays as it is");
            }
            Some(_) => {}
        }
        for head in heads {
            if self.has_commit(head) && !self.is_kept(head)? {
                self.rescue(RescueKind::Local, head, when, "a work left half done")?;
            }
        }
        Ok(())
    }

    /// Puts HEAD on the branch, which has no commit yet.
    ///
    /// # Errors
    /// If HEAD can't be written.
    pub fn stand_on_unborn_branch(&self) -> Result<(), Error> {
        if self.head_branch()?.as_deref() != Some(&self.branch_ref()) {
            self.git.set_head(&self.branch_ref()).context("putting HEAD on the branch")?;
        }
        Ok(())
    }

    /// Returns whether any reference reaches a commit.
    fn is_kept(&self, commit: CommitId) -> Result<bool, Error> {
        let mut open = self.ref_tips()?;
        // One walk for all references: there may be thousands.
        let mut seen = HashSet::new();
        while let Some(id) = open.pop() {
            if id == commit {
                return Ok(true);
            }
            if seen.insert(id) {
                // A commit that can't be read does not keep its ancestors.
                open.extend(self.parents_of(id).unwrap_or_default());
            }
        }
        Ok(false)
    }
}
