//! Makes a tree from another one by changing paths, and refuses trees that can't be checked out here.
//!
//! Only the trees above a changed path are rewritten, as git writes them: with modes that git writes today, in git's
//! order. Every other entry keeps its object, whatever that contains. libgit2's own method, through an index of the
//! whole tree, fails on a mode of 100664 anywhere in the tree.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::objects::Objects;
use super::raw::{self, RawEntry};
use super::{CommitId, Repo, about, path_of, shown};
use crate::error::{Context, Error, Kind};

/// The new value of a path: an object with its mode, or nothing.
type To = Option<(git2::Oid, u32)>;

/// The new value of each changed path.
pub(crate) type Edits = BTreeMap<PathBuf, To>;

/// libgit2 does not enter folders this deep. A file may be in a folder one level higher.
pub(crate) const DEEPEST: usize = 100;

/// A few small trees can be made to hold more paths than there are atoms, each folder the same one ten times.
const MOST_PATHS: usize = 5_000_000;

/// The edit of one name in a folder: its new value, or the edits below it.
enum Edit<'e> {
    Here(To),
    Below(Vec<(&'e [u8], To)>),
}

impl Repo {
    /// Writes the tree that results from applying `edits` to `base`. Folders that become empty are removed.
    ///
    /// # Errors
    /// If a tree can't be read or written.
    pub(crate) fn edit_tree(&self, base: Option<git2::Oid>, edits: &Edits) -> Result<git2::Oid, Error> {
        edit_tree(&mut Objects::of(&self.git)?, base, edits)
    }

    /// Refuses a commit with a tree that can't be checked out here, before anything is touched: folders too deep to be
    /// read again, names that would lead out of the work tree or into `.git`, entries out of order.
    ///
    /// Skips subtrees that `known` has at the same path.
    ///
    /// # Errors
    /// [`Kind::Unfit`], which names the commit and the path.
    pub(crate) fn check_fit(&self, commit: CommitId, known: Option<CommitId>) -> Result<(), Error> {
        if self.found_fit.get() == Some(commit) {
            return Ok(());
        }
        let tree = self.raw_commit(commit)?.tree;
        let known = known.and_then(|known| self.raw_commit(known).ok()).map(|known| known.tree);
        let odb = self.git.odb().context("reading the tree to follow")?;
        let folds_case = self.config()?.get_bool("core.ignorecase").unwrap_or(false);
        let mut open = vec![(PathBuf::new(), tree, known)];
        let mut paths = 0;
        while let Some((at, id, known)) = open.pop() {
            if known == Some(id) {
                continue;
            }
            if paths > MOST_PATHS {
                return Err(unfit(commit, &at, &format!("the tree has more than {MOST_PATHS} paths")));
            }
            let depth = at.components().count();
            if depth >= DEEPEST {
                return Err(unfit(commit, &at, &format!("it lies {depth} folders deep; the limit is {}", DEEPEST - 1)));
            }
            let object = odb.read(id).context(about("reading the tree of {}", &at))?;
            let Some(entries) = raw::tree(object.data()) else {
                return Err(unfit(commit, &at, "the folder's tree is not one that git can read"));
            };
            let known_object = known.and_then(|id| odb.read(id).ok());
            let known_entries = known_object.as_ref().and_then(|object| raw::tree(object.data())).unwrap_or_default();
            let known: BTreeMap<&[u8], git2::Oid> =
                known_entries.iter().filter(|entry| entry.is_folder()).map(|entry| (entry.name, entry.id)).collect();
            paths += entries.len();
            if let Some((name, why)) = out_of_order(&entries) {
                return Err(unfit(commit, &at.join(path_of(name)), why));
            }
            if folds_case && let Some(name) = same_but_for_case(&entries) {
                let why = "another name in its folder differs in case alone, and core.ignorecase is true here (`git config \
                           core.ignorecase false`, unless the file system folds case)";
                return Err(unfit(commit, &at.join(path_of(name)), why));
            }
            for entry in entries {
                let path = || at.join(path_of(entry.name));
                if !is_allowed(entry.name) {
                    return Err(unfit(commit, &path(), "git does not check out a name like this"));
                }
                if entry.is_folder() {
                    open.push((path(), entry.id, known.get(entry.name).copied()));
                }
            }
        }
        self.found_fit.set(Some(commit));
        Ok(())
    }
}

/// Returns whether git allows an entry of this name in a tree.
pub(super) fn is_allowed(name: &[u8]) -> bool {
    // Every name that some file system takes for `.git` or for a way out of the folder contains one of these
    // characters; asking libgit2 about every name would be slow.
    let odd = name.starts_with(b".") || name.iter().any(|byte| !byte.is_ascii() || b"~:\\/".contains(byte));
    !odd || (!name.contains(&b'/') && super::index::git_allows(&path_of(name)))
}

fn unfit(commit: CommitId, path: &Path, why: &str) -> Error {
    let what = format!("commit {commit} can't be followed: {}: {why}; local state stays as it is", shown(path));
    Error::new(
        Kind::Unfit,
        what,
        "remove it from the remote's branch; ticks go on committing here, and the next good commit there is followed",
    )
}

/// The first entry that is out of order, and what is wrong with it.
fn out_of_order<'t>(entries: &[RawEntry<'t>]) -> Option<(&'t [u8], &'static str)> {
    let mut names = std::collections::HashSet::new();
    for (at, entry) in entries.iter().enumerate() {
        if !names.insert(entry.name) {
            return Some((entry.name, "the name is twice in its folder"));
        }
        let before = at.checked_sub(1).and_then(|at| entries.get(at));
        if before.is_some_and(|before| {
            raw::order((before.name, before.is_folder()), (entry.name, entry.is_folder())).is_gt()
        }) {
            return Some((entry.name, "the entries of its folder are not in git's order"));
        }
    }
    None
}

/// The first entry that another one equals but for case.
fn same_but_for_case<'t>(entries: &[RawEntry<'t>]) -> Option<&'t [u8]> {
    let mut names = std::collections::HashSet::new();
    entries.iter().find(|entry| !names.insert(entry.name.to_ascii_lowercase())).map(|entry| entry.name)
}

/// Writes the tree that results from applying `edits` to `base`, as [`Repo::edit_tree`] does.
///
/// # Errors
/// If a tree can't be read or written.
pub(super) fn edit_tree(objects: &mut Objects<'_>, base: Option<git2::Oid>, edits: &Edits) -> Result<git2::Oid, Error> {
    let edits = edits.iter().map(|(path, to)| (path.as_os_str().as_bytes(), *to)).collect();
    match edit_folder(objects, base, edits)? {
        Some(tree) => Ok(tree),
        None => objects.write(git2::ObjectType::Tree, b"").context("writing a tree"),
    }
}

/// The tree of one folder after its edits; `None` if it is empty.
fn edit_folder(
    objects: &mut Objects<'_>,
    base: Option<git2::Oid>,
    edits: Vec<(&[u8], To)>,
) -> Result<Option<git2::Oid>, Error> {
    let doing = "writing a tree";
    let object = base.map(|base| objects.read(base).map(|object| object.data().to_vec()));
    let object = object.transpose().context("reading a tree")?.unwrap_or_default();
    let old = raw::tree(&object);
    let old = old.ok_or_else(|| {
        let what = format!("tree {} is not one that git can read", base.unwrap_or(git2::Oid::ZERO_SHA1));
        Error::new(Kind::Unfit, what, "see `git fsck`")
    })?;
    let mut here: BTreeMap<&[u8], Edit<'_>> = BTreeMap::new();
    for (path, to) in edits {
        match path.iter().position(|byte| *byte == b'/').map(|at| path.split_at(at)) {
            None => {
                // Edits of both a file and something below it: those below are deletions.
                if to.is_some() || !here.contains_key(path) {
                    here.insert(path, Edit::Here(to));
                }
            }
            Some((name, below)) => {
                let below = (below.get(1..).unwrap_or_default(), to);
                match here.get_mut(name) {
                    Some(Edit::Below(all)) => all.push(below),
                    Some(Edit::Here(Some(_))) if to.is_none() => {}
                    _ => {
                        here.insert(name, Edit::Below(vec![below]));
                    }
                }
            }
        }
    }
    let mut entries: BTreeMap<&[u8], (u32, git2::Oid)> =
        old.iter().map(|entry| (entry.name, (raw::canonical(entry.mode), entry.id))).collect();
    for (name, edit) in here {
        let to = match edit {
            Edit::Here(to) => to.map(|(id, mode)| (raw::canonical(mode), id)),
            Edit::Below(edits) => {
                let was = entries.get(name).copied();
                let folder = was.filter(|(mode, _)| *mode == 0o040_000).map(|(_, id)| id);
                let only_deletes = edits.iter().all(|(_, to)| to.is_none());
                match was {
                    // There is nothing below a file, so the deletions change nothing and the file stays.
                    Some(file) if folder.is_none() && only_deletes => Some(file),
                    _ => edit_folder(objects, folder, edits)?.map(|id| (0o040_000, id)),
                }
            }
        };
        match to {
            Some(to) => entries.insert(name, to),
            None => entries.remove(name),
        };
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let mut sorted: Vec<_> = entries.into_iter().collect();
    sorted.sort_by(|(one, (a, _)), (other, (b, _))| raw::order((one, *a == 0o040_000), (other, *b == 0o040_000)));
    let mut bytes = Vec::new();
    for (name, (mode, id)) in sorted {
        bytes.extend(format!("{mode:o} ").bytes());
        bytes.extend(name);
        bytes.push(0);
        bytes.extend(id.as_bytes());
    }
    objects.write(git2::ObjectType::Tree, &bytes).context(doing).map(Some)
}
