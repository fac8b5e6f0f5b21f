//! What a checkout has to change, and what of that is in no commit: looked at before anything is touched.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::commit::is_one_to_git;
use super::index::git_allows;
use super::index_flags::Flagged;
use super::stage::STAGING_OLD;
use super::{CommitId, Repo, path_of, raw, shown};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, FileKind, Found, Parent, last};
use crate::watchdog::step;

/// What must stand at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// This blob, as a file or a link.
    Blob(git2::Oid),
    /// A submodule's folder, whatever is in it.
    Submodule,
    /// Nothing of git's.
    Gone,
}

pub(super) type Changes = BTreeMap<PathBuf, Want>;

/// Something in the work tree that has to give way.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Files and links whose content is in no tree that stays reachable.
    pub(super) unsaved: BTreeMap<PathBuf, Found>,
    /// Everything looked at, so that a change between look and act shows.
    pub(super) seen: BTreeMap<PathBuf, Found>,
    /// Paths where what must stand there stands there already.
    pub(super) in_place: BTreeSet<PathBuf>,
    /// Folders with something that no commit can hold: to be kept aside, not removed.
    pub(super) special: BTreeSet<PathBuf>,
}

impl Repo {
    /// The paths at which index or work tree differ from the target, with what must stand there.
    ///
    /// Two cheap looks instead of one dear one: target against index needs no file, index against work tree only those
    /// whose numbers changed.
    pub(super) fn differing(&self, target: CommitId) -> Result<Changes, Error> {
        let doing = "comparing the work tree with the commit to follow";
        step(doing);
        self.check_fit(target, self.local_tip()?)?;
        let tree = self.tree_of(target)?;
        let index = self.index()?;
        let mut changes = Changes::new();
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true);
        let to_index = self.git.diff_tree_to_index(Some(&tree), Some(&index), Some(&mut options)).context(doing)?;
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).ignore_submodules(true).skip_binary_check(true);
        // What is untracked is not asked for, and may lie deeper than libgit2 walks.
        options.enable_fast_untracked_dirs(true);
        let blocked = self.blocked_among_tracked(&index);
        if !blocked.is_empty() {
            for it in &blocked {
                tracing::warn!(next = "take it away", "{} {}", shown(&it.file), it.why());
            }
            options.disable_pathspec_match(true);
            if !self.look_around(Path::new(""), &blocked, &index, &mut options) {
                self.check_tracked_rules()?;
            }
        }
        let to_files = self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).context(doing)?;
        let flagged = Flagged::of(&index);
        for delta in to_index.deltas().chain(to_files.deltas()) {
            if is_one_to_git(&delta, Some(&tree), &index) {
                continue;
            }
            for file in [delta.old_file(), delta.new_file()] {
                if let Some(bytes) = file.path_bytes() {
                    let path = path_of(bytes);
                    if flagged.hides(&path) || flagged.is_to_be_added(&path) && tree.get_path(&path).is_err() {
                        continue;
                    }
                    if let Entry::Vacant(place) = changes.entry(path) {
                        let want = want_at(&tree, place.key()).context(doing)?;
                        place.insert(want);
                    }
                }
            }
        }
        self.differing_unseen(&tree, &flagged, &mut changes)?;
        Ok(changes)
    }

    /// Adds what the target has otherwise than entries of the index that libgit2 does not compare. A file that skip-worktree
    /// hides and that was changed here stays: git refuses to replace it, and a pass goes on without it.
    fn differing_unseen(&self, tree: &git2::Tree<'_>, flagged: &Flagged, changes: &mut Changes) -> Result<(), Error> {
        for (path, entry) in flagged.unseen() {
            let doing = || format!("looking at {}", shown(path));
            let there = tree.get_path(path).ok().map(|it| (it.id(), raw::canonical(it.filemode_raw().unsigned_abs())));
            if there == Some((entry.id, raw::canonical(entry.mode))) {
                continue;
            }
            let want = want_at(tree, path).context(doing())?;
            if let Want::Blob(id) = want
                && flagged.hides(path)
                && self.is_changed_here(path, [entry.id, id]).context(doing())?
            {
                tracing::warn!(
                    path = %shown(path),
                    next = "`git update-index --no-skip-worktree FILE` lets the next pass follow it",
                    "skip-worktree hides this file: it stays as it was changed here, though the remote changed it too"
                );
                continue;
            }
            changes.insert(path.clone(), want);
        }
        Ok(())
    }

    /// Whether something else than these versions is in a file's place.
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

    /// Looks at what stands where something must be put or removed.
    pub(super) fn survey(
        &self,
        top: &Dir,
        target: CommitId,
        changes: &Changes,
        staging: &Path,
    ) -> Result<Survey, Error> {
        step("looking at the files to be replaced");
        let mut survey = Survey::default();
        let known = self.known_trees(target)?;
        for (path, want) in changes {
            let doing = || format!("looking at {}", shown(path));
            match top.parent_of(path).context(doing())? {
                Parent::Missing => {}
                Parent::Obstacle(depth) => {
                    let obstacle: PathBuf = path.components().take(depth).collect();
                    if *want != Want::Gone && !survey.seen.contains_key(&obstacle) {
                        self.survey_one(top, &obstacle, &known, &mut survey)?;
                    }
                }
                Parent::There(parent) => match parent.look(last(path)).context(doing())? {
                    None => {}
                    Some(found) if found.kind == FileKind::Folder => {
                        if let Want::Blob(_) = want {
                            self.survey_folder(top, path, path, &known, &mut survey)?;
                        }
                    }
                    Some(found) if found.kind == FileKind::Special && *want == Want::Gone => {}
                    Some(_) => self.survey_one(top, path, &known, &mut survey)?,
                },
            }
            if let Want::Blob(_) = want
                && self.is_staged_alike(top, staging, path)?
            {
                survey.unsaved.remove(path);
                survey.in_place.insert(path.clone());
            }
        }
        self.forgive_checked_out(top, target, &mut survey)?;
        Ok(survey)
    }

    pub(super) fn survey_one(
        &self,
        top: &Dir,
        path: &Path,
        known: &[git2::Tree<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let doing = || format!("reading {}, which is about to be replaced", shown(path));
        let Parent::There(parent) = top.parent_of(path).context(doing())? else { return Ok(()) };
        let Some(found) = parent.look(last(path)).context(doing())? else { return Ok(()) };
        survey.seen.insert(path.to_owned(), found);
        match found.kind {
            FileKind::Folder => {}
            FileKind::Special => {
                survey.special.insert(path.to_owned());
            }
            FileKind::File { .. } | FileKind::Link => {
                let bytes = parent.read(last(path), found.kind).context(doing())?;
                let id = git2::Oid::hash_object(git2::ObjectType::Blob, &bytes).context(doing())?;
                let modes: &[u32] = match found.kind {
                    FileKind::Link => &[0o120_000],
                    _ if !self.modes_count() => &[0o100_644, 0o100_755],
                    FileKind::File { executable: true } => &[0o100_755],
                    _ => &[0o100_644],
                };
                let saved = known.iter().any(|tree| {
                    tree.get_path(path).is_ok_and(|entry| {
                        let mode = raw::canonical(entry.filemode_raw().unsigned_abs());
                        entry.id() == id && modes.contains(&mode)
                    })
                });
                if !saved {
                    survey.unsaved.insert(path.to_owned(), found);
                }
            }
        }
        Ok(())
    }

    /// Whether the executable bit is git's to know here.
    fn modes_count(&self) -> bool {
        self.git.config().and_then(|config| config.get_bool("core.filemode")).unwrap_or(true)
    }

    fn survey_folder(
        &self,
        top: &Dir,
        outer: &Path,
        path: &Path,
        known: &[git2::Tree<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let doing = || format!("reading {}, which is about to be replaced", shown(path));
        let Parent::There(parent) = top.parent_of(path).context(doing())? else { return Ok(()) };
        let folder = parent.folder(last(path)).context(doing())?;
        for (name, kind) in folder.list().context(doing())? {
            let inner = path.join(&name);
            match kind {
                // A repository of its own, or a name that git allows in no tree.
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

    /// The trees that stay reachable whatever happens: the target's, HEAD's and the branch's.
    pub(super) fn known_trees(&self, target: CommitId) -> Result<Vec<git2::Tree<'_>>, Error> {
        let head = self.tip_of("HEAD")?;
        let mut known = Vec::new();
        for commit in [Some(target), head, self.local_tip()?].into_iter().flatten() {
            known.push(self.tree_of(commit)?);
        }
        Ok(known)
    }

    /// Whether the staged file and the one in the work tree are the same, byte for byte and in mode.
    pub(super) fn is_staged_alike(&self, top: &Dir, staging: &Path, path: &Path) -> Result<bool, Error> {
        let doing = || format!("comparing {}", shown(path));
        let staged = Dir::open(staging).context("opening the staging folder")?;
        let (Parent::There(here), Parent::There(there)) =
            (top.parent_of(path).context(doing())?, staged.parent_of(path).context(doing())?)
        else {
            return Ok(false);
        };
        let (Some(ours), Some(theirs)) =
            (here.look(last(path)).context(doing())?, there.look(last(path)).context(doing())?)
        else {
            return Ok(false);
        };
        let comparable = matches!(ours.kind, FileKind::File { .. } | FileKind::Link);
        if !comparable || ours.kind != theirs.kind || ours.stat.st_size != theirs.stat.st_size {
            return Ok(false);
        }
        let ours = here.read(last(path), ours.kind).context(doing())?;
        Ok(ours == there.read(last(path), theirs.kind).context(doing())?)
    }

    /// A file that is just what git checks out of HEAD (line endings converted, say) is saved by HEAD, though its bytes are
    /// not those of the blob.
    fn forgive_checked_out(&self, top: &Dir, target: CommitId, survey: &mut Survey) -> Result<(), Error> {
        if survey.unsaved.is_empty() {
            return Ok(());
        }
        for commit in [self.tip_of("HEAD")?, Some(target)].into_iter().flatten() {
            let staging = self.stage(commit, survey.unsaved.keys(), STAGING_OLD)?;
            let mut saved = Vec::new();
            for path in survey.unsaved.keys() {
                if self.is_staged_alike(top, &staging, path)? {
                    saved.push(path.clone());
                }
            }
            for path in saved {
                survey.unsaved.remove(&path);
            }
        }
        Ok(())
    }
}

pub(super) fn want_at(tree: &git2::Tree<'_>, path: &Path) -> Result<Want, git2::Error> {
    match tree.get_path(path) {
        Ok(entry) => Ok(match entry.kind() {
            Some(git2::ObjectType::Commit) => Want::Submodule,
            Some(git2::ObjectType::Tree) => Want::Gone,
            _ => Want::Blob(entry.id()),
        }),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(Want::Gone),
        Err(error) => Err(error),
    }
}
