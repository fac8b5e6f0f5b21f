//! Checks that everything a commit needs is here: each commit before it, their trees, their files.
//!
//! git promises this of every reference, and trusts the other side's promise as little as we do. So what a fetch
//! brought is walked before a reference moves to it. The walk stops at what the references reached before, and compares
//! each new tree with its parents' trees: the cost grows with what is new, not with history.
//!
//! Objects are read as bytes and parsed here. git follows a history with a malformed identity or an odd file mode, so
//! what libgit2 refuses to parse must not count as missing.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use git2::{ObjectType, Odb};

use super::{CommitId, error};
use crate::error::{Error, Kind};

/// The most bytes of trees kept in memory, to compare the next commit with them.
const MOST_KEPT: usize = 32 << 20;

/// What is wrong with an object.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not here.
    Missing(ObjectType, CommitId),
    /// It is not what its referrer says, or not in git's format.
    Malformed(ObjectType, CommitId),
    /// It could not be read.
    Unreadable(ObjectType, CommitId, git2::Error),
}

impl Fault {
    /// The error for an object in our own repository.
    pub(super) fn ours(self, doing: impl std::fmt::Display) -> Error {
        match self {
            Self::Unreadable(_, _, error) if error::is_systems(&error) => Error::git(doing, &error),
            fault => Error::new(
                Kind::Corrupt,
                format!("{doing}: {fault}"),
                "run `gitsync init-sync`: it puts a damaged repository aside and fetches it again, losing nothing",
            ),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(kind, id) => write!(f, "{kind} {id} is missing"),
            Self::Malformed(kind, id) => write!(f, "{id} is not a well-formed {kind}"),
            Self::Unreadable(kind, id, error) => write!(f, "{kind} {id} can't be read: {}", error.message()),
        }
    }
}

/// The parts of a commit that the walk needs.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) tree: CommitId,
    pub(super) parents: Vec<CommitId>,
    pub(super) time: i64,
}

/// Which files are read in full. Of the others only presence and kind are checked. Commits and trees are always read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// None.
    Header,
    /// The loose ones in this objects folder. They are the newest, and no pack's checksum covers them.
    Loose(PathBuf),
    /// All.
    Content,
}

/// A check of a history.
pub(super) struct Inspection<'o> {
    odb: &'o Odb<'o>,
    /// Commits that a shallow clone has without their parents.
    shallow: HashSet<CommitId>,
    depth: Depth,
    /// Trees and files that are missing are on the remote, which has promised to give them.
    promised: bool,
    /// Trees that were checked together with everything below them.
    whole: HashSet<CommitId>,
    kept: HashMap<CommitId, Rc<[u8]>>,
    kept_size: usize,
    /// Every object seen since the caller last took this list, if the caller wants it, with what was at its path before.
    pub(super) seen: Option<Vec<(CommitId, Option<CommitId>)>>,
}

/// The commits that some tips reach and others do not; each as read, or why it can't be.
pub(super) type Commits = HashMap<CommitId, Result<Commit, Fault>>;

/// Checks that everything `tips` reach and `known` do not is here. What `known` reach is assumed to be complete.
pub(super) fn check(
    odb: &Odb<'_>,
    tips: &[CommitId],
    known: &[CommitId],
    shallow: HashSet<CommitId>,
    promised: bool,
) -> Result<(), Fault> {
    let mut inspection = Inspection::new(odb, shallow, Depth::Header).promised(promised);
    let mut commits = HashMap::new();
    for (id, commit) in inspection.commits(tips, known)? {
        commits.insert(id, commit?);
    }
    for id in parents_first(&commits, tips) {
        if let Some(commit) = commits.get(&id) {
            inspection.files(commit, &commits)?;
        }
    }
    Ok(())
}

/// Returns whether `commit` is `from` or one of its ancestors. What `commit` itself needs may be missing.
///
/// # Errors
/// If a commit on the way can't be read.
pub(super) fn reaches(
    odb: &Odb<'_>,
    from: CommitId,
    commit: CommitId,
    shallow: HashSet<CommitId>,
) -> Result<bool, Fault> {
    let inspection = Inspection::new(odb, shallow, Depth::Header);
    let (mut heap, mut begun) = (BinaryHeap::from([(0, from)]), HashSet::from([from]));
    while let Some((_, id)) = heap.pop() {
        if id == commit {
            return Ok(true);
        }
        for parent in inspection.commit(id)?.parents {
            if begun.insert(parent) {
                // Newest first: a commit near the tip is found without a walk through all of history.
                let time = if parent == commit { i64::MAX } else { inspection.commit(parent)?.time };
                heap.push((time, parent));
            }
        }
    }
    Ok(false)
}

/// The shallow roots that a repository's `shallow` file lists.
pub(super) fn shallow_roots(git_dir: &Path) -> HashSet<CommitId> {
    let text = crate::fs::files::read_to_string(&git_dir.join("shallow")).unwrap_or_default();
    text.lines().filter_map(|line| CommitId::from_str(line.trim()).ok()).collect()
}

/// Sorts the commits so that each comes after its parents.
pub(super) fn parents_first(commits: &HashMap<CommitId, Commit>, tips: &[CommitId]) -> Vec<CommitId> {
    let mut order = Vec::with_capacity(commits.len());
    let mut begun = HashSet::new();
    let mut todo: Vec<(CommitId, bool)> = tips.iter().map(|tip| (*tip, false)).collect();
    while let Some((id, parents_done)) = todo.pop() {
        if parents_done {
            order.push(id);
        } else if let Some(commit) = commits.get(&id)
            && begun.insert(id)
        {
            todo.push((id, true));
            todo.extend(commit.parents.iter().map(|parent| (*parent, false)));
        }
    }
    order
}

impl<'o> Inspection<'o> {
    pub(super) fn new(odb: &'o Odb<'o>, shallow: HashSet<CommitId>, depth: Depth) -> Self {
        let (whole, kept) = (HashSet::new(), HashMap::new());
        Self { odb, shallow, depth, promised: false, whole, kept, kept_size: 0, seen: None }
    }

    /// In a partial clone, trees and files that are missing are no fault.
    pub(super) fn promised(self, promised: bool) -> Self {
        Self { promised, ..self }
    }

    /// The commits that `tips` reach and `known` do not. One that can't be read is included with its fault. Where
    /// clocks were wrong, some that `known` reach may be included too.
    ///
    /// # Errors
    /// If a commit that `known` reach can't be read.
    pub(super) fn commits(&self, tips: &[CommitId], known: &[CommitId]) -> Result<Commits, Fault> {
        let mut walk = Walk::default();
        for (ids, is_known) in [(known, true), (tips, false)] {
            for id in ids {
                walk.reach(self, *id, is_known)?;
            }
        }
        while walk.fresh_left > 0
            && let Some((_, id)) = walk.heap.pop()
        {
            let is_known = walk.known.contains(&id);
            let parents = match walk.found.get(&id) {
                Some(Ok(commit)) => commit.parents.clone(),
                _ => Vec::new(),
            };
            if !is_known && walk.done.insert(id) {
                walk.fresh_left -= 1;
            }
            for parent in parents {
                walk.reach(self, parent, is_known)?;
            }
        }
        walk.found.retain(|id, _| !walk.known.contains(id));
        Ok(walk.found)
    }

    /// The commits that `tips` reach without passing through `have`. One that can't be read is included with its fault.
    pub(super) fn beyond(&self, tips: &[CommitId], have: &HashSet<CommitId>) -> Commits {
        let mut found = HashMap::new();
        let mut todo = tips.to_vec();
        while let Some(id) = todo.pop() {
            if have.contains(&id) || found.contains_key(&id) {
                continue;
            }
            let commit = self.commit(id);
            if let Ok(commit) = &commit {
                todo.extend(&commit.parents);
            }
            found.insert(id, commit);
        }
        found
    }

    /// Checks that every commit before a commit can be read, and everything in its own tree.
    ///
    /// # Errors
    /// The first fault found.
    pub(super) fn history_and_files(&mut self, commit: CommitId) -> Result<(), Fault> {
        for (_, before) in self.beyond(&[commit], &HashSet::new()) {
            before?;
        }
        let tree = self.commit(commit)?.tree;
        self.tree(tree, Vec::new())
    }

    /// Checks the trees and files of a commit whose parents are complete. `commits` are those already read, so that
    /// they need not be read again.
    ///
    /// # Errors
    /// The first fault found.
    pub(super) fn files(&mut self, commit: &Commit, commits: &HashMap<CommitId, Commit>) -> Result<(), Fault> {
        let mut olds = Vec::new();
        for parent in &commit.parents {
            // A parent that can't be read can't be compared with.
            let tree = commits.get(parent).map(|parent| parent.tree);
            olds.extend(tree.or_else(|| self.commit(*parent).ok().map(|parent| parent.tree)));
        }
        self.tree(commit.tree, olds)
    }

    /// Checks a tree and everything below it. An entry that `olds` have at the same path is complete.
    ///
    /// # Errors
    /// The first fault found.
    pub(super) fn tree(&mut self, tree: CommitId, olds: Vec<CommitId>) -> Result<(), Fault> {
        let mut added = Vec::new();
        let checked = self.subtrees(tree, olds, &mut added);
        if checked.is_err() {
            for id in added {
                self.whole.remove(&id);
            }
        }
        checked
    }

    fn subtrees(&mut self, tree: CommitId, olds: Vec<CommitId>, added: &mut Vec<CommitId>) -> Result<(), Fault> {
        let mut todo = vec![(tree, olds)];
        while let Some((id, olds)) = todo.pop() {
            if olds.contains(&id) || !self.whole.insert(id) {
                continue;
            }
            added.push(id);
            let bytes = match self.tree_bytes(id) {
                Err(Fault::Missing(..)) if self.promised => continue,
                bytes => bytes?,
            };
            self.note(id, olds.first());
            let olds: Vec<Rc<[u8]>> = olds.into_iter().filter_map(|old| self.tree_bytes(old).ok()).collect();
            let mut olds: Vec<_> = olds.iter().map(|old| Entries(old).peekable()).collect();
            for entry in Entries(&bytes) {
                let entry = entry.ok_or(Fault::Malformed(ObjectType::Tree, id))?;
                let before: Vec<CommitId> = olds.iter_mut().filter_map(|old| counterpart(old, &entry)).collect();
                if before.contains(&entry.id) {
                    continue;
                }
                match entry.kind() {
                    ObjectType::Tree => todo.push((entry.id, before)),
                    // A submodule's commit is in another repository.
                    ObjectType::Commit => {}
                    _ => self.blob(entry.id, before.first())?,
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: CommitId, before: Option<&CommitId>) -> Result<(), Fault> {
        let read = match &self.depth {
            Depth::Header => false,
            Depth::Loose(objects) => {
                let hex = id.to_string();
                let (folder, file) = hex.split_at(2);
                objects.join(folder).join(file).exists()
            }
            Depth::Content => true,
        };
        let kind = match read {
            false => self.odb.read_header(id).map(|(_, kind)| kind),
            true => self.odb.read(id).map(|object| object.kind()),
        };
        match kind {
            Ok(ObjectType::Blob) => {
                self.note(id, before);
                Ok(())
            }
            Ok(_) => Err(Fault::Malformed(ObjectType::Blob, id)),
            Err(error) if self.promised && error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(fault(ObjectType::Blob, id, error)),
        }
    }

    /// Reads a commit. The parents of a shallow root are left out.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn commit(&self, id: CommitId) -> Result<Commit, Fault> {
        let object = self.odb.read(id).map_err(|error| fault(ObjectType::Commit, id, error))?;
        let commit = Some(&object).filter(|object| object.kind() == ObjectType::Commit);
        let mut commit =
            commit.and_then(|object| parse_commit(object.data())).ok_or(Fault::Malformed(ObjectType::Commit, id))?;
        if self.shallow.contains(&id) {
            commit.parents.clear();
        }
        Ok(commit)
    }

    fn tree_bytes(&mut self, id: CommitId) -> Result<Rc<[u8]>, Fault> {
        if let Some(bytes) = self.kept.get(&id) {
            return Ok(bytes.clone());
        }
        let object = self.odb.read(id).map_err(|error| fault(ObjectType::Tree, id, error))?;
        if object.kind() != ObjectType::Tree {
            return Err(Fault::Malformed(ObjectType::Tree, id));
        }
        let bytes: Rc<[u8]> = object.data().into();
        self.kept_size += bytes.len();
        if self.kept_size > MOST_KEPT {
            self.kept.clear();
            self.kept_size = bytes.len();
        }
        self.kept.insert(id, bytes.clone());
        Ok(bytes)
    }

    fn note(&mut self, id: CommitId, before: Option<&CommitId>) {
        if let Some(seen) = &mut self.seen {
            seen.push((id, before.copied()));
        }
    }
}

fn fault(kind: ObjectType, id: CommitId, error: git2::Error) -> Fault {
    match error.code() {
        git2::ErrorCode::NotFound => Fault::Missing(kind, id),
        _ => Fault::Unreadable(kind, id, error),
    }
}

/// A walk by date, newest first, that ends when only known commits are left.
#[derive(Default)]
struct Walk {
    heap: BinaryHeap<(i64, CommitId)>,
    found: Commits,
    known: HashSet<CommitId>,
    /// Commits that were new and no longer count in `fresh_left`.
    done: HashSet<CommitId>,
    /// The number of commits in the heap that are not known.
    fresh_left: usize,
}

impl Walk {
    fn reach(&mut self, inspection: &Inspection<'_>, id: CommitId, is_known: bool) -> Result<(), Fault> {
        let first = !self.found.contains_key(&id);
        if first {
            self.found.insert(id, inspection.commit(id));
        }
        let news = if is_known { self.known.insert(id) } else { first };
        if !news {
            return Ok(());
        }
        match self.found.get(&id) {
            Some(Ok(commit)) => {
                self.heap.push((commit.time, id));
                if !is_known {
                    self.fresh_left += 1;
                } else if !first && self.done.insert(id) {
                    self.fresh_left -= 1;
                }
                Ok(())
            }
            Some(Err(_)) if is_known => match self.found.remove(&id) {
                Some(Err(fault)) => Err(fault),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// An entry of a tree, in its stored form.
struct Entry<'t> {
    mode: u32,
    name: &'t [u8],
    id: CommitId,
}

impl Entry<'_> {
    fn kind(&self) -> ObjectType {
        match self.mode & 0o170_000 {
            0o040_000 => ObjectType::Tree,
            0o160_000 => ObjectType::Commit,
            _ => ObjectType::Blob,
        }
    }

    /// git sorts a folder as if its name ended with a slash.
    fn order(&self, other: &Entry<'_>) -> Ordering {
        let common = self.name.len().min(other.name.len());
        let end = |entry: &Entry<'_>| match entry.name.get(common) {
            Some(byte) => *byte,
            None if entry.kind() == ObjectType::Tree => b'/',
            None => 0,
        };
        let begins = self.name.get(..common).cmp(&other.name.get(..common));
        begins.then_with(|| end(self).cmp(&end(other)))
    }
}

/// The entries of a tree. Yields `None` for one that is cut off.
struct Entries<'t>(&'t [u8]);

impl<'t> Iterator for Entries<'t> {
    type Item = Option<Entry<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = split_entry(self.0);
        self.0 = entry.as_ref().map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry))
    }
}

fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let mode = u32::from_str_radix(std::str::from_utf8(bytes.get(..space)?).ok()?, 8).ok()?;
    let rest = bytes.get(space + 1..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (id, after) = rest.get(end + 1..)?.split_at_checked(20)?;
    Some((Entry { mode, name: rest.get(..end)?, id: CommitId::from_bytes(id).ok()? }, after))
}

/// What an older tree has at the same path as an entry, if it is of the same kind. In an unsorted tree it may not be
/// found; then more is checked than necessary.
fn counterpart<'t>(old: &mut std::iter::Peekable<Entries<'t>>, entry: &Entry<'_>) -> Option<CommitId> {
    loop {
        let at = old.peek()?.as_ref()?;
        match at.order(entry) {
            Ordering::Less => drop(old.next()),
            Ordering::Equal => return Some(at.id).filter(|_| at.kind() == entry.kind()),
            Ordering::Greater => return None,
        }
    }
}

fn parse_commit(data: &[u8]) -> Option<Commit> {
    let id = |line: &[u8], key: &[u8]| {
        let text = std::str::from_utf8(line.strip_prefix(key)?).ok().filter(|text| text.len() == 40)?;
        CommitId::from_str(text).ok()
    };
    let mut lines = data.split(|byte| *byte == b'\n').peekable();
    let tree = id(lines.next()?, b"tree ")?;
    let mut parents = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with(b"parent ")) {
        parents.push(id(line, b"parent ")?);
    }
    let committer = lines.take_while(|line| !line.is_empty()).find(|line| line.starts_with(b"committer "));
    let time = committer.and_then(|line| line.rsplit(|byte| *byte == b' ').nth(1));
    let time = time.and_then(|time| std::str::from_utf8(time).ok()?.parse().ok()).unwrap_or(0);
    Some(Commit { tree, parents, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_parsed_whatever_its_identities_are() {
        let (tree, parent) = ("1".repeat(40), "2".repeat(40));
        let text =
            format!("tree {tree}\nparent {parent}\nauthor A <<a> x\ncommitter C <c> 12 +0000\n\nparent of all\n");
        let commit = parse_commit(text.as_bytes()).unwrap();
        assert_eq!((commit.tree.to_string(), commit.parents.len(), commit.time), (tree.clone(), 1, 12));
        assert_eq!(parse_commit(format!("tree {tree}\nauthor\n").as_bytes()).unwrap().time, 0);
        assert!(parse_commit(b"tree 12\n").is_none());
    }

    #[test]
    fn entries_are_found_at_the_same_place() {
        let tree = |entries: &[(&str, &str, u8)]| -> Vec<u8> {
            let entry =
                |(mode, name, id): &(&str, &str, u8)| [format!("{mode} {name}\0").as_bytes(), &[*id; 20]].concat();
            entries.iter().flat_map(entry).collect()
        };
        let old = tree(&[("100644", "a", 1), ("40000", "b", 2), ("100644", "b0", 3)]);
        let new = tree(&[("100644", "b", 4), ("40000", "b", 5), ("100644", "b0", 3), ("100644", "c", 6)]);
        let mut olds = Entries(&old).peekable();
        let found: Vec<_> = Entries(&new).map(|entry| counterpart(&mut olds, &entry.unwrap())).collect();
        let id = |byte: u8| Some(CommitId::from_bytes(&[byte; 20]).unwrap());
        assert_eq!(found, [None, id(2), id(3), None]);
        assert!(Entries(&old[..30]).any(|entry| entry.is_none()));
    }
}
