//! Figures that are to stay below a number: sync calls of a tick, the size of the program. Peaks of memory come from the rows
//! whose memory it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::Row;
use super::against_git::{Remote, Way};
use crate::entry::{Entry, LIMITS};
use crate::place::Shape;
use crate::rivals::{GITSYNC, Who};
use crate::scale::Scale;
use crate::turns;

const SYNCS: &str = "fsync,fdatasync,syncfs,sync_file_range,msync";

pub fn rows(scale: Scale) -> Vec<Row> {
    vec![Row::new("syncs", move || syncs(scale)), Row::new("size", size)]
}

/// The calls that wait for the disk, of a tick with three files: gitsync's own, and those of git on the other side of a path.
fn syncs(scale: Scale) -> Vec<Entry> {
    if Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).status().is_ok_and(|status| status.success()) {
        [Way::Path, Way::Http].into_iter().flat_map(|way| syncs_over(scale, way)).collect()
    } else {
        println!("syncs: strace is missing, or tracing is not allowed");
        Vec::new()
    }
}

fn syncs_over(scale: Scale, way: Way) -> Vec<Entry> {
    let remote = Remote::new(Shape::site(scale.size(100)), way);
    let dir = remote.dir(Who::Gitsync);
    remote.stage.starting_point(&dir);
    let log = remote.root.path().join("calls");
    let job = "for n in 1 2 3; do date +%s%N >state/$n; done";
    let plain = remote.stage.tick(Who::Gitsync, &dir, job);
    let mut traced = remote.stage.command("strace", &dir);
    traced.args(["-f", "-qq", "-e", &format!("trace={SYNCS},execve"), "-o"]).arg(&log);
    traced.arg(plain.get_program()).args(plain.get_args());
    turns::timed(&mut traced);
    let (ours, others) = count(&log);
    let figure = |key: &str, name: &str, calls: usize| {
        Entry::figure(LIMITS, &format!("syncs/{key}"), name, calls as f64, "calls")
    };
    if way == Way::Http {
        return vec![figure("http", "sync calls of a tick with three files over http", ours)];
    }
    vec![
        figure("all", "sync calls of a tick with three files to a path, in all", ours + others)
            .wanted(scale.wanted(12.0)),
        figure("ours", "of these, gitsync's own", ours),
        figure("git", "of these, the receiving git's", others),
    ]
}

/// The calls of the processes that are gitsync, and of those that became another program.
fn count(log: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(log).unwrap();
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let others: BTreeSet<&str> = lines
        .iter()
        .filter(|(_, call)| call.trim_start().starts_with("execve(") && !call.contains(GITSYNC))
        .map(|(pid, _)| *pid)
        .collect();
    let is_sync = |call: &str| SYNCS.split(',').any(|name| call.trim_start().starts_with(&format!("{name}(")));
    let of = |other: bool| lines.iter().filter(|(pid, call)| is_sync(call) && others.contains(pid) == other).count();
    (of(false), of(true))
}

fn size() -> Vec<Entry> {
    let bytes = std::fs::metadata(GITSYNC).unwrap().len();
    vec![Entry::figure(LIMITS, "size", "size of the program", bytes as f64 / 1e6, "MB")]
}
