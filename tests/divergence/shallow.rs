//! Shallow clones, as CI checkouts make them: never judged diverged because history is missing.

use crate::scene::Scene;

/// Ours is a shallow clone of depth 1, over the upstream that the scene's `serve` gives.
fn shallow() -> Scene {
    let s = Scene::without_ours();
    let url = format!("file://{}", s.upstream().display());
    s.git_in(s.root(), &["clone", "-q", "--depth", "1", &url, "ours"]);
    assert_eq!(s.git_ours(&["rev-parse", "--is-shallow-repository"]), "true");
    s
}

#[test]
fn up_to_date_behind_and_pushed() {
    let s = shallow();
    s.sync().exits(0).says("up-to-date");
    s.rival_pushes("news.txt").rival_pushes("index.html");
    s.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    s.tick_with("echo 1 > state/b").exits(0).says("pushed").ours_equals_upstream().fsck();
    assert!(s.rescues("").is_empty(), "{:?}", s.rescues(""));
}

#[test]
fn what_looks_parted_is_judged_on_the_whole_history() {
    // The rival goes back beyond what the clone knows, which only the history that was left out can tell from a divergence.
    let s = shallow();
    s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "HEAD~1:main"]);
    s.alpha().sync().exits(0).says("diverged").marker_is(true);
    s.run(&["tick", "--output", "json", "--", "sh", "-c", "echo 1 > state/b"]).exits(0).ours_equals_upstream();
    // It contains what the remote went back to: nothing was overwritten.
    assert_eq!((&s.json()["pushed"], &s.json()["forced"]), (&true.into(), &false.into()), "{}", s.last());
    s.fsck();
    assert_eq!(s.git_ours(&["rev-parse", "--is-shallow-repository"]), "false");
}

#[test]
fn a_real_divergence_is_one() {
    let s = shallow();
    s.we_commit("a.txt").rival_pushes("b.txt");
    let ours = s.our_tip();
    s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&ours).fsck();
    assert_eq!(s.git_ours(&["rev-list", "--count", "HEAD"]), "3");
}

#[test]
fn alpha_overwrites_from_a_shallow_clone() {
    let s = shallow();
    s.alpha().we_commit("state/a").rival_pushes("b.txt");
    let theirs = s.upstream_tip();
    s.tick_with("echo 2 > state/c").exits(0).says("pushed").ours_equals_upstream().is_kept(&theirs).fsck();
}

#[test]
fn init_sync_over_a_shallow_clone() {
    let s = shallow();
    s.rival_pushes("news.txt");
    s.init_sync().exits(0).says("reset").ours_equals_upstream().fsck();
}
