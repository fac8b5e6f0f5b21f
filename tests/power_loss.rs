//! What is on disk when: every step of a pass relies only on what was synced before it, and a power loss at any moment
//! costs nothing.
//!
//! A real pass is traced, and a [`Disk`] that keeps only what was synced follows its calls. The first tests look at the order;
//! the others end the pass at one call after another, take away all that was not synced, and let the next passes go on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod disk;
mod oracle;
mod scene;
mod sweep;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disk::{Disk, Event, Loss};
use oracle::Oracle;
use scene::Scene;
use sweep::{Extent, extent, strace_is_there};

const BEFORE: &str = "gitsync/index-before";
const SYNC: &[&str] = &["sync"];
const TICK: &[&str] = &["tick", "--", "true"];
const INIT: &[&str] = &["init-sync"];

/// Runs a pass, its own thread traced, and perhaps killed.
fn traced(s: &Scene, pass: &[&str], inject: Option<&str>) -> (Output, String) {
    let plain = s.gitsync(pass);
    let log = s.root().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-y", "-s", "0", "-o"]).arg(&log).arg("-e").arg(format!("trace={}", disk::CALLS));
    if let Some(inject) = inject {
        strace.args(["-e", inject]);
    }
    strace.arg("--").arg(plain.get_program()).args(plain.get_args()).current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let out = strace.output().unwrap();
    (out, fs::read_to_string(&log).unwrap())
}

/// The scene's folders as gitsync names them: strace tells them with all links resolved.
fn ours(s: &Scene) -> PathBuf {
    s.ours().canonicalize().unwrap()
}

fn listed(top: &Path) -> Vec<PathBuf> {
    scene::snapshot_of(top).into_iter().map(|(path, _)| path).filter(followed).collect()
}

fn told(disk: &Disk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(followed).collect()
}

/// The lock of the job is made by a thread that is not traced.
#[allow(clippy::ptr_arg)]
fn followed(path: &PathBuf) -> bool {
    path != Path::new(".git/gitsync/job.lock")
}

/// What one step relies on that is not on disk yet.
fn relies_on(disk: &Disk, git: &Path, event: &Event, replaced: &[PathBuf]) -> Vec<(String, Vec<String>)> {
    let on = |name: &str| disk.not_on_disk(&git.join(name));
    let mut all = Vec::new();
    let mut need = |step: &str, missing: Vec<String>| {
        // What is still being written, what a person alone reads, and what is made again are nobody's to rely on.
        let matters = |what: &String| {
            !["_git2_", "tmp_objdir", ".lock", "/logs", "status.json", ".new", "staging"]
                .iter()
                .any(|word| what.contains(word))
        };
        let missing: Vec<String> = missing.into_iter().filter(matters).collect();
        if !missing.is_empty() {
            all.push((step.to_owned(), missing));
        }
    };
    let files = || replaced.iter().flat_map(|path| disk.not_on_disk(path)).collect::<Vec<_>>();
    if *event == Event::Start {
        need("starting a program", [on("objects"), on("refs/gitsync")].concat());
    }
    for name in event.names() {
        let top = git.parent().unwrap();
        let made = matches!(event, Event::Rename(_, to) if to == name);
        match name.strip_prefix(git) {
            Ok(inner) if made && (inner.starts_with("refs/gitsync/rescue")) => need("a rescue", on("objects")),
            Ok(inner) if made && inner.starts_with("refs/remotes") => {
                need("moving what was last seen", [on("objects"), on("refs/gitsync")].concat());
            }
            Ok(inner) if made && inner.starts_with("refs/heads") => {
                need("moving the branch", [on("objects"), on("refs/gitsync"), on("index"), files()].concat())
            }
            Ok(inner) if made && inner == Path::new("index") => need("the index", [on("objects"), files()].concat()),
            Ok(inner) if made && inner == Path::new("gitsync/intent") => {
                need("the intent", [on("objects"), on("refs/gitsync")].concat());
            }
            Ok(inner) if !made && inner == Path::new("gitsync/intent") && matches!(event, Event::Gone(_)) => {
                need("ending the follow", [on("refs/heads"), on("HEAD"), on("index"), files()].concat());
            }
            Ok(_) => {}
            Err(_) if name.starts_with(top) => {
                need("the work tree", [on("objects"), on("refs/gitsync"), on("gitsync/intent")].concat())
            }
            Err(_) => {}
        }
    }
    if let Event::Rename(from, to) = event
        && let Ok(inner) = to.strip_prefix(git)
        && !["gitsync/status.json", "gitsync/lock", "gitsync/broken"].iter().any(|name| inner.starts_with(name))
        && !disk.has_bytes(from)
        // An index whose bytes are lost is taken back from the one before, if that is on disk.
        && !(inner == Path::new("index") && disk.is_there(&git.join(BEFORE)) && on(BEFORE).is_empty())
    {
        all.push((format!("{} gets its name", inner.display()), vec!["its bytes".to_owned()]));
    }
    all
}

/// Traces a pass and says what was relied on before it was on disk.
fn order(s: &Scene, pass: &[&str], said: &str) {
    if !strace_is_there() {
        return;
    }
    let top = ours(s);
    let git = top.join(".git");
    let start = Disk::of(&top);
    let (out, trace) = traced(s, pass, None);
    assert_eq!(String::from_utf8_lossy(&out.stdout), said, "{}", String::from_utf8_lossy(&out.stderr));
    let mut disk = start.clone();
    let mut replaced: Vec<PathBuf> = Vec::new();
    let mut complaints = Vec::new();
    let events = disk::events(&trace, &start);
    for event in &events {
        for (step, missing) in relies_on(&disk, &git, event, &replaced) {
            complaints.push(format!("{step} ({event:?}), and not on disk yet: {missing:?}"));
        }
        disk.follow(event);
        let in_tree = |path: &&Path| path.starts_with(&top) && !path.starts_with(&git);
        replaced.extend(event.names().into_iter().filter(in_tree).map(Path::to_owned));
    }
    assert_eq!(told(&disk), listed(&top), "the calls that were followed are not all that the pass did");
    let last = disk.not_on_disk(&top).into_iter().filter(|what| {
        !["/logs", "index-before", "status.json", "gitsync/lock", "job.lock", "staging", ".lock", "_git2_", ".new"]
            .iter()
            .any(|word| what.contains(word))
    });
    complaints.extend(last.map(|what| format!("not on disk at the end: {what}")));
    assert!(complaints.is_empty(), "{} calls\n{}", events.len(), complaints.join("\n"));
    assert!(events.contains(&Event::SyncAll) || events.iter().any(|event| matches!(event, Event::Sync(_))));
}

/// Behind, with a person's edit in the way, new folders on both sides.
fn behind() -> Scene {
    let s = Scene::new();
    s.rival_pushes("state/a");
    s.rival_pushes("fresh/folder/file");
    s.rival_pushes("index.html");
    s.we_write("index.html", "mine\n");
    s
}

fn behind_by_many() -> Scene {
    let s = behind();
    for number in 0..40 {
        s.rival_writes(&format!("many/{number}/file"), "many\n");
    }
    s.rival_commits("many files");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s
}

fn diverged() -> Scene {
    let s = Scene::new();
    s.rival_pushes("state/a");
    s.we_commit("state/b").we_commit("fresh/file");
    s.we_write("index.html", "mine\n");
    s
}

fn rewritten() -> Scene {
    let s = Scene::new();
    s.rival_rewrites("state/a");
    s
}

fn to_commit() -> Scene {
    let s = Scene::new();
    s.we_write("state/new/folder/file", "new\n").we_write("audit/log", "a line\n").we_write("state/a", "changed\n");
    s
}

#[test]
fn order_of_a_follow() {
    order(&behind(), SYNC, "behind\n");
}

#[test]
fn order_of_a_follow_of_many_files() {
    order(&behind_by_many(), SYNC, "behind\n");
}

#[test]
fn order_of_accepting_the_remote() {
    order(&diverged(), SYNC, "diverged\n");
}

#[test]
fn order_of_seeing_a_rewrite() {
    order(&rewritten(), SYNC, "diverged\n");
}

#[test]
fn order_of_a_marker() {
    let s = diverged();
    s.alpha();
    order(&s, SYNC, "diverged\n");
}

#[test]
fn order_of_a_commit_and_a_push() {
    order(&to_commit(), TICK, "pushed\n");
}

#[test]
fn order_of_an_overwriting_push() {
    let s = diverged();
    s.alpha().we_write("state/new", "new\n");
    order(&s, TICK, "pushed\n");
}

/// Cuts the power at one call of a pass after another.
fn cut(name: &str, s: &Scene, pass: &[&str]) {
    if !strace_is_there() {
        return;
    }
    let top = ours(s);
    let copy = tempfile::TempDir::with_prefix("gitsync-start-").unwrap();
    let all = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
    };
    all(s.root(), copy.path());
    let mut remembered = Oracle::default();
    remembered.trust_what_is_there(s);
    remembered.remember(s, "at the start");
    let again = || {
        for entry in fs::read_dir(s.root()).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        all(copy.path(), s.root());
    };
    // Every call that changes something, with which one of its name it is.
    let (_, trace) = traced(s, pass, None);
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut points = Vec::new();
    again();
    let start = Disk::of(&top);
    for line in trace.lines() {
        let Some((call, _)) = line.split_once('(') else { continue };
        let n = counts.entry(call).or_default();
        *n += 1;
        if disk::events(line, &start).iter().any(|event| *event != Event::Start) && line.contains(top.to_str().unwrap())
        {
            points.push((call.to_owned(), *n));
        }
    }
    let most = if extent() == Extent::Thinned { 12 } else { points.len() };
    let thinned: Vec<_> =
        (0..most.min(points.len())).map(|i| points[i * points.len() / most.min(points.len())].clone()).collect();
    let store = tempfile::tempdir().unwrap();
    let mut kept = HashMap::new();
    let mut complaints = Vec::new();
    let mut losses = 0;
    for (number, (call, n)) in thinned.iter().enumerate() {
        for loss in [Loss::NamesAndBytes, Loss::Bytes, Loss::Names] {
            again();
            let start = Disk::of(&top);
            let (_, trace) = traced(s, pass, Some(&format!("inject={call}:signal=KILL:when={n}")));
            let mut disk = start.clone();
            let events = disk::events(&trace, &start);
            let mut oracle = remembered.clone();
            for event in &events {
                disk.follow(event);
            }
            let at = format!("== {name}: {loss:?} at {call} #{n}");
            assert_eq!(told(&disk), listed(&top), "{at}: the calls that were followed are not all that the pass did");
            disk.keep_new(&mut kept, store.path());
            let lost = s.root().join("lost");
            disk.after(loss, &copy.path().join("ours"), &kept, &lost);
            fs::remove_dir_all(s.ours()).unwrap();
            fs::rename(&lost, s.ours()).unwrap();
            losses += 1;
            sweep::a_minute_passes(&s.ours().join(".git"));
            let recovery = [[SYNC, TICK], [INIT, TICK]][number % 2];
            let mut story = String::new();
            for pass in recovery {
                let ran = s.run(pass).last();
                story.push_str(&format!("{pass:?} {:?} {}{}", ran.code, ran.stdout, ran.stderr));
            }
            let mut found = oracle.complaints(s, &["state/", "audit/"]);
            if s.our_tip() != s.upstream_tip() {
                found.push("G7: ours is not what upstream has".to_owned());
            }
            if pass == TICK && recovery[0] == SYNC && !s.rescues("worktree").is_empty() {
                found.push("what a job wrote was taken for an edit that gives way".to_owned());
            }
            let before = s.snapshot();
            let ran = s.run(TICK).last();
            if ran.stdout != "no-changes\n" {
                found.push(format!("G7: the third pass says {}{}", ran.stdout, ran.stderr));
            }
            found.extend(
                sweep::written(&before, &s.snapshot())
                    .iter()
                    .filter(|path| followed(path))
                    .map(|path| format!("G7: the third pass writes {path:?}")),
            );
            if !found.is_empty() {
                complaints.push(format!("{at}\n{}\n{story}", found.join("\n")));
            }
        }
    }
    eprintln!("{name}: {} cuts, {losses} power losses, {} complaints", thinned.len(), complaints.len());
    let shown: Vec<_> = complaints.iter().take(10).cloned().collect();
    assert!(complaints.is_empty(), "{name}: {} complaints\n{}", complaints.len(), shown.join("\n\n"));
}

#[test]
fn power_fails_in_a_follow() {
    cut("power, follow", &behind(), SYNC);
}

#[test]
fn power_fails_in_a_follow_of_many_files() {
    cut("power, follow of many files", &behind_by_many(), SYNC);
}

#[test]
fn power_fails_in_accepting_the_remote() {
    cut("power, accepting the remote", &diverged(), SYNC);
}

#[test]
fn power_fails_in_a_tick() {
    cut("power, tick", &to_commit(), TICK);
}

#[test]
fn power_fails_in_an_overwriting_tick() {
    let s = diverged();
    s.alpha().we_write("state/new", "new\n");
    cut("power, alpha tick", &s, TICK);
}
