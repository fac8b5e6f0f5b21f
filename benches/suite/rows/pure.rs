//! The pure parts: the rule and the plan. A harness for functions would only add to the build: they take nanoseconds.

use std::hint::black_box;
use std::time::Instant;

use gitsync::error::Error;
use gitsync::plan::{self, RemoteTip, View};
use gitsync::policy::{self, Mode, SyncState};

use super::Row;
use crate::entry::{Entry, LIMITS};
use crate::turns::median;

pub fn rows() -> Vec<Row> {
    vec![Row::new("pure", pure)]
}

fn pure() -> Vec<Entry> {
    let view = |state| View {
        local: Some(1_u64),
        last_seen: Some(1),
        remote: RemoteTip::At(2),
        state,
        replayed: None,
        marked: false,
        unforceable: false,
        unfit: None,
        put_aside: None,
        before: Some(1),
        rewritten: false,
        taken_back: false,
        job_left: false,
    };
    let views = SyncState::ALL.map(view);
    let gone = Error::person("gone", "look");
    let modes = [Mode::Alpha, Mode::NonAlpha];
    let cells = || SyncState::ALL.into_iter().flat_map(|state| modes.map(|mode| (state, mode)));
    let decide = nanoseconds(8, || {
        for (state, mode) in cells() {
            black_box(policy::decide(black_box(state), black_box(mode)));
        }
    });
    let plan = nanoseconds(8, || {
        for view in &views {
            for mode in modes {
                black_box(plan::sync(black_box(view), mode, gone.clone(), false));
            }
        }
    });
    vec![
        Entry::figure(LIMITS, "pure/decide", "`policy::decide`", decide, "ns"),
        Entry::figure(LIMITS, "pure/plan", "`plan::sync`, with the error it may need", plan, "ns"),
    ]
}

/// The median time of one of the `calls` that the closure makes, in nanoseconds.
fn nanoseconds(calls: usize, all: impl Fn()) -> f64 {
    const TIMES: usize = 2000;
    let round = || {
        let start = Instant::now();
        (0..TIMES).for_each(|_| all());
        start.elapsed().as_secs_f64() * 1e9 / (TIMES * calls) as f64
    };
    median((0..21).map(|_| round()).collect())
}
