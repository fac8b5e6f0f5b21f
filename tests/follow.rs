//! Following the remote, held against what git's own checkout makes of the same trees; and what a checkout would do that a
//! follow must not: lose what is in the way, write through links, change a file under its reader.
#![allow(clippy::unwrap_used, missing_docs)]

mod oracle;
mod scene;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use needs::needs;
use scene::{Scene, write};

/// Upstream and rival alone, with git configured for everybody in the scene.
fn scene(config: &str) -> Scene {
    let s = Scene::empty_upstream();
    write(&s.root().join("home/.gitconfig"), config);
    s
}

fn push(s: &Scene, message: &str) -> String {
    s.rival_commits(message);
    s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "HEAD:main"]);
    s.rev(&s.rival(), "HEAD")
}

/// Checks the commit out in a clone of git's own, from whatever that clone had before.
fn git_checks_out(s: &Scene, commit: &str) -> PathBuf {
    let control = s.root().join("control");
    if !control.exists() {
        s.git_in(s.root(), &["clone", "-q", "--no-checkout", "upstream.git", "control"]);
    }
    s.git_in(&control, &["fetch", "-q", "origin"]);
    s.git_in(&control, &["checkout", "-q", "--detach", commit]);
    control
}

/// Path, kind and permissions, content: of everything but `.git`.
fn tree(top: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.file_name() != ".git") {
            let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let what = if meta.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                folders.push(path.clone());
                format!("{:o} folder", meta.permissions().mode() & 0o777)
            } else {
                format!("{:o} {}", meta.permissions().mode() & 0o777, fs::read(&path).unwrap().escape_ascii())
            };
            all.push((path.strip_prefix(top).unwrap().to_owned(), what));
        }
    }
    all.sort();
    all
}

/// Pushes one version after the other; after each, ours is what git's own checkout makes of it, and git finds it clean.
fn as_git_has_it(s: &Scene, versions: &[&dyn Fn(&Path)]) {
    for (i, version) in versions.iter().enumerate() {
        version(&s.rival());
        let commit = push(s, &format!("version {i}"));
        let control = git_checks_out(s, &commit);
        if i == 0 {
            s.init_sync().exits(0).says("cloned");
        } else {
            s.sync().exits(0).says("behind");
        }
        assert_eq!(tree(&s.ours()), tree(&control), "version {i}\n{}", s.last());
        s.ours_equals_upstream().fsck();
        assert_eq!(s.git_ours(&["status", "--porcelain"]), "", "version {i}");
        assert!(s.rescues("").is_empty(), "nothing was in the way: {:?}\n{}", s.rescues(""), s.last());
    }
}

fn put(top: &Path, path: &str, text: &str) {
    write(&top.join(path), text);
}

fn executable(top: &Path, path: &str, is: bool) {
    fs::set_permissions(top.join(path), fs::Permissions::from_mode(if is { 0o755 } else { 0o644 })).unwrap();
}

#[test]
fn changes_deletions_modes_and_links() {
    as_git_has_it(
        &scene(""),
        &[
            &|top| {
                put(top, "a", "1\n");
                put(top, "deep/er/b", "1\n");
                put(top, "deep/er/gone", "1\n");
                put(top, "run", "#!/bin/sh\n");
                put(top, "empty", "");
                put(top, "name with blanks and \u{e4}", "1\n");
                symlink("a", top.join("link")).unwrap();
                symlink("nowhere", top.join("dangling")).unwrap();
            },
            &|top| {
                put(top, "a", "2\n");
                put(top, "deep/new/c", "2\n");
                fs::remove_file(top.join("deep/er/gone")).unwrap();
                executable(top, "run", true);
                fs::remove_file(top.join("link")).unwrap();
                symlink("deep/er/b", top.join("link")).unwrap();
                fs::remove_file(top.join("dangling")).unwrap();
                put(top, "dangling", "a file now\n");
            },
            &|top| {
                fs::remove_dir_all(top.join("deep")).unwrap();
                executable(top, "run", false);
                fs::remove_file(top.join("link")).unwrap();
                put(top, "empty", "no longer\n");
                executable(top, "empty", true);
            },
        ],
    );
}

#[test]
fn files_become_folders_and_folders_files() {
    as_git_has_it(
        &scene(""),
        &[
            &|top| {
                put(top, "x", "file\n");
                put(top, "y/a", "1\n");
                put(top, "y/b/c", "1\n");
                put(top, "z/deep/file", "1\n");
                symlink("y", top.join("l")).unwrap();
            },
            &|top| {
                fs::remove_file(top.join("x")).unwrap();
                put(top, "x/now/a/folder", "2\n");
                fs::remove_dir_all(top.join("y")).unwrap();
                put(top, "y", "file\n");
                fs::remove_dir_all(top.join("z/deep")).unwrap();
                symlink("../x", top.join("z/deep")).unwrap();
                fs::remove_file(top.join("l")).unwrap();
                put(top, "l/a", "a folder where a link was\n");
            },
            &|top| {
                fs::remove_dir_all(top.join("x")).unwrap();
                put(top, "x", "file again\n");
                fs::remove_file(top.join("y")).unwrap();
                put(top, "y/a", "3\n");
                fs::remove_dir_all(top.join("l")).unwrap();
                symlink("y", top.join("l")).unwrap();
            },
        ],
    );
}

#[test]
fn names_that_differ_in_case_and_order() {
    // Git sorts folders as if they ended with a slash: a, a-b, a/ are three places.
    as_git_has_it(
        &scene(""),
        &[
            &|top| {
                for path in ["a", "a-b", "a0", "A", "README", "readme"] {
                    put(top, path, "1\n");
                }
            },
            &|top| {
                fs::remove_file(top.join("a")).unwrap();
                for path in ["a/x", "a-b", "a.b", "README"] {
                    put(top, path, "2\n");
                }
            },
        ],
    );
}

#[test]
fn line_endings_as_attributes_say() {
    as_git_has_it(
        &scene(""),
        &[
            &|top| {
                put(top, ".gitattributes", "*.txt text eol=crlf\n*.lf text eol=lf\n*.bin -text\n*.auto text=auto\n");
                put(top, "a.txt", "1\n2\n");
                put(top, "a.lf", "1\n2\n");
                put(top, "a.bin", "1\r\n2\n");
                put(top, "a.auto", "1\n2\n");
                put(top, "b.auto", "\0\r\n");
                put(top, "sub/.gitattributes", "*.txt eol=lf\n");
                put(top, "sub/a.txt", "1\n");
            },
            &|top| {
                put(top, "a.txt", "1\r\n2\r\n3\r\n");
                put(top, "a.lf", "3\n");
                put(top, "new.txt", "new\n");
                put(top, "sub/a.txt", "2\n");
            },
        ],
    );
}

#[test]
fn attributes_that_change_together_with_files() {
    as_git_has_it(
        &scene(""),
        &[
            &|top| {
                put(top, "a.txt", "1\n");
                put(top, "stays.txt", "1\n");
            },
            &|top| {
                put(top, ".gitattributes", "a.txt text eol=crlf\nnew.txt text eol=crlf\n");
                put(top, "a.txt", "2\n");
                put(top, "new.txt", "2\n");
            },
            &|top| {
                fs::remove_file(top.join(".gitattributes")).unwrap();
                put(top, "a.txt", "3\n");
                fs::remove_file(top.join("new.txt")).unwrap();
            },
        ],
    );
}

#[test]
fn ident_is_expanded() {
    as_git_has_it(
        &scene(""),
        &[
            &|top| {
                put(top, ".gitattributes", "*.c ident\n");
                put(top, "a.c", "/* $Id$ */\n");
            },
            &|top| put(top, "a.c", "/* $Id$ */ int two;\n"),
        ],
    );
}

#[test]
fn autocrlf_of_the_user() {
    as_git_has_it(
        &scene("[core]\n\tautocrlf = true\n\tsafecrlf = false\n"),
        &[
            &|top| {
                put(top, "a", "1\n2\n");
                put(top, "b", "\0 binary\n");
            },
            &|top| {
                put(top, "a", "1\n2\n3\n");
                put(top, "c", "new\n");
            },
        ],
    );
}

#[test]
fn a_submodule_entry_is_left_as_it_is() {
    let s = scene("");
    s.rival_writes("a", "1\n");
    let one = push(&s, "first");
    let link = |commit: &str| {
        s.git_in(&s.rival(), &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
        s.git_in(&s.rival(), &["commit", "-q", "-m", "a submodule"]);
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.rev(&s.rival(), "HEAD")
    };
    let with = link(&one);
    let control = git_checks_out(&s, &with);
    s.init_sync().exits(0).says("cloned");
    assert_eq!(tree(&s.ours()), tree(&control));
    s.work_tree_is_clean();

    // Somebody works in the submodule: that is a repository of its own, and none of ours.
    s.git_in(&s.ours(), &["clone", "-q", s.upstream().to_str().unwrap(), "sub"]);
    s.we_write("sub/mine", "not yours\n");
    link(&with);
    s.sync().exits(0).says("behind").our_file("sub/mine", "not yours\n");
    assert_eq!(s.our_tip(), s.upstream_tip());
    s.git_in(&s.rival(), &["rm", "-q", "--cached", "sub"]);
    s.git_in(&s.rival(), &["commit", "-q", "-m", "no submodule"]);
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0).says("behind").our_file("sub/mine", "not yours\n");
    s.sync().exits(0).says("up-to-date").fsck();
}

#[test]
fn five_thousand_files() {
    let s = scene("");
    for i in 0..5000 {
        s.rival_writes(&format!("d{}/e{}/f{i}", i % 50, i % 7), &format!("1 {i}\n"));
    }
    push(&s, "many");
    s.init_sync().exits(0).says("cloned");
    for i in (0..5000).step_by(2) {
        s.rival_writes(&format!("d{}/e{}/f{i}", i % 50, i % 7), &format!("2 {i}\n"));
    }
    for i in (1..5000).step_by(10) {
        fs::remove_file(s.rival().join(format!("d{}/e{}/f{i}", i % 50, i % 7))).unwrap();
    }
    let commit = push(&s, "half of them");
    let control = git_checks_out(&s, &commit);
    s.sync().exits(0).says("behind").ours_equals_upstream();
    assert!(tree(&s.ours()) == tree(&control), "the trees differ");
    s.sync().exits(0).says("up-to-date");
}

// ---- what is in the way

#[test]
fn an_untracked_folder_where_the_remote_has_a_file_is_kept_as_a_rescue() {
    let s = Scene::new();
    s.we_write("thing/a", "mine a\n").we_write("thing/deep/b", "mine b\n");
    s.rival_pushes("thing");
    s.sync().exits(0).says("behind").ours_equals_upstream().our_file("thing", "rival 2\n").fsck();
    let aside = fs::read_dir(s.private().join("aside")).unwrap().count();
    assert_eq!(aside, 0, "the rescue keeps all of it, and it did not change\n{}", s.logs_not("moved aside").last());
    let rescues = s.rescues("worktree");
    assert_eq!(rescues.len(), 1);
    assert_eq!(s.git_ours(&["show", &format!("{}:thing/deep/b", rescues[0])]), "mine b");
    assert_eq!(s.git_ours(&["show", &format!("{}:thing/a", rescues[0])]), "mine a");
}

#[test]
fn an_untracked_file_where_the_remote_has_a_folder_is_kept_as_a_rescue() {
    let s = Scene::new();
    s.we_write("thing", "mine\n");
    s.rival_pushes("thing/deep/file");
    s.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    assert_eq!(s.git_ours(&["show", &format!("{}:thing", s.rescues("worktree")[0])]), "mine");
}

#[test]
fn a_fifo_in_the_way_is_moved_aside() {
    let s = Scene::new();
    fn fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    fifo(&s.ours().join("thing"));
    fs::create_dir(s.ours().join("folder")).unwrap();
    fifo(&s.ours().join("folder/inner"));
    s.we_write("folder/mine", "mine\n");
    s.rival_pushes("thing").rival_pushes("folder");
    s.sync().exits(0).says("behind").logs("moved aside").ours_equals_upstream().fsck();
    let aside: Vec<_> = fs::read_dir(s.private().join("aside")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(aside.iter().any(|path| path.join("mine").exists()));
    s.sync().exits(0).says("up-to-date");
}

#[test]
fn a_repository_in_the_way_is_moved_aside_whole() {
    let s = Scene::new();
    s.git_in(&s.ours(), &["init", "-q", "thing"]);
    s.we_write("thing/mine", "mine\n");
    s.git_in(&s.ours().join("thing"), &["add", "mine"]);
    s.git_in(&s.ours().join("thing"), &["commit", "-q", "-m", "its own"]);
    let its_own = s.rev(&s.ours().join("thing"), "HEAD");
    s.rival_pushes("thing");
    s.sync().exits(0).says("behind").logs("moved aside").ours_equals_upstream().fsck();
    let aside = fs::read_dir(s.private().join("aside")).unwrap().flatten().next().unwrap().path();
    assert_eq!(s.rev(&aside, "HEAD"), its_own);
    assert_eq!(fs::read_to_string(aside.join("mine")).unwrap(), "mine\n");
}

#[test]
fn an_ignored_folder_of_the_job_survives_beside_what_goes() {
    let s = Scene::new();
    s.rival_writes(".gitignore", "cache/\n").rival_writes("site/page", "1\n");
    push(&s, "a cache is ignored");
    s.sync().exits(0).says("behind");
    s.we_write("site/cache/dear", "dear\n");
    s.git_in(&s.rival(), &["rm", "-q", "-r", "site"]);
    push(&s, "no site");
    s.sync().exits(0).says("behind").ours_equals_upstream().our_file("site/cache/dear", "dear\n");
}

// ---- nothing outside is touched

/// A folder outside of the tree, which nothing may change.
struct Canary(PathBuf, Vec<(PathBuf, String)>);

impl Canary {
    fn beside(s: &Scene) -> Self {
        let top = s.root().join("outside");
        put(&top, "file", "canary\n");
        put(&top, "folder/file", "canary\n");
        put(&top, "index.html", "canary\n");
        put(&top, "a", "canary\n");
        let before = tree(&top);
        Self(top, before)
    }
    #[track_caller]
    fn sings(&self, s: &Scene) {
        assert_eq!(tree(&self.0), self.1, "{}", s.last());
    }
}

#[test]
fn a_folder_that_the_job_made_a_link_does_not_lead_outside() {
    let s = Scene::new();
    let canary = Canary::beside(&s);
    // `state` is a folder upstream, and a link to the outside here.
    s.tick_with("rm -rf state; ln -s ../outside state");
    canary.sings(&s);
    s.rival_pushes("state/a").rival_pushes("state/file").rival_pushes("state/folder/file");
    s.sync().exits(0).ours_equals_upstream().our_file("state/file", "rival 3\n");
    canary.sings(&s);
    // And so when the remote removes what would be there.
    s.git_in(&s.rival(), &["rm", "-q", "-r", "state/folder", "state/file"]);
    push(&s, "removes");
    fs::remove_dir_all(s.ours().join("state")).unwrap();
    symlink("../outside", s.ours().join("state")).unwrap();
    s.sync().exits(0).ours_equals_upstream();
    canary.sings(&s);
}

#[test]
fn a_file_that_is_a_link_here_is_replaced_and_not_written_through() {
    let s = Scene::new();
    let canary = Canary::beside(&s);
    fs::remove_file(s.ours().join("index.html")).unwrap();
    symlink("../outside/index.html", s.ours().join("index.html")).unwrap();
    s.rival_pushes("index.html");
    s.sync().exits(0).ours_equals_upstream().our_file("index.html", "rival 2\n");
    canary.sings(&s);
}

#[test]
fn a_link_of_the_remote_that_becomes_a_folder_does_not_lead_outside() {
    let s = Scene::new();
    let canary = Canary::beside(&s);
    symlink("../outside", s.rival().join("way")).unwrap();
    symlink(canary.0.join("folder"), s.rival().join("absolute")).unwrap();
    push(&s, "a way out");
    s.sync().exits(0).ours_equals_upstream();
    fs::remove_file(s.rival().join("way")).unwrap();
    fs::remove_file(s.rival().join("absolute")).unwrap();
    s.rival_writes("way/file", "in\n").rival_writes("way/folder/file", "in\n").rival_writes("absolute/file", "in\n");
    push(&s, "through it");
    s.sync().exits(0).ours_equals_upstream().our_file("way/folder/file", "in\n");
    canary.sings(&s);
    fs::remove_dir_all(s.rival().join("way")).unwrap();
    symlink("../outside", s.rival().join("way")).unwrap();
    push(&s, "and back");
    s.sync().exits(0).ours_equals_upstream();
    canary.sings(&s);
}

#[test]
fn a_tick_does_not_commit_what_is_outside() {
    let s = Scene::new();
    let canary = Canary::beside(&s);
    s.tick_with("mkdir -p audit; ln -s ../../outside audit/way; ln -s ../outside/file state/one")
        .exits(0)
        .says("pushed");
    let files = s.git_ours(&["ls-tree", "-r", "HEAD", "audit", "state"]);
    assert!(files.contains("120000") && !files.contains("audit/way/"), "{files}");
    s.tick_with("rm -r state; ln -s ../outside state");
    assert!(!s.git_ours(&["ls-tree", "-r", "--name-only", "HEAD"]).contains("state/folder"));
    canary.sings(&s);
}

#[test]
fn a_private_folder_that_is_a_link_is_refused() {
    let s = Scene::new();
    let canary = Canary::beside(&s);
    fs::remove_dir_all(s.private()).unwrap();
    symlink("../../outside", s.private()).unwrap();
    s.sync().exits(1).says("error");
    canary.sings(&s);
}

/// Trees that git would not make: their names lead into `.git` or out of the tree.
#[test]
fn a_tree_with_hostile_names_is_refused() {
    for name in [".git", "..", ".", ".GIT", "git~1", "a/b", ".git/hooks"] {
        let s = Scene::new();
        let canary = Canary::beside(&s);
        let hooks = fs::read_dir(s.ours().join(".git")).unwrap().count();
        let blob = raw(&s, "blob", b"#!/bin/sh\ntouch pwned\n");
        let inner = raw(&s, "tree", &[b"100755 file\0".as_slice(), &bytes(&blob)].concat());
        let tree = raw(&s, "tree", &[format!("40000 {name}\0").as_bytes(), &bytes(&inner)].concat());
        let parent = s.upstream_tip();
        let commit = format!(
            "tree {tree}\nparent {parent}\nauthor A <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n\nhostile\n"
        );
        let commit = raw(&s, "commit", commit.as_bytes());
        s.git_upstream(&["update-ref", "refs/heads/main", &commit]);
        let before = s.our_tip();
        s.sync();
        canary.sings(&s);
        let git_dir = s.ours().join(".git");
        assert!(!git_dir.join("file").exists() && !git_dir.join("hooks/file").exists(), "{name}: {}", s.last());
        assert!(fs::read_dir(&git_dir).unwrap().count() <= hooks + 3, "{name}");
        assert!(!s.root().join("file").exists(), "{name}: {}", s.last());
        if matches!(name, "git~1" | ".GIT" | "a/b") {
            // Harmless on this file system, or refused: either will do.
            continue;
        }
        let last = s.last();
        assert_ne!(last.code, Some(0), "{name}: {last}");
        assert_ne!(last.code, Some(101), "{name}: {last}");
        assert_eq!(s.our_tip(), before, "{name}: {last}");
        s.work_tree_is_clean();
    }
}

/// Writes an object as it is, whatever git thinks of it.
fn raw(s: &Scene, kind: &str, content: &[u8]) -> String {
    let mut git = s
        .git_command(&s.upstream())
        .args(["hash-object", "-w", "--stdin", "--literally", "-t", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(content).unwrap();
    String::from_utf8(git.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..20).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

// ---- who reads while we write

#[test]
fn a_script_that_runs_is_not_changed_under_its_interpreter() {
    let s = Scene::new();
    s.rival_writes("run", "#!/bin/sh\nold\n");
    push(&s, "a script");
    s.sync().exits(0);
    let path = s.ours().join("run");
    let mut running = fs::File::open(&path).unwrap();
    let number = running.metadata().unwrap().ino();
    s.rival_writes("run", "#!/bin/sh\nnew, and longer\n");
    push(&s, "another");
    s.sync().exits(0).our_file("run", "#!/bin/sh\nnew, and longer\n");
    assert_ne!(fs::metadata(&path).unwrap().ino(), number);
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert_eq!(text, "#!/bin/sh\nold\n");
}

#[test]
fn readers_see_a_whole_old_or_a_whole_new_file() {
    let s = Scene::new();
    let page = |version: usize| format!("version {version:04}\n").repeat(20_000);
    s.rival_writes("page", &page(0));
    push(&s, "page 0");
    s.sync().exits(0);
    let done = AtomicBool::new(false);
    let path = s.ours().join("page");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("the page is not there: {error}"));
                let first = text.lines().next().unwrap_or("nothing");
                assert!(text.len() == 20_000 * 13 && text.lines().all(|line| line == first), "mixed, {}", text.len());
                read += 1;
            }
            read
        });
        for version in 1..8 {
            s.rival_writes("page", &page(version));
            push(&s, "another page");
            s.sync().exits(0);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

/// The remote has nothing new there; the folder is simply gone here, and a file in its place.
#[test]
fn a_file_where_a_tracked_folder_was_is_kept_as_a_rescue() {
    let s = Scene::new();
    // What else is in the tree matters: libgit2 finds the collision by where it looks first.
    s.rival_pushes("dir/x").rival_pushes("audit/log").sync().exits(0);
    fs::remove_dir_all(s.ours().join("dir")).unwrap();
    s.we_write("dir", "mine\n");
    s.rival_pushes("news");
    s.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    assert_eq!(s.git_ours(&["show", &format!("{}:dir", s.rescues("worktree")[0])]), "mine");
}

#[test]
fn a_tick_commits_a_folder_that_became_a_file_and_back() {
    let s = Scene::new();
    s.tick_with("mkdir -p state/sub audit; echo 1 > state/sub/c; echo 1 > state/sub/d; echo 1 > audit/log");
    s.exits(0).says("pushed");
    s.tick_with("rm -r state/sub; echo file > state/sub").exits(0).says("pushed").upstream_file("state/sub", "file\n");
    s.tick_with("rm state/sub; mkdir state/sub; echo 2 > state/sub/c").exits(0).says("pushed");
    s.upstream_file("state/sub/c", "2\n").ours_equals_upstream().fsck();
    assert_eq!(s.git_ours(&["status", "--porcelain"]), "");
}

/// libgit2 takes a backslash in what all paths begin with for an escape.
#[test]
fn a_converted_file_with_a_backslash_in_its_name_is_followed() {
    let s = Scene::new();
    s.rival_writes(".gitattributes", "*.txt text eol=crlf\n").rival_writes("state/a\\b.txt", "one\n");
    s.rival_commits("backslash").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0).ours_equals_upstream().our_file("state/a\\b.txt", "one\r\n");
    s.rival_writes("state/a\\b.txt", "two\n").rival_commits("again");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0).ours_equals_upstream().our_file("state/a\\b.txt", "two\r\n").work_tree_is_clean().fsck();
}

/// Numbers in the index spare the next look the reading.
#[test]
fn what_is_converted_in_a_new_folder_has_its_numbers_in_the_index() {
    let s = Scene::new();
    s.rival_writes(".gitattributes", "* text=auto eol=crlf\n");
    for number in 0..40 {
        s.rival_writes(&format!("big/a/{number}"), "line\n");
    }
    s.rival_commits("many").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.sync().exits(0).ours_equals_upstream().our_file("big/a/7", "line\r\n").work_tree_is_clean();
    let entries = s.git_ours(&["ls-files", "--debug", "big"]);
    assert_eq!(entries.matches("size: 6").count(), 40, "{entries}");
    // Converted by a setting that came later: no phantom changes.
    s.git_ours(&["config", "core.autocrlf", "true"]);
    std::fs::remove_dir_all(s.ours().join("big")).unwrap();
    s.rival_pushes("page").sync().exits(0).work_tree_is_clean();
}

#[test]
fn names_that_differ_in_case_alone_are_refused_where_git_folds_case() {
    let s = Scene::new();
    s.git_ours(&["config", "core.ignorecase", "true"]);
    s.rival_writes("state/b", "low\n").rival_writes("state/B", "up\n").rival_writes("state/Z", "z\n");
    s.rival_commits("cases").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    let ours = s.our_tip();
    s.sync().exits(1).logs("differs in case alone").logs("core.ignorecase false");
    assert_eq!(s.our_tip(), ours);
    s.fsck().git_ours(&["config", "core.ignorecase", "false"]);
    s.sync().exits(0).ours_equals_upstream().work_tree_is_clean().fsck();
}

/// git can write an index without its checksum.
#[test]
fn what_is_staged_without_a_checksum_of_the_index_is_noticed() {
    let s = Scene::new();
    s.rival_pushes("notes.md");
    s.sync().exits(0).says("behind");
    s.git_ours(&["config", "index.skipHash", "true"]);
    write(&s.ours().join("notes.md"), "staged\n");
    s.git_ours(&["add", "notes.md"]);
    s.git_ours(&["update-index", "--refresh"]);
    s.rival_pushes("other.md");
    s.sync().exits(0).says("behind").ours_equals_upstream();
    assert_eq!(s.git_ours(&["status", "--porcelain"]), "");
    assert_eq!(s.git_ours(&["show", &format!("{}:notes.md", s.rescues("worktree")[0])]), "staged");
}

/// A reader, and whoever kills the pass, finds the old file or the new one.
#[needs(strace)]
#[test]
fn a_changed_file_is_replaced_by_a_rename_and_never_removed() {
    let s = Scene::new();
    s.rival_pushes("index.html");
    let plain = s.gitsync(&["sync"]);
    let trace = s.root().join("trace");
    let mut strace = s.isolated("strace");
    strace.args(["-f", "-qq", "-e", "trace=unlink,unlinkat,rename,renameat,renameat2", "-o"]).arg(&trace).arg("--");
    strace.arg(plain.get_program()).args(plain.get_args()).env("GIT_SYNC_REPO", s.ours());
    s.run_this(strace).exits(0).says("behind").ours_equals_upstream();
    let calls = fs::read_to_string(trace).unwrap();
    let of_it: Vec<&str> = calls.lines().filter(|line| line.contains("\"index.html\"")).collect();
    assert!(of_it.len() == 1 && of_it[0].contains("rename"), "{of_it:#?}");
}

#[test]
fn new_folders_inherit_the_group_of_a_shared_work_tree() {
    let s = Scene::new();
    fs::set_permissions(s.ours(), fs::Permissions::from_mode(0o2775)).unwrap();
    for number in 0..20 {
        s.rival_writes(&format!("shared/deep/{number}"), "text\n");
    }
    push(&s, "many in a new folder");
    s.sync().exits(0).says("behind").ours_equals_upstream();
    for folder in ["shared", "shared/deep"] {
        let mode = fs::metadata(s.ours().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o2000, 0o2000, "{folder}: {mode:o}");
    }
}

struct Mounted(PathBuf);

impl Mounted {
    fn on(at: PathBuf) -> Self {
        assert!(
            Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "none"]).arg(&at).status().unwrap().success()
        );
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || done.unwrap().success(), "still mounted: {}", self.0.display());
    }
}

/// A rename does not get there.
#[needs(mount)]
#[test]
fn a_volume_mounted_in_the_work_tree_is_followed_too() {
    let s = Scene::new();
    let _mounted = Mounted::on(s.ours().join("state"));
    write(&s.ours().join("state/a"), "a 1\n");
    write(&s.ours().join("state/own"), "nobody tracks it\n");
    s.rival_writes("state/a", "a 2\n").rival_writes("state/run", "#!/bin/sh\n");
    executable(&s.rival(), "state/run", true);
    symlink("a", s.rival().join("state/link")).unwrap();
    push(&s, "into the volume");
    s.sync().exits(0).says("behind").ours_equals_upstream().our_file("state/own", "nobody tracks it\n");
    for number in 0..20 {
        s.rival_writes(&format!("state/new/{number}"), "text\n");
    }
    let commit = push(&s, "a folder in the volume");
    s.sync().exits(0).says("behind").ours_equals_upstream();
    fs::remove_file(s.ours().join("state/own")).unwrap();
    assert_eq!(tree(&s.ours()), tree(&git_checks_out(&s, &commit)));
    assert!(s.rescues("").is_empty(), "{:?}", s.rescues(""));
}

#[test]
fn where_git_ignores_the_executable_bit_it_makes_no_edit() {
    let s = Scene::new();
    s.git_ours(&["config", "core.filemode", "false"]);
    executable(&s.ours(), "index.html", true);
    s.rival_pushes("index.html").sync().exits(0).says("behind").ours_equals_upstream();
    assert!(s.rescues("").is_empty(), "{:?}", s.rescues(""));
}

#[test]
fn a_mode_that_nobody_committed_goes_where_bytes_are_converted_too() {
    let s = Scene::new();
    s.rival_writes(".gitattributes", "*.txt text eol=crlf\n").rival_writes("a.txt", "one\n");
    push(&s, "converted");
    s.sync().exits(0).our_file("a.txt", "one\r\n");
    executable(&s.ours(), "a.txt", true);
    s.rival_pushes("news").sync().exits(0).says("behind").ours_equals_upstream().our_file("a.txt", "one\r\n");
    let kept = s.git_ours(&["ls-tree", &s.rescues("worktree")[0], "a.txt"]);
    assert!(kept.starts_with("100755"), "{kept}");
}

#[test]
fn a_file_where_the_remote_removes_a_folder_stays_as_it_is() {
    let s = Scene::new();
    s.rival_pushes("dir/x").sync().exits(0);
    fs::remove_dir_all(s.ours().join("dir")).unwrap();
    s.we_write("dir", "mine\n");
    fs::remove_dir_all(s.rival().join("dir")).unwrap();
    push(&s, "no folder any more");
    s.sync().exits(0).says("behind").our_file("dir", "mine\n");
    assert_eq!(s.our_tip(), s.upstream_tip());
    assert!(s.rescues("").is_empty(), "nothing takes its place: {:?}", s.rescues(""));
}

/// Not every file system has hard links: then the index of before is copied.
#[needs(strace)]
#[test]
fn the_index_of_before_is_kept_until_the_new_one_is_on_disk() {
    for links in [true, false] {
        let s = Scene::new();
        let before = fs::read(s.ours().join(".git/index")).unwrap();
        s.rival_pushes("index.html");
        let plain = s.gitsync(&["sync"]);
        let mut strace = s.isolated("strace");
        strace.args(["-f", "-qq", "-e", "trace=link,linkat,unlink,rename", "-o"]).arg(s.root().join("trace"));
        if !links {
            strace.args(["-e", "inject=link,linkat:error=EPERM"]);
        }
        // The pass ends as libgit2 renames the new index into place.
        strace.args(["-P"]).arg(s.ours().join(".git/index.lock")).arg("-P").arg(s.private().join("index-before"));
        strace.args(["-e", "inject=rename:signal=KILL:when=1", "--"]);
        strace.arg(plain.get_program()).args(plain.get_args()).env("GIT_SYNC_REPO", s.ours());
        s.run_this(strace);
        assert_ne!(s.last().code, Some(0), "{}", s.last());
        let kept = fs::read(s.private().join("index-before")).unwrap_or_default();
        assert_eq!(kept, before, "links: {links}\n{}", fs::read_to_string(s.root().join("trace")).unwrap());
        s.sync().exits(0).ours_equals_upstream();
    }
}

/// What somebody builds from it need not be built again.
#[test]
fn a_file_that_already_has_what_the_remote_brings_is_not_touched() {
    let s = Scene::new();
    s.rival_writes(".gitattributes", "*.txt text eol=crlf\n").rival_writes("a.txt", "one\n").rival_writes("b", "one\n");
    push(&s, "one is converted");
    s.sync().exits(0).our_file("a.txt", "one\r\n");
    s.rival_writes("a.txt", "two\n").rival_writes("b", "two\n").we_write("a.txt", "two\r\n").we_write("b", "two\n");
    push(&s, "another line");
    let identity = |name: &str| fs::metadata(s.ours().join(name)).map(|meta| (meta.ino(), meta.mtime_nsec())).unwrap();
    let before = ["a.txt", "b"].map(identity);
    s.sync().exits(0).says("behind").ours_equals_upstream().our_file("a.txt", "two\r\n").our_file("b", "two\n");
    assert_eq!(["a.txt", "b"].map(identity), before);
    assert!(s.rescues("").is_empty(), "{:?}", s.rescues(""));
}

/// Old trees have modes that git has no more: the index has git's, and what it knows of files that did not change.
#[test]
fn outdated_modes_are_followed_from_version_to_version() {
    let s = Scene::new();
    let version = |text: &str| {
        let entries = [("changed", text), ("same", "the same\n")].map(|(name, text)| {
            let id = bytes(&raw(&s, "blob", text.as_bytes()));
            [format!("100664 {name}\0").into_bytes(), id].concat()
        });
        let tree = raw(&s, "tree", &entries.concat());
        let commit = s.git_upstream(&["commit-tree", "-p", "main", "-m", text.trim(), &tree]);
        s.git_upstream(&["update-ref", "refs/heads/main", &commit]);
        s.sync().exits(0).says("behind").our_file("changed", text).ours_equals_upstream();
        let entries = s.git_ours(&["ls-files", "--debug"]);
        assert!(entries.contains("size: 9") && !entries.contains("size: 0"), "{entries}");
        assert_eq!(
            s.git_ours(&["ls-files", "--stage", "changed"]).split(' ').nth(1),
            Some(&*raw(&s, "blob", text.as_bytes()))
        );
    };
    version("version 1\n");
    version("another, longer version 2\n");
    assert_eq!(s.git_ours(&["status", "--porcelain"]), "");
}
