//! `--on-divergence rebase`: our unpushed commits replayed on the remote's tip, in memory.
//!
//! No file and no reference is touched here; the result is a commit for [`Repo::follow`] to bring about. Merge drivers that
//! libgit2 knows are honoured (`merge=union` keeps both sides of an append-only ledger). What can't be replayed without a
//! question gives nothing, and the policy decides.

use chrono::{DateTime, Utc};

use super::error::Doing;
use super::{CommitId, Error, Repo};

/// More unpushed commits than this are not replayed: something else is wrong.
const MOST: usize = 10_000;

impl Repo {
    /// Replays what `ours` has and `theirs` has not on `theirs`. `None` where the policy must decide: a conflict, a merge
    /// commit, or a commit of ours that the remote had and rewrote away.
    ///
    /// # Errors
    /// Where the repository can't be read or written.
    pub fn replay(&self, ours: CommitId, theirs: CommitId, when: DateTime<Utc>) -> Result<Option<CommitId>, Error> {
        let doing = "replaying unpushed commits on the remote's";
        if self.git.merge_base(ours, theirs).is_err() {
            tracing::info!("not replayed: the histories have no commit in common");
            return Ok(None);
        }
        let mut walk = self.git.revwalk().doing(doing)?;
        walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::REVERSE).doing(doing)?;
        walk.push(ours).doing(doing)?;
        walk.hide(theirs).doing(doing)?;
        let unpushed: Vec<CommitId> = walk.take(MOST + 1).collect::<Result<_, _>>().doing(doing)?;
        if unpushed.len() > MOST || self.was_on_the_remote(&unpushed)? {
            tracing::info!("not replayed: the remote rewrote its history");
            return Ok(None);
        }
        let (_, committer) = self.signatures(when)?;
        let mut onto = self.git.find_commit(theirs).doing(doing)?;
        for id in unpushed {
            let commit = self.git.find_commit(id).doing(doing)?;
            let (Ok(message), 0 | 1) = (commit.message(), commit.parent_count()) else {
                tracing::info!(commit = %id, "not replayed: a merge, or a message that is not UTF-8");
                return Ok(None);
            };
            if commit.parent_count() == 0 {
                tracing::info!(commit = %id, "not replayed: a beginning of its own");
                return Ok(None);
            }
            let mut index = self.git.cherrypick_commit(&commit, &onto, 0, None).doing(doing)?;
            if index.has_conflicts() {
                tracing::info!(commit = %id, "not replayed: it conflicts with the remote's commits");
                return Ok(None);
            }
            let tree = self.git.find_tree(index.write_tree_to(&self.git).doing(doing)?).doing(doing)?;
            if tree.id() == onto.tree_id() {
                // The remote has this change already.
                continue;
            }
            let replayed = self.write_commit(&commit.author(), &committer, message, &tree, &[&onto]).doing(doing)?;
            onto = self.git.find_commit(replayed).doing(doing)?;
        }
        Ok(Some(onto.id()))
    }

    /// Whether one of these commits was reachable from a tip that the remote had and rewrote away: each such tip was rescued.
    fn was_on_the_remote(&self, commits: &[CommitId]) -> Result<bool, Error> {
        for (name, tip) in self.rescues()? {
            if !name.contains("-remote-") || self.git.find_commit(tip).is_err() {
                continue;
            }
            for commit in commits {
                let doing = "comparing unpushed commits with what the remote had";
                if tip == *commit || self.git.graph_descendant_of(tip, *commit).doing(doing)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
