//! The errors sweep: a call by which a pass only looks fails, as on a disk with a bad block, without a file descriptor or
//! memory left, or on a file system that refuses. None of that is damage: nothing may be put aside.
//!
//! strace makes the call fail without running it. So `close` fails once and not from then on: a pipe that is never closed
//! would keep a program waiting, which no kernel does.

use std::collections::BTreeMap;
use std::fs;

use super::{Blow, Point, Start, Sweep, Tally, Target};
use super::{Extent, extent, finish, some_are_left, strike, strike_one, thin, under_strace};
use crate::scene::Scene;

/// The calls that are struck, each with the errors that the kernel gives there.
const CALLS: &[(&str, &[&str])] = &[
    ("openat", &["EIO", "EMFILE", "ENOMEM", "EACCES", "EROFS"]),
    ("read", &["EIO", "ENOMEM"]),
    ("pread64", &["EIO", "ENOMEM"]),
    ("statx", &["EIO", "ENOMEM", "EACCES"]),
    ("newfstatat", &["EIO", "ENOMEM", "EACCES"]),
    ("fstat", &["EIO", "ENOMEM"]),
    ("lstat", &["EIO", "ENOMEM", "EACCES"]),
    ("access", &["EIO", "ENOMEM", "EACCES"]),
    ("getdents64", &["EIO", "ENOMEM"]),
    ("mmap", &["ENOMEM", "EACCES"]),
    ("close", &["EIO"]),
];

/// How many points a pass gets where the whole sweep was not asked for.
const THINNED: usize = 12;

/// What is only made by putting something aside as damaged, below the private folder.
const ASIDE: &[&str] = &["broken", "damaged-refs", "damaged-config", "empty-objects"];

/// One call of a pass: its name, which of that name it is, and whether it opens for writing.
struct Look {
    call: &'static str,
    n: usize,
    writes: bool,
}

/// Every call of a pass that looks at a file, from the first one in the scene on: what comes before is the loader's.
fn looks_of(scene: &Scene, pass: &[&str]) -> Vec<Look> {
    let trace = scene.root().join("trace");
    let names: Vec<&str> = CALLS.iter().map(|(call, _)| *call).collect();
    let options =
        ["-y".into(), "-o".into(), trace.display().to_string(), "-e".into(), format!("trace={}", names.join(","))];
    let out = under_strace(&scene.gitsync(pass), &options);
    assert!(out.status.code().is_some_and(|code| code < 100), "{}", String::from_utf8_lossy(&out.stderr));
    let top = scene.root().canonicalize().unwrap().display().to_string();
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut begun = false;
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let Some((call, _)) = CALLS.iter().find(|(call, _)| *call == name) else { continue };
        let n = counts.entry(call).or_default();
        *n += 1;
        // What the current folder is says nothing about the file that is meant.
        let rest = match rest.strip_prefix("AT_FDCWD<") {
            Some(rest) => rest.split_once('>').map_or(rest, |(_, rest)| rest),
            None => rest,
        };
        begun |= rest.contains(&top);
        // How much is looked at in /proc is the machine's doing; pipes and sockets have errors of their own.
        let elsewhere = ["</proc", "\"/proc", "<pipe:", "<socket:", "<TCP", "<UNIX", "</dev", "\"/dev/u", "\"/dev/n"];
        // Memory of nobody's file: without it the allocator ends the process, as it must.
        let no_file = *call == "mmap" && rest.contains("MAP_ANONYMOUS");
        if begun && !no_file && (rest.contains(&top) || !elsewhere.iter().any(|word| rest.contains(word))) {
            let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| rest.contains(flag));
            all.push(Look { call, n: *n, writes });
        }
    }
    all
}

/// Every point of a pass, those of one call beside one another.
fn points_of(looks: &[Look]) -> Vec<Point> {
    let mut all = Vec::new();
    for (call, errors) in CALLS {
        for look in looks.iter().filter(|look| look.call == *call) {
            for error in errors.iter().filter(|error| **error != "EROFS" || look.writes) {
                let mut point = |blow| all.push(Point { child: None, call: look.call.to_owned(), n: look.n, blow });
                point(Blow::Once(error));
                // Without memory for a file's pages there is none for the allocator either, and without it no program. And no
                // disk gives by `read` for ever what it refuses by `pread64`.
                if !["close", "mmap", "pread64"].contains(call) {
                    point(Blow::From(error));
                }
            }
        }
    }
    all
}

/// One of each of `most` equal parts of `all`, which one is the seed's choice.
fn chosen(all: Vec<Point>, most: usize) -> Vec<Point> {
    if all.len() <= most {
        return all;
    }
    let seed = thin("GITSYNC_SWEEP_SEED", 1) as u64;
    let bounds = |i: usize| i * all.len() / most;
    let choice = |i: usize| {
        let mixed = (seed << 32 | i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bounds(i)
            + ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize % (bounds(i + 1) - bounds(i))
    };
    (0..most).map(|i| all[choice(i)].clone()).collect()
}

/// Fails the pass's looks, one after another; a few of them where the whole sweep was not asked for.
pub fn run(sweep: &Sweep<'_>) {
    let start = Start::of(sweep.scene, sweep.unreadable);
    let all = points_of(&looks_of(sweep.scene, sweep.pass));
    let count = all.len();
    let mut points = match extent() {
        Extent::Thinned => chosen(all, thin("GITSYNC_SWEEP_FAULTS", THINNED)),
        Extent::Changes => chosen(all, count / 5),
        Extent::Full => all,
    };
    if let Ok(only) = std::env::var("GITSYNC_SWEEP_ONLY") {
        points = points_of(&looks_of(sweep.scene, sweep.pass));
        points.retain(|point| point.to_string() == only);
    }
    some_are_left(sweep, &points);
    let mut tally = Tally::default();
    for (i, point) in points.iter().enumerate() {
        strike(sweep, &start, Target::Looks, point, i, &mut tally);
        tally.progress(sweep, points.len());
    }
    eprintln!("{}: {} of {count} points, {} passes were struck", sweep.name, points.len(), tally.struck);
    finish(sweep, &tally);
}

/// Runs a pass one of whose looks fails. Whether it did.
pub(super) fn blow(
    scene: &Scene,
    pass: &[&str],
    point: &Point,
    story: &mut String,
    complaints: &mut Vec<String>,
) -> bool {
    let hit = strike_one(&scene.gitsync(pass), &scene.root().join("trace"), point, complaints);
    story.push_str(&hit.story);
    if !matches!(hit.code, Some(0 | 1 | 75)) {
        complaints.push(format!("the pass exits {:?}", hit.code));
    }
    let words: &[&str] = match pass[0] {
        "init-sync" => &["cloned", "reset", "up-to-date", "empty-remote", "offline", "error"],
        "sync" => &["up-to-date", "behind", "ahead", "diverged", "skipped", "error"],
        _ => &["no-changes", "pushed", "push-failed", "skipped", "error"],
    };
    if !words.iter().any(|word| hit.said == format!("{word}\n")) {
        complaints.push(format!("the pass says {:?}, which is no result", hit.said));
    }
    if hit.said == "pushed\n" && scene.our_tip() != scene.upstream_tip() {
        complaints.push("G4: it says pushed, and the remote has not what we have".to_owned());
    }
    hit.struck
}

/// What was put aside, of a repository that has no damage.
pub(super) fn put_aside(scene: &Scene) -> Vec<String> {
    let there = ASIDE.iter().filter(|name| scene.private().join(name).symlink_metadata().is_ok());
    there.map(|name| format!("G7: nothing is damaged, and {name} holds what was put aside")).collect()
}
