//! skip-worktree, assume-unchanged and intent-to-add outlive a follow and a commit, and hide from a commit what git hides.

use std::fs;

use crate::scene::Scene;

fn flags(s: &Scene) -> Vec<String> {
    s.git_ours(&["ls-files", "-v"]).lines().filter(|line| !line.starts_with("H ")).map(str::to_owned).collect()
}

fn status(s: &Scene) -> String {
    s.git_ours(&["status", "--porcelain"])
}

/// What the rival has changed goes upstream.
fn rival_sends(s: &Scene) -> &Scene {
    s.rival_commits("changed").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s
}

/// Tracked files with flags in and outside of `state/`: some changed here, some missing.
fn flagged() -> Scene {
    let s = Scene::new();
    for name in ["skip", "miss", "assume"] {
        s.rival_writes(&format!("state/{name}"), "1\n").rival_writes(name, "1\n");
    }
    s.rival_pushes("b.txt").sync().exits(0);
    for folder in ["", "state/"] {
        let [skip, miss, assume] = ["skip", "miss", "assume"].map(|name| format!("{folder}{name}"));
        s.git_ours(&["update-index", "--skip-worktree", &skip, &miss]);
        s.git_ours(&["update-index", "--assume-unchanged", &assume]);
        fs::remove_file(s.ours().join(&miss)).unwrap();
        s.we_write(&skip, "mine\n").we_write(&assume, "mine\n");
    }
    s
}

fn is_hidden_still(s: &Scene) {
    assert_eq!(
        flags(s),
        ["h assume", "S miss", "S skip", "h state/assume", "S state/miss", "S state/skip"],
        "{}",
        s.last()
    );
    for folder in ["", "state/"] {
        s.our_file(&format!("{folder}skip"), "mine\n").our_file(&format!("{folder}assume"), "mine\n");
        assert!(!s.ours().join(folder).join("miss").exists(), "{}", s.last());
    }
}

#[test]
fn flags_outlive_a_follow_and_what_they_hide_stays() {
    let s = flagged();
    s.rival_pushes("state/other").sync().exits(0).says("behind");
    is_hidden_still(&s);
    assert_eq!(status(&s), "");
    s.rival_rewrites("index.html").sync().exits(0).says("diverged");
    is_hidden_still(&s);
    s.init_sync().exits(0);
    is_hidden_still(&s);
    assert_eq!(s.rescues("worktree"), Vec::<String>::new());
    s.fsck();
}

/// As `git add` has it, neither what skip-worktree hides nor what is assumed to be unchanged is committed.
#[test]
fn flags_outlive_a_tick_and_what_they_hide_is_not_committed() {
    let s = flagged();
    s.tick().exits(0).says("no-changes");
    s.tick_with("echo new >state/b").exits(0).says("pushed");
    assert_eq!(s.git_ours(&["show", "--format=", "--name-status", "HEAD"]), "A\tstate/b");
    is_hidden_still(&s);
    assert_eq!(status(&s), "");
    s.git_ours(&["add", "-A"]);
    assert_eq!(status(&s), "", "git add takes none of them either");
}

/// git writes the remote's version where the file is as it was or missing, keeps the flag of a hidden one, and refuses to
/// replace one that was changed; here that one stays, and the follow goes on.
#[test]
fn a_hidden_file_that_the_remote_changed() {
    let s = flagged();
    s.git_ours(&["update-index", "--no-skip-worktree", "skip"]);
    s.git_ours(&["checkout", "skip"]);
    s.git_ours(&["update-index", "--skip-worktree", "skip"]);
    for name in ["skip", "miss", "state/skip", "state/assume"] {
        s.rival_writes(name, "2\n");
    }
    rival_sends(&s).sync().exits(0).says("behind").logs("skip-worktree").logs("state/skip");
    assert_eq!(flags(&s), ["h assume", "S miss", "S skip", "h state/assume", "S state/miss", "S state/skip"]);
    s.our_file("skip", "2\n").our_file("miss", "2\n").our_file("state/skip", "mine\n").our_file("state/assume", "2\n");
    assert_eq!(s.git_ours(&["cat-file", "blob", ":state/skip"]), "2");
    // What was assumed to be unchanged and was not is kept.
    let kept = s.rescues("worktree");
    assert_eq!(kept.len(), 1, "{}", s.last());
    assert_eq!(s.git_ours(&["show", &format!("{}:state/assume", kept[0])]), "mine");
    // Nothing of it comes back in a commit.
    s.tick().exits(0).says("no-changes").sync().exits(0).says("up-to-date").fsck();
    assert_eq!(status(&s), "");
}

/// A hidden file that the remote deletes is no longer hidden: it is kept as a rescue, not left for the next commit.
#[test]
fn a_hidden_file_that_the_remote_deleted() {
    let s = flagged();
    fs::remove_file(s.rival().join("state/skip")).unwrap();
    fs::remove_file(s.rival().join("state/assume")).unwrap();
    rival_sends(&s).sync().exits(0).says("behind");
    assert_eq!(flags(&s), ["h assume", "S miss", "S skip", "S state/miss"]);
    let kept = s.rescues("worktree");
    for name in ["skip", "assume"] {
        assert!(!s.ours().join("state").join(name).exists(), "{}", s.last());
        assert_eq!(s.git_ours(&["show", &format!("{}:state/{name}", kept[0])]), "mine");
    }
    s.tick().exits(0).says("no-changes");
}

#[test]
fn what_is_only_to_be_added_stays_so_outside_of_the_paths() {
    let s = Scene::new();
    s.we_write("later", "later\n").git_ours(&["add", "-N", "later"]);
    s.rival_pushes("b.txt").sync().exits(0).says("behind");
    assert_eq!(status(&s), " A later", "{}", s.last());
    s.our_file("later", "later\n");
    s.tick_with("echo new >state/b").exits(0).says("pushed");
    assert_eq!(status(&s), " A later", "{}", s.last());
    assert_eq!(s.git_ours(&["show", "--format=", "--name-status", "HEAD"]), "A\tstate/b");
    assert_eq!(s.rescues(""), Vec::<String>::new());
    // Where something is staged besides, a rescue holds that, and the index goes on.
    s.we_write("staged", "staged\n").git_ours(&["add", "staged"]);
    s.we_write("staged", "newer\n").rival_pushes("b.txt").sync().exits(0).says("behind").fsck();
    assert_eq!(status(&s), " A later", "{}", s.last());
    // The remote has it by now: it is followed, and ours is kept.
    s.rival_pushes("later").sync().exits(0).says("behind").ours_equals_upstream();
    s.is_kept_file("later\n");
}

#[test]
fn what_is_only_to_be_added_is_committed_under_the_paths() {
    let s = Scene::new();
    s.we_write("state/x", "content\n").git_ours(&["add", "-N", "state/x"]);
    s.tick().exits(0).says("pushed").upstream_file("state/x", "content\n");
    assert_eq!(status(&s), "");
}

trait Kept {
    fn is_kept_file(&self, text: &str);
}

impl Kept for Scene {
    /// A rescue of files has one with this content.
    fn is_kept_file(&self, text: &str) {
        let names = self.rescues("worktree");
        let has = |name: &String| {
            let out = self.git_command(&self.ours()).args(["show", &format!("{name}:later")]).output().unwrap();
            String::from_utf8_lossy(&out.stdout) == text
        };
        assert!(names.iter().any(has), "{names:?}\n{}", self.last());
    }
}
