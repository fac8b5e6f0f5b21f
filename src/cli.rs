//! Flags and environment → [`Config`]. Nothing else in the program reads either.
//!
//! A flag wins over its environment variable; a variable that is set to nothing counts as unset, because that is what
//! `${NAME:-}` in a compose file makes of one that nobody filled in.
//!
//! Each subcommand has the flags that mean something to it (`scope`), and reads the variables of these flags. Others may
//! be set, and may say anything: a container has one environment for all subcommands.

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
    /// Where this instance stands, and whether that is good enough.
    Status(Option<Healthy>),
}

/// What `gitsync status --max-age` takes for healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healthy {
    /// What must not be older.
    pub of: Of,
    /// Than this.
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

/// The subcommands that a flag, by its id, means something to. They have it in their help; others refuse it.
fn scope(id: &str) -> &'static [Subcommand] {
    use Subcommand::{InitSync, Status, Sync, Tick};
    match id {
        "remote_url" => &[InitSync],
        "tick_command" | "paths" | "message" | "max_file_size" => &[Tick],
        "keep_rescues" => &[InitSync, Tick],
        "on_divergence" => &[Sync, Tick],
        "job_timeout" => &[Tick, Status],
        "max_age" | "of" => &[Status],
        "token_file"
        | "token_host"
        | "allow_insecure_http"
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

/// Whether a subcommand reads the variable of a flag: where it has the flag, and in two cases more.
fn reads_variable(subcommand: Subcommand, id: &str) -> bool {
    // A secret in the URL, and what a public dir must not hold.
    let more = matches!(id, "remote_url" | "paths") && Subcommand::PASSES.contains(&subcommand);
    more || scope(id).contains(&subcommand)
}

/// Where a variable is looked up.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads the command line and the environment.
///
/// # Errors
/// What clap has to say: the help and the version too, which are printed and end with exit code 0.
pub fn read(args: impl IntoIterator<Item = OsString>, env: Env<'_>) -> Result<(Asked, Config), clap::Error> {
    let flags = Config::augment_args(clap::Command::new("gitsync"));
    let line = Line::new(args.into_iter().collect(), &flags);
    // Some thousand small pieces, read once in a process that lives for milliseconds: taking them apart would be a part of
    // what a poll costs.
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

/// What clap gets to know for this command line: the subcommand with its flags; without one, the program's pages.
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

/// The id of what stands after `--`.
const JOB: &str = "job";

fn job() -> Arg {
    Arg::new(JOB)
        .value_name("COMMAND")
        .help("The job: a program and its arguments")
        .long_help("The job: a program and its arguments. Without one it is --tick-command.")
        .help_heading("Job and commit")
        .last(true)
        .num_args(0..)
        .value_parser(clap::value_parser!(OsString))
}

/// A flag as one subcommand has it; `None`: as the program's page shows it.
fn for_subcommand(arg: Arg, subcommand: Option<Subcommand>, detail: Detail, env: Env<'_>) -> Arg {
    let id = arg.get_id().as_str();
    let hidden = subcommand.is_some_and(|subcommand| !scope(id).contains(&subcommand));
    let is_read = subcommand.is_some_and(|subcommand| reads_variable(subcommand, id));
    let patient = subcommand == Some(Subcommand::InitSync) && id == "network_timeout";
    // clap takes a variable that is set to nothing for a value.
    let is_empty = arg.get_env().and_then(OsStr::to_str).and_then(env).is_some_and(|value| value.is_empty());
    let (short, takes_value) = (detail == Detail::Short, arg.get_action().takes_values());
    let is_long = arg.get_default_values().iter().any(|value| value.to_string_lossy().contains(' '));
    let arg = arg.hide(hidden).hide_env_values(true).hide_env(short).hide_possible_values(short && takes_value);
    let arg = arg.hide_default_value(short && is_long);
    let arg = if patient { arg.default_value("1h") } else { arg };
    // The full help reads no variable, but names each.
    if short && (is_empty || !is_read) { arg.env(Resettable::Reset) } else { arg }
}

fn bad_variable(name: &str, value: &str, why: &str) -> String {
    format!("{name} is '{value}': {why}")
}

/// Whether the result is wanted as JSON, for a command line that could not be read as a whole.
pub fn wants_json(args: &[OsString], env: Env<'_>) -> bool {
    let args: Vec<&OsString> = ours(args).collect();
    let apart = args.windows(2).filter(|pair| pair[0] == "--output").map(|pair| pair[1].clone());
    let joined = args.iter().filter_map(|arg| Some(arg.to_str()?.strip_prefix("--output=")?.into()));
    let given = apart.chain(joined).last();
    given.or_else(|| env("GIT_SYNC_OUTPUT")).is_some_and(|value| value == "json")
}

/// The result object for a command line that could not be read: the keys of any other, and no command.
pub fn usage_json(error: &str, now: chrono::DateTime<chrono::Utc>) -> String {
    let mut object = Outcome::new(outcome::Command::Sync, now).json();
    object["command"] = serde_json::Value::Null;
    object["exit_code"] = 2.into();
    object["error"] = error.trim().into();
    object.to_string()
}

#[cfg(test)]
mod tests;
