//! `gitsync sync` in all eight cells of the table, and at the edges of it.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
use scene::Scene;

#[test]
fn up_to_date_is_one_look_that_writes_nothing_but_its_record() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha();
        }
        s.sync().exits(0).says("up-to-date");
        let before = s.snapshot();
        s.run(&["sync", "-v"]).exits(0).says("up-to-date").logs("up to date");
        let changed: Vec<_> = s.snapshot().into_iter().filter(|file| !before.contains(file)).map(|(p, _)| p).collect();
        assert_eq!(changed, [std::path::PathBuf::from(".git/gitsync/status.json")]);
        s.ours_equals_upstream();
    }
}

#[test]
fn behind_follows_in_either_mode() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha();
        }
        s.rival_pushes("news.txt").rival_pushes("index.html");
        let before = s.our_tip();
        s.run(&["sync", "--output", "json"]).exits(0).ours_equals_upstream().marker_is(false).fsck();
        let json = s.json();
        assert_eq!(
            (&json["result"], &json["state"], &json["behind"], &json["ahead"]),
            (&"behind".into(), &"behind".into(), &2.into(), &0.into())
        );
        assert_eq!(json["local_before"], before.as_str());
        assert_eq!(json["local"], s.upstream_tip().as_str());
        assert_eq!(json["remote"], s.upstream_tip().as_str());
        s.sync().says("up-to-date");
        assert!(s.rescues("").is_empty(), "nothing was dropped");
    }
}

#[test]
fn ahead_waits_for_the_tick_in_either_mode() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha();
        }
        s.we_commit("state/b");
        let (ours, theirs) = (s.our_tip(), s.upstream_tip());
        s.run(&["sync", "-v"]).exits(0).says("ahead").logs("will push on next tick").marker_is(false);
        assert_eq!((s.our_tip(), s.upstream_tip()), (ours, theirs));
    }
}

#[test]
fn diverged_non_alpha_accepts_the_remote_and_keeps_ours_as_a_rescue() {
    let s = Scene::new();
    s.rival_pushes("b.txt").we_commit("a.txt");
    let ours = s.our_tip();
    s.sync().exits(0).says("diverged").logs("accepting remote").ours_equals_upstream().marker_is(false).fsck();
    assert!(!s.ours().join("a.txt").exists());
    s.is_kept(&ours);
    assert_eq!(s.rescues("local").len(), 1);
    s.logs(&s.rescues("local")[0]).logs("git cherry-pick HEAD..");
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn diverged_alpha_keeps_local_and_marks_the_force_push() {
    let s = Scene::new();
    s.alpha().rival_pushes("b.txt").we_commit("a.txt");
    let (ours, theirs) = (s.our_tip(), s.upstream_tip());
    s.sync().exits(0).says("diverged").logs("keeping local").marker_is(true);
    assert_eq!((s.our_tip(), s.upstream_tip()), (ours, theirs));
    // The marker is a file: it is there for the next process, and the next.
    s.sync().exits(0).says("diverged").marker_is(true);
    assert!(!s.ours().join("b.txt").exists());
}

#[test]
fn unrelated_histories_are_diverged() {
    let s = Scene::new();
    s.git_in(&s.rival(), &["checkout", "-q", "--orphan", "other"]);
    s.rival_writes("fresh.txt", "factory reset\n").rival_commits("a new beginning");
    s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "other:main"]);
    let ours = s.our_tip();
    s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&ours).our_file("fresh.txt", "factory reset\n");
}

#[test]
fn a_rewrite_of_what_we_have_is_diverged_and_its_old_tip_is_kept() {
    let s = Scene::new();
    s.rival_rewrites("index.html");
    let ours = s.our_tip();
    s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&ours);
}

#[test]
fn uncommitted_work_is_rescued_before_it_is_replaced() {
    let s = Scene::new();
    s.we_write("index.html", "my edit\n")
        .we_write("b.txt", "mine, untracked\n")
        .we_write("free.txt", "in nobody's way\n");
    s.we_write("gone.txt", "edited, and not in the new commit\n");
    std::fs::remove_file(s.rival().join("gone.txt")).unwrap();
    s.rival_pushes("b.txt");
    s.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    s.our_file("b.txt", "rival 2\n").our_file("free.txt", "in nobody's way\n").our_file("index.html", "page 2\n");
    let rescue = &s.rescues("worktree")[0];
    assert_eq!(s.git_ours(&["show", &format!("{rescue}:index.html")]), "my edit");
    assert_eq!(s.git_ours(&["show", &format!("{rescue}:b.txt")]), "mine, untracked");
    s.logs("git checkout");
}

#[test]
fn the_remote_out_of_reach_is_passing_trouble() {
    let s = Scene::new();
    s.upstream_goes_away().sync().exits(75).says("error");
    let last = s.last();
    assert_eq!(last.stderr.matches("ERROR").count(), 1, "a failure is logged once\n{last}");
    s.upstream_comes_back().sync().exits(0).says("up-to-date");
}

#[test]
fn the_branch_gone_from_the_remote() {
    let s = Scene::new();
    let before = s.our_tip();
    s.rival_deletes_branch().sync().exits(1).says("error").logs("gone from the remote").marker_is(false);
    s.alpha().sync().exits(0).marker_is(true);
    assert_eq!(s.our_tip(), before);
    s.work_tree_is_clean().our_file("index.html", "page 2\n");
    // The next tick makes the branch again, whether or not it is told to be alpha: the marker says so.
    s.non_alpha().tick().exits(0).says("pushed").ours_equals_upstream().marker_is(false);
}

#[test]
fn a_failed_build_is_tried_again_though_nothing_changed() {
    let s = Scene::new();
    s.rival_pushes("index.html");
    let build = format!("test -e {}/ready && cp index.html {{public_dir}}/", s.root().display());
    let args = ["sync", "--public-dir", s.public().to_str().unwrap(), "--build-command", &build].map(str::to_owned);
    s.run(&args).exits(1).says("behind").logs("the build exited with status 1");
    s.run(&args).exits(1).says("up-to-date");
    std::fs::write(s.root().join("ready"), "").unwrap();
    s.run(&args).exits(0).says("up-to-date");
    assert_eq!(std::fs::read_to_string(s.public().join("index.html")).unwrap(), "rival 2\n");
}

#[test]
fn found_from_the_current_folder() {
    let s = Scene::new();
    let mut command = s.gitsync(&["sync"]);
    command.env_remove("GIT_SYNC_REPO").current_dir(s.ours().join("state"));
    let out = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "up-to-date\n", "{out:?}");
}

mod refused_with_nothing_touched {
    use super::*;

    #[track_caller]
    fn refuses(s: &Scene, why: &str, next: &str) {
        s.rival_pushes("news.txt");
        let tip = s.git_ours(&["rev-parse", "HEAD"]);
        for args in [vec!["sync"], vec!["tick", "--", "touch", "state/ran"]] {
            s.run(&args).exits(1).says("error").logs(why).logs(next);
            assert!(!s.ours().join("state/ran").exists(), "the job ran");
            assert!(!s.ours().join("news.txt").exists(), "files were touched");
            assert_eq!(s.git_ours(&["rev-parse", "HEAD"]), tip);
        }
    }

    #[test]
    fn head_detached() {
        let s = Scene::new();
        s.git_ours(&["checkout", "-q", "--detach"]);
        refuses(&s, "HEAD is detached", "git switch main");
    }

    #[test]
    fn another_branch() {
        let s = Scene::new();
        s.git_ours(&["checkout", "-q", "-b", "feature"]);
        refuses(&s, "on branch 'feature', not on 'main'", "git switch main");
    }

    #[test]
    fn no_such_branch() {
        let s = Scene::new();
        s.arg("--branch").arg("nope");
        refuses(&s, "on branch 'main', not on 'nope'", "--branch");
    }

    #[test]
    fn a_merge_in_progress() {
        let s = Scene::new();
        s.git_ours(&["checkout", "-q", "-b", "side", "HEAD~1"]);
        s.we_write("index.html", "side\n").git_ours(&["commit", "-qam", "side"]);
        s.git_ours(&["checkout", "-q", "main"]);
        let merge = s.git_command(&s.ours()).args(["merge", "side"]).output().unwrap();
        assert!(!merge.status.success());
        refuses(&s, "a merge is in progress", "git merge --abort");
    }

    #[test]
    fn not_a_repository() {
        let s = Scene::without_ours();
        std::fs::create_dir(s.ours()).unwrap();
        s.sync().exits(1).says("error").logs("is not a git repository").logs("gitsync init-sync");
        assert_eq!(s.snapshot(), []);
        s.tick().exits(1).says("error");
        assert_eq!(s.snapshot(), []);
    }

    #[test]
    fn a_folder_inside_another_repository() {
        let s = Scene::new();
        std::fs::create_dir(s.ours().join("inner")).unwrap();
        let mut command = s.gitsync(&["sync"]);
        let out = command.env("GIT_SYNC_REPO", s.ours().join("inner")).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains("lies inside the repository"), "{said}");
        assert!(!s.ours().join("inner/.git").exists());
    }

    #[test]
    fn a_folder_that_is_not_there() {
        let s = Scene::without_ours();
        s.sync().exits(1).says("error").logs("there is no");
        assert!(!s.ours().exists());
    }

    #[test]
    fn a_bare_repository() {
        let s = Scene::new();
        let out = s.gitsync(&["sync"]).env("GIT_SYNC_REPO", s.upstream()).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stderr).contains("bare repository"));
    }

    #[test]
    fn no_such_remote() {
        let s = Scene::new();
        s.run(&["sync", "--remote", "elsewhere"]).exits(1).says("error").logs("git remote add elsewhere");
    }
}

#[test]
fn a_split_index_and_a_symbolic_branch_are_left_alone() {
    let s = Scene::new();
    s.git_ours(&["update-index", "--split-index"]);
    s.we_write("index.html", "edited\n").init_sync().exits(1).says("error").logs("--no-split-index");
    s.our_file("index.html", "edited\n").git_ours(&["update-index", "--no-split-index"]);

    s.git_ours(&["branch", "real"]);
    s.git_ours(&["symbolic-ref", "refs/heads/main", "refs/heads/real"]);
    s.rival_pushes("news.txt").sync().exits(1).says("error").logs("symbolic reference to refs/heads/real");
    assert!(!s.ours().join("news.txt").exists());
}
