//! Finds what changed outside `--path` while the job ran, for a tick that committed nothing although its job wrote
//! something.
//!
//! A file's change time says when it was written. So nothing needs to be recorded before the job, and a person's
//! earlier edits are not taken for the job's. In a small tree every file is checked. In a large one that would slow
//! down a tick with nothing to do, so only the folders that gained or lost a name are checked: their change time shows
//! it. A removed file shows only in its folder's change time; so a file that was already gone before the job is named
//! too if the job added or removed something in the same folder.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, statat};

use super::index::entries_below;
use super::pathspec::{Matcher, Pathspec};
use super::rules::tracked_folders;
use super::tree_edit::DEEPEST;
use super::{Repo, path_of};
use crate::clock::Stamp;
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, FileKind, Stat};
use crate::watchdog::step;

/// With more tracked files than this, only added and removed files are found. Also the most untracked files that are
/// checked.
const MOST_FILES: usize = 5_000;

/// The time in which a job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct During {
    /// A time before its first write.
    pub from: Stamp,
    /// A time after its last write.
    pub until: Stamp,
}

impl During {
    fn holds(self, found: &Stat) -> bool {
        let changed = Stamp::of_file(found.st_ctime, found.st_ctime_nsec);
        changed.is_since(self.from) && changed <= self.until
    }
}

/// A search for what the job may have changed.
struct Look<'r> {
    repo: &'r Repo,
    matcher: Matcher,
    /// A folder to skip: the site.
    aside: Option<&'r Path>,
    during: During,
    tracked: BTreeSet<PathBuf>,
    left: usize,
    suspects: BTreeSet<PathBuf>,
}

impl Repo {
    /// The files that `paths` do not match, that git does not ignore, and that were changed, added or removed in that
    /// time. The folder `aside` is skipped.
    ///
    /// # Errors
    /// If the index can't be read.
    pub fn changed_outside(
        &self,
        paths: &[Pathspec],
        aside: Option<&Path>,
        during: During,
    ) -> Result<BTreeSet<PathBuf>, Error> {
        let doing = "looking for what the job changed outside --path";
        step(doing);
        let index = self.index()?;
        let mut look = Look {
            repo: self,
            matcher: Matcher::new(paths)?,
            aside,
            during,
            tracked: tracked_folders(&index, Path::new("")),
            left: MOST_FILES,
            suspects: BTreeSet::new(),
        };
        look.at_tracked_folders(index.len() <= MOST_FILES, &index);
        if look.suspects.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).include_untracked(true).recurse_untracked_dirs(true);
        options.ignore_submodules(true).skip_binary_check(true).disable_pathspec_match(true);
        look.suspects.iter().for_each(|path| {
            options.pathspec(path);
        });
        let diff = self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).context(doing)?;
        let files = diff.deltas().filter_map(|delta| delta.new_file().path_bytes().map(path_of));
        Ok(files.filter(|path| !look.is_aside(path) && !look.matcher.matches(path)).collect())
    }
}

impl Look<'_> {
    fn is_aside(&self, path: &Path) -> bool {
        self.aside.is_some_and(|aside| path.starts_with(aside))
    }

    fn stat(&self, path: &Path) -> Option<Stat> {
        statat(CWD, self.repo.place.work_dir.join(path), AtFlags::SYMLINK_NOFOLLOW).ok().map(Stat::from)
    }

    fn at_tracked_folders(&mut self, thoroughly: bool, index: &git2::Index) {
        let folders: Vec<PathBuf> = self.tracked.iter().cloned().collect();
        for folder in folders {
            if self.is_aside(&folder) || self.matcher.takes_whole(&folder) {
                continue;
            }
            let Some(found) = self.stat(&folder) else {
                self.suspect_gone(folder);
                continue;
            };
            let has_changed = self.during.holds(&found);
            let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            let is_blocked = || self.repo.blocked_on_the_way(&folder.join("_")).is_some();
            if !is_folder || !(thoroughly || has_changed) || is_blocked() {
                continue;
            }
            let Some((handle, entries)) = self.open(&folder) else { continue };
            for (name, kind) in &entries {
                if *kind != FileType::Directory {
                    self.at_file(&handle, &folder, name);
                } else if !self.tracked.contains(&folder.join(name)) {
                    self.at_untracked_folder(&folder.join(name));
                }
            }
            if has_changed {
                let names: BTreeSet<&OsStr> = entries.iter().map(|(name, _)| name.as_os_str()).collect();
                let inside = entries_below(index, &folder).map(|entry| path_of(&entry.path));
                let is_there = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
                self.suspects.extend(inside.filter(|path| path.parent() == Some(&folder) && !is_there(path)));
            }
        }
    }

    fn open(&self, folder: &Path) -> Option<(Dir, Vec<(OsString, FileType)>)> {
        let handle = Dir::open(&self.repo.place.work_dir.join(folder)).ok()?;
        let entries = handle.list().ok()?;
        Some((handle, entries))
    }

    fn at_file(&mut self, handle: &Dir, folder: &Path, name: &OsStr) {
        let Ok(Some(found)) = handle.look(name) else { return };
        if !self.during.holds(&found.stat) || !matches!(found.kind, FileKind::File { .. } | FileKind::Link) {
            return;
        }
        let path = folder.join(name);
        if !self.matcher.matches(&path) {
            self.suspects.insert(path);
        }
    }

    fn at_untracked_folder(&mut self, folder: &Path) {
        let is_git = folder.file_name().is_some_and(|name| name.eq_ignore_ascii_case(".git"));
        if is_git || self.is_aside(folder) || folder.components().count() >= DEEPEST {
            return;
        }
        if self.repo.blocked_on_the_way(&folder.join("_")).is_some() || self.repo.is_ignored(folder, true) {
            return;
        }
        let Some((handle, entries)) = self.open(folder) else { return };
        // It is another repository.
        if entries.iter().any(|(name, _)| name == ".git") {
            return;
        }
        for (name, kind) in entries {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            if kind == FileType::Directory {
                self.at_untracked_folder(&folder.join(name));
            } else {
                self.at_file(&handle, folder, &name);
            }
        }
    }

    /// Records a tracked folder that is missing, if its parent changed while the job ran: the job may have removed it.
    fn suspect_gone(&mut self, folder: PathBuf) {
        let held = folder.ancestors().skip(1).find_map(|above| self.stat(above));
        if held.is_some_and(|above| self.during.holds(&above)) {
            self.suspects.insert(folder);
        }
    }
}
