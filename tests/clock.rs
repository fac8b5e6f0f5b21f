//! Nothing is let go on the word of one reading of the clock (G1); what is kept long enough is let go (--keep-rescues).
//!
//! The clock is moved by libfaketime, for gitsync and the git it starts, as somebody who sets it would: the time of day jumps, and
//! how long the machine has been running does not. Time that really passes is taken from the ledger's last reading instead.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod scene;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use needs::needs;
use scene::{Scene, write};
use serde_json::Value;

fn days_since_1970() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_secs() / 86400).unwrap()
}

/// A scene in which time passes, and whose clock may be wrong.
struct World {
    s: Scene,
    hours: Cell<i64>,
    /// How many days the clock is ahead of the true time.
    ahead: Cell<i64>,
}

impl World {
    fn new() -> Self {
        Self { s: Scene::new(), hours: Cell::new(0), ahead: Cell::new(0) }
    }

    /// Time passes, by every clock.
    fn hours(&self, hours: i64) -> &Self {
        self.hours.set(self.hours.get() + hours);
        self.ledger(|ledger| {
            if let Some(boot) = ledger["last"].get_mut("boot").filter(|boot| !boot.is_null()) {
                boot["seconds"] = (boot["seconds"].as_i64().unwrap() - hours * 3600).into();
            }
        });
        self
    }
    fn days(&self, days: i64) -> &Self {
        self.hours(days * 24)
    }

    /// The machine is started anew: how long it was off, only the time of day can tell.
    fn boots(&self) -> &Self {
        self.ledger(|ledger| ledger["last"]["boot"]["id"] = "the boot before".into());
        self
    }

    fn ledger(&self, change: impl FnOnce(&mut Value)) {
        let path = self.s.private().join("ages.json");
        if let Ok(text) = fs::read_to_string(&path) {
            let mut ledger = serde_json::from_str(&text).unwrap();
            change(&mut ledger);
            fs::write(&path, ledger.to_string()).unwrap();
        }
    }

    /// The clock is set so many days ahead of the true time; 0 puts it right.
    fn clock(&self, ahead: i64) -> &Self {
        self.ahead.set(ahead);
        self
    }

    fn pass(&self, args: &[&str]) -> &Self {
        let real = self.s.gitsync(args);
        let when = format!("{:+}h", self.hours.get() + self.ahead.get() * 24);
        let mut moved = self.s.isolated("faketime");
        moved.args(["-f", &when]).arg(real.get_program()).args(real.get_args());
        for (name, value) in real.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        // Setting the clock moves no running time and no file's times.
        moved.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        self.s.run_this(moved);
        assert!(matches!(self.s.last().code, Some(0 | 75)), "{}", self.s.last());
        self
    }
    fn sync(&self) -> &Self {
        self.pass(&["sync"])
    }
    fn tick(&self) -> &Self {
        self.pass(&["tick", "--", "true"])
    }
    /// A tick every two weeks, and in the last three days every twelve hours.
    fn ticks_for_days(&self, days: i64) -> &Self {
        let mut left = days * 24;
        while left > 0 {
            let step = if left > 72 { (14 * 24).min(left - 72) } else { 12 };
            left -= step;
            self.hours(step).tick();
        }
        self
    }

    /// Makes a rescue: the histories part, and the remote is followed.
    fn rescue(&self) -> String {
        let s = &self.s;
        let before = s.rescues("");
        s.rival_pushes("b.txt").we_commit("a.txt");
        self.sync();
        s.says("diverged");
        s.rescues("").into_iter().find(|name| !before.contains(name)).unwrap()
    }

    #[track_caller]
    fn has(&self, names: &[&String]) -> &Self {
        let mut names: Vec<&String> = names.to_vec();
        names.sort();
        assert_eq!(self.s.rescues("").iter().collect::<Vec<_>>(), names, "{}", self.s.last());
        self
    }
}

#[needs(faketime)]
#[test]
fn a_rescue_is_kept_as_long_as_was_asked_for_and_then_let_go() {
    let w = World::new();
    let first = w.rescue();
    w.tick().days(30);
    let second = w.rescue();
    w.tick().ticks_for_days(59).has(&[&first, &second]);
    w.ticks_for_days(3).has(&[&second]);
    w.pass(&["tick", "--keep-rescues", "500d", "--", "true"]).ticks_for_days(26).has(&[&second]);
    w.ticks_for_days(4).has(&[]);
    w.s.fsck();
}

#[needs(faketime)]
#[test]
fn one_tick_with_the_clock_120_days_ahead_lets_go_of_nothing() {
    let w = World::new();
    let kept = w.rescue();
    w.tick().hours(1).clock(120).tick().has(&[&kept]);
    w.hours(2).clock(0).tick().hours(2).tick().hours(2).tick().has(&[&kept]);
}

#[needs(faketime)]
#[test]
fn a_clock_that_stays_wrong_for_weeks_and_is_put_right_lets_go_of_nothing() {
    for ahead in [120, 4000, -900, -days_since_1970()] {
        let w = World::new();
        let kept = w.rescue();
        w.tick().clock(ahead).tick().ticks_for_days(21).has(&[&kept]);
        w.clock(0).ticks_for_days(66).has(&[&kept]);
    }
}

#[needs(faketime)]
#[test]
fn a_clock_that_is_wrong_from_a_boot_on_lets_go_of_nothing_by_itself() {
    // Ahead after the boot; and behind before it.
    for (before, after) in [(0, 120), (-1300, 0), (-days_since_1970(), 0)] {
        let w = World::new();
        w.clock(before);
        let kept = w.rescue();
        w.tick().hours(2).tick().hours(2).tick();
        w.boots().clock(after).hours(2).tick().has(&[&kept]);
        w.ticks_for_days(21).has(&[&kept]);
    }
}

#[needs(faketime)]
#[test]
fn back_and_forth_lets_go_of_nothing() {
    let w = World::new();
    let kept = w.rescue();
    w.tick();
    for ahead in [120, -days_since_1970(), 400, -120, 120, 50_000] {
        w.hours(2).clock(ahead).tick().has(&[&kept]);
        w.hours(2).clock(0).tick().has(&[&kept]);
        w.hours(2).tick().has(&[&kept]);
    }
}

#[needs(faketime)]
#[test]
fn a_rescue_made_while_the_clock_was_wrong_is_kept_for_its_whole_time() {
    for ahead in [-days_since_1970(), -1300, 5000] {
        let w = World::new();
        w.clock(ahead);
        let kept = w.rescue();
        assert!(ahead > 0 || kept.contains("rescue/1970") || kept.contains("rescue/202"), "{kept}");
        w.tick().hours(2).tick().clock(0).tick().ticks_for_days(88).has(&[&kept]);
        // What is dated later than now is kept for longer, if anything.
        if ahead < 0 {
            w.ticks_for_days(4).has(&[]);
        }
    }
}

#[needs(faketime)]
#[test]
fn a_real_gap_of_120_days_lets_go_in_the_second_pass_that_agrees() {
    let w = World::new();
    let kept = w.rescue();
    w.tick().hours(2).tick();
    w.days(120).tick().has(&[&kept]);
    // In the same minute there is no second reading.
    w.tick().has(&[&kept]);
    w.hours(2).tick().has(&[]);
}

#[needs(faketime)]
#[test]
fn a_name_made_by_hand_counts_from_when_it_was_first_seen() {
    let w = World::new();
    let s = &w.s;
    let (tip, before) = (s.our_tip(), s.rev(&s.ours(), "HEAD~1"));
    let old = "refs/gitsync/rescue/20220101T000000Z-local-1234567".to_owned();
    let strange = "refs/gitsync/rescue/by-hand".to_owned();
    for name in [&old, &strange] {
        s.git_ours(&["update-ref", name, &tip]);
    }
    s.git_ours(&["pack-refs", "--all"]);
    w.tick().ticks_for_days(60).has(&[&old, &strange]);
    // What it keeps now it has not kept before.
    s.git_ours(&["update-ref", &old, &before]);
    w.tick().ticks_for_days(89).has(&[&old, &strange]);
    // A name that is none of ours stays for good.
    w.ticks_for_days(4).has(&[&strange]);
}

#[needs(faketime)]
#[test]
fn a_ledger_that_is_lost_or_damaged_makes_nothing_old() {
    for damage in ["", "{", "{\"last\": null, \"latest\": null, \"passed\": 1, \"unconfirmed\": 0}"] {
        let w = World::new();
        let kept = w.rescue();
        w.tick().ticks_for_days(80).has(&[&kept]);
        write(&w.s.private().join("ages.json"), damage);
        w.tick().ticks_for_days(80).has(&[&kept]);
    }
}

/// A rescue that is used once more must be as young as a new one, whatever the clock says.
#[needs(faketime)]
#[test]
fn an_old_rescue_is_not_used_again_because_the_clock_was_set_back_to_its_day() {
    let w = World::new();
    let s = &w.s;
    s.we_commit("a.txt");
    let ours = s.our_tip();
    s.rival_pushes("b.txt");
    w.sync().tick().ticks_for_days(80);
    assert_eq!(s.rescues("local").len(), 1);
    s.git_ours(&["reset", "-q", "--hard", &ours]);
    w.clock(-80).sync();
    s.says("diverged");
    assert_eq!(s.rescues("local").len(), 2, "{}", s.last());
}

#[test]
fn neither_a_poll_nor_a_dry_run_nor_a_second_tick_writes_the_ledger() {
    let s = Scene::new();
    let ledger = s.private().join("ages.json");
    s.tick().exits(0);
    assert!(!ledger.exists(), "nothing is kept");
    s.rival_pushes("b.txt").we_commit("a.txt").sync().says("diverged");
    s.run(&["tick", "--dry-run", "--", "true"]).exits(0);
    assert!(!ledger.exists());
    s.tick().exits(0);
    let before = fs::read(&ledger).unwrap();
    s.sync().exits(0).tick().exits(0);
    assert_eq!(fs::read(&ledger).unwrap(), before);
}

/// Puts aside, as init-sync and a follow do, one thing of each kind.
fn put_things_aside(s: &Scene) -> Vec<PathBuf> {
    let git = s.ours().join(".git");
    // A FIFO in the way of a file of the remote's.
    let fifo = s.ours().join("in-the-way");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    s.rival_pushes("in-the-way").sync().exits(0).logs("moved aside");
    // Damage that init-sync mends in place, twice of the same kind.
    for _ in 0..2 {
        write(&git.join("index"), "damaged");
        write(&git.join("config"), "");
        write(&git.join("refs/tags/broken"), "damaged");
        write(&git.join("objects/ab/cdefabcdefabcdefabcdefabcdefabcdefabcd"), "");
        s.init_sync().exits(0);
    }
    // And what it can't mend.
    fs::remove_dir_all(git.join("objects/pack")).unwrap();
    s.init_sync().exits(0).logs("put aside");
    let private = s.private();
    let inside = |folder: &str| -> Vec<PathBuf> {
        fs::read_dir(private.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut all: Vec<PathBuf> =
        ["aside", "broken", "empty-objects", "damaged-refs"].iter().flat_map(|it| inside(it)).collect();
    all.extend(["damaged-index", "damaged-index+", "damaged-config", "damaged-config+"].map(|name| private.join(name)));
    assert_eq!(inside("damaged-refs").len(), 2, "the second must not take the first one's place");
    all
}

#[needs(faketime)]
#[test]
fn what_was_put_aside_is_let_go_like_a_rescue_and_never_sooner() {
    let w = World::new();
    let things = put_things_aside(&w.s);
    let there = || things.iter().filter(|path| path.symlink_metadata().is_ok()).count();
    w.tick();
    assert_eq!(there(), things.len(), "{things:?}");
    w.hours(2).clock(120).tick().clock(0).tick().ticks_for_days(89);
    assert_eq!(there(), things.len(), "{}", w.s.last());
    w.ticks_for_days(3);
    assert_eq!(there(), 0, "{}", w.s.last());
    for folder in ["aside", "broken", "empty-objects", "damaged-refs", "let-go"] {
        assert!(!w.s.private().join(folder).exists(), "{folder}");
    }
    w.tick().s.fsck();
}

#[needs(faketime)]
#[test]
fn a_repository_put_aside_is_never_let_go_before_it_was_carried_over() {
    let w = World::new();
    let broken = w.s.private().join("broken/20260101T000000Z");
    write(&broken.join("refs/heads/main"), "damaged");
    w.tick().ticks_for_days(100);
    assert!(broken.exists());
    // Its time begins when it is carried over.
    write(&broken.join("gitsync-carried"), "");
    w.tick().ticks_for_days(89);
    assert!(broken.exists());
    w.ticks_for_days(3);
    assert!(!broken.exists(), "{}", w.s.last());
}

#[needs(faketime)]
#[test]
fn a_removal_that_was_cut_short_is_finished_and_follows_no_link() {
    let w = World::new();
    let outside = w.s.root().join("outside");
    write(&outside.join("precious"), "mine\n");
    let private = w.s.private();
    write(&private.join("let-go/objects/half"), "");
    let link = |to: &Path, at: PathBuf| std::os::unix::fs::symlink(to, at).unwrap();
    link(&outside, private.join("let-go/link"));
    w.tick();
    assert!(!private.join("let-go").exists(), "{}", w.s.last());
    fs::create_dir(private.join("aside")).unwrap();
    link(&outside, private.join("aside/link"));
    link(&outside, private.join("broken"));
    w.tick().ticks_for_days(93);
    assert!(!private.join("aside").exists(), "{}", w.s.last());
    assert!(private.join("broken").symlink_metadata().is_ok());
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "mine\n");
}

/// Damage does not make what was rescued before it younger: else rescues would pile up where damage comes again and again.
#[needs(faketime)]
#[ignore = "carrying over gives a rescue a new name and the time of the damage; it has to keep its own"]
#[test]
fn a_rescue_that_was_carried_over_is_let_go_at_its_own_time() {
    let w = World::new();
    let first = w.rescue();
    let commit = w.s.rev(&w.s.ours(), &first);
    w.tick().ticks_for_days(60);
    w.s.we_commit("ours");
    let tree = w.s.rev(&w.s.ours(), "HEAD^{tree}");
    fs::remove_file(w.s.ours().join(format!(".git/objects/{}/{}", &tree[..2], &tree[2..]))).unwrap();
    w.pass(&["init-sync"]);
    w.s.logs("put aside");
    let keeping = || w.s.git_ours(&["for-each-ref", "--points-at", &commit, "--format=%(refname)", "refs/gitsync"]);
    assert!(!keeping().is_empty(), "{}", w.s.last());
    w.tick().ticks_for_days(27);
    assert!(!keeping().is_empty(), "{}", w.s.last());
    w.ticks_for_days(6);
    assert_eq!(keeping(), "", "{}", w.s.last());
}
