//! Finds the files that git may convert: line endings, `$Id$`, filter drivers, encodings.
//!
//! The other files are read and written as they are, without asking libgit2 for the attributes of each path: it checks
//! every attribute file again for each question. Here each attribute file is read once, and only searched for the words
//! that matter, so that `merge=union` costs nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::tree_walk::TreeWalk;
use super::{Repo, special};
use crate::error::Error;
use crate::fs::files;
use crate::fs::walk::above;

const ATTRIBUTES: &str = ".gitattributes";

/// Words in the names of attributes that change a checkout. A macro may stand for one.
const AT_CHECKOUT: [&str; 5] = ["eol", "crlf", "ident", "filter", "[attr]"];

/// Words in the names of attributes that change what is committed.
const AT_COMMIT: [&str; 7] = ["text", "eol", "crlf", "ident", "filter", "[attr]", "working-tree-encoding"];

/// Finds the paths to which an attribute file with one of some words applies.
pub(super) struct Mentions<'r> {
    words: &'static [&'static str],
    /// Whether settings or attribute files outside the tree matter, which apply to all paths.
    everywhere: bool,
    folders: HashMap<OsString, bool>,
    repo: &'r Repo,
    source: Source<'r>,
}

/// Where the attribute files of folders are.
pub(super) enum Source<'r> {
    /// In a tree.
    Tree(TreeWalk<'r>),
    /// In the work tree, and for folders that are not there, in the index.
    Files(&'r git2::Index),
}

impl Repo {
    /// Finds which files of a tree are converted at checkout.
    pub(super) fn converted_at_checkout<'r>(&'r self, tree: &git2::Tree<'r>) -> Result<Mentions<'r>, Error> {
        let config = self.config()?;
        let eol = config.get_string("core.eol").unwrap_or_default();
        let by_setting = config.get_bool("core.autocrlf").unwrap_or(false) || eol.eq_ignore_ascii_case("crlf");
        let found = Mentions::of(self, &config, Source::Tree(self.walk_tree(tree)), &AT_CHECKOUT);
        Ok(Mentions { everywhere: found.everywhere || by_setting, ..found })
    }

    /// Finds which files of the work tree are converted when they are committed.
    pub(super) fn converted_at_commit<'r>(&'r self, index: &'r git2::Index) -> Result<Mentions<'r>, Error> {
        let config = self.config()?;
        // Besides a boolean it may be `input`.
        let by_setting =
            config.get_string("core.autocrlf").is_ok_and(|_| config.get_bool("core.autocrlf") != Ok(false));
        let found = Mentions::of(self, &config, Source::Files(index), &AT_COMMIT);
        Ok(Mentions { everywhere: found.everywhere || by_setting, ..found })
    }
}

impl<'r> Mentions<'r> {
    pub(super) fn of(
        repo: &'r Repo,
        config: &git2::Config,
        source: Source<'r>,
        words: &'static [&'static str],
    ) -> Self {
        let everywhere = special::attribute_files(repo, config).iter().any(|file| is_in_file(words, file));
        Self { words, everywhere, folders: HashMap::new(), repo, source }
    }

    /// Returns whether an attribute file with one of the words may apply to the file at a path.
    pub(super) fn apply_to(&mut self, path: &Path) -> Result<bool, Error> {
        if self.everywhere {
            return Ok(true);
        }
        self.in_folder(above(path))
    }

    fn in_folder(&mut self, folder: &Path) -> Result<bool, Error> {
        if let Some(known) = self.folders.get(folder.as_os_str()) {
            return Ok(*known);
        }
        let above = folder.parent().map_or(Ok(false), |above| self.in_folder(above))?;
        let found = above || self.at_folder(folder)?;
        self.folders.insert(folder.as_os_str().to_owned(), found);
        Ok(found)
    }

    fn at_folder(&mut self, folder: &Path) -> Result<bool, Error> {
        let (words, git) = (self.words, &self.repo.git);
        let walk = match &mut self.source {
            Source::Tree(walk) => walk,
            Source::Files(index) => {
                let file = folder.join(ATTRIBUTES);
                let stored = || index.get_path(&file, 0).and_then(|entry| git.find_blob(entry.id).ok());
                return Ok(is_in_file(words, &self.repo.place.work_dir.join(&file))
                    || stored().is_some_and(|blob| is_in(words, blob.content())));
            }
        };
        let Some(tree) = walk.folder(folder)? else { return Ok(false) };
        // On a file system that folds case, git reads `.GitAttributes` too.
        let files = tree.iter().filter(|entry| entry.name_bytes().eq_ignore_ascii_case(ATTRIBUTES.as_bytes()));
        for entry in files {
            // For a link, what counts is the file it leads to: libgit2 knows that one.
            let is_plain = entry.filemode() == 0o100_644 || entry.filemode() == 0o100_755;
            if !is_plain || git.find_blob(entry.id()).map_or(true, |blob| is_in(words, blob.content())) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an attribute file has one of the words. One that is there and can't be read may have it: libgit2 is asked then.
fn is_in_file(words: &[&str], file: &Path) -> bool {
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    files::read(file).map_or_else(|error| !absent.contains(&error.kind()), |text| is_in(words, &text))
}

fn is_in(words: &[&str], text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.windows(word.len()).any(|here| here == word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_by_union_is_not_converted() {
        assert!(!is_in(&AT_CHECKOUT, b"audit/* merge=union\n*.md text=auto\n*.png -diff\n"));
        assert!(!is_in(&AT_COMMIT, b"audit/* merge=union\n*.png -diff\n"));
        for text in
            ["*.txt eol=crlf", "*.txt crlf", "*.c ident", "*.bin filter=lfs -text", "[attr]mine text", "* EOL=CRLF"]
        {
            assert!(is_in(&AT_CHECKOUT, text.as_bytes()), "{text}");
            assert!(is_in(&AT_COMMIT, text.as_bytes()), "{text}");
        }
        assert!(is_in(&AT_COMMIT, b"* text=auto"));
    }
}
