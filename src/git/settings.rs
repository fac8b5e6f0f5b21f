//! Git's configuration where it can't be read: the file and the key, so that a person finds what to mend.
//!
//! A setting that is wrong is no damage. Nothing is put aside for it, and the configuration stays as it is.

use std::io;
use std::path::{Path, PathBuf};

use super::Place;
use crate::error::{Error, Kind};
use crate::fs::files;

/// The settings that libgit2 reads as it opens a repository, and that must be true or false.
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

/// Refuses a setting that must be true or false and is neither, as git does: not each pass comes to need each of them.
///
/// # Errors
/// [`Kind::NotReady`], naming file and key.
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

/// A failure that came from a setting, with the file and the key of that instead of libgit2's words.
pub fn named(place: &Place, failure: Error) -> Error {
    if failure.kind != Kind::NotReady || !failure.what.contains("failed to parse '") {
        return failure;
    }
    let said = git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Config, &failure.what);
    refused(place, &said).unwrap_or(failure)
}

/// The files that git reads its configuration from, as far as they are there.
fn files(place: &Place) -> Vec<PathBuf> {
    let own = ["config", "config.worktree"].map(|name| place.git_dir.join(name));
    let found = [git2::Config::find_global(), git2::Config::find_xdg(), git2::Config::find_system()];
    own.into_iter().chain(found.into_iter().flatten()).collect()
}

fn wrong_in(file: &Path, error: &git2::Error, from_there: bool) -> Option<Error> {
    let mend =
        |what: String, file: &str| Some(Error::new(Kind::NotReady, what, format!("mend {file}; nothing was touched")));
    let name = file.display().to_string();
    let refused = |what: String| mend(what, &name);
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
        // libgit2 names the line, and of an include the file that is included.
        Err(error) => {
            let said = error.message();
            // Of a file that the system keeps from us libgit2 says no more than its name.
            let closed = said.split_once("failed open - '").and_then(|(_, rest)| rest.split_once('\''));
            if let Some((included, _)) = closed.filter(|(included, _)| *included != name) {
                let what =
                    format!("git's configuration {name} includes {included} (include.path), which can't be read");
                let next = format!("let this user read {included}, or take the include out; nothing was touched");
                return Some(Error::new(Kind::NotReady, what, next));
            }
            let place = said.rsplit_once("(in ").and_then(|(_, place)| place.rsplit_once(':'));
            let at_fault = place.map_or(&*name, |(file, _)| file);
            return mend(format!("git's configuration {name} can't be read: {said}"), at_fault);
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
        let wrong = || mend(format!("{key} = {value} in {file} is no value that git knows for it"), &file);
        if BOOLEANS.contains(&key.as_str()) && git2::Config::parse_bool(value.as_str()).is_err() {
            return wrong();
        }
        // Another key may have this value, and may have it rightly.
        if is_named && likely.is_none() {
            likely = wrong();
        }
    }
    likely
}
