//! The remote: reading its tip, fetching, and pushing under a lease.
//!
//! libgit2's success is not trusted. A fetch whose branch vanished returns Ok, a refused push returns Ok, a forced push
//! that lost a race returns Ok. So the tip is read first, the server's answer for our reference is checked, and what
//! the server advertises in that very push is compared with what we mean to overwrite.

use std::cell::RefCell;

use chrono::{DateTime, Utc};

use super::connectivity::Fault;
use super::error::is_systems;
use super::incoming::{History, Incoming, Walk, incomplete, not_well_formed};
use super::odd::{Beside, is_odd};
use super::{CommitId, Names, Repo};
use crate::error::{Context, Error, Kind};
use crate::remote::{self, Session};
use crate::rescued::RescueKind;
use crate::state::marker::Destination;

/// The most bytes kept of what a server says during a push.
const MOST_SAID: usize = 16 * 1024;

/// The remote of a repository, for one pass.
pub struct Remote<'r> {
    repo: &'r Repo,
    fetch: Session,
    push: Option<Session>,
    /// Refuses to push where the push URL is another repository's.
    push_url: Result<(), Error>,
}

/// What a fetch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Move it forward only.
    FastForward,
    /// Overwrite the exact tip that was judged, if it still is the tip.
    Overwrite,
}

impl Repo {
    /// Where this pass pushes to, according to git's configuration as it is now.
    ///
    /// # Errors
    /// If there is no such remote.
    pub fn destination(&self) -> Result<Destination, Error> {
        let Names { branch, remote: name, .. } = &self.names;
        let remote = self.git.find_remote(name).context(format!("reading the URL of remote '{name}'"))?;
        let clean = |bytes: &[u8]| remote::split_url_secret(&String::from_utf8_lossy(bytes)).0;
        Ok(Destination {
            branch: branch.clone(),
            remote: name.clone(),
            url: clean(remote.url_bytes()),
            push_url: remote.pushurl_bytes().filter(|push| *push != remote.url_bytes()).map(clean),
        })
    }

    /// The remote as configured in git, with `insteadOf` and `pushurl` applied.
    ///
    /// # Errors
    /// [`Kind::NotReady`] if there is no such remote; otherwise the transport's objection to its URL.
    pub fn remote(&self, options: &remote::Options) -> Result<Remote<'_>, Error> {
        let name = &self.names.remote;
        let remote = self.git.find_remote(name).map_err(|error| {
            let next = format!("`git remote add {name} URL`, or run `gitsync init-sync --remote-url URL`");
            let what = if error.code() == git2::ErrorCode::NotFound {
                format!("the repository has no remote '{name}'")
            } else {
                format!("remote '{name}' can't be used: {}", error.message())
            };
            Error::new(Kind::NotReady, what, next)
        })?;
        let config = self.config()?;
        let open = |url: &str| Session::open(url, &config, options.clone());
        let url = remote.url().map_err(|_| {
            Error::new(Kind::NotReady, format!("the URL of remote '{name}' is not UTF-8"), "`git remote set-url` it")
        })?;
        let push = remote.pushurl().ok().flatten();
        let Some(rewriting) = options.env.rewriting(&config) else {
            let push_url = remote::check_push_url(name, url, push, &self.place.work_dir);
            let push = push.filter(|push| *push != url).map(open).transpose()?;
            return Ok(Remote { repo: self, fetch: open(url)?, push, push_url });
        };
        // libgit2 has applied only the rewriting that it knows, which is not all of it.
        let stored = |key: &str| config.get_string(&format!("remote.{name}.{key}")).ok();
        let (url, push) = rewriting.apply(&stored("url").unwrap_or_default(), stored("pushurl").as_deref());
        let push_url = remote::check_push_url(name, &url, push.as_deref(), &self.place.work_dir);
        let push = push.filter(|push| *push != url).map(|push| open(&push)).transpose()?;
        Ok(Remote { repo: self, fetch: open(&url)?, push, push_url })
    }

    /// The remote's URL as configured; `None` if there is no such remote.
    ///
    /// # Errors
    /// If the configuration can't be read.
    pub fn stored_url(&self) -> Result<Option<String>, Error> {
        let config = self.config()?;
        match config.get_string(&format!("remote.{}.url", self.names.remote)) {
            Ok(url) => {
                // This registers the secret to be masked in logs.
                remote::split_url_secret(&url);
                Ok(Some(url).filter(|url| !url.is_empty()))
            }
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(Error::git("reading the remote's URL", &error)),
        }
    }

    /// Refuses a URL that no transport supports, before it replaces one that may work. `insteadOf` is applied first.
    ///
    /// # Errors
    /// The transport's objection to it.
    pub fn check_url(&self, url: &str) -> Result<(), Error> {
        let remote = self.git.remote_anonymous(url).context("reading the remote's URL")?;
        let url = remote.url().unwrap_or(url);
        let read = remote::Remote::parse(url, &self.place.work_dir);
        read.map(drop)
    }

    /// Removes the secret from the remote's push URL, if it has one. Returns whether there was one.
    ///
    /// # Errors
    /// If the configuration can't be read or written.
    pub fn clean_push_url(&self) -> Result<bool, Error> {
        let name = &self.names.remote;
        let Ok(stored) = self.config()?.get_string(&format!("remote.{name}.pushurl")) else { return Ok(false) };
        let (clean, secret) = remote::split_url_secret(&stored);
        if secret.is_none() {
            return Ok(false);
        }
        self.git.remote_set_pushurl(name, Some(&clean)).context(format!("setting the push URL of remote '{name}'"))?;
        Ok(true)
    }

    /// Sets the remote's URL. Creates the remote if it is missing.
    ///
    /// # Errors
    /// If the configuration can't be written, or git does not allow the URL.
    pub fn set_remote(&self, url: &str) -> Result<(), Error> {
        let name = &self.names.remote;
        let doing = format!("setting the URL of remote '{name}'");
        match self.stored_url()? {
            None => {
                self.git.remote(name, url).context(doing)?;
                let mut config = self.git.config().context("reading git's configuration")?;
                let branch = &self.names.branch;
                // A person's `git pull` and `git status` use these.
                let set = config
                    .set_str(&format!("branch.{branch}.remote"), name)
                    .and_then(|()| config.set_str(&format!("branch.{branch}.merge"), &self.branch_ref()));
                set.context("setting what the branch follows")
            }
            Some(stored) if stored != url => self.git.remote_set_url(name, url).context(doing),
            Some(_) => Ok(()),
        }
    }

    /// Writes the identity given by the environment into the repository's own configuration.
    ///
    /// # Errors
    /// If the configuration can't be written.
    pub fn set_identity(&self) -> Result<(), Error> {
        let who = &self.names.identity;
        let doing = "setting user.name and user.email";
        let configured = self.config()?;
        let mut config = self.git.config().context("reading git's configuration")?;
        for (key, value) in [("user.name", &who.author_name), ("user.email", &who.author_email)] {
            if let Some(value) = value.as_deref().and_then(super::fit_to_sign)
                && configured.get_string(key).ok().as_ref() != Some(&value)
            {
                config.set_str(key, &value).context(doing)?;
            }
        }
        Ok(())
    }

    /// Records the remote's tip as last seen. If its history was rewritten, first rescues the tip seen before, and
    /// returns that rescue.
    ///
    /// # Errors
    /// If references can't be read or written.
    pub fn remember_seen(&self, tip: CommitId, when: DateTime<Utc>) -> Result<(), Error> {
        let before = self.last_seen()?;
        if before == Some(tip) {
            return Ok(());
        }
        if let Some(before) = before
            // A missing or damaged tip can't be kept; that must not prevent recording the new one.
            && self.has_commit(before)
            && !self.descends(tip, before)?
        {
            let why = format!("the remote rewrote '{}'", self.names.branch);
            self.rescue(RescueKind::Remote, before, when, &why)?;
        }
        self.objects_to_disk()?;
        self.git
            .reference(&self.tracking_ref(), tip, true, "gitsync: seen")
            .context(format!("moving {}", self.tracking_ref()))?;
        self.ref_to_disk(&self.tracking_ref())
    }

    /// Rescues the remote's tip as last seen and deletes the tracking ref: the branch is gone there (init-sync).
    ///
    /// # Errors
    /// If references can't be read or written.
    pub fn forget_seen(&self, when: DateTime<Utc>) -> Result<(), Error> {
        let Some(before) = self.last_seen()? else { return Ok(()) };
        let why = format!("the remote has no branch '{}' any more", self.names.branch);
        self.rescue(RescueKind::Remote, before, when, &why)?;
        let mut reference = self.git.find_reference(&self.tracking_ref()).context("reading the remote's last tip")?;
        reference.delete().context("forgetting the remote's last tip")
    }
}

impl Remote<'_> {
    /// The remote's URL for logs, without secrets.
    pub fn display_url(&self) -> &str {
        self.fetch.display_url()
    }

    /// Refuses a branch that the remote lacks although it has others, and names those. With `create_branch`, refuses
    /// it only if a tag there has its name.
    ///
    /// # Errors
    /// [`Kind::Refused`] if the branch must not be created; otherwise as for [`Remote::tip`].
    pub fn check_may_be_missing(&self, create_branch: bool) -> Result<(), Error> {
        const NAMED: usize = 10;
        let ours = &self.repo.names.branch;
        let (branches, is_tag) = self.fetch.branches(ours)?;
        if create_branch {
            let what = format!("the remote has no branch '{ours}': it is a tag");
            let next = "name a branch with --branch; one that has a tag's name would be taken for the tag";
            return if is_tag { Err(Error::new(Kind::Refused, what, next)) } else { Ok(()) };
        }
        if branches.contains(ours) {
            let what = format!("the remote's '{ours}' was created while its branches were being listed");
            return Err(Error::new(Kind::Unreachable, what, "the next pass fetches it"));
        }
        let Some((default, others)) = branches.split_first() else { return Ok(()) };
        let mut named: Vec<&str> = std::iter::once(default.as_str()).chain(others.iter().map(String::as_str)).collect();
        let more = named.len().saturating_sub(NAMED);
        named.truncate(NAMED);
        let more = match more {
            0 => String::new(),
            // The list was cut off.
            _ if branches.len() + 2 >= remote::pktline::MOST_LISTED => " and many more".to_owned(),
            more => format!(" and {more} more"),
        };
        let tag = if is_tag { " (it is a tag)" } else { "" };
        // A server can give its branches any name.
        let named = remote::redact::text(named.join(", ").as_bytes());
        Err(Error::new(
            Kind::Refused,
            format!("the remote has no branch '{ours}'{tag}; its branches are {named}{more}"),
            format!("name one of them with --branch, or give --create-branch to have the first push make '{ours}'"),
        ))
    }

    /// Reads the tip of the branch from the remote. One round trip; writes nothing.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] or [`Kind::Refused`].
    pub fn tip(&self) -> Result<Option<CommitId>, Error> {
        self.fetch.tip(&self.repo.branch_ref())
    }

    /// Fetches the branch with its whole history, checks that nothing of it is missing, and records the tip.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] or [`Kind::Refused`]; also if the repository can't be written. Nothing has changed then.
    pub fn fetch(&self) -> Result<Option<CommitId>, Error> {
        self.fetch_deep(History::New)
    }

    /// Like [`Remote::fetch`], and also fetches all history that a shallow clone left out.
    ///
    /// # Errors
    /// As for [`Remote::fetch`].
    pub fn fetch_whole(&self) -> Result<Option<CommitId>, Error> {
        self.fetch_deep(History::Whole)
    }

    fn fetch_deep(&self, history: History) -> Result<Option<CommitId>, Error> {
        let make = |walk| Incoming::inside(self.repo, walk);
        let Some((incoming, tip)) = self.download(make, history)? else { return Ok(None) };
        incoming.join(self.repo)?;
        if history == History::Whole {
            self.repo.see_whole_history()?;
        }
        Ok(Some(tip))
    }

    /// Fetches the branch for a dry run, without writing to the repository: into a scratch repository whose objects
    /// only this process then sees as if they were the repository's.
    ///
    /// # Errors
    /// As for [`Remote::fetch`].
    pub fn fetch_beside(&self) -> Result<Option<CommitId>, Error> {
        self.fetch_beside_deep(History::New)
    }

    /// Like [`Remote::fetch_beside`], and also fetches all history that a shallow clone left out.
    ///
    /// # Errors
    /// As for [`Remote::fetch`].
    pub fn fetch_whole_beside(&self) -> Result<Option<CommitId>, Error> {
        self.fetch_beside_deep(History::Whole)
    }

    fn fetch_beside_deep(&self, history: History) -> Result<Option<CommitId>, Error> {
        let make = |walk| Incoming::outside(self.repo, walk);
        let Some((incoming, tip)) = self.download(make, history)? else { return Ok(None) };
        incoming.lend(self.repo)?;
        if history == History::Whole {
            // It is set already only if an earlier fetch did this, and then nothing has changed since.
            let _ = self.repo.uncut.set(incoming.opened_again()?);
        }
        // Read it while the scratch repository exists: libgit2 then keeps its packs open, and objects it has read.
        self.repo.raw_commit(tip)?;
        *self.repo.scratch.borrow_mut() = Some(incoming);
        Ok(Some(tip))
    }

    /// Downloads the branch's tip and everything it needs, and checks them.
    fn download(
        &self,
        make: impl Fn(Walk) -> Result<Incoming, Error>,
        history: History,
    ) -> Result<Option<(Incoming, CommitId)>, Error> {
        let doing = format!("fetching {} from {}", self.repo.names.branch, self.display_url());
        // All references tell the server what is here already.
        super::special::check_all_refs(&self.repo.place)?;
        let mut incoming = make(Walk::Full)?;
        let mut transferred = self.transfer(&incoming, history);
        if transferred.as_ref().is_err_and(is_odd) {
            // Its folder must be removed before the next one takes the same path.
            drop(incoming);
            incoming = make(Walk::Short)?;
            transferred = self.transfer(&incoming, history);
        }
        let Some(tip) = transferred.map_err(|error| self.fetch_failed(&doing, &error))? else { return Ok(None) };
        match incoming.check(tip, history)? {
            Ok(()) => Ok(Some((incoming, tip))),
            Err(Fault::Unreadable(_, _, error)) if is_systems(&error) => Err(Error::git(doing, &error)),
            Err(fault) => Err(self.not_ours().err().unwrap_or_else(|| match fault {
                Fault::Malformed(..) => not_well_formed(&doing, fault),
                Fault::Missing(..) | Fault::Unreadable(..) => incomplete(&doing, fault),
            })),
        }
    }

    /// Downloads what is new into `incoming`.
    fn transfer(&self, incoming: &Incoming, history: History) -> Result<Option<CommitId>, git2::Error> {
        let branch = self.repo.branch_ref();
        let mut remote = incoming.git.remote_anonymous(self.fetch.libgit2_url())?;
        let mut connection = remote.connect_auth(git2::Direction::Fetch, None, None)?;
        let tip = connection.list()?.iter().find(|head| head.name() == branch).map(git2::RemoteHead::oid);
        let Some(tip) = tip else { return Ok(None) };
        if history == History::New && incoming.has_whole(tip) {
            return Ok(Some(tip));
        }
        let mut options = git2::FetchOptions::new();
        options.download_tags(git2::AutotagOption::None).update_fetchhead(false);
        if history == History::Whole || incoming.has(tip) {
            // GIT_FETCH_DEPTH_UNSHALLOW. Without it libgit2 does not request a commit that is here, whatever it lacks.
            options.depth(i32::MAX);
        }
        let mut callbacks = git2::RemoteCallbacks::new();
        callbacks.transfer_progress(|progress| {
            self.fetch.objects(progress.received_objects(), progress.total_objects());
            true
        });
        options.remote_callbacks(callbacks);
        let refspec = format!("+{branch}:refs/heads/fetched");
        connection.remote().download(&[refspec.as_str()], Some(&mut options))?;
        Ok(Some(tip))
    }

    fn fetch_failed(&self, doing: &str, error: &git2::Error) -> Error {
        let class = error.class();
        let of_objects = matches!(
            class,
            git2::ErrorClass::Odb | git2::ErrorClass::Object | git2::ErrorClass::Zlib | git2::ErrorClass::Indexer
        );
        match self.fetch.take_error() {
            Some(error) => error,
            None if of_objects => self.not_ours().err().unwrap_or_else(|| incomplete(doing, error.message())),
            None => session_error(&self.fetch, doing, error),
        }
    }

    /// Checks our own objects before the server is blamed: one that can't be read during a fetch may be damaged here.
    fn not_ours(&self) -> Result<(), Error> {
        for tip in [self.repo.local_tip()?, self.repo.last_seen()?].into_iter().flatten() {
            self.repo.check_whole(tip)?;
        }
        // libgit2 and our own check both walk from all references.
        self.repo.check_histories()
    }

    /// Pushes `commit` to the branch, if the remote's tip is still `expected`.
    ///
    /// Returns Ok only if the server has confirmed this reference, or was seen to hold the commit.
    ///
    /// # Errors
    /// [`Kind::LostRace`] if the tip has changed, [`Kind::Refused`] with the server's words, and [`Kind::Unreachable`]
    /// if the result of the push is unknown.
    pub fn push(&self, commit: CommitId, expected: Option<CommitId>, how: Push) -> Result<(), Error> {
        self.push_url.clone()?;
        let session = self.push.as_ref().unwrap_or(&self.fetch);
        let branch = self.repo.branch_ref();
        let doing = format!("pushing to {}", session.display_url());
        let advertised: RefCell<Option<Option<CommitId>>> = RefCell::new(None);
        let answer: RefCell<Option<Option<String>>> = RefCell::new(None);
        // The output of the server's hooks; GitHub and GitLab give the reason for a refusal there.
        let said: RefCell<Vec<u8>> = RefCell::new(Vec::new());
        let push = |git: &git2::Repository, how: Push| -> Result<(), git2::Error> {
            let mut callbacks = git2::RemoteCallbacks::new();
            callbacks.push_negotiation(|updates| {
                for update in updates {
                    // `src` is the remote's tip as advertised in this connection; zero means that there is none.
                    let there = Some(update.src()).filter(|id| !id.is_zero());
                    *advertised.borrow_mut() = Some(there);
                    if there != expected {
                        return Err(git2::Error::from_str("the remote has moved"));
                    }
                }
                Ok(())
            });
            callbacks.sideband_progress(|text| {
                let mut said = said.borrow_mut();
                let room = MOST_SAID.saturating_sub(said.len());
                said.extend_from_slice(&text[..text.len().min(room)]);
                true
            });
            callbacks.push_transfer_progress(|done, total, _| session.objects(done, total));
            callbacks.push_update_reference(|_, status| {
                *answer.borrow_mut() = Some(status.map(str::to_owned));
                Ok(())
            });
            let mut options = git2::PushOptions::new();
            options.remote_callbacks(callbacks);
            let force = match how {
                Push::FastForward => "",
                Push::Overwrite => "+",
            };
            let refspec = format!("{force}{commit}:{branch}");
            let remote = git.remote_anonymous(session.libgit2_url());
            remote.and_then(|mut remote| push_with(&mut remote, &refspec, &mut options))
        };
        let pushed = match push(&self.repo.git, how) {
            Err(error) if is_odd(&error) && (how == Push::Overwrite || self.is_forward(commit, expected)?) => {
                let beside = Beside::to_push(self.repo, commit, expected)?;
                // Forced: libgit2's own check would look for the remote's commit there. `is_forward` has checked.
                push(&beside.git, Push::Overwrite)
            }
            pushed => pushed,
        };
        let moved = || {
            let what = format!("{doing}: the remote's '{}' moved in the meantime", self.repo.names.branch);
            Error::new(Kind::LostRace, what, "the next pass looks again and decides")
        };
        let advertised = advertised.into_inner();
        if advertised.is_some_and(|there| there != expected && there != Some(commit)) {
            return Err(moved());
        }
        if advertised == Some(Some(commit)) {
            // Somebody else has pushed it, perhaps the job: the server itself advertises it.
            return Ok(());
        }
        match (pushed, answer.into_inner()) {
            (Ok(()), Some(None)) => Ok(()),
            (_, Some(Some(words))) => Err(refused(&doing, &words, &String::from_utf8_lossy(&said.borrow()))),
            (Err(error), _) if error.code() == git2::ErrorCode::NotFastForward => Err(moved()),
            (Err(error), _) => {
                let trouble = session_error(session, &doing, &error);
                self.look_up(session, commit, expected, trouble, moved)
            }
            // The server reported nothing for our reference: it had the commit already, or it does not report.
            (Ok(()), None) => {
                let what = format!("{doing}: the server did not say whether it took the commit");
                let trouble = Error::new(Kind::Unreachable, what, "the next pass looks and pushes again");
                self.look_up(session, commit, expected, trouble, moved)
            }
        }
    }

    /// Returns whether a push of `commit` is a fast-forward of the remote's branch.
    fn is_forward(&self, commit: CommitId, expected: Option<CommitId>) -> Result<bool, Error> {
        expected.map_or(Ok(true), |expected| Ok(expected == commit || self.repo.descends(commit, expected)?))
    }

    /// Reads the remote's tip after a push whose answer did not arrive.
    fn look_up(
        &self,
        session: &Session,
        commit: CommitId,
        expected: Option<CommitId>,
        trouble: Error,
        moved: impl Fn() -> Error,
    ) -> Result<(), Error> {
        match session.tip(&self.repo.branch_ref()) {
            Ok(tip) if tip == Some(commit) => {
                tracing::info!(commit = %commit, "the answer to the push was lost; the remote has the commit");
                Ok(())
            }
            Ok(tip) if tip == expected => Err(trouble),
            Ok(_) => Err(moved()),
            Err(_) => Err(trouble),
        }
    }
}

/// The only place that pushes.
#[allow(clippy::disallowed_methods)]
fn push_with(
    remote: &mut git2::Remote<'_>,
    refspec: &str,
    options: &mut git2::PushOptions<'_>,
) -> Result<(), git2::Error> {
    remote.push(&[refspec], Some(options))
}

fn session_error(session: &Session, doing: &str, error: &git2::Error) -> Error {
    match session.take_error() {
        Some(error) => error,
        None if matches!(error.class(), git2::ErrorClass::Net | git2::ErrorClass::Http | git2::ErrorClass::Ssh) => {
            session.explain(error)
        }
        None => Error::git(doing, error),
    }
}

/// The error for the server's answer about one reference. `said` is what it said besides.
fn refused(doing: &str, words: &str, said: &str) -> Error {
    let refusal = remote::refusal(words, said);
    let said = remote::redact::text(said.as_bytes());
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    Error { what: format!("{doing}: the server refused: {}{said}", refusal.what), ..refusal }
}
