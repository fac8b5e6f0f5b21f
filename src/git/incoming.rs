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
use super::{CommitId, Place, Repo};
use crate::error::{Context, Error, Kind};
use crate::fs::files;
use crate::state::dir::{remove_if_there, sync_dir};

/// `git prune` removes an old folder of this name, as it does its own.
const NAME: &str = "objects/tmp_objdir-gitsync";

/// A repository for one fetch, in a folder that is removed with it.
pub(crate) struct Incoming {
    pub(super) git: git2::Repository,
    folder: Folder,
    /// The commits that the repository's references point to.
    known: Vec<CommitId>,
    /// The shallow roots of the repository.
    shallow: HashSet<CommitId>,
    /// More shallow roots, for libgit2's walk only: [`Walk::Short`].
    cut_short: HashSet<CommitId>,
}

/// How far libgit2 walks our history to tell the server what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// To the end of history.
    Full,
    /// Up to the first commit that git can read and libgit2 can't: a malformed author or date would end the fetch. The
    /// server then sends more than is needed.
    Short,
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
pub(super) enum History {
    /// What is new.
    New,
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
    pub(super) fn inside(repo: &Repo, walk: Walk) -> Result<Self, Error> {
        clear(&repo.place)?;
        let folder = repo.place.git_dir.join(NAME);
        files::make_folders(&repo.place.git_dir.join("objects")).context("making the folder of objects")?;
        fs::DirBuilder::new().mode(0o700).create(&folder).context(format!("making {}", folder.display()))?;
        Self::make(repo, Folder(folder), walk)
    }

    /// Makes one outside the repository, which stays unchanged: for dry runs.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn outside(repo: &Repo, walk: Walk) -> Result<Self, Error> {
        Self::make(repo, Folder::temporary()?, walk)
    }

    /// Its references tell the server what need not be sent again, and `shallow` where history is cut off.
    #[allow(clippy::disallowed_methods)]
    fn make(repo: &Repo, folder: Folder, walk: Walk) -> Result<Self, Error> {
        let doing = "making a repository to fetch into";
        let (mut known, mut refs) = (Vec::new(), String::from("# pack-refs with: sorted\n"));
        let mut named = Vec::new();
        for reference in repo.git.references().context("reading the references")? {
            let reference = reference.context("reading the references")?;
            match (reference.name(), reference.peel_to_commit()) {
                (Ok(name), Ok(commit)) => {
                    named.push((name.to_owned(), commit.id()));
                    known.push(commit.id());
                }
                _ => known.extend(reference.target().filter(|target| repo.has_commit(*target))),
            }
        }
        named.sort();
        for (name, commit) in named {
            refs.push_str(&format!("{commit} {name}\n"));
        }
        let (at, ours) = (&folder.0, repo.git.commondir());
        for name in ["objects/pack", "refs"] {
            files::make_folders(&at.join(name)).context(doing)?;
        }
        fs::write(at.join("HEAD"), "ref: refs/heads/none\n").context(doing)?;
        fs::write(at.join("packed-refs"), refs).context(doing)?;
        let shallow = connectivity::shallow_roots(ours);
        let cut_short: HashSet<CommitId> = match walk {
            Walk::Full => HashSet::new(),
            Walk::Short => repo.children_of_odd(known.iter().copied())?.into_iter().collect(),
        };
        write_cut(&at.join("shallow"), shallow.union(&cut_short)).context(doing)?;
        // open_bare would not read the shallow roots.
        let flags = git2::RepositoryOpenFlags::BARE | git2::RepositoryOpenFlags::NO_SEARCH;
        let git = git2::Repository::open_ext(at, flags, std::iter::empty::<&std::ffi::OsStr>()).context(doing)?;
        let odb = git.odb().context(doing)?;
        odb.add_disk_alternate(&ours.join("objects").to_string_lossy()).context(doing)?;
        drop(odb);
        Ok(Self { git, folder, known, shallow, cut_short })
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
        let shallow = self.shallow_now();
        let mut tips = vec![tip];
        let known = match history {
            History::New => self.known.as_slice(),
            History::Whole => {
                tips.extend(self.shallow.difference(&shallow));
                &[]
            }
        };
        Ok(connectivity::check(&odb, &tips, known, shallow))
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

    /// The shallow roots of the repository after the fetch.
    fn shallow_now(&self) -> HashSet<CommitId> {
        let mut roots = connectivity::shallow_roots(&self.folder.0);
        roots.retain(|root| self.shallow.contains(root) || !self.cut_short.contains(root));
        roots
    }

    /// Writes the shallow roots to the repository if the fetch has changed them. The objects are already on disk.
    fn move_cut(&self, ours: &Path) -> io::Result<()> {
        let now = self.shallow_now();
        if now == self.shallow {
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
