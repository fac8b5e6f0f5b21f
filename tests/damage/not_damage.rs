//! What is no damage puts no repository aside: what the remote or the job holds, what the system is short of, what a person has
//! set. What is damage puts it aside once, and never on nothing.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::scene::{Scene, write};
use needs::needs;

/// The repositories put aside.
fn put_aside(s: &Scene) -> Vec<PathBuf> {
    let all = fs::read_dir(s.private().join("broken")).into_iter().flatten().flatten();
    all.map(|entry| entry.path()).collect()
}

#[track_caller]
fn nothing_is_put_aside(s: &Scene) {
    assert_eq!(put_aside(s), Vec::<PathBuf>::new(), "{}", s.last());
}

/// A path of so many folders and a file.
fn deep(folders: usize) -> String {
    format!("{}file", "d/".repeat(folders))
}

fn object(s: &Scene, kind: &str, bytes: &[u8]) -> String {
    let mut git = s.git_command(&s.upstream());
    git.args(["hash-object", "-t", kind, "-w", "--literally", "--stdin"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    git.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = git.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn tree(s: &Scene, entries: &[(&str, &str, &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend(format!("{mode} {name}\0").bytes());
        bytes.extend((0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()));
    }
    object(s, "tree", &bytes)
}

/// A commit of this tree on the upstream's branch, made there.
fn upstream_gets(s: &Scene, tree: &str) {
    let commit = s.git_upstream(&["commit-tree", tree, "-p", "main", "-m", "hostile"]);
    s.git_upstream(&["update-ref", "refs/heads/main", &commit]);
}

/// The remote has something that can't be followed, which is not our damage; then it is good again.
fn the_remote_is_at_fault(s: &Scene, word: &str) {
    let good = s.rev(&s.upstream(), "main~1");
    let before = s.our_tip();
    for alpha in [false, true] {
        if alpha {
            s.alpha();
        }
        s.sync().exits(1).says("error").logs(word).logs("can't be followed");
        s.init_sync().exits(1).says("error").logs(word).logs_not("put aside").work_tree_is_clean();
        assert_eq!(s.our_tip(), before, "{}", s.last());
        nothing_is_put_aside(s);
    }
    // Nothing of ours is forced over a commit that nobody here could look at.
    let theirs = s.upstream_tip();
    s.tick_with("echo 1 > state/job").exits(1).says("push-failed").logs(word);
    assert_eq!(s.git_ours(&["show", "--format=", "--name-only", "HEAD"]), "state/job");
    assert_eq!(s.rev(&s.ours(), "HEAD~1"), before);
    assert_eq!(s.upstream_tip(), theirs);
    s.non_alpha();
    s.tick_with("echo 2 > state/job").exits(1).says("push-failed");
    assert_eq!(s.rev(&s.ours(), "HEAD~2"), before);
    s.git_upstream(&["update-ref", "refs/heads/main", &good]);
    s.rival_pushes("news");
    s.sync().exits(0).says("diverged").ours_equals_upstream();
    s.tick_with("echo 3 > state/job").exits(0).says("pushed").ours_equals_upstream();
    nothing_is_put_aside(s);
}

#[test]
fn folders_too_deep_from_the_remote_are_the_remotes() {
    let s = Scene::new();
    let blob = object(&s, "blob", b"deep\n");
    let mut folder = tree(&s, &[("100644", "file", &blob)]);
    for _ in 0..120 {
        folder = tree(&s, &[("40000", "d", &folder)]);
    }
    upstream_gets(&s, &folder);
    the_remote_is_at_fault(&s, "d/d/d/d/d: it lies 100 folders deep");
}

#[test]
fn names_and_orders_that_git_refuses_are_the_remotes() {
    for case in ["git~1", ".GIT", "unsorted", "twice"] {
        let s = Scene::new();
        let blob = object(&s, "blob", b"hostile\n");
        let hostile = match case {
            "unsorted" => tree(&s, &[("100644", "z", &blob), ("100644", "a", &blob)]),
            "twice" => tree(&s, &[("100644", "a", &blob), ("100644", "a", &blob)]),
            name => tree(&s, &[("100644", name, &blob)]),
        };
        let hostile = tree(&s, &[("40000", "folder", &hostile)]);
        upstream_gets(&s, &hostile);
        let word = match case {
            "unsorted" => "folder/a: the entries of its folder are not in git's order",
            "twice" => "folder/a: the name is twice",
            "git~1" => "folder/git~1: git does not check out a name like this",
            _ => "folder/.GIT: git does not check out a name like this",
        };
        the_remote_is_at_fault(&s, word);
    }
}

#[test]
fn a_first_clone_of_what_cannot_be_followed_puts_nothing_aside() {
    let s = Scene::without_ours();
    let blob = object(&s, "blob", b"hostile\n");
    upstream_gets(&s, &tree(&s, &[("100644", "git~1", &blob)]));
    for _ in 0..3 {
        s.init_sync().exits(1).says("error").logs("git~1");
        nothing_is_put_aside(&s);
    }
    // Without a commit of the remote's there is nothing to commit on.
    s.tick_with("mkdir -p state; echo 1 > state/job").exits(1).says("error");
    assert_eq!(s.git_ours(&["for-each-ref", "refs/heads"]), "");
    s.git_upstream(&["update-ref", "refs/heads/main", "main~1"]);
    s.init_sync().exits(0).says("cloned").ours_equals_upstream();
}

#[test]
fn folders_too_deep_from_a_job_are_left_out_and_the_rest_is_committed() {
    let s = Scene::new();
    let (fits, too_deep) = (format!("state/{}", deep(98)), format!("state/{}", deep(140)));
    s.we_write(&fits, "fits\n").we_write(&too_deep, "too deep\n").we_write("state/gone", "1\n");
    for number in 0..3 {
        let job = format!("echo {number} > state/a; echo {number} > state/new-{number}; rm -f state/gone");
        s.tick_with(&job).exits(1).says("pushed").logs("folders deep").logs("state/d/d/d");
        s.upstream_file("state/a", &format!("{number}\n")).upstream_file(&fits, "fits\n");
        s.upstream_file(&format!("state/new-{number}"), &format!("{number}\n"));
    }
    assert!(s.ours().join(&too_deep).exists());
    // They are in nobody's way either.
    s.rival_pushes("news");
    s.sync().exits(0).says("behind").ours_equals_upstream();
    s.init_sync().exits(0).says("up-to-date");
    nothing_is_put_aside(&s);
    fs::remove_dir_all(s.ours().join("state/d/d/d")).unwrap();
    s.tick().exits(0).says("pushed").fsck();
}

// ---- what the system is short of

/// A command run by a shell that allows so many open files.
fn with_open_files(s: &Scene, most: u32, args: &[&str]) -> Command {
    let plain = s.gitsync(args);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -n {most}; exec \"$0\" \"$@\""))
        .arg(plain.get_program())
        .args(plain.get_args());
    like(&mut shell, &plain);
    shell
}

fn like(command: &mut Command, plain: &Command) {
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(plain.get_current_dir().unwrap()).stdin(Stdio::null());
}

/// With hardly any, a trace of calls came, exit 1, and not a word on stdout.
#[test]
fn what_is_short_as_a_pass_begins_is_named() {
    let s = Scene::new();
    let mut refused = 0;
    for most in 4..12 {
        for args in [["sync"].as_slice(), &["tick", "--", "true"], &["status"]] {
            s.run_this(with_open_files(&s, most, args));
            let last = s.last();
            // With fewer not even the system's libraries are opened.
            if last.code != Some(127) {
                assert!(!last.stderr.contains("BACKTRACE"), "{most}: {last}");
                assert!(matches!(last.code, Some(0 | 1 | 75)), "{most}: {last}");
                refused += usize::from(last.code == Some(75) && last.stderr.contains("the watchdog can't be started"));
            }
        }
    }
    assert!(refused > 0, "descriptors were never short");
}

#[test]
fn too_few_file_descriptors_are_no_damage() {
    let s = Scene::new();
    for _ in 0..12 {
        s.rival_pushes("news");
        s.sync().exits(0);
    }
    s.we_commit("state/own");
    let before = s.our_tip();
    let mut refused = 0;
    for most in 12..40 {
        for args in [["init-sync"].as_slice(), &["sync"], &["tick", "--", "true"]] {
            s.run_this(with_open_files(&s, most, args));
            nothing_is_put_aside(&s);
            s.is_kept(&before);
            let last = s.last();
            if last.code != Some(0) {
                assert!(matches!(last.code, Some(75 | 1)), "{most}: {last}");
                assert!(!last.stderr.contains("damaged ("), "{most}: {last}");
                refused += usize::from(last.code == Some(75) && last.stderr.contains("ulimit -n"));
            }
        }
    }
    assert!(refused > 0, "descriptors were never short");
    s.init_sync().exits(0).ours_equals_upstream().fsck();
    nothing_is_put_aside(&s);
}

/// `read`, `stat` and `open` fail once, at one call after another.
#[needs(strace)]
#[test]
fn a_call_that_fails_once_is_no_damage() {
    for (calls, error) in
        [("read,pread64", "EIO"), ("openat", "EMFILE"), ("newfstatat,statx,access", "EIO"), ("mmap", "ENOMEM")]
    {
        let s = Scene::new();
        s.we_commit("state/own");
        s.git_ours(&["repack", "-q", "-a", "-d"]);
        s.we_commit("state/later");
        s.we_write("staged", "mine\n").git_ours(&["add", "staged"]);
        let own = s.our_tip();
        let log = s.root().join("calls");
        let trace = |inject: Option<String>| {
            let plain = s.gitsync(&["init-sync"]);
            let mut strace = Command::new("strace");
            strace.args(["-qq", "-o"]).arg(&log).arg("-e").arg(format!("trace={calls}"));
            if let Some(inject) = inject {
                strace.arg("-e").arg(inject);
            }
            strace.arg("--").arg(plain.get_program()).args(plain.get_args());
            like(&mut strace, &plain);
            s.run_this(strace);
        };
        s.upstream_goes_away();
        trace(None);
        let all = fs::read_to_string(&log).unwrap().lines().count();
        // The first are the loader's and the runtime's own.
        for at in (30.min(all - 1)..=all).step_by((all / 40).max(1)) {
            trace(Some(format!("inject={calls}:error={error}:when={at}")));
            nothing_is_put_aside(&s);
            assert!(!s.private().join("damaged-config").exists(), "{}", s.last());
            assert!(!s.private().join("damaged-index").exists(), "{}", s.last());
            // The remote is away: 75 in any case, also where the call was one that mattered.
            assert_eq!(s.last().code, Some(75), "{error} at {at}: {}", s.last());
            assert_eq!(s.our_tip(), own, "{error} at {at}: {}", s.last());
        }
        s.upstream_comes_back();
        s.init_sync().exits(0).is_kept(&own).ours_equals_upstream().fsck();
    }
}

// ---- what a person has set

#[test]
fn a_bad_setting_is_named_with_its_file_and_nothing_is_put_aside() {
    let s = Scene::new();
    s.we_commit("state/own");
    let own = s.our_tip();
    let (home, repo) = (s.root().join("home/.gitconfig"), s.ours().join(".git/config"));
    let repo_before = fs::read_to_string(&repo).unwrap();
    let unread = s.root().join("unread");
    fs::create_dir(&unread).unwrap();
    let include = format!("[include]\n\tpath = {}\n", unread.display());
    for (text, said) in [
        ("[core]\n\tfilemode = perhaps\n", "core.filemode = perhaps"),
        ("[core]\n\tbare = perhaps\n", "core.bare = perhaps"),
        ("[core\n", "config"),
        ("no such thing\n", "config"),
        (include.as_str(), "unread"),
    ] {
        for file in [&home, &repo] {
            let before = if *file == repo { repo_before.as_str() } else { "" };
            write(file, &format!("{before}{text}"));
            for pass in [["init-sync"].as_slice(), &["sync"], &["tick", "--", "true"]] {
                let last = s.run(pass).last();
                nothing_is_put_aside(&s);
                assert!(!s.private().join("damaged-config").exists(), "{last}");
                assert_eq!(fs::read_to_string(file).unwrap(), format!("{before}{text}"), "{last}");
                // What libgit2 does not ask for does not stop it; then it is git behind the path remote that says so.
                if last.stderr.contains("said: ") {
                    s.exits(if pass[0] == "tick" { last.code.unwrap() } else { 75 }).logs(said);
                } else if last.code != Some(0) {
                    s.exits(1).logs(said).logs(file.to_str().unwrap());
                }
            }
            if *file == home {
                fs::remove_file(file).unwrap()
            } else {
                fs::write(file, before).unwrap()
            }
            s.is_kept(&own);
        }
    }
    // An include that is not there is none, as git has it.
    write(&home, "[include]\n\tpath = ~/nowhere\n");
    write(&s.root().join("system"), "[core]\n\tbare = perhaps\n");
    s.env("GIT_CONFIG_SYSTEM", s.root().join("system").to_str().unwrap());
    s.init_sync().exits(0).ours_equals_upstream();
    nothing_is_put_aside(&s);
}

/// libgit2 says the value alone, and only where it comes to need it.
#[test]
fn a_bad_boolean_is_named_by_every_pass_that_reads_it() {
    let passes: [&[&str]; 3] = [&["init-sync"], &["sync"], &["tick", "--tick-command", "true"]];
    let s = Scene::new();
    s.rival_pushes("index.html");
    // Another key may have the value, and may have it rightly.
    s.git_ours(&["config", "aaa.nickname", "perhaps"]);
    s.git_ours(&["config", "core.ignorecase", "perhaps"]);
    let config = s.ours().join(".git/config").display().to_string();
    for pass in passes {
        for args in [pass.to_vec(), [pass, &["--dry-run"]].concat()] {
            s.run(&args)
                .exits(1)
                .logs(&format!("core.ignorecase = perhaps in {config}"))
                .logs(&format!("correct {config}"));
        }
    }
    s.git_ours(&["config", "--unset", "core.ignorecase"]);
    write(&s.root().join("more.inc"), "[core]\n\tignorecase = perhaps\n");
    let more = s.root().join("more.inc").display().to_string();
    s.git_ours(&["config", "include.path", &more]);
    s.sync().exits(1).logs("core.ignorecase = perhaps in a file that").logs(&config);
    write(&s.root().join("more.inc"), "nothing like it [\n");
    for pass in passes {
        s.run(pass).exits(1).logs(&format!("correct {more};"));
    }
    nothing_is_put_aside(&s);
    fs::remove_file(more).unwrap();
    s.sync().exits(0).says("behind");
}

#[test]
fn relative_worktrees_are_no_format_that_stops_init_sync() {
    let s = Scene::new();
    s.git_ours(&["config", "core.repositoryformatversion", "1"]);
    s.git_ours(&["config", "extensions.relativeWorktrees", "true"]);
    s.rival_pushes("news");
    s.sync().exits(0).says("behind");
    s.init_sync().exits(0).says("up-to-date");
    s.tick_with("echo 1 > state/a").exits(0).says("pushed");
}

// ---- damage

/// Takes away the object of a path in our last commit.
fn lose(s: &Scene, what: &str) -> PathBuf {
    let id = s.rev(&s.ours(), what);
    let object = s.ours().join(format!(".git/objects/{}/{}", &id[..2], &id[2..]));
    fs::remove_file(&object).unwrap();
    object
}

#[test]
fn what_is_put_aside_is_named_and_put_aside_once_for_one_cause() {
    let s = Scene::new();
    s.we_write("state/a", "mine\n");
    s.git_ours(&["commit", "-q", "-a", "-m", "ours"]);
    let id = s.rev(&s.ours(), "HEAD:state/a");
    lose(&s, "HEAD:state/a");
    s.init_sync()
        .exits(0)
        .says("cloned")
        .logs(&format!("file {id}, which refs/heads/main needs, is missing"))
        .logs("put aside");
    assert_eq!(put_aside(&s).len(), 1);
    // The same again, as a bad disk does it.
    s.we_write("state/a", "mine\n");
    s.git_ours(&["commit", "-q", "-a", "-m", "ours again"]);
    lose(&s, "HEAD:state/a");
    for _ in 0..3 {
        s.init_sync().exits(1).says("error").logs(&id).logs("not put aside a second time");
        assert_eq!(put_aside(&s).len(), 1, "{}", s.last());
    }
    // As it says.
    fs::remove_dir_all(&put_aside(&s)[0]).unwrap();
    s.init_sync().exits(0).ours_equals_upstream().fsck();
    // Another cause is another copy.
    s.we_commit("state/b");
    lose(&s, "HEAD:state/b");
    s.init_sync().exits(0).ours_equals_upstream().fsck();
    assert_eq!(put_aside(&s).len(), 2);
}

/// libgit2 walks all references to tell a server what is here. What it could not read there was said to be the server's fault: exit 75
/// in each pass and at each start, for ever, and no push either.
#[test]
fn damage_of_another_branch_is_ours_and_not_the_servers() {
    let s = Scene::new();
    s.git_ours(&["switch", "-q", "-c", "side"]);
    s.we_commit("one").we_commit("two").we_commit("three");
    let id = s.rev(&s.ours(), "HEAD~1");
    lose(&s, "HEAD~1");
    s.git_ours(&["switch", "-q", "main"]);
    s.rival_pushes("news");
    s.sync().exits(1).logs(&format!("commit {id}, which refs/heads/side needs, is missing")).logs("init-sync");
    nothing_is_put_aside(&s);
    s.init_sync().exits(0).says("cloned").ours_equals_upstream().fsck();
    assert_eq!(put_aside(&s).len(), 1);
    s.sync().exits(0).says("up-to-date");
}

/// In a format of its own git keeps a file in the place of `refs/heads`; a setting makes a repository bare; a partial clone marks its
/// packs by files without content. None of them is touched.
#[test]
fn what_only_looks_out_of_place_stays() {
    let s = Scene::new();
    let dot_git = s.ours().join(".git");
    s.git_ours(&["config", "core.repositoryformatversion", "1"]);
    s.git_ours(&["config", "extensions.refStorage", "reftable"]);
    fs::remove_dir_all(dot_git.join("refs/heads")).unwrap();
    write(&dot_git.join("refs/heads"), "this repository uses the reftable format\n");
    s.init_sync().exits(1).logs("has a format that gitsync can't read");
    assert!(dot_git.join("refs/heads").is_file(), "{}", s.last());

    let s = Scene::new();
    s.git_ours(&["config", "core.bare", "true"]);
    for args in [&["sync"] as &[&str], &["init-sync"]] {
        s.run(args).exits(1).logs("bare repository").logs("git config core.bare false");
    }

    let s = Scene::without_ours();
    s.rival_pushes("news");
    s.git_upstream(&["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", s.upstream().display());
    s.git_in(s.root(), &["clone", "-q", "--filter=blob:none", &url, s.ours().to_str().unwrap()]);
    // Before the last one the files are not here, which the mark alone says is right.
    s.rival_writes("news", "other\n").rival_commits("other");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    let marks = || {
        let packs = fs::read_dir(s.ours().join(".git/objects/pack")).unwrap().map(|entry| entry.unwrap().path());
        packs.filter(|path| path.extension().is_some_and(|end| end == "promisor")).collect::<Vec<_>>()
    };
    let before = marks();
    assert!(!before.is_empty());
    s.init_sync().exits(0).ours_equals_upstream();
    // What came in is marked too, as git does it.
    let after = marks();
    assert!(before.iter().all(|mark| after.contains(mark)) && after.len() > before.len(), "{}", s.last());
    assert!(!s.private().join("empty-objects").exists());
}

/// A format of the index that libgit2 does not know was said to be damage, with init-sync for its remedy, which it is not.
#[test]
fn an_index_in_another_format_is_no_damage() {
    for (make, remedy) in [
        (["update-index", "--split-index"].as_slice(), "git config core.splitIndex false"),
        (&["update-index", "--split-index"], "git update-index --no-split-index"),
        (&["sparse-checkout", "set", "--sparse-index", "state"], "git sparse-checkout disable"),
    ] {
        let s = Scene::new();
        s.rival_pushes("news/new").sync();
        s.git_ours(make);
        s.rival_pushes("more");
        for args in [&["sync"] as &[&str], &["tick", "--", "true"], &["init-sync"]] {
            for args in [args.to_vec(), [&args[..1], &["--dry-run"], &args[1..]].concat()] {
                s.run(&args).exits(1).logs(remedy).logs_not("damaged").logs_not("run `gitsync init-sync`");
            }
        }
        nothing_is_put_aside(&s);
    }
}

#[test]
fn putting_aside_that_was_cut_short_is_gone_on_with() {
    let s = Scene::new();
    s.we_commit("state/own").we_commit("state/bad");
    let own = s.rev(&s.ours(), "HEAD~1");
    lose(&s, "HEAD:state/bad");
    let aside = s.private().join("broken/20260101T000000Z");
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("gitsync-cause"), "a cause\n").unwrap();
    fs::write(s.private().join("putting-aside"), "20260101T000000Z").unwrap();
    for name in ["HEAD", "refs", "config"] {
        fs::rename(s.ours().join(".git").join(name), aside.join(name)).unwrap();
    }
    s.init_sync().exits(0).says("cloned").is_kept(&own).ours_equals_upstream().fsck();
    assert_eq!(put_aside(&s), [aside], "{}", s.last());
    assert!(!s.private().join("putting-aside").exists());
}

#[test]
fn an_init_that_was_cut_short_is_made_again_and_not_put_aside() {
    for left in [
        ["HEAD"].as_slice(),
        &["objects/"],
        &["config", "objects/info/", "objects/pack/", "refs/heads/"],
        &["config.lock"],
    ] {
        let s = Scene::without_ours();
        for name in left {
            let path = s.ours().join(".git").join(name);
            if name.ends_with('/') { fs::create_dir_all(&path).unwrap() } else { write(&path, "") }
        }
        s.init_sync().exits(0).says("cloned").ours_equals_upstream().fsck();
        nothing_is_put_aside(&s);
    }
}

/// In the order in which git makes what it makes, killed after each.
#[test]
fn a_git_init_killed_at_any_stage_is_made_again() {
    let made = ["", "hooks/sample", "info/exclude", "description", "refs/heads/", "refs/tags/", "HEAD.lock", "HEAD"];
    let made = [&made[..], &["config.lock", "config", "objects/pack/", "objects/info/"]].concat();
    for stage in 1..=made.len() {
        let s = Scene::without_ours();
        for name in &made[..stage] {
            let path = s.ours().join(".git").join(name);
            let text = match *name {
                "HEAD" => "ref: refs/heads/main\n",
                "config" => "[core]\n\trepositoryformatversion = 0\n",
                _ => "",
            };
            if path.to_str().unwrap().ends_with('/') { fs::create_dir_all(&path).unwrap() } else { write(&path, text) }
        }
        s.init_sync().exits(0).says("cloned").ours_equals_upstream().fsck();
        nothing_is_put_aside(&s);
        assert!(!s.private().join("broken").exists(), "{:?}", &made[..stage]);
    }
}

#[test]
fn without_the_remote_the_branch_stands_on_the_newest_commit_that_can_be_read() {
    let s = Scene::new();
    s.we_commit("state/own").we_commit("state/own-2");
    let newest = s.our_tip();
    s.we_commit("state/bad");
    lose(&s, "HEAD:state/bad");
    s.upstream_goes_away();
    s.init_sync().exits(75).says("offline").logs("put aside").logs("using the newest commit");
    assert_eq!(s.our_tip(), newest, "{}", s.last());
    s.work_tree_is_clean().fsck();
    // The container goes on with it.
    s.tick_with("echo 1 > state/job").exits(75).says("push-failed");
    assert_eq!(s.rev(&s.ours(), "HEAD~1"), newest);
    let job = s.our_tip();
    s.upstream_comes_back();
    s.tick().exits(0).says("pushed").ours_equals_upstream().is_kept(&job);
    assert_eq!(put_aside(&s).len(), 1);
}

#[test]
fn a_history_begun_while_the_remote_was_away_is_not_forced_over_the_remotes() {
    for (alpha, pass) in [(true, "sync"), (true, "tick"), (false, "tick")] {
        let s = Scene::new();
        let theirs = s.upstream_tip();
        if alpha {
            s.alpha();
        }
        // Everything is lost, and there is nothing to stand on.
        fs::remove_dir_all(s.ours().join(".git/objects")).unwrap();
        s.upstream_goes_away();
        s.init_sync().exits(75);
        s.tick_with("echo 1 > state/job").exits(75).says("error");
        assert_eq!(s.git_ours(&["for-each-ref", "refs/heads"]), "", "{}", s.last());
        // A person or a job commits all the same.
        s.git_ours(&["read-tree", "--empty"]);
        s.git_ours(&["add", "state"]);
        s.git_ours(&["commit", "-q", "-m", "a beginning of its own"]);
        let beginning = s.our_tip();
        s.tick_with("echo 2 > state/job").says("push-failed");
        s.upstream_comes_back();
        s.run(&[pass]);
        assert_eq!(s.upstream_tip(), theirs, "{}", s.last());
        s.is_kept(&beginning);
        assert!(!s.marker(), "{}", s.last());
        s.tick_with("echo 3 > state/job").exits(0).says("pushed").ours_equals_upstream();
        s.git_ours(&["merge-base", "--is-ancestor", &theirs, "HEAD"]);
    }
}

/// A job that takes the branch away must not have what it wrote committed as a history of its own.
#[test]
fn a_job_that_removes_the_branch_begins_no_history() {
    let s = Scene::new();
    let before = s.upstream_tip();
    s.alpha().tick_with("echo 1 > state/a; git update-ref -d refs/heads/main").exits(1).says("error");
    s.logs("has no commit");
    assert_eq!(s.upstream_tip(), before);
    s.init_sync().exits(0).ours_equals_upstream();
}

#[test]
fn the_first_commit_is_made_where_the_remote_is_known_to_be_empty() {
    let s = Scene::empty_upstream();
    s.init_sync().exits(0).says("empty-remote");
    s.upstream_goes_away();
    s.tick_with("mkdir -p state; echo 1 > state/a").exits(75).says("error");
    assert_eq!(s.git_ours(&["for-each-ref", "refs/heads"]), "");
    s.upstream_comes_back();
    s.tick_with("mkdir -p state; echo 1 > state/a").exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn an_object_store_that_is_borrowed_from_and_away_is_named() {
    let s = Scene::new();
    let store = s.root().join("store");
    fs::rename(s.ours().join(".git/objects/pack"), store.join("pack")).unwrap_or_else(|_| {
        fs::create_dir_all(&store).unwrap();
        fs::rename(s.ours().join(".git/objects/pack"), store.join("pack")).unwrap();
    });
    write(&s.ours().join(".git/objects/info/alternates"), &format!("{}\n", store.display()));
    s.git_ours(&["fsck"]);
    s.sync().exits(0);
    fs::rename(&store, s.root().join("unmounted")).unwrap();
    for _ in 0..2 {
        s.init_sync().exits(1).says("error").logs(store.to_str().unwrap());
        nothing_is_put_aside(&s);
    }
    fs::rename(s.root().join("unmounted"), &store).unwrap();
    s.init_sync().exits(0).says("up-to-date");
}

/// git refuses each of these; not every pass comes to need them.
#[test]
fn bad_booleans_are_refused_in_a_pass_that_does_not_need_them_too() {
    for key in ["core.filemode", "core.autocrlf", "core.symlinks", "core.trustctime"] {
        let s = Scene::new();
        s.git_ours(&["config", key, "maybe"]);
        s.sync().exits(1).logs(&format!("{key} = maybe in "));
        nothing_is_put_aside(&s);
        s.git_ours(&["config", key, if key == "core.autocrlf" { "input" } else { "true" }]);
        s.sync().exits(0);
    }
}
