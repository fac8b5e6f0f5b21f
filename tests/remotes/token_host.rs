//! A token goes to the host that init-sync was given, whatever a job makes of the repository's configuration.

use std::os::unix::fs::PermissionsExt;

use crate::scene::Scene;
use crate::servers::CANARY;
use crate::servers::http::{HttpServer, base64};

fn url(server: &HttpServer) -> String {
    server.url().replace("repo.git", "upstream.git")
}

/// A scene behind a server that wants the token, which has cloned it; and another server, which a job would rather have it.
fn guarded() -> (Scene, HttpServer, HttpServer) {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    server.wants("x-access-token", CANARY);
    let other = HttpServer::over(scene.root(), false);
    std::fs::create_dir(scene.ours()).unwrap();
    (scene, server, other)
}

fn cloned() -> (Scene, HttpServer, HttpServer) {
    let (scene, server, other) = guarded();
    scene.env("GIT_SYNC_TOKEN", CANARY);
    scene.run(&["init-sync", "--remote-url", &url(&server)]).exits(0).says("cloned");
    (scene, server, other)
}

fn heard_nothing_secret(other: &HttpServer, scene: &Scene) {
    assert!(!other.heard(CANARY) && !other.heard(&base64(&format!("x-access-token:{CANARY}"))), "{:?}", other.seen());
    let last = scene.last();
    assert!(!format!("{}{}", last.stdout, last.stderr).contains(CANARY), "{last}");
    for (path, content) in scene.snapshot() {
        assert!(!content.contains(CANARY), "{}", path.display());
    }
}

/// What a job may do to send the next request elsewhere, as lines of shell.
fn rewrites(server: &HttpServer, other: &HttpServer) -> Vec<String> {
    vec![
        format!("git config remote.origin.url {}", url(other)),
        format!("git config url.{}/.insteadOf {}/", other.origin(), server.origin()),
        format!("git config remote.origin.pushurl {}", url(other)),
        format!("git config url.{}/.pushInsteadOf {}/", other.origin(), server.origin()),
    ]
}

#[test]
fn a_token_stays_with_the_host_that_init_sync_was_given() {
    for which in 0..4 {
        let (scene, server, other) = cloned();
        // What hears of it lets nobody in either.
        other.wants("x-access-token", "another");
        let job = format!("mkdir -p state; date +%N >state/n; {}", rewrites(&server, &other)[which]);
        scene.tick_with(&job).exits(1);
        scene.logs("GIT_SYNC_TOKEN").logs(&server.origin()).logs(&other.origin()).logs("--token-host");
        heard_nothing_secret(&other, &scene);
        // Nor does the next pass send it, nor one that starts anew.
        scene.tick_with("date +%N >state/n").exits(1).logs(&other.origin());
        if which < 2 {
            scene.sync().exits(1).logs("was not sent");
            scene.run(&["init-sync"]).exits(1).logs("was not sent");
        }
        heard_nothing_secret(&other, &scene);
        assert!(!other.log().is_empty(), "the job's rewriting did nothing");
    }
}

/// The next pass took the host that the job had configured for the first one, and sent it the token.
#[test]
fn a_job_that_removes_the_record_sends_no_token_elsewhere() {
    for remove in ["rm .git/gitsync/token-host", "rm -r .git/gitsync", "echo origin $OTHER > .git/gitsync/token-host"] {
        let (scene, server, other) = cloned();
        other.wants("x-access-token", "another");
        let job = format!("OTHER={}; {remove}; git config remote.origin.url {}", other.origin(), url(&other));
        scene.tick_with(&job).logs("restored");
        scene.sync().exits(1).logs("was not sent").logs(&server.origin());
        heard_nothing_secret(&other, &scene);
        assert!(!other.log().is_empty(), "the job's rewriting did nothing");
    }
}

#[test]
fn every_token_is_held_to_its_host() {
    let (scene, server, other) = guarded();
    other.wants("x-access-token", "another");
    // Outside what is searched.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CANARY).unwrap();
    let with_token = url(&server).replace("http://", &format!("http://x-access-token:{CANARY}@"));
    scene.run(&["init-sync", "--remote-url", &with_token]).exits(0).says("cloned");
    scene.git_ours(&["config", "remote.origin.url", &url(&other)]);
    for (name, value) in [
        ("GIT_SYNC_TOKEN", CANARY),
        ("GIT_SYNC_TOKEN_FILE", file.path().to_str().unwrap()),
        ("GIT_SYNC_REMOTE_URL", &with_token),
    ] {
        for command in [["sync"], ["tick"]] {
            let mut pass = scene.gitsync(&command);
            pass.env(name, value).env("GIT_SYNC_TICK_COMMAND", "true");
            scene.run_this(pass).exits(1).logs("was not sent to").logs(&server.origin()).logs(&other.origin());
        }
    }
    let mut pass = scene.gitsync(&["sync"]);
    pass.env("GITHUB_TOKEN", CANARY).env("GITHUB_SERVER_URL", other.origin());
    scene.run_this(pass).exits(1).logs("GITHUB_TOKEN").logs("was not sent to");
    heard_nothing_secret(&other, &scene);
}

#[test]
fn a_host_that_wants_no_token_is_gone_on_with() {
    let (scene, _server, other) = cloned();
    scene.git_ours(&["config", "remote.origin.url", &url(&other)]);
    scene.rival_pushes("b.txt");
    scene.sync().exits(0).says("behind").logs("was not sent to").ours_equals_upstream();
    assert_eq!(scene.last().stderr.matches("was not sent to").count(), 1, "{}", scene.last());
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert_eq!(scene.last().stderr.matches("was not sent to").count(), 1, "{}", scene.last());
    heard_nothing_secret(&other, &scene);
}

#[test]
fn a_person_gives_the_token_to_another_host() {
    // For one pass, by name.
    let (scene, server, other) = cloned();
    let mirror = |wants: &HttpServer| wants.wants("x-access-token", CANARY);
    mirror(&other);
    scene.git_ours(&["config", &format!("url.{}/.insteadOf", other.origin()), &format!("{}/", server.origin())]);
    scene.sync().exits(1).logs(&format!("--token-host {}", other.address));
    scene.run(&["sync", "--token-host", &other.address.to_string()]).exits(0).says("up-to-date");
    scene.sync().exits(1);
    // For good: init-sync records it, with what it was told.
    scene.run(&["init-sync", "--token-host", &other.address.to_string()]).exits(0).says("up-to-date");
    scene.sync().exits(0).says("up-to-date");
    // A new URL is a new host.
    let (scene, _server, other) = cloned();
    mirror(&other);
    scene.run(&["init-sync", "--remote-url", &url(&other)]).exits(0).says("up-to-date");
    scene.sync().exits(0).says("up-to-date");
    // Without one, the host stays.
    scene.run(&["init-sync"]).exits(0).says("up-to-date");
    assert_eq!(scene.git_ours(&["remote", "get-url", "origin"]), url(&other));
}

#[test]
fn the_record_is_private_and_has_no_secret() {
    let (scene, server, _other) = guarded();
    let with_token = url(&server).replace("http://", &format!("http://x-access-token:{CANARY}@"));
    scene.run(&["init-sync", "--remote-url", &with_token]).exits(0).says("cloned");
    let record = scene.private().join("token-host");
    assert_eq!(std::fs::read_to_string(&record).unwrap(), format!("origin {}\n", server.origin()));
    assert_eq!(record.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for (path, content) in scene.snapshot() {
        assert!(!content.contains(CANARY), "{}", path.display());
    }
}

#[test]
fn the_first_pass_in_a_plain_checkout_trusts_what_it_finds() {
    let (scene, server, other) = guarded();
    other.wants("x-access-token", "another");
    scene.git_in(scene.root(), &["clone", "-q", "upstream.git", "ours"]);
    scene.git_ours(&["remote", "set-url", "origin", &url(&server)]);
    scene.env("GIT_SYNC_TOKEN", CANARY);
    // A dry run settles nothing.
    scene.run(&["sync", "--dry-run"]).exits(0);
    assert!(!scene.private().join("token-host").exists());
    // Before the job: so it is held to in that very pass.
    let job = format!("mkdir -p state; date +%N >state/n; git config remote.origin.url {}", url(&other));
    scene.tick_with(&job).exits(1).logs("was not sent to");
    heard_nothing_secret(&other, &scene);
}

#[test]
fn in_an_action_the_server_of_the_action_is_trusted() {
    let (scene, server, other) = guarded();
    other.wants("x-access-token", "another");
    scene.git_in(scene.root(), &["clone", "-q", "upstream.git", "ours"]);
    scene.git_ours(&["remote", "set-url", "origin", &url(&other)]);
    scene.env("GIT_SYNC_TOKEN", CANARY).env("GITHUB_SERVER_URL", &server.origin());
    scene.sync().exits(1).logs("was not sent to").logs(&server.origin());
    scene.git_ours(&["remote", "set-url", "origin", &url(&server)]);
    scene.sync().exits(0).says("up-to-date");
    heard_nothing_secret(&other, &scene);
}

#[test]
fn a_remote_without_a_host_has_no_host_for_a_token() {
    let scene = Scene::new();
    let other = HttpServer::over(scene.root(), false);
    other.wants("x-access-token", "another");
    scene.env("GIT_SYNC_TOKEN", CANARY);
    scene.tick_with(&format!("git config remote.origin.url {}", url(&other))).exits(0);
    scene.sync().exits(1).logs("was not sent to").logs("is for no host");
    heard_nothing_secret(&other, &scene);
    // One that can't be understood is none to go by.
    std::fs::write(scene.private().join("token-host"), "origin http://\n").unwrap();
    scene.sync().exits(1).logs("token-host").logs("init-sync");
    scene.run(&["sync", "--token-host", &other.address.to_string()]).exits(1).logs("401");
    assert!(other.heard(&base64(&format!("x-access-token:{CANARY}"))));
}

#[test]
fn what_is_no_host_is_a_usage_error() {
    let scene = Scene::new();
    for bad in ["https://git.example", "git.example/x", "me@git.example", "git.example:0", "::1", "a b"] {
        scene.run(&["sync", "--token-host", bad]).exits(2).logs("git.example:8443");
    }
    scene.env("GIT_SYNC_TOKEN_HOST", "git.example/x").sync().exits(2);
    let fine = Scene::new();
    fine.env("GIT_SYNC_TOKEN_HOST", "").sync().exits(0);
}

/// The host of a URL that only the configuration makes one is the configuration's.
#[test]
fn a_short_name_for_a_host_is_no_host() {
    let (scene, server, _other) = guarded();
    scene.env("GIT_SYNC_TOKEN", CANARY).env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_VALUE_0", "forge:");
    scene.env("GIT_CONFIG_KEY_0", &format!("url.{}/.insteadOf", server.origin()));
    scene.run(&["init-sync", "--remote-url", "forge:upstream.git"]).exits(1).logs("is for no host");
    scene.logs(&format!("--token-host {}", server.address));
    scene.env("GIT_SYNC_TOKEN_HOST", &server.address.to_string());
    scene.run(&["init-sync", "--remote-url", "forge:upstream.git"]).exits(0).says("cloned");
}

#[test]
fn each_remote_has_a_host_of_its_own() {
    let (scene, server, other) = cloned();
    other.wants("x-access-token", CANARY);
    scene.run(&["init-sync", "--remote", "second", "--remote-url", &url(&other)]).exits(0);
    scene.sync().exits(0).says("up-to-date");
    scene.run(&["sync", "--remote", "second"]).exits(0).says("up-to-date");
    let record = std::fs::read_to_string(scene.private().join("token-host")).unwrap();
    assert_eq!(record, format!("origin {}\nsecond {}\n", server.origin(), other.origin()));
}
