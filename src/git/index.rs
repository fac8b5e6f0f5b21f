//! Writes the index so that it is on disk before anything relies on it, and changes it as git would.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::index_flags::Flagged;
use super::{CommitId, Repo, path_of, raw};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, Found, last};
use crate::fs::files;
use crate::fs::walk::{Reached, Walk};
use crate::state::dir::{remove_if_there, sync_dir};
use crate::watchdog::step;

pub(super) const INDEX_BEFORE: &str = "index-before";

/// A path that a follow changed.
pub(super) struct Placed<'s> {
    pub(super) path: &'s Path,
    /// The staged file that took its place, if there is one.
    pub(super) new: Option<&'s Found>,
    /// Whether it was moved together with its folder, so that its stat data is still the one in `new`.
    pub(super) moved_within: bool,
}

impl Repo {
    /// Makes the index equal to the target's tree, with the stat data of the files just placed, so that the next
    /// comparison need not read them.
    pub(super) fn write_index(&self, target: CommitId, top: &Dir, placed: &[Placed<'_>]) -> Result<(), Error> {
        let doing = "writing the index";
        step(doing);
        let tree = self.tree_of(target)?;
        let mut index = self.index()?;
        let flagged = Flagged::of(&index);
        index.read_tree(&tree).context(doing)?;
        write_modes_as_git(&mut index).context(doing)?;
        // The target was found whole before.
        crate::ffi::trusting_objects(|| set_placed(&mut index, top, placed))?;
        flagged.give_back(self, &mut index)?;
        self.index_to_disk(&mut index)
    }

    /// Writes an index, and waits until it is on disk.
    ///
    /// libgit2 renames the new index into place before its bytes are on disk. Until they are, a copy of the previous
    /// one is kept.
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn index_to_disk(&self, index: &mut git2::Index) -> Result<(), Error> {
        let doing = "writing the index";
        let Some(path) = index.path().map(Path::to_owned) else { return Ok(()) };
        let before = self.private.file(INDEX_BEFORE);
        remove_if_there(&before).context(doing)?;
        match std::fs::hard_link(&path, &before) {
            Ok(()) => sync_dir(self.private.path()).context(doing)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Not every file system has hard links.
            Err(_) => {
                files::read(&path).and_then(|bytes| self.private.write_durably(INDEX_BEFORE, &bytes)).context(doing)?
            }
        }
        index.write().context(doing)?;
        std::fs::File::open(&path).and_then(|file| file.sync_all()).context(doing)?;
        path.parent().map_or(Ok(()), sync_dir).context(doing)?;
        remove_if_there(&before).map(drop).context(doing)
    }
}

/// Gives entries the stat data of the files just placed.
fn set_placed(index: &mut git2::Index, top: &Dir, placed: &[Placed<'_>]) -> Result<(), Error> {
    let doing = "writing the index";
    let mut walk = Walk::below(top).context(doing)?;
    for Placed { path, new, moved_within } in placed {
        let (Some(mut entry), Some(new)) = (index.get_path(path, 0), new) else { continue };
        let found = if *moved_within {
            Some(**new)
        } else {
            match walk.parent_of(path).context(doing)? {
                Reached::There(parent) => parent.look(last(path)).context(doing)?,
                Reached::Missing(..) | Reached::Obstacle(_) => None,
            }
        };
        let Some(found) = found else { continue };
        // A file edited since it was placed gets stat data that matches nothing, so that the edit is noticed.
        if found.is_placed_from(new) {
            set_numbers(&mut entry, &found);
            index.add(&entry).context(doing)?;
        }
    }
    Ok(())
}

/// Changes outdated file modes, as an old tree may have them, to the mode that git has in its index. libgit2 took their
/// stat data for another file's, so it is copied from the index on disk.
fn write_modes_as_git(index: &mut git2::Index) -> Result<(), git2::Error> {
    let odd: Vec<git2::IndexEntry> = index.iter().filter(|entry| raw::canonical(entry.mode) != entry.mode).collect();
    if odd.is_empty() {
        return Ok(());
    }
    let before = index.path().and_then(|path| git2::Index::open(path).ok());
    for mut entry in odd {
        entry.mode = raw::canonical(entry.mode);
        let known = before.as_ref().and_then(|before| before.get_path(&path_of(&entry.path), 0));
        let same = known.filter(|known| known.id == entry.id && known.mode == entry.mode);
        index.add(&same.unwrap_or(entry))?;
    }
    Ok(())
}

/// Returns whether git allows the path in a tree: no component is `.git` or equals it on some file system.
pub(crate) fn git_allows(path: &Path) -> bool {
    let blob = git2::Oid::hash_object(git2::ObjectType::Blob, b"").ok();
    blob.zip(git2::Index::new().ok()).is_some_and(|(id, mut index)| index.add(&entry(path, id, 0o100_644)).is_ok())
}

/// Removes index entries that conflict with a file at this path: those below it, and a file at one of its parent
/// folders.
///
/// libgit2 should do that when it adds an entry, but may fail to, depending on the other entries. The file is then
/// missing from the tree that is written.
pub(crate) fn make_way(index: &mut git2::Index, path: &Path) -> Result<(), git2::Error> {
    let gone = |removed: Result<(), git2::Error>| match removed {
        Err(error) if error.code() != git2::ErrorCode::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(index.remove_dir(path, 0))?;
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        gone(index.remove(above, 0))?;
    }
    Ok(())
}

/// Removes an entry, if it is there.
pub(super) fn remove(index: &mut git2::Index, path: &Path) -> Result<(), git2::Error> {
    match index.remove(path, 0) {
        Err(error) if error.code() != git2::ErrorCode::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An index entry with content and mode, without stat data.
pub(crate) fn entry(path: &Path, id: git2::Oid, mode: u32) -> git2::IndexEntry {
    git2::IndexEntry {
        ctime: git2::IndexTime::new(0, 0),
        mtime: git2::IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

// The index has 32 bits for each of these, and git truncates them the same way.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
pub(super) fn set_numbers(entry: &mut git2::IndexEntry, found: &Found) {
    let stat = &found.stat;
    entry.ctime = git2::IndexTime::new(stat.st_ctime as i32, stat.st_ctime_nsec as u32);
    entry.mtime = git2::IndexTime::new(stat.st_mtime as i32, stat.st_mtime_nsec as u32);
    entry.dev = stat.st_dev as u32;
    entry.ino = stat.st_ino as u32;
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.file_size = stat.st_size as u32;
}

/// Returns whether git sees no change where libgit2 reports one between a tree and the index: the tree has an outdated
/// mode that git normalizes.
pub(super) fn is_one_to_git(delta: &git2::DiffDelta<'_>, tree: Option<&git2::Tree<'_>>, index: &git2::Index) -> bool {
    let (old, new) = (delta.old_file(), delta.new_file());
    if delta.status() != git2::Delta::Modified || old.id() != new.id() || old.id().is_zero() {
        return false;
    }
    let Some(path) = new.path_bytes().map(path_of) else { return false };
    let in_tree = tree.and_then(|tree| tree.get_path(&path).ok());
    in_tree.zip(index.get_path(&path, 0)).is_some_and(|(tree, index)| {
        let mode = raw::canonical(tree.filemode_raw().unsigned_abs());
        tree.id() == index.id && index.id == old.id() && mode == raw::canonical(index.mode)
    })
}

/// Returns whether the index has a submodule at a path.
pub(super) fn is_submodule_in(index: &git2::Index, path: &Path) -> bool {
    index.get_path(path, 0).is_some_and(|entry| raw::canonical(entry.mode) == 0o160_000)
}

/// The index entries below a folder; all of them for the top folder.
pub(super) fn entries_below(index: &git2::Index, folder: &Path) -> impl Iterator<Item = git2::IndexEntry> {
    let inside = if folder.as_os_str().is_empty() { PathBuf::new() } else { folder.join("") };
    let inside = inside.into_os_string().into_vec();
    let first = if inside.is_empty() { Some(0) } else { index.find_prefix(inside.as_slice()).ok() };
    let entries = (first.unwrap_or(index.len())..index.len()).map_while(|at| index.get(at));
    // In an index sorted without regard to case, entries of other folders come in between.
    let length = inside.len();
    let among = move |entry: &git2::IndexEntry| entry.path.get(..length).map(<[u8]>::to_ascii_lowercase);
    let lower = inside.to_ascii_lowercase();
    entries
        .take_while(move |entry| among(entry).as_ref() == Some(&lower))
        .filter(move |entry| entry.path.starts_with(&inside))
}
