//! A large transfer is streamed: what it is made of is at no time in memory as a whole.

use std::io::Write;
use std::process::Command;

use crate::scene::Scene;
use crate::servers::http::HttpServer;
use needs::needs;

/// Of what comes and goes, in bytes, together with the rest of the program more than may be in memory; and that, in
/// kilobytes.
const SIZE: usize = 48_000_000;
const MOST: u64 = 64 * 1024;

/// Runs the program under a shell that says the most memory it ever had.
fn peak(scene: &Scene, command: &Command, code: i32, word: &str) -> u64 {
    let mut measured = scene.isolated("python3");
    let script = "import resource, subprocess, sys\n\
                  code = subprocess.call(sys.argv[1:])\n\
                  sys.stderr.write('\\n%d' % resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n\
                  sys.exit(code)";
    measured.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    scene.run_this(measured).exits(code).says(word);
    let said = scene.last().stderr;
    said.rsplit('\n').next().unwrap().parse().unwrap_or_else(|e| panic!("{e}: {said}"))
}

#[needs(python3)]
#[test]
fn a_large_fetch_and_a_large_push_over_http() {
    let scene = Scene::empty_upstream();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    // What is not compressed costs the test less time.
    scene.git_in(&scene.rival(), &["config", "core.compression", "0"]);
    let mut seed = 1u64;
    for file in 0..SIZE / 1_000_000 {
        let noise: Vec<u8> = (0..125_000)
            .flat_map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed ^ seed >> 29).to_le_bytes()
            })
            .collect();
        std::fs::File::create(scene.rival().join(format!("{file}.bin"))).unwrap().write_all(&noise).unwrap();
    }
    scene.rival_commits("large");
    scene.git_in(&scene.rival(), &["push", "-q", "origin", "main"]);
    let server = HttpServer::over(scene.root(), false);
    let url = server.url().replace("repo.git", "upstream.git");
    std::fs::create_dir(scene.ours()).unwrap();
    let fetch = scene.gitsync(&["init-sync", "--remote-url", &url]);
    let fetched = peak(&scene, &fetch, 0, "cloned");
    assert!(fetched < MOST, "a fetch of {SIZE} bytes took {fetched} kB");

    // All of it new to the remote: a root commit of other files, pushed by an instance that is alpha.
    scene.git_upstream(&["update-ref", "-d", "refs/heads/main"]);
    scene.git_upstream(&["-c", "gc.pruneExpire=now", "prune"]);
    scene.git_upstream(&["repack", "-q", "-a", "-d"]);
    scene.alpha();
    let push = scene.gitsync(&["tick", "--", "true"]);
    let pushed = peak(&scene, &push, 0, "pushed");
    assert!(pushed < MOST, "a push of {SIZE} bytes took {pushed} kB");
    scene.ours_equals_upstream();
}
