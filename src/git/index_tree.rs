//! Remembers which tree the index equals, so that a pass need not compare all of the one with all of the other.
//!
//! The note names the index file by the checksum at its end. Once somebody else writes the index, the note counts for
//! nothing, and the two are compared entry by entry.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::Repo;

/// The file with the note.
pub(super) const INDEX_TREE: &str = "index-tree";

impl Repo {
    /// The tree that the index on disk equals, if it is known.
    pub(super) fn tree_of_index(&self, index: &git2::Index) -> Option<git2::Oid> {
        let checksum = checksum(index)?;
        let note = self.private.read(INDEX_TREE).ok()??;
        let (noted, tree) = std::str::from_utf8(&note).ok()?.trim_end().split_once(' ')?;
        if noted != checksum.to_string() {
            return None;
        }
        git2::Oid::from_str(tree).ok()
    }

    /// Notes that the index on disk equals `tree`. If that fails, the next pass only takes longer.
    pub(super) fn note_tree_of_index(&self, index: &git2::Index, tree: git2::Oid) {
        if let Some(checksum) = checksum(index) {
            let _ = self.private.write(INDEX_TREE, format!("{checksum} {tree}\n").as_bytes());
        }
    }
}

/// The last 20 bytes of an index file; `None` where git writes no checksum (`index.skipHash`).
fn checksum(index: &git2::Index) -> Option<git2::Oid> {
    let mut file = File::open(index.path()?).ok()?;
    file.seek(SeekFrom::End(-20)).ok()?;
    let mut bytes = [0; 20];
    file.read_exact(&mut bytes).ok()?;
    git2::Oid::from_bytes(&bytes).ok().filter(|id| !id.is_zero())
}
