//! A folder where git keeps a file, a file where git keeps a folder: `init-sync` sets it aside, and what it named stays reachable.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use std::fs;
use std::path::{Path, PathBuf};

use scene::{Scene, write};

/// Ours has a commit of its own, and the remote has moved on.
fn parted() -> Scene {
    let s = Scene::new();
    s.we_commit("state/own").rival_pushes("news");
    s
}

fn git_dir(s: &Scene) -> PathBuf {
    s.ours().join(".git")
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { drop(fs::remove_file(path)) }
}

/// Two starts are enough, and the next pass has nothing to do.
#[track_caller]
fn heals(s: &Scene, what: &str) {
    let url = format!("file://{}", s.upstream().display());
    s.run(&["init-sync", "--remote-url", &url]).exits(0).ours_equals_upstream().fsck();
    s.init_sync().exits(0).says("up-to-date");
    s.sync().exits(0).says("up-to-date");
    assert!(s.git_ours(&["status", "--porcelain"]).is_empty(), "{what}\n{}", s.last());
}

#[test]
fn a_folder_where_git_keeps_a_file_is_set_aside() {
    for name in ["HEAD", "config", "index", "packed-refs", "shallow"] {
        let s = parted();
        let own = s.our_tip();
        remove(&git_dir(&s).join(name));
        write(&git_dir(&s).join(name).join("within"), "somebody's\n");
        heals(&s, name);
        assert_eq!(
            fs::read_to_string(s.private().join("damaged-refs").join(name).join("within")).unwrap(),
            "somebody's\n"
        );
        s.is_kept(&own);
    }
}

#[test]
fn a_file_where_git_keeps_a_folder_is_set_aside() {
    for name in ["logs", "logs/refs", "logs/refs/remotes/origin", "info", "objects/info", "refs/tags", "refs/gitsync"] {
        let s = parted();
        let own = s.our_tip();
        remove(&git_dir(&s).join(name));
        write(&git_dir(&s).join(name), "somebody's\n");
        heals(&s, name);
        let kept = s.private().join("damaged-refs").join(name.replace('/', "+"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "somebody's\n");
        s.is_kept(&own);
    }
}

/// With them the commits that nobody pushed have gone. What can be fetched is.
#[test]
fn a_file_in_the_place_of_the_objects_is_set_aside() {
    for name in ["objects", "objects/pack", "refs"] {
        let s = parted();
        s.git_ours(&["gc", "-q"]);
        remove(&git_dir(&s).join(name));
        write(&git_dir(&s).join(name), "somebody's\n");
        heals(&s, name);
    }
}

#[test]
fn a_reference_where_git_keeps_a_folder_of_them_keeps_its_commit() {
    for name in ["refs/heads", "refs/remotes", "refs/remotes/origin", "refs/gitsync", "refs/gitsync/rescue"] {
        let s = parted();
        let own = s.our_tip();
        let tree = s.rev(&s.ours(), "HEAD^{tree}");
        let lone = s.git_ours(&["commit-tree", &tree, "-p", "HEAD~1", "-m", "nowhere else"]);
        s.git_ours(&["pack-refs", "--all"]);
        remove(&git_dir(&s).join(name));
        write(&git_dir(&s).join(name), &format!("{lone}\n"));
        heals(&s, name);
        assert_eq!(s.rev(&s.ours(), &format!("{name}-was")), lone);
        s.is_kept(&own);
    }
}

/// git took such a HEAD for the branch. libgit2 reads the branch's commit through it, and a HEAD that was put right through the
/// link took the place of the branch: its commit was in no reference any more, and no later start could read the branch.
#[test]
fn a_head_that_is_a_link_is_made_a_file_and_the_branch_stays() {
    let s = parted();
    let own = s.our_tip();
    let head = git_dir(&s).join("HEAD");
    remove(&head);
    std::os::unix::fs::symlink("refs/heads/main", &head).unwrap();
    heals(&s, "HEAD");
    assert_eq!(fs::read_to_string(&head).unwrap(), "ref: refs/heads/main\n");
    assert!(head.symlink_metadata().unwrap().is_file());
    s.is_kept(&own);
}

/// git and libgit2 refuse to open such a repository.
#[test]
fn a_list_of_where_history_is_cut_that_git_cannot_read_is_set_aside() {
    for cut in ["garbage\n", "\0\0\0\0\0\0\0\0"] {
        let s = parted();
        let own = s.our_tip();
        write(&git_dir(&s).join("shallow"), cut);
        heals(&s, "shallow");
        assert!(!git_dir(&s).join("shallow").exists());
        s.is_kept(&own);
        assert!(!s.private().join("broken").exists());
    }
}

#[test]
fn of_such_a_list_the_lines_that_git_can_read_stay() {
    let s = Scene::without_ours();
    s.rival_pushes("news");
    let url = format!("file://{}", s.upstream().display());
    let ours = s.ours();
    s.git_in(s.root(), &["clone", "-q", "--depth", "1", &url, ours.to_str().unwrap()]);
    let cut = fs::read_to_string(git_dir(&s).join("shallow")).unwrap();
    write(&git_dir(&s).join("shallow"), &format!("{cut}4\n"));
    heals(&s, "shallow");
    assert_eq!(fs::read_to_string(git_dir(&s).join("shallow")).unwrap(), cut);
    assert!(!s.private().join("broken").exists());
}

/// A folder in the place of `token-host` ended each start with exit 1.
#[test]
fn what_stands_in_the_place_of_a_file_of_ours_is_moved_aside() {
    for name in [
        "lock",
        "job.lock",
        "status.json",
        "intent",
        "index-before",
        "ages.json",
        "begun",
        "putting-aside",
        "token-host",
        "force-push-pending",
        "site-stale",
        "gc-failed",
    ] {
        let s = parted();
        let own = s.our_tip();
        remove(&s.private().join(name));
        write(&s.private().join(name).join("within"), "somebody's\n");
        s.init_sync().exits(0).ours_equals_upstream().is_kept(&own);
        s.tick_with("echo 1 > state/a").exits(0).says("pushed").ours_equals_upstream();
        s.sync().exits(0).says("up-to-date");
        let aside = fs::read_dir(s.private().join("aside")).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
        assert!(aside.join("within").exists(), "{name}");
    }
}

/// So is a link in the place of a folder of ours, and nothing is written where it leads.
#[test]
fn a_link_in_the_place_of_a_folder_of_ours_is_moved_aside() {
    for name in ["broken", "damaged-refs", "empty-objects", "staging", "staging-old", "beside", "reading"] {
        let s = parted();
        let outside = s.root().join("outside");
        write(&outside.join("within"), "somebody's\n");
        remove(&s.private().join(name));
        std::os::unix::fs::symlink(&outside, s.private().join(name)).unwrap();
        write(&git_dir(&s).join("refs/heads/junk"), "junk\n");
        let tree = s.rev(&s.ours(), "HEAD^{tree}");
        fs::remove_file(git_dir(&s).join(format!("objects/{}/{}", &tree[..2], &tree[2..]))).unwrap();
        s.init_sync().exits(0).says("cloned").ours_equals_upstream();
        s.sync().exits(0).says("up-to-date");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{name}");
    }
}
