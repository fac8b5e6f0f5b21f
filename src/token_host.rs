//! The record of which host a token is for: `token-host` in the private folder, a line for each remote.
//!
//! It is written by init-sync, or, in a repository that has none, by the first pass, before any job runs. From then on the
//! repository's configuration has no say in where a token goes. The record holds hosts, no secrets.

use std::io;

use crate::private::PrivateDir;
use crate::transport::TokenHost;

const NAME: &str = "token-host";

/// What a pass knows of where its tokens may go, the strongest first. The record comes between the second and the third.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// `--token-host`.
    pub option: Option<&'a TokenHost>,
    /// The remote's URL as the command line or the environment gives it.
    pub given_url: Option<&'a str>,
    /// `GITHUB_SERVER_URL`.
    pub server_url: Option<&'a str>,
    /// The remote's URL in the repository's configuration, without git's `insteadOf`.
    pub stored_url: Option<&'a str>,
}

/// When the record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Always (init-sync).
    New,
    /// Where there is none (the other passes).
    First,
    /// Never (a dry run).
    Never,
}

/// Finds out where the tokens of this pass may go, and records it.
///
/// # Errors
/// Those of the file system, and [`io::ErrorKind::InvalidData`] where the record is needed and can't be understood.
pub fn settle(private: &PrivateDir, remote: &str, known: &Known<'_>, recording: Recording) -> io::Result<TokenHost> {
    let said = known.option.cloned().or_else(|| known.given_url.map(TokenHost::of_url));
    let recorded = match read(private, remote) {
        // What is said now counts, and is recorded anew.
        Err(_) if said.is_some() => None,
        recorded => recorded?,
    };
    let first = || {
        let server = known.server_url.map(TokenHost::of_url).filter(|host| *host != TokenHost::Nowhere);
        server.or_else(|| known.stored_url.map(TokenHost::of_url))
    };
    let Some(host) = said.or_else(|| recorded.clone()).or_else(first) else { return Ok(TokenHost::Nowhere) };
    let write = match recording {
        Recording::New => recorded.as_ref() != Some(&host),
        Recording::First => recorded.is_none(),
        Recording::Never => false,
    };
    if write {
        record(private, remote, &host)?;
    }
    Ok(host)
}

fn read(private: &PrivateDir, remote: &str) -> io::Result<Option<TokenHost>> {
    let text = private.read(NAME)?.unwrap_or_default();
    let text = String::from_utf8(text).map_err(|_| damaged())?;
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == remote);
    match found {
        Some((_, host)) => TokenHost::parse(host).map(Some).ok_or_else(damaged),
        None if text.lines().any(|line| !line.contains(' ')) => Err(damaged()),
        None => Ok(None),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not as gitsync writes it")
}

fn record(private: &PrivateDir, remote: &str, host: &TokenHost) -> io::Result<()> {
    let old = private.read(NAME)?.unwrap_or_default();
    let mut text = String::new();
    for line in String::from_utf8_lossy(&old).lines() {
        let name = line.split_once(' ').filter(|(_, host)| TokenHost::parse(host).is_some()).map(|(name, _)| name);
        if name.is_some_and(|name| name != remote) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(&format!("{remote} {host}\n"));
    private.write_durably(NAME, text.as_bytes())
}
