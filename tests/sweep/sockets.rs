//! The sweep of passes that talk to a server: killed at every call that changes something or talks, and failed at those that
//! talk.
//!
//! Some talk from a thread of their own, or through a program (`ssh`): calls on sockets are struck in all of them.

use std::collections::BTreeMap;
use std::fs;

use super::{Blow, Called, Extent, GROUPS, Point, Start, Sweep, Tally, Target};
use super::{calls_in, extent, finish, some_are_left, strike, thinned, under_strace};
use crate::scene::Scene;

/// The calls that talk, with the errors that networks and their ends give.
const TALKS: &[(&str, &[&str])] = &[
    ("socket", &["EMFILE", "ENOBUFS"]),
    ("connect", &["ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT"]),
    ("sendto", &["EPIPE", "ECONNRESET"]),
    ("recvfrom", &["ECONNRESET", "ETIMEDOUT"]),
    // To and from a program, through a pipe.
    ("write", &["EPIPE", "EIO"]),
    ("read", &["EIO", "ECONNRESET"]),
];

/// Stands for any thread or program of the pass; see [`Point::child`].
pub(super) const ANY_THREAD: &str = "any thread";

/// The calls of a pass: those of its own thread that change something, and those that talk, in any thread.
fn calls_of(scene: &Scene, pass: &[&str]) -> (Vec<Called>, Vec<Called>) {
    let trace = scene.root().join("trace");
    let names = format!("trace={},read", GROUPS.concat().join(","));
    let options = ["-f", "-y", "-o", &trace.display().to_string(), "-e", &names].map(str::to_owned);
    let out = under_strace(&scene.gitsync(pass), &options);
    assert!(out.status.code().is_some_and(|code| code < 100), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let main = lines[0].0;
    let own: Vec<&str> = lines.iter().filter(|(pid, _)| *pid == main).map(|(_, line)| line.trim_start()).collect();
    fs::write(&trace, own.join("\n")).unwrap();
    let changing = calls_in(&trace, None).into_iter().filter(|called| called.changes).collect();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut talking: Vec<Called> = Vec::new();
    for (pid, line) in &lines {
        let Some((call, rest)) = line.trim_start().split_once('(') else { continue };
        if !TALKS.iter().any(|(name, _)| *name == call) {
            continue;
        }
        let n = counts.entry((pid, call)).or_default();
        *n += 1;
        let pipe = ["read", "write"].contains(&call);
        if pipe && !(*pid == main && rest.split([',', ')']).next().is_some_and(|handle| handle.contains("<pipe:"))) {
            continue;
        }
        let child = (!pipe).then(|| ANY_THREAD.to_owned());
        if !talking.iter().any(|called| called.child == child && called.call == call && called.n == *n) {
            talking.push(Called { child, call: call.to_owned(), n: *n, changes: true });
        }
    }
    (changing, talking)
}

/// Strikes the pass where it changes something and where it talks, or at a few such calls.
pub fn run(sweep: &Sweep<'_>) {
    let start = Start::of(sweep.scene, sweep.unreadable);
    let (changing, talking) = calls_of(sweep.scene, sweep.pass);
    assert!(!talking.is_empty(), "the pass talks to nobody");
    let point =
        |called: &Called, blow| Point { child: called.child.clone(), call: called.call.clone(), n: called.n, blow };
    let faults: Vec<Point> = talking
        .iter()
        .flat_map(|called| {
            let errors = TALKS.iter().find(|(name, _)| *name == called.call).map_or(&[][..], |(_, errors)| *errors);
            errors.iter().flat_map(|error| [Blow::Once(error), Blow::From(error)]).map(|blow| point(called, blow))
        })
        .collect();
    let kills: Vec<Point> = changing.iter().chain(&talking).map(|called| point(called, Blow::Kill)).collect();
    let (most_kills, most_faults) = match extent() {
        Extent::Thinned => sweep.thinned,
        Extent::Changes | Extent::Full => (kills.len(), faults.len()),
    };
    let mut points = [thinned(&kills, most_kills), thinned(&faults, most_faults)].concat();
    if let Ok(only) = std::env::var("GITSYNC_SWEEP_ONLY") {
        points = [&kills[..], &faults].concat();
        points.retain(|point| point.to_string() == only);
    }
    some_are_left(sweep, &points);
    let mut tally = Tally::default();
    for (i, point) in points.iter().enumerate() {
        strike(sweep, &start, Target::Pass, point, i, &mut tally);
        tally.progress(sweep, points.len());
    }
    eprintln!(
        "{}: {} of {} points, {} passes were struck, {} recoveries were killed too",
        sweep.name,
        points.len(),
        kills.len() + faults.len(),
        tally.struck,
        tally.second
    );
    finish(sweep, &tally);
}
