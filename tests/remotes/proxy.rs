//! Proxies, and hosts other than this one, which only a proxy on loopback can stand for.

use crate::servers::http::{Fault, HttpServer, Proxy, base64};
use crate::servers::socks::Socks;
use crate::servers::{CANARY, Local, Upstream, decent, open_with, options};
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
                assert!(head.starts_with("POST http://git.example/repo.git/git-upload-pack HTTP/1.1\r\n"), "{head}");
                assert!(head.to_ascii_lowercase().contains("\r\nhost: git.example\r\n"), "{head}");
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
    assert!(through(&[], "[http \"http://git.example\"]\n\tproxy = PROXY\n[http]\n\tproxy = http://127.0.0.1:1\n"));
    assert!(through(&[], "[remote \"origin\"]\n\tproxy = PROXY\n[http]\n\tproxy = http://127.0.0.1:1\n"));
    assert!(through(&[("http_proxy", "http://127.0.0.1:1")], "[remote \"origin\"]\n\tproxy = PROXY\n"));
    assert!(through(
        &[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "remote.origin.proxy"), ("GIT_CONFIG_VALUE_0", "PROXY"),],
        "",
    ));
    assert!(!through(&[("http_proxy", "PROXY")], "[remote \"origin\"]\n\tproxy = \"\"\n"));
    assert!(!through(&[], "[remote \"other\"]\n\tproxy = PROXY\n"));
    assert!(!through(&[], "[http \"https://git.example\"]\n\tproxy = PROXY\n"));
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
    assert_eq!(asked, ["POST http://git.example/repo.git/git-upload-pack"]);
    // One that is not trusted is no way to go.
    let given = options(&[("http_proxy", &server.origin())]);
    let e = open_with("http://git.example/repo.git", given, "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("certificate"), "{e:?}");
}

#[test]
fn a_whole_pass_of_plain_http_is_requests_with_the_whole_url() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let proxy = Proxy::to(&server);
    let at = proxy.url().replace("//", "//me:proxy%2Fsecret@");
    let session = || open_with("http://git.example/repo.git", options(&[("http_proxy", &at)]), "");
    let local = Local::new();
    assert_eq!(local.fetch(&session()).unwrap(), upstream.tip());
    // One push in one piece, and one in many.
    for size in [10, 3 << 20] {
        let noise: Vec<u8> = (0..size).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let ours = local.commit("ours.txt", &noise);
        assert_eq!(local.push(&session()).unwrap(), None);
        assert_eq!(upstream.tip(), Some(ours));
    }
    for seen in server.seen() {
        assert!(seen.target.starts_with("http://git.example/repo.git/"), "{seen:?}");
        assert_eq!(seen.header("proxy-authorization"), Some(&*format!("Basic {}", base64("me:proxy/secret"))));
    }
    // A fetch makes several requests over one connection to the proxy.
    assert!(proxy.heads().len() < server.seen().len(), "{} {}", proxy.heads().len(), server.seen().len());
}

#[test]
fn a_proxy_that_is_dead_or_refuses_is_named() {
    let upstream = Upstream::new();
    // As a proxy it answers every request itself.
    let (server, secure) = (HttpServer::plain(&upstream), HttpServer::tls(&upstream));
    for (proxy, what) in [(&server, "http"), (&secure, "https")] {
        for url in ["http://git.example/repo.git", "https://git.example/repo.git"] {
            for (status, kind) in [
                (401, Kind::Refused),
                (403, Kind::Refused),
                (407, Kind::Refused),
                (502, Kind::Unreachable),
                (503, Kind::Unreachable),
            ] {
                proxy.always(Fault::status(status));
                let given = options(&[
                    ("all_proxy", &proxy.origin().replace("//", &format!("//me:{CANARY}@"))),
                    ("SSL_CERT_FILE", &secure.authority_path()),
                ]);
                let e = open_with(url, given, "").tip(MAIN).unwrap_err();
                decent(&e);
                assert_eq!(e.kind, kind, "{what} {url} {status}: {e:?}");
                assert!(
                    e.what.contains(&format!("the proxy {what}://***@127.0.0.1:{}", proxy.address.port())),
                    "{e:?}"
                );
                assert!(status != 407 || e.next.contains("user and password"), "{e:?}");
            }
        }
    }
    for url in ["http://git.example/repo.git", "https://git.example/repo.git"] {
        for scheme in ["http", "socks5h"] {
            let dead = format!("{scheme}://127.0.0.1:1");
            let e = open_with(url, options(&[("all_proxy", &dead)]), "").tip(MAIN).unwrap_err();
            decent(&e);
            assert!(e.kind == Kind::Unreachable && e.what.contains(&format!("the proxy {dead}")), "{e:?}");
            assert!(e.next.contains("the proxy is up"), "{e:?}");
        }
    }
}

/// `0.0.0.0` leads to this machine and does not count as it.
#[test]
fn a_socks_proxy_is_used_and_not_gone_around() {
    let upstream = Upstream::new();
    let (server, secure) = (HttpServer::plain(&upstream), HttpServer::tls_for(&upstream, &["git.example"]));
    let authority = secure.authority_path();
    let given = |at: &str| options(&[("all_proxy", at), ("SSL_CERT_FILE", &authority)]);
    for (server, url, port) in
        [(&server, "http://git.example/repo.git", 80), (&secure, "https://git.example/repo.git", 443)]
    {
        let socks = Socks::to(server, Some(("me", CANARY)));
        let at = format!("socks5h://me:{CANARY}@{}", socks.address);
        assert_eq!(open_with(url, given(&at), "").tip(MAIN).unwrap(), upstream.tip());
        assert_eq!(socks.asked(), [format!("git.example:{port}")], "the proxy looks the name up");
        // The wrong password, or none.
        for at in [format!("socks5h://me:wrong-{CANARY}@{}", socks.address), format!("socks5h://{}", socks.address)] {
            let e = open_with(url, given(&at), "").tip(MAIN).unwrap_err();
            decent(&e);
            assert!(e.kind == Kind::Refused && e.what.contains("the proxy socks5h://"), "{e:?}");
            assert!(e.next.contains("user and password"), "{e:?}");
        }
    }
    let socks = Socks::to(&server, None);
    let url = server.url().replace("127.0.0.1", "0.0.0.0");
    let at = format!("socks5://{}", socks.address);
    assert_eq!(open_with(&url, given(&at), "").tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(socks.asked(), [format!("0.0.0.0:{}", server.address.port())]);
    let local = Local::new();
    let session = open_with(&url, given(&at), "");
    assert_eq!(local.fetch(&session).unwrap(), upstream.tip());
    local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    // Where the host is spared it, the proxy is not asked.
    let asked = socks.asked().len();
    let given = options(&[("ALL_PROXY", &at), ("NO_PROXY", "0.0.0.0")]);
    assert_eq!(open_with(&url, given, "").tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(socks.asked().len(), asked);
}

#[test]
fn a_proxy_of_another_kind_is_refused() {
    for at in ["ftp://127.0.0.1:1", "http://", "socks9://127.0.0.1"] {
        let e = open_with("http://git.example/repo.git", options(&[("http_proxy", at)]), "").tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains("none that gitsync can use"), "{e:?}");
    }
}
