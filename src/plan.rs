//! Decides what a pass will do, as a value, before anything is done.
//!
//! Looking at the repository and the remote gives a [`View`]; the functions here turn it into a [`Plan`]. A dry run prints the
//! plan and a pass applies it, so the two can't disagree. Everything here is pure, and generic over the type of a commit id
//! (`C`), so that the model checker explores the same code.

use std::fmt;

use crate::error::Error;
use crate::outcome::Word;
use crate::policy::{self, Action, Mode, SyncState};

/// The remote's branch, as just asked.
#[derive(Clone, Debug)]
pub enum RemoteTip<C> {
    /// The remote has no such branch, and had none when it was last asked.
    Absent,
    /// The branch existed when the remote was last asked, and is gone now.
    Gone,
    /// The branch is at this commit.
    At(C),
    /// The remote could not be asked. [`crate::error::Kind`] says whether a later pass may succeed.
    Unavailable(Error),
}

/// What a pass sees before it decides.
#[derive(Clone, Debug)]
pub struct View<C> {
    /// The commit of the local branch; `None` while it is unborn.
    pub local: Option<C>,
    /// The remote's tip as last seen (the tracking ref).
    pub last_seen: Option<C>,
    /// The remote's branch now.
    pub remote: RemoteTip<C>,
    /// The relation of the two. If only the local branch is unborn, it is behind; if only the remote's branch is absent, local is
    /// ahead.
    pub state: SyncState,
    /// Our unpushed commits replayed on the remote's tip, if `--on-divergence rebase` asks for that or they are what an earlier
    /// job has left, and if there was no conflict.
    pub replayed: Option<C>,
    /// Whether a force push is pending for this branch, this remote and these tips.
    pub marked: bool,
    /// Whether our history was begun here while the remote could not be reached. It is never forced over the remote's.
    pub unforceable: bool,
    /// Why the remote's commit can't be followed here, if it can't.
    pub unfit: Option<Error>,
    /// The newest commit of the branch in a repository that was put aside. init-sync looks for it if there is no local commit and
    /// the remote can't be reached.
    pub put_aside: Option<C>,
    /// The remote's tip as it was last seen before this pass asked.
    pub before: Option<C>,
    /// Whether the remote's history was rewritten since it was last seen.
    pub rewritten: bool,
    /// Whether the remote took commits back that local has. It is then at an ancestor of ours, but the two count as diverged.
    pub taken_back: bool,
    /// Whether our unpushed commits are what an earlier job has left, on a commit that the remote has.
    pub job_left: bool,
}

impl<C: Copy + PartialEq> View<C> {
    /// The remote's commit, if it has the branch.
    pub fn tip(&self) -> Option<C> {
        match self.remote {
            RemoteTip::At(tip) => Some(tip),
            RemoteTip::Absent | RemoteTip::Gone | RemoteTip::Unavailable(_) => None,
        }
    }

    /// The mode of a tick: a pending force push counts as alpha.
    pub fn tick_mode(&self, mode: Mode) -> Mode {
        if self.marked { Mode::Alpha } else { mode }
    }

    /// Whether a first commit may be made: neither side has one, and the remote was asked.
    pub fn is_empty(&self) -> bool {
        self.local.is_none() && matches!(self.remote, RemoteTip::Absent | RemoteTip::Gone)
    }

    /// The view after the local branch has followed `target`.
    #[must_use]
    pub fn after_follow(self, target: C) -> Self {
        let state = match self.tip() {
            Some(tip) if tip == target => SyncState::UpToDate,
            Some(_) if self.replayed == Some(target) => SyncState::Ahead,
            _ => self.state,
        };
        Self { local: Some(target), state, replayed: None, ..self }
    }

    /// The view after `commit` was made on the local branch.
    #[must_use]
    pub fn after_commit(self, commit: C) -> Self {
        let state = match self.state {
            SyncState::UpToDate | SyncState::Ahead => SyncState::Ahead,
            SyncState::Behind | SyncState::Diverged => SyncState::Diverged,
        };
        Self { local: Some(commit), state, ..self }
    }
}

/// What a plan was made from.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'v, C> {
    /// The view.
    pub view: &'v View<C>,
    /// The mode that the plan was made for.
    pub mode: Mode,
}

/// Why a pass makes the work tree equal to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The remote is ahead.
    Behind,
    /// Both sides have new commits, and the remote wins.
    AcceptRemote,
    /// Our commits were replayed on the remote's.
    Replayed,
    /// init-sync follows the remote, whatever the state is.
    StartUp,
    /// init-sync heals the work tree, without a remote commit to follow.
    Heal,
    /// init-sync can't reach the remote, and takes the newest commit of a repository that was put aside.
    PutAside,
}

/// Why the next tick's push may overwrite the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkReason {
    /// Both sides have new commits, and this instance wins.
    Diverged,
    /// The branch is gone from the remote.
    Gone,
}

/// One step of a pass. A pass may be killed during any step; the next pass goes on from there.
#[derive(Clone, Debug)]
pub enum Step<C> {
    /// Do nothing: both sides have the same commit.
    Rest,
    /// Leave our commits to the next tick's push.
    LeaveForTick,
    /// Point HEAD at the branch, which has no commit yet (init-sync).
    StandOnUnborn,
    /// Make branch, index and every tracked file equal to `target`, and rescue what that would drop.
    Follow {
        /// The commit.
        target: C,
        /// Why.
        reason: Reason,
    },
    /// Write the force-push-pending marker.
    SetMarker(MarkReason),
    /// Remove the force-push-pending marker, if there is one.
    ClearMarker,
    /// Run the job.
    RunJob,
    /// Build the site and publish it, if there is a build command.
    Build,
    /// Empty the public dir, if there is one.
    EmptySite,
    /// Commit what changed under `--path`.
    Commit,
    /// Log a warning and go on.
    Warn(Error),
    /// Record a failure and go on with the remaining steps.
    Fail(Error),
}

/// What a pass will do, and its result word if nothing fails on the way.
#[derive(Clone, Debug)]
pub struct Plan<C> {
    /// The result word.
    pub word: Word,
    /// The steps, in order.
    pub steps: Vec<Step<C>>,
}

/// What a tick does about the remote after its commit.
#[derive(Clone, Debug)]
pub enum Push<C> {
    /// Nothing: the remote has what we have.
    Nothing,
    /// Push by fast-forward, if the remote is still at `expected`.
    FastForward {
        /// The tip that was seen; `None` if the push creates the branch.
        expected: Option<C>,
    },
    /// Keep the remote's tip as a rescue, then overwrite it, if it is still `expected`.
    Overwrite {
        /// The tip that was seen.
        expected: C,
    },
    /// Follow this replay of our commits on the remote's tip, then push it by fast-forward.
    ReplayFirst {
        /// Our commits on top of the remote's.
        replayed: C,
        /// The tip that was seen.
        expected: C,
    },
    /// Don't push. The commit is kept.
    Refuse(Error),
}

/// The error of a non-alpha pass whose branch is gone from the remote.
#[must_use]
pub fn branch_is_gone(branch: &str, remote: &str) -> Error {
    Error::person(
        format!("branch '{branch}' is gone from the remote; local files are untouched"),
        format!(
            "if that was meant, nothing is lost here; to bring the branch back, push it (`git push {remote} {branch}`) or \
             run a tick with --alpha"
        ),
    )
}

/// Plans `gitsync sync`. `gone`: the error for non-alpha if the branch is gone; `stale`: whether the site has to be built even
/// if nothing is followed.
#[must_use]
pub fn sync<C: Copy + PartialEq>(view: &View<C>, mode: Mode, gone: Error, stale: bool) -> Plan<C> {
    let word = Word::State(view.state);
    let steps = match &view.remote {
        RemoteTip::Unavailable(failure) => return Plan { word: Word::Error, steps: vec![Step::Fail(failure.clone())] },
        RemoteTip::Gone if mode == Mode::NonAlpha => {
            return Plan { word: Word::Error, steps: vec![Step::Fail(gone)] };
        }
        _ => match reconcile(view, mode) {
            Ok(steps) => steps,
            Err(unfit) => return Plan { word: Word::Error, steps: vec![Step::Fail(unfit)] },
        },
    };
    let mut plan = Plan { word, steps };
    if plan.follows().is_some() || stale {
        plan.steps.push(Step::Build);
    }
    plan
}

/// Plans a tick up to its commit; [`push`] plans the rest, from a new view.
///
/// With a local commit, a tick does its work even if the remote can't be reached. Without one it does not: the job's first commit
/// would begin a separate history.
#[must_use]
pub fn tick<C: Copy + PartialEq>(view: &View<C>, mode: Mode, gone: Error) -> Plan<C> {
    let mut steps = match &view.remote {
        RemoteTip::Unavailable(failure) if view.local.is_none() => {
            return Plan { word: Word::Error, steps: vec![Step::Fail(failure.clone())] };
        }
        RemoteTip::Unavailable(failure) if failure.is_passing() => vec![Step::Warn(failure.clone())],
        RemoteTip::Unavailable(failure) => vec![Step::Fail(failure.clone())],
        RemoteTip::Gone if mode == Mode::NonAlpha => vec![Step::Fail(gone)],
        _ => match reconcile(view, mode) {
            Ok(steps) => steps,
            // The fault is in the remote's commit, so the tick goes on with local state.
            Err(unfit) if view.local.is_some() => vec![Step::Fail(unfit)],
            Err(unfit) => return Plan { word: Word::Error, steps: vec![Step::Fail(unfit)] },
        },
    };
    steps.extend([Step::RunJob, Step::Build, Step::Commit]);
    Plan { word: Word::NoChanges, steps }
}

/// Plans `gitsync init-sync`. `fresh`: whether the repository was created in this pass. The caller changes the word `up-to-date`
/// to `reset` if the follow finds that files differ.
#[must_use]
pub fn init_sync<C: Copy + PartialEq>(view: &View<C>, fresh: bool) -> Plan<C> {
    let heal = |view: &View<C>| match (view.local, view.put_aside) {
        (Some(target), _) => vec![Step::Follow { target, reason: Reason::Heal }],
        (None, Some(target)) => vec![Step::Follow { target, reason: Reason::PutAside }],
        (None, None) => Vec::new(),
    };
    let (word, mut steps) = match &view.remote {
        RemoteTip::Unavailable(failure) => {
            let steps = heal(view);
            let has_local_state = failure.is_passing() && !steps.is_empty();
            if !has_local_state {
                return Plan {
                    word: Word::Error,
                    steps: with(if view.local.is_none() { steps } else { Vec::new() }, Step::Fail(failure.clone())),
                };
            }
            let next = format!("going on with local state; {}", failure.next);
            (Word::Offline, with(steps, Step::Fail(Error { next, ..failure.clone() })))
        }
        RemoteTip::Absent | RemoteTip::Gone => {
            let steps = if view.local.is_some() { heal(view) } else { vec![Step::StandOnUnborn] };
            (Word::EmptyRemote, with(steps, Step::ClearMarker))
        }
        RemoteTip::At(tip) => {
            if let Some(unfit) = &view.unfit {
                // The fault is in the remote's commit. The local state is healed, and ticks go on with it.
                return Plan { word: Word::Error, steps: with(heal(view), Step::Fail(unfit.clone())) };
            }
            let (target, reason) = match (view.job_left, view.state, view.local, view.replayed) {
                (true, SyncState::Diverged, _, Some(replayed)) => (replayed, Reason::Replayed),
                (true, SyncState::Ahead, Some(local), _) => (local, Reason::Heal),
                _ => (*tip, Reason::StartUp),
            };
            let word = match (fresh || view.local.is_none(), view.local != Some(target)) {
                (true, _) => Word::Cloned,
                (false, true) => Word::Reset,
                (false, false) => Word::State(SyncState::UpToDate),
            };
            (word, vec![Step::Follow { target, reason }, Step::ClearMarker])
        }
    };
    // On a branch without a commit there is nothing to build from: the first tick makes the commit and builds the site.
    let has_commit = view.local.is_some() || steps.iter().any(|step| matches!(step, Step::Follow { .. }));
    steps.push(if has_commit { Step::Build } else { Step::EmptySite });
    Plan { word, steps }
}

fn with<C>(mut steps: Vec<Step<C>>, step: Step<C>) -> Vec<Step<C>> {
    steps.push(step);
    steps
}

/// The steps that the rule demands if the remote answered; or the reason why its commit can't be followed.
fn reconcile<C: Copy + PartialEq>(view: &View<C>, mode: Mode) -> Result<Vec<Step<C>>, Error> {
    if matches!(view.remote, RemoteTip::Gone) {
        return Ok(vec![Step::SetMarker(MarkReason::Gone)]);
    }
    let stays_ahead = view.taken_back && mode == Mode::Alpha;
    if let (SyncState::Behind | SyncState::Diverged, Some(unfit)) =
        (view.state, view.unfit.as_ref().filter(|_| !stays_ahead))
    {
        return Err(unfit.clone());
    }
    if let (SyncState::Diverged, Some(target)) = (view.state, view.replayed) {
        return Ok(vec![Step::Follow { target, reason: Reason::Replayed }]);
    }
    let mode = if view.unforceable { Mode::NonAlpha } else { mode };
    Ok(match (policy::decide(view.state, mode), view.tip()) {
        (Action::FollowRemote, Some(target)) => {
            let reason = match view.state {
                SyncState::Diverged => Reason::AcceptRemote,
                SyncState::Behind | SyncState::UpToDate | SyncState::Ahead => Reason::Behind,
            };
            vec![Step::Follow { target, reason }, Step::ClearMarker]
        }
        (Action::KeepLocal, _) => vec![Step::SetMarker(MarkReason::Diverged)],
        (Action::Rest, Some(_)) => vec![Step::Rest, Step::ClearMarker],
        (Action::FollowRemote | Action::Rest, None) => vec![Step::Rest],
        (Action::LeaveForTick, _) => vec![Step::LeaveForTick],
    })
}

/// Plans a tick's push. `gone`: the error if the branch is gone. `lost_race`: the error if the remote has commits that this
/// instance does not have and may not overwrite.
#[must_use]
pub fn push<C: Copy + PartialEq>(view: &View<C>, mode: Mode, gone: Error, lost_race: Error) -> Push<C> {
    let Some(ours) = view.local else { return Push::Nothing };
    let had_it = view.last_seen == Some(ours);
    let tip = match (&view.remote, mode) {
        (RemoteTip::Unavailable(_), _) | (RemoteTip::Gone, Mode::NonAlpha) if had_it => return Push::Nothing,
        (RemoteTip::Unavailable(failure), _) => return Push::Refuse(failure.clone()),
        (RemoteTip::Gone, Mode::NonAlpha) => return Push::Refuse(gone),
        (RemoteTip::Gone | RemoteTip::Absent, _) => return Push::FastForward { expected: None },
        (RemoteTip::At(tip), _) => *tip,
    };
    match (view.state, view.replayed, &view.unfit, mode) {
        // Behind: an earlier push succeeded after all, and somebody has pushed on top of it.
        (SyncState::UpToDate | SyncState::Behind, ..) => Push::Nothing,
        (SyncState::Ahead, ..) => Push::FastForward { expected: Some(tip) },
        // Our history contains the remote's: nothing is overwritten.
        (SyncState::Diverged, _, _, Mode::Alpha) if view.taken_back => Push::FastForward { expected: Some(tip) },
        // A commit that can't be checked out here is never overwritten.
        (SyncState::Diverged, _, Some(unfit), _) => Push::Refuse(unfit.clone()),
        (SyncState::Diverged, Some(replayed), None, _) => Push::ReplayFirst { replayed, expected: tip },
        (SyncState::Diverged, None, None, Mode::Alpha) if !view.unforceable => Push::Overwrite { expected: tip },
        (SyncState::Diverged, None, None, _) => Push::Refuse(lost_race),
    }
}

impl<C> Push<C> {
    /// The word of a tick whose push succeeds as planned.
    pub fn word(&self, view: &View<C>, mode: Mode) -> Word {
        match self {
            Self::Nothing if matches!((&view.remote, mode), (RemoteTip::Gone, Mode::NonAlpha)) => Word::Error,
            Self::Nothing => Word::NoChanges,
            Self::Refuse(_) => Word::PushFailed,
            Self::FastForward { .. } | Self::Overwrite { .. } | Self::ReplayFirst { .. } => Word::Pushed,
        }
    }
}

/// The error of a push that may not overwrite what the remote has.
#[must_use]
pub fn has_other_commits(branch: &str) -> Error {
    Error::retry(
        format!("the remote's '{branch}' has commits that we do not have"),
        "the next pass fetches them and decides",
    )
}

impl<C: Copy> Plan<C> {
    /// The commit that this plan moves the local branch to, if it does.
    pub fn follows(&self) -> Option<C> {
        self.steps.iter().find_map(|step| match step {
            Step::Follow { target, .. } => Some(*target),
            _ => None,
        })
    }

    /// Whether this plan, made from `view`, already reports why nothing is pushed. That is not so for a remote that could not be
    /// reached: the push asks it again.
    pub fn says_why(&self, view: &View<C>) -> bool {
        let fails = self.steps.iter().any(|step| matches!(step, Step::Fail(_)));
        fails && !matches!(view.remote, RemoteTip::Unavailable(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Behind => "following the remote",
            Self::AcceptRemote => "diverged, accepting remote",
            Self::Replayed => "replaying on the remote",
            Self::StartUp => "following the remote at start-up",
            Self::Heal => "healing at start-up, without the remote's commit",
            Self::PutAside => "using the newest commit that could be read; the remote can't be reached",
        })
    }
}

impl<C: fmt::Display> fmt::Display for Step<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => f.write_str("change nothing: up to date"),
            Self::LeaveForTick => f.write_str("leave our commits to the tick's push"),
            Self::StandOnUnborn => {
                f.write_str("leave the branch to the first tick's push: the remote has no such branch")
            }
            Self::Follow { target, reason: Reason::Replayed } => {
                write!(f, "replay our commits on the remote's, as {target}")
            }
            Self::Follow { target, reason: Reason::Heal | Reason::PutAside } => {
                write!(f, "bring branch, index and files to {target}")
            }
            Self::Follow { target, .. } => write!(f, "follow the remote to {target}"),
            Self::SetMarker(MarkReason::Diverged) => {
                f.write_str("keep local, and mark that the next tick's push may overwrite the remote")
            }
            Self::SetMarker(MarkReason::Gone) => {
                f.write_str("mark that the next tick's push creates the remote's branch again")
            }
            Self::ClearMarker => f.write_str("forget the pending force push"),
            Self::RunJob => f.write_str("run the job"),
            Self::Build => f.write_str("build the site and publish it"),
            Self::EmptySite => f.write_str("empty the public dir: there is no build command"),
            Self::Commit => f.write_str("commit what changed"),
            Self::Warn(failure) => write!(f, "go on with local state: {}", failure.what),
            Self::Fail(failure) => write!(f, "fail: {}", failure.what),
        }
    }
}

impl<C: fmt::Display> fmt::Display for Push<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("push nothing: the remote has what we have"),
            Self::FastForward { .. } => f.write_str("push, by fast-forward only"),
            Self::Overwrite { expected } => {
                write!(f, "push, and overwrite the remote's tip {expected} after keeping it")
            }
            Self::ReplayFirst { expected, .. } => write!(f, "replay our commits on {expected}, then push"),
            Self::Refuse(failure) => write!(f, "not push: {}", failure.what),
        }
    }
}

#[cfg(test)]
mod tests;
