//! Finds what a checkout has to change, and what of that is in no commit, before anything is touched.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::index::{git_allows, is_one_to_git};
use super::index_flags::Flagged;
use super::scan::Suspects;
use super::stage::{STAGING_OLD, Staged};
use super::tree_walk::{ByPath, Changes, TreeEntry, TreeWalk, Want, want_of};
use super::{CommitId, Repo, about, path_of, raw, shown};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, FileKind, Found, Parent, last};
use crate::fs::walk::{Reached, Walk, first, is_below};
use crate::watchdog::step;

/// The present content of the paths that are about to be replaced or removed.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Files and links whose content is in no tree that stays reachable.
    pub(super) unsaved: BTreeMap<PathBuf, Found>,
    /// Everything found, so that a later change is noticed.
    pub(super) seen: ByPath<Found>,
    /// Paths that already have what they must have.
    pub(super) in_place: BTreeSet<OsString>,
    /// Folders with something that can't be committed: to be kept aside, not removed.
    pub(super) special: BTreeSet<PathBuf>,
}

impl Repo {
    /// The paths at which the index or the work tree differs from the target, with what they must have.
    ///
    /// Two cheap comparisons replace one expensive one: target with index reads no file, and index with work tree reads
    /// only files whose stat data changed.
    pub(super) fn differing(&self, target: CommitId) -> Result<Changes, Error> {
        let doing = "comparing the work tree with the commit to follow";
        step(doing);
        self.check_fit(target, self.local_tip()?)?;
        let tree = self.tree_of(target)?;
        let index = self.index()?;
        let mut changes = Changes::new();
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true);
        let flagged = Flagged::of(&index);
        let to_index = self.git.diff_tree_to_index(Some(&tree), Some(&index), Some(&mut options)).context(doing)?;
        let to_files = self.changed_tracked(&index)?;
        let mut in_target = self.walk_tree(&tree);
        let files = to_files.iter().flat_map(git2::Diff::deltas);
        for delta in to_index.deltas().chain(files) {
            if is_one_to_git(&delta, Some(&tree), &index) {
                continue;
            }
            for bytes in [delta.old_file(), delta.new_file()].iter().filter_map(|file| file.path_bytes()) {
                let path = path_of(bytes);
                let Entry::Vacant(place) = changes.entry(path.as_os_str().to_owned()) else { continue };
                let entry = in_target.get(&path)?;
                if flagged.hides(&path) || flagged.is_to_be_added(&path) && entry.is_none() {
                    continue;
                }
                place.insert(entry.map_or(Want::Gone, |entry| want_of(&entry)));
            }
        }
        self.differing_unseen(&tree, &flagged, &mut changes)?;
        Ok(changes)
    }

    /// The tracked files that differ from the index; `None` if none does.
    fn changed_tracked(&self, index: &git2::Index) -> Result<Option<git2::Diff<'_>>, Error> {
        let doing = "comparing the work tree with the index";
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).ignore_submodules(true).skip_binary_check(true);
        // Untracked files are not needed here, and may lie deeper than libgit2 walks.
        options.enable_fast_untracked_dirs(true);
        let blocked = self.blocked_among_tracked(index);
        if blocked.is_empty() {
            let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
            if let Suspects::Some(paths) = self.suspects(index, &top)? {
                if paths.is_empty() {
                    return Ok(None);
                }
                options.disable_pathspec_match(true);
                for path in paths {
                    options.pathspec(path);
                }
            }
        } else {
            for it in &blocked {
                tracing::warn!(next = "remove it", "{} {}", shown(&it.file), it.why());
            }
            options.disable_pathspec_match(true);
            if !self.add_unblocked(Path::new(""), &blocked, index, &mut options) {
                self.check_tracked_rules()?;
            }
        }
        self.git.diff_index_to_workdir(Some(index), Some(&mut options)).context(doing).map(Some)
    }

    /// Adds changes to index entries that libgit2 does not compare. A file that skip-worktree hides and that was
    /// changed here is left alone: git refuses to replace it, and a pass goes on without it.
    fn differing_unseen(&self, tree: &git2::Tree<'_>, flagged: &Flagged, changes: &mut Changes) -> Result<(), Error> {
        let mut in_target = self.walk_tree(tree);
        for (path, entry) in flagged.unseen() {
            let doing = about("looking at {}", path);
            let there = in_target.get(path)?;
            if there == Some(TreeEntry { id: entry.id, mode: raw::canonical(entry.mode) }) {
                continue;
            }
            let want = there.map_or(Want::Gone, |entry| want_of(&entry));
            if let Want::Blob(it) = want
                && flagged.hides(path)
                && self.is_changed_here(path, [entry.id, it.id]).context(doing)?
            {
                tracing::warn!(
                    path = %shown(path),
                    next = "`git update-index --no-skip-worktree FILE` lets the next pass follow it",
                    "skip-worktree hides this file: it keeps its local changes, though the remote changed it too"
                );
                continue;
            }
            changes.insert(path.clone().into_os_string(), want);
        }
        Ok(())
    }

    /// Returns whether a file has a content other than these versions.
    fn is_changed_here(&self, path: &Path, versions: [git2::Oid; 2]) -> std::io::Result<bool> {
        let top = Dir::open(&self.place.work_dir)?;
        let Parent::There(parent) = top.parent_of(path)? else { return Ok(false) };
        let Some(found) = parent.look(last(path))? else { return Ok(false) };
        if !matches!(found.kind, FileKind::File { .. } | FileKind::Link) {
            return Ok(false);
        }
        let bytes = parent.read(last(path), found.kind)?;
        let id = git2::Oid::hash_object(git2::ObjectType::Blob, &bytes).map_err(std::io::Error::other)?;
        Ok(!versions.contains(&id))
    }

    /// Records the present content of the paths where something must be put or removed.
    pub(super) fn survey(
        &self,
        top: &Dir,
        target: CommitId,
        changes: &Changes,
        staged: &Staged,
    ) -> Result<Survey, Error> {
        step("looking at the files to be replaced");
        let mut survey = Survey::default();
        let mut known = self.known_trees(target)?;
        let mut walk = Walk::below(top).context("opening the work tree")?;
        // The folder found missing last: nothing is below it.
        let mut missing: Option<PathBuf> = None;
        for (path, want) in changes {
            let path = Path::new(path);
            if missing.as_ref().is_some_and(|folder| is_below(path, folder)) {
                continue;
            }
            let doing = about("looking at {}", path);
            match walk.parent_of(path).context(doing)? {
                Reached::Missing(depth, _) => missing = Some(first(path, depth)),
                Reached::Obstacle(depth) => {
                    let obstacle = first(path, depth);
                    if *want != Want::Gone && !survey.seen.contains_key(obstacle.as_os_str()) {
                        self.survey_one(top, &obstacle, &mut known, &mut survey)?;
                    }
                }
                Reached::There(parent) => match parent.look(last(path)).context(doing)? {
                    None => {}
                    Some(found) if found.kind == FileKind::Folder => {
                        if let Want::Blob(_) = want {
                            self.survey_folder(top, path, path, &mut known, &mut survey)?;
                        }
                    }
                    Some(found) if found.kind == FileKind::Special && *want == Want::Gone => {}
                    Some(found) => {
                        let here = self.read_version(parent, path, found)?;
                        let in_place = match want {
                            Want::Blob(_) if staged.converted.contains(path) => is_staged_alike(top, staged, path)?,
                            Want::Blob(entry) => here.as_ref().is_some_and(|here| here.is(entry)),
                            Want::Submodule | Want::Gone => false,
                        };
                        self.take_note(path, found, here, &mut known, &mut survey)?;
                        if in_place {
                            survey.unsaved.remove(path);
                            survey.in_place.insert(path.as_os_str().to_owned());
                        }
                    }
                },
            }
        }
        self.drop_checked_out(top, target, &mut survey)?;
        Ok(survey)
    }

    pub(super) fn survey_one(
        &self,
        top: &Dir,
        path: &Path,
        known: &mut [TreeWalk<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let doing = about("reading {}, which is about to be replaced", path);
        let Parent::There(parent) = top.parent_of(path).context(doing)? else { return Ok(()) };
        let Some(found) = parent.look(last(path)).context(doing)? else { return Ok(()) };
        let here = self.read_version(&parent, path, found)?;
        self.take_note(path, found, here, known, survey)
    }

    /// The content of a file or link, as git identifies it; `None` for anything else.
    fn read_version(&self, parent: &Dir, path: &Path, found: Found) -> Result<Option<Version>, Error> {
        let doing = about("reading {}, which is about to be replaced", path);
        if !matches!(found.kind, FileKind::File { .. } | FileKind::Link) {
            return Ok(None);
        }
        let bytes = parent.read(last(path), found.kind).context(doing)?;
        let id = git2::Oid::hash_object(git2::ObjectType::Blob, &bytes).context(doing)?;
        let modes: &[u32] = match found.kind {
            FileKind::Link => &[0o120_000],
            _ if !self.modes_count() => &[0o100_644, 0o100_755],
            FileKind::File { executable: true } => &[0o100_755],
            _ => &[0o100_644],
        };
        Ok(Some(Version { id, modes }))
    }

    /// Records what is at a path, and whether a tree that stays reachable has it.
    fn take_note(
        &self,
        path: &Path,
        found: Found,
        here: Option<Version>,
        known: &mut [TreeWalk<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        survey.seen.insert(path.as_os_str().to_owned(), found);
        if found.kind == FileKind::Special {
            survey.special.insert(path.to_owned());
        }
        let Some(here) = here else { return Ok(()) };
        for tree in known {
            if tree.get(path)?.is_some_and(|entry| here.is(&entry)) {
                return Ok(());
            }
        }
        survey.unsaved.insert(path.to_owned(), found);
        Ok(())
    }

    /// Returns whether git tracks the executable bit in this repository.
    pub(super) fn modes_count(&self) -> bool {
        self.git.config().and_then(|config| config.get_bool("core.filemode")).unwrap_or(true)
    }

    fn survey_folder(
        &self,
        top: &Dir,
        outer: &Path,
        path: &Path,
        known: &mut [TreeWalk<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let doing = about("reading {}, which is about to be replaced", path);
        let Parent::There(parent) = top.parent_of(path).context(doing)? else { return Ok(()) };
        let folder = parent.folder(last(path)).context(doing)?;
        for (name, kind) in folder.list().context(doing)? {
            let inner = path.join(&name);
            match kind {
                // Another repository, or a name that git allows in no tree.
                _ if !git_allows(&inner) => {
                    survey.special.insert(outer.to_owned());
                }
                FileType::Directory => self.survey_folder(top, outer, &inner, known, survey)?,
                FileType::RegularFile | FileType::Symlink => self.survey_one(top, &inner, known, survey)?,
                _ => {
                    survey.special.insert(outer.to_owned());
                }
            }
        }
        Ok(())
    }

    /// The trees that stay reachable in any case: the target's, HEAD's and the branch's.
    pub(super) fn known_trees(&self, target: CommitId) -> Result<Vec<TreeWalk<'_>>, Error> {
        let head = self.tip_of("HEAD")?;
        let mut known = Vec::new();
        for commit in [Some(target), head, self.local_tip()?].into_iter().flatten() {
            known.push(self.walk_tree(&self.tree_of(commit)?));
        }
        Ok(known)
    }

    /// Drops files that equal git's checkout of HEAD from the unsaved ones: HEAD saves them, even if their bytes differ
    /// from the blob (for example by converted line endings).
    fn drop_checked_out(&self, top: &Dir, target: CommitId, survey: &mut Survey) -> Result<(), Error> {
        if survey.unsaved.is_empty() {
            return Ok(());
        }
        for commit in [self.tip_of("HEAD")?, Some(target)].into_iter().flatten() {
            let staged = self.stage_converted(commit, survey.unsaved.keys(), STAGING_OLD)?;
            for path in &staged.converted {
                if is_staged_alike(top, &staged, path)? {
                    survey.unsaved.remove(path);
                }
            }
        }
        Ok(())
    }
}

/// A version of a file, as git identifies it.
struct Version {
    id: git2::Oid,
    /// The modes that it may have in a tree.
    modes: &'static [u32],
}

impl Version {
    fn is(&self, entry: &TreeEntry) -> bool {
        self.id == entry.id && self.modes.contains(&entry.mode)
    }
}

/// Returns whether the staged file and the one in the work tree are equal in bytes and mode.
pub(super) fn is_staged_alike(top: &Dir, staged: &Staged, path: &Path) -> Result<bool, Error> {
    let doing = about("comparing {}", path);
    let (Parent::There(here), Parent::There(there)) =
        (top.parent_of(path).context(doing)?, staged.dir.parent_of(path).context(doing)?)
    else {
        return Ok(false);
    };
    let (Some(ours), Some(theirs)) = (here.look(last(path)).context(doing)?, there.look(last(path)).context(doing)?)
    else {
        return Ok(false);
    };
    let comparable = matches!(ours.kind, FileKind::File { .. } | FileKind::Link);
    if !comparable || ours.kind != theirs.kind || ours.stat.st_size != theirs.stat.st_size {
        return Ok(false);
    }
    let ours = here.read(last(path), ours.kind).context(doing)?;
    Ok(ours == there.read(last(path), theirs.kind).context(doing)?)
}
