//! What the sweeps strike: scenes that hold all kinds of changes, the passes, and what they must come to.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::oracle;
use crate::scene::{self, Scene};

/// What a tick's job does here: one file more each time, so that no version is replaced by the job itself.
pub const JOB: &str =
    "mkdir -p state audit; f=$(mktemp state/job-XXXXXX); echo \"$f\" > \"$f\"; echo \"$f\" > audit/${f#state/}";

pub const SYNC: &[&str] = &["sync"];
pub const TICK: &[&str] = &["tick", "--", "sh", "-c", JOB];
pub const IDLE: &[&str] = &["tick", "--", "true"];
/// How the paths begin that the job writes. Nothing else may be in a tick's commit.
pub const JOBS: &[&str] = &["state/job-", "audit/job-"];

/// A first version of a tree, here and upstream, and a second one upstream in which everything differs: files changed, new
/// and gone, a file that became a folder and a folder that became a file, a link, an executable.
pub fn two_versions() -> Scene {
    let s = Scene::empty_upstream();
    for path in ["page", "gone", "turns-folder", "turns-file/a", "turns-file/b", "state/a", "state/gone", "audit/log"] {
        s.rival_writes(path, &format!("v1 {path}\n"));
    }
    symlink("page", s.rival().join("link")).unwrap();
    s.rival_commits("v1");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.init_sync().exits(0).says("cloned");
    s
}

pub fn second_version(s: &Scene) {
    let rival = s.rival();
    for path in ["gone", "state/gone", "turns-folder"] {
        fs::remove_file(rival.join(path)).unwrap();
    }
    fs::remove_dir_all(rival.join("turns-file")).unwrap();
    fs::remove_file(rival.join("link")).unwrap();
    symlink("state/a", rival.join("link")).unwrap();
    for path in ["page", "new", "run", "turns-folder/x/y", "turns-file", "state/a", "state/new", "audit/log"] {
        s.rival_writes(path, &format!("v2 {path}\n"));
    }
    fs::set_permissions(rival.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    s.rival_commits("v2");
    s.git_in(&rival, &["push", "-q", "origin", "main"]);
}

/// What a person did here and did not commit: an edit, a new file where the remote has one too, something staged.
pub fn unfinished_work(s: &Scene) {
    s.we_write("page", "my page\n").we_write("new", "my new\n").we_write("unrelated", "mine\n");
    s.we_write("staged", "mine, staged\n");
    s.git_ours(&["add", "staged"]);
    s.we_write("turns-file/c", "mine, in a folder that goes\n");
}

pub fn same_as_upstream(s: &Scene) -> Vec<String> {
    let mut all = Vec::new();
    let (ours, theirs) = (s.our_tip(), s.upstream_tip());
    if ours != theirs {
        all.push(format!("ours is {ours}, upstream is {theirs}"));
    }
    let head = s.git_ours(&["symbolic-ref", "HEAD"]);
    if head != "refs/heads/main" {
        all.push(format!("HEAD is on {head}"));
    }
    if s.marker() {
        all.push("a force push is pending".to_owned());
    }
    all
}

/// The tree as committed; for scenes without work of a person.
pub fn clean(s: &Scene) -> Vec<String> {
    let mut all = same_as_upstream(s);
    let status = s.git_ours(&["status", "--porcelain", "--untracked-files=no"]);
    if !status.is_empty() {
        all.push(format!("the work tree is not as committed:\n{status}"));
    }
    all
}

/// Builds a site of some pages that all say which version of `page` they are of.
pub const BUILD: &str = r#"set -e; out={public_dir}; v=$(head -c 2 page); mkdir -p "$out/sub"
for name in index sub/one sub/two; do { echo "<$v>"; seq 1 2000; cat page; echo "</$v>"; } > "$out/$name.html"; done
echo same > "$out/same.txt"; echo "$v" > "$out/only-$v"; ln -s ../neighbour "$out/out"
case $v in v1) mkdir "$out/turns"; echo "$v" > "$out/turns/in";; *) echo "$v" > "$out/turns";; esac"#;

pub type Pages = Vec<(PathBuf, git2::Oid, bool)>;

/// The site that the build makes of a `page`.
pub fn site_of(page: &str) -> Pages {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("page"), page).unwrap();
    let out = place.path().join("out");
    let script = BUILD.replace("{public_dir}", out.to_str().unwrap());
    let built = Command::new("sh").args(["-c", &script]).current_dir(place.path()).status().unwrap();
    assert!(built.success());
    oracle::files(&out)
}

/// A scene with a site that is up, and a neighbour of it that is nobody's business.
pub fn with_a_site(way: &str) -> Scene {
    let s = two_versions();
    scene::write(&s.root().join("neighbour/file"), "not of the site\n");
    s.env("GIT_SYNC_PUBLIC_DIR", s.public().to_str().unwrap());
    s.env("GIT_SYNC_BUILD_COMMAND", BUILD).env("GIT_SYNC_PUBLISH", way);
    s.run(&["init-sync"]).exits(0);
    assert_eq!(oracle::files(&s.public()), site_of("v1 page\n"));
    s
}
