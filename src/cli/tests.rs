//! How the command line is parsed, and whether the documentation agrees with its definition.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::config::BUILD_COMMAND;
use super::*;
use crate::git::pathspec::Pathspec;
use std::path::Path;

/// Parses without an environment. Tests that need one run the program, in tests/cli.rs: clap reads the environment of the process.
fn read(args: &[&str]) -> Result<(Asked, Config), clap::Error> {
    let args = std::iter::once("gitsync").chain(args.iter().copied()).map(OsString::from);
    super::read(args, &|_| None)
}

/// The definition for a subcommand, as `--help` has it.
fn definition_of(subcommand: Subcommand) -> clap::Command {
    let flags = Config::augment_args(clap::Command::new("gitsync"));
    let line = Line::new(["gitsync", subcommand.word(), "--help"].map(OsString::from).into(), &flags);
    assert_eq!(line.subcommand, Some(subcommand));
    definition(flags, &line, &|_| None)
}

#[test]
fn clap_finds_no_fault_in_the_definition() {
    for args in [vec![], vec!["sync"], vec!["tick", "-h"], vec!["--help"], vec!["status", "--help"]] {
        let args: Vec<OsString> = std::iter::once("gitsync").chain(args).map(OsString::from).collect();
        let flags = Config::augment_args(clap::Command::new("gitsync"));
        definition(flags.clone(), &Line::new(args, &flags), &|_| None).debug_assert();
    }
}

#[test]
fn the_subcommand_is_found_at_any_position() {
    let flags = Config::augment_args(clap::Command::new("gitsync"));
    let line = |args: &str| {
        let args = std::iter::once("gitsync").chain(args.split_whitespace()).map(OsString::from).collect();
        let line = Line::new(args, &flags);
        let words: Vec<String> = line.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        (line.subcommand, words[1..].join(" "))
    };
    let (sync, tick) = (Some(Subcommand::Sync), Some(Subcommand::Tick));
    assert_eq!(line("sync -v"), (sync, "-v".into()));
    assert_eq!(line("-v --alpha sync -v"), (sync, "-v --alpha -v".into()));
    assert_eq!(line("--branch tick sync --remote x"), (sync, "--branch tick --remote x".into()));
    assert_eq!(line("--branch=tick sync"), (sync, "--branch=tick".into()));
    assert_eq!(line("--path x tick -- sync --help"), (tick, "--path x -- sync --help".into()));
    assert_eq!(line("-- sync"), (None, "-- sync".into()));
    assert_eq!(line("--branch sync"), (None, "--branch sync".into()));
    assert_eq!(line("--bogus synch"), (None, "synch --bogus".into()));
    assert_eq!(line("help tick"), (tick, "--help".into()));
    assert_eq!(line("-v help tick -- x"), (tick, "--help -v -- x".into()));
    assert_eq!(line("help"), (None, "--help".into()));
}

#[test]
fn flags_before_the_subcommand_are_those_after_it() {
    let (asked, config) = read(&["--of", "tick", "status", "--max-age", "2m"]).unwrap();
    let max_age = Duration::from_secs(120);
    assert_eq!((asked, config.of), (Asked::Status(Some(Healthy { of: Of::Tick, max_age })), Some(Of::Tick)));
    let (_, config) = read(&["--remote-url", "u", "init-sync", "--public-dir", "p"]).unwrap();
    assert_eq!(config.remote_url.unwrap(), "u");
    assert_eq!(config.build_command.unwrap(), BUILD_COMMAND);
    let conflict = read(&["-q", "sync", "-v"]).unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::ArgumentConflict);
    let (_, config) = read(&["-v", "sync", "-v"]).unwrap();
    assert_eq!(config.verbosity(), 2);
    let (_, config) = read(&["-v", "tick", "--", "job", "-v"]).unwrap();
    assert_eq!((config.verbosity(), config.tick_argv), (1, vec!["job".into(), "-v".into()]));
}

#[test]
fn a_path_stays_inside_the_repository() {
    for bad in ["/etc", "..", "state/../..", ".git", ".git/config", "state/.GIT", ""] {
        assert_eq!(read(&["tick", "--path", bad]).unwrap_err().exit_code(), 2, "{bad}");
    }
    let bases = |args: &[&str]| read(args).unwrap().1.paths.iter().map(Pathspec::base).collect::<Vec<_>>();
    assert_eq!(bases(&["tick", "--path", "./state/", "--path", "a b"]), [Path::new("state"), Path::new("a b")]);
    assert_eq!(bases(&["tick"]), [Path::new("state"), Path::new("audit")]);
}

#[test]
fn a_build_command_comes_with_a_public_dir() {
    let build = |args: &[&str]| read(args).map(|(_, config)| config.build_command);
    assert_eq!(build(&["sync"]).unwrap(), None);
    assert_eq!(build(&["sync", "--public-dir", "p"]).unwrap().unwrap(), BUILD_COMMAND);
    assert_eq!(build(&["sync", "--public-dir", "p", "--build-command", " "]).unwrap(), None);
    assert_eq!(build(&["sync", "--build-command", ""]).unwrap_err().exit_code(), 2);
}

#[test]
fn init_sync_has_an_hour_for_the_network() {
    let time = |args: &[&str]| read(args).unwrap().1.network_timeout.as_secs();
    assert_eq!((time(&["init-sync"]), time(&["sync"]), time(&["tick"]), time(&["status"])), (3600, 300, 300, 300));
    assert_eq!(time(&["--network-timeout", "7s", "init-sync"]), 7);
}

#[test]
fn the_form_of_a_usage_error_is_the_one_that_was_asked_for() {
    let wants = |args: &[&str], env: &'static str| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        wants_json(&args, &move |_| Some(env.into()))
    };
    assert!(wants(&["sync", "--bogus"], "json") && wants(&["sync", "--output=json", "--bogus"], ""));
    assert!(wants(&["sync", "--output", "json", "--bogus"], "text"), "a flag wins");
    assert!(!wants(&["sync", "--output", "text", "--bogus"], "json"), "a flag wins");
    assert!(!wants(&["sync", "--output=text", "--bogus"], "json"), "a flag wins");
    assert!(!wants(&["tick", "--bogus", "--", "job", "--output", "json"], ""), "that is the job's");
}

#[test]
fn the_url_from_what_an_action_knows() {
    let env = |name: &str| match name {
        "GITHUB_REPOSITORY" => Some("you/state".into()),
        "GITHUB_SERVER_URL" => Some("https://git.example/".into()),
        _ => None,
    };
    let url = |subcommand: &str| super::read(["gitsync", subcommand].map(OsString::from), &env).unwrap().1.remote_url;
    assert_eq!(url("init-sync").unwrap(), "https://git.example/you/state.git");
    assert_eq!(url("sync"), None);
}

#[test]
fn durations_and_sizes_say_what_they_want() {
    let error = read(&["sync", "--lock-wait", "15"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("90s"), "{error}");
    for bad in ["0s", "1000000y", "-1s", "99999999999999999999s"] {
        assert_eq!(read(&["sync", "--lock-wait", bad]).unwrap_err().exit_code(), 2, "{bad}");
    }
    let (_, config) = read(&["tick", "--max-file-size", "1KiB"]).unwrap();
    assert_eq!(config.max_file_size, 1024);
}

const PAGE: &str = include_str!("../../docs/usage.md");

/// A row of the page's table: environment, default, subcommands.
type Row = (String, String, String);

/// clap's definition of each flag, in the form of the table in the docs.
fn defined() -> BTreeMap<String, Row> {
    let mut found: BTreeMap<String, Vec<(Subcommand, String, String)>> = BTreeMap::new();
    for subcommand in Subcommand::ALL {
        for arg in definition_of(subcommand).get_arguments().filter(|arg| !arg.is_hide_set()) {
            let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
            let env = arg.get_env().map_or("none".to_owned(), |name| format!("`{}`", name.to_string_lossy()));
            let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            found.entry(format!("`--{long}`")).or_default().push((subcommand, env, default.join(" ")));
        }
    }
    let row = |uses: Vec<(Subcommand, String, String)>| {
        let words: Vec<&str> = uses.iter().map(|(subcommand, ..)| subcommand.word()).collect();
        let whose = if uses.len() == 4 { "all".to_owned() } else { words.join(", ") };
        let envs: BTreeSet<&String> = uses.iter().map(|(_, env, _)| env).collect();
        assert_eq!(envs.len(), 1, "{envs:?}");
        // The usual default, then those that differ.
        let usual = uses.last().map(|(.., default)| default.clone()).unwrap_or_default();
        let mut default = format!("`{usual}`");
        for (subcommand, _, other) in uses.iter().filter(|(.., other)| *other != usual) {
            default += &format!(", {} `{other}`", subcommand.word());
        }
        (envs.first().unwrap().to_string(), if usual.is_empty() { String::new() } else { default }, whose)
    };
    found.into_iter().map(|(flag, uses)| (flag, row(uses))).collect()
}

/// The table of options in the docs must equal clap's definition for each subcommand.
#[test]
fn the_table_of_options_in_the_docs_is_the_program() {
    let mut rows: BTreeMap<String, Row> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| {
            let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
            let [flag, env, default, whose, _] = cells.try_into().unwrap();
            (flag, (env, default, whose))
        })
        .collect();
    for (flag, (env, default, whose)) in defined() {
        let row = rows.remove(&flag).unwrap_or_else(|| panic!("{flag} is not in docs/usage.md"));
        // If clap has no default, the docs describe what happens.
        let default = if default.is_empty() { row.1.clone() } else { default };
        assert_eq!(row, (env, default, whose), "{flag}");
    }
    assert!(rows.is_empty(), "docs/usage.md has them, the program has not: {rows:?}");
}

#[test]
fn the_table_of_the_result_in_the_docs_is_the_program() {
    let outcome = Outcome::new(outcome::Command::Sync, chrono::DateTime::UNIX_EPOCH);
    let object = outcome.json();
    let keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let mut in_docs: Vec<&str> = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| key |"))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    in_docs.sort_unstable();
    assert_eq!(keys, in_docs);
}
