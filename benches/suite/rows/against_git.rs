//! Clone, follow, tick and large transfers, next to git's own commands, at growing sizes.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Row;
use crate::entry::{AGAINST_GIT, Entry, LIMITS, TRANSFERS};
use crate::place::{self, Shape};
use crate::rivals::{BOTH, Stage, Who};
use crate::scale::Scale;
use crate::servers::http::HttpServer;
use crate::turns::{self, Runs};

/// By which way the remote is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Http,
    Path,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Path => "path",
        }
    }
}

/// An upstream with its server, as contenders see it.
pub struct Remote {
    pub root: TempDir,
    pub stage: Stage,
    pub server: HttpServer,
}

impl Remote {
    pub fn new(shape: Shape, way: Way) -> Self {
        let root = place::upstream(shape);
        let server = HttpServer::lean(root.path(), false);
        let url = match way {
            Way::Http => server.url(),
            Way::Path => root.path().join("repo.git").display().to_string(),
        };
        let stage = Stage::new(root.path(), url);
        Self { root, stage, server }
    }

    pub fn bare(&self) -> PathBuf {
        self.root.path().join("repo.git")
    }

    /// A folder of one contender.
    pub fn dir(&self, who: Who) -> PathBuf {
        self.root.path().join(if who == Who::Gitsync { "ours" } else { "theirs" })
    }
}

pub fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for (files, most) in [(100, Some(0.5)), (1000, None), (10_000, Some(0.9)), (100_000, Some(0.8))] {
        let (n, wanted) = (scale.size(files), most.and_then(|most| scale.wanted(most)));
        rows.push(Row::new(format!("clone/{n}"), move || clone(scale, n, Way::Http, wanted)));
    }
    let n = scale.size(10_000);
    rows.push(Row::new(format!("clone-path/{n}"), move || clone(scale, n, Way::Path, None)));
    for (changed, files, most) in [
        (10, 100, None),
        (10, 1000, None),
        (10, 10_000, Some(0.6)),
        (10, 100_000, Some(0.6)),
        (10_000, 10_000, Some(0.9)),
        (10_000, 100_000, Some(0.8)),
    ] {
        let (k, n, wanted) = (scale.size(changed), scale.size(files), most.and_then(|most| scale.wanted(most)));
        rows.push(Row::new(format!("follow/{k}-of-{n}"), move || follow(scale, k, n, Way::Http, wanted)));
    }
    let k = scale.size(10);
    rows.push(Row::new(format!("follow-path/{k}-of-{n}"), move || follow(scale, k, n, Way::Path, None)));
    for (files, most) in [(100, Some(0.5)), (1000, None), (10_000, Some(0.5)), (100_000, Some(0.5))] {
        let (n, wanted) = (scale.size(files), most.and_then(|most| scale.wanted(most)));
        rows.push(Row::new(format!("tick/{n}"), move || tick(scale, Shape::site(n), Way::Http, wanted)));
    }
    for (files, most) in [(10_000, 0.5), (100_000, 0.5)] {
        let (n, wanted) = (scale.size(files), scale.wanted(most));
        let shape = Shape { under: "state", ..Shape::site(n) };
        rows.push(Row::new(format!("tick-inside/{n}"), move || tick(scale, shape, Way::Http, wanted)));
    }
    rows.push(Row::new(format!("tick-path/{n}"), move || tick(scale, Shape::site(n), Way::Path, None)));
    let (megabytes, wanted) = (scale.size(120), scale.wanted(0.9));
    rows.push(Row::new(format!("push/{megabytes}MB"), move || push(scale, megabytes, wanted)));
    let megabytes = scale.size(200);
    rows.push(Row::new(format!("transfer/{megabytes}MB"), move || transfer(megabytes)));
    rows
}

fn rounds(scale: Scale, files: usize) -> usize {
    scale.rounds(match files {
        0..=1000 => 21,
        1001..=10_000 => 11,
        _ => 5,
    })
}

fn entry(key: String, name: String, runs: &[Runs], wanted: Option<f64>) -> Entry {
    Entry::pair(AGAINST_GIT, &key, name, &runs[0], "git", &runs[1]).wanted(wanted)
}

/// Peaks below this program's own can't be told apart.
fn peak(key: &str, name: String, runs: &[Runs], wanted: Option<f64>) -> Entry {
    let [ours, theirs] = [&runs[0], &runs[1]].map(|runs| runs.peak().max(turns::own_peak()) as f64 / 1e6);
    Entry::figure(LIMITS, key, name, ours, "MB").beside("git", theirs).wanted(wanted)
}

fn clone(scale: Scale, files: usize, way: Way, wanted: Option<f64>) -> Vec<Entry> {
    let remote = Remote::new(Shape::site(files), way);
    let runs = turns::take(rounds(scale, files), 2, |_, who| {
        let dir = remote.dir(BOTH[who]);
        let _ = std::fs::remove_dir_all(&dir);
        remote.stage.clone(BOTH[who], &dir)
    });
    assert!(remote.dir(Who::Gitsync).join(place::path("site", files - 1)).exists());
    let key = format!("clone{}/{files}", if way == Way::Path { "-path" } else { "" });
    let name = format!("clone of {} files over {}", thousands(files), way.word());
    let most = scale.wanted(80.0).filter(|_| files >= 100_000);
    let memory = peak(&format!("{key}-memory"), format!("peak memory, {name}"), &runs, most);
    vec![entry(key, name, &runs, wanted), memory]
}

fn follow(scale: Scale, changed: usize, files: usize, way: Way, wanted: Option<f64>) -> Vec<Entry> {
    let shape = Shape::site(files);
    let remote = Remote::new(shape, way);
    BOTH.iter().for_each(|who| remote.stage.starting_point(&remote.dir(*who)));
    let mut advanced = None;
    let runs = turns::take(rounds(scale, files), 2, |round, who| {
        if advanced != Some(round) {
            advanced = Some(round);
            place::advance(&remote.bare(), shape, round, changed);
        }
        remote.stage.follow(BOTH[who], &remote.dir(BOTH[who]))
    });
    same_files(&remote);
    let key = format!("follow{}/{changed}-of-{files}", if way == Way::Path { "-path" } else { "" });
    let name = format!("behind by {} of {} files over {}", thousands(changed), thousands(files), way.word());
    vec![entry(key, name, &runs, wanted)]
}

/// Each contender has an upstream of its own, since both push.
fn tick(scale: Scale, shape: Shape, way: Way, wanted: Option<f64>) -> Vec<Entry> {
    let remotes = BOTH.map(|_| Remote::new(shape, way));
    for (remote, who) in remotes.iter().zip(BOTH) {
        remote.stage.starting_point(&remote.dir(who));
    }
    let runs = turns::take(rounds(scale, shape.files), 2, |round, who| {
        let (remote, who) = (&remotes[who], BOTH[who]);
        remote.stage.tick(who, &remote.dir(who), &format!("echo round {round} >state/now"))
    });
    remotes.iter().zip(BOTH).for_each(|(remote, who)| is_pushed(remote, who));
    let (inside, files) = (shape.under == "state", shape.files);
    let kind = if inside { "-inside" } else { "" };
    let kind = if way == Way::Path { "-path" } else { kind };
    let within = if inside { "in `state/`" } else { "elsewhere" };
    let name = format!("tick, one small change, {} files {within}, over {}", thousands(files), way.word());
    vec![entry(format!("tick{kind}/{files}"), name, &runs, wanted)]
}

/// A job that moves large files into the work tree, which takes no time itself.
fn large(root: &Path, round: usize, megabytes: usize) -> String {
    let files = place::large_files(root.join("large").join(round.to_string()), round, megabytes);
    format!("mv {} state/{round}", files.display())
}

fn push(scale: Scale, megabytes: usize, wanted: Option<f64>) -> Vec<Entry> {
    let remotes = BOTH.map(|_| Remote::new(Shape::site(100), Way::Http));
    for (remote, who) in remotes.iter().zip(BOTH) {
        remote.stage.starting_point(&remote.dir(who));
    }
    let runs = turns::take(scale.rounds(3), 2, |round, who| {
        let (remote, who) = (&remotes[who], BOTH[who]);
        let job = large(remote.root.path(), round, megabytes);
        remote.stage.tick(who, &remote.dir(who), &job)
    });
    remotes.iter().zip(BOTH).for_each(|(remote, who)| is_pushed(remote, who));
    let name = format!("commit and push of {megabytes} MB in files of 1 MB over http");
    vec![entry(format!("push/{megabytes}MB"), name, &runs, wanted)]
}

/// A push alone and a fetch alone, once each: what counts is the memory.
fn transfer(megabytes: usize) -> Vec<Entry> {
    let remotes = BOTH.map(|_| Remote::new(Shape::site(100), Way::Http));
    let mut entries = Vec::new();
    let [mut pushes, mut fetches] = [Vec::new(), Vec::new()];
    for (remote, who) in remotes.iter().zip(BOTH) {
        let (stage, dir) = (&remote.stage, remote.dir(who));
        stage.starting_point(&dir);
        let job = large(remote.root.path(), 0, megabytes);
        // Committed by git, so that the push alone is what the timed pass does.
        let commit = format!("{job}; git add state; git commit -qm large");
        assert!(stage.command("sh", &dir).args(["-ec", &commit]).status().unwrap().success());
        let mut push = match who {
            Who::Gitsync => stage.tick(who, &dir, "true"),
            Who::Git => stage.command("git", &dir),
        };
        if who == Who::Git {
            push.args(["push", "-q", "origin", "main"]);
        }
        pushes.push(Runs(vec![turns::timed(&mut push)]));
        is_pushed(remote, who);
        let other = remote.root.path().join("other");
        fetches.push(Runs(vec![turns::timed(&mut stage.clone(who, &other))]));
    }
    for (word, name, runs) in [("push", "push", pushes), ("fetch", "clone", fetches)] {
        let key = format!("transfer/{megabytes}MB-{word}");
        let name = format!("{name} of {megabytes} MB over http");
        entries.push(Entry::pair(TRANSFERS, &key, name.clone(), &runs[0], "git", &runs[1]));
        entries.push(peak(&format!("{key}-memory"), format!("peak memory, {name}"), &runs, None));
    }
    entries
}

/// Both contenders have the same files, and gitsync's are clean.
fn same_files(remote: &Remote) {
    let tip = |dir: &Path| crate::servers::git(dir, &["rev-parse", "main"]);
    let ours = remote.dir(Who::Gitsync);
    assert_eq!(tip(&ours), tip(&remote.bare()));
    assert_eq!(tip(&ours), tip(&remote.dir(Who::Git)));
    assert_eq!(crate::servers::git(&ours, &["status", "--porcelain"]), "");
}

fn is_pushed(remote: &Remote, who: Who) {
    let tip = |dir: &Path| crate::servers::git(dir, &["rev-parse", "main"]);
    assert_eq!(tip(&remote.dir(who)), tip(&remote.bare()));
}

/// 100,000 as people read it.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
