//! What programs that reach a remote leave running: nothing when they are ended, and what they mean to leave when they end
//! well.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod scene;
mod servers;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use scene::{Scene, until};
use servers::http::{Fault, HttpServer};

/// The processes that have this word in their command line, by what `/proc` says; dead ones have none.
fn alive(word: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Some(pid) = entry.unwrap().file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(word) {
            found.push((pid, line));
        }
    }
    found
}

/// A number of seconds that no other process sleeps for; who still does when the test ends is ended.
struct Sleepers(String);

impl Sleepers {
    fn new(number: u32) -> Sleepers {
        Sleepers(format!("{}.{number}", 100_000 + std::process::id()))
    }
}

impl std::ops::Deref for Sleepers {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Sleepers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for (pid, _) in alive(self) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

fn script(path: &Path, text: &str) -> String {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Children of each kind that may get away: in a session of its own; one whose parent has gone, without our environment;
/// and one in the group. The program itself hangs.
fn hang(time: &str) -> String {
    format!(
        "setsid sleep {time} </dev/null >/dev/null 2>&1 &\n\
         (env -i setsid sh -c 'sleep {time} & sleep {time}' </dev/null >/dev/null 2>&1 &)\n\
         (trap '' TERM HUP; sleep {time} &)\n\
         while :; do sleep {time}; done"
    )
}

/// A scene over http whose server wants credentials, and a helper that should have them.
fn with_helper(text: &str) -> (Scene, HttpServer) {
    let scene = Scene::without_ours();
    let server = HttpServer::over(scene.root(), false);
    std::fs::create_dir(scene.ours()).unwrap();
    scene.run(&["init-sync", "--remote-url", &server.url().replace("repo.git", "upstream.git")]).exits(0);
    server.wants("x-access-token", "open sesame");
    let helper = script(&scene.root().join("helper"), text);
    scene.git_ours(&["config", "credential.helper", &helper]);
    (scene, server)
}

/// A scene behind a program that stands for ssh.
fn with_ssh(text: &str) -> Scene {
    let scene = Scene::new();
    let ssh = script(&scene.root().join("ssh"), text);
    let url = format!("ssh://upstream.invalid{}", scene.upstream().display());
    scene.git_ours(&["remote", "set-url", "origin", &url]);
    scene.env("GIT_SSH_COMMAND", &ssh);
    scene
}

fn all_have_started(time: &str) {
    until("all of them sleep", || alive(time).iter().filter(|(_, line)| line.starts_with("sleep ")).count() == 5);
}

/// Waits for the pass, then looks: by then all must be gone.
fn ends(scene: &Scene, pass: Child, code: i32, time: &str) {
    scene.wait(pass).exits(code).says("error");
    let left = alive(time);
    assert!(left.is_empty(), "{left:?}\n{}", scene.last());
}

#[test]
fn a_helper_that_hangs_is_ended_with_all_it_started() {
    let time = Sleepers::new(1);
    let (scene, _server) = with_helper(&hang(&time));
    let pass = scene.start(&["sync", "--network-timeout", "5s"]);
    all_have_started(&time);
    ends(&scene, pass, 75, &time);
    scene.logs("credential helper").logs("time for the network was up");
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let pass = scene.start(&["sync"]);
        all_have_started(&time);
        kill_process(Pid::from_child(&pass), signal).unwrap();
        ends(&scene, pass, code, &time);
    }
}

#[test]
fn so_is_an_ssh_that_hangs() {
    let time = Sleepers::new(2);
    let scene = with_ssh(&hang(&time));
    let pass = scene.start(&["sync", "--network-timeout", "5s"]);
    all_have_started(&time);
    ends(&scene, pass, 75, &time);
    let pass = scene.start(&["sync"]);
    all_have_started(&time);
    kill_process(Pid::from_child(&pass), Signal::TERM).unwrap();
    ends(&scene, pass, 143, &time);
}

#[test]
fn so_is_a_hook_of_a_path_remote_that_hangs() {
    let time = Sleepers::new(3);
    let scene = Scene::new();
    scene.upstream_hook("pre-receive", &hang(&time));
    let job = "mkdir -p state; echo 1 >state/x";
    let pass = scene.start(&["tick", "--network-timeout", "6s", "--", "sh", "-c", job]);
    all_have_started(&time);
    scene.wait(pass).exits(75).says("push-failed");
    let left = alive(&time);
    assert!(left.is_empty(), "{left:?}\n{}", scene.last());
    let pass = scene.start(&["tick", "--", "sh", "-c", "true"]);
    all_have_started(&time);
    kill_process(Pid::from_child(&pass), Signal::TERM).unwrap();
    ends(&scene, pass, 143, &time);
}

#[test]
fn what_a_program_leaves_on_purpose_is_let_be() {
    let time = Sleepers::new(4);
    let daemon = format!("setsid sleep {time} </dev/null >/dev/null 2>&1 &");
    // A helper that keeps a cache running, before a server that makes the pass fail, or be ended by a signal.
    let (scene, server) = with_helper(&format!("{daemon}\necho username=x-access-token\necho 'password=open sesame'"));
    // It becomes `sleep` in its own time; the pass may be over before.
    let one_more = |before: usize| until("what was left runs", || alive(&time).len() == before + 1);
    scene.sync().exits(0).says("up-to-date");
    one_more(0);
    server.when(|seen, _| seen.header("authorization").map(|_| Fault::status(503)));
    scene.sync().exits(75);
    one_more(1);
    server.when(|seen, _| seen.header("authorization").map(|_| Fault::StallBefore));
    server.forget();
    let pass = scene.start(&["sync"]);
    until("the request is there", || server.log().len() == 2);
    kill_process(Pid::from_child(&pass), Signal::TERM).unwrap();
    scene.wait(pass).exits(143);
    one_more(2);
    // A job ends with all that it started itself.
    server.when(|_, _| None);
    scene.tick_with(&format!("setsid sleep {time} & true")).exits(0);
    one_more(3);

    // An ssh that keeps its connection open for the next one.
    let scene = with_ssh(&format!("{daemon}\nfor last; do :; done\nexec sh -c \"$last\""));
    scene.sync().exits(0).says("up-to-date");
    one_more(4);
    scene.rival_pushes("b.txt").sync().exits(0).says("behind").ours_equals_upstream();
    // The question and the fetch are one conversation.
    one_more(5);
}
