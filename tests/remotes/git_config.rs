//! What git's configuration says about reaching a remote: certificates, cookies, headers, the user agent, and files that are
//! included for a remote's URL.

use crate::scene::{Scene, write};
use crate::servers::http::{Fault, HttpServer};
use crate::servers::{CANARY, Local, Upstream, decent, open_with, options};
use gitsync::error::Kind;

const MAIN: &str = "refs/heads/main";

#[test]
fn a_client_certificate_is_shown_to_the_remote_s_host_alone() {
    let upstream = Upstream::new();
    let (server, files) = HttpServer::tls_for_clients(&upstream);
    let trust = server.authority_path();
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let given = |more: &[(&str, &str)]| options(&[&[("SSL_CERT_FILE", trust.as_str())], more].concat());
    let configured = format!("[http]\n\tsslCert = {cert}\n\tsslKey = {key}\n");
    let for_host = format!("[http \"{}\"]\n\tsslCert = {}\n", server.origin(), files.path("both.pem"));
    let variables: [(&str, &str); 2] = [("GIT_SSL_CERT", &cert), ("GIT_SSL_KEY", &key)];
    for (more, config) in [(&[][..], configured.as_str()), (&[], &for_host), (&variables, "")] {
        let session = open_with(&server.url(), given(more), config);
        assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
        let local = Local::new();
        local.fetch(&session).unwrap();
        local.commit("ours.txt", config.as_bytes());
        assert_eq!(local.push(&session).unwrap(), None);
    }
    // None, one of another host's, one that the server does not know.
    let elsewhere = for_host.replace("127.0.0.1", "elsewhere.example");
    let other =
        format!("[http]\n\tsslCert = {}\n\tsslKey = {}\n", files.path("other-cert.pem"), files.path("other-key.pem"));
    for config in ["", &elsewhere, &other] {
        let e = open_with(&server.url(), given(&[]), config).tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.next.contains("http.sslCert"), "{config}: {e:?}");
    }
    // Along a redirect to another host: the one asked there gets none.
    let first = HttpServer::plain(&upstream);
    first.always(Fault::Redirect(302, server.origin()));
    let e = open_with(&first.url(), given(&variables), "").tip(MAIN).unwrap_err();
    assert!(e.kind == Kind::Refused && e.next.contains("http.sslCert"), "{e:?}");
}

#[test]
fn a_client_certificate_that_can_t_be_used_is_named() {
    let upstream = Upstream::new();
    let (server, files) = HttpServer::tls_for_clients(&upstream);
    let locked = files.path("locked.pem");
    std::fs::write(&locked, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
        .unwrap();
    let cert = files.path("cert.pem");
    for (cert, key, why) in [
        ("/no/such/cert", "", "/no/such/cert of the client's certificate can't be read"),
        (&cert, "/no/such/key", "/no/such/key of the client's key can't be read"),
        (&cert, "", "has no private key"),
        (&cert, &locked, "wants a password"),
        (&files.path("key.pem"), "", "has no certificate"),
    ] {
        let authority = server.authority_path();
        let given = options(&[("SSL_CERT_FILE", &authority), ("GIT_SSL_CERT", cert), ("GIT_SSL_KEY", key)]);
        let e = open_with(&server.url(), given, "").tip(MAIN).unwrap_err();
        decent(&e);
        assert!(e.kind == Kind::Refused && e.what.contains(why), "{why}: {e:?}");
    }
}

#[test]
fn certificates_are_checked_whatever_git_was_told() {
    let scene = Scene::without_ours();
    let server = HttpServer::over(scene.root(), true);
    let url = server.url().replace("repo.git", "upstream.git");
    let config = scene.root().join("home/.gitconfig");
    write(&config, "[http]\n\tsslVerify = false\n");
    let says = "http.sslVerify=false is not honoured";
    scene.run(&["init-sync", "--remote-url", &url]).exits(1).logs(says).logs("http.sslCAInfo");
    write(
        &config,
        &format!(
            "[http \"https://other.example\"]\n\tsslVerify = false\n[http]\n\tsslCAInfo = {}\n",
            server.authority_path()
        ),
    );
    scene.run(&["init-sync", "--remote-url", &url]).exits(0).logs_not("not honoured");
    scene.env("GIT_SSL_NO_VERIFY", "1").sync().exits(0).logs("GIT_SSL_NO_VERIFY is not honoured");
}

#[test]
fn cookies_and_headers_go_to_the_remote_s_host_and_are_secrets() {
    let upstream = Upstream::new();
    let (server, other) = (HttpServer::plain(&upstream), HttpServer::plain_at(&upstream, "127.0.0.2"));
    let folder = tempfile::tempdir().unwrap();
    let jar = folder.path().join("cookies");
    write(
        &jar,
        &format!("127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{CANARY}\nelsewhere.example\tFALSE\t/\tFALSE\t0\tother\tx\n"),
    );
    let named = format!("[http]\n\tcookieFile = {}\n\textraHeader = X-Team: {CANARY}-team\n", jar.display());
    let home = format!("[http \"{}\"]\n\tcookieFile = ~/cookies\n", server.origin());
    for (config, team) in [(&named, true), (&home, false)] {
        server.forget();
        let given = options(&[("HOME", folder.path().to_str().unwrap())]);
        assert_eq!(open_with(&server.url(), given, config).tip(MAIN).unwrap(), upstream.tip());
        let seen = server.seen();
        assert_eq!(seen[0].header("cookie"), Some(&*format!("session={CANARY}")));
        assert_eq!(seen[0].header("x-team").is_some(), team);
    }
    // What a server gives back of them is masked.
    let said = format!("no: {CANARY} and {CANARY}-team");
    server.always(Fault::Answer(400, vec![("Content-Type", "text/plain".to_owned())], said.into_bytes()));
    let e = open_with(&server.url(), options(&[]), &named).tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.what.contains("***"), "{e:?}");
    // Nothing of it goes to another host.
    server.always(Fault::Redirect(302, other.origin()));
    let e = open_with(&server.url(), options(&[]), &named).tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("another host"), "{e:?}");
    assert!(other.log().is_empty() && !other.heard(CANARY));
}

#[test]
fn the_user_agent_is_git_s_or_the_configured_one() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let agent = |variables: &[(&str, &str)], config: &str| {
        server.forget();
        open_with(&server.url(), options(variables), config).tip(MAIN).unwrap();
        server.seen()[0].header("user-agent").unwrap().to_owned()
    };
    assert!(agent(&[], "").starts_with("git/"));
    assert_eq!(agent(&[], "[http]\n\tuserAgent = mine/1\n"), "mine/1");
    assert_eq!(agent(&[], &format!("[http \"{}\"]\n\tuserAgent = yours/1\n", server.origin())), "yours/1");
    assert_eq!(agent(&[("GIT_HTTP_USER_AGENT", "theirs/1")], "[http]\n\tuserAgent = mine/1\n"), "theirs/1");
}

#[test]
fn a_file_included_for_a_remote_s_url_gives_identity_credentials_and_urls() {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    server.wants("me", CANARY);
    let home = scene.root().join("home");
    let origin = server.origin();
    for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
        scene.env(name, "");
    }
    let config = |glob: &str| {
        write(
            &home.join(".gitconfig"),
            &format!(
                "[user]\n\tname = Nobody\n\temail = nobody@example.org\n[includeIf \"hasconfig:remote.*.url:{glob}\"]\n\tpath = work\n"
            ),
        );
    };
    write(
        &home.join("work"),
        &format!(
            "[user]\n\tname = At Work\n\temail = work@example.org\n[credential \"{origin}\"]\n\thelper = \"!echo username=me; echo password={CANARY};:\"\n\
             [url \"{origin}/\"]\n\tinsteadOf = http://work.example/\n"
        ),
    );
    config("http://elsewhere.example/**");
    scene.run(&["init-sync", "--remote-url", "http://work.example/upstream.git"]).exits(75);
    config("http://work.example/**");
    scene.run(&["init-sync", "--remote-url", "http://work.example/upstream.git"]).exits(0).says("cloned");
    // As git has it.
    assert_eq!(scene.git_ours(&["config", "user.name"]), "At Work");
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert_eq!(scene.git_upstream(&["log", "-1", "--format=%an <%ae>", "main"]), "At Work <work@example.org>");
    // Git does not read it either where no remote has such a URL.
    config("http://work.example/*");
    assert_eq!(scene.git_ours(&["config", "user.name"]), "At Work");
    config("http://*.other/**");
    assert_eq!(scene.git_ours(&["config", "user.name"]), "Nobody");
    scene.sync().exits(75);
}

#[test]
fn a_push_url_of_another_repository_is_refused() {
    let scene = Scene::new();
    let other = scene.root().join("other.git");
    scene.git_in(scene.root(), &["clone", "-q", "--bare", scene.upstream().to_str().unwrap(), other.to_str().unwrap()]);
    let before = scene.rev(&other, "main");
    scene.git_ours(&["config", "remote.origin.pushurl", other.to_str().unwrap()]);
    scene.sync().exits(0);
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(1).says("push-failed");
    scene.logs("is another repository").logs("remote.origin.pushurl");
    assert_eq!(scene.rev(&other, "main"), before);
    // Another way to the same one.
    let same = format!("file://{}", scene.upstream().display());
    scene.git_ours(&["config", "remote.origin.pushurl", &same]);
    scene.tick_with("true").exits(0).says("pushed").ours_equals_upstream();
}
