//! `gitsync tick`: sync, run the job, build the site, commit, push.
//!
//! The remote is looked at first: a tick that builds on a stale commit loses the race it could have won. What the job wrote
//! is committed whether the job failed or not: state is evidence. What is committed stays committed until the remote has it.

use std::io;

use chrono::SecondsFormat;

use crate::cli::OnDivergence;
use crate::git::commit::First;
use crate::git::remote::Push;
use crate::git::rescue::What;
use crate::git::{self, CommitId, Heads, Repo, Sort};
use crate::job::{Ended, Program};
use crate::marker;
use crate::outcome::{Failure, Word};
use crate::pass::{Pass, now};
use crate::policy::{Mode, SyncState};
use crate::sync::{self, Seen};

/// How often a push that lost a race is tried, at most.
const TRIES: u32 = 3;

/// The pass.
///
/// # Errors
/// What keeps the pass from its end; what does not is in the outcome's failures.
pub fn run(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Failure> {
    let (seen, mode) = sync_first(pass, repo)?;
    let remote = seen.as_ref().and_then(|seen| seen.heads.remote);

    run_the_job(pass, repo, remote, mode)?;
    let head = repo.place.git_dir.join("HEAD").symlink_metadata();
    if head.is_err_and(|error| [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())) {
        return Err(Failure::person(
            format!("the job took away the repository's {}", repo.place.git_dir.display()),
            "run `gitsync init-sync --remote-url URL`: it fetches anew; what lies in the folder is kept as a rescue",
        ));
    }
    // A job may have taken the folder away; the lock on `.git` still keeps others out.
    repo.private.create().map_err(|error| {
        let next = "take away what is there now; what the job wrote is in the work tree, and the next tick commits it";
        Failure::person(format!("after the job: {error}"), next)
    })?;
    let ready = repo.check_files().and_then(|()| repo.read_config_again()).and_then(|()| repo.check_ready());
    ready.map_err(|error| {
        let error = Failure::from(error);
        Failure { what: format!("after the job: {}; what it wrote is not committed", error.what), ..error }
    })?;
    pass.build_site(repo, remote, mode);
    if pass.outcome.site_built.is_some() {
        repo.check_files().map_err(|error| {
            let error = Failure::from(error);
            Failure { what: format!("after the build: {}; what the job wrote is not committed", error.what), ..error }
        })?;
    }
    // Asked in this pass, and there was nothing on either side.
    let begins = seen.is_some_and(|seen| seen.heads == Heads { local: None, remote: None });
    commit(pass, repo, if begins { First::Allowed } else { First::Refused })?;
    Ok(push_what_is_ours(pass, repo, seen))
}

/// The mode of a tick: a pending marker counts as alpha for what it was set for.
///
/// # Errors
/// Where the remote's configuration or the history can't be read.
pub fn mode(pass: &Pass<'_>, repo: &Repo, heads: Heads) -> Result<Mode, git::Error> {
    match pass.settings.mode {
        Mode::NonAlpha if marker::covers(repo, heads)? => Ok(Mode::Alpha),
        mode => Ok(mode),
    }
}

/// The sync at a tick's beginning, best effort: nothing is seen where the remote could not be looked at.
fn sync_first(pass: &mut Pass<'_>, repo: &Repo) -> Result<(Option<Seen>, Mode), Failure> {
    let as_last_seen =
        |pass: &Pass<'_>| mode(pass, repo, Heads { local: repo.local_tip()?, remote: repo.last_seen()? });
    let mut seen = match sync::look(pass, repo) {
        Ok(seen) => seen,
        Err(error) if error.sort == Sort::Unreachable && repo.local_tip()?.is_some() => {
            tracing::warn!(next = %error.next, "{}; the tick goes on with local state", error.what);
            return Ok((None, as_last_seen(pass)?));
        }
        Err(error) if error.sort == Sort::Refused && repo.local_tip()?.is_some() => {
            pass.outcome.fail(error.into());
            return Ok((None, as_last_seen(pass)?));
        }
        // Without a commit to build on, a job's first commit would be a history of its own.
        Err(error) => return Err(error.into()),
    };
    let mode = mode(pass, repo, seen.heads)?;
    if mode == Mode::NonAlpha {
        marker::explain(repo);
    }
    if seen.vanished && mode == Mode::NonAlpha {
        if let Err(error) = sync::act(pass, repo, &seen, mode) {
            pass.outcome.fail(error.into());
        }
        return Ok((Some(seen), mode));
    }
    match sync::act(pass, repo, &seen, mode) {
        // The remote's fault. Our own state goes on; nothing of it is forced over a commit that nobody could look at.
        Err(error) if error.sort == Sort::Unfit && seen.heads.local.is_some() => {
            pass.outcome.fail(error.into());
            seen.unfit = true;
        }
        acted => {
            acted?;
        }
    }
    Ok((Some(seen), mode))
}

fn run_the_job(pass: &mut Pass<'_>, repo: &Repo, remote: Option<CommitId>, mode: Mode) -> Result<(), Failure> {
    let settings = pass.settings;
    let program = if settings.tick_argv.is_empty() {
        Program::Shell(settings.tick_command.clone())
    } else {
        Program::Argv(settings.tick_argv.clone())
    };
    let ended = match pass.keeping_tips(repo, "the job", |pass| {
        pass.run_job("job", program, settings.job_timeout, repo, remote, mode, None)
    }) {
        Ok(ended) => ended,
        Err(failure) => {
            pass.outcome.fail(failure);
            return Ok(());
        }
    };
    pass.outcome.job_exit_code = match &ended {
        Ended::Exited(code) => Some(*code),
        Ended::Signalled(signal) | Ended::Stopped { signal } => Some(128 + signal),
        Ended::TimedOut { .. } => None,
    };
    match ended {
        Ended::Exited(0) => {}
        ended => {
            let next = "look at what it said above; what it wrote is committed all the same";
            pass.outcome.fail(Failure::person(format!("the job {ended}"), next));
        }
    }
    Ok(())
}

fn commit(pass: &mut Pass<'_>, repo: &Repo, first: First) -> Result<(), Failure> {
    let settings = pass.settings;
    let when = now();
    let message = settings.message.replace("{time}", &when.to_rfc3339_opts(SecondsFormat::Secs, true));
    let done = repo.commit_under(&settings.paths, settings.max_file_size, &message, when, first)?;
    for left_out in done.left_out {
        let path = left_out.path.display();
        pass.outcome.fail(Failure::person(
            format!("{path} was left out of the commit: it {}", left_out.why),
            "take it away, ignore it (.gitignore), or change --path; the rest is committed",
        ));
    }
    match done.commit {
        Some(commit) => {
            pass.outcome.commit = Some(commit.to_string());
            tracing::info!(commit = %commit, files = done.files, "{}", message.lines().next().unwrap_or_default());
        }
        None => tracing::info!("no state changes"),
    }
    Ok(())
}

/// Pushes what the remote does not have, an earlier tick's commit included.
fn push_what_is_ours(pass: &mut Pass<'_>, repo: &Repo, seen: Option<Seen>) -> Word {
    let pushed = push(pass, repo, seen);
    match pushed {
        Ok(word) => word,
        Err(error) => {
            let retry = error.sort != Sort::Refused && error.sort != Sort::Corrupt;
            let said = if retry { "push failed, will retry" } else { "push failed" };
            let failure = Failure::from(error);
            pass.outcome.fail(Failure { what: format!("{said}: {}", failure.what), ..failure });
            Word::PushFailed
        }
    }
}

fn push(pass: &mut Pass<'_>, repo: &Repo, seen: Option<Seen>) -> Result<Word, git::Error> {
    let Some(mut ours) = repo.local_tip()? else { return Ok(Word::NoChanges) };
    let looked = seen.is_some();
    let mut seen = match seen {
        Some(seen) => seen,
        None if repo.last_seen()? == Some(ours) => return Ok(Word::NoChanges),
        // The network was away when the tick began; it may be back.
        None => sync::look(pass, repo)?,
    };
    if seen.heads.remote == Some(ours) {
        sync::forget_force_push(repo, "the remote has our commit")?;
        return Ok(Word::NoChanges);
    }
    // Judged anew: the job may have changed the branch, or where it is pushed to.
    let mut mode = mode(pass, repo, Heads { local: Some(ours), ..seen.heads })?;
    if seen.vanished && mode == Mode::NonAlpha {
        if repo.last_seen()? == Some(ours) {
            return Ok(Word::Error);
        }
        if looked {
            // The look at the beginning has said what is wrong and what to do.
            return Ok(Word::PushFailed);
        }
        let what = format!("branch '{}' is gone from the remote", repo.names.branch);
        return Err(git::Error::new(Sort::Refused, what, "the commit is kept; a person has to say whether to push it"));
    }
    if seen.unfit {
        // Said at the beginning, with what to do.
        return Ok(if seen.heads.local == Some(ours) { Word::NoChanges } else { Word::PushFailed });
    }
    let mut attempt = 1;
    let held = loop {
        let theirs = seen.heads.remote;
        let mut how = Push::FastForward;
        if let Some(theirs) = theirs {
            let relation = repo.relation(ours, theirs)?;
            if attempt > 1 && (relation.same || relation.local_is_ancestor) {
                // Our commit came through after all, or somebody has pushed on top of it: the remote holds it.
                break theirs;
            }
            if !relation.remote_is_ancestor {
                seen.heads.local = Some(ours);
                seen.state = SyncState::Diverged;
                if let Some(replayed) = sync::replay(pass, repo, &seen)? {
                    ours = replayed;
                    pass.outcome.commit = pass.outcome.commit.take().map(|_| ours.to_string());
                } else if mode == Mode::Alpha && !repo.began_beside(ours, theirs)? {
                    let why = "about to be overwritten by this instance (alpha)";
                    let name = repo.rescue(What::Remote, theirs, now(), why)?;
                    pass.outcome.rescue_refs.push(name);
                    how = Push::Overwrite;
                } else {
                    let what = format!("the remote's '{}' has commits that we have not", repo.names.branch);
                    return Err(git::Error::new(Sort::LostRace, what, "the next pass looks anew and decides"));
                }
            }
        }
        match pass.with_remote(repo, "the push", |remote| remote.push(ours, theirs, how)) {
            Ok(()) => {
                pass.outcome.forced = how == Push::Overwrite;
                break ours;
            }
            Err(error) if error.sort == Sort::LostRace && attempt < TRIES && may_try_again(pass, mode) => {
                tracing::warn!(attempt, "{}; looking again", error.what);
                seen = sync::look(pass, repo)?;
                mode = self::mode(pass, repo, Heads { local: Some(ours), ..seen.heads })?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    };
    pass.outcome.pushed = true;
    pass.outcome.remote = Some(held.to_string());
    let how = if pass.outcome.forced { "pushed, overwriting the remote" } else { "pushed" };
    tracing::info!(commit = %ours, "{how}");
    pass.outcome.rescue_refs.extend(repo.remember_seen(held, now())?);
    repo.has_a_history()?;
    sync::forget_force_push(repo, "the remote has our commit")?;
    if pass.site_is_stale(repo) && pass.outcome.site_built == Some(true) {
        // A replay has brought the remote's pages in after the build.
        pass.build_site(repo, Some(held), mode);
    }
    Ok(Word::Pushed)
}

/// A lost race is run again where there is a rule by which we may win it.
fn may_try_again(pass: &Pass<'_>, mode: Mode) -> bool {
    mode == Mode::Alpha || pass.settings.on_divergence == OnDivergence::Rebase
}
