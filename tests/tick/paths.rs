//! `--path` as git's pathspecs: the files that a tick commits against those that git itself would take.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use gitsync::git::pathspec::{Matcher, Pathspec};

use needs::needs;

use super::changed;
use super::scene::{Scene, write};

const FILES: [&str; 22] = [
    "top.json",
    "[s]",
    "s",
    "a/x.json",
    "a/bx",
    "a/b/x.json",
    "a/b/c/x.json",
    "a/b/c/y.log",
    "a-x/b",
    "State/A.json",
    "state/new.json",
    "state/x.log",
    "state/sub/b.json",
    "state/sub/deep/c.json",
    "state.json",
    "st*/f",
    "stx/f",
    "!bang",
    "#hash",
    "with blank",
    "with blank/f",
    ":colon",
];

/// The files that git would take into a commit, of those that are changed, gone or new.
fn git_takes(s: &Scene, specs: &[&str]) -> BTreeSet<String> {
    let mut args = vec!["ls-files", "-z", "-o", "-m", "-d", "--exclude-standard", "--"];
    args.extend(specs);
    s.git_ours(&args).split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

fn tick_with_paths(s: &Scene, specs: &[&str]) {
    let mut args = vec!["tick"];
    specs.iter().for_each(|spec| args.extend(["--path", spec]));
    args.extend(["--", "true"]);
    s.run(&args);
}

/// Files of every kind below our clone, some tracked and changed, one gone, most new.
fn many_files() -> Scene {
    let s = Scene::without_ours();
    s.rival_writes("State/A.json", "1\n").rival_writes("a/b/x.json", "1\n").rival_writes("state/gone.json", "1\n");
    s.rival_writes(".gitignore", "*.tmp\n").rival_commits("more");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync();
    for file in FILES.iter().filter(|file| **file != "with blank") {
        s.we_write(file, "2\n");
    }
    s.we_write("state/a", "2\n").we_write("state/ignored.tmp", "2\n");
    std::fs::remove_file(s.ours().join("state/gone.json")).unwrap();
    std::fs::remove_file(s.ours().join("gone.txt")).unwrap();
    s
}

#[test]
fn a_tick_commits_what_git_would_and_a_dry_run_says_so() {
    let s = many_files();
    let base = s.our_tip();
    let sets: &[&[&str]] = &[
        &["*.json"],
        &["st*"],
        &["[s]"],
        &["s"],
        &["state/*.json"],
        &["state/s?b"],
        &["gone.*"],
        &[":(glob)*.json"],
        &[":(glob)a/*"],
        &[":(glob)a/**/x.json"],
        &[":(glob)**/x.json"],
        &[":(glob)state/**"],
        &["state", ":!*.log"],
        &["state", ":(exclude)state/sub"],
        &[".", ":^state", ":!a"],
        &[":!state"],
        &[":/", ":!/a"],
        &[":(icase)STATE"],
        &[":(icase,glob)STATE/*.JSON"],
        &[":(icase)sTaTe/A.jSON"],
        &[".", ":(exclude,icase)STATE"],
        &[":(literal)st*"],
        &[":(literal)[s]"],
        &[":(top)a/b"],
        &[":(top,glob)a/b*"],
        &[":"],
        &[":::colon"],
        &["\\st*"],
        &["with blank", "!bang", "#hash"],
        &["with*"],
        &["a/", "top.json/"],
        &["state/sub", "state"],
        &["./a//b/."],
    ];
    for specs in sets {
        let expected = git_takes(&s, specs);
        let mut args = vec!["tick", "--dry-run", "--output", "json"];
        specs.iter().for_each(|spec| args.extend(["--path", spec]));
        s.run(&[&args[..], &["--", "true"]].concat()).exits(0);
        let plan = s.json()["plan"].to_string();
        let count = format!("commit {} files that an earlier job has left", expected.len());
        assert!(expected.is_empty() || plan.contains(&count), "{specs:?}: {expected:?}\n{}", s.last());
        assert!(!expected.is_empty() || plan.contains("nothing is changed"), "{specs:?}\n{}", s.last());
        tick_with_paths(&s, specs);
        s.exits(0);
        let taken: BTreeSet<String> = if s.our_tip() == base {
            BTreeSet::new()
        } else {
            s.git_ours(&["diff-tree", "-r", "-z", "--no-commit-id", "--name-only", "HEAD"])
                .split_terminator('\0')
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(taken, expected, "{specs:?}\n{}", s.last());
        s.git_ours(&["reset", "-q", &base]);
        s.git_ours(&["push", "-q", "-f", "origin", "HEAD:main"]);
    }
}

/// A generator that needs no seed from outside: the same patterns in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn of<'t, T: ?Sized>(&mut self, all: &[&'t T]) -> &'t T {
        all[usize::try_from(self.next()).unwrap() % all.len()]
    }
}

#[test]
fn random_pathspecs_match_what_git_matches() {
    let s = many_files();
    let parts = [
        "a",
        "b",
        "state",
        "st",
        "x",
        ".json",
        "/",
        "/",
        "*",
        "?",
        "[ab]",
        "[!a]",
        "[[:alpha:]]",
        "\\",
        "\\*",
        "sub",
        "with",
        " ",
        "**/",
        "/**",
        "c",
        "A",
        "S",
        "!",
        "#",
        ":",
        ".log",
        "[s]",
        "*/",
        "s",
    ];
    let magic = ["", "", "", "", ":(glob)", ":(glob)", ":(icase)", ":(icase,glob)", ":(literal)", ":/", ":(top,icase)"];
    let files: Vec<String> = git_takes(&s, &["."]).into_iter().collect();
    let (mut dice, mut tried, mut matched) = (Dice(11), 0, 0);
    while tried < 300 {
        let one = |dice: &mut Dice| {
            let text = if dice.of(&[&true, &true, &false]) == &true {
                // A name that is there, with some of its letters made something else.
                let name = &files[usize::try_from(dice.next()).unwrap() % files.len()];
                let letter = |c: char, dice: &mut Dice| match dice
                    .of(&["", "", "", "", "", "", "", "?", "*", "[]", "\\", "a"])
                {
                    "" => c.to_string(),
                    "[]" if c != '/' => format!("[{c}x]"),
                    "\\" => format!("\\{c}"),
                    "a" => c.to_ascii_uppercase().to_string(),
                    other => other.to_owned(),
                };
                name.chars().map(|c| letter(c, dice)).collect()
            } else {
                let count = dice.next() % 5 + 1;
                (0..count).map(|_| dice.of(&parts)).collect::<String>()
            };
            format!("{}{text}", dice.of(&magic))
        };
        let mut specs = vec![one(&mut dice)];
        if dice.of(&["plain", "plain", "exclude"]) == "exclude" {
            specs.push(one(&mut dice));
            let excluded = if dice.of(&["!", "word"]) == "!" { ":!" } else { ":(exclude)" };
            let pattern = one(&mut dice).rsplit(')').next().unwrap().trim_start_matches([':', '/', '!']).to_owned();
            specs.push(format!("{excluded}{pattern}"));
        }
        let Ok(parsed) = specs.iter().map(|spec| Pathspec::parse(OsStr::new(spec))).collect::<Result<Vec<_>, _>>()
        else {
            continue;
        };
        let texts: Vec<&str> = specs.iter().map(String::as_str).collect();
        let matcher = Matcher::new(&parsed).unwrap();
        let ours: BTreeSet<String> = files.iter().filter(|file| matcher.matches(Path::new(file))).cloned().collect();
        assert_eq!(ours, git_takes(&s, &texts), "{specs:?}");
        tried += 1;
        matched += usize::from(!ours.is_empty());
    }
    assert!(matched > 100, "{matched} of {tried} matched anything");
}

#[test]
fn nothing_leaves_the_work_tree_and_unknown_magic_is_named() {
    let s = Scene::new();
    for (bad, why) in [
        (":/../x", "without '..'"),
        (":(top)/etc/*", "without '..'"),
        (":!../x", "without '..'"),
        (":(icase).GIT/config", "outside '.git'"),
        (":(glob)**/.git/**", "outside '.git'"),
        ("a/*/../../..", "without '..'"),
        (":(literal)/etc", "without '..'"),
        (":(attr:binary)state", "'attr:binary'"),
        (":(prefix:1)state", "'prefix:1'"),
        (":(glob,literal)a", "contradict"),
        (":(glob", "no ')'"),
        (":-a", "'-'"),
        (":(glob)a**b/*", "'**'"),
    ] {
        s.run(&["tick", "--path", bad, "--", "touch", "state/ran"]).exits(2).says("error").logs("--path").logs(why);
        s.env("GIT_SYNC_PATHS", bad).tick().exits(2).logs("GIT_SYNC_PATHS").logs(why).env("GIT_SYNC_PATHS", "");
    }
    assert!(!s.ours().join("state/ran").exists());
    // Through a link nothing is taken, whatever the pattern.
    write(&s.root().join("outside/secret.json"), "not ours\n");
    std::os::unix::fs::symlink(s.root().join("outside"), s.ours().join("link")).unwrap();
    for spec in ["*.json", "link/*.json", ":(icase)LINK/secret.json", ":(glob)**/*.json"] {
        tick_with_paths(&s, &[spec]);
        assert!(!s.git_ours(&["ls-files"]).contains("secret"), "{spec}\n{}", s.last());
    }
}

#[test]
fn a_pattern_takes_nothing_else_that_is_staged_or_dirty() {
    let s = many_files();
    s.git_ours(&["add", "top.json", "a"]);
    s.git_ours(&["rm", "-q", "--cached", "index.html"]);
    tick_with_paths(&s, &["state/*", ":!*.log"]);
    s.exits(0).says("pushed").fsck();
    assert_eq!(
        changed(&s, "HEAD"),
        ["state/a", "state/gone.json", "state/new.json", "state/sub/b.json", "state/sub/deep/c.json"]
    );
    let staged = s.git_ours(&["diff", "--cached", "--name-only"]);
    assert_eq!(
        staged.lines().collect::<Vec<_>>(),
        ["a/b/c/x.json", "a/b/c/y.log", "a/b/x.json", "a/bx", "a/x.json", "index.html", "top.json"]
    );
}

#[test]
fn what_is_excluded_is_no_error_whatever_it_is() {
    let s = Scene::new();
    let job = "mkfifo state/pipe; git init -q state/own; echo 1 >state/own/f; head -c 2000 /dev/zero >state/big; echo 2 >state/b";
    let limit = ["tick", "--max-file-size", "1KB"];
    let paths = ["--path", "state", "--path", ":!state/pipe", "--path", ":!state/own", "--path", ":!*big"];
    s.run(&[&limit[..], &paths[..], &["--", "sh", "-c", job]].concat()).exits(0).says("pushed");
    assert_eq!(changed(&s, "HEAD"), ["state/b"]);
    s.run(&[&limit[..], &["--path", "st*", "--", "true"]].concat())
        .exits(1)
        .logs("state/pipe")
        .logs("state/own")
        .logs("state/big");
}

#[needs(strace)]
#[test]
fn a_look_at_a_pattern_goes_into_no_other_folder() {
    let s = Scene::new();
    for folder in ["other", "STATELY", "zz"] {
        write(&s.ours().join(folder).join("f"), "1\n");
    }
    let opened = |specs: &[&str]| {
        let log = s.root().join("trace");
        let mut command = s.isolated("strace");
        command
            .args(["-f", "-qq", "-e", "trace=openat", "-o"])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_gitsync"))
            .arg("tick");
        for spec in specs {
            command.args(["--path", spec]);
        }
        command.arg("--repo").arg(s.ours()).args(["--", "sh", "-c", "date +%N >state/a; date +%N >state/a.json"]);
        s.run_this(command).exits(0).says("pushed");
        std::fs::read_to_string(log).unwrap()
    };
    for specs in [&["sta*"][..], &["state/*.json"], &[":(icase)State/A"], &[":(icase,glob)STATE/**"]] {
        let calls = opened(specs);
        // Not as a part of a random name.
        let in_it = |call: &str| call.split(['"', '/']).any(|name| ["other", "zz"].contains(&name));
        let wrong: Vec<&str> = calls.lines().filter(|call| in_it(call)).collect();
        assert!(wrong.is_empty(), "{specs:?}: {wrong:?}");
    }
}

/// The log lines of warnings.
fn warnings(s: &Scene) -> Vec<String> {
    s.last().stderr.lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect()
}

#[test]
fn a_tick_that_commits_nothing_names_what_the_job_wrote_elsewhere() {
    let s = Scene::without_ours();
    s.rival_writes(".gitignore", "*.tmp\n").rival_writes("old/f", "1\n").rival_commits("ignores");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync();
    // A person's own, from before the job: none of its business.
    s.we_write("mine.txt", "mine\n").we_write("heap/was-there", "1\n");
    s.tick_with("mkdir out; for n in $(seq 8); do echo $n >out/$n.json; done; echo 2 >index.html; rm gone.txt; rm -r old; echo x >heap/new; echo t >heap/x.tmp; touch index.html");
    s.exits(0).says("no-changes");
    let said = warnings(&s);
    assert_eq!(said.len(), 1, "{}", s.last());
    for part in [
        "gone.txt",
        "heap/new",
        "index.html",
        "old/f",
        "out/1.json",
        "out/6.json and 2 more",
        "--path",
        "GIT_SYNC_PATHS",
    ] {
        assert!(said[0].contains(part), "{part}: {}", said[0]);
    }
    for part in ["mine.txt", "was-there", "x.tmp", "out/7.json"] {
        assert!(!said[0].contains(part), "{part}: {}", said[0]);
    }
    // What lies there from before is not named again; what is written again in place is.
    s.tick_with("echo 9 >out/3.json").exits(0).says("no-changes");
    assert!(warnings(&s)[0].contains("out/3.json") && !warnings(&s)[0].contains("gone.txt"), "{}", s.last());
    s.tick().exits(0).says("no-changes");
    assert!(warnings(&s).is_empty(), "{}", s.last());
    // With something to commit there is no such warning, and none for what only looks like a change.
    s.tick_with("echo 1 >state/b; echo 10 >out/3.json").exits(0).says("pushed");
    s.git_ours(&["checkout", "-q", "index.html", "gone.txt", "old"]);
    s.tick_with("cp index.html x; cat x >index.html; rm x").exits(0).says("no-changes");
    assert!(warnings(&s).is_empty(), "{}", s.last());
}

#[test]
fn neither_the_site_nor_a_follow_is_taken_for_the_jobs_work() {
    let s = Scene::new();
    s.env("GIT_SYNC_PUBLIC_DIR", s.ours().join("site").to_str().unwrap());
    s.env("GIT_SYNC_BUILD_COMMAND", "echo page >{public_dir}/index.html; echo 1 >cache");
    s.rival_pushes("news.txt").tick_with("echo own >site-notes").exits(0).says("no-changes");
    let said = warnings(&s);
    assert!(said.len() == 1 && said[0].contains(": site-notes"), "{}", s.last());
    assert!(
        !said[0].contains("news.txt") && !said[0].contains("index.html") && !said[0].contains("cache"),
        "{}",
        said[0]
    );
}

/// In a large tree the folders are looked at, and not each file.
#[test]
fn in_a_large_tree_what_the_job_added_and_removed_is_named() {
    let s = Scene::without_ours();
    for n in 0..5_100 {
        s.rival_writes(&format!("d{}/f{n}", n % 50), "1\n");
    }
    s.rival_commits("many");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync();
    s.tick_with("echo 1 >d7/new; rm d8/f8; mkdir -p out/deep; echo 1 >out/deep/f").exits(0).says("no-changes");
    let said = warnings(&s);
    assert!(said.len() == 1 && said[0].contains(": d7/new, d8/f8, out/deep/f"), "{}", s.last());
    s.tick().exits(0).says("no-changes");
    assert!(warnings(&s).is_empty(), "{}", s.last());
}

#[test]
fn a_path_that_names_nothing_is_said() {
    let s = Scene::new();
    let said = |paths: &[&str]| {
        tick_with_paths(&s, paths);
        s.exits(0).says("no-changes");
        warnings(&s)
    };
    assert!(said(&["state"]).is_empty() && said(&["st*", ":!none"]).is_empty(), "{}", s.last());
    for wrong in ["stat", "*.jsn", ":(icase)STAT", ":(glob)*/b/*", "index.html/"] {
        let lines = said(&["state", wrong]);
        assert!(lines.len() == 1 && lines[0].contains(&format!("'{wrong}' matches no file")), "{}", s.last());
    }
    // A repository's own `.git` is not what git ignores of it.
    let empty = Scene::empty_upstream();
    empty.init_sync();
    tick_with_paths(&empty, &["."]);
    assert!(warnings(&empty).is_empty(), "{}", empty.last());
    // An empty folder is ready for what is to come, and nothing is said of it.
    std::fs::create_dir(s.ours().join("soon")).unwrap();
    assert!(said(&["soon"]).is_empty(), "{}", s.last());
    let lines = said(&["state,audit"]);
    assert!(lines.len() == 1 && lines[0].contains("GIT_SYNC_PATHS is separated by blanks"), "{}", s.last());
    s.env("GIT_SYNC_PATHS", "state,audit").tick().exits(0).logs("separated by blanks").env("GIT_SYNC_PATHS", "");
    // A dry run says the same.
    s.run(&["tick", "--dry-run", "--path", "stat"]).exits(0).logs("'stat' matches no file");
}

#[test]
fn of_the_default_paths_nothing_is_said_but_where_neither_is_there() {
    let s = Scene::new();
    s.tick().exits(0).says("no-changes");
    assert!(warnings(&s).is_empty(), "{}", s.last());
    s.git_ours(&["mv", "state", "other"]);
    s.git_ours(&["commit", "-qm", "no state"]);
    s.git_ours(&["push", "-q", "origin", "main"]);
    s.tick().exits(0).says("no-changes").logs("neither state/ nor audit/");
    assert_eq!(warnings(&s).len(), 1, "{}", s.last());
    // One warning, not two, where the job wrote elsewhere.
    s.tick_with("echo 2 >other/a").exits(0).says("no-changes").logs("other/a").logs_not("neither");
    assert_eq!(warnings(&s).len(), 1, "{}", s.last());
}

#[test]
fn a_path_that_git_ignores_is_said_with_the_remedy() {
    let s = Scene::without_ours();
    s.rival_writes(".gitignore", "/data/\nout.json\n/half/*.log\n")
        .rival_writes("half/kept", "1\n")
        .rival_commits("ignores");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync();
    let job = "mkdir -p data all; echo 1 >data/f; echo 1 >out.json; echo 1 >half/x.log; echo '*' >all/.gitignore; date >all/f";
    for (path, named) in [("data", "data/f"), ("out.json", "out.json"), ("all", "all/")] {
        s.run(&["tick", "--path", path, "--", "sh", "-c", job]).exits(0).says("no-changes");
        s.logs(&format!("nothing of --path '{path}' is committed: git ignores {named}"))
            .logs("git check-ignore -v")
            .logs("git add -f");
    }
    // Where something of it can be committed, what is ignored there is meant.
    s.run(&["tick", "--path", "half", "--", "sh", "-c", job]).exits(0).says("no-changes").logs_not("ignores");
}

#[test]
fn a_public_dir_that_no_path_commits_may_lie_among_them() {
    let s = Scene::new();
    let site = |s: &Scene, paths: &[&str]| {
        s.env("GIT_SYNC_PUBLIC_DIR", s.ours().join("site").to_str().unwrap());
        s.env("GIT_SYNC_BUILD_COMMAND", "echo page >{public_dir}/index.html");
        tick_with_paths(s, paths);
    };
    site(&s, &["."]);
    s.exits(2).logs("which each tick commits");
    site(&s, &["s*"]);
    s.exits(2).logs("which each tick commits");
    site(&s, &["st*"]);
    s.exits(0);
    site(&s, &[".", ":!site"]);
    s.exits(0).says("no-changes");
    // By a link into what is committed it would be committed all the same.
    std::os::unix::fs::symlink("state", s.ours().join("way")).unwrap();
    s.env("GIT_SYNC_PUBLIC_DIR", s.ours().join("way/site").to_str().unwrap());
    tick_with_paths(&s, &["state", ":!way"]);
    s.exits(2).logs("which each tick commits");
}

#[test]
fn a_link_where_a_folder_is_named_is_said() {
    let s = Scene::new();
    std::os::unix::fs::symlink("../out", s.rival().join("linked")).unwrap();
    s.rival_commits("a link").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    std::fs::create_dir(s.root().join("out")).unwrap();
    s.arg("--path")
        .arg("linked/")
        .tick_with("echo 1 > linked/a")
        .exits(1)
        .logs("linked was left out")
        .logs("symbolic link");
}
