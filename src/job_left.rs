//! What an earlier job has left uncommitted is committed before anything else, so that it stays together (guarantee G11).
//!
//! A tick that was killed during its job, or an earlier step of a workflow that ran the job, leaves changed, new and deleted files
//! under `--path`. If the remote has moved meanwhile, following it would rescue the changed ones, leave the new ones to the next
//! commit, and restore the deleted ones. So they become one commit on the local branch. That commit is replayed on the remote's
//! tip; if there is a conflict, the rule decides about it as a whole.

use chrono::SecondsFormat;

use crate::clock::now;
use crate::error::Error;
use crate::git::changed::{Changed, Scope};
use crate::git::commit::{First, Store};
use crate::git::pathspec::Pathspec;
use crate::git::{CommitId, Repo};
use crate::outcome::Command;
use crate::pass::{Pass, some};
use crate::plan::{RemoteTip, View};
use crate::state::job_mark::{self, JobMark};

/// Marks that the job begins.
///
/// # Errors
/// If the file system fails. The job must not run then.
pub fn mark_begun(pass: &Pass<'_>, repo: &Repo) -> Result<(), Error> {
    job_mark::set(&repo.private, &mark_now(pass, repo.local_tip()?))
}

fn mark_now(pass: &Pass<'_>, base: Option<CommitId>) -> JobMark {
    let settings = pass.settings;
    JobMark {
        branch: settings.branch.clone(),
        base: base.map(|id| id.to_string()),
        paths: settings.paths.iter().map(|path| path.given().to_string_lossy().into_owned()).collect(),
        message: settings.message.clone(),
        max_file_size: settings.max_file_size,
        since: now(),
    }
}

/// Commits what an earlier job has left: in a tick everything uncommitted under `--path`, in the other passes what the mark of a
/// killed tick names. In a dry run the commit stays in memory.
///
/// # Errors
/// If it can't be committed.
pub fn commit(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    let mark = job_mark::read(&repo.private).filter(|mark| mark.branch == repo.names.branch);
    let is_tick = pass.outcome.command == Command::Tick;
    let Some(tip) = repo.local_tip()?.filter(|_| is_tick || mark.is_some()) else { return Ok(()) };
    if !may_commit(pass, repo)? {
        return Ok(());
    }
    let (paths, max_file_size) = scope(pass, mark.as_ref());
    let scope = Scope { paths: &paths, max_file_size };
    let begun = mark.clone().unwrap_or_else(|| mark_now(pass, Some(tip)));
    let changed = repo.changed_under(scope)?;
    if mark.is_some() {
        keep_what_is_left_out(pass, repo, &changed)?;
    }
    if !changed.paths.is_empty() {
        let files = changed.paths.len();
        let named = some(changed.paths.iter());
        repo.check_unsigned("nothing was committed, what was written stays in the work tree")?;
        if mark.is_none() && !pass.settings.dry_run {
            // Without the mark, a kill after the commit would leave a commit that the rule treats like any other.
            job_mark::set(&repo.private, &begun)?;
        }
        let when = now();
        let message = begun.message.replace("{time}", &when.to_rfc3339_opts(SecondsFormat::Secs, true));
        let store = if pass.settings.dry_run { Store::InMemory } else { Store::OnDisk };
        let done = repo.commit_changed(changed, &message, when, First::Refused, store)?;
        if let Some(commit) = done.commit {
            if pass.settings.dry_run {
                pass.would(format!("commit {files} files that an earlier job has left: {named}"));
            } else {
                tracing::info!(%commit, files, "committed what an earlier job has left");
                pass.outcome.commit = Some(commit.to_string());
            }
        }
    } else if mark.is_none() {
        return Ok(());
    }
    pass.job_base = begun.base.and_then(|base| CommitId::from_str(&base).ok());
    Ok(())
}

/// What can't be committed would be rescued, or brought back, apart from the rest: all of it together becomes a rescue too. A tick
/// names what it leaves out when it commits.
fn keep_what_is_left_out(pass: &mut Pass<'_>, repo: &Repo, changed: &Changed) -> Result<(), Error> {
    if changed.left_out.is_empty() {
        return Ok(());
    }
    if !pass.settings.dry_run {
        repo.rescue_changed(changed, now(), "what an earlier job has left, of which not all can be committed")?;
    }
    if pass.outcome.command != Command::Tick {
        changed.left_out.iter().for_each(|one| pass.outcome.fail(one.failure()));
    }
    Ok(())
}

/// Whether a commit may be made on the local branch. If it would have to be signed, a tick fails later with an error; the other
/// passes go on without the commit.
fn may_commit(pass: &Pass<'_>, repo: &Repo) -> Result<bool, Error> {
    let is_tick = pass.outcome.command == Command::Tick;
    Ok(repo.is_on_branch_alone()? && (is_tick || repo.check_unsigned("").is_ok()))
}

/// The paths to commit, and the size of the largest file to commit, in bytes.
fn scope(pass: &Pass<'_>, mark: Option<&JobMark>) -> (Vec<Pathspec>, u64) {
    let settings = pass.settings;
    // A path that this version can't parse is skipped.
    let read =
        |mark: &JobMark| mark.paths.iter().filter_map(|path| Pathspec::parse(path.as_ref()).ok()).collect::<Vec<_>>();
    let marked = mark.map(read);
    if pass.outcome.command != Command::Tick {
        return (marked.unwrap_or_default(), mark.map_or(settings.max_file_size, |mark| mark.max_file_size));
    }
    let mut paths = settings.paths.clone();
    paths.extend(marked.unwrap_or_default().into_iter().filter(|path| !settings.paths.contains(path)));
    (paths, settings.max_file_size)
}

/// Keeps what an earlier job has left as one rescue, if it can't be committed on the local branch (the branch has no commit yet,
/// or HEAD is elsewhere) and the coming follow would replace part of it.
///
/// # Errors
/// If it can't be kept. The follow must not begin then.
pub fn keep_whole(pass: &mut Pass<'_>, repo: &Repo, view: &View<CommitId>) -> Result<(), Error> {
    let mark = job_mark::read(&repo.private);
    let is_tick = pass.outcome.command == Command::Tick;
    let RemoteTip::At(tip) = view.remote else { return Ok(()) };
    let was_committed = view.local.is_some()
        && mark.as_ref().is_none_or(|mark| mark.branch == repo.names.branch)
        && may_commit(pass, repo)?;
    if pass.settings.dry_run || was_committed || (!is_tick && mark.is_none()) {
        return Ok(());
    }
    let (paths, max_file_size) = scope(pass, mark.as_ref());
    let changed = repo.changed_under(Scope { paths: &paths, max_file_size })?;
    if repo.would_follow(tip)?.uncommitted.iter().any(|path| changed.paths.contains(path)) {
        repo.rescue_changed(&changed, now(), "what an earlier job has left")?;
    }
    Ok(())
}

/// Removes the mark after the remote was asked and the pass has acted on the rule.
///
/// # Errors
/// If the file system fails.
pub fn settle(pass: &mut Pass<'_>, repo: &Repo, view: &View<CommitId>) -> Result<(), Error> {
    pass.job_base = None;
    // If the remote could not be reached, a later pass still has to know which commit it was made on.
    if pass.settings.dry_run || matches!(view.remote, RemoteTip::Unavailable(_)) {
        return Ok(());
    }
    job_mark::remove(&repo.private)
}
