//! The command line as it was given, before clap reads it.

use std::error::Error;
use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction};

use super::help::Detail;
use super::{Env, Subcommand, bad_variable, scope, values};

/// The command line with its subcommand taken out. Flags may come before and after the subcommand, but clap reads them in one
/// place only.
pub struct Line {
    /// The program's name, then everything but the subcommand, in order. A word in the subcommand's place that is not one comes
    /// first.
    pub args: Vec<OsString>,
    pub subcommand: Option<Subcommand>,
    pub detail: Detail,
}

impl Line {
    /// Takes the subcommand out; `flags` tells which flags take a value. `help SUBCOMMAND` becomes `SUBCOMMAND --help`.
    pub fn new(mut args: Vec<OsString>, flags: &clap::Command) -> Self {
        let mut at = subcommand_at(&args, flags);
        if let Some(help) = at.filter(|at| args.get(*at).is_some_and(|word| word == "help")) {
            args.remove(help);
            args.insert(1, "--help".into());
            at = subcommand_at(&args, flags);
        }
        let word = at.map(|at| args.remove(at));
        let subcommand = word.as_deref().and_then(Subcommand::of_word);
        if let Some(word) = word.filter(|_| subcommand.is_none()) {
            args.insert(1, word);
        }
        let full = ours(&args).any(|arg| arg == "--help");
        Self { args, subcommand, detail: if full { Detail::Full } else { Detail::Short } }
    }

    /// Returns an error that clap does not find: a flag that this subcommand does not have, or a switch that is given as a flag
    /// while its variable holds neither yes nor no.
    pub fn fault(&self, command: &clap::Command, env: Env<'_>) -> Option<String> {
        let subcommand = self.subcommand?;
        let given: Vec<&Arg> = command.get_arguments().filter(|arg| self.gives(arg)).collect();
        for arg in &given {
            let subcommands = scope(arg.get_id().as_str());
            if !subcommands.contains(&subcommand) {
                let owners: Vec<String> =
                    subcommands.iter().map(|owner| format!("`gitsync {}`", owner.word())).collect();
                return Some(
                    format!(
                        "'--{}' means nothing to `gitsync {}`: it is an option of {}",
                        arg.get_long().unwrap_or_default(),
                        subcommand.word(),
                        owners.join(" and ")
                    ) + if *arg.get_id() == "remote_url" { ", which sets the URL for all of them" } else { "" },
                );
            }
        }
        given.iter().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue)).find_map(|arg| {
            let name = arg.get_env()?.to_str()?;
            let value = env(name)?.to_string_lossy().into_owned();
            values::switch(&value).err().map(|why| bad_variable(name, &value, &why))
        })
    }

    /// Makes an error about a variable's value name the variable, not the flag, which was not given.
    pub fn name_variable(&self, mut error: clap::Error, command: &mut clap::Command) -> clap::Error {
        let said = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            _ => String::new(),
        };
        let (flag, value) = (said(ContextKind::InvalidArg), said(ContextKind::InvalidValue));
        let arg = command.get_arguments().find(|arg| arg.to_string() == flag && !self.gives(arg));
        let Some(name) = arg.and_then(Arg::get_env).map(|name| name.to_string_lossy().into_owned()) else {
            return error;
        };
        if let Some(why) = error.source().map(ToString::to_string) {
            return command.error(error.kind(), bad_variable(&name, &value, &why));
        }
        error.insert(ContextKind::InvalidArg, ContextValue::String(name));
        error
    }

    fn gives(&self, arg: &Arg) -> bool {
        ours(&self.args).any(|given| {
            let name = given.to_str().and_then(|text| text.strip_prefix("--"));
            name.is_some_and(|name| name.split('=').next() == arg.get_long())
        })
    }
}

/// The arguments before `--`; those after it belong to the job.
pub fn ours(args: &[OsString]) -> impl Iterator<Item = &OsString> {
    args.iter().take_while(|arg| *arg != "--")
}

/// The index of the first argument that is neither a flag nor a flag's value.
fn subcommand_at(args: &[OsString], flags: &clap::Command) -> Option<usize> {
    let takes_value = |arg: &OsStr| {
        let name = arg.to_str().and_then(|arg| arg.strip_prefix("--"));
        name.is_some_and(|name| {
            flags.get_arguments().any(|flag| flag.get_long() == Some(name) && flag.get_action().takes_values())
        })
    };
    let mut is_value = false;
    ours(args)
        .skip(1)
        .position(|arg| {
            let found = !is_value && !arg.as_encoded_bytes().starts_with(b"-");
            is_value = !is_value && takes_value(arg);
            found
        })
        .map(|at| at + 1)
}
