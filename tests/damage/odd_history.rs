//! Histories that git takes and libgit2 does not: modes and identities of another time. They are followed as git follows them,
//! and nothing of ours is made in their way.

use std::io::Write;
use std::process::Stdio;

use crate::scene::Scene;

fn object(s: &Scene, kind: &str, bytes: &[u8]) -> String {
    let mut git = s.git_command(&s.upstream());
    git.args(["hash-object", "-t", kind, "-w", "--literally", "--stdin"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    git.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = git.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn tree(s: &Scene, entries: &[(&str, &str, &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend(format!("{mode} {name}\0").bytes());
        bytes.extend((0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()));
    }
    object(s, "tree", &bytes)
}

/// People that git reads and libgit2 does not, or that have dates no clock showed.
const PEOPLE: &[&str] = &[
    "nobody 1700000000 +0000",
    "nobody nobody@example.org> 1700000000 +0000",
    "nobody <nobody@example.org 1700000000 +0000",
    "nobody <> 99999999999999999999999 +0000",
    "nobody <n@example.org> -1 +0000",
    "nobody <n@example.org> never",
    "",
    "<n@example.org> 1700000000 +9999",
];

/// Trees with modes that git wrote long ago, or that other programs write.
fn odd_tree(s: &Scene) -> String {
    let (one, two) = (object(s, "blob", b"one\n"), object(s, "blob", b"two\n"));
    let state = tree(s, &[("100664", "a", &one), ("100664", "b", &two)]);
    let docs = tree(s, &[("100664", "page", &one), ("100755", "run", &two), ("100600", "secret", &two)]);
    tree(
        s,
        &[("100664", "README", &one), ("040000", "docs", &docs), ("100775", "run", &two), ("40000", "state", &state)],
    )
}

/// An upstream with this tree in its tip and such people in the history, a commit of a person's on top or not.
fn odd_upstream(author: &str, committer: &str, odd_tip: bool) -> Scene {
    let s = Scene::empty_upstream();
    let tree = odd_tree(&s);
    let mut tip = String::new();
    for number in 0..3 {
        let parent = if tip.is_empty() { String::new() } else { format!("parent {tip}\n") };
        tip = object(
            &s,
            "commit",
            format!("tree {tree}\n{parent}author {author}\ncommitter {committer}\n\nodd {number}\n").as_bytes(),
        );
    }
    if !odd_tip {
        tip = s.git_upstream(&["commit-tree", &tree, "-p", &tip, "-m", "sound"]);
    }
    s.git_upstream(&["update-ref", "refs/heads/main", &tip]);
    s
}

const SOUND: &str = "A. Person <person@example.org> 1700000000 +0000";

/// Modes alone, an address and a date that libgit2 gives up at.
fn some_oddities(of: impl Fn(&dyn Fn() -> Scene)) {
    for odd_tip in [true, false] {
        for person in [SOUND, PEOPLE[0], PEOPLE[3]] {
            of(&|| odd_upstream(person, person, odd_tip));
        }
    }
}

fn each_oddity(of: impl Fn(&dyn Fn() -> Scene)) {
    for odd_tip in [true, false] {
        of(&|| odd_upstream(SOUND, SOUND, odd_tip));
        for person in PEOPLE {
            of(&|| odd_upstream(person, person, odd_tip));
        }
        of(&|| odd_upstream(PEOPLE[0], SOUND, odd_tip));
        of(&|| odd_upstream(SOUND, PEOPLE[0], odd_tip));
    }
}

/// The remote gets a commit on its tip that changes one file.
fn rival_changes(s: &Scene, path: &str, text: &str) {
    s.git_in(&s.rival(), &["fetch", "-q"]);
    s.git_in(&s.rival(), &["reset", "-q", "--hard", "origin/main"]);
    s.rival_writes(path, text).rival_commits("rival");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
}

#[test]
fn an_odd_history_is_followed_and_built_upon() {
    each_oddity(|scene| {
        let s = scene();
        s.init_sync().exits(0).says("cloned").ours_equals_upstream().our_file("README", "one\n");
        s.sync().exits(0).says("up-to-date");
        s.init_sync().exits(0).says("up-to-date");
        let docs = s.rev(&s.ours(), "HEAD:docs");
        s.tick().exits(0).says("no-changes");
        s.tick_with("echo 1 > state/a").exits(0).says("pushed").ours_equals_upstream();
        assert_eq!(s.git_ours(&["diff", "--name-only", "HEAD~1", "HEAD"]), "state/a");
        // What git leaves as it is stays; what it writes anew it writes in modes of today.
        assert_eq!(s.rev(&s.ours(), "HEAD:docs"), docs);
        let raw = s.git_ours(&["cat-file", "-p", "HEAD:state"]);
        assert!(raw.lines().all(|line| line.starts_with("100644 ")), "{raw}");
        rival_changes(&s, "state/rival", "1\n");
        s.sync().exits(0).says("behind").ours_equals_upstream();
        s.init_sync().exits(0).says("up-to-date");
        assert!(!s.private().join("broken").exists());
        assert!(s.rescues("").is_empty(), "{:?}", s.rescues(""));
    });
}

#[test]
fn histories_that_parted_on_an_odd_one_are_judged_by_the_rule() {
    some_oddities(|scene| {
        let s = scene();
        s.init_sync().exits(0);
        s.we_commit("state/ours");
        let ours = s.our_tip();
        s.we_write("docs/page", "uncommitted\n");
        rival_changes(&s, "state/rival", "1\n");
        s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&ours);
        let rescue = s.rescues("worktree").swap_remove(0);
        assert_eq!(s.git_ours(&["show", &format!("{rescue}:docs/page")]), "uncommitted");
        assert_eq!(s.git_ours(&["diff", "--name-only", &ours, &rescue]), "docs/page");
        s.alpha();
        s.we_commit("state/alpha");
        rival_changes(&s, "state/rival", "2\n");
        let theirs = s.upstream_tip();
        s.tick_with("echo 1 > state/a").exits(0).says("pushed").ours_equals_upstream().is_kept(&theirs);
    });
}

/// The odd commits are ours alone then, as far as the remote's branch tells, and libgit2 can't pack them. No push was ever made.
#[test]
fn alpha_overwrites_a_remote_that_took_an_odd_history_back() {
    some_oddities(|scene| {
        let s = scene();
        s.init_sync().exits(0);
        s.we_commit("state/ours");
        let tree = s.rev(&s.upstream(), "main^{tree}");
        let theirs = s.git_upstream(&["commit-tree", &tree, "-m", "begun anew"]);
        s.git_upstream(&["update-ref", "refs/heads/main", &theirs]);
        s.alpha();
        s.tick_with("echo 1 > state/a").exits(0).says("pushed").ours_equals_upstream().is_kept(&theirs);
    });
}

#[test]
fn our_commits_are_replayed_on_an_odd_history() {
    some_oddities(|scene| {
        let s = scene();
        s.init_sync().exits(0);
        s.arg("--on-divergence").arg("rebase");
        s.we_commit("state/ours").we_commit("state/ours-2");
        rival_changes(&s, "state/rival", "1\n");
        s.sync().exits(0).says("diverged").logs("replayed");
        s.work_tree_is_clean();
        s.tick_with("echo 1 > state/a").exits(0).says("pushed").ours_equals_upstream();
        s.upstream_file("state/rival", "1\n").upstream_file("state/a", "1\n");
        assert_eq!(s.git_ours(&["show", "--format=", "--name-only", "HEAD~1"]), "state/ours-2");
        let docs = s.git_ours(&["cat-file", "-p", "HEAD:docs"]);
        assert!(docs.contains("page"), "{docs}");
    });
}
