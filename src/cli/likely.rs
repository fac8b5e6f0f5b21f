//! What was likely meant: a variable that nothing reads, a daemon that there is none of.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args};

use super::Config;

/// What the variables of gitsync begin with.
const PREFIX: &str = "GIT_SYNC_";

/// Variables that belong to no flag: the token, and what the container's entry point and schedulers read.
const WITHOUT_A_FLAG: [&str; 3] = ["GIT_SYNC_TOKEN", "GIT_SYNC_SYNC_INTERVAL", "GIT_SYNC_TICK_INTERVAL"];

/// Words for what repeats passes, as a subcommand or a flag of other programs.
const DAEMON: [&str; 8] = ["daemon", "run", "watch", "serve", "start", "loop", "interval", "every"];

/// The variables that are set, begin as ours do and mean nothing to any subcommand: a sentence that names each, with the one that
/// was likely meant.
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

/// The known variable that is most like this one, as clap judges the values of a flag. They all begin alike, so that counts for
/// nothing.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    // clap keeps what lives for ever, and this happens once.
    let ends = |name: &String| -> &'static str { String::leak(name.trim_start_matches(PREFIX).to_owned()) };
    let values = PossibleValuesParser::new(known.iter().map(ends));
    let mut words = clap::Command::new("").no_binary_name(true).arg(Arg::new("name").value_parser(values));
    let error = words.try_get_matches_from_mut([name.trim_start_matches(PREFIX)]).err()?;
    match error.get(ContextKind::SuggestedValue)? {
        ContextValue::String(meant) => Some(format!("{PREFIX}{meant}")),
        _ => None,
    }
}

/// Says to somebody who looks for a daemon that a scheduler runs the passes.
pub fn name_the_scheduler(error: &mut clap::Error) {
    let word = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].into_iter().find_map(|kind| error.get(kind));
    let Some(ContextValue::String(word)) = word else { return };
    if DAEMON.contains(&word.trim_start_matches('-')) {
        let tip = "there is no daemon: a scheduler (cron, systemd, supercronic, a CronJob) runs `gitsync sync` every 30 s and \
                   `gitsync tick` every 15 min, each of which is one pass and ends; docs/schedulers.md shows how";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}
