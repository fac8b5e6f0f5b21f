//! Real texts of real servers, at least one for each row.

use super::*;

/// Who says it, where, the text, the kind, and a part of what to do.
type Text = (&'static str, At, &'static str, Kind, &'static str);

const COULD_NOT: &str = "\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n\
                         and the repository exists.";

#[rustfmt::skip]
const TEXTS: &[Text] = &[
    ("GitLab in maintenance", At::Connection, "remote: The repository is temporarily read-only. Please try again later.", Kind::Unreachable, "next pass"),
    ("GitHub in trouble", At::Ref, "fatal error in commit_refs", Kind::Unreachable, "next pass"),
    ("ssh without a passwd entry", At::Connection, "No user exists for uid 12345", Kind::Refused, "/etc/passwd"),
    ("ssh", At::Connection, "Host key verification failed.", Kind::Refused, "known_hosts"),
    ("ssh", At::Connection, "git@github.com: Permission denied (publickey).", Kind::Refused, "GIT_SSH_COMMAND"),
    ("Azure DevOps", At::Connection, "remote: Public key authentication failed.", Kind::Refused, "GIT_SSH_COMMAND"),
    ("GitHub", At::Connection, "ERROR: The 'o' organization has enabled or enforced SAML SSO. To access\nthis repository, you must use the HTTPS remote with a personal access token or SSH with an SSH key and passphrase\nthat has been authorized for this organization.", Kind::Refused, "single sign-on"),
    ("GitHub", At::Connection, "ERROR: The key you are authenticating with has been marked as read only.", Kind::Refused, "deploy key"),
    ("Bitbucket", At::Connection, "repository access denied. access via a deployment key is read-only.", Kind::Refused, "deploy key"),
    ("GitLab", At::Connection, "remote: ERROR: This deploy key does not have write access to this project.", Kind::Refused, "deploy key"),
    ("GitHub", At::Connection, "ERROR: This repository was archived so it is read-only.", Kind::Refused, "unarchive"),
    ("Gitea", At::Connection, "Gitea: Repo: o/r is archived.", Kind::Refused, "unarchive"),
    ("Gitea", At::Connection, "Gitea: Mirror Repository o/r is read-only", Kind::Refused, "unarchive"),
    ("GitLab", At::Connection, "remote: ERROR: You are not allowed to push code to this project.", Kind::Refused, "right to read and write"),
    ("GitHub", At::Ref, "protected branch hook declined", Kind::Refused, "branch rules"),
    ("GitLab", At::Ref, "pre-receive hook declined\nGitLab: You are not allowed to push code to protected branches on this project.", Kind::Refused, "branch rules"),
    ("GitHub", At::Ref, "pre-receive hook declined\nerror: GH001: Large files detected.", Kind::Refused, "--max-file-size"),
    ("git with receive.fsckObjects", At::Ref, "unpacker error\nindex-pack abnormal exit\nerror: object 4b825dc642cb6eb9a060e54bf8d69288fbee4904: gitmodulesUrl: disallowed submodule url: --x\nfatal: fsck error in pack objects", Kind::Refused, "checks objects"),
    ("GitHub", At::Ref, "push declined due to repository rule violations\nGH009: Secrets detected!", Kind::Refused, "revoke"),
    ("GitHub", At::Ref, "push declined due to email privacy restrictions\nGH007: Your push would publish a private email address.", Kind::Refused, "GIT_AUTHOR_EMAIL"),
    ("gitolite", At::Connection, "FATAL: W any repo user DENIED by fallthru\n(or you mis-spelled the reponame)", Kind::Refused, "right to read and write"),
    ("gitolite", At::Ref, "hook declined\nFATAL: W refs/heads/main repo user DENIED by fallthru", Kind::Refused, "right to read and write"),
    ("gitolite", At::Ref, "hook declined\nFATAL: W refs/heads/main repo user DENIED by refs/heads/main", Kind::Refused, "right to read and write"),
    ("GitHub", At::Connection, "ERROR: Permission to o/r.git denied to someone.", Kind::Refused, "right to read and write"),
    ("GitHub", At::Connection, "ERROR: Permission to o/r.git denied to deploy key", Kind::Refused, "right to read and write"),
    ("Gitea", At::Connection, "Gitea: Unauthorized", Kind::Refused, "right to read and write"),
    ("Forgejo", At::Connection, "Forgejo: User: 1:me with Key: 2:key is not authorized to write to o/r.", Kind::Refused, "right to read and write"),
    ("Gitea", At::Connection, "Gitea: Deploy Key: 2:key is not authorized to write to o/r.", Kind::Refused, "right to read and write"),
    ("Bitbucket", At::Connection, "Unauthorized", Kind::Refused, "right to read and write"),
    ("Bitbucket", At::Connection, "Forbidden", Kind::Refused, "right to read and write"),
    ("Bitbucket Data Center", At::Connection, "You are not permitted to access this repository: you have insufficient permissions to push to it", Kind::Refused, "right to read and write"),
    ("Azure DevOps", At::Ref, "TF401027: You need the Git 'GenericContribute' permission to perform this action.", Kind::Refused, "right to read and write"),
    ("Gerrit", At::Ref, "prohibited by Gerrit: not permitted: update", Kind::Refused, "right to read and write"),
    ("sourcehut", At::Connection, "Access denied.", Kind::Refused, "right to read and write"),
    ("git", At::Ref, "pre-receive hook declined", Kind::Refused, "hook wants"),
    ("Dulwich", At::Ref, "pre-receive hook exited with status 1: no", Kind::Refused, "hook wants"),
    ("Dulwich", At::Connection, "pre-receive hook exited with status 1: no", Kind::Refused, "hook wants"),
    ("a server", At::Ref, "push declined", Kind::Refused, "hook wants"),
    ("Dulwich", At::Ref, "unpack pre-receive hook declined", Kind::Refused, "hook wants"),
    ("git", At::Ref, "branch is currently checked out", Kind::Refused, "receive.denyCurrentBranch"),
    ("git", At::Ref, "denying non-fast-forward refs/heads/main (you should pull first)", Kind::Refused, "--alpha"),
    ("git", At::Ref, "deny updating a hidden ref", Kind::Refused, "--alpha"),
    ("git", At::Ref, "shallow update not allowed", Kind::Refused, "receive.shallowUpdate"),
    ("a server", At::Ref, "the file system is read-only", Kind::Refused, "right to read and write"),
    ("git", At::Ref, "non-fast-forward", Kind::LostRace, "same time"),
    ("git", At::Ref, "fetch first", Kind::LostRace, "same time"),
    ("git", At::Ref, "failed to update ref", Kind::LostRace, "same time"),
    ("git", At::Ref, "cannot lock ref 'x': is at a but expected b", Kind::LostRace, "same time"),
    ("git", At::Ref, "stale info", Kind::LostRace, "same time"),
    ("git", At::Ref, "unpacker error", Kind::Unreachable, "trouble of its own"),
    ("git", At::Connection, "fatal: detected dubious ownership in repository at '/srv/r.git'", Kind::Refused, "safe.directory"),
    ("a git daemon", At::Connection, "access denied or repository not exported: /r.git", Kind::Refused, "git-daemon-export-ok"),
    ("git", At::Connection, "fatal: remote error: upload-pack: not our ref 0123", Kind::Unreachable, "asks again"),
    ("a shell", At::Connection, "bash: line 1: git-upload-pack: command not found", Kind::Refused, "install git"),
    ("git", At::Connection, "fatal: '/r' does not appear to be a git repository", Kind::Refused, "URL is right"),
    ("GitHub", At::Connection, "ERROR: Repository not found.", Kind::Refused, "URL is right"),
    ("Gitea", At::Connection, "Gitea: Cannot find repository: o/r", Kind::Refused, "URL is right"),
    ("GitLab", At::Connection, "remote: ERROR: The project you were looking for could not be found or you don't have permission to view it.", Kind::Refused, "right to read and write"),
    ("git", At::Connection, "fatal: the remote uses SHA-256", Kind::Refused, "SHA-1"),
    ("GitLab", At::Connection, "remote: ERROR: Your account has been blocked.", Kind::Refused, "server's words"),
    ("ssh", At::Connection, "command-line: line 0: Bad configuration option: foo", Kind::Refused, "server's words"),
];

#[test]
fn each_text_is_understood_and_each_row_has_one() {
    let mut used = vec![false; ROWS.len()];
    for (who, at, text, kind, next) in TEXTS {
        let last = if *at == At::Connection { COULD_NOT } else { "" };
        let text = format!("{text}{last}");
        let error = match at {
            At::Connection => server_said("ssh://h/r", &text),
            At::Ref | At::Either => {
                text.split_once('\n').map_or_else(|| refusal(&text, ""), |(ng, said)| refusal(ng, said))
            }
        };
        assert_eq!(error.kind, *kind, "{who}: {error}");
        assert!(error.next.contains(next), "{who}: {error}");
        let found = find(*at, &text).and_then(|row| ROWS.iter().position(|own| std::ptr::eq(own, row)));
        let found = found.map(|number| &mut used[number]);
        assert!(found.map(|used| *used = true).is_some(), "{who}: no row fits {text}");
    }
    let unused: Vec<_> = ROWS.iter().zip(used).filter(|(_, used)| !used).map(|(row, _)| row.words).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn what_nobody_knows_is_lasting_for_a_ref_and_passing_for_a_connection() {
    assert_eq!(refusal("what is this", "").kind, Kind::Refused);
    for words in [
        "",
        "ssh: connect to host h port 22: Connection refused",
        "ssh: Could not resolve hostname h: Name or service not known",
        "Connection closed by 192.0.2.1 port 22",
        "kex_exchange_identification: read: Connection reset by peer",
        "remote: Internal Server Error",
    ] {
        let error = server_said("ssh://h/r", &format!("{words}{}", if words.is_empty() { "" } else { COULD_NOT }));
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
    }
}
