//! The host that a token is for.
//!
//! It does not come from the repository's configuration, which a job can change: a person names it, or it is the host of the URL
//! that init-sync was given. See [`crate::state::token_host`] for where it is kept.

use std::fmt;
use std::path::Path;

use super::url::{Origin, Remote, bracketed, host_and_port};

/// Where tokens may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenHost {
    /// To no host: the remote is a path, or reached by ssh or git://.
    Nowhere,
    /// To this host, as a person named it. Without a port: the scheme's own. Whether plain http will do is decided elsewhere.
    Named {
        /// Lower case; an IPv6 address is without its brackets.
        host: String,
        /// Never 0.
        port: Option<u16>,
    },
    /// To the origin of a URL.
    Origin(Origin),
}

impl TokenHost {
    /// Reads `HOST` or `HOST:PORT`, as a person gives it; `None` where it is neither.
    pub fn named(text: &str) -> Option<TokenHost> {
        let (host, port) = host_and_port(text, text).ok()?;
        let fit = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if !host.bytes().all(fit) || text.ends_with(':') {
            return None;
        }
        Some(TokenHost::Named { host: host.to_ascii_lowercase(), port })
    }

    /// The host that a remote's URL names, before git's `insteadOf`.
    pub fn of_url(url: &str) -> TokenHost {
        match Remote::parse(url, Path::new("/")) {
            Ok(Remote::Http(http)) => TokenHost::Origin(http.origin),
            _ => TokenHost::Nowhere,
        }
    }

    /// Reads what [`fmt::Display`] writes; `None` where it is nothing of the kind.
    pub fn parse(text: &str) -> Option<TokenHost> {
        match (text, TokenHost::of_url(text)) {
            ("-", _) => Some(TokenHost::Nowhere),
            (_, TokenHost::Origin(origin)) if origin.to_string() == text => Some(TokenHost::Origin(origin)),
            _ => TokenHost::named(text),
        }
    }

    /// Whether a token may go to this origin.
    pub fn allows(&self, origin: &Origin) -> bool {
        match self {
            TokenHost::Nowhere => false,
            TokenHost::Named { host, port } => {
                *host == origin.host && port.unwrap_or(origin.scheme.default_port()) == origin.port
            }
            TokenHost::Origin(own) => own == origin,
        }
    }

    /// For a sentence: "it is for …".
    pub fn describe(&self) -> String {
        match self {
            TokenHost::Nowhere => "no host (the remote was a path, or reached by ssh)".to_owned(),
            TokenHost::Named { .. } | TokenHost::Origin(_) => self.to_string(),
        }
    }
}

impl fmt::Display for TokenHost {
    /// As it is recorded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenHost::Nowhere => f.write_str("-"),
            TokenHost::Named { host, port: None } => f.write_str(&bracketed(host)),
            TokenHost::Named { host, port: Some(port) } => write!(f, "{}:{port}", bracketed(host)),
            TokenHost::Origin(origin) => origin.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_host_allows_itself_and_no_other() {
        let allows = |host: &str, url: &str| match Remote::parse(url, Path::new("/")) {
            Ok(Remote::Http(http)) => TokenHost::parse(host).unwrap().allows(&http.origin),
            other => panic!("{other:?}"),
        };
        for (host, url, expected) in [
            ("git.example", "https://git.example/r", true),
            ("GIT.example", "https://git.EXAMPLE:443/r", true),
            ("git.example", "https://git.example:8443/r", false),
            ("git.example", "https://git.example.evil/r", false),
            ("git.example", "https://evil-git.example/r", false),
            ("git.example:8443", "https://git.example:8443/r", true),
            ("git.example:8443", "https://git.example/r", false),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/r", true),
            ("[::1]:8080", "http://[::1]:8080/r", true),
            ("[::1]", "https://[::1]/r", true),
            ("https://git.example", "https://git.example/r", true),
            ("https://git.example", "http://git.example/r", false),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081/r", false),
            ("-", "https://git.example/r", false),
        ] {
            assert_eq!(allows(host, url), expected, "{host} {url}");
        }
    }

    #[test]
    fn what_is_recorded_is_read_again_and_what_is_no_host_is_refused() {
        for text in ["-", "git.example", "git.example:8443", "[::1]:80", "https://git.example", "http://127.0.0.1:8080"]
        {
            assert_eq!(TokenHost::parse(text).unwrap().to_string(), text);
        }
        for bad in
            ["", ":", "h:", "h:0", "h:x", "h:99999", "a b", "me@h", "h/path", "::1", "[::1", "https://h/path", "-\n"]
        {
            assert_eq!(TokenHost::parse(bad), None, "{bad:?}");
        }
        assert_eq!(TokenHost::named("https://h"), None);
        assert_eq!(TokenHost::of_url("git@h:r"), TokenHost::Nowhere);
        assert_eq!(TokenHost::of_url("/srv/r"), TokenHost::Nowhere);
    }
}
