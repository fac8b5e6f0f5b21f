//! Dulwich's web server: git in Python.
//!
//! Debian's runs no hook before a push. `GITSYNC_DULWICH` names the program of a newer one (`pip install dulwich` in an
//! environment of its own), whose refusal by a hook is an error of its unpacking.

use std::process::Command;

use needs::needs;

use crate::host::Host;
use crate::passes::{afterwards, refused_by_a_hook, up_to_diverged};
use crate::scene::Scene;

#[allow(clippy::disallowed_methods, reason = "a test's own setting")]
#[needs(dulwich)]
#[test]
fn dulwich_over_http() {
    let scene = Scene::without_ours();
    let mut host = Host::new();
    let newer = std::env::var_os("GITSYNC_DULWICH");
    let mut command = Command::new(newer.clone().unwrap_or_else(|| "dulwich".into()));
    command.args(["web-daemon", "-l", "127.0.0.1", "-p", &host.port.to_string()]).arg(scene.root());
    host.start(&mut command, Host::listens);
    // It takes the whole path of a repository.
    up_to_diverged(&scene, &format!("http://127.0.0.1:{}{}", host.port, scene.upstream().display()));
    if newer.is_some() {
        refused_by_a_hook(&scene);
    }
    afterwards(&scene);
}
