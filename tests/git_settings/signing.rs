//! `commit.gpgsign`: a commit that would have to be signed is refused, with the setting that allows an unsigned one.

use crate::scene::Scene;

const REMEDY: &str = "config commit.gpgsign false";

#[test]
fn a_tick_is_refused_before_its_job_and_says_how_to_allow_it() {
    let s = Scene::new();
    s.git_ours(&["config", "commit.gpgsign", "true"]);
    let tip = s.our_tip();
    s.run(&["tick", "--dry-run", "--", "true"]).exits(1).says("error").logs("commit.gpgsign").logs(REMEDY);
    s.tick_with("touch ran; echo x >state/x").exits(1).says("error").logs("commit.gpgsign").logs(REMEDY);
    assert!(!s.ours().join("ran").exists() && s.our_tip() == tip, "{}", s.last());
    // A follow needs no commit of ours.
    s.rival_pushes("b.txt").sync().exits(0).says("behind").ours_equals_upstream();
    s.git_ours(&["config", "commit.gpgsign", "false"]);
    s.tick_with("echo x >state/x").exits(0).says("pushed").upstream_file("state/x", "x\n");
}

/// The user's own configuration counts, and the repository's own setting overrides it, as the remedy says.
#[test]
fn the_remedy_works_against_the_users_own_configuration() {
    let s = Scene::new();
    s.git_in(s.root(), &["config", "--global", "commit.gpgSign", "yes"]);
    s.tick_with("echo x >state/x").exits(1).says("error").logs(REMEDY);
    s.git_ours(&["config", "commit.gpgsign", "false"]);
    s.tick_with("echo x >state/x").exits(0).says("pushed");
}

/// A job that asks for signatures while it runs: what it wrote stays, and is committed once that is allowed.
#[test]
fn what_a_job_wrote_is_committed_once_it_may_be() {
    let s = Scene::new();
    let tip = s.our_tip();
    s.tick_with("echo x >state/x; git config commit.gpgsign true").exits(1).says("error").logs(REMEDY);
    assert_eq!(s.our_tip(), tip);
    s.our_file("state/x", "x\n");
    s.git_ours(&["config", "commit.gpgsign", "false"]);
    s.tick().exits(0).says("pushed").upstream_file("state/x", "x\n");
}

/// A rescue is gitsync's own.
#[test]
fn a_rescue_is_made_unsigned() {
    let s = Scene::new();
    s.git_ours(&["config", "commit.gpgsign", "true"]);
    s.we_write("index.html", "edited\n")
        .rival_pushes("index.html")
        .sync()
        .exits(0)
        .says("behind")
        .ours_equals_upstream();
    assert_eq!(s.rescues("worktree").len(), 1, "{}", s.last());
}

/// `git rebase` would sign what it makes again.
#[test]
fn nothing_is_replayed_unsigned() {
    let s = Scene::new();
    s.arg("--on-divergence=rebase").we_commit("a.txt").rival_pushes("b.txt");
    s.git_ours(&["config", "commit.gpgsign", "true"]);
    let tip = s.our_tip();
    s.sync().exits(1).says("error").logs("commit.gpgsign").logs(REMEDY);
    assert_eq!(s.our_tip(), tip);
    s.git_ours(&["config", "commit.gpgsign", "false"]);
    s.sync().exits(0).says("diverged");
    s.our_file("a.txt", "ours 2\n");
}
