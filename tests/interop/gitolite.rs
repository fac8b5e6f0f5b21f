//! gitolite behind sshd, with somebody who may write, somebody who may read, and somebody unknown.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use needs::needs;

use crate::passes::whole_story;
use crate::scene::{Scene, write};
use crate::servers::inetd::{Sshd, user};

/// Puts the scene's upstream under gitolite, in a home folder of its own.
fn gitolite(scene: &Scene, sshd: &Sshd) {
    let home = scene.root().join("gitolite");
    fs::create_dir(&home).unwrap();
    let run = |args: &[&str]| {
        let out = scene.isolated("gitolite").args(args).env("HOME", &home).output().unwrap();
        assert!(out.status.success(), "gitolite {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    run(&["setup", "-a", "admin"]);
    let repo = home.join("repositories/upstream.git");
    fs::rename(scene.upstream(), &repo).unwrap();
    symlink(&repo, scene.upstream()).unwrap();
    write(&home.join(".gitolite/conf/gitolite.conf"), "repo upstream\n    RW+ = writer\n    R = reader\n");
    run(&["setup"]);
    // As gitolite writes it itself, but for the home folder, which sshd would take from the account.
    let shell = "/usr/share/gitolite3/gitolite-shell";
    let line = |key: &str, name: &str| {
        let key = fs::read_to_string(sshd.at(key)).unwrap();
        format!("command=\"env HOME={} {shell} {name}\",restrict {key}", home.display())
    };
    fs::write(sshd.at("authorized"), line("user.pub", "writer") + &line("reader.pub", "reader")).unwrap();
    // What people push by its path is no business of gitolite's here.
    let lib = "GL_LIBDIR=/usr/share/gitolite3/lib";
    let bypass = format!("env GL_BYPASS_ACCESS_CHECKS=1 {lib} HOME={} git-receive-pack", home.display());
    scene.git_in(&scene.rival(), &["config", "remote.origin.receivepack", &bypass]);
}

#[needs(gitolite, sshd)]
#[test]
fn gitolite_behind_sshd() {
    let (scene, sshd) = (Scene::without_ours(), Sshd::new());
    let reader = sshd.at("reader");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&reader).status().unwrap();
    assert!(made.success());
    gitolite(&scene, &sshd);
    let url = format!("{}@upstream:upstream", user());
    scene.env("GIT_SSH_COMMAND", &sshd.client("user", "known"));
    whole_story(&scene, &url);
    // May read and not write.
    scene.env("GIT_SSH_COMMAND", &sshd.client("reader", "known"));
    scene.rival_pushes("d.txt").sync().exits(0).says("behind");
    scene.tick_with("echo 9 >state/x").exits(1).says("push-failed").logs("DENIED by fallthru").logs("the right to");
    // A repository that is not there, or not for us, and a key that nobody knows.
    scene.git_ours(&["remote", "set-url", "origin", &format!("{}@upstream:another", user())]);
    scene.sync().exits(1).says("error").logs("DENIED by fallthru");
    scene.env("GIT_SSH_COMMAND", &sshd.client("stranger", "known"));
    scene.sync().exits(1).says("error").logs("Permission denied");
}
