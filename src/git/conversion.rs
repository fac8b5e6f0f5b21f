//! Finds the files that git may convert at checkout: line endings, `$Id$`, filter drivers.
//!
//! The other files are written as they are, without asking libgit2 for the attributes of each path. The rules are read
//! once per folder, and only searched for the words that matter for a checkout, so that `merge=union` costs nothing.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::tree_walk::TreeWalk;
use super::{Repo, special};
use crate::error::Error;
use crate::fs::files;

const RULES: &str = ".gitattributes";

/// Words in the names of attributes that change a checkout. A macro may stand for one.
const WORDS: [&[u8]; 5] = [b"eol", b"crlf", b"ident", b"filter", b"[attr]"];

/// The paths of one tree that are converted.
pub(super) struct Conversions<'r> {
    /// Whether settings or rules outside the tree may convert any file.
    all: bool,
    folders: HashMap<PathBuf, bool>,
    walk: TreeWalk<'r>,
    git: &'r git2::Repository,
}

impl Repo {
    /// Finds which files of a tree are converted at checkout.
    pub(super) fn conversions<'r>(&'r self, tree: &git2::Tree<'r>) -> Result<Conversions<'r>, Error> {
        let config = self.config()?;
        let eol = config.get_string("core.eol").unwrap_or_default();
        let by_setting = config.get_bool("core.autocrlf").unwrap_or(false) || eol.eq_ignore_ascii_case("crlf");
        let outside = special::attribute_files(self, &config);
        let by_rules = outside.iter().any(|file| may_convert(file));
        Ok(Conversions {
            all: by_setting || by_rules,
            folders: HashMap::new(),
            walk: self.walk_tree(tree),
            git: &self.git,
        })
    }
}

impl Conversions<'_> {
    /// Returns whether the file at a path may be converted.
    pub(super) fn apply_to(&mut self, path: &Path) -> Result<bool, Error> {
        if self.all {
            return Ok(true);
        }
        self.in_folder(path.parent().unwrap_or(Path::new("")))
    }

    fn in_folder(&mut self, folder: &Path) -> Result<bool, Error> {
        if let Some(known) = self.folders.get(folder) {
            return Ok(*known);
        }
        let above = folder.parent().map_or(Ok(false), |above| self.in_folder(above))?;
        let converts = above || self.rules_in(folder)?;
        self.folders.insert(folder.to_owned(), converts);
        Ok(converts)
    }

    fn rules_in(&mut self, folder: &Path) -> Result<bool, Error> {
        let Some(tree) = self.walk.folder(folder)? else { return Ok(false) };
        // On a file system that folds case, git reads `.GitAttributes` too.
        let rules = tree.iter().filter(|entry| entry.name_bytes().eq_ignore_ascii_case(RULES.as_bytes()));
        for entry in rules {
            // For a link, what counts is the file it leads to: libgit2 knows that one.
            let is_plain = entry.filemode() == 0o100_644 || entry.filemode() == 0o100_755;
            if !is_plain || self.git.find_blob(entry.id()).map_or(true, |blob| has_word(blob.content())) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a file of rules may ask for a conversion. One that is there and can't be read may: libgit2 is asked then.
fn may_convert(file: &Path) -> bool {
    files::read(file).map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |text| has_word(&text))
}

fn has_word(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.windows(word.len()).any(|here| here == *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_by_union_is_not_converted() {
        assert!(!has_word(b"audit/* merge=union\n*.md text=auto\n*.png -diff\n"));
        for text in
            ["*.txt eol=crlf", "*.txt crlf", "*.c ident", "*.bin filter=lfs -text", "[attr]mine text", "* EOL=CRLF"]
        {
            assert!(has_word(text.as_bytes()), "{text}");
        }
    }
}
