//! The model: several instances, alpha and not, a person who pushes, rewrites, deletes the branch and edits the work trees,
//! jobs, kills and failing calls, in random order on real repositories. An oracle for each instance remembers every commit
//! and every file version there ever was, and after every step the guarantees are checked.
//!
//! The cases are the same each time. More of them, or others:
//!
//! ```text
//! GITSYNC_MODEL_CASES=200 GITSYNC_MODEL_SEED=7 cargo test --test model -- --nocapture
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod oracle;
mod scene;
mod sweep;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use git2::{Oid, Repository};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use oracle::Oracle;
use scene::Scene;
use sweep::{Blow, Point};

/// What people and machines write; among them what is a file to one and a folder to the other.
const PATHS: &[&str] = &["page", "dir", "dir/x", "dir/y", "state/a", "state/b", "audit/log", "state/sub/c"];
const CALLS: &[&str] =
    &["openat", "write", "rename", "renameat", "link", "unlink", "unlinkat", "fsync", "mkdir", "pwrite64"];
/// Instances: the second is alpha.
const INSTANCES: usize = 3;
const ALPHA: usize = 1;

#[derive(Clone, Copy, Debug)]
enum Pass {
    InitSync,
    Sync,
    Tick,
}

#[derive(Clone, Debug)]
enum Step {
    PersonPushes {
        path: usize,
    },
    PersonRewrites {
        path: usize,
    },
    PersonDeletesBranch,
    PersonEdits {
        at: usize,
        path: usize,
    },
    PersonRemoves {
        at: usize,
        path: usize,
    },
    PersonStages {
        at: usize,
    },
    PersonCommits {
        at: usize,
    },
    Runs {
        at: usize,
        pass: Pass,
    },
    Struck {
        at: usize,
        pass: Pass,
        call: usize,
        n: usize,
        blow: usize,
    },
    /// Two passes, and a third that must write nothing.
    Settles {
        at: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..INSTANCES;
    let path = 0..PATHS.len();
    let pass = prop_oneof![1 => Just(Pass::InitSync), 3 => Just(Pass::Sync), 4 => Just(Pass::Tick)];
    // Most passes make few calls of most names.
    let n = prop_oneof![1..6_usize, 1..16_usize, 1..80_usize];
    prop_oneof![
        4 => path.clone().prop_map(|path| Step::PersonPushes { path }),
        2 => path.clone().prop_map(|path| Step::PersonRewrites { path }),
        1 => Just(Step::PersonDeletesBranch),
        4 => (at.clone(), path.clone()).prop_map(|(at, path)| Step::PersonEdits { at, path }),
        1 => (at.clone(), path).prop_map(|(at, path)| Step::PersonRemoves { at, path }),
        1 => at.clone().prop_map(|at| Step::PersonStages { at }),
        2 => at.clone().prop_map(|at| Step::PersonCommits { at }),
        6 => (at.clone(), pass.clone()).prop_map(|(at, pass)| Step::Runs { at, pass }),
        8 => (at.clone(), pass, 0..CALLS.len(), n, 0..6_usize)
            .prop_map(|(at, pass, call, n, blow)| Step::Struck { at, pass, call, n, blow }),
        2 => at.prop_map(|at| Step::Settles { at }),
    ]
}

struct World {
    scene: Scene,
    oracles: Vec<Oracle>,
    count: usize,
    story: String,
    struck: usize,
}

impl World {
    fn new() -> Self {
        let scene = Scene::without_ours();
        let mut world =
            Self { scene, oracles: vec![Oracle::default(); INSTANCES], count: 0, story: String::new(), struck: 0 };
        for at in 0..INSTANCES {
            fs::create_dir(world.place(at)).unwrap();
            let ran = world.command(at, Pass::InitSync).output().unwrap();
            assert!(ran.status.success());
            let place = world.place(at);
            world.trust();
            world.oracles[at].remember_at(&place, "at the start");
        }
        world
    }

    fn place(&self, at: usize) -> PathBuf {
        self.scene.root().join(format!("instance-{at}"))
    }

    fn command(&self, at: usize, pass: Pass) -> Command {
        let upstream = self.scene.upstream().display().to_string();
        let n = self.count;
        let job = format!("mkdir -p state/jobs; echo job {n} > state/jobs/{at}-{n}");
        let mut command = match pass {
            Pass::InitSync => self.scene.gitsync(&["init-sync", "--remote-url", &upstream]),
            Pass::Sync => self.scene.gitsync(&["sync"]),
            Pass::Tick => self.scene.gitsync(&["tick", "--", "sh", "-c", &job]),
        };
        command.env("GIT_SYNC_REPO", self.place(at));
        if at == ALPHA {
            command.env("GIT_SYNC_ALPHA", "true");
        }
        command
    }

    /// What the person has made by now is theirs to answer for.
    fn trust(&mut self) {
        let git = Repository::open(self.scene.rival()).unwrap();
        let mut walk = git.revwalk().unwrap();
        walk.push_head().unwrap();
        for id in walk.flatten() {
            for oracle in &mut self.oracles {
                oracle.trust(&id.to_string());
            }
        }
    }

    fn upstream(&self) -> Option<Oid> {
        Repository::open(self.scene.upstream()).unwrap().refname_to_id("refs/heads/main").ok()
    }

    fn contains(&self, place: &Path, tip: Oid, commit: Oid) -> bool {
        let git = Repository::open(place).unwrap();
        tip == commit || git.graph_descendant_of(tip, commit).unwrap_or(false)
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        self.count += 1;
        self.story.push_str(&format!("\n## {} {step:?}\n", self.count));
        let text = format!("version {}\n", self.count);
        match *step {
            Step::PersonPushes { path } | Step::PersonRewrites { path } => self.pushes(step, path, &text),
            Step::PersonDeletesBranch => {
                self.scene.rival_deletes_branch();
                let _ = self.scene.git_command(&self.scene.rival()).args(["fetch", "-q", "--prune"]).status();
            }
            Step::PersonEdits { at, path } => self.edits(at, PATHS[path], &text),
            Step::PersonRemoves { at, path } => {
                let file = self.place(at).join(PATHS[path]);
                if file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    self.oracles[at].forget_version(Path::new(PATHS[path]));
                    fs::remove_file(file).unwrap();
                }
            }
            Step::PersonStages { at } => {
                let _ = self.scene.git_command(&self.place(at)).args(["add", "-A"]).output().unwrap();
            }
            Step::PersonCommits { at } => self.commits(at),
            Step::Runs { at, pass } => return self.passes(at, pass, None),
            Step::Struck { at, pass, call, n, blow } => {
                let blows =
                    [Blow::Kill, Blow::Kill, Blow::Kill, Blow::Once("EIO"), Blow::From("ENOSPC"), Blow::Once("ENOSPC")];
                // A file that can't be removed is a leftover that nobody can help.
                let blow = if CALLS[call].starts_with("unlink") { Blow::Kill } else { blows[blow] };
                let point = Point { child: None, call: CALLS[call].to_owned(), n, blow };
                return self.passes(at, pass, Some(point));
            }
            Step::Settles { at } => return self.settles(at),
        }
        Ok(())
    }

    fn pushes(&mut self, step: &Step, path: usize, text: &str) {
        let (s, rival) = (&self.scene, self.scene.rival());
        s.git_in(&rival, &["fetch", "-q", "--prune"]);
        if self.upstream().is_some() {
            s.git_in(&rival, &["reset", "-q", "--hard", "origin/main"]);
        }
        put(&rival, PATHS[path], text);
        s.git_in(&rival, &["add", "-A"]);
        let amend: &[&str] = if matches!(step, Step::PersonRewrites { .. }) { &["--amend"] } else { &[] };
        s.git_in(&rival, &[&["commit", "-q", "--allow-empty", "-m", text.trim()], amend].concat());
        s.git_in(&rival, &["push", "-q", "--force", "origin", "HEAD:refs/heads/main"]);
        self.trust();
    }

    fn edits(&mut self, at: usize, path: &str, text: &str) {
        let place = self.place(at);
        self.oracles[at].forget_version(Path::new(path));
        put(&place, path, text);
    }

    fn commits(&mut self, at: usize) {
        let place = self.place(at);
        let git = |args: &[&str]| self.scene.git_command(&place).args(args).output().unwrap().status.success();
        // A person can't commit while a killed pass's lock is there, nor without a branch.
        let head = format!("by hand {}", self.count);
        if git(&["add", "-A"]) && git(&["commit", "-q", "-m", &head]) {
            let id = self.scene.rev(&place, "HEAD");
            for oracle in &mut self.oracles {
                oracle.trust(&id);
            }
        }
    }

    fn passes(&mut self, at: usize, pass: Pass, point: Option<Point>) -> Result<(), String> {
        let place = self.place(at);
        let mut complaints = Vec::new();
        self.oracles[at].remember_at(&place, &format!("before step {}", self.count));
        let before = self.upstream();
        let may_force = at == ALPHA || place.join(".git/gitsync/force-push-pending").exists();
        let command = self.command(at, pass);
        let (said, code) = match &point {
            Some(point) => {
                let log = self.scene.root().join("trace");
                let hit = sweep::strike_one(&command, &log, point, &mut complaints);
                self.story.push_str(&hit.story);
                self.struck += usize::from(hit.struck);
                if point.blow != Blow::Kill {
                    sweep::a_minute_passes(&place.join(".git"));
                }
                (hit.said, None)
            }
            None => {
                let mut command = command;
                let out = command.output().unwrap();
                let said = String::from_utf8_lossy(&out.stdout).into_owned();
                self.story.push_str(&format!("{}: {said}{}", out.status, String::from_utf8_lossy(&out.stderr)));
                (said, out.status.code())
            }
        };
        if point.is_none() && !matches!(code, Some(0 | 1 | 75)) {
            complaints.push(format!("it exits {code:?}"));
        }
        let now = self.upstream();
        let ours = Repository::open(&place).ok().and_then(|git| git.refname_to_id("refs/heads/main").ok());
        if said == "pushed\n" && ours != now {
            complaints.push("G4: it says pushed, and the remote has not what we have".to_owned());
        }
        if let Some(before) = before
            && now != Some(before)
        {
            let forward = now.is_some_and(|now| self.contains(&self.scene.upstream(), now, before));
            if !forward && !may_force {
                complaints.push(format!("G3: non-alpha moved the remote from {before} to {now:?}"));
            }
            if !forward {
                let git = Repository::open(&place).unwrap();
                if !oracle::reachable(&git, false).contains(&before) {
                    complaints.push(format!("G3: {before} was overwritten and not rescued"));
                }
            }
        }
        self.oracles[at].remember_at(&place, &format!("after step {}", self.count));
        complaints.extend(self.oracles[at].complaints_at(&self.scene, &place, None, &["state", "audit"]));
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
    }

    fn settles(&mut self, at: usize) -> Result<(), String> {
        let place = self.place(at);
        self.passes(at, Pass::Sync, None)?;
        self.passes(at, Pass::Sync, None)?;
        let before = scene::snapshot_of(&place);
        let out = self.command(at, Pass::Sync).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        self.story.push_str(&format!("third: {said} {}", String::from_utf8_lossy(&out.stderr)));
        let written = sweep::written(&before, &scene::snapshot_of(&place));
        let left = oracle::leftovers(&place.join(".git"));
        if !written.is_empty() || !left.is_empty() {
            return Err(format!("G7: the third pass writes {written:?}; left behind: {left:?}"));
        }
        let git = Repository::open(&place).unwrap();
        let (ours, theirs) = (git.refname_to_id("refs/heads/main").ok(), self.upstream());
        let marked = place.join(".git/gitsync/force-push-pending").exists();
        let as_it_should = match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => said == "up-to-date" && !marked,
            (Some(ours), Some(theirs)) if self.contains(&place, ours, theirs) => said == "ahead",
            (Some(_), Some(_)) => said == "diverged" && marked && at == ALPHA,
            // The branch is gone: an error to non-alpha, a mark to alpha.
            (Some(_), None) if at == ALPHA => {
                said == "ahead" && (marked || git.refname_to_id("refs/remotes/origin/main").is_err())
            }
            (Some(_), None) => said == "error" || said == "ahead",
            (None, theirs) => said == "up-to-date" && theirs.is_none(),
        };
        if as_it_should {
            Ok(())
        } else {
            Err(format!("G7: ours {ours:?}, theirs {theirs:?}, marked {marked}: {said}"))
        }
    }
}

/// Writes a file, taking out of its way what stands there.
fn put(top: &Path, path: &str, text: &str) {
    let whole = top.join(path);
    for above in Path::new(path).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if top.join(above).symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(top.join(above)).unwrap();
        }
    }
    if whole.is_dir() {
        fs::remove_dir_all(&whole).unwrap();
    }
    scene::write(&whole, text);
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_happens_nothing_is_lost() {
    if !sweep::strace_is_there() {
        return;
    }
    let cases = u32::try_from(number("GITSYNC_MODEL_CASES", 12)).unwrap();
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number("GITSYNC_MODEL_SEED", 1).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (steps_taken, struck) = (Cell::new(0), Cell::new(0));
    let tried = runner.run(&prop::collection::vec(step(), 8..24), |steps| {
        let mut world = World::new();
        let last = (0..INSTANCES).map(|at| Step::Settles { at });
        for step in steps.into_iter().chain(last) {
            steps_taken.set(steps_taken.get() + 1);
            if let Err(complaint) = world.take(&step) {
                return Err(TestCaseError::fail(format!("{complaint}\n{}", world.story)));
            }
        }
        struck.set(struck.get() + world.struck);
        if std::env::var_os("GITSYNC_MODEL_SHOW").is_some() {
            eprintln!("{}", world.story);
        }
        Ok(())
    });
    eprintln!("{cases} cases, {} steps, {} passes struck", steps_taken.get(), struck.get());
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// What random histories have found once.
#[test]
fn what_was_found_before() {
    use Step::{PersonEdits, PersonPushes, PersonRemoves, Runs, Settles};
    if !sweep::strace_is_there() {
        return;
    }
    let histories = [vec![
        PersonPushes { path: 2 },
        PersonPushes { path: 6 },
        PersonPushes { path: 2 },
        Runs { at: 1, pass: Pass::InitSync },
        PersonPushes { path: 0 },
        PersonRemoves { at: 0, path: 3 },
        PersonEdits { at: 1, path: 1 },
        PersonRemoves { at: 0, path: 4 },
        Settles { at: 0 },
        Settles { at: 1 },
    ]];
    for steps in histories {
        let mut world = World::new();
        for step in &steps {
            if let Err(complaint) = world.take(step) {
                let place = world.place(1);
                eprintln!("{}", world.scene.git_in(&place, &["log", "--all", "--stat", "--oneline"]));
                panic!("{complaint}\n{}", world.story);
            }
        }
    }
}
