//! The model: several instances, alpha and not, two branches and two remotes, a person who pushes, rewrites, rewinds, deletes
//! the branch and edits the work trees, jobs that use git, kills, failing calls, the system's limits, clocks that jump and remotes that
//! do not send all, in random order on real repositories. An oracle for each instance remembers every commit
//! and every file version there ever was, and after every step the guarantees are checked.
//!
//! The cases are the same each time. More of them, or others:
//!
//! ```text
//! GITSYNC_MODEL_CASES=200 GITSYNC_MODEL_SEED=7 cargo test --test long model:: -- --nocapture
//! ```

use std::cell::Cell;

use needs::needs;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::world::jobs::Job;
use crate::world::odds::{self, Clock, Limit};
use crate::world::{BRANCHES, CALLS, How, INSTANCES, PATHS, Pass, Place, REMOTES, Step, World};

/// A branch of a remote; mostly the one that the instances began with.
fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        6 => Just(Place::default()),
        1 => (0..REMOTES.len(), 0..BRANCHES.len()).prop_map(|(remote, branch)| Place { remote, branch }),
    ]
}

/// How a pass is run: mostly with one thing at most that is not as usual, but for the job.
fn how() -> impl Strategy<Value = How> {
    let job = prop_oneof![
        3 => Just(Job::Writes),
        8 => proptest::sample::select(Job::OTHERS),
        1 => proptest::sample::select(Job::LEAVING),
    ];
    let clock = prop_oneof![Just(Clock::Right), Just(Clock::Ahead), Just(Clock::Epoch)];
    let odd = prop_oneof![
        5 => Just(How::default()),
        2 => place().prop_map(|place| How { place, ..How::default() }),
        1 => Just(How { other_mode: true, ..How::default() }),
        1 => clock.prop_map(|clock| How { clock, ..How::default() }),
        1 => proptest::sample::select(Limit::ALL).prop_map(|limit| How { limit: Some(limit), ..How::default() }),
        1 => (0..12_usize).prop_map(|number| How { lie: Some(number), ..How::default() }),
    ];
    (odd, job).prop_map(|(how, job)| How { job, ..how })
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..INSTANCES;
    let path = 0..PATHS.len();
    let pass = prop_oneof![1 => Just(Pass::InitSync), 3 => Just(Pass::Sync), 5 => Just(Pass::Tick)];
    // Most passes make few calls of most names.
    let n = prop_oneof![1..6_usize, 1..16_usize, 1..80_usize];
    prop_oneof![
        4 => (place(), path.clone()).prop_map(|(to, path)| Step::PersonPushes { to, path }),
        2 => (place(), path.clone()).prop_map(|(to, path)| Step::PersonRewrites { to, path }),
        2 => (place(), 1..4_usize).prop_map(|(to, by)| Step::PersonRewinds { to, by }),
        1 => Just(Step::PersonDeletesBranch),
        4 => (at.clone(), path.clone()).prop_map(|(at, path)| Step::PersonEdits { at, path }),
        1 => (at.clone(), path).prop_map(|(at, path)| Step::PersonRemoves { at, path }),
        1 => at.clone().prop_map(|at| Step::PersonStages { at }),
        2 => at.clone().prop_map(|at| Step::PersonCommits { at }),
        10 => (at.clone(), pass.clone(), how()).prop_map(|(at, pass, how)| Step::Runs { at, pass, how }),
        8 => (at.clone(), pass, how(), 0..CALLS.len(), n, 0..6_usize)
            .prop_map(|(at, pass, how, call, n, blow)| Step::Struck { at, pass, how, call, n, blow }),
        2 => at.prop_map(|at| Step::Settles { at }),
    ]
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[needs(faketime, strace)]
#[test]
fn whatever_happens_nothing_is_lost() {
    let cases = u32::try_from(number("GITSYNC_MODEL_CASES", 12)).unwrap();
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number("GITSYNC_MODEL_SEED", 1).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (steps_taken, struck, failed) = (Cell::new(0), Cell::new(0), Cell::new(false));
    let fails = |complaint: String, world: &World| {
        if !failed.replace(true) {
            eprintln!("failed, and is made smaller now: {complaint}");
        }
        TestCaseError::fail(format!("{complaint}\n{}", world.story))
    };
    let tried = runner.run(&prop::collection::vec(step(), 8..24), |steps| {
        let mut world = World::new();
        let last = (0..INSTANCES).map(|at| Step::Settles { at });
        for step in steps.into_iter().chain(last) {
            steps_taken.set(steps_taken.get() + 1);
            if let Err(complaint) = world.take(&step) {
                return Err(fails(complaint, &world));
            }
        }
        if let Err(complaint) = world.end() {
            return Err(fails(complaint, &world));
        }
        struck.set(struck.get() + world.struck);
        if std::env::var_os("GITSYNC_MODEL_SHOW").is_some() {
            eprintln!("{}", world.story);
        }
        Ok(())
    });
    odds::clear_faketime();
    eprintln!("{cases} cases, {} steps, {} passes struck", steps_taken.get(), struck.get());
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// What random histories have found once.
#[needs(faketime, strace)]
#[test]
fn what_was_found_before() {
    use Step::{PersonEdits, PersonPushes, PersonRemoves, Runs, Settles};
    let to = Place::default();
    let histories = [vec![
        PersonPushes { to, path: 2 },
        PersonPushes { to, path: 6 },
        PersonPushes { to, path: 2 },
        Runs { at: 1, pass: Pass::InitSync, how: How::default() },
        PersonPushes { to, path: 0 },
        PersonRemoves { at: 0, path: 3 },
        PersonEdits { at: 1, path: 1 },
        PersonRemoves { at: 0, path: 4 },
        Settles { at: 0 },
        Settles { at: 1 },
    ]];
    for steps in histories {
        let mut world = World::new();
        for step in &steps {
            if let Err(complaint) = world.take(step) {
                eprintln!("{}", world.history(1));
                panic!("{complaint}\n{}", world.story);
            }
        }
    }
}
