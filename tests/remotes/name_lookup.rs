//! A name server that never answers does not hold a pass.
//!
//! The pass runs in a network of its own, in which a socket takes the questions and says nothing. That needs
//! root.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::scene::Scene;
use needs::needs;

/// Runs a command where every name is asked of a socket that takes the question and never answers; says how many
/// questions came, and what they asked for, on the last line of its stderr.
const NOWHERE: &str = r#"
import fcntl, os, socket, struct, subprocess, sys, threading
lo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flags = struct.unpack("16sh", fcntl.ioctl(lo, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
fcntl.ioctl(lo, 0x8914, struct.pack("16sh", b"lo", flags | 1))
with open(sys.argv[1], "w") as file:
    file.write("nameserver 127.0.0.1\n")
subprocess.check_call(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
asked = []
def listen():
    while True:
        asked.append(server.recvfrom(4096)[0])
threading.Thread(target=listen, daemon=True).start()
code = subprocess.call(sys.argv[2:])
sys.stderr.write("%d questions, %d of them for it\n" % (len(asked), sum(b"no-answer" in q for q in asked)))
sys.exit(code)
"#;

fn in_a_network_of_its_own(scene: &Scene, command: &Command, resolv: &Path) -> Command {
    let mut isolated = scene.isolated("unshare");
    isolated.args(["-m", "-n", "python3", "-c", NOWHERE]).arg(resolv);
    isolated.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => isolated.env(name, value),
            None => isolated.env_remove(name),
        };
    }
    isolated.stdin(Stdio::null());
    isolated
}

#[needs(netns, python3)]
#[test]
fn a_name_server_that_never_answers() {
    let scene = Scene::new();
    let resolv = scene.root().join("resolv.conf");
    scene.env("GIT_SYNC_NETWORK_TIMEOUT", "1s");
    for (url, words) in [
        ("http://no-answer.example/r.git", "looking up the host's name in http://no-answer.example/r.git"),
        ("https://no-answer.example/r.git", "looking up the host's name in https://no-answer.example/r.git"),
        ("git://no-answer.example/r.git", "looking up the host's name in git://no-answer.example/r.git"),
        ("ssh://no-answer.example/r.git", "waiting for ssh://no-answer.example/r.git"),
    ] {
        scene.git_ours(&["remote", "set-url", "origin", url]);
        let pass = in_a_network_of_its_own(&scene, &scene.gitsync(&["sync"]), &resolv);
        scene.run_this(pass).exits(75).says("error").logs(words).logs("next=");
        let last = scene.last().stderr;
        let (_, asked) = last.trim_end().rsplit_once('\n').unwrap();
        assert!(asked.ends_with("for it") && !asked.contains(" 0 of them"), "{last}");
    }
    // A tick goes on without the remote, and does not wait for it a second time.
    let tick = in_a_network_of_its_own(&scene, &scene.gitsync(&["tick", "--", "true"]), &resolv);
    scene.run_this(tick).exits(0).says("no-changes");
}
