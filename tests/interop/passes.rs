//! What every server has to do for a scene: each is one story over all passes.

use std::fs;

use crate::scene::Scene;

/// Clone, no-op, behind, tick, diverged either way, a refused push, and on from there.
pub fn whole_story(s: &Scene, url: &str) {
    up_to_diverged(s, url);
    refused_by_a_hook(s);
    afterwards(s);
}

/// Clone, no-op, behind, tick, and diverged either way.
pub fn up_to_diverged(s: &Scene, url: &str) {
    fs::create_dir_all(s.ours()).unwrap();
    s.run(&["init-sync", "--remote-url", url]).exits(0).says("cloned").ours_equals_upstream();
    s.sync().exits(0).says("up-to-date");
    s.rival_pushes("b.txt").sync().exits(0).says("behind").ours_equals_upstream();
    s.tick_with("true").exits(0).says("no-changes");
    s.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    diverged(s);
}

/// Another pass, and both repositories are whole.
pub fn afterwards(s: &Scene) {
    s.rival_pushes("c.txt").tick_with("echo 3 >state/x").exits(0).says("pushed").ours_equals_upstream();
    s.fsck();
    s.git_upstream(&["fsck", "--strict"]);
}

fn diverged(s: &Scene) {
    s.we_commit("ours.txt").rival_pushes("theirs.txt");
    let dropped = s.our_tip();
    s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&dropped);
    // This time the other way, under a lease.
    s.we_commit("ours.txt").rival_pushes("theirs.txt");
    let (ours, dropped) = (s.our_tip(), s.upstream_tip());
    s.alpha().tick_with("true").exits(0).says("pushed").ours_equals_upstream().is_kept(&dropped);
    assert_eq!(s.upstream_tip(), ours, "{}", s.last());
    s.non_alpha().sync().exits(0).says("up-to-date");
}

/// A hook refuses a push: exit 1, and what it refused is pushed once it does no more.
pub fn refused_by_a_hook(s: &Scene) {
    let before = s.upstream_tip();
    s.upstream_hook("pre-receive", "echo not today; exit 1");
    s.tick_with("echo 2 >state/x").exits(1).says("push-failed").logs("hook");
    assert_eq!(s.upstream_tip(), before);
    fs::remove_file(s.upstream().join("hooks/pre-receive")).unwrap();
    s.tick_with("true").exits(0).says("pushed").ours_equals_upstream();
}
