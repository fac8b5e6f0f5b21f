//! Rescue references: their names, and which of them a pass made.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, NaiveDateTime, Utc};

/// Where rescues are kept.
pub const PREFIX: &str = "refs/gitsync/rescue/";

/// The time in a name, in UTC.
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// What is rescued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RescueKind {
    /// Commits of the local branch.
    Local,
    /// Uncommitted files.
    Worktree,
    /// The remote's tip.
    Remote,
}

impl RescueKind {
    /// The word in a reference's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Worktree => "worktree",
            Self::Remote => "remote",
        }
    }
}

/// The name of a rescue reference: `refs/gitsync/rescue/<time>-<kind>-<7 hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RescueRef(String);

impl RescueRef {
    /// The name for a commit that is rescued at `when`. `hex`: the commit's id.
    pub fn new(kind: RescueKind, when: DateTime<Utc>, hex: &str) -> Self {
        let short = hex.get(..7).unwrap_or(hex);
        Self(format!("{PREFIX}{}-{}-{short}", when.format(STAMP), kind.word()))
    }

    /// A reference below [`PREFIX`], also one that somebody else put there.
    pub fn of(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The full name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// What it keeps; `None` where the name does not say.
    pub fn kind(&self) -> Option<RescueKind> {
        let word = self.0.strip_prefix(PREFIX)?.split('-').nth(1)?;
        [RescueKind::Local, RescueKind::Worktree, RescueKind::Remote].into_iter().find(|kind| kind.word() == word)
    }

    /// When it was made; `None` where the name does not say.
    pub fn since(&self) -> Option<DateTime<Utc>> {
        time_at_start(self.0.strip_prefix(PREFIX)?)
    }
}

impl fmt::Display for RescueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The time that a name begins with, as those of rescues and of repositories that were put aside do.
pub fn time_at_start(name: &str) -> Option<DateTime<Utc>> {
    let stamp = name.split(['-', '+']).next()?;
    NaiveDateTime::parse_from_str(stamp, STAMP).ok().map(|time| time.and_utc())
}

/// The rescues that a pass made, collected where they are made. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Rescues(Arc<Mutex<Vec<RescueRef>>>);

impl Rescues {
    /// Adds a rescue.
    pub fn add(&self, rescue: RescueRef) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&rescue) {
            all.push(rescue);
            all.sort();
        }
    }

    /// Takes one back that turned out to be needless.
    pub fn remove(&self, rescue: &RescueRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| one != rescue);
    }

    /// All of them, in the order of their names.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|one| one.0.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_was_kept_and_when() {
        let when = NaiveDateTime::parse_from_str("20261122T220000Z", STAMP).unwrap().and_utc();
        for kind in [RescueKind::Local, RescueKind::Worktree, RescueKind::Remote] {
            let made = RescueRef::new(kind, when, "0123456789abcdef");
            assert_eq!(made.name(), format!("refs/gitsync/rescue/20261122T220000Z-{}-0123456", kind.word()));
            assert_eq!((made.kind(), made.since()), (Some(kind), Some(when)));
        }
        let foreign = RescueRef::of("refs/gitsync/rescue/a-worktree-b/c");
        assert_eq!((foreign.kind(), foreign.since()), (Some(RescueKind::Worktree), None));
        assert_eq!(RescueRef::of("refs/gitsync/rescue/by-hand").kind(), None);
    }
}
