//! `gitsync init-sync`: into empty folders and full ones, over what is there, with the remote empty or away.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
use std::fs;
use std::path::Path;

use needs::needs;
use scene::{Scene, write};

fn url(s: &Scene) -> String {
    s.upstream().to_str().unwrap().to_owned()
}

#[test]
fn into_an_empty_folder() {
    let s = Scene::without_ours();
    fs::create_dir(s.ours()).unwrap();
    s.run(&["init-sync", "--remote-url", &url(&s), "--output", "json"]).exits(0);
    let json = s.json();
    assert_eq!((&json["result"], &json["command"]), (&"cloned".into(), &"init-sync".into()));
    assert_eq!(json["local_before"], serde_json::Value::Null);
    assert_eq!((&json["local"], &json["remote"]), (&s.upstream_tip().into(), &s.upstream_tip().into()));
    s.ours_equals_upstream().our_file("index.html", "page 2\n").our_file("state/a", "a 1\n").fsck();
    assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), url(&s));
    // A person's `git pull` and `git status` know where to look.
    assert_eq!(s.rev(&s.ours(), "main@{upstream}"), s.upstream_tip());
    assert!(s.rescues("").is_empty());
    s.init_sync().exits(0).says("up-to-date").ours_equals_upstream();
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn into_a_folder_that_is_not_there_yet() {
    let s = Scene::without_ours();
    s.run(&["init-sync", "--remote-url", &url(&s), "--repo", s.root().join("a/b/c").to_str().unwrap()]).exits(0);
    s.says("cloned");
    assert_eq!(s.rev(&s.root().join("a/b/c"), "HEAD"), s.upstream_tip());
    assert!(!s.ours().exists());
}

#[test]
fn among_strangers_files_which_stay_or_are_rescued() {
    let s = Scene::without_ours();
    fs::create_dir_all(s.ours().join("lost+found")).unwrap();
    s.we_write("notes.txt", "a stranger's\n").we_write("lost+found/#12", "found\n").we_write("state/b", "older\n");
    s.we_write("index.html", "in the remote's way\n").we_write("state/a", "a 1\n");
    s.init_sync().exits(0).says("cloned").ours_equals_upstream().fsck();
    s.our_file("notes.txt", "a stranger's\n").our_file("lost+found/#12", "found\n").our_file("state/b", "older\n");
    s.our_file("index.html", "page 2\n");
    let kept = s.rescues("worktree");
    assert_eq!(kept.len(), 1, "{}", s.last());
    assert_eq!(s.git_ours(&["show", &format!("{}:index.html", kept[0])]), "in the remote's way");
    // What is the same as the remote's is in nobody's way, and what is in nobody's way is not rescued.
    assert_eq!(s.git_ours(&["ls-tree", "-r", "--name-only", &kept[0]]), "index.html");
    s.logs(&kept[0]);
}

#[test]
fn a_strangers_folder_where_the_remote_has_a_file_and_the_other_way_round() {
    let s = Scene::without_ours();
    s.we_write("index.html/inner/file", "deep\n").we_write("state", "a file\n");
    s.init_sync().exits(0).says("cloned").ours_equals_upstream().fsck();
    s.our_file("index.html", "page 2\n").our_file("state/a", "a 1\n");
    let kept = &s.rescues("worktree")[0];
    assert_eq!(s.git_ours(&["show", &format!("{kept}:index.html/inner/file")]), "deep");
    assert_eq!(s.git_ours(&["show", &format!("{kept}:state")]), "a file");
}

#[test]
fn a_link_in_the_work_tree_does_not_lead_outside() {
    let s = Scene::without_ours();
    let outside = s.root().join("outside");
    write(&outside.join("a"), "not ours\n");
    fs::create_dir(s.ours()).unwrap();
    std::os::unix::fs::symlink(&outside, s.ours().join("state")).unwrap();
    s.init_sync().exits(0).says("cloned").ours_equals_upstream();
    assert_eq!(fs::read_to_string(outside.join("a")).unwrap(), "not ours\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    s.our_file("state/a", "a 1\n");
    assert!(!s.ours().join("state").is_symlink());
    assert_eq!(s.git_ours(&["show", &format!("{}:state", s.rescues("worktree")[0])]), outside.to_str().unwrap());
}

#[test]
fn over_a_clone_that_is_behind_in_either_mode() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha();
        }
        s.rival_pushes("news.txt");
        let before = s.our_tip();
        s.run(&["init-sync", "--output", "json"]).exits(0).ours_equals_upstream();
        let json = s.json();
        assert_eq!((&json["result"], &json["state"]), (&"reset".into(), &"behind".into()));
        assert_eq!((&json["local_before"], &json["behind"]), (&before.into(), &1.into()));
        s.init_sync().exits(0).says("up-to-date");
    }
}

#[test]
fn follows_the_remote_over_commits_of_ours_in_either_mode() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha();
        }
        s.rival_pushes("b.txt").we_commit("a.txt");
        let ours = s.our_tip();
        s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&ours).fsck();
        assert!(!s.ours().join("a.txt").exists());
        assert_eq!(s.rescues("local").len(), 1);
        assert_eq!(s.rev(&s.ours(), &s.rescues("local")[0]), ours);
        assert!(s.rescues("remote").is_empty());
    }
}

#[test]
fn commits_of_ours_that_were_never_pushed_are_rescued() {
    let s = Scene::new();
    s.we_commit("state/b").we_commit("state/c");
    let ours = s.our_tip();
    s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&ours);
    assert!(!s.ours().join("state/c").exists());
    s.logs(&s.rescues("local")[0]);
}

#[test]
fn uncommitted_work_is_rescued() {
    let s = Scene::new();
    s.we_write("index.html", "my edit\n").we_write("state/new", "untracked, in nobody's way\n");
    s.we_write("staged.txt", "staged\n").git_ours(&["add", "staged.txt"]);
    s.we_write("staged.txt", "and edited since\n");
    fs::remove_file(s.ours().join("gone.txt")).unwrap();
    s.init_sync().exits(0).says("reset").ours_equals_upstream().fsck();
    s.our_file("index.html", "page 2\n")
        .our_file("gone.txt", "old\n")
        .our_file("state/new", "untracked, in nobody's way\n");
    let kept = &s.rescues("worktree")[0];
    assert_eq!(s.git_ours(&["show", &format!("{kept}:index.html")]), "my edit");
    // Added, then followed away from: the file goes with the index, its versions stay.
    assert_eq!(s.git_ours(&["show", &format!("{kept}:staged.txt")]), "and edited since");
    assert_eq!(s.git_ours(&["show", &format!("{kept}^2:staged.txt")]), "staged");
}

#[test]
fn an_empty_remote_whose_branch_the_first_tick_makes() {
    let s = Scene::empty_upstream();
    s.init_sync().exits(0).says("empty-remote").marker_is(false);
    assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    s.init_sync().exits(0).says("empty-remote");
    s.sync().exits(0).says("up-to-date");
    s.tick().exits(0).says("no-changes");
    s.tick_with("mkdir state && echo one >state/a").exits(0).says("pushed").upstream_file("state/a", "one\n");
    s.ours_equals_upstream().fsck();
    assert_eq!(s.git_upstream(&["rev-list", "--count", "main"]), "1");
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn a_remote_without_such_a_branch() {
    let s = Scene::without_ours();
    s.arg("--branch").arg("machine").arg("--create-branch");
    s.we_write("notes.txt", "a stranger's\n");
    s.init_sync().exits(0).says("empty-remote");
    assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/machine");
    s.tick_with("mkdir state && echo one >state/a").exits(0).says("pushed");
    assert_eq!(s.git_upstream(&["show", "machine:state/a"]), "one");
    assert_eq!(s.git_upstream(&["ls-tree", "-r", "--name-only", "machine"]), "state/a");
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn the_branch_gone_from_the_remote_keeps_ours() {
    let s = Scene::new();
    s.we_commit("state/b").rival_deletes_branch();
    let ours = s.our_tip();
    s.init_sync().exits(0).says("empty-remote");
    assert_eq!(s.our_tip(), ours);
    s.tick().exits(0).says("pushed").ours_equals_upstream();
    assert_eq!(s.upstream_tip(), ours);
}

#[test]
fn offline_with_local_state_goes_on_with_it() {
    let s = Scene::new();
    s.we_commit("state/b").upstream_goes_away();
    let (ours, files) = (s.our_tip(), fs::read_dir(s.ours()).unwrap().count());
    s.run(&["init-sync"]).exits(75).says("offline").logs("local state");
    assert_eq!((s.our_tip(), fs::read_dir(s.ours()).unwrap().count()), (ours.clone(), files));
    assert_eq!(s.last().stderr.matches("ERROR").count() + s.last().stderr.matches("WARN").count(), 1, "{}", s.last());
    s.tick_with("echo offline >state/c").exits(75).says("push-failed");
    s.upstream_comes_back().tick().exits(0).says("pushed").ours_equals_upstream().is_kept(&ours);
}

#[test]
fn offline_keeps_an_edit_and_a_pending_marker() {
    let s = Scene::new();
    s.we_write("index.html", "my edit\n");
    write(&s.private().join("force-push-pending"), "");
    s.upstream_goes_away().run(&["init-sync"]).exits(75).says("offline").marker_is(true);
    // The edit is in the work tree, or in a rescue: nowhere else may it be.
    let there = fs::read_to_string(s.ours().join("index.html")).unwrap() == "my edit\n";
    let kept = s.rescues("worktree");
    assert!(there || s.git_ours(&["show", &format!("{}:index.html", kept[0])]) == "my edit", "{}", s.last());
}

#[test]
fn offline_without_local_state() {
    let s = Scene::without_ours();
    s.upstream_goes_away();
    s.init_sync().exits(75).says("error").logs("upstream.git");
    s.sync().exits(75).says("error");
    // Nothing to build on: the job must not begin a history of its own.
    s.tick_with("mkdir state; touch state/ran").exits(75).says("error");
    assert!(!s.ours().join("state").exists());
    s.upstream_comes_back().init_sync().exits(0).says("cloned").ours_equals_upstream();
}

#[test]
fn offline_heals_a_head_that_is_elsewhere() {
    let s = Scene::new();
    s.git_ours(&["checkout", "-q", "--detach"]);
    s.we_commit("detached.txt").upstream_goes_away();
    let detached = s.rev(&s.ours(), "HEAD");
    s.run(&["init-sync"]).exits(75).says("offline").upstream_comes_back().is_kept(&detached);
    assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    s.work_tree_is_clean();
}

#[test]
fn without_any_url_says_what_to_set() {
    let s = Scene::without_ours();
    fs::create_dir(s.ours()).unwrap();
    s.run(&["init-sync"]).exits(2).says("error");
    s.logs("--remote-url").logs("GIT_SYNC_REMOTE_URL").logs("GITHUB_REPOSITORY");
    assert_eq!(s.snapshot(), [], "nothing was made");
    fs::remove_dir(s.ours()).unwrap();
    s.run(&["init-sync"]).exits(2).says("error");
    assert!(!s.ours().exists());
    // An empty variable is what a compose file makes of one that nobody filled in.
    s.env("GIT_SYNC_REMOTE_URL", "").env("GITHUB_REPOSITORY", "").run(&["init-sync"]).exits(2).says("error");
    assert!(!s.ours().exists());
}

#[test]
fn a_repository_without_a_remote_and_no_url_given() {
    let s = Scene::new();
    s.git_ours(&["remote", "remove", "origin"]);
    s.run(&["init-sync"]).exits(2).says("error").logs("GITHUB_REPOSITORY");
    s.init_sync().exits(0).says("up-to-date");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), url(&s));
}

#[test]
fn the_url_from_what_an_action_knows() {
    let s = Scene::without_ours();
    fs::create_dir(s.root().join("you")).unwrap();
    fs::rename(s.upstream(), s.root().join("you/state.git")).unwrap();
    let server = format!("file://{}", s.root().display());
    s.env("GITHUB_SERVER_URL", &server).env("GITHUB_REPOSITORY", "you/state");
    s.run(&["init-sync"]).exits(0).says("cloned").our_file("index.html", "page 2\n");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), format!("{server}/you/state.git"));
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn a_repository_keeps_its_remote_unless_one_is_given() {
    let s = Scene::new();
    s.run(&["init-sync"]).exits(0).says("up-to-date");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), url(&s));

    let other = s.root().join("other.git");
    s.git_in(s.root(), &["clone", "-q", "--bare", "upstream.git", "other.git"]);
    s.rival_pushes("news.txt");
    s.run(&["init-sync", "--remote-url", other.to_str().unwrap()]).exits(0).says("up-to-date");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), other.to_str().unwrap());
    // The environment gives one too, and the flag wins over it.
    s.env("GIT_SYNC_REMOTE_URL", &url(&s)).run(&["init-sync"]).exits(0).says("reset").ours_equals_upstream();
    s.run(&["init-sync", "--remote-url", other.to_str().unwrap()]).exits(0).says("reset");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), other.to_str().unwrap());
}

#[test]
fn a_relative_url_is_relative_to_where_the_command_was_given() {
    let s = Scene::without_ours();
    s.run(&["init-sync", "--remote-url", "upstream.git"]).exits(0).says("cloned").ours_equals_upstream();
    s.sync().exits(0).says("up-to-date");
    s.git_ours(&["fetch", "-q", "origin"]);
}

#[test]
fn another_remotes_name() {
    let s = Scene::without_ours();
    s.arg("--remote").arg("hub");
    s.init_sync().exits(0).says("cloned").ours_equals_upstream();
    assert_eq!(s.git_ours(&["remote"]), "hub");
    s.sync().exits(0).says("up-to-date");
    s.tick_with("echo two >state/b").exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn the_identity_goes_into_the_repositorys_own_configuration() {
    let s = Scene::without_ours();
    s.env("GIT_AUTHOR_NAME", "Ma Chine").env("GIT_AUTHOR_EMAIL", "machine@example.org");
    s.init_sync().exits(0);
    assert_eq!(s.git_ours(&["config", "--local", "user.name"]), "Ma Chine");
    assert_eq!(s.git_ours(&["config", "--local", "user.email"]), "machine@example.org");
    assert!(!s.root().join("home/.gitconfig").exists());
}

#[test]
fn a_token_in_the_stored_url_is_taken_out() {
    let s = Scene::new();
    s.git_ours(&["remote", "set-url", "origin", "http://robot:s3cr3t@127.0.0.1:1/you/state.git"]);
    // Nobody listens there: what is stored is mended although the remote can't be reached.
    s.run(&["init-sync", "--network-timeout", "10s"]).exits(75).says("offline").logs("token");
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), "http://127.0.0.1:1/you/state.git");
    for (path, content) in s.snapshot() {
        assert!(!content.contains("s3cr3t"), "the token is in {}", path.display());
    }
    s.logs_not("s3cr3t");
    // One that is given with its token is stored without it.
    s.run(&["init-sync", "--network-timeout", "10s", "--remote-url", "http://:s3cr3t@127.0.0.1:2/state.git"]).exits(75);
    assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), "http://127.0.0.1:2/state.git");
    s.logs_not("s3cr3t");
    // The URL that pushes go to is a stored one, too.
    s.git_ours(&["remote", "set-url", "--push", "origin", "http://robot:s3cr3t@127.0.0.1:3/state.git"]);
    s.run(&["init-sync", "--network-timeout", "10s"]).exits(75).logs("token").logs_not("s3cr3t");
    assert_eq!(s.git_ours(&["remote", "get-url", "--push", "origin"]), "http://127.0.0.1:3/state.git");
}

#[test]
fn a_url_that_cannot_be_is_not_stored() {
    let s = Scene::new();
    let good = s.git_ours(&["remote", "get-url", "origin"]);
    for bad in ["gopher://127.0.0.1/state.git", "https://127.0.0.1/state.git?token=s3cr3t", "http://:70000/x"] {
        s.run(&["init-sync", "--remote-url", bad]).exits(1).says("error").logs("URL");
        assert_eq!(s.git_ours(&["remote", "get-url", "origin"]), good, "{bad}");
    }
    // What git's own configuration makes a good one of is good.
    s.git_ours(&["config", &format!("url.{}/.insteadOf", s.root().display()), "work://"]);
    s.run(&["init-sync", "--remote-url", "work://upstream.git"]).exits(0).says("up-to-date");
    assert_eq!(s.git_ours(&["config", "remote.origin.url"]), "work://upstream.git");
}

#[test]
fn the_marker_is_cleared_in_either_mode() {
    for alpha in [false, true] {
        let s = Scene::new();
        if alpha {
            s.alpha();
        }
        s.rival_pushes("b.txt").we_commit("a.txt");
        write(&s.private().join("force-push-pending"), "");
        s.init_sync().exits(0).says("reset").marker_is(false).ours_equals_upstream();
    }
}

#[test]
fn inside_another_repository_it_makes_its_own() {
    let s = Scene::new();
    let inner = s.ours().join("inner");
    let before = s.git_ours(&["rev-parse", "HEAD"]);
    s.run(&["init-sync", "--remote-url", &url(&s), "--repo", inner.to_str().unwrap()]).exits(0).says("cloned");
    assert_eq!(s.rev(&inner, "HEAD"), s.upstream_tip());
    assert_eq!(s.git_in(&inner, &["rev-parse", "--show-toplevel"]), inner.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(s.git_ours(&["rev-parse", "HEAD"]), before);
    s.work_tree_is_clean();
}

#[test]
fn a_bare_repository_is_refused_untouched() {
    let s = Scene::new();
    let before = fs::read_dir(s.upstream()).unwrap().count();
    s.run(&["init-sync", "--remote-url", &url(&s), "--repo", s.upstream().to_str().unwrap()]).exits(1).says("error");
    s.logs("bare repository");
    assert_eq!(fs::read_dir(s.upstream()).unwrap().count(), before);
}

#[test]
fn a_repository_with_sha256_is_refused_untouched() {
    is_refused_untouched("--object-format=sha256");
}

#[needs(reftable)]
#[test]
fn a_repository_with_reftable_is_refused_untouched() {
    is_refused_untouched("--ref-format=reftable");
}

fn is_refused_untouched(format: &str) {
    let s = Scene::without_ours();
    s.git_in(s.root(), &["init", "-q", "-b", "main", format, "ours"]);
    s.git_ours(&["remote", "add", "origin", &url(&s)]);
    s.we_write("mine.txt", "mine\n").git_ours(&["add", "-A"]);
    s.git_ours(&["commit", "-qm", "mine"]);
    let (tip, files) = (s.our_tip(), s.git_ours(&["ls-files", "-s"]));
    for args in [vec!["init-sync"], vec!["sync"], vec!["tick", "--", "touch", "ran"]] {
        s.run(&args).exits(1).says("error").logs("extensions.").logs("nothing was touched");
        assert_eq!((s.our_tip(), s.git_ours(&["ls-files", "-s"])), (tip.clone(), files.clone()));
        assert!(!s.private().join("broken").exists() && !s.ours().join("ran").exists());
    }
}

#[test]
fn a_work_tree_that_the_configuration_puts_elsewhere_is_refused() {
    let s = Scene::new();
    write(&s.root().join("outside/state/a"), "not ours\n");
    s.git_ours(&["config", "core.worktree", s.root().join("outside").to_str().unwrap()]);
    s.rival_pushes("news.txt");
    for args in [vec!["init-sync"], vec!["sync"], vec!["tick", "--", "touch", "state/ran"]] {
        s.run(&args).exits(1).says("error").logs("core.worktree");
    }
    assert_eq!(fs::read_to_string(s.root().join("outside/state/a")).unwrap(), "not ours\n");
    assert!(!s.ours().join("news.txt").exists() && !s.ours().join("state/ran").exists());
}

#[test]
fn a_git_folder_that_is_elsewhere() {
    let s = Scene::new();
    fs::rename(s.ours().join(".git"), s.root().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", s.ours().join(".git")).unwrap();
    s.rival_pushes("news.txt").sync().exits(0).says("behind").ours_equals_upstream();
    fs::remove_file(s.ours().join(".git")).unwrap();
    fs::write(s.ours().join(".git"), "gitdir: ../elsewhere\n").unwrap();
    s.rival_pushes("news.txt").tick_with("echo 1 >state/b").exits(0).says("pushed").ours_equals_upstream();
    s.run(&["init-sync"]).exits(0).says("up-to-date");
    assert!(s.ours().join(".git").is_file());
}

mod heals {
    use super::*;

    fn conflicting_merge(s: &Scene) -> String {
        s.git_ours(&["checkout", "-q", "-b", "side", "HEAD~1"]);
        s.we_write("index.html", "side\n").git_ours(&["commit", "-qam", "side"]);
        let side = s.rev(&s.ours(), "HEAD");
        s.git_ours(&["checkout", "-q", "main"]);
        let merge = s.git_command(&s.ours()).args(["merge", "side"]).output().unwrap();
        assert!(!merge.status.success());
        side
    }

    #[test]
    fn a_merge_in_progress() {
        let s = Scene::new();
        let side = conflicting_merge(&s);
        let half = fs::read_to_string(s.ours().join("index.html")).unwrap();
        s.git_ours(&["branch", "-q", "-D", "side"]);
        s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&side).fsck();
        assert!(!s.ours().join(".git/MERGE_HEAD").exists());
        assert_eq!(s.git_ours(&["status", "--porcelain"]), "");
        let kept = &s.rescues("worktree")[0];
        assert_eq!(s.git_ours(&["show", &format!("{kept}:index.html")]), half.trim_end());
        s.sync().exits(0).says("up-to-date");
    }

    #[test]
    fn a_rebase_in_progress() {
        let s = Scene::new();
        s.we_write("index.html", "ours\n").git_ours(&["commit", "-qam", "ours"]);
        let ours = s.our_tip();
        s.rival_pushes("index.html");
        s.git_ours(&["fetch", "-q"]);
        let rebase = s.git_command(&s.ours()).args(["rebase", "origin/main"]).output().unwrap();
        assert!(!rebase.status.success());
        s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&ours).fsck();
        assert!(s.git_ours(&["status"]).starts_with("On branch main\n"), "{}", s.git_ours(&["status"]));
        assert!(!s.git_ours(&["status"]).contains("rebas"), "{}", s.git_ours(&["status"]));
    }

    #[test]
    fn a_cherry_pick_in_progress() {
        let s = Scene::new();
        let side = conflicting_merge(&s);
        s.git_ours(&["merge", "--abort"]);
        let pick = s.git_command(&s.ours()).args(["cherry-pick", "side"]).output().unwrap();
        assert!(!pick.status.success());
        s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&side);
        s.tick_with("echo 2 >state/a").exits(0).says("pushed");
    }

    #[test]
    fn head_detached_with_commits_of_its_own() {
        let s = Scene::new();
        s.git_ours(&["checkout", "-q", "--detach"]);
        s.we_commit("detached.txt");
        let detached = s.rev(&s.ours(), "HEAD");
        s.init_sync().exits(0).says("reset").ours_equals_upstream().is_kept(&detached);
        assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert!(!s.ours().join("detached.txt").exists());
    }

    #[test]
    fn head_on_another_branch_which_stays_as_it_is() {
        let s = Scene::new();
        s.git_ours(&["checkout", "-q", "-b", "feature"]);
        s.we_commit("feature.txt");
        let feature = s.rev(&s.ours(), "HEAD");
        s.we_write("index.html", "my edit\n");
        s.init_sync().exits(0).says("reset").ours_equals_upstream();
        assert_eq!(s.rev(&s.ours(), "refs/heads/feature"), feature);
        assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert_eq!(s.git_ours(&["show", &format!("{}:index.html", s.rescues("worktree")[0])]), "my edit");
    }

    #[test]
    fn stale_lock_files() {
        let s = Scene::new();
        s.rival_pushes("news.txt");
        for name in ["index.lock", "HEAD.lock", "refs/heads/main.lock", "refs/remotes/origin/main.lock"] {
            write(&s.ours().join(".git").join(name), "");
        }
        s.init_sync().exits(0).says("reset").ours_equals_upstream();
        s.git_ours(&["gc", "-q"]);
    }

    #[test]
    fn a_corrupt_repository_is_put_aside_and_fetched_anew() {
        let s = Scene::new();
        s.we_commit("state/b");
        let ours = s.our_tip();
        s.we_write("free.txt", "in nobody's way\n");
        let tree = s.rev(&s.ours(), "HEAD~1^{tree}");
        // The clone's pack holds it; take every pack away.
        for pack in fs::read_dir(s.ours().join(".git/objects/pack")).unwrap() {
            fs::remove_file(pack.unwrap().path()).unwrap();
        }
        let _ = fs::remove_file(s.ours().join(format!(".git/objects/{}/{}", &tree[..2], &tree[2..])));
        s.init_sync().exits(0).ours_equals_upstream().fsck().our_file("free.txt", "in nobody's way\n");
        let aside = s.private().join("broken");
        let old = fs::read_dir(&aside).unwrap().next().unwrap().unwrap().path();
        assert!(Path::new(&old).join(format!("objects/{}/{}", &ours[..2], &ours[2..])).exists(), "never deleted");
        s.sync().exits(0).says("up-to-date");
        s.tick_with("echo 2 >state/a").exits(0).says("pushed").ours_equals_upstream().fsck();
    }

    #[test]
    fn a_clone_killed_before_its_first_commit_arrived() {
        let s = Scene::without_ours();
        s.git_in(s.root(), &["init", "-q", "-b", "main", "ours"]);
        s.git_ours(&["remote", "add", "origin", &url(&s)]);
        s.run(&["init-sync"]).exits(0).ours_equals_upstream();
    }

    #[test]
    fn a_clone_killed_before_its_checkout() {
        let s = Scene::new();
        for name in ["index.html", "gone.txt", "state/a", ".git/index"] {
            fs::remove_file(s.ours().join(name)).unwrap();
        }
        s.init_sync().exits(0).ours_equals_upstream().our_file("state/a", "a 1\n");
        assert!(s.rescues("").is_empty());
    }
}

mod the_site {
    use super::*;

    #[test]
    fn is_built_fresh() {
        let s = Scene::without_ours();
        write(&s.public().join("stale.html"), "of an earlier life\n");
        let build = "cp index.html {public_dir}/";
        s.arg("--public-dir").arg(s.public().to_str().unwrap()).arg("--build-command").arg(build);
        s.run(&["init-sync", "--replace-public-dir", "--output", "json", "--remote-url", &url(&s)]).exits(0);
        assert_eq!(s.json()["site_built"], true);
        assert_eq!(fs::read_to_string(s.public().join("index.html")).unwrap(), "page 2\n");
        assert!(!s.public().join("stale.html").exists(), "exactly the fresh site");
        assert!(!s.ours().join("index.html/").exists());
        // At every start, though nothing differs.
        write(&s.public().join("stale.html"), "again\n");
        s.run(&["init-sync"]).exits(0).says("up-to-date");
        assert!(!s.public().join("stale.html").exists());
    }

    #[test]
    fn a_failed_build_is_a_failure_but_the_repository_is_there() {
        let s = Scene::without_ours();
        s.arg("--public-dir").arg(s.public().to_str().unwrap()).arg("--build-command").arg("exit 3");
        s.init_sync().exits(1).says("cloned").ours_equals_upstream().logs("the build exited with status 3");
        assert_eq!(s.run(&["init-sync", "--output", "json"]).json()["site_built"], false);
    }

    #[test]
    fn without_a_build_command_the_public_dir_is_emptied() {
        let s = Scene::without_ours();
        write(&s.public().join("stale.html"), "of an earlier life\n");
        write(&s.public().join("deep/er.html"), "of an earlier life\n");
        s.arg("--public-dir").arg(s.public().to_str().unwrap()).arg("--build-command").arg("");
        s.arg("--replace-public-dir").init_sync().exits(0).says("cloned");
        assert_eq!(fs::read_dir(s.public()).unwrap().count(), 0, "{}", s.last());
    }
}

#[test]
fn submodules_and_lfs_are_left_as_they_are_and_said_once() {
    let s = Scene::without_ours();
    s.rival_writes(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    s.rival_writes("big.bin", pointer);
    s.git_in(&s.rival(), &["-c", "filter.lfs.required=false", "add", "-A"]);
    let sub = s.upstream();
    s.git_in(&s.rival(), &["-c", "protocol.file.allow=always", "submodule", "add", "-q", sub.to_str().unwrap(), "sub"]);
    s.rival_commits("a submodule").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync()
        .exits(0)
        .says("cloned")
        .logs("submodules: their folders are left")
        .logs("gitsync does not apply filter=lfs (Git LFS)");
    s.our_file("big.bin", pointer).work_tree_is_clean();
    assert_eq!(std::fs::read_dir(s.ours().join("sub")).unwrap().count(), 0);
    s.sync().says("up-to-date").logs_not("LFS");
    s.tick_with("echo 1 > state/b").says("pushed").logs_not("LFS");
}

#[test]
fn an_empty_remote_is_no_failed_build() {
    let s = Scene::empty_upstream();
    s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap());
    s.env("GIT_SYNC_BUILD_COMMAND", "cp state/page {public_dir}/index.html");
    s.init_sync().exits(0).says("empty-remote");
    s.tick_with("mkdir state; echo page > state/page").exits(0).says("pushed");
    assert_eq!(std::fs::read_to_string(s.public().join("index.html")).unwrap(), "page\n");
}

#[test]
fn a_given_url_with_a_secret_reaches_no_job() {
    // It is not the URL of the remote here, and is not used for it.
    let s = Scene::new();
    s.env("GIT_SYNC_REMOTE_URL", "https://user:canary-in-a-url@127.0.0.1:1/x.git");
    s.tick_with("env > state/env").exits(0).says("pushed");
    let env = std::fs::read_to_string(s.ours().join("state/env")).unwrap();
    assert!(!env.contains("canary-in-a-url") && !env.contains("GIT_SYNC_REMOTE_URL"), "{env}");
    assert!(!s.last().stderr.contains("canary-in-a-url"));
}
