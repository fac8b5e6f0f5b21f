//! What a job has left uncommitted stays whole: on the branch, or in one rescue.

use std::fs;

use crate::scene::{Scene, until, write};

/// A job that changes a file, adds one and deletes one.
const JOB: &str = "echo job >> state/changed; echo job > audit/added; rm state/deleted";

/// A clone whose tick was killed after its job had written.
fn killed() -> Scene {
    let s = ready();
    let _ = s.tick_with(&format!("{JOB}; kill -KILL $PPID"));
    assert!(s.private().join("job-begun").exists());
    s
}

fn ready() -> Scene {
    let s = Scene::empty_upstream();
    for path in ["state/changed", "state/deleted", "audit/log", "page"] {
        s.rival_writes(path, &format!("{path}\n"));
    }
    s.rival_commits("v1");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync().exits(0);
    s
}

fn has_whole_job(s: &Scene, commit: &str) -> bool {
    let file = |path: &str| s.git_command(&s.ours()).args(["show", &format!("{commit}:{path}")]).output().unwrap();
    let changed = String::from_utf8(file("state/changed").stdout).unwrap();
    changed.ends_with("job\n") && file("audit/added").status.success() && !file("state/deleted").status.success()
}

#[track_caller]
fn job_is_whole_on_the_branch(s: &Scene) {
    assert!(has_whole_job(s, "main"), "{}", s.git_ours(&["log", "--stat", "main"]));
    assert_eq!(s.rescues("worktree"), Vec::<String>::new());
}

#[test]
fn it_is_replayed_on_what_came_in_by_each_pass_in_either_mode() {
    for mode in ["non-alpha", "alpha"] {
        for pass in ["sync", "tick", "init-sync"] {
            let s = killed();
            if mode == "alpha" {
                s.alpha();
            }
            s.rival_pushes("docs.txt");
            let remote = s.upstream_tip();
            match pass {
                "sync" => s.sync().exits(0).says("diverged"),
                "tick" => s.tick_with("true").exits(0).says("pushed").ours_equals_upstream(),
                _ => s.init_sync().exits(0).says("reset"),
            };
            s.logs("committed what an earlier job has left")
                .logs("files=3")
                .marker_is(false)
                .work_tree_is_clean()
                .fsck();
            job_is_whole_on_the_branch(&s);
            assert_eq!(s.rev(&s.ours(), "main~1"), remote, "{mode} {pass}");
            assert!(!s.private().join("job-begun").exists());
            s.tick_with("true").exits(0).ours_equals_upstream();
            s.tick_with("true").exits(0).says("no-changes");
        }
    }
}

#[test]
fn where_the_remote_has_not_moved_it_is_one_commit_more() {
    for (pass, word) in [("sync", "ahead"), ("init-sync", "up-to-date"), ("tick", "pushed")] {
        let s = killed();
        let base = s.our_tip();
        s.run(&[pass]).exits(if pass == "tick" { 1 } else { 0 });
        assert_eq!(s.last().stdout.trim(), word, "{pass}");
        job_is_whole_on_the_branch(&s);
        assert_eq!(s.rev(&s.ours(), "main~1"), base);
        assert_eq!(s.rescues("local"), Vec::<String>::new(), "{pass}");
        s.work_tree_is_clean().tick_with("true").exits(0).ours_equals_upstream();
    }
}

#[test]
fn a_conflict_leaves_it_to_the_rule_whole() {
    for pass in ["sync", "tick", "init-sync"] {
        let s = killed();
        s.rival_writes("state/changed", "theirs\n").rival_commits("theirs");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        match pass {
            "tick" => s.tick_with("true").exits(0),
            other => s.run(&[other]).exits(0),
        };
        s.ours_equals_upstream().work_tree_is_clean().our_file("state/changed", "theirs\n").fsck();
        assert!(s.ours().join("state/deleted").exists() && !s.ours().join("audit/added").exists());
        let rescues = s.rescues("local");
        assert_eq!(rescues.len(), 1, "{pass}: {rescues:?}");
        assert!(has_whole_job(&s, &rescues[0]));
    }
}

#[test]
fn alpha_keeps_it_on_a_conflict() {
    let s = killed();
    s.alpha().rival_writes("state/changed", "theirs\n").rival_commits("theirs");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0).says("diverged").marker_is(true);
    s.tick_with("true").exits(0).says("pushed").ours_equals_upstream();
    job_is_whole_on_the_branch(&s);
}

#[test]
fn what_a_step_before_the_tick_wrote_is_committed_first() {
    let s = ready();
    s.rival_pushes("docs.txt");
    let remote = s.upstream_tip();
    assert!(s.isolated("sh").current_dir(s.ours()).args(["-c", JOB]).status().unwrap().success());
    s.we_write("notes", "a person's\n");
    s.run(&["tick", "--output", "json", "--", "true"]).exits(0).ours_equals_upstream();
    job_is_whole_on_the_branch(&s);
    assert_eq!(s.rev(&s.ours(), "main~1"), remote);
    assert_eq!(s.json()["commit"], s.our_tip());
    // What is not under --path is nobody's commit.
    assert_eq!(s.git_ours(&["status", "--porcelain"]), "?? notes");
    // sync without a mark commits nothing.
    s.we_write("state/by-hand", "mine\n").sync().exits(0).says("up-to-date");
    assert_eq!(s.git_ours(&["status", "--porcelain", "state"]), "?? state/by-hand");
}

#[test]
fn other_commits_of_ours_are_the_rules() {
    let s = ready();
    s.we_commit("state/unpushed");
    let _ = s.tick_with(&format!("{JOB}; kill -KILL $PPID"));
    s.rival_pushes("docs.txt");
    s.sync().exits(0).says("diverged").logs("accepting remote").ours_equals_upstream().work_tree_is_clean();
    assert!(s.rescues("local").iter().any(|rescue| has_whole_job(&s, rescue)), "{:?}", s.rescues("local"));
}

#[test]
fn while_the_remote_is_away_it_waits_on_the_branch() {
    let s = killed();
    let base = s.our_tip();
    s.upstream_goes_away().sync().exits(75);
    job_is_whole_on_the_branch(&s);
    assert_eq!(s.rev(&s.ours(), "main~1"), base);
    s.upstream_comes_back().rival_pushes("docs.txt");
    let remote = s.upstream_tip();
    s.sync().exits(0).says("diverged");
    job_is_whole_on_the_branch(&s);
    assert_eq!(s.rev(&s.ours(), "main~1"), remote);
}

#[test]
fn a_remote_that_took_back_what_it_stands_on_is_the_rules() {
    let s = ready();
    s.rival_pushes("withdrawn.txt").sync().exits(0);
    let _ = s.tick_with(&format!("{JOB}; kill -KILL $PPID"));
    s.git_in(&s.rival(), &["reset", "-q", "--hard", "HEAD~1"]);
    s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "main"]);
    s.sync().exits(0).says("diverged").logs("accepting remote").ours_equals_upstream().work_tree_is_clean();
    assert!(s.rescues("local").iter().any(|rescue| has_whole_job(&s, rescue)), "{:?}", s.rescues("local"));
}

#[test]
fn on_a_branch_without_a_commit_it_is_one_rescue() {
    for pass in ["sync", "tick", "init-sync"] {
        let s = Scene::empty_upstream();
        s.init_sync().exits(0).says("empty-remote");
        let _ = s.tick_with("mkdir -p state audit; echo job > state/changed; echo job > audit/added; kill -KILL $PPID");
        s.rival_writes("state/changed", "theirs\n").rival_commits("theirs");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        match pass {
            "tick" => s.tick_with("true").exits(0),
            other => s.run(&[other]).exits(0),
        };
        s.our_file("state/changed", "theirs\n").fsck();
        let rescues = s.rescues("worktree");
        assert_eq!(rescues.len(), 1, "{pass}: {rescues:?}");
        let files = s.git_ours(&["ls-tree", "-r", "--name-only", &rescues[0]]);
        assert_eq!(files, "audit/added\nstate/changed", "{pass}");
    }
}

#[test]
fn init_sync_to_another_branch_keeps_it_as_one_rescue() {
    let s = killed();
    s.git_in(&s.rival(), &["push", "-q", "origin", "main:other"]);
    s.rival_writes("state/changed", "theirs\n").rival_commits("theirs");
    s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:other"]);
    s.run(&["init-sync", "--branch", "other"]).exits(0).our_file("state/changed", "theirs\n");
    let rescues = s.rescues("worktree");
    assert_eq!(rescues.len(), 1, "{rescues:?}");
    assert!(has_whole_job(&s, &rescues[0]));
    assert!(!s.private().join("job-begun").exists());
}

#[test]
fn the_message_the_paths_and_the_size_are_those_of_the_tick_that_was_killed() {
    let s = ready();
    let job = "echo job > page; head -c 2000 /dev/zero > large; kill -KILL $PPID";
    let mut tick = s.gitsync(&["tick", "--path", "page", "--path", "large", "--max-file-size", "1kB"]);
    tick.args(["--message", "by {time} the killed one", "--", "sh", "-c", job]);
    s.run_this(tick);
    s.sync().exits(1).says("ahead").logs("large was left out of the commit");
    assert_eq!(s.git_ours(&["show", "--format=", "--name-only", "main"]), "page");
    let subject = s.git_ours(&["log", "-1", "--format=%s"]);
    assert!(subject.starts_with("by 20") && subject.ends_with(" the killed one"), "{subject}");
    assert!(s.ours().join("large").exists());
    assert!(!s.private().join("job-begun").exists());
}

#[test]
fn a_dry_run_says_the_word_and_changes_nothing() {
    for pass in ["sync", "tick", "init-sync"] {
        let s = killed();
        s.rival_pushes("docs.txt");
        s.env("GIT_SYNC_TICK_COMMAND", "true");
        let before = s.snapshot();
        s.run(&[pass, "--dry-run"]).exits(0).logs("commit 3 files that an earlier job has left");
        assert_eq!(s.snapshot(), before, "{pass}");
        let word = s.last().stdout;
        s.run(&[pass]).exits(0);
        assert_eq!(s.last().stdout, word, "{pass}");
    }
}

#[test]
fn a_mark_that_cannot_be_read_stops_nothing() {
    let s = ready();
    write(&s.private().join("job-begun"), "{ half");
    s.rival_pushes("docs.txt").sync().exits(0).says("behind").ours_equals_upstream();
    fs::remove_file(s.private().join("job-begun")).unwrap_or_default();
    s.tick_with("true").exits(0);
}

/// A commit that would have to be signed is none that gitsync makes. A rescue is its own.
#[test]
fn what_may_not_be_committed_unsigned_is_one_rescue() {
    let s = killed();
    s.git_ours(&["config", "commit.gpgsign", "true"]);
    s.rival_writes("state/changed", "theirs\n").rival_commits("theirs");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.tick_with("true").exits(1).logs("commit.gpgsign");
    s.sync().exits(0).says("behind").ours_equals_upstream().our_file("state/changed", "theirs\n");
    let rescues = s.rescues("worktree");
    assert_eq!(rescues.len(), 1, "{rescues:?}");
    assert!(has_whole_job(&s, &rescues[0]));
}

/// What no commit may hold stays with the rest in one rescue, and is named.
#[test]
fn what_cannot_all_be_committed_is_one_rescue_too() {
    let job = "head -c 3000 /dev/zero > state/changed; echo job > audit/added; rm state/deleted; kill -KILL $PPID";
    for pass in ["sync", "init-sync", "tick"] {
        let s = ready();
        let mut tick = s.gitsync(&["tick", "--max-file-size", "1kB", "--", "sh", "-c", job]);
        s.run_this(s.isolated("true"));
        let _ = tick.status();
        s.rival_writes("state/changed", "theirs\n").rival_commits("theirs");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.env("GIT_SYNC_MAX_FILE_SIZE", "1kB").env("GIT_SYNC_TICK_COMMAND", "true");
        s.run(&[pass]).exits(if pass == "tick" { 0 } else { 1 });
        if pass != "tick" {
            s.logs("state/changed was left out of the commit");
        }
        let whole = |rescue: &String| {
            let diff = s.git_ours(&["diff", "--name-status", &format!("{rescue}^"), rescue]);
            diff == "A\taudit/added\nM\tstate/changed\nD\tstate/deleted"
        };
        assert!(s.rescues("worktree").iter().any(whole), "{pass}: {:?}", s.rescues("worktree"));
        s.fsck();
    }
}

#[test]
fn it_is_rescued_once_however_many_passes_find_it() {
    let s = ready();
    let job = "head -c 3000 /dev/zero > state/changed; echo job > audit/added; kill -KILL $PPID";
    let _ = s.gitsync(&["tick", "--max-file-size", "1kB", "--", "sh", "-c", job]).status();
    s.upstream_goes_away();
    // Another rescue has no part in it.
    s.git_ours(&["update-ref", "refs/gitsync/rescue/20200101T000000Z-worktree-0000000", "HEAD"]);
    for _ in 0..2 {
        let began = gitsync::clock::now().timestamp();
        // In the same second the same commit would be made once more.
        until("the next second", || gitsync::clock::now().timestamp() > began);
        s.run(&["sync", "--output", "json"]).exits(1).logs("state/changed was left out of the commit");
        let rescues = s.rescues("worktree");
        assert_eq!(rescues.len(), 2, "{rescues:?}");
        assert_eq!(s.json()["rescue_refs"], serde_json::json!([rescues[1]]));
        s.git_ours(&["reset", "-q", "--soft", "origin/main"]);
    }
}

#[test]
fn a_folder_that_the_job_removed_whole_is_named_and_kept_with_the_rest() {
    let s = ready();
    let _ = s.tick_with("rm -rf state; echo job > audit/added; kill -KILL $PPID");
    s.rival_pushes("docs.txt").sync().exits(1).logs("state was left out of the commit");
    let rescues = s.rescues("worktree");
    assert_eq!(rescues.len(), 1, "{rescues:?}");
    assert_eq!(
        s.git_ours(&["diff", "--name-status", &format!("{}^", rescues[0]), &rescues[0]]),
        "A\taudit/added\nD\tstate/changed\nD\tstate/deleted"
    );
}
