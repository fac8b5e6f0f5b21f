//! Clears what a killed pass or a killed git left behind: lock files without an owner, unfinished files, an index that
//! did not reach the disk. This is safe in every pass.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::damage::{begins_as_index, index_is_damaged};
use crate::error::{Context, Error, Kind};
use crate::fs::files;
use crate::git::Place;
use crate::state::dir::{PrivateDir, remove_if_there, sync_dir};
use crate::state::lock::Held;

/// A git lock file this old without a live owner is stale, even if no pass of ours is known to have died.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Clears what a killed pass or a killed git left behind: lock files without an owner, and leftovers of fetches.
///
/// A stale `index.lock` makes libgit2 rewrite every file and then fail, and a stale lock of a reference makes a fetch
/// fail with a generic error. So this searches for the files instead of waiting for the errors. `start_up` says that
/// this is `init-sync`, before anything else runs.
///
/// # Errors
/// [`Kind::Busy`] if a live git process holds a lock; otherwise if the file system fails.
pub fn clear_leftovers(place: &Place, held: &Held, branch: &str, remote: &str, start_up: bool) -> Result<(), Error> {
    let git_dir = &place.git_dir;
    for (lock, age) in stale_locks(place, held, branch, remote, start_up)? {
        remove_if_there(&lock).context(format!("removing the stale lock {}", lock.display()))?;
        tracing::warn!(lock = %lock.display(), age_s = age.as_secs(), "removed a stale lock file");
    }
    // A pass that ends without being killed may also have failed to remove it.
    crate::git::incoming::clear(place)?;
    if start_up || held.one_died_before_us() {
        clear_half_written(&git_dir.join("objects"))?;
        clear_half_written(&git_dir.join("objects/pack"))?;
        PrivateDir::of(git_dir).clear_unfinished().context("clearing what a killed pass was writing")?;
    }
    restore_index(place)
}

/// The lock files that [`clear_leftovers`] would remove, with their age. Writes nothing.
///
/// # Errors
/// [`Kind::Busy`] if a git process may be working there.
pub fn stale_locks(
    place: &Place,
    held: &Held,
    branch: &str,
    remote: &str,
    start_up: bool,
) -> Result<Vec<(PathBuf, Duration)>, Error> {
    let git_dir = &place.git_dir;
    let ours_died = held.one_died_before_us();
    let mut locks: Vec<PathBuf> = ["index", "HEAD", "config", "packed-refs", "shallow"]
        .iter()
        .map(|name| git_dir.join(format!("{name}.lock")))
        .collect();
    locks.push(git_dir.join(format!("refs/heads/{branch}.lock")));
    locks.push(git_dir.join(format!("refs/remotes/{remote}/{branch}.lock")));
    // The lock of a rescue is in nobody's way until the rescue is due to be removed.
    let refs = if start_up || ours_died { "refs" } else { "refs/gitsync" };
    collect_locks(&git_dir.join(refs), &mut locks);
    let mut stale = Vec::new();
    for lock in locks {
        let Ok(meta) = lock.symlink_metadata() else { continue };
        let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default();
        if let Some(pid) = live_git(place, &lock) {
            let what = format!("{} is held by a git process (pid {pid})", lock.display());
            return Err(Error::new(Kind::Busy, what, "the next pass tries again"));
        }
        if start_up || ours_died || age >= STALE_AFTER {
            stale.push((lock, age));
        } else {
            let what = format!("{} is there: another git process may be at work", lock.display());
            return Err(Error::new(Kind::Busy, what, "the next pass tries again, and clears it once it is old"));
        }
    }
    Ok(stale)
}

/// Restores the previous index if a power loss destroyed the bytes of the last one. An index made again from HEAD would
/// make what a job has just written look like an edit to be replaced.
fn restore_index(place: &Place) -> Result<(), Error> {
    let doing = "restoring the index";
    let before = PrivateDir::of(&place.git_dir).file(crate::git::index::INDEX_BEFORE);
    let Ok(meta) = before.symlink_metadata() else {
        // A power loss left an empty file: remove it. On a branch without a commit a missing index is fine.
        let index = place.git_dir.join("index");
        let is_empty = index.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        return if is_empty { remove_if_there(&index).map(drop).context(doing) } else { Ok(()) };
    };
    if meta.is_dir() {
        // Not ours. It would prevent a file from being put here.
        return files::remove_folder(&before).context(doing);
    }
    let index = place.git_dir.join("index");
    let is_whole = |path: &Path| begins_as_index(path) && git2::Index::open(path).is_ok();
    if !meta.is_file() || !index_is_damaged(&place.git_dir)? || !is_whole(&before) {
        return remove_if_there(&before).map(drop).context(doing);
    }
    tracing::warn!("the index was damaged while it was written; the previous one is restored");
    fs::rename(&before, &index).context(doing)?;
    sync_dir(&place.git_dir).context(doing)
}

fn collect_locks(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in files::entries_if_any(folder) {
        let path = entry.path();
        if entry.is_folder() {
            collect_locks(&path, into);
        } else if path.extension() == Some(OsStr::new("lock")) && !into.contains(&path) {
            into.push(path);
        }
    }
}

/// Removes what a failed pass was writing, as far as possible: a pass that fails each time must not fill the disk.
pub fn drop_half_written(place: &Place, _held: &Held) {
    for folder in ["objects", "objects/pack"] {
        if let Err(error) = clear_half_written(&place.git_dir.join(folder)) {
            tracing::debug!("{}", error.what);
        }
    }
}

/// Removes packs and objects that libgit2 was writing when it was killed; no gc removes these.
fn clear_half_written(folder: &Path) -> Result<(), Error> {
    for entry in files::entries_if_any(folder) {
        if is_half_written(entry.name()) {
            remove_if_there(&entry.path()).context(format!("removing {}", entry.path().display()))?;
            tracing::info!(file = %entry.path().display(), "removed what an interrupted fetch left");
        }
    }
    Ok(())
}

/// Returns whether a name is one of libgit2's temporary names: `pack_git2_…`, `tmp_object_git2_…`.
pub(super) fn is_half_written(name: &OsStr) -> bool {
    name.to_string_lossy().contains("_git2_")
}

/// The pid of a git process that works in this repository, or of any process that has the lock file open.
///
/// This reads /proc. If that is missing, or the process is in another container, no process is seen and age decides.
pub(in crate::git) fn live_git(place: &Place, lock: &Path) -> Option<u32> {
    let us = std::process::id();
    for entry in files::entries(Path::new("/proc")).ok()? {
        let Some(pid) = entry.name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == us {
            continue;
        }
        let process = entry.path();
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let is_git = comm.trim() == "git" || comm.starts_with("git-");
        if is_git && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&place.work_dir)) {
            return Some(pid);
        }
        for fd in files::entries_if_any(&process.join("fd")) {
            if fs::read_link(fd.path()).is_ok_and(|open| open == lock) {
                return Some(pid);
            }
        }
    }
    None
}
