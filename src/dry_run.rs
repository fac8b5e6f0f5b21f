//! `--dry-run`: prints the plan that the pass would apply, and does not apply it.
//!
//! Nothing in the repository is written: no lock file is created, no ref moves, nothing is fetched into it. What has to be fetched
//! for the plan goes into a scratch repository elsewhere, which is removed again. Neither job nor build is run. The checks, the
//! look and the plan are the same code as in a pass.

use std::path::PathBuf;

use crate::error::{Error, Kind};
use crate::git::changed::Scope;
use crate::git::{CommitId, Repo};
use crate::outcome::{Command, Word};
use crate::pass::{Pass, some};
use crate::paths;
use crate::plan::{self, Basis, Plan, Push, Reason, Step, View};
use crate::policy::Mode;

/// Prints what init-sync would heal once the repository is open.
///
/// # Errors
/// The error that would end the pass early.
pub fn mend(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    repo.keep_writes_in_memory()?;
    match finish_follow(pass, repo) {
        Err(error) if matches!(error.kind, Kind::NotReady | Kind::Corrupt) => {}
        finished => finished?,
    }
    if let Err(error) = repo.check_ready() {
        pass.would(format!("heal the repository: {}", error.what));
    }
    make_index_again(pass, repo, true)?;
    Ok(())
}

/// Prints that the pass would finish a follow, if a killed pass has left one unfinished.
///
/// # Errors
/// If the repository can't be read.
pub fn finish_follow(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    if let Some(target) = repo.unfinished_follow()? {
        pass.would(format!("finish following {target}, which a killed pass has begun"));
        pass.replaced.extend(repo.would_follow(target)?.paths);
        pass.settled_on = Some(target);
        repo.assume_tip(target);
    }
    Ok(())
}

/// Prints that the pass would make the index again, if it is missing or damaged.
///
/// # Errors
/// If the repository can't be read.
pub fn make_index_again(pass: &mut Pass<'_>, repo: &Repo, thoroughly: bool) -> Result<(), Error> {
    if let Some(head) = repo.index_to_make_again(thoroughly)? {
        pass.would("make the index again from HEAD, and restore the files that it names");
        repo.assume_index_of(head)?;
        pass.replaced.extend(repo.would_follow(head)?.paths);
        pass.settled_on = Some(head);
    }
    Ok(())
}

/// Prints a step.
///
/// # Errors
/// The error that the step would have.
pub fn describe(
    pass: &mut Pass<'_>,
    repo: &Repo,
    basis: Basis<'_, CommitId>,
    step: &Step<CommitId>,
) -> Result<(), Error> {
    match step {
        Step::Follow { target, reason } => describe_follow(pass, repo, basis.view, *target, *reason, step)?,
        Step::Build if pass.builds_site() => describe_site(pass, repo, step),
        Step::Build if pass.outcome.command != Command::InitSync => {}
        Step::Build | Step::EmptySite if pass.settings.public_dir.is_none() => {}
        Step::Build | Step::EmptySite => {
            pass.may_publish(repo)?;
            pass.would(Step::<CommitId>::EmptySite.to_string());
        }
        Step::Commit => describe_commit(pass, repo)?,
        Step::RunJob => {
            repo.check_unsigned("the job would not be run")?;
            pass.would(step.to_string());
        }
        Step::ClearMarker if !pass.clears_marker(repo)? => {}
        Step::Fail(failure) => {
            pass.would(step.to_string());
            pass.outcome.fail(failure.clone());
        }
        Step::Rest
        | Step::LeaveForTick
        | Step::StandOnUnborn
        | Step::SetMarker(_)
        | Step::ClearMarker
        | Step::Warn(_) => pass.would(step.to_string()),
    }
    Ok(())
}

fn describe_follow(
    pass: &mut Pass<'_>,
    repo: &Repo,
    view: &View<CommitId>,
    target: CommitId,
    reason: Reason,
    step: &Step<CommitId>,
) -> Result<(), Error> {
    let follow = repo.would_follow(target)?;
    let changed = follow.changed && pass.settled_on != Some(target);
    pass.files_changed |= changed;
    if !changed {
        pass.would(Step::<CommitId>::Rest.to_string());
        return Ok(());
    }
    pass.would(format!("{step}: {} paths change: {}", follow.paths.len(), some(&follow.paths)));
    let ahead = pass.outcome.ahead.unwrap_or(0);
    if let Some(local) = view.local.filter(|_| ahead > 0 && reason != Reason::Heal) {
        pass.would(format!("keep {ahead} local commits as a rescue of {local}"));
    }
    if !follow.uncommitted.is_empty() {
        let count = follow.uncommitted.len();
        pass.would(format!("keep {count} uncommitted files as a rescue: {}", some(&follow.uncommitted)));
    }
    pass.replaced.extend(follow.paths);
    pass.settled_on = Some(target);
    Ok(())
}

fn describe_site(pass: &mut Pass<'_>, repo: &Repo, step: &Step<CommitId>) {
    pass.would(step.to_string());
    if let Err(failure) = pass.may_publish(repo) {
        pass.outcome.fail(failure);
    }
}

fn describe_commit(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    let settings = pass.settings;
    let changed = repo.changed_under(Scope { paths: &settings.paths, max_file_size: settings.max_file_size })?;
    // Files of the commit that the pass would have followed are unchanged by then.
    let has = |path: &PathBuf| pass.settled_on.map_or(Ok(false), |commit| repo.has_path(commit, path));
    let mut paths = Vec::new();
    for path in changed.paths {
        if !pass.replaced.contains(&path) && !has(&path)? {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        pass.would("commit what the job changes (nothing is changed before it)");
    } else {
        pass.would(format!("commit {} changed files and what the job changes: {}", paths.len(), some(&paths)));
        pass.would_commit = true;
    }
    if pass.settled_on.is_none() {
        paths::warn_unmatched(pass, &changed.unmatched, false);
    }
    for left_out in changed.left_out {
        pass.would(format!("leave {} out of the commit: it {}", left_out.path.display(), left_out.why));
        pass.outcome.fail(left_out.failure());
    }
    Ok(())
}

/// Prints a tick's push. Returns the result word that the tick would have.
pub fn push(pass: &mut Pass<'_>, repo: &Repo, before_job: View<CommitId>, plan: &Plan<CommitId>, mode: Mode) -> Word {
    let reported = plan.says_why(&before_job);
    let mut view = before_job;
    if let Some(target) = plan.follows() {
        view = view.after_follow(target);
    }
    if pass.would_commit {
        view = view.after_commit(CommitId::ZERO_SHA1);
    }
    let (branch, remote) = (&repo.names.branch, &repo.names.remote);
    let push = plan::push(&view, mode, plan::branch_is_gone(branch, remote), plan::has_other_commits(branch));
    pass.would(push.to_string());
    let word = push.word(&view, mode);
    if let Push::Refuse(failure) = push
        && !reported
    {
        pass.outcome.push_failed(failure);
    }
    word
}
