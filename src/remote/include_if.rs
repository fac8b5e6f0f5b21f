//! `includeIf "hasconfig:remote.*.url:GLOB"`, which libgit2 does not know: a file that git reads where a remote's URL fits.
//!
//! People keep an identity and credentials for each forge in such files. What libgit2 reads by itself stays without them.

use std::path::{Path, PathBuf};

const PREFIX: &str = "includeif.hasconfig:remote.*.url:";

/// Gives each entry whose name the regular expression `pattern` matches, in the order git reads them, with those of the files
/// that are included for a remote's URL.
pub(crate) fn entries(config: &git2::Config, pattern: &str, mut take: impl FnMut(&str, &str)) {
    let urls = if has_any(config) { remote_urls(config) } else { Vec::new() };
    let pattern = if urls.is_empty() { pattern.to_owned() } else { format!(r"({pattern})|^includeif\.") };
    each(config, &pattern, |entry, name, value| match included(entry, name, value, &urls) {
        Included::File(file) => {
            // An URL of a remote can't be set there: it decides what is included.
            let opened = git2::Config::open(&file).and_then(|mut config| config.snapshot());
            match opened {
                Ok(config) => each(&config, &pattern, |_, name, value| {
                    if !name.starts_with("includeif.") && !is_url(name) {
                        take(name, value);
                    }
                }),
                Err(e) => {
                    tracing::debug!(file = %file.display(), error = e.message(), "an included file can't be read")
                }
            }
        }
        Included::Nothing => {}
        Included::No => take(name, value),
    });
}

/// The last value of `key`, with those files.
pub(crate) fn value(config: &git2::Config, key: &str) -> Option<String> {
    if !has_any(config) {
        return config.get_string(key).ok();
    }
    let mut found = None;
    let pattern = format!("^{}$", key.replace('.', r"\."));
    entries(config, &pattern, |_, value| found = Some(value.to_owned()));
    found
}

/// Whether there is such an include at all.
pub(crate) fn has_any(config: &git2::Config) -> bool {
    let mut found = false;
    each(config, r"^includeif\.hasconfig:", |_, name, _| found |= name.starts_with(PREFIX));
    found
}

enum Included {
    /// It is an include for a URL that a remote has.
    File(PathBuf),
    /// It is another include.
    Nothing,
    /// It is no include.
    No,
}

fn included(entry: &git2::ConfigEntry<'_>, name: &str, value: &str, urls: &[String]) -> Included {
    if !name.starts_with("includeif.") {
        return Included::No;
    }
    let glob = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(".path"));
    match glob.filter(|glob| urls.iter().any(|url| fits(glob.as_bytes(), url.as_bytes()))) {
        Some(_) => file(entry.level(), value).map_or(Included::Nothing, Included::File),
        None => Included::Nothing,
    }
}

/// The file of an include: below the home folder, or beside the file that names it.
fn file(level: git2::ConfigLevel, path: &str) -> Option<PathBuf> {
    use git2::ConfigLevel::{Global, ProgramData, System, XDG};
    let global = git2::Config::find_global();
    if let Some(below) = path.strip_prefix("~/") {
        return Some(global.ok()?.parent()?.join(below));
    }
    if Path::new(path).is_absolute() {
        return Some(path.into());
    }
    let beside = match level {
        Global => global,
        XDG => git2::Config::find_xdg(),
        System | ProgramData => git2::Config::find_system(),
        _ => return None,
    };
    Some(beside.ok()?.parent()?.join(path))
}

fn remote_urls(config: &git2::Config) -> Vec<String> {
    let mut urls = Vec::new();
    each(config, r"^remote\..*\.url$", |_, _, url| urls.push(url.to_owned()));
    urls
}

fn is_url(name: &str) -> bool {
    name.starts_with("remote.") && (name.ends_with(".url") || name.ends_with(".pushurl"))
}

fn each(config: &git2::Config, pattern: &str, mut take: impl FnMut(&git2::ConfigEntry<'_>, &str, &str)) {
    let Ok(mut entries) = config.entries(Some(pattern)) else { return };
    while let Some(Ok(entry)) = entries.next() {
        if let (Ok(name), Ok(value)) =
            (std::str::from_utf8(entry.name_bytes()), std::str::from_utf8(entry.value_bytes()))
        {
            take(entry, name, value);
        }
    }
}

/// Whether a glob matches all of a text, as git's `wildmatch` with `WM_PATHNAME`: `*` and `?` stop at a slash, `**` between
/// slashes does not.
fn fits(glob: &[u8], text: &[u8]) -> bool {
    fits_from(glob, text, true)
}

/// `begins`: the glob begins here, or a slash came before.
fn fits_from(glob: &[u8], text: &[u8], begins: bool) -> bool {
    let one = |rest: &[u8]| fits_from(rest, text.get(1..).unwrap_or_default(), text.first() == Some(&b'/'));
    match glob {
        [] => text.is_empty(),
        [b'*', b'*', b'/', rest @ ..] if begins => {
            // No folder at all, or any number of them.
            let below = |at: usize| {
                text.get(at) == Some(&b'/') && fits_from(rest, text.get(at + 1..).unwrap_or_default(), true)
            };
            fits_from(rest, text, true) || (0..text.len()).any(below)
        }
        [b'*', b'*'] if begins => true,
        [b'*', rest @ ..] => {
            let end = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=end).any(|at| fits_from(rest, text.get(at..).unwrap_or_default(), false))
        }
        [b'?', rest @ ..] => text.first().is_some_and(|b| *b != b'/') && one(rest),
        [b'[', inside @ ..] => match inside.iter().skip(1).position(|b| *b == b']') {
            Some(end) => {
                let (class, rest) = (inside.get(..=end).unwrap_or_default(), inside.get(end + 2..).unwrap_or_default());
                text.first().is_some_and(|b| *b != b'/' && in_class(class, *b)) && one(rest)
            }
            None => false,
        },
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => text.first() == Some(literal) && one(rest),
    }
}

/// Whether a byte is in `a-z`, `abc` or, with a `!` or `^` before them, not.
fn in_class(class: &[u8], byte: u8) -> bool {
    let (not, mut class) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        class => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [first, b'-', last, rest @ ..] => {
                found |= (*first..=*last).contains(&byte);
                rest
            }
            [one, rest @ ..] => {
                found |= *one == byte;
                rest
            }
            [] => return found != not,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_git() {
        for (glob, url, expected) in [
            ("https://github.com/team/**", "https://github.com/team/a.git", true),
            ("https://github.com/team/**", "https://github.com/team/a/b.git", true),
            ("https://github.com/team/**", "https://github.com/other/a.git", false),
            ("https://github.com/*", "https://github.com/team/a.git", false),
            ("https://github.com/*/a.git", "https://github.com/team/a.git", true),
            ("git@github.com:team/**", "git@github.com:team/a.git", true),
            ("**/team/*", "https://github.com/team/a", true),
            ("https://*.example/**/a", "https://git.example/a", true),
            ("https://git.example/?", "https://git.example/a", true),
            ("https://git.example/?", "https://git.example//", false),
            ("https://git.example/[a-c]", "https://git.example/b", true),
            ("https://git.example/[!a-c]", "https://git.example/b", false),
            (r"https://git.example/\*", "https://git.example/*", true),
            (r"https://git.example/\*", "https://git.example/a", false),
            ("https://git.example", "https://git.example/", false),
            ("https:**", "https://git.example", false),
            ("https://git.example/t**/a", "https://git.example/team/a", true),
            ("https://git.example/t**/a", "https://git.example/team/b/a", false),
            ("https://git.example/**/a", "https://git.example/a", true),
            ("**", "https://git.example/a", true),
        ] {
            assert_eq!(fits(glob.as_bytes(), url.as_bytes()), expected, "{glob} {url}");
        }
    }
}
