//! What people and machines do to a repository in the middle of a follow, or between one that was cut short and the next pass.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};

use needs::needs;
use scene::{Scene, until};

/// The rival pushes so many files that a follow syncs the file system once, where strace can hold it.
fn many_files_come(s: &Scene) {
    s.git_in(&s.rival(), &["fetch", "-q"]);
    s.git_in(&s.rival(), &["reset", "-q", "--hard", "origin/main"]);
    for number in 0..40 {
        s.rival_writes(&format!("state/new-{number}"), "from the remote\n");
    }
    s.rival_commits("many files").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
}

/// A pass that strace holds at each sync of the file system.
fn held_up(s: &Scene, args: &[&str], inject: &str) -> Child {
    let plain = s.gitsync(args);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=syncfs", "-e", inject]);
    strace.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace.current_dir(s.root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    strace.spawn().unwrap()
}

const HOLD: &str = "inject=syncfs:delay_enter=3000000";

/// What a pass leaves that was killed after it had placed some of the target's files: made by hand, to be the same each time.
fn half_followed(s: &Scene) -> String {
    many_files_come(s);
    s.git_ours(&["fetch", "-q", "origin"]);
    let (old, target) = (s.our_tip(), s.upstream_tip());
    for number in 0..20 {
        s.we_write(&format!("state/new-{number}"), "from the remote\n");
    }
    let intent = format!(r#"{{"branch":"main","old":"{old}","target":"{target}","why":"following the remote"}}"#);
    fs::write(s.private().join("intent"), intent).unwrap();
    target
}

#[test]
fn a_half_follow_is_taken_back_where_a_person_has_moved_the_branch() {
    let s = Scene::new();
    half_followed(&s);
    s.git_ours(&["commit", "-q", "--allow-empty", "-m", "a person's"]);
    let person = s.our_tip();
    s.we_write("state/mine", "a person's file\n");
    s.alpha().tick_with("echo job > state/job").says("pushed").fsck();
    let changed = s.git_ours(&["diff", "--name-only", &person, "HEAD"]);
    assert_eq!(changed, "state/job\nstate/mine", "no file of a version that was never followed");
    assert!(!s.ours().join("state/new-0").exists());
    s.is_kept(&person).our_file("state/mine", "a person's file\n");
}

#[test]
fn a_half_follow_of_another_branch_is_taken_back() {
    let s = Scene::new();
    let target = half_followed(&s);
    let intent = fs::read_to_string(s.private().join("intent")).unwrap().replace("\"main\"", "\"other\"");
    let old = s.our_tip();
    fs::write(s.private().join("intent"), intent.replace(&format!("\"{old}\""), "null")).unwrap();
    s.git_ours(&["update-ref", "refs/remotes/origin/main", &old]);
    s.git_ours(&["update-ref", "refs/gitsync/test", &target]);
    s.upstream_goes_away().tick_with("true").says("no-changes");
    assert_eq!(s.our_tip(), old);
    assert!(!s.ours().join("state/new-0").exists() && !s.private().join("intent").exists());
    s.work_tree_is_clean().our_file("index.html", "page 2\n").our_file("state/a", "a 1\n");
}

#[test]
fn an_edit_made_since_is_no_part_of_what_is_taken_back() {
    let s = Scene::new();
    half_followed(&s);
    s.we_write("state/new-3", "edited by a person\n");
    s.git_ours(&["commit", "-q", "--allow-empty", "-m", "a person's"]);
    s.upstream_goes_away().tick().exits(75);
    s.our_file("state/new-3", "edited by a person\n");
    assert!(!s.ours().join("state/new-4").exists());
}

#[needs(strace)]
#[test]
fn a_commit_made_in_the_middle_of_a_follow_is_not_stepped_over() {
    let s = Scene::new();
    many_files_come(&s);
    let pass = held_up(&s, &["sync"], HOLD);
    until("the intent is there", || s.private().join("intent").exists());
    let tree = s.git_ours(&["rev-parse", "HEAD^{tree}"]);
    let person = s.git_ours(&["commit-tree", "-p", "HEAD", "-m", "a person's", &tree]);
    s.git_ours(&["update-ref", "refs/heads/main", &person]);
    s.wait(pass).exits(75).says("error").is_kept(&person);
    assert_eq!(s.our_tip(), person);
    s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&person).fsck();
}

#[needs(strace)]
#[test]
fn an_edit_right_after_a_file_was_placed_is_seen_by_the_next_tick() {
    let s = Scene::new();
    many_files_come(&s);
    let pass = held_up(&s, &["sync"], &format!("{HOLD}:when=2"));
    until("the file is placed", || s.ours().join("state/new-7").exists());
    s.we_write("state/new-7", "FROM THE REMOTE\n");
    s.wait(pass).exits(0).says("behind");
    s.tick().exits(0).says("pushed").upstream_file("state/new-7", "FROM THE REMOTE\n");
}

/// What was looked at is not what would be replaced or removed: the pass gives up, and the next one keeps the edit.
#[needs(strace)]
#[test]
fn an_edit_made_before_its_file_is_placed_or_removed_is_kept() {
    for edited in ["index.html", "gone.txt"] {
        let s = Scene::new();
        many_files_come(&s);
        fs::remove_file(s.rival().join("gone.txt")).unwrap();
        s.rival_writes("index.html", "theirs\n").rival_commits("changed and removed");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        let pass = held_up(&s, &["sync"], HOLD);
        until("the intent is there", || s.private().join("intent").exists());
        s.we_write(edited, "edited in the middle\n");
        s.wait(pass).exits(75).says("error").logs(&format!("{edited} was changed in the middle of the pass"));
        s.our_file(edited, "edited in the middle\n");
        s.sync().exits(0).ours_equals_upstream().fsck();
        let kept = format!("{}:{edited}", s.rescues("worktree")[0]);
        assert_eq!(s.git_ours(&["show", &kept]), "edited in the middle");
    }
}

#[needs(strace)]
#[test]
fn a_folder_that_gives_way_is_kept_where_it_changed_in_the_middle() {
    let s = Scene::new();
    many_files_come(&s);
    s.rival_pushes("newdir");
    s.we_write("newdir/f", "first\n");
    let pass = held_up(&s, &["sync"], HOLD);
    until("the intent is there", || s.private().join("intent").exists());
    s.we_write("newdir/f", "second, longer\n").we_write("newdir/g", "new\n");
    s.wait(pass).exits(0).says("behind").logs("changed in the middle");
    let aside: Vec<_> = fs::read_dir(s.private().join("aside")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(fs::read_to_string(aside[0].join("f")).unwrap(), "second, longer\n");
    assert_eq!(fs::read_to_string(aside[0].join("g")).unwrap(), "new\n");
}

#[test]
fn a_worktree_or_submodule_in_the_remotes_way_is_moved_aside() {
    let s = Scene::new();
    s.git_ours(&["worktree", "add", "-q", "wt", "-b", "o"]);
    s.we_write("wt/edit", "unsaved\n").rival_pushes("wt");
    s.sync().exits(0).says("behind").logs("moved aside").ours_equals_upstream();
    let aside = fs::read_dir(s.private().join("aside")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_to_string(aside.join("edit")).unwrap(), "unsaved\n");
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn a_mode_that_nobody_committed_is_rescued() {
    let s = Scene::new();
    fs::set_permissions(s.ours().join("index.html"), fs::Permissions::from_mode(0o755)).unwrap();
    s.rival_pushes("index.html").sync().says("behind").ours_equals_upstream();
    let rescue = &s.rescues("worktree")[0];
    assert!(s.git_ours(&["ls-tree", rescue, "index.html"]).starts_with("100755"));
}

#[test]
fn links_in_the_private_folder_lead_no_write_outside() {
    let s = Scene::new();
    let victim = s.root().join("victim");
    fs::write(&victim, "precious\n").unwrap();
    let outside = s.root().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["lock", "job.lock", "waiting-sync", "status.json", "force-push-pending"] {
        let path = s.private().join(name);
        let _ = fs::remove_file(&path);
        symlink(&victim, &path).unwrap();
        s.alpha().sync();
        s.tick();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n", "{name}");
        let _ = fs::remove_file(&path);
    }
    s.non_alpha();
    for name in ["aside", "broken", "staging"] {
        let _ = fs::remove_dir_all(s.private().join(name));
        symlink(&outside, s.private().join(name)).unwrap();
    }
    s.we_write("newdir/.git/x", "a repository\n").rival_pushes("newdir").sync();
    fs::write(s.ours().join(".git/HEAD"), "").unwrap();
    fs::remove_dir_all(s.ours().join(".git/objects")).unwrap();
    s.init_sync();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    symlink(&victim, s.ours().join(".git/refs/heads/zz")).unwrap();
    s.init_sync();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
}

#[test]
fn what_keeps_a_pass_from_the_jobs_lock_for_good_is_no_passing_trouble() {
    let s = Scene::new();
    s.tick().exits(0);
    fs::remove_file(s.private().join("job.lock")).unwrap();
    fs::create_dir(s.private().join("job.lock")).unwrap();
    s.sync().exits(1).says("error").logs("job.lock").logs("remove it");
    fs::remove_dir(s.private().join("job.lock")).unwrap();
    s.sync().exits(0);
}

#[test]
fn a_private_folder_that_a_job_replaces_by_a_link_is_not_followed() {
    let s = Scene::new();
    let outside = s.root().join("outside");
    fs::create_dir(&outside).unwrap();
    let replace = format!("rm -rf .git/gitsync && ln -s '{}' .git/gitsync && echo 1 >state/b", outside.display());
    s.tick_with(&replace).exits(1).says("error").logs(".git/gitsync is not a folder");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    fs::remove_file(s.private()).unwrap();
    let build = format!("cp index.html {{public_dir}}/ && {replace}");
    s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", &build);
    s.tick();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{}", s.last());
    fs::remove_file(s.private()).unwrap();
    s.env("GIT_SYNC_BUILD_COMMAND", "cp index.html {public_dir}/");
    s.tick().exits(0).ours_equals_upstream();
    assert_eq!(s.git_upstream(&["show", "main:state/b"]), "1");
}

#[test]
fn a_rescue_is_never_removed_because_it_cannot_be_read_as_a_commit() {
    let s = Scene::new();
    let name = "refs/gitsync/rescue/20200101T000000Z-local-0000000";
    fs::create_dir_all(s.ours().join(".git/refs/gitsync/rescue")).unwrap();
    fs::write(s.ours().join(".git").join(name), "torn").unwrap();
    s.init_sync().exits(0).logs("set aside");
    let aside = s.private().join("damaged-refs").join(name.replace('/', "+"));
    assert_eq!(fs::read_to_string(aside).unwrap(), "torn");
}

#[test]
fn a_sparse_work_tree_and_grafts_are_refused() {
    let s = Scene::new();
    s.git_ours(&["sparse-checkout", "set", "--no-cone", "/*", "!/state/"]);
    s.tick_with("true").exits(1).says("error").logs("git sparse-checkout disable");
    s.git_ours(&["sparse-checkout", "disable"]);
    fs::create_dir_all(s.ours().join(".git/info")).unwrap();
    fs::write(s.ours().join(".git/info/grafts"), format!("{}\n", s.our_tip())).unwrap();
    s.tick_with("true").exits(1).says("error").logs("another history");
}

#[test]
fn a_conflict_that_nobody_has_resolved_is_not_committed() {
    let s = Scene::new();
    s.we_write("state/a", "stashed\n").git_ours(&["stash", "-q"]);
    s.we_write("state/a", "meanwhile\n").git_ours(&["commit", "-qam", "meanwhile"]);
    assert!(!s.git_command(&s.ours()).args(["stash", "pop"]).output().unwrap().status.success());
    s.tick_with("echo new > state/b").exits(1).says("pushed").logs("has a conflict");
    s.upstream_file("state/a", "meanwhile\n").upstream_file("state/b", "new\n");
    assert!(s.git_ours(&["status", "--porcelain"]).contains("UU state/a"));
}

#[test]
fn an_old_rescue_is_made_anew_so_that_it_is_kept_its_full_time() {
    let s = Scene::new();
    s.we_commit("a.txt").rival_pushes("b.txt");
    let ours = s.our_tip();
    s.git_ours(&["update-ref", &format!("refs/gitsync/rescue/20200101T000000Z-local-{}", &ours[..7]), &ours]);
    s.sync().says("diverged");
    assert_eq!(s.rescues("local").len(), 2);
    // The old name counts from when it was first seen, which is now: see `clock.rs`.
    s.tick().exits(0);
    assert_eq!(s.rescues("local").len(), 2, "{}", s.last());
    s.is_kept(&ours);
}

#[test]
fn a_branch_that_git_has_no_place_for_is_refused_before_anything_happens() {
    let s = Scene::new();
    s.git_ours(&["branch", "foo/bar"]);
    s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:refs/heads/foo"]);
    s.rival_writes("only-on-foo", "x\n").rival_commits("foo");
    s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:refs/heads/foo"]);
    s.run(&["init-sync", "--branch", "foo"]).exits(1).says("error").logs("refs/heads/foo/bar");
    assert!(!s.ours().join("only-on-foo").exists() && !s.private().join("intent").exists());
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn a_job_that_takes_the_repository_away_is_told_what_to_do() {
    let s = Scene::new();
    s.tick_with("rm -rf .git").exits(1).says("error").logs("init-sync --remote-url");
}

/// git lets a branch be checked out once: moved under another work tree, that one would seem to undo all that is new.
#[test]
fn a_branch_that_a_linked_work_tree_has_is_not_moved_under_it() {
    let s = Scene::new();
    s.git_ours(&["checkout", "-q", "--detach"]);
    let linked = s.root().join("linked");
    s.git_ours(&["worktree", "add", "-q", linked.to_str().unwrap(), "main"]);
    scene::write(&linked.join("index.html"), "mine, there\n");
    let before = s.our_tip();
    s.rival_pushes("state/a");
    s.init_sync().exits(1).says("error").logs("is checked out in the linked work tree").logs("git worktree remove");
    assert_eq!(s.our_tip(), before);
    assert_eq!(s.git_in(&linked, &["status", "--porcelain"]), " M index.html");
    s.git_in(&linked, &["switch", "-q", "-c", "side"]);
    s.init_sync().exits(0).ours_equals_upstream().fsck();
    assert_eq!(fs::read_to_string(linked.join("index.html")).unwrap(), "mine, there\n");
    // On both by force: the passes leave it alone too, and a folder that is gone holds nobody up.
    s.git_in(&linked, &["checkout", "-q", "--ignore-other-worktrees", "main"]);
    s.rival_pushes("state/a").sync().exits(1).says("error");
    s.tick_with("echo 1 > state/job").exits(1);
    fs::remove_dir_all(&linked).unwrap();
    s.sync().exits(0).ours_equals_upstream();
}
