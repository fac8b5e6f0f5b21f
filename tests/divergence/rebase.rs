//! `--on-divergence rebase`: a person's edit and the machine's tick never cost each other anything.

use crate::scene::{Scene, write};

fn rebasing() -> Scene {
    let s = Scene::new();
    s.arg("--on-divergence").arg("rebase");
    s
}

#[test]
fn sync_replays_our_commits_on_the_remotes() {
    let s = rebasing();
    s.rival_pushes("page.txt").we_commit("state/one").we_commit("state/two");
    let ours = s.our_tip();
    s.sync().exits(0).says("diverged").logs("replayed").marker_is(false).work_tree_is_clean().fsck();
    let log = s.git_ours(&["log", "--format=%s", "-4"]);
    assert_eq!(log, "ours: state/two\nours: state/one\nrival: page.txt 2\nsecond");
    assert_eq!(s.git_ours(&["merge-base", "HEAD", "origin/main"]), s.upstream_tip());
    s.is_kept(&ours).our_file("page.txt", "rival 2\n").our_file("state/two", "ours 3\n");
    s.sync().says("ahead");
    s.tick().says("pushed").ours_equals_upstream();
}

/// An outage of an hour: three ticks made offline, somebody else pushes a typo fix. All of it is on the branch.
#[test]
fn after_an_outage_three_ticks_and_a_typo_fix_are_on_the_branch() {
    let s = rebasing();
    s.upstream_goes_away();
    for number in 1..=3 {
        s.tick_with(&format!(
            "echo {number} >> state/ledger; echo {number} > audit-{number}; mv audit-{number} state/"
        ));
        s.exits(75).says("push-failed");
    }
    s.upstream_comes_back().rival_pushes("index.html");
    s.sync().exits(0).says("diverged").marker_is(false);
    // Nothing is lost, so nothing is said to be got back.
    s.logs("as they were before the replay").logs_not("get_back").logs_not("WARN");
    s.tick_with("echo 4 >> state/ledger").exits(0).says("pushed").ours_equals_upstream().fsck();
    let log = s.git_ours(&["log", "--format=%s", "-5"]);
    assert_eq!(log.lines().filter(|line| line.starts_with("chore(state): tick")).count(), 4, "{log}");
    assert!(log.ends_with("rival: index.html 2"), "{log}");
    s.upstream_file("state/ledger", "1\n2\n3\n4\n").upstream_file("index.html", "rival 2\n");
}

#[test]
fn a_tick_whose_push_loses_a_race_replays_and_pushes() {
    let s = rebasing();
    let race = format!(
        "cd {} && git fetch -q && git reset -q --hard origin/main && echo person > page.txt && git add -A && \
         git commit -qm person && git push -q origin main; cd {} && echo machine > state/b",
        s.rival().display(),
        s.ours().display()
    );
    s.tick_with(&race).exits(0).says("pushed").ours_equals_upstream().fsck();
    s.upstream_file("page.txt", "person\n").upstream_file("state/b", "machine\n");
}

/// As `git rebase --keep-empty`: what was empty from the start stays, what the remote has already goes.
#[test]
fn an_empty_commit_is_kept() {
    let s = rebasing();
    s.rival_pushes("page.txt");
    write(&s.ours().join("page.txt"), "rival 2\n");
    s.git_ours(&["add", "page.txt"]);
    s.git_ours(&["commit", "-q", "-m", "the same"]);
    s.git_ours(&["commit", "-q", "--allow-empty", "-m", "release 1"]);
    s.we_commit("state/one").git_ours(&["commit", "-q", "--allow-empty", "-m", "release 2"]);
    s.sync().exits(0).says("diverged").logs("replayed").work_tree_is_clean().fsck();
    let log = s.git_ours(&["log", "--format=%s", "-4"]);
    assert_eq!(log, "release 2\nours: state/one\nrelease 1\nrival: page.txt 2", "{}", s.last());
    s.tick().says("pushed").ours_equals_upstream();
}

#[test]
fn an_append_only_ledger_keeps_both_sides() {
    let s = Scene::without_ours();
    s.rival_writes(".gitattributes", "audit/*.log merge=union\n").rival_writes("audit/ledger.log", "begin\n");
    s.rival_commits("ledger").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync().arg("--on-divergence").arg("rebase");
    s.rival_writes("audit/ledger.log", "begin\nfrom the rival\n").rival_commits("rival's line");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.we_write("audit/ledger.log", "begin\nfrom the machine\n").git_ours(&["commit", "-qam", "machine's line"]);
    s.sync().says("diverged").exits(0);
    let ledger = std::fs::read_to_string(s.ours().join("audit/ledger.log")).unwrap();
    assert!(ledger.contains("from the rival") && ledger.contains("from the machine"), "{ledger}");
    assert!(!ledger.contains("<<<<"), "{ledger}");
}

#[test]
fn on_a_conflict_the_policy_decides() {
    for alpha in [false, true] {
        let s = rebasing();
        if alpha {
            s.alpha();
        }
        s.rival_pushes("index.html").we_commit("index.html");
        let ours = s.our_tip();
        s.sync().exits(0).says("diverged").logs("conflicts").marker_is(alpha).is_kept(&ours);
        assert_eq!(s.our_tip() == ours, alpha);
        if !alpha {
            s.ours_equals_upstream();
        }
    }
}

#[test]
fn a_rewritten_history_is_for_the_policy_also_at_the_second_look() {
    let s = rebasing();
    s.we_commit("state/ours").rival_rewrites("index.html");
    s.alpha().sync().says("diverged").logs("rewrote").marker_is(true);
    let ours = s.our_tip();
    // The tip is not new to us now; what the remote threw away is not brought back all the same.
    s.sync().says("diverged").logs("rewrote");
    assert_eq!(s.our_tip(), ours);
}

#[test]
fn a_change_that_the_remote_has_already_is_not_made_twice() {
    let s = rebasing();
    s.we_commit("same.txt");
    s.git_in(&s.rival(), &["fetch", "-q", s.ours().to_str().unwrap(), "main"]);
    s.git_in(&s.rival(), &["commit", "-q", "--allow-empty", "-m", "between"]);
    s.git_in(&s.rival(), &["cherry-pick", "FETCH_HEAD"]);
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().says("diverged").exits(0).ours_equals_upstream();
}
