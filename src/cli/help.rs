//! The texts of the help, and how much of it is shown.
//!
//! `-h` fits one screen; `--help` has everything, environment variables included. `gitsync` alone and `gitsync -h` print a
//! short page, `gitsync --help` every option of every subcommand.

use clap::{Arg, ArgAction, Command};

use super::{Subcommand, scope};

/// How much help the command line asks for, if it asks for help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One screen.
    Short,
    /// Everything.
    Full,
}

const ABOUT: &str = "Keeps a machine's git repository and its remote in sync, unattended.";

const DETAILS: &str = "\
Each subcommand takes the repository's lock, does one pass and exits. A scheduler
(cron, supercronic, systemd) runs it again and again. stdout gets one line, the
result; everything else goes to stderr.

Below are the options of all subcommands. One that only some of them have names
these [in brackets].";

const EXAMPLES: &str = "\
Examples:
  gitsync init-sync --repo /repo --remote-url https://github.com/you/state.git
  gitsync sync --repo /repo
  gitsync tick --repo /repo -- ./job.sh --quick

Read on:
  gitsync SUBCOMMAND -h      its options, on one screen
  gitsync SUBCOMMAND --help  what it does, its results and its variables
  gitsync --help             every option of every subcommand";

/// The exit codes, for `-h` and `--help`.
struct ExitCodes {
    short: &'static str,
    full: &'static str,
}

const PASS_CODES: ExitCodes = ExitCodes {
    short: "Exit codes: 0 done, 1 a person has to act, 2 usage, 75 the next pass tries again",
    full: "\
Exit codes:
  0      the pass did its work, or there was none to do
  1      it failed, and a retry alone won't help (job or build failed, bad
         repository, refused credentials, rejected by the server's rules)
  2      the command line or the environment asks for what can't be done
  75     passing trouble, the next pass tries again (remote out of reach,
         time-out, push lost a race, lock not free in time)
  128+N  ended by signal N",
};

const STATUS_CODES: ExitCodes = ExitCodes {
    short: "Exit codes: 0 fine, 1 not healthy, or no repository, 2 usage",
    full: "\
Exit codes:
  0  the status is shown, and is healthy where --max-age asks for that
  1  not healthy; or there is no repository to look at
  2  the command line or the environment asks for what can't be done",
};

/// What the help of one subcommand says.
struct Page {
    about: &'static str,
    details: &'static str,
    /// The results in one line, for `-h`.
    results: &'static str,
    example: &'static str,
    exit_codes: &'static ExitCodes,
}

const INIT_SYNC: Page = Page {
    about: "At start-up: make the repository exist, heal it, follow the remote.",
    details: "\
One pass:
  1. make the repository exist in --repo, in place (files that are there
     stay), with its remote
  2. heal what an earlier crash or a person left: stale locks, a half-done
     merge, HEAD on another branch, a killed clone; put a corrupt repository
     aside and fetch it again
  3. fetch and follow the remote, in either mode; forget a pending force push
  4. build the site, so that the public dir holds exactly the fresh one

Result, one word on stdout:
  cloned        there was no repository, now there is
  reset         the repository was made equal to the remote
  up-to-date    nothing differed
  empty-remote  the remote has no branch yet, or not this one and
                --create-branch is given; the first tick's push creates it
  offline       the remote is out of reach; the local state stays in use
                (exit 75)
  error         see stderr",
    example: "\
Example:
  gitsync init-sync --repo /repo --remote-url https://github.com/you/state.git",
    exit_codes: &PASS_CODES,
    results: "cloned, reset, up-to-date, empty-remote, offline, error",
};

const SYNC: Page = Page {
    about: "Every 30 s: look at the remote; follow it where the rule says so.",
    details: "\
One pass asks the remote. What it does next depends on the state it finds:
  up-to-date  nothing: no fetch, no scan of the files
  behind      follow the remote, rebuild the site
  ahead       nothing: the next tick pushes
  diverged    accept the remote, rebuild the site; with --alpha: keep local,
              and the next tick's push may overwrite the remote

To follow the remote is to make branch, index and every tracked file equal to
it. What would be lost by that is kept first, as commits:
`git for-each-ref refs/gitsync/rescue/` lists them.

Result, one word on stdout: the state it found, as above; or
  skipped     another sync waits for the lock already
  error       see stderr",
    example: "\
Example:
  gitsync sync --repo /repo -v
  if [ \"$(gitsync sync)\" = behind ]; then echo new; fi",
    exit_codes: &PASS_CODES,
    results: "up-to-date, behind, ahead, diverged, skipped, error",
};

const TICK: Page = Page {
    about: "Every 15 min: sync, run the job, build the site, commit, push.",
    details: "\
One pass:
  1. sync; where the remote is out of reach, go on with a warning
  2. run the job: COMMAND as given, else --tick-command through `sh -c`; if it
     fails, the pass fails, but what it wrote is committed all the same
  3. build the site
  4. commit what is new, changed or deleted under --path, and nothing else
  5. push what the remote does not have, commits of an earlier tick included

Result, one word on stdout:
  no-changes   nothing to commit, nothing to push
  pushed       the remote has our commit (after a failed job too: exit 1 then)
  push-failed  the commit is kept, the next tick tries again
  skipped      another tick waits for the lock already
  error        see stderr",
    example: "\
Example:
  gitsync tick --repo /repo -- ./job.sh --quick
  gitsync tick --tick-command 'date > state/now' --path state/",
    exit_codes: &PASS_CODES,
    results: "no-changes, pushed, push-failed, skipped, error",
};

const STATUS: Page = Page {
    about: "Show where this instance stands; with --max-age a health check.",
    details: "\
Shows branch, local commit, remote commit as last seen, state, mode, a pending
force push, who holds the lock, the last run of each subcommand with its age and
result, and what was rescued. Takes no lock, writes nothing, asks no server.

With --max-age it is a health check: exit 1 if the last good sync is older, or
never was. A good sync is any pass (init-sync and tick too) that reached the
remote, did what the rule says and ended with exit code 0. While a pass is
running the others wait for it, so the age is measured up to its start, as long
as it keeps its time limits: give the limits here as you give them to the passes.
So a long first tick right after init-sync is healthy. --of tick asks about the
last tick that ended with exit code 0 instead. Without --max-age it shows the
last run of that subcommand alone, and judges nothing.

Result: lines for people; with --output json one object, whose `result` is `ok`,
`unhealthy` or `error`.",
    example: "\
Example:
  gitsync status --repo /repo
  gitsync status --repo /repo --max-age 2m || echo 'no sync for two minutes'
  gitsync status --output json | jq .state",
    exit_codes: &STATUS_CODES,
    results: "lines for people; one object with --output json",
};

fn page(subcommand: Subcommand) -> &'static Page {
    match subcommand {
        Subcommand::InitSync => &INIT_SYNC,
        Subcommand::Sync => &SYNC,
        Subcommand::Tick => &TICK,
        Subcommand::Status => &STATUS,
    }
}

fn titled(command: Command) -> Command {
    command.display_name("gitsync").version(env!("CARGO_PKG_VERSION")).max_term_width(110)
}

/// The pages of the program itself, with a line for each subcommand.
pub fn program() -> Command {
    titled(Command::new("gitsync"))
        .bin_name("gitsync")
        .about(ABOUT)
        .long_about(format!("{ABOUT}\n\n{DETAILS}"))
        .after_help(EXAMPLES)
        .after_long_help(format!("{}\n\n{EXAMPLES}", PASS_CODES.full))
        .override_usage("gitsync <SUBCOMMAND> [OPTIONS]")
        .subcommand_required(true)
        .subcommand_value_name("SUBCOMMAND")
        .subcommand_help_heading("Subcommands")
        .disable_help_subcommand(true)
        .subcommands(Subcommand::ALL.map(|subcommand| Command::new(subcommand.word()).about(page(subcommand).about)))
}

/// The pages of a subcommand.
pub fn subcommand(flags: Command, subcommand: Subcommand, detail: Detail) -> Command {
    let Page { about, details, results, example, exit_codes } = page(subcommand);
    let word = subcommand.word();
    let after = match detail {
        Detail::Short => {
            format!("Result on stdout: {results}\n{}\n`gitsync {word} --help` has everything.", exit_codes.short)
        }
        Detail::Full => format!("{example}\n\n{}", exit_codes.full),
    };
    let flag = |name: &'static str, short| Arg::new(name).long(name).short(short).help_heading("Output");
    titled(flags.name(word))
        .bin_name(format!("gitsync {word}"))
        .about(*about)
        .long_about(format!("{about}\n\n{details}"))
        .after_help(after)
        .disable_help_flag(true)
        .arg(flag("help", 'h').action(ArgAction::Help).help("Print this page; --help prints all of it"))
        .disable_version_flag(true)
        .arg(flag("version", 'V').action(ArgAction::Version).help("Print the version").hide(true))
}

/// An option on the program's page, which says whose it is where not every subcommand has it.
pub fn reference(arg: Arg) -> Arg {
    let its = scope(arg.get_id().as_str());
    let arg = arg.hide_short_help(true);
    if its.len() == Subcommand::ALL.len() {
        return arg;
    }
    let words: Vec<&str> = its.iter().map(|subcommand| subcommand.word()).collect();
    let text = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    arg.long_help(format!("{text}\n\n[{}]", words.join(", ")))
}
