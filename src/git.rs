//! The operations that a pass performs on one repository.
//!
//! git2 is wrapped because its operations do not do what gitsync needs: `reset` loses what it replaces, `push` returns
//! Ok although the server refused, `fetch` keeps the tracking ref of a branch that is gone. All that a pass may do to a
//! repository are the methods here and in the modules below, each with its promise. Only the holder of the lock can
//! open a [`Repo`].

pub mod ages;
mod attributes;
pub mod changed;
pub mod checkout;
pub mod commit;
mod connectivity;
mod conversion;
mod delta;
pub mod error;
pub mod fetch;
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
mod negotiation;
mod objects;
pub mod outside;
pub mod pack;
mod partial;
pub mod pathspec;
mod place;
pub mod push;
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
mod whole;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

pub use git2::Oid as CommitId;

pub use self::heal::{aside, carry_over, damage};
pub use self::identity::Identity;
pub(crate) use self::identity::fit_to_sign;
pub use self::incoming::History;
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
    /// Who commits, as the environment says. git's own configuration comes next, then `gitsync <gitsync@HOSTNAME>`.
    pub identity: Identity,
}

/// The two commits that a decision is about. The look passes them on to the act, so that an act touches only what was
/// judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The commit of the local branch; `None` while it is unborn.
    pub local: Option<CommitId>,
    /// The commit of that branch on the remote, just read from it; `None` where the remote has no such branch.
    pub remote: Option<CommitId>,
}

/// What the commit graph says about two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// They are the same commit.
    pub same: bool,
    /// Local is an ancestor of remote.
    pub local_is_ancestor: bool,
    /// Remote is an ancestor of local.
    pub remote_is_ancestor: bool,
    /// The number of commits that only local has. Whether it is zero is exact; under clock skew the number may be off.
    pub ahead: usize,
    /// The number of commits that only the remote has; as exact as `ahead`.
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
    /// What this pass rescued.
    rescues_made: Rescues,
    /// Where a dry run fetched to.
    scratch: std::cell::RefCell<Option<incoming::Incoming>>,
    /// For a dry run: the local tip as it would be after finishing an interrupted follow of an earlier pass.
    assumed_tip: std::cell::Cell<Option<CommitId>>,
    /// A second handle, for questions about history. The first one still believes in the shallow roots that it read
    /// before the full history was fetched.
    uncut: std::cell::OnceCell<git2::Repository>,
    /// The pack of this pass's push, if it is large.
    packed: std::cell::RefCell<Option<push::Packed>>,
    /// Whether this pass has already warned that a follow does not apply some attributes.
    said_unapplied: std::cell::Cell<bool>,
    /// The commit that this pass last found fit to be checked out here.
    found_fit: std::cell::Cell<Option<CommitId>>,
}

/// What `status` can read of a repository without the lock and without the network.
#[derive(Clone, Debug)]
pub struct Peek {
    /// The two tips, the remote's as last seen by a pass.
    pub heads: Heads,
    /// The relation of the two tips, where both are known.
    pub relation: Option<Relation>,
    /// Every rescue reference with its commit, oldest first.
    pub rescues: Vec<(RescueRef, CommitId)>,
    /// Where a pass pushes to; `None` where there is no such remote.
    pub destination: Option<Destination>,
    /// Why a pass would refuse to touch the repository now.
    pub not_ready: Option<Error>,
}

/// Reads a repository that a pass may be changing at the same time. Writes nothing, and hands out no [`Repo`].
///
/// # Errors
/// [`Kind::NotReady`] or [`Kind::Corrupt`] if it can't be read.
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

/// Refuses a FIFO, a socket or a device at any path where a pass that repairs the repository opens a file.
///
/// # Errors
/// [`Kind::NotReady`], which names the file.
pub fn check_files(place: &Place, names: &Names) -> Result<(), Error> {
    crate::ffi::prepare_libgit2(!place.named);
    special::check_files(place, names)?;
    special::check_all_refs(place)
}

impl Repo {
    /// Opens the repository. Judges and touches nothing.
    ///
    /// # Errors
    /// [`Kind::NotReady`] or [`Kind::Corrupt`] if libgit2 can't open it.
    pub fn open(place: &Place, _under: &Held, names: Names, rescues: &Rescues) -> Result<Self, Error> {
        Ok(Self { rescues_made: rescues.clone(), ..Self::open_unlocked(place, names)? })
    }

    fn open_unlocked(place: &Place, names: Names) -> Result<Self, Error> {
        crate::ffi::prepare_libgit2(!place.named);
        special::check_files(place, &names)?;
        let git = open_git(place)?;
        let grafts = place.git_dir.join("info/grafts");
        if std::fs::metadata(&grafts).is_ok_and(|meta| meta.len() > 0) {
            let what =
                format!("{} shows git another history than the commits record; nothing was touched", grafts.display());
            return Err(Error::new(
                Kind::NotReady,
                what,
                "remove it (`git replace --convert-graft-file` turns it into replace refs)",
            ));
        }
        if git.is_bare() {
            let what = format!("{} is a bare repository: it has no work tree to sync", place.git_dir.display());
            let next =
                "`git config core.bare false` if its work tree is around it, else name a clone of it with --repo";
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
            packed: None.into(),
            said_unapplied: false.into(),
            found_fit: None.into(),
        };
        repo.check_configured_files()?;
        Ok(repo)
    }

    /// The full name of the local branch.
    pub fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.names.branch)
    }

    /// The full name of the tracking ref, which records the remote's tip as last seen.
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

    /// The remote's tip as an earlier pass last saw it.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a reference that can't be read.
    pub fn last_seen(&self) -> Result<Option<CommitId>, Error> {
        self.tip_of(&self.tracking_ref())
    }

    /// The handle that sees history as it is now.
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

    /// What the commit graph says about the two heads. Both commits must be here.
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

    /// Returns whether this is a shallow clone. There, an ancestor that is found is a true one, but not all
    /// ancestors are found.
    pub fn history_is_cut(&self) -> bool {
        self.history().is_shallow()
    }

    /// Returns whether `commit` is `tip` or one of its ancestors. A commit that is not here is neither.
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

    /// Returns whether the branch or the remote's tip as last seen reaches a commit, so that everything the commit
    /// needs is here. Its object alone would prove nothing: git prunes unreachable objects one by one.
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
            // libgit2's own question for descendants would need all history before both commits.
            if connectivity::reaches(&odb, known, commit, cut).map_err(|fault| fault.ours(doing))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The full name of the branch that HEAD points to; `None` where HEAD is detached.
    pub(crate) fn head_branch(&self) -> Result<Option<String>, Error> {
        let head = self.git.find_reference("HEAD").context("reading HEAD")?;
        Ok(head.symbolic_target().ok().flatten().map(str::to_owned))
    }

    /// A snapshot of git's configuration. If libgit2 1.9 can't read a file, it returns an entry that was never
    /// allocated, and the process ends with SIGSEGV; reading from a snapshot can't fail.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn config(&self) -> Result<git2::Config, Error> {
        let read = self.git.config().and_then(|mut config| config.snapshot());
        read.context("reading git's configuration")
    }

    /// Makes libgit2 use the configuration as it is now. Otherwise it would check every file again for each setting. If
    /// such a check fails, libgit2 1.9 frees memory that it never allocated, or takes a setting that nobody made and
    /// writes a file with other line endings. After this nothing can be set through this handle.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn hold_config(&self) -> Result<(), Error> {
        let config = self.config()?;
        settings::check_booleans(&self.place, &config)?;
        self.git.set_config(&config).context("reading git's configuration")
    }

    /// A second handle on the repository, with the same configuration.
    ///
    /// # Errors
    /// If the repository or the configuration can't be read.
    pub(crate) fn beside(&self) -> Result<git2::Repository, Error> {
        let beside = open_git(&self.place)?;
        beside.set_config(&self.config()?).context("reading git's configuration")?;
        Ok(beside)
    }

    /// Like [`Repo::hold_config`], but reads the files again: a job may have changed them.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read_config_again(&self) -> Result<(), Error> {
        let doing = "reading git's configuration";
        let read = open_git(&self.place)?.config().and_then(|mut config| config.snapshot()).context(doing)?;
        self.git.set_config(&read).context(doing)
    }

    /// The index as it is on disk now.
    pub(crate) fn index(&self) -> Result<git2::Index, Error> {
        let doing = "reading the index";
        let mut index = self.git.index().context(doing)?;
        // A dry run's index may exist in memory only.
        if index.path().is_some() {
            index.read(false).context(doing)?;
        }
        Ok(index)
    }

    /// Moves a reference if it still is where we saw it.
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
                Err(Error::new(Kind::Busy, what, "the next pass looks again"))
            }
            Err(error) => Err(Error::git(format!("moving {name}"), &error)),
        }
    }

    /// Syncs the objects folder. libgit2 syncs an object and the folder it is in, but not the entry of that folder in
    /// its parent.
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn objects_to_disk(&self) -> Result<(), Error> {
        sync_dir(&self.git.commondir().join("objects")).context("waiting for the disk")
    }

    /// Syncs the folders above a reference. libgit2 syncs only the innermost one.
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn ref_to_disk(&self, name: &str) -> Result<(), Error> {
        // HEAD and its like are in no such folder, and each linked work tree has its own.
        let above = Path::new(name).ancestors().skip(2).filter(|folder| folder.starts_with("refs"));
        for folder in above {
            sync_dir(&self.git.commondir().join(folder)).context("waiting for the disk")?;
        }
        Ok(())
    }
}

/// A path from the bytes that libgit2 gives.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// A path for people to read: bytes that are not UTF-8 and control characters are shown as U+FFFD.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What is being done to a path, for an error. The text is put together only if it is needed: a pass may do it a hundred
/// thousand times.
#[derive(Clone, Copy)]
pub(crate) struct About<'p> {
    text: &'static str,
    path: &'p Path,
}

/// `text` has `{}` where the path belongs.
pub(crate) fn about<'p>(text: &'static str, path: &'p Path) -> About<'p> {
    About { text, path }
}

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text.split_once("{}").unwrap_or((self.text, ""));
        write!(f, "{before}{}{after}", shown(self.path))
    }
}
