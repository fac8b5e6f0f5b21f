//! Hints for likely mistakes: a misspelled variable, and somebody who looks for a daemon.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args};

use super::Config;

/// The prefix of gitsync's variables.
const PREFIX: &str = "GIT_SYNC_";

/// Variables without a flag: the token, and those that the container's entry point and schedulers read.
const WITHOUT_A_FLAG: [&str; 3] = ["GIT_SYNC_TOKEN", "GIT_SYNC_SYNC_INTERVAL", "GIT_SYNC_TICK_INTERVAL"];

/// Words that other programs use, as a subcommand or a flag, for running again and again.
const DAEMON: [&str; 8] = ["daemon", "run", "watch", "serve", "start", "loop", "interval", "every"];

/// Names the variables that are set and have gitsync's prefix, but that no subcommand reads, each with the one that was likely
/// meant. `None` if there are none.
pub fn unknown_variables(set: impl IntoIterator<Item = (OsString, OsString)>) -> Option<String> {
    let names = set.into_iter().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok());
    let names: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    if names.is_empty() {
        return None;
    }
    let flags = Config::augment_args(clap::Command::new("gitsync"));
    let of_flags = flags.get_arguments().filter_map(Arg::get_env).filter_map(|name| name.to_str().map(str::to_owned));
    let known: Vec<String> = of_flags.chain(WITHOUT_A_FLAG.map(str::to_owned)).collect();
    let mut unknown: Vec<String> = names.into_iter().filter(|name| !known.contains(name)).collect();
    unknown.sort();
    for name in &mut unknown {
        if let Some(meant) = nearest(name, &known) {
            *name += &format!(" (did you mean {meant}?)");
        }
    }
    (!unknown.is_empty()).then(|| format!("nothing reads {}", unknown.join(", ")))
}

/// The known variable that is most like this one, by clap's measure for the values of a flag. The common prefix is left out of
/// the comparison.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    // clap wants strings that live for ever. This runs once in a process, so the leak is small.
    let ends = |name: &String| -> &'static str { String::leak(name.trim_start_matches(PREFIX).to_owned()) };
    let values = PossibleValuesParser::new(known.iter().map(ends));
    let mut words = clap::Command::new("").no_binary_name(true).arg(Arg::new("name").value_parser(values));
    let error = words.try_get_matches_from_mut([name.trim_start_matches(PREFIX)]).err()?;
    match error.get(ContextKind::SuggestedValue)? {
        ContextValue::String(meant) => Some(format!("{PREFIX}{meant}")),
        _ => None,
    }
}

/// If the command line looks for a daemon, adds a hint that a scheduler runs the passes.
pub fn name_the_scheduler(error: &mut clap::Error) {
    let word = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].into_iter().find_map(|kind| error.get(kind));
    let Some(ContextValue::String(word)) = word else { return };
    if DAEMON.contains(&word.trim_start_matches('-')) {
        let tip = "there is no daemon: a scheduler (cron, systemd, supercronic, a CronJob) runs `gitsync sync` every 30 s and \
                   `gitsync tick` every 15 min; each does one pass and ends; docs/schedulers.md shows how";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}
