//! The job and the site over the built program: bounded, clean, published whole.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use needs::needs;
use rustix::process::{Pid, Signal, kill_process};
use scene::{Scene, until, write};

/// A scene whose public dir has a site.
fn with_site(build: &str) -> Scene {
    let s = Scene::new();
    s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", build);
    s.run(&["init-sync"]).exits(0);
    s
}

const COPY: &str = "cp index.html {public_dir}/ && date +%N > {public_dir}/built";

fn page(s: &Scene) -> String {
    fs::read_to_string(s.public().join("index.html")).unwrap_or_else(|error| format!("({error})"))
}

fn built(s: &Scene) -> String {
    fs::read_to_string(s.public().join("built")).unwrap()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The processes that have this scene's folder in their environment and still live; the job and all it started do.
#[cfg(target_os = "linux")]
fn left_of(s: &Scene) -> Vec<String> {
    let home = format!("HOME={}", s.root().join("home").display());
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes()) {
            left.push(format!("{}: {}", path.display(), fs::read_to_string(path.join("cmdline")).unwrap_or_default()));
        }
    }
    left
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

// ---- what a job knows and says

#[test]
fn a_job_and_a_build_know_of_the_pass_and_not_of_its_secrets() {
    let s = Scene::new();
    s.env("GIT_SYNC_TOKEN", "token-of-gitsync").env("GITHUB_TOKEN", "token-of-the-job").env("OTHER", "passed on");
    s.env("GIT_SYNC_TOKEN_FILE", "/dev/null").env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap());
    s.env("GIT_SYNC_BUILD_COMMAND", "env > ../build-env; pwd > $GITSYNC_PUBLIC_DIR/pwd");
    let (before, theirs) = (s.our_tip(), s.upstream_tip());
    s.tick_with("env > ../job-env; pwd > ../job-pwd; cat > ../job-stdin; echo 1 > state/a").exits(0).says("pushed");
    let ours = fs::canonicalize(s.ours()).unwrap();
    assert_eq!(fs::read_to_string(s.root().join("job-pwd")).unwrap().trim(), ours.to_str().unwrap());
    assert_eq!(fs::read(s.root().join("job-stdin")).unwrap(), b"");
    for who in ["job-env", "build-env"] {
        let env = fs::read_to_string(s.root().join(who)).unwrap();
        for line in [
            "GITSYNC_COMMAND=tick",
            "GITSYNC_BRANCH=main",
            &format!("GITSYNC_HEAD={before}"),
            &format!("GITSYNC_REMOTE_HEAD={theirs}"),
            "GITSYNC_MODE=non-alpha",
            "GITHUB_TOKEN=token-of-the-job",
            "OTHER=passed on",
        ] {
            assert!(env.lines().any(|it| it == line), "{who} lacks {line}:\n{env}");
        }
        assert!(!env.contains("GIT_SYNC_TOKEN") && !env.contains("token-of-gitsync"), "{who}:\n{env}");
        assert!(env.contains("GITSYNC_PUBLIC_DIR=/"), "{who}:\n{env}");
    }
    assert_eq!(fs::read_to_string(s.public().join("pwd")).unwrap().trim(), ours.to_str().unwrap());
}

#[test]
fn git_in_a_job_works_in_the_repository_whatever_git_started_us() {
    let s = Scene::new();
    // As in a hook of another repository.
    let other = s.rival().join(".git");
    for (name, value) in [("GIT_DIR", ""), ("GIT_INDEX_FILE", "index"), ("GIT_OBJECT_DIRECTORY", "objects")] {
        s.env(name, other.join(value).to_str().unwrap());
    }
    s.env("GIT_WORK_TREE", s.rival().to_str().unwrap()).env("GIT_NAMESPACE", "elsewhere").env("GIT_PREFIX", "state/");
    let before = s.rev(&s.rival(), "HEAD");
    s.tick_with("echo 1 >state/b && git add -A && git commit -qm 'by the job'").exits(0).says("pushed");
    s.ours_equals_upstream();
    assert_eq!(s.git_ours(&["log", "-1", "--format=%s"]), "by the job");
    assert_eq!(s.rev(&s.rival(), "HEAD"), before);
}

#[test]
fn a_jobs_output_is_tagged_in_either_log_format() {
    let s = Scene::new();
    let script =
        r"echo to stdout; echo to stderr >&2; printf 'bad \377 \033[2J\n'; head -c 1048576 /dev/zero | tr '\0' x";
    s.tick_with(script).exits(0).logs("to stdout").logs("to stderr").logs("bad \u{fffd}").logs_not("\u{1b}");
    assert_eq!(s.last().stderr.matches('x').count() / 1_048_576, 1);
    s.run(&["tick", "--log-format", "json", "--", "sh", "-c", script]).exits(0);
    let stderr = s.last().stderr;
    let lines: Vec<serde_json::Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for text in ["to stdout", "to stderr", "bad \u{fffd} \\u{1b}[2J"] {
        assert!(lines.iter().any(|line| line["message"] == text && line["from"] == "job"), "{text}: {stderr:.2000}");
    }
}

#[test]
fn a_failed_job_is_an_error_and_what_it_wrote_is_pushed() {
    for (script, code) in [("echo 1 > state/new; exit 7", 7), ("echo 1 > state/new; kill -KILL $$", 137)] {
        let s = Scene::new();
        s.run(&["tick", "--output", "json", "--", "sh", "-c", script]).exits(1).ours_equals_upstream();
        let json = s.json();
        assert_eq!((&json["result"], &json["job_exit_code"]), (&"pushed".into(), &code.into()), "{json}");
        assert!(json["error"].as_str().unwrap().contains("the job "), "{json}");
        s.upstream_file("state/new", "1\n");
    }
}

#[test]
fn a_job_that_cannot_be_started_is_said_with_the_next_step() {
    let s = Scene::new();
    s.we_write("state/new", "1\n");
    s.run(&["tick", "--", "no-such-program"]).exits(1).says("pushed").logs("no program `no-such-program` was found");
    s.upstream_file("state/new", "1\n");
    s.run(&["tick", "--", "state/new"]).exits(1).logs("chmod +x state/new");
    s.run(&["tick", "--tick-command", "./job.sh"]).exits(1).logs("status 127").logs("relative to the repository");
    for empty in [&["tick", "--tick-command", " "][..], &["tick", "--", ""], &["sync", "--build-command", ""]] {
        let before = s.our_tip();
        s.run(empty);
        assert!(matches!(s.last().code, Some(1 | 2)), "{}", s.last());
        s.logs("empty");
        assert_eq!(s.our_tip(), before);
    }
}

// ---- its end

#[cfg(target_os = "linux")]
#[test]
fn a_job_out_of_time_is_ended_with_all_it_started_and_its_state_is_pushed() {
    let s = Scene::new();
    let script =
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000' & echo 1 > state/new; while :; do sleep 1000; done";
    let start = Instant::now();
    s.run(&["tick", "--job-timeout", "1s", "--output", "json", "--", "sh", "-c", script]).exits(1);
    // The time it had, ten seconds to tidy up, and the rest of the pass on a busy machine.
    assert!(start.elapsed() < Duration::from_secs(1 + 10 + 8), "took {:?}", start.elapsed());
    assert_eq!(left_of(&s), Vec::<String>::new());
    let json = s.json();
    assert_eq!((&json["result"], &json["job_exit_code"]), (&"pushed".into(), &serde_json::Value::Null), "{json}");
    assert!(json["error"].as_str().unwrap().contains("longer than 1s"), "{json}");
    s.upstream_file("state/new", "1\n");
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_job_leaves_running_is_ended_and_named() {
    let s = Scene::new();
    s.tick_with("setsid sleep 1000 & echo 1 > state/new")
        .exits(0)
        .says("pushed")
        .logs("left processes running")
        .logs("sleep");
    assert_eq!(left_of(&s), Vec::<String>::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_in_the_middle_of_a_job_ends_the_job_and_then_us() {
    for (number, name) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let s = Scene::new();
        let script =
            "trap 'echo tidy > state/said; exit 0' TERM; setsid sleep 1000 & : > ../up; while :; do sleep 0.01; done";
        let child = s.start(&["tick", "--", "sh", "-c", script]);
        until("the job runs", || s.root().join("up").exists());
        signal(&child, number);
        s.wait(child).exits(128 + name).says("error");
        assert_eq!(left_of(&s), Vec::<String>::new());
        s.our_file("state/said", "tidy\n");
        // Nothing is lost: the next tick finds it.
        s.tick().exits(0).says("pushed").upstream_file("state/said", "tidy\n").fsck();
    }
}

/// A job that says when two of its kind run at the same time.
// Nobody reads what it prints once its gitsync is killed; printing would then end it by SIGPIPE.
const EXCLUSIVE: &str = "exec >/dev/null 2>&1; trap 'rmdir ../runs; exit 0' TERM; \
                         mkdir ../runs || echo overlap >> ../overlap; echo $$ >> state/ledger; echo $$ > ../pid; \
                         until test -e ../go-on; do sleep 0.01; done; rmdir ../runs";

#[cfg(target_os = "linux")]
#[test]
fn two_gitsyncs_killed_around_a_job_never_make_two_jobs_of_it() {
    let s = Scene::new();
    for _ in 0..2 {
        let mut child = s.gitsync(&["tick", "-q", "--", "sh", "-c", EXCLUSIVE]).spawn().unwrap();
        until("the job runs", || fs::metadata(s.root().join("pid")).is_ok_and(|it| it.len() > 0));
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        assert!(!left_of(&s).is_empty(), "the test's ground: the job outlives its gitsync");
        fs::remove_file(s.root().join("pid")).unwrap();
    }
    let child = s.start(&["tick", "--", "sh", "-c", EXCLUSIVE]);
    until("the job runs", || fs::metadata(s.root().join("pid")).is_ok_and(|it| it.len() > 0));
    write(&s.root().join("go-on"), "");
    s.wait(child).exits(0).says("pushed").logs("a job that an earlier gitsync started still runs");
    assert_eq!(left_of(&s), Vec::<String>::new());
    assert!(!s.root().join("overlap").exists(), "two jobs ran at a time");
    let ledger = fs::read_to_string(s.ours().join("state/ledger")).unwrap();
    assert_eq!(ledger.lines().count(), 3, "{ledger}");
    s.upstream_file("state/ledger", &ledger).fsck();
}

// ---- the site

#[test]
fn the_site_is_built_when_the_files_change_and_only_then() {
    let s = with_site(COPY);
    assert_eq!(page(&s), "page 2\n");
    let first = built(&s);
    s.sync().exits(0).says("up-to-date");
    assert_eq!(built(&s), first, "nothing had changed");
    s.rival_pushes("index.html").sync().exits(0).says("behind");
    assert_eq!(page(&s), "rival 2\n");
    s.tick_with("echo from the job > index.html").exits(0);
    assert_eq!(page(&s), "from the job\n");
    assert_eq!(names_in(&s.public()), ["built", "index.html"]);
}

#[test]
fn init_sync_leaves_exactly_the_fresh_site() {
    let s = Scene::new();
    write(&s.public().join("old/page.html"), "old");
    s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", COPY);
    s.run(&["init-sync", "--replace-public-dir"]).exits(0);
    assert_eq!(names_in(&s.public()), ["built", "index.html"]);
}

#[test]
fn a_failed_build_leaves_the_old_site_and_either_pass_tries_again() {
    for broken in ["exit 3", "cp index.html {public_dir}/; kill -KILL $$", "true"] {
        let s = with_site(COPY);
        let with = |pass: &[&str], build: &str| {
            let mut args = pass.to_vec();
            args.extend(["--build-command", build]);
            s.run(&args);
        };
        s.rival_pushes("index.html");
        with(&["sync", "--output", "json"], broken);
        s.exits(1).ours_equals_upstream();
        assert_eq!(s.json()["site_built"], false);
        assert_eq!(page(&s), "page 2\n", "the old site stays: {broken}");
        // Nothing has changed since, and it is tried again all the same.
        with(&["sync"], broken);
        s.exits(1);
        with(&["tick", "--tick-command", "true"], broken);
        s.exits(1);
        assert_eq!(page(&s), "page 2\n");
        with(&["sync", "--output", "json"], COPY);
        s.exits(0);
        assert_eq!(s.json()["site_built"], true);
        assert_eq!(page(&s), "rival 2\n");
        let first = built(&s);
        with(&["sync"], COPY);
        s.exits(0).says("up-to-date");
        assert_eq!(built(&s), first);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_build_out_of_time_or_killed_leaves_the_old_site() {
    let s = with_site(COPY);
    s.rival_pushes("index.html");
    let slow = "cp index.html {public_dir}/; : > ../up; setsid sleep 1000 & sleep 1000";
    s.run(&["sync", "--build-timeout", "1s", "--build-command", slow]).exits(1).logs("the build was ended");
    assert_eq!((page(&s).as_str(), left_of(&s)), ("page 2\n", Vec::new()));

    fs::remove_file(s.root().join("up")).unwrap();
    let child = s.start(&["sync", "--build-command", slow]);
    until("the build runs", || s.root().join("up").exists());
    signal(&child, Signal::TERM);
    s.wait(child).exits(143);
    assert_eq!((page(&s).as_str(), left_of(&s)), ("page 2\n", Vec::new()));

    fs::remove_file(s.root().join("up")).unwrap();
    let mut child = s.gitsync(&["sync", "-q", "--build-command", slow]).spawn().unwrap();
    until("the build runs", || s.root().join("up").exists());
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    assert_eq!(page(&s), "page 2\n");
    s.sync().exits(0);
    assert_eq!((page(&s).as_str(), left_of(&s)), ("rival 2\n", Vec::new()));
    let left: Vec<_> = names_in(&s.public()).into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn in_place_the_build_has_its_old_output() {
    let s = with_site(COPY);
    s.arg("--publish").arg("in-place").rival_pushes("index.html");
    s.run(&["sync", "--build-command", "cp {public_dir}/index.html {public_dir}/before; cp index.html {public_dir}/"]);
    s.exits(0);
    assert_eq!(page(&s), "rival 2\n");
    assert_eq!(fs::read_to_string(s.public().join("before")).unwrap(), "page 2\n");
    s.run(&["sync", "--publish", "sideways"]).exits(2);
}

#[test]
fn the_public_dir_may_have_any_name() {
    let s = Scene::new();
    let odd = s.root().join("a 'site' \"$HOME\" `x`");
    let ours = s.root().join("our 'own' $HOME");
    s.git_in(s.root(), &["clone", "-q", "upstream.git", ours.to_str().unwrap()]);
    s.env("GIT_SYNC_PUBLIC_DIR", odd.to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", COPY);
    for way in ["whole", "files", "in-place"] {
        let _ = fs::remove_dir_all(&odd);
        s.run(&["init-sync", "--publish", way, "--repo", ours.to_str().unwrap()]).exits(0);
        assert_eq!(names_in(&odd), ["built", "index.html"], "{way}");
    }
    // A command may have quotes of its own around it, and each is what it would be with a plain name.
    for (build, name) in [
        ("cp index.html '{public_dir}/a'", "a"),
        ("cp index.html \"{public_dir}/b\"", "b"),
        ("cp \"$(echo \"$(dirname {public_dir})/../../index.html\")\" {public_dir}/c", "c"),
        ("echo it\\'s \"it's\" '\"' >{public_dir}/d", "d"),
        ("sh -c 'cp index.html \"$0\"' {public_dir}/e", "e"),
        ("( cd {public_dir} && echo \"`pwd`/x\" >f )", "f"),
    ] {
        s.run(&["init-sync", "--build-command", build, "--repo", ours.to_str().unwrap()]).exits(0);
        assert_eq!(names_in(&odd), [name], "{build}");
    }
}

#[test]
fn the_repositorys_path_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let s = Scene::new();
    let ours = s.root().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::rename(s.ours(), &ours).unwrap();
    let mut tick = s.gitsync(&["tick", "--build-command", COPY, "--", "true"]);
    let out = tick.env("GIT_SYNC_REPO", &ours).env("GIT_SYNC_PUBLIC_DIR", s.public()).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(names_in(&s.public()), ["built", "index.html"]);
}

#[test]
fn a_public_dir_that_holds_anything_else_is_refused_before_anything_is_done() {
    let s = Scene::new();
    s.rival_pushes("index.html").env("GIT_SYNC_BUILD_COMMAND", COPY);
    let root = s.root().to_owned();
    write(&root.join("file"), "precious");
    std::os::unix::fs::symlink(root.join("home"), root.join("link")).unwrap();
    let before = s.our_tip();
    for (dir, says) in [
        ("/".into(), "folder of the system"),
        (root.join("home"), "home folder"),
        (s.ours(), "is the repository or holds it"),
        (root.clone(), "is the repository or holds it"),
        (root.join("link"), "symbolic link"),
        (root.join("file"), "can't be a folder"),
        (s.ours().join(".git/site"), "git folder"),
        (s.ours().join("state/site"), "which each tick commits"),
    ] {
        for pass in [&["init-sync"][..], &["sync"], &["tick", "--tick-command", "true"]] {
            let mut args = pass.to_vec();
            args.extend(["--public-dir", dir.to_str().unwrap()]);
            s.run(&args).exits(2).says("error").logs(says);
        }
        assert_eq!(s.our_tip(), before, "{}", dir.display());
    }
    assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "precious");
    assert!(root.join("home").is_dir() && !s.ours().join("state/site").exists());
}

mod over_somebodys_files {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const REMEDY: [&str; 2] = ["--replace-public-dir", "GIT_SYNC_REPLACE_PUBLIC_DIR"];
    const PASSES: [&[&str]; 3] = [&["init-sync"], &["sync"], &["tick", "--tick-command", "touch state/ran"]];

    fn dry<'a>(pass: &[&'a str]) -> Vec<&'a str> {
        [pass, &["--dry-run"]].concat()
    }

    #[track_caller]
    fn refused(s: &Scene) {
        s.exits(2).says("error").logs("gitsync did not fill it").logs(REMEDY[0]).logs(REMEDY[1]);
    }

    /// Each pass, and its dry run before it.
    #[track_caller]
    fn all_refuse(s: &Scene) {
        for pass in PASSES {
            s.run(&dry(pass));
            refused(s);
            s.run(pass);
            refused(s);
        }
    }

    fn site(s: &Scene, way: &str) {
        s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", COPY);
        s.env("GIT_SYNC_PUBLISH", way);
    }

    const WAYS: [&str; 3] = ["whole", "files", "in-place"];

    #[test]
    fn each_pass_refuses_before_anything_is_done_and_the_option_allows_it() {
        for way in WAYS {
            let s = Scene::new();
            site(&s, way);
            s.rival_pushes("index.html");
            write(&s.public().join("precious"), "precious");
            let before = (s.our_tip(), s.upstream_tip());
            all_refuse(&s);
            assert_eq!((s.our_tip(), s.upstream_tip()), before);
            assert!(!s.ours().join("state/ran").exists() && !s.private().join("site-stale").exists());
            assert_eq!(names_in(&s.public()), ["precious"]);
            s.env("GIT_SYNC_REPLACE_PUBLIC_DIR", "perhaps")
                .sync()
                .exits(2)
                .logs("GIT_SYNC_REPLACE_PUBLIC_DIR is 'perhaps'");
            s.env("GIT_SYNC_REPLACE_PUBLIC_DIR", "off").sync();
            refused(&s);
            s.env("GIT_SYNC_REPLACE_PUBLIC_DIR", "yes").sync().exits(0).says("behind");
            // From now on it is ours.
            s.env("GIT_SYNC_REPLACE_PUBLIC_DIR", "");
            for pass in PASSES {
                s.run(&dry(pass)).exits(0).run(pass).exits(0);
            }
            assert!(names_in(&s.public()).contains(&"index.html".to_owned()));
            assert_eq!(s.public().join("precious").exists(), way == "in-place", "{way}");
            let note = fs::metadata(s.private().join("site-ours")).unwrap();
            assert_eq!(note.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn no_repository_is_begun_for_it() {
        let s = Scene::without_ours();
        fs::create_dir(s.ours()).unwrap();
        write(&s.public().join("precious"), "precious");
        s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap())
            .arg("--remote-url")
            .arg(s.upstream().to_str().unwrap());
        for build in ["", COPY] {
            s.env("GIT_SYNC_BUILD_COMMAND", build);
            let empties = [&["init-sync"][..], &["init-sync", "--build-command", ""]];
            for pass in empties {
                s.run(&dry(pass));
                refused(&s);
                s.run(pass);
                refused(&s);
            }
        }
        assert!(!s.ours().join(".git").exists());
        assert_eq!(names_in(&s.public()), ["precious"]);
    }

    #[test]
    fn what_builds_nothing_and_empties_nothing_is_not_refused() {
        let s = Scene::new();
        write(&s.public().join("precious"), "precious");
        let public = s.public();
        let args = ["--public-dir", public.to_str().unwrap(), "--build-command", ""];
        s.run(&[&["sync"][..], &args].concat()).exits(0);
        s.run(&[&["init-sync"][..], &args].concat());
        refused(&s);
        assert_eq!(names_in(&public), ["precious"]);
        s.run(&[&["init-sync", "--replace-public-dir"][..], &args].concat()).exits(0);
        assert_eq!(names_in(&public), Vec::<String>::new());
        // What somebody adds to a site of ours goes, empty as it was.
        write(&public.join("added"), "added");
        s.run(&[&["init-sync"][..], &args].concat()).exits(0);
        assert_eq!(names_in(&public), Vec::<String>::new());
    }

    #[test]
    fn the_empty_root_of_a_file_system_is_empty() {
        let s = Scene::new();
        site(&s, "files");
        fs::create_dir_all(s.public().join("lost+found")).unwrap();
        s.run(&["init-sync", "--dry-run"]).exits(0).run(&["init-sync"]).exits(0);
        assert_eq!(page(&s), "page 2\n");
    }

    #[test]
    fn what_somebody_adds_to_our_own_site_goes_with_the_next_one() {
        for way in ["whole", "files"] {
            let s = Scene::new();
            site(&s, way);
            s.run(&["init-sync"]).exits(0);
            write(&s.public().join("added"), "added");
            s.rival_pushes("index.html").sync().exits(0).says("behind");
            assert_eq!(names_in(&s.public()), ["built", "index.html"], "{way}");
        }
    }

    #[test]
    fn another_folder_in_its_place_is_not_ours_and_a_copy_of_it_is() {
        for way in ["whole", "files"] {
            let s = Scene::new();
            site(&s, way);
            s.run(&["init-sync"]).exits(0);
            let kept = s.root().join("kept");
            fs::rename(s.public(), &kept).unwrap();
            write(&s.public().join("index.html"), "another's");
            write(&s.public().join("precious"), "precious");
            s.rival_pushes("index.html");
            all_refuse(&s);
            assert_eq!(names_in(&s.public()), ["index.html", "precious"]);
            // As a backup brings it back.
            fs::remove_dir_all(s.public()).unwrap();
            assert!(Command::new("cp").arg("-a").args([&kept, &s.public()]).status().unwrap().success());
            s.sync().exits(0).says("behind");
            assert_eq!(page(&s), "rival 2\n");
        }
    }

    #[test]
    fn another_repositorys_site_is_refused_and_so_is_that_of_one_made_anew() {
        let s = with_site(COPY);
        fs::remove_dir_all(s.ours().join(".git")).unwrap();
        fs::remove_file(s.ours().join("index.html")).unwrap();
        let up = built(&s);
        s.run(&["init-sync", "--remote-url", s.upstream().to_str().unwrap()]);
        refused(&s);
        assert_eq!(built(&s), up);
        s.run(&["init-sync", "--replace-public-dir", "--remote-url", s.upstream().to_str().unwrap()]).exits(0);
        s.run(&["init-sync"]).exits(0);
    }

    #[test]
    fn what_git_ignores_in_the_work_tree_is_somebodys_too() {
        let s = Scene::new();
        s.we_write(".git/info/exclude", "site/\n").we_write("site/precious", "precious\n");
        s.env("GIT_SYNC_PUBLIC_DIR", s.ours().join("site").to_str().unwrap()).env("GIT_SYNC_BUILD_COMMAND", COPY);
        s.rival_pushes("index.html");
        all_refuse(&s);
        s.our_file("site/precious", "precious\n");
        s.run(&["sync", "--replace-public-dir"]).exits(0).says("behind");
        assert_eq!(names_in(&s.ours().join("site")), ["built", "index.html"]);
        // What no commit has and git does not ignore is nobody's to replace.
        write(&s.ours().join("drafts/draft"), "draft\n");
        let drafts = s.ours().join("drafts");
        s.run(&["init-sync", "--replace-public-dir", "--public-dir", drafts.to_str().unwrap()]).exits(2);
        s.our_file("drafts/draft", "draft\n");
    }

    /// It noted nothing of a public dir outside the work tree.
    #[test]
    fn a_site_of_an_earlier_version_is_not_refused() {
        for pass in PASSES {
            let s = with_site(COPY);
            s.run(PASSES[1]).exits(0).run(PASSES[2]).exits(0);
            fs::remove_file(s.private().join("site-ours")).unwrap();
            let status = s.private().join("status.json");
            let text = fs::read_to_string(&status).unwrap();
            let old: Vec<&str> = text.lines().filter(|line| !line.contains("\"version\"")).collect();
            let old = old.join("\n").replace(",\n    }", "\n    }");
            assert!(serde_json::from_str::<serde_json::Value>(&old).is_ok(), "{old}");
            fs::write(&status, old).unwrap();
            // The first pass of this version may have nothing to publish.
            s.run(&dry(pass)).exits(0).run(pass).exits(0);
            s.rival_pushes("index.html");
            s.run(&dry(pass)).exits(0).run(pass).exits(0);
            assert_eq!(page(&s), "rival 3\n", "{pass:?}");
            fs::remove_file(s.private().join("site-ours")).unwrap();
            s.run(pass);
            refused(&s);
        }
    }

    #[test]
    fn the_container_clears_its_own_volume() {
        let image = include_str!("../Dockerfile");
        assert!(image.contains("GIT_SYNC_PUBLIC_DIR=/public \\\n    GIT_SYNC_REPLACE_PUBLIC_DIR=true"));
    }
}

#[test]
fn a_job_that_replaces_the_public_dir_by_a_link_reaches_nothing() {
    for way in ["whole", "files", "in-place"] {
        let s = with_site(COPY);
        write(&s.root().join("outside/precious"), "precious");
        s.arg("--publish").arg(way);
        s.tick_with("rm -r ../public && ln -s outside ../public").exits(1).says("no-changes");
        assert_eq!(names_in(&s.root().join("outside")), ["precious"], "{way}");
        // The next pass says what is wrong, and does the rest of its work once it is put right.
        s.sync().exits(2).logs("symbolic link");
        fs::remove_file(s.public()).unwrap();
        s.sync().exits(0);
        assert_eq!(page(&s), "page 2\n");
    }
}

#[test]
fn the_program_says_how_a_site_is_published() {
    let out = Command::new(env!("CARGO_BIN_EXE_gitsync")).args(["sync", "--help"]).output().unwrap();
    let help = String::from_utf8(out.stdout).unwrap();
    for word in ["whole", "files", "in-place", "GIT_SYNC_PUBLISH"] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn a_public_dir_in_the_work_tree_never_costs_somebody_a_file() {
    let s = Scene::new();
    let docs = s.ours().join("docs");
    write(&docs.join("draft.md"), "a draft\n");
    let tick = |s: &Scene| {
        let build = "echo x > {public_dir}/i";
        s.run(&["tick", "--public-dir", docs.to_str().unwrap(), "--build-command", build, "--", "true"]);
    };
    tick(&s);
    s.exits(2).logs("docs/draft.md").our_file("docs/draft.md", "a draft\n");
    fs::remove_file(docs.join("draft.md")).unwrap();
    for _ in 0..3 {
        tick(&s);
        s.exits(0).our_file("docs/i", "x\n");
    }
    // What is tracked is never part of a site, whoever published there before.
    s.we_write("docs/kept", "tracked\n").git_ours(&["add", "docs/kept"]);
    tick(&s);
    s.exits(2).logs("docs/kept").our_file("docs/kept", "tracked\n");
    // That we publish to one folder says nothing of another.
    let other = s.ours().join("other");
    write(&other.join("draft.md"), "a draft\n");
    s.run(&[
        "tick",
        "--public-dir",
        other.to_str().unwrap(),
        "--build-command",
        "echo x > {public_dir}/i",
        "--",
        "true",
    ]);
    s.exits(2).logs("other/draft.md").our_file("other/draft.md", "a draft\n");
}

#[test]
fn a_secret_is_not_parted_by_the_cutting_of_a_long_line() {
    let s = Scene::new();
    let token = "CANARYqwertyuiop0123456789ASDFGHJKLzxcv";
    s.env("GITHUB_TOKEN", token);
    for before in [8150, 8160, 8170, 8180, 8191, 7000] {
        let script =
            format!("head -c {before} /dev/zero | tr '\\0' a; printf %s%s $GITHUB_TOKEN bbbb; echo $GITHUB_TOKEN");
        s.tick_with(&script).exits(0);
        let said = s.last().stderr;
        for part in ["CANARYq", "uiop01", "6789AS", "KLzxcv"] {
            assert!(!said.contains(part), "{before}: {part}");
        }
        assert!(said.contains("***bbbb***"), "{before}: {}", &said[said.len().saturating_sub(500)..]);
    }
}

#[test]
fn a_link_with_a_slash_behind_it_is_no_public_dir_either() {
    let s = Scene::new();
    fs::create_dir(s.root().join("real")).unwrap();
    std::os::unix::fs::symlink(s.root().join("real"), s.public()).unwrap();
    let with_slash = format!("{}/", s.public().display());
    s.run(&["sync", "--public-dir", &with_slash, "--build-command", "true"]).exits(2).says("error");
}

/// A pass under strace, which makes one system call fail.
fn sync_without(s: &Scene, call: &str, error: &str) {
    sync_under_strace(
        s,
        &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={call}:error={error}")],
    );
}

fn sync_under_strace(s: &Scene, options: &[&str]) {
    let plain = s.gitsync(&["sync"]);
    let mut strace = s.isolated("strace");
    strace.args(["-f", "-qq"]).args(options).arg("--").arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    s.run_this(strace);
}

#[needs(strace)]
#[test]
fn a_kernel_that_cannot_open_a_folder_beneath_another_publishes_too() {
    for error in ["ENOSYS", "EPERM"] {
        let s = with_site("mkdir {public_dir}/sub; cp index.html {public_dir}/; cp index.html {public_dir}/sub/");
        s.rival_pushes("index.html");
        sync_without(&s, "openat2", error);
        s.exits(0).says("behind");
        assert_eq!(page(&s), "rival 2\n");
        assert_eq!(names_in(&s.public()), ["index.html", "sub"]);
    }
}

/// An exchange that is not possible here is gone around; one that failed is not.
#[needs(strace)]
#[test]
fn an_exchange_that_fails_is_an_error_and_the_old_site_stays() {
    let s = with_site(COPY);
    s.rival_pushes("index.html");
    sync_without(&s, "renameat2", "EIO");
    s.exits(1).says("behind").logs("exchange in the public dir");
    assert_eq!(page(&s), "page 2\n");
    s.sync().exits(0);
    assert_eq!(page(&s), "rival 2\n");
    s.rival_pushes("index.html");
    sync_without(&s, "renameat2", "EINVAL");
    s.exits(0).says("behind");
    assert_eq!(page(&s), "rival 3\n");
}

/// After a power loss a page has its name only if it has its bytes.
#[needs(strace)]
#[test]
fn file_by_file_all_pages_are_on_disk_before_one_gets_its_name() {
    let s = with_site("for page in 1 2 3; do cp index.html {public_dir}/$page.html; done");
    s.env("GIT_SYNC_PUBLISH", "files").rival_pushes("index.html");
    let trace = s.root().join("trace");
    sync_under_strace(&s, &["-o", trace.to_str().unwrap(), "-e", "trace=renameat,renameat2,syncfs,fsync"]);
    s.exits(0).says("behind");
    let calls = fs::read_to_string(trace).unwrap();
    let at = |call: &str, part: &str| calls.lines().position(|line| line.contains(call) && line.contains(part));
    let (brought, named) = (at("renameat", "\"3.html\", "), at("renameat", "\"1\", "));
    let synced =
        calls.lines().skip(brought.unwrap()).position(|line| line.contains("syncfs(")).unwrap() + brought.unwrap();
    assert!(synced < named.unwrap(), "{calls}");
}
