//! What a pass will do, as a value before it is an act.
//!
//! A look at the repository and the remote gives a [`View`]; the functions here make a [`Plan`] of it. A dry run prints the
//! plan, a pass applies it, so that the two cannot disagree. Everything here is pure, and generic over what names a commit
//! (`C`): the model check explores this very code.

use std::fmt;

use crate::outcome::{Failure, Word};
use crate::policy::{self, Action, Mode, SyncState};

/// The remote's branch, as just asked.
#[derive(Clone, Debug)]
pub enum RemoteTip<C> {
    /// The remote has no such branch, and had none when it was last asked.
    Absent,
    /// The branch was there at the last look, and is gone.
    Gone,
    /// The branch is at this commit.
    At(C),
    /// The remote could not be asked. [`crate::outcome::Kind`] says whether a later pass may succeed.
    Unavailable(Failure),
}

/// What a pass sees before it decides.
#[derive(Clone, Debug)]
pub struct View<C> {
    /// The commit of the local branch; `None` while it is unborn.
    pub local: Option<C>,
    /// The remote's tip as an earlier pass saw it.
    pub last_seen: Option<C>,
    /// The remote's branch now.
    pub remote: RemoteTip<C>,
    /// How the two stand to each other. An unborn local branch is behind, an absent remote one is behind us.
    pub state: SyncState,
    /// Our unpushed commits replayed on the remote's tip, where `--on-divergence rebase` asks for it and it can be done.
    pub replayed: Option<C>,
    /// Whether a force push is pending for this branch, this remote and these tips.
    pub marked: bool,
}

impl<C: Copy> View<C> {
    fn tip(&self) -> Option<C> {
        match self.remote {
            RemoteTip::At(tip) => Some(tip),
            RemoteTip::Absent | RemoteTip::Gone | RemoteTip::Unavailable(_) => None,
        }
    }
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
    /// init-sync follows the remote whatever the state is.
    StartUp,
    /// init-sync heals the work tree where there is no remote commit to follow.
    Heal,
}

/// Why the next tick's push may overwrite the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkReason {
    /// Both sides have new commits, and this instance wins.
    Diverged,
    /// The branch is gone from the remote.
    Gone,
}

/// One thing that a pass does. Each is safe to be killed in; the next pass goes on from there.
#[derive(Clone, Debug)]
pub enum Step<C> {
    /// Make branch, index and every tracked file equal to `target`, and keep what that would drop.
    Follow {
        /// The commit.
        target: C,
        /// Why.
        reason: Reason,
    },
    /// Write the force-push-pending marker.
    SetMarker(MarkReason),
    /// Remove the force-push-pending marker.
    ClearMarker,
    /// Run the job.
    RunJob,
    /// Build the site and publish it, where one is to be built.
    Build,
    /// Commit what changed under `--path`.
    Commit,
    /// Say what is wrong and go on.
    Warn(Failure),
    /// Record a failure and go on with the steps that are left.
    Fail(Failure),
}

/// What a pass will do, and the word that it then says if nothing fails on the way.
#[derive(Clone, Debug)]
pub struct Plan<C> {
    /// The result word.
    pub word: Word,
    /// The steps, in order.
    pub steps: Vec<Step<C>>,
}

/// What a tick does about the remote once its commit is made.
#[derive(Clone, Debug)]
pub enum Push<C> {
    /// The remote has what we have.
    Nothing,
    /// Push by fast-forward, if the remote still is at `expected`.
    FastForward {
        /// The tip that was seen; `None`: the branch is to be made.
        expected: Option<C>,
    },
    /// Keep the remote's tip as a rescue, then overwrite it, if it still is `expected`.
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
    Refuse(Failure),
}

/// The failure of a non-alpha pass whose branch is gone from the remote.
#[must_use]
pub fn branch_is_gone(branch: &str, remote: &str) -> Failure {
    Failure::person(
        format!("branch '{branch}' is gone from the remote; local files are untouched"),
        format!(
            "if that was meant, nothing is lost here; to bring the branch back, push it (`git push {remote} {branch}`) or \
             run a tick with --alpha"
        ),
    )
}

/// Plans `gitsync sync`. `gone`: what to say in non-alpha where the branch is gone; `stale`: whether the site is to be built
/// again although nothing is followed.
#[must_use]
pub fn sync<C: Copy + PartialEq>(view: &View<C>, mode: Mode, gone: Failure, stale: bool) -> Plan<C> {
    let word = Word::State(view.state);
    let steps = match &view.remote {
        RemoteTip::Unavailable(failure) => return Plan { word: Word::Error, steps: vec![Step::Fail(failure.clone())] },
        RemoteTip::Gone if mode == Mode::NonAlpha => {
            return Plan { word: Word::Error, steps: vec![Step::Fail(gone)] };
        }
        _ => reconcile(view, mode),
    };
    let mut plan = Plan { word, steps };
    if plan.follows().is_some() || stale {
        plan.steps.push(Step::Build);
    }
    plan
}

/// Plans a tick up to its commit; [`push`] plans the rest, from a view of what is there then.
///
/// A remote out of reach does not keep a tick with a local commit from its work. Without one, the job's first commit would be
/// a history of its own.
#[must_use]
pub fn tick<C: Copy + PartialEq>(view: &View<C>, mode: Mode, gone: Failure) -> Plan<C> {
    let mut steps = match &view.remote {
        RemoteTip::Unavailable(failure) if view.local.is_none() => {
            return Plan { word: Word::Error, steps: vec![Step::Fail(failure.clone())] };
        }
        RemoteTip::Unavailable(failure) if failure.is_passing() => vec![Step::Warn(failure.clone())],
        RemoteTip::Unavailable(failure) => vec![Step::Fail(failure.clone())],
        RemoteTip::Gone if mode == Mode::NonAlpha => vec![Step::Fail(gone)],
        _ => reconcile(view, mode),
    };
    steps.extend([Step::RunJob, Step::Build, Step::Commit]);
    Plan { word: Word::NoChanges, steps }
}

/// Plans `gitsync init-sync`. `fresh`: whether there was no repository to speak of.
#[must_use]
pub fn init_sync<C: Copy + PartialEq>(view: &View<C>, fresh: bool, differs: bool) -> Plan<C> {
    let heal = |steps: &mut Vec<Step<C>>| {
        if let Some(target) = view.local {
            steps.push(Step::Follow { target, reason: Reason::Heal });
        }
    };
    let mut steps = Vec::new();
    let word = match &view.remote {
        RemoteTip::Unavailable(failure) if failure.is_passing() && view.local.is_some() => {
            heal(&mut steps);
            steps.push(Step::Fail(failure.clone()));
            Word::Offline
        }
        RemoteTip::Unavailable(failure) => {
            return Plan { word: Word::Error, steps: vec![Step::Fail(failure.clone())] };
        }
        RemoteTip::Absent | RemoteTip::Gone => {
            heal(&mut steps);
            steps.push(Step::ClearMarker);
            Word::EmptyRemote
        }
        RemoteTip::At(tip) => {
            steps.push(Step::Follow { target: *tip, reason: Reason::StartUp });
            steps.push(Step::ClearMarker);
            match (fresh || view.local.is_none(), differs || view.local != Some(*tip)) {
                (true, _) => Word::Cloned,
                (false, true) => Word::Reset,
                (false, false) => Word::State(SyncState::UpToDate),
            }
        }
    };
    steps.push(Step::Build);
    Plan { word, steps }
}

/// What the rule says about a remote that could be asked.
fn reconcile<C: Copy + PartialEq>(view: &View<C>, mode: Mode) -> Vec<Step<C>> {
    if matches!(view.remote, RemoteTip::Gone) {
        return if view.marked { Vec::new() } else { vec![Step::SetMarker(MarkReason::Gone)] };
    }
    if let (SyncState::Diverged, Some(target)) = (view.state, view.replayed) {
        return vec![Step::Follow { target, reason: Reason::Replayed }];
    }
    let mut steps = Vec::new();
    match (policy::decide(view.state, mode), view.tip()) {
        (Action::FollowRemote, Some(target)) => {
            let reason = match view.state {
                SyncState::Diverged => Reason::AcceptRemote,
                SyncState::Behind | SyncState::UpToDate | SyncState::Ahead => Reason::Behind,
            };
            steps.push(Step::Follow { target, reason });
            steps.extend(view.marked.then_some(Step::ClearMarker));
        }
        (Action::KeepLocal, _) => steps.extend((!view.marked).then_some(Step::SetMarker(MarkReason::Diverged))),
        (Action::Rest, Some(_)) => steps.extend(view.marked.then_some(Step::ClearMarker)),
        (Action::FollowRemote | Action::Rest, None) | (Action::LeaveForTick, _) => {}
    }
    steps
}

/// Plans a tick's push. `gone`, `lost_race`: what to say where the branch is gone, and where the remote has commits that this
/// instance has not and may not overwrite.
#[must_use]
pub fn push<C: Copy + PartialEq>(view: &View<C>, mode: Mode, gone: Failure, lost_race: Failure) -> Push<C> {
    let Some(ours) = view.local else { return Push::Nothing };
    match &view.remote {
        RemoteTip::Unavailable(_) | RemoteTip::Gone
            if view.last_seen == Some(ours) && mode_allows_rest(&view.remote, mode) =>
        {
            Push::Nothing
        }
        RemoteTip::Unavailable(failure) => Push::Refuse(failure.clone()),
        RemoteTip::Gone if mode == Mode::NonAlpha => Push::Refuse(gone),
        RemoteTip::Gone | RemoteTip::Absent => Push::FastForward { expected: None },
        RemoteTip::At(tip) => match (view.state, view.replayed, mode) {
            // Behind: an earlier push came through after all, and somebody pushed on top of it.
            (SyncState::UpToDate | SyncState::Behind, _, _) => Push::Nothing,
            (SyncState::Ahead, _, _) => Push::FastForward { expected: Some(*tip) },
            (SyncState::Diverged, Some(replayed), _) => Push::ReplayFirst { replayed, expected: *tip },
            (SyncState::Diverged, None, Mode::Alpha) => Push::Overwrite { expected: *tip },
            (SyncState::Diverged, None, Mode::NonAlpha) => Push::Refuse(lost_race),
        },
    }
}

/// Alpha makes a branch that is gone again, whatever it had there before.
fn mode_allows_rest<C>(remote: &RemoteTip<C>, mode: Mode) -> bool {
    !matches!((remote, mode), (RemoteTip::Gone, Mode::Alpha))
}

impl<C: Copy> Plan<C> {
    /// The commit that the local branch is at after this plan, where the plan moves it.
    pub fn follows(&self) -> Option<C> {
        self.steps.iter().find_map(|step| match step {
            Step::Follow { target, .. } => Some(*target),
            _ => None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Behind => "following the remote",
            Self::AcceptRemote => "diverged, accepting remote",
            Self::Replayed => "replaying on the remote",
            Self::StartUp => "following the remote at start-up",
            Self::Heal => "healing at start-up, without the remote",
        })
    }
}
