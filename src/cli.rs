//! Turns flags and environment variables into a [`Config`]. Nothing else in the program reads either.
//!
//! A flag wins over its environment variable. A variable set to the empty string counts as unset: `${NAME:-}` in a compose
//! file gives that for a variable that nobody has set.
//!
//! Each subcommand accepts only the flags it uses (`scope`), and reads only their variables. Other variables may be set to
//! anything: a container has one environment for all subcommands.

mod config;
mod help;
mod likely;
mod line;
mod values;

use std::ffi::{OsStr, OsString};
use std::mem::ManuallyDrop;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Arg, Args, FromArgMatches};

use crate::outcome::{self, Outcome};
pub use config::{Config, IdentityEnv};
use help::Detail;
pub use likely::unknown_variables;
use line::{Line, ours};
pub use values::{LogFormat, Of, OnDivergence, Output, Publish};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One pass.
    Pass(outcome::Command),
    /// The status, with a health check if `--max-age` is given.
    Status(Option<Healthy>),
}

/// What `gitsync status --max-age` counts as healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healthy {
    /// Which runs are checked.
    pub of: Of,
    /// How old the last good one may be.
    pub max_age: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subcommand {
    InitSync,
    Sync,
    Tick,
    Status,
}

impl Subcommand {
    const ALL: [Self; 4] = [Self::InitSync, Self::Sync, Self::Tick, Self::Status];
    const PASSES: [Self; 3] = [Self::InitSync, Self::Sync, Self::Tick];

    fn word(self) -> &'static str {
        match self {
            Self::InitSync => outcome::Command::InitSync.word(),
            Self::Sync => outcome::Command::Sync.word(),
            Self::Tick => outcome::Command::Tick.word(),
            Self::Status => "status",
        }
    }

    fn of_word(word: &OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|subcommand| word == subcommand.word())
    }
}

/// The subcommands that have the flag with this id. Their help lists it; the others refuse it.
fn scope(id: &str) -> &'static [Subcommand] {
    use Subcommand::{InitSync, Status, Sync, Tick};
    match id {
        "remote_url" | "depth" => &[InitSync],
        "tick_command" | "paths" | "message" | "max_file_size" => &[Tick],
        "keep_rescues" => &[InitSync, Tick],
        "on_divergence" => &[Sync, Tick],
        "job_timeout" => &[Tick, Status],
        "max_age" | "of" => &[Status],
        "token_file"
        | "token_host"
        | "allow_insecure_http"
        | "ssh_key_file"
        | "ssh_known_hosts_file"
        | "create_branch"
        | "public_dir"
        | "replace_public_dir"
        | "build_command"
        | "publish"
        | "dry_run"
        | "metrics_file" => &Subcommand::PASSES,
        _ => &Subcommand::ALL,
    }
}

/// Whether a subcommand reads the variable of a flag: if it has the flag, and in two more cases.
fn reads_variable(subcommand: Subcommand, id: &str) -> bool {
    // The URL may hold a secret, and the public dir must not contain one of the paths.
    let more = matches!(id, "remote_url" | "paths") && Subcommand::PASSES.contains(&subcommand);
    more || scope(id).contains(&subcommand)
}

/// Looks up an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads the command line and the environment.
///
/// # Errors
/// What clap reports. That includes the help and the version, which are printed and end with exit code 0.
pub fn read(args: impl IntoIterator<Item = OsString>, env: Env<'_>) -> Result<(Asked, Config), clap::Error> {
    let flags = Config::augment_args(clap::Command::new("gitsync"));
    let line = Line::new(args.into_iter().collect(), &flags);
    // These are some thousand small allocations in a process that lives for milliseconds. Freeing them one by one would be a
    // measurable part of a poll's time.
    let mut command = ManuallyDrop::new(definition(flags, &line, env));
    let parsed = command.try_get_matches_from_mut(&line.args);
    let is_help = parsed.as_ref().is_err_and(|error| !error.use_stderr());
    if let Some(fault) = line.fault(&command, env).filter(|_| !is_help) {
        return Err(command.error(ErrorKind::ValueValidation, fault));
    }
    let matches = ManuallyDrop::new(parsed.map_err(|mut error| {
        likely::name_the_scheduler(&mut error);
        line.name_variable(error, &mut command)
    })?);
    let Some(subcommand) = line.subcommand else {
        return Err(command.error(ErrorKind::MissingSubcommand, "no subcommand is given"));
    };
    let config = Config::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let config = config.with_environment(subcommand, &matches, env);
    let config = config.map_err(|text| command.error(ErrorKind::ValueValidation, text))?;
    let asked = match subcommand {
        Subcommand::InitSync => Asked::Pass(outcome::Command::InitSync),
        Subcommand::Sync => Asked::Pass(outcome::Command::Sync),
        Subcommand::Tick => Asked::Pass(outcome::Command::Tick),
        Subcommand::Status => {
            Asked::Status(config.max_age.map(|max_age| Healthy { of: config.of.unwrap_or(Of::Sync), max_age }))
        }
    };
    Ok((asked, config))
}

/// The clap definition for this command line: the subcommand with its flags, or the program's help if there is no subcommand.
fn definition(flags: clap::Command, line: &Line, env: Env<'_>) -> clap::Command {
    let Some(subcommand) = line.subcommand else {
        let program = help::program();
        if line.args.len() < 2 {
            return program.arg_required_else_help(true);
        }
        let reference = |arg: &Arg| help::reference(for_subcommand(arg.clone(), None, line.detail, env));
        return program.args(flags.get_arguments().map(reference));
    };
    let flags = flags.mut_args(|arg| for_subcommand(arg, Some(subcommand), line.detail, env));
    let command = help::subcommand(flags, subcommand, line.detail);
    if subcommand == Subcommand::Tick { command.arg(job()) } else { command }
}

/// The id of the arguments after `--`.
const JOB: &str = "job";

fn job() -> Arg {
    Arg::new(JOB)
        .value_name("COMMAND")
        .help("The job: a program and its arguments")
        .long_help("The job: a program and its arguments. Without it --tick-command is run.")
        .help_heading("Job and commit")
        .last(true)
        .num_args(0..)
        .value_parser(clap::value_parser!(OsString))
}

/// A flag as one subcommand has it, or with `None` as the program's help shows it.
fn for_subcommand(arg: Arg, subcommand: Option<Subcommand>, detail: Detail, env: Env<'_>) -> Arg {
    let id = arg.get_id().as_str();
    let hidden = subcommand.is_some_and(|subcommand| !scope(id).contains(&subcommand));
    let is_read = subcommand.is_some_and(|subcommand| reads_variable(subcommand, id));
    let patient = subcommand == Some(Subcommand::InitSync) && id == "network_timeout";
    // clap takes an empty variable for a value.
    let is_empty = arg.get_env().and_then(OsStr::to_str).and_then(env).is_some_and(|value| value.is_empty());
    let (short, takes_value) = (detail == Detail::Short, arg.get_action().takes_values());
    let is_long = arg.get_default_values().iter().any(|value| value.to_string_lossy().contains(' '));
    let arg = arg.hide(hidden).hide_env_values(true).hide_env(short).hide_possible_values(short && takes_value);
    let arg = arg.hide_default_value(short && is_long);
    let arg = if patient { arg.default_value("1h") } else { arg };
    // The full help names every variable, and does not read them.
    if short && (is_empty || !is_read) { arg.env(Resettable::Reset) } else { arg }
}

fn bad_variable(name: &str, value: &str, why: &str) -> String {
    format!("{name} is '{value}': {why}")
}

/// Whether the result is wanted as JSON, for a command line that could not be parsed.
pub fn wants_json(args: &[OsString], env: Env<'_>) -> bool {
    let args: Vec<&OsString> = ours(args).collect();
    let apart = args.windows(2).filter(|pair| pair[0] == "--output").map(|pair| pair[1].clone());
    let joined = args.iter().filter_map(|arg| Some(arg.to_str()?.strip_prefix("--output=")?.into()));
    let given = apart.chain(joined).last();
    given.or_else(|| env("GIT_SYNC_OUTPUT")).is_some_and(|value| value == "json")
}

/// The result object for a command line that could not be parsed: it has the same keys as any other, and `command` is null.
pub fn usage_json(error: &str, now: chrono::DateTime<chrono::Utc>) -> String {
    let mut object = Outcome::new(outcome::Command::Sync, now).json();
    object["command"] = serde_json::Value::Null;
    object["exit_code"] = 2.into();
    object["error"] = error.trim().into();
    object.to_string()
}

#[cfg(test)]
mod tests;
