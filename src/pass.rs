//! What every pass does before, after and around its own story: the lock, what an earlier pass left half done, the time
//! for the network, the site, the record.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;

use crate::cli::{Config, Publish};
use crate::clock;
use crate::error::{Error, Kind};
use crate::git::remote::Remote;
use crate::git::{self, CommitId, Identity, Names, Place, Repo, damage, heal};
use crate::outcome::{Command, Outcome, Word};
use crate::policy::Mode;
use crate::process::job::{self, Ended, Job, Program};
use crate::publish::{self, Site, Surroundings, Way};
use crate::report::metrics;
use crate::state::dir::PrivateDir;
use crate::state::lock::{self, Held, Taken};
use crate::state::marker::{self, Cleared};
use crate::state::record::Record;
use crate::state::token_host::{self, Recording};
use crate::transport::TokenHost;
use crate::watchdog;
use crate::watchdog::Watch;
use crate::{dry_run, init_sync, report, sync, tick, transport};

/// Says that the site is not what the work tree would build: written before a follow, gone after a good build.
const SITE_STALE: &str = "site-stale";

/// Names the public dir inside the work tree that holds what was put there by us.
const SITE_OURS: &str = "site-ours";

/// How long packing the repository's objects together may take.
const GC_TIMEOUT: Duration = Duration::from_secs(300);

/// Says when that failed. It is tried again a day later, as git itself has it: a repository that takes longer must not have
/// the lock held for so long in each tick.
const GC_FAILED: &str = "gc-failed";

/// Without a byte for so long, a transfer is over.
const IDLE: Duration = Duration::from_secs(30);

/// One pass under way.
pub struct Pass<'a> {
    /// What the command line says.
    pub settings: &'a Config,
    /// The watchdog of this process.
    pub watch: &'a Watch,
    /// What has been found and done so far.
    pub outcome: Outcome,
    /// What the transports know of the environment.
    pub network: transport::Env,
    network_left: Duration,
    /// Where tokens may go.
    token_host: TokenHost,
    /// The user and the secret of the given URL, or of a stored one that init-sync took it out of.
    pub url_secret: Option<(String, String)>,
    site: Option<Site>,
    /// Whether a follow of this pass changed, or in a dry run would change, anything.
    pub files_changed: bool,
    /// The commit that a dry run's work tree would equal by now, where it would have followed one.
    pub settled_on: Option<CommitId>,
    /// The paths that a dry run would replace before the job runs.
    pub replaced: BTreeSet<PathBuf>,
    /// Whether a dry run found something to commit.
    pub would_commit: bool,
    /// The repository, where a dry run works on a copy of it.
    pub copied_from: Option<Place>,
}

/// The private folder of the repository whose lock this process has, for [`record_end`].
static LOCKED: Mutex<Option<PrivateDir>> = Mutex::new(None);

/// Records a pass that is ended from outside, by a signal or by the watchdog; one that waited for the lock only leaves none.
pub fn record_end(outcome: &Outcome) {
    let locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(private) = locked.as_ref() {
        // Not precious, and the process is about to end.
        let _ = Record::keep(private, outcome, clock::now());
    }
}

/// Runs one pass from the lock to the record.
pub fn run(command: Command, settings: &Config, network: transport::Env, watch: &Watch) -> Outcome {
    let clock = clock::instant();
    let _answers = transport::end_answers_later();
    let mut pass = Pass {
        settings,
        watch,
        outcome: Outcome::new(command, clock::now()),
        network,
        network_left: settings.network_timeout,
        token_host: TokenHost::Nowhere,
        url_secret: None,
        site: None,
        files_changed: false,
        settled_on: None,
        replaced: BTreeSet::new(),
        would_commit: false,
        copied_from: None,
    };
    let (told, locked) = match settings.metrics_file.as_deref().map_or(Ok(()), metrics::check) {
        Ok(()) => pass.go(clock),
        Err(failure) => (Err(failure), None),
    };
    watch.end_if_asked();
    match told {
        Ok(word) => pass.outcome.result = word,
        Err(failure) => pass.outcome.fail(failure),
    }
    pass.outcome.rescue_refs.sort();
    pass.outcome.rescue_refs.dedup();
    pass.outcome.duration_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some((place, private, _held)) = &locked {
        // From here on this record is the one.
        *LOCKED.lock().unwrap_or_else(PoisonError::into_inner) = None;
        watchdog::step("recording the pass");
        match Record::keep(private, &pass.outcome, clock::now()) {
            Ok(record) => pass.tell_metrics(place, private, &record),
            // Not precious, and the pass did what it did.
            Err(error) => tracing::warn!("status.json could not be written: {error}"),
        }
    }
    pass.outcome
}

type Locked = Option<(Place, PrivateDir, Held)>;

impl Pass<'_> {
    /// The lock is given back by the caller, after the record is written.
    fn go(&mut self, clock: Instant) -> (Result<Word, Error>, Locked) {
        if self.settings.dry_run {
            self.outcome.plan = Some(Vec::new());
            return (self.plan(), None);
        }
        match self.enter() {
            Ok(Some((place, private, held))) => {
                *LOCKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(private.clone());
                let told = match self.work(&place, &private, &held, clock) {
                    Err(failure) if failure.kind == Kind::Corrupt => Err(self.second_look(&place, failure)),
                    told => told,
                };
                if told.is_err() {
                    heal::drop_half_written(&place, &held);
                }
                (told, Some((place, private, held)))
            }
            Ok(None) => (Ok(Word::Skipped), None),
            Err(failure) => (Err(failure), None),
        }
    }

    fn tell_metrics(&self, place: &Place, private: &PrivateDir, record: &Record) {
        let Some(path) = &self.settings.metrics_file else { return };
        let peek = git::peek(place, self.names());
        let destination = peek.as_ref().ok().and_then(|peek| peek.destination.as_ref());
        let told = metrics::Told {
            repository: &place.work_dir,
            branch: &self.settings.branch,
            mode: self.settings.mode,
            pending: marker::read(private).zip(destination).is_some_and(|(marked, to)| marked.is_for(to)),
            peek: peek.as_ref().ok(),
            record,
        };
        if let Err(error) = metrics::write(path, &told) {
            let next = "see that its folder can be written; what the file says is out of date until then";
            tracing::warn!(next, "the metrics file {} could not be written: {error}", path.display());
        }
    }

    /// A dry run: neither a folder nor a lock is made.
    fn plan(&mut self) -> Result<Word, Error> {
        let settings = self.settings;
        let here = current_folder()?;
        let place = match (self.outcome.command, git::find(settings.repo.as_deref(), &here)) {
            (_, Ok(place)) => Some(place),
            (Command::InitSync, Err(error)) => {
                init_sync::free_place(settings, &here, error)?;
                None
            }
            (_, Err(error)) => return Err(error),
        };
        if let Some(place) = &place {
            self.site = self.check_site(place, &here)?;
        }
        match (dry_run::run(self, place.as_ref()), place) {
            (Err(failure), Some(place)) if failure.kind == Kind::Corrupt => Err(self.second_look(&place, failure)),
            (planned, _) => planned,
        }
    }

    /// Finds the repository and takes its lock; `None` where another of our kind waits for it already.
    fn enter(&mut self) -> Result<Option<(Place, PrivateDir, Held)>, Error> {
        let settings = self.settings;
        let command = self.outcome.command;
        let here = current_folder()?;
        let place = match command {
            Command::InitSync => init_sync::place(settings, &here)?,
            Command::Sync | Command::Tick => git::find(settings.repo.as_deref(), &here)?,
        };
        let private = PrivateDir::of(&place.git_dir);
        let doing = format!("making the private folder {}", private.path().display());
        private.create().map_err(|error| Error::io(doing, &error))?;
        self.site = self.check_site(&place, &here)?;
        let queued = match command {
            Command::InitSync => false,
            Command::Sync | Command::Tick => true,
        };
        if command == Command::InitSync {
            set_aside_misplaced(&private)?;
        }
        let taken = {
            let _has_a_limit = self.watch.excuse();
            lock::take(&private, command.word(), queued, settings.lock_wait, clock::now).map_err(lock_refused)?
        };
        match taken {
            Taken::Held(held) => Ok(Some((place, private, held))),
            Taken::Skipped => {
                tracing::info!("skipped: another {} waits for the lock already", command.word());
                Ok(None)
            }
            Taken::Busy(holder) => Err(self.lock_was_busy(holder)),
        }
    }

    /// Refuses a public dir that must not be published over.
    fn check_site(&self, place: &Place, here: &Path) -> Result<Option<Site>, Error> {
        let settings = self.settings;
        let Some(public_dir) = &settings.public_dir else { return Ok(None) };
        let public_dir = here.join(public_dir);
        let paths: Vec<PathBuf> = settings.paths.iter().map(|path| place.work_dir.join(path)).collect();
        let way = match settings.publish {
            Publish::Whole => Way::Whole,
            Publish::Files => Way::FileByFile,
            Publish::InPlace => Way::InPlace,
        };
        let private = PrivateDir::of(&place.git_dir);
        let around = Surroundings {
            repo: &place.work_dir,
            git_dir: &place.git_dir,
            private_dir: private.path(),
            paths: &paths,
            home: settings.home.as_deref(),
        };
        publish::check(&public_dir, &around, way).map(Some)
    }

    /// The failure of a pass that could not have the lock.
    pub fn lock_was_busy(&self, holder: Option<lock::Holder>) -> Error {
        let holder = holder.map_or_else(|| "another gitsync".to_owned(), |holder| holder.to_string());
        let waited = humantime::format_duration(self.settings.lock_wait);
        Error::retry(
            format!("{holder} has held the lock for all the {waited} we waited"),
            "the next pass tries again; raise --lock-wait if passes take that long",
        )
    }

    /// A sentence of a dry run's plan.
    pub fn would(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::info!(dry_run = true, "would {what}");
        self.outcome.plan.get_or_insert_default().push(what);
    }

    /// What failed as damage would fail: read again, so that it is said whether it is damage or the system was short of something.
    fn second_look(&self, place: &Place, failure: Error) -> Error {
        match damage::prove(place, &self.names(), damage::Reading::Quick) {
            Err(error) => error,
            Ok(Some(damage)) => Error { what: format!("{}: {}", failure.what, damage.what), ..failure },
            Ok(None) => match damage::index_is_damaged(&place.git_dir) {
                Ok(true) => Error { what: format!("{}: the index is damaged", failure.what), ..failure },
                Ok(false) if !place.git_dir.join("HEAD").exists() => {
                    Error { what: format!("{}: HEAD is missing", failure.what), ..failure }
                }
                Ok(false) => Error::retry(
                    format!("{}; read again, everything is sound", failure.what),
                    "the next pass tries again; if it comes again, run it with -vv for more",
                ),
                Err(error) => error,
            },
        }
    }

    fn work(&mut self, place: &Place, private: &PrivateDir, held: &Held, clock: Instant) -> Result<Word, Error> {
        let waited = clock.elapsed();
        if waited > Duration::from_secs(1) {
            tracing::debug!(waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX), "have the lock");
        }
        let until = clock::instant() + self.settings.lock_wait;
        watchdog::step("ending what an earlier job has left running");
        job::end_orphans(private.path(), until).map_err(|error| {
            let failure = if error.passes() { Error::retry } else { Error::person };
            failure(error.to_string(), error.next())
        })?;
        if let Some(site) = &self.site {
            site.tidy();
        }
        let command = self.outcome.command;
        watchdog::step("mending the repository");
        if command == Command::InitSync {
            return init_sync::run(self, place, held);
        }
        let names = self.names();
        heal::clear_leftovers(place, held, &names.branch, &names.remote, false)?;
        watchdog::step("opening the repository");
        let repo = Repo::open(place, held, names)?;
        repo.hold_config()?;
        self.settle_token_host(&repo, Recording::First)?;
        let now = clock::now();
        watchdog::step("finishing what an earlier pass was cut short in");
        if let Some(finished) = repo.finish_follow(now)? {
            self.outcome.rescue_refs.extend(finished.rescue_refs);
        }
        watchdog::step("looking at the repository");
        repo.check_ready()?;
        repo.heal_index(now, false)?;
        self.outcome.local_before = repo.local_tip()?.map(|id| id.to_string());
        let told = match command {
            Command::InitSync => unreachable!("handled above"),
            Command::Sync => sync::run(self, &repo),
            Command::Tick => tick::run(self, &repo),
        };
        // What a job or a build has put in the way has been said by now, where it matters.
        let others_ran = command == Command::Tick || self.outcome.site_built.is_some();
        if others_ran && repo.check_files().is_err() {
            return told;
        }
        self.outcome.local = repo.local_tip().ok().flatten().map(|id| id.to_string());
        if command == Command::Tick {
            watchdog::step("letting go of old rescues");
            self.let_go_of_old(&repo);
            self.pack_together(&repo);
        }
        told
    }

    /// Lets go of rescues, and of what was put aside, after `--keep-rescues`.
    pub fn let_go_of_old(&self, repo: &Repo) {
        if let Err(error) = repo.let_go(self.settings.keep_rescues, &clock::reading()) {
            tracing::warn!(next = %error.next, "not all that was kept long enough could be let go: {}", error.what);
        }
    }

    /// Packs the repository's objects together where that is due and git is there. A failure costs no pass.
    fn pack_together(&self, repo: &Repo) {
        if !repo.is_due_for_gc() || gc_failed_lately(repo) {
            return;
        }
        repo.clear_half_packed(&BTreeSet::new(), false);
        let before = repo.half_packed();
        let private = repo.private.path();
        let program = Program::Argv(repo.gc_command());
        let mut job = Job::new("gc", program, &repo.place.work_dir, GC_TIMEOUT, private, self.watch);
        let kept_from_it = transport::REPOSITORY_VARIABLES.iter().chain(transport::SECRET_VARIABLES);
        job.env_remove = kept_from_it.map(OsString::from).collect();
        job.redact = Some(&transport::redact::known);
        match job::run(&job) {
            Ok(Ended::Exited(0)) => {
                tracing::info!("the repository's objects were packed together (git gc)");
                let _ = repo.private.remove_durably(GC_FAILED);
            }
            Ok(ended) => {
                let next =
                    "run `git gc` there and see what it says; the repository grows, and it is tried again in a day";
                // Where this can't be written it is tried again in the next tick.
                let _ = repo.private.write(GC_FAILED, clock::now().to_rfc3339().as_bytes());
                tracing::warn!(next, "packing the repository's objects together (git gc): it {ended}");
                repo.clear_half_packed(&before, true);
            }
            // Without git nothing can be packed, and nothing else needs it but path remotes.
            Err(error) => tracing::debug!(next = error.next(), "git gc was due: {error}"),
        }
    }

    /// Finds out where the tokens of this pass may go, and records it; before any job can have changed the configuration.
    ///
    /// A container sets `GIT_SYNC_REMOTE_URL` for every pass. init-sync keeps a secret in it out of the configuration; the
    /// other passes use it too.
    ///
    /// # Errors
    /// Where the record can't be read or written.
    pub fn settle_token_host(&mut self, repo: &Repo, recording: Recording) -> Result<(), Error> {
        let given = self.settings.remote_url.as_deref();
        if let Some(secret) = given.and_then(|url| transport::split_url_secret(url).1) {
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

    /// Whether a pass that brings local and remote in sync takes a marker away.
    ///
    /// # Errors
    /// Where the remote's configuration can't be read.
    pub fn clears_marker(&self, repo: &Repo) -> Result<bool, Error> {
        let Some(marker) = marker::read(&repo.private) else { return Ok(false) };
        Ok(match self.outcome.command {
            Command::InitSync => marker.is_cleared_by(Cleared::Branch(&repo.names.branch)),
            Command::Sync | Command::Tick => marker.is_cleared_by(Cleared::For(&repo.destination()?)),
        })
    }

    /// The names that the settings give.
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

    /// Does something with the remote within what is left of the pass's time for the network.
    ///
    /// # Errors
    /// Those of `what`.
    pub fn with_remote<T>(
        &mut self,
        repo: &Repo,
        phrase: &str,
        what: impl FnOnce(&Remote<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let settings = self.settings;
        let env = self.network.clone();
        let (url_secret, token_host) = (self.url_secret.clone(), self.token_host.clone());
        self.in_network_time(phrase, |ends| {
            let options = transport::Options {
                deadline: ends,
                idle: IDLE,
                token_file: settings.token_file.clone(),
                url_secret,
                token_host,
                env,
                allow_insecure_http: settings.allow_insecure_http,
                relative_to: repo.place.work_dir.clone(),
                progress: report::progress(settings),
            };
            repo.remote(&options).and_then(|remote| what(&remote))
        })
    }

    /// Does something within what is left of the pass's time for the network, which ends at the time that it is given.
    pub fn in_network_time<T>(&mut self, phrase: &str, what: impl FnOnce(Instant) -> T) -> T {
        let began = clock::instant();
        let ends = began + self.network_left;
        let done = {
            let _limit = self.watch.limit(phrase, ends);
            let _has_a_limit = self.watch.excuse();
            watchdog::step("talking to the remote");
            what(ends)
        };
        watchdog::step("looking at the histories");
        self.network_left = self.network_left.saturating_sub(began.elapsed());
        done
    }

    /// Whether a site is to be built at all.
    pub fn builds_site(&self) -> bool {
        self.settings.build_command.is_some()
    }

    /// Notes that the site is to be built again; on disk before the files change.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn site_goes_stale(&self, repo: &Repo) -> Result<(), Error> {
        if self.builds_site() {
            let noted = repo.private.write_durably(SITE_STALE, b"");
            noted.map_err(|error| Error::io("noting that the site is to be built again", &error))?;
        }
        Ok(())
    }

    /// Whether the last build failed, or never finished, or its files changed since.
    pub fn site_is_stale(&self, repo: &Repo) -> bool {
        self.builds_site() && repo.private.file(SITE_STALE).exists()
    }

    /// Builds the site and swaps it in. A failure is a failure of the pass; the old site stays.
    pub fn build_site(&mut self, repo: &Repo, remote: Option<CommitId>, mode: Mode) {
        let Some(command) = self.settings.build_command.clone() else { return };
        self.outcome.site_built = Some(false);
        if let Err(failure) = self.may_publish(repo) {
            self.outcome.fail(failure);
            return;
        }
        let stale = self.site_goes_stale(repo);
        let built =
            stale.and_then(|()| self.keeping_tips(repo, "the build", |pass| pass.build(repo, &command, remote, mode)));
        if let Err(failure) = built {
            self.outcome.fail(failure);
            return;
        }
        self.outcome.site_built = Some(true);
        if let Err(error) = repo.private.remove_durably(SITE_STALE) {
            tracing::warn!("the site will be built once more than needed: {error}");
        }
    }

    fn build(&self, repo: &Repo, command: &str, remote: Option<CommitId>, mode: Mode) -> Result<(), Error> {
        let staged = match &self.site {
            Some(site) => Some(site.stage()?),
            None => None,
        };
        let folder = staged.as_ref().map(|staged| staged.path().to_owned());
        let command = match &folder {
            Some(folder) => publish::with_public_dir(command, folder),
            None => command.to_owned(),
        };
        let timeout = self.settings.build_timeout;
        let ended = self.run_job("build", Program::Shell(command), timeout, repo, remote, mode, folder.as_deref())?;
        match ended {
            Ended::Exited(0) => {}
            ended => {
                return Err(Error::person(
                    format!("the build {ended}"),
                    "the old site stays; mend the build, the next pass tries again",
                ));
            }
        }
        if let (Some(site), Some(staged)) = (&self.site, staged) {
            site.publish(staged)?;
        }
        tracing::info!("the site is built");
        Ok(())
    }

    /// Refuses a public dir inside the work tree that holds somebody's files: what is not of the site is removed from it.
    ///
    /// # Errors
    /// A usage error that names one of them.
    pub fn may_publish(&self, repo: &Repo) -> Result<(), Error> {
        let Some(site) = &self.site else { return Ok(()) };
        let Ok(inside) = site.public_dir().strip_prefix(&repo.place.work_dir) else { return Ok(()) };
        let noted = site.public_dir().as_os_str().as_bytes();
        // The note is of one folder: another may hold anything.
        let ours = repo.private.read(SITE_OURS).is_ok_and(|note| note.as_deref() == Some(noted));
        if let Some(file) = repo.somebodys_file_in(inside, ours)? {
            return Err(Error::usage(
                format!("the public dir {} holds {}, which is no part of a site", inside.display(), file.display()),
                "name a folder that git ignores or that is empty: publishing removes what is not of the site",
            ));
        }
        if !ours && !self.settings.dry_run {
            let written = repo.private.write_durably(SITE_OURS, noted);
            written.map_err(|error| Error::io("noting whose the public dir is", &error))?;
        }
        Ok(())
    }

    /// Empties the public dir, where there is one and nothing to build into it (init-sync).
    ///
    /// # Errors
    /// Those of the file system.
    pub fn empty_site(&self, repo: &Repo) -> Result<(), Error> {
        self.may_publish(repo)?;
        match &self.site {
            Some(site) => site.empty(),
            None => Ok(()),
        }
    }

    /// Does what runs a command in the repository, and rescues the tips that the command drops. `who`: as "the job".
    ///
    /// # Errors
    /// Those of `what`, and where the tips can't be read or kept beforehand.
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
            // The next pass would take the host from the configuration, which a job can change as well.
            match token_host::put_back(&repo.private, record.as_deref()) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!("{who} changed the record of the host that tokens are for; it is written again")
                }
                Err(error) => self.outcome.fail(Error::io("writing the host that tokens are for again", &error)),
            }
        }
        match repo.keep_tips_after_job(before, who, clock::now()) {
            Ok(names) => self.outcome.rescue_refs.extend(names),
            Err(error) => self.outcome.fail(error),
        }
        done
    }

    /// Runs a command with what it may know of the pass.
    ///
    /// # Errors
    /// Where it can't be started.
    #[allow(clippy::too_many_arguments)]
    pub fn run_job(
        &self,
        label: &'static str,
        program: Program,
        timeout: Duration,
        repo: &Repo,
        remote: Option<CommitId>,
        mode: Mode,
        public_dir: Option<&Path>,
    ) -> Result<Ended, Error> {
        let mut job = Job::new(label, program, &repo.place.work_dir, timeout, repo.private.path(), self.watch);
        let head = repo.local_tip()?.map(|id| id.to_string()).unwrap_or_default();
        let mut tell = |name: &str, value: OsString| job.env.push((name.into(), value));
        tell("GITSYNC_COMMAND", self.outcome.command.word().into());
        tell("GITSYNC_BRANCH", self.settings.branch.clone().into());
        tell("GITSYNC_HEAD", head.into());
        tell("GITSYNC_REMOTE_HEAD", remote.map(|id| id.to_string()).unwrap_or_default().into());
        tell("GITSYNC_MODE", mode.word().into());
        let public_dir = public_dir.or_else(|| self.site.as_ref().map(Site::public_dir));
        tell("GITSYNC_PUBLIC_DIR", public_dir.map(|path| path.as_os_str().to_owned()).unwrap_or_default());
        // GITHUB_TOKEN is passed on: jobs use it.
        // What a git hook, a rebase or a CI step has in its environment about the repository that it runs in: git in the job
        // would work there instead of in the job's current folder. Configuration given so is the user's, and stays.
        let elsewhere = transport::REPOSITORY_VARIABLES.iter().filter(|name| !name.starts_with("GIT_CONFIG"));
        job.env_remove = transport::OWN_VARIABLES.iter().chain(elsewhere).map(OsString::from).collect();
        job.redact = Some(&transport::redact::known);
        tracing::debug!("running the {label}");
        job::run(&job).map_err(|error| Error::person(error.to_string(), error.next()))
    }
}

/// Moves aside what a job or a person has put in the place of our own files and folders, such as a folder where the lock belongs.
fn set_aside_misplaced(private: &PrivateDir) -> Result<(), Error> {
    let files = [
        "lock",
        "waiting-sync",
        "waiting-tick",
        "job.lock",
        "status.json",
        "intent",
        "index-before",
        "ages.json",
        "begun",
        "putting-aside",
        "token-host",
        "force-push-pending",
        SITE_STALE,
        SITE_OURS,
        GC_FAILED,
    ];
    let folders =
        ["broken", "damaged-refs", "empty-objects", "staging", "staging-old", "site-staging", "beside", "reading"];
    let stamp = clock::now().format("%Y%m%dT%H%M%SZ").to_string();
    let moved = private.set_aside_misplaced(&files, &folders, &stamp);
    for (from, to) in moved.map_err(|error| Error::io("moving aside what is in the place of our own", &error))? {
        tracing::warn!(from = %from.display(), to = %to.display(), "moved aside: a file or folder of gitsync's belongs there");
    }
    Ok(())
}

/// What keeps a pass from the lock.
pub fn lock_refused(error: std::io::Error) -> Error {
    let doing = "taking the lock (.git/gitsync/lock)";
    let said = rustix::io::Errno::from_io_error(&error);
    let is_no_file = matches!(said, Some(rustix::io::Errno::ISDIR | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO));
    if is_no_file || error.kind() == std::io::ErrorKind::InvalidInput {
        let next = "run `gitsync init-sync`: it moves aside what stands in the place of a file";
        return Error::new(Kind::NotReady, format!("{doing}: {error}"), next);
    }
    Error::io(doing, &error)
}

fn gc_failed_lately(repo: &Repo) -> bool {
    let text = repo.private.read(GC_FAILED).ok().flatten().unwrap_or_default();
    let failed = DateTime::parse_from_rfc3339(&String::from_utf8_lossy(&text));
    // One from the future is of a clock that was set back.
    failed.is_ok_and(|failed| {
        let age = clock::now().signed_duration_since(failed);
        age >= chrono::Duration::zero() && age < chrono::Duration::days(1)
    })
}

fn current_folder() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|error| {
        let what = format!("the current folder can't be found: {error}");
        Error::person(what, "run gitsync in a folder that exists")
    })
}
