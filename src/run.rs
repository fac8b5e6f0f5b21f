//! One pass from the lock to the record: the only file that knows every subcommand.
//!
//! A dry run uses the same code, but creates neither a folder nor a lock file, and prints its steps instead of applying them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::Config;
use crate::clock;
use crate::error::{Error, Kind};
use crate::fs::owner;
use crate::git::scratch::Scratch;
use crate::git::{self, Place, Repo, damage, heal};
use crate::outcome::{Command, Outcome, Word};
use crate::pass::Pass;
use crate::process::job;
use crate::report::{log, metrics};
use crate::state::dir::PrivateDir;
use crate::state::job_mark;
use crate::state::lock::{self, Held, Taken};
use crate::state::marker;
use crate::state::record::Record;
use crate::state::token_host::Recording;
use crate::watchdog::{self, Watch};
use crate::{dry_run, init_sync, remote, site, sync, tick, upkeep};

/// The private folder of the repository whose lock this process holds, for [`record_end`].
static LOCKED: Mutex<Option<PrivateDir>> = Mutex::new(None);

/// Records a pass that is ended by a signal or by the watchdog. A pass that was still waiting for the lock is not recorded.
pub fn record_end(outcome: &Outcome) {
    let locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(private) = locked.as_ref() {
        // A failure is ignored: the record is not precious, and the process is about to end.
        let _ = Record::keep(private, outcome, clock::now());
    }
}

/// Runs one pass from the lock to the record.
pub fn run(command: Command, settings: &Config, network: remote::Env, watch: &Watch) -> Outcome {
    let clock = clock::instant();
    let _answers = remote::end_answers_later();
    let mut pass = Pass::new(command, settings, network, watch);
    let (result, locked) = match settings.metrics_file.as_deref().map_or(Ok(()), metrics::check) {
        Ok(()) => lock_and_run(&mut pass, clock),
        Err(failure) => (Err(failure), None),
    };
    watch.end_if_asked();
    match result {
        Ok(word) => pass.outcome.result = word,
        Err(failure) => pass.outcome.fail(failure),
    }
    pass.outcome.duration_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some((place, private, _held)) = &locked {
        // The record is written here. A pass that is ended after this must not write another.
        *LOCKED.lock().unwrap_or_else(PoisonError::into_inner) = None;
        watchdog::step("recording the pass");
        match Record::keep(private, &pass.outcome, clock::now()) {
            Ok(record) => write_metrics(&pass, place, private, &record),
            // The record is not precious, and the pass itself is complete.
            Err(error) => tracing::warn!("status.json could not be written: {error}"),
        }
    }
    pass.outcome
}

type Locked = Option<(Place, PrivateDir, Held)>;

/// Takes the lock and does the pass. The lock is returned, so that the caller releases it after the record is written.
fn lock_and_run(pass: &mut Pass<'_>, clock: Instant) -> (Result<Word, Error>, Locked) {
    if pass.settings.dry_run {
        pass.outcome.plan = Some(Vec::new());
        return (plan_only(pass), None);
    }
    match find_and_lock(pass) {
        Ok(Some((place, private, held))) => {
            *LOCKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(private.clone());
            let result = match work(pass, &place, &private, &held, clock) {
                Err(failure) if failure.kind == Kind::Corrupt => Err(second_look(pass, &place, failure)),
                result => result,
            };
            let result = result.map_err(|failure| git::settings::named(&place, failure));
            if result.is_err() {
                heal::drop_half_written(&place, &held);
            }
            (result, Some((place, private, held)))
        }
        Ok(None) => (Ok(Word::Skipped), None),
        Err(failure) => (Err(failure), None),
    }
}

/// Finds the repository and takes its lock. `None` if another pass of the same kind is already waiting for it.
fn find_and_lock(pass: &mut Pass<'_>) -> Result<Option<(Place, PrivateDir, Held)>, Error> {
    let settings = pass.settings;
    let command = pass.outcome.command;
    let here = current_folder()?;
    let place = match command {
        Command::InitSync => {
            check_site_of_new(pass, &here)?;
            init_sync::place(settings, &here)?
        }
        Command::Sync | Command::Tick => git::find(settings.repo.as_deref(), &here)?,
    };
    log::set_repo(&place.work_dir);
    let private = PrivateDir::of(&place.git_dir);
    let doing = format!("making the private folder {}", private.path().display());
    private.create().map_err(|error| owner::refused(&doing, &[private.path(), &place.git_dir], &error))?;
    pass.site = pass.check_site(&place, &here)?;
    let queued = match command {
        Command::InitSync => false,
        Command::Sync | Command::Tick => true,
    };
    if command == Command::InitSync {
        set_aside_misplaced(&private)?;
    }
    let taken = {
        let _has_a_limit = pass.watch.excuse();
        lock::take(&private, command.word(), queued, settings.lock_wait, clock::now)
            .map_err(|error| lock_refused(&private, command, &error))?
    };
    match taken {
        Taken::Held(held) => Ok(Some((place, private, held))),
        Taken::Skipped => {
            tracing::info!("skipped: another {} is already waiting for the lock", command.word());
            Ok(None)
        }
        Taken::Busy(holder) => Err(lock_was_busy(pass, holder)),
    }
}

/// If there is no repository yet, checks the public dir before one is created. If there is one, the check needs its private folder
/// and comes later.
fn check_site_of_new(pass: &Pass<'_>, here: &Path) -> Result<(), Error> {
    let repo = pass.settings.repo.as_deref();
    let Some(work_dir) = git::find(repo, here).err().and_then(|error| {
        // If no repository can be created here, the code that creates it reports that.
        init_sync::free_place(pass.settings, here, error).ok()
    }) else {
        return Ok(());
    };
    let place = Place { git_dir: work_dir.join(".git"), work_dir, named: repo.is_some(), is_scratch: false };
    match pass.check_site(&place, here)? {
        Some(site) => pass.check_site_is_ours(&site, &PrivateDir::of(&place.git_dir)),
        None => Ok(()),
    }
}

/// The error of a pass that did not get the lock in time.
fn lock_was_busy(pass: &Pass<'_>, holder: Option<lock::Holder>) -> Error {
    let holder = holder.map_or_else(|| "another gitsync".to_owned(), |holder| holder.to_string());
    let waited = humantime::format_duration(pass.settings.lock_wait);
    Error::new(
        Kind::Busy,
        format!("{holder} has held the lock for the whole {waited} that we waited"),
        "the next pass tries again; raise --lock-wait if passes take that long",
    )
}

/// The error of a pass that could not take the lock.
fn lock_refused(private: &PrivateDir, command: Command, error: &std::io::Error) -> Error {
    let doing = "taking the lock (.git/gitsync/lock)";
    let said = rustix::io::Errno::from_io_error(error);
    let is_no_file = matches!(said, Some(rustix::io::Errno::ISDIR | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO));
    if is_no_file || error.kind() == std::io::ErrorKind::InvalidInput {
        let next = "run `gitsync init-sync`: it moves aside what is in the place of a file";
        return Error::new(Kind::NotReady, format!("{doing}: {error}"), next);
    }
    let (lock, queue) = (private.file("lock"), private.file(&format!("waiting-{}", command.word())));
    owner::refused(doing, &[&lock, &queue, private.path()], error)
}

fn work(pass: &mut Pass<'_>, place: &Place, private: &PrivateDir, held: &Held, clock: Instant) -> Result<Word, Error> {
    let waited = clock.elapsed();
    if waited > Duration::from_secs(1) {
        tracing::debug!(waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX), "have the lock");
    }
    let until = clock::instant() + pass.settings.lock_wait;
    watchdog::step("ending processes that an earlier job has left running");
    job::end_orphans(private.path(), until)?;
    if let Some(site) = &pass.site {
        pass.check_site_is_ours(site, private)?;
        site.tidy();
    }
    watchdog::step("healing the repository");
    match pass.outcome.command {
        Command::InitSync => init_sync::run(pass, place, held),
        Command::Sync | Command::Tick => sync_or_tick(pass, place, held),
    }
}

fn sync_or_tick(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    let names = pass.names();
    heal::clear_leftovers(place, held, &names.branch, &names.remote, false)?;
    watchdog::step("opening the repository");
    let repo = Repo::open(place, held, names, &pass.outcome.rescues)?;
    repo.hold_config()?;
    pass.settle_token_host(&repo, Recording::First)?;
    let now = clock::now();
    watchdog::step("finishing the follow of a killed pass");
    repo.finish_follow(now)?;
    watchdog::step("looking at the repository");
    repo.check_ready()?;
    repo.heal_index(now, false)?;
    pass.outcome.local_before = repo.local_tip()?.map(|id| id.to_string());
    pass.outcome.local.clone_from(&pass.outcome.local_before);
    pass.outcome.remember();
    let is_tick = pass.outcome.command == Command::Tick;
    let result = if is_tick { tick::run(pass, &repo) } else { sync::run(pass, &repo) };
    // A job or a build may have put a special file in the way. Where that matters, it was reported above.
    let others_ran = is_tick || pass.outcome.site_built.is_some();
    if others_ran && repo.check_files().is_err() {
        return result;
    }
    pass.outcome.local = repo.local_tip().ok().flatten().map(|id| id.to_string());
    if is_tick {
        watchdog::step("removing old rescues");
        pass.let_go_of_old(&repo);
        upkeep::pack_together(pass, &repo);
    }
    result
}

/// After a failure that looks like damage, reads the repository again. The error then says whether it is damage, or whether the
/// system had run out of a resource.
fn second_look(pass: &Pass<'_>, place: &Place, failure: Error) -> Error {
    match damage::prove(place, &pass.names(), damage::Reading::Quick) {
        Err(error) => error,
        Ok(Some(damage)) => Error { what: format!("{}: {}", failure.what, damage.what), ..failure },
        Ok(None) => match damage::index_is_damaged(&place.git_dir) {
            Ok(true) => Error { what: format!("{}: the index is damaged", failure.what), ..failure },
            Ok(false) if !place.git_dir.join("HEAD").exists() => {
                Error { what: format!("{}: HEAD is missing", failure.what), ..failure }
            }
            Ok(false) => Error::retry(
                format!("{}; read again, everything is sound", failure.what),
                "the next pass tries again; if this error comes again, run it with -vv for more",
            ),
            Err(error) => error,
        },
    }
}

fn write_metrics(pass: &Pass<'_>, place: &Place, private: &PrivateDir, record: &Record) {
    let Some(path) = &pass.settings.metrics_file else { return };
    let peek = git::peek(place, pass.names());
    let destination = peek.as_ref().ok().and_then(|peek| peek.destination.as_ref());
    let snapshot = metrics::Snapshot {
        repository: &place.work_dir,
        branch: &pass.settings.branch,
        mode: pass.settings.mode,
        pending: marker::read(private).zip(destination).is_some_and(|(marked, to)| marked.is_for(to)),
        peek: peek.as_ref().ok(),
        record,
    };
    if let Err(error) = metrics::write(path, &snapshot) {
        let next = "make its folder writable; until then the file is out of date";
        tracing::warn!(next, "the metrics file {} could not be written: {error}", path.display());
    }
}

/// A dry run: neither a folder nor a lock file is created.
fn plan_only(pass: &mut Pass<'_>) -> Result<Word, Error> {
    let settings = pass.settings;
    let here = current_folder()?;
    let place = match (pass.outcome.command, git::find(settings.repo.as_deref(), &here)) {
        (_, Ok(place)) => Some(place),
        (Command::InitSync, Err(error)) => {
            init_sync::free_place(settings, &here, error)?;
            check_site_of_new(pass, &here)?;
            None
        }
        (_, Err(error)) => return Err(error),
    };
    if let Some(place) = &place {
        log::set_repo(&place.work_dir);
        pass.site = pass.check_site(place, &here)?;
    }
    match (look_only(pass, place.as_ref()), place) {
        (Err(failure), Some(place)) if failure.kind == Kind::Corrupt => Err(second_look(pass, &place, failure)),
        (planned, Some(place)) => planned.map_err(|failure| git::settings::named(&place, failure)),
        (planned, None) => planned,
    }
}

/// Prints what the pass would do. The result word and the exit code are those that the pass would have; a tick's are those it
/// would have if its job changed nothing.
///
/// # Errors
/// The error that would end the pass early.
fn look_only(pass: &mut Pass<'_>, place: Option<&Place>) -> Result<Word, Error> {
    let Some(place) = place else {
        let scratch = Scratch::empty(None)?;
        return init_sync::run(pass, &scratch.place, &Held::without_repository());
    };
    let held = match lock_for_looking(pass, place)? {
        Ok(held) => held,
        Err(word) => return Ok(word),
    };
    if let Some(site) = &pass.site {
        pass.check_site_is_ours(site, &PrivateDir::of(&place.git_dir))?;
    }
    match pass.outcome.command {
        Command::InitSync => init_sync_in_a_copy(pass, place, &held),
        Command::Sync | Command::Tick => plan_sync_or_tick(pass, place, &held),
    }
}

fn lock_for_looking(pass: &mut Pass<'_>, place: &Place) -> Result<Result<Held, Word>, Error> {
    let command = pass.outcome.command;
    let private = PrivateDir::of(&place.git_dir);
    if private.path().symlink_metadata().is_ok() {
        let doing = format!("making the private folder {}", private.path().display());
        private.check().map_err(|error| owner::refused(&doing, &[private.path()], &error))?;
    }
    let lock = private.file("lock").symlink_metadata();
    if command == Command::InitSync && lock.is_ok_and(|meta| !meta.is_file()) {
        pass.would("move aside what is in the place of the lock");
        return Ok(Ok(Held::without_repository()));
    }
    let taken = {
        let _has_a_limit = pass.watch.excuse();
        let queued = command != Command::InitSync;
        lock::take_for_looking(&private, command.word(), queued, pass.settings.lock_wait)
            .map_err(|error| lock_refused(&private, command, &error))?
    };
    match taken {
        Taken::Held(held) => Ok(Ok(held)),
        Taken::Skipped => Ok(Err(Word::Skipped)),
        Taken::Busy(holder) => Err(lock_was_busy(pass, holder)),
    }
}

/// init-sync heals the repository before it plans. A dry run does that in a copy.
fn init_sync_in_a_copy(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    git::check_files(place, &pass.names())?;
    heal::stale_locks(place, held, &pass.settings.branch, &pass.settings.remote, true)?;
    // Opening the original finds what the copy would not show: its owner, and where its files are.
    match Repo::open(place, held, pass.names(), &pass.outcome.rescues).and_then(|repo| repo.hold_config()) {
        Err(error) if error.kind == Kind::NotReady => return Err(error),
        _ => {}
    }
    let scratch = Scratch::of(place)?;
    tracing::debug!("healing a copy of the repository instead of the repository");
    pass.copied_from = Some(place.clone());
    init_sync::run(pass, &scratch.place, held)
}

fn plan_sync_or_tick(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    let names = pass.names();
    for (lock, _) in heal::stale_locks(place, held, &names.branch, &names.remote, false)? {
        pass.would(format!("remove the stale lock {}", lock.display()));
    }
    let repo = Repo::open(place, held, names, &pass.outcome.rescues)?;
    repo.hold_config()?;
    repo.keep_writes_in_memory()?;
    pass.settle_token_host(&repo, Recording::Never)?;
    dry_run::finish_follow(pass, &repo)?;
    repo.check_ready()?;
    dry_run::make_index_again(pass, &repo, false)?;
    pass.outcome.local_before = repo.local_tip()?.map(|id| id.to_string());
    pass.outcome.local.clone_from(&pass.outcome.local_before);
    match pass.outcome.command {
        Command::Tick => tick::run(pass, &repo),
        Command::Sync | Command::InitSync => sync::run(pass, &repo),
    }
}

/// Moves aside what a job or a person has put in the place of gitsync's own files and folders, such as a folder with the name of
/// the lock file.
fn set_aside_misplaced(private: &PrivateDir) -> Result<(), Error> {
    let files = [
        "lock",
        "waiting-sync",
        "waiting-tick",
        "job.lock",
        "status.json",
        "intent",
        job_mark::NAME,
        "index-before",
        "ages.json",
        "begun",
        "putting-aside",
        "token-host",
        "old-server",
        "force-push-pending",
        site::SITE_STALE,
        site::SITE_OURS,
        upkeep::GC_FAILED,
    ];
    let folders = ["broken", "damaged-refs", "empty-objects", "staging", "staging-old", "site-staging", "reading"];
    let stamp = clock::now().format("%Y%m%dT%H%M%SZ").to_string();
    let moved = private.set_aside_misplaced(&files, &folders, &stamp);
    for (from, to) in
        moved.map_err(|error| Error::io("moving aside what is in the place of gitsync's own files", &error))?
    {
        tracing::warn!(from = %from.display(), to = %to.display(), "moved aside: a file or folder of gitsync's belongs there");
    }
    Ok(())
}

fn current_folder() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|error| {
        let what = format!("the current folder can't be found: {error}");
        Error::person(what, "run gitsync in a folder that exists")
    })
}
