//! One repository, as far as a pass needs it.
//!
//! git2 is wrapped because its verbs are not ours: `reset` loses what it replaces, `push` says Ok when the server said
//! no, `fetch` keeps a branch that is gone. What the passes may do to a repository are the methods here and in the
//! modules below, each with its promise. A [`Repo`] can be had by whoever holds the lock, and by nobody else.

pub mod ages;
pub mod aside;
pub mod carry_over;
pub mod commit;
mod connectivity;
pub mod damage;
pub mod error;
pub mod heal;
pub mod history;
mod incoming;
pub mod job_tips;
pub mod let_go;
pub mod misplaced;
mod odd;
pub mod raw;
pub mod remote;
pub mod replay;
pub mod rescue;
pub(crate) mod rules;
pub mod settings;
pub(crate) mod special;
pub mod tree_dir;
pub mod tree_edit;
pub mod upkeep;
pub mod worktree;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
pub use git2::Oid as CommitId;

use self::error::Doing;
pub use self::error::{Error, Sort};
use crate::files;
use crate::lock::Held;
use crate::private::{PrivateDir, sync_dir};

/// Where a repository is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The top of the work tree, absolute, without symbolic links.
    pub work_dir: PathBuf,
    /// Its `.git` folder.
    pub git_dir: PathBuf,
    /// Whether the user named it, rather than its being found from the current folder. What is named is trusted, whoever
    /// owns it.
    pub named: bool,
}

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

/// Who the environment says commits.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Author's name.
    pub author_name: Option<String>,
    /// Author's e-mail address.
    pub author_email: Option<String>,
    /// Committer's name.
    pub committer_name: Option<String>,
    /// Committer's e-mail address.
    pub committer_email: Option<String>,
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
    /// Where a dry run fetched to.
    scratch: std::cell::RefCell<Option<incoming::Incoming>>,
    /// A second handle, for questions about history: the first one remembers where history was cut before it was fetched
    /// whole.
    uncut: std::cell::OnceCell<git2::Repository>,
}

/// What can be told of a repository without the lock and without the network: a look, for `status`.
#[derive(Clone, Debug)]
pub struct Peek {
    /// The two tips, the remote's as last seen by a pass.
    pub heads: Heads,
    /// How they stand to one another, where both are known.
    pub relation: Option<Relation>,
    /// Every rescue reference with its commit, oldest first.
    pub rescues: Vec<(String, CommitId)>,
    /// Where a pass pushes to; `None` where there is no such remote.
    pub destination: Option<remote::Destination>,
    /// Why a pass would refuse to touch the repository now.
    pub not_ready: Option<Error>,
}

/// Looks at a repository that a pass may be changing at this moment. Nothing is written, and nothing that can be changed
/// by anybody is opened for it.
///
/// # Errors
/// [`Sort::NotReady`] or [`Sort::Corrupt`] where it can't be read.
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
/// [`Sort::NotReady`], naming it.
pub fn check_files(place: &Place, names: &Names) -> Result<(), Error> {
    crate::ffi::prepare_libgit2(!place.named);
    special::check_files(place, names)?;
    special::check_all_refs(place)
}

/// Finds the repository, without opening it.
///
/// # Errors
/// [`Sort::NotReady`] where there is none, or none that gitsync can work in.
pub fn find(repo: Option<&Path>, here: &Path) -> Result<Place, Error> {
    let Some(named) = repo else {
        for folder in here.ancestors() {
            if folder.join(".git").symlink_metadata().is_ok() {
                return place(folder, false);
            }
        }
        return Err(Error::new(
            Sort::NotReady,
            format!("no git repository in {} or above it", here.display()),
            "name one with --repo, or make one with `gitsync init-sync --remote-url URL`",
        ));
    };
    let path = here.join(named);
    let work_dir = path.canonicalize().map_err(|error| {
        let what = format!("there is no {}: {error}", path.display());
        Error::new(
            Sort::NotReady,
            what,
            "make the repository with `gitsync init-sync --remote-url URL`, or mend --repo",
        )
    })?;
    if work_dir.join(".git").symlink_metadata().is_ok() {
        return place(&work_dir, true);
    }
    let next = match work_dir.ancestors().skip(1).find(|folder| folder.join(".git").symlink_metadata().is_ok()) {
        Some(outer) => format!(
            "it lies inside the repository {}, which is not taken in its place: name that one with --repo, or make one \
             here with `gitsync init-sync --remote-url URL`",
            outer.display()
        ),
        None => "make one here with `gitsync init-sync --remote-url URL`, or name another with --repo".into(),
    };
    let bare = work_dir.join("HEAD").is_file() && work_dir.join("objects").is_dir();
    if bare {
        let what = format!("{} is a bare repository: it has no files to keep in step", work_dir.display());
        return Err(Error::new(Sort::NotReady, what, "name a clone of it with --repo"));
    }
    Err(Error::new(Sort::NotReady, format!("{} is not a git repository", work_dir.display()), next))
}

fn place(folder: &Path, named: bool) -> Result<Place, Error> {
    let work_dir = folder.canonicalize().doing(format!("looking at {}", folder.display()))?;
    let dot_git = work_dir.join(".git");
    if dot_git.is_dir() {
        // As git has it, this may be a link to where the folder is.
        let git_dir = dot_git.canonicalize().doing(format!("looking at {}", dot_git.display()))?;
        return Ok(Place { git_dir, work_dir, named });
    }
    // A file says where the folder is (git init --separate-git-dir, submodules, linked work trees).
    let text = files::read(&dot_git).doing(format!("reading {}", dot_git.display()))?;
    let target = text.strip_prefix(b"gitdir: ").map(|rest| rest.trim_ascii_end().to_vec()).ok_or_else(|| {
        let what = format!("{} is neither a folder nor a pointer to one", dot_git.display());
        Error::new(Sort::NotReady, what, "take it away and run `gitsync init-sync`")
    })?;
    let git_dir = work_dir.join(OsString::from_vec(target));
    if git_dir.join("commondir").exists() {
        return Err(Error::new(
            Sort::NotReady,
            format!("{} is a linked work tree: it shares its branches with another folder", work_dir.display()),
            "run gitsync in a clone of its own: two passes in two work trees of one repository would share a lock file \
             and not a state",
        ));
    }
    let git_dir = git_dir.canonicalize().doing(format!("following {}", dot_git.display()))?;
    Ok(Place { work_dir, git_dir, named })
}

impl Repo {
    /// Opens the repository. Nothing is judged or touched.
    ///
    /// # Errors
    /// [`Sort::NotReady`] or [`Sort::Corrupt`] where libgit2 can't open it.
    pub fn open(place: &Place, _under: &Held, names: Names) -> Result<Self, Error> {
        Self::open_unlocked(place, names)
    }

    fn open_unlocked(place: &Place, names: Names) -> Result<Self, Error> {
        crate::ffi::prepare_libgit2(!place.named);
        special::check_files(place, &names)?;
        let git = open_git(place)?;
        let grafts = place.git_dir.join("info/grafts");
        if std::fs::metadata(&grafts).is_ok_and(|meta| meta.len() > 0) {
            let what = format!("{} tells another history than the commits do; nothing was touched", grafts.display());
            return Err(Error::new(
                Sort::NotReady,
                what,
                "take it away (`git replace --convert-graft-file` keeps what it says)",
            ));
        }
        if git.is_bare() {
            let what = format!("{} is a bare repository: it has no files to keep in step", place.git_dir.display());
            let next =
                "`git config core.bare false` where its files are beside it, else name a clone of it with --repo";
            return Err(Error::new(Sort::NotReady, what, next));
        }
        if let Some(elsewhere) = git.workdir().filter(|dir| dir.canonicalize().is_ok_and(|dir| dir != place.work_dir)) {
            let what = format!(
                "core.worktree says that the files of {} are in {}",
                place.work_dir.display(),
                elsewhere.display()
            );
            return Err(Error::new(Sort::NotReady, what, "`git config --unset core.worktree`, or name that folder"));
        }
        let repo = Self {
            git,
            place: place.clone(),
            private: PrivateDir::of(&place.git_dir),
            names,
            scratch: None.into(),
            uncut: std::cell::OnceCell::new(),
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
    /// [`Sort::Corrupt`] for a reference that can't be read.
    pub fn local_tip(&self) -> Result<Option<CommitId>, Error> {
        self.tip_of(&self.branch_ref())
    }

    /// The remote's tip as last seen, from an earlier pass.
    ///
    /// # Errors
    /// [`Sort::Corrupt`] for a reference that can't be read.
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
    /// [`Sort::Corrupt`] where history is missing.
    pub fn relation(&self, local: CommitId, remote: CommitId) -> Result<Relation, Error> {
        if local == remote {
            return Ok(Relation { same: true, local_is_ancestor: true, remote_is_ancestor: true, ahead: 0, behind: 0 });
        }
        let local_is_ancestor = self.descends(remote, local)?;
        let remote_is_ancestor = self.descends(local, remote)?;
        let (ahead, behind) = self.ahead_behind(local, remote)?;
        Ok(Relation { same: false, local_is_ancestor, remote_is_ancestor, ahead, behind })
    }

    /// What in a commit is left as it is, because it takes more than git to bring it about: a sentence each.
    ///
    /// # Errors
    /// Where the commit can't be read.
    pub fn left_as_it_is(&self, commit: CommitId) -> Result<Vec<&'static str>, Error> {
        let tree = self.tree_of(commit)?;
        let mut notes = Vec::new();
        if tree.get_name(".gitmodules").is_some() {
            notes
                .push("the repository has submodules: their folders are left as they are, gitsync does not fetch them");
        }
        let attributes = tree.get_name(".gitattributes").and_then(|entry| self.git.find_blob(entry.id()).ok());
        if attributes.is_some_and(|blob| blob.content().windows(10).any(|word| word == b"filter=lfs")) {
            notes.push("the repository has files under LFS: they are left as pointers, gitsync does not fetch them");
        }
        Ok(notes)
    }

    /// A file below a folder of the work tree that git tracks; where `ours` is false also one that git neither tracks nor
    /// ignores: somebody's work. `folder` is relative to the top.
    ///
    /// # Errors
    /// Where the index or the work tree can't be read.
    pub fn somebodys_file_in(&self, folder: &Path, ours: bool) -> Result<Option<PathBuf>, Error> {
        let doing = "looking for somebody's files in the public dir";
        let index = self.index()?;
        let tracked = index.iter().map(|entry| path_of(&entry.path)).find(|path| path.starts_with(folder));
        if tracked.is_some() || ours {
            return Ok(tracked);
        }
        self.check_rules_around(folder)?;
        let mut options = git2::DiffOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).disable_pathspec_match(true).pathspec(folder);
        let diff = self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).doing(doing)?;
        let mut untracked = diff.deltas().filter(|delta| delta.status() == git2::Delta::Untracked);
        Ok(untracked.find_map(|delta| delta.new_file().path_bytes().map(path_of)))
    }

    /// Whether history is cut here, as a shallow clone cuts it. Ancestry that is seen is true all the same; ancestry that is
    /// not seen may be missing.
    pub fn history_is_cut(&self) -> bool {
        self.git.is_shallow()
    }

    /// Whether `commit` is `tip` or one of its ancestors. One that is not here is not.
    ///
    /// # Errors
    /// [`Sort::Corrupt`] where history is missing.
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
    /// [`Sort::Corrupt`] for references or history that can't be read.
    pub fn has_whole(&self, commit: CommitId) -> Result<bool, Error> {
        let doing = "looking for the remote's commit";
        let odb = self.git.odb().doing(doing)?;
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

    /// Refuses a repository that a person or another program is in the middle of something with.
    ///
    /// # Errors
    /// [`Sort::NotReady`], saying what to do.
    pub fn check_ready(&self) -> Result<(), Error> {
        let heal = "or let `gitsync init-sync` do it: it keeps what is there under refs/gitsync/rescue/";
        let doing = match self.git.state() {
            git2::RepositoryState::Clean => None,
            git2::RepositoryState::Merge => Some(("a merge", "git merge --abort")),
            git2::RepositoryState::Revert | git2::RepositoryState::RevertSequence => {
                Some(("a revert", "git revert --abort"))
            }
            git2::RepositoryState::CherryPick | git2::RepositoryState::CherryPickSequence => {
                Some(("a cherry-pick", "git cherry-pick --abort"))
            }
            git2::RepositoryState::Bisect => Some(("a bisection", "git bisect reset")),
            git2::RepositoryState::Rebase
            | git2::RepositoryState::RebaseInteractive
            | git2::RepositoryState::RebaseMerge => Some(("a rebase", "git rebase --abort")),
            git2::RepositoryState::ApplyMailbox | git2::RepositoryState::ApplyMailboxOrRebase => {
                Some(("applying mail", "git am --abort"))
            }
        };
        if let Some((what, command)) = doing {
            let what = format!("{what} is in progress in {}; nothing was touched", self.place.work_dir.display());
            return Err(Error::new(Sort::NotReady, what, format!("finish it, or `{command}`, {heal}")));
        }
        self.check_branch_is_ours_alone()?;
        if self.config()?.get_bool("core.sparsecheckout").unwrap_or(false) {
            let what = "the work tree is sparse: files that are left out of it would be committed as deleted";
            return Err(Error::new(
                Sort::NotReady,
                what,
                "`git sparse-checkout disable`, or work in a clone of its own",
            ));
        }
        let branch = &self.names.branch;
        let symbolic = self
            .git
            .find_reference(&self.branch_ref())
            .ok()
            .and_then(|reference| reference.symbolic_target().ok().flatten().map(str::to_owned));
        if let Some(other) = symbolic {
            let what = format!("branch '{branch}' is a symbolic reference to {other}; nothing was touched");
            return Err(Error::new(Sort::NotReady, what, "name that branch with --branch, or make this one a branch"));
        }
        match self.head_branch()? {
            Some(name) if name == self.branch_ref() => Ok(()),
            Some(name) => {
                let short = name.strip_prefix("refs/heads/").unwrap_or(&name);
                let what = format!("the work tree is on branch '{short}', not on '{branch}'; nothing was touched");
                Err(Error::new(
                    Sort::NotReady,
                    what,
                    format!("`git switch {branch}`, or name the branch with --branch, {heal}"),
                ))
            }
            None => {
                let what = format!("HEAD is detached, not on branch '{branch}'; nothing was touched");
                Err(Error::new(Sort::NotReady, what, format!("`git switch {branch}`, {heal}")))
            }
        }
    }

    /// The branch that HEAD names, in full; `None` where it is detached.
    pub(crate) fn head_branch(&self) -> Result<Option<String>, Error> {
        let head = self.git.find_reference("HEAD").doing("reading HEAD")?;
        Ok(head.symbolic_target().ok().flatten().map(str::to_owned))
    }

    /// git's configuration, read whole. Where a file can't be read, libgit2 1.9 hands out an entry that it never had, and
    /// the process ends by SIGSEGV; of what has been read nothing can fail.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(crate) fn config(&self) -> Result<git2::Config, Error> {
        let read = self.git.config().and_then(|mut config| config.snapshot());
        read.doing("reading git's configuration")
    }

    /// Has libgit2 go by the configuration as it is now. It would look at each file again for each setting, and where one of
    /// these looks fails, libgit2 1.9 frees what it never had, or goes by a setting that nobody made and writes a file with other
    /// line endings. Nothing can be set through this handle from here on.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn hold_config(&self) -> Result<(), Error> {
        self.git.set_config(&self.config()?).doing("reading git's configuration")
    }

    /// A second handle on the repository, which goes by the same configuration.
    ///
    /// # Errors
    /// Where the repository or the configuration can't be read.
    pub(crate) fn beside(&self) -> Result<git2::Repository, Error> {
        let beside = open_git(&self.place)?;
        beside.set_config(&self.config()?).doing("reading git's configuration")?;
        Ok(beside)
    }

    /// [`Repo::hold_config`], read again from the files: a job may have changed it.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read_config_again(&self) -> Result<(), Error> {
        let doing = "reading git's configuration";
        let read = open_git(&self.place)?.config().and_then(|mut config| config.snapshot()).doing(doing)?;
        self.git.set_config(&read).doing(doing)
    }

    /// Author and committer of what gitsync commits.
    pub(crate) fn signatures(
        &self,
        when: DateTime<Utc>,
    ) -> Result<(git2::Signature<'static>, git2::Signature<'static>), Error> {
        let config = self.config()?;
        let configured = |key: &str| config.get_string(key).ok().and_then(|value| fit_to_sign(&value));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let who = &self.names.identity;
        let name = configured("user.name").unwrap_or_else(|| "gitsync".into());
        let email = configured("user.email").unwrap_or_else(|| format!("gitsync@{host}"));
        let time = git2::Time::new(when.timestamp(), 0);
        let sign = |env_name: Option<&String>, role_name: &str, env_email: Option<&String>, role_email: &str| {
            let told = |value: Option<&String>| value.and_then(|value| fit_to_sign(value));
            let name = told(env_name).or_else(|| configured(role_name)).unwrap_or_else(|| name.clone());
            let email = told(env_email).or_else(|| configured(role_email)).unwrap_or_else(|| email.clone());
            git2::Signature::new(&name, &email, &time).map_err(|error| {
                let what = format!("'{name} <{email}>' can't sign a commit: {}", error.message());
                Error::new(
                    Sort::NotReady,
                    what,
                    "mend GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL, or user.name and user.email",
                )
            })
        };
        let author = sign(who.author_name.as_ref(), "author.name", who.author_email.as_ref(), "author.email")?;
        let committer =
            sign(who.committer_name.as_ref(), "committer.name", who.committer_email.as_ref(), "committer.email")?;
        Ok((author, committer))
    }

    /// The index as it is on disk now.
    pub(crate) fn index(&self) -> Result<git2::Index, Error> {
        let doing = "reading the index";
        let mut index = self.git.index().doing(doing)?;
        index.read(false).doing(doing)?;
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
                Err(Error::new(Sort::Busy, what, "the next pass looks anew"))
            }
            Err(error) => Err(Error::git(format!("moving {name}"), &error)),
        }
    }

    /// Refuses a branch that a linked work tree has checked out: moved from here, its files there would look like a person's
    /// undoing of all that is new, and the next commit there would be that.
    ///
    /// # Errors
    /// [`Sort::NotReady`] where it is so.
    pub(crate) fn check_branch_is_ours_alone(&self) -> Result<(), Error> {
        let head = format!("ref: {}", self.branch_ref());
        for entry in files::entries_if_any(&self.git.commondir().join("worktrees")) {
            let linked = entry.path();
            let text = |name: &str| files::read_to_string(&linked.join(name)).unwrap_or_default().trim().to_owned();
            let dot_git = text("gitdir");
            // One that was removed by hand is only remembered.
            if text("HEAD") == head && Path::new(&dot_git).exists() {
                let there = Path::new(&dot_git).parent().unwrap_or(Path::new(&dot_git)).display().to_string();
                let what = format!("'{}' is checked out in the linked work tree {there} too", self.names.branch);
                let next = format!("`git worktree remove {there}`, or `git switch` it to a branch of its own");
                return Err(Error::new(Sort::NotReady, what, next));
            }
        }
        Ok(())
    }

    /// Waits until the folders of the objects are on disk. libgit2 syncs an object and the folder that it is in, and not that
    /// this folder is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn objects_to_disk(&self) -> Result<(), Error> {
        sync_dir(&self.git.commondir().join("objects")).doing("waiting for the disk")
    }

    /// Waits until the folders that lead to a reference are on disk. libgit2 syncs the innermost alone.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn ref_to_disk(&self, name: &str) -> Result<(), Error> {
        // HEAD and the like are in no folder, and are one of a linked work tree's own.
        let above = Path::new(name).ancestors().skip(2).filter(|folder| folder.starts_with("refs"));
        for folder in above {
            sync_dir(&self.git.commondir().join(folder)).doing("waiting for the disk")?;
        }
        Ok(())
    }
}

/// Refuses a repository in a format that libgit2 does not read, such as SHA-256 objects or reftable. It is sound, and what
/// heals damage must not come near it.
pub(crate) fn check_format(git_dir: &Path) -> Result<(), Error> {
    let Ok(config) = git2::Config::open(&git_dir.join("config")) else { return Ok(()) };
    let version = config.get_i32("core.repositoryformatversion").unwrap_or(0);
    let unread = |name: &str, value: &str| match name {
        "extensions.noop"
        | "extensions.worktreeconfig"
        | "extensions.preciousobjects"
        | "extensions.relativeworktrees" => false,
        "extensions.objectformat" => !value.eq_ignore_ascii_case("sha1"),
        "extensions.refstorage" => !value.eq_ignore_ascii_case("files"),
        _ => true,
    };
    let mut found = (version > 1).then(|| format!("core.repositoryformatversion = {version}"));
    if version == 1
        && let Ok(mut entries) = config.entries(Some("^extensions\\."))
    {
        while let Some(Ok(entry)) = entries.next() {
            let (name, value) = (entry.name().unwrap_or_default(), entry.value().unwrap_or_default());
            if unread(&name.to_ascii_lowercase(), value) {
                found = Some(format!("{name} = {value}"));
            }
        }
    }
    found.map_or(Ok(()), |found| {
        let what = format!("the repository in {} has a format that gitsync can't read ({found})", git_dir.display());
        Err(Error::new(
            Sort::NotReady,
            what,
            "nothing was touched; use a clone in git's plain format (`git init --object-format=sha1 --ref-format=files`)",
        ))
    })
}

/// The one place where libgit2 opens a repository.
#[allow(clippy::disallowed_methods)]
pub(crate) fn open_git(place: &Place) -> Result<git2::Repository, Error> {
    git2::Repository::open(&place.work_dir).map_err(|error| {
        if error.code() == git2::ErrorCode::Owner {
            return Error::new(
                Sort::NotReady,
                format!("{} belongs to another user", place.work_dir.display()),
                "name it with --repo to trust it, or `git config --global --add safe.directory` it",
            );
        }
        if let Err(format) = check_format(&place.git_dir) {
            return format;
        }
        if error.class() == git2::ErrorClass::Os {
            // The system said no, to a file of ours or of the user's configuration: no reason to put a repository aside.
            return Error::git(format!("opening {}", place.work_dir.display()), &error);
        }
        let what = format!("{} can't be opened as a repository: {}", place.work_dir.display(), error.message());
        if let Some(setting) = settings::refused(place, &error) {
            return setting;
        }
        match Error::git(&what, &error) {
            error if matches!(error.sort, Sort::Exhausted | Sort::NotReady) => Error::new(error.sort, what, error.next),
            _ => Error::new(Sort::Corrupt, what, error::MAY_BE_DAMAGED),
        }
    })
}

/// A name or an address as git writes it into a commit: a line end or an angle bracket in it would make a commit that
/// nobody can read. Nothing where nothing is left; libgit2 takes what is needless off both ends.
pub(crate) fn fit_to_sign(text: &str) -> Option<String> {
    let fit: String = text.chars().filter(|c| !matches!(c, '\n' | '<' | '>')).collect();
    let needless = |c: char| c <= ' ' || ".,:;\"\\'".contains(c);
    (!fit.trim_matches(needless).is_empty()).then_some(fit)
}

/// A path as libgit2 gives it.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// A path for people: what is not UTF-8 or would disturb a terminal is shown as an escape.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
