//! The remote: its configuration, and reading its tip.

use std::cell::Cell;
use std::rc::Rc;

use chrono::{DateTime, Utc};

use super::{CommitId, Names, Repo};
use crate::error::{Context, Error, Kind};
use crate::remote::{self, Session, Sessions};
use crate::rescued::RescueKind;
use crate::state::marker::Destination;

/// The remote of a repository, for one pass.
pub struct Remote<'r> {
    pub(super) repo: &'r Repo,
    pub(super) fetch: Rc<Session>,
    pub(super) push: Option<Rc<Session>>,
    /// The tip that was just read, for the fetch that follows: it fetches what was judged.
    pub(super) asked: Cell<Option<Option<CommitId>>>,
    /// Refuses to push where the push URL is another repository's.
    pub(super) push_url: Result<(), Error>,
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
    pub fn remote(&self, options: &remote::Options, sessions: &Sessions) -> Result<Remote<'_>, Error> {
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
        let open = |url: &str| sessions.open(url, &config, options);
        let url = remote.url().map_err(|_| {
            Error::new(Kind::NotReady, format!("the URL of remote '{name}' is not UTF-8"), "`git remote set-url` it")
        })?;
        let push = remote.pushurl().ok().flatten();
        let Some(rewriting) = options.env.rewriting(&config) else {
            let push_url = remote::check_push_url(name, url, push, &self.place.work_dir);
            let push = push.filter(|push| *push != url).map(open).transpose()?;
            return Ok(Remote { repo: self, fetch: open(url)?, push, asked: Cell::new(None), push_url });
        };
        // libgit2 has applied only the rewriting that it knows, which is not all of it.
        let stored = |key: &str| config.get_string(&format!("remote.{name}.{key}")).ok();
        let (url, push) = rewriting.apply(&stored("url").unwrap_or_default(), stored("pushurl").as_deref());
        let push_url = remote::check_push_url(name, &url, push.as_deref(), &self.place.work_dir);
        let push = push.filter(|push| *push != url).map(|push| open(&push)).transpose()?;
        Ok(Remote { repo: self, fetch: open(&url)?, push, asked: Cell::new(None), push_url })
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
            _ if branches.len() + 2 >= remote::protocol::refs::MOST_LISTED => " and many more".to_owned(),
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
        let tip = self.fetch.tip(&self.repo.branch_ref())?;
        self.asked.set(Some(tip));
        Ok(tip)
    }

    /// Ends the conversations that are waiting for more. Returns whether the remote left a request in protocol v2
    /// unanswered, and answered an older one.
    pub fn rest(&self) -> bool {
        let sessions = std::iter::once(&self.fetch).chain(&self.push);
        sessions.inspect(|session| session.rest()).filter(|session| session.is_silent_to_v2()).count() > 0
    }
}
