//! A dry run says the word and the exit code that the pass then says, and changes nothing: every pass in either mode, in a
//! scene for every state, damage and remote. A tick's job changes nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod scene;
mod servers;

use std::fs;
use std::path::Path;
use std::process::Command;

use scene::{Scene, snapshot_of, write};
use servers::CANARY;
use servers::http::{Fault, HttpServer};

/// A pass as given on the command line, in either mode.
const PASSES: &[&[&str]] = &[
    &["init-sync"],
    &["sync"],
    &["tick", "--", "true"],
    &["init-sync", "--alpha"],
    &["sync", "--alpha"],
    &["tick", "--alpha", "--", "true"],
];

/// Runs every pass dry and then for real, each from the same scene, and compares.
#[track_caller]
fn agrees(name: &str, s: &Scene) {
    let backup = tempfile::tempdir().unwrap();
    copy(s.root(), backup.path());
    let mut wrong = Vec::new();
    for pass in PASSES {
        let mut dry = pass.to_vec();
        dry.insert(1, "--dry-run");
        let before = snapshot_of(s.root());
        s.run(&dry);
        let planned = s.last();
        let after = snapshot_of(s.root());
        if before != after {
            let changed: Vec<_> =
                after.iter().filter(|it| !before.contains(it)).map(|it| it.0.display().to_string()).collect();
            wrong.push(format!("{pass:?} run dry changed {changed:?}"));
            restore(s.root(), backup.path());
        }
        s.run(pass);
        let done = s.last();
        if (&planned.stdout, planned.code) != (&done.stdout, done.code) {
            wrong.push(format!("{pass:?} planned and done differ:\n{planned}\n{done}"));
        }
        restore(s.root(), backup.path());
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n\n"));
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(done.success());
}

/// Puts back what was there, so that each pass starts from the very same bytes and times.
fn restore(root: &Path, backup: &Path) {
    for entry in fs::read_dir(root).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    copy(backup, root);
}

macro_rules! scenes {
    ($($name:ident: |$s:ident| $make:block)*) => {
        $(#[test]
        fn $name() {
            let $s = Scene::new();
            $make
            agrees(stringify!($name), &$s);
        })*
    };
}

scenes! {
    up_to_date: |s| {}
    behind: |s| { s.rival_pushes("index.html"); }
    ahead: |s| { s.we_commit("a.txt"); }
    diverged: |s| { s.we_commit("a.txt").rival_pushes("b.txt"); }
    diverged_with_rebase: |s| { s.we_commit("a.txt").rival_pushes("b.txt").arg("--on-divergence").arg("rebase"); }
    diverged_with_a_conflict_and_rebase: |s| {
        s.we_commit("index.html").rival_pushes("index.html").arg("--on-divergence").arg("rebase");
    }
    the_remote_was_rewritten: |s| { s.rival_rewrites("index.html"); }
    the_remote_was_rewritten_with_rebase: |s| {
        s.we_commit("a.txt").rival_rewrites("index.html").arg("--on-divergence").arg("rebase");
    }
    the_remote_was_rewound: |s| {
        s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "HEAD~1:main"]);
    }
    the_branch_is_gone: |s| { s.rival_deletes_branch(); }
    the_branch_is_gone_with_unpushed_commits: |s| { s.we_commit("a.txt").rival_deletes_branch(); }
    the_remote_is_away: |s| { s.upstream_goes_away(); }
    the_remote_is_away_with_unpushed_commits: |s| { s.we_commit("a.txt").upstream_goes_away(); }
    the_remote_is_away_with_state_to_commit: |s| { s.we_write("state/b", "b\n").upstream_goes_away(); }
    another_url: |s| {
        s.git_in(s.root(), &["init", "-q", "--bare", "-b", "main", "other.git"]);
        s.git_ours(&["remote", "set-url", "origin", s.root().join("other.git").to_str().unwrap()]);
    }
    no_remote: |s| { s.git_ours(&["remote", "remove", "origin"]); }
    state_to_commit: |s| { s.we_write("state/b", "b\n"); }
    state_to_commit_behind: |s| { s.we_write("state/b", "b\n").rival_pushes("index.html"); }
    state_deleted: |s| { fs::remove_file(s.ours().join("state/a")).unwrap(); }
    a_dirty_page: |s| { s.we_write("index.html", "mine\n"); }
    a_dirty_page_behind: |s| { s.we_write("index.html", "mine\n").rival_pushes("index.html"); }
    a_fifo_in_the_state: |s| {
        let made = Command::new("mkfifo").arg(s.ours().join("state/fifo")).status().unwrap();
        assert!(made.success());
    }
    a_file_that_is_too_large: |s| { s.we_write("state/large", &"x".repeat(3000)).arg("--max-file-size").arg("2kB"); }
    a_nested_repository: |s| { s.git_in(&s.ours(), &["init", "-q", "state/nested"]); }
    a_pending_force_push: |s| { s.we_commit("a.txt").rival_pushes("b.txt").run(&["sync", "--alpha"]).says("diverged"); }
    a_pending_force_push_and_the_remote_moves: |s| {
        s.we_commit("a.txt").rival_pushes("b.txt").run(&["sync", "--alpha"]).says("diverged").rival_pushes("c.txt");
    }
    a_detached_head: |s| { s.git_ours(&["checkout", "-q", "--detach"]); }
    another_branch: |s| { s.git_ours(&["checkout", "-q", "-b", "other"]); }
    a_merge_half_done: |s| {
        s.we_commit("a.txt").rival_pushes("b.txt").git_ours(&["fetch", "-q", "origin"]);
        s.git_ours(&["merge", "-q", "--no-commit", "--no-ff", "origin/main"]);
    }
    no_index: |s| { fs::remove_file(s.ours().join(".git/index")).unwrap(); }
    a_damaged_index: |s| { write(&s.ours().join(".git/index"), "no index"); }
    a_lock_on_the_index: |s| { write(&s.ours().join(".git/index.lock"), ""); }
    a_follow_cut_short: |s| {
        let old = s.our_tip();
        s.rival_pushes("index.html").git_ours(&["fetch", "-q", "origin"]);
        let intent = format!(r#"{{"branch":"main","old":"{old}","target":"{}","why":"following"}}"#, s.upstream_tip());
        write(&s.private().join("intent"), &intent);
    }
    an_object_is_missing: |s| {
        let tree = s.rev(&s.ours(), "HEAD^{tree}");
        s.git_ours(&["repack", "-adq"]);
        let packs = s.ours().join(".git/objects/pack");
        fs::create_dir(s.root().join("aside")).unwrap();
        for entry in fs::read_dir(&packs).unwrap().flatten() {
            fs::rename(entry.path(), s.root().join("aside").join(entry.file_name())).unwrap();
        }
        for entry in fs::read_dir(s.root().join("aside")).unwrap().flatten() {
            if entry.path().extension().is_some_and(|it| it == "pack") {
                let mut unpack = s.git_command(&s.ours());
                unpack.args(["unpack-objects", "-q"]).stdin(fs::File::open(entry.path()).unwrap());
                assert!(unpack.status().unwrap().success());
            }
        }
        fs::remove_file(s.ours().join(".git/objects").join(&tree[..2]).join(&tree[2..])).unwrap();
    }
    no_head: |s| { fs::remove_file(s.ours().join(".git/HEAD")).unwrap(); }
    a_damaged_branch: |s| { write(&s.ours().join(".git/refs/heads/main"), ""); }
    a_damaged_config: |s| { write(&s.ours().join(".git/config"), ""); }
    a_sparse_work_tree: |s| { s.git_ours(&["sparse-checkout", "set", "state"]); }
    a_linked_work_tree_on_the_branch: |s| {
        s.git_ours(&["checkout", "-q", "--detach"]);
        s.git_ours(&["worktree", "add", "-q", "../linked", "main"]);
    }
    a_shallow_clone: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.rival_pushes("b.txt");
        let url = format!("file://{}", s.upstream().display());
        s.git_in(s.root(), &["clone", "-q", "--depth", "1", &url, "ours"]);
        s.rival_pushes("c.txt");
    }
    unrelated_histories: |s| {
        s.git_in(&s.rival(), &["checkout", "-q", "--orphan", "fresh"]);
        s.rival_commits("a beginning").git_in(&s.rival(), &["push", "-q", "--force", "origin", "fresh:main"]);
    }
    a_branch_that_the_remote_lacks: |s| { s.arg("--branch").arg("nowhere"); }
    a_remote_that_does_not_exist: |s| { s.arg("--remote").arg("nowhere"); }
    an_unborn_branch_of_an_empty_remote: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.rival_deletes_branch().init_sync();
    }
    an_unborn_branch_and_state_to_commit: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.rival_deletes_branch().init_sync().we_write("state/b", "b\n");
    }
    an_unborn_branch_and_the_remote_away: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.rival_deletes_branch().init_sync().upstream_goes_away();
    }
    a_bare_repository: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.git_in(s.root(), &["clone", "-q", "--bare", "upstream.git", "ours"]);
    }
    no_repository: |s| { fs::remove_dir_all(s.ours()).unwrap(); }
    no_repository_and_a_url: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.env("GIT_SYNC_REMOTE_URL", s.upstream().to_str().unwrap());
    }
    no_repository_and_a_url_that_is_away: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.env("GIT_SYNC_REMOTE_URL", s.root().join("nowhere.git").to_str().unwrap());
    }
    no_repository_and_an_empty_remote: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.rival_deletes_branch().env("GIT_SYNC_REMOTE_URL", s.upstream().to_str().unwrap());
    }
    a_public_dir_with_somebodys_files: |s| {
        s.env("GIT_SYNC_PUBLIC_DIR", s.ours().join("state").to_str().unwrap());
    }
    a_site: |s| {
        s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", "echo built > {public_dir}/built");
        s.rival_pushes("index.html");
    }
    a_metrics_file_that_is_a_device: |s| { s.env("GIT_SYNC_METRICS_FILE", "/dev/null"); }
    a_site_that_nothing_builds: |s| {
        s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).arg("--build-command").arg("");
        write(&s.public().join("old"), "old");
    }
    a_public_dir_in_the_work_tree: |s| {
        s.we_write("web/mine", "mine\n").env("GIT_SYNC_PUBLIC_DIR", s.ours().join("web").to_str().unwrap());
        s.env("GIT_SYNC_BUILD_COMMAND", "echo built > {public_dir}/built").rival_pushes("index.html");
    }
    a_lock_on_the_branch: |s| { write(&s.ours().join(".git/refs/heads/main.lock"), ""); }
    an_old_lock_on_the_index: |s| {
        write(&s.ours().join(".git/index.lock"), "");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        fs::File::options().write(true).open(s.ours().join(".git/index.lock")).unwrap().set_modified(old).unwrap();
        s.rival_pushes("index.html");
    }
    a_pass_that_died: |s| {
        write(&s.private().join("lock"), r#"{"pid":1,"command":"tick","since":"2026-01-01T00:00:00Z"}"#);
        write(&s.ours().join(".git/index.lock"), "");
        s.we_write("state/b", "b\n");
    }
    an_empty_index: |s| { write(&s.ours().join(".git/index"), ""); }
    no_index_and_state_changed: |s| {
        fs::remove_file(s.ours().join(".git/index")).unwrap();
        s.we_write("state/a", "changed\n").we_write("state/b", "b\n");
    }
    no_index_behind: |s| {
        fs::remove_file(s.ours().join(".git/index")).unwrap();
        s.rival_pushes("index.html");
    }
    a_split_index: |s| { s.git_ours(&["update-index", "--split-index"]); }
    a_rebase_half_done: |s| {
        s.we_commit("index.html").rival_pushes("index.html").git_ours(&["fetch", "-q", "origin"]);
        let _ = s.git_command(&s.ours()).args(["rebase", "origin/main"]).output();
    }
    another_branch_with_a_commit: |s| {
        s.git_ours(&["checkout", "-q", "-b", "other"]);
        s.we_commit("a.txt");
    }
    an_unborn_other_branch: |s| { s.git_ours(&["checkout", "-q", "--orphan", "other"]); }
    a_branch_that_is_a_symbolic_reference: |s| {
        s.git_ours(&["checkout", "-q", "-b", "other"]);
        s.git_ours(&["symbolic-ref", "refs/heads/main", "refs/heads/other"]);
    }
    no_objects: |s| { fs::remove_dir_all(s.ours().join(".git/objects")).unwrap(); }
    no_references: |s| { fs::remove_dir_all(s.ours().join(".git/refs")).unwrap(); }
    no_local_branch: |s| {
        s.git_ours(&["update-ref", "-d", "refs/heads/main"]);
        let _ = fs::remove_file(s.ours().join(".git/logs/refs/heads/main"));
    }
    no_local_branch_and_the_remote_away: |s| {
        s.git_ours(&["update-ref", "-d", "refs/heads/main"]);
        let _ = fs::remove_file(s.ours().join(".git/logs/refs/heads/main"));
        s.upstream_goes_away();
    }
    an_object_of_no_length: |s| {
        s.we_commit("a.txt");
        let tip = s.our_tip();
        let object = s.ours().join(".git/objects").join(&tip[..2]).join(&tip[2..]);
        fs::remove_file(&object).unwrap();
        write(&object, "");
    }
    a_damaged_object_and_the_remote_away: |s| {
        s.we_commit("a.txt");
        let tip = s.our_tip();
        let object = s.ours().join(".git/objects").join(&tip[..2]).join(&tip[2..]);
        fs::remove_file(&object).unwrap();
        write(&object, "no object");
        s.upstream_goes_away();
    }
    damaged_packed_references: |s| {
        s.git_ours(&["pack-refs", "--all"]);
        write(&s.ours().join(".git/packed-refs"), "nonsense\n");
    }
    no_tracking_reference: |s| { s.we_commit("a.txt").git_ours(&["update-ref", "-d", "refs/remotes/origin/main"]); }
    no_tracking_reference_and_the_branch_is_gone: |s| {
        s.git_ours(&["update-ref", "-d", "refs/remotes/origin/main"]);
        s.rival_deletes_branch();
    }
    a_work_tree_elsewhere: |s| { s.git_ours(&["config", "core.worktree", s.root().to_str().unwrap()]); }
    grafts: |s| { write(&s.ours().join(".git/info/grafts"), &format!("{}\n", s.our_tip())); }
    another_format: |s| { s.git_ours(&["config", "core.repositoryFormatVersion", "7"]); }
    a_mistyped_configuration: |s| { write(&s.ours().join(".git/config"), "[core\n"); }
    a_private_folder_that_is_a_file: |s| {
        let _ = fs::remove_dir_all(s.private());
        write(&s.private(), "");
    }
    a_folder_in_the_place_of_the_lock: |s| {
        let _ = fs::remove_file(s.private().join("lock"));
        fs::create_dir_all(s.private().join("lock")).unwrap();
    }
    a_damaged_intent: |s| { write(&s.private().join("intent"), "nonsense"); }
    an_intent_of_another_branch: |s| {
        let tip = s.our_tip();
        let intent = format!(r#"{{"branch":"other","old":null,"target":"{tip}","why":"following"}}"#);
        write(&s.private().join("intent"), &intent);
    }
    a_damaged_record_of_the_token_host: |s| { write(&s.private().join("token-host"), "nonsense"); }
    a_marker_that_says_nothing: |s| {
        s.we_commit("a.txt").rival_pushes("b.txt");
        write(&s.private().join("force-push-pending"), "");
    }
    a_marker_and_the_branch_gone: |s| { s.rival_deletes_branch().run(&["sync", "--alpha"]).exits(0); }
    a_history_that_began_here: |s| {
        s.git_in(&s.rival(), &["checkout", "-q", "--orphan", "fresh"]);
        s.rival_commits("a beginning").git_in(&s.rival(), &["push", "-q", "--force", "origin", "fresh:main"]);
        write(&s.private().join("begun"), "");
    }
    the_remote_was_rewound_below_our_commit: |s| {
        s.we_commit("a.txt").git_in(&s.rival(), &["push", "-q", "--force", "origin", "HEAD~1:main"]);
    }
    state_to_commit_and_a_rival_with_rebase: |s| {
        s.we_commit("a.txt").we_write("state/b", "b\n").rival_pushes("b.txt").arg("--on-divergence").arg("rebase");
    }
    a_commit_that_the_remote_has_otherwise_with_rebase: |s| {
        s.we_commit("a.txt");
        fs::copy(s.ours().join("a.txt"), s.rival().join("a.txt")).unwrap();
        s.rival_commits("the same").git_in(&s.rival(), &["push", "-q", "origin", "HEAD:main"]);
        s.arg("--on-divergence").arg("rebase");
    }
    the_same_state_on_both_sides: |s| {
        s.we_write("state/b", "b\n").rival_writes("state/b", "b\n").rival_commits("the same");
        s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:main"]);
    }
    other_state_on_the_remote: |s| {
        s.we_write("state/a", "ours\n").rival_writes("state/a", "theirs\n").rival_commits("theirs");
        s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:main"]);
    }
    a_commit_that_cannot_be_followed: |s| {
        s.rival_writes(&format!("{}file", "d/".repeat(120)), "deep\n").rival_commits("deep");
        s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:main"]);
    }
    a_commit_that_cannot_be_followed_and_state_to_commit: |s| {
        s.rival_writes(&format!("{}file", "d/".repeat(120)), "deep\n").rival_commits("deep");
        s.git_in(&s.rival(), &["push", "-q", "origin", "HEAD:main"]);
        s.we_write("state/b", "b\n");
    }
    a_state_that_is_a_link: |s| {
        fs::rename(s.ours().join("state"), s.ours().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", s.ours().join("state")).unwrap();
    }
    an_ignored_state: |s| { s.we_write(".gitignore", "state/b\n").we_write("state/b", "b\n"); }
    no_url_and_no_repository_to_speak_of: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        fs::create_dir_all(s.ours().join(".git")).unwrap();
    }
    a_clone_that_was_killed: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.git_in(s.root(), &["init", "-q", "-b", "main", "ours"]);
        s.git_ours(&["remote", "add", "origin", s.upstream().to_str().unwrap()]);
    }
    somebodys_files_and_no_repository: |s| {
        fs::remove_dir_all(s.ours()).unwrap();
        s.we_write("index.html", "mine\n").env("GIT_SYNC_REMOTE_URL", s.upstream().to_str().unwrap());
    }
    a_url_that_is_given_anew: |s| {
        s.git_in(s.root(), &["clone", "-q", "--bare", "upstream.git", "other.git"]);
        s.rival_pushes("index.html").env("GIT_SYNC_REMOTE_URL", s.root().join("other.git").to_str().unwrap());
    }
    a_url_that_no_transport_takes: |s| { s.env("GIT_SYNC_REMOTE_URL", "nothing://here"); }
}

/// Where the remote is on a server.
fn over_http(name: &str, make: impl FnOnce(&Scene, &HttpServer)) {
    let s = Scene::new();
    let server = HttpServer::over(s.root(), false);
    s.git_upstream(&["config", "http.receivepack", "true"]);
    s.git_ours(&["remote", "set-url", "origin", &format!("{}/upstream.git", server.origin())]);
    make(&s, &server);
    agrees(name, &s);
}

#[test]
fn a_server() {
    over_http("behind", |s, _| {
        s.rival_pushes("index.html");
    });
    over_http("diverged", |s, _| {
        s.we_commit("a.txt").rival_pushes("b.txt");
    });
}

#[test]
fn a_server_that_does_not_find_it() {
    over_http("404", |_, server| server.always(Fault::status(404)));
    over_http("404, state to commit", |s, server| {
        s.we_write("state/b", "b\n");
        server.always(Fault::status(404));
    });
}

#[test]
fn a_server_that_is_out_of_order() {
    over_http("503", |_, server| server.always(Fault::status(503)));
}

#[test]
fn a_server_that_wants_a_token() {
    over_http("no token", |_, server| server.wants("x-access-token", CANARY));
    over_http("a wrong token", |s, server| {
        s.env("GIT_SYNC_TOKEN", "wrong");
        server.wants("x-access-token", CANARY);
    });
    over_http("a token in the URL of the environment alone", |s, server| {
        s.we_write("state/b", "b\n");
        server.wants("x-access-token", CANARY);
        let url = format!("http://x-access-token:{CANARY}@{}/upstream.git", server.address);
        s.env("GIT_SYNC_REMOTE_URL", &url);
    });
    over_http("a token in the stored URL", |s, server| {
        server.wants("x-access-token", CANARY);
        let url = format!("http://x-access-token:{CANARY}@{}/upstream.git", server.address);
        s.git_ours(&["remote", "set-url", "origin", &url]);
    });
}

#[test]
fn somebody_who_holds_the_lock() {
    let s = Scene::new();
    s.sync().arg("--lock-wait").arg("100ms");
    let lock = fs::File::options().write(true).open(s.private().join("lock")).unwrap();
    lock.lock().unwrap();
    let folder = fs::File::open(s.ours().join(".git")).unwrap();
    folder.lock().unwrap();
    for pass in PASSES {
        let mut dry = pass.to_vec();
        dry.insert(1, "--dry-run");
        s.run(&dry).exits(75).says("error").logs("has held the lock");
        s.run(pass).exits(75).says("error").logs("has held the lock");
    }
}
