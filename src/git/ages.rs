//! Measures how long each kept item has been kept, without trusting any single reading of the clock.
//!
//! A clock may say 1970, run months ahead for one tick, or be corrected after weeks. So an age is never the difference
//! of two wall clock times. This ledger adds up the time between passes: the lesser of what the wall clock and the
//! machine's uptime (which setting the clock does not change) say has passed. If the two differ, the clock was set: no
//! time counts, and nothing expires in that pass. The time that one pass counts must be confirmed by the next.
//!
//! Across a reboot there is only the wall clock. Time counts from the latest confirmed wall clock time, so that a clock
//! that jumps back and forth counts once. It counts for at most a third of the retention time, so that no single wrong
//! clock makes everything old. All other errors are on the safe side: an item is kept for longer than asked for.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize};

use crate::clock::Reading;
use crate::state::dir::PrivateDir;

const NAME: &str = "ages.json";

/// Passes closer together than this many seconds count as one: a clock that is briefly wrong must not confirm itself.
pub const APART: i64 = 3600;

/// A wall clock time before this year is not plausible.
const FIRST_YEAR: i32 = 2020;

/// The ledger of ages. Its times are in seconds since the ledger began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ages {
    last: Option<Reading>,
    /// The latest wall clock time that a second pass has confirmed.
    latest: Option<DateTime<Utc>>,
    /// The confirmed time that has passed.
    passed: i64,
    /// The time that the last pass counted and no later pass has confirmed.
    unconfirmed: i64,
    /// When each kept item was first seen. An item that is missing here was never seen.
    seen: BTreeMap<String, i64>,
}

/// What two readings say about the time between them.
#[derive(Debug, PartialEq)]
enum Between {
    /// The clocks agree that this many seconds have passed.
    Agreed(i64),
    /// The clocks agree, but too little time has passed to count.
    TooSoon,
    /// One of the clocks was set.
    Disagree,
}

impl Ages {
    /// Reads the ledger. A missing or damaged one starts anew: everything is then kept for its full time from now.
    pub fn read(private: &PrivateDir) -> Self {
        private.read(NAME).ok().flatten().and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default()
    }

    /// Writes the ledger.
    ///
    /// # Errors
    /// If the file system fails; the previous ledger is then still there.
    pub fn write(&self, private: &PrivateDir) -> std::io::Result<()> {
        private.write_durably(NAME, &serde_json::to_vec_pretty(self)?)
    }

    /// Adds this pass's reading of the clocks. Returns whether it agrees with the pass before: only then may anything
    /// expire. `keep` is the retention time in seconds.
    pub fn take_in(&mut self, now: &Reading, keep: i64) -> bool {
        let between = self.last.as_ref().map_or(Between::Disagree, |last| self.between(last, now, keep));
        match between {
            Between::TooSoon => return false,
            Between::Agreed(step) => {
                self.passed = self.passed.saturating_add(self.unconfirmed);
                self.unconfirmed = step;
                self.latest = self.latest.max(self.last.as_ref().map(|last| last.wall));
            }
            Between::Disagree => self.unconfirmed = 0,
        }
        self.last = Some(now.clone());
        matches!(between, Between::Agreed(_))
    }

    fn between(&self, last: &Reading, now: &Reading, keep: i64) -> Between {
        let by_day = (now.wall - last.wall).num_seconds();
        if by_day < 0 {
            return Between::Disagree;
        }
        let step = match (&last.boot, &now.boot) {
            (Some(last), Some(now)) if last.id == now.id => {
                let running = now.seconds.saturating_sub(last.seconds);
                if running < 0 || by_day.abs_diff(running) > 60 + running.unsigned_abs() / 100 {
                    return Between::Disagree;
                }
                by_day.min(running)
            }
            _ if !is_plausible(last.wall) || !is_plausible(now.wall) => return Between::Disagree,
            _ if by_day < APART => by_day,
            _ => {
                let from = self.latest.map_or(last.wall, |latest| latest.max(last.wall));
                let counted = (now.wall - from).num_seconds().clamp(0, keep / 3);
                return Between::Agreed(counted);
            }
        };
        if step < APART { Between::TooSoon } else { Between::Agreed(step) }
    }

    /// Records which items are there now: a new one is first seen now, and one that is gone is forgotten.
    pub fn note<'a>(&mut self, there: impl Iterator<Item = &'a str>) {
        // The time since the last reading is not counted yet; it must not make a new item older than it is.
        let now = self.passed.saturating_add(self.unconfirmed).saturating_add(APART);
        let seen = |key: &str| (key.to_owned(), self.seen.get(key).copied().unwrap_or(now));
        self.seen = there.map(seen).collect();
    }

    /// Forgets an item that has expired.
    pub fn forget(&mut self, key: &str) {
        self.seen.remove(key);
    }

    /// Returns whether the ledger has no items.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Returns whether an item has been kept for `keep` seconds of confirmed time.
    pub fn is_kept_for(&self, key: &str, keep: i64) -> bool {
        self.seen.get(key).is_some_and(|seen| self.passed.saturating_sub(*seen) >= keep)
    }

    /// Returns whether an item may have been kept for `seconds`, counting unconfirmed time too.
    pub fn may_be_kept_for(&self, key: &str, seconds: i64) -> bool {
        let now = self.passed.saturating_add(self.unconfirmed).saturating_add(2 * APART);
        self.seen.get(key).is_some_and(|seen| now.saturating_sub(*seen) >= seconds)
    }
}

/// Returns whether the time in an item's name allows it to be `keep` seconds old. A time that is not plausible or in
/// the future was written by a wrong clock, and says nothing.
pub fn is_old_by_name(stamp: DateTime<Utc>, now: DateTime<Utc>, keep: i64) -> bool {
    !is_plausible(stamp) || stamp > now || (now - stamp).num_seconds() >= keep
}

fn is_plausible(time: DateTime<Utc>) -> bool {
    time.year() >= FIRST_YEAR
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Boot;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    const KEEP: i64 = 90 * DAY;

    /// A machine with its clocks, and an item that is kept on it from the first pass on.
    struct World {
        ages: Ages,
        true_time: i64,
        /// How many seconds the wall clock is off.
        off: i64,
        booted: i64,
        boots: u32,
    }

    impl World {
        fn new() -> Self {
            Self { ages: Ages::default(), true_time: 0, off: 0, booted: -DAY, boots: 0 }
        }

        fn passes(&mut self, seconds: i64) -> &mut Self {
            self.true_time += seconds;
            self
        }

        fn boots(&mut self) -> &mut Self {
            self.booted = self.true_time;
            self.boots += 1;
            self
        }

        /// Runs a pass. Returns whether the item expires in it.
        fn pass(&mut self) -> bool {
            let wall = DateTime::parse_from_rfc3339("2026-11-22T22:00:00Z").unwrap().to_utc();
            let boot = Boot { id: self.boots.to_string(), seconds: self.true_time - self.booted };
            let now = Reading { wall: wall + chrono::Duration::seconds(self.true_time + self.off), boot: Some(boot) };
            let agreed = self.ages.take_in(&now, KEEP);
            self.ages.note(["thing"].into_iter());
            agreed && self.ages.is_kept_for("thing", KEEP)
        }

        /// Runs a pass every `every` seconds until the item expires. Returns its age then.
        fn until_let_go(&mut self, every: i64, mut between: impl FnMut(&mut Self)) -> i64 {
            while !self.pass() {
                assert!(self.true_time < 4000 * DAY, "never let go: {:?}", self.ages);
                self.passes(every);
                between(self);
            }
            self.true_time
        }
    }

    #[test]
    fn a_thing_is_let_go_soon_after_its_time_and_never_before() {
        for every in [60, 900, 7 * HOUR, DAY, 30 * DAY] {
            let age = World::new().until_let_go(every, |_| {});
            assert!((KEEP..KEEP + 3 * every + 4 * HOUR).contains(&age), "every {every} s: {age}");
        }
    }

    #[test]
    fn a_gap_through_which_the_machine_ran_counts_in_the_second_pass_after_it() {
        let mut world = World::new();
        assert!(!world.pass());
        assert!(!world.passes(120 * DAY).pass());
        assert!(!world.passes(60).pass(), "a minute later is no second reading");
        assert!(world.passes(HOUR).pass());
    }

    #[test]
    fn a_clock_that_is_set_while_the_machine_runs_makes_nothing_older() {
        for off in [120 * DAY, -120 * DAY, -20_000 * DAY, 40_000 * DAY] {
            let mut world = World::new();
            for round in 0..2000 {
                world.off = if round % 3 == 0 { off } else { 0 };
                assert!(!world.pass(), "{off}, round {round}");
                world.passes(HOUR);
            }
            // The clock stays wrong from here on.
            world.off = off;
            let age = world.until_let_go(HOUR, |_| {});
            assert!(age >= KEEP, "{off}: {age}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_from_a_boot_on_makes_nothing_old_by_itself() {
        // A clock that is set forward, and one that was behind and is corrected.
        for (before, after) in [(0, 120 * DAY), (-1000 * DAY, 0), (-20_000 * DAY, 0)] {
            let mut world = World::new();
            world.off = before;
            for _ in 0..4 {
                assert!(!world.pass());
                world.passes(HOUR);
            }
            world.boots().off = after;
            let age = world.until_let_go(HOUR, |_| {});
            assert!(age >= KEEP - KEEP / 3, "{before} to {after}: {age}");
        }
    }

    #[test]
    fn a_clock_that_jumps_with_every_boot_counts_once() {
        let mut world = World::new();
        let age = world.until_let_go(2 * HOUR, |world| {
            if world.true_time % (6 * HOUR) == 0 {
                world.boots().off = if world.off == 0 { -300 * DAY } else { 0 };
            }
        });
        assert!(age >= KEEP - KEEP / 3, "{age}");
    }

    #[test]
    fn a_machine_that_boots_for_each_pass_lets_go_too() {
        for every in [2 * HOUR, DAY, 30 * DAY, 120 * DAY] {
            let age = World::new().until_let_go(every, |world| {
                world.boots();
            });
            assert!((KEEP..KEEP + 5 * every).contains(&age), "every {every} s: {age}");
        }
    }

    #[test]
    fn one_wrong_pass_between_two_boots_counts_nothing() {
        let mut world = World::new();
        for round in 0..40 {
            world.boots().off = if round % 10 == 5 { 120 * DAY } else { 0 };
            assert!(!world.pass(), "round {round}");
            world.passes(DAY);
        }
        assert!(world.ages.passed <= 40 * DAY, "{:?}", world.ages);
    }

    #[test]
    fn a_thing_that_is_gone_and_comes_back_is_new() {
        let mut world = World::new();
        world.pass();
        world.passes(89 * DAY).pass();
        world.ages.note(std::iter::empty());
        assert!(world.ages.is_empty());
        let age = world.until_let_go(DAY, |_| {});
        assert!(age >= 89 * DAY + KEEP, "{age}");
    }

    #[test]
    fn a_name_counts_where_its_time_is_plausible() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let now = at("2026-11-22T22:00:00Z");
        assert!(is_old_by_name(at("2026-08-01T00:00:00Z"), now, KEEP));
        assert!(!is_old_by_name(at("2026-10-01T00:00:00Z"), now, KEEP));
        assert!(is_old_by_name(at("1970-01-01T00:00:00Z"), now, KEEP), "the ledger alone decides");
        assert!(is_old_by_name(at("2027-03-01T00:00:00Z"), now, KEEP), "the ledger alone decides");
    }
}
