//! Remotes behind programs: paths, ssh, and the git daemon.

use std::time::{Duration, Instant};

use crate::servers::inetd::{Sshd, git_daemon, user};
use crate::servers::{Local, Upstream, config, decent, open, open_with, options};
use gitsync::error::Kind;
use gitsync::remote::{Options, Session};
use needs::needs;

const MAIN: &str = "refs/heads/main";

/// Poll, fetch, push, and a refused push.
fn whole_pass(upstream: &Upstream, session: &Session) {
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(session.tip("refs/heads/absent").unwrap(), None);
    let local = Local::new();
    assert_eq!(local.fetch(session).unwrap(), upstream.tip());
    let ours = local.commit("ours.txt", b"ours");
    assert_eq!(local.push(session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    assert_eq!(session.tip(MAIN).unwrap(), Some(ours));
    upstream.hook("update", "printf 'n\\366\\n' >&2; exit 1");
    local.commit("more.txt", b"more");
    assert_eq!(local.push(session).unwrap().as_deref(), Some("hook declined"));
    assert_eq!(upstream.tip(), Some(ours));
    assert_eq!(upstream.git(&["fsck", "--full", "--strict", "--no-dangling"]), "");
}

#[test]
fn a_path_in_each_of_its_forms() {
    for form in ["path", "file", "relative", "worktree"] {
        let upstream = Upstream::new();
        let path = upstream.bare().display().to_string();
        let session = match form {
            "path" => open(&path),
            "file" => open(&format!("file://{path}")),
            "relative" => {
                let options = Options { relative_to: upstream.home(), ..options(&[]) };
                open_with("../repo.git", options, "")
            }
            _ => {
                // Not bare: its `.git` is found, as git finds it.
                let work = upstream.root().join("work");
                std::fs::create_dir(&work).unwrap();
                std::fs::rename(upstream.bare(), work.join(".git")).unwrap();
                let session = open(&work.display().to_string());
                assert!(session.tip(MAIN).unwrap().is_some());
                continue;
            }
        };
        whole_pass(&upstream, &session);
    }
}

#[test]
fn an_empty_repository_has_no_tip() {
    let upstream = Upstream::empty();
    let session = open(&upstream.bare().display().to_string());
    assert_eq!(session.tip(MAIN).unwrap(), None);
    let local = Local::new();
    let ours = local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
}

#[test]
fn a_path_s_hooks_run_to_their_end() {
    let upstream = Upstream::new();
    upstream.hook("post-receive", "sleep 0.3; echo done; touch ran");
    let session = open(&upstream.bare().display().to_string());
    let local = Local::new();
    local.fetch(&session).unwrap();
    local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert!(upstream.bare().join("ran").exists());
}

#[test]
fn a_lost_race_is_a_refusal_not_a_lost_commit() {
    let upstream = Upstream::new();
    let session = open(&upstream.bare().display().to_string());
    let local = Local::new();
    local.fetch(&session).unwrap();
    local.commit("ours.txt", b"ours");
    // A rival pushes after the server has advertised its refs to us.
    let rival = upstream.bare().display().to_string();
    upstream.hook(
        "pre-receive",
        &format!("unset GIT_QUARANTINE_PATH; git -C '{rival}' update-ref refs/heads/main $(git -C '{rival}' -c user.name=r -c user.email=r commit-tree -m rival main^{{tree}})"),
    );
    let refused = local.push(&session).unwrap().expect("the push lost");
    assert!(gitsync::remote::refusal(&refused, "").kind == Kind::LostRace, "{refused}");
    assert_eq!(upstream.git(&["log", "-1", "--format=%s", "main"]), "rival");
}

#[test]
fn a_path_that_is_not_there_or_no_repository() {
    let dir = tempfile::tempdir().unwrap();
    let e = open(&dir.path().join("gone").display().to_string()).tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
    let session = open(&dir.path().display().to_string());
    for e in [session.tip(MAIN).unwrap_err(), Local::new().fetch(&session).unwrap_err()] {
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains("not appear to be a git repository"), "{e:?}");
    }
}

#[test]
fn many_refs_pass_through_a_program() {
    let upstream = Upstream::new();
    upstream.many_refs(20_000);
    whole_pass(&upstream, &open(&upstream.bare().display().to_string()));
}

fn quick() -> Options {
    Options { idle: Duration::from_millis(300), deadline: Instant::now() + Duration::from_secs(20), ..options(&[]) }
}

#[test]
fn a_program_that_hangs_is_ended_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let alive = dir.path().join("alive");
    // It says a word, ignores every polite signal, and has a child that does so too.
    let hang = format!("trap '' TERM HUP; mkfifo {0}; echo waiting >&2; cat {0} & cat {0}; :", alive.display());
    let env = [("GIT_SSH_COMMAND", hang.as_str())];
    let given = Options { env: options(&env).env, ..quick() };
    let start = Instant::now();
    let e = open_with("ssh://h/r", given, "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(
        e.kind == Kind::Unreachable && e.what.contains("sent nothing for 300ms") && e.what.contains("waiting"),
        "{e:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    // Soon nobody reads the fifo any more: opening it for writing says so.
    use rustix::fs::{Mode, OFlags};
    let start = Instant::now();
    while rustix::fs::openat(rustix::fs::CWD, &alive, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).err()
        != Some(rustix::io::Errno::NXIO)
    {
        assert!(start.elapsed() < Duration::from_secs(5), "a grandchild lives on");
        std::thread::yield_now();
    }
}

#[test]
fn a_hook_that_hangs_is_ended_at_the_deadline() {
    let upstream = Upstream::new();
    let local = Local::new();
    let path = upstream.bare().display().to_string();
    local.fetch(&open(&path)).unwrap();
    local.commit("ours.txt", b"ours");
    upstream.hook("pre-receive", "mkfifo ../fifo; cat ../fifo");
    let given = Options { deadline: Instant::now() + Duration::from_millis(700), ..options(&[]) };
    let start = Instant::now();
    let e = local.push(&open_with(&path, given, "")).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[test]
fn a_program_that_is_missing_is_named_with_its_package() {
    let given = options(&[("GIT_SSH", "/nowhere/ssh")]);
    let e = open_with("git@example.invalid:o/r.git", given, "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.next.contains("openssh-client"), "{e:?}");
}

#[test]
fn urls_that_would_run_something_are_refused() {
    for url in ["ssh://-oProxyCommand=touch%20x/r", "-oProxyCommand=x:r", "ext::sh -c true", "ssh://h/-r/../x"] {
        let session = Session::open(url, &config(""), options(&[]));
        if let Ok(session) = session {
            // Not an option: the path as a whole does not begin with a dash.
            assert_eq!(url, "ssh://h/-r/../x");
            drop(session);
        }
    }
}

#[needs(sshd)]
#[test]
fn ssh_with_a_key_an_alias_and_each_form_of_url() {
    let sshd = Sshd::new();
    let command = sshd.client("user", "known");
    for form in ["url", "alias", "scp", "core.sshCommand"] {
        let upstream = Upstream::new();
        let path = upstream.bare();
        let env = [("GIT_SSH_COMMAND", command.as_str())];
        let session = match form {
            "url" => open_with(&sshd.url(&path), options(&env), ""),
            "alias" => open_with(&format!("ssh://upstream{}", path.display()), options(&env), ""),
            "scp" => open_with(&format!("{}@upstream:{}", user(), path.display()), options(&env), ""),
            _ => {
                let configured = format!("[core]\n\tsshCommand = {command}\n");
                open_with(&format!("upstream:{}", path.display()), options(&[]), &configured)
            }
        };
        whole_pass(&upstream, &session);
    }
}

#[needs(sshd)]
#[test]
fn ssh_refuses_host_keys_it_does_not_know_and_never_asks() {
    let sshd = Sshd::new();
    let upstream = Upstream::new();
    for known in ["known_nobody", "known_other"] {
        let command = sshd.client("user", known);
        let session = open_with(&sshd.url(&upstream.bare()), options(&[("GIT_SSH_COMMAND", &command)]), "");
        for e in [session.tip(MAIN).unwrap_err(), Local::new().fetch(&session).unwrap_err()] {
            decent(&e);
            assert!(e.kind == Kind::Refused && e.next.contains("known_hosts"), "{e:?}");
        }
    }
    assert_eq!(std::fs::read_to_string(sshd.at("known_nobody")).unwrap(), "", "the key was not taken on trust");
}

#[needs(sshd)]
#[test]
fn ssh_without_the_right_key_or_path_is_lasting() {
    let sshd = Sshd::new();
    let upstream = Upstream::new();
    let command = sshd.client("stranger", "known");
    let e =
        open_with(&sshd.url(&upstream.bare()), options(&[("GIT_SSH_COMMAND", &command)]), "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("Permission denied") && e.next.contains("key"), "{e:?}");
    let command = sshd.client("user", "known");
    let env = [("GIT_SSH_COMMAND", command.as_str())];
    let e = open_with(&sshd.url("/no/such/it's".as_ref()), options(&env), "").tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Refused, "{e:?}");
    let e = open_with("ssh://127.0.0.1:1/r", options(&env), "").tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
}

#[test]
fn a_git_daemon() {
    let upstream = Upstream::new();
    let daemon = git_daemon(&upstream);
    let url = format!("git://{}/repo.git", daemon.address);
    whole_pass(&upstream, &open(&url));
    let e = open(&format!("git://{}/absent.git", daemon.address)).tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Refused, "{e:?}");
    let address = daemon.address;
    drop(daemon);
    let e = open(&format!("git://{address}/repo.git")).tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
}
