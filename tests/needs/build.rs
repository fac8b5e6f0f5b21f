//! Looks once, when the tests are built, for what this machine lacks. Looks again when a folder of `PATH` has changed, so
//! that a test is no longer ignored once its program is installed.
#![allow(clippy::disallowed_methods)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a test may need that is a program, with the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("apache2", "apache2-bin"),
    ("dulwich", "python3-dulwich"),
    ("fcgiwrap", "fcgiwrap"),
    ("gitolite", "gitolite3"),
    ("nginx", "nginx-light"),
    ("perl", "perl"),
    ("python3", "python3"),
    ("shellcheck", "shellcheck"),
    ("squid", "squid"),
    ("sshd", "openssh-server"),
    ("supercronic", "supercronic, from Debian testing"),
    ("supervisord", "supervisor"),
    ("systemd-analyze", "systemd"),
];

/// What a test may need that shows by trying alone: its name, what to do about it, and a line of shell that succeeds with it.
const TRIALS: &[(&str, &str, &str)] = &[
    ("faketime", "install faketime", "test \"$(faketime -f '@2001-01-01 00:00:00' date +%Y)\" = 2001"),
    ("mount", "run as root, with the right to mount", "unshare -m --propagation private mount -t tmpfs tmpfs /mnt"),
    ("netns", "run as root, with the right to make network namespaces", "unshare -m -n true"),
    ("root", "run as root", "test \"$(id -u)\" = 0"),
    ("strace", "install strace, and allow tracing", "strace -qq -e trace=none true"),
];

/// File systems: the program that makes one and its package, and a line of shell that succeeds where the kernel has
/// it with what the tests use of it. A program can be installed and a kernel can't: what the kernel lacks is ignored even where
/// everything has to be tested.
const FILE_SYSTEMS: &[(&str, &str, &str, &str)] = &[
    (
        "btrfs",
        "mkfs.btrfs",
        "btrfs-progs",
        "truncate -s 128m image; mkfs.btrfs -q -M image; mkdir at; mount -o loop image at; btrfs quota enable at",
    ),
    (
        "ext4",
        "mkfs.ext4",
        "e2fsprogs",
        "truncate -s 16m image; mkfs.ext4 -q image; mkdir at; mount -o loop,errors=remount-ro image at
         test -w /sys/fs/ext4/$(basename $(findmnt -no SOURCE at))/trigger_fs_error",
    ),
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
    let installed = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let mut missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| !installed(program))
        .map(|(program, package)| format!("{program}=install {package}"))
        .collect();
    for (name, remedy, trial) in TRIALS {
        if !succeeds(trial) {
            missing.push(format!("{name}={remedy}"));
        }
    }
    if TcpListener::bind("[::1]:0").is_err() {
        missing.push("ipv6=give the machine ::1".to_owned());
    }
    if !git_knows_reftable() {
        missing.push("reftable=install git 2.45 or newer".to_owned());
    }
    // Without the right to mount, that is what is missing.
    let mounts = !missing.iter().any(|entry| entry.starts_with("mount="));
    let mut of_the_kernel = Vec::new();
    for (name, program, package, trial) in FILE_SYSTEMS {
        if !installed(program) {
            missing.push(format!("{name}=install {package}"));
        } else if mounts && !succeeds(&format!("unshare -m --propagation private sh -ec '{IN_A_FOLDER}; {trial}'")) {
            of_the_kernel.push(format!("{name}=run as root, with loop devices, on a kernel that has it"));
        }
    }
    // Where everything has to be tested, nothing else is ignored: a test that lacks something fails.
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        missing.clear();
    }
    missing.extend(of_the_kernel);
    println!("cargo::rustc-env=MISSING={}", missing.join("\x1f"));
}

/// A folder that goes with its mount namespace.
const IN_A_FOLDER: &str = "mount -t tmpfs tmpfs /mnt; cd /mnt";

/// The folders of `PATH`, and those where servers are installed, which a user's `PATH` may lack.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/ssh"].map(PathBuf::from);
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).chain(servers).collect();
    all.sort();
    all.dedup();
    all
}

fn succeeds(line: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-ec", line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn git_knows_reftable() -> bool {
    let told = Command::new("git").arg("version").output().map(|out| out.stdout).unwrap_or_default();
    let told = String::from_utf8_lossy(&told).into_owned();
    let mut numbers = told.split_whitespace().nth(2).unwrap_or_default().split('.').map(|n| n.parse().unwrap_or(0_u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (2, 45)
}
