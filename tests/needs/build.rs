//! Looks once, when the tests are built, for what this machine lacks. Looks again when a folder of `PATH` has changed, so
//! that a test is no longer ignored once its program is installed.
#![allow(clippy::disallowed_methods)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a test may need that is a program, with the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("faketime", "faketime"),
    ("nginx", "nginx-light"),
    ("python3", "python3"),
    ("shellcheck", "shellcheck"),
    ("sshd", "openssh-server"),
    ("supercronic", "supercronic, from Debian testing"),
    ("supervisord", "supervisor"),
    ("systemd-analyze", "systemd"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["PATH", "USER", "CI"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let folders = folders();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let mut missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| !folders.iter().any(|folder| folder.join(program).is_file()))
        .map(|(program, package)| format!("{program}=install {package}"))
        .collect();
    let rights: [(&str, bool, &str); 5] = [
        ("strace", runs("strace", &["-qq", "-e", "trace=none", "true"]), "install strace, and allow tracing"),
        ("mount", runs("unshare", &["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]), "run as root, with the right to mount"),
        ("netns", runs("unshare", &["-m", "-n", "true"]), "run as root, with the right to make network namespaces"),
        ("root", runs("sh", &["-c", "test $(id -u) = 0"]), "run as root"),
        ("ipv6", TcpListener::bind("[::1]:0").is_ok(), "give the machine ::1"),
    ];
    missing.extend(rights.iter().filter(|right| !right.1).map(|(name, _, remedy)| format!("{name}={remedy}")));
    if !git_knows_reftable() {
        missing.push("reftable=install git 2.45 or newer".to_owned());
    }
    // Where everything has to be tested, nothing is ignored: a test that lacks something fails.
    let all = std::env::var("CI").is_ok_and(|value| value == "true");
    println!("cargo::rustc-env=MISSING={}", if all { String::new() } else { missing.join("\x1f") });
}

/// The folders of `PATH`, and those where servers are installed, which a user's `PATH` may lack.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/ssh"].map(PathBuf::from);
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).chain(servers).collect();
    all.sort();
    all.dedup();
    all
}

fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn git_knows_reftable() -> bool {
    let told = Command::new("git").arg("version").output().map(|out| out.stdout).unwrap_or_default();
    let told = String::from_utf8_lossy(&told).into_owned();
    let mut numbers = told.split_whitespace().nth(2).unwrap_or_default().split('.').map(|n| n.parse().unwrap_or(0_u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (2, 45)
}
