//! Attributes that gitsync does not apply: filter drivers, Git LFS, encodings other than UTF-8.
//!
//! Neither libgit2 nor gitsync runs a filter driver or converts an encoding. A commit leaves such a file out, because
//! git would store other bytes. A follow writes it as it is stored, and warns once.
//!
//! libgit2 is asked only about paths below an attribute file that contains the name of one of the two attributes.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use git2::AttrCheckFlags;

use super::conversion::{Mentions, Source};
use super::{Repo, about, shown};
use crate::error::{Context, Error};

/// An attribute file that contains neither name does not set these attributes, not even through a macro.
const NAMES: [&str; 2] = ["filter", "working-tree-encoding"];

/// The most files that the warning of a follow names.
const NAMED: usize = 5;

/// The attribute of a path that gitsync does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Git LFS, whether or not it is set up here.
    Lfs,
    /// A filter driver that is set up in git's configuration.
    Driver(String),
    /// An encoding of the file in the work tree.
    Encoding(String),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lfs => write!(f, "filter=lfs (Git LFS)"),
            Self::Driver(name) => write!(f, "filter={name}"),
            Self::Encoding(name) => write!(f, "working-tree-encoding={name}"),
        }
    }
}

impl Asked {
    /// Why a file is left out of a commit, as a part of a sentence.
    pub(super) fn why(&self) -> String {
        format!(
            "has the attribute {self}, which gitsync does not apply, so that git would commit other bytes (commit and push it \
             with git)"
        )
    }
}

/// Looks up the attributes of files: in the work tree's attribute files first, then in the index's, as `git add` does.
pub(super) struct Attributes<'r> {
    repo: &'r Repo,
    config: git2::Config,
    mentions: Mentions<'r>,
}

impl<'r> Attributes<'r> {
    /// # Errors
    /// If git's configuration can't be read.
    pub(super) fn of(repo: &'r Repo, index: &'r git2::Index) -> Result<Self, Error> {
        let config = repo.config()?;
        let mentions = Mentions::of(repo, &config, Source::Files(index), &NAMES);
        Ok(Self { repo, config, mentions })
    }

    /// The attribute of a file that gitsync does not apply, if it has one.
    ///
    /// # Errors
    /// If the attributes can't be read.
    pub(super) fn asked(&mut self, path: &Path) -> Result<Option<Asked>, Error> {
        if !self.mentions.apply_to(path)? {
            return Ok(None);
        }
        if let Some(driver) = self.value(path, "filter")? {
            if driver == "lfs" {
                return Ok(Some(Asked::Lfs));
            }
            if self.has_driver(&driver) {
                return Ok(Some(Asked::Driver(driver)));
            }
        }
        let encoding = self.value(path, "working-tree-encoding")?;
        Ok(encoding.filter(|name| !name.is_empty() && !is_utf8(name)).map(Asked::Encoding))
    }

    /// An attribute's value. git refuses an encoding that is set or unset without a value, and ignores such a filter,
    /// because no driver has that name.
    fn value(&self, path: &Path, name: &str) -> Result<Option<String>, Error> {
        let value = self.repo.git.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX);
        let value = value.context(about("reading the attributes of {}", path))?;
        Ok(match git2::AttrValue::always_bytes(value) {
            git2::AttrValue::String(text) => Some(text.to_owned()),
            git2::AttrValue::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            git2::AttrValue::True | git2::AttrValue::False if name == "filter" => None,
            git2::AttrValue::True => Some("true".to_owned()),
            git2::AttrValue::False => Some("false".to_owned()),
            git2::AttrValue::Unspecified => None,
        })
    }

    fn has_driver(&self, name: &str) -> bool {
        let command =
            |key: &str| self.config.get_string(&format!("filter.{name}.{key}")).is_ok_and(|it| !it.is_empty());
        // git fails on a required driver that has no command.
        let required = || self.config.get_bool(&format!("filter.{name}.required")).unwrap_or(false);
        ["clean", "smudge", "process"].into_iter().any(command) || required()
    }
}

impl Repo {
    /// Warns, once in a pass, about files that a follow wrote without applying their attributes.
    pub(super) fn say_unapplied<'a>(&self, written: impl Iterator<Item = &'a Path>) {
        if self.said_unapplied.get() {
            return;
        }
        // The follow is done: an attribute file that can't be read does not make it fail.
        if let Err(error) = self.look_for_unapplied(written) {
            tracing::warn!(next = %error.next, "{}", error.what);
        }
    }

    fn look_for_unapplied<'a>(&self, written: impl Iterator<Item = &'a Path>) -> Result<(), Error> {
        let index = self.index()?;
        let mut attributes = Attributes::of(self, &index)?;
        let (mut paths, mut all) = (Vec::new(), BTreeSet::new());
        for path in written {
            let Some(asked) = attributes.asked(path)? else { continue };
            // git applies no attributes to a symbolic link.
            if index.get_path(path, 0).is_some_and(|entry| entry.mode & 0o170_000 == 0o100_000) {
                paths.push(shown(path));
                all.insert(asked.to_string());
            }
        }
        if paths.is_empty() {
            return Ok(());
        }
        self.said_unapplied.set(true);
        let (count, more) = (paths.len(), if paths.len() > NAMED { ", …" } else { "" });
        paths.truncate(NAMED);
        tracing::warn!(
            paths = count,
            next = "where they are needed: `git lfs pull` for LFS, else remove the file and `git checkout -- FILE`",
            "gitsync does not apply {}; files are written as they are stored: {}{more}",
            all.into_iter().collect::<Vec<_>>().join(", "),
            paths.join(", ")
        );
        Ok(())
    }
}

/// Compares as git does: `UTF-8`, `utf8` and `Utf-8` are the same.
fn is_utf8(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().as_str(), "utf-8" | "utf8")
}
