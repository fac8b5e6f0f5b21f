//! `gitsync sync`: ask the remote for its tip, and follow it where the rule says so.
//!
//! If the tip is what we have, that is the whole pass: one round trip, no fetch, no look at the files.

use crate::cli::OnDivergence;
use crate::git::{self, CommitId, Heads, Repo};
use crate::marker;
use crate::outcome::{Failure, Word};
use crate::pass::{Pass, now};
use crate::policy::{self, Action, Mode, SyncState};

/// What a look at the remote told.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Both tips, as judged.
    pub heads: Heads,
    /// How they stand to one another.
    pub state: SyncState,
    /// Whether the remote's branch was there before and is gone.
    pub vanished: bool,
    /// Whether the remote's history was rewritten since it was last seen.
    pub rewritten: bool,
    /// Whether the remote's commit proved to be one that can't be followed here.
    pub unfit: bool,
}

/// The pass.
///
/// # Errors
/// What keeps the pass from its end.
pub fn run(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Failure> {
    let mode = pass.settings.mode;
    let seen = look(pass, repo)?;
    let followed = act(pass, repo, &seen, mode)?;
    if followed || pass.site_is_stale(repo) {
        pass.build_site(repo, seen.heads.remote, mode);
    }
    Ok(Word::State(seen.state))
}

/// Asks for the remote's tip, fetches what is not here, and judges.
///
/// # Errors
/// Those of the remote and of the repository, told apart by their sort.
pub fn look(pass: &mut Pass<'_>, repo: &Repo) -> Result<Seen, git::Error> {
    let local = repo.local_tip()?;
    let before = repo.last_seen()?;
    // One session for both, so that a fetch can go by the tip just told.
    let (tip, fetched) = pass.with_remote(repo, "the remote", |remote| {
        let tip = remote.tip()?;
        match tip {
            Some(theirs) if tip != local && !repo.has_whole(theirs)? => Ok((tip, Some(remote.fetch(now())?))),
            _ => Ok((tip, None)),
        }
    })?;
    let tip = match fetched {
        Some(fetched) => {
            pass.outcome.rescue_refs.extend(fetched.rescue_ref);
            fetched.tip
        }
        None => tip,
    };
    let seen = match (local, tip) {
        (None, None) => Seen {
            heads: Heads { local, remote: None },
            state: SyncState::UpToDate,
            vanished: false,
            rewritten: false,
            unfit: false,
        },
        (Some(_), None) => {
            let vanished = repo.last_seen()?.is_some();
            Seen {
                heads: Heads { local, remote: None },
                state: SyncState::Ahead,
                vanished,
                rewritten: false,
                unfit: false,
            }
        }
        (Some(ours), Some(theirs)) if ours == theirs => {
            pass.outcome.rescue_refs.extend(repo.remember_seen(theirs, now())?);
            pass.outcome.ahead = Some(0);
            pass.outcome.behind = Some(0);
            Seen {
                heads: Heads { local, remote: tip },
                state: SyncState::UpToDate,
                vanished: false,
                rewritten: false,
                unfit: false,
            }
        }
        (local, Some(theirs)) => {
            pass.outcome.rescue_refs.extend(repo.remember_seen(theirs, now())?);
            let state = match local {
                None => SyncState::Behind,
                Some(ours) => {
                    let relation = relation(pass, repo, ours, theirs)?;
                    pass.outcome.ahead = Some(relation.ahead);
                    pass.outcome.behind = Some(relation.behind);
                    policy::state(relation.same, relation.local_is_ancestor, relation.remote_is_ancestor)
                }
            };
            let rewritten = match before {
                Some(before) => !repo.contains(theirs, before)?,
                None => false,
            };
            Seen { heads: Heads { local, remote: Some(theirs) }, state, vanished: false, rewritten, unfit: false }
        }
    };
    pass.outcome.state = Some(seen.state);
    pass.outcome.remote = seen.heads.remote.map(|id| id.to_string());
    Ok(seen)
}

/// How the two stand to one another, with the history that it takes to know.
fn relation(pass: &mut Pass<'_>, repo: &Repo, ours: CommitId, theirs: CommitId) -> Result<git::Relation, git::Error> {
    let relation = repo.relation(ours, theirs)?;
    let parted = !relation.local_is_ancestor && !relation.remote_is_ancestor;
    if !parted || !repo.history_is_cut() {
        return Ok(relation);
    }
    tracing::info!(branch = %repo.names.branch, "this is a shallow clone: fetching the history that it takes to judge");
    let fetched = pass.with_remote(repo, "the fetch", |remote| remote.fetch_whole(now()))?;
    pass.outcome.rescue_refs.extend(fetched.rescue_ref);
    let relation = repo.relation(ours, theirs)?;
    let parted = !relation.local_is_ancestor && !relation.remote_is_ancestor;
    if parted && repo.history_is_cut() {
        let what = "history is cut here (a shallow clone), so that it can't be known whether the histories parted";
        return Err(git::Error::new(git::Sort::NotReady, what, "fetch it whole: `git fetch --unshallow`"));
    }
    Ok(relation)
}

/// Does what the rule says. Whether the work tree followed the remote, so that the site is to be built again.
///
/// # Errors
/// What keeps the act from its end.
pub fn act(pass: &mut Pass<'_>, repo: &Repo, seen: &Seen, mode: Mode) -> Result<bool, git::Error> {
    let Heads { local, remote } = seen.heads;
    let (local_hex, remote_hex) = (hex(local), hex(remote));
    let (branch, state) = (repo.names.branch.as_str(), seen.state.word());
    if seen.vanished {
        return vanished(repo, seen.heads, mode).map(|()| false);
    }
    if seen.state == SyncState::Diverged && replay(pass, repo, seen)?.is_some() {
        return Ok(true);
    }
    let mode = match (local, remote) {
        (Some(ours), Some(theirs)) if seen.state == SyncState::Diverged && repo.began_beside(ours, theirs)? => {
            tracing::warn!(
                branch,
                "our history began here while the remote's could not be had: the remote's is accepted"
            );
            Mode::NonAlpha
        }
        _ => mode,
    };
    match policy::decide(seen.state, mode) {
        Action::Rest => {
            tracing::debug!(state, local = local_hex, remote = remote_hex, branch, "up to date");
            forget_force_push(repo, "the remote has our commit")?;
            Ok(false)
        }
        Action::LeaveForTick => {
            tracing::debug!(
                state,
                local = local_hex,
                remote = remote_hex,
                branch,
                "local ahead, will push on next tick"
            );
            Ok(false)
        }
        Action::KeepLocal => {
            tracing::warn!(
                state,
                local = local_hex,
                remote = remote_hex,
                branch,
                "diverged, keeping local (alpha mode)"
            );
            if marker::set(repo, seen.heads, now())? {
                tracing::info!(branch, "the next tick's push may overwrite the remote");
            }
            Ok(false)
        }
        Action::FollowRemote => {
            let Some(target) = remote else { return Ok(false) };
            let why = match seen.state {
                SyncState::Diverged => {
                    tracing::warn!(
                        state,
                        local = local_hex,
                        remote = remote_hex,
                        branch,
                        "diverged, accepting remote (non-alpha mode)"
                    );
                    "diverged, accepting remote"
                }
                SyncState::Behind | SyncState::UpToDate | SyncState::Ahead => "following the remote",
            };
            pass.site_goes_stale(repo)?;
            let followed = repo.follow(target, why, now())?;
            pass.outcome.rescue_refs.extend(followed.rescue_refs);
            tracing::info!(
                state,
                local = local_hex,
                remote = remote_hex,
                branch,
                paths = followed.paths,
                "followed the remote"
            );
            repo.has_a_history()?;
            forget_force_push(repo, "the remote was followed")?;
            Ok(true)
        }
    }
}

/// With `--on-divergence rebase`, replays our unpushed commits on the remote's. The new local tip; `None` where the policy is
/// to decide.
///
/// # Errors
/// What keeps the replay from its end.
pub fn replay(pass: &mut Pass<'_>, repo: &Repo, seen: &Seen) -> Result<Option<CommitId>, git::Error> {
    let (Some(ours), Some(theirs)) = (seen.heads.local, seen.heads.remote) else { return Ok(None) };
    match pass.settings.on_divergence {
        OnDivergence::Policy => return Ok(None),
        OnDivergence::Rebase if seen.rewritten => {
            tracing::info!("not replayed: the remote rewrote its history");
            return Ok(None);
        }
        OnDivergence::Rebase => {}
    }
    let Some(tip) = repo.replay(ours, theirs, now())? else { return Ok(None) };
    pass.site_goes_stale(repo)?;
    let followed = repo.follow(tip, "replaying on the remote", now())?;
    pass.outcome.rescue_refs.extend(followed.rescue_refs);
    tracing::info!(
        state = seen.state.word(), local = hex(Some(ours)), remote = hex(Some(theirs)), now = hex(Some(tip)),
        branch = %repo.names.branch, "diverged, replayed our unpushed commits on the remote"
    );
    Ok(Some(tip))
}

fn vanished(repo: &Repo, heads: Heads, mode: Mode) -> Result<(), git::Error> {
    let branch = &repo.names.branch;
    match mode {
        Mode::NonAlpha => Err(git::Error::new(
            git::Sort::Refused,
            format!("branch '{branch}' is gone from the remote; local files are untouched"),
            format!(
                "if that was meant, nothing is lost here; to bring the branch back, push it \
                 (`git push {} {branch}`) or run a tick with --alpha",
                repo.names.remote
            ),
        )),
        Mode::Alpha => {
            tracing::warn!(branch, "the branch is gone from the remote, keeping local (alpha mode)");
            marker::set(repo, heads, now())?;
            Ok(())
        }
    }
}

/// Takes the marker away, once nothing of ours is left to force.
///
/// # Errors
/// Those of the file system.
pub fn forget_force_push(repo: &Repo, why: &str) -> Result<(), git::Error> {
    if marker::clear(repo)? {
        tracing::info!("no force push is pending any more: {why}");
    }
    Ok(())
}

fn hex(commit: Option<CommitId>) -> String {
    commit.map_or_else(|| "none".to_owned(), |id| id.to_string()[..10].to_owned())
}
