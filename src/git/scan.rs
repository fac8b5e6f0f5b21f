//! Which tracked files may differ from the index, by their numbers alone.
//!
//! libgit2 asks for each file by its whole path, on one thread. Here a folder is opened once and its files are asked for by name, on
//! both cores where there are many. What looks changed, or was changed at the time when the index was written, is left to libgit2 to
//! read and judge; it goes by the same numbers.

use std::path::{Path, PathBuf};

use super::{Repo, path_of};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, last};
use crate::fs::walk::{Reached, Walk};

/// From so many files on, a second thread pays.
const FOR_TWO_THREADS: usize = 10_000;

/// With more suspects than this libgit2 looks at everything: a list so long would cost more.
const MOST_SUSPECTS: usize = 2_000;

const SUBMODULE: u32 = 0o160_000;

/// Those among the tracked files that have to be looked at closely.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspects {
    /// So many, or there are no numbers to go by.
    All,
    /// These.
    Some(Vec<PathBuf>),
}

/// A time as the index has it: seconds and nanoseconds.
type Time = (i64, i64);

impl Repo {
    /// Compares the numbers of all tracked files with those in the index.
    ///
    /// # Errors
    /// Where a folder or file can't be looked at.
    pub(super) fn suspects(&self, index: &git2::Index, top: &Dir) -> Result<Suspects, Error> {
        // A dry run's index may be in memory alone.
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
                let lost = |_| Error::retry("a thread that looks at files was lost", "the next pass tries again");
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

// The index has 32 bits for each number, and git cuts them the same way.
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
        // A file that was changed after the index was written may have the numbers of before.
        && (stat.st_mtime as i64, stat.st_mtime_nsec as i64) < written)
}
