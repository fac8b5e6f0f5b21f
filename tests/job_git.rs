//! A job that uses git in the repository: whatever it drops that was a tip when it began stays reachable (G1, G2).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod scene;

use std::fs;

use scene::Scene;

/// After this, only references keep a commit.
const FORGET: &str = "git reflog expire --expire=now --expire-unreachable=now --all; git gc -q --prune=now";

/// An instance with a commit of its own that the upstream, out of reach, does not have; with the commit.
fn ahead_and_offline() -> (Scene, String) {
    let s = Scene::new();
    s.we_commit("ours.txt").upstream_goes_away();
    let ours = s.our_tip();
    (s, ours)
}

#[test]
fn an_unpushed_commit_that_the_job_drops_is_rescued() {
    let (s, ours) = ahead_and_offline();
    s.tick_with(&format!("git reset -q --hard HEAD~1; {FORGET}")).logs("the job dropped it");
    s.upstream_comes_back();
    s.is_kept(&ours).fsck();
    assert_eq!(s.rescues("local").len(), 1, "{}", s.last());
    s.tick().exits(0).ours_equals_upstream().is_kept(&ours);
}

#[test]
fn an_unpushed_commit_that_the_job_amends_is_rescued() {
    let (s, ours) = ahead_and_offline();
    s.tick_with(&format!("git commit -q --amend -m amended; {FORGET}"));
    s.upstream_comes_back();
    s.is_kept(&ours).fsck();
}

#[test]
fn an_unpushed_commit_is_kept_though_the_tick_is_killed_after_the_job_dropped_it() {
    let (s, ours) = ahead_and_offline();
    s.tick_with(&format!("git reset -q --hard HEAD~1; {FORGET}; kill -KILL $PPID"));
    s.upstream_comes_back();
    s.is_kept(&ours).fsck();
    s.tick().exits(0).is_kept(&ours);
}

#[test]
fn a_commit_that_the_build_drops_is_rescued() {
    let (s, ours) = ahead_and_offline();
    s.env("GIT_SYNC_BUILD_COMMAND", &format!("git reset -q --hard HEAD~1; {FORGET}"));
    s.tick().logs("the build dropped it");
    s.upstream_comes_back();
    s.is_kept(&ours).fsck();
}

/// A `git fetch` of the job moves the reference that remembers what the remote had.
#[test]
fn a_remote_tip_that_the_job_forgets_is_rescued() {
    let s = Scene::new();
    s.rival_pushes("page.txt").we_commit("ours.txt").alpha();
    s.sync().exits(0).says("diverged");
    let theirs = s.upstream_tip();
    let rewrite = format!(
        "cd '{}'; git fetch -q; git reset -q --hard origin/main; git commit -q --amend -m other; git push -q --force origin main",
        s.rival().display()
    );
    s.tick_with(&format!("({rewrite}); git fetch -q; {FORGET}; (cd '{}'; {FORGET})", s.upstream().display()));
    s.is_kept(&theirs).fsck();
}

/// A fetch of `+refs/*:refs/*` with `--prune` removes every reference that the remote has not, rescues among them.
#[test]
fn a_rescue_that_the_job_removes_is_made_again() {
    let s = Scene::new();
    s.we_commit("ours.txt");
    let ours = s.our_tip();
    s.tick_with(
        "git fetch -q --prune --update-head-ok origin '+refs/*:refs/*'; git reset -q --hard; echo 1 > state/one",
    );
    s.exits(0).logs("the job dropped it").ours_equals_upstream().is_kept(&ours).fsck();
    assert_eq!(s.rescues("local").len(), 1, "{}", s.last());
}

/// What is gone is not said to be kept.
#[test]
fn a_commit_that_the_job_destroys_is_said_to_be_lost() {
    let s = Scene::new();
    s.we_commit("ours.txt");
    let ours = s.our_tip();
    s.tick_with(&format!(
        "git reset -q --hard HEAD~1; git for-each-ref --format='delete %(refname)' refs/gitsync | git update-ref --stdin; {FORGET}"
    ));
    s.exits(1).logs(&ours).logs_not("kept what would have been dropped");
}

#[test]
fn a_job_that_drops_nothing_leaves_no_rescue() {
    let (s, ours) = ahead_and_offline();
    s.tick_with("echo b >state/b").logs_not("rescue");
    assert_eq!(s.rescues(""), Vec::<String>::new(), "{}", s.last());
    // A job that commits, or adds to what is unpushed, drops nothing either.
    s.tick_with("echo c >state/c; git add state; git commit -q -m own").logs_not("rescue");
    assert_eq!(s.rescues(""), Vec::<String>::new(), "{}", s.last());
    s.upstream_comes_back();
    s.is_kept(&ours);
}

/// A rescue that was there before the job is not the job's to lose.
#[test]
fn an_older_rescue_of_the_same_commit_stays() {
    let (s, ours) = ahead_and_offline();
    let name = format!("refs/gitsync/rescue/{}-local-{}", chrono::Utc::now().format("%Y%m%dT%H%M%SZ"), &ours[..7]);
    s.git_ours(&["update-ref", &name, &ours]);
    s.tick();
    assert_eq!(s.rescues(""), [name], "{}", s.last());
}

/// `git rebase --autostash` keeps uncommitted work in a file of its own until it ends.
#[test]
fn what_a_rebase_left_half_done_has_stashed_is_rescued() {
    let s = Scene::new();
    s.we_commit("ours.txt").we_write("index.html", "a person's edit\n");
    let edit = s.git_ours(&["hash-object", "index.html"]);
    s.tick_with("GIT_SEQUENCE_EDITOR='sed -i 1ibreak' git rebase -q -i --autostash HEAD~1").exits(1).says("error");
    assert!(s.ours().join(".git/rebase-merge").exists(), "{}", s.last());
    s.init_sync().exits(0).ours_equals_upstream().fsck();
    let kept = s.git_ours(&["rev-list", "--objects", "--glob=refs/gitsync/rescue/*"]);
    assert!(kept.contains(&edit), "{kept}\n{}", s.last());
}

/// The same of a merge.
#[test]
fn what_a_merge_left_half_done_has_stashed_is_rescued() {
    let s = Scene::new();
    s.git_ours(&["checkout", "-q", "-b", "side"]);
    s.we_commit("index.html");
    s.git_ours(&["checkout", "-q", "main"]);
    s.we_commit("other.txt").we_commit("index.html").we_write("state/a", "a person's edit\n");
    let edit = s.git_ours(&["hash-object", "state/a"]);
    let _ = s.git_command(&s.ours()).args(["merge", "-q", "--autostash", "side"]).output();
    assert!(fs::metadata(s.ours().join(".git/MERGE_AUTOSTASH")).is_ok());
    s.init_sync().exits(0).ours_equals_upstream().fsck();
    let kept = s.git_ours(&["rev-list", "--objects", "--glob=refs/gitsync/rescue/*"]);
    assert!(kept.contains(&edit), "{kept}\n{}", s.last());
}

/// The job's state is evidence, whatever has become of old history.
#[test]
fn the_job_runs_though_history_is_damaged() {
    let (s, _) = ahead_and_offline();
    let first = s.git_ours(&["rev-list", "--max-parents=0", "HEAD"]);
    let object = s.ours().join(".git/objects").join(&first[..2]).join(&first[2..]);
    let packs = s.ours().join(".git/objects/pack");
    for pack in fs::read_dir(&packs).unwrap().flatten() {
        if pack.path().extension().is_some_and(|extension| extension == "pack") {
            let moved = s.root().join(pack.file_name());
            fs::rename(pack.path(), &moved).unwrap();
            let unpack = format!("git unpack-objects -q < '{}'", moved.display());
            assert!(s.isolated("sh").args(["-c", &unpack]).current_dir(s.ours()).status().unwrap().success());
        }
    }
    fs::remove_file(object).unwrap();
    s.tick_with("touch ran");
    assert!(s.ours().join("ran").exists(), "{}", s.last());
}
