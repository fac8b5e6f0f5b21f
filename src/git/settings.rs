//! Finds the file and the key of a wrong setting in git's configuration, so that a person knows what to correct.
//!
//! A wrong setting is not damage. Nothing is put aside because of it, and the configuration stays as it is.

use std::io;
use std::path::{Path, PathBuf};

use super::Place;
use crate::error::{Error, Kind};
use crate::fs::files;

/// The boolean settings that libgit2 reads when it opens a repository.
const BOOLEANS: &[&str] = &[
    "core.bare",
    "core.filemode",
    "core.ignorecase",
    "core.symlinks",
    "core.logallrefupdates",
    "core.precomposeunicode",
    "core.protecthfs",
    "core.protectntfs",
    "core.fsyncobjectfiles",
    "core.trustctime",
    "core.sparsecheckout",
    "core.longpaths",
    "index.threads",
];

/// The part of the configuration that keeps a repository from being opened, if `error` comes from there.
pub(crate) fn check_booleans(place: &Place, config: &git2::Config) -> Result<(), Error> {
    let input = config.get_string("core.autocrlf").is_ok_and(|value| value.eq_ignore_ascii_case("input"));
    let autocrlf = (!input).then_some("core.autocrlf");
    for key in BOOLEANS.iter().copied().chain(autocrlf) {
        if let Err(error) = config.get_bool(key)
            && error.code() != git2::ErrorCode::NotFound
        {
            return Err(refused(place, &error).unwrap_or_else(|| Error::git(format!("reading {key}"), &error)));
        }
    }
    Ok(())
}

/// What of the configuration keeps a repository from being opened, if `error` comes from there.
pub(crate) fn refused(place: &Place, error: &git2::Error) -> Option<Error> {
    let from_there = error.class() == git2::ErrorClass::Config || error.message().contains("parse");
    files(place).into_iter().find_map(|file| wrong_in(&file, error, from_there))
}

/// Replaces libgit2's message for a wrong setting by one that names the file and the key.
pub fn named(place: &Place, failure: Error) -> Error {
    if failure.kind != Kind::NotReady || !failure.what.contains("failed to parse '") {
        return failure;
    }
    let said = git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Config, &failure.what);
    refused(place, &said).unwrap_or(failure)
}

/// The existing files that git reads its configuration from.
fn files(place: &Place) -> Vec<PathBuf> {
    let own = ["config", "config.worktree"].map(|name| place.git_dir.join(name));
    let found = [git2::Config::find_global(), git2::Config::find_xdg(), git2::Config::find_system()];
    own.into_iter().chain(found.into_iter().flatten()).collect()
}

fn wrong_in(file: &Path, error: &git2::Error, from_there: bool) -> Option<Error> {
    let wrong_setting = |what: String, file: &str| {
        Some(Error::new(Kind::NotReady, what, format!("correct {file}; nothing was touched")))
    };
    let name = file.display().to_string();
    let refused = |what: String| wrong_setting(what, &name);
    match files::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let error = Error::path("reading git's configuration", file, &error);
            return if error.kind == Kind::Exhausted { Some(error) } else { refused(error.what) };
        }
        Ok(_) => {}
    }
    let config = match git2::Config::open(file).and_then(|mut config| config.snapshot()) {
        Ok(config) => config,
        // libgit2 names the line, and for an include the included file.
        Err(error) => {
            let said = error.message();
            // For a file that may not be read, libgit2 gives only the name.
            let closed = said.split_once("failed open - '").and_then(|(_, rest)| rest.split_once('\''));
            if let Some((included, _)) = closed.filter(|(included, _)| *included != name) {
                let what =
                    format!("git's configuration {name} includes {included} (include.path), which can't be read");
                let next = format!("let this user read {included}, or remove the include; nothing was touched");
                return Some(Error::new(Kind::NotReady, what, next));
            }
            let place = said.rsplit_once("(in ").and_then(|(_, place)| place.rsplit_once(':'));
            let at_fault = place.map_or(&*name, |(file, _)| file);
            return wrong_setting(format!("git's configuration {name} can't be read: {said}"), at_fault);
        }
    };
    if !from_there {
        return None;
    }
    let mut entries = config.entries(None).ok()?;
    let mut likely = None;
    while let Some(Ok(entry)) = entries.next() {
        let key = entry.name().unwrap_or_default().to_ascii_lowercase();
        if !entry.has_value() {
            continue;
        }
        let value = String::from_utf8_lossy(entry.value_bytes()).into_owned();
        let is_named = !value.is_empty() && error.message().contains(&format!("'{value}'"));
        let file = if entry.include_depth() > 0 { format!("a file that {name} includes") } else { name.clone() };
        let wrong = || wrong_setting(format!("{key} = {value} in {file} is not a value that git accepts"), &file);
        if BOOLEANS.contains(&key.as_str()) && git2::Config::parse_bool(value.as_str()).is_err() {
            return wrong();
        }
        // Another key may have this value, and be right to.
        if is_named && likely.is_none() {
            likely = wrong();
        }
    }
    likely
}
