//! The world of the model: two remotes, several instances, a person; and the steps that can be taken in it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod jobs;
pub mod odds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use git2::{Oid, Repository, RepositoryState};

use crate::oracle::{self, Oracle};
use crate::scene::{self, Scene};
use crate::sweep::{self, Blow, Point};
use jobs::Job;
use odds::{Clock, Limit};

/// What people and machines write; among them what is a file to one and a folder to the other.
pub const PATHS: &[&str] = &["page", "dir", "dir/x", "dir/y", "state/a", "state/b", "audit/log", "state/sub/c"];
pub const CALLS: &[&str] =
    &["openat", "write", "rename", "renameat", "link", "unlink", "unlinkat", "fsync", "mkdir", "pwrite64"];
/// Instances: the second is alpha.
pub const INSTANCES: usize = 3;
const ALPHA: usize = 1;
pub const BRANCHES: &[&str] = &["main", "other"];
pub const REMOTES: &[&str] = &["origin", "second"];

/// Whether a reference is one that guarantee G1 counts.
fn keeps(name: &str) -> bool {
    let named = |rest: &str| BRANCHES.contains(&rest);
    name.starts_with("refs/gitsync/rescue/")
        || name.strip_prefix("refs/heads/").is_some_and(named)
        || REMOTES.iter().any(|remote| name.strip_prefix(&format!("refs/remotes/{remote}/")).is_some_and(named))
}

#[derive(Clone, Copy, Debug)]
pub enum Pass {
    InitSync,
    Sync,
    Tick,
}

/// A branch of a remote, both by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub remote: usize,
    pub branch: usize,
}

impl Place {
    pub fn remote(self) -> &'static str {
        REMOTES[self.remote]
    }
    pub fn branch(self) -> &'static str {
        BRANCHES[self.branch]
    }
}

/// How a pass is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub place: Place,
    /// Alpha where the instance is not, and the other way round.
    pub other_mode: bool,
    pub job: Job,
    pub clock: Clock,
    pub limit: Option<Limit>,
    /// The remote leaves an object out of what it sends: the one of this number.
    pub lie: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum Step {
    PersonPushes {
        to: Place,
        path: usize,
    },
    PersonRewrites {
        to: Place,
        path: usize,
    },
    /// The remote goes back to an older commit.
    PersonRewinds {
        to: Place,
        by: usize,
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
        how: How,
    },
    Struck {
        at: usize,
        pass: Pass,
        how: How,
        call: usize,
        n: usize,
        blow: usize,
    },
    /// Two passes, and a third that must write nothing.
    Settles {
        at: usize,
    },
}

pub struct World {
    scene: Scene,
    oracles: Vec<Oracle>,
    /// What each instance's marker was set for.
    marked: Vec<Option<Place>>,
    count: usize,
    pub story: String,
    pub struck: usize,
}

impl World {
    pub fn new() -> Self {
        let scene = Scene::without_ours();
        scene.git_in(&scene.rival(), &["push", "-q", "origin", "HEAD:refs/heads/other"]);
        scene.git_in(scene.root(), &["clone", "-q", "--bare", "upstream.git", "second.git"]);
        scene.git_in(&scene.rival(), &["remote", "add", "second", "../second.git"]);
        odds::let_the_remotes_lie(&scene);
        let oracle = Oracle::keeping(keeps);
        let mut world = Self {
            scene,
            oracles: vec![oracle; INSTANCES],
            marked: vec![None; INSTANCES],
            count: 0,
            story: String::new(),
            struck: 0,
        };
        for at in 0..INSTANCES {
            fs::create_dir(world.home(at)).unwrap();
            let ran = world.command(at, Pass::InitSync, How::default()).output().unwrap();
            assert!(ran.status.success());
            let home = world.home(at);
            let second = world.remote_dir(1).display().to_string();
            world.scene.git_in(&home, &["remote", "add", "second", &second]);
            world.trust();
            world.oracles[at].remember_at(&home, "at the start");
        }
        world
    }

    /// The folder of an instance.
    fn home(&self, at: usize) -> PathBuf {
        self.scene.root().join(format!("instance-{at}"))
    }

    fn remote_dir(&self, remote: usize) -> PathBuf {
        self.scene.root().join(["upstream.git", "second.git"][remote])
    }

    fn marker(&self, at: usize) -> Option<Vec<u8>> {
        fs::read(self.home(at).join(".git/gitsync/force-push-pending")).ok()
    }

    fn command(&self, at: usize, pass: Pass, how: How) -> Command {
        let Place { remote, branch: _ } = how.place;
        let url = self.remote_dir(remote).display().to_string();
        let name = format!("{at}-{}", self.count);
        let job = how.job.script(&name, how.place.remote(), how.place.branch());
        let mut command = match pass {
            Pass::InitSync => self.scene.gitsync(&["init-sync", "--remote-url", &url]),
            Pass::Sync => self.scene.gitsync(&["sync"]),
            Pass::Tick => self.scene.gitsync(&["tick", "--", "sh", "-c", &job]),
        };
        command.env("GIT_SYNC_REPO", self.home(at));
        command.env("GIT_SYNC_REMOTE", how.place.remote()).env("GIT_SYNC_BRANCH", how.place.branch());
        if self.is_alpha(at, how) {
            command.env("GIT_SYNC_ALPHA", "true");
        }
        how.clock.set_for(&mut command);
        match how.limit {
            Some(limit) => limit.before(&command),
            None => command,
        }
    }

    fn is_alpha(&self, at: usize, how: How) -> bool {
        (at == ALPHA) != how.other_mode
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

    fn tip(&self, of: Place) -> Option<Oid> {
        let git = Repository::open(self.remote_dir(of.remote)).unwrap();
        git.refname_to_id(&format!("refs/heads/{}", of.branch())).ok()
    }

    fn tips(&self) -> BTreeMap<Place, Option<Oid>> {
        let all = (0..REMOTES.len()).flat_map(|remote| (0..BRANCHES.len()).map(move |branch| Place { remote, branch }));
        all.map(|place| (place, self.tip(place))).collect()
    }

    fn contains(&self, dir: &Path, tip: Oid, commit: Oid) -> bool {
        let git = Repository::open(dir).unwrap();
        tip == commit || git.graph_descendant_of(tip, commit).unwrap_or(false)
    }

    pub fn take(&mut self, step: &Step) -> Result<(), String> {
        self.count += 1;
        self.story.push_str(&format!("\n## {} {step:?}\n", self.count));
        let text = format!("version {}\n", self.count);
        match *step {
            Step::PersonPushes { to, path } => self.pushes(to, path, &text, &[]),
            Step::PersonRewrites { to, path } => self.pushes(to, path, &text, &["--amend"]),
            Step::PersonRewinds { to, by } => self.rewinds(to, by),
            Step::PersonDeletesBranch => {
                self.scene.rival_deletes_branch();
                let _ = self.scene.git_command(&self.scene.rival()).args(["fetch", "-q", "--prune"]).status();
            }
            Step::PersonEdits { at, path } => self.edits(at, PATHS[path], &text),
            Step::PersonRemoves { at, path } => {
                let file = self.home(at).join(PATHS[path]);
                if file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    self.oracles[at].forget_version(Path::new(PATHS[path]));
                    fs::remove_file(file).unwrap();
                }
            }
            Step::PersonStages { at } => {
                let _ = self.scene.git_command(&self.home(at)).args(["add", "-A"]).output().unwrap();
            }
            Step::PersonCommits { at } => self.commits(at),
            Step::Runs { at, pass, how } => return self.passes(at, pass, how, None),
            Step::Struck { at, pass, how, call, n, blow } => {
                let blows =
                    [Blow::Kill, Blow::Kill, Blow::Kill, Blow::Once("EIO"), Blow::From("ENOSPC"), Blow::Once("ENOSPC")];
                // A file that can't be removed is a leftover that nobody can help.
                let blow = if CALLS[call].starts_with("unlink") { Blow::Kill } else { blows[blow] };
                let point = Point { child: None, call: CALLS[call].to_owned(), n, blow };
                return self.passes(at, pass, how, Some(point));
            }
            Step::Settles { at } => return self.settles(at),
        }
        Ok(())
    }

    /// The rival stands on a remote's branch.
    fn rival_takes_in(&self, place: Place) {
        let (s, rival) = (&self.scene, self.scene.rival());
        s.git_in(&rival, &["fetch", "-q", "--prune", place.remote()]);
        if self.tip(place).is_some() {
            s.git_in(&rival, &["reset", "-q", "--hard", &format!("{}/{}", place.remote(), place.branch())]);
        }
    }

    fn rival_forces(&self, place: Place, what: &str) {
        let refspec = format!("{what}:refs/heads/{}", place.branch());
        self.scene.git_in(&self.scene.rival(), &["push", "-q", "--force", place.remote(), &refspec]);
    }

    fn pushes(&mut self, to: Place, path: usize, text: &str, amend: &[&str]) {
        self.rival_takes_in(to);
        let (s, rival) = (&self.scene, self.scene.rival());
        put(&rival, PATHS[path], text);
        s.git_in(&rival, &["add", "-A"]);
        s.git_in(&rival, &[&["commit", "-q", "--allow-empty", "-m", text.trim()], amend].concat());
        self.rival_forces(to, "HEAD");
        self.trust();
    }

    fn rewinds(&mut self, to: Place, by: usize) {
        self.rival_takes_in(to);
        let older = format!("HEAD~{by}");
        let there = self.scene.git_command(&self.scene.rival()).args(["rev-parse", "-q", "--verify", &older]).output();
        if self.tip(to).is_some() && there.unwrap().status.success() {
            self.rival_forces(to, &older);
        }
    }

    fn edits(&mut self, at: usize, path: &str, text: &str) {
        let home = self.home(at);
        self.oracles[at].forget_version(Path::new(path));
        put(&home, path, text);
    }

    fn commits(&mut self, at: usize) {
        let home = self.home(at);
        let git = |args: &[&str]| self.scene.git_command(&home).args(args).output().unwrap().status.success();
        // A person can't commit while a killed pass's lock is there, nor without a branch.
        let head = format!("by hand {}", self.count);
        if git(&["add", "-A"]) && git(&["commit", "-q", "-m", &head]) {
            let id = self.scene.rev(&home, "HEAD");
            for oracle in &mut self.oracles {
                oracle.trust(&id);
            }
        }
    }

    fn passes(&mut self, at: usize, pass: Pass, how: How, point: Option<Point>) -> Result<(), String> {
        let home = self.home(at);
        let mut complaints = Vec::new();
        self.oracles[at].remember_at(&home, &format!("before step {}", self.count));
        let before = self.tips();
        let marker = self.marker(at);
        let may_force = self.is_alpha(at, how) || (marker.is_some() && self.marked[at] == Some(how.place));
        let _lying = how.lie.map(|number| odds::Lie::tell(&self.scene, number));
        let command = self.command(at, pass, how);
        let said = match &point {
            Some(point) => {
                let log = self.scene.root().join("trace");
                let hit = sweep::strike_one(&command, &log, point, &mut complaints);
                self.story.push_str(&hit.story);
                self.struck += usize::from(hit.struck);
                odds::end_all_in(&home);
                if point.blow != Blow::Kill {
                    sweep::a_minute_passes(&home.join(".git"));
                }
                if how.limit.is_some() {
                    // What the limit did is not what the blow did.
                    complaints.clear();
                }
                hit.said
            }
            None => {
                let mut command = command;
                let out = command.output().unwrap();
                let said = String::from_utf8_lossy(&out.stdout).into_owned();
                self.story.push_str(&format!("{}: {said}{}", out.status, String::from_utf8_lossy(&out.stderr)));
                if !matches!(out.status.code(), Some(0 | 1 | 75)) {
                    match how.limit {
                        Some(limit) if limit.may_end_it(out.status) => odds::end_all_in(&home),
                        _ => complaints.push(format!("it ends with {}", out.status)),
                    }
                }
                if how.limit.is_some() {
                    // It may have failed before it came to clear what a killed pass had left.
                    sweep::a_minute_passes(&home.join(".git"));
                }
                said
            }
        };
        drop(_lying);
        if self.marker(at) != marker {
            self.marked[at] = Some(how.place);
        }
        if home.join(".git/gitsync/broken").exists() {
            complaints.push("G7: a repository was put aside, and nothing in this world damages one".to_owned());
        }
        complaints.extend(self.remotes_moved(at, how, &before, &said, may_force));
        self.oracles[at].remember_at(&home, &format!("after step {}", self.count));
        complaints.extend(self.oracles[at].complaints_at(&self.scene, &home, None, &["state", "audit"]));
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
    }

    /// G3 and G4, after a pass.
    fn remotes_moved(
        &self,
        at: usize,
        how: How,
        before: &BTreeMap<Place, Option<Oid>>,
        said: &str,
        may_force: bool,
    ) -> Vec<String> {
        let home = self.home(at);
        let mut complaints = Vec::new();
        let git = Repository::open(&home).unwrap();
        let ours = git.refname_to_id(&format!("refs/heads/{}", how.place.branch())).ok();
        if said == "pushed\n" && ours != self.tip(how.place) {
            complaints.push("G4: it says pushed, and the remote has not what we have".to_owned());
        }
        for (place, now) in self.tips() {
            let before = before[&place];
            if now == before {
                continue;
            }
            if place != how.place {
                complaints.push(format!("G3: a pass for {:?} moved {place:?} from {before:?} to {now:?}", how.place));
            }
            let Some(before) = before else { continue };
            if now.is_some_and(|now| self.contains(&self.remote_dir(place.remote), now, before)) {
                continue;
            }
            if !may_force {
                complaints.push(format!("G3: non-alpha moved {place:?} from {before} to {now:?}"));
            }
            let kept = oracle::reachable_by(&git, |name| keeps(name) && !name.starts_with("refs/remotes/"));
            if !kept.contains(&before) {
                complaints.push(format!("G3: {before} was overwritten and not rescued"));
            }
        }
        complaints
    }

    /// Whether a pass for `main` would refuse to work there, so that a person runs init-sync.
    fn needs_a_person(&self, at: usize) -> bool {
        let git = Repository::open(self.home(at)).unwrap();
        let head = git.find_reference("HEAD").unwrap();
        head.symbolic_target().ok().flatten() != Some("refs/heads/main") || git.state() != RepositoryState::Clean
    }

    fn settles(&mut self, at: usize) -> Result<(), String> {
        let (home, how) = (self.home(at), How::default());
        if self.needs_a_person(at) {
            self.passes(at, Pass::InitSync, how, None)?;
        }
        self.passes(at, Pass::Sync, how, None)?;
        self.passes(at, Pass::Sync, how, None)?;
        let before = scene::snapshot_of(&home);
        let out = self.command(at, Pass::Sync, how).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        self.story.push_str(&format!("third: {said} {}", String::from_utf8_lossy(&out.stderr)));
        let written = sweep::written(&before, &scene::snapshot_of(&home));
        // What a job's own git was writing when it was ended is git's to remove.
        let by_git = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("tmp_");
        let mut left = oracle::leftovers(&home.join(".git"));
        left.retain(|path| !by_git(path) || path.to_string_lossy().contains("_git2_"));
        if !written.is_empty() || !left.is_empty() {
            return Err(format!("G7: the third pass writes {written:?}; left behind: {left:?}"));
        }
        let git = Repository::open(&home).unwrap();
        let (ours, theirs) = (git.refname_to_id("refs/heads/main").ok(), self.tip(how.place));
        let marked = self.marker(at).is_some() && self.marked[at] == Some(how.place);
        let as_it_should = match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => said == "up-to-date" && !marked,
            (Some(ours), Some(theirs)) if self.contains(&home, ours, theirs) => {
                // Where the remote took commits back that alpha still has, the histories have parted.
                said == "ahead" || (said == "diverged" && marked && at == ALPHA)
            }
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

    /// G1 and G2 once more, where references alone keep anything: no reflog, no unreachable object.
    pub fn end(&mut self) -> Result<(), String> {
        for at in 0..INSTANCES {
            let home = self.home(at);
            let forget = "git reflog expire --expire=now --expire-unreachable=now HEAD \
                          $(git for-each-ref --format='%(refname)' refs/heads refs/remotes); git gc -q --prune=now";
            let out = self.scene.isolated("sh").args(["-c", forget]).current_dir(&home).output().unwrap();
            self.story.push_str(&format!("\n## the end: {}\n", String::from_utf8_lossy(&out.stderr)));
            let complaints = self.oracles[at].complaints_at(&self.scene, &home, None, &["state", "audit"]);
            if !complaints.is_empty() {
                return Err(complaints.join("\n"));
            }
        }
        let bad: Vec<String> =
            (0..REMOTES.len()).filter_map(|remote| oracle::fsck(&self.scene, &self.remote_dir(remote))).collect();
        if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
    }

    /// What the references of an instance hold, for a person who looks for what went wrong.
    pub fn history(&self, at: usize) -> String {
        self.scene.git_in(&self.home(at), &["log", "--all", "--stat", "--oneline"])
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
