//! What a remote answered, sorted: passing (the next pass may find it gone) or lasting (needs a person), each with the
//! next step.
//!
//! The rule: whatever a server, a network or a busy moment may undo by itself is passing; whatever somebody has to
//! change (a secret, a right, a URL, a rule of the server, a certificate) is lasting.

use super::redact;
use crate::error::{Error, Kind};

/// The rights a token needs, in the words of the forges.
pub const RIGHTS: &str = "the secret must be allowed to read and write the repository's contents (GitHub: `Contents: read and \
                          write`, or the classic scope `repo`; GitLab: `write_repository`)";

/// The next step where nobody has to do anything.
pub(crate) const AGAIN: &str = "nothing: the next pass tries again";

/// What a server says as it refuses, the first that fits: of each list of words one must be in it. What kind of error it is,
/// and what to do.
const REFUSALS: &[(&[&[&str]], Kind, &str)] = &[
    (
        &[&[
            "protected branch",
            "gh006",
            "gh013",
            "repository rule violations",
            "not allowed to push",
            "not allowed to force push",
        ]],
        Kind::Refused,
        "let this account push to the branch in the server's branch rules, or sync another branch",
    ),
    (
        &[&[
            "gh001",
            "large files detected",
            "exceeds github's file size limit",
            "file size limit",
            "too large",
            "exceeds maximum",
            "pack exceeds",
        ]],
        Kind::Refused,
        "take the large file out of the unpushed commits, and lower --max-file-size to the server's limit",
    ),
    (
        &[&["secret", "push protection", "gh009"], &["push declined", "push protection", "gh009"]],
        Kind::Refused,
        "take the secret the server found out of the unpushed commits, and revoke it",
    ),
    (&[&["gh007", "private email"]], Kind::Refused, "set GIT_AUTHOR_EMAIL to an address the server accepts"),
    (&[&["hook declined", "declined", "denied by"]], Kind::Refused, "see what the server's hook wants of a commit"),
    (&[&["checked out"]], Kind::Refused, "make the remote a bare repository, or set receive.denyCurrentBranch there"),
    (
        &[&["denying non-fast-forward", "denynonfastforwards", "deletion prohibited", "hidden ref", "deny updating"]],
        Kind::Refused,
        "the server forbids this update (receive.denyNonFastForwards?): allow it, or run without --alpha",
    ),
    (
        &[&[
            "permission",
            "not permitted",
            "unauthorized",
            "forbidden",
            "shallow update not allowed",
            "archived",
            "read-only",
        ]],
        Kind::Refused,
        "give this account the right to push to the repository",
    ),
    (
        &[&[
            "non-fast-forward",
            "fetch first",
            "stale info",
            "cannot lock ref",
            "failed to lock",
            "failed to update ref",
            "incorrect old value",
            "reference already exists",
            "remote ref updated since checkout",
            "needs force",
            "is at",
        ]],
        Kind::LostRace,
        "somebody pushed at the same time; the next pass takes their commits in and pushes again",
    ),
    (
        &[&[
            "unpacker error",
            "unpack",
            "internal",
            "disk",
            "no space",
            "timeout",
            "timed out",
            "temporar",
            "try again",
            "index-pack",
            "transaction",
        ]],
        Kind::Unreachable,
        "the server had trouble of its own; the next pass pushes again",
    ),
];

/// Sorts a refusal. `said`: what else the server said during the push (its side-band text), in which GitHub and GitLab
/// give the reason behind a bare "hook declined".
pub fn refusal(reason: &str, said: &str) -> Error {
    let words = format!("{reason}\n{said}").to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|w| words.contains(w));
    let found = REFUSALS.iter().find(|(lists, ..)| lists.iter().all(|any| has(any)));
    let other = &(&[][..], Kind::Refused, "see the server's words for what it wants");
    let (_, kind, next) = *found.unwrap_or(other);
    Error::new(kind, redact::text(reason.as_bytes()), next)
}

/// Nobody told the host's address in the time there was.
pub(crate) fn no_name_in_time(url: &str) -> Error {
    Error {
        kind: Kind::Unreachable,
        what: format!("looking up the host's name in {url} took longer than there was time"),
        next: "see that the network and its name server are up; the next pass tries again".to_owned(),
    }
}

/// Sorts what a server said in an `ERR` packet, or a program on its error output.
pub fn server_said(url: &str, words: &str) -> Error {
    let said = redact::text(words.as_bytes());
    let lower = said.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|w| lower.contains(w));
    let (kind, next) = if has(&[
        "host key verification failed",
        "remote host identification has changed",
        "no matching host key",
    ]) {
        (
            Kind::Refused,
            "check the server's key by another way, then add it to ~/.ssh/known_hosts (`ssh-keyscan HOST` prints it); \
             gitsync never accepts an unknown key",
        )
    } else if has(&[
        "permission denied",
        "no supported authentication",
        "too many authentication failures",
        "bad permissions",
        "load key",
    ]) {
        (
            Kind::Refused,
            "give ssh a key that the server knows and that needs no passphrase (~/.ssh/config, GIT_SSH_COMMAND, or an agent)",
        )
    } else if has(&["dubious ownership"]) {
        (Kind::Refused, "let git trust that repository: git config --global --add safe.directory PATH")
    } else if has(&["service not enabled", "access denied or repository not exported", "repository not exported"]) {
        (
            Kind::Refused,
            "export the repository (git-daemon-export-ok) and enable the service there; a git daemon takes no pushes unless told to",
        )
    } else if has(&["not our ref", "unadvertised object", "no such ref was fetched"]) {
        (Kind::Unreachable, "the branch moved while it was being fetched; the next pass asks again")
    } else if has(&[
        "command not found",
        "git-upload-pack: not found",
        "git-receive-pack: not found",
        "is not a git command",
    ]) {
        (Kind::Refused, "install git on the machine that holds the remote")
    } else if has(&[
        "not appear to be a git repository",
        "repository not found",
        "no such repository",
        "not found",
        "does not exist",
        "no such file",
        "not a git repository",
    ]) {
        (Kind::Refused, "see that the remote's URL is right, and that this account may read the repository")
    } else if has(&["sha-256", "object format"]) {
        (Kind::Refused, "use a repository with SHA-1 object names")
    } else if has(&[
        "not allowed",
        "forbidden",
        "access denied",
        "authorization",
        "archived",
        "suspended",
        "disabled",
        "bad configuration option",
        "unknown option",
        "usage:",
    ]) {
        (Kind::Refused, "see the server's words for what it wants")
    } else {
        (Kind::Unreachable, "nothing: the next pass tries again")
    };
    let next = if said.is_empty() {
        "if it goes on, see that host, port and path of the remote's URL are a git server's; the next pass tries again"
    } else {
        next
    };
    let what = if said.is_empty() { format!("{url} hung up without a word") } else { format!("{url} said: {said}") };
    Error { kind, what, next: next.to_owned() }
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
        407 => (Kind::Refused, "put the proxy's user and password into its URL (HTTPS_PROXY, http.proxy)".to_owned()),
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
    fn refusals_are_sorted() {
        let sorted = |reason: &str, said: &str| refusal(reason, said).kind;
        for raced in [
            "non-fast-forward",
            "fetch first",
            "failed to update ref",
            "cannot lock ref 'x': is at a but expected b",
            "stale info",
        ] {
            assert_eq!(sorted(raced, ""), Kind::LostRace, "{raced}");
        }
        for lasting in [
            "protected branch hook declined",
            "pre-receive hook declined",
            "hook declined",
            "branch is currently checked out",
            "what is this",
        ] {
            assert_eq!(sorted(lasting, ""), Kind::Refused, "{lasting}");
        }
        assert_eq!(sorted("unpacker error", ""), Kind::Unreachable);
        let large = refusal("pre-receive hook declined", "error: GH001: Large files detected.");
        assert!(large.next.contains("--max-file-size"));
    }

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
