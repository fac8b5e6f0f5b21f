//! Writes files of a commit to a folder in the private folder, with the content and modes that git gives them.
//!
//! Files that git does not convert are written here, with one handle per folder, on two threads if there are many.
//! libgit2 checks out the rest.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::tree_walk::{ByPath, Changes, TreeEntry, Want};
use super::{CommitId, Repo, about};
use crate::error::{Context, Error, Kind};
use crate::fs::dir::{Dir, Found, last};
use crate::fs::files;
use crate::fs::walk::{Reached, Walk};
use crate::watchdog::step;

pub(super) const STAGING: &str = "staging";

pub(super) const STAGING_OLD: &str = "staging-old";

const LINK: u32 = 0o120_000;

/// From this many files on, a second thread pays off: it needs a repository handle of its own.
const FOR_TWO_THREADS: usize = 2_000;

/// Files of a commit, written to a folder in the private folder.
pub(super) struct Staged {
    pub(super) dir: Dir,
    /// The files written unconverted, with their stat data.
    pub(super) found: ByPath<Found>,
    /// What git converted, so that its bytes are not those of the blob.
    pub(super) converted: BTreeSet<PathBuf>,
}

impl Repo {
    /// Writes the files of a commit that `changes` wants to a folder in the private folder, as git would write them to
    /// the work tree.
    pub(super) fn stage(&self, commit: CommitId, changes: &Changes, name: &str) -> Result<Staged, Error> {
        step("checking files out into the staging folder");
        let mut staged = self.begin_staging(name)?;
        let tree = self.tree_of(commit)?;
        let mut conversions = self.converted_at_checkout(&tree)?;
        let links = self.config()?.get_bool("core.symlinks").unwrap_or(true);
        let mut plain = Vec::new();
        for (path, want) in changes {
            let (Want::Blob(entry), path) = (want, Path::new(path)) else { continue };
            if conversions.apply_to(path)? || (entry.mode == LINK && !links) {
                staged.converted.insert(path.to_owned());
            } else {
                plain.push((path, *entry));
            }
        }
        staged.found = self.write_plain(&staged.dir, &plain)?;
        self.check_out(&tree, &staged.converted, name)?;
        let mut walk = Walk::below(&staged.dir).context("opening the staging folder")?;
        for path in &staged.converted {
            let doing = about("looking at {} in the staging folder", path);
            if let Reached::There(folder) = walk.parent_of(path).context(doing)? {
                staged.found.extend(
                    folder.look(last(path)).context(doing)?.map(|found| (path.clone().into_os_string(), found)),
                );
            }
        }
        Ok(staged)
    }

    /// Like [`Repo::stage`], for those of `paths` that git converts.
    pub(super) fn stage_converted<'a>(
        &self,
        commit: CommitId,
        paths: impl Iterator<Item = &'a PathBuf>,
        name: &str,
    ) -> Result<Staged, Error> {
        let mut staged = self.begin_staging(name)?;
        let tree = self.tree_of(commit)?;
        let mut conversions = self.converted_at_checkout(&tree)?;
        for path in paths {
            if conversions.apply_to(path)? {
                staged.converted.insert(path.clone());
            }
        }
        self.check_out(&tree, &staged.converted, name)?;
        Ok(staged)
    }

    fn begin_staging(&self, name: &str) -> Result<Staged, Error> {
        let folder = self.private.file(name);
        files::remove_folder(&folder).context("emptying the staging folder")?;
        std::fs::create_dir(&folder).context("making the staging folder")?;
        let dir = Dir::open(&folder).context("opening the staging folder")?;
        Ok(Staged { dir, found: ByPath::new(), converted: BTreeSet::new() })
    }

    /// Writes blobs unconverted.
    fn write_plain(&self, to: &Dir, entries: &[(&Path, TreeEntry)]) -> Result<ByPath<Found>, Error> {
        if entries.len() < FOR_TWO_THREADS {
            return Ok(write_blobs(&self.git, to, entries)?.into_iter().collect());
        }
        let (here, there) = entries.split_at(entries.len() / 2);
        let beside = self.beside()?;
        std::thread::scope(|scope| {
            let other = scope.spawn(move || write_blobs(&beside, to, there));
            let mut written = write_blobs(&self.git, to, here)?;
            let lost = |_| Error::retry("a thread that writes files died", "the next pass tries again");
            written.append(&mut other.join().map_err(lost)??);
            Ok(written.into_iter().collect())
        })
    }

    /// Lets libgit2 check out the files that it has to convert.
    ///
    /// Its work tree is the staging folder and its index is the commit's, so that `.gitattributes` come from the commit
    /// and not from the files being replaced.
    fn check_out(&self, tree: &git2::Tree<'_>, paths: &BTreeSet<PathBuf>, name: &str) -> Result<(), Error> {
        let doing = "checking files out into the staging folder";
        if paths.is_empty() {
            return Ok(());
        }
        let staging = self.private.file(name);
        let mut checkout = git2::build::CheckoutBuilder::new();
        checkout.force().recreate_missing(true).disable_pathspec_match(true).update_index(false).refresh(false);
        // libgit2 takes the backslash out of what all paths begin with, and then finds none of them. These two are no files, and begin
        // with nothing in common.
        checkout.path("\u{1}").path("\u{2}");
        for path in paths {
            self.check_linked_rules(tree, path, &staging)?;
            // Paths are matched exactly; one that the commit does not have is not an error and yields no file.
            checkout.path(path);
        }
        let beside = self.beside()?;
        beside.set_workdir(&staging, false).context(doing)?;
        let mut index = git2::Index::new().context(doing)?;
        beside.set_index(&mut index).context(doing)?;
        index.read_tree(tree).context(doing)?;
        let tree = beside.find_tree(tree.id()).context(doing)?;
        beside.checkout_tree(tree.as_object(), Some(&mut checkout)).context(doing)
    }

    pub(super) fn clear_staging(&self) -> Result<(), Error> {
        for name in [STAGING, STAGING_OLD] {
            files::remove_folder(&self.private.file(name)).context("removing the staging folder")?;
        }
        Ok(())
    }
}

/// Writes blobs below a folder, in order.
fn write_blobs(
    git: &git2::Repository,
    to: &Dir,
    entries: &[(&Path, TreeEntry)],
) -> Result<Vec<(OsString, Found)>, Error> {
    let odb = git.odb().context("opening the objects")?;
    let mut walk = Walk::below(to).context("opening the staging folder")?;
    let mut written = Vec::with_capacity(entries.len());
    for (path, entry) in entries {
        let doing = about("writing {} to the staging folder", path);
        let blob = odb.read(entry.id).context(doing)?;
        if blob.kind() != git2::ObjectType::Blob {
            let what = format!("{}: {} is a {} and should be a blob", doing, entry.id, blob.kind());
            return Err(Error::new(Kind::Corrupt, what, "run `gitsync init-sync`: it fetches what is damaged again"));
        }
        let folder = walk.make_parent_of(path, false).context(doing)?;
        let found = if entry.mode == LINK {
            folder.create_link(last(path), blob.data()).context(doing)?;
            folder.look(last(path)).context(doing)?
        } else {
            let mode = if entry.mode == 0o100_755 { 0o777 } else { 0o666 };
            let mut file = folder.create_file(last(path), mode).context(doing)?;
            file.write_all(blob.data()).context(doing)?;
            Some(Found::of(rustix::fs::fstat(&file).context(doing)?))
        };
        written.extend(found.map(|found| (path.as_os_str().to_owned(), found)));
    }
    Ok(written)
}
