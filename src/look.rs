//! Collects what every plan is made from: both tips, their relation, and everything else that decides.
//!
//! A dry run and a pass share this code. In a dry run, what is fetched stays in a scratch repository, and what is replayed stays
//! in memory.

use crate::cli::OnDivergence;
use crate::clock::now;
use crate::error::{Error, Kind};
use crate::git::{CommitId, Heads, History, Relation, Repo};
use crate::outcome::Command;
use crate::pass::Pass;
use crate::plan::{RemoteTip, View};
use crate::policy::{self, SyncState};
use crate::state::marker;

/// Asks for the remote's tip, fetches what is missing, and compares the two sides.
///
/// # Errors
/// If the repository can't be read, or the remote is not configured. A remote that can't be reached or that refuses is no error
/// here, but part of the view.
pub fn look(pass: &mut Pass<'_>, repo: &Repo) -> Result<View<CommitId>, Error> {
    let before = repo.last_seen()?;
    let local = repo.local_tip()?;
    let remote = match ask(pass, repo, Heads { local, remote: before }) {
        Ok(Some(tip)) => RemoteTip::At(tip),
        Ok(None) if local.is_some() && before.is_some() => RemoteTip::Gone,
        Ok(None) => RemoteTip::Absent,
        Err(error) if matches!(error.kind, Kind::Unreachable | Kind::Refused) => RemoteTip::Unavailable(error),
        Err(error) => return Err(error),
    };
    let rewritten = match (&remote, before) {
        (RemoteTip::At(tip), Some(before)) if local != Some(*tip) => !repo.contains(*tip, before)?,
        _ => false,
    };
    let (view, relation) = compare(pass, repo, remote, Before { tip: before, rewritten })?;
    if let Some(relation) = relation {
        pass.outcome.ahead = Some(relation.ahead);
        pass.outcome.behind = Some(relation.behind);
    }
    if !matches!(view.remote, RemoteTip::Unavailable(_)) {
        let known = pass.outcome.command != Command::InitSync || relation.is_some();
        pass.outcome.state = known.then_some(view.state);
        pass.outcome.remote = view.tip().map(|id| id.to_string());
    }
    if !pass.settings.dry_run {
        pass.outcome.local = view.local.map(|id| id.to_string());
    }
    pass.outcome.remember();
    Ok(view)
}

/// Compares the two sides again after our side has changed, with the remote as an earlier [`look`] saw it.
///
/// # Errors
/// If the repository can't be read.
pub fn again(pass: &mut Pass<'_>, repo: &Repo, seen: &View<CommitId>) -> Result<View<CommitId>, Error> {
    // Use the tip that was known before the first look: a job that pushed by itself has moved the tracking ref since.
    let before = Before { tip: seen.before, rewritten: seen.rewritten };
    Ok(compare(pass, repo, seen.remote.clone(), before)?.0)
}

/// Asks for the remote's tip and, if it is not completely here, fetches it.
fn ask(pass: &mut Pass<'_>, repo: &Repo, known: Heads) -> Result<Option<CommitId>, Error> {
    let Heads { local, remote: before } = known;
    let dry_run = pass.settings.dry_run;
    // init-sync also checks the objects that are here already.
    let command = pass.outcome.command;
    let is_whole = |tip| match command {
        Command::InitSync => Ok(repo.has_whole(tip)? && repo.check_whole(tip).is_ok()),
        Command::Sync | Command::Tick => repo.has_whole(tip),
    };
    // A branch that is gone is treated differently from one that was mistyped, except in init-sync.
    let is_known = local.is_some() && before.is_some() && command != Command::InitSync;
    let create_branch = pass.settings.create_branch;
    let history = match pass.settings.depth {
        // Of a clone alone: later fetches get what is new.
        Some(depth) if command == Command::InitSync && local.is_none() && before.is_none() => History::Depth(depth),
        _ => History::New,
    };
    // One session for both, so that the fetch uses the tip just received.
    let found = pass.with_remote(repo, "the remote", |remote| match remote.tip()? {
        Some(tip) if Some(tip) != local => match (is_whole(tip)?, dry_run) {
            (true, true) => Ok(Some(tip)),
            (false, true) => remote.fetch_beside(history),
            (is_whole, false) => {
                let tip = if is_whole { Some(tip) } else { remote.fetch(history)? };
                tip.map_or(Ok(()), |tip| remote.fill(tip))?;
                Ok(tip)
            }
        },
        None if !is_known => remote.check_may_be_missing(create_branch).map(|()| None),
        tip => Ok(tip),
    });
    let tip = found?;
    if let (Some(tip), Some(before)) = (tip, before)
        && !dry_run
        && command != Command::InitSync
        && cut_hides(repo, tip, before)?
    {
        // Only the whole history tells whether the remote took commits back. Until it is here, the tip seen before is kept.
        fetch_whole_history(pass, repo)?;
        if cut_hides(repo, tip, before)? {
            return Ok(Some(tip));
        }
    }
    // The tip seen before shows that the remote took commits back. It is kept until the pass has acted on that: otherwise, if this
    // pass is killed, the next one would push those commits again.
    if let Some(tip) = tip.filter(|_| !dry_run)
        && !took_back(repo, local, tip, before)?
    {
        repo.remember_seen(tip, now())?;
    }
    Ok(tip)
}

/// Whether it is unknown if the remote's tip contains the one seen before, because history is cut off here.
fn cut_hides(repo: &Repo, tip: CommitId, before: CommitId) -> Result<bool, Error> {
    Ok(tip != before && repo.history_is_cut() && !repo.contains(tip, before)?)
}

/// What was known about the remote before this pass asked it.
#[derive(Clone, Copy)]
struct Before {
    tip: Option<CommitId>,
    /// Whether its history has been rewritten since.
    rewritten: bool,
}

fn compare(
    pass: &mut Pass<'_>,
    repo: &Repo,
    remote: RemoteTip<CommitId>,
    before: Before,
) -> Result<(View<CommitId>, Option<Relation>), Error> {
    let (local, last_seen) = (repo.local_tip()?, repo.last_seen()?);
    let tip = match remote {
        RemoteTip::At(tip) => Some(tip),
        _ => None,
    };
    let (mut relation, mut taken_back) = (None, false);
    let state = match (local, tip) {
        (None, None) => SyncState::UpToDate,
        (Some(_), None) => SyncState::Ahead,
        (None, Some(_)) => SyncState::Behind,
        (Some(ours), Some(theirs)) => {
            let found = self::relation(pass, repo, ours, theirs)?;
            relation = Some(found);
            let state = policy::state(found.same, found.local_is_ancestor, found.remote_is_ancestor);
            taken_back = state == SyncState::Ahead && took_back(repo, local, theirs, before.tip)?;
            policy::state_after_taking_back(state, taken_back)
        }
    };
    let mut view = View {
        local,
        last_seen,
        remote,
        state,
        replayed: None,
        marked: false,
        unforceable: false,
        unfit: None,
        put_aside: None,
        before: before.tip,
        rewritten: before.rewritten,
        taken_back,
        job_left: is_job_left(pass, repo, local, tip)?,
    };
    if let (SyncState::Behind | SyncState::Diverged, Some(theirs)) = (state, tip) {
        match repo.check_fit(theirs, local) {
            Err(error) if error.kind == Kind::Unfit => view.unfit = Some(error),
            checked => checked?,
        }
    }
    if let (SyncState::Diverged, Some(ours), Some(theirs)) = (state, local, tip) {
        view.unforceable = repo.began_beside(ours, theirs)?;
        view.replayed = replayed(pass, repo, &view, ours, theirs)?;
        if view.unforceable {
            tracing::warn!(
                "our history was begun here while the remote could not be reached: it is not forced over the remote's"
            );
        }
    }
    if pass.outcome.command == Command::Tick {
        let unavailable = matches!(view.remote, RemoteTip::Unavailable(_));
        view.marked = is_marked(repo, Heads { local, remote: if unavailable { last_seen } else { tip } })?;
    }
    Ok((view, relation))
}

/// Whether the remote, which is now at `tip`, took commits back that local has.
fn took_back(repo: &Repo, local: Option<CommitId>, tip: CommitId, before: Option<CommitId>) -> Result<bool, Error> {
    match (local, before) {
        (Some(local), Some(before)) if local != tip => repo.holds_taken_back(local, tip, before),
        _ => Ok(false),
    }
}

/// Whether a marker allows overwriting the remote's tip of `heads` by the local one.
fn is_marked(repo: &Repo, heads: Heads) -> Result<bool, Error> {
    let Some(marker) = marker::read(&repo.private) else { return Ok(false) };
    let remote_tip = heads.remote.map(|id| id.to_string());
    let marked = marker.covers(&repo.destination()?, remote_tip.as_deref());
    match (heads.local, marked.map(CommitId::from_str)) {
        (Some(local), Some(Ok(marked))) => repo.contains(local, marked),
        _ => Ok(false),
    }
}

/// Whether the local commits after `pass.job_base`, which the remote has, are what an earlier job has left.
fn is_job_left(pass: &Pass<'_>, repo: &Repo, local: Option<CommitId>, tip: Option<CommitId>) -> Result<bool, Error> {
    match (pass.job_base, local, tip) {
        (Some(base), Some(local), Some(tip)) => {
            Ok(local != base && repo.contains(local, base)? && repo.contains(tip, base)?)
        }
        _ => Ok(false),
    }
}

/// The relation of the two commits. In a shallow clone, fetches the history that this needs.
fn relation(pass: &mut Pass<'_>, repo: &Repo, ours: CommitId, theirs: CommitId) -> Result<Relation, Error> {
    let relation = repo.relation(ours, theirs)?;
    let diverged = !relation.local_is_ancestor && !relation.remote_is_ancestor;
    if !diverged || !repo.history_is_cut() || pass.outcome.command == Command::InitSync {
        return Ok(relation);
    }
    fetch_whole_history(pass, repo)?;
    let relation = repo.relation(ours, theirs)?;
    let diverged = !relation.local_is_ancestor && !relation.remote_is_ancestor;
    if diverged && repo.history_is_cut() {
        let what = "history is cut off here (a shallow clone), so it is unknown whether the histories diverged";
        return Err(Error::new(Kind::NotReady, what, "fetch all of it: `git fetch --unshallow`"));
    }
    Ok(relation)
}

fn fetch_whole_history(pass: &mut Pass<'_>, repo: &Repo) -> Result<(), Error> {
    tracing::info!(branch = %repo.names.branch, "this is a shallow clone: fetching the history that the comparison needs");
    let dry_run = pass.settings.dry_run;
    let fetched = pass.with_remote(repo, "the fetch", |remote| match dry_run {
        true => remote.fetch_beside(History::Whole),
        false => remote.fetch(History::Whole),
    });
    fetched.map(drop)
}

/// With `--on-divergence rebase`, our unpushed commits replayed on the remote's tip; `None` if the policy decides.
fn replayed(
    pass: &Pass<'_>,
    repo: &Repo,
    view: &View<CommitId>,
    ours: CommitId,
    theirs: CommitId,
) -> Result<Option<CommitId>, Error> {
    match pass.settings.on_divergence {
        _ if view.unfit.is_some() => Ok(None),
        // What a job has left is replayed whatever `--on-divergence` says, so that it stays together.
        _ if view.job_left => repo.replay(ours, theirs, now()),
        _ if pass.outcome.command == Command::InitSync => Ok(None),
        OnDivergence::Policy => Ok(None),
        OnDivergence::Rebase if view.rewritten => {
            tracing::info!("not replayed: the remote rewrote its history");
            Ok(None)
        }
        OnDivergence::Rebase => repo.replay(ours, theirs, now()),
    }
}
