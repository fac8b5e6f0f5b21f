//! `gitsync tick`: sync, run the job, build the site, commit, push.
//!
//! The remote is asked first: a tick that builds on a stale commit would lose a race that it could have won. What the job wrote
//! is committed even if the job failed: state is evidence. A commit is kept until the remote has it.

use crate::act;
use crate::cli::OnDivergence;
use crate::clock::now;
use crate::error::{Error, Kind};
use crate::git::push::Push as How;
use crate::git::{CommitId, Repo};
use crate::outcome::Word;
use crate::pass::Pass;
use crate::plan::{self, Basis, Plan, Push, Reason, RemoteTip, View};
use crate::policy::Mode;
use crate::rescued::RescueKind;
use crate::state::marker;
use crate::{dry_run, job_left, look};

/// How often a push is tried at most if it loses a race.
const TRIES: u32 = 3;

/// Does the pass. With `--dry-run` it prints what it would do if the job changed nothing.
///
/// # Errors
/// The error that ends the pass early. Other failures are in the outcome.
pub fn run(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Error> {
    job_left::commit(pass, repo)?;
    let view = look::look(pass, repo)?;
    job_left::keep_whole(pass, repo, &view)?;
    let mode = view.tick_mode(pass.settings.mode);
    if mode == Mode::NonAlpha && !matches!(view.remote, RemoteTip::Unavailable(_)) {
        marker::explain(&repo.private);
    }
    let plan = plan::tick(&view, mode, plan::branch_is_gone(&repo.names.branch, &repo.names.remote));
    act::apply(pass, repo, Basis { view: &view, mode }, &plan)?;
    pass.job_base = None;
    if plan.word == Word::Error {
        return Ok(Word::Error);
    }
    if pass.settings.dry_run {
        return Ok(dry_run::push(pass, repo, view, &plan, mode));
    }
    Ok(push_or_fail(pass, repo, view, &plan))
}

/// Pushes what the remote does not have, including commits of earlier ticks. If that fails, the failure is added to the outcome.
fn push_or_fail(pass: &mut Pass<'_>, repo: &Repo, before_job: View<CommitId>, plan: &Plan<CommitId>) -> Word {
    let reported = plan.says_why(&before_job);
    push(pass, repo, before_job, reported).unwrap_or_else(|error| {
        pass.outcome.push_failed(error);
        Word::PushFailed
    })
}

/// Plans and does the push. It is planned only now, since the job may have changed the branch or the push URL. `reported`: whether
/// the pass has already reported why nothing is pushed.
fn push(pass: &mut Pass<'_>, repo: &Repo, before_job: View<CommitId>, reported: bool) -> Result<Word, Error> {
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
            // The push that seemed to lose a race succeeded after all, and somebody may have pushed on top of it.
            (Push::Nothing, Some(ours), Some(held)) if attempt > 1 => return pushed(pass, repo, ours, held, mode),
            (Push::Nothing, _, tip) => {
                if tip.is_some() {
                    act::clear_marker(pass, repo)?;
                }
                return Ok(word);
            }
            (Push::Refuse(failure), ..) => {
                if !reported || attempt > 1 {
                    pass.outcome.push_failed(failure);
                }
                return Ok(word);
            }
            (_, None, _) => return Ok(word),
            (Push::FastForward { expected }, Some(ours), _) => (ours, expected, How::FastForward),
            (Push::Overwrite { expected }, Some(ours), _) => {
                let why = "about to be overwritten by this instance (alpha)";
                repo.rescue(RescueKind::Remote, expected, now(), why)?;
                (ours, Some(expected), How::Overwrite)
            }
            (Push::ReplayFirst { replayed, expected }, Some(_), _) => {
                act::follow(pass, repo, &view, replayed, Reason::Replayed)?;
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

/// Records that the remote has our commit; its tip is `held`, which is `ours` or contains it.
fn pushed(pass: &mut Pass<'_>, repo: &Repo, ours: CommitId, held: CommitId, mode: Mode) -> Result<Word, Error> {
    pass.outcome.pushed = true;
    pass.outcome.remote = Some(held.to_string());
    pass.outcome.remember();
    let how = if pass.outcome.forced { "pushed, overwriting the remote" } else { "pushed" };
    tracing::info!(commit = %ours, "{how}");
    repo.remember_seen(held, now())?;
    repo.has_a_history()?;
    act::clear_marker(pass, repo)?;
    if pass.site_is_stale(repo) && pass.outcome.site_built == Some(true) {
        // A replay has changed the files after the build.
        pass.build_site(repo, Some(held), mode);
    }
    Ok(Word::Pushed)
}

/// Whether a push that lost a race may be tried again: only if the rule allows it to win.
fn may_try_again(pass: &Pass<'_>, mode: Mode) -> bool {
    mode == Mode::Alpha || pass.settings.on_divergence == OnDivergence::Rebase
}
