//! A disk that is full, has no inode left, is over its quota, or goes read-only: the pass says so, nothing is put aside or lost,
//! and with all well again two passes later all is well.
//!
//! The disks are real: tmpfs, and images of btrfs and ext4, mounted in a mount namespace of each test's own, which needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod oracle;
mod scene;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use needs::needs;
use oracle::Oracle;
use scene::Scene;

/// Whether this is the test's own process, in a mount namespace that goes with it. Elsewhere the test is run in one.
fn apart(test: &str) -> bool {
    const APART: &str = "GITSYNC_TEST_APART";
    if std::env::var_os(APART).is_some() {
        return true;
    }
    let mut again = Command::new("unshare");
    again.args(["-m", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    let out = again.args([test, "--exact", "--nocapture"]).env(APART, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn must(line: &str) {
    let out = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// 3 MB of tmpfs.
    Room,
    /// A tmpfs with few inodes.
    Inodes,
    /// A btrfs subvolume with a quota.
    Quota,
    /// An ext4 file system that goes read-only at the first error.
    Ext4,
}

/// A small disk, mounted as long as this lives.
struct Disk {
    top: PathBuf,
    image: PathBuf,
    kind: Kind,
}

impl Disk {
    fn at(s: &Scene, kind: Kind) -> Self {
        let (top, image) = (s.ours(), s.root().join("image"));
        fs::create_dir_all(&top).unwrap();
        let (at, img) = (top.display(), image.display());
        let line = match kind {
            Kind::Room => format!("mount -t tmpfs -o size=3m,mode=755 tmpfs '{at}'"),
            Kind::Inodes => format!("mount -t tmpfs -o nr_inodes=600,mode=755 tmpfs '{at}'"),
            Kind::Quota => format!(
                "truncate -s 128m '{img}'; mkfs.btrfs -q -M '{img}'; mkdir '{img}.all'; mount -o loop '{img}' '{img}.all'
                 btrfs quota enable '{img}.all'; btrfs subvolume create '{img}.all/ours'; mount --bind '{img}.all/ours' '{at}'"
            ),
            Kind::Ext4 => format!(
                "truncate -s 16m '{img}'; mkfs.ext4 -q '{img}'; mount -o loop,errors=remount-ro '{img}' '{at}'
                 test -w /sys/fs/ext4/$(basename $(findmnt -no SOURCE '{at}'))/trigger_fs_error"
            ),
        };
        let disk = Self { top, image, kind };
        must(&line);
        disk
    }

    /// Leaves so many pages or inodes.
    fn fill_but(&self, left: usize) {
        match self.kind {
            Kind::Room => {
                let mut ballast = File::create(self.ballast()).unwrap();
                let page = [b'x'; 4096];
                while ballast.write_all(&page).is_ok() {}
                let pages = usize::try_from(ballast.metadata().unwrap().len() / 4096).unwrap();
                ballast.set_len(u64::try_from(pages.saturating_sub(left) * 4096).unwrap()).unwrap();
            }
            Kind::Inodes => {
                fs::create_dir(self.ballast()).unwrap();
                let mut made: Vec<PathBuf> = Vec::new();
                while let next = self.ballast().join(made.len().to_string())
                    && File::create(&next).is_ok()
                {
                    made.push(next);
                }
                made.iter().take(left).for_each(|file| fs::remove_file(file).unwrap());
            }
            Kind::Quota => {
                // In bytes; the folder's own quota group is the only one with a path that is no `<toplevel>`.
                let all = format!("{}.all", self.image.display());
                must(&format!(
                    "sync -f '{all}'; btrfs quota rescan -w '{all}' >/dev/null 2>&1 || true
                     used=$(btrfs qgroup show --raw '{all}/ours' | awk '$1 == \"0/256\" {{ print $2 }}')
                     btrfs qgroup limit $((used + {left} * 4096)) '{all}/ours'"
                ));
            }
            // What is not on disk by then is lost, as if the power were cut.
            Kind::Ext4 => must(&format!("sync -f '{}'; {}", self.top.display(), self.error())),
        }
    }

    /// A line of shell by which the file system meets an error.
    fn error(&self) -> String {
        format!("echo test > /sys/fs/ext4/$(basename $(findmnt -no SOURCE '{}'))/trigger_fs_error", self.top.display())
    }

    fn make_room(&self) {
        let (at, img) = (self.top.display(), self.image.display());
        match self.kind {
            Kind::Room => fs::remove_file(self.ballast()).unwrap(),
            Kind::Inodes => fs::remove_dir_all(self.ballast()).unwrap(),
            Kind::Quota => must(&format!("btrfs qgroup limit none 0/256 '{img}.all'")),
            Kind::Ext4 => must(&format!(
                "umount '{at}'; e2fsck -fy '{img}' >/dev/null 2>&1 || test $? = 1; mount -o loop,errors=remount-ro '{img}' '{at}'"
            )),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.top.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let (at, img) = (self.top.display(), self.image.display());
        must(&format!("umount -l '{at}' || true; umount -l '{img}.all' 2>/dev/null || true"));
    }
}

fn noise(seed: u64, length: usize) -> String {
    // Text that does not compress well.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + u8::try_from(state % 26).unwrap())
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A scene on a small disk, with pages and an instance that knows them.
fn on_a_disk(kind: Kind) -> (Scene, Disk) {
    let s = Scene::without_ours();
    let disk = Disk::at(&s, kind);
    for i in 0..6 {
        s.rival_writes(&format!("page-{i}"), &noise(i, 12_000));
    }
    s.rival_commits("pages");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync().exits(0).says("cloned");
    fs::write(s.ours().join(".git/info/exclude"), "ballast\nlost+found\n").unwrap();
    (s, disk)
}

fn watched(s: &Scene) -> Oracle {
    let mut oracle = Oracle::default();
    oracle.trust_what_is_there(s);
    oracle.remember(s, "at the start");
    oracle
}

/// What a pass on a bad disk says, and what comes after.
fn ends_well(s: &Scene, name: &str, pass: &[&str], disk: &Disk, oracle: &mut Oracle) {
    let ran = s.last();
    assert!(matches!(ran.code, Some(0 | 1 | 75)), "{name}: {ran}");
    if ran.stdout == "pushed\n" && disk.kind != Kind::Ext4 {
        assert_eq!(s.our_tip(), s.upstream_tip(), "{name}: {ran}");
    }
    if ran.code != Some(0) {
        // Each line names its command.
        let said = ran.stderr.replace("command=\"init-sync\"", "");
        assert!(!said.contains("init-sync"), "{name}: a full disk is no damage: {ran}");
    }
    disk.make_room();
    // A lock file that could not be written is removed by who made it.
    s.run(pass);
    s.run(pass);
    let complaints = oracle.complaints(s, &["state/job-"]);
    assert!(complaints.is_empty(), "{name}: {complaints:#?}\n{ran}\n{}", s.last());
    s.exits(0);
    assert_eq!(s.our_tip(), s.upstream_tip(), "{name}: {ran}\n{}", s.last());
    assert!(!s.private().join("broken").exists(), "{name}: put aside\n{ran}\n{}", s.last());
    let left = oracle::leftovers(&s.ours().join(".git"));
    assert!(left.is_empty(), "{name}: {left:?}\n{ran}");
}

fn full(name: &str, pass: &[&str], alpha: bool, prepare: &dyn Fn(&Scene)) {
    full_of(Kind::Room, &[0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50], name, pass, alpha, prepare);
}

fn full_of(kind: Kind, left: &[usize], name: &str, pass: &[&str], alpha: bool, prepare: &dyn Fn(&Scene)) {
    for left in left {
        let (s, disk) = on_a_disk(kind);
        if alpha {
            s.alpha();
        }
        prepare(&s);
        let mut oracle = watched(&s);
        disk.fill_but(*left);
        s.run(pass);
        ends_well(&s, &format!("{name}, {kind:?}, {left} left"), pass, &disk, &mut oracle);
    }
}

/// The remote moves on by half of the pages, and we have work that is not committed.
fn the_remote_moves_on(s: &Scene) {
    for i in 0..3 {
        s.rival_writes(&format!("page-{i}"), &noise(100 + i, 12_000));
    }
    s.rival_writes("new/page", &noise(200, 12_000));
    s.rival_commits("other pages");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.we_write("page-0", &noise(300, 12_000)).we_write("new/page", &noise(400, 12_000));
}

const JOB: &str = "mkdir -p state; f=state/job-$(ls state | wc -l); head -c 20000 index.html > $f; echo $f >> $f";

#[needs(mount)]
#[test]
fn a_sync_on_a_full_disk() {
    if apart("a_sync_on_a_full_disk") {
        full("sync", &["sync"], false, &the_remote_moves_on);
    }
}

#[needs(mount)]
#[test]
fn a_tick_on_a_full_disk() {
    if apart("a_tick_on_a_full_disk") {
        full("tick", &["tick", "--", "sh", "-c", JOB], false, &|_| {});
        full("tick, behind", &["tick", "--", "sh", "-c", JOB], false, &the_remote_moves_on);
    }
}

fn we_are_diverged(s: &Scene) {
    the_remote_moves_on(s);
    s.we_commit("state/ours");
}

#[needs(mount)]
#[test]
fn an_alpha_s_tick_on_a_full_disk() {
    if apart("an_alpha_s_tick_on_a_full_disk") {
        full("tick, alpha", &["tick", "--", "true"], true, &we_are_diverged);
    }
}

#[needs(mount)]
#[test]
fn a_start_up_on_a_full_disk() {
    if apart("a_start_up_on_a_full_disk") {
        full("init-sync", &["init-sync"], false, &the_remote_moves_on);
    }
}

/// Each pass on a disk of a kind.
fn each_pass_on(kind: Kind, left: &[usize]) {
    full_of(kind, left, "sync", &["sync"], false, &the_remote_moves_on);
    full_of(kind, left, "tick", &["tick", "--", "sh", "-c", JOB], false, &the_remote_moves_on);
    full_of(kind, left, "tick, alpha", &["tick", "--", "true"], true, &we_are_diverged);
    full_of(kind, left, "init-sync", &["init-sync"], false, &the_remote_moves_on);
}

#[needs(mount)]
#[test]
fn each_pass_without_inodes() {
    if apart("each_pass_without_inodes") {
        each_pass_on(Kind::Inodes, &[0, 1, 2, 4, 7, 12, 20, 30]);
    }
}

#[needs(btrfs, mount)]
#[test]
fn each_pass_over_the_quota() {
    if apart("each_pass_over_the_quota") {
        each_pass_on(Kind::Quota, &[0, 4, 12, 25, 50]);
    }
}

#[needs(ext4, mount)]
#[test]
fn each_pass_on_a_disk_that_is_read_only() {
    if apart("each_pass_on_a_disk_that_is_read_only") {
        each_pass_on(Kind::Ext4, &[0]);
    }
}

/// Without any error of the file system.
#[needs(mount)]
#[test]
fn each_pass_on_a_disk_that_is_mounted_read_only() {
    if !apart("each_pass_on_a_disk_that_is_mounted_read_only") {
        return;
    }
    let passes: [&[&str]; 3] = [&["sync"], &["tick", "--", "true"], &["init-sync"]];
    for pass in passes {
        let (s, _disk) = on_a_disk(Kind::Room);
        the_remote_moves_on(&s);
        let mut oracle = watched(&s);
        must(&format!("mount -o remount,ro '{}'", s.ours().display()));
        s.run(pass).logs("ead-only file system").logs_not("init-sync`");
        assert!(matches!(s.last().code, Some(1 | 75)), "{}", s.last());
        must(&format!("mount -o remount,rw '{}'", s.ours().display()));
        s.run(pass).exits(0).run(pass).exits(0);
        let complaints = oracle.complaints(&s, &["state/job-"]);
        assert!(complaints.is_empty(), "{pass:?}: {complaints:#?}\n{}", s.last());
        assert!(!s.private().join("broken").exists(), "put aside\n{}", s.last());
    }
}

/// The file system meets an error in the middle of a pass: while the remote packs what is fetched, in the job, and while the
/// remote takes what is pushed.
#[needs(ext4, mount)]
#[test]
fn a_disk_that_goes_read_only_in_the_middle_of_a_pass() {
    if !apart("a_disk_that_goes_read_only_in_the_middle_of_a_pass") {
        return;
    }
    let passes: [&[&str]; 3] = [&["sync"], &["tick", "--", "sh", "-c", JOB], &["init-sync"]];
    for pass in passes {
        let (s, disk) = on_a_disk(Kind::Ext4);
        the_remote_moves_on(&s);
        let mut oracle = watched(&s);
        must("sync");
        let hook = s.root().join("hook");
        scene::write(&hook, &format!("#!/bin/sh\n{}\nexec \"$@\"\n", disk.error()));
        must(&format!("chmod 755 '{}'", hook.display()));
        s.git_in(s.root(), &["config", "--global", "uploadpack.packObjectsHook", &hook.display().to_string()]);
        s.run(pass);
        s.git_in(s.root(), &["config", "--global", "--unset", "uploadpack.packObjectsHook"]);
        ends_well(&s, &format!("{pass:?}, in the fetch"), pass, &disk, &mut oracle);
    }
    let (s, disk) = on_a_disk(Kind::Ext4);
    let mut oracle = watched(&s);
    must("sync");
    s.tick_with(&format!("{JOB}; {}", disk.error()));
    ends_well(&s, "in the job", &["tick", "--", "sh", "-c", JOB], &disk, &mut oracle);

    let (s, disk) = on_a_disk(Kind::Ext4);
    let mut oracle = watched(&s);
    must("sync");
    s.upstream_hook("pre-receive", &disk.error());
    s.tick_with(JOB);
    fs::remove_file(s.upstream().join("hooks/pre-receive")).unwrap();
    ends_well(&s, "in the push", &["tick", "--", "sh", "-c", JOB], &disk, &mut oracle);
}
