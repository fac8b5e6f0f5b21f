//! Staged files put in place by one rename each, under a directory handle that follows no links.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::index::Placed;
use super::survey::{Changes, Survey, Want};
use super::{Repo, shown};
use crate::error::{Context, Error, Kind};
use crate::fs::dir::{Dir, FileKind, Found, Parent, last};
use crate::fs::files;
use crate::watchdog::step;

pub(super) const ASIDE: &str = "aside";

/// Up to so many files are synced one by one; for more, one sync of the file system is cheaper.
const SYNC_SINGLY: usize = 16;

impl Repo {
    /// Puts every path in place. Gives those that were changed.
    pub(super) fn place_all(
        &self,
        top: &Dir,
        staging: &Path,
        changes: &Changes,
        survey: &Survey,
        when: DateTime<Utc>,
    ) -> Result<Vec<Placed>, Error> {
        step("putting files in place");
        let staged = Dir::open(staging).context("opening the staging folder")?;
        let wanted: Vec<&PathBuf> = changes
            .iter()
            .filter(|(path, want)| **want != Want::Gone && !survey.in_place.contains(*path))
            .map(|(path, _)| path)
            .collect();
        let singly = wanted.len() <= SYNC_SINGLY;
        if !singly {
            staged.sync_all().context("waiting for the disk")?;
        }
        let mut placed = Vec::new();
        // What needs a folder out of its way waits until the folder's own tracked files are gone.
        let mut later = Vec::new();
        for path in wanted {
            if top
                .find(path)
                .context(format!("looking at {}", shown(path)))?
                .is_some_and(|f| f.kind == FileKind::Folder)
            {
                later.push(path);
            } else {
                placed.push((path.clone(), self.place(top, &staged, path, changes, survey, singly, when)?));
            }
        }
        for (path, _) in changes.iter().rev().filter(|(_, want)| **want == Want::Gone) {
            if self.remove(top, path, survey, singly)? {
                placed.push((path.clone(), None));
            }
        }
        for path in later {
            placed.push((path.clone(), self.place(top, &staged, path, changes, survey, singly, when)?));
        }
        if !singly {
            top.sync_all().context("waiting for the disk")?;
        }
        Ok(placed)
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn place(
        &self,
        top: &Dir,
        staged: &Dir,
        path: &Path,
        changes: &Changes,
        survey: &Survey,
        sync: bool,
        when: DateTime<Utc>,
    ) -> Result<Option<Found>, Error> {
        let doing = || format!("putting {} in place", shown(path));
        if let Parent::Obstacle(depth) = top.parent_of(path).context(doing())? {
            let obstacle: PathBuf = path.components().take(depth).collect();
            if let Parent::There(parent) = top.parent_of(&obstacle).context(doing())? {
                self.give_way(&parent, &obstacle, survey, when)?;
            }
        }
        let parent = top.make_parent_of(path, sync).context(doing())?;
        let name = last(path);
        let there = parent.look(name).context(doing())?;
        if changes.get(path) == Some(&Want::Submodule) {
            if there.is_some_and(|found| found.kind != FileKind::Folder) {
                self.give_way(&parent, path, survey, when)?;
            }
            return parent.make_folder(name).map(|()| None).context(doing());
        }
        let Parent::There(from) = staged.parent_of(path).context(doing())? else {
            return Err(missing_in_staging(path));
        };
        let Some(new) = from.look(name).context(doing())? else { return Err(missing_in_staging(path)) };
        if sync && matches!(new.kind, FileKind::File { .. }) {
            from.open_file(name).and_then(|file| file.sync_all()).context(doing())?;
        }
        match there {
            None => {}
            Some(found) if found.kind == FileKind::Folder => self.give_way(&parent, path, survey, when)?,
            // A rename takes the place of a file in one step; what is no file has to go first.
            Some(found) if found.kind == FileKind::Special => self.give_way(&parent, path, survey, when)?,
            Some(found) => check_unchanged(path, &found, survey)?,
        }
        match from.rename(name, &parent, name) {
            Ok(()) => {}
            Err(Errno::XDEV) => copy_over(&from, &parent, name, new).context(doing())?,
            Err(error) => return Err(Error::io(doing(), &error.into())),
        }
        if sync {
            parent.sync().context(doing())?;
        }
        Ok(Some(new))
    }

    /// Takes out of the way what was looked at, and kept where it had to be.
    fn give_way(&self, parent: &Dir, path: &Path, survey: &Survey, when: DateTime<Utc>) -> Result<(), Error> {
        let doing = || format!("taking {} out of the way", shown(path));
        let name = last(path);
        let Some(found) = parent.look(name).context(doing())? else { return Ok(()) };
        let special = survey.special.contains(path);
        if found.kind != FileKind::Folder && !special {
            check_unchanged(path, &found, survey)?;
            return parent.unlink(name).context(doing());
        }
        if found.kind == FileKind::Folder && parent.remove_empty(name).context(doing())? {
            return Ok(());
        }
        let aside = self.private.file(ASIDE);
        self.private.folder(ASIDE).context(doing())?;
        let aside_dir = Dir::open(&aside).context(doing())?;
        let mut kept_as = PathBuf::new();
        for number in 0..1000 {
            kept_as = PathBuf::from(format!("{}-{number}", when.format("%Y%m%dT%H%M%SZ")));
            if aside_dir.look(&kept_as).context(doing())?.is_none() {
                break;
            }
        }
        parent.rename(name, &aside_dir, &kept_as).context(doing())?;
        let kept = aside.join(&kept_as);
        let changed = || -> io::Result<bool> { holds_more(&aside_dir, &kept_as, path, survey) };
        if special {
            tracing::warn!(path = %shown(path), kept = %kept.display(),
                "moved aside: the remote has a file here, and no commit can hold what was in its place");
        } else if changed().context(doing())? {
            tracing::warn!(path = %shown(path), kept = %kept.display(),
                "moved aside: it was changed in the middle of the pass");
        } else {
            files::remove_folder(&kept).context(doing())?;
        }
        Ok(())
    }

    /// Removes a tracked path that the target does not have. Whether it was there.
    pub(super) fn remove(&self, top: &Dir, path: &Path, survey: &Survey, sync: bool) -> Result<bool, Error> {
        let doing = || format!("removing {}", shown(path));
        let Parent::There(parent) = top.parent_of(path).context(doing())? else { return Ok(false) };
        let removed = match parent.look(last(path)).context(doing())? {
            None => false,
            // A submodule's folder goes if nothing is in it; anything else in git's place is not git's.
            Some(found) if found.kind == FileKind::Folder => parent.remove_empty(last(path)).context(doing())?,
            Some(found) if found.kind == FileKind::Special => false,
            Some(found) => {
                check_unchanged(path, &found, survey)?;
                parent.unlink(last(path)).context(doing())?;
                if sync {
                    parent.sync().context(doing())?;
                }
                true
            }
        };
        // Folders that held nothing else go with it, as git has it.
        let mut folder = path.parent();
        while let Some(at) = folder.filter(|at| !at.as_os_str().is_empty()) {
            match top.parent_of(at).context(doing())? {
                Parent::There(outer) if outer.remove_empty(last(at)).context(doing())? => {
                    if sync {
                        outer.sync().context(doing())?;
                    }
                    folder = at.parent();
                }
                _ => break,
            }
        }
        Ok(removed)
    }
}

/// Whether a folder that was moved aside holds anything that was not looked at as it now is.
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
        if !now.zip(survey.seen.get(&was)).is_some_and(|(now, seen)| seen.is_same(&now)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was looked at must be what is replaced: an edit in between is not ours to drop.
fn check_unchanged(path: &Path, now: &Found, survey: &Survey) -> Result<(), Error> {
    if survey.seen.get(path).is_some_and(|seen| seen.is_same(now)) {
        return Ok(());
    }
    let what = format!("{} was changed in the middle of the pass", shown(path));
    Err(Error::new(Kind::Busy, what, "the next pass keeps the new version and goes on"))
}

fn missing_in_staging(path: &Path) -> Error {
    let what = format!("{} was not checked out into the staging folder", shown(path));
    Error::new(Kind::Corrupt, what, "run `gitsync init-sync`: it fetches anew what is damaged")
}

/// Puts a file in place across file systems (a volume mounted inside the work tree): a copy beside it, then one rename.
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

/// A short number from a long name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
