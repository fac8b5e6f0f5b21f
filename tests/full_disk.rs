//! A disk that is full: the pass says so, nothing is lost, and with room again all is well two passes later.
//!
//! The disk is a tmpfs of 3 MB, which needs the right to mount. Without it the test is skipped, loudly; in CI that is a
//! failure.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod oracle;
mod scene;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use oracle::Oracle;
use scene::Scene;

/// A small disk, mounted as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn at(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs"]).arg(path).output();
        if out.is_ok_and(|out| out.status.success()) {
            return Some(Self(path.to_owned()));
        }
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "no tmpfs can be mounted: in CI the full disk must not be skipped");
        eprintln!(
            "SKIPPED: no tmpfs can be mounted, so no disk was full. Run as root, or in a container that may mount."
        );
        None
    }

    /// Fills the disk but for so many pages.
    fn fill_but(&self, pages: u64) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let page = [b'x'; 4096];
        while ballast.write_all(&page).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len((length / 4096).saturating_sub(pages) * 4096).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
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

fn full(name: &str, pass: &[&str], alpha: bool, prepare: &dyn Fn(&Scene)) {
    for pages in [0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50] {
        let s = Scene::without_ours();
        let Some(disk) = Disk::at(&s.ours()) else { return };
        for i in 0..6 {
            s.rival_writes(&format!("page-{i}"), &noise(i, 12_000));
        }
        s.rival_commits("pages");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.init_sync().exits(0).says("cloned");
        fs::write(s.ours().join(".git/info/exclude"), "ballast\n").unwrap();
        if alpha {
            s.alpha();
        }
        prepare(&s);
        let mut oracle = Oracle::default();
        oracle.trust_what_is_there(&s);
        oracle.remember(&s, "at the start");
        disk.fill_but(pages);
        oracle.forget_version(Path::new("ballast"));
        let ran = s.run(pass).last();
        assert!(matches!(ran.code, Some(0 | 1 | 75)), "{name}, {pages} pages: {ran}");
        if ran.stdout == "pushed\n" {
            assert_eq!(s.our_tip(), s.upstream_tip(), "{name}, {pages} pages: {ran}");
        }
        if ran.code != Some(0) {
            assert!(!ran.stderr.contains("init-sync"), "a full disk is no damage: {ran}");
        }
        disk.make_room();
        // A lock file that could not be written is removed by who made it.
        s.run(pass);
        s.run(pass);
        let complaints = oracle.complaints(&s, &["state/job-"]);
        assert!(complaints.is_empty(), "{name}, {pages} pages: {complaints:#?}\n{ran}\n{}", s.last());
        s.exits(0);
        assert_eq!(s.our_tip(), s.upstream_tip(), "{name}, {pages} pages: {ran}\n{}", s.last());
        let left = oracle::leftovers(&s.ours().join(".git"));
        assert!(left.is_empty(), "{name}, {pages} pages: {left:?}\n{ran}");
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

#[test]
fn a_sync_on_a_full_disk() {
    full("sync", &["sync"], false, &the_remote_moves_on);
}

#[test]
fn a_tick_on_a_full_disk() {
    let job = "mkdir -p state; f=state/job-$(ls state | wc -l); head -c 20000 index.html > $f; echo $f >> $f";
    full("tick", &["tick", "--", "sh", "-c", job], false, &|_| {});
    full("tick, behind", &["tick", "--", "sh", "-c", job], false, &the_remote_moves_on);
}

#[test]
fn an_alpha_s_tick_on_a_full_disk() {
    full("tick, alpha", &["tick", "--", "true"], true, &|s| {
        the_remote_moves_on(s);
        s.we_commit("state/ours");
    });
}

#[test]
fn a_start_up_on_a_full_disk() {
    full("init-sync", &["init-sync"], false, &the_remote_moves_on);
}
