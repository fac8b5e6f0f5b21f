//! Proxies, and hosts other than this one, which only a proxy on loopback can stand for.

use crate::servers::http::{HttpServer, Proxy};
use crate::servers::{CANARY, Upstream, decent, open_with, options};
use gitsync::error::Kind;
use gitsync::remote::Options;

const MAIN: &str = "refs/heads/main";

#[test]
fn a_proxy_is_found_as_git_finds_it_and_spares_whom_it_should() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let url = "http://git.example/repo.git";
    let through = |variables: &[(&str, &str)], config: &str| {
        let proxy = Proxy::to(&server);
        let at = proxy.url().replace("//", "//me:proxy-secret@");
        let variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.replace("PROXY", &at))).collect();
        let variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let found = open_with(url, options(&variables), &config.replace("PROXY", &at)).tip(MAIN);
        match proxy.heads().first() {
            Some(head) => {
                assert!(head.starts_with("CONNECT git.example:80 "), "{head}");
                assert!(head.contains("Proxy-Authorization: Basic"), "{head}");
                assert_eq!(found.unwrap(), upstream.tip());
                true
            }
            None => {
                let e = found.unwrap_err();
                decent(&e);
                assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
                false
            }
        }
    };
    assert!(through(&[("http_proxy", "PROXY")], ""));
    assert!(through(&[("ALL_PROXY", "PROXY")], ""));
    assert!(through(&[], "[http]\n\tproxy = PROXY\n"));
    assert!(through(&[], "[http \"http://git.example\"]\n\tproxy = PROXY\n"));
    assert!(through(&[("http_proxy", "http://127.0.0.1:1")], "[http]\n\tproxy = PROXY\n"));
    assert!(!through(&[("https_proxy", "PROXY")], ""));
    assert!(!through(&[("HTTP_PROXY", "PROXY")], ""));
    assert!(!through(&[("http_proxy", "PROXY"), ("no_proxy", "other, .example")], ""));
    assert!(!through(&[("http_proxy", "PROXY")], "[http]\n\tproxy = \"\"\n"));
    // This machine needs no proxy.
    let proxy = Proxy::to(&server);
    let given = options(&[("http_proxy", &proxy.url()), ("GIT_SYNC_TOKEN", CANARY)]);
    assert_eq!(open_with(&server.url(), given, "").tip(MAIN).unwrap(), upstream.tip());
    assert!(proxy.heads().is_empty());
}

#[test]
fn a_secret_goes_over_plain_http_to_this_machine_only() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let proxy = Proxy::to(&server);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CANARY).unwrap();
    let url = "http://git.example/repo.git";
    let proxy_url = proxy.url();
    let with = |more: &[(&str, &str)]| options(&[&[("http_proxy", proxy_url.as_str())], more].concat());
    let header = format!("[http]\n\textraheader = Authorization: Basic {CANARY}\n\textraheader = X-Token: {CANARY}\n");
    let helper = format!("[credential]\n\thelper = \"!echo username=x; echo password={CANARY};:\"\n");
    let in_url = format!("http://x-access-token:{CANARY}@git.example/repo.git");
    let all = [
        (url, Options { token_file: Some(file.path().into()), ..with(&[]) }, ""),
        (url, with(&[("GIT_SYNC_TOKEN", CANARY)]), ""),
        (url, with(&[("GITHUB_TOKEN", CANARY), ("GITHUB_SERVER_URL", "http://git.example")]), ""),
        (&in_url, with(&[]), ""),
        (url, with(&[]), header.as_str()),
        (url, with(&[]), helper.as_str()),
    ];
    // Where none is asked for, none is missed; where one is, it is said why it was not sent.
    for (url, given, config) in all.clone() {
        assert_eq!(open_with(url, given, config).tip(MAIN).unwrap(), upstream.tip());
    }
    server.wants("x-access-token", CANARY);
    for (url, given, config) in all {
        let e = open_with(url, given, config).tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains("plain http"), "{e:?}");
    }
    assert!(!server.heard(CANARY));
    // For those who must.
    let given = Options { allow_insecure_http: true, ..with(&[("GIT_SYNC_TOKEN", CANARY)]) };
    assert_eq!(open_with(url, given, "").tip(MAIN).unwrap(), upstream.tip());
}

#[test]
fn a_secret_over_https_is_not_the_proxy_s_to_see() {
    let upstream = Upstream::new();
    let server = HttpServer::tls_for(&upstream, &["git.example"]);
    server.wants("x-access-token", CANARY);
    let proxy = Proxy::to(&server);
    let given = options(&[
        ("HTTPS_PROXY", &proxy.url()),
        ("SSL_CERT_FILE", &server.authority_path()),
        ("GIT_SYNC_TOKEN", CANARY),
    ]);
    let session = open_with("https://git.example/repo.git", given, "");
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(proxy.heads().len(), 1);
    assert!(!proxy.heads()[0].contains(CANARY) && proxy.heads()[0].starts_with("CONNECT git.example:443 "));
}

#[test]
fn a_proxy_behind_tls() {
    let upstream = Upstream::new();
    let server = HttpServer::tls(&upstream);
    let given = options(&[("http_proxy", &server.origin()), ("SSL_CERT_FILE", &server.authority_path())]);
    let session = open_with("http://git.example/repo.git", given, "");
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    let asked: Vec<_> = server.seen().iter().map(|s| format!("{} {}", s.method, s.target)).collect();
    assert_eq!(asked, ["CONNECT git.example:80", "POST /repo.git/git-upload-pack"]);
    // One that is not trusted is no way to go.
    let given = options(&[("http_proxy", &server.origin())]);
    let e = open_with("http://git.example/repo.git", given, "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("certificate"), "{e:?}");
}

/// `0.0.0.0` leads to this machine and does not count as it.
#[test]
fn a_socks_proxy_is_refused_and_not_gone_around() {
    let upstream = Upstream::new();
    let (server, secure) = (HttpServer::plain(&upstream), HttpServer::tls_for(&upstream, &["0.0.0.0"]));
    let proxy = Proxy::to(&server);
    for kind in ["socks", "socks4", "socks4a", "socks5", "socks5h"] {
        let at = proxy.url().replace("http://", &format!("{kind}://me:{CANARY}@"));
        let authority = secure.authority_path();
        for (variables, config) in [
            (vec![("ALL_PROXY", at.as_str())], String::new()),
            (vec![("all_proxy", at.as_str())], String::new()),
            (vec![], format!("[http]\n\tproxy = {at}\n")),
        ] {
            for server in [&server, &secure] {
                let url = server.url().replace("127.0.0.1", "0.0.0.0");
                let given = options(&[&variables[..], &[("SSL_CERT_FILE", authority.as_str())]].concat());
                let e = open_with(&url, given, &config).tip(MAIN).unwrap_err();
                decent(&e);
                assert!(e.kind == Kind::Refused && e.what.contains("SOCKS") && e.next.contains("NO_PROXY"), "{e:?}");
                assert!(server.log().is_empty(), "{:?}", server.log());
            }
        }
    }
    assert!(proxy.heads().is_empty());
    // Where the host is spared it, there is no proxy to be refused.
    let given = options(&[("ALL_PROXY", "socks5://127.0.0.1:1"), ("NO_PROXY", "0.0.0.0")]);
    let url = server.url().replace("127.0.0.1", "0.0.0.0");
    assert_eq!(open_with(&url, given, "").tip(MAIN).unwrap(), upstream.tip());
}
