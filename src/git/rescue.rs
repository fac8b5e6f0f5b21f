//! Rescue: what is about to be dropped stays reachable under `refs/gitsync/rescue/`, on disk before the act.

use chrono::{DateTime, Duration, NaiveDateTime, Utc};

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
        for (name, kept) in self.rescues()? {
            // An old one would be let go of before its time, counted from now.
            let recent = stamp_of(&name).is_some_and(|stamp| when - stamp < Duration::days(1));
            if kept == commit && recent && name.contains(&format!("-{}-", what.word())) {
                return Ok((name, false));
            }
        }
        self.objects_to_disk()?;
        let hex = commit.to_string();
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
        let doing = "reading refs/gitsync/rescue/";
        let mut all = Vec::new();
        for reference in self.git.references_glob(&format!("{PREFIX}*")).doing(doing)? {
            let reference = reference.doing(doing)?;
            if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
                all.push((name.to_owned(), target));
            }
        }
        all.sort();
        Ok(all)
    }

    /// Lets go of rescues older than `keep`, by the time in their names. Gives the names.
    ///
    /// # Errors
    /// Where references can't be read or removed.
    pub fn forget_rescues(&self, keep: std::time::Duration, now: DateTime<Utc>) -> Result<Vec<String>, Error> {
        let Some(oldest) = Duration::from_std(keep).ok().and_then(|keep| now.checked_sub_signed(keep)) else {
            return Ok(Vec::new());
        };
        let mut gone = Vec::new();
        for (name, _) in self.rescues()? {
            // A reference whose name we did not make is not ours to remove.
            let Some(time) = stamp_of(&name) else { continue };
            if time < oldest {
                let mut reference = self.git.find_reference(&name).doing(format!("reading {name}"))?;
                reference.delete().doing(format!("removing {name}"))?;
                tracing::info!(rescue = %name, "let go of a rescue that was kept long enough");
                gone.push(name);
            }
        }
        Ok(gone)
    }
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
fn stamp_of(name: &str) -> Option<DateTime<Utc>> {
    let stamp = name.strip_prefix(PREFIX)?.split('-').next()?;
    NaiveDateTime::parse_from_str(stamp, STAMP).ok().map(|time| time.and_utc())
}
