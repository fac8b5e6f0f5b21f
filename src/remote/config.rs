//! What git's own configuration says about reaching a remote: read once, when the session opens, and honoured.

use std::path::PathBuf;

use super::encoding::decoded;
use super::url::{HttpUrl, Remote};
use super::{Env, include_if};

/// The entries that matter to a transport, in the order git reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GitConfig {
    /// `core.sshCommand`
    pub ssh_command: Option<String>,
    /// `ssh.variant`
    pub ssh_variant: Option<String>,
    /// `core.askPass`
    pub ask_pass: Option<String>,
    /// `remote.<name>.proxy`: (name, value).
    remote_proxies: Vec<(String, String)>,
    /// `protocol.version`
    protocol_version: Option<String>,
    /// Of `http.…` and `credential.…`: (section, url pattern, key, value).
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    section: &'static str,
    pattern: Option<String>,
    key: String,
    value: String,
}

impl GitConfig {
    /// Reads what there is, and then `more`, which counts more; an entry that cannot be read is as good as absent.
    pub fn read(config: &git2::Config, more: &[(String, String)]) -> GitConfig {
        let mut read = GitConfig::default();
        include_if::entries(config, r"^(http|credential|core|ssh|remote|protocol)\.", |name, value| {
            read.take(name, value)
        });
        more.iter().for_each(|(name, value)| read.take(name, value));
        read
    }

    fn take(&mut self, name: &str, value: &str) {
        if let Some(remote) = name.strip_prefix("remote.").and_then(|rest| rest.strip_suffix(".proxy")) {
            self.remote_proxies.push((remote.to_owned(), value.to_owned()));
        }
        let to = match name {
            "core.sshcommand" => &mut self.ssh_command,
            "ssh.variant" => &mut self.ssh_variant,
            "core.askpass" => &mut self.ask_pass,
            "protocol.version" => &mut self.protocol_version,
            _ => {
                let named = |section: &'static str| Some((section, name.strip_prefix(section)?.strip_prefix('.')?));
                let Some((section, rest)) = named("http").or_else(|| named("credential")) else { return };
                let (pattern, key) = match rest.rsplit_once('.') {
                    Some((pattern, key)) => (Some(pattern.to_owned()), key),
                    None => (None, rest),
                };
                self.entries.push(Entry { section, pattern, key: key.to_owned(), value: value.to_owned() });
                return;
            }
        };
        *to = Some(value.to_owned());
    }

    /// `remote.<name>.proxy`; an empty one means none.
    pub fn remote_proxy(&self, remote: &str) -> Option<&str> {
        self.remote_proxies.iter().rfind(|(name, _)| name == remote).map(|(_, proxy)| proxy.as_str())
    }

    /// Returns whether `protocol.version` asks for a protocol from before v2.
    pub fn wants_old_protocol(&self) -> bool {
        self.protocol_version.as_deref().is_some_and(|version| matches!(version, "0" | "1"))
    }

    /// Every value of `section.key` and `section.<url>.key` that applies; an empty one takes back those before it.
    pub fn all<'a>(&'a self, section: &'a str, key: &'a str, url: &'a HttpUrl) -> Vec<&'a str> {
        let mut values = Vec::new();
        for entry in self.applying(section, key, url) {
            if entry.value.is_empty() {
                values.clear();
            } else {
                values.push(entry.value.as_str());
            }
        }
        values
    }

    /// The one value that applies: the last.
    pub fn one<'a>(&'a self, section: &'a str, key: &'a str, url: &'a HttpUrl) -> Option<&'a str> {
        self.applying(section, key, url).last().map(|e| e.value.as_str())
    }

    /// [`GitConfig::one`] as the path of a file, `~/` being the home folder.
    pub fn path(&self, section: &str, key: &str, url: &HttpUrl, env: &Env) -> Option<PathBuf> {
        let path = self.one(section, key, url).filter(|path| !path.is_empty())?;
        Some(match (path.strip_prefix("~/"), env.get("HOME")) {
            (Some(below), Some(home)) => PathBuf::from(home).join(below),
            _ => PathBuf::from(path),
        })
    }

    /// Each one, in the order git reads them. Of `http` only those that are at least as specific as the ones before them; of
    /// `credential` git takes all.
    fn applying<'a>(&'a self, section: &'a str, key: &'a str, url: &'a HttpUrl) -> impl Iterator<Item = &'a Entry> {
        let mut most = Match::default();
        self.entries.iter().filter(move |e| e.section == section && e.key == key).filter(move |e| {
            let Some(found) = e.pattern.as_deref().map_or(Some(Match::default()), |pattern| matched(pattern, url))
            else {
                return false;
            };
            most = most.max(found);
            most == found || section != "http"
        })
    }
}

/// How the keys begin that matter to a remote.
pub(super) const PREFIXES: &[&str] =
    &["http.", "credential.", "core.sshcommand", "core.askpass", "ssh.variant", "protocol.version", "url.", "remote."];

/// git's `url.<base>.insteadOf` and `url.<base>.pushInsteadOf`.
#[derive(Debug, Default)]
pub(crate) struct Rewriting {
    /// Each: (what a URL begins with, what takes its place).
    any: Vec<(String, String)>,
    push: Vec<(String, String)>,
}

impl Rewriting {
    pub(super) fn read(config: &git2::Config) -> Rewriting {
        let mut read = Rewriting::default();
        include_if::entries(config, r"^url\..*\.(push)?insteadof$", |name, value| read.take(name, value));
        read
    }

    pub(super) fn take(&mut self, name: &str, value: &str) {
        let Some((base, key)) = name.strip_prefix("url.").and_then(|rest| rest.rsplit_once('.')) else { return };
        let list = match key {
            "insteadof" => &mut self.any,
            "pushinsteadof" => &mut self.push,
            _ => return,
        };
        list.push((value.to_owned(), base.to_owned()));
    }

    /// The URL to fetch from and, where it is another, the one to push to.
    pub fn apply(&self, url: &str, push_url: Option<&str>) -> (String, Option<String>) {
        let push = match push_url {
            Some(push) => Some(rewritten(&self.any, push).unwrap_or_else(|| push.to_owned())),
            None => rewritten(&self.push, url),
        };
        (rewritten(&self.any, url).unwrap_or_else(|| url.to_owned()), push)
    }
}

/// The longest beginning counts, of equals the first.
fn rewritten(list: &[(String, String)], url: &str) -> Option<String> {
    let mut best: Option<(&str, &str)> = None;
    for (begin, base) in list {
        if url.starts_with(begin.as_str()) && best.is_none_or(|(longest, _)| begin.len() > longest.len()) {
            best = Some((begin, base));
        }
    }
    best.map(|(begin, base)| format!("{base}{}", url.get(begin.len()..).unwrap_or_default()))
}

/// How specific a pattern is: by the length of its host, of its path, and by whether it names the user.
type Match = (usize, usize, bool);

/// Whether `http.<pattern>.…` applies to this URL: scheme, host (with `*` for one label) and port alike, the path a prefix
/// at a `/`, the user alike if the pattern names one.
fn matched(pattern: &str, url: &HttpUrl) -> Option<Match> {
    // Stars are not for a URL's host; a word no host has stands for them while the pattern is taken apart.
    let Ok(Remote::Http(wanted)) = Remote::parse(&pattern.replace('*', STAR), std::path::Path::new("/")) else {
        return None;
    };
    let host = |h: &str| h.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (want, have) = (host(&wanted.origin.host), host(&url.origin.host));
    let path = decoded(&wanted.path);
    let applies = wanted.origin.scheme == url.origin.scheme
        && wanted.origin.port == url.origin.port
        && want.len() == have.len()
        && want.iter().zip(&have).all(|(w, h)| w == STAR || w == h)
        && (wanted.user.is_none() || wanted.user == url.user)
        && decoded(&url.path).strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let length: usize = want.iter().map(|label| if label == STAR { 2 } else { label.len() + 1 }).sum();
    applies.then(|| (length, path.len() + 1, wanted.user.is_some()))
}

const STAR: &str = "any-one-label";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn patterns_apply_as_in_git() {
        let Ok(Remote::Http(url)) = Remote::parse("https://git.example.com/o/r.git", std::path::Path::new("/")) else {
            panic!()
        };
        for (pattern, expected) in [
            ("https://git.example.com/", true),
            ("https://git.example.com", true),
            ("https://git.example.com:443/o", true),
            ("https://*.example.com", true),
            ("https://*.com", false),
            ("http://git.example.com", false),
            ("https://git.example.com/o/r", false),
            ("https://me@git.example.com", false),
            ("nonsense", false),
        ] {
            assert_eq!(matched(pattern, &url).is_some(), expected, "{pattern}");
        }
    }
    #[test]
    fn the_most_specific_value_counts_as_in_git() {
        let Ok(Remote::Http(url)) = Remote::parse("https://me@git.example.com/o/r.git", std::path::Path::new("/"))
        else {
            panic!()
        };
        let entries = |patterns: &[&str]| {
            let mut config = GitConfig::default();
            for pattern in patterns {
                let key = if pattern.is_empty() { "http.proxy".to_owned() } else { format!("http.{pattern}.proxy") };
                config.take(&key, &format!("by {pattern}"));
            }
            config
        };
        // The longer host counts more than the longer path, whatever the length of the whole.
        let (host, path) = ("https://git.example.com", "https://*.example.com/o/r.git");
        let user = "https://me@git.example.com";
        for (patterns, one, all) in [
            (vec!["", host], host, vec!["", host]),
            (vec![host, ""], host, vec![host]),
            (vec![path, host], host, vec![path, host]),
            (vec![host, path], host, vec![host]),
            (vec![user, host], user, vec![user]),
            (
                vec![user, "https://git.example.com/o"],
                "https://git.example.com/o",
                vec![user, "https://git.example.com/o"],
            ),
            (vec!["https://other.example", ""], "", vec![""]),
        ] {
            let config = entries(&patterns);
            assert_eq!(config.one("http", "proxy", &url), Some(&*format!("by {one}")), "{patterns:?}");
            let all: Vec<String> = all.iter().map(|pattern| format!("by {pattern}")).collect();
            assert_eq!(config.all("http", "proxy", &url), all, "{patterns:?}");
        }
        let mut config = GitConfig::default();
        config.take("credential.https://git.example.com.helper", "a");
        config.take("credential.helper", "b");
        assert_eq!(config.all("credential", "helper", &url), ["a", "b"], "git takes every helper");
    }
}
