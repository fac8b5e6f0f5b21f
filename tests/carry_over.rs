//! What repositories that were put aside still hold comes over into the one in their place: all of it that can be read, in
//! one walk, and as references that were seen to hold it.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gitsync::git::heal::carry_over::Carry;
use gitsync::git::{Identity, Names, Repo, find};
use gitsync::rescued::Rescues;
use gitsync::state::dir::PrivateDir;
use gitsync::state::lock::{self, Taken};
use scene::Scene;

fn aside(s: &Scene) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(s.private().join("broken")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

fn is_carried(s: &Scene) -> bool {
    let all = aside(s);
    assert!(!all.is_empty(), "nothing was put aside\n{}", s.last());
    all.iter().all(|old| old.join("gitsync-carried").exists())
}

fn remove_object(s: &Scene, what: &str) {
    let id = s.rev(&s.ours(), what);
    fs::remove_file(s.ours().join(format!(".git/objects/{}/{}", &id[..2], &id[2..]))).unwrap();
}

/// Reachable from a reference of ours.
#[track_caller]
fn ours_keep(s: &Scene, commit: &str) {
    let refs = s.git_ours(&["for-each-ref", "--contains", commit]);
    assert!(!refs.is_empty(), "{commit} is lost\n{}", s.last());
}

/// Rescues on other points of history, each with a commit of its own; their commits.
fn many_rescues(s: &Scene, commits: usize, rescues: usize) -> Vec<String> {
    let commit = |name: &str, time: usize, rest: &str| {
        format!("commit {name}\ncommitter A <a@example.org> {time} +0000\ndata 2\nc\n{rest}")
    };
    let mut stream = String::new();
    for i in 0..commits {
        let from = if i == 0 { format!("from {}\n", s.upstream_tip()) } else { String::new() };
        let text = format!("{from}M 100644 inline d{}/f{}\ndata 5\n{i:04}\n\n", i % 20, i % 300);
        stream += &commit("refs/heads/main", 1_900_000_000 + 60 * i, &text);
    }
    let input = s.root().join("stream");
    fs::write(&input, stream).unwrap();
    let feed = |dir: &std::path::Path, input: &std::path::Path| {
        let fed = s.git_command(dir).args(["fast-import", "--quiet"]).stdin(fs::File::open(input).unwrap()).status();
        assert!(fed.unwrap().success());
    };
    feed(&s.upstream(), &input);
    s.sync().exits(0);
    let mut stream = String::new();
    for i in 0..rescues {
        let name = format!("refs/gitsync/rescue/20261101T00{:02}{:02}Z-local-{i:07x}", i / 60, i % 60);
        let from = format!("from refs/heads/main~{}\n", i * (commits / rescues));
        stream += &commit(&name, 1_900_000_030 + i, &format!("{from}M 100644 inline own{i}\ndata 5\n{i:04}\n\n"));
    }
    fs::write(&input, stream).unwrap();
    feed(&s.ours(), &input);
    s.git_ours(&["for-each-ref", "--format=%(objectname)", "refs/gitsync"]).lines().map(str::to_owned).collect()
}

/// The processor time of the children that have ended. The time on the clock would tell of what else the machine does.
fn work_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // cutime and cstime, in hundredths of a second.
    let ticks: u64 = fields[13..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// This took a minute and a half when history was walked for each of them.
#[test]
fn a_hundred_rescues_come_over_in_one_walk() {
    let s = Scene::new();
    let own = many_rescues(&s, 2000, 100);
    s.we_commit("state/own");
    remove_object(&s, "HEAD^{tree}");
    let before = work_of_children();
    s.init_sync().exits(0).logs("put aside").fsck();
    let work = work_of_children() - before;
    assert!(work < Duration::from_secs(20), "{work:?}");
    for commit in own {
        ours_keep(&s, &commit);
    }
    assert!(is_carried(&s));
}

/// A pass that has no more time keeps what it has brought so far, and a later one goes on.
#[test]
fn what_ends_early_is_kept_and_gone_on_with() {
    let s = Scene::new();
    let own = many_rescues(&s, 200, 60);
    s.init_sync().exits(0);
    // Put aside by hand, with its references gone from here.
    let old = s.private().join("broken/20261101T000000Z");
    fs::create_dir_all(&old).unwrap();
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").args(["objects", "refs", "HEAD"].map(|name| s.ours().join(".git").join(name))).arg(&old);
    assert!(copy.status().unwrap().success());
    for name in s.rescues("") {
        s.git_ours(&["update-ref", "-d", &name]);
    }
    s.git_ours(&["gc", "-q", "--prune=now"]);
    let place = find(Some(&s.ours()), &s.ours()).unwrap();
    let names = Names { branch: "main".into(), remote: "origin".into(), identity: Identity::default() };
    let taken = lock::take(&PrivateDir::of(&place.git_dir), "tick", false, Duration::ZERO, gitsync::clock::now);
    let Taken::Held(held) = taken.unwrap() else { panic!("the lock is not free") };
    let mut time = Duration::ZERO;
    let (mut passes, mut before) = (0, 0);
    while !is_carried(&s) {
        let repo = Repo::open(&place, &held, names.clone(), &Rescues::default()).unwrap();
        repo.carry_over(Carry::WithTheRemotes, gitsync::clock::now(), Instant::now() + time).unwrap();
        let kept = s.rescues("").len();
        assert!(kept >= before, "{kept} of {before}");
        assert!(time > Duration::ZERO || (kept == 0 && !is_carried(&s)));
        s.fsck();
        (before, passes) = (kept, passes + 1);
        time = time.max(Duration::from_millis(5)) * 2;
    }
    assert!(passes > 1);
    for commit in own {
        ours_keep(&s, &commit);
    }
}

/// Of a merge that can't be read both sides are kept.
#[test]
fn of_a_damaged_merge_every_parent_is_kept() {
    let s = Scene::new();
    s.git_ours(&["switch", "-q", "-c", "aside"]);
    s.we_commit("aside");
    s.git_ours(&["switch", "-q", "main"]);
    s.we_commit("state/own");
    let parents = [s.our_tip(), s.rev(&s.ours(), "aside")];
    s.git_ours(&["merge", "-q", "--no-edit", "aside"]);
    s.git_ours(&["branch", "-q", "-D", "aside"]);
    fs::remove_dir_all(s.ours().join(".git/logs")).unwrap();
    remove_object(&s, "HEAD^{tree}");
    s.init_sync().exits(0).logs("put aside").fsck();
    for parent in parents {
        ours_keep(&s, &parent);
    }
}

/// What was carried over and is lost again comes from the repository that had it first.
#[test]
fn what_is_lost_again_comes_from_where_it_came_before() {
    let s = Scene::new();
    s.we_commit("state/one").we_commit("state/two");
    let own = s.our_tip();
    s.we_commit("state/three");
    remove_object(&s, "HEAD^{tree}");
    s.init_sync().exits(0).logs("put aside");
    ours_keep(&s, &own);
    // The pack that holds them is gone, and more.
    fs::remove_dir_all(s.ours().join(".git/objects/pack")).unwrap();
    s.init_sync().exits(0).logs("put aside").fsck().ours_equals_upstream();
    assert_eq!(aside(&s).len(), 2);
    ours_keep(&s, &own);
    assert!(is_carried(&s));
}
