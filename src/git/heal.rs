//! Repairs what an earlier crash, a power loss or a person left behind.
//!
//! There are two levels. [`clear_leftovers`] and [`Repo::heal_index`](crate::git::Repo::heal_index) are safe in every
//! pass. The rest is for `init-sync`, which may repair a repository that no pass could work in: [`make_or_mend`] and
//! [`Repo::mend_state`](crate::git::Repo::mend_state). Nothing is deleted that could hold somebody's work: a damaged
//! repository is put aside inside the private folder, and its commits that can still be read are carried over as rescue
//! references.

pub mod aside;
mod begin;
pub mod carry_over;
pub mod damage;
mod locks;
mod repair;
mod state;

use std::path::PathBuf;

pub(super) use self::locks::live_git;
pub use self::locks::{clear_leftovers, drop_half_written, stale_locks};
pub use self::repair::make_or_mend;
pub(super) use self::repair::{is_commit_id, replace_file};
use crate::fs::files;
use crate::state::dir::PrivateDir;

pub(super) const DAMAGED_REFS: &str = "damaged-refs";
pub(super) const DAMAGED_CONFIG: &str = "damaged-config";
pub(super) const DAMAGED_INDEX: &str = "damaged-index";
pub(super) const EMPTY_OBJECTS: &str = "empty-objects";
pub(super) const BROKEN: &str = "broken";
pub(super) const CARRIED: &str = "gitsync-carried";

/// The repositories that were put aside, oldest first.
pub(super) fn broken(private: &PrivateDir) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = files::entries_if_any(&private.file(BROKEN)).iter().map(files::Entry::path).collect();
    all.sort();
    all
}
