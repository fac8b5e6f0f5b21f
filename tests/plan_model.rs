//! Model check of the plan: the functions of `gitsync::plan` that decide in the program decide here, over a small world of
//! two instances, one remote and a person, in every order of events there is.
//!
//! A pass is taken apart into the steps at which it may be killed. Between any two of them the other instance and the person
//! act. What is explored is bounded by budgets (commits, acts of the person, kills), not by depth. More of it:
//!
//! ```text
//! GITSYNC_PLAN_MODEL=deep cargo test --release --test plan_model -- --nocapture
//! GITSYNC_PLAN_MODEL=COMMITS,PERSON,KILLS cargo test --release --test plan_model -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use gitsync::error::Error;
use gitsync::plan::{self, Plan, Push, RemoteTip, Step, View};
use gitsync::policy::{self, Mode, SyncState};
use stateright::{Checker, Model, Property};

type Id = u8;
/// A set of commits, a bit each.
type Ids = u16;

/// How often a push that lost a race is tried.
const TRIES: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Commit {
    parent: Option<Id>,
    /// What the commit changes. A replayed commit changes the same on another parent.
    patch: u8,
    /// The commit and all before it.
    line: Ids,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pass {
    InitSync,
    Sync,
    Tick { writes: bool },
}

/// What a pass does between two moments at which it may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Act {
    FinishJournal,
    /// Commit what a job has left: in a tick whatever is there, else what the mark of a killed tick tells of.
    CommitLeft,
    /// The remote was looked at and the rule acted on: the mark goes.
    SettleLeft,
    AskRemote,
    /// Remember the remote's tip, after keeping the one before where the remote no longer holds it.
    KeepSeen,
    SetSeen,
    Decide,
    Rescue(Id),
    BeginJournal(Id),
    PlaceFiles(Id),
    MoveBranch(Id),
    EndJournal,
    SetMarker,
    ClearMarker {
        followed: bool,
    },
    Job,
    Commit,
    DecidePush,
    Push {
        expected: Option<Id>,
        force: bool,
    },
    HoldPushed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Running {
    pass: Pass,
    mode: Mode,
    acts: Vec<Act>,
    /// The remote's tip as asked.
    tip: Option<Id>,
    gone: bool,
    rewritten: bool,
    attempt: u8,
    /// What local was at before what a job has left was committed.
    job_base: Option<Id>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Instance {
    local: Option<Id>,
    seen: Option<Id>,
    rescues: Ids,
    /// The local and the remote tip that the marker names.
    marker: Option<(Id, Option<Id>)>,
    /// Old and new commit of a follow under way.
    journal: Option<(Option<Id>, Id)>,
    /// Whether the work tree holds files of two commits.
    mixed: bool,
    /// Whether the job wrote something that is not committed.
    dirty: bool,
    /// The mark of a job that has begun: the local tip of then.
    mark: Option<Id>,
    running: Option<Running>,
    /// Every commit that was the local tip, or the remote's tip as this instance saw it.
    must_keep: Ids,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    commits: Vec<Commit>,
    remote: Option<Id>,
    instances: Vec<Instance>,
    person: u8,
    kills: u8,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Start(usize, Pass),
    Act(usize),
    Kill(usize),
    PersonPushes,
    PersonRewrites,
    PersonRewinds,
    PersonDeletes,
}

/// A bug put into the model on purpose, which the check must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    ClearsMarkerBeforePush,
    SkipsRescue,
    PushesWithoutLease,
}

#[derive(Clone)]
struct Gitsync {
    modes: Vec<Mode>,
    rebase: bool,
    commits: usize,
    person: u8,
    kills: u8,
    bug: Option<Bug>,
}

fn bit(id: Id) -> Ids {
    1 << id
}

fn bits(id: Option<Id>) -> Ids {
    id.map_or(0, bit)
}

impl Act {
    /// Whether the other instance or a person could see it, or be seen by it. What is not so may as well happen before what
    /// they do as after it, so that one order stands for all; a kill may come at any of them.
    fn is_global(self) -> bool {
        matches!(self, Self::AskRemote | Self::Push { .. })
    }
}

impl World {
    fn line(&self, tip: Id) -> Ids {
        self.commits[usize::from(tip)].line
    }

    /// All that is reachable from a set of commits.
    fn reachable(&self, tips: Ids) -> Ids {
        self.commits
            .iter()
            .enumerate()
            .filter(|(i, _)| tips >> i & 1 == 1)
            .fold(0, |all, (_, commit)| all | commit.line)
    }

    fn contains(&self, tip: Id, commit: Id) -> bool {
        self.line(tip) & bit(commit) != 0
    }

    fn commit(&mut self, parent: Option<Id>, patch: u8) -> Id {
        let at = self.commits.iter().position(|it| (it.parent, it.patch) == (parent, patch)).unwrap_or_else(|| {
            let at = self.commits.len();
            let line = parent.map_or(0, |parent| self.line(parent)) | 1 << at;
            self.commits.push(Commit { parent, patch, line });
            at
        });
        Id::try_from(at).unwrap()
    }

    fn fresh_patch(&self) -> u8 {
        self.commits.iter().map(|commit| commit.patch + 1).max().unwrap_or(0)
    }

    fn state(&self, local: Option<Id>, tip: Option<Id>) -> SyncState {
        match (local, tip) {
            (None, None) => SyncState::UpToDate,
            (Some(_), None) => SyncState::Ahead,
            (None, Some(_)) => SyncState::Behind,
            (Some(a), Some(b)) => policy::state(a == b, self.contains(b, a), self.contains(a, b)),
        }
    }

    /// Whether the remote, now at `tip`, took commits back that local has.
    fn took_back(&self, local: Option<Id>, tip: Option<Id>, seen: Option<Id>) -> bool {
        let (Some(local), Some(tip), Some(seen)) = (local, tip, seen) else { return false };
        let taken = self.line(seen) & !self.line(tip);
        self.contains(seen, tip) && self.line(local) & taken != 0
    }

    /// Our unpushed commits on the remote's tip; nothing where the histories have no commit in common.
    fn replay(&mut self, ours: Id, theirs: Id) -> Option<Id> {
        let mut unpushed = Vec::new();
        let mut at = ours;
        while !self.contains(theirs, at) {
            unpushed.push(self.commits[usize::from(at)].patch);
            at = self.commits[usize::from(at)].parent?;
        }
        let known = self.line(theirs);
        let is_there = |w: &Self, patch| w.commits.iter().any(|it| it.patch == patch && it.line & !known == 0);
        let mut onto = theirs;
        for patch in unpushed.into_iter().rev() {
            if !is_there(self, patch) {
                onto = self.commit(Some(onto), patch);
            }
        }
        Some(onto)
    }
}

impl Gitsync {
    fn view(&self, w: &mut World, i: usize) -> View<Id> {
        let running = w.instances[i].running.clone().unwrap();
        let (local, last_seen) = (w.instances[i].local, w.instances[i].seen);
        let state = w.state(local, running.tip);
        let taken_back = state == SyncState::Ahead && w.took_back(local, running.tip, last_seen);
        let state = policy::state_after_taking_back(state, taken_back);
        let job_left = match (running.job_base, local, running.tip) {
            (Some(base), Some(ours), Some(theirs)) => {
                ours != base && w.contains(ours, base) && w.contains(theirs, base)
            }
            _ => false,
        };
        let by_rule = self.rebase && !running.rewritten && running.pass != Pass::InitSync;
        let replayed = match (local, running.tip) {
            (Some(ours), Some(theirs)) if state == SyncState::Diverged && (job_left || by_rule) => {
                w.replay(ours, theirs)
            }
            _ => None,
        };
        let remote = match running.tip {
            Some(tip) => RemoteTip::At(tip),
            None if running.gone => RemoteTip::Gone,
            None => RemoteTip::Absent,
        };
        View {
            local,
            last_seen,
            remote,
            state,
            replayed,
            marked: self.is_marked(w, i, running.tip),
            unforceable: false,
            unfit: None,
            put_aside: None,
            before: last_seen,
            rewritten: running.rewritten,
            taken_back,
            job_left,
        }
    }

    /// The marker is for the tips it names: ours may have moved on, the remote's may not.
    fn is_marked(&self, w: &World, i: usize, tip: Option<Id>) -> bool {
        let instance = &w.instances[i];
        instance
            .marker
            .zip(instance.local)
            .is_some_and(|((ours, theirs), local)| theirs == tip && w.contains(local, ours))
    }

    fn acts_of(&self, w: &World, i: usize, plan: &Plan<Id>) -> Vec<Act> {
        let mut acts = Vec::new();
        let local = w.instances[i].local;
        for step in &plan.steps {
            match step {
                Step::Follow { target, .. } if local != Some(*target) => {
                    if let Some(local) = local.filter(|local| !w.contains(*target, *local))
                        && self.bug != Some(Bug::SkipsRescue)
                    {
                        acts.push(Act::Rescue(local));
                    }
                    let target = *target;
                    acts.extend([
                        Act::BeginJournal(target),
                        Act::PlaceFiles(target),
                        Act::MoveBranch(target),
                        Act::EndJournal,
                    ]);
                    if w.instances[i].running.as_ref().unwrap().tip == Some(target) {
                        acts.extend([Act::KeepSeen, Act::SetSeen]);
                    }
                }
                Step::SetMarker(_) => acts.push(Act::SetMarker),
                Step::ClearMarker => acts.push(Act::ClearMarker { followed: plan.follows().is_some() }),
                Step::RunJob => acts.extend([Act::SettleLeft, Act::Job]),
                Step::Commit => acts.extend([Act::Commit, Act::SettleLeft, Act::DecidePush]),
                Step::Follow { .. } | Step::Rest | Step::LeaveForTick | Step::StandOnUnborn => {}
                Step::Build | Step::EmptySite | Step::Warn(_) | Step::Fail(_) => {}
            }
        }
        acts
    }

    fn decide(&self, w: &mut World, i: usize) {
        let view = self.view(w, i);
        let nothing = || Error::person("", "");
        let running = w.instances[i].running.as_mut().unwrap();
        if matches!(running.pass, Pass::Tick { .. }) {
            running.mode = view.tick_mode(running.mode);
        }
        let mode = running.mode;
        let plan = match running.pass {
            Pass::InitSync => plan::init_sync(&view, false),
            Pass::Sync => plan::sync(&view, mode, nothing(), false),
            Pass::Tick { .. } => plan::tick(&view, mode, nothing()),
        };
        let acts = self.acts_of(w, i, &plan);
        let running = w.instances[i].running.as_mut().unwrap();
        running.acts.extend(acts);
        if !matches!(running.pass, Pass::Tick { .. }) {
            running.acts.push(Act::SettleLeft);
        }
    }

    fn decide_push(&self, w: &mut World, i: usize) {
        let view = self.view(w, i);
        let mode = w.instances[i].running.as_ref().unwrap().mode;
        let nothing = || Error::person("", "");
        let local = view.local;
        let acts = match plan::push(&view, mode, nothing(), nothing()) {
            Push::Nothing if matches!(view.remote, RemoteTip::At(_)) && view.marked => {
                vec![Act::ClearMarker { followed: false }]
            }
            Push::Nothing | Push::Refuse(_) => Vec::new(),
            Push::FastForward { expected } => vec![Act::Push { expected, force: false }, Act::HoldPushed],
            Push::Overwrite { expected } => {
                let mut acts = Vec::new();
                if self.bug == Some(Bug::ClearsMarkerBeforePush) {
                    acts.push(Act::ClearMarker { followed: false });
                }
                acts.extend([
                    Act::Rescue(expected),
                    Act::Push { expected: Some(expected), force: true },
                    Act::HoldPushed,
                ]);
                acts
            }
            Push::ReplayFirst { replayed, expected } => {
                let mut acts: Vec<Act> = local.map(Act::Rescue).into_iter().collect();
                acts.extend([
                    Act::BeginJournal(replayed),
                    Act::PlaceFiles(replayed),
                    Act::MoveBranch(replayed),
                    Act::EndJournal,
                    Act::Push { expected: Some(expected), force: false },
                    Act::HoldPushed,
                ]);
                acts
            }
        };
        w.instances[i].running.as_mut().unwrap().acts.extend(acts);
    }

    fn push(&self, w: &mut World, i: usize, expected: Option<Id>, force: bool) {
        let Some(ours) = w.instances[i].local else { return };
        let leased = w.remote == expected;
        if !leased && self.bug != Some(Bug::PushesWithoutLease) {
            let running = w.instances[i].running.as_mut().unwrap();
            running.acts.clear();
            running.attempt += 1;
            if running.attempt < TRIES && (running.mode == Mode::Alpha || self.rebase) {
                running.acts.extend([Act::AskRemote, Act::KeepSeen, Act::SetSeen, Act::DecidePush]);
            }
            return;
        }
        if let Some(before) = w.remote {
            let forwards = w.contains(ours, before);
            if !forwards && !force {
                w.broken = Some("the remote was moved by no fast-forward, without alpha");
            }
            let kept = w.reachable(w.instances[i].rescues);
            if !forwards && kept & bit(before) == 0 {
                w.broken = Some("a remote tip was overwritten that was not kept");
            }
        }
        w.remote = Some(ours);
    }

    fn act(&self, w: &mut World, i: usize) {
        let act = w.instances[i].running.as_mut().unwrap().acts.remove(0);
        match act {
            Act::FinishJournal => {
                let instance = &mut w.instances[i];
                if let Some((old, target)) = instance.journal.take() {
                    if instance.local == old {
                        instance.local = Some(target);
                    }
                    instance.mixed = false;
                }
            }
            Act::CommitLeft => {
                let running = w.instances[i].running.as_ref().unwrap();
                let is_tick = matches!(running.pass, Pass::Tick { .. });
                let (mark, dirty) = (w.instances[i].mark, w.instances[i].dirty);
                let Some(local) = w.instances[i].local else { return self.end_if_done(w, i) };
                if mark.is_some() || is_tick && dirty {
                    w.instances[i].running.as_mut().unwrap().job_base = mark.or(Some(local));
                    w.instances[i].mark = mark.or(Some(local));
                    self.commit(w, i);
                }
            }
            Act::SettleLeft => {
                w.instances[i].running.as_mut().unwrap().job_base = None;
                w.instances[i].mark = None;
            }
            Act::AskRemote => {
                let (tip, seen) = (w.remote, w.instances[i].seen);
                let rewritten = seen.zip(tip).is_some_and(|(seen, tip)| !w.contains(tip, seen));
                let instance = &mut w.instances[i];
                let running = instance.running.as_mut().unwrap();
                running.gone = tip.is_none() && seen.is_some();
                running.rewritten |= rewritten;
                running.tip = tip;
            }
            Act::KeepSeen => {
                let (tip, seen) = (w.instances[i].running.as_ref().unwrap().tip, w.instances[i].seen);
                if let (Some(tip), Some(seen)) = (tip, seen)
                    && !w.contains(tip, seen)
                    && self.bug != Some(Bug::SkipsRescue)
                {
                    w.instances[i].rescues |= bit(seen);
                }
            }
            Act::SetSeen => {
                let tip = w.instances[i].running.as_ref().unwrap().tip;
                let taken_back = w.took_back(w.instances[i].local, tip, w.instances[i].seen);
                if tip.is_some() && !taken_back {
                    w.instances[i].seen = tip;
                    // Asked for alone it is not here yet, and nobody could keep it.
                    w.instances[i].must_keep |= bits(tip);
                }
            }
            Act::Decide => self.decide(w, i),
            Act::Rescue(id) => {
                w.instances[i].rescues |= bit(id);
            }
            Act::BeginJournal(target) => w.instances[i].journal = Some((w.instances[i].local, target)),
            Act::PlaceFiles(_) => w.instances[i].mixed = true,
            Act::MoveBranch(target) => w.instances[i].local = Some(target),
            Act::EndJournal => {
                w.instances[i].mixed = false;
                w.instances[i].journal = None;
            }
            Act::SetMarker => {
                let tip = w.instances[i].running.as_ref().unwrap().tip;
                w.instances[i].marker = w.instances[i].local.map(|local| (local, tip));
            }
            Act::ClearMarker { followed } => {
                let (local, tip) = (w.instances[i].local, w.instances[i].running.as_ref().unwrap().tip);
                let holds_ours = tip.zip(local).is_some_and(|(tip, ours)| w.contains(tip, ours));
                if w.instances[i].marker.take().is_some() && !followed && !holds_ours {
                    w.broken = Some("a pending force push was forgotten before the remote held our commit");
                }
            }
            Act::Job => {
                let writes = w.instances[i].running.as_ref().unwrap().pass == Pass::Tick { writes: true };
                w.instances[i].dirty |= writes;
                w.instances[i].mark = w.instances[i].local;
            }
            Act::Commit => self.commit(w, i),
            Act::DecidePush => self.decide_push(w, i),
            Act::Push { expected, force } => self.push(w, i, expected, force),
            Act::HoldPushed => {
                let ours = w.instances[i].local;
                let instance = &mut w.instances[i];
                if let (Some(seen), Some(ours)) = (instance.seen, ours) {
                    let kept = w.contains(ours, seen);
                    if !kept {
                        w.instances[i].rescues |= bit(seen);
                    }
                }
                w.instances[i].seen = ours;
                w.instances[i].marker = None;
            }
        }
        self.end_if_done(w, i);
    }

    fn commit(&self, w: &mut World, i: usize) {
        if w.instances[i].mixed {
            w.broken = Some("a commit was made while the work tree held files of two commits");
        }
        if std::mem::take(&mut w.instances[i].dirty) {
            let patch = w.fresh_patch();
            let new = w.commit(w.instances[i].local, patch);
            w.instances[i].local = Some(new);
        }
    }

    fn end_if_done(&self, w: &mut World, i: usize) {
        let instance = &mut w.instances[i];
        instance.must_keep |= bits(instance.local);
        if instance.running.as_ref().is_some_and(|running| running.acts.is_empty()) {
            instance.running = None;
        }
    }

    fn start(&self, w: &mut World, i: usize, pass: Pass) {
        let acts = vec![Act::FinishJournal, Act::CommitLeft, Act::AskRemote, Act::KeepSeen, Act::SetSeen, Act::Decide];
        let running = Running {
            pass,
            mode: self.modes[i],
            acts,
            tip: None,
            gone: false,
            rewritten: false,
            attempt: 0,
            job_base: None,
        };
        w.instances[i].running = Some(running);
    }

    /// Runs a pass to its end, with nothing in between.
    fn run(&self, w: &mut World, i: usize, pass: Pass) {
        self.start(w, i, pass);
        while w.instances[i].running.is_some() {
            self.act(w, i);
        }
    }

    /// What two undisturbed ticks of each instance come to; nothing where that is what it should be.
    fn what_it_comes_to(&self, w: &World) -> Option<&'static str> {
        let mut w = w.clone();
        for _ in 0..2 {
            for i in 0..self.modes.len() {
                self.run(&mut w, i, Pass::Tick { writes: false });
            }
        }
        if w.broken.is_some() {
            return w.broken;
        }
        let Some(remote) = w.remote else {
            // Nobody may bring back a branch that is gone but alpha.
            let must = self.modes.iter().zip(&w.instances).any(|(mode, it)| *mode == Mode::Alpha && it.local.is_some());
            return must.then_some("alpha did not bring the branch back");
        };
        if w.instances.iter().any(|instance| instance.local != Some(remote) || instance.mixed) {
            return Some("two undisturbed ticks of each instance did not bring all of them to one commit");
        }
        let before = w.clone();
        for i in 0..self.modes.len() {
            self.run(&mut w, i, Pass::Sync);
        }
        (w != before).then_some("a pass on instances in sync changed something")
    }
}

impl Model for Gitsync {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let first = Commit { parent: None, patch: 0, line: 0b01 };
        let second = Commit { parent: Some(0), patch: 1, line: 0b11 };
        let instance = Instance { local: Some(1), seen: Some(1), must_keep: 0b10, ..Instance::default() };
        vec![World {
            commits: vec![first, second],
            remote: Some(1),
            instances: vec![instance; self.modes.len()],
            person: self.person,
            kills: self.kills,
            broken: None,
        }]
    }

    fn actions(&self, w: &World, events: &mut Vec<Event>) {
        let next = |it: &Instance| it.running.as_ref().and_then(|running| running.acts.first().copied());
        if let Some(i) = w.instances.iter().position(|it| next(it).is_some_and(|act| !act.is_global())) {
            events.push(Event::Act(i));
            if w.kills > 0 {
                events.push(Event::Kill(i));
            }
            return;
        }
        for (i, instance) in w.instances.iter().enumerate() {
            if instance.running.is_some() {
                events.push(Event::Act(i));
                if w.kills > 0 {
                    events.push(Event::Kill(i));
                }
                continue;
            }
            events.extend([Event::Start(i, Pass::Sync), Event::Start(i, Pass::Tick { writes: false })]);
            events.push(Event::Start(i, Pass::InitSync));
            if w.commits.len() < self.commits {
                events.push(Event::Start(i, Pass::Tick { writes: true }));
            }
        }
        if w.person > 0 {
            if w.commits.len() < self.commits {
                events.push(Event::PersonPushes);
                events.push(Event::PersonRewrites);
            }
            events.extend([Event::PersonRewinds, Event::PersonDeletes]);
        }
    }

    fn next_state(&self, w: &World, event: Event) -> Option<World> {
        let mut w = w.clone();
        let parent = w.remote.and_then(|tip| w.commits[usize::from(tip)].parent);
        let patch = w.fresh_patch();
        match event {
            Event::Start(i, pass) => self.start(&mut w, i, pass),
            Event::Act(i) => self.act(&mut w, i),
            Event::Kill(i) => {
                w.kills -= 1;
                w.instances[i].running = None;
            }
            Event::PersonPushes => w.remote = Some(w.commit(w.remote, patch)),
            Event::PersonRewrites => {
                w.remote?;
                w.remote = Some(w.commit(parent, patch));
            }
            Event::PersonRewinds => w.remote = Some(parent?),
            Event::PersonDeletes => {
                w.remote.take()?;
            }
        }
        if matches!(event, Event::PersonPushes | Event::PersonRewrites | Event::PersonRewinds | Event::PersonDeletes) {
            w.person -= 1;
        }
        Some(w)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing that must not be done was done", |_: &Gitsync, w: &World| w.broken.is_none()),
            Property::always("every commit that was seen is reachable", |_: &Gitsync, w: &World| {
                w.instances.iter().all(|instance| {
                    let journal = instance.journal.map(|(_, target)| target);
                    let refs = [w.remote, instance.local, instance.seen, journal];
                    let tips = refs.into_iter().fold(instance.rescues, |all, tip| all | bits(tip));
                    instance.must_keep & !w.reachable(tips) == 0
                })
            }),
            Property::always("two undisturbed passes of each instance converge", |model: &Gitsync, w: &World| {
                w.instances.iter().any(|instance| instance.running.is_some()) || model.what_it_comes_to(w).is_none()
            }),
        ]
    }
}

/// How much there may be of what makes the world large.
#[derive(Clone, Copy)]
struct Budget {
    /// A tick or a person begins to make a commit only while there are fewer; two are there from the start.
    commits: usize,
    /// Acts of the person.
    person: u8,
    /// Kills.
    kills: u8,
}

/// More commits without a kill, and a kill with fewer commits; or what `GITSYNC_PLAN_MODEL` asks for.
fn budgets() -> Vec<Budget> {
    let asked = std::env::var("GITSYNC_PLAN_MODEL").unwrap_or_default();
    let numbers: Vec<u8> = asked.split(',').filter_map(|number| number.parse().ok()).collect();
    match (asked.as_str(), numbers.as_slice()) {
        ("", _) => {
            vec![Budget { commits: 4, person: 1, kills: 0 }, Budget { commits: 3, person: 1, kills: 1 }]
        }
        ("deep", _) => vec![Budget { commits: 4, person: 1, kills: 1 }],
        (_, &[commits, person, kills]) => vec![Budget { commits: commits.into(), person, kills }],
        _ => panic!("GITSYNC_PLAN_MODEL is 'deep' or COMMITS,PERSON,KILLS"),
    }
}

fn world(modes: &[Mode], rebase: bool, budget: Budget) -> Gitsync {
    let Budget { commits, person, kills } = budget;
    Gitsync { modes: modes.to_vec(), rebase, commits, person, kills, bug: None }
}

#[track_caller]
fn holds(modes: &[Mode], rebase: bool) {
    for budget in budgets() {
        let model = world(modes, rebase, budget);
        let Budget { commits, person, kills } = budget;
        let name = format!("{modes:?}, rebase: {rebase}, {commits} commits, {person} acts of a person, {kills} kills");
        let checker = model.checker().threads(2).spawn_bfs().join();
        println!("{name}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
        checker.assert_properties();
        assert!(checker.is_done(), "{name}: not all was explored");
    }
}

#[track_caller]
fn is_found(bug: Bug) {
    let budget = Budget { commits: 4, person: 1, kills: 0 };
    let model = Gitsync { bug: Some(bug), ..world(&[Mode::NonAlpha, Mode::Alpha], false, budget) };
    let checker = model.checker().threads(2).spawn_bfs().join();
    assert!(!checker.discoveries().is_empty(), "{bug:?} was not found in {} states", checker.unique_state_count());
}

#[test]
fn two_instances_that_follow_the_remote() {
    holds(&[Mode::NonAlpha, Mode::NonAlpha], false);
}

#[test]
fn two_instances_that_rebase() {
    holds(&[Mode::NonAlpha, Mode::NonAlpha], true);
}

#[test]
fn alpha_and_one_that_follows() {
    holds(&[Mode::NonAlpha, Mode::Alpha], false);
}

#[test]
fn alpha_and_one_that_follows_and_both_rebase() {
    holds(&[Mode::NonAlpha, Mode::Alpha], true);
}

#[test]
fn a_marker_that_goes_before_the_push_is_found() {
    is_found(Bug::ClearsMarkerBeforePush);
}

#[test]
fn a_rescue_that_is_skipped_is_found() {
    is_found(Bug::SkipsRescue);
}

#[test]
fn a_push_without_a_lease_is_found() {
    is_found(Bug::PushesWithoutLease);
}
