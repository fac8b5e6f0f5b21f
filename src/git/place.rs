//! Puts staged files in place by one rename each, relative to a directory handle that follows no links.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::index::Placed;
use super::stage::Staged;
use super::survey::Survey;
use super::tree_walk::{Changes, Want};
use super::{Repo, about, shown};
use crate::error::{Context, Error, Kind};
use crate::fs::dir::{Dir, FileKind, Found, Parent, last};
use crate::fs::files;
use crate::fs::walk::{Reached, Walk, first, is_below};
use crate::watchdog::step;

pub(super) const ASIDE: &str = "aside";

/// Up to this many files are synced one by one; for more, one sync of the file system is cheaper.
const SYNC_SINGLY: usize = 16;

/// How a follow puts files in place.
struct Placing<'a, 's> {
    staged: &'s Staged,
    survey: &'a Survey,
    /// Whether each file and folder is synced separately.
    singly: bool,
    when: DateTime<Utc>,
}

impl Repo {
    /// Puts every path in place. Returns the changed paths.
    pub(super) fn place_all<'s>(
        &self,
        top: &Dir,
        staged: &'s Staged,
        changes: &'s Changes,
        survey: &Survey,
        when: DateTime<Utc>,
    ) -> Result<Vec<Placed<'s>>, Error> {
        step("putting files in place");
        let is_wanted = |(path, want): &(&OsString, &Want)| **want != Want::Gone && !survey.in_place.contains(*path);
        let wanted: Vec<(&'s Path, Want)> =
            changes.iter().filter(is_wanted).map(|(path, want)| (Path::new(path), *want)).collect();
        let singly = wanted.len() <= SYNC_SINGLY;
        if !singly {
            staged.dir.sync_all().context("waiting for the disk")?;
        }
        let how = Placing { staged, survey, singly, when };
        let mut here = Walk::below(top).context("opening the work tree")?;
        let mut from = Walk::below(&staged.dir).context("opening the staging folder")?;
        let may_move_folders = !singly && !gives_new_folders_more(top);
        let mut placed = Vec::new();
        // A path that a folder is in the way of waits until the tracked files in that folder are removed.
        let mut later = Vec::new();
        let mut moved: Option<PathBuf> = None;
        let moved_with_its_folder =
            |path: &'s Path| Placed { path, new: staged.found.get(path.as_os_str()), moved_within: true };
        for (path, want) in wanted {
            let is_blob = matches!(want, Want::Blob(_));
            if is_blob && moved.as_ref().is_some_and(|folder| is_below(path, folder)) {
                placed.push(moved_with_its_folder(path));
                continue;
            }
            let doing = about("putting {} in place", path);
            let is_folder = match here.parent_of(path).context(doing)? {
                Reached::There(parent) => {
                    parent.look(last(path)).context(doing)?.is_some_and(|found| found.kind == FileKind::Folder)
                }
                Reached::Missing(depth, outer) if is_blob && may_move_folders => {
                    let folder = first(path, depth);
                    if move_folder(&mut from, &folder, outer).context(doing)? {
                        moved = Some(folder);
                        placed.push(moved_with_its_folder(path));
                        continue;
                    }
                    false
                }
                Reached::Missing(..) | Reached::Obstacle(_) => false,
            };
            if is_folder {
                later.push((path, want));
            } else {
                placed.push(self.place(top, &mut here, &mut from, (path, want), &how)?);
            }
        }
        for (path, _) in changes.iter().rev().filter(|(_, want)| **want == Want::Gone) {
            if self.remove(top, Path::new(path), survey, singly)? {
                placed.push(Placed { path: Path::new(path), new: None, moved_within: false });
            }
        }
        here.forget();
        for wanted in later {
            placed.push(self.place(top, &mut here, &mut from, wanted, &how)?);
        }
        if !singly {
            top.sync_all().context("waiting for the disk")?;
        }
        Ok(placed)
    }

    fn place<'s>(
        &self,
        top: &Dir,
        here: &mut Walk,
        from: &mut Walk,
        (path, want): (&'s Path, Want),
        how: &Placing<'_, 's>,
    ) -> Result<Placed<'s>, Error> {
        let Placing { staged, survey, singly, when } = *how;
        let doing = about("putting {} in place", path);
        if let Reached::Obstacle(depth) = here.parent_of(path).context(doing)? {
            let obstacle = first(path, depth);
            if let Parent::There(parent) = top.parent_of(&obstacle).context(doing)? {
                self.remove_obstacle(&parent, &obstacle, survey, when)?;
            }
            here.forget();
        }
        let parent = here.make_parent_of(path, singly).context(doing)?;
        let name = last(path);
        let there = parent.look(name).context(doing)?;
        let done = |new| Placed { path, new, moved_within: false };
        if want == Want::Submodule {
            if there.is_some_and(|found| found.kind != FileKind::Folder) {
                self.remove_obstacle(parent, path, survey, when)?;
            }
            return parent.make_folder(name).map(|()| done(None)).context(doing);
        }
        let Reached::There(from) = from.parent_of(path).context(doing)? else {
            return Err(missing_in_staging(path));
        };
        let Some(new) = from.look(name).context(doing)? else { return Err(missing_in_staging(path)) };
        if singly && matches!(new.kind, FileKind::File { .. }) {
            from.open_file(name).and_then(|file| file.sync_all()).context(doing)?;
        }
        match there {
            None => {}
            Some(found) if found.kind == FileKind::Folder => self.remove_obstacle(parent, path, survey, when)?,
            // A rename replaces a file in one step; anything else must be removed first.
            Some(found) if found.kind == FileKind::Special => self.remove_obstacle(parent, path, survey, when)?,
            Some(found) => check_unchanged(path, &found, survey)?,
        }
        match from.rename(name, parent, name) {
            Ok(()) => {}
            Err(Errno::XDEV) => copy_over(from, parent, name, new).context(doing)?,
            Err(error) => return Err(Error::io(doing, &error.into())),
        }
        if singly {
            parent.sync().context(doing)?;
        }
        Ok(done(staged.found.get(path.as_os_str())))
    }

    /// Removes what is in the way; it was surveyed, and rescued if necessary. A folder is moved aside first, and kept if
    /// it has changed or can't be committed.
    fn remove_obstacle(&self, parent: &Dir, path: &Path, survey: &Survey, when: DateTime<Utc>) -> Result<(), Error> {
        let doing = about("moving {} out of the way", path);
        let name = last(path);
        let Some(found) = parent.look(name).context(doing)? else { return Ok(()) };
        let special = survey.special.contains(path);
        if found.kind != FileKind::Folder && !special {
            check_unchanged(path, &found, survey)?;
            return parent.unlink(name).context(doing);
        }
        if found.kind == FileKind::Folder && parent.remove_empty(name).context(doing)? {
            return Ok(());
        }
        let aside = self.private.file(ASIDE);
        self.private.folder(ASIDE).context(doing)?;
        let aside_dir = Dir::open(&aside).context(doing)?;
        let mut kept_as = PathBuf::new();
        for number in 0..1000 {
            kept_as = PathBuf::from(format!("{}-{number}", when.format("%Y%m%dT%H%M%SZ")));
            if aside_dir.look(&kept_as).context(doing)?.is_none() {
                break;
            }
        }
        parent.rename(name, &aside_dir, &kept_as).context(doing)?;
        let kept = aside.join(&kept_as);
        let changed = || -> io::Result<bool> { holds_more(&aside_dir, &kept_as, path, survey) };
        if special {
            tracing::warn!(path = %shown(path), kept = %kept.display(),
                "moved aside: the remote has a file here, and what was here can't be committed");
        } else if changed().context(doing)? {
            tracing::warn!(path = %shown(path), kept = %kept.display(),
                "moved aside: it was changed in the middle of the pass");
        } else {
            files::remove_folder(&kept).context(doing)?;
        }
        Ok(())
    }

    /// Removes a tracked path that the target does not have. Returns whether it was there.
    pub(super) fn remove(&self, top: &Dir, path: &Path, survey: &Survey, sync: bool) -> Result<bool, Error> {
        let doing = about("removing {}", path);
        let Parent::There(parent) = top.parent_of(path).context(doing)? else { return Ok(false) };
        let removed = match parent.look(last(path)).context(doing)? {
            None => false,
            // A submodule's folder is removed if it is empty. Any other folder or special file here is not git's.
            Some(found) if found.kind == FileKind::Folder => parent.remove_empty(last(path)).context(doing)?,
            Some(found) if found.kind == FileKind::Special => false,
            Some(found) => {
                check_unchanged(path, &found, survey)?;
                parent.unlink(last(path)).context(doing)?;
                if sync {
                    parent.sync().context(doing)?;
                }
                true
            }
        };
        // Like git, also remove the folders that are empty now.
        let mut folder = path.parent();
        while let Some(at) = folder.filter(|at| !at.as_os_str().is_empty()) {
            match top.parent_of(at).context(doing)? {
                Parent::There(outer) if outer.remove_empty(last(at)).context(doing)? => {
                    if sync {
                        outer.sync().context(doing)?;
                    }
                    folder = at.parent();
                }
                _ => break,
            }
        }
        Ok(removed)
    }
}

/// Moves a staged folder that the work tree lacks into place as a whole. Returns whether that was possible.
fn move_folder(from: &mut Walk, folder: &Path, outer: &Dir) -> io::Result<bool> {
    let Reached::There(staged) = from.parent_of(folder)? else { return Ok(false) };
    let moved = match staged.rename(last(folder), outer, last(folder)) {
        Ok(()) => true,
        // Another file system, or somebody has made the folder meanwhile: move it file by file.
        Err(Errno::XDEV | Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => false,
        Err(error) => return Err(error.into()),
    };
    from.forget();
    Ok(moved)
}

/// Returns whether new folders in the work tree inherit what moved ones do not: a group or an access list.
fn gives_new_folders_more(top: &Dir) -> bool {
    let sets_group = rustix::fs::fstat(top).is_ok_and(|stat| stat.st_mode & 0o2000 != 0);
    let mut none = [0_u8; 0];
    sets_group || rustix::fs::fgetxattr(top, c"system.posix_acl_default", &mut none[..]).is_ok()
}

/// Returns whether a folder that was moved aside holds anything that differs from the survey.
fn holds_more(outer: &Dir, name: &Path, was: &Path, survey: &Survey) -> io::Result<bool> {
    let folder = outer.folder(name)?;
    for (name, kind) in folder.list()? {
        let (name, was) = (PathBuf::from(&name), was.join(&name));
        if kind == FileType::Directory {
            if holds_more(&folder, &name, &was, survey)? {
                return Ok(true);
            }
            continue;
        }
        let now = folder.look(&name)?;
        if !now.zip(survey.seen.get(was.as_os_str())).is_some_and(|(now, seen)| seen.is_same(&now)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses to replace a file that has changed since the survey: nobody has kept that edit.
fn check_unchanged(path: &Path, now: &Found, survey: &Survey) -> Result<(), Error> {
    if survey.seen.get(path.as_os_str()).is_some_and(|seen| seen.is_same(now)) {
        return Ok(());
    }
    let what = format!("{} was changed in the middle of the pass", shown(path));
    Err(Error::new(Kind::Busy, what, "the next pass keeps the new version and goes on"))
}

fn missing_in_staging(path: &Path) -> Error {
    let what = format!("{} was not checked out into the staging folder", shown(path));
    Error::new(Kind::Corrupt, what, "run `gitsync init-sync`: it fetches what is damaged again")
}

/// Puts a file in place across file systems (a volume mounted inside the work tree): copies it beside the target, then
/// renames it.
fn copy_over(from: &Dir, to: &Dir, name: &Path, new: Found) -> io::Result<()> {
    let beside = PathBuf::from(format!(".gitsync-{:x}", fnv1a(name.as_os_str().as_bytes())));
    to.unlink(&beside)?;
    match new.kind {
        FileKind::Link => to.create_link(&beside, &from.read(name, new.kind)?)?,
        _ => {
            let mut file = to.create_file(&beside, 0o600)?;
            io::copy(&mut from.open_file(name)?, &mut file)?;
            file.flush()?;
            file.set_permissions(std::fs::Permissions::from_mode(new.stat.st_mode & 0o777))?;
            file.sync_all()?;
        }
    }
    to.rename(&beside, to, name)?;
    Ok(())
}

/// A short hash of a long name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
