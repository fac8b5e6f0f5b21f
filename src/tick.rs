//! `gitsync tick`: sync, run the job, build the site, commit, push.
//!
//! The remote is looked at first: a tick that builds on a stale commit loses the race it could have won. What the job wrote
//! is committed whether the job failed or not: state is evidence. What is committed stays committed until the remote has it.

use std::io;

use chrono::SecondsFormat;

use crate::act::{self, Basis};
use crate::cli::OnDivergence;
use crate::clock::now;
use crate::error::{Error, Kind};
use crate::git::commit::{First, LeftOut};
use crate::git::remote::Push as How;
use crate::git::rescue::What;
use crate::git::{CommitId, Repo};
use crate::outcome::Word;
use crate::pass::Pass;
use crate::plan::{self, Plan, Push, Reason, RemoteTip, View};
use crate::policy::Mode;
use crate::process::job::{Ended, Program};
use crate::state::marker;
use crate::{dry_run, look};

/// How often a push that lost a race is tried, at most.
const TRIES: u32 = 3;

/// The pass, or with `--dry-run` what it would do if its job changed nothing.
///
/// # Errors
/// What keeps the pass from its end; what does not is in the outcome's failures.
pub fn run(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Error> {
    let view = look::look(pass, repo)?;
    let mode = view.tick_mode(pass.settings.mode);
    if mode == Mode::NonAlpha && !matches!(view.remote, RemoteTip::Unavailable(_)) {
        marker::explain(&repo.private);
    }
    let plan = plan::tick(&view, mode, plan::branch_is_gone(&repo.names.branch, &repo.names.remote));
    act::apply(pass, repo, Basis { view: &view, mode }, &plan)?;
    if plan.word == Word::Error {
        return Ok(Word::Error);
    }
    if pass.settings.dry_run {
        return Ok(dry_run::push(pass, repo, view, &plan, mode));
    }
    Ok(push_what_is_ours(pass, repo, view, &plan))
}

/// Runs the job, and sees that what it left of the repository can be worked in.
///
/// # Errors
/// Where nothing can be committed after it. That the job itself failed is in the outcome.
pub fn run_the_job(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_>) -> Result<(), Error> {
    start_the_job(pass, repo, basis)?;
    let head = repo.place.git_dir.join("HEAD").symlink_metadata();
    if head.is_err_and(|error| [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())) {
        return Err(Error::person(
            format!("the job took away the repository's {}", repo.place.git_dir.display()),
            "run `gitsync init-sync --remote-url URL`: it fetches anew; what lies in the folder is kept as a rescue",
        ));
    }
    // A job may have taken the folder away; the lock on `.git` still keeps others out.
    repo.private.create().map_err(|error| {
        let next = "take away what is there now; what the job wrote is in the work tree, and the next tick commits it";
        Error::person(format!("after the job: {error}"), next)
    })?;
    let ready = repo.check_files().and_then(|()| repo.read_config_again()).and_then(|()| repo.check_ready());
    ready.map_err(|error| Error {
        what: format!("after the job: {}; what it wrote is not committed", error.what),
        ..error
    })
}

fn start_the_job(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_>) -> Result<(), Error> {
    let (remote, mode) = (basis.view.tip(), basis.mode);
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
            pass.outcome.fail(Error::person(format!("the job {ended}"), next));
        }
    }
    Ok(())
}

/// Commits what is new, changed or gone under `--path`.
///
/// # Errors
/// What keeps it from being committed.
pub fn commit(pass: &mut Pass<'_>, repo: &Repo, view: &View<CommitId>) -> Result<(), Error> {
    if pass.outcome.site_built.is_some() {
        repo.check_files().map_err(|error| Error {
            what: format!("after the build: {}; what the job wrote is not committed", error.what),
            ..error
        })?;
    }
    let first = if view.is_empty() { First::Allowed } else { First::Refused };
    let settings = pass.settings;
    let when = now();
    let message = settings.message.replace("{time}", &when.to_rfc3339_opts(SecondsFormat::Secs, true));
    let done = repo.commit_under(&settings.paths, settings.max_file_size, &message, when, first)?;
    for left_out in done.left_out {
        pass.outcome.fail(left_out_of_commit(&left_out));
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

/// What is said of a path that is not committed.
pub fn left_out_of_commit(left_out: &LeftOut) -> Error {
    Error::person(
        format!("{} was left out of the commit: it {}", left_out.path.display(), left_out.why),
        "take it away, ignore it (.gitignore), or change --path; the rest is committed",
    )
}

/// Says why the push is not, or did not come about.
pub fn push_failed(pass: &mut Pass<'_>, failure: Error) {
    let said = if failure.is_passing() { "push failed, will retry" } else { "push failed" };
    pass.outcome.fail(Error { what: format!("{said}: {}", failure.what), ..failure });
}

/// Whether the plan before the job has said already why nothing is pushed. A remote that could not be asked is asked again.
pub fn is_said(before_job: &View<CommitId>, plan: &Plan<CommitId>) -> bool {
    plan.fails() && !matches!(before_job.remote, RemoteTip::Unavailable(_))
}

/// Pushes what the remote does not have, an earlier tick's commit included.
fn push_what_is_ours(pass: &mut Pass<'_>, repo: &Repo, before_job: View<CommitId>, plan: &Plan<CommitId>) -> Word {
    let said = is_said(&before_job, plan);
    push(pass, repo, before_job, said).unwrap_or_else(|error| {
        push_failed(pass, error);
        Word::PushFailed
    })
}

/// A tick is planned again for its push: the job may have changed the branch, or where it is pushed to.
fn push(pass: &mut Pass<'_>, repo: &Repo, before_job: View<CommitId>, said: bool) -> Result<Word, Error> {
    let mut view = match before_job.remote {
        // The network may be back.
        RemoteTip::Unavailable(_) if repo.local_tip()? != repo.last_seen()? => look::look(pass, repo)?,
        _ => look::again(pass, repo, &before_job)?,
    };
    let mut attempt = 1;
    loop {
        let mode = view.tick_mode(pass.settings.mode);
        let gone = plan::branch_is_gone(&repo.names.branch, &repo.names.remote);
        let planned = plan::push(&view, mode, gone, plan::has_other_commits(&repo.names.branch));
        let word = planned.word(&view, mode);
        let (ours, expected, how) = match (planned, view.local, view.tip()) {
            // A push that lost a race came through after all, or somebody has pushed on top of it: the remote holds it.
            (Push::Nothing, Some(ours), Some(held)) if attempt > 1 => return pushed(pass, repo, ours, held, mode),
            (Push::Nothing, _, tip) => {
                if tip.is_some() {
                    act::clear_marker(pass, repo)?;
                }
                return Ok(word);
            }
            (Push::Refuse(failure), ..) => {
                if !said || attempt > 1 {
                    push_failed(pass, failure);
                }
                return Ok(word);
            }
            (_, None, _) => return Ok(word),
            (Push::FastForward { expected }, Some(ours), _) => (ours, expected, How::FastForward),
            (Push::Overwrite { expected }, Some(ours), _) => {
                let why = "about to be overwritten by this instance (alpha)";
                pass.outcome.rescue_refs.push(repo.rescue(What::Remote, expected, now(), why)?);
                (ours, Some(expected), How::Overwrite)
            }
            (Push::ReplayFirst { replayed, expected }, Some(_), _) => {
                act::follow(pass, repo, &view, replayed, Reason::Replayed)?;
                pass.outcome.commit = pass.outcome.commit.take().map(|_| replayed.to_string());
                (replayed, Some(expected), How::FastForward)
            }
        };
        match pass.with_remote(repo, "the push", |remote| remote.push(ours, expected, how)) {
            Ok(()) => {
                pass.outcome.forced = how == How::Overwrite;
                return pushed(pass, repo, ours, ours, mode);
            }
            Err(error) if error.kind == Kind::LostRace && attempt < TRIES && may_try_again(pass, mode) => {
                tracing::warn!(attempt, "{}; looking again", error.what);
                view = look::look(pass, repo)?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The remote holds our commit, as `held` or before it.
fn pushed(pass: &mut Pass<'_>, repo: &Repo, ours: CommitId, held: CommitId, mode: Mode) -> Result<Word, Error> {
    pass.outcome.pushed = true;
    pass.outcome.remote = Some(held.to_string());
    let how = if pass.outcome.forced { "pushed, overwriting the remote" } else { "pushed" };
    tracing::info!(commit = %ours, "{how}");
    pass.outcome.rescue_refs.extend(repo.remember_seen(held, now())?);
    repo.has_a_history()?;
    act::clear_marker(pass, repo)?;
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
