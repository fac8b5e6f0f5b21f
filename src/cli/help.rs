//! The help texts, and how much of them is shown.
//!
//! `-h` fits on one screen; `--help` shows everything, including the environment variables. `gitsync` alone and `gitsync -h`
//! print a short page, `gitsync --help` prints every option of every subcommand.

use clap::{Arg, ArgAction, Command};

use super::{Subcommand, scope};

/// How much help is shown, if the command line asks for help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One screen.
    Short,
    /// Everything.
    Full,
}

const ABOUT: &str = "Keeps a machine's git repository and its remote in sync, unattended.";

const DETAILS: &str = "\
init-sync, sync and tick each take the repository's lock, do one pass and exit.
A scheduler (cron, supercronic, systemd) runs them again and again. The result is
one line on stdout; everything else goes to stderr.

Below are the options of all subcommands. If only some subcommands have an option,
they are listed [in brackets].";

const EXAMPLES: &str = "\
Examples:
  gitsync init-sync --repo /repo --remote-url https://github.com/you/state.git
  gitsync sync --repo /repo
  gitsync tick --repo /repo -- ./job.sh --quick

Read on:
  gitsync SUBCOMMAND -h      its options, on one screen
  gitsync SUBCOMMAND --help  what it does, its results and environment variables
  gitsync --help             every option of every subcommand";

/// The exit codes, for `-h` and `--help`.
struct ExitCodes {
    short: &'static str,
    full: &'static str,
}

const PASS_CODES: ExitCodes = ExitCodes {
    short: "Exit codes: 0 done, 1 a person has to act, 2 usage, 75 the next pass retries",
    full: "\
Exit codes:
  0      the pass did its work, or there was nothing to do
  1      it failed, and a retry alone won't help (job or build failed, bad
         repository, credentials refused, push rejected by the server's rules)
  2      usage: the command line or the environment asks for something that
         can't be done
  75     temporary failure, the next pass retries (remote unreachable, time-out,
         push lost a race, lock not free in time)
  128+N  ended by signal N",
};

const STATUS_CODES: ExitCodes = ExitCodes {
    short: "Exit codes: 0 fine, 1 not healthy or no repository, 2 usage",
    full: "\
Exit codes:
  0  the status is shown; with --max-age: the instance is healthy
  1  not healthy, or no usable repository
  2  usage: the command line or the environment asks for something that can't be
     done",
};

/// The help of one subcommand.
struct Page {
    about: &'static str,
    details: &'static str,
    /// The results in one line, for `-h`.
    results: &'static str,
    example: &'static str,
    exit_codes: &'static ExitCodes,
}

const INIT_SYNC: Page = Page {
    about: "At start-up: create or heal the repository, and follow the remote.",
    details: "\
One pass:
  1. create the repository in --repo if there is none, in place (existing files
     stay), and set its remote
  2. heal what a crash or a person left behind: stale locks, an unfinished
     merge, HEAD on another branch, a killed clone; move a corrupt repository
     aside and fetch it again
  3. fetch and follow the remote, in either mode; drop a pending force push
  4. build the site, so that the public dir holds exactly the new site

Result, one word on stdout:
  cloned        there was no repository; it was cloned
  reset         the repository was made equal to the remote
  up-to-date    nothing differed
  empty-remote  the remote has no branches yet, or it lacks this one and
                --create-branch is given; the first tick's push creates it
  offline       the remote can't be reached; the local state stays in use
                (exit 75)
  error         see stderr",
    example: "\
Example:
  gitsync init-sync --repo /repo --remote-url https://github.com/you/state.git",
    exit_codes: &PASS_CODES,
    results: "cloned, reset, up-to-date, empty-remote, offline, error",
};

const SYNC: Page = Page {
    about: "Every 30 s: check the remote, and follow it where the rule says so.",
    details: "\
One pass asks the remote for the branch's tip. What it does next depends on the
state it finds:
  up-to-date  nothing: no fetch, no scan of the files
  behind      follow the remote, rebuild the site
  ahead       nothing: the next tick pushes
  diverged    accept the remote, rebuild the site; with --alpha: keep local,
              and the next tick's push may overwrite the remote

Following the remote makes the branch, the index and every tracked file equal to
the remote's commit. Anything that would be lost is saved as a commit first:
`git for-each-ref refs/gitsync/rescue/` lists these rescues.

Result, one word on stdout: the state it found, as above; or
  skipped     another sync is already waiting for the lock
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
  1. sync; if the remote can't be reached, go on with a warning
  2. run the job: COMMAND as given, else --tick-command through `sh -c`; if it
     fails, the pass fails, but what the job wrote is still committed
  3. build the site
  4. commit what is new, changed or deleted under --path, and nothing else
  5. push what the remote does not have, including commits of earlier ticks

Result, one word on stdout:
  no-changes   nothing to commit, nothing to push
  pushed       the remote has our commit (also after a failed job: exit 1)
  push-failed  the commit is kept, the next tick retries the push
  skipped      another tick is already waiting for the lock
  error        see stderr",
    example: "\
Example:
  gitsync tick --repo /repo -- ./job.sh --quick
  gitsync tick --tick-command 'date > state/now' --path state/",
    exit_codes: &PASS_CODES,
    results: "no-changes, pushed, push-failed, skipped, error",
};

const STATUS: Page = Page {
    about: "Show the state of this instance; with --max-age a health check.",
    details: "\
Shows the branch, the local commit, the remote commit as last seen, the state, the
mode, a pending force push, who holds the lock, the last run of each subcommand
with its age and result, and the rescues. It takes no lock, writes nothing and
does not use the network.

With --max-age it is a health check: exit 1 if the last good sync is older than
that, or if there was none. A good sync is any pass (also init-sync and tick) that
reached the remote, did what the rule says and ended with exit code 0. While a
pass is running the others wait for it, so the age is measured up to its start, as
long as it is within its time limits: give status the same limits as the passes.
So a long first tick right after init-sync is healthy. With --of tick the check is
about the last tick that ended with exit code 0. --of without --max-age shows the
last run of that subcommand only, and checks nothing.

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

/// The help of the program itself, with a line for each subcommand.
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

/// The help of one subcommand.
pub fn subcommand(flags: Command, subcommand: Subcommand, detail: Detail) -> Command {
    let Page { about, details, results, example, exit_codes } = page(subcommand);
    let word = subcommand.word();
    let after = match detail {
        Detail::Short => {
            format!("Result on stdout: {results}\n{}\n`gitsync {word} --help` shows everything.", exit_codes.short)
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
        .arg(flag("help", 'h').action(ArgAction::Help).help("Print a short help; --help prints all of it"))
        .disable_version_flag(true)
        .arg(flag("version", 'V').action(ArgAction::Version).help("Print the version").hide(true))
}

/// An option on the program's page. If not every subcommand has it, those that do are named behind it.
pub fn reference(arg: Arg) -> Arg {
    let subcommands = scope(arg.get_id().as_str());
    let arg = arg.hide_short_help(true);
    if subcommands.len() == Subcommand::ALL.len() {
        return arg;
    }
    let words: Vec<&str> = subcommands.iter().map(|subcommand| subcommand.word()).collect();
    let text = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    arg.long_help(format!("{text}\n\n[{}]", words.join(", ")))
}
