//! The record of which host the token is for: `token-host` in the private folder, with a line for each remote.
//!
//! It is written by init-sync or, if a repository does not have one, by the first pass, before any job runs. From then on the
//! repository's configuration has no influence on where a token is sent. The record holds hosts, no secrets.

use std::io;

use crate::remote::TokenHost;
use crate::state::dir::PrivateDir;

const NAME: &str = "token-host";

/// The sources for where a token may be sent, the strongest first. The record comes between the second and the third.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// `--token-host`.
    pub option: Option<&'a TokenHost>,
    /// The remote's URL from the command line or the environment.
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
    /// If there is none (the other passes).
    First,
    /// Never (a dry run).
    Never,
}

/// Decides where the tokens of this pass may be sent, and records it.
///
/// # Errors
/// If the file system fails; [`io::ErrorKind::InvalidData`] if the record is needed and can't be parsed.
pub fn settle(private: &PrivateDir, remote: &str, known: &Known<'_>, recording: Recording) -> io::Result<TokenHost> {
    let given = known.option.cloned().or_else(|| known.given_url.map(TokenHost::of_url));
    let recorded = match read(private, remote) {
        // The damaged record is not needed: the given host counts, and is recorded again.
        Err(_) if given.is_some() => None,
        recorded => recorded?,
    };
    let first = || {
        let server = known.server_url.map(TokenHost::of_url).filter(|host| *host != TokenHost::Nowhere);
        server.or_else(|| known.stored_url.map(TokenHost::of_url))
    };
    let Some(host) = given.or_else(|| recorded.clone()).or_else(first) else { return Ok(TokenHost::Nowhere) };
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

/// The record before a job runs, for [`put_back`]. `None` if it can't be read: then there is nothing worth restoring.
pub fn before_job(private: &PrivateDir) -> Option<Vec<u8>> {
    private.read(NAME).ok().flatten()
}

/// Restores the record if a job has changed or removed it, perhaps with the whole private folder. Returns whether it had.
///
/// # Errors
/// If the file system fails.
pub fn put_back(private: &PrivateDir, before: Option<&[u8]>) -> io::Result<bool> {
    let Some(before) = before else { return Ok(false) };
    if private.read(NAME).is_ok_and(|now| now.as_deref() == Some(before)) {
        return Ok(false);
    }
    private.create()?;
    private.write_durably(NAME, before)?;
    Ok(true)
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
    io::Error::new(io::ErrorKind::InvalidData, "it is not in the form that gitsync writes")
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_given_host_counts_most_and_the_configuration_least() {
        let folder = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(folder.path());
        private.create().unwrap();
        let text = || private.read(NAME).unwrap().map(|text| String::from_utf8(text).unwrap());
        let settled =
            |known: Known<'_>, recording| settle(&private, "origin", &known, recording).map(|h| h.to_string());
        let (option, found) =
            (TokenHost::named("named").unwrap(), Known { stored_url: Some("https://c/r"), ..Known::default() });
        let settle_ok = |known: Known<'_>, recording| settled(known, recording).unwrap();

        assert_eq!(settle_ok(Known::default(), Recording::New), "-");
        assert_eq!(settle_ok(found, Recording::Never), "https://c");
        assert_eq!(text(), None, "where nothing is known, and in a dry run, nothing is recorded");
        let server = Known { server_url: Some("https://s"), ..found };
        assert_eq!(settle_ok(server, Recording::Never), "https://s");
        assert_eq!(settle_ok(Known { server_url: Some("no url"), ..found }, Recording::First), "https://c");
        assert_eq!(settle_ok(server, Recording::New), "https://c", "the record counts more than what is found");
        let given = Known { given_url: Some("https://u:p@g/r"), ..server };
        assert_eq!(settle_ok(given, Recording::First), "https://g");
        assert_eq!(text().unwrap(), "origin https://c\n", "a sync records the first alone");
        assert_eq!(settle_ok(given, Recording::New), "https://g");
        assert_eq!(settle_ok(Known { option: Some(&option), ..given }, Recording::First), "named");
        assert_eq!(text().unwrap(), "origin https://g\n");

        private.write(NAME, b"other https://o\norigin nonsense/\nhalf a\x00 line\n").unwrap();
        assert_eq!(settled(found, Recording::New).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(settle_ok(given, Recording::New), "https://g");
        assert_eq!(text().unwrap(), "other https://o\norigin https://g\n");

        // Without a line for this remote, a damaged record may have lost it.
        private.write(NAME, b"other https://o\norig").unwrap();
        assert_eq!(settled(found, Recording::First).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(text().unwrap(), "other https://o\norig");
        private.write(NAME, b"other https://o\n").unwrap();
        assert_eq!(settle_ok(found, Recording::First), "https://c");
        assert_eq!(text().unwrap(), "other https://o\norigin https://c\n");
    }
}
