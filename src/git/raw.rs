//! Parses commits and trees from their bytes, without libgit2's stricter checks.
//!
//! Old histories contain what git reads and libgit2 refuses: an author without an address, an impossible date, a file
//! mode of 100664. Such a commit is followed as git follows it, so what a pass needs of it (its tree, its parents) is
//! parsed here. gitsync itself writes nothing like that.

use super::CommitId;

/// What a pass needs of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCommit {
    /// Its tree.
    pub tree: CommitId,
    /// Its parents, in their order.
    pub parents: Vec<CommitId>,
}

/// One entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEntry<'t> {
    /// The mode as stored: not always one that git writes today.
    pub mode: u32,
    /// The name's bytes.
    pub name: &'t [u8],
    /// The object.
    pub id: CommitId,
}

const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const SUBMODULE: u32 = 0o160_000;

impl RawEntry<'_> {
    /// Returns whether it is a tree.
    pub fn is_folder(&self) -> bool {
        self.mode & TYPE == FOLDER
    }

    /// Returns whether it is a commit of another repository.
    pub fn is_submodule(&self) -> bool {
        canonical(self.mode) == SUBMODULE
    }
}

/// The mode that git reads a stored mode as, and writes itself.
pub fn canonical(mode: u32) -> u32 {
    match mode & TYPE {
        FILE if mode & 0o100 == 0 => 0o100_644,
        FILE => 0o100_755,
        LINK => LINK,
        FOLDER => FOLDER,
        _ => SUBMODULE,
    }
}

/// Parses a commit; `None` if git can't read it either.
pub fn commit(bytes: &[u8]) -> Option<RawCommit> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let tree = id_after(lines.next()?, b"tree ")?;
    let parents = lines.map_while(|line| id_after(line, b"parent ")).collect();
    Some(RawCommit { tree, parents })
}

fn id_after(line: &[u8], word: &[u8]) -> Option<CommitId> {
    let hex = line.strip_prefix(word)?;
    (hex.len() == 40).then(|| std::str::from_utf8(hex).ok().and_then(|hex| CommitId::from_str(hex).ok())).flatten()
}

/// Parses a tree; `None` if git can't read it either.
pub fn tree(bytes: &[u8]) -> Option<Vec<RawEntry<'_>>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let (digits, after) = rest.split_at(space);
        let mode = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
        let after = after.get(1..)?;
        let end = after.iter().position(|byte| *byte == 0)?;
        let (name, after) = after.split_at(end);
        let id = CommitId::from_bytes(after.get(1..21)?).ok()?;
        if name.is_empty() {
            return None;
        }
        entries.push(RawEntry { mode, name, id });
        rest = after.get(21..)?;
    }
    Some(entries)
}

/// git's order of tree entries: a folder sorts as if its name ended with a slash.
pub fn order((one, one_is_folder): (&[u8], bool), (other, other_is_folder): (&[u8], bool)) -> std::cmp::Ordering {
    let common = one.len().min(other.len());
    let after = |name: &[u8], folder: bool| name.get(common).copied().unwrap_or(if folder { b'/' } else { 0 });
    one.get(..common)
        .cmp(&other.get(..common))
        .then_with(|| after(one, one_is_folder).cmp(&after(other, other_is_folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_read_whatever_its_people_are_called() {
        let (tree, parent) = ("1".repeat(40), "2".repeat(40));
        let text = format!("tree {tree}\nparent {parent}\nauthor nobody 99999999999999999999 +9999\n\nm\n");
        let read = commit(text.as_bytes()).unwrap();
        assert_eq!((read.tree.to_string(), read.parents.len()), (tree, 1));
        assert_eq!(commit(b"tree 12\n"), None);
    }

    #[test]
    fn a_folder_comes_where_its_name_with_a_slash_would() {
        let sorted: [(&[u8], bool); 5] = [(b"a", false), (b"a-b", false), (b"a", true), (b"a0", false), (b"b", false)];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(order(*one, *other), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn modes_are_taken_for_what_git_takes_them_for() {
        let modes = [(0o100_664, 0o100_644), (0o100_600, 0o100_644), (0o100_775, 0o100_755), (0o40_755, 0o40_000)];
        for (written, taken) in modes {
            assert_eq!(canonical(written), taken);
        }
        let mut bytes = b"040000 folder\0".to_vec();
        bytes.extend([7; 20]);
        let entries = tree(&bytes).unwrap();
        assert!(entries[0].is_folder() && entries[0].name == b"folder");
        assert_eq!(tree(&bytes[..20]), None);
    }
}
