//! Configuration that git is given in the environment (`GIT_CONFIG_COUNT`, `GIT_CONFIG_KEY_<n>`, `GIT_CONFIG_VALUE_<n>`), which
//! libgit2 does not read. It counts more than any file.
//!
//! What reaching a remote takes is honoured: `http.*`, `credential.*`, `core.sshCommand`, `core.askPass`, `ssh.variant` and
//! `url.*`. `GIT_CONFIG_PARAMETERS` (`git -c`) is git's own business, and not read.

use std::ffi::OsString;

use super::config::{PREFIXES, Rewriting};
use super::credentials::register_header_line;
use super::include_if;

/// The entries in their order, or why git would refuse them.
#[derive(Clone, Default)]
pub(super) struct EnvConfig {
    pub entries: Vec<(String, String)>,
    pub fault: Option<String>,
}

impl EnvConfig {
    /// Reads them. The secrets among them are masked in every text from here on.
    pub fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> EnvConfig {
        let text = |name: &str| {
            lookup(name)
                .ok_or_else(|| format!("{name} is not set"))
                .and_then(|value| value.into_string().map_err(|_| format!("{name} is not UTF-8")))
        };
        let count = text("GIT_CONFIG_COUNT").ok().filter(|count| !count.is_empty());
        let Some(count) = count else { return EnvConfig::default() };
        let Ok(count) = count.parse::<u32>() else {
            return EnvConfig { fault: Some(format!("it is '{count}', which is no number")), ..EnvConfig::default() };
        };
        let mut read = EnvConfig::default();
        for number in 0..count {
            let pair = text(&format!("GIT_CONFIG_KEY_{number}"))
                .and_then(|key| Ok((key, text(&format!("GIT_CONFIG_VALUE_{number}"))?)));
            match pair {
                Ok((key, value)) => read.entries.extend(canonical(&key).map(|key| (key, value))),
                Err(fault) => {
                    read.fault = Some(fault);
                    break;
                }
            }
        }
        read.entries.retain(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix)));
        let headers = read.entries.iter().filter(|(key, _)| key.ends_with(".extraheader"));
        headers.for_each(|(_, line)| register_header_line(line));
        read
    }

    /// What a remote's URL becomes by these entries and by those of `config`, if there may be some that libgit2 does not know.
    pub fn rewriting(&self, config: &git2::Config) -> Option<Rewriting> {
        // What libgit2 knows nothing of.
        if !self.entries.iter().any(|(key, _)| key.starts_with("url.")) && !include_if::has_any(config) {
            return None;
        }
        let mut rewriting = Rewriting::read(config);
        self.entries.iter().for_each(|(key, value)| rewriting.take(key, value));
        Some(rewriting)
    }
}

/// The key as libgit2 gives it: section and name in lower case, what is between them as it is.
fn canonical(key: &str) -> Option<String> {
    let (section, rest) = key.split_once('.')?;
    let (between, name) = match rest.rsplit_once('.') {
        Some((between, name)) => (format!("{between}."), name),
        None => (String::new(), rest),
    };
    Some(format!("{}.{between}{}", section.to_ascii_lowercase(), name.to_ascii_lowercase()))
}
