//! A remote that refuses an account: a person has to act, so the pass exits 1. The texts are in the unit tests of
//! `src/remote/refusals.rs`.

use std::os::unix::fs::PermissionsExt;

use crate::scene::{Scene, write};
use crate::servers::http::{Fault, HttpServer};

/// An ssh that serves fetches, and says this to whoever pushes.
fn refusing_ssh(scene: &Scene, says: &str) {
    let path = scene.root().join("ssh");
    let script = format!(
        "#!/bin/sh\necho \"$LC_ALL,$LC_MESSAGES,$LC_CTYPE,$LANG\" >> '{0}'\nfor last; do :; done\n\
         case \"$last\" in git-receive-pack*) echo '{says}' >&2; exit 128;; esac\nexec sh -c \"$last\"\n",
        scene.root().join("locale").display()
    );
    write(&path, &script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.env("GIT_SSH", path.to_str().unwrap());
    scene.git_ours(&["remote", "set-url", "origin", &format!("ssh://h{}", scene.upstream().display())]);
}

#[test]
fn an_ssh_refusal_for_want_of_rights_is_exit_1() {
    let scene = Scene::new();
    for says in [
        "FATAL: W any repo user DENIED by fallthru",
        "ERROR: Permission to o/r.git denied to someone.",
        "ERROR: The key you are authenticating with has been marked as read only.",
        "Gitea: Unauthorized",
    ] {
        refusing_ssh(&scene, says);
        scene.we_commit("state/a.txt");
        scene.sync().exits(0).says("ahead");
        scene.tick_with("true").exits(1).says("push-failed").logs(says);
    }
    refusing_ssh(&scene, "Connection closed by remote host");
    scene.tick_with("true").exits(75).says("push-failed");
}

#[test]
fn programs_say_their_errors_in_english_and_in_utf_8() {
    let scene = Scene::new();
    refusing_ssh(&scene, "");
    for variable in ["LC_ALL", "LC_MESSAGES", "LANG"] {
        scene.env(variable, "de_DE.UTF-8").sync().exits(0);
        let said = std::fs::read_to_string(scene.root().join("locale")).unwrap();
        assert!(said.lines().all(|line| line.starts_with(",C,C.UTF-8,")), "{said}");
    }
}

#[test]
fn an_http_refusal_for_want_of_rights_is_exit_1() {
    let scene = Scene::new();
    let server = HttpServer::over(scene.root(), false);
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    scene.git_ours(&["remote", "set-url", "origin", &server.url().replace("repo.git", "upstream.git")]);
    scene.we_commit("state/a.txt");
    for status in [401, 403, 404] {
        server.when(move |seen, _| seen.short().contains("receive-pack").then(|| Fault::status(status)));
        scene.tick_with("true").exits(1).says("push-failed");
    }
    server.when(|seen, _| seen.short().contains("receive-pack").then(|| Fault::status(503)));
    scene.tick_with("true").exits(75).says("push-failed");
}
