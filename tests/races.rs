//! Pushes that meet a hook that refuses, a rival that gets in between, or an answer that gets lost.
#![allow(clippy::unwrap_used, missing_docs)]

mod oracle;
mod scene;

use std::fs;

use oracle::Oracle;
use scene::Scene;

const JOB: &str = "mkdir -p state; n=$(ls state | wc -l); echo job > state/job-$n";

/// A shell line for a hook that lets the rival push `path` by force or not, from outside of the push under way.
fn rival_gets_in(s: &Scene, path: &str) -> String {
    let rival = s.rival().display().to_string();
    format!(
        "test -z \"$RIVAL\" || exit 0; export RIVAL=1; \
         unset GIT_DIR GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES; cd '{rival}'; \
         n=$(git rev-list --count --all); echo \"rival $n\" > '{path}'; git add -A; git commit -q -m \"rival $n\"; \
         git push -q --force origin HEAD:main; git rev-parse HEAD >> ../got-in"
    )
}

/// The commits that the rival got in.
fn got_in(s: &Scene) -> Vec<String> {
    fs::read_to_string(s.root().join("got-in")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[track_caller]
fn all_is_well(s: &Scene, oracle: &mut Oracle) {
    let complaints = oracle.complaints(s, &["state/job-"]);
    assert!(complaints.is_empty(), "{complaints:#?}\n{}", s.last());
}

fn watched(s: &Scene) -> Oracle {
    let mut oracle = Oracle::default();
    oracle.trust_what_is_there(s);
    oracle.remember(s, "at the start");
    oracle
}

#[test]
fn a_hook_that_refuses_keeps_the_commit_here() {
    for (name, script) in [
        ("pre-receive", "echo 'no pushes on Sundays' >&2; exit 1"),
        ("update", "echo 'no pushes on Sundays' >&2; exit 1"),
    ] {
        let s = Scene::new();
        let mut oracle = watched(&s);
        s.upstream_hook(name, script);
        let before = s.upstream_tip();
        s.tick_with(JOB).exits(1).says("push-failed").logs("refused").logs("hook");
        assert_eq!(s.upstream_tip(), before);
        let ours = s.our_tip();
        assert_ne!(ours, before);
        s.sync().exits(0).says("ahead");
        fs::remove_file(s.upstream().join("hooks").join(name)).unwrap();
        s.tick().exits(0).says("pushed").ours_equals_upstream();
        assert_eq!(s.our_tip(), ours);
        all_is_well(&s, &mut oracle);
    }
}

#[test]
fn the_server_s_own_rules_refuse() {
    let s = Scene::new();
    s.git_upstream(&["config", "receive.denyNonFastForwards", "true"]);
    s.alpha().rival_pushes("b").we_commit("a");
    let (ours, theirs) = (s.our_tip(), s.upstream_tip());
    s.tick().exits(1).says("push-failed").marker_is(true).is_kept(&ours).is_kept(&theirs);
    assert_eq!(s.upstream_tip(), theirs);
}

#[test]
fn non_alpha_never_overwrites_who_gets_in_between() {
    let s = Scene::new();
    s.rival_pushes("page");
    s.sync().exits(0);
    let mut oracle = watched(&s);
    s.upstream_hook("pre-receive", &rival_gets_in(&s, "page"));
    s.tick_with(JOB).exits(75).says("push-failed").logs("will retry");
    let rivals = got_in(&s);
    assert_eq!(rivals.len(), 1, "{}", s.last());
    assert_eq!(s.upstream_tip(), rivals[0]);
    fs::remove_file(s.upstream().join("hooks/pre-receive")).unwrap();
    let ours = s.our_tip();
    oracle.trust(&rivals[0]);
    s.tick_with(JOB).exits(0).says("pushed").ours_equals_upstream().is_kept(&ours).is_kept(&rivals[0]);
    all_is_well(&s, &mut oracle);
}

#[test]
fn alpha_overwrites_nothing_it_has_not_seen_and_rescued() {
    let s = Scene::new();
    s.alpha().rival_pushes("page").we_commit("a");
    s.git_in(&s.rival(), &["fetch", "-q"]);
    let mut oracle = watched(&s);
    // Once: the second try sees what got in, keeps it, and overwrites that.
    let once = format!("test -e '{}' && exit 0; {}", s.root().join("got-in").display(), rival_gets_in(&s, "page"));
    s.upstream_hook("pre-receive", &once);
    s.tick_with(JOB).exits(0).says("pushed").ours_equals_upstream().marker_is(false);
    let rivals = got_in(&s);
    assert_eq!(rivals.len(), 1, "{}", s.last());
    s.is_kept(&rivals[0]);
    assert!(s.rescues("remote").iter().any(|name| s.rev(&s.ours(), name) == rivals[0]), "{}", s.last());
    oracle.trust(&rivals[0]);
    all_is_well(&s, &mut oracle);
}

#[test]
fn alpha_gives_up_after_three_tries() {
    let s = Scene::new();
    s.alpha().rival_pushes("page").we_commit("a");
    let mut oracle = watched(&s);
    s.upstream_hook("pre-receive", &rival_gets_in(&s, "page"));
    s.tick_with(JOB).exits(75).says("push-failed").marker_is(true);
    let rivals = got_in(&s);
    assert_eq!(rivals.len(), 3, "{}", s.last());
    assert_eq!(s.upstream_tip(), rivals[2]);
    for commit in &rivals {
        s.is_kept(commit);
        oracle.trust(commit);
    }
    fs::remove_file(s.upstream().join("hooks/pre-receive")).unwrap();
    s.tick().exits(0).says("pushed").ours_equals_upstream().marker_is(false);
    for commit in &rivals {
        s.is_kept(commit);
    }
    all_is_well(&s, &mut oracle);
}

#[test]
fn an_answer_that_got_lost_is_looked_up() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha().rival_pushes("b").we_commit("a");
        }
        // The reference is moved, and then the server dies before it says so.
        s.upstream_hook("reference-transaction", "test \"$1\" = committed && kill -9 $PPID; exit 0");
        s.tick_with(JOB).exits(0).says("pushed").marker_is(false).logs("answer");
        assert_eq!(s.our_tip(), s.upstream_tip());
        s.fsck();
    }
}

#[test]
fn a_server_that_dies_before_it_moved_anything_has_not_been_pushed_to() {
    let s = Scene::new();
    let before = s.upstream_tip();
    s.upstream_hook("pre-receive", "kill -9 $PPID");
    s.tick_with(JOB).exits(75).says("push-failed").logs("will retry");
    assert_eq!(s.upstream_tip(), before);
    fs::remove_file(s.upstream().join("hooks/pre-receive")).unwrap();
    s.tick().exits(0).says("pushed").ours_equals_upstream();
}
