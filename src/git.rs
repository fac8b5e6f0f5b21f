//! One repository, as far as a pass needs it.
//!
//! git2 is wrapped because its verbs are not ours: `reset` loses what it replaces, `push` says Ok when the server said
//! no, `fetch` keeps a branch that is gone. What the passes may do to a repository are the methods here and in the
//! modules below, each with its promise. A [`Repo`] can be had by whoever holds the lock, and by nobody else.

pub mod ages;
mod attributes;
pub mod changed;
pub mod checkout;
pub mod commit;
mod connectivity;
mod conversion;
pub mod error;
pub mod heal;
pub mod history;
mod identity;
mod incoming;
mod index;
mod index_flags;
pub mod job_tips;
pub mod kept;
pub mod let_go;
mod locate;
pub mod misplaced;
pub mod named;
mod odd;
pub mod outside;
pub mod pathspec;
mod place;
pub mod raw;
mod ready;
pub mod remote;
pub mod replay;
pub mod rescue;
pub(crate) mod rules;
mod scan;
pub mod scratch;
pub mod settings;
mod signing;
pub(crate) mod special;
mod stage;
mod survey;
pub mod tree_edit;
mod tree_walk;
pub mod upkeep;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

pub use git2::Oid as CommitId;

pub use self::heal::{aside, carry_over, damage};
pub use self::identity::Identity;
pub(crate) use self::identity::fit_to_sign;
pub use self::locate::{Place, find};
pub(crate) use self::locate::{check_format, open_git};
use crate::error::{Context, Error, Kind};
use crate::rescued::{RescueRef, Rescues};
use crate::state::dir::{PrivateDir, sync_dir};
use crate::state::lock::Held;
use crate::state::marker::Destination;

/// The names a pass works with.
#[derive(Clone, Debug)]
pub struct Names {
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// The remote.
    pub remote: String,
    /// Who commits, as the environment says; git's own configuration and `gitsync <gitsync@HOSTNAME>` come after.
    pub identity: Identity,
}

/// The two commits that a decision is about, carried from the look to the act so that an act touches only what was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The commit of the local branch; `None` while it is unborn.
    pub local: Option<CommitId>,
    /// The commit of that branch on the remote, as just asked; `None` where the remote has no such branch.
    pub remote: Option<CommitId>,
}

/// What the commit graph says of two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// They are one.
    pub same: bool,
    /// Local is an ancestor of remote.
    pub local_is_ancestor: bool,
    /// Remote is an ancestor of local.
    pub remote_is_ancestor: bool,
    /// Commits that local has and remote has not. Zero or not is exact; under clock skew the count itself may be off.
    pub ahead: usize,
    /// Commits that remote has and local has not; as exact.
    pub behind: usize,
}

/// A repository, under the lock.
pub struct Repo {
    pub(crate) git: git2::Repository,
    /// Where it is.
    pub place: Place,
    /// Its private folder.
    pub private: PrivateDir,
    /// The names this pass works with.
    pub names: Names,
    /// The rescues that were made.
    rescues_made: Rescues,
    /// Where a dry run fetched to.
    scratch: std::cell::RefCell<Option<incoming::Incoming>>,
    /// The local tip once a dry run had finished the follow that an earlier pass was cut short in.
    assumed_tip: std::cell::Cell<Option<CommitId>>,
    /// A second handle, for questions about history: the first one remembers where history was cut before it was fetched
    /// whole.
    uncut: std::cell::OnceCell<git2::Repository>,
    /// Whether it was said in this pass that a follow does not apply some attributes.
    said_unapplied: std::cell::Cell<bool>,
}

/// What can be told of a repository without the lock and without the network: a look, for `status`.
#[derive(Clone, Debug)]
pub struct Peek {
    /// The two tips, the remote's as last seen by a pass.
    pub heads: Heads,
    /// How they stand to one another, where both are known.
    pub relation: Option<Relation>,
    /// Every rescue reference with its commit, oldest first.
    pub rescues: Vec<(RescueRef, CommitId)>,
    /// Where a pass pushes to; `None` where there is no such remote.
    pub destination: Option<Destination>,
    /// Why a pass would refuse to touch the repository now.
    pub not_ready: Option<Error>,
}

/// Looks at a repository that a pass may be changing at this moment. Nothing is written, and nothing that can be changed
/// by anybody is opened for it.
///
/// # Errors
/// [`Kind::NotReady`] or [`Kind::Corrupt`] where it can't be read.
pub fn peek(place: &Place, names: Names) -> Result<Peek, Error> {
    let repo = Repo::open_unlocked(place, names)?;
    repo.hold_config()?;
    let heads = Heads { local: repo.local_tip()?, remote: repo.last_seen()? };
    let relation = match (heads.local, heads.remote) {
        (Some(local), Some(remote)) => Some(repo.relation(local, remote)?),
        (None, _) | (_, None) => None,
    };
    Ok(Peek {
        heads,
        relation,
        rescues: repo.rescues()?,
        destination: repo.destination().ok(),
        not_ready: repo.check_ready().err(),
    })
}

/// Refuses a FIFO, a socket or a device wherever a pass that mends the repository looks for a file.
///
/// # Errors
/// [`Kind::NotReady`], naming it.
pub fn check_files(place: &Place, names: &Names) -> Result<(), Error> {
    crate::ffi::prepare_libgit2(!place.named);
    special::check_files(place, names)?;
    special::check_all_refs(place)
}

impl Repo {
    /// Opens the repository. Nothing is judged or touched. `rescues`: where the rescues that are made here are collected.
    ///
    /// # Errors
    /// [`Kind::NotReady`] or [`Kind::Corrupt`] where libgit2 can't open it.
    pub fn open(place: &Place, _under: &Held, names: Names, rescues: &Rescues) -> Result<Self, Error> {
        Ok(Self { rescues_made: rescues.clone(), ..Self::open_unlocked(place, names)? })
    }

    fn open_unlocked(place: &Place, names: Names) -> Result<Self, Error> {
        crate::ffi::prepare_libgit2(!place.named);
        special::check_files(place, &names)?;
        let git = open_git(place)?;
        let grafts = place.git_dir.join("info/grafts");
        if std::fs::metadata(&grafts).is_ok_and(|meta| meta.len() > 0) {
            let what = format!("{} tells another history than the commits do; nothing was touched", grafts.display());
            return Err(Error::new(
                Kind::NotReady,
                what,
                "take it away (`git replace --convert-graft-file` keeps what it says)",
            ));
        }
        if git.is_bare() {
            let what = format!("{} is a bare repository: it has no files to keep in step", place.git_dir.display());
            let next =
                "`git config core.bare false` where its files are beside it, else name a clone of it with --repo";
            return Err(Error::new(Kind::NotReady, what, next));
        }
        if let Some(elsewhere) = git.workdir().filter(|dir| dir.canonicalize().is_ok_and(|dir| dir != place.work_dir)) {
            let what = format!(
                "core.worktree says that the files of {} are in {}",
                place.work_dir.display(),
                elsewhere.display()
            );
            return Err(Error::new(Kind::NotReady, what, "`git config --unset core.worktree`, or name that folder"));
        }
        let repo = Self {
            git,
            place: place.clone(),
            private: PrivateDir::of(&place.git_dir),
            names,
            rescues_made: Rescues::default(),
            scratch: None.into(),
            assumed_tip: None.into(),
            uncut: std::cell::OnceCell::new(),
            said_unapplied: false.into(),
        };
        repo.check_configured_files()?;
        Ok(repo)
    }

    /// The full name of the local branch.
    pub fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.names.branch)
    }

    /// The full name of the reference that remembers the remote's tip as last seen.
    pub fn tracking_ref(&self) -> String {
        format!("refs/remotes/{}/{}", self.names.remote, self.names.branch)
    }

    /// The commit of the local branch; `None` while it is unborn.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a reference that can't be read.
    pub fn local_tip(&self) -> Result<Option<CommitId>, Error> {
        if let Some(assumed) = self.assumed_tip.get() {
            return Ok(Some(assumed));
        }
        self.tip_of(&self.branch_ref())
    }

    /// The remote's tip as last seen, from an earlier pass.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a reference that can't be read.
    pub fn last_seen(&self) -> Result<Option<CommitId>, Error> {
        self.tip_of(&self.tracking_ref())
    }

    /// History has been fetched whole where it was cut: from here on it is seen whole.
    fn see_whole_history(&self) -> Result<(), Error> {
        let fresh = self.beside()?;
        // Set twice only where a second fetch found nothing more.
        let _ = self.uncut.set(fresh);
        Ok(())
    }

    /// The handle that knows history as it is now.
    pub(crate) fn history(&self) -> &git2::Repository {
        self.uncut.get().unwrap_or(&self.git)
    }

    pub(crate) fn tip_of(&self, name: &str) -> Result<Option<CommitId>, Error> {
        match self.git.refname_to_id(name) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(Error::git(format!("reading {name}"), &error)),
        }
    }

    /// What the commit graph says of the two heads; both must be here.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] where history is missing.
    pub fn relation(&self, local: CommitId, remote: CommitId) -> Result<Relation, Error> {
        if local == remote {
            return Ok(Relation { same: true, local_is_ancestor: true, remote_is_ancestor: true, ahead: 0, behind: 0 });
        }
        let local_is_ancestor = self.descends(remote, local)?;
        let remote_is_ancestor = self.descends(local, remote)?;
        let (ahead, behind) = self.ahead_behind(local, remote)?;
        Ok(Relation { same: false, local_is_ancestor, remote_is_ancestor, ahead, behind })
    }

    /// Whether history is cut here, as a shallow clone cuts it. Ancestry that is seen is true all the same; ancestry that is
    /// not seen may be missing.
    pub fn history_is_cut(&self) -> bool {
        self.history().is_shallow()
    }

    /// Whether `commit` is `tip` or one of its ancestors. One that is not here is not.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] where history is missing.
    pub fn contains(&self, tip: CommitId, commit: CommitId) -> Result<bool, Error> {
        if tip == commit {
            return Ok(true);
        }
        if !self.has_commit(commit) {
            return Ok(false);
        }
        self.descends(tip, commit)
    }

    /// Whether a commit is reachable from the branch or from the remote's tip as last seen, so that everything it needs is
    /// here. That the object exists would not be enough: git prunes unreachable objects one by one.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for references or history that can't be read.
    pub fn has_whole(&self, commit: CommitId) -> Result<bool, Error> {
        let doing = "looking for the remote's commit";
        let odb = self.git.odb().context(doing)?;
        let known = [self.last_seen()?, self.local_tip()?];
        if known.contains(&Some(commit)) {
            return Ok(true);
        }
        if !odb.exists(commit) {
            return Ok(false);
        }
        for known in known.into_iter().flatten() {
            let cut = connectivity::shallow_roots(self.git.commondir());
            // Not by libgit2's question whether it is a descendant, which wants all that lies before both.
            if connectivity::reaches(&odb, known, commit, cut).map_err(|fault| fault.ours(doing))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The branch that HEAD names, in full; `None` where it is detached.
    pub(crate) fn head_branch(&self) -> Result<Option<String>, Error> {
        let head = self.git.find_reference("HEAD").context("reading HEAD")?;
        Ok(head.symbolic_target().ok().flatten().map(str::to_owned))
    }

    /// git's configuration, read whole. Where a file can't be read, libgit2 1.9 hands out an entry that it never had, and
    /// the process ends by SIGSEGV; of what has been read nothing can fail.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(crate) fn config(&self) -> Result<git2::Config, Error> {
        let read = self.git.config().and_then(|mut config| config.snapshot());
        read.context("reading git's configuration")
    }

    /// Has libgit2 go by the configuration as it is now. It would look at each file again for each setting, and where one of
    /// these looks fails, libgit2 1.9 frees what it never had, or goes by a setting that nobody made and writes a file with other
    /// line endings. Nothing can be set through this handle from here on.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn hold_config(&self) -> Result<(), Error> {
        let config = self.config()?;
        settings::check_booleans(&self.place, &config)?;
        self.git.set_config(&config).context("reading git's configuration")
    }

    /// A second handle on the repository, which goes by the same configuration.
    ///
    /// # Errors
    /// Where the repository or the configuration can't be read.
    pub(crate) fn beside(&self) -> Result<git2::Repository, Error> {
        let beside = open_git(&self.place)?;
        beside.set_config(&self.config()?).context("reading git's configuration")?;
        Ok(beside)
    }

    /// [`Repo::hold_config`], read again from the files: a job may have changed it.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read_config_again(&self) -> Result<(), Error> {
        let doing = "reading git's configuration";
        let read = open_git(&self.place)?.config().and_then(|mut config| config.snapshot()).context(doing)?;
        self.git.set_config(&read).context(doing)
    }

    /// The index as it is on disk now.
    pub(crate) fn index(&self) -> Result<git2::Index, Error> {
        let doing = "reading the index";
        let mut index = self.git.index().context(doing)?;
        // A dry run's may be in memory alone.
        if index.path().is_some() {
            index.read(false).context(doing)?;
        }
        Ok(index)
    }

    /// Moves a reference, if it still is where we saw it.
    pub(crate) fn move_ref(&self, name: &str, from: Option<CommitId>, to: CommitId, why: &str) -> Result<(), Error> {
        if from == Some(to) {
            return Ok(());
        }
        self.objects_to_disk()?;
        let moved = match from {
            Some(from) => self.git.reference_matching(name, to, true, from, why),
            None => self.git.reference(name, to, false, why),
        };
        match moved {
            Ok(_) => self.ref_to_disk(name),
            Err(error) if matches!(error.code(), git2::ErrorCode::Modified | git2::ErrorCode::Exists) => {
                let what = format!("{name} was moved by somebody else in the middle of the pass");
                Err(Error::new(Kind::Busy, what, "the next pass looks anew"))
            }
            Err(error) => Err(Error::git(format!("moving {name}"), &error)),
        }
    }

    /// Waits until the folders of the objects are on disk. libgit2 syncs an object and the folder that it is in, and not that
    /// this folder is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn objects_to_disk(&self) -> Result<(), Error> {
        sync_dir(&self.git.commondir().join("objects")).context("waiting for the disk")
    }

    /// Waits until the folders that lead to a reference are on disk. libgit2 syncs the innermost alone.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn ref_to_disk(&self, name: &str) -> Result<(), Error> {
        // HEAD and the like are in no folder, and are one of a linked work tree's own.
        let above = Path::new(name).ancestors().skip(2).filter(|folder| folder.starts_with("refs"));
        for folder in above {
            sync_dir(&self.git.commondir().join(folder)).context("waiting for the disk")?;
        }
        Ok(())
    }
}

/// A path as libgit2 gives it.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// A path for people: what is not UTF-8 or would disturb a terminal is shown as an escape.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
