//! Follows a commit: branch, index and every tracked file become equal to it, and nothing that was there is lost.
//!
//! Why not `reset --hard`: it truncates files in place and follows links out of the tree. Killed halfway, it leaves the
//! old HEAD and index with a mixed work tree that looks like a person's edits, and the next commit would mix two
//! versions. Instead:
//!
//! 1. find once what differs from the target;
//! 2. write those paths to a staging folder; libgit2 writes what has to be converted, so that line endings are git's own;
//! 3. put what is about to be replaced, and is in no reachable tree, into a rescue commit;
//! 4. write an intent durably: from now on, if this pass is killed, the next one finishes the follow;
//! 5. put each path in place by one rename, relative to a directory handle that follows no links;
//! 6. update the index, then the branch, then HEAD; then remove the intent.
//!
//! Carrying out an intent twice does no harm: each step checks what is there first.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::index::{entry, remove};
use super::index_flags::Flagged;
use super::stage::STAGING;
use super::survey::{Survey, is_staged_alike};
use super::tree_walk::{Changes, Want, want_of};
use super::{CommitId, Repo, path_of};
use crate::error::{Context, Error, Kind};
use crate::fs::dir::Dir;
use crate::rescued::RescueKind;

pub(super) const INTENT: &str = "intent";
/// What a follow did.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// Whether anything was changed.
    pub changed: bool,
    /// Paths replaced, made or removed.
    pub paths: usize,
}

/// What becomes of local commits that the commit to follow does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// The branch drops them.
    Dropped,
    /// The commit to follow holds the same changes on another base.
    Replayed,
}

/// What a follow would do.
#[derive(Clone, Debug, Default)]
pub struct WouldFollow {
    /// Paths that would be replaced, made or removed.
    pub paths: Vec<PathBuf>,
    /// Those of them whose present content is in no commit.
    pub uncommitted: Vec<PathBuf>,
    /// Whether there is anything to do: paths, the branch, HEAD, or an unfinished merge or the like.
    pub changed: bool,
}

/// The record on disk of a follow in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Intent {
    branch: String,
    old: Option<String>,
    target: String,
    why: String,
}

impl Repo {
    /// Makes the branch, the index and every tracked file equal to `target`.
    ///
    /// First puts what would be lost into rescue references: local commits that `target` does not contain, and file
    /// versions that no reachable tree holds.
    ///
    /// # Errors
    /// If something can't be kept, read or written. Before the intent is written nothing has changed; after it, the
    /// next pass goes on from where this one stopped.
    pub fn follow(&self, target: CommitId, ours: Ours, why: &str, when: DateTime<Utc>) -> Result<Followed, Error> {
        let old = self.local_tip()?;
        let changes = self.differing(target)?;
        let in_order = self.is_on_branch_alone()?;
        if changes.is_empty() && old == Some(target) && in_order {
            return Ok(Followed::default());
        }
        self.check_branch_is_ours_alone()?;
        match old {
            Some(old) if old == target || self.descends(target, old)? => {}
            Some(old) if ours == Ours::Replayed => self.rescue_replayed(old, when)?,
            Some(old) => self.rescue(RescueKind::Local, old, when, why)?,
            None => self.check_branch_can_exist()?,
        }
        let intent = Intent {
            branch: self.names.branch.clone(),
            old: old.map(|id| id.to_string()),
            target: target.to_string(),
            why: why.to_owned(),
        };
        let paths = self.carry_out(&intent, target, &changes, when, true)?;
        Ok(Followed { changed: true, paths })
    }

    /// Writes an index made from scratch as part of a follow of `target`, so that the next pass notices a kill in
    /// between.
    pub(crate) fn follow_from_index(
        &self,
        target: CommitId,
        index: &mut git2::Index,
        when: DateTime<Utc>,
    ) -> Result<(), Error> {
        let old = self.local_tip()?.map(|id| id.to_string());
        let why = "restoring the files of a checkout that never finished".to_owned();
        let intent = Intent { branch: self.names.branch.clone(), old, target: target.to_string(), why: why.clone() };
        let text = serde_json::to_vec(&intent).map_err(io::Error::other).context("writing the intent")?;
        self.private.write_durably(INTENT, &text).context("writing the intent")?;
        self.index_to_disk(index)?;
        self.finish_follow(when).map(drop)
    }

    /// What a follow of `target` would change, and which of it is in no commit. Writes nothing.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn would_follow(&self, target: CommitId) -> Result<WouldFollow, Error> {
        let doing = "looking for uncommitted files";
        let old = self.local_tip()?;
        let in_order = self.is_on_branch_alone()?;
        let paths: Vec<PathBuf> = self.differing(target)?.into_keys().map(PathBuf::from).collect();
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let mut known = self.known_trees(target)?;
        let mut survey = Survey::default();
        for path in &paths {
            if top.find(path).context(doing)?.is_some() {
                self.survey_one(&top, path, &mut known, &mut survey)?;
            }
        }
        let changed = !paths.is_empty() || old != Some(target) || !in_order;
        if changed {
            self.check_branch_is_ours_alone()?;
            old.map_or_else(|| self.check_branch_can_exist(), |_| Ok(()))?;
        }
        Ok(WouldFollow { paths, uncommitted: survey.unsaved.into_keys().collect(), changed })
    }

    /// Returns whether HEAD is on the branch and no merge, rebase or the like is in progress.
    ///
    /// # Errors
    /// If HEAD can't be read.
    pub fn is_on_branch_alone(&self) -> Result<bool, Error> {
        let on_branch = self.head_branch()?.as_deref() == Some(&self.branch_ref());
        Ok(on_branch && self.git.state() == git2::RepositoryState::Clean)
    }

    /// Rescues a commit that `target` does not contain.
    pub fn follow_is_unfinished(&self) -> bool {
        self.private.file(INTENT).symlink_metadata().is_ok()
    }

    /// Finishes a follow that an earlier pass did not finish.
    ///
    /// # Errors
    /// As for [`Repo::follow`].
    pub fn finish_follow(&self, when: DateTime<Utc>) -> Result<Option<Followed>, Error> {
        let Some((intent, target, mine)) = self.intent()? else {
            // An interruption before the intent was written: only the staging folder is left.
            self.clear_staging()?;
            return Ok(None);
        };
        if !mine {
            tracing::warn!(
                branch = %intent.branch, target = %intent.target,
                "undoing a follow that an earlier pass did not finish: another branch is synced now, or the branch has moved since"
            );
            self.take_back(&intent, target, when)?;
            return Ok(None);
        }
        tracing::info!(target = %intent.target, "finishing a follow that an earlier pass was cut short in");
        let changes = self.differing(target)?;
        let paths = self.carry_out(&intent, target, &changes, when, false)?;
        Ok(Some(Followed { changed: true, paths }))
    }

    /// The commit that [`Repo::finish_follow`] would move the branch to, if there is a follow to finish. Writes
    /// nothing.
    ///
    /// # Errors
    /// As for [`Repo::finish_follow`].
    pub fn unfinished_follow(&self) -> Result<Option<CommitId>, Error> {
        Ok(self.intent()?.filter(|(_, _, mine)| *mine).map(|(_, target, _)| target))
    }

    /// The intent of an earlier pass and its target, and whether it is still to be carried out.
    fn intent(&self) -> Result<Option<(Intent, CommitId, bool)>, Error> {
        let Some(text) = self.private.read(INTENT).context("reading the intent of an earlier pass")? else {
            return Ok(None);
        };
        let intent: Intent = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{} can't be read: {error}", self.private.file(INTENT).display());
            Error::new(Kind::NotReady, what, "run `gitsync init-sync`: it brings the work tree to the remote's state")
        })?;
        let target = CommitId::from_str(&intent.target).context("reading the intent of an earlier pass")?;
        if !self.has_commit(target) {
            let what = format!("an earlier pass was following {target}, which is not here");
            let next = "run `gitsync init-sync`: it brings the work tree to the remote's state";
            return Err(Error::new(Kind::NotReady, what, next));
        }
        let tip = self.tip_of(&format!("refs/heads/{}", intent.branch))?;
        let expected = [intent.old.clone(), Some(intent.target.clone())];
        let mine = intent.branch == self.names.branch && expected.contains(&tip.map(|id| id.to_string()));
        Ok(Some((intent, target, mine)))
    }

    /// Drops the intent of an earlier pass, because what the caller does next replaces it (init-sync).
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn drop_intent(&self) -> Result<(), Error> {
        self.private.remove_durably(INTENT).context("dropping an intent").map(drop)
    }

    /// Undoes a follow that was interrupted and must not be finished. Every path that the follow may have changed, and
    /// that is still as the follow left it, becomes HEAD's again. What a person has changed since stays.
    ///
    /// Without this the work tree would remain a mix of two versions, and the next tick would commit it.
    fn take_back(&self, intent: &Intent, target: CommitId, when: DateTime<Utc>) -> Result<(), Error> {
        let doing = "undoing an unfinished follow";
        let tree_of = |id: CommitId| self.tree_of(id);
        let old = intent.old.as_deref().map(CommitId::from_str).transpose().context(doing)?.map(tree_of).transpose()?;
        let new = tree_of(target)?;
        let head = self.tip_of("HEAD")?;
        let head_tree = head.map(tree_of).transpose()?;
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let diff = self.git.diff_tree_to_tree(old.as_ref(), Some(&new), None).context(doing)?;
        let paths: BTreeSet<PathBuf> = diff
            .deltas()
            .flat_map(|delta| [delta.old_file().path_bytes().map(path_of), delta.new_file().path_bytes().map(path_of)])
            .flatten()
            .collect();
        let (mut in_target, mut in_head) = (self.walk_tree(&new), head_tree.as_ref().map(|tree| self.walk_tree(tree)));
        let mut targets = Changes::new();
        for path in paths {
            let want = in_target.get(&path)?.map_or(Want::Gone, |entry| want_of(&entry));
            targets.insert(path.into_os_string(), want);
        }
        let staged = self.stage(target, &targets, STAGING)?;
        let mut changes = Changes::new();
        for (path, want) in targets {
            let at = Path::new(&path);
            let placed = match want {
                Want::Blob(_) => is_staged_alike(&top, &staged, at)?,
                Want::Gone => top.find(at).context(doing)?.is_none(),
                Want::Submodule => false,
            };
            if placed {
                let kept = in_head.as_mut().map_or(Ok(None), |tree| tree.get(at))?;
                changes.insert(path, kept.map_or(Want::Gone, |entry| want_of(&entry)));
            }
        }
        // Without a HEAD they are all removed.
        let from = head.unwrap_or(target);
        let staged = self.stage(from, &changes, STAGING)?;
        let survey = self.survey(&top, from, &changes, &staged)?;
        self.place_all(&top, &staged, &changes, &survey, when)?;
        let mut index = self.index()?;
        let flagged = Flagged::of(&index);
        for (path, want) in &changes {
            let path = Path::new(path);
            let kept =
                if *want == Want::Gone { None } else { in_head.as_mut().map_or(Ok(None), |tree| tree.get(path))? };
            match kept {
                Some(kept) => index.add(&entry(path, kept.id, kept.mode)).context(doing)?,
                None => remove(&mut index, path).context(doing)?,
            }
        }
        flagged.give_back(self, &mut index)?;
        self.index_to_disk(&mut index)?;
        self.clear_staging()?;
        self.drop_intent()
    }

    /// Refuses a branch name that git can't create, such as `a/b` beside a branch `a`, before anything has changed.
    fn check_branch_can_exist(&self) -> Result<(), Error> {
        let doing = "looking at the branches";
        let branch = self.branch_ref();
        let mut in_the_way = self.git.references_glob(&format!("{branch}/*")).context(doing)?;
        let below = in_the_way.names().next().and_then(Result::ok).map(str::to_owned);
        let above = Path::new(&branch).ancestors().skip(1).find_map(|outer| {
            let name = outer.to_str().filter(|name| name.starts_with("refs/heads/"))?;
            self.git.refname_to_id(name).ok().map(|_| name.to_owned())
        });
        match below.or(above) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                Kind::NotReady,
                format!("{branch} can't be made: there is {other}, and git allows only one of the two"),
                "rename or remove that branch, or name another with --branch",
            )),
        }
    }

    fn carry_out(
        &self,
        intent: &Intent,
        target: CommitId,
        changes: &Changes,
        when: DateTime<Utc>,
        fresh: bool,
    ) -> Result<usize, Error> {
        let staged = self.stage(target, changes, STAGING)?;
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let survey = self.survey(&top, target, changes, &staged)?;
        if !survey.unsaved.is_empty() || fresh {
            self.rescue_files(&top, target, &survey, when, &intent.why)?;
        }
        if fresh {
            let text = serde_json::to_vec(intent).map_err(io::Error::other).context("writing the intent")?;
            self.private.write_durably(INTENT, &text).context("writing the intent")?;
        }
        let placed = self.place_all(&top, &staged, changes, &survey, when)?;
        self.write_index(target, &top, &placed)?;
        // Move it from the tip that was judged, not from the present one: a commit made meanwhile must not be lost.
        if self.tip_of(&self.branch_ref())? != Some(target) {
            let old = intent.old.as_deref().map(CommitId::from_str).transpose().context("reading the intent")?;
            self.move_ref(&self.branch_ref(), old, target, &format!("gitsync: {}", intent.why))?;
        }
        if self.head_branch()?.as_deref() != Some(&self.branch_ref()) {
            self.git.set_head(&self.branch_ref()).context("putting HEAD on the branch")?;
        }
        if self.git.state() != git2::RepositoryState::Clean {
            self.git.cleanup_state().context("ending the operation in progress")?;
        }
        self.clear_staging()?;
        self.private.remove_durably(INTENT).context("ending the follow")?;
        let written = changes.iter().filter(|(path, want)| **want != Want::Gone && !survey.in_place.contains(*path));
        self.say_unapplied(written.map(|(path, _)| Path::new(path)));
        Ok(placed.len())
    }
}
