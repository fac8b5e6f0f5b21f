//! What a job, and a program that gitsync runs, can read of the token: nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod scene;
mod servers;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use scene::{Scene, until};
use servers::CANARY;
use servers::http::HttpServer;

const NOBODY: u32 = 65534;

/// A scene that has cloned from a server which wants the token.
fn guarded() -> (Scene, HttpServer) {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    server.wants("x-access-token", CANARY);
    std::fs::create_dir(scene.ours()).unwrap();
    let url = server.url().replace("repo.git", "upstream.git");
    scene.env("GIT_SYNC_TOKEN", CANARY).run(&["init-sync", "--remote-url", &url]).exits(0).says("cloned");
    (scene, server)
}

/// The binary, run by somebody who is not root: root reads everything.
fn unprivileged(scene: &Scene, args: &[&str]) -> Command {
    let given = scene.gitsync(args);
    if std::fs::metadata(scene.root()).unwrap().uid() != 0 {
        return given;
    }
    // Where this program was built others may not get to.
    let program = scene.root().join("gitsync");
    if !program.exists() {
        // By a program, since a file that is open for writing, if only in what another test starts meanwhile, can't be run.
        let built = env!("CARGO_BIN_EXE_gitsync");
        assert!(Command::new("cp").arg(built).arg(&program).status().unwrap().success());
        let owner = format!("{NOBODY}:{NOBODY}");
        let (top, ours, home) = (scene.root().to_owned(), scene.ours(), scene.root().join("home"));
        assert!(Command::new("chown").arg(&owner).arg(top).status().unwrap().success());
        assert!(Command::new("chown").arg("-R").arg(&owner).args([ours, home]).status().unwrap().success());
    }
    let mut command = Command::new(program);
    command.args(given.get_args()).current_dir(scene.root()).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
    for (name, value) in given.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn written(scene: &Scene, name: &str) -> String {
    let path = scene.ours().join("state").join(name);
    String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_else(|e| panic!("{e}\n{}", scene.last()))).into_owned()
}

#[test]
fn a_job_cannot_read_the_token_of_the_process_that_runs_it() {
    let (scene, _server) = guarded();
    let job = "mkdir -p state; cd state
        env >env
        for file in environ maps mem; do
            head -c 100000 /proc/$PPID/$file >$file 2>&1 && echo \"$file was read\" >>read
        done
        echo >>read; true";
    // A site is put up, which looks into our own `/proc`.
    let (public, build) = (scene.public().display().to_string(), "echo site >{public_dir}/index.html");
    let args = ["tick", "--public-dir", &public, "--build-command", build, "--", "sh", "-c", job];
    scene.run_this(unprivileged(&scene, &args)).exits(0).says("pushed");
    assert_eq!(std::fs::read_to_string(scene.public().join("index.html")).unwrap(), "site\n");
    assert_eq!(written(&scene, "read"), "\n");
    for file in ["env", "environ"] {
        assert!(!written(&scene, file).contains(CANARY), "{file}");
    }
}

/// The process's own environment may be read by root, and stays for whoever attaches to it.
#[test]
fn the_tokens_are_wiped_from_our_own_environment() {
    let (scene, server) = guarded();
    let with_token = server.origin().replace("http://", "http://x-access-token:another-canary-9d41@") + "/upstream.git";
    scene.env("GIT_SYNC_REMOTE_URL", &with_token).env("GITHUB_TOKEN", "for-the-job").env("OTHER", "stays");
    scene.tick_with("mkdir -p state; cat /proc/$PPID/environ >state/environ; echo $GITHUB_TOKEN >state/given; true");
    scene.exits(0).says("pushed");
    let environ = written(&scene, "environ");
    if rustix::process::getuid().is_root() {
        assert!(environ.contains("OTHER=stays"), "{environ}");
    }
    assert!(!environ.contains(CANARY) && !environ.contains("another-canary"), "{environ}");
    assert_eq!(written(&scene, "given"), "for-the-job\n");
}

/// A job may name one in the repository's configuration.
#[test]
fn a_credential_helper_is_not_told_the_token() {
    let (scene, server) = guarded();
    let (seen, other) = (scene.root().join("seen"), HttpServer::over(scene.root(), false));
    other.wants("x", "y");
    let helper = format!("!f() {{ env >'{}'; }}; f", seen.display());
    scene.git_ours(&["config", "credential.helper", &helper]);
    scene.git_ours(&["config", &format!("url.{}/.insteadOf", other.origin()), &format!("{}/", server.origin())]);
    scene.env("GITHUB_TOKEN", "for-helpers-too").env("GIT_SYNC_TOKEN_FILE", "").sync().exits(1);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(!seen.contains(CANARY) && !seen.contains("GIT_SYNC_TOKEN"), "{seen}");
    assert!(seen.contains("GITHUB_TOKEN=for-helpers-too"), "{seen}");
}

/// What is left of a job is found in `/proc`, where a process that holds a secret is root's.
#[test]
fn what_a_killed_pass_left_is_found_by_a_pass_with_a_token() {
    let (scene, _server) = guarded();
    // It has closed what it inherited, so that its mark alone tells.
    let job = "mkdir -p state; exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; echo $$ >state/pid; exec sleep 1000";
    let mut pass = unprivileged(&scene, &["tick", "--", "sh", "-c", job]).stderr(Stdio::null()).spawn().unwrap();
    let pid = scene.ours().join("state/pid");
    until("the job runs", || std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    pass.kill().unwrap();
    pass.wait().unwrap();
    let left = std::fs::read_to_string(&pid).unwrap().trim().parse::<i32>().unwrap();
    scene.run_this(unprivileged(&scene, &["sync"])).exits(0).logs("an earlier gitsync started still runs");
    let left = rustix::process::Pid::from_raw(left).unwrap();
    until("it is gone", || rustix::process::test_kill_process(left).is_err());
}
