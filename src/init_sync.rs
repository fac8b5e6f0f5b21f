//! `gitsync init-sync`: at start-up, brings the repository to the remote's latest commit, in either mode.
//!
//! It creates the repository if there is none, heals it, follows the remote and builds the site. It is also what a person runs
//! when something is wrong, so it accepts a repository in any state, and loses nothing of it.

use std::path::{Path, PathBuf};

use crate::act;
use crate::cli::Config;
use crate::clock::now;
use crate::error::{Error, Kind};
use crate::git::heal::carry_over::Carry;
use crate::git::heal::{aside, damage};
use crate::git::{self, Place, Repo, heal, misplaced};
use crate::outcome::Word;
use crate::pass::Pass;
use crate::plan::{self, Basis, RemoteTip};
use crate::policy::SyncState;
use crate::state::dir::PrivateDir;
use crate::state::lock::Held;
use crate::state::token_host::Recording;
use crate::{dry_run, job_left, look, remote};

/// Where the repository is or will be. If there is none, creates its folder and an empty `.git`, which the lock needs.
///
/// # Errors
/// A usage error if there is neither a repository nor a URL to clone from.
pub fn place(settings: &Config, here: &Path) -> Result<Place, Error> {
    match git::find(settings.repo.as_deref(), here) {
        Ok(place) => {
            let begun = exists(&place.git_dir.join("HEAD"))?;
            let kept = !begun && holds_repository(&place.git_dir)?;
            if begun || kept || settings.remote_url.is_some() { Ok(place) } else { Err(no_url(&place.work_dir)) }
        }
        Err(error) => {
            let folder = match free_place(settings, here, error) {
                Ok(folder) => folder,
                // Another init-sync may have created the repository since the first look.
                Err(failure) => return git::find(settings.repo.as_deref(), here).map_err(|_| failure),
            };
            let git_dir = folder.join(".git");
            std::fs::create_dir_all(&git_dir).map_err(|error| Error::path("making", &git_dir, &error))?;
            Ok(git::find(Some(&folder), here)?)
        }
    }
}

/// The folder to create a repository in, after `error` said that there is no usable one.
///
/// # Errors
/// `error` if there is a repository of another kind; a usage error if there is no URL.
pub fn free_place(settings: &Config, here: &Path, error: Error) -> Result<PathBuf, Error> {
    let folder = settings.repo.as_deref().map_or_else(|| here.to_owned(), |repo| here.join(repo));
    let bare = folder.join("HEAD").is_file() && folder.join("objects").is_dir();
    if bare || folder.join(".git").symlink_metadata().is_ok() {
        return Err(error);
    }
    if settings.remote_url.is_none() {
        return Err(no_url(&folder));
    }
    Ok(folder)
}

/// Whether there is a repository without HEAD. If an earlier init-sync was killed after it had put the repository aside, the
/// configuration is in the private folder.
fn holds_repository(git_dir: &Path) -> Result<bool, Error> {
    Ok(exists(&git_dir.join("objects"))? || exists(&PrivateDir::of(git_dir).file("broken"))?)
}

/// Unlike `Path::exists`, does not take a folder that can't be read for one without the file.
fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(|error| Error::path("looking at", path, &error))
}

fn no_url(folder: &Path) -> Error {
    Error::usage(
        format!("there is no repository in {} and no URL to clone from", folder.display()),
        "set --remote-url, GIT_SYNC_REMOTE_URL or GITHUB_REPOSITORY",
    )
}

/// Does the pass. With `--dry-run` it prints what it would do; `place` is then a scratch copy of the repository, which may be
/// changed.
///
/// # Errors
/// The error that ends the pass early.
pub fn run(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    git::check_files(place, &pass.names())?;
    misplaced::set_aside_misplaced(place, &pass.names(), held)?;
    heal::clear_leftovers(place, held, &pass.settings.branch, &pass.settings.remote, true)?;
    let mut fresh = heal::make_or_mend(place, held, &pass.settings.branch, now())?;
    if fresh && pass.settings.dry_run {
        pass.would("create a repository, fetch the remote, and check out its branch");
    }
    let mut repo = match open(pass, place, held) {
        Err(error) if error.kind == Kind::Corrupt && !fresh => {
            put_aside_if_damaged(pass, place, held, &error.what)?;
            fresh = true;
            open(pass, place, held)
        }
        other => other,
    }?;
    if !fresh {
        pass.outcome.local_before = repo.local_tip().ok().flatten().map(|id| id.to_string());
    }
    let followed = match mend_and_follow(pass, &repo, fresh) {
        Err(failure) if failure.kind == Kind::Corrupt && !fresh => {
            // Close its file descriptors first: the second reading may need them.
            drop(repo);
            put_aside_if_damaged(pass, place, held, &failure.what)?;
            repo = open(pass, place, held)?;
            mend_and_follow(pass, &repo, true)
        }
        other => other,
    };
    let word = followed?;
    // A build may have put a special file in the way. The next pass reports it; here it must not block us.
    if pass.outcome.site_built.is_some() && repo.check_files().is_err() {
        return Ok(word);
    }
    pass.outcome.local = repo.local_tip()?.map(|id| id.to_string());
    if !pass.settings.dry_run {
        pass.let_go_of_old(&repo);
    }
    Ok(word)
}

/// Puts the repository aside and creates a new one, if the failure proves to be damage of the repository.
///
/// # Errors
/// The suspicion, if everything can be read after all; or if the repository can't be put aside.
fn put_aside_if_damaged(pass: &Pass<'_>, place: &Place, held: &Held, suspicion: &str) -> Result<(), Error> {
    tracing::warn!("{suspicion}; reading everything again");
    let original = pass.copied_from.as_ref().unwrap_or(place);
    match damage::prove(original, &pass.names(), damage::Reading::Full)? {
        Some(damage) => aside::begin_anew(place, held, &pass.settings.branch, now(), &damage),
        None => {
            let what = format!("{suspicion}; read again, everything is sound, and nothing was put aside");
            let next = "the next pass tries again; if this error comes again, run it with -vv for more";
            Err(Error::new(Kind::Exhausted, what, next))
        }
    }
}

/// Opens the repository and sets its remote and identity.
fn open(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Repo, Error> {
    let settings = pass.settings;
    let repo = Repo::open(place, held, pass.names(), &pass.outcome.rescues)?;
    let stored = repo.stored_url()?;
    let wanted = settings.remote_url.as_deref().or(stored.as_deref());
    let Some(wanted) = wanted else {
        return Err(Error::usage(
            format!("the repository has no remote '{}' and no URL is given", settings.remote),
            "set --remote-url, GIT_SYNC_REMOTE_URL or GITHUB_REPOSITORY",
        ));
    };
    let (clean, secret) = remote::split_url_secret(wanted);
    if secret.is_some() {
        // This pass may use the secret, but it must not stay in the configuration.
        pass.url_secret = secret;
        if stored.as_deref() == Some(wanted) {
            tracing::warn!("a token was found in the remote's stored URL and removed; give it by --token-file");
        } else if remote::TokenHost::of_url(wanted) != remote::TokenHost::Nowhere {
            tracing::info!(
                "the secret in the remote's URL is not stored; the next passes take it from GIT_SYNC_REMOTE_URL (the whole URL), \
                 GIT_SYNC_TOKEN or --token-file"
            );
        }
    }
    let clean = absolute(&clean);
    if settings.remote_url.is_some() {
        repo.check_url(&clean)?;
    }
    repo.set_remote(&clean)?;
    if repo.clean_push_url()? {
        tracing::warn!("a token was found in the remote's stored push URL and removed; give it by --token-file");
    }
    repo.set_identity()?;
    repo.hold_config()?;
    pass.settle_token_host(&repo, Recording::New)?;
    Ok(repo)
}

/// Makes a relative path absolute; it is relative to the folder in which the command was run.
fn absolute(url: &str) -> String {
    let path = !url.contains("://") && !url.split('/').next().unwrap_or_default().contains(':');
    if path && !url.starts_with('/') && Path::new(url).exists() {
        return std::path::absolute(url).map_or_else(|_| url.to_owned(), |path: PathBuf| path.to_string_lossy().into());
    }
    url.to_owned()
}

/// Heals what is left of earlier passes, then brings branch, index and files to the remote's state.
fn mend_and_follow(pass: &mut Pass<'_>, repo: &Repo, fresh: bool) -> Result<Word, Error> {
    if pass.settings.dry_run {
        dry_run::mend(pass, repo)?;
    } else {
        match repo.finish_follow(now()) {
            Ok(_) => {}
            // The follow below brings everything to the remote's state, and rescues what it replaces.
            Err(error) if matches!(error.kind, Kind::NotReady | Kind::Corrupt) => repo.drop_intent()?,
            Err(error) => return Err(error),
        }
        repo.mend_state(now())?;
        repo.heal_index(now(), true)?;
    }
    if let Some(tip) = repo.local_tip()? {
        repo.check_whole(tip)?;
    }
    job_left::commit(pass, repo)?;
    let mut view = look::look(pass, repo)?;
    job_left::keep_whole(pass, repo, &view)?;
    match (&view.remote, view.local) {
        // The local state stays in use. There is no network time left to carry anything over.
        (RemoteTip::Unavailable(_), Some(_)) => {}
        // A repository may have been put aside, in this pass or an earlier one. Its newest commit is used: without a commit, the
        // next tick would begin a separate history.
        (RemoteTip::Unavailable(_), None) => {
            carry_over(pass, repo, Carry::WithoutTheRemotes)?;
            view.put_aside = repo.newest_put_aside()?;
        }
        (RemoteTip::At(_), _) => carry_over(pass, repo, Carry::WithTheRemotes)?,
        (RemoteTip::Absent | RemoteTip::Gone, _) => {
            repo.forget_seen(now())?;
            carry_over(pass, repo, Carry::WithTheRemotes)?;
        }
    }
    let plan = plan::init_sync(&view, fresh);
    act::apply(pass, repo, Basis { view: &view, mode: pass.settings.mode }, &plan)?;
    job_left::settle(pass, repo, &view)?;
    if plan.word == Word::EmptyRemote {
        repo.has_a_history()?;
        tracing::info!(branch = %repo.names.branch, "the remote has no such branch yet; the first tick's push creates it");
    }
    match plan.word {
        Word::State(SyncState::UpToDate) if pass.files_changed => Ok(Word::Reset),
        word => Ok(word),
    }
}

/// Copies what repositories that were put aside still hold into this one. It uses the time for the network: no other limit of a
/// pass is long enough.
fn carry_over(pass: &mut Pass<'_>, repo: &Repo, carry: Carry) -> Result<(), Error> {
    pass.in_network_time("carrying over what was put aside", |until| repo.carry_over(carry, now(), until))
}
