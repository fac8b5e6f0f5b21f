//! The sweep: one pass, ended or failed at one system call after another, always from the same scene.
//!
//! strace does it: `inject=CALL:signal=KILL:when=N` ends the pass on entering its N-th call of that name, and
//! `error=ENOSPC` makes that call fail. Only the pass's own thread is traced, which is where it does its work; strace
//! counts for each call and thread by itself, so each name is swept on its own.
//!
//! A remote that is a path is reached through git's own programs, which run as children; those are swept with a `git` on the
//! pass's PATH that puts strace before the one program meant ([`Children`]).
#![allow(dead_code, missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]

pub mod errors;
pub mod passes;
pub mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::oracle::{self, Oracle};
use crate::scene::Scene;

/// The calls by which a pass touches the world, in the groups they belong to.
pub const GROUPS: &[&[&str]] = &[
    &["openat"],
    &["write", "pwrite64", "ftruncate"],
    &["rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"],
    &["unlink", "unlinkat", "rmdir"],
    &["fsync", "fdatasync", "syncfs"],
    &["close"],
    &["mkdir", "mkdirat", "chmod", "fchmod", "fchmodat", "utimensat"],
    &["socket", "connect", "sendto", "recvfrom"],
    &["vfork", "clone", "clone3", "flock", "mmap"],
];

/// What is done to the pass at its N-th call of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    Kill,
    /// This call fails, the next ones don't.
    Once(&'static str),
    /// This call and all later ones of that name fail, as on a disk that is full and stays full.
    From(&'static str),
}

impl Blow {
    fn inject(self, call: &str, n: usize) -> String {
        match self {
            Self::Kill => format!("inject={call}:signal=KILL:when={n}"),
            Self::Once(error) => format!("inject={call}:error={error}:when={n}"),
            Self::From(error) => format!("inject={call}:error={error}:when={n}+"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// One of git's programs that the pass starts, as `receive-pack.1`: the first of that name. `None`: the pass itself.
    pub child: Option<String>,
    pub call: String,
    pub n: usize,
    pub blow: Blow,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} #{}", self.blow, self.call, self.n)?;
        self.child.as_ref().map_or(Ok(()), |child| write!(f, " of {child}"))
    }
}

/// How much of the sweep was asked for, by `GITSYNC_SWEEP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// A few points of each pass.
    Thinned,
    /// `changes`: every call that changes something.
    Changes,
    /// `full`: every call.
    Full,
}

pub fn extent() -> Extent {
    match std::env::var("GITSYNC_SWEEP").as_deref() {
        Ok("full") => Extent::Full,
        Ok("changes") => Extent::Changes,
        Ok(other) => panic!("GITSYNC_SWEEP is full or changes, not {other}"),
        Err(_) => Extent::Thinned,
    }
}

/// A pass to be swept, and what it has to come to.
pub struct Sweep<'a> {
    pub name: &'a str,
    pub scene: &'a Scene,
    /// The pass that is struck.
    pub pass: &'a [&'a str],
    /// The passes that come after, one list for each way of going on.
    pub recoveries: &'a [[&'a [&'a str]; 2]],
    /// The pass that must write nothing.
    pub rest: &'a [&'a str],
    /// What a commit of gitsync may change.
    pub paths: &'a [&'a str],
    /// Commits that can't be read at the start, so that nobody can keep them.
    pub unreadable: &'a [String],
    /// How many kills and faults there are where the whole sweep was not asked for.
    pub thinned: (usize, usize),
    /// What is so at every moment, right after the blow too, beyond the guarantees.
    pub at_once: &'a dyn Fn(&Scene) -> Vec<String>,
    /// What is so in the end, beyond the guarantees.
    pub comes_to: &'a dyn Fn(&Scene) -> Vec<String>,
}

pub const SOME: (usize, usize) = (26, 13);
pub const FEW: (usize, usize) = (13, 7);
pub const FEWER: (usize, usize) = (4, 3);
pub const FEWEST: (usize, usize) = (2, 1);

/// Nothing beyond the guarantees.
pub fn nothing(_: &Scene) -> Vec<String> {
    Vec::new()
}

/// What a sweep did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub points: usize,
    pub struck: usize,
    pub second: usize,
    pub complaints: Vec<String>,
}

impl Tally {
    /// Says now and then how far a long sweep is.
    fn progress(&self, sweep: &Sweep<'_>, of: usize) {
        if extent() > Extent::Thinned && self.points.is_multiple_of(100) {
            eprintln!("{}: {} of {of} points, {} complaints", sweep.name, self.points, self.complaints.len());
        }
    }
}

/// The scene as it was before the pass, put aside.
struct Start {
    copy: TempDir,
    oracle: Oracle,
}

impl Start {
    fn of(scene: &Scene, unreadable: &[String]) -> Self {
        let copy = TempDir::with_prefix("gitsync-start-").unwrap();
        copy_all(scene.root(), copy.path());
        let mut oracle = Oracle::default();
        oracle.trust_what_is_there(scene);
        oracle.remember(scene, "at the start");
        for commit in unreadable {
            oracle.forget_tip(commit);
        }
        Self { copy, oracle }
    }

    fn again(&self, scene: &Scene) -> Oracle {
        put_back(scene, self.copy.path());
        self.oracle.clone()
    }
}

/// Makes a scene's folder what its copy is.
pub fn put_back(scene: &Scene, copy: &Path) {
    for entry in fs::read_dir(scene.root()).unwrap().flatten() {
        remove(&entry.path());
    }
    copy_all(copy, scene.root());
}

/// Removes a file, or a folder with all in it. A pass that was killed may leave folders that their owner can't write in.
fn remove(path: &Path) {
    let remove = || match path.symlink_metadata().unwrap().is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    if remove().is_err() {
        Command::new("chmod").args(["-R", "u+rwX"]).arg(path).output().unwrap();
        remove().unwrap();
    }
}

pub fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Runs a pass with strace before it.
pub fn under_strace(plain: &Command, options: &[String]) -> Output {
    let mut traced = Command::new("strace");
    traced.arg("-qq").args(options).arg("--").arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced.current_dir(plain.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    traced.output().unwrap()
}

/// One call of a pass, as traced: whose it is, its name, which of that name it is, and whether it changes something.
#[derive(Clone, Debug)]
struct Called {
    child: Option<String>,
    call: String,
    n: usize,
    changes: bool,
}

/// Every call of a pass, in order.
fn calls_of(scene: &Scene, pass: &[&str]) -> Vec<Called> {
    let trace = scene.root().join("trace");
    let names = GROUPS.concat().join(",");
    let options = ["-o".into(), trace.display().to_string(), "-e".into(), format!("trace={names}")];
    let out = under_strace(&scene.gitsync(pass), &options);
    assert!(out.status.code().is_some_and(|code| code < 100), "{}", String::from_utf8_lossy(&out.stderr));
    calls_in(&trace, None)
}

fn calls_in(trace: &Path, child: Option<&str>) -> Vec<Called> {
    let text = String::from_utf8_lossy(&fs::read(trace).unwrap()).into_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut in_proc = BTreeSet::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        if !GROUPS.concat().contains(&call) {
            continue;
        }
        let n = counts.entry(call.to_owned()).or_default();
        *n += 1;
        // How much is looked at in /proc is the machine's doing, and a look at it changes nothing.
        let handle = rest.split([',', ')']).next().unwrap_or_default().to_owned();
        if call == "openat" {
            let opened = rest.rsplit_once("= ").map_or("", |(_, handle)| handle.trim()).to_owned();
            if rest.contains("\"/proc") || in_proc.contains(&handle) {
                in_proc.insert(opened);
                continue;
            }
            in_proc.remove(&opened);
        } else if in_proc.contains(&handle) {
            if call == "close" {
                in_proc.remove(&handle);
            }
            continue;
        }
        let makes = ["O_CREAT", "O_TRUNC"].iter().any(|flag| rest.contains(flag));
        let looks = ["close", "socket", "connect", "recvfrom", "mmap", "flock", "utimensat"].contains(&call);
        // A child of ours says to us what it has to say.
        let to_people = child.is_none() && call == "write" && (rest.starts_with("1,") || rest.starts_with("2,"));
        let changes = if call == "openat" { makes } else { !looks && !to_people };
        all.push(Called { child: child.map(str::to_owned), call: call.to_owned(), n: *n, changes });
    }
    all
}

/// Evenly spaced ones of `all`, at most `most`.
fn thinned<T: Clone>(all: &[T], most: usize) -> Vec<T> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|i| all[i * all.len() / most].clone()).collect()
}

/// Strikes the pass at every point, or at a few where the whole sweep was not asked for.
pub fn run(sweep: &Sweep<'_>) {
    let start = Start::of(sweep.scene, sweep.unreadable);
    let calls = calls_of(sweep.scene, sweep.pass);
    run_over(sweep, &start, &calls, Target::Pass);
}

/// Strikes, one after another, every program of git that the pass starts.
pub fn run_on_children(sweep: &Sweep<'_>) {
    let children = Children::of(sweep.scene);
    let start = Start::of(sweep.scene, sweep.unreadable);
    let calls = children.calls_of(sweep.pass);
    run_over(sweep, &start, &calls, Target::Children(&children));
}

/// What is struck.
#[derive(Clone, Copy)]
enum Target<'a> {
    Pass,
    /// The pass, at calls that only look; see [`errors`].
    Looks,
    Children(&'a Children<'a>),
}

fn run_over(sweep: &Sweep<'_>, start: &Start, calls: &[Called], target: Target<'_>) {
    let extent = extent();
    let changing: Vec<Called> = calls.iter().filter(|called| called.changes).cloned().collect();
    let mut points = Vec::new();
    let point =
        |called: &Called, blow| Point { child: called.child.clone(), call: called.call.clone(), n: called.n, blow };
    let blows = [Blow::Once("ENOSPC"), Blow::From("ENOSPC"), Blow::Once("EIO"), Blow::From("EIO")];
    if extent > Extent::Thinned {
        // What changes something comes first: should somebody lose patience, the better part is done.
        points.extend(changing.iter().map(|called| point(called, Blow::Kill)));
        for blow in blows {
            points.extend(changing.iter().map(|called| point(called, blow)));
        }
    }
    if extent == Extent::Full {
        let looking = calls.iter().filter(|called| !called.changes);
        points.extend(looking.clone().map(|called| point(called, Blow::Kill)));
        points.extend(looking.flat_map(|called| [blows[1], blows[2]].map(|blow| point(called, blow))));
    }
    if extent == Extent::Thinned {
        let killed = thinned(&changing, thin("GITSYNC_SWEEP_KILLS", sweep.thinned.0));
        points.extend(killed.iter().map(|called| point(called, Blow::Kill)));
        let failed = thinned(&changing, thin("GITSYNC_SWEEP_FAULTS", sweep.thinned.1));
        points.extend(failed.iter().zip(blows.iter().cycle()).map(|(called, blow)| point(called, *blow)));
    }
    if let Ok(only) = std::env::var("GITSYNC_SWEEP_ONLY") {
        points.retain(|point| point.to_string() == only);
    }
    if extent > Extent::Thinned {
        eprintln!("{}: {} calls, {} of them change something", sweep.name, calls.len(), changing.len());
    }
    some_are_left(sweep, &points);
    let mut tally = Tally::default();
    for (i, point) in points.iter().enumerate() {
        strike(sweep, start, target, point, i, &mut tally);
        tally.progress(sweep, points.len());
    }
    let kills = points.iter().filter(|point| point.blow == Blow::Kill).count();
    eprintln!(
        "{}: {} kill points, {} faults; {} passes were struck, {} recoveries were killed too",
        sweep.name,
        kills,
        points.len() - kills,
        tally.struck,
        tally.second
    );
    finish(sweep, &tally);
}

/// Fails a test that would strike nothing, since its trace was empty: strace can't trace what is traced already. Where one
/// point was asked for, the other sweeps have none.
fn some_are_left(sweep: &Sweep<'_>, points: &[Point]) {
    let one = std::env::var_os("GITSYNC_SWEEP_ONLY").is_some();
    assert!(one || !points.is_empty(), "{}: strace traced no call of the pass", sweep.name);
}

/// Fails the test where there is anything to complain of.
fn finish(sweep: &Sweep<'_>, tally: &Tally) {
    let most = if extent() > Extent::Thinned { 200 } else { 12 };
    let shown: Vec<_> = tally.complaints.iter().take(most).cloned().collect();
    let count = tally.complaints.len();
    assert!(tally.complaints.is_empty(), "{}: {count} complaints\n{}", sweep.name, shown.join("\n\n"));
}

fn thin(name: &str, most: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(most)
}

fn strike(sweep: &Sweep<'_>, start: &Start, target: Target<'_>, point: &Point, number: usize, tally: &mut Tally) {
    let scene = sweep.scene;
    let mut oracle = start.again(scene);
    let mut story = String::new();
    let mut complaints = Vec::new();
    tally.points += 1;
    let hit = match target {
        Target::Pass => blow(scene, sweep.pass, point, &mut story, &mut complaints),
        Target::Looks => errors::blow(scene, sweep.pass, point, &mut story, &mut complaints),
        Target::Children(children) => children.blow(sweep.pass, point, &mut story, &mut complaints),
    };
    tally.struck += usize::from(hit);
    complaints.extend((sweep.at_once)(scene).into_iter().map(|what| format!("right after the blow: {what}")));
    oracle.remember_ours_if_open(scene, "after the blow");
    sweep.unreadable.iter().for_each(|commit| oracle.forget_tip(commit));
    if point.blow != Blow::Kill {
        // A lock file that could not be removed is stale once it is old; passes are half a minute apart.
        a_minute_passes(&scene.ours().join(".git"));
    }
    let recovery = sweep.recoveries[number % sweep.recoveries.len()];
    let second = number % 4 == 1 && !matches!(target, Target::Looks);
    if second {
        // The recovery is killed too, at a point that wanders with the number.
        let n = 1 + (number * 7) % 40;
        let call = ["rename", "unlink", "openat", "write", "renameat", "fsync", "unlinkat", "mkdir"][(number / 4) % 8];
        let again = Point { child: None, call: call.into(), n, blow: Blow::Kill };
        let hit = blow(scene, recovery[0], &again, &mut story, &mut complaints);
        tally.second += usize::from(hit);
        complaints.extend((sweep.at_once)(scene).into_iter().map(|what| format!("after the second blow: {what}")));
        oracle.remember_ours_if_open(scene, "after the second blow");
        sweep.unreadable.iter().for_each(|commit| oracle.forget_tip(commit));
    }
    for pass in recovery {
        let ran = scene.run(pass).last();
        story.push_str(&format!("{ran}\n"));
        if ran.code.is_none_or(|code| code >= 100) {
            complaints.push("a recovery crashed".to_owned());
        }
        oracle.remember_ours_if_open(scene, "after a recovery");
    }
    complaints.extend(oracle.complaints(scene, sweep.paths));
    let branch = scene.git_command(&scene.ours()).args(["rev-parse", "-q", "--verify", "refs/heads/main"]).output();
    if branch.is_ok_and(|out| out.status.success()) {
        complaints.extend((sweep.comes_to)(scene).into_iter().map(|what| format!("G7: {what}")));
    } else {
        complaints.push("G7: there is no branch".to_owned());
    }
    let before = scene.snapshot();
    let ran = scene.run(sweep.rest).last();
    if ran.code != Some(0) {
        complaints.push(format!("G7: the third pass fails\n{ran}"));
    }
    complaints.extend(
        written(&before, &scene.snapshot()).into_iter().map(|path| format!("G7: the third pass writes {path:?}")),
    );
    let mut left = oracle::leftovers(&scene.ours().join(".git"));
    let looks = matches!(target, Target::Looks);
    if point.blow != Blow::Kill && (point.call.starts_with("unlink") || looks) {
        // What could not be removed, or not be seen, stays until the next start-up, or `git prune`.
        left.retain(|path| !path.to_string_lossy().contains("_git2_"));
    }
    complaints.extend(left.into_iter().map(|path| format!("left behind: {path:?}")));
    if looks {
        complaints.extend(errors::put_aside(scene));
    }
    if !complaints.is_empty() {
        let complaint = format!("== {} {point}\n{}\n{story}", sweep.name, complaints.join("\n"));
        if extent() > Extent::Thinned || std::env::var_os("GITSYNC_SWEEP_SHOW").is_some() {
            eprintln!("{complaint}");
        }
        tally.complaints.push(complaint);
    }
}

/// The programs of git that a pass starts, each of which can be struck.
///
/// A `git` that is found before the real one puts strace before the one that is meant. git finds it for its own programs
/// too, since it stands where git looks for them: `receive-pack` runs `unpack-objects`, `rev-list` and `maintenance`.
struct Children<'a> {
    scene: &'a Scene,
    bin: TempDir,
}

impl<'a> Children<'a> {
    fn of(scene: &'a Scene) -> Self {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let bin = TempDir::with_prefix("gitsync-bin-").unwrap();
        let programs = PathBuf::from(scene.git_in(scene.root(), &["--exec-path"]));
        for entry in fs::read_dir(&programs).unwrap().flatten().filter(|entry| entry.file_name() != "git") {
            symlink(entry.path(), bin.path().join(entry.file_name())).unwrap();
        }
        let script = format!(
            "#!/bin/sh\n\
             export GIT_EXEC_PATH='{bin}'\n\
             [ -e '{bin}/on' ] || exec '{real}' \"$@\"\n\
             program=$1\n\
             echo >> '{bin}/ran.'\"$program\"\n\
             number=$(($(wc -l < '{bin}/ran.'\"$program\")))\n\
             meant=$(cat '{bin}/meant')\n\
             case $meant in $program.$number|all) ;; *) exec '{real}' \"$@\" ;; esac\n\
             exec strace -qq -o '{bin}/trace.'\"$program.$number\" $(cat '{bin}/on') -- '{real}' \"$@\"\n",
            bin = bin.path().display(),
            real = programs.join("git").display(),
        );
        fs::write(bin.path().join("git"), script).unwrap();
        fs::set_permissions(bin.path().join("git"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap();
        scene.env("PATH", &format!("{}:{path}", bin.path().display()));
        Self { scene, bin }
    }

    /// Runs a pass with strace before the programs that are meant. Gives the traces of those that ran.
    fn traced(&self, pass: &[&str], meant: &str, options: &str) -> (Output, Vec<(String, PathBuf)>) {
        let file = |name: &str| self.bin.path().join(name);
        for entry in fs::read_dir(self.bin.path()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("ran.") || name.starts_with("trace.") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        fs::write(file("meant"), meant).unwrap();
        fs::write(file("on"), options).unwrap();
        let out = self.scene.gitsync(pass).env("GIT_SYNC_NETWORK_TIMEOUT", "20s").output().unwrap();
        fs::remove_file(file("on")).unwrap();
        let mut traces = Vec::new();
        for entry in fs::read_dir(self.bin.path()).unwrap().flatten() {
            if let Some(child) = entry.file_name().to_string_lossy().strip_prefix("trace.") {
                traces.push((child.to_owned(), entry.path()));
            }
        }
        traces.sort();
        (out, traces)
    }

    fn calls_of(&self, pass: &[&str]) -> Vec<Called> {
        // Children are what the pass talks to: what they read and write is what may be cut short.
        let (out, traces) = self.traced(pass, "all", &format!("-e trace={}", GROUPS.concat().join(",")));
        assert!(out.status.code().is_some_and(|code| code < 100), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(!traces.is_empty(), "the pass started no program of git");
        if extent() > Extent::Thinned {
            eprintln!("programs: {:?}", traces.iter().map(|(child, _)| child).collect::<Vec<_>>());
        }
        traces.iter().flat_map(|(child, trace)| calls_in(trace, Some(child))).collect()
    }

    /// Runs a pass with a blow to one of its children. Whether it was struck.
    fn blow(&self, pass: &[&str], point: &Point, story: &mut String, complaints: &mut Vec<String>) -> bool {
        let scene = self.scene;
        let child = point.child.as_deref().unwrap();
        let before = scene.upstream_tip();
        let options = format!("-e trace={} -e {}", point.call, point.blow.inject(&point.call, point.n));
        let began = Instant::now();
        let (out, traces) = self.traced(pass, child, &options);
        if began.elapsed() > Duration::from_secs(15) {
            complaints.push("G8: a child is gone, and the pass waits for it until its time is up".to_owned());
        }
        let trace = traces.first().map(|(_, path)| fs::read(path).unwrap()).unwrap_or_default();
        let trace = String::from_utf8_lossy(&trace).into_owned();
        let struck = match point.blow {
            // Of a process that was killed, the last call has no result.
            Blow::Kill => trace.lines().rfind(|line| line.contains('(')).is_some_and(|line| line.ends_with("= ?")),
            Blow::Once(_) | Blow::From(_) => trace.contains("(INJECTED)"),
        };
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        story.push_str(&format!(
            "-- {point}: {}\n   at {}\n   said {said:?}\n{}",
            out.status,
            trace.lines().last().unwrap_or_default(),
            String::from_utf8_lossy(&out.stderr)
        ));
        if out.status.code().is_none_or(|code| code >= 100) {
            complaints.push(format!("the pass crashed: {}", out.status));
        }
        if said == "pushed\n" && scene.our_tip() != scene.upstream_tip() {
            complaints.push("G4: it says pushed, and the remote has not what we have".to_owned());
        }
        let alpha = scene.gitsync(pass).get_envs().any(|(name, _)| name == "GIT_SYNC_ALPHA");
        let after = scene.upstream_tip();
        let forward =
            scene.git_command(&scene.upstream()).args(["merge-base", "--is-ancestor", &before, &after]).status();
        if !alpha && !forward.unwrap().success() {
            complaints.push(format!("G3: non-alpha moved the remote from {before} to {after}"));
        }
        // A server's program that is killed leaves locks, of references and of packs; removing them is the server's keeper's.
        let packs = fs::read_dir(scene.upstream().join("objects/pack")).unwrap().flatten().map(|entry| entry.path());
        for path in oracle::leftovers(&scene.upstream()).into_iter().chain(packs) {
            if path.extension().is_some_and(|extension| extension == "lock" || extension == "keep") {
                fs::remove_file(path).unwrap();
            }
        }
        struck
    }
}

/// Makes every lock file below a folder look a minute older.
pub fn a_minute_passes(folder: &Path) {
    for path in oracle::leftovers(folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "lock")) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(61)).unwrap();
    }
}

/// Runs a pass with a blow. Whether it was struck before its end.
fn blow(scene: &Scene, pass: &[&str], point: &Point, story: &mut String, complaints: &mut Vec<String>) -> bool {
    let hit = strike_one(&scene.gitsync(pass), &scene.root().join("trace"), point, complaints);
    story.push_str(&hit.story);
    if hit.said == "pushed\n" && scene.our_tip() != scene.upstream_tip() {
        complaints.push("G4: it says pushed, and the remote has not what we have".to_owned());
    }
    hit.struck
}

/// A pass that a blow was meant for.
pub struct Hit {
    /// Whether the blow fell before its end.
    pub struck: bool,
    pub code: Option<i32>,
    pub said: String,
    pub story: String,
}

/// Runs a command with a blow.
pub fn strike_one(pass: &Command, log: &Path, point: &Point, complaints: &mut Vec<String>) -> Hit {
    let Point { child, call, n, blow } = point;
    let inject = blow.inject(call, *n);
    let mut options =
        vec!["-o".into(), log.display().to_string(), "-e".into(), format!("trace={call}"), "-e".into(), inject];
    options.extend((child.as_deref() == Some(sockets::ANY_THREAD)).then(|| "-f".to_owned()));
    let out = under_strace(pass, &options);
    let trace = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let (struck, at) = match blow {
        Blow::Kill => (out.status.signal() == Some(9), trace.lines().rev().find(|line| line.contains('('))),
        Blow::Once(_) | Blow::From(_) => {
            (trace.contains("(INJECTED)"), trace.lines().find(|line| line.contains("(INJECTED)")))
        }
    };
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let story = format!(
        "-- {point}: {}\n   at {}\n   said {said:?}\n{}",
        out.status,
        at.unwrap_or_default(),
        String::from_utf8_lossy(&out.stderr)
    );
    if *blow != Blow::Kill && (out.status.signal().is_some() || matches!(out.status.code(), Some(101 | 134))) {
        complaints.push(format!("the pass crashed: {}", out.status));
    }
    Hit { struck, code: out.status.code(), said, story }
}

/// Paths that differ between two snapshots, but for the record.
pub fn written(before: &[(PathBuf, String)], after: &[(PathBuf, String)]) -> Vec<PathBuf> {
    let [before, after] = [before, after].map(|files| files.iter().collect::<BTreeSet<_>>());
    let changed: BTreeSet<&PathBuf> = before.symmetric_difference(&after).map(|(path, _)| path).collect();
    changed.into_iter().filter(|path| *path != Path::new(".git/gitsync/status.json")).cloned().collect()
}
