//! `--on-divergence rebase`: replays our unpushed commits on the remote's tip, in memory.
//!
//! No file and no reference is touched here; the result is a commit for [`Repo::follow`] to check out. Merge drivers
//! that libgit2 knows are honoured (`merge=union` keeps both sides of an append-only file). If something can't be
//! replayed without asking a person, there is no result, and the policy decides.

use chrono::{DateTime, Utc};

use super::tree_edit::Edits;
use super::{CommitId, Repo, path_of};
use crate::error::{Context, Error};
use crate::rescued::RescueKind;

/// More unpushed commits than this are not replayed: something else is wrong.
const MOST: usize = 10_000;

impl Repo {
    /// Replays the commits that only `ours` has on `theirs`. Returns `None` if the policy must decide: there is a
    /// conflict, a merge commit, or a commit of ours that the remote once had and then dropped by rewriting its
    /// history.
    ///
    /// # Errors
    /// If the repository can't be read or written.
    pub fn replay(&self, ours: CommitId, theirs: CommitId, when: DateTime<Utc>) -> Result<Option<CommitId>, Error> {
        let doing = "replaying unpushed commits on the remote's";
        if !self.are_related(ours, theirs)? {
            tracing::info!("not replayed: the histories have no commit in common");
            return Ok(None);
        }
        let unpushed = self.only_in(ours, theirs, MOST + 1)?;
        if unpushed.len() > MOST || self.was_on_the_remote(&unpushed)? {
            tracing::info!("not replayed: the remote rewrote its history");
            return Ok(None);
        }
        // `git rebase` would sign them. If this only failed to replay, the policy would drop them from the branch
        // because of a setting: a person has to decide.
        self.check_unsigned("our unpushed commits were not replayed on the remote's, and stay where they are")?;
        let (_, committer) = self.signatures(when)?;
        // A merge reads the merge drivers from attributes in the work tree.
        self.check_tracked_rules()?;
        let mut onto = theirs;
        for id in unpushed {
            let Ok(commit) = self.git.find_commit(id) else {
                tracing::info!(commit = %id, "not replayed: a commit whose author or date is malformed");
                return Ok(None);
            };
            let (Ok(message), 0 | 1) = (commit.message(), commit.parent_count()) else {
                tracing::info!(commit = %id, "not replayed: a merge, or a message that is not UTF-8");
                return Ok(None);
            };
            let Some(parent) = commit.parent_ids().next() else {
                tracing::info!(commit = %id, "not replayed: a commit without a parent");
                return Ok(None);
            };
            let (before, there) = (self.tree_of(parent)?, self.tree_of(onto)?);
            let after = commit.tree().context(doing)?;
            let index = self.git.merge_trees(&before, &there, &after, None).context(doing)?;
            if index.has_conflicts() {
                tracing::info!(commit = %id, "not replayed: it conflicts with the remote's commits");
                return Ok(None);
            }
            let tree = self.edit_tree(Some(there.id()), &self.edits_of(&there, &index)?)?;
            let was_empty = self.raw_commit(commit.parent_id(0).context(doing)?)?.tree == commit.tree_id();
            if tree == there.id() && !was_empty {
                // The remote has this change already. A commit that was empty from the start is kept.
                continue;
            }
            onto = self.write_commit(tree, &[onto], &commit.author(), &committer, message)?;
        }
        Ok(Some(onto))
    }

    /// The changes that an index, made by a merge into `tree`, has against that tree.
    fn edits_of(&self, tree: &git2::Tree<'_>, index: &git2::Index) -> Result<Edits, Error> {
        let doing = "replaying unpushed commits on the remote's";
        let diff = self.git.diff_tree_to_index(Some(tree), Some(index), None).context(doing)?;
        let mut edits = Edits::new();
        for delta in diff.deltas() {
            for path in [delta.old_file(), delta.new_file()].iter().filter_map(|file| file.path_bytes()).map(path_of) {
                let entry = index.get_path(&path, 0).map(|entry| (entry.id, entry.mode));
                edits.insert(path, entry);
            }
        }
        Ok(edits)
    }

    /// Returns whether one of these commits is reachable from a tip that the remote once had and then rewrote: each
    /// such tip was rescued.
    fn was_on_the_remote(&self, commits: &[CommitId]) -> Result<bool, Error> {
        for (name, tip) in self.rescues()? {
            if name.kind() != Some(RescueKind::Remote) || !self.has_commit(tip) {
                continue;
            }
            for commit in commits {
                if tip == *commit || self.descends(tip, *commit)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
