//! Whatever state a repository is in, `init-sync` brings it to the remote's latest, and what can still be read of its own
//! commits is kept. What is safe also in `sync` and `tick` is healed there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::scene::{Scene, until, write};

const LOCKS: &[&str] = &[
    "index.lock",
    "HEAD.lock",
    "config.lock",
    "packed-refs.lock",
    "refs/heads/main.lock",
    "refs/remotes/origin/main.lock",
];

fn old(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(61)).unwrap();
}

/// Everything of a repository in order: at the remote's latest, sound, and the next pass finds nothing to do.
#[track_caller]
fn healed(s: &Scene) {
    s.ours_equals_upstream().fsck();
    assert_eq!(s.git_ours(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    s.sync().exits(0).says("up-to-date");
    s.tick_with("mkdir -p state; echo $$ > state/healed").exits(0).says("pushed").ours_equals_upstream();
    let files = s.git_ours(&["diff", "--name-only", "HEAD~1", "HEAD"]);
    assert_eq!(files, "state/healed");
}

#[track_caller]
fn no_locks(s: &Scene) {
    for lock in LOCKS {
        assert!(!s.ours().join(".git").join(lock).exists(), "{lock}\n{}", s.last());
    }
}

#[test]
fn init_sync_clears_lock_files_whatever_their_age() {
    for lock in LOCKS {
        let s = Scene::new();
        s.rival_pushes("news");
        write(&s.ours().join(".git").join(lock), "");
        s.init_sync().exits(0).says("reset").logs("removed a stale lock");
        no_locks(&s);
        healed(&s);
    }
}

#[test]
fn sync_and_tick_clear_old_lock_files_and_wait_for_young_ones() {
    for pass in ["sync", "tick"] {
        for lock in LOCKS {
            let s = Scene::new();
            s.rival_pushes("news");
            let path = s.ours().join(".git").join(lock);
            write(&path, "");
            let before = s.our_tip();
            let args: &[&str] = if pass == "sync" { &["sync"] } else { &["tick", "--", "true"] };
            s.run(args).exits(75).says("error").logs(lock);
            assert_eq!(s.our_tip(), before);
            assert!(path.exists());
            old(&path);
            s.run(args).exits(0);
            no_locks(&s);
            healed(&s);
        }
    }
}

#[test]
fn a_lock_that_a_live_git_holds_is_respected_however_old_it_looks() {
    let s = Scene::new();
    s.rival_pushes("news");
    // A commit whose editor is open holds index.lock for as long as the person thinks.
    s.we_write("index.html", "mine\n");
    let ready = s.root().join("ready");
    let editor = format!("touch '{}'; read line", ready.display());
    let mut git = s.git_command(&s.ours());
    git.args(["commit", "-a"]).env("GIT_EDITOR", format!("sh -c \"{editor}\"")).stdin(Stdio::piped());
    let mut git = git.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("git holds the index", || ready.exists());
    let lock = s.ours().join(".git/index.lock");
    assert!(lock.exists());
    old(&lock);
    let before = s.our_tip();
    for pass in [["sync"].as_slice(), &["tick", "--", "true"], &["init-sync"]] {
        s.run(pass).exits(75).says("error").logs("held by a git process");
        assert!(lock.exists());
        assert_eq!(s.our_tip(), before);
    }
    drop(git.stdin.take());
    git.wait().unwrap();
    s.sync().exits(0).ours_equals_upstream().fsck();
}

// ---- killed clones

/// Starts `git clone` and kills it once `is_time` says so. Whether it was killed before its end.
fn clone_killed(s: &Scene, is_time: &dyn Fn(&Path) -> bool) -> bool {
    let ours = s.ours();
    // git removes a half clone on a signal it can catch. This one it can't.
    let url = format!("file://{}", s.upstream().display());
    let mut git = s.git_command(s.root());
    let mut git = git.args(["clone", "-q", &url, "ours"]).stderr(Stdio::null()).spawn().unwrap();
    while !is_time(&ours.join(".git")) {
        if git.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    git.kill().unwrap();
    git.wait().unwrap();
    true
}

#[test]
fn a_killed_clone_is_brought_to_its_end() {
    let s = Scene::without_ours();
    for i in 0..400 {
        s.rival_writes(&format!("many/{i}"), &format!("{i} {}\n", "x".repeat(2000 + i)));
    }
    s.rival_commits("many");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    let times: [&dyn Fn(&Path) -> bool; 5] = [
        &|git_dir| git_dir.join("HEAD").exists(),
        &|git_dir| git_dir.join("config").exists() && git_dir.join("objects/pack").exists(),
        &|git_dir| git_dir.join("refs/remotes/origin").exists() || git_dir.join("packed-refs").exists(),
        &|git_dir| git_dir.join("index.lock").exists(),
        &|git_dir| git_dir.parent().unwrap().join("many").exists(),
    ];
    let mut killed = 0;
    for is_time in times {
        let _ = fs::remove_dir_all(s.ours());
        killed += usize::from(clone_killed(&s, is_time));
        // A tick that comes first must not take the missing files for deleted ones.
        let before = s.upstream_tip();
        s.run(&["tick", "--path", "many", "--", "true"]);
        assert_eq!(s.upstream_tip(), before, "{}", s.last());
        s.init_sync().exits(0).ours_equals_upstream().fsck();
        s.sync().exits(0).says("up-to-date");
    }
    assert!(killed > 0, "no clone was killed in time");
}

// ---- things left half done

/// Two branches of ours that conflict, and a remote that moved on.
fn conflict() -> Scene {
    let s = Scene::new();
    s.git_ours(&["switch", "-q", "-c", "topic"]);
    s.we_commit("index.html");
    s.git_ours(&["switch", "-q", "main"]);
    s.we_commit("state/x").we_write("index.html", "ours on main\n");
    s.git_ours(&["commit", "-q", "-a", "-m", "conflicting"]);
    s.rival_pushes("news");
    s
}

#[test]
fn what_was_left_half_done_is_ended_and_its_heads_are_kept() {
    let half: [&[&str]; 5] = [
        &["merge", "topic"],
        &["rebase", "topic"],
        &["cherry-pick", "topic"],
        &["revert", "--no-edit", "HEAD~2"],
        &["checkout", "--detach", "topic"],
    ];
    for begin in half {
        let s = conflict();
        let (main, topic) = (s.our_tip(), s.rev(&s.ours(), "topic"));
        let _ = s.git_command(&s.ours()).args(begin).output().unwrap();
        s.git_ours(&["update-ref", "-d", "refs/heads/topic"]);
        // sync and tick leave it to the person, or to init-sync.
        let midway = s.git_in(&s.ours(), &["status", "--porcelain"]);
        if begin[0] != "revert" || !midway.is_empty() {
            s.sync().exits(1).says("error").logs("init-sync");
            s.tick().exits(1).says("error");
        }
        s.init_sync().exits(0).fsck().is_kept(&main);
        // A cherry-pick and a merge name the other side's commit; a rebase stands on it.
        if begin[0] != "revert" {
            s.is_kept(&topic);
        }
        let state: Vec<_> = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply"]
            .iter()
            .filter(|name| s.ours().join(".git").join(name).exists())
            .collect();
        assert!(state.is_empty(), "{state:?}");
        healed(&s);
    }
}

/// Each of the heads of a rebase was looked for from every reference by a walk of its own: minutes, and in a container that limits
/// its start, no start ever.
#[test]
fn heads_left_half_done_are_looked_for_in_one_walk() {
    let s = Scene::new();
    let mut stream = String::new();
    for number in 0..10_000 {
        let from = if number == 0 { "from refs/heads/main^0\n" } else { "" };
        stream += &format!(
            "commit refs/heads/main\nmark :{0}\ncommitter a <a@example.org> {1} +0000\n",
            number + 1,
            1_700_000_000 + number
        );
        stream += &format!("data 2\nc\n{from}M 644 inline state/n\ndata {}\n{number}\n", number.to_string().len());
        if number % 10 == 0 {
            stream += &format!("reset refs/tags/t{number}\nfrom :{}\n", number + 1);
        }
    }
    let input = s.root().join("history");
    write(&input, &stream);
    let feed =
        s.git_command(&s.ours()).args(["fast-import", "--quiet"]).stdin(fs::File::open(&input).unwrap()).status();
    assert!(feed.unwrap().success());
    s.git_ours(&["reset", "-q", "--hard"]);
    s.git_ours(&["push", "-q", "origin", "main"]);
    s.git_ours(&["switch", "-q", "-c", "topic", "HEAD~3"]);
    s.we_commit("state/n");
    let topic = s.rev(&s.ours(), "HEAD");
    s.git_ours(&["switch", "-q", "main"]);
    let rebase = s.git_command(&s.ours()).args(["rebase", "topic"]).output().unwrap();
    assert!(!rebase.status.success());
    s.git_ours(&["branch", "-q", "-D", "topic"]);
    let before = work_of_children();
    s.init_sync().exits(0).is_kept(&topic);
    let work = work_of_children() - before;
    assert!(work < Duration::from_secs(8), "{work:?}");
}

/// The processor time of the children that have ended. The time on the clock would tell of what else the machine does.
fn work_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // cutime and cstime, in hundredths of a second.
    let ticks: u64 = fields[13..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn commits_on_a_detached_head_and_on_another_branch_are_kept() {
    let s = Scene::new();
    s.git_ours(&["checkout", "-q", "--detach"]);
    s.we_commit("page");
    let own = s.rev(&s.ours(), "HEAD");
    s.init_sync().exits(0).is_kept(&own);
    healed(&s);
    s.git_ours(&["switch", "-q", "-c", "other"]);
    s.we_commit("page");
    let own = s.rev(&s.ours(), "HEAD");
    s.we_write("page", "uncommitted\n");
    s.init_sync().exits(0);
    assert_eq!(s.rev(&s.ours(), "refs/heads/other"), own);
    assert_eq!(s.git_ours(&["show", &format!("{}:page", s.rescues("worktree").last().unwrap())]), "uncommitted");
    healed(&s);
}

// ---- damage

fn file_in(folder: &Path, matches: impl Fn(&Path) -> bool + Copy) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().unwrap() != "gitsync" {
                all.extend(file_in(&path, matches));
            }
        } else if matches(&path) {
            all.push(path);
        }
    }
    all.sort();
    all
}

fn is_loose(path: &Path) -> bool {
    path.file_name().unwrap().len() == 38
}

/// Overwrites or shortens a file although it is read-only.
fn spoil(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

/// A repository with a commit of its own that the remote has not, and with a remote that moved on.
fn with_own_commit() -> (Scene, String) {
    let s = Scene::new();
    s.we_commit("state/own");
    s.rival_pushes("news");
    let own = s.our_tip();
    (s, own)
}

#[test]
fn files_of_no_length_are_made_again() {
    for name in ["HEAD", "config", "index", "refs/heads/main", "refs/remotes/origin/main", "packed-refs", "description"]
    {
        for content in ["", "\0\0\0\0\0\0\0\0", "no such thing\n"] {
            let (s, own) = with_own_commit();
            if name == "config" && content == "no such thing\n" {
                continue;
            }
            fs::write(s.ours().join(".git").join(name), content).unwrap();
            s.init_sync().exits(0);
            s.is_kept(&own);
            healed(&s);
        }
    }
}

#[test]
fn files_that_are_gone_are_made_again() {
    for name in
        ["HEAD", "config", "index", "refs/heads/main", "refs/remotes/origin/main", "refs", "objects/pack", "info"]
    {
        let (s, own) = with_own_commit();
        let path = s.ours().join(".git").join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        s.init_sync().exits(0);
        // With the objects themselves gone there is nothing left of ours to keep but what is loose.
        if name != "objects/pack" {
            s.is_kept(&own);
        }
        healed(&s);
    }
}

/// What the remote removed while our repository was broken must not come back as if it were new.
#[test]
fn what_the_remote_removed_meanwhile_goes() {
    let s = Scene::new();
    s.git_in(&s.rival(), &["rm", "-q", "state/a"]);
    s.rival_commits("removed");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.we_write("state/untracked", "mine\n").we_write("index.html", "mine\n");
    fs::remove_dir_all(s.ours().join(".git/objects")).unwrap();
    s.init_sync().exits(0).logs("put aside").ours_equals_upstream().our_file("state/untracked", "mine\n");
    assert!(!s.ours().join("state/a").exists());
    let rescue = s.rescues("worktree").swap_remove(0);
    assert_eq!(s.git_ours(&["show", &format!("{rescue}:index.html")]), "mine");
    fs::remove_file(s.ours().join("state/untracked")).unwrap();
    healed(&s);
}

#[test]
fn an_emptied_repository_is_fetched_anew() {
    let s = Scene::new();
    for entry in fs::read_dir(s.ours().join(".git")).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    s.we_write("index.html", "mine\n");
    s.init_sync().exits(0).says("cloned");
    assert_eq!(s.rescues("worktree").len(), 1, "what was in the tree is kept");
    healed(&s);
}

/// Each loose object in turn is gone, of no length, or garbage.
#[test]
fn each_object_in_turn_is_damaged() {
    let count = {
        let (s, _) = with_own_commit();
        file_in(&s.ours().join(".git/objects"), is_loose).len()
    };
    for i in 0..count {
        for how in ["gone", "empty", "garbage"] {
            let (s, _) = with_own_commit();
            let object = file_in(&s.ours().join(".git/objects"), is_loose).swap_remove(i);
            match how {
                "gone" => fs::remove_file(&object).unwrap(),
                "empty" => spoil(&object, b""),
                _ => spoil(&object, b"garbage that is no zlib stream"),
            }
            s.init_sync().exits(0);
            healed(&s);
        }
    }
}

#[test]
fn a_damaged_pack_is_put_aside_and_fetched_anew() {
    for how in ["truncated", "empty", "garbled", "gone", "index gone", "index empty"] {
        let (s, _) = with_own_commit();
        s.git_ours(&["repack", "-q", "-a", "-d"]);
        // One commit more, so that something is readable beside the pack.
        s.we_commit("state/later");
        let pack = file_in(&s.ours().join(".git/objects/pack"), |path| path.extension().is_some_and(|e| e == "pack"))
            .swap_remove(0);
        let index = pack.with_extension("idx");
        let content = fs::read(&pack).unwrap();
        match how {
            "truncated" => spoil(&pack, &content[..content.len() / 2]),
            "empty" => spoil(&pack, b""),
            "garbled" => {
                let mut content = content;
                let middle = content.len() / 2;
                for byte in &mut content[20..middle] {
                    *byte ^= 0x55;
                }
                spoil(&pack, &content);
            }
            "gone" => fs::remove_file(&pack).unwrap(),
            "index gone" => fs::remove_file(&index).unwrap(),
            _ => spoil(&index, b""),
        }
        s.we_write("index.html", "mine\n");
        s.init_sync().exits(0);
        // The tree is not lost with the objects.
        assert!(
            s.rescues("worktree").iter().any(|name| s.git_ours(&["show", &format!("{name}:index.html")]) == "mine"),
            "{how}: {}",
            s.last()
        );
        healed(&s);
    }
}

#[test]
fn unpushed_commits_that_can_be_read_are_carried_over() {
    let s = Scene::new();
    // So many that the order of their names is hardly ever that of their history.
    for number in 0..6 {
        s.we_commit(&format!("state/own-{number}"));
    }
    let good = s.our_tip();
    s.we_commit("state/unreadable");
    let bad = s.rev(&s.ours(), "HEAD^{tree}");
    fs::remove_file(s.ours().join(format!(".git/objects/{}/{}", &bad[..2], &bad[2..]))).unwrap();
    s.rival_pushes("news");
    s.init_sync().exits(0).logs("put aside").is_kept(&good);
    healed(&s);
    s.init_sync().exits(0);
    assert_eq!(s.rescues("local").len(), 1, "carried over once");
}

#[test]
fn an_intent_that_cannot_be_read_is_left_to_init_sync() {
    for content in ["", "{", "\0\0\0\0"] {
        let s = Scene::new();
        s.rival_pushes("news");
        fs::write(s.private().join("intent"), content).unwrap();
        s.sync().exits(1).says("error");
        s.tick().exits(1).says("error");
        s.init_sync().exits(0).says("reset");
        healed(&s);
    }
    // One that names a commit which is not there.
    let s = Scene::new();
    let tip = s.our_tip();
    let intent = format!("{{\"branch\":\"main\",\"old\":\"{tip}\",\"target\":\"{}\",\"why\":\"w\"}}", "1".repeat(40));
    fs::write(s.private().join("intent"), intent).unwrap();
    s.sync().says("error");
    s.init_sync().exits(0);
    healed(&s);
}

#[test]
fn a_private_folder_in_any_state_does_not_stop_a_pass() {
    for (name, content) in
        [("lock", "garbage"), ("status.json", "garbage"), ("status.json", ""), ("lock", "{\"pid\":1}")]
    {
        let s = Scene::new();
        fs::write(s.private().join(name), content).unwrap();
        s.sync().exits(0).says("up-to-date");
        healed(&s);
    }
    let s = Scene::new();
    fs::remove_dir_all(s.private()).unwrap();
    s.sync().exits(0).says("up-to-date");
    s.rival_pushes("news");
    write(&s.private().join("staging/left/over"), "left");
    write(&s.private().join("staging-old/left"), "left");
    s.sync().exits(0).says("behind");
    assert!(!s.private().join("staging").exists() && !s.private().join("staging-old").exists());
    healed(&s);
}

#[test]
fn packs_that_a_killed_fetch_left_are_cleared_at_start_up() {
    let s = Scene::new();
    let pack = s.ours().join(".git/objects/pack/pack_git2_0123456789abcdef");
    fs::write(&pack, "half a pack").unwrap();
    s.init_sync().exits(0);
    assert!(!pack.exists());
    healed(&s);
}

#[test]
fn a_tick_in_a_tree_that_was_never_checked_out_commits_no_deletion() {
    let s = Scene::new();
    for path in ["index.html", "state/a", "gone.txt"] {
        fs::remove_file(s.ours().join(path)).unwrap();
    }
    fs::remove_file(s.ours().join(".git/index")).unwrap();
    s.tick().exits(0).says("no-changes").ours_equals_upstream().our_file("state/a", "a 1\n");
}

#[test]
fn without_the_remote_a_damaged_repository_is_left_as_it_is() {
    let s = Scene::new();
    let tree = s.rev(&s.ours(), "HEAD^{tree}");
    let pack = s.ours().join(".git/objects/pack");
    let loose = s.ours().join(format!(".git/objects/{}/{}", &tree[..2], &tree[2..]));
    if loose.exists() {
        fs::remove_file(loose).unwrap();
    } else {
        fs::remove_dir_all(pack).unwrap();
    }
    s.upstream_goes_away();
    s.init_sync();
    assert_ne!(s.last().code, Some(0));
    s.upstream_comes_back();
    s.init_sync().exits(0);
    healed(&s);
}

/// A tick was writing the index when the power went: what the job wrote is no edit that gives way to HEAD.
#[test]
fn an_index_that_was_lost_as_it_was_written_is_taken_back() {
    let s = Scene::new();
    s.tick_with("echo 1 > state/a").exits(0).says("pushed");
    let (index, before) = (s.ours().join(".git/index"), s.private().join("index-before"));
    fs::copy(&index, &before).unwrap();
    fs::write(&index, "").unwrap();
    s.we_write("state/a", "2\n");
    s.tick().exits(0).says("pushed").upstream_file("state/a", "2\n");
    assert_eq!(s.rescues(""), Vec::<String>::new(), "{}", s.last());
    assert!(!before.exists());
    // One that was written to its end stays, whatever lies beside it.
    fs::write(&before, "").unwrap();
    s.we_write("state/a", "3\n").tick().exits(0).says("pushed").upstream_file("state/a", "3\n");
    assert!(!before.exists());
}

/// What lies where the index before is kept and is no index is not brought back, and is in nobody's way.
#[test]
fn what_is_no_index_is_not_brought_back_as_one() {
    let s = Scene::new();
    s.tick_with("echo 1 > state/a").exits(0).says("pushed");
    let (index, before) = (s.ours().join(".git/index"), s.private().join("index-before"));
    let made: [&dyn Fn(); 4] = [
        &|| fs::write(&before, "DIRC and no more").unwrap(),
        &|| std::os::unix::fs::symlink("/dev/tty", &before).unwrap(),
        &|| assert!(std::process::Command::new("mkfifo").arg(&before).status().unwrap().success()),
        &|| fs::create_dir_all(before.join("sub")).unwrap(),
    ];
    for make in made {
        for lost in [false, true] {
            if lost {
                fs::remove_file(&index).unwrap();
            }
            make();
            s.sync().exits(0).says("up-to-date");
            assert!(before.symlink_metadata().is_err(), "{}", s.last());
            s.tick_with("date +%N > state/a").exits(0).says("pushed").fsck().ours_equals_upstream();
        }
    }
}

/// A file that was half written in the private folder goes, though the next pass has no need to write it again.
#[test]
fn what_a_killed_pass_was_writing_goes() {
    let s = Scene::new();
    let half = s.private().join("force-push-pending.new");
    s.tick_with("echo half > .git/gitsync/force-push-pending.new; kill -KILL $PPID");
    assert!(half.exists(), "{}", s.last());
    s.sync().exits(0);
    assert!(!half.exists(), "{}", s.last());
}
