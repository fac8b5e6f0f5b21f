//! `--dry-run`: the plan that the pass would apply, said and not applied.
//!
//! Nothing below the repository is written: no lock file is made, no reference moves, nothing is fetched into it. What has to be
//! fetched to judge goes into a scratch repository outside, which is removed again; no job and no build is run. The checks, the
//! look and the plan are the pass's own.

use std::path::PathBuf;

use crate::act::Basis;
use crate::error::{Error, Kind};
use crate::git::scratch::Scratch;
use crate::git::{self, CommitId, Place, Repo, heal};
use crate::outcome::{Command, Word};
use crate::pass::{Pass, lock_refused};
use crate::plan::{self, Plan, Push, Reason, Step, View};
use crate::policy::Mode;
use crate::state::dir::PrivateDir;
use crate::state::lock::{self, Held, Taken};
use crate::state::token_host::Recording;
use crate::{init_sync, sync, tick};

/// Of the paths that a step is about so many are named.
const NAMED: usize = 10;

/// Says what the pass would do. The result word and the exit code are the ones that the pass would have, a tick's as if its
/// job changed nothing.
///
/// # Errors
/// What would keep the pass from its end.
pub fn run(pass: &mut Pass<'_>, place: Option<&Place>) -> Result<Word, Error> {
    let Some(place) = place else {
        let scratch = Scratch::empty(None)?;
        return init_sync::run(pass, &scratch.place, &Held::of_nothing());
    };
    let held = match take_lock(pass, place)? {
        Ok(held) => held,
        Err(word) => return Ok(word),
    };
    match pass.outcome.command {
        Command::InitSync => init_sync(pass, place, &held),
        Command::Sync | Command::Tick => sync_or_tick(pass, place, &held),
    }
}

fn take_lock(pass: &mut Pass<'_>, place: &Place) -> Result<Result<Held, Word>, Error> {
    let command = pass.outcome.command;
    let private = PrivateDir::of(&place.git_dir);
    if private.path().symlink_metadata().is_ok() {
        let doing = format!("making the private folder {}", private.path().display());
        private.check().map_err(|error| Error::io(doing, &error))?;
    }
    let lock = private.file("lock").symlink_metadata();
    if command == Command::InitSync && lock.is_ok_and(|meta| !meta.is_file()) {
        pass.would("move aside what stands in the place of the lock");
        return Ok(Ok(Held::of_nothing()));
    }
    let taken = {
        let _has_a_limit = pass.watch.excuse();
        let queued = command != Command::InitSync;
        lock::take_for_looking(&private, command.word(), queued, pass.settings.lock_wait).map_err(lock_refused)?
    };
    match taken {
        Taken::Held(held) => Ok(Ok(held)),
        Taken::Skipped => Ok(Err(Word::Skipped)),
        Taken::Busy(holder) => Err(pass.lock_was_busy(holder)),
    }
}

/// init-sync mends before it looks: it does so in a copy.
fn init_sync(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    git::check_files(place, &pass.names())?;
    heal::stale_locks(place, held, &pass.settings.branch, &pass.settings.remote, true)?;
    // What the copy would not show: who owns it, and where its files are.
    match Repo::open(place, held, pass.names()) {
        Err(error) if error.kind == Kind::NotReady => return Err(error),
        _ => {}
    }
    let scratch = Scratch::of(place)?;
    tracing::debug!("what init-sync mends is mended in a copy");
    pass.copied_from = Some(place.clone());
    init_sync::run(pass, &scratch.place, held)
}

fn sync_or_tick(pass: &mut Pass<'_>, place: &Place, held: &Held) -> Result<Word, Error> {
    let names = pass.names();
    for (lock, _) in heal::stale_locks(place, held, &names.branch, &names.remote, false)? {
        pass.would(format!("remove the stale lock {}", lock.display()));
    }
    let repo = Repo::open(place, held, names)?;
    repo.hold_config()?;
    repo.keep_writes_in_memory()?;
    pass.settle_token_host(&repo, Recording::Never)?;
    finish_follow(pass, &repo)?;
    repo.check_ready()?;
    make_index_again(pass, &repo, false)?;
    pass.outcome.local_before = repo.local_tip()?.map(|id| id.to_string());
    pass.outcome.local.clone_from(&pass.outcome.local_before);
    match pass.outcome.command {
        Command::Tick => tick::run(pass, &repo),
        Command::Sync | Command::InitSync => sync::run(pass, &repo),
    }
}

/// What init-sync mends once the repository is open.
///
/// # Errors
/// What would keep the pass from its end.
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

fn finish_follow(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    if let Some(target) = repo.unfinished_follow()? {
        pass.would(format!("finish the follow of {target} that an earlier pass was cut short in"));
        pass.replaced.extend(repo.would_follow(target)?.paths);
        pass.settled_on = Some(target);
        repo.assume_tip(target);
    }
    Ok(())
}

fn make_index_again(pass: &mut Pass<'_>, repo: &Repo, thoroughly: bool) -> Result<(), Error> {
    if let Some(head) = repo.index_to_make_again(thoroughly)? {
        pass.would("make the index again from HEAD, and bring back the files that it names");
        repo.assume_index_of(head)?;
        pass.replaced.extend(repo.would_follow(head)?.paths);
        pass.settled_on = Some(head);
    }
    Ok(())
}

/// Says a step.
///
/// # Errors
/// What would keep the step from its end.
pub fn say(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_>, step: &Step<CommitId>) -> Result<(), Error> {
    match step {
        Step::Follow { target, reason } => say_follow(pass, repo, basis.view, *target, *reason, step)?,
        Step::Build if pass.builds_site() => say_site(pass, repo, step),
        Step::Build if pass.outcome.command != Command::InitSync => {}
        Step::Build | Step::EmptySite if pass.settings.public_dir.is_none() => {}
        Step::Build | Step::EmptySite => {
            pass.may_publish(repo)?;
            pass.would(Step::<CommitId>::EmptySite.to_string());
        }
        Step::Commit => say_commit(pass, repo)?,
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
        | Step::RunJob
        | Step::Warn(_) => pass.would(step.to_string()),
    }
    Ok(())
}

fn say_follow(
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

fn say_site(pass: &mut Pass<'_>, repo: &Repo, step: &Step<CommitId>) {
    pass.would(step.to_string());
    if let Err(failure) = pass.may_publish(repo) {
        pass.outcome.fail(failure);
    }
}

fn say_commit(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    let changed = repo.changed_under(&pass.settings.paths, pass.settings.max_file_size)?;
    // What the commit that was followed has is as it has it by then.
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
    for left_out in changed.left_out {
        pass.would(format!("leave {} out of the commit: it {}", left_out.path.display(), left_out.why));
        pass.outcome.fail(tick::left_out_of_commit(&left_out));
    }
    Ok(())
}

/// Says a tick's push. The word that the tick would say.
pub fn push(pass: &mut Pass<'_>, repo: &Repo, before_job: View<CommitId>, plan: &Plan<CommitId>, mode: Mode) -> Word {
    let said = tick::is_said(&before_job, plan);
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
        && !said
    {
        tick::push_failed(pass, failure);
    }
    word
}

fn some(paths: &[PathBuf]) -> String {
    let some: Vec<String> = paths.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    some.join(", ")
}
