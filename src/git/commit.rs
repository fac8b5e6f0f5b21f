//! Commits exactly the given paths.
//!
//! The commit's tree is HEAD's with the changes under the given paths and nothing else, whatever else is staged or
//! dirty (guarantee G5). What can't be committed is named and left out; the rest is committed all the same, because a
//! state file is a record of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use git2::ObjectType;

use super::changed::{Changed, LeftOut, Scope, unreadable};
use super::error::is_systems;
use super::history::commit_bytes;
use super::index::{entry, make_way, remove, set_numbers};
use super::named::Unmatched;
use super::objects::Objects;
use super::tree_edit::{edit_tree, is_allowed};
use super::{CommitId, Repo, about};
use crate::error::{Context, Error, Kind};
use crate::fs::dir::{Dir, FileKind, Found, last};
use crate::fs::walk::{Reached, Walk};
use crate::watchdog::step;

/// Larger files, in bytes, become objects of their own: they are not kept in memory.
const LARGE: i64 = 512 << 10;

/// With this many bytes in memory, more files become objects of their own.
const MOST_IN_MEMORY: u64 = 16 << 20;

const LINK: u32 = 0o120_000;

/// The index entry of each file that was taken in; `None` if it is deleted.
type Taken = BTreeMap<PathBuf, Option<git2::IndexEntry>>;

/// What a commit contains.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The commit; `None` where nothing had changed.
    pub commit: Option<CommitId>,
    /// The number of files in it that are new, changed or deleted.
    pub files: usize,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
    /// The pathspecs that match nothing.
    pub unmatched: Vec<Unmatched>,
}

/// Whether a commit may be the first one of its branch.
///
/// On a branch that lost its commits, a first commit would start an unrelated history with half the files, and an alpha
/// would force-push it over the remote's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The remote was asked in this pass and has no such branch.
    Allowed,
    /// The remote has the branch, or can't be reached.
    Refused,
}

/// Where a commit is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Into the repository: objects, index, branch.
    OnDisk,
    /// Memory only: a dry run goes on as if the commit had been made.
    InMemory,
}

impl Repo {
    /// Commits what is new, changed or deleted under the paths of `scope`.
    ///
    /// # Errors
    /// As for [`Repo::changed_under`] and [`Repo::commit_changed`].
    pub fn commit_under(
        &self,
        scope: Scope<'_>,
        message: &str,
        when: DateTime<Utc>,
        first: First,
    ) -> Result<Committed, Error> {
        self.commit_changed(self.changed_under(scope)?, message, when, first, Store::OnDisk)
    }

    /// Commits what [`Repo::changed_under`] found.
    ///
    /// It writes the objects, then the index, then the branch. If it is killed before the last, the next tick finds the
    /// same changes and commits them.
    ///
    /// # Errors
    /// If the repository can't be read or written; [`Kind::Busy`] if somebody moved the branch meanwhile;
    /// [`Kind::NotReady`] if this would be the branch's first commit and `first` refuses that.
    pub fn commit_changed(
        &self,
        changed: Changed,
        message: &str,
        when: DateTime<Utc>,
        first: First,
        store: Store,
    ) -> Result<Committed, Error> {
        let Changed { paths, left_out, unmatched } = changed;
        let left_out = left_out.into_iter().collect();
        let mut done = Committed { left_out, unmatched, ..Committed::default() };
        if paths.is_empty() {
            return Ok(done);
        }
        self.check_unsigned("nothing was committed, what was written stays in the work tree")?;
        step("committing");
        let parent = self.head_tip()?;
        if parent.is_none() && first == First::Refused {
            let what = format!(
                "branch '{}' has no commit, and the remote is not known to be empty; what was written is not committed",
                self.names.branch
            );
            let next =
                "run `gitsync init-sync`: a first commit made here would start a history unrelated to the remote's";
            return Err(Error::new(Kind::NotReady, what, next));
        }
        let (author, committer) = self.signatures(when)?;
        let mut index = self.index()?;
        let beside;
        let mut objects = match store {
            Store::OnDisk => {
                beside = self.beside()?;
                Objects::in_memory(&beside)?
            }
            Store::InMemory => Objects::of(&self.git)?,
        };
        let taken = self.take_in(&paths, &index, &mut objects, &mut done.left_out)?;
        let before = self.head_tree()?.map(|tree| tree.id());
        let edits = taken.iter().map(|(path, file)| (path.clone(), file.as_ref().map(|it| (it.id, it.mode)))).collect();
        let tree = edit_tree(&mut objects, before, &edits)?;
        // Every message ends with a line end, as with git.
        let whole = format!("{}\n", message.trim_end());
        let commit = (before != Some(tree))
            .then(|| {
                objects.write(ObjectType::Commit, &commit_bytes(tree, parent.as_slice(), &author, &committer, &whole))
            })
            .transpose()
            .context("writing a commit")?;
        objects.into_pack(self)?;
        take_into_index(&mut index, &taken)?;
        if store == Store::OnDisk {
            self.objects_to_disk()?;
            self.index_to_disk(&mut index)?;
        }
        let Some(commit) = commit else { return Ok(done) };
        let summary = message.lines().next().unwrap_or_default();
        match store {
            Store::OnDisk => self.move_ref(&self.branch_ref(), parent, commit, &format!("commit: {summary}"))?,
            Store::InMemory => self.assume_tip(commit),
        }
        done.commit = Some(commit);
        done.files = edits.len();
        Ok(done)
    }

    /// Writes the content of files as git would store it. What is not a file any more is taken as deleted; what can't be
    /// read is left out.
    fn take_in(
        &self,
        paths: &BTreeSet<PathBuf>,
        index: &git2::Index,
        objects: &mut Objects<'_>,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Taken, Error> {
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let (mut walk, mut converted) =
            (Walk::below(&top).context("opening the work tree")?, self.converted_at_commit(index)?);
        let tracked =
            Tracked { modes: self.modes_count(), links: self.config()?.get_bool("core.symlinks").unwrap_or(true) };
        let mut taken = Taken::new();
        for path in paths {
            let doing = about("committing {}", path);
            let found = match walk.parent_of(path).context(doing)? {
                Reached::There(parent) => parent.look(last(path)).context(doing)?.map(|found| (parent, found)),
                Reached::Missing(..) | Reached::Obstacle(_) => None,
            };
            let Some((parent, found)) =
                found.filter(|(_, it)| matches!(it.kind, FileKind::File { .. } | FileKind::Link))
            else {
                taken.insert(path.clone(), None);
                continue;
            };
            if !path.iter().all(|name| is_allowed(name.as_bytes())) {
                left_out.push(LeftOut { path: path.clone(), why: "has a name that git allows in no tree".to_owned() });
                continue;
            }
            // Somebody has taken it out of the index and ignores it.
            if index.get_path(path, 0).is_none() && self.is_ignored(path, false) {
                taken.insert(path.clone(), None);
                continue;
            }
            let is_file = found.kind != FileKind::Link;
            let is_large = is_file && (found.stat.st_size > LARGE || objects.size > MOST_IN_MEMORY);
            let id = if is_file && converted.apply_to(path)? {
                self.store_converted(parent, path, found.kind).context(doing)
            } else if is_large {
                self.store_large(parent, path)
            } else {
                match parent.read(last(path), found.kind) {
                    Ok(bytes) => objects.write(ObjectType::Blob, &bytes).context(doing).map(Ok),
                    Err(error) => unreadable(path, &error).map(Err),
                }
            };
            match id? {
                Ok(id) => {
                    let mut new = entry(path, id, mode_of(&found, index.get_path(path, 0).as_ref(), tracked));
                    set_numbers(&mut new, &found);
                    taken.insert(path.clone(), Some(new));
                }
                Err(why) => left_out.push(LeftOut { path: path.clone(), why }),
            }
        }
        Ok(taken)
    }

    /// Writes a file as an object of its own, as git converts it. Gives why if the file can't be read or converted.
    ///
    /// libgit2 takes a path here, and would follow a link: the file must not be one.
    ///
    /// # Errors
    /// If the object can't be written, for example because the disk is full.
    fn store_converted(
        &self,
        parent: &Dir,
        path: &Path,
        kind: FileKind,
    ) -> Result<Result<git2::Oid, String>, git2::Error> {
        match self.git.blob_path(&self.place.work_dir.join(path)) {
            Err(error) if is_systems(&error) && parent.is_readable(last(path), kind) => Err(error),
            Err(error) => Ok(Err(Error::git("can't be read", &error).what)),
            Ok(id) => Ok(Ok(id)),
        }
    }

    /// Writes a file as it is, as an object of its own. Gives why if the file can't be read.
    ///
    /// # Errors
    /// If the object can't be written.
    fn store_large(&self, parent: &Dir, path: &Path) -> Result<Result<git2::Oid, String>, Error> {
        let doing = about("committing {}", path);
        let mut file = match parent.open_file(last(path)) {
            Ok(file) => file,
            Err(error) => return unreadable(path, &error).map(Err),
        };
        let mut blob = self.git.blob_writer(None).context(doing)?;
        std::io::copy(&mut file, &mut blob).context(doing)?;
        blob.commit().context(doing).map(Ok)
    }

    /// HEAD's commit; in a dry run, the one that it assumes.
    pub(super) fn head_tip(&self) -> Result<Option<CommitId>, Error> {
        self.assumed_tip.get().map_or_else(|| self.tip_of("HEAD"), |tip| Ok(Some(tip)))
    }

    pub(super) fn head_tree(&self) -> Result<Option<git2::Tree<'_>>, Error> {
        self.head_tip()?.map(|head| self.tree_of(head)).transpose()
    }
}

/// What git tracks of a file besides its content, by `core.filemode` and `core.symlinks`.
#[derive(Clone, Copy)]
struct Tracked {
    /// Whether it is executable.
    modes: bool,
    /// Whether it is a symbolic link. If not, a link is a file with the target in it.
    links: bool,
}

/// The mode that git gives a file. `before` is its entry in the index.
fn mode_of(found: &Found, before: Option<&git2::IndexEntry>, tracked: Tracked) -> u32 {
    match (found.kind, before.map(|it| it.mode)) {
        (FileKind::Link, _) => LINK,
        (_, Some(LINK)) if !tracked.links => LINK,
        (_, Some(before)) if !tracked.modes && before & 0o170_000 == 0o100_000 => before,
        (FileKind::File { executable: true }, _) if tracked.modes => 0o100_755,
        _ => 0o100_644,
    }
}

/// Makes the index's entries those of the files that were taken in.
fn take_into_index(index: &mut git2::Index, taken: &Taken) -> Result<(), Error> {
    for (path, file) in taken {
        let changed = match file {
            Some(file) => make_way(index, path).and_then(|()| index.add(file)),
            None => remove(index, path),
        };
        changed.context(about("committing {}", path))?;
    }
    Ok(())
}
