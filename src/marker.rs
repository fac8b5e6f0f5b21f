//! The force-push-pending marker: alpha saw the histories part and keeps its own; the next tick's push may overwrite.
//!
//! A file, because each pass is a process of its own: a flag in memory would be forgotten with the process that set it.
//! It goes only when the remote has been seen to hold our commit, or when the remote's side was accepted.
//!
//! It says the branch, the remote and the two tips that it was set for, and allows nothing else: a tick of another branch,
//! a remote that moved on since, or a local branch that lost the marked commit are decided by the mode alone.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::git::remote::Destination;
use crate::git::{CommitId, Heads, Repo};
use crate::outcome::Command;
use crate::private::PrivateDir;

const NAME: &str = "force-push-pending";

/// What a marker was set for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The branch and where it is pushed to.
    #[serde(flatten)]
    pub destination: Destination,
    /// The local commit that is to win. What is pushed under the marker contains it.
    pub local: String,
    /// The remote's commit that may be overwritten; `None` where the branch was gone.
    pub remote_tip: Option<String>,
    /// When it was set.
    pub since: DateTime<Utc>,
}

/// The marker that is there.
#[derive(Clone, Debug)]
pub enum Marked {
    /// One that says what it was set for.
    For(Marker),
    /// One that does not, made by hand or by an early version. It forces nothing.
    Unknown,
}

impl Marked {
    /// Whether it was set for this branch and remote.
    pub fn is_for(&self, destination: &Destination) -> bool {
        matches!(self, Self::For(marker) if marker.destination == *destination)
    }
}

/// The marker, where there is one.
pub fn read(private: &PrivateDir) -> Option<Marked> {
    private.file(NAME).symlink_metadata().ok()?;
    let content = private.read(NAME).ok().flatten().unwrap_or_default();
    Some(serde_json::from_slice(&content).map_or(Marked::Unknown, Marked::For))
}

/// Whether a marker allows this pass to overwrite the remote's tip of `heads` with the local one.
///
/// # Errors
/// Where the remote's configuration or the history can't be read.
pub fn covers(repo: &Repo, heads: Heads) -> Result<bool, Error> {
    let Some(Marked::For(marker)) = read(&repo.private) else { return Ok(false) };
    let remote_tip = heads.remote.map(|id| id.to_string());
    if marker.remote_tip != remote_tip || marker.destination != repo.destination()? {
        return Ok(false);
    }
    match (heads.local, CommitId::from_str(&marker.local)) {
        (Some(local), Ok(marked)) => repo.contains(local, marked),
        _ => Ok(false),
    }
}

/// Says why the marker that is there does not count in this pass, which [`covers`] found.
pub fn explain(repo: &Repo) {
    let next = "if the remote is to be overwritten, run `gitsync tick --alpha` once";
    match read(&repo.private) {
        None => {}
        Some(Marked::Unknown) => {
            let path = repo.private.file(NAME);
            tracing::warn!(next, "{} does not say what it was set for, and forces nothing", path.display());
        }
        Some(Marked::For(Marker { destination, local, remote_tip, .. })) => {
            let tip = remote_tip.as_deref().unwrap_or("none");
            tracing::info!(
                next,
                local,
                remote = tip,
                "a force push is marked for {destination} and these two commits, and counts for nothing else"
            );
        }
    }
}

/// Marks that the next tick's push may overwrite. Whether the marker is new.
///
/// # Errors
/// Where the remote's configuration can't be read, and those of the file system.
pub fn set(repo: &Repo, heads: Heads, now: DateTime<Utc>) -> Result<bool, Error> {
    let Some(local) = heads.local else { return Ok(false) };
    let doing = "marking the force push";
    let mut marker = Marker {
        destination: repo.destination()?,
        local: local.to_string(),
        remote_tip: heads.remote.map(|id| id.to_string()),
        since: now,
    };
    let before = read(&repo.private);
    if let Some(Marked::For(before)) = &before {
        marker.since = before.since;
        if *before == marker {
            return Ok(false);
        }
        marker.since = now;
        if before.destination != marker.destination {
            tracing::info!("this replaces the force push marked for {}", before.destination);
        }
    }
    let text = serde_json::to_vec_pretty(&marker).map_err(|error| Error::io(doing, &error.into()))?;
    repo.private.write_durably(NAME, &text).map_err(|error| Error::io(doing, &error))?;
    Ok(!before.is_some_and(|before| before.is_for(&marker.destination)))
}

/// Whether a pass that clears the marker would take one away.
///
/// # Errors
/// Where the remote's configuration can't be read.
pub fn would_clear(repo: &Repo, command: Command) -> Result<bool, Error> {
    match (command, read(&repo.private)) {
        (_, None) => Ok(false),
        (Command::InitSync, Some(_)) => Ok(would_clear_at_start_up(repo)),
        (Command::Sync | Command::Tick, Some(Marked::For(marker))) => Ok(marker.destination == repo.destination()?),
        (Command::Sync | Command::Tick, Some(Marked::Unknown)) => Ok(true),
    }
}

/// Takes the marker away, unless it is for another branch or remote. Whether it was there.
///
/// # Errors
/// Where the remote's configuration can't be read, and those of the file system.
pub fn clear(repo: &Repo) -> Result<bool, Error> {
    match would_clear(repo, Command::Tick)? {
        true => remove(repo),
        false => Ok(false),
    }
}

/// Takes the marker away, unless it is for another branch: the branch now is what its remote has, whichever remote that is.
///
/// # Errors
/// Those of the file system.
pub fn clear_at_start_up(repo: &Repo) -> Result<bool, Error> {
    match would_clear_at_start_up(repo) {
        true => remove(repo),
        false => Ok(false),
    }
}

/// Whether [`clear_at_start_up`] would take a marker away.
fn would_clear_at_start_up(repo: &Repo) -> bool {
    match read(&repo.private) {
        None => false,
        Some(Marked::Unknown) => true,
        Some(Marked::For(marker)) => marker.destination.branch == repo.names.branch,
    }
}

fn remove(repo: &Repo) -> Result<bool, Error> {
    repo.private.remove_durably(NAME).map_err(|error| Error::io("clearing the marker", &error))
}
