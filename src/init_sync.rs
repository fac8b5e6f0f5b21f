//! `gitsync init-sync`: at start-up, always the remote's latest, in either mode.
//!
//! It makes the repository exist, heals what was left, follows the remote and builds the site. It is what a person runs
//! when something is wrong, so it takes a repository in whatever state it is, and loses nothing of it.

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
use crate::{dry_run, job_left, look, transport};

/// Where the repository is or will be. Its folder and an empty `.git` are made, so that there is a place for the lock.
///
/// # Errors
/// A usage error where there is neither a repository nor a URL to make one from.
pub fn place(settings: &Config, here: &Path) -> Result<Place, Error> {
    match git::find(settings.repo.as_deref(), here) {
        Ok(place) => {
            let begun = place.git_dir.join("HEAD").exists();
            let kept = !begun && holds_repository(&place.git_dir);
            if begun || kept || settings.remote_url.is_some() { Ok(place) } else { Err(no_url(&place.work_dir)) }
        }
        Err(error) => {
            let folder = match free_place(settings, here, error) {
                Ok(folder) => folder,
                // Another init-sync may have begun the repository since the first look.
                Err(failure) => return git::find(settings.repo.as_deref(), here).map_err(|_| failure),
            };
            let git_dir = folder.join(".git");
            std::fs::create_dir_all(&git_dir).map_err(|error| Error::path("making", &git_dir, &error))?;
            Ok(git::find(Some(&folder), here)?)
        }
    }
}

/// The folder to make a repository in, where `error` says that there is none to be used.
///
/// # Errors
/// That error where there is a repository of another kind, and a usage error where there is no URL.
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

/// A repository that an earlier init-sync put aside and did not come to replace has its configuration there.
fn holds_repository(git_dir: &Path) -> bool {
    git_dir.join("objects").exists() || PrivateDir::of(git_dir).file("broken").exists()
}

fn no_url(folder: &Path) -> Error {
    Error::usage(
        format!("there is no repository in {} and no URL to make one from", folder.display()),
        "set --remote-url, GIT_SYNC_REMOTE_URL or GITHUB_REPOSITORY",
    )
}

/// The pass, or with `--dry-run` what it would do: then `place` is a scratch copy of the repository, and may be mended.
///
/// # Errors
/// What keeps the pass from its end.
pub fn run(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    git::check_files(place, &pass.names())?;
    misplaced::set_aside_misplaced(place, &pass.names(), held)?;
    heal::clear_leftovers(place, held, &pass.settings.branch, &pass.settings.remote, true)?;
    let mut fresh = heal::make_or_mend(place, held, &pass.settings.branch, now())?;
    if fresh && pass.settings.dry_run {
        pass.would("make a repository, fetch the remote, and check its branch out");
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
    let brought = match bring(pass, &repo, fresh) {
        Err(failure) if failure.kind == Kind::Corrupt && !fresh => {
            // What it holds open would be missing to the second reading.
            drop(repo);
            put_aside_if_damaged(pass, place, held, &failure.what)?;
            repo = open(pass, place, held)?;
            bring(pass, &repo, true)
        }
        other => other,
    };
    let word = brought?;
    // What a build has put in the way is said by the next pass; nothing here waits for it.
    if pass.outcome.site_built.is_some() && repo.check_files().is_err() {
        return Ok(word);
    }
    pass.outcome.local = repo.local_tip()?.map(|id| id.to_string());
    if !pass.settings.dry_run {
        pass.let_go_of_old(&repo);
    }
    Ok(word)
}

/// Puts the repository aside and begins a new one, if what failed proves to be damage of its own.
///
/// # Errors
/// What failed, where everything can be read after all, and what keeps the repository from being put aside.
fn put_aside_if_damaged(pass: &Pass<'_>, place: &Place, held: &Held, suspicion: &str) -> Result<(), Error> {
    tracing::warn!("{suspicion}; reading everything again");
    let original = pass.copied_from.as_ref().unwrap_or(place);
    match damage::prove(original, &pass.names(), damage::Reading::Full)? {
        Some(damage) => aside::begin_anew(place, held, &pass.settings.branch, now(), &damage),
        None => {
            let what = format!("{suspicion}; read again, everything is sound, and nothing was put aside");
            let next = "the next pass tries again; if it comes again, run it with -vv for more";
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
    let (clean, secret) = transport::split_url_secret(wanted);
    if secret.is_some() {
        // This pass may use it; the configuration must not keep it.
        pass.url_secret = secret;
        if stored.as_deref() == Some(wanted) {
            tracing::warn!("a token was found in the remote's stored URL and taken out; give it by --token-file");
        }
    }
    let clean = absolute(&clean);
    if settings.remote_url.is_some() {
        repo.check_url(&clean)?;
    }
    repo.set_remote(&clean)?;
    if repo.clean_push_url()? {
        tracing::warn!("a token was found in the remote's stored push URL and taken out; give it by --token-file");
    }
    repo.set_identity()?;
    repo.hold_config()?;
    pass.settle_token_host(&repo, Recording::New)?;
    Ok(repo)
}

/// A relative path is relative to where the command was given.
fn absolute(url: &str) -> String {
    let path = !url.contains("://") && !url.split('/').next().unwrap_or_default().contains(':');
    if path && !url.starts_with('/') && Path::new(url).exists() {
        return std::path::absolute(url).map_or_else(|_| url.to_owned(), |path: PathBuf| path.to_string_lossy().into());
    }
    url.to_owned()
}

/// Brings branch, index and files to the remote's state.
fn bring(pass: &mut Pass<'_>, repo: &Repo, fresh: bool) -> Result<Word, Error> {
    if pass.settings.dry_run {
        dry_run::mend(pass, repo)?;
    } else {
        match repo.finish_follow(now()) {
            Ok(_) => {}
            // The follow below brings everything to the remote's state, and keeps what it replaces.
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
        // What is here serves. The time for the network is up.
        (RemoteTip::Unavailable(_), Some(_)) => {}
        // A repository was put aside, in this pass or an earlier one. On nothing, a commit would begin a history of its own.
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
        tracing::info!(branch = %repo.names.branch, "the remote has no such branch yet; the first tick's push makes it");
    }
    match plan.word {
        Word::State(SyncState::UpToDate) if pass.files_changed => Ok(Word::Reset),
        word => Ok(word),
    }
}

/// Brings what repositories put aside still hold into this one. It takes of the time for the network: a pass has no other
/// that it may spend so long before it is ready.
fn carry_over(pass: &mut Pass<'_>, repo: &Repo, carry: Carry) -> Result<(), Error> {
    pass.in_network_time("carrying over what was put aside", |until| repo.carry_over(carry, now(), until))
}
