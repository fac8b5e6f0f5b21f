//! A remote that takes commits back: reset to an older commit and pushed by force.

use crate::scene::Scene;

/// Both sides have a commit more than the remote is then reset to.
fn withdrawn() -> (Scene, String) {
    let s = Scene::new();
    s.rival_pushes("secret.txt").sync().exits(0).ours_equals_upstream();
    let withdrawn = s.upstream_tip();
    s.git_in(&s.rival(), &["reset", "-q", "--hard", "HEAD~1"]);
    s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "main"]);
    (s, withdrawn)
}

#[test]
fn non_alpha_follows_and_keeps_what_it_had() {
    for (pass, rebase, unpushed) in [
        ("sync", false, false),
        ("sync", false, true),
        ("sync", true, true),
        ("tick", false, false),
        ("tick", true, true),
    ] {
        let (s, withdrawn) = withdrawn();
        if rebase {
            s.arg("--on-divergence").arg("rebase");
        }
        if unpushed {
            s.we_commit("state/one");
        }
        let (ours, remote) = (s.our_tip(), s.upstream_tip());
        if pass == "sync" {
            s.sync().exits(0).says("diverged").logs("accepting remote").ours_equals_upstream();
        } else {
            s.tick_with("echo ran > state/ran").exits(0).says("pushed");
        }
        s.is_kept(&ours).is_kept(&withdrawn).work_tree_is_clean().fsck();
        // The withdrawn commit is nowhere on the branch again, now or later.
        s.tick_with("echo more > state/more").exits(0).says("pushed").ours_equals_upstream();
        let log = s.git_upstream(&["log", "--format=%H", "main"]);
        assert!(
            log.contains(&remote) && !log.contains(&withdrawn),
            "{pass} rebase={rebase} unpushed={unpushed}: {log}"
        );
        s.is_kept(&ours).is_kept(&withdrawn);
    }
}

#[test]
fn alpha_keeps_local_and_the_next_tick_pushes_it() {
    for first in ["sync", "tick"] {
        let (s, withdrawn) = withdrawn();
        s.alpha();
        if first == "sync" {
            // Seen twice: it is still no quiet "ahead".
            s.sync().exits(0).says("diverged").logs("keeping local").marker_is(true);
            s.sync().exits(0).says("diverged").marker_is(true);
            assert_eq!(s.our_tip(), withdrawn);
        }
        s.tick_with("echo ran > state/ran").exits(0).says("pushed").marker_is(false).ours_equals_upstream().fsck();
        let log = s.git_upstream(&["log", "--format=%H", "main"]);
        assert!(log.contains(&withdrawn), "{first}: {log}");
    }
}

/// Nothing of ours was taken back: a remote that was reset to what we have, or that is behind what only we have, is as before.
#[test]
fn what_we_never_had_taken_back_is_no_divergence() {
    let s = Scene::new();
    s.we_commit("state/one");
    s.sync().exits(0).says("ahead");
    s.tick().exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn init_sync_follows_and_the_tick_after_it_pushes_nothing_back() {
    let (s, withdrawn) = withdrawn();
    s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&withdrawn);
    s.tick_with("echo ran > state/ran").exits(0).says("pushed");
    assert!(!s.git_upstream(&["log", "--format=%H", "main"]).contains(&withdrawn));
}

/// The commit that is taken back came in by a merge, and we have it by another way.
#[test]
fn what_was_taken_back_on_a_side_branch_is_seen() {
    let s = Scene::new();
    let base = s.our_tip();
    s.git_in(&s.rival(), &["checkout", "-q", "-b", "side"]);
    s.rival_writes("side.txt", "side\n").rival_commits("side");
    let side = s.rev(&s.rival(), "side");
    s.git_in(&s.rival(), &["checkout", "-q", "main"]);
    s.git_in(&s.rival(), &["merge", "-q", "--no-ff", "-m", "merged", "side"]);
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0).ours_equals_upstream();
    // Here the branch is on the side commit alone.
    s.git_ours(&["reset", "-q", "--hard", &side]);
    s.git_in(&s.rival(), &["push", "-q", "--force", "origin", &format!("{base}:main")]);
    s.sync().exits(0).says("diverged").logs("accepting remote").ours_equals_upstream().is_kept(&side);
    s.tick_with("echo ran > state/ran").exits(0).says("pushed");
    assert!(!s.git_upstream(&["log", "--format=%H", "main"]).contains(&side));
}
