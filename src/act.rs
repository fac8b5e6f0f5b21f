//! Applies each step of a plan. In a dry run the step is printed instead.

use crate::clock::now;
use crate::error::Error;
use crate::git::checkout::Ours;
use crate::git::{CommitId, Repo};
use crate::outcome::Command;
use crate::pass::Pass;
use crate::plan::{Basis, MarkReason, Plan, Reason, Step, View};
use crate::state::marker::{self, Marker};
use crate::{dry_run, job_step};

/// Applies a plan, or prints it in a dry run.
///
/// # Errors
/// The error of the step that failed; the steps after it are not begun.
pub fn apply(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_, CommitId>, plan: &Plan<CommitId>) -> Result<(), Error> {
    plan.steps.iter().try_for_each(|step| {
        if pass.settings.dry_run {
            dry_run::describe(pass, repo, basis, step)
        } else {
            perform(pass, repo, basis, step)
        }
    })
}

fn perform(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_, CommitId>, step: &Step<CommitId>) -> Result<(), Error> {
    let Basis { view, mode } = basis;
    let (branch, state) = (repo.names.branch.as_str(), view.state.word());
    let (local, remote) = (hex(view.local), hex(view.tip()));
    match step {
        Step::Rest => tracing::debug!(state, local, remote, branch, "up to date"),
        Step::LeaveForTick => tracing::debug!(state, local, remote, branch, "local ahead, will push on next tick"),
        Step::StandOnUnborn => repo.stand_on_unborn_branch()?,
        Step::Follow { target, reason } => follow(pass, repo, view, *target, *reason)?,
        Step::SetMarker(reason) => set_marker(repo, view, *reason)?,
        Step::ClearMarker => clear_marker(pass, repo)?,
        Step::RunJob => job_step::run(pass, repo, basis)?,
        Step::Build => {
            let remote = if pass.outcome.command == Command::InitSync { repo.last_seen()? } else { view.tip() };
            if pass.builds_site() {
                pass.build_site(repo, remote, mode);
            } else if pass.outcome.command == Command::InitSync {
                pass.empty_site(repo)?;
            }
        }
        Step::EmptySite => pass.empty_site(repo)?,
        Step::Commit => job_step::commit(pass, repo, view)?,
        Step::Warn(failure) => {
            tracing::warn!(next = %failure.next, "{}; the tick goes on with local state", failure.what);
        }
        Step::Fail(failure) => pass.outcome.fail(failure.clone()),
    }
    Ok(())
}

/// Makes branch, index and files equal to a commit.
///
/// # Errors
/// If the follow could not be finished.
pub fn follow(
    pass: &mut Pass<'_>,
    repo: &Repo,
    view: &View<CommitId>,
    target: CommitId,
    reason: Reason,
) -> Result<(), Error> {
    let (branch, state) = (repo.names.branch.as_str(), view.state.word());
    let (local, remote) = (hex(view.local), hex(view.tip()));
    match reason {
        Reason::AcceptRemote => {
            tracing::warn!(state, local, remote, branch, "diverged, accepting remote (non-alpha mode)");
        }
        Reason::PutAside => tracing::warn!(branch, commit = %target, "{reason}"),
        Reason::Behind | Reason::Replayed | Reason::StartUp | Reason::Heal => {}
    }
    if !matches!(reason, Reason::Heal | Reason::PutAside) {
        pass.site_goes_stale(repo)?;
    }
    let ours = if reason == Reason::Replayed { Ours::Replayed } else { Ours::Dropped };
    let followed = repo.follow(target, ours, &reason.to_string(), now())?;
    pass.files_changed |= followed.changed;
    pass.outcome.local = Some(target.to_string());
    pass.outcome.remember();
    let paths = followed.paths;
    match reason {
        Reason::Behind | Reason::AcceptRemote => {
            tracing::info!(state, local, remote, branch, paths, "followed the remote");
        }
        Reason::StartUp => {
            tracing::info!(branch, remote = %target, paths, "at the remote's latest");
            for note in repo.left_as_it_is(target)? {
                tracing::info!("{note}");
            }
        }
        Reason::Replayed => {
            pass.outcome.commit = pass.outcome.commit.take().map(|_| target.to_string());
            let now = hex(Some(target));
            tracing::info!(state, local, remote, now, branch, "diverged, replayed our unpushed commits on the remote");
        }
        Reason::Heal | Reason::PutAside => {}
    }
    if !matches!(reason, Reason::Heal | Reason::PutAside | Reason::Replayed) {
        // If the remote took commits back, its tip is recorded only now.
        repo.remember_seen(target, now())?;
    }
    if reason != Reason::Replayed && reason != Reason::Heal {
        repo.has_a_history()?;
    }
    Ok(())
}

fn set_marker(repo: &Repo, view: &View<CommitId>, reason: MarkReason) -> Result<(), Error> {
    let (branch, state) = (repo.names.branch.as_str(), view.state.word());
    let (local, remote) = (hex(view.local), hex(view.tip()));
    match reason {
        MarkReason::Diverged => {
            tracing::warn!(state, local, remote, branch, "diverged, keeping local (alpha mode)");
        }
        MarkReason::Gone => tracing::warn!(branch, "the branch is gone from the remote, keeping local (alpha mode)"),
    }
    let Some(marked) = view.local else { return Ok(()) };
    let marker = Marker {
        destination: repo.destination()?,
        local: marked.to_string(),
        remote_tip: view.tip().map(|id| id.to_string()),
        since: now(),
    };
    if marker::set(&repo.private, marker)? {
        tracing::info!(branch, "the next tick's push may overwrite the remote");
    }
    Ok(())
}

/// Removes the marker, because the remote has our commit or was followed.
///
/// # Errors
/// If the file system fails.
pub fn clear_marker(pass: &Pass<'_>, repo: &Repo) -> Result<(), Error> {
    if pass.clears_marker(repo)? && marker::remove(&repo.private)? {
        tracing::info!("no force push is pending any more: local and remote are in sync, or the remote was followed");
    }
    Ok(())
}

fn hex(commit: Option<CommitId>) -> String {
    commit.map_or_else(|| "none".to_owned(), |id| id.to_string()[..10].to_owned())
}
