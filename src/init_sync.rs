//! `gitsync init-sync`: at start-up, always the remote's latest, in either mode.
//!
//! It makes the repository exist, heals what was left, follows the remote and builds the site. It is what a person runs
//! when something is wrong, so it takes a repository in whatever state it is, and loses nothing of it.

use std::path::{Path, PathBuf};

use crate::cli::Config;
use crate::git::carry_over::Here;
use crate::git::remote::Fetched;
use crate::git::{self, Place, Repo, Sort, aside, damage, heal, misplaced};
use crate::lock::Held;
use crate::marker;
use crate::outcome::{Failure, Word};
use crate::pass::{Pass, now};
use crate::policy::SyncState;
use crate::private::PrivateDir;
use crate::token_host::Recording;
use crate::transport;

/// Where the repository is or will be. Its folder and an empty `.git` are made, so that there is a place for the lock.
///
/// # Errors
/// A usage error where there is neither a repository nor a URL to make one from.
pub fn place(settings: &Config, here: &Path) -> Result<Place, Failure> {
    match git::find(settings.repo.as_deref(), here) {
        Ok(place) => {
            let begun = place.git_dir.join("HEAD").exists();
            let kept = !begun && holds_repository(&place.git_dir);
            if begun || kept || settings.remote_url.is_some() { Ok(place) } else { Err(no_url(&place.work_dir)) }
        }
        Err(error) => {
            let folder = free_place(settings, here, error)?;
            let git_dir = folder.join(".git");
            std::fs::create_dir_all(&git_dir).map_err(|error| git::Error::path("making", &git_dir, &error))?;
            Ok(git::find(Some(&folder), here)?)
        }
    }
}

/// The folder to make a repository in, where `error` says that there is none to be used.
///
/// # Errors
/// That error where there is a repository of another kind, and a usage error where there is no URL.
pub fn free_place(settings: &Config, here: &Path, error: git::Error) -> Result<PathBuf, Failure> {
    let folder = settings.repo.as_deref().map_or_else(|| here.to_owned(), |repo| here.join(repo));
    let bare = folder.join("HEAD").is_file() && folder.join("objects").is_dir();
    if bare || folder.join(".git").symlink_metadata().is_ok() {
        return Err(error.into());
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

fn no_url(folder: &Path) -> Failure {
    Failure::usage(
        format!("there is no repository in {} and no URL to make one from", folder.display()),
        "set --remote-url, GIT_SYNC_REMOTE_URL or GITHUB_REPOSITORY",
    )
}

/// The pass.
///
/// # Errors
/// What keeps the pass from its end.
pub fn run(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Failure> {
    git::check_files(place, &pass.names())?;
    misplaced::set_aside_misplaced(place, &pass.names(), held)?;
    heal::clear_leftovers(place, held, &pass.settings.branch, &pass.settings.remote, true)?;
    let mut fresh = heal::make_or_mend(place, held, &pass.settings.branch, now())?;
    let mut repo = match open(pass, place, held) {
        Err(Opened::Damaged(error)) if !fresh => {
            put_aside_if_damaged(pass, place, held, error)?;
            fresh = true;
            open(pass, place, held)
        }
        other => other,
    }
    .map_err(Opened::into_failure)?;
    if !fresh {
        pass.outcome.local_before = repo.local_tip().ok().flatten().map(|id| id.to_string());
    }
    let brought = match bring(pass, &repo, fresh) {
        Err(error) if error.sort == Sort::Corrupt && !fresh => {
            // What it holds open would be missing to the second reading.
            drop(repo);
            put_aside_if_damaged(pass, place, held, error)?;
            repo = open(pass, place, held).map_err(Opened::into_failure)?;
            bring(pass, &repo, true)
        }
        other => other,
    };
    let word = brought?;
    pass.outcome.local = repo.local_tip()?.map(|id| id.to_string());
    pass.let_go_of_old(&repo);
    let remote = repo.last_seen()?;
    // On a branch without a commit there is nothing to build from, and no fault in that: the first tick makes the commit and
    // the site.
    if pass.builds_site() && pass.outcome.local.is_some() {
        pass.build_site(&repo, remote, pass.settings.mode);
    } else {
        pass.empty_site(&repo)?;
    }
    Ok(word)
}

/// Puts the repository aside and begins a new one, if what failed proves to be damage of its own.
///
/// # Errors
/// What failed, where everything can be read after all, and what keeps the repository from being put aside.
fn put_aside_if_damaged(pass: &Pass<'_>, place: &Place, held: &Held, suspicion: git::Error) -> Result<(), git::Error> {
    tracing::warn!("{}; reading everything again", suspicion.what);
    match damage::prove(place, &pass.names(), damage::Reading::Full)? {
        Some(damage) => aside::begin_anew(place, held, &pass.settings.branch, now(), &damage),
        None => {
            let what = format!("{}; read again, everything is sound, and nothing was put aside", suspicion.what);
            let next = "the next pass tries again; if it comes again, run it with -vv for more";
            Err(git::Error::new(Sort::Exhausted, what, next))
        }
    }
}

enum Opened {
    Damaged(git::Error),
    Refused(Failure),
}

impl Opened {
    fn into_failure(self) -> Failure {
        match self {
            Self::Damaged(error) => error.into(),
            Self::Refused(failure) => failure,
        }
    }
}

impl From<git::Error> for Opened {
    fn from(error: git::Error) -> Self {
        if error.sort == Sort::Corrupt { Self::Damaged(error) } else { Self::Refused(error.into()) }
    }
}

/// Opens the repository and sets its remote and identity.
fn open(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Repo, Opened> {
    let settings = pass.settings;
    let repo = Repo::open(place, held, pass.names())?;
    let stored = repo.stored_url()?;
    let wanted = settings.remote_url.as_deref().or(stored.as_deref());
    let Some(wanted) = wanted else {
        return Err(Opened::Refused(Failure::usage(
            format!("the repository has no remote '{}' and no URL is given", settings.remote),
            "set --remote-url, GIT_SYNC_REMOTE_URL or GITHUB_REPOSITORY",
        )));
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
fn bring(pass: &mut Pass<'_>, repo: &Repo, fresh: bool) -> Result<Word, git::Error> {
    match repo.finish_follow(now()) {
        Ok(finished) => pass.outcome.rescue_refs.extend(finished.unwrap_or_default().rescue_refs),
        // The follow below brings everything to the remote's state, and keeps what it replaces.
        Err(error) if matches!(error.sort, Sort::NotReady | Sort::Corrupt) => repo.drop_intent()?,
        Err(error) => return Err(error),
    }
    pass.outcome.rescue_refs.extend(repo.mend_state(now())?);
    repo.heal_index(now(), true)?;
    let local = repo.local_tip()?;
    if let Some(tip) = local {
        repo.check_whole(tip)?;
    }
    let looked = pass.with_remote(repo, "the remote", |remote| {
        let Some(tip) = remote.tip()? else { return Ok(None) };
        if repo.has_whole(tip)? && (local == Some(tip) || repo.check_whole(tip).is_ok()) {
            let rescue_ref = repo.remember_seen(tip, now())?;
            return Ok(Some(Fetched { tip: Some(tip), rescue_ref }));
        }
        remote.fetch(now()).map(Some)
    });
    let fetched = match looked {
        Ok(fetched) => fetched.unwrap_or_default(),
        Err(error) => return offline(pass, repo, error),
    };
    pass.outcome.rescue_refs.extend(fetched.rescue_ref);
    let Some(tip) = fetched.tip else { return empty_remote(pass, repo) };
    pass.outcome.remote = Some(tip.to_string());
    carry_over(pass, repo, Here::Remotes)?;
    let local = repo.local_tip()?;
    let unborn = local.is_none();
    if let Some(local) = local {
        let relation = repo.relation(local, tip)?;
        pass.outcome.ahead = Some(relation.ahead);
        pass.outcome.behind = Some(relation.behind);
        pass.outcome.state =
            Some(crate::policy::state(relation.same, relation.local_is_ancestor, relation.remote_is_ancestor));
    }
    pass.site_goes_stale(repo)?;
    let followed = match (repo.follow(tip, "following the remote at start-up", now()), local) {
        (Err(error), Some(local)) if error.sort == Sort::Unfit => {
            // The remote's fault: what is here is put in order, and ticks go on with it.
            let healed = repo.follow(local, "healing at start-up; the remote's commit can't be followed", now())?;
            pass.outcome.rescue_refs.extend(healed.rescue_refs);
            return Err(error);
        }
        (followed, _) => followed?,
    };
    pass.outcome.rescue_refs.extend(followed.rescue_refs);
    repo.has_a_history()?;
    marker::clear_at_start_up(repo)?;
    tracing::info!(branch = %repo.names.branch, remote = %tip, paths = followed.paths, "at the remote's latest");
    // A repository without a commit is none yet: an earlier start was cut short, or found the remote empty or away.
    let fresh = fresh || unborn;
    for note in repo.left_as_it_is(tip)? {
        tracing::info!("{note}");
    }
    Ok(match (fresh, followed.changed) {
        (true, _) => Word::Cloned,
        (false, true) => Word::Reset,
        (false, false) => Word::State(SyncState::UpToDate),
    })
}

/// Brings what repositories put aside still hold into this one. It takes of the time for the network: a pass has no other
/// that it may spend so long before it is ready.
fn carry_over(pass: &mut Pass<'_>, repo: &Repo, here: Here) -> Result<(), git::Error> {
    let kept = pass.in_network_time("carrying over what was put aside", |until| repo.carry_over(here, now(), until))?;
    pass.outcome.rescue_refs.extend(kept);
    Ok(())
}

/// The remote can't be had. With a branch to stand on, the container goes on with local state.
fn offline(pass: &mut Pass<'_>, repo: &Repo, error: git::Error) -> Result<Word, git::Error> {
    let mut local = repo.local_tip()?;
    if local.is_none() {
        // A repository was put aside, in this pass or an earlier one. On nothing, a commit would begin a history of its own.
        carry_over(pass, repo, Here::NotRemotes)?;
        local = repo.newest_put_aside()?;
        if let Some(tip) = local {
            let why = "standing on the newest commit that could be read; the remote can't be had";
            let followed = repo.follow(tip, why, now())?;
            pass.outcome.rescue_refs.extend(followed.rescue_refs);
            tracing::warn!(branch = %repo.names.branch, commit = %tip, "{why}");
            repo.has_a_history()?;
        }
    }
    let Some(tip) = local.filter(|_| error.sort == Sort::Unreachable) else { return Err(error) };
    // A HEAD that is elsewhere, or a merge left half done, is healed without the remote.
    let followed = repo.follow(tip, "healing at start-up, without the remote", now())?;
    pass.outcome.rescue_refs.extend(followed.rescue_refs);
    pass.outcome.fail(Failure::retry(error.what, format!("going on with local state; {}", error.next)));
    Ok(Word::Offline)
}

/// The remote has no such branch: the first tick's push makes it.
fn empty_remote(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, git::Error> {
    pass.outcome.rescue_refs.extend(repo.forget_seen(now())?);
    carry_over(pass, repo, Here::Remotes)?;
    match repo.local_tip()? {
        Some(tip) => {
            let followed = repo.follow(tip, "healing at start-up; the remote has no such branch", now())?;
            pass.outcome.rescue_refs.extend(followed.rescue_refs);
        }
        None => repo.stand_on_unborn_branch()?,
    }
    repo.has_a_history()?;
    marker::clear_at_start_up(repo)?;
    tracing::info!(branch = %repo.names.branch, "the remote has no such branch yet; the first tick's push makes it");
    Ok(Word::EmptyRemote)
}
