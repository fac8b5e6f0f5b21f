//! The force-push-pending marker says what it was set for, and is only that (G3).

use std::fs;
use std::path::{Path, PathBuf};

use crate::scene::{Scene, write};
use serde_json::Value;

const NAME: &str = "force-push-pending";

fn marker_of(s: &Scene) -> Value {
    serde_json::from_str(&fs::read_to_string(s.private().join(NAME)).unwrap()).unwrap()
}

/// Alpha has seen that `main` parted, and marked it. From here on this instance is non-alpha.
fn marked() -> Scene {
    let s = Scene::new();
    s.alpha().we_commit("a.txt").rival_pushes("b.txt").sync().exits(0).says("diverged").marker_is(true);
    s.non_alpha();
    s
}

/// A second upstream, whose branch stands where the first one's did, and then went on by itself.
fn another_upstream(s: &Scene) -> PathBuf {
    let other = s.root().join("other.git");
    s.git_in(s.root(), &["clone", "-q", "--bare", "upstream.git", "other.git"]);
    other
}

fn main_of(s: &Scene, upstream: &Path) -> String {
    s.rev(upstream, "refs/heads/main")
}

#[test]
fn a_marker_says_branch_remote_url_and_both_tips() {
    let s = marked();
    let marker = marker_of(&s);
    assert_eq!((&marker["branch"], &marker["remote"]), (&"main".into(), &"origin".into()));
    assert_eq!(marker["url"], s.upstream().to_str().unwrap());
    assert_eq!((&marker["local"], &marker["remote_tip"]), (&s.our_tip().into(), &s.upstream_tip().into()));
}

#[test]
fn a_marker_holds_no_secret() {
    let s = Scene::new();
    s.git_ours(&["config", "remote.origin.pushurl", "https://someone:hunter2@example.invalid/x.git"]);
    s.alpha().we_commit("a.txt").rival_pushes("b.txt").sync().exits(0).says("diverged").marker_is(true);
    let text = fs::read_to_string(s.private().join(NAME)).unwrap();
    assert!(text.contains("example.invalid/x.git") && !text.contains("hunter2"), "{text}");
    s.run(&["status"]).exits(0);
    assert!(!s.last().stdout.contains("hunter2"), "{}", s.last());
}

#[test]
fn it_is_alpha_for_what_it_was_set_for() {
    let s = marked();
    let theirs = s.upstream_tip();
    // Our branch went on since: what is pushed contains the marked commit.
    s.we_commit("later.txt").tick_with("echo 1 >state/b").exits(0).says("pushed").ours_equals_upstream();
    s.marker_is(false).is_kept(&theirs).upstream_file("a.txt", "ours 2\n");
}

#[test]
fn it_forces_no_other_branch() {
    let s = marked();
    s.git_in(&s.rival(), &["push", "-q", "origin", "main:other"]);
    s.git_ours(&["switch", "-q", "-c", "other"]);
    s.we_commit("mine.txt");
    let (main, theirs) = (s.upstream_tip(), s.rev(&s.upstream(), "other"));
    s.run(&["tick", "--branch", "other", "--", "true"]).exits(0).logs("a force push is marked for branch 'main'");
    assert_eq!(s.last().stderr.matches("a force push is marked").count(), 1, "{}", s.last());
    assert_eq!(s.rev(&s.upstream(), "other"), theirs, "{}", s.last());
    // The other branch was followed; the marker stays, and still is what it was.
    s.marker_is(true).logs("accepting remote");
    s.run(&["sync", "--branch", "other"]).exits(0).says("up-to-date").marker_is(true);
    s.run(&["init-sync", "--branch", "other"]).exits(0).marker_is(true);
    assert_eq!(s.upstream_tip(), main);
    s.git_ours(&["switch", "-q", "main"]);
    s.tick().exits(0).says("pushed").ours_equals_upstream().marker_is(false).is_kept(&main);
}

#[test]
fn it_forces_no_other_remote() {
    let s = marked();
    let other = another_upstream(&s);
    s.git_ours(&["remote", "add", "other", other.to_str().unwrap()]);
    let theirs = main_of(&s, &other);
    s.run(&["tick", "--remote", "other", "--", "true"]).exits(0).logs("a force push is marked for").logs("accepting");
    assert_eq!(main_of(&s, &other), theirs, "{}", s.last());
    s.marker_is(true);
}

#[test]
fn it_forces_no_other_url_of_the_same_remote() {
    for key in ["remote.origin.url", "remote.origin.pushurl", "url.OTHER.insteadOf", "url.OTHER.pushInsteadOf"] {
        let s = marked();
        let other = another_upstream(&s);
        let theirs = main_of(&s, &other);
        let (here, there) = (s.upstream(), other.to_str().unwrap().to_owned());
        match key.strip_prefix("url.OTHER.") {
            Some(kind) => s.git_ours(&["config", &format!("url.{there}.{kind}"), here.to_str().unwrap()]),
            None => s.git_ours(&["config", key, &there]),
        };
        s.tick().exits(0).logs("a force push is marked for").logs("accepting remote");
        assert_eq!(main_of(&s, &other), theirs, "{key}: {}", s.last());
    }
}

/// The mode is judged again before the push: a job must not turn the marker against another repository.
#[test]
fn a_job_that_changes_the_url_forces_nothing_there() {
    let s = marked();
    let other = another_upstream(&s);
    let theirs = main_of(&s, &other);
    s.tick_with(&format!("git config remote.origin.pushurl '{}'", other.display())).says("push-failed");
    assert_eq!(main_of(&s, &other), theirs, "{}", s.last());
}

#[test]
fn one_that_takes_the_place_of_a_marker_for_another_remote_says_so() {
    let s = marked();
    s.rival_pushes("c.txt").alpha().sync().exits(0).says("diverged").logs_not("this replaces the force push");
    let other = another_upstream(&s);
    s.git_ours(&["remote", "set-url", "origin", other.to_str().unwrap()]);
    s.sync().exits(0).says("diverged");
    s.logs(&format!("this replaces the force push marked for branch 'main' of origin ({})", s.upstream().display()));
    assert_eq!(marker_of(&s)["url"], other.to_str().unwrap());
}

#[test]
fn a_remote_that_moved_on_since_is_not_overwritten() {
    let s = marked();
    let ours = s.our_tip();
    s.rival_pushes("c.txt");
    let theirs = s.upstream_tip();
    s.tick().exits(0).says("no-changes").logs("a force push is marked for").logs("accepting remote");
    assert_eq!(s.upstream_tip(), theirs);
    s.ours_equals_upstream().marker_is(false).is_kept(&ours);
}

#[test]
fn nor_is_one_that_moves_while_the_tick_runs() {
    let s = marked();
    let in_between = format!(
        "cd '{}' && echo rival >c.txt && git add -A && git commit -qm 'in between' && git push -q origin main",
        s.rival().display()
    );
    s.tick_with(&in_between).exits(75).says("push-failed");
    let theirs = s.rev(&s.rival(), "main");
    assert_eq!(s.upstream_tip(), theirs, "{}", s.last());
    s.tick().exits(0).ours_equals_upstream().marker_is(false);
    assert_eq!(s.upstream_tip(), theirs);
}

#[test]
fn a_local_branch_that_lost_the_marked_commit_overwrites_nothing() {
    let s = marked();
    let theirs = s.upstream_tip();
    s.git_ours(&["reset", "-q", "--hard", "HEAD~1"]);
    s.we_commit("else.txt").tick().exits(0).logs("a force push is marked for").logs("accepting remote");
    assert_eq!(s.upstream_tip(), theirs);
    s.ours_equals_upstream().marker_is(false);
}

#[test]
fn a_branch_that_was_gone_and_is_there_again_is_not_overwritten() {
    let s = Scene::new();
    s.rival_deletes_branch().alpha().we_commit("a.txt").sync().exits(0).marker_is(true);
    assert_eq!(marker_of(&s)["remote_tip"], Value::Null);
    s.rival_writes("b.txt", "made again\n").rival_commits("made again");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    let theirs = s.upstream_tip();
    s.non_alpha().tick().exits(0).logs("accepting remote");
    assert_eq!(s.upstream_tip(), theirs);
}

/// What an early version wrote, or a person made by hand, does not say what it is for.
#[test]
fn one_that_says_nothing_forces_nothing_and_is_said() {
    let early = "2026-11-01T00:00:00Z main diverged: local 0123456789, remote abcdef0123\n";
    for text in ["", early, "{}", "{\"branch\": \"main\"}"] {
        let s = Scene::new();
        s.we_commit("a.txt").rival_pushes("b.txt");
        let (ours, theirs) = (s.our_tip(), s.upstream_tip());
        write(&s.private().join(NAME), text);
        s.run(&["status"]).exits(0);
        assert!(s.last().stdout.contains("marked, but for an unknown branch"), "{}", s.last());
        s.run(&["tick", "--dry-run", "--", "true"]).logs("would follow the remote").marker_is(true);
        s.tick().exits(0).logs("forces nothing").logs("gitsync tick --alpha").logs("accepting remote");
        assert_eq!(s.last().stderr.matches("forces nothing").count(), 1, "{}", s.last());
        assert_eq!(s.upstream_tip(), theirs);
        s.ours_equals_upstream().is_kept(&ours).marker_is(false);
    }
}

#[test]
fn what_is_said_to_do_about_it_does_it() {
    let s = Scene::new();
    s.we_commit("a.txt").rival_pushes("b.txt");
    let (ours, theirs) = (s.our_tip(), s.upstream_tip());
    write(&s.private().join(NAME), "");
    s.run(&["tick", "--alpha", "--", "true"]).exits(0).says("pushed").marker_is(false).is_kept(&theirs);
    assert_eq!(s.upstream_tip(), ours);
}

#[test]
fn status_metrics_and_a_dry_run_count_it_for_what_it_was_set_for() {
    let s = marked();
    let metrics = s.root().join("gitsync.prom");
    s.env("GIT_SYNC_METRICS_FILE", metrics.to_str().unwrap());
    let pending = |args: &[&str]| {
        let mut all = vec!["status", "--output", "json"];
        all.extend(args);
        s.run(&all).json()["force_push_pending"].clone()
    };
    assert_eq!(pending(&[]), true);
    s.run(&["tick", "--dry-run", "--", "true"]).logs("would keep local").logs("overwrite the remote's tip");
    s.git_ours(&["switch", "-q", "-c", "other"]);
    assert_eq!(pending(&["--branch", "other"]), false);
    s.run(&["status", "--branch", "other"]).exits(0);
    assert!(s.last().stdout.contains("marked for branch 'main' of origin"), "{}", s.last());
    s.run(&["tick", "--dry-run", "--branch", "other", "--create-branch", "--", "true"]).logs("by fast-forward only");
    s.logs("a force push is marked for branch 'main'");
    s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD~1:refs/heads/other"]);
    s.run(&["sync", "--branch", "other"]).exits(0).says("ahead");
    let text = fs::read_to_string(&metrics).unwrap();
    let line = text.lines().find(|line| line.starts_with("gitsync_force_push_pending")).unwrap();
    assert!(line.contains("branch=\"other\"") && line.ends_with(" 0"), "{line}");
}
