//! What should not cost more in a large repository: a pass with nothing to do, along each axis, and a start after damage.

use std::path::Path;
use std::process::Command;

use super::Row;
use super::against_git::{Remote, Way, thousands};
use super::no_op::{fetch_all, many_refs};
use crate::entry::{Entry, FLAT};
use crate::place::{self, Shape};
use crate::rivals::Who;
use crate::scale::Scale;
use crate::servers::git;
use crate::turns;

/// What there is much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Refs,
    Files,
    Commits,
    Packs,
    LooseObjects,
    Rescues,
}

pub fn rows(scale: Scale) -> Vec<Row> {
    let axes = [
        (Axis::Refs, 100_000),
        (Axis::Files, 100_000),
        (Axis::Commits, 100_000),
        (Axis::Packs, 2000),
        (Axis::LooseObjects, 50_000),
        (Axis::Rescues, 1000),
    ];
    let mut rows: Vec<Row> = axes
        .into_iter()
        .map(|(axis, full)| {
            let n = scale.size(full);
            Row::new(format!("flat/{}", axis.word()), move || no_op(scale, axis, n))
        })
        .collect();
    let n = scale.size(300);
    rows.push(Row::new("heal/rescues", move || after_damage(scale, n)));
    rows
}

impl Axis {
    fn word(self) -> &'static str {
        match self {
            Self::Refs => "refs",
            Self::Files => "files",
            Self::Commits => "commits",
            Self::Packs => "packs",
            Self::LooseObjects => "loose",
            Self::Rescues => "rescues",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::LooseObjects => "loose objects",
            axis => axis.word(),
        }
    }
}

fn small() -> Remote {
    let remote = Remote::new(Shape::site(100), Way::Http);
    remote.stage.starting_point(&remote.dir(Who::Gitsync));
    remote
}

fn large(axis: Axis, n: usize) -> Remote {
    let shape = match axis {
        Axis::Files => Shape::site(n),
        Axis::Commits => Shape { commits: n, ..Shape::site(100) },
        _ => Shape::site(100),
    };
    let remote = Remote::new(shape, Way::Http);
    let dir = remote.dir(Who::Gitsync);
    remote.stage.starting_point(&dir);
    match axis {
        Axis::Refs => {
            many_refs(&remote, n);
            fetch_all(&remote.stage, &dir);
        }
        Axis::Files | Axis::Commits => {}
        Axis::Packs => many_packs(&dir, n),
        Axis::LooseObjects => {
            let repo = git2::Repository::open(&dir).unwrap();
            for i in 0..n {
                repo.blob(format!("loose {i}\n").as_bytes()).unwrap();
            }
        }
        Axis::Rescues => rescues(&dir, n, 0),
    }
    remote
}

/// Packs of one object each.
fn many_packs(dir: &Path, count: usize) {
    let repo = git2::Repository::open(dir).unwrap();
    let memory = git2::Repository::open(dir).unwrap();
    let odb = memory.odb().unwrap();
    odb.add_new_mempack_backend(1000).unwrap();
    for i in 0..count {
        let id = odb.write(git2::ObjectType::Blob, format!("packed {i}\n").as_bytes()).unwrap();
        let mut pack = memory.packbuilder().unwrap();
        pack.insert_object(id, None).unwrap();
        pack.write(&repo.path().join("objects/pack"), 0o444).unwrap();
    }
}

/// Rescues with a commit and a file each, `apart` commits from one another.
fn rescues(dir: &Path, count: usize, apart: usize) {
    place::import(dir, |stream| {
        (0..count).try_for_each(|i| {
            let (minute, second) = (i / 60, i % 60);
            let name =
                format!("refs/gitsync/rescue/20261101T{:02}{:02}{second:02}Z-local-{i:07x}", minute / 60, minute % 60);
            place::head(stream, &name, 2_000_000 + i)?;
            writeln!(stream, "from refs/heads/main~{}", i * apart)?;
            place::inline(stream, &format!("own{i}"), format!("{i}\n").as_bytes())
        })
    });
}

fn no_op(scale: Scale, axis: Axis, n: usize) -> Vec<Entry> {
    let (small, large) = (small(), large(axis, n));
    let runs = turns::take(scale.rounds(25), 3, |_, turn| {
        let (remote, who) = match turn {
            0 => (&large, Who::Gitsync),
            1 => (&small, Who::Gitsync),
            _ => (&large, Who::Git),
        };
        remote.stage.poll(who, &remote.dir(Who::Gitsync))
    });
    let name = format!("no-op with {} {}", thousands(n), axis.noun());
    let key = format!("flat/{}", axis.word());
    let most = scale.wanted(1.2);
    vec![
        Entry::pair(FLAT, &key, &name, &runs[0], "the same in a small repository", &runs[1]).wanted(most),
        Entry::pair(FLAT, &format!("{key}-git"), &name, &runs[0], "git fetch, git rev-parse twice", &runs[2]),
    ]
}

/// init-sync of a repository whose newest tree is gone, with rescues and without.
fn after_damage(scale: Scale, count: usize) -> Vec<Entry> {
    let commits = scale.size(3000).max(count);
    let remote = Remote::new(Shape { commits, ..Shape::site(100) }, Way::Http);
    let root = remote.root.path();
    let templates = ["few", "many"].map(|name| root.join(name));
    for (dir, count) in templates.iter().zip([0, count]) {
        remote.stage.starting_point(dir);
        rescues(dir, count, (commits - 1) / count.max(1));
        std::fs::write(dir.join("state/own"), "own\n").unwrap();
        let commit = "git add -A; git commit -qm own";
        assert!(remote.stage.command("sh", dir).args(["-ec", commit]).status().unwrap().success());
        let tree = git(dir, &["rev-parse", "HEAD^{tree}"]);
        std::fs::remove_file(dir.join(format!(".git/objects/{}/{}", &tree[..2], &tree[2..]))).unwrap();
    }
    let dir = root.join("ours");
    let runs = turns::take(scale.rounds(5), 2, |_, who| {
        let _ = std::fs::remove_dir_all(&dir);
        let copied = Command::new("cp").arg("-a").arg(&templates[1 - who]).arg(&dir).status().unwrap();
        assert!(copied.success());
        remote.stage.gitsync(&dir, &["init-sync"])
    });
    assert!(dir.join(".git/gitsync/broken").exists());
    let name = format!("init-sync after damage, {count} rescues, {} commits", thousands(commits));
    let entry = Entry::pair(FLAT, "heal/rescues", name, &runs[0], "the same with no rescue", &runs[1]);
    vec![entry.wanted(scale.wanted(1.5))]
}
