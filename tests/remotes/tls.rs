//! https, with an authority made in the test.

use std::io::{Read, Write};
use std::time::Duration;

use crate::servers::http::{Fault, HttpServer};
use crate::servers::{CANARY, Local, Upstream, decent, open, open_with, options};
use gitsync::error::Kind;
use gitsync::remote::Options;

const MAIN: &str = "refs/heads/main";

#[test]
fn an_authority_can_be_added_by_each_way() {
    let upstream = Upstream::new();
    let server = HttpServer::tls(&upstream);
    let file = server.authority_path();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(&file, dir.path().join("our.pem")).unwrap();
    let dir = format!("/nowhere:{}", dir.path().display());
    for (variables, config) in [
        (vec![("SSL_CERT_FILE", file.as_str())], String::new()),
        (vec![("SSL_CERT_DIR", dir.as_str())], String::new()),
        (vec![("GIT_SSL_CAINFO", file.as_str())], String::new()),
        (vec![], format!("[http]\n\tsslCAInfo = {file}\n")),
        (vec![], format!("[http \"{}\"]\n\tsslCAInfo = {file}\n", server.origin())),
    ] {
        let session = open_with(&server.url(), options(&variables), &config);
        assert_eq!(session.tip(MAIN).unwrap(), upstream.tip(), "{variables:?}");
    }
}

#[test]
fn an_authority_in_a_folder_is_found_though_an_older_one_bears_its_name() {
    let upstream = Upstream::new();
    // All authorities of these tests have one name.
    let (server, older) = (HttpServer::tls(&upstream), HttpServer::tls(&upstream));
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(server.authority_path(), dir.path().join("renewed.pem")).unwrap();
    let dir = dir.path().display().to_string();
    let given = options(&[("SSL_CERT_FILE", &older.authority_path()), ("SSL_CERT_DIR", &dir)]);
    assert_eq!(open_with(&server.url(), given, "").tip(MAIN).unwrap(), upstream.tip());
    let e = open_with(&server.url(), options(&[("SSL_CERT_FILE", &older.authority_path())]), "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.next.contains("SSL_CERT_FILE"), "{e:?}");
}

#[test]
fn everything_goes_over_one_secure_connection() {
    let upstream = Upstream::new();
    let server = HttpServer::tls(&upstream);
    server.wants("x-access-token", CANARY);
    let session = open_with(
        &server.url(),
        options(&[("SSL_CERT_FILE", &server.authority_path()), ("GIT_SYNC_TOKEN", CANARY)]),
        "",
    );
    let local = Local::new();
    session.tip(MAIN).unwrap();
    local.fetch(&session).unwrap();
    let ours = local.commit("large", &CANARY.as_bytes().repeat(200_000));
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    assert!(server.seen().iter().all(|s| s.connection == 0));
}

#[test]
fn a_certificate_that_is_not_trusted_is_lasting_and_gets_no_secret() {
    let upstream = Upstream::new();
    let (known, unknown) = (HttpServer::tls(&upstream), HttpServer::tls(&upstream));
    let misnamed = HttpServer::tls_for(&upstream, &["other.example"]);
    for (server, authority) in [(&unknown, &known), (&misnamed, &misnamed)] {
        let given = options(&[("GIT_SYNC_TOKEN", CANARY), ("SSL_CERT_FILE", &authority.authority_path())]);
        let e = open_with(&server.url(), given, "").tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains("certificate"), "{e:?}");
        assert!(server.log().is_empty() && !server.heard(CANARY));
    }
}

#[test]
fn a_plain_server_behind_an_https_url_is_named_as_such() {
    // Servers answer this as a request that they don't understand, at once or when nothing more comes.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let e = open(&format!("https://{address}/repo.git")).tip(MAIN).unwrap_err();
    decent(&e);
    assert!(
        e.kind == Kind::Unreachable && e.what.contains("does not speak TLS") && e.next.contains("http://"),
        "{e:?}"
    );
    // One that says nothing is passing trouble.
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let given = Options { idle: Duration::from_millis(300), ..options(&[]) };
    let e = open_with(&server.url().replace("http:", "https:"), given, "").tip(MAIN).unwrap_err();
    decent(&e);
}

#[test]
fn https_does_not_lead_to_plain_http() {
    let upstream = Upstream::new();
    let (server, plain) = (HttpServer::tls(&upstream), HttpServer::plain(&upstream));
    server.always(Fault::Redirect(301, plain.origin()));
    for token in ["", CANARY] {
        let given = options(&[("SSL_CERT_FILE", &server.authority_path()), ("GIT_SYNC_TOKEN", token)]);
        let e = open_with(&server.url(), given, "").tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains("plain http"), "{e:?}");
    }
    assert!(plain.log().is_empty());
}
