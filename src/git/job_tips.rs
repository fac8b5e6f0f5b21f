//! Protects the tips that a job might lose: a job may use git in the repository, and reset, amend or rebase commits
//! that nobody else has.
//!
//! A tip that only one reference keeps gets a rescue before the job starts: a job that also expires the reflogs and
//! prunes would leave nothing to rescue afterwards, and the pass may be killed before it can check. If the job dropped
//! nothing, such a rescue is removed again. In the usual state, with the remote at our own tip, nothing is written.

use chrono::{DateTime, Utc};

use super::{CommitId, Repo};
use crate::error::{Context, Error, Kind};
use crate::rescued::{RescueKind, RescueRef};
use crate::state::dir::sync_dir;

/// The tips just before a job starts.
#[derive(Debug, Default)]
pub struct JobTips {
    tips: Vec<(RescueKind, CommitId)>,
    /// Rescue references made for this job alone.
    made: Vec<(RescueRef, CommitId)>,
}

impl Repo {
    /// Records the local tip and the remote's tip as last seen, and rescues each that the other does not contain.
    ///
    /// # Errors
    /// If references can't be read or written: then the job must not start.
    pub fn tips_before_job(&self, when: DateTime<Utc>) -> Result<JobTips, Error> {
        let (local, seen) = (self.local_tip()?, self.last_seen()?);
        let mut before = JobTips::default();
        for (kind, tip, other) in [(RescueKind::Local, local, seen), (RescueKind::Remote, seen, local)] {
            // One that can't be read nobody can keep.
            let Some(tip) = tip.filter(|tip| self.has_commit(*tip)) else { continue };
            before.tips.push((kind, tip));
            // Where that can't be told, it is as if it were not: the job is to run in a damaged history too.
            let contained = other.is_some_and(|other| self.contains(other, tip).unwrap_or(false));
            if !contained && let (name, true) = self.rescue_quietly(kind, tip, when, "before the job")? {
                before.made.push((name, tip));
            }
        }
        Ok(before)
    }

    /// Rescues the tips that neither the branch nor the tracking ref contains any more, and removes the rescues that
    /// turned out needless. Returns the names of those that stay. `who` is what ran, for example "the job".
    ///
    /// # Errors
    /// If references can't be read or written, or if the job removed a tip's objects.
    pub fn keep_tips_after_job(&self, before: JobTips, who: &str, when: DateTime<Utc>) -> Result<(), Error> {
        if !self.place.git_dir.join("HEAD").exists() {
            // The repository itself is gone, which the pass says in words of its own.
            return Ok(());
        }
        let now: Vec<CommitId> = [self.local_tip()?, self.last_seen()?].into_iter().flatten().collect();
        let mut destroyed = Vec::new();
        for (kind, tip) in before.tips {
            let contained = now.iter().any(|holder| self.contains(*holder, tip).unwrap_or(false));
            let made = before.made.iter().find(|(_, commit)| *commit == tip).map(|(name, _)| name);
            // The job may have removed that too: a fetch that mirrors and prunes does.
            let made = made.filter(|name| self.git.refname_to_id(name.name()).is_ok_and(|kept| kept == tip));
            match (contained, made) {
                (true, Some(name)) => self.remove_rescue(name.name())?,
                (true, None) => {}
                (false, Some(name)) => {
                    self.tell(kind, name, tip, &format!("{who} dropped it"));
                    self.rescues_made.add(name.clone());
                }
                (false, None) if self.is_still_here(tip)? => {
                    self.rescue(kind, tip, when, &format!("{who} dropped it"))?;
                }
                (false, None) => destroyed.push(tip.to_string()),
            }
        }
        if destroyed.is_empty() {
            return Ok(());
        }
        let what = format!("{who} removed every reference to {} and its objects", destroyed.join(" and "));
        let next = "fetch it from another clone that has it; see what deletes refs/gitsync/ and prunes";
        Err(Error::new(Kind::NotReady, what, next))
    }

    /// Returns whether a commit's object is still on disk. A new handle is needed, because this process may still have
    /// open what the job's git removed.
    fn is_still_here(&self, commit: CommitId) -> Result<bool, Error> {
        Ok(self.beside()?.odb().context("looking for what the job dropped")?.exists(commit))
    }

    fn remove_rescue(&self, name: &str) -> Result<(), Error> {
        match self.git.find_reference(name) {
            Ok(mut reference) => {
                reference.delete().context(format!("removing {name}"))?;
                let folder = self.git.commondir().join(name);
                folder.parent().map_or(Ok(()), sync_dir).context("waiting for the disk")
            }
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(Error::git(format!("reading {name}"), &error)),
        }
    }
}
