//! Whether what the repository's own commits need is here, and whether it may be missing.

use std::collections::HashSet;
use std::path::Path;

use super::connectivity::{Depth, Inspection, shallow_roots};
use super::{CommitId, Repo};
use crate::error::{Context, Error};
use crate::fs::files;

/// Returns whether the repository may lack objects that its remote has promised.
pub(super) fn is_partial(git_dir: &Path) -> bool {
    let config = git2::Config::open(&git_dir.join("config"));
    let promises = |config: git2::Config| {
        let has = |pattern: &str| config.entries(Some(pattern)).is_ok_and(|mut found| found.next().is_some());
        has(r"^extensions\.partialclone$") || has(r"^remote\..*\.promisor$")
    };
    let is_mark = |file: &files::Entry| Path::new(file.name()).extension().is_some_and(|end| end == "promisor");
    config.is_ok_and(promises) || files::entries_if_any(&git_dir.join("objects/pack")).iter().any(is_mark)
}

impl Repo {
    /// Checks that everything a commit needs is here and can be read: every commit before it, its trees, its files.
    ///
    /// Loose files, which are the newest, are read in full. Of packed files only the header is read: a pack has a
    /// checksum of its own.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`], which names the object; the system's error if it denies reading.
    pub fn check_whole(&self, commit: CommitId) -> Result<(), Error> {
        let ours = self.git.commondir();
        let doing = format!("checking the history of {commit}");
        // This tells a commit that git can't parse from one that can't be read.
        self.raw_commit(commit)?;
        let odb = self.git.odb().context(&doing)?;
        let mut inspection = Inspection::new(&odb, shallow_roots(ours), Depth::Loose(ours.join("objects")));
        inspection = inspection.promised(is_partial(ours));
        inspection.history_and_files(commit).map_err(|fault| fault.ours(doing))
    }

    /// Checks that every commit reachable from a reference can be read.
    ///
    /// # Errors
    /// As for [`Repo::check_whole`].
    pub(super) fn check_histories(&self) -> Result<(), Error> {
        let doing = "checking the history of all references";
        let odb = self.git.odb().context(doing)?;
        let tips = self.ref_tips()?;
        let inspection = Inspection::new(&odb, shallow_roots(self.git.commondir()), Depth::Header);
        for (_, commit) in inspection.beyond(&tips, &HashSet::new()) {
            commit.map_err(|fault| fault.ours(doing))?;
        }
        Ok(())
    }
}
