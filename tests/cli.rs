//! The command line: help, usage errors, and what comes out where.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use scene::Scene;
use serde_json::Value;

const KEYS: [&str; 18] = [
    "command",
    "result",
    "exit_code",
    "state",
    "local_before",
    "local",
    "remote",
    "ahead",
    "behind",
    "commit",
    "pushed",
    "forced",
    "rescue_refs",
    "site_built",
    "job_exit_code",
    "started",
    "duration_ms",
    "error",
];

/// The last run's object has every key, says what the exit code was, and is one line.
#[track_caller]
fn object(s: &Scene) -> Value {
    let (json, last) = (s.json(), s.last());
    for key in KEYS {
        assert!(json.get(key).is_some(), "no {key}\n{last}");
    }
    assert_eq!(json["exit_code"], last.code.unwrap(), "{last}");
    assert_eq!(json["error"].is_null(), last.code == Some(0), "{last}");
    assert_eq!(last.stdout.matches('\n').count(), 1, "{last}");
    assert!(json["rescue_refs"].is_array() && json["pushed"].is_boolean() && json["forced"].is_boolean(), "{last}");
    assert!(chrono::DateTime::parse_from_rfc3339(json["started"].as_str().unwrap()).is_ok(), "{last}");
    assert!(json["duration_ms"].is_u64(), "{last}");
    json
}

mod help {
    use super::*;

    fn help(args: &[&str]) -> String {
        let s = Scene::empty_upstream();
        s.run(args).exits(0);
        assert_eq!(s.last().stderr, "");
        s.last().stdout
    }

    #[track_caller]
    fn explains(text: &str, words: &[&str]) {
        for word in words {
            assert!(text.contains(word), "not explained: {word}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    const EVERYWHERE: [&str; 5] = ["Exit codes:", "  75 ", "128+N", "Example", "--repo"];

    #[test]
    fn of_the_program() {
        let text = help(&["--help"]);
        explains(&text, &["init-sync", "sync", "tick", "Exit codes:", "75", "--alpha", "--path", "GIT_SYNC_ALPHA"]);
    }

    #[test]
    fn of_init_sync() {
        let text = help(&["init-sync", "--help"]);
        explains(&text, &EVERYWHERE);
        explains(&text, &["cloned", "reset", "up-to-date", "empty-remote", "offline", "error"]);
        explains(&text, &["--remote-url", "GIT_SYNC_REMOTE_URL", "GITHUB_REPOSITORY", "heal", "in either mode"]);
    }

    #[test]
    fn of_sync() {
        let text = help(&["sync", "--help"]);
        explains(&text, &EVERYWHERE);
        explains(&text, &["up-to-date", "behind", "ahead", "diverged", "skipped", "error", "refs/gitsync/rescue/"]);
    }

    #[test]
    fn of_tick() {
        let text = help(&["tick", "--help"]);
        explains(&text, &EVERYWHERE);
        explains(&text, &["no-changes", "pushed", "push-failed", "skipped", "error", "--tick-command", "[COMMAND]"]);
        explains(&text, &["GIT_SYNC_PATHS", "python -m src.main tick", "{time}"]);
    }

    #[test]
    fn says_no_secret_of_the_environment() {
        let s = Scene::empty_upstream();
        s.env("GIT_SYNC_REMOTE_URL", "https://x:s3cret@example.org/y").run(&["init-sync", "--help"]).exits(0);
        assert!(!s.last().stdout.contains("s3cret"), "{}", s.last());
    }

    /// The flags that a page lists: `  -v, --verbose...`, `      --repo <PATH>`; what is deeper is text.
    fn flags(text: &str) -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("      --").or(line.split(", --").nth(1)));
        lines.filter_map(|line| line.split([' ', '.']).next()).map(|name| format!("--{name}")).collect()
    }

    #[test]
    fn lists_what_means_something_to_the_subcommand_and_nothing_else() {
        let everywhere = "--repo --remote --branch --alpha --lock-wait --network-timeout --build-timeout --output \
                          --log-format --verbose --quiet --help";
        let passes = "--create-branch --token-file --token-host --allow-insecure-http --ssh-key-file --ssh-known-hosts-file --public-dir --replace-public-dir --build-command --publish --dry-run --metrics-file";
        for (subcommand, own) in [
            ("init-sync", format!("{passes} --remote-url --depth --keep-rescues")),
            ("sync", format!("{passes} --on-divergence")),
            (
                "tick",
                format!(
                    "{passes} --on-divergence --keep-rescues --tick-command --path --message --max-file-size --job-timeout"
                ),
            ),
            ("status", "--max-age --of --job-timeout".to_owned()),
        ] {
            let mut wanted: Vec<&str> = everywhere.split_whitespace().chain(own.split_whitespace()).collect();
            let mut listed = flags(&help(&[subcommand, "--help"]));
            listed.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(listed, wanted, "{subcommand}");
            let short = flags(&help(&[subcommand, "-h"]));
            assert!(short.iter().all(|flag| wanted.contains(&flag.as_str())), "{subcommand}: {short:?}");
        }
        let text = help(&["--help"]);
        let all = flags(&text);
        assert!(
            ["--remote-url", "--path", "--of", "--repo"].iter().all(|flag| all.iter().any(|one| one == flag)),
            "{text}"
        );
        explains(&text, &["[init-sync]", "[tick]", "[status]", "[init-sync, sync, tick]"]);
    }

    #[test]
    fn the_short_one_fits_a_screen() {
        for args in [&["-h"][..], &["init-sync", "-h"], &["sync", "-h"], &["tick", "-h"], &["status", "-h"]] {
            let s = Scene::empty_upstream();
            s.env("COLUMNS", "80").run(args).exits(0);
            let text = s.last().stdout;
            assert!((20..=40).contains(&text.lines().count()), "{}", s.last());
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains("--help"), "where the rest is: {text}");
        }
    }

    #[test]
    fn names_every_variable_whatever_it_is_set_to() {
        let s = Scene::empty_upstream();
        for (name, value) in [("GIT_SYNC_BRANCH", ""), ("GIT_SYNC_LOCK_WAIT", "soon"), ("GIT_SYNC_ALPHA", "maybe")] {
            s.env(name, value);
        }
        for args in [&["sync", "--help"][..], &["--help"]] {
            s.run(args).exits(0);
            explains(&s.last().stdout, &["GIT_SYNC_BRANCH]", "GIT_SYNC_LOCK_WAIT]", "GIT_SYNC_ALPHA]"]);
        }
    }

    #[test]
    fn is_had_by_either_word_and_from_either_side() {
        let text = help(&["tick", "--help"]);
        for args in [&["help", "tick"][..], &["--help", "tick"], &["--alpha", "help", "tick"]] {
            assert_eq!(help(args), text, "{args:?}");
        }
        assert_eq!(help(&["help"]), help(&["--help"]));
        assert_eq!(help(&["-h", "tick"]), help(&["tick", "-h"]));
    }

    #[test]
    fn the_version() {
        assert_eq!(help(&["--version"]), format!("gitsync {}\n", env!("CARGO_PKG_VERSION")));
    }
}

mod usage {
    use super::*;

    #[track_caller]
    fn refused(s: &Scene, args: &[&str], why: &str) {
        s.run(args).exits(2).says("error").logs(why).logs_not("panicked");
        let mut with_json = vec![args[0], "--output", "json"];
        with_json.extend(&args[1..]);
        s.run(&with_json).exits(2);
        let json = object(s);
        assert_eq!(json["result"], "error");
        assert!(json["error"].as_str().unwrap().contains(why), "{json}");
    }

    #[test]
    fn an_unknown_flag() {
        refused(&Scene::new(), &["sync", "--alhpa"], "--alhpa");
    }

    #[test]
    fn a_token_where_no_argument_belongs_is_not_repeated() {
        let s = Scene::new();
        s.env("GIT_SYNC_TOKEN", "CANARY-of-the-environment");
        for args in [
            ["init-sync", "https://robot:s3cr3t-CANARY@git.example/state.git"],
            ["sync", "--branch=https://robot:s3cr3t-CANARY@git.example/state.git"],
            ["sync", "CANARY-of-the-environment"],
        ] {
            refused(&s, &args, "***");
            s.logs_not("CANARY");
            assert!(!s.last().stdout.contains("CANARY"), "{}", s.last());
        }
    }

    #[test]
    fn an_unknown_subcommand_and_none() {
        let s = Scene::new();
        s.run(&["synch"]).exits(2).says("error").logs("synch");
        s.run::<&str>(&[]).exits(2).says("error").logs("Usage");
    }

    #[test]
    fn nothing_at_all_gets_a_short_page() {
        let s = Scene::new();
        // Whatever the environment says: nothing was asked of it.
        s.env("GIT_SYNC_BRANCH", "main").env("GIT_SYNC_LOCK_WAIT", "soon");
        s.run::<&str>(&[]).exits(2).says("error");
        let page = s.last().stderr;
        assert!(page.lines().count() <= 40, "{page}");
        for word in ["Usage: gitsync <SUBCOMMAND>", "in sync, unattended", "Examples:", "Read on:", "gitsync --help"] {
            assert!(page.contains(word), "no {word}\n{page}");
        }
        for subcommand in ["init-sync", "sync", "tick", "status"] {
            let line = format!("\n  {subcommand:<9}  ");
            assert_eq!(page.matches(&line).count(), 1, "{subcommand} has its line\n{page}");
        }
        let examples = page.split("Examples:").nth(1).unwrap().split("\n\n").next().unwrap();
        assert_eq!(examples.matches("\n  gitsync ").count(), 3, "{page}");
        // Asked for, it is a result.
        s.run(&["-h"]).exits(0);
        assert_eq!((s.last().stdout, s.last().stderr.as_str()), (page, ""));
        s.env("GIT_SYNC_OUTPUT", "json").run::<&str>(&[]).exits(2);
        assert_eq!(object(&s)["result"], "error");
        s.run(&["--branch", "sync"]).exits(2).logs("subcommand");
    }

    #[test]
    fn a_flag_of_another_subcommand() {
        let s = Scene::new();
        for (args, owner) in [
            (&["sync", "--remote-url", "x"][..], "`gitsync init-sync`"),
            (&["sync", "--path=x"], "`gitsync tick`"),
            (&["init-sync", "--message", "m"], "`gitsync tick`"),
            (&["init-sync", "--on-divergence", "rebase"], "`gitsync sync` and `gitsync tick`"),
            (&["sync", "--keep-rescues", "1d"], "`gitsync init-sync` and `gitsync tick`"),
            (&["sync", "--job-timeout", "1m"], "`gitsync tick` and `gitsync status`"),
            (&["tick", "--max-age", "2m"], "`gitsync status`"),
            (&["status", "--dry-run"], "`gitsync init-sync` and `gitsync sync` and `gitsync tick`"),
            // Where it stands and what its value is does not matter.
            (&["--of", "tick", "sync"], "`gitsync status`"),
            (&["sync", "--max-file-size", "large"], "`gitsync tick`"),
            (&["sync", "--tick-command"], "`gitsync tick`"),
        ] {
            s.run(args).exits(2).says("error").logs("means nothing to").logs(owner).logs("Usage: gitsync ");
        }
        refused(
            &s,
            &["sync", "--path", "x"],
            "'--path' means nothing to `gitsync sync`: it is an option of `gitsync tick`",
        );
        refused(&s, &["sync", "--", "touch", "ran"], "touch");
        // After `--` everything is the job's.
        s.run(&["tick", "--", "echo", "--remote-url", "--max-age"]).exits(0).logs("--remote-url --max-age");
        s.run(&["sync", "--path", "x", "--help"]).exits(0);
    }

    #[test]
    fn a_bad_alpha() {
        let s = Scene::new();
        s.env("GIT_SYNC_ALPHA", "maybe");
        refused(&s, &["sync"], "GIT_SYNC_ALPHA is 'maybe'");
        // Even where the flag is given: the environment says something else than it means.
        refused(&s, &["tick", "--alpha", "--", "touch", "state/ran"], "GIT_SYNC_ALPHA");
        assert!(!s.ours().join("state/ran").exists());
    }

    #[test]
    fn bad_durations_and_sizes() {
        let s = Scene::new();
        for bad in ["15", "soon", "0s", "-5s", ""] {
            refused(&s, &["sync", &format!("--lock-wait={bad}")], "--lock-wait");
        }
        refused(&s, &["tick", "--job-timeout", "1 fortnight"], "--job-timeout");
        refused(&s, &["tick", "--max-file-size", "large"], "--max-file-size");
        s.env("GIT_SYNC_NETWORK_TIMEOUT", "5");
        refused(&s, &["sync"], "90s");
    }

    #[test]
    fn bad_names() {
        let s = Scene::new();
        for bad in ["a b", "a..b", "", "x.lock", "/x"] {
            refused(&s, &["sync", "--branch", bad], "--branch");
        }
        refused(&s, &["sync", "--remote", "a b"], "--remote");
        s.run(&["sync", "--output", "yaml"]).exits(2).says("error").logs("yaml");
        refused(&s, &["sync", "-q", "-v"], "cannot be used with");
        refused(&s, &["sync", "--repo", ""], "--repo");
        refused(&s, &["tick", "--tick-command", " "], "--tick-command");
        refused(&s, &["tick", "--message", ""], "--message");
        refused(&s, &["sync", "--remote-url", "x"], "--remote-url");
    }

    #[test]
    fn a_filter_that_can_not_be_understood() {
        let s = Scene::new();
        s.env("RUST_LOG", "gitsync=loud");
        refused(&s, &["sync"], "RUST_LOG");
    }
}

/// A container sets one environment for all subcommands.
mod environment {
    use super::*;

    const NONSENSE: [(&str, &str); 8] = [
        ("GIT_SYNC_TICK_COMMAND", " "),
        ("GIT_SYNC_MESSAGE", " "),
        ("GIT_SYNC_MAX_FILE_SIZE", "large"),
        ("GIT_SYNC_JOB_TIMEOUT", "soon"),
        ("GIT_SYNC_KEEP_RESCUES", "long"),
        ("GIT_SYNC_ON_DIVERGENCE", "prayer"),
        ("GIT_SYNC_DRY_RUN", "maybe"),
        ("GIT_SYNC_PUBLISH", "sideways"),
    ];

    /// Which subcommands refuse each of them.
    fn readers(name: &str) -> &'static [&'static str] {
        match name {
            "GIT_SYNC_TICK_COMMAND" | "GIT_SYNC_MESSAGE" | "GIT_SYNC_MAX_FILE_SIZE" => &["tick"],
            "GIT_SYNC_JOB_TIMEOUT" => &["tick", "status"],
            "GIT_SYNC_KEEP_RESCUES" => &["init-sync", "tick"],
            "GIT_SYNC_ON_DIVERGENCE" => &["sync", "tick"],
            _ => &["init-sync", "sync", "tick"],
        }
    }

    #[test]
    fn a_bad_value_is_refused_by_name_where_it_is_read_and_nowhere_else() {
        for (name, value) in NONSENSE {
            let s = Scene::new();
            s.env(name, value);
            for subcommand in ["init-sync", "sync", "tick", "status"] {
                let args = if subcommand == "tick" { &["tick", "--", "true"][..] } else { &[subcommand] };
                s.run(args);
                if readers(name).contains(&subcommand) {
                    s.exits(2).says("error").logs(name).logs_not("panicked");
                } else {
                    s.exits(0);
                }
            }
        }
    }

    #[test]
    fn a_flag_wins_over_a_bad_value() {
        let s = Scene::new();
        s.env("GIT_SYNC_LOCK_WAIT", "soon").env("GIT_SYNC_OUTPUT", "yaml");
        s.run(&["sync", "--output", "text"])
            .exits(2)
            .logs("GIT_SYNC_LOCK_WAIT is 'soon'")
            .logs("90s")
            .logs_not("--lock");
        s.run(&["--lock-wait", "1m", "sync"]).exits(2).logs("'yaml' for 'GIT_SYNC_OUTPUT'").logs("[possible values");
        s.run(&["--lock-wait", "1m", "sync", "--output=text"]).exits(0).says("up-to-date");
        // A bad flag is a bad flag, whatever the variable says.
        s.run(&["sync", "--lock-wait", "later"]).exits(2).logs("'later' for '--lock-wait <DUR>'");
    }

    #[test]
    fn a_switch_says_yes_or_no_in_many_words() {
        let s = Scene::new();
        let mode = |word: &str, args: &[&str]| {
            s.env("GIT_SYNC_ALPHA", word).run(args).exits(0);
            s.json()["mode"].as_str().unwrap().to_owned()
        };
        let (plain, given) = (["status", "--output", "json"], ["--alpha", "status", "--output", "json"]);
        for word in ["true", "1", "yes", "on", "TRUE", " yes "] {
            assert_eq!(mode(word, &plain), "alpha", "{word}");
        }
        for word in ["false", "0", "no", "off", "", "OFF"] {
            assert_eq!(mode(word, &plain), "non-alpha", "{word}");
            assert_eq!(mode(word, &given), "alpha", "{word} does not switch a given flag off");
        }
        s.env("GIT_SYNC_ALPHA", "").env("GIT_SYNC_DRY_RUN", "on").rival_pushes("news.txt");
        s.sync().exits(0).says("behind").sync().says("behind");
        s.env("GIT_SYNC_DRY_RUN", "off").run(&["sync", "--dry-run"]).says("behind").sync().says("behind");
        s.sync().says("up-to-date");
    }

    #[test]
    fn paths_are_divided_by_blanks() {
        let s = Scene::new();
        let job = "mkdir -p x y 'a b'; date >x/1; date >y/1; date >'a b/1'; date >state/b";
        s.env("GIT_SYNC_PATHS", " x/\n  ./y ").tick_with(job).exits(0).says("pushed");
        let changed = || s.git_ours(&["show", "--format=", "--name-only", "HEAD"]);
        assert_eq!(changed(), "x/1\ny/1");
        s.run(&["tick", "--path", "a b", "--", "true"]).exits(0).says("pushed");
        assert_eq!(changed(), "a b/1");
        s.env("GIT_SYNC_PATHS", "  ").tick().exits(0).says("pushed");
        assert_eq!(changed(), "state/b");
        for bad in ["x ../y", "/x", "x .git"] {
            s.env("GIT_SYNC_PATHS", bad).tick().exits(2).says("error").logs("GIT_SYNC_PATHS").logs("without '..'");
        }
        // sync reads them too: a public dir must not hold them.
        let public = s.ours().join("site");
        s.env("GIT_SYNC_PATHS", "site/state").env("GIT_SYNC_PUBLIC_DIR", public.to_str().unwrap());
        s.rival_pushes("news.txt").env("GIT_SYNC_BUILD_COMMAND", "true").sync().exits(2).logs("site/state");
    }
}

mod json {
    use super::*;

    #[test]
    fn has_all_keys_whatever_the_outcome() {
        let s = Scene::without_ours();
        s.arg("--output").arg("json");
        s.run(&["init-sync"]).exits(2);
        assert_eq!(object(&s)["command"], "init-sync");
        for (word, code) in [("cloned", 0), ("up-to-date", 0)] {
            s.init_sync().exits(code);
            assert_eq!(object(&s)["result"], word);
        }
        s.sync().exits(0);
        assert_eq!((&object(&s)["command"], &s.json()["result"]), (&"sync".into(), &"up-to-date".into()));
        s.tick().exits(0);
        assert_eq!((&object(&s)["command"], &s.json()["result"]), (&"tick".into(), &"no-changes".into()));
        s.tick_with("echo 1 >state/b").exits(0);
        let json = object(&s);
        assert_eq!((&json["result"], &json["commit"]), (&"pushed".into(), &s.our_tip().into()));
        s.we_commit("a.txt").rival_pushes("b.txt").sync().exits(0);
        let json = object(&s);
        assert_eq!((&json["result"], &json["ahead"], &json["behind"]), (&"diverged".into(), &1.into(), &1.into()));
        assert_eq!(json["rescue_refs"], serde_json::json!(s.rescues("")));
        s.tick_with("exit 3").exits(1);
        assert_eq!(object(&s)["job_exit_code"], 3);
        s.upstream_goes_away().sync().exits(75);
        assert_eq!(object(&s)["result"], "error");
        s.tick_with("echo 2 >state/b").exits(75);
        assert_eq!(object(&s)["result"], "push-failed");
        s.run(&["init-sync"]).exits(75);
        assert_eq!(object(&s)["result"], "offline");
        s.git_ours(&["checkout", "-q", "--detach"]);
        s.sync().exits(1);
        object(&s);
    }

    #[test]
    fn on_the_environments_word() {
        let s = Scene::new();
        s.env("GIT_SYNC_OUTPUT", "json").sync().exits(0);
        object(&s);
        s.run(&["sync", "--output", "text"]).exits(0).says("up-to-date");
    }
}

mod streams {
    use super::*;

    fn full() -> Stdio {
        OpenOptions::new().write(true).open("/dev/full").unwrap().into()
    }

    /// Runs a line of shell with `$GITSYNC` in it, for streams that only a shell can close.
    fn shell(s: &Scene, line: &str) -> std::process::Output {
        let gitsync = s.gitsync(&["sync"]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).env("GITSYNC", gitsync.get_program()).current_dir(s.root());
        for (name, value) in gitsync.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.output().unwrap()
    }

    #[test]
    fn stdout_is_one_line_whatever_the_job_prints() {
        let s = Scene::new();
        s.tick_with("echo on stdout; echo on stderr >&2; echo 1 >state/b").exits(0).says("pushed");
        s.logs("on stdout").logs("on stderr");
    }

    #[test]
    fn a_closed_stdout_does_no_harm() {
        let s = Scene::new();
        for line in
            ["exec \"$GITSYNC\" sync >&-", "\"$GITSYNC\" sync | true; exit 0", "exec \"$GITSYNC\" sync <&- >&- 2>&-"]
        {
            s.rival_pushes("news.txt");
            let out = shell(&s, line);
            assert_eq!(out.status.code(), Some(0), "{line} {out:?}");
            assert!(!String::from_utf8_lossy(&out.stderr).contains("panicked"), "{line} {out:?}");
            s.ours_equals_upstream();
        }
        let out = shell(&s, "exec \"$GITSYNC\" tick -- sh -c 'echo loud; echo 1 >state/b' >&- 2>&-");
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        s.ours_equals_upstream().upstream_file("state/b", "1\n");
        // Nothing of the closed streams' numbers is taken for a stream: no file got the log's lines.
        s.fsck();
    }

    #[test]
    fn a_full_stdout_and_a_full_stderr_do_no_harm() {
        let s = Scene::new();
        s.rival_pushes("news.txt");
        let mut command = s.gitsync(&["tick", "-vv", "--", "sh", "-c", "echo loud; echo 1 >state/b"]);
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
        s.ours_equals_upstream();
        let status = s.gitsync(&["sync", "--nonsense"]).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2));
    }

    #[test]
    fn a_stderr_that_nobody_reads_any_more() {
        let s = Scene::new();
        s.rival_pushes("news.txt");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = s.gitsync(&["tick", "-vv", "--", "sh", "-c", "echo loud; echo 1 >state/b"]);
        let out = command.stdout(Stdio::piped()).stderr(writer).output().unwrap();
        assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()), (Some(0), "pushed\n"));
        s.ours_equals_upstream();
    }
}

mod logs {
    use super::*;

    #[test]
    fn quiet_says_errors_alone() {
        let s = Scene::new();
        s.rival_pushes("news.txt").run(&["sync", "-q"]).exits(0).says("behind");
        assert_eq!(s.last().stderr, "");
        s.upstream_goes_away().run(&["sync", "-q"]).exits(75).logs("ERROR");
        assert_eq!(s.last().stderr.lines().count(), 1, "{}", s.last());
    }

    #[test]
    fn a_pass_with_nothing_to_say_says_nothing() {
        let s = Scene::new();
        s.sync().exits(0);
        assert_eq!(s.last().stderr, "");
    }

    #[test]
    fn verbose_says_more_and_a_filter_has_the_last_word() {
        let s = Scene::new();
        s.run(&["sync", "-v"]).logs("DEBUG").logs("up to date");
        s.env("RUST_LOG", "off").rival_pushes("news.txt").run(&["sync", "-v"]).exits(0).says("behind");
        assert_eq!(s.last().stderr, "");
        s.env("RUST_LOG", "gitsync=debug").sync().logs("up to date");
    }

    #[test]
    fn as_objects_for_programs() {
        let s = Scene::new();
        s.arg("--log-format").arg("json").arg("-v");
        s.we_commit("a.txt").rival_pushes("b.txt");
        s.tick_with("echo 'a \"quoted\" line'; printf '\\033[31mred\\n'; echo 1 >state/b; exit 3").exits(1);
        let last = s.last();
        let mut fields = Vec::new();
        for line in last.stderr.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{last}"));
            for key in ["timestamp", "level", "message"] {
                assert!(event[key].is_string(), "no {key}: {line}");
            }
            fields.push(event);
        }
        let diverged = fields.iter().find(|event| event["state"] == "diverged").expect("the divergence is logged");
        for key in ["local", "remote", "branch"] {
            assert!(diverged[key].is_string(), "no {key}: {diverged}");
        }
        assert!(fields.iter().any(|event| event["message"] == "a \"quoted\" line"), "{last}");
    }

    #[test]
    fn no_colour_where_nobody_sees_it() {
        let s = Scene::new();
        s.rival_pushes("news.txt").run(&["sync", "-vv"]).exits(0);
        assert!(!s.last().stderr.contains('\u{1b}'), "{:?}", s.last().stderr);
    }
}

mod order {
    use super::*;

    #[test]
    fn flags_stand_before_or_after_the_subcommand() {
        let s = Scene::new();
        s.alpha().we_commit("a.txt").rival_pushes("b.txt").non_alpha();
        let theirs = s.upstream_tip();
        s.run(&["--alpha", "--output", "json", "sync"]).exits(0).marker_is(true);
        assert_eq!(s.json()["result"], "diverged");
        s.run(&["-v", "sync", "--alpha"]).exits(0).says("diverged").marker_is(true);
        let script = "echo 1 >x";
        s.run(&["--path", "x", "--alpha", "tick", "--message", "m", "--", "sh", "-c", script]).exits(0).says("pushed");
        assert_eq!(s.git_ours(&["log", "-1", "--format=%s"]), "m");
        s.is_kept(&theirs);
        s.run(&["--of", "tick", "status", "--max-age", "2m"]).exits(0);
        s.run(&["--remote-url", s.upstream().to_str().unwrap(), "init-sync"]).exits(0).says("up-to-date");
        s.run(&["-q", "sync", "-v"]).exits(2).says("error").logs("cannot be used with");
        s.run(&["--repo", "sync", "sync"]).exits(1).says("error").logs("there is no ");
    }

    #[test]
    fn environment_that_is_set_to_nothing_is_unset() {
        let s = Scene::new();
        for name in ["GIT_SYNC_ALPHA", "GIT_SYNC_BRANCH", "GIT_SYNC_REMOTE", "GIT_SYNC_PATHS", "GIT_SYNC_LOCK_WAIT"] {
            s.env(name, "");
        }
        s.env("GIT_SYNC_BUILD_COMMAND", "").env("GIT_SYNC_MESSAGE", "").env("GIT_SYNC_PUBLIC_DIR", "");
        s.env("GIT_SYNC_TICK_COMMAND", "").env("RUST_LOG", "").env("GIT_SYNC_OUTPUT", "");
        s.tick_with("echo 1 >state/b").exits(0).says("pushed").ours_equals_upstream();
    }

    #[test]
    fn environment_that_is_not_utf8_does_no_harm() {
        use std::os::unix::ffi::OsStrExt;
        let s = Scene::new();
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
        let out = s.gitsync(&["sync"]).env("GIT_SYNC_BRANCH", odd).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{out:?}");
        assert_eq!(out.stdout, b"error\n");
        let repo = s.root().join(odd);
        fs::rename(s.ours(), &repo).unwrap();
        let out =
            s.gitsync(&["tick", "--", "sh", "-c", "echo 1 >state/b"]).env("GIT_SYNC_REPO", &repo).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "pushed\n", "{}", String::from_utf8_lossy(&out.stderr));
    }
}

mod what_was_likely_meant {
    use super::*;

    #[test]
    fn a_variable_that_nothing_reads_is_said_once_with_the_nearest_one() {
        let s = Scene::new();
        s.env("GIT_SYNC_PUBLC_DIR", "/nowhere").env("GIT_SYNC_QQQ", "canary").env("GIT_SYNC_LOCKWAIT", "");
        // What the container reads, and what another subcommand does, is known.
        s.env("GIT_SYNC_SYNC_INTERVAL", "30").env("GIT_SYNC_TICK_INTERVAL", "900").env("GIT_SYNC_TOKEN", "t");
        s.env("GIT_SYNC_MESSAGE", "x {time}").env("GIT_SYNC_REMOTE_URL", "https://example.org/x");
        for args in [&["sync"][..], &["tick", "--", "true"], &["sync", "--dry-run"]] {
            s.run(args).exits(0).logs_not("canary");
            let said = s.last().stderr;
            let lines: Vec<&str> = said.lines().filter(|line| line.contains("nothing reads")).collect();
            assert_eq!(lines.len(), 1, "{said}");
            let one = "nothing reads GIT_SYNC_PUBLC_DIR (did you mean GIT_SYNC_PUBLIC_DIR?), GIT_SYNC_QQQ";
            assert!(lines[0].contains(one) && lines[0].contains("WARN") && !lines[0].contains("LOCKWAIT"), "{said}");
        }
        let s = Scene::new();
        s.env("GIT_SYNC_SYNC_INTERVAL", "30").env("GIT_SYNC_PATHS", "state").sync().exits(0).logs_not("nothing reads");
    }

    #[test]
    fn who_looks_for_a_daemon_is_told_of_the_scheduler() {
        let s = Scene::new();
        for args in
            [&["daemon"][..], &["run"], &["watch", "--repo", "."], &["sync", "--interval", "30"], &["sync", "--watch"]]
        {
            s.run(args).exits(2).says("error").logs("there is no daemon").logs("docs/schedulers.md");
        }
        s.run(&["snyc"]).exits(2).logs("'sync'").logs_not("daemon");
    }

    #[test]
    fn a_url_for_sync_is_given_to_init_sync() {
        let s = Scene::new();
        s.run(&["sync", "--remote-url", "x"]).exits(2).logs("`gitsync init-sync`, which sets the URL for all of them");
    }

    #[test]
    fn a_build_command_with_a_public_dir_wants_one() {
        let s = Scene::new();
        s.rival_pushes("index.html");
        let before = s.our_tip();
        for args in [&["init-sync"][..], &["sync"], &["tick", "--", "true"], &["sync", "--dry-run"]] {
            let at = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
            let mut args = args.to_vec();
            args.splice(at..at, ["--build-command", "make -C {public_dir}"]);
            s.run(&args).exits(2).says("error").logs("there is no public dir for {public_dir}").logs("--public-dir");
        }
        s.env("GIT_SYNC_BUILD_COMMAND", "make -C {public_dir}").sync().exits(2).logs("GIT_SYNC_PUBLIC_DIR");
        assert_eq!(s.our_tip(), before);
        s.run(&["status"]).exits(0);
    }

    #[test]
    fn what_answers_and_is_no_git_server_is_said_with_what_to_look_at() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // What the client asks has to be read: closing over it would reset the connection.
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").and_then(|()| stream.read(&mut [0; 4096]));
            }
        });
        let s = Scene::without_ours();
        for (scheme, look_at) in [
            ("http", "host and port of the remote's URL are those of a web server"),
            ("https", "the remote's URL has the right port"),
            ("git", "host, port and path of the remote's URL are a git server's"),
        ] {
            fs::create_dir_all(s.ours()).unwrap();
            s.run(&["init-sync", "--remote-url", &format!("{scheme}://{host}/r.git")]).exits(75).logs(look_at);
            fs::remove_dir_all(s.ours()).unwrap();
        }
    }
}
