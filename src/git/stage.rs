//! Writes files of a commit to a folder in the private folder, with the content and modes that git gives them.
//!
//! Files that git does not convert are written here, with one handle per folder, on two threads if there are many.
//! libgit2 checks out the rest.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::TrySendError;

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

/// From this many files on, a second thread pays off.
const FOR_TWO_THREADS: usize = 500;

/// The most files that are handed to the other thread at once.
const BATCH: usize = 128;

/// With this many bytes a batch is full.
const BATCH_BYTES: usize = 1 << 20;

/// The most batches that wait for the other thread.
const BATCHES: usize = 4;

/// Files to be written, with their content.
type Batch<'p> = Vec<(&'p Path, TreeEntry, Vec<u8>)>;

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

    /// Writes blobs unconverted. If there are many, this thread reads them and another one writes; while that one has
    /// enough to do, this one writes too. Only one reads: libgit2 locks a pack for each read.
    fn write_plain(&self, to: &Dir, entries: &[(&Path, TreeEntry)]) -> Result<ByPath<Found>, Error> {
        let odb = self.git.odb().context("opening the objects")?;
        let mut here = Writer::below(to)?;
        if entries.len() < FOR_TWO_THREADS {
            for (path, entry) in entries {
                here.write(path, *entry, read_blob(&odb, path, entry.id)?.data())?;
            }
            return Ok(here.written.into_iter().collect());
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::sync_channel::<Batch<'_>>(BATCHES);
            let mut there = Writer::below(to)?;
            let other = scope.spawn(move || {
                receiver.into_iter().try_for_each(|batch| there.write_batch(batch)).map(|()| there.written)
            });
            let mut entries = entries.iter().peekable();
            while entries.peek().is_some() {
                let mut batch = Batch::new();
                let mut size = 0;
                while let Some((path, entry)) = entries.next_if(|_| batch.len() < BATCH && size < BATCH_BYTES) {
                    let blob = read_blob(&odb, path, entry.id)?;
                    size += blob.len();
                    if blob.len() >= BATCH_BYTES {
                        here.write(path, *entry, blob.data())?;
                    } else {
                        batch.push((path, *entry, blob.data().to_vec()));
                    }
                }
                match sender.try_send(batch) {
                    Ok(()) => {}
                    Err(TrySendError::Full(batch)) => here.write_batch(batch)?,
                    // It ended with an error.
                    Err(TrySendError::Disconnected(_)) => break,
                }
            }
            drop(sender);
            let lost = |_| Error::retry("a thread that writes files died", "the next pass tries again");
            let there = other.join().map_err(lost)??;
            Ok(here.written.into_iter().chain(there).collect())
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

/// Reads a blob.
fn read_blob<'o>(odb: &'o git2::Odb<'_>, path: &Path, id: git2::Oid) -> Result<git2::OdbObject<'o>, Error> {
    let doing = about("writing {} to the staging folder", path);
    let blob = odb.read(id).context(doing)?;
    if blob.kind() != git2::ObjectType::Blob {
        let what = format!("{doing}: {id} is a {} and should be a blob", blob.kind());
        return Err(Error::new(Kind::Corrupt, what, "run `gitsync init-sync`: it fetches what is damaged again"));
    }
    Ok(blob)
}

/// Writes files below a folder, and notes their stat data.
struct Writer {
    walk: Walk,
    written: Vec<(OsString, Found)>,
}

impl Writer {
    fn below(folder: &Dir) -> Result<Self, Error> {
        Ok(Self { walk: Walk::below(folder).context("opening the staging folder")?, written: Vec::new() })
    }

    fn write_batch(&mut self, batch: Batch<'_>) -> Result<(), Error> {
        batch.into_iter().try_for_each(|(path, entry, bytes)| self.write(path, entry, &bytes))
    }

    fn write(&mut self, path: &Path, entry: TreeEntry, bytes: &[u8]) -> Result<(), Error> {
        let doing = about("writing {} to the staging folder", path);
        let folder = self.walk.make_parent_of(path, false).context(doing)?;
        let found = if entry.mode == LINK {
            folder.create_link(last(path), bytes).context(doing)?;
            folder.look(last(path)).context(doing)?
        } else {
            let mode = if entry.mode == 0o100_755 { 0o777 } else { 0o666 };
            let mut file = folder.create_file(last(path), mode).context(doing)?;
            file.write_all(bytes).context(doing)?;
            Some(Found::of(rustix::fs::fstat(&file).context(doing)?))
        };
        self.written.extend(found.map(|found| (path.as_os_str().to_owned(), found)));
        Ok(())
    }
}
