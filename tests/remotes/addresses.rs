//! Hosts that are addresses, IPv6 ones above all, and proxies for them.
//!
//! `0.0.0.0` and `[::]` lead to this machine and do not count as it: they stand for other hosts here.

use crate::servers::http::{HttpServer, Proxy};
use crate::servers::inetd::{Sshd, git_daemon_at, user};
use crate::servers::{CANARY, Local, Upstream, open, open_with, options};
use gitsync::remote::Session;
use needs::needs;

const MAIN: &str = "refs/heads/main";

fn whole_pass(upstream: &Upstream, session: &Session) {
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    let local = Local::new();
    assert_eq!(local.fetch(session).unwrap(), upstream.tip());
    let ours = local.commit("ours.txt", b"ours");
    assert_eq!(local.push(session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
}

#[needs(ipv6)]
#[test]
fn http_and_https_with_a_token() {
    for ip in ["::1", "127.0.0.1", "127.9.8.7"] {
        for secure in [false, true] {
            let upstream = Upstream::new();
            let server = if secure { HttpServer::tls_at(&upstream, ip) } else { HttpServer::plain_at(&upstream, ip) };
            server.wants("x-access-token", CANARY);
            let authority = if secure { server.authority_path() } else { String::new() };
            let given = options(&[("GIT_SYNC_TOKEN", CANARY), ("SSL_CERT_FILE", &authority)]);
            whole_pass(&upstream, &open_with(&server.url(), given, ""));
            let host = server.seen()[0].header("host").unwrap().to_owned();
            assert_eq!(host, server.address.to_string());
        }
    }
}

#[needs(ipv6)]
#[test]
fn a_helper_is_asked_for_the_address() {
    let upstream = Upstream::new();
    let server = HttpServer::plain_at(&upstream, "::1");
    server.wants("x-access-token", CANARY);
    let helper = format!(
        "[credential \"{}\"]\n\thelper = \"!f() {{ grep -qxF 'host={}' && echo username=x-access-token && echo password={CANARY}; }}; f\"\n",
        server.origin(),
        server.address
    );
    assert_eq!(open_with(&server.url(), options(&[]), &helper).tip(MAIN).unwrap(), upstream.tip());
}

#[needs(ipv6, sshd)]
#[test]
fn ssh_and_the_git_daemon() {
    let sshd = Sshd::at_address("::1");
    let command = sshd.client("user", "known");
    let (user, port) = (user(), sshd.inetd.address.port());
    let with_port = format!("{command} -p {port}");
    for form in ["url", "scp", "scp with a port", "alias"] {
        let upstream = Upstream::new();
        let path = upstream.bare().display().to_string();
        let (url, command) = match form {
            "url" => (format!("ssh://{user}@[::1]:{port}{path}"), &command),
            "scp" => (format!("{user}@[::1]:{path}"), &with_port),
            "scp with a port" => (format!("[{user}@upstream:{port}]:{path}"), &command),
            _ => (format!("upstream:{path}"), &command),
        };
        // The key is known for the address.
        let command = format!("{command} -o HostKeyAlias=[::1]:{port}");
        whole_pass(&upstream, &open_with(&url, options(&[("GIT_SSH_COMMAND", &command)]), ""));
    }
    let upstream = Upstream::new();
    let daemon = git_daemon_at(&upstream, "::1");
    whole_pass(&upstream, &open(&format!("git://{}/repo.git", daemon.address)));
}

#[needs(ipv6)]
#[test]
fn a_proxy_and_who_is_spared_it() {
    let upstream = Upstream::new();
    for (ip, host) in [("127.0.0.1", "0.0.0.0"), ("::1", "[::]")] {
        let server = HttpServer::plain_at(&upstream, ip);
        let port = server.address.port();
        let url = format!("http://{host}:{port}/repo.git");
        let bare = host.trim_matches(['[', ']']);
        for (list, spared) in [
            (String::new(), false),
            (bare.to_owned(), true),
            (format!("{host}:{port}"), true),
            (format!("{host}:1"), false),
            (format!("other, {bare}/128, {bare}/8"), true),
            ("10.0.0.0/8,fe80::/10".to_owned(), false),
        ] {
            let proxy = Proxy::to(&server);
            let given = options(&[("http_proxy", &proxy.url()), ("NO_PROXY", &list)]);
            assert_eq!(open_with(&url, given, "").tip(MAIN).unwrap(), upstream.tip());
            let heads = proxy.heads();
            assert_eq!(heads.is_empty(), spared, "{list}: {heads:?}");
            assert!(heads.iter().all(|head| head.starts_with(&format!("POST http://{host}:{port}/"))), "{heads:?}");
        }
    }
}
