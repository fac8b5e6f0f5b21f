//! What is on disk when: every step of a pass relies only on what was synced before it, and a power loss at any moment
//! costs nothing.
//!
//! A real pass is traced, and a [`Disk`] that keeps only what was synced follows its calls. The first tests look at the order;
//! the others end the pass at one call after another, take away all that was not synced, and let the next passes go on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::disk::{self, Disk, Event, Loss};
use crate::oracle::{self, Oracle};
use crate::scene::{self, Scene};
use crate::sweep::{self, Extent, copy_all, extent, put_back};
use needs::needs;

const BEFORE: &str = "gitsync/index-before";
const SYNC: &[&str] = &["sync"];
const TICK: &[&str] = &["tick", "--", "true"];
const INIT: &[&str] = &["init-sync"];

/// How a pass ended, and its calls.
struct Traced {
    out: Output,
    /// Those of the pass's own thread.
    own: String,
    /// Those of the build of its site too, in order.
    all: String,
}

/// Runs a pass, its own thread traced, and perhaps killed.
fn traced(s: &Scene, pass: &[&str], inject: Option<&str>) -> Traced {
    let plain = s.gitsync(pass);
    let (log, of_build) = (s.root().join("trace"), s.root().join("trace-build"));
    let options = ["-qq", "-ttt", "-y", "-s", "0", "-e", &format!("trace={}", disk::CALLS), "-o"].map(str::to_owned);
    let mut strace = Command::new("strace");
    strace.args(&options).arg(&log);
    if let Some(inject) = inject {
        strace.args(["-e", inject]);
    }
    strace.arg("--").arg(plain.get_program()).args(plain.get_args()).current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            // By a strace of its own: the calls at which the pass is killed are counted without it.
            Some(value) if name == "GIT_SYNC_BUILD_COMMAND" => {
                let traced = format!("strace {} {} {}", options.join(" "), of_build.display(), value.display());
                strace.env(name, traced)
            }
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let out = strace.output().unwrap();
    let own = fs::read_to_string(&log).unwrap();
    let built = fs::read_to_string(&of_build).unwrap_or_default();
    let mut all: Vec<&str> = own.lines().chain(built.lines()).collect();
    // By the time that each line begins with.
    all.sort_by(|one, other| one.split(' ').next().cmp(&other.split(' ').next()));
    let untimed = |lines: &mut dyn Iterator<Item = &str>| -> String {
        lines.filter_map(|line| line.split_once(' ')).map(|(_, call)| format!("{call}\n")).collect()
    };
    Traced { own: untimed(&mut own.lines()), all: untimed(&mut all.into_iter()), out }
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
    !path.ends_with(".git/gitsync/job.lock")
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
    let top = ours(s);
    let git = top.join(".git");
    let start = Disk::of(&top);
    let Traced { out, all: trace, .. } = traced(s, pass, None);
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
        ![
            "/logs",
            "index-before",
            "index-tree",
            "status.json",
            "gitsync/lock",
            "job.lock",
            "staging",
            ".lock",
            "_git2_",
            ".new",
        ]
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

#[needs(strace)]
#[test]
fn order_of_a_follow() {
    order(&behind(), SYNC, "behind\n");
}

#[needs(strace)]
#[test]
fn order_of_a_follow_of_many_files() {
    order(&behind_by_many(), SYNC, "behind\n");
}

#[needs(strace)]
#[test]
fn order_of_accepting_the_remote() {
    order(&diverged(), SYNC, "diverged\n");
}

#[needs(strace)]
#[test]
fn order_of_seeing_a_rewrite() {
    order(&rewritten(), SYNC, "diverged\n");
}

#[needs(strace)]
#[test]
fn order_of_a_marker() {
    let s = diverged();
    s.alpha();
    order(&s, SYNC, "diverged\n");
}

#[needs(strace)]
#[test]
fn order_of_a_commit_and_a_push() {
    order(&to_commit(), TICK, "pushed\n");
}

#[needs(strace)]
#[test]
fn order_of_an_overwriting_push() {
    let s = diverged();
    s.alpha().we_write("state/new", "new\n");
    order(&s, TICK, "pushed\n");
}

/// A pass whose power is cut, and what it has to come to.
struct Cut<'a> {
    name: &'a str,
    scene: &'a Scene,
    pass: &'a [&'a str],
    recoveries: [[&'a [&'a str]; 2]; 2],
    /// The pass that must write nothing, and what it says.
    rest: (&'a [&'a str], &'a str),
    /// The folders of the scene that are on the disk which loses its power.
    folders: &'a [&'a str],
    /// Commits that can't be read at the start.
    unreadable: &'a [String],
    /// How many cuts there are where the whole sweep was not asked for.
    thinned: usize,
    /// What is so right after the loss.
    at_once: &'a dyn Fn(&Scene) -> Vec<String>,
    /// What is so in the end, beyond the guarantees.
    comes_to: &'a dyn Fn(&Scene) -> Vec<String>,
}

/// Cuts the power at one call of a pass after another.
fn cut(name: &str, s: &Scene, pass: &[&str]) {
    Cut {
        name,
        scene: s,
        pass,
        recoveries: [[SYNC, TICK], [INIT, TICK]],
        rest: (TICK, "no-changes\n"),
        folders: &["ours"],
        unreadable: &[],
        thinned: 12,
        at_once: &sweep::nothing,
        comes_to: &sweep::nothing,
    }
    .run();
}

impl Cut<'_> {
    fn run(&self) {
        let (name, s) = (self.name, self.scene);
        let copy = tempfile::TempDir::with_prefix("gitsync-start-").unwrap();
        copy_all(s.root(), copy.path());
        let mut remembered = Oracle::default();
        remembered.trust_what_is_there(s);
        remembered.remember(s, "at the start");
        self.unreadable.iter().for_each(|commit| remembered.forget_tip(commit));
        let points = self.points();
        put_back(s, copy.path());
        let most = if extent() == Extent::Thinned { self.thinned.min(points.len()) } else { points.len() };
        let (mut kept, store) = (HashMap::new(), tempfile::tempdir().unwrap());
        let mut complaints = Vec::new();
        let mut losses = 0;
        // The last call too: after it all that the pass did is there, and has to be on disk.
        let spaced = (0..most).map(|i| i * points.len() / most);
        let last = points.len() - 1;
        for (number, at) in spaced.filter(|at| *at != last).chain([last]).enumerate() {
            let (call, n) = &points[at];
            for loss in [Loss::NamesAndBytes, Loss::Bytes, Loss::Names] {
                put_back(s, copy.path());
                let at = format!("== {name}: {loss:?} at {call} #{n}");
                let inject = format!("inject={call}:signal=KILL:when={n}");
                self.lose(&inject, loss, copy.path(), (&mut kept, store.path()), &at);
                losses += 1;
                let (found, story) = self.recover(remembered.clone(), number);
                if !found.is_empty() {
                    complaints.push(format!("{at}\n{}\n{story}", found.join("\n")));
                }
            }
            if extent() > Extent::Thinned && number % 50 == 49 {
                eprintln!("{name}: {} of {most} cuts, {} complaints", number + 1, complaints.len());
            }
        }
        eprintln!(
            "{name}: {} of {} cuts, {losses} power losses, {} complaints",
            losses / 3,
            points.len(),
            complaints.len()
        );
        let shown: Vec<_> = complaints.iter().take(10).cloned().collect();
        assert!(complaints.is_empty(), "{name}: {} complaints\n{}", complaints.len(), shown.join("\n\n"));
    }

    fn disk(&self) -> Disk {
        Disk::of_some(&self.scene.root().canonicalize().unwrap(), self.folders)
    }

    /// Every call that changes something, with which one of its name it is.
    fn points(&self) -> Vec<(String, usize)> {
        let trace = traced(self.scene, self.pass, None).own;
        let start = self.disk();
        let top = self.scene.root().canonicalize().unwrap();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut points = Vec::new();
        for line in trace.lines() {
            let Some((call, _)) = line.split_once('(') else { continue };
            let n = counts.entry(call).or_default();
            *n += 1;
            let changes = disk::events(line, &start).iter().any(|event| *event != Event::Start);
            if changes && line.contains(top.to_str().unwrap()) {
                points.push((call.to_owned(), *n));
            }
        }
        points
    }

    /// Ends the pass at one call, and takes away what was not synced. `kept`: the files that earlier cuts found new, and where.
    fn lose(&self, inject: &str, loss: Loss, copy: &Path, kept: (&mut HashMap<usize, PathBuf>, &Path), at: &str) {
        let s = self.scene;
        let mut disk = self.disk();
        for event in disk::events(&traced(s, self.pass, Some(inject)).all, &disk) {
            disk.follow(&event);
        }
        let below = |path: &PathBuf| self.folders.iter().any(|folder| path.starts_with(folder));
        let (mut told, mut found) = (told(&disk), listed(s.root()));
        told.retain(below);
        found.retain(below);
        assert_eq!(told, found, "{at}: the calls that were followed are not all that the pass did");
        let (kept, store) = kept;
        disk.keep_new(kept, store);
        let lost = tempfile::TempDir::with_prefix_in("lost-", s.root()).unwrap();
        disk.after(loss, copy, kept, lost.path());
        for folder in self.folders {
            fs::remove_dir_all(s.root().join(folder)).unwrap();
            if lost.path().join(folder).exists() {
                fs::rename(lost.path().join(folder), s.root().join(folder)).unwrap();
            }
        }
        drop(lost);
        sweep::a_minute_passes(&s.ours().join(".git"));
    }

    /// The passes after the loss: what is wrong in the end, and what they said.
    fn recover(&self, mut oracle: Oracle, number: usize) -> (Vec<String>, String) {
        let s = self.scene;
        let mut found = (self.at_once)(s);
        let recovery = self.recoveries[number % 2];
        let mut story = String::new();
        for pass in recovery {
            let ran = s.run(pass).last();
            story.push_str(&format!("{pass:?} {:?} {}{}", ran.code, ran.stdout, ran.stderr));
        }
        found.extend(oracle.complaints(s, &["state/", "audit/"]));
        found.extend((self.comes_to)(s));
        let tip = s.git_command(&s.ours()).args(["rev-parse", "-q", "--verify", "refs/heads/main"]).output().unwrap();
        if String::from_utf8_lossy(&tip.stdout).trim() != s.upstream_tip() {
            found.push("G7: ours is not what upstream has".to_owned());
        }
        if self.pass == TICK && recovery[0] == SYNC && !s.rescues("worktree").is_empty() {
            found.push("what a job wrote was taken for an edit that gives way".to_owned());
        }
        let before = s.snapshot();
        let (rest, said) = self.rest;
        let ran = s.run(rest).last();
        if ran.stdout != said {
            found.push(format!("G7: the third pass says {}{}", ran.stdout, ran.stderr));
        }
        let written = sweep::written(&before, &s.snapshot());
        let written = written.iter().filter(|path| followed(path));
        found.extend(written.map(|path| format!("G7: the third pass writes {path:?}")));
        (found, story)
    }
}

#[needs(strace)]
#[test]
fn power_fails_in_a_follow() {
    cut("power, follow", &behind(), SYNC);
}

#[needs(strace)]
#[test]
fn power_fails_in_a_follow_of_many_files() {
    cut("power, follow of many files", &behind_by_many(), SYNC);
}

#[needs(strace)]
#[test]
fn power_fails_in_accepting_the_remote() {
    cut("power, accepting the remote", &diverged(), SYNC);
}

#[needs(strace)]
#[test]
fn power_fails_in_a_tick() {
    cut("power, tick", &to_commit(), TICK);
}

#[needs(strace)]
#[test]
fn power_fails_in_an_overwriting_tick() {
    let s = diverged();
    s.alpha().we_write("state/new", "new\n");
    cut("power, alpha tick", &s, TICK);
}

/// A pass that starts up. The rest of the cut is as [`cut`] has it.
fn cut_at_start_up(
    name: &str,
    s: &Scene,
    init: &[&str],
    unreadable: &[String],
    comes_to: &dyn Fn(&Scene) -> Vec<String>,
) {
    Cut {
        name,
        scene: s,
        pass: init,
        recoveries: [[init, TICK], [init, init]],
        rest: (SYNC, "up-to-date\n"),
        folders: &["ours"],
        unreadable,
        thinned: 6,
        at_once: &sweep::nothing,
        comes_to,
    }
    .run();
}

#[needs(strace)]
#[test]
fn power_fails_in_a_clone() {
    let s = Scene::without_ours();
    s.we_write("index.html", "a stranger's page\n").we_write("notes", "a stranger's notes\n");
    let url = s.upstream().to_str().unwrap().to_owned();
    cut_at_start_up("power, clone", &s, &["init-sync", "--remote-url", &url], &[], &sweep::nothing);
}

#[needs(strace)]
#[test]
fn power_fails_in_an_init_sync_over_a_clone() {
    let s = diverged();
    cut_at_start_up("power, init-sync over a clone", &s, INIT, &[], &sweep::nothing);
}

#[needs(strace)]
#[test]
fn power_fails_in_an_init_sync_that_puts_aside() {
    let s = Scene::new();
    s.we_commit("state/ours");
    let readable = s.our_tip();
    s.we_commit("state/unreadable");
    let tip = s.our_tip();
    let blob = s.rev(&s.ours(), "HEAD:state/unreadable");
    fs::remove_file(s.ours().join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
    s.rival_pushes("state/a");
    s.we_write("index.html", "mine\n");
    cut_at_start_up("power, init-sync over damage", &s, INIT, &[tip], &|s| {
        let mut found = s.git_command(&s.ours());
        let found = found.args(["for-each-ref", "--contains", &readable, "refs/gitsync/rescue"]).output().unwrap();
        let lost = found.stdout.is_empty();
        lost.then(|| format!("{readable} could be read and was not carried over")).into_iter().collect()
    });
}

/// Builds a site of files, folders and a link, in one process, of what `index.html` holds.
const BUILD: &str = "perl -e 'open(F, q(index.html)); $v = <F>; ($out) = @ARGV; mkdir qq($out/sub); \
                     for (qw(index sub/one sub/two)) { open(P, qq(>$out/$_)); print P $v; close P } \
                     symlink(q(../elsewhere), qq($out/link))' {public_dir}";

/// A site that is up, and a newer version upstream.
fn with_a_site() -> Scene {
    let s = Scene::new();
    s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", BUILD);
    s.run(INIT).exits(0);
    s
}

fn cut_while_publishing(name: &str, s: &Scene, pass: &[&str], new: &str) {
    let up = oracle::files(&s.public());
    assert_eq!(up.len(), 4, "{up:?}");
    let new: Vec<_> = {
        let page = git2::Oid::hash_object(git2::ObjectType::Blob, new.as_bytes()).unwrap();
        let of = |(path, id, runs): &(PathBuf, git2::Oid, bool)| {
            (path.clone(), if path.ends_with("link") { *id } else { page }, *runs)
        };
        up.iter().map(of).collect()
    };
    assert_ne!(up, new);
    Cut {
        name,
        scene: s,
        pass,
        recoveries: [[pass, TICK], [INIT, pass]],
        rest: (SYNC, "up-to-date\n"),
        folders: &["ours", "public"],
        unreadable: &[],
        thinned: 6,
        at_once: &|s| {
            let now = oracle::files(&s.public());
            let torn = now != up && now != new;
            torn.then(|| format!("the site is neither wholly the old nor wholly the new one: {now:?}"))
                .into_iter()
                .collect()
        },
        comes_to: &|s| {
            let stale = oracle::files(&s.public()) != new;
            stale.then(|| "the public dir does not hold exactly the fresh site".to_owned()).into_iter().collect()
        },
    }
    .run();
}

#[needs(perl, strace)]
#[test]
fn power_fails_in_a_sync_that_publishes() {
    let s = with_a_site();
    s.rival_writes("index.html", "page 3\n").rival_commits("third");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    cut_while_publishing("power, sync with a site", &s, SYNC, "page 3\n");
}

#[needs(perl, strace)]
#[test]
fn power_fails_in_a_sync_that_publishes_file_by_file() {
    let s = with_a_site();
    s.env("GIT_SYNC_PUBLISH", "files");
    s.rival_writes("index.html", "page 3\n").rival_commits("third");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    cut_while_publishing("power, sync with a site, file by file", &s, SYNC, "page 3\n");
}

#[needs(perl, strace)]
#[test]
fn power_fails_in_a_start_up_that_publishes() {
    let s = with_a_site();
    s.rival_writes("index.html", "page 3\n").rival_commits("third");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    cut_while_publishing("power, init-sync with a site", &s, INIT, "page 3\n");
}
