//! What the words of a server mean: which refusals are lasting, which pass by themselves, and what to do about each.
//!
//! Servers refuse in text: an `ng` line for one ref, an `ERR` packet, or what a program says on its error output before it
//! hangs up. There are no codes, so the words decide. [`ROWS`] has all of them, in order: the first row that fits counts. Its
//! tests give at least one real text for each row, with the server that says it.
//!
//! The rule: what somebody has to change (a right, a key, a URL, a rule of the server) is lasting. What a server, a network or
//! a busy moment may undo by itself is passing.

use super::redact;
use crate::error::{Error, Kind};

/// Where a text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Instead of a conversation: an `ERR` packet, or a program's last words.
    Connection,
    /// The answer for one ref of a push, with what the server said besides.
    Ref,
    /// Both.
    Either,
}

/// One kind of refusal.
struct Row {
    at: At,
    /// Each list must have one of its texts in the server's words. In lower case.
    words: &'static [&'static [&'static str]],
    kind: Kind,
    /// What to do.
    next: &'static str,
}

const AGAIN: &str = "nothing: the next pass tries again";
const TROUBLE: &str = "the server had trouble of its own; the next pass pushes again";
const RIGHT: &str = "give this account (or its token or key) the right to read and write the repository";
const HOOK: &str = "see what the server's hook wants of a commit";
const THEIR_WORDS: &str = "see the server's words for what it wants";

const fn row(at: At, words: &'static [&'static [&'static str]], kind: Kind, next: &'static str) -> Row {
    Row { at, words, kind, next }
}

/// See the top of this file.
#[rustfmt::skip]
static ROWS: &[Row] = &[
    // Named as temporary by the server itself, whatever else the words are.
    row(At::Either, &[&["temporarily read-only", "temporarily unavailable", "please try again later", "commit_refs"]],
        Kind::Unreachable, AGAIN),
    // This machine's side of ssh.
    row(At::Connection, &[&["no user exists for uid"]], Kind::Refused,
        "ssh needs an entry in /etc/passwd for the user that runs gitsync: add one (`useradd`), run the container as a user that \
         it has, or use an https:// URL with a token"),
    row(At::Connection,
        &[&["host key verification failed", "remote host identification has changed", "no matching host key"]], Kind::Refused,
        "check the server's key by another way, then add it to ~/.ssh/known_hosts (`ssh-keyscan HOST` prints it); \
         gitsync never accepts an unknown key"),
    row(At::Connection,
        &[&["permission denied (", "permission denied, please try again", "no supported authentication",
            "too many authentication failures", "bad permissions", "load key", "public key authentication failed"]],
        Kind::Refused,
        "give ssh a key that the server knows and that needs no passphrase (~/.ssh/config, GIT_SSH_COMMAND, or an agent)"),
    // Rights: to the whole repository.
    row(At::Either, &[&["saml sso", "saml enforcement", "single sign-on"]], Kind::Refused,
        "authorize this token or ssh key for the organization's single sign-on, in the account's settings on the server"),
    row(At::Either, &[&["marked as read only", "deployment key is read-only", "deploy key does not have write access"]],
        Kind::Refused, "allow write access for this deploy key, or use a key that has it"),
    row(At::Either, &[&["archived", "mirror repository"]], Kind::Refused,
        "the repository takes no pushes from anybody: unarchive it there, or sync another one"),
    row(At::Ref,
        &[&["gh001", "large files detected", "exceeds github's file size limit", "file size limit", "too large", "exceeds maximum",
            "pack exceeds"]],
        Kind::Refused, "take the large file out of the unpushed commits, and lower --max-file-size to the server's limit"),
    row(At::Ref, &[&["fsck error"]], Kind::Refused,
        "the server checks objects and refuses one (its words name it): take it out of the unpushed commits"),
    row(At::Ref, &[&["secret", "push protection", "gh009"], &["push declined", "push protection", "gh009"]], Kind::Refused,
        "take the secret the server found out of the unpushed commits, and revoke it"),
    row(At::Ref, &[&["gh007", "private email"]], Kind::Refused, "set GIT_AUTHOR_EMAIL to an address the server accepts"),
    row(At::Either, &[&["to this project"], &["not allowed to push", "not allowed to upload"]], Kind::Refused, RIGHT),
    row(At::Either,
        &[&["gh006", "gh013", "repository rule violations", "protected branch", "not allowed to push", "not allowed to force push"]],
        Kind::Refused, "let this account push to the branch in the server's branch rules, or sync another branch"),
    row(At::Either,
        &[&["denied by fallthru", "denied by refs/", "you are not authorized", "not authorized to", "not permitted",
            "denied to ", "permission denied", "permission to", "permissions to", "insufficient permission", "genericcontribute",
            "have permission", "unauthorized", "forbidden", "access denied.", "repository access denied", "not allowed to upload",
            "not allowed to download", "do not have write access"]],
        Kind::Refused, RIGHT),
    // For a whole push, too: Dulwich ends it with the words of its fatal band.
    row(At::Either, &[&["hook declined", "hook exited"]], Kind::Refused, HOOK),
    row(At::Ref, &[&["declined", "denied by"]], Kind::Refused, HOOK),
    row(At::Ref, &[&["checked out"]], Kind::Refused, "make the remote a bare repository, or set receive.denyCurrentBranch there"),
    row(At::Ref,
        &[&["denying non-fast-forward", "denynonfastforwards", "deletion prohibited", "hidden ref", "deny updating"]],
        Kind::Refused, "the server forbids this update (receive.denyNonFastForwards?): allow it, or run without --alpha"),
    row(At::Ref, &[&["shallow update not allowed"]], Kind::Refused, "set receive.shallowUpdate there, or clone the whole history"),
    row(At::Ref, &[&["permission", "read-only"]], Kind::Refused, RIGHT),
    // What another pass may find gone.
    row(At::Ref,
        &[&["non-fast-forward", "fetch first", "stale info", "cannot lock ref", "failed to lock", "failed to update ref",
            "incorrect old value", "reference already exists", "remote ref updated since checkout", "needs force", "is at"]],
        Kind::LostRace, "somebody pushed at the same time; the next pass takes their commits in and pushes again"),
    row(At::Ref,
        &[&["unpack", "internal", "disk", "no space", "timeout", "timed out", "temporar", "try again", "index-pack", "transaction"]],
        Kind::Unreachable, TROUBLE),
    // The repository, or git, at the other end.
    row(At::Connection, &[&["dubious ownership"]], Kind::Refused,
        "let git trust that repository: git config --global --add safe.directory PATH"),
    row(At::Connection, &[&["service not enabled", "access denied or repository not exported", "repository not exported"]],
        Kind::Refused,
        "export the repository (git-daemon-export-ok) and enable the service there; a git daemon takes no pushes unless told to"),
    row(At::Connection, &[&["not our ref", "unadvertised object", "no such ref was fetched"]], Kind::Unreachable,
        "the branch moved while it was being fetched; the next pass asks again"),
    row(At::Connection,
        &[&["command not found", "git-upload-pack: not found", "git-receive-pack: not found", "is not a git command"]],
        Kind::Refused, "install git on the machine that holds the remote"),
    row(At::Connection,
        &[&["not appear to be a git repository", "repository not found", "no such repository", "not found", "cannot find repository",
            "could not be found", "does not exist", "no such file", "not a git repository"]],
        Kind::Refused, "see that the remote's URL is right, and that this account may read the repository"),
    row(At::Connection, &[&["sha-256", "object format"]], Kind::Refused, "use a repository with SHA-1 object names"),
    row(At::Connection,
        &[&["not allowed", "access denied", "authorization", "suspended", "disabled", "blocked", "read-only", "read only",
            "bad configuration option", "unknown option", "usage:"]],
        Kind::Refused, THEIR_WORDS),
];

/// The first row that fits.
fn find(at: At, words: &str) -> Option<&'static Row> {
    let words = words.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|text| words.contains(text));
    ROWS.iter().find(|row| (row.at == at || row.at == At::Either) && row.words.iter().all(|any| has(any)))
}

/// The error for a server's answer for one ref. `said`: what else it said during the push (its side-band text), in which GitHub
/// and GitLab give the reason for a bare "hook declined".
pub fn refusal(reason: &str, said: &str) -> Error {
    let found = find(At::Ref, &format!("{reason}\n{said}"));
    let (kind, next) = found.map_or((Kind::Refused, THEIR_WORDS), |row| (row.kind, row.next));
    Error::new(kind, redact::text(reason.as_bytes()), next)
}

/// The error for what a server said in an `ERR` packet, or a program on its error output.
pub fn server_said(url: &str, words: &str) -> Error {
    let said = redact::text(words.as_bytes());
    if said.is_empty() {
        let next = "if it goes on, see that host, port and path of the remote's URL are a git server's; the next pass tries again";
        return Error::new(Kind::Unreachable, format!("{url} hung up without a word"), next);
    }
    let (kind, next) = find(At::Connection, &said).map_or((Kind::Unreachable, AGAIN), |row| (row.kind, row.next));
    Error::new(kind, format!("{url} said: {said}"), next)
}

#[cfg(test)]
mod tests;
