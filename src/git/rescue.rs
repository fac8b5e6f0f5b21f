//! Rescue: what is about to be dropped stays reachable under `refs/gitsync/rescue/`, on disk before the act.

use chrono::{DateTime, Duration, NaiveDateTime, Utc};

use super::ages::Ages;
use super::error::Doing;
use super::{CommitId, Error, Repo};

const PREFIX: &str = "refs/gitsync/rescue/";
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// What is rescued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Commits of the local branch.
    Local,
    /// Uncommitted files.
    Worktree,
    /// The remote's tip.
    Remote,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Worktree => "worktree",
            Self::Remote => "remote",
        }
    }
}

impl Repo {
    /// Keeps a commit reachable, and says how to get it back. Gives the reference's name.
    ///
    /// What a reference of the same kind keeps already is not kept twice.
    ///
    /// # Errors
    /// Where the reference can't be written: then the act must not happen.
    pub fn rescue(&self, what: What, commit: CommitId, when: DateTime<Utc>, why: &str) -> Result<String, Error> {
        let (name, new) = self.rescue_quietly(what, commit, when, why)?;
        if new {
            tell(what, &name, commit, why);
        }
        Ok(name)
    }

    /// [`Repo::rescue`] without a word in the log; gives also whether the reference is new.
    ///
    /// # Errors
    /// As [`Repo::rescue`].
    pub(super) fn rescue_quietly(
        &self,
        what: What,
        commit: CommitId,
        when: DateTime<Utc>,
        why: &str,
    ) -> Result<(String, bool), Error> {
        let ages = Ages::read(&self.private);
        let hex = commit.to_string();
        // Not each that is there: there may be thousands, and as many are made in one pass.
        for (name, kept) in self.rescues_like(&format!("*-{}-{}", what.word(), &hex[..7]))? {
            if kept == commit && is_recent(&ages, &name, kept, when) {
                return Ok((name, false));
            }
        }
        self.objects_to_disk()?;
        let mut stamp = when;
        let name = loop {
            let name = format!("{PREFIX}{}-{}-{}", stamp.format(STAMP), what.word(), &hex[..7]);
            match self.git.reference(&name, commit, false, why) {
                Ok(_) => break name,
                // Another commit with the same first digits in the same second: the name must not be taken from it.
                Err(error) if error.code() == git2::ErrorCode::Exists => stamp += Duration::seconds(1),
                Err(error) => return Err(Error::git(format!("keeping {hex} as {name}"), &error)),
            }
        };
        self.ref_to_disk(&name)?;
        Ok((name, true))
    }

    /// Every rescue reference with its commit, oldest first.
    ///
    /// # Errors
    /// Where references can't be read.
    pub fn rescues(&self) -> Result<Vec<(String, CommitId)>, Error> {
        self.rescues_like("*")
    }

    fn rescues_like(&self, pattern: &str) -> Result<Vec<(String, CommitId)>, Error> {
        let doing = "reading refs/gitsync/rescue/";
        let mut all = Vec::new();
        for reference in self.git.references_glob(&format!("{PREFIX}{pattern}")).doing(doing)? {
            let reference = reference.doing(doing)?;
            if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
                all.push((name.to_owned(), target));
            }
        }
        all.sort();
        Ok(all)
    }
}

/// Whether a rescue was made within a day. An older one would be let go before its time, counted from now.
fn is_recent(ages: &Ages, name: &str, kept: CommitId, when: DateTime<Utc>) -> bool {
    let day = Duration::days(1);
    // The clock may have been set back to the day that is in the name.
    !ages.may_be_kept_for(&format!("{name} {kept}"), day.num_seconds())
        && stamp_of(name).is_some_and(|stamp| stamp <= when && when - stamp < day)
}

/// Says that a commit was rescued, and how to get it back.
pub(super) fn tell(what: What, name: &str, commit: CommitId, why: &str) {
    let look = match what {
        What::Local | What::Remote => format!("git log {name}"),
        What::Worktree => format!("git show --stat {name}; git checkout {name} -- PATH"),
    };
    tracing::warn!(rescue = %name, commit = %commit, get_back = %look, "{why}: kept what would have been dropped");
}

/// When a rescue was made, by its name.
pub(super) fn stamp_of(name: &str) -> Option<DateTime<Utc>> {
    stamp_at_start(name.strip_prefix(PREFIX)?)
}

/// The time that a name begins with, such as those of rescues and of what is put aside.
pub(super) fn stamp_at_start(name: &str) -> Option<DateTime<Utc>> {
    let stamp = name.split(['-', '+']).next()?;
    NaiveDateTime::parse_from_str(stamp, STAMP).ok().map(|time| time.and_utc())
}
