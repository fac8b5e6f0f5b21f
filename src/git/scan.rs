//! Finds tracked files that may differ from the index, by their stat data alone.
//!
//! libgit2 stats each file by its full path, on one thread. Here each folder is opened once and its files are looked up
//! by name, on two threads if there are many. A file that looks changed, or that changed when the index was being
//! written, is left to libgit2 to read and judge; libgit2 uses the same stat data.

use std::path::{Path, PathBuf};

use super::{Repo, path_of};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, last};
use crate::fs::walk::{Reached, Walk};

/// From this many files on, a second thread pays off.
const FOR_TWO_THREADS: usize = 10_000;

/// With more suspects than this, libgit2 checks everything: so long a list of paths would cost more.
const MOST_SUSPECTS: usize = 2_000;

const SUBMODULE: u32 = 0o160_000;

/// The tracked files that need a closer look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspects {
    /// All of them: there are too many suspects, or no stat data to compare with.
    All,
    /// These.
    Some(Vec<PathBuf>),
}

/// A time as the index stores it: seconds and nanoseconds.
type Time = (i64, i64);

impl Repo {
    /// Compares the stat data of all tracked files with the index.
    ///
    /// # Errors
    /// If a folder or file can't be read.
    pub(super) fn suspects(&self, index: &git2::Index, top: &Dir) -> Result<Suspects, Error> {
        // A dry run's index may exist in memory only.
        let Some(written) = index.path().and_then(|path| std::fs::symlink_metadata(path).ok()) else {
            return Ok(Suspects::All);
        };
        let written = {
            use std::os::unix::fs::MetadataExt;
            (written.mtime(), written.mtime_nsec())
        };
        let trusts_ctime = self.config()?.get_bool("core.trustctime").unwrap_or(true);
        let entries: Vec<git2::IndexEntry> = index.iter().collect();
        let find = |entries: &[git2::IndexEntry]| suspects_in(entries, top, written, trusts_ctime);
        let found = if entries.len() < FOR_TWO_THREADS {
            find(&entries)?
        } else {
            let (here, there) = entries.split_at(entries.len() / 2);
            std::thread::scope(|scope| {
                let other = scope.spawn(|| find(there));
                let mut found = find(here)?;
                let lost = |_| Error::retry("a thread that compares files died", "the next pass tries again");
                found.append(&mut other.join().map_err(lost)??);
                Ok::<_, Error>(found)
            })?
        };
        Ok(if found.len() > MOST_SUSPECTS { Suspects::All } else { Suspects::Some(found) })
    }
}

fn suspects_in(
    entries: &[git2::IndexEntry],
    top: &Dir,
    written: Time,
    trusts_ctime: bool,
) -> Result<Vec<PathBuf>, Error> {
    let doing = "comparing the work tree with the index";
    let mut walk = Walk::below(top).context(doing)?;
    let mut suspects = Vec::new();
    for entry in entries.iter().filter(|entry| entry.mode != SUBMODULE) {
        let path = path_of(&entry.path);
        let same = match walk.parent_of(&path).context(doing)? {
            Reached::There(folder) => is_unchanged(folder, &path, entry, written, trusts_ctime).context(doing)?,
            Reached::Missing(..) | Reached::Obstacle(_) => false,
        };
        if !same {
            suspects.push(path);
        }
        if suspects.len() > MOST_SUSPECTS {
            break;
        }
    }
    Ok(suspects)
}

// The index has 32 bits for each number, and git truncates them the same way.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
fn is_unchanged(
    folder: &Dir,
    path: &Path,
    entry: &git2::IndexEntry,
    written: Time,
    trusts_ctime: bool,
) -> std::io::Result<bool> {
    let Some(found) = folder.look(last(path))? else { return Ok(false) };
    let stat = found.stat;
    let kept = |time: &git2::IndexTime| (time.seconds(), time.nanoseconds());
    let mtime = (stat.st_mtime as i32, stat.st_mtime_nsec as u32);
    let ctime = (stat.st_ctime as i32, stat.st_ctime_nsec as u32);
    let mode = match entry.mode & 0o170_000 {
        0o100_000 => (stat.st_mode & 0o170_000) | if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 },
        _ => stat.st_mode & 0o170_000,
    };
    Ok(mode == entry.mode
        && stat.st_size as u32 == entry.file_size
        && mtime == kept(&entry.mtime)
        && (!trusts_ctime || ctime == kept(&entry.ctime))
        && stat.st_ino as u32 == entry.ino
        && stat.st_uid == entry.uid
        && stat.st_gid == entry.gid
        // A file that changed after the index was written may still have the old stat data.
        && (stat.st_mtime as i64, stat.st_mtime_nsec as i64) < written)
}
