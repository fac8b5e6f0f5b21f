//! What a remote answered, sorted: passing (the next pass may find it gone) or lasting (needs a person), each with the
//! next step.
//!
//! What a server says in words is in [`super::refusals`].

pub use super::refusals::{refusal, server_said};
use crate::error::{Error, Kind};

/// The rights a token needs, in the words of the forges.
pub const RIGHTS: &str = "the secret must be allowed to read and write the repository's contents (GitHub: `Contents: read and \
                          write`, or the classic scope `repo`; GitLab: `write_repository`)";

/// The next step where nobody has to do anything.
pub(crate) const AGAIN: &str = "nothing: the next pass tries again";

/// Nobody told the host's address in the time there was.
pub(crate) fn no_name_in_time(url: &str) -> Error {
    Error {
        kind: Kind::Unreachable,
        what: format!("looking up the host's name in {url} took longer than there was time"),
        next: "see that the network and its name server are up; the next pass tries again".to_owned(),
    }
}

/// What is known of a failed HTTP exchange.
#[derive(Debug)]
pub(crate) struct HttpFailure<'a> {
    pub status: u16,
    /// Redacted.
    pub url: &'a str,
    /// The server's own words, redacted; empty if it gave none fit for people.
    pub said: &'a str,
    /// Where the secret that was sent came from.
    pub source: Option<&'a str>,
    /// The server asks for fewer requests (`Retry-After`, a spent rate limit).
    pub throttled: bool,
}

/// Sorts an HTTP status other than success, redirect and an answerable 401.
pub(crate) fn http_status(failure: &HttpFailure<'_>) -> Error {
    let HttpFailure { status, url, said, source, throttled } = failure;
    let with = source.map(|s| format!(" with the credentials from {s}")).unwrap_or_default();
    let words = if said.is_empty() { String::new() } else { format!(": {said}") };
    let what = format!("{url} answered {status}{with}{words}");
    let (kind, next) = match status {
        _ if *throttled && matches!(status, 403 | 429) => {
            (Kind::Unreachable, "the server wants fewer requests: sync less often if this goes on".to_owned())
        }
        401 if source.is_some() => (Kind::Refused, format!("renew or replace that secret; {RIGHTS}")),
        401 => (Kind::Refused, format!("set GIT_SYNC_TOKEN or --token-file to a token; {RIGHTS}")),
        403 if source.is_some() => (Kind::Refused, format!("give that secret the rights; {RIGHTS}")),
        403 => (Kind::Refused, format!("set GIT_SYNC_TOKEN or --token-file to a token that may; {RIGHTS}")),
        404 | 410 => (
            Kind::Refused,
            format!(
                "see that the remote's URL is right; a private repository also looks absent to who may not see it: {RIGHTS}"
            ),
        ),
        407 => (
            Kind::Refused,
            "put the proxy's user and password into its URL (remote.<name>.proxy, http.proxy, https_proxy)".to_owned(),
        ),
        408 | 425 | 429 | 500..=599 => {
            (Kind::Unreachable, "nothing: the server has trouble, the next pass tries again".to_owned())
        }
        413 => (
            Kind::Refused,
            "the push is larger than the server takes: raise its limit, or lower --max-file-size".to_owned(),
        ),
        _ => (Kind::Refused, "see that the remote's URL is that of a git repository".to_owned()),
    };
    Error { kind, what, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted() {
        let kind =
            |status, throttled| http_status(&HttpFailure { status, url: "u", said: "", source: None, throttled }).kind;
        for status in [401, 403, 404, 407, 413] {
            assert_eq!(kind(status, false), Kind::Refused, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(kind(status, false), Kind::Unreachable, "{status}");
        }
        assert_eq!(kind(403, true), Kind::Unreachable);
    }
}
