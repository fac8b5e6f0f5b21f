//! Secrets: which one goes to whom, and where none may go.

use std::os::unix::fs::PermissionsExt;

use crate::servers::http::{Fault, HttpServer, base64};
use crate::servers::{CANARY, Local, Upstream, decent, open, open_with, options};
use gitsync::error::{Error, Kind};
use gitsync::remote::{Options, Session, split_url_secret};

const MAIN: &str = "refs/heads/main";
const POST: &str = "POST git-upload-pack";

fn guarded() -> (Upstream, HttpServer) {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    server.wants("x-access-token", CANARY);
    (upstream, server)
}

fn token_file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

fn with_file(path: &std::path::Path, variables: &[(&str, &str)]) -> Options {
    Options { token_file: Some(path.to_owned()), ..options(variables) }
}

fn script(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let shown = path.display().to_string();
    (dir, shown)
}

#[test]
fn a_token_goes_with_the_first_request() {
    let (upstream, server) = guarded();
    let file = token_file(&format!("{CANARY}\n"));
    let origin = server.origin();
    for given in [
        with_file(file.path(), &[("GIT_SYNC_TOKEN", "wrong-one")]),
        options(&[("GIT_SYNC_TOKEN", CANARY), ("GITHUB_TOKEN", "wrong-one"), ("GITHUB_SERVER_URL", &origin)]),
        options(&[("GIT_SYNC_TOKEN", ""), ("GITHUB_TOKEN", CANARY), ("GITHUB_SERVER_URL", &origin)]),
    ] {
        server.forget();
        let session = open_with(&server.url(), given, "");
        assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
        assert_eq!(server.log(), [POST]);
        assert!(!format!("{session:?}").contains(CANARY));
    }
}

#[test]
fn a_token_in_the_url_is_used_and_not_shown() {
    let (upstream, server) = guarded();
    let url = server.url().replace("http://", &format!("http://x-access-token:{CANARY}@"));
    let session = open(&url);
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(session.display_url(), server.url().replace("//", "//x-access-token@"));
    assert!(!format!("{session:?}").contains(CANARY));
    assert_eq!(split_url_secret(&url), (server.url(), Some(("x-access-token".into(), CANARY.into()))));
    assert!(!server.seen()[0].target.contains(CANARY));
}

#[test]
fn github_s_token_is_for_github() {
    let (_upstream, server) = guarded();
    for variables in
        [vec![("GITHUB_TOKEN", CANARY)], vec![("GITHUB_TOKEN", CANARY), ("GITHUB_SERVER_URL", "http://127.0.0.1:1")]]
    {
        let e = open_with(&server.url(), options(&variables), "").tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains("GITHUB_TOKEN is only for"), "{e:?}");
    }
    assert!(!server.heard(CANARY));
}

#[test]
fn a_wrong_secret_is_tried_once_and_its_source_named() {
    let (_upstream, server) = guarded();
    let file = token_file("wrong-file-token");
    let wrong_helper = "[credential]\n\thelper = \"!echo username=x; echo password=wrong-helper;:\"\n";
    let (_dir, ask) = script("echo wrong-ask");
    let origin = server.origin();
    let header = format!("[http \"{origin}/\"]\n\textraheader = AUTHORIZATION: basic {}\n", base64("x:wrong-header"));
    let source = |options: Options, config: &str, source: &str, requests: usize| {
        server.forget();
        let session = open_with(&server.url(), options, config);
        let e = session.tip(MAIN).unwrap_err();
        decent(&e);
        assert_eq!(e.kind, Kind::Refused);
        assert!(e.what.contains(source) && e.what.contains("401"), "{e:?}");
        assert!(!e.what.contains("wrong-") && e.next.contains("Contents"), "{e:?}");
        assert_eq!(server.log().len(), requests, "{source}: {:?}", server.log());
    };
    source(with_file(file.path(), &[]), wrong_helper, &format!("the token file {}", file.path().display()), 1);
    source(options(&[("GIT_SYNC_TOKEN", "wrong-env-token")]), wrong_helper, "GIT_SYNC_TOKEN", 1);
    source(options(&[]), wrong_helper, "credential helper", 2);
    source(options(&[("GIT_ASKPASS", &ask)]), "", "GIT_ASKPASS", 2);
    source(options(&[]), &header, "http.extraheader", 1);
    // With nothing at all it is said what to set.
    let e = open(&server.url()).tip(MAIN).unwrap_err();
    assert!(e.kind == Kind::Refused && e.next.contains("GIT_SYNC_TOKEN"), "{e:?}");
    // For ever means also when nothing is wrong with the secret.
    server.forget();
    server.always(Fault::unauthorized());
    source(options(&[("GIT_SYNC_TOKEN", CANARY)]), "", "GIT_SYNC_TOKEN", 1);
}

#[test]
fn a_secret_that_is_not_enough_is_sent_once() {
    let (upstream, server) = guarded();
    let header = base64(&format!("x:{CANARY}"));
    let header = format!("[http \"{}/\"]\n\textraheader = AUTHORIZATION: basic {header}\n", server.origin());
    let with_token = options(&[("GIT_SYNC_TOKEN", CANARY)]);
    for (given, config, source) in
        [(with_token.clone(), "", "GIT_SYNC_TOKEN"), (options(&[]), header.as_str(), "http.extraheader")]
    {
        for (status, limited) in [(401, false), (403, false), (403, true), (429, true)] {
            let headers = if limited { vec![("Retry-After", "60".to_owned())] } else { Vec::new() };
            server.always(Fault::Answer(status, headers, Vec::new()));
            server.forget();
            let e = open_with(&server.url(), given.clone(), config).tip(MAIN).unwrap_err();
            decent(&e);
            assert_eq!(server.log(), [POST], "{status}");
            assert_eq!(e.kind, if limited { Kind::Unreachable } else { Kind::Refused }, "{e:?}");
            assert!(e.what.contains(source) && e.what.contains(&status.to_string()), "{e:?}");
        }
    }
    // A spent rate limit, as GitHub tells of it.
    server.always(Fault::Answer(403, vec![("X-RateLimit-Remaining", "0".to_owned())], Vec::new()));
    server.forget();
    assert_eq!(open_with(&server.url(), with_token, "").tip(MAIN).unwrap_err().kind, Kind::Unreachable);
    assert_eq!(server.log(), [POST]);
    // Without a secret it may be the way of asking that is refused.
    server.forget();
    let open_server = HttpServer::plain(&upstream);
    open_server.on(POST, Fault::status(403));
    assert_eq!(open(&open_server.url()).tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(open_server.log(), [POST, "GET info/refs git-upload-pack"]);
}

#[test]
fn a_server_that_asks_once_gets_the_helper_s_answer() {
    let (upstream, server) = guarded();
    let dir = tempfile::tempdir().unwrap();
    let asked = dir.path().join("asked");
    let helper = format!(
        "[credential]\n\thelper = /bin/false\n\thelper = \"!f() {{ cat >>'{}'; echo quit=0; echo username=x-access-token; echo password={CANARY}; }}; f\"\n",
        asked.display()
    );
    let session = open_with(&server.url(), options(&[]), &helper);
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(server.log(), [POST, POST]);
    let local = Local::new();
    local.fetch(&session).unwrap();
    local.commit("ours", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    let asked = std::fs::read_to_string(asked).unwrap();
    assert_eq!(asked, format!("protocol=http\nhost={}\n\n", server.address));
    // Nobody asked: no helper ran.
    let open_server = HttpServer::plain(&upstream);
    open_with(&open_server.url(), options(&[]), "[credential]\n\thelper = !exit 3\n").tip(MAIN).unwrap();
    assert_eq!(open_server.log(), [POST]);
}

#[test]
fn git_s_own_store_and_askpass_are_asked() {
    let (upstream, server) = guarded();
    let store =
        token_file(&format!("http://x-access-token:{CANARY}@{}\n", server.address.to_string().replace(':', "%3a")));
    let helper = format!("[credential]\n\thelper = store --file={}\n", store.path().display());
    assert_eq!(open_with(&server.url(), options(&[]), &helper).tip(MAIN).unwrap(), upstream.tip());
    let (_dir, ask) = script(&format!("case \"$1\" in Username*) echo x-access-token;; *) echo {CANARY};; esac"));
    let asked = options(&[("GIT_ASKPASS", &ask)]);
    assert_eq!(open_with(&server.url(), asked, "").tip(MAIN).unwrap(), upstream.tip());
}

#[test]
fn a_helper_or_askpass_that_fails_is_named() {
    let (_upstream, server) = guarded();
    gitsync::remote::redact::register_secret(CANARY);
    let fails = format!("echo no luck with {CANARY} >&2; exit 7");
    let (_dir, program) = script(&fails);
    let helper = format!("[credential]\n\thelper = {program}\n");
    for (given, config, who) in [
        (
            options(&[]),
            helper.as_str(),
            format!("the credential helper {program} failed with exit code 7: no luck with ***"),
        ),
        (options(&[("GIT_ASKPASS", &program)]), "", "GIT_ASKPASS failed with exit code 7: no luck with ***".to_owned()),
        (options(&[("GIT_ASKPASS", "/no/such/askpass")]), "", "GIT_ASKPASS could not be run".to_owned()),
        (options(&[]), "[credential]\n\thelper = no-such-one\n", "the credential helper no-such-one failed".to_owned()),
    ] {
        let e = open_with(&server.url(), given, config).tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains(&who), "{who}: {e:?}");
        assert!(e.next.contains("see that the program runs"), "{e:?}");
    }
    // One that knows nothing has not failed.
    let e = open_with(&server.url(), options(&[]), "[credential]\n\thelper = !true\n").tip(MAIN).unwrap_err();
    assert!(e.what.contains("no credentials are set"), "{e:?}");
}

#[test]
fn the_header_of_actions_checkout_works_and_is_for_its_host_only() {
    let (upstream, server) = guarded();
    let header = base64(&format!("x-access-token:{CANARY}"));
    let origin = server.origin();
    let config = format!("[http \"{origin}/\"]\n\textraheader = AUTHORIZATION: basic {header}\n");
    // `basic` in lower case, as actions/checkout has it: this server of ours only knows the exact header.
    server.when(move |seen, _| {
        let good = seen.header("authorization").is_some_and(|a| a.eq_ignore_ascii_case(&format!("basic {header}")));
        Some(if good { Fault::Rewrite(|a| a) } else { Fault::unauthorized() })
    });
    let session = open_with(&server.url(), options(&[]), &config);
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(server.log(), [POST]);
    assert_eq!(Local::new().fetch(&session).unwrap(), upstream.tip());
    let other = HttpServer::plain(&upstream);
    assert_eq!(open_with(&other.url(), options(&[]), &config).tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(other.seen()[0].header("authorization"), None);
}

#[test]
fn the_token_in_a_header_is_not_shown_when_the_server_says_it() {
    let (_upstream, server) = guarded();
    // No other test's: once known it is masked everywhere.
    let token = "CANARYofTheHeader0123456789";
    server.when(move |_, _| {
        let said = format!("'x-access-token' with '{token}' may not do that");
        Some(Fault::Answer(403, vec![("Content-Type", "text/plain".to_owned())], said.into_bytes()))
    });
    let header = base64(&format!("x-access-token:{token}"));
    let config = format!("[http]\n\textraheader = AUTHORIZATION: basic {header}\n");
    let e = open_with(&server.url(), options(&[]), &config).tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.what.contains("with '***' may not") && !e.what.contains(token), "{e:?}");
}

#[test]
fn other_extra_headers_are_sent() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let config = "[http]\n\textraheader = X-Old: 1\n\textraheader =\n\textraheader = X-Mine: yes\n";
    open_with(&server.url(), options(&[]), config).tip(MAIN).unwrap();
    assert_eq!(server.seen()[0].header("x-mine"), Some("yes"));
    assert_eq!(server.seen()[0].header("x-old"), None);
}

fn all_of(session: &Session) -> Vec<Error> {
    let local = Local::new();
    local.commit("ours", b"ours");
    vec![session.tip(MAIN).unwrap_err(), local.fetch(session).unwrap_err(), local.push(session).unwrap_err()]
}

#[test]
fn no_secret_goes_along_a_redirect_to_another_host() {
    let upstream = Upstream::new();
    let (server, other) = (HttpServer::plain(&upstream), HttpServer::plain(&upstream));
    // The same host on another port, and another name for the same address.
    let as_localhost = other.origin().replace("127.0.0.1", "localhost");
    let origin = server.origin();
    let (_dir, ask) = script(&format!("echo {CANARY}"));
    let file = token_file(CANARY);
    let header = format!("[http \"{origin}/\"]\n\textraheader = AUTHORIZATION: basic {}\n", base64(CANARY));
    let helper = format!("[credential]\n\thelper = \"!echo username=x; echo password={CANARY};:\"\n");
    for to in [other.origin(), as_localhost] {
        for status in [301, 302, 307, 308] {
            server.always(Fault::Redirect(status, to.clone()));
            for (given, config) in [
                (with_file(file.path(), &[]), ""),
                (options(&[("GIT_SYNC_TOKEN", CANARY)]), ""),
                (options(&[("GITHUB_TOKEN", CANARY), ("GITHUB_SERVER_URL", &origin)]), ""),
                (options(&[]), header.as_str()),
            ] {
                for e in all_of(&open_with(&server.url(), given.clone(), config)) {
                    decent(&e);
                    assert!(e.kind == Kind::Refused && e.what.contains("redirects to another host"), "{e:?}");
                }
            }
        }
    }
    assert!(other.log().is_empty(), "{:?}", other.seen());
    // What is only given when asked is not given to who was not meant.
    other.wants("x", CANARY);
    for (given, config) in [(options(&[]), helper.as_str()), (options(&[("GIT_ASKPASS", &ask)]), "")] {
        for e in all_of(&open_with(&server.url(), given, config)) {
            decent(&e);
            assert!(e.kind == Kind::Refused && e.what.contains("do not go there"), "{e:?}");
        }
    }
    assert!(!other.heard(CANARY) && !other.log().is_empty());
}

#[test]
fn a_redirect_without_a_secret_or_within_the_host_is_followed() {
    let upstream = Upstream::new();
    let (server, other) = (HttpServer::plain(&upstream), HttpServer::plain(&upstream));
    server.always(Fault::Redirect(301, other.origin()));
    let session = open(&server.url());
    let local = Local::new();
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    local.fetch(&session).unwrap();
    let ours = local.commit("ours", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    // Once told, the session goes there at once.
    assert_eq!(server.log(), [POST]);

    // A renamed repository, on the same host, with a token.
    let server = HttpServer::plain(&upstream);
    server.wants("x-access-token", CANARY);
    let to = format!("{}/repo.git", server.origin());
    server.when(move |seen, _| {
        let below = seen.target.strip_prefix("/old.git")?;
        Some(Fault::Answer(301, vec![("Location", format!("{to}{below}"))], Vec::new()))
    });
    let url = format!("{}/old.git", server.origin());
    let session = open_with(&url, options(&[("GIT_SYNC_TOKEN", CANARY)]), "");
    assert_eq!(session.tip(MAIN).unwrap(), Some(ours));
    let next = local.commit("more", b"more");
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(next));
}

#[test]
fn a_redirect_to_nowhere_or_in_a_circle_is_an_error() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    for fault in [
        Fault::Redirect(302, server.origin()),
        Fault::Redirect(302, "ftp://127.0.0.1".into()),
        Fault::Answer(302, vec![("Location", "/login".into())], Vec::new()),
        Fault::Answer(302, Vec::new(), Vec::new()),
    ] {
        server.always(fault);
        for e in all_of(&open(&server.url())) {
            decent(&e);
            assert_eq!(e.kind, Kind::Refused, "{e:?}");
        }
    }
}

#[test]
fn a_token_file_that_is_wrong_is_named() {
    let (_upstream, server) = guarded();
    for content in ["", "\n", "two\nlines"] {
        let file = token_file(content);
        let e = open_with(&server.url(), with_file(file.path(), &[]), "").tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains(&file.path().display().to_string()), "{e:?}");
    }
    let gone = with_file("/no/such/token".as_ref(), &[("GIT_SYNC_TOKEN", CANARY)]);
    let e = open_with(&server.url(), gone, "").tip(MAIN).unwrap_err();
    assert!(e.kind == Kind::Refused && e.what.contains("/no/such/token"), "{e:?}");
    assert!(server.log().is_empty());
}

#[test]
fn programs_for_other_remotes_do_not_get_the_tokens() {
    let upstream = Upstream::new();
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("env");
    upstream.hook("pre-receive", &format!("env >'{}'", seen.display()));
    let path = upstream.bare().display().to_string();
    let session = open_with(&path, options(&[("GIT_SYNC_TOKEN", CANARY)]), "");
    let local = Local::new();
    local.fetch(&session).unwrap();
    local.commit("ours", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert!(!std::fs::read_to_string(seen).unwrap().contains(CANARY));
}
