//! Keeps what a fetch brings apart until it was checked.
//!
//! The objects go into a folder of their own, which also sees the repository's objects. They join the repository once
//! everything that the fetched commit needs is here; otherwise they are removed with the folder. So a server that sends
//! half a history leaves nothing behind: neither a reference to it nor an object that a later fetch would take as proof
//! that the rest is here.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::connectivity::{self, Fault};
use super::{CommitId, Place, Repo, raw};
use crate::error::{Context, Error, Kind};
use crate::fs::files;
use crate::remote::protocol::fetch::Boundary;
use crate::state::dir::{remove_if_there, sync_dir};

/// `git prune` removes an old folder of this name, as it does its own.
const NAME: &str = "objects/tmp_objdir-gitsync";

/// A repository for one fetch, in a folder that is removed with it.
pub(crate) struct Incoming {
    pub(super) git: git2::Repository,
    folder: Folder,
    /// The commits that the repository's references point to.
    pub(super) known: Vec<CommitId>,
    /// The shallow roots of the repository.
    pub(super) shallow: HashSet<CommitId>,
    /// Those after the fetch.
    cut: HashSet<CommitId>,
    /// The repository is a partial clone.
    pub(super) partial: bool,
}

/// A folder that is removed when this is dropped.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// Makes a new folder for a dry run. Its name has an unused number, because process ids repeat in containers.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn temporary() -> Result<Self, Error> {
        let doing = "making a folder to fetch into";
        let us = std::process::id();
        for number in 0..1000 {
            let folder = std::env::temp_dir().join(format!("gitsync-dry-run-{us}-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.context(doing).map(|()| Self(folder)),
            }
        }
        Err(Error::io(
            doing,
            &io::Error::other("too many folders of earlier dry runs (gitsync-dry-run-*) are left there"),
        ))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = files::remove_folder(&self.0);
    }
}

/// How much history a fetch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// What is new.
    New,
    /// So many commits at most.
    Depth(u32),
    /// Also what a shallow clone left out.
    Whole,
}

/// Removes what a killed fetch left behind.
///
/// # Errors
/// If the file system fails.
pub(super) fn clear(place: &Place) -> Result<(), Error> {
    let folder = place.git_dir.join(NAME);
    files::remove_folder(&folder).context(format!("removing {}", folder.display()))
}

impl Incoming {
    /// Makes one inside the repository, for objects that are to join it.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn inside(repo: &Repo) -> Result<Self, Error> {
        clear(&repo.place)?;
        let folder = repo.place.git_dir.join(NAME);
        files::make_folders(&repo.place.git_dir.join("objects")).context("making the folder of objects")?;
        fs::DirBuilder::new().mode(0o700).create(&folder).context(format!("making {}", folder.display()))?;
        Self::make(repo, Folder(folder))
    }

    /// Makes one outside the repository, which stays unchanged: for dry runs.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn outside(repo: &Repo) -> Result<Self, Error> {
        Self::make(repo, Folder::temporary()?)
    }

    #[allow(clippy::disallowed_methods)]
    fn make(repo: &Repo, folder: Folder) -> Result<Self, Error> {
        let doing = "making a repository to fetch into";
        let (at, ours) = (&folder.0, repo.git.commondir());
        for name in ["objects/pack", "refs"] {
            files::make_folders(&at.join(name)).context(doing)?;
        }
        fs::write(at.join("HEAD"), "ref: refs/heads/none\n").context(doing)?;
        let flags = git2::RepositoryOpenFlags::BARE | git2::RepositoryOpenFlags::NO_SEARCH;
        let git = git2::Repository::open_ext(at, flags, std::iter::empty::<&std::ffi::OsStr>()).context(doing)?;
        let odb = git.odb().context(doing)?;
        odb.add_disk_alternate(&ours.join("objects").to_string_lossy()).context(doing)?;
        drop(odb);
        let shallow = connectivity::shallow_roots(ours);
        let partial = super::whole::is_partial(ours);
        Ok(Self { git, folder, known: repo.ref_tips()?, cut: shallow.clone(), shallow, partial })
    }

    /// Takes in where the server cuts history off.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn cut_at(&mut self, boundary: &Boundary, history: History) -> Result<(), Error> {
        let doing = "noting where history is cut";
        let odb = self.git.odb().context(doing)?;
        // Only what was asked for: otherwise a server could make us take a history for whole that is not.
        let unshallow = if history == History::New { &[][..] } else { &boundary.unshallow[..] };
        for id in unshallow {
            self.cut.remove(id);
        }
        for id in &boundary.shallow {
            let parents = odb.read(*id).ok().and_then(|object| raw::commit(object.data())).map(|commit| commit.parents);
            let lacks = |parents: &Vec<CommitId>| parents.iter().any(|parent| !odb.exists(*parent));
            // A remote that is shallow itself lists where, whether we have more of its history or not. What we have must not be
            // cut off: git would then delete it.
            if parents.is_some_and(|parents| matches!(history, History::Depth(_)) || lacks(&parents)) {
                self.cut.insert(*id);
            }
        }
        write_cut(&self.folder.0.join("shallow"), self.cut.iter()).context(doing)
    }

    /// Returns whether a commit is here with everything it needs, even if no reference reaches it: a fetch that was
    /// killed before it moved the reference leaves such a commit.
    pub(super) fn has_whole(&self, commit: CommitId) -> bool {
        self.has(commit) && self.check(commit, History::New).is_ok_and(|checked| checked.is_ok())
    }

    /// Returns whether the commit object itself is here.
    pub(super) fn has(&self, commit: CommitId) -> bool {
        self.git.odb().is_ok_and(|odb| odb.exists(commit))
    }

    /// Checks that everything the fetched commit needs is here. What the references reach is assumed to be complete,
    /// except for history below a shallow root that was fetched now.
    ///
    /// # Errors
    /// If the objects can't be read at all.
    pub(super) fn check(&self, tip: CommitId, history: History) -> Result<Result<(), Fault>, Error> {
        let odb = self.git.odb().context("reading what was fetched")?;
        let mut tips = vec![tip];
        let known = match history {
            History::New | History::Depth(_) => self.known.as_slice(),
            History::Whole => {
                tips.extend(self.shallow.difference(&self.cut));
                &[]
            }
        };
        Ok(connectivity::check(&odb, &tips, known, self.cut.clone(), self.partial))
    }

    /// Moves the fetched objects into the repository's, durably.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn join(self, repo: &Repo) -> Result<(), Error> {
        let doing = "taking in what was fetched";
        let (from, ours) = (self.folder.0.join("objects/pack"), repo.git.commondir());
        let to = ours.join("objects/pack");
        files::make_folders(&to).context(doing)?;
        let mut packs: Vec<PathBuf> = files::entries(&from).context(doing)?.iter().map(files::Entry::path).collect();
        // A pack exists for git once its index is there, so the index goes last.
        packs.sort_by_key(|file| file.extension().is_some_and(|kind| kind == "idx"));
        for file in &packs {
            if self.partial && file.extension().is_some_and(|kind| kind == "pack") {
                // git then knows that the remote has what these objects refer to.
                fs::write(to.join(file.with_extension("promisor").file_name().unwrap_or_default()), "")
                    .context(doing)?;
            }
            if let Some(name) = file.file_name() {
                fs::rename(file, to.join(name)).context(doing)?;
            }
        }
        if !packs.is_empty() {
            sync_dir(&to).context(doing)?;
        }
        self.move_cut(ours).context("noting where history is cut")?;
        repo.git.odb().and_then(|odb| odb.refresh()).context(doing)
    }

    /// Writes the shallow roots to the repository if the fetch has changed them. The objects are already on disk.
    fn move_cut(&self, ours: &Path) -> io::Result<()> {
        let now = &self.cut;
        if *now == self.shallow {
            return Ok(());
        }
        let (from, to) = (self.folder.0.join("shallow-now"), ours.join("shallow"));
        if now.is_empty() {
            remove_if_there(&to)?;
        } else {
            write_cut(&from, now.iter())?;
            fs::File::open(&from)?.sync_all()?;
            fs::rename(from, to)?;
        }
        sync_dir(ours)
    }

    /// A second handle, which sees the present shallow roots.
    ///
    /// # Errors
    /// If it can't be opened.
    #[allow(clippy::disallowed_methods)]
    pub(super) fn opened_again(&self) -> Result<git2::Repository, Error> {
        let flags = git2::RepositoryOpenFlags::BARE | git2::RepositoryOpenFlags::NO_SEARCH;
        let git = git2::Repository::open_ext(&self.folder.0, flags, std::iter::empty::<&std::ffi::OsStr>());
        git.context("reading what was fetched")
    }

    /// Makes the fetched objects visible to this process, and no other, as if they were the repository's, for as long
    /// as this exists.
    ///
    /// # Errors
    /// If they can't be read.
    pub(super) fn lend(&self, repo: &Repo) -> Result<(), Error> {
        let odb = repo.git.odb();
        odb.and_then(|odb| odb.add_disk_alternate(&self.folder.0.join("objects").to_string_lossy()))
            .context("reading what was fetched")
    }
}

/// Writes the shallow roots as git does; writes no file if there are none.
fn write_cut<'c>(path: &Path, commits: impl Iterator<Item = &'c CommitId>) -> io::Result<()> {
    let mut lines: Vec<String> = commits.map(|id| format!("{id}\n")).collect();
    lines.sort();
    if lines.is_empty() { Ok(()) } else { fs::write(path, lines.concat()) }
}

/// The error for an incomplete answer of the server: it may be temporary, and nothing of the answer is kept.
pub(super) fn incomplete(doing: &str, why: impl std::fmt::Display) -> Error {
    let next = "nothing here was changed, and the next pass fetches again; if this persists, `git fsck` the repository on the \
                server (a shallow one needs `git fetch --unshallow`), or push what it lacks from a complete clone";
    Error::new(Kind::Unreachable, format!("{doing}: what the server sent is incomplete: {why}"), next)
}

/// The error for a history from the server that git itself could not follow.
pub(super) fn not_well_formed(doing: &str, why: impl std::fmt::Display) -> Error {
    let next = "nothing here was changed; `git fsck` the repository on the server, and push a history without it";
    Error::new(Kind::Refused, format!("{doing}: what the server sent can't be used: {why}"), next)
}
