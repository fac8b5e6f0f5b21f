//! The force-push-pending marker: alpha saw the histories diverge and keeps its own, and the next tick's push may overwrite the
//! remote.
//!
//! It is a file because each pass is a process of its own. It is removed only after the remote was seen to hold our commit, or
//! after the remote's side was accepted.
//!
//! It names the branch, the remote and the two tips that it was set for, and allows nothing else. In a tick of another branch, or
//! if the remote has moved since or the local branch has lost the marked commit, the mode alone decides.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error};
use crate::state::dir::PrivateDir;

const NAME: &str = "force-push-pending";

/// A branch of a remote, and the remote's URLs: what a push would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// The remote's name.
    pub remote: String,
    /// The remote's URL after git's `insteadOf`, without a secret.
    pub url: String,
    /// The URL that pushes go to, if it differs from `url`; in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_url: Option<String>,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "branch '{}' of {} ({})", self.branch, self.remote, self.push_url.as_deref().unwrap_or(&self.url))
    }
}

/// What a marker was set for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The branch and where it is pushed to.
    #[serde(flatten)]
    pub destination: Destination,
    /// The local commit that wins. A push that relies on the marker must contain it.
    pub local: String,
    /// The remote's commit that may be overwritten; `None` if the remote did not have the branch.
    pub remote_tip: Option<String>,
    /// When it was set.
    pub since: DateTime<Utc>,
}

impl Marker {
    /// Whether both were set for the same destination and tips. The time does not matter.
    fn is_same(&self, other: &Marker) -> bool {
        (&self.destination, &self.local, &self.remote_tip) == (&other.destination, &other.local, &other.remote_tip)
    }
}

/// The content of the marker file.
#[derive(Clone, Debug)]
pub enum Marked {
    /// A marker that says what it was set for.
    For(Marker),
    /// A marker that does not, made by hand or by an early version. It forces nothing.
    Unknown,
}

impl Marked {
    /// Whether it was set for this branch and remote.
    pub fn is_for(&self, destination: &Destination) -> bool {
        matches!(self, Self::For(marker) if marker.destination == *destination)
    }

    /// The marked local commit, if this marker allows overwriting `remote_tip` at `destination`. The push must contain that
    /// commit.
    pub fn covers(&self, destination: &Destination, remote_tip: Option<&str>) -> Option<&str> {
        match self {
            Self::For(marker) if marker.destination == *destination && marker.remote_tip.as_deref() == remote_tip => {
                Some(&marker.local)
            }
            Self::For(_) | Self::Unknown => None,
        }
    }

    /// Whether a pass that has brought local and remote in sync removes this marker.
    pub fn is_cleared_by(&self, cleared: Cleared<'_>) -> bool {
        match (self, cleared) {
            (Self::Unknown, _) => true,
            (Self::For(marker), Cleared::For(destination)) => marker.destination == *destination,
            (Self::For(marker), Cleared::Branch(branch)) => marker.destination.branch == branch,
        }
    }
}

/// Which markers a pass removes.
#[derive(Clone, Copy, Debug)]
pub enum Cleared<'a> {
    /// Those of this branch and remote.
    For(&'a Destination),
    /// Those of this branch, for any remote: init-sync has just made the branch equal to its remote.
    Branch(&'a str),
}

/// Reads the marker, if there is one.
pub fn read(private: &PrivateDir) -> Option<Marked> {
    private.file(NAME).symlink_metadata().ok()?;
    let content = private.read(NAME).ok().flatten().unwrap_or_default();
    Some(serde_json::from_slice(&content).map_or(Marked::Unknown, Marked::For))
}

/// Logs why the marker does not apply in this pass, after [`Marked::covers`] found that it does not.
pub fn explain(private: &PrivateDir) {
    let next = "if the remote is to be overwritten, run `gitsync tick --alpha` once";
    match read(private) {
        None => {}
        Some(Marked::Unknown) => {
            let path = private.file(NAME);
            tracing::warn!(next, "{} does not say what it was set for, and forces nothing", path.display());
        }
        Some(Marked::For(Marker { destination, local, remote_tip, .. })) => {
            let tip = remote_tip.as_deref().unwrap_or("none");
            tracing::info!(
                next,
                local,
                remote = tip,
                "a force push is marked for {destination} and these two commits only, so it does not apply here"
            );
        }
    }
}

/// Marks that the next tick's push may overwrite the remote. An equal marker stays as it is. Returns whether no marker was set for
/// this destination before.
///
/// # Errors
/// If the file system fails.
pub fn set(private: &PrivateDir, marker: Marker) -> Result<bool, Error> {
    let doing = "marking the force push";
    let before = read(private);
    if let Some(Marked::For(before)) = &before {
        if before.is_same(&marker) {
            return Ok(false);
        }
        if before.destination != marker.destination {
            tracing::info!("this replaces the force push marked for {}", before.destination);
        }
    }
    let text = serde_json::to_vec_pretty(&marker).map_err(std::io::Error::from).context(doing)?;
    private.write_durably(NAME, &text).context(doing)?;
    Ok(!before.is_some_and(|before| before.is_for(&marker.destination)))
}

/// Removes the marker. Returns whether there was one.
///
/// # Errors
/// If the file system fails.
pub fn remove(private: &PrivateDir) -> Result<bool, Error> {
    private.remove_durably(NAME).context("clearing the marker")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn main() -> Destination {
        Destination { branch: "main".into(), remote: "origin".into(), url: "https://h/r".into(), push_url: None }
    }

    fn elsewhere() -> [Destination; 4] {
        [
            Destination { branch: "other".into(), ..main() },
            Destination { remote: "other".into(), ..main() },
            Destination { url: "https://h/other".into(), ..main() },
            Destination { push_url: Some("https://h/other".into()), ..main() },
        ]
    }

    fn marker() -> Marker {
        let since = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        Marker { destination: main(), local: "aa".into(), remote_tip: Some("bb".into()), since }
    }

    #[test]
    fn it_allows_the_push_that_it_was_set_for_and_no_other() {
        let marked = Marked::For(marker());
        assert_eq!(marked.covers(&main(), Some("bb")), Some("aa"));
        assert_eq!(marked.covers(&main(), Some("cc")), None);
        assert_eq!(marked.covers(&main(), None), None);
        let of_none = Marked::For(Marker { remote_tip: None, ..marker() });
        assert_eq!((of_none.covers(&main(), None), of_none.covers(&main(), Some("bb"))), (Some("aa"), None));
        assert!(marked.is_for(&main()));
        for other in elsewhere() {
            assert_eq!(marked.covers(&other, Some("bb")), None, "{other}");
            assert_eq!(marked.covers(&other, Some("cc")), None, "{other}");
            assert!(!marked.is_for(&other), "{other}");
        }
        assert_eq!((Marked::Unknown.covers(&main(), Some("bb")), Marked::Unknown.is_for(&main())), (None, false));
    }

    #[test]
    fn a_pass_clears_the_markers_of_what_it_has_brought_in_sync() {
        let marked = Marked::For(marker());
        assert!(marked.is_cleared_by(Cleared::For(&main())));
        assert!(elsewhere().iter().all(|other| !marked.is_cleared_by(Cleared::For(other))));
        assert!(marked.is_cleared_by(Cleared::Branch("main")) && !marked.is_cleared_by(Cleared::Branch("other")));
        // One that forces nothing is of no use to anybody.
        assert!(Marked::Unknown.is_cleared_by(Cleared::For(&main())));
        assert!(Marked::Unknown.is_cleared_by(Cleared::Branch("other")));
    }

    #[test]
    fn an_equal_one_keeps_its_time_and_another_replaces_it() {
        let git_dir = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(git_dir.path());
        private.create().unwrap();
        let kept = || match read(&private) {
            Some(Marked::For(marker)) => marker,
            other => panic!("{other:?}"),
        };
        let later = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert!(read(&private).is_none());
        assert!(!remove(&private).unwrap());
        assert!(set(&private, marker()).unwrap(), "the first one");
        assert!(!set(&private, Marker { since: later, ..marker() }).unwrap());
        assert_eq!(kept(), marker(), "since the first time");
        for changed in [
            Marker { local: "a2".into(), since: later, ..marker() },
            Marker { local: "a2".into(), remote_tip: None, since: later, ..marker() },
        ] {
            assert!(!set(&private, changed.clone()).unwrap(), "there was one for this destination");
            assert_eq!(kept(), changed);
        }
        for other in elsewhere() {
            assert!(set(&private, Marker { destination: other.clone(), ..marker() }).unwrap(), "{other}");
            assert_eq!(kept().destination, other);
        }
        assert!(remove(&private).unwrap());
        assert!(read(&private).is_none());
        for unknown in ["", "main diverged\n", "{}"] {
            private.write(NAME, unknown.as_bytes()).unwrap();
            assert!(matches!(read(&private), Some(Marked::Unknown)), "{unknown}");
        }
    }

    #[test]
    fn it_names_branch_remote_and_where_pushes_go() {
        assert_eq!(main().to_string(), "branch 'main' of origin (https://h/r)");
        let pushes = Destination { push_url: Some("https://h/p".into()), ..main() };
        assert_eq!(pushes.to_string(), "branch 'main' of origin (https://h/p)");
    }
}
