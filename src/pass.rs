//! What all passes share: the settings, the outcome so far, the time for the network, running commands, the token's host.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::Config;
use crate::clock;
use crate::error::{Error, Kind};
use crate::git::outside::During;
use crate::git::remote::Remote;
use crate::git::{CommitId, Identity, Names, Place, Repo};
use crate::outcome::{Command, Outcome};
use crate::policy::Mode;
use crate::process::job::{self, Ended, Job, Program};
use crate::publish::Site;
use crate::remote::TokenHost;
use crate::state::marker::{self, Cleared};
use crate::state::old_server;
use crate::state::token_host::{self, Recording};
use crate::watchdog;
use crate::watchdog::Watch;
use crate::{remote, report};

/// A transfer ends after this time without a byte.
const IDLE: Duration = Duration::from_secs(30);

/// A command that a pass runs: the job or the build.
#[derive(Debug)]
pub struct Task<'t> {
    /// Its name in the log: `job` or `build`.
    pub label: &'static str,
    /// What to run.
    pub program: Program,
    /// How long it may take.
    pub timeout: Duration,
    /// The remote's tip, for its environment.
    pub remote: Option<CommitId>,
    /// The mode, for its environment.
    pub mode: Mode,
    /// The folder to build into, if that is not the public dir itself.
    pub public_dir: Option<&'t Path>,
}

/// A running pass.
pub struct Pass<'a> {
    /// The settings from the command line and the environment.
    pub settings: &'a Config,
    /// The watchdog of this process.
    pub watch: &'a Watch,
    /// What the pass has found and done so far.
    pub outcome: Outcome,
    /// The environment variables that the transports use.
    pub network: remote::Env,
    network_left: Duration,
    /// The connections to remotes, kept for all of the pass.
    sessions: remote::Sessions,
    /// The host that tokens may be sent to.
    token_host: TokenHost,
    /// The user and the secret from the given URL, or from a stored URL that init-sync has removed them from.
    pub url_secret: Option<(String, String)>,
    /// The public dir, if one is given.
    pub site: Option<Site>,
    /// Whether a follow of this pass changed, or in a dry run would change, anything.
    pub files_changed: bool,
    /// In a dry run, the commit that the pass would have followed by now, if any.
    pub settled_on: Option<CommitId>,
    /// The local branch's commit before this pass committed what an earlier job has left.
    pub job_base: Option<CommitId>,
    /// The paths that a dry run would replace before the job runs.
    pub replaced: BTreeSet<PathBuf>,
    /// Whether a dry run found something to commit.
    pub would_commit: bool,
    /// When the job ran, if it did.
    pub job_ran: Option<During>,
    /// In a dry run that works in a copy, the repository itself.
    pub copied_from: Option<Place>,
}

impl<'a> Pass<'a> {
    /// A new pass, which has found and done nothing yet.
    pub fn new(command: Command, settings: &'a Config, network: remote::Env, watch: &'a Watch) -> Self {
        Self {
            settings,
            watch,
            outcome: Outcome::new(command, clock::now()),
            network,
            network_left: settings.network_timeout,
            sessions: remote::Sessions::default(),
            token_host: TokenHost::Nowhere,
            url_secret: None,
            site: None,
            files_changed: false,
            settled_on: None,
            job_base: None,
            replaced: BTreeSet::new(),
            would_commit: false,
            job_ran: None,
            copied_from: None,
        }
    }

    /// Adds a step to a dry run's plan and logs it. `what` continues a sentence that begins with "would".
    pub fn would(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::info!(dry_run = true, "would {what}");
        self.outcome.plan.get_or_insert_default().push(what);
    }

    /// Removes rescues, and what was put aside, that are older than `--keep-rescues`.
    pub fn let_go_of_old(&self, repo: &Repo) {
        if let Err(error) = repo.let_go(self.settings.keep_rescues, &clock::reading()) {
            tracing::warn!(next = %error.next, "not all old rescues could be removed: {}", error.what);
        }
    }

    /// Decides where the tokens of this pass may be sent, and records it, before any job can have changed the configuration.
    ///
    /// A container sets `GIT_SYNC_REMOTE_URL` for every pass. init-sync does not store a secret that the URL contains, so the
    /// other passes take it from the variable too.
    ///
    /// # Errors
    /// If the record can't be read or written.
    pub fn settle_token_host(&mut self, repo: &Repo, recording: Recording) -> Result<(), Error> {
        let given = self.settings.remote_url.as_deref();
        if let Some(secret) = given.and_then(|url| remote::split_url_secret(url).1) {
            self.url_secret = Some(secret);
        }
        let stored = repo.stored_url()?;
        let known = token_host::Known {
            option: self.settings.token_host.as_ref(),
            given_url: given,
            server_url: self.network.server_url(),
            stored_url: stored.as_deref(),
        };
        let settled = token_host::settle(&repo.private, &self.settings.remote, &known, recording);
        self.token_host = settled.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::new(
                Kind::NotReady,
                format!("{}: {error}", repo.private.file("token-host").display()),
                "run `gitsync init-sync --remote-url URL`, or give --token-host",
            ),
            _ => Error::io("recording the host that tokens are for", &error),
        })?;
        Ok(())
    }

    /// Whether there is a marker that a pass has to remove once local and remote are in sync.
    ///
    /// # Errors
    /// If the remote's configuration can't be read.
    pub fn clears_marker(&self, repo: &Repo) -> Result<bool, Error> {
        let Some(marker) = marker::read(&repo.private) else { return Ok(false) };
        Ok(match self.outcome.command {
            Command::InitSync => marker.is_cleared_by(Cleared::Branch(&repo.names.branch)),
            Command::Sync | Command::Tick => marker.is_cleared_by(Cleared::For(&repo.destination()?)),
        })
    }

    /// The branch, remote and identity from the settings.
    pub fn names(&self) -> Names {
        let who = &self.settings.identity;
        Names {
            branch: self.settings.branch.clone(),
            remote: self.settings.remote.clone(),
            identity: Identity {
                author_name: who.author_name.clone(),
                author_email: who.author_email.clone(),
                committer_name: who.committer_name.clone(),
                committer_email: who.committer_email.clone(),
            },
        }
    }

    /// Runs `what` with the remote, within what is left of the pass's time for the network. `phrase` can follow "while waiting
    /// for".
    ///
    /// # Errors
    /// If the remote can't be set up, or `what` fails.
    pub fn with_remote<T>(
        &mut self,
        repo: &Repo,
        phrase: &str,
        what: impl FnOnce(&Remote<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let settings = self.settings;
        let env = self.network.clone();
        let (url_secret, token_host) = (self.url_secret.clone(), self.token_host.clone());
        let sessions = std::mem::take(&mut self.sessions);
        let url = repo.destination().map(|to| to.url).unwrap_or_default();
        let v2 = !old_server::is_known(&repo.private, &url, clock::now());
        let done = self.in_network_time(phrase, |ends| {
            let options = remote::Options {
                remote: Some(settings.remote.clone()),
                deadline: ends,
                idle: IDLE,
                token_file: settings.token_file.clone(),
                url_secret,
                token_host,
                env,
                allow_insecure_http: settings.allow_insecure_http,
                ssh: remote::SshFiles {
                    key: settings.ssh_key_file.clone(),
                    known_hosts: settings.ssh_known_hosts_file.clone(),
                },
                relative_to: repo.place.work_dir.clone(),
                progress: report::progress(settings),
                v2,
            };
            let remote = repo.remote(&options, &sessions)?;
            let done = what(&remote);
            // A dry run writes nothing.
            if remote.rest()
                && v2
                && !settings.dry_run
                && let Err(error) = old_server::record(&repo.private, &url, clock::now())
            {
                tracing::warn!("recording that the server does not answer git's protocol v2: {error}");
            }
            done
        });
        self.sessions = sessions;
        done
    }

    /// Runs `what` within what is left of the pass's time for the network. `what` gets the time when that ends.
    pub fn in_network_time<T>(&mut self, phrase: &str, what: impl FnOnce(Instant) -> T) -> T {
        let began = clock::instant();
        let ends = began + self.network_left;
        let done = {
            let _limit = self.watch.limit(phrase, ends);
            let _has_a_limit = self.watch.excuse();
            watchdog::step("talking to the remote");
            what(ends)
        };
        watchdog::step("comparing the histories");
        self.network_left = self.network_left.saturating_sub(began.elapsed());
        done
    }

    /// Runs `what`, which runs a command in the repository, and rescues the tips that the command drops. `who`: such as "the job".
    ///
    /// # Errors
    /// If `what` fails, or if the tips can't be read or kept beforehand.
    pub fn keeping_tips<T>(
        &mut self,
        repo: &Repo,
        who: &str,
        what: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = repo.tips_before_job(clock::now())?;
        let record = token_host::before_job(&repo.private);
        let done = what(self);
        if repo.place.git_dir.is_dir() {
            // Without the record, the next pass would take the host from the configuration, which a job can change.
            match token_host::put_back(&repo.private, record.as_deref()) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!("{who} changed the record of the host that tokens are for; it is restored")
                }
                Err(error) => {
                    self.outcome.fail(Error::io("restoring the record of the host that tokens are for", &error))
                }
            }
        }
        // A FIFO in the place of a ref would block us. The next step reports it, and the next pass keeps the tips.
        if repo.check_files().is_ok()
            && let Err(error) = repo.keep_tips_after_job(before, who, clock::now())
        {
            self.outcome.fail(error);
        }
        done
    }

    /// Runs a command with the variables that describe the pass.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn run_task(&self, repo: &Repo, task: Task<'_>) -> Result<Ended, Error> {
        let Task { label, program, timeout, remote, mode, public_dir } = task;
        let mut job = Job::new(label, program, &repo.place.work_dir, timeout, repo.private.path(), self.watch);
        let head = repo.local_tip()?.map(|id| id.to_string()).unwrap_or_default();
        let mut set = |name: &str, value: OsString| job.env.push((name.into(), value));
        set("GITSYNC_COMMAND", self.outcome.command.word().into());
        set("GITSYNC_BRANCH", self.settings.branch.clone().into());
        set("GITSYNC_HEAD", head.into());
        set("GITSYNC_REMOTE_HEAD", remote.map(|id| id.to_string()).unwrap_or_default().into());
        set("GITSYNC_MODE", mode.word().into());
        let public_dir = public_dir.or_else(|| self.site.as_ref().map(Site::public_dir));
        set("GITSYNC_PUBLIC_DIR", public_dir.map(|path| path.as_os_str().to_owned()).unwrap_or_default());
        // GITHUB_TOKEN is passed on: jobs use it. Variables that name a repository, as in a git hook, a rebase or a CI step, are
        // removed: git in the job would work in that repository instead of the job's current folder. Configuration in variables
        // is the user's, and stays.
        let elsewhere = remote::REPOSITORY_VARIABLES.iter().filter(|name| !name.starts_with("GIT_CONFIG"));
        job.env_remove = remote::OWN_VARIABLES.iter().chain(elsewhere).map(OsString::from).collect();
        job.redact = Some(&remote::redact::known);
        tracing::debug!("running the {label}");
        job::run(&job)
    }
}

/// How many paths a message names at most.
const NAMED: usize = 10;

/// The first few of some paths, for a message.
pub fn some<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> String {
    let some: Vec<String> = paths.into_iter().take(NAMED).map(|path| path.display().to_string()).collect();
    some.join(", ")
}
