//! Remote URLs with usual mistakes in them: said at once, and not tried again for ever.

use crate::scene::Scene;
use crate::servers::CANARY;
use crate::servers::http::HttpServer;

#[test]
fn a_url_without_its_scheme_exits_1_and_is_not_stored() {
    let scene = Scene::without_ours();
    scene.run(&["init-sync", "--remote-url", "github.com/you/state.git"]).exits(1).says("error");
    scene.logs("did you mean https://github.com/you/state.git?");
    let scene = Scene::new();
    scene.run(&["init-sync", "--remote-url", "github.com/you/state.git"]).exits(1).logs("did you mean https://");
    scene.sync().exits(0).says("up-to-date");
    // One that somebody stored.
    scene.git_ours(&["remote", "set-url", "origin", "github.com/you/state.git"]);
    scene.sync().exits(1).says("error").logs("did you mean https://");
}

#[test]
fn a_secret_in_the_url_is_said_to_be_for_this_pass_alone() {
    let scene = Scene::without_ours();
    let server = HttpServer::over(scene.root(), false);
    server.wants("me", CANARY);
    let with =
        |userinfo: &str| server.url().replace("repo.git", "upstream.git").replace("//", &format!("//{userinfo}"));
    let said = "the secret in the remote's URL is not stored";
    let url = with(&format!("me:{CANARY}@"));
    scene.run(&["init-sync", "--remote-url", &url]).exits(0).says("cloned").logs(said).logs("GIT_SYNC_REMOTE_URL");
    assert!(!scene.last().stderr.contains(CANARY));
    scene.sync().exits(1);
    scene.env("GIT_SYNC_REMOTE_URL", &url).sync().exits(0).says("up-to-date").logs_not(said);
    let scene = Scene::without_ours();
    let server = HttpServer::over(scene.root(), false);
    let url = server.url().replace("repo.git", "upstream.git");
    scene.run(&["init-sync", "--remote-url", &url]).exits(0).logs_not(said);
}
