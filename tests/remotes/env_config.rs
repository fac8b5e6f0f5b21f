//! Configuration given to git in the environment (`GIT_CONFIG_COUNT`) counts here too.

use crate::scene::Scene;
use crate::servers::CANARY;
use crate::servers::http::{Fault, HttpServer, base64};

/// A scene behind a server that wants the token, and an instance that has cloned it before that.
fn guarded() -> (Scene, HttpServer) {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    std::fs::create_dir(scene.ours()).unwrap();
    scene.run(&["init-sync", "--remote-url", &url(&server)]).exits(0).says("cloned");
    server.wants("x-access-token", CANARY);
    server.forget();
    (scene, server)
}

fn url(server: &HttpServer) -> String {
    server.url().replace("repo.git", "upstream.git")
}

fn configure(scene: &Scene, pairs: &[(&str, &str)]) {
    scene.env("GIT_CONFIG_COUNT", &pairs.len().to_string());
    for (number, (key, value)) in pairs.iter().enumerate() {
        scene.env(&format!("GIT_CONFIG_KEY_{number}"), key).env(&format!("GIT_CONFIG_VALUE_{number}"), value);
    }
}

#[test]
fn an_extra_header_is_sent_and_its_secret_masked() {
    let header = format!("AUTHORIZATION: Basic {}", base64(&format!("x-access-token:{CANARY}")));
    for key in ["http.extraheader", "http.{}/.extraHeader", "HTTP.{}/upstream.git.ExtraHeader"] {
        let (scene, server) = guarded();
        configure(&scene, &[("user.name", "somebody"), (&key.replace("{}", &server.origin()), &header)]);
        scene.sync().exits(0).says("up-to-date");
        scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
        scene.tick_with(&format!("echo it is {CANARY}")).exits(0).logs("it is ***").logs_not(CANARY);
        server.always(Fault::Answer(
            403,
            vec![("Content-Type", "text/plain".to_owned())],
            format!("not {CANARY}").into(),
        ));
        scene.sync().exits(1).logs("not ***").logs_not(CANARY);
        for (path, content) in scene.snapshot() {
            assert!(!content.contains(CANARY), "{}", path.display());
        }
    }
    // For another host it is not.
    let (scene, server) = guarded();
    configure(&scene, &[("http.http://127.0.0.1:1/.extraheader", &header)]);
    scene.sync().exits(1).logs("no credentials are set");
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn a_credential_helper_is_asked_and_an_empty_one_takes_others_back() {
    let (scene, _server) = guarded();
    let asked = scene.root().join("asked");
    scene.git_ours(&["config", "credential.helper", &format!("!touch '{}'; :", asked.display())]);
    let helper = format!("!f() {{ echo username=x-access-token; echo password={CANARY}; }}; f");
    configure(&scene, &[("credential.helper", ""), ("credential.helper", &helper)]);
    scene.sync().exits(0).says("up-to-date");
    assert!(!asked.exists());
}

#[test]
fn the_remote_s_url_is_rewritten_as_git_does_it() {
    let scene = Scene::new();
    let server = HttpServer::over(scene.root(), false);
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    // The longest prefix counts, whoever gives it.
    let long = scene.root().join("up");
    scene.git_ours(&["config", "url./nowhere/.insteadOf", scene.root().to_str().unwrap()]);
    let key = format!("url.{}/up.InsteadOf", server.origin());
    configure(&scene, &[("url./nobody/.insteadof", "/"), (&key, long.to_str().unwrap())]);
    scene.rival_pushes("b.txt");
    scene.sync().exits(0).says("behind").ours_equals_upstream();
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert!(server.log().iter().any(|request| request == "POST git-receive-pack"), "{:?}", server.log());
    // What pushes alone are rewritten by.
    let scene = Scene::new();
    server.forget();
    let pushes = HttpServer::over(scene.root(), false);
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let key = format!("url.{}/up.pushInsteadOf", pushes.origin());
    configure(&scene, &[(&key, scene.root().join("up").to_str().unwrap())]);
    scene.tick_with("mkdir -p state; echo 2 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert!(pushes.log().iter().all(|request| request.contains("receive-pack")), "{:?}", pushes.log());
    assert!(!pushes.log().is_empty());
    // A `pushurl` is rewritten as others are, and not by what is for pushes alone.
    scene.git_ours(&["config", "remote.origin.pushurl", scene.upstream().to_str().unwrap()]);
    pushes.forget();
    scene.tick_with("echo 3 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert!(pushes.log().is_empty(), "{:?}", pushes.log());
}

#[test]
fn what_git_refuses_is_refused_by_name() {
    let scene = Scene::new();
    for (count, key) in [("x", None), ("2", Some("http.proxy")), ("-1", None)] {
        let mut pass = scene.gitsync(&["sync"]);
        pass.env("GIT_CONFIG_COUNT", count);
        if let Some(key) = key {
            pass.env("GIT_CONFIG_KEY_0", key).env("GIT_CONFIG_VALUE_0", "");
        }
        scene.run_this(pass).exits(1).says("error").logs("GIT_CONFIG_");
    }
    let mut pass = scene.gitsync(&["sync"]);
    pass.env("GIT_CONFIG_COUNT", "");
    scene.run_this(pass).exits(0);
}
