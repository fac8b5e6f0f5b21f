//! Each plan as a table, for every combination of remote, state and mode.

use super::*;
use crate::error::Error;

/// The remote's tip, our own commit, and what a replay of ours on the remote's would be.
const THEIRS: u8 = 1;
const OURS: u8 = 2;
const REPLAYED: u8 = 3;

fn gone() -> Error {
    branch_is_gone("main", "origin")
}

fn lost_race() -> Error {
    has_other_commits("main")
}

fn away() -> Error {
    Error::retry("the network is away", "wait")
}

fn refused() -> Error {
    Error::person("the server refused", "look")
}

fn unfit() -> Error {
    Error::person("it can't be followed", "mend it")
}

fn view(remote: RemoteTip<u8>, state: SyncState) -> View<u8> {
    let local = if state == SyncState::UpToDate { THEIRS } else { OURS };
    View {
        local: Some(local),
        last_seen: Some(THEIRS),
        remote,
        state,
        replayed: None,
        marked: false,
        unforceable: false,
        unfit: None,
        put_aside: None,
        before: Some(THEIRS),
        rewritten: false,
        taken_back: false,
        job_left: false,
    }
}

fn at(state: SyncState) -> View<u8> {
    view(RemoteTip::At(THEIRS), state)
}

fn unborn(remote: RemoteTip<u8>, state: SyncState) -> View<u8> {
    View { local: None, last_seen: None, ..view(remote, state) }
}

/// A plan in short: the word and the names of its steps.
fn short(plan: &Plan<u8>) -> String {
    let steps = plan.steps.iter().map(|step| match step {
        Step::Rest => "rest".to_owned(),
        Step::LeaveForTick => "leave".into(),
        Step::StandOnUnborn => "stand".into(),
        Step::Follow { target, reason } => format!("follow {target} {reason:?}"),
        Step::SetMarker(reason) => format!("mark {reason:?}"),
        Step::ClearMarker => "unmark".into(),
        Step::RunJob => "job".into(),
        Step::Build => "build".into(),
        Step::EmptySite => "empty".into(),
        Step::Commit => "commit".into(),
        Step::Warn(_) => "warn".into(),
        Step::Fail(failure) => format!("fail {}", failure.kind.exit_code()),
    });
    format!("{}: {}", plan.word.word(), steps.collect::<Vec<_>>().join(", "))
}

fn push_in_short(view: &View<u8>, mode: Mode) -> String {
    let push = push(view, mode, gone(), lost_race());
    let what = match &push {
        Push::Nothing => "nothing".to_owned(),
        Push::FastForward { expected } => format!("forward {expected:?}"),
        Push::Overwrite { expected } => format!("overwrite {expected}"),
        Push::ReplayFirst { replayed, expected } => format!("replay {replayed} on {expected}"),
        Push::Refuse(failure) => format!("refuse {}", failure.kind.exit_code()),
    };
    format!("{}: {what}", push.word(view, mode).word())
}

const MODES: [Mode; 2] = [Mode::NonAlpha, Mode::Alpha];

/// Every kind of view, with a name.
fn views() -> Vec<(&'static str, View<u8>)> {
    use SyncState::{Ahead, Behind, Diverged, UpToDate};
    vec![
        ("up-to-date", at(UpToDate)),
        ("behind", at(Behind)),
        ("ahead", at(Ahead)),
        ("diverged", at(Diverged)),
        ("diverged, replayed", View { replayed: Some(REPLAYED), ..at(Diverged) }),
        ("diverged, marked", View { marked: true, ..at(Diverged) }),
        ("diverged, begun here", View { unforceable: true, ..at(Diverged) }),
        ("diverged, taken back", View { taken_back: true, ..at(Diverged) }),
        ("behind, unfit", View { unfit: Some(unfit()), ..at(Behind) }),
        ("diverged, unfit", View { unfit: Some(unfit()), ..at(Diverged) }),
        ("absent", View { last_seen: None, ..view(RemoteTip::Absent, Ahead) }),
        ("gone", view(RemoteTip::Gone, Ahead)),
        ("gone, had all", View { last_seen: Some(OURS), ..view(RemoteTip::Gone, Ahead) }),
        ("away", view(RemoteTip::Unavailable(away()), Ahead)),
        ("away, had all", View { last_seen: Some(OURS), ..view(RemoteTip::Unavailable(away()), Ahead) }),
        ("refuses", view(RemoteTip::Unavailable(refused()), Ahead)),
        ("unborn, there", unborn(RemoteTip::At(THEIRS), Behind)),
        ("unborn, unfit", View { unfit: Some(unfit()), ..unborn(RemoteTip::At(THEIRS), Behind) }),
        ("unborn, absent", unborn(RemoteTip::Absent, UpToDate)),
        ("unborn, away", unborn(RemoteTip::Unavailable(away()), UpToDate)),
        ("unborn, refuses", unborn(RemoteTip::Unavailable(refused()), UpToDate)),
        ("put aside, away", View { put_aside: Some(OURS), ..unborn(RemoteTip::Unavailable(away()), UpToDate) }),
        ("put aside, refuses", View { put_aside: Some(OURS), ..unborn(RemoteTip::Unavailable(refused()), UpToDate) }),
        ("diverged, taken back, unfit", View { taken_back: true, unfit: Some(unfit()), ..at(Diverged) }),
        ("ahead, job left", View { job_left: true, ..at(Ahead) }),
        ("diverged, job left", View { job_left: true, ..at(Diverged) }),
        ("diverged, job left, replayed", View { job_left: true, replayed: Some(REPLAYED), ..at(Diverged) }),
    ]
}

/// Compares what `plan` makes of every view with a table of name, non-alpha and alpha.
#[track_caller]
fn check(table: &[(&str, &str, &str)], plan: impl Fn(&View<u8>, Mode) -> String) {
    let named: Vec<(&str, String, String)> =
        views().iter().map(|(name, view)| (*name, plan(view, MODES[0]), plan(view, MODES[1]))).collect();
    let table: Vec<(&str, String, String)> =
        table.iter().map(|(name, one, other)| (*name, (*one).to_owned(), (*other).to_owned())).collect();
    for (found, wanted) in named.iter().zip(&table) {
        assert_eq!(found, wanted);
    }
    assert_eq!(named.len(), table.len());
}

#[test]
fn every_sync() {
    let table = [
        ("up-to-date", "up-to-date: rest, unmark", "up-to-date: rest, unmark"),
        ("behind", "behind: follow 1 Behind, unmark, build", "behind: follow 1 Behind, unmark, build"),
        ("ahead", "ahead: leave", "ahead: leave"),
        ("diverged", "diverged: follow 1 AcceptRemote, unmark, build", "diverged: mark Diverged"),
        ("diverged, replayed", "diverged: follow 3 Replayed, build", "diverged: follow 3 Replayed, build"),
        ("diverged, marked", "diverged: follow 1 AcceptRemote, unmark, build", "diverged: mark Diverged"),
        (
            "diverged, begun here",
            "diverged: follow 1 AcceptRemote, unmark, build",
            "diverged: follow 1 AcceptRemote, unmark, build",
        ),
        ("diverged, taken back", "diverged: follow 1 AcceptRemote, unmark, build", "diverged: mark Diverged"),
        ("behind, unfit", "error: fail 1", "error: fail 1"),
        ("diverged, unfit", "error: fail 1", "error: fail 1"),
        ("absent", "ahead: leave", "ahead: leave"),
        ("gone", "error: fail 1", "ahead: mark Gone"),
        ("gone, had all", "error: fail 1", "ahead: mark Gone"),
        ("away", "error: fail 75", "error: fail 75"),
        ("away, had all", "error: fail 75", "error: fail 75"),
        ("refuses", "error: fail 1", "error: fail 1"),
        ("unborn, there", "behind: follow 1 Behind, unmark, build", "behind: follow 1 Behind, unmark, build"),
        ("unborn, unfit", "error: fail 1", "error: fail 1"),
        ("unborn, absent", "up-to-date: rest", "up-to-date: rest"),
        ("unborn, away", "error: fail 75", "error: fail 75"),
        ("unborn, refuses", "error: fail 1", "error: fail 1"),
        ("put aside, away", "error: fail 75", "error: fail 75"),
        ("put aside, refuses", "error: fail 1", "error: fail 1"),
        ("diverged, taken back, unfit", "error: fail 1", "diverged: mark Diverged"),
        ("ahead, job left", "ahead: leave", "ahead: leave"),
        ("diverged, job left", "diverged: follow 1 AcceptRemote, unmark, build", "diverged: mark Diverged"),
        ("diverged, job left, replayed", "diverged: follow 3 Replayed, build", "diverged: follow 3 Replayed, build"),
    ];
    check(&table, |view, mode| short(&sync(view, mode, gone(), false)));
}

#[test]
fn every_tick_up_to_its_commit() {
    let table = [
        ("up-to-date", "no-changes: rest, unmark, job, build, commit", "no-changes: rest, unmark, job, build, commit"),
        (
            "behind",
            "no-changes: follow 1 Behind, unmark, job, build, commit",
            "no-changes: follow 1 Behind, unmark, job, build, commit",
        ),
        ("ahead", "no-changes: leave, job, build, commit", "no-changes: leave, job, build, commit"),
        (
            "diverged",
            "no-changes: follow 1 AcceptRemote, unmark, job, build, commit",
            "no-changes: mark Diverged, job, build, commit",
        ),
        (
            "diverged, replayed",
            "no-changes: follow 3 Replayed, job, build, commit",
            "no-changes: follow 3 Replayed, job, build, commit",
        ),
        (
            "diverged, marked",
            "no-changes: follow 1 AcceptRemote, unmark, job, build, commit",
            "no-changes: mark Diverged, job, build, commit",
        ),
        (
            "diverged, begun here",
            "no-changes: follow 1 AcceptRemote, unmark, job, build, commit",
            "no-changes: follow 1 AcceptRemote, unmark, job, build, commit",
        ),
        (
            "diverged, taken back",
            "no-changes: follow 1 AcceptRemote, unmark, job, build, commit",
            "no-changes: mark Diverged, job, build, commit",
        ),
        ("behind, unfit", "no-changes: fail 1, job, build, commit", "no-changes: fail 1, job, build, commit"),
        ("diverged, unfit", "no-changes: fail 1, job, build, commit", "no-changes: fail 1, job, build, commit"),
        ("absent", "no-changes: leave, job, build, commit", "no-changes: leave, job, build, commit"),
        ("gone", "no-changes: fail 1, job, build, commit", "no-changes: mark Gone, job, build, commit"),
        ("gone, had all", "no-changes: fail 1, job, build, commit", "no-changes: mark Gone, job, build, commit"),
        ("away", "no-changes: warn, job, build, commit", "no-changes: warn, job, build, commit"),
        ("away, had all", "no-changes: warn, job, build, commit", "no-changes: warn, job, build, commit"),
        ("refuses", "no-changes: fail 1, job, build, commit", "no-changes: fail 1, job, build, commit"),
        (
            "unborn, there",
            "no-changes: follow 1 Behind, unmark, job, build, commit",
            "no-changes: follow 1 Behind, unmark, job, build, commit",
        ),
        ("unborn, unfit", "error: fail 1", "error: fail 1"),
        ("unborn, absent", "no-changes: rest, job, build, commit", "no-changes: rest, job, build, commit"),
        ("unborn, away", "error: fail 75", "error: fail 75"),
        ("unborn, refuses", "error: fail 1", "error: fail 1"),
        ("put aside, away", "error: fail 75", "error: fail 75"),
        ("put aside, refuses", "error: fail 1", "error: fail 1"),
        (
            "diverged, taken back, unfit",
            "no-changes: fail 1, job, build, commit",
            "no-changes: mark Diverged, job, build, commit",
        ),
        ("ahead, job left", "no-changes: leave, job, build, commit", "no-changes: leave, job, build, commit"),
        (
            "diverged, job left",
            "no-changes: follow 1 AcceptRemote, unmark, job, build, commit",
            "no-changes: mark Diverged, job, build, commit",
        ),
        (
            "diverged, job left, replayed",
            "no-changes: follow 3 Replayed, job, build, commit",
            "no-changes: follow 3 Replayed, job, build, commit",
        ),
    ];
    check(&table, |view, mode| short(&tick(view, mode, gone())));
}

#[test]
fn every_push_of_a_tick() {
    let table = [
        ("up-to-date", "no-changes: nothing", "no-changes: nothing"),
        ("behind", "no-changes: nothing", "no-changes: nothing"),
        ("ahead", "pushed: forward Some(1)", "pushed: forward Some(1)"),
        ("diverged", "push-failed: refuse 75", "pushed: overwrite 1"),
        ("diverged, replayed", "pushed: replay 3 on 1", "pushed: replay 3 on 1"),
        ("diverged, marked", "push-failed: refuse 75", "pushed: overwrite 1"),
        ("diverged, begun here", "push-failed: refuse 75", "push-failed: refuse 75"),
        ("diverged, taken back", "push-failed: refuse 75", "pushed: forward Some(1)"),
        ("behind, unfit", "no-changes: nothing", "no-changes: nothing"),
        ("diverged, unfit", "push-failed: refuse 1", "push-failed: refuse 1"),
        ("absent", "pushed: forward None", "pushed: forward None"),
        ("gone", "push-failed: refuse 1", "pushed: forward None"),
        ("gone, had all", "error: nothing", "pushed: forward None"),
        ("away", "push-failed: refuse 75", "push-failed: refuse 75"),
        ("away, had all", "no-changes: nothing", "no-changes: nothing"),
        ("refuses", "push-failed: refuse 1", "push-failed: refuse 1"),
        ("unborn, there", "no-changes: nothing", "no-changes: nothing"),
        ("unborn, unfit", "no-changes: nothing", "no-changes: nothing"),
        ("unborn, absent", "no-changes: nothing", "no-changes: nothing"),
        ("unborn, away", "no-changes: nothing", "no-changes: nothing"),
        ("unborn, refuses", "no-changes: nothing", "no-changes: nothing"),
        ("put aside, away", "no-changes: nothing", "no-changes: nothing"),
        ("put aside, refuses", "no-changes: nothing", "no-changes: nothing"),
        ("diverged, taken back, unfit", "push-failed: refuse 1", "pushed: forward Some(1)"),
        ("ahead, job left", "pushed: forward Some(1)", "pushed: forward Some(1)"),
        ("diverged, job left", "push-failed: refuse 75", "pushed: overwrite 1"),
        ("diverged, job left, replayed", "pushed: replay 3 on 1", "pushed: replay 3 on 1"),
    ];
    check(&table, push_in_short);
}

/// The mode does not matter. The second column is for a repository that was created in this pass.
#[test]
fn every_init_sync() {
    let table = [
        ("up-to-date", "up-to-date: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("behind", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("ahead", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("diverged", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("diverged, replayed", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("diverged, marked", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("diverged, begun here", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("diverged, taken back", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("behind, unfit", "error: follow 2 Heal, fail 1", "error: follow 2 Heal, fail 1"),
        ("diverged, unfit", "error: follow 2 Heal, fail 1", "error: follow 2 Heal, fail 1"),
        ("absent", "empty-remote: follow 2 Heal, unmark, build", "empty-remote: follow 2 Heal, unmark, build"),
        ("gone", "empty-remote: follow 2 Heal, unmark, build", "empty-remote: follow 2 Heal, unmark, build"),
        ("gone, had all", "empty-remote: follow 2 Heal, unmark, build", "empty-remote: follow 2 Heal, unmark, build"),
        ("away", "offline: follow 2 Heal, fail 75, build", "offline: follow 2 Heal, fail 75, build"),
        ("away, had all", "offline: follow 2 Heal, fail 75, build", "offline: follow 2 Heal, fail 75, build"),
        ("refuses", "error: fail 1", "error: fail 1"),
        ("unborn, there", "cloned: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        ("unborn, unfit", "error: fail 1", "error: fail 1"),
        ("unborn, absent", "empty-remote: stand, unmark, empty", "empty-remote: stand, unmark, empty"),
        ("unborn, away", "error: fail 75", "error: fail 75"),
        ("unborn, refuses", "error: fail 1", "error: fail 1"),
        ("put aside, away", "offline: follow 2 PutAside, fail 75, build", "offline: follow 2 PutAside, fail 75, build"),
        ("put aside, refuses", "error: follow 2 PutAside, fail 1", "error: follow 2 PutAside, fail 1"),
        ("diverged, taken back, unfit", "error: follow 2 Heal, fail 1", "error: follow 2 Heal, fail 1"),
        ("ahead, job left", "up-to-date: follow 2 Heal, unmark, build", "cloned: follow 2 Heal, unmark, build"),
        ("diverged, job left", "reset: follow 1 StartUp, unmark, build", "cloned: follow 1 StartUp, unmark, build"),
        (
            "diverged, job left, replayed",
            "reset: follow 3 Replayed, unmark, build",
            "cloned: follow 3 Replayed, unmark, build",
        ),
    ];
    check(&table, |view, mode| short(&init_sync(view, mode == Mode::Alpha)));
}

#[test]
fn a_stale_site_is_built_by_a_sync_that_follows_nothing() {
    let plan = sync(&at(SyncState::UpToDate), Mode::NonAlpha, gone(), true);
    assert_eq!(short(&plan), "up-to-date: rest, unmark, build");
}

#[test]
fn a_pending_force_push_is_alpha_in_a_tick() {
    let marked = View { marked: true, ..at(SyncState::Diverged) };
    assert_eq!(marked.tick_mode(Mode::NonAlpha), Mode::Alpha);
    assert_eq!(at(SyncState::Diverged).tick_mode(Mode::NonAlpha), Mode::NonAlpha);
}

/// The view that a dry run expects after a tick's plan, and the push that follows from it.
#[test]
fn a_view_after_the_plan() {
    use SyncState::{Ahead, Behind, Diverged, UpToDate};
    let table = [
        (at(UpToDate), None, true, Ahead, "pushed: forward Some(1)"),
        (at(Behind), Some(THEIRS), false, UpToDate, "no-changes: nothing"),
        (at(Behind), Some(THEIRS), true, Ahead, "pushed: forward Some(1)"),
        (at(Diverged), Some(THEIRS), false, UpToDate, "no-changes: nothing"),
        (View { replayed: Some(REPLAYED), ..at(Diverged) }, Some(REPLAYED), false, Ahead, "pushed: forward Some(1)"),
        (View { replayed: Some(THEIRS), ..at(Diverged) }, Some(THEIRS), false, UpToDate, "no-changes: nothing"),
        (View { unfit: Some(unfit()), ..at(Behind) }, None, true, Diverged, "push-failed: refuse 1"),
        (view(RemoteTip::Unavailable(away()), Ahead), None, true, Ahead, "push-failed: refuse 75"),
        (unborn(RemoteTip::Absent, UpToDate), None, true, Ahead, "pushed: forward None"),
    ];
    for (before, follows, commits, state, push) in table {
        let name = format!("{before:?}");
        let mut after = before;
        if let Some(target) = follows {
            after = after.after_follow(target);
        }
        if commits {
            after = after.after_commit(9);
        }
        assert_eq!((after.state, push_in_short(&after, Mode::NonAlpha).as_str()), (state, push), "{name}");
    }
}

#[test]
fn a_first_commit_may_be_made_where_neither_side_has_one() {
    let empty = views().into_iter().filter(|(_, view)| view.is_empty()).map(|(name, _)| name);
    assert_eq!(empty.collect::<Vec<_>>(), ["unborn, absent"]);
    assert!(unborn(RemoteTip::Gone, SyncState::UpToDate).is_empty());
}

/// A tick says once why nothing is pushed, and asks a remote again that was away.
#[test]
fn a_plan_that_fails_has_said_why_unless_the_remote_was_away() {
    let says = |view: &View<u8>, mode| tick(view, mode, gone()).says_why(view);
    let said = views().into_iter().filter(|(_, view)| says(view, Mode::NonAlpha)).map(|(name, _)| name);
    let wanted =
        ["behind, unfit", "diverged, unfit", "gone", "gone, had all", "unborn, unfit", "diverged, taken back, unfit"];
    assert_eq!(said.collect::<Vec<_>>(), wanted);
    assert!(!says(&view(RemoteTip::Gone, SyncState::Ahead), Mode::Alpha));
}

/// A replay is followed only once: the view after it has none.
#[test]
fn a_replay_that_was_followed_is_not_followed_again() {
    let after = View { replayed: Some(REPLAYED), ..at(SyncState::Diverged) }.after_follow(REPLAYED);
    assert_eq!((after.local, after.replayed), (Some(REPLAYED), None));
    assert_eq!(at(SyncState::Ahead).after_commit(9).local, Some(9));
    // Following a commit that is neither the remote's tip nor the replay does not change the state.
    assert_eq!(at(SyncState::Diverged).after_follow(9).state, SyncState::Diverged);
}

#[test]
fn an_offline_start_says_that_it_goes_on_and_what_to_do() {
    let plan = init_sync(&view(RemoteTip::Unavailable(away()), SyncState::Ahead), false);
    let next = plan.steps.iter().find_map(|step| match step {
        Step::Fail(failure) => Some(failure.next.as_str()),
        _ => None,
    });
    assert_eq!(next, Some("going on with local state; wait"));
}

/// What a dry run prints.
#[test]
fn every_step_and_push_has_words_of_its_own() {
    let follow = |reason| Step::Follow { target: THEIRS, reason };
    let steps = [
        (Step::Rest, "change nothing: up to date"),
        (Step::LeaveForTick, "leave our commits to the tick's push"),
        (Step::StandOnUnborn, "leave the branch to the first tick's push: the remote has no such branch"),
        (follow(Reason::Behind), "follow the remote to 1"),
        (follow(Reason::Replayed), "replay our commits on the remote's, as 1"),
        (follow(Reason::Heal), "bring branch, index and files to 1"),
        (follow(Reason::PutAside), "bring branch, index and files to 1"),
        (
            Step::SetMarker(MarkReason::Diverged),
            "keep local, and mark that the next tick's push may overwrite the remote",
        ),
        (Step::SetMarker(MarkReason::Gone), "mark that the next tick's push creates the remote's branch again"),
        (Step::ClearMarker, "forget the pending force push"),
        (Step::RunJob, "run the job"),
        (Step::Build, "build the site and publish it"),
        (Step::EmptySite, "empty the public dir: there is no build command"),
        (Step::Commit, "commit what changed"),
        (Step::Warn(away()), "go on with local state: the network is away"),
        (Step::Fail(refused()), "fail: the server refused"),
    ];
    for (step, words) in steps {
        assert_eq!(step.to_string(), words);
    }
    let pushes = [
        (Push::Nothing, "push nothing: the remote has what we have"),
        (Push::FastForward { expected: Some(THEIRS) }, "push, by fast-forward only"),
        (Push::Overwrite { expected: THEIRS }, "push, and overwrite the remote's tip 1 after keeping it"),
        (Push::ReplayFirst { replayed: REPLAYED, expected: THEIRS }, "replay our commits on 1, then push"),
        (Push::Refuse(refused()), "not push: the server refused"),
    ];
    for (push, words) in pushes {
        assert_eq!(push.to_string(), words);
    }
    let reasons = [
        (Reason::Behind, "following the remote"),
        (Reason::AcceptRemote, "diverged, accepting remote"),
        (Reason::Replayed, "replaying on the remote"),
        (Reason::StartUp, "following the remote at start-up"),
        (Reason::Heal, "healing at start-up, without the remote's commit"),
        (Reason::PutAside, "using the newest commit that could be read; the remote can't be reached"),
    ];
    for (reason, words) in reasons {
        assert_eq!(reason.to_string(), words);
    }
}
