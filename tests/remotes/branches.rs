//! A branch that the remote does not have, though it has others: named, and never pushed by mistake.

use crate::scene::Scene;

/// An upstream with the branches main (its default) and dev, and a tag v1.
fn with_branches() -> Scene {
    let s = Scene::without_ours();
    s.git_in(&s.rival(), &["push", "-q", "origin", "main:dev", "main:refs/tags/v1"]);
    s
}

#[test]
fn init_sync_names_the_branches_there_are() {
    for (given, said) in [("mian", "no branch 'mian';"), ("v1", "no branch 'v1' (it is a tag);")] {
        let s = with_branches();
        s.arg("--branch").arg(given);
        s.init_sync().exits(1).says("error").logs(said).logs("its branches are main, dev").logs("--create-branch");
        // Nothing was made that a tick would push.
        s.tick_with("echo x > state/x").exits(1);
        assert_eq!(
            s.git_upstream(&["for-each-ref", "--format=%(refname)", "refs/heads"]),
            "refs/heads/dev\nrefs/heads/main"
        );
    }
}

/// What turns the text of a terminal around, and many names, do not come through.
#[test]
fn names_are_told_printable_and_ten_at_most() {
    let s = with_branches();
    s.git_in(&s.rival(), &["push", "-q", "origin", "main:refs/heads/e\u{202e}vil"]);
    for number in 0..12 {
        s.git_in(&s.rival(), &["push", "-q", "origin", &format!("main:refs/heads/topic-{number}")]);
    }
    s.run(&["init-sync", "--remote-url", s.upstream().to_str().unwrap(), "--branch", "mian"]).exits(1);
    s.logs("main, dev, e\u{fffd}vil, topic-0, ").logs("topic-4 and 5 more").logs_not("\u{202e}");
}

#[test]
fn sync_and_tick_refuse_a_mistyped_branch() {
    let s = Scene::new();
    s.arg("--branch").arg("mian");
    s.sync().exits(1).says("error").logs("on branch 'main', not on 'mian'");
    s.git_ours(&["switch", "-q", "--orphan", "mian"]);
    s.sync().exits(1).says("error").logs("no branch 'mian'");
    s.tick_with("echo x > state/x").exits(1).logs("no branch 'mian'");
    assert!(!s.ours().join("state/x").exists(), "the job ran");
    assert_eq!(s.git_upstream(&["for-each-ref", "--format=%(refname)", "refs/heads"]), "refs/heads/main");
}

#[test]
fn with_create_branch_the_first_push_makes_it() {
    let s = with_branches();
    s.arg("--branch").arg("data").arg("--create-branch");
    s.init_sync().exits(0).says("empty-remote");
    s.tick_with("mkdir -p state && echo x > state/x").exits(0).says("pushed");
    assert_eq!(s.git_upstream(&["show", "data:state/x"]), "x");
    s.sync().exits(0).says("up-to-date");
}

/// The job's work is committed here, and one error says why it is not pushed.
#[test]
fn a_tick_on_a_local_branch_that_the_remote_lacks() {
    let s = with_branches();
    s.init_sync().git_ours(&["switch", "-q", "-c", "mian"]);
    s.arg("--branch").arg("mian");
    s.tick_with("mkdir -p state && echo x > state/x").exits(1).says("push-failed");
    assert_eq!(s.last().stderr.matches("no branch 'mian'").count(), 1, "{}", s.last());
    s.our_file("state/x", "x\n").work_tree_is_clean();
    s.arg("--create-branch").tick_with("true").exits(0).says("pushed");
    assert_eq!(s.git_upstream(&["show", "mian:state/x"]), "x");
}

/// It is what `$GITHUB_REF` holds.
#[test]
fn the_full_name_means_the_branch() {
    let s = with_branches();
    s.arg("--branch").arg("refs/heads/main");
    s.init_sync().exits(0).says("cloned").ours_equals_upstream();
    s.tick_with("mkdir -p state && echo x > state/x").exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn what_is_no_branchs_name_is_a_usage_error() {
    let s = Scene::new();
    let commit = s.our_tip();
    for wrong in
        ["HEAD", "@", "refs/tags/v1", "refs/heads/HEAD", "refs/heads/refs/heads/main", &commit, "-x", "a..b", ""]
    {
        s.run(&["sync", &format!("--branch={wrong}")]).exits(2);
    }
}

/// A branch that is there no more is gone, not mistyped.
#[test]
fn a_branch_that_was_deleted_is_still_gone() {
    let s = Scene::new();
    s.git_in(&s.rival(), &["push", "-q", "origin", "main:dev"]);
    s.git_upstream(&["update-ref", "-d", "refs/heads/main"]);
    s.sync().exits(1).logs("is gone from the remote").logs_not("--create-branch");
    s.run(&["sync", "--alpha"]).exits(0);
}

#[test]
fn a_tag_is_no_branch_to_be_made() {
    let s = with_branches();
    s.arg("--branch").arg("v1").arg("--create-branch");
    s.init_sync().exits(1).logs("it is a tag");
    s.sync().exits(1).logs("it is a tag");
    s.tick_with("true").exits(1).logs("it is a tag");
}

#[test]
fn of_a_thousand_branches_the_default_is_named_first() {
    let s = with_branches();
    let tip = s.upstream_tip();
    let refs: String = (0..1000).map(|n| format!("create refs/heads/a{n:04} {tip}\n")).collect();
    let mut update = s.git_command(&s.upstream());
    update.args(["update-ref", "--stdin"]).stdin(std::process::Stdio::piped());
    let mut child = update.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), refs.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    s.arg("--branch").arg("mian").init_sync().exits(1).logs("its branches are main, a0000").logs("and many more");
}
