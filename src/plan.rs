//! `--dry-run`: the plan that the pass would apply, said and not applied.
//!
//! Nothing below the repository is written: no lock file is made, no reference moves, nothing is fetched into it. What has to be
//! fetched to judge goes into a scratch repository outside, which is removed again; no job and no build is run.

use crate::cli::OnDivergence;
use crate::git::{self, Heads, Place, Repo, Sort};
use crate::lock::{self, Taken};
use crate::marker;
use crate::outcome::{Command, Failure, Word};
use crate::pass::{Pass, lock_refused};
use crate::policy::{self, Action, Mode, SyncState};
use crate::private::PrivateDir;
use crate::tick;
use crate::token_host::Recording;

/// Says what the pass would do. The result word is the one that the pass would say, as far as that can be told without
/// running the job: a tick says `no-changes`, for it changes nothing.
///
/// # Errors
/// What would keep the pass from its end.
pub fn run(pass: &mut Pass<'_>, place: Option<&Place>) -> Result<Word, Failure> {
    let command = pass.outcome.command;
    let Some(place) = place else {
        pass.would("make a repository, fetch the remote, and check its branch out");
        say_site(pass, command == Command::InitSync);
        return Ok(Word::Cloned);
    };
    let private = PrivateDir::of(&place.git_dir);
    let taken = {
        let _has_a_limit = pass.watch.excuse();
        lock::take_for_looking(&private, pass.settings.lock_wait).map_err(lock_refused)?
    };
    let held = match taken {
        Taken::Held(held) => held,
        Taken::Skipped => return Ok(Word::Skipped),
        Taken::Busy(holder) => return Err(pass.lock_was_busy(holder)),
    };
    let repo = match Repo::open(place, &held, pass.names()) {
        Err(error) if command == Command::InitSync && error.sort == Sort::Corrupt => {
            pass.would(format!("put the damaged repository aside and fetch anew: {}", error.what));
            return Ok(Word::Cloned);
        }
        other => other?,
    };
    pass.settle_token_host(&repo, Recording::Never)?;
    if repo.follow_is_unfinished() {
        pass.would("finish the follow that an earlier pass was cut short in");
    }
    match repo.check_ready() {
        Err(error) if command == Command::InitSync => pass.would(format!("heal the repository: {}", error.what)),
        other => other?,
    }
    let local = repo.local_tip()?;
    pass.outcome.local_before = local.map(|id| id.to_string());
    pass.outcome.local = local.map(|id| id.to_string());
    match command {
        Command::InitSync => init_sync(pass, &repo),
        Command::Sync => {
            let mode = pass.settings.mode;
            let (heads, state) = look(pass, &repo)?;
            let followed = say_act(pass, &repo, heads, state, mode)?;
            say_site(pass, followed || pass.site_is_stale(&repo));
            Ok(Word::State(state))
        }
        Command::Tick => say_tick(pass, &repo),
    }
}

fn init_sync(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Failure> {
    let heads = match look(pass, repo) {
        Ok((heads, _)) => heads,
        Err(error) if error.sort == Sort::Unreachable && repo.local_tip()?.is_some() => {
            pass.outcome.fail(error.into());
            return Ok(Word::Offline);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(target) = heads.remote else {
        pass.would("leave the branch to the first tick's push: the remote has no such branch");
        return Ok(Word::EmptyRemote);
    };
    let changes = say_follow(pass, repo, heads, target)?;
    if marker::would_clear_at_start_up(repo) {
        pass.would("forget the pending force push");
    }
    say_site(pass, true);
    Ok(if changes || heads.local != heads.remote { Word::Reset } else { Word::State(SyncState::UpToDate) })
}

fn say_tick(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Failure> {
    let mode = match look(pass, repo) {
        Ok((heads, state)) => {
            let mode = tick::mode(pass, repo, heads)?;
            if mode == Mode::NonAlpha {
                marker::explain(repo);
            }
            say_act(pass, repo, heads, state, mode)?;
            mode
        }
        Err(error) if error.sort == Sort::Unreachable => {
            tracing::warn!(next = %error.next, "{}; the tick would go on with local state", error.what);
            tick::mode(pass, repo, Heads { local: repo.local_tip()?, remote: repo.last_seen()? })?
        }
        Err(error) => return Err(error.into()),
    };
    pass.would("run the job");
    say_site(pass, true);
    let changed = repo.changed_under(&pass.settings.paths, pass.settings.max_file_size)?;
    if changed.paths.is_empty() {
        pass.would("commit what the job changes (nothing is changed before it)");
    } else {
        let some: Vec<String> = changed.paths.iter().take(10).map(|path| path.display().to_string()).collect();
        pass.would(format!(
            "commit {} changed files and what the job changes: {}",
            changed.paths.len(),
            some.join(", ")
        ));
    }
    for left_out in changed.left_out {
        pass.would(format!("leave {} out of the commit: it {}", left_out.path.display(), left_out.why));
    }
    match mode {
        Mode::Alpha => pass.would("push; where the histories parted, overwrite the remote's tip, after keeping it"),
        Mode::NonAlpha => pass.would("push, by fast-forward only"),
    }
    Ok(Word::NoChanges)
}

/// Asks for the remote's tip and judges, with what is missing fetched beside the repository.
fn look(pass: &mut Pass<'_>, repo: &Repo) -> Result<(Heads, SyncState), git::Error> {
    let local = repo.local_tip()?;
    let remote = pass.with_remote(repo, "the remote", |remote| match remote.tip()? {
        Some(tip) if Some(tip) != local && !repo.has_whole(tip)? => remote.fetch_beside(),
        tip => Ok(tip),
    })?;
    let state = match (local, remote) {
        (Some(local), Some(remote)) => {
            let relation = repo.relation(local, remote)?;
            pass.outcome.ahead = Some(relation.ahead);
            pass.outcome.behind = Some(relation.behind);
            policy::state(relation.same, relation.local_is_ancestor, relation.remote_is_ancestor)
        }
        (None, Some(_)) => SyncState::Behind,
        (Some(_), None) => SyncState::Ahead,
        (None, None) => SyncState::UpToDate,
    };
    pass.outcome.state = Some(state);
    pass.outcome.remote = remote.map(|id| id.to_string());
    Ok((Heads { local, remote }, state))
}

/// Says what the rule would do. Whether the remote would be followed.
fn say_act(pass: &mut Pass<'_>, repo: &Repo, heads: Heads, state: SyncState, mode: Mode) -> Result<bool, git::Error> {
    if heads.remote.is_none() && repo.last_seen()?.is_some() {
        pass.would(match mode {
            Mode::Alpha => "mark that the next tick's push makes the remote's branch again",
            Mode::NonAlpha => "fail: the branch is gone from the remote",
        });
        return Ok(false);
    }
    if state == SyncState::Diverged && pass.settings.on_divergence == OnDivergence::Rebase {
        pass.would("replay our commits on the remote's, if it only moved forward and nothing conflicts; else:");
    }
    match policy::decide(state, mode) {
        Action::Rest => {
            pass.would("change nothing: up to date");
            Ok(false)
        }
        Action::LeaveForTick => {
            pass.would("leave our commits to the tick's push");
            Ok(false)
        }
        Action::KeepLocal => {
            pass.would("keep local, and mark that the next tick's push may overwrite the remote");
            Ok(false)
        }
        Action::FollowRemote => match heads.remote {
            Some(target) => say_follow(pass, repo, heads, target).map(|_| true),
            None => Ok(false),
        },
    }
}

fn say_follow(pass: &mut Pass<'_>, repo: &Repo, heads: Heads, target: git::CommitId) -> Result<bool, git::Error> {
    let plan = repo.would_follow(target)?;
    if plan.paths.is_empty() && heads.local == heads.remote {
        pass.would("change nothing: up to date");
        return Ok(false);
    }
    let some: Vec<String> = plan.paths.iter().take(10).map(|path| path.display().to_string()).collect();
    pass.would(format!("follow the remote to {target}: {} paths change: {}", plan.paths.len(), some.join(", ")));
    if let Some(local) = heads.local.filter(|_| pass.outcome.ahead.unwrap_or(0) > 0) {
        let ahead = pass.outcome.ahead.unwrap_or(0);
        pass.would(format!("keep {ahead} local commits as a rescue of {local}"));
    }
    if !plan.uncommitted.is_empty() {
        let some: Vec<String> = plan.uncommitted.iter().take(10).map(|path| path.display().to_string()).collect();
        pass.would(format!("keep {} uncommitted files as a rescue: {}", plan.uncommitted.len(), some.join(", ")));
    }
    Ok(true)
}

fn say_site(pass: &mut Pass<'_>, due: bool) {
    if due && pass.builds_site() {
        pass.would("build the site and publish it");
    } else if due && pass.outcome.command == Command::InitSync && pass.settings.public_dir.is_some() {
        pass.would("empty the public dir: there is no build command");
    }
}
