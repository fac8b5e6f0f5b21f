//! The key and the known hosts that ssh is given, and a user that ssh does not run for.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::scene::Scene;
use crate::servers::inetd::{Sshd, user};
use crate::servers::{Upstream, decent, open_with, options};
use gitsync::error::Kind;
use gitsync::remote::{Options, Session, SshFiles};
use needs::needs;

const MAIN: &str = "refs/heads/main";
/// ssh without anybody's configuration.
const PLAIN: &str = "ssh -F /dev/null -o IdentityAgent=none -o GlobalKnownHostsFile=/dev/null";

fn with(key: &Path, known_hosts: &Path) -> Options {
    let ssh = SshFiles { key: Some(key.to_owned()), known_hosts: Some(known_hosts.to_owned()) };
    Options { ssh, ..options(&[("GIT_SSH_COMMAND", PLAIN)]) }
}

#[needs(sshd)]
#[test]
fn ssh_is_given_the_key_and_the_known_hosts() {
    let (sshd, upstream) = (Sshd::new(), Upstream::new());
    let url = sshd.url(&upstream.bare());
    // Under names that ssh would take apart.
    let folder = tempfile::tempdir().unwrap();
    let (key, known) = (folder.path().join("a key %h"), folder.path().join("known hosts %u"));
    std::fs::copy(sshd.at("user"), &key).unwrap();
    std::fs::copy(sshd.at("known"), &known).unwrap();
    assert_eq!(open_with(&url, with(&key, &known), "").tip(MAIN).unwrap(), upstream.tip());
    let e = open_with(&url, with(&sshd.at("stranger"), &known), "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("Permission denied"), "{e:?}");
    let e = open_with(&url, with(&key, &sshd.at("known_other")), "").tip(MAIN).unwrap_err();
    assert!(e.kind == Kind::Refused && e.next.contains("known_hosts"), "{e:?}");
}

#[needs(sshd)]
#[test]
fn a_pass_takes_them_from_its_options_and_from_the_environment() {
    let (scene, sshd) = (Scene::new(), Sshd::new());
    scene.git_ours(&["remote", "set-url", "origin", &sshd.url(&scene.upstream())]);
    scene.env("GIT_SSH_COMMAND", PLAIN);
    scene.sync().exits(1);
    let (key, known) = (sshd.at("user").display().to_string(), sshd.at("known").display().to_string());
    scene.run(&["sync", "--ssh-key-file", &key, "--ssh-known-hosts-file", &known]).exits(0).says("up-to-date");
    scene.env("GIT_SYNC_SSH_KEY_FILE", &key).env("GIT_SYNC_SSH_KNOWN_HOSTS_FILE", &known);
    scene.rival_pushes("b.txt").sync().exits(0).says("behind").ours_equals_upstream();
}

#[test]
fn a_file_that_can_t_be_read_or_given_is_named() {
    let open = |ssh: SshFiles, env: &[(&str, &str)]| {
        let config = crate::servers::config("");
        Session::open("ssh://h/r", &config, Options { ssh, ..options(env) }).unwrap_err()
    };
    let e = open(SshFiles { key: Some("/no/such/key".into()), ..SshFiles::default() }, &[]);
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("/no/such/key of --ssh-key-file"), "{e:?}");
    let known = SshFiles { known_hosts: Some("/dev/null".into()), ..SshFiles::default() };
    let e = open(known, &[("GIT_SSH", "/usr/bin/plink")]);
    assert!(e.kind == Kind::Refused && e.what.contains("--ssh-known-hosts-file is for OpenSSH"), "{e:?}");
}

#[needs(sshd, root)]
#[test]
fn a_user_without_a_passwd_entry_is_told_so() {
    let (sshd, upstream) = (Sshd::new(), Upstream::new());
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join("ssh");
    std::fs::write(&ssh, "#!/bin/sh\nexec setpriv --reuid 54321 --regid 54321 --clear-groups ssh \"$@\"\n").unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let given = options(&[("GIT_SSH", ssh.to_str().unwrap())]);
    let e = open_with(&sshd.url(&upstream.bare()), given, "").tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.what.contains("No user exists for uid 54321"), "{e:?} {}", user());
    assert!(e.next.contains("/etc/passwd"), "{e:?}");
}
