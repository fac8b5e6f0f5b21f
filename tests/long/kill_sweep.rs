//! Kill it anywhere, fail any call: nothing is lost, and two passes later all is as the rule demands.
//!
//! By default a few hundred points, evenly spaced over the calls that change something; with `GITSYNC_SWEEP=changes` all of
//! those. The whole sweep, every call of every group in every pass, killed and failed:
//!
//! ```text
//! GITSYNC_SWEEP=full cargo test --release --test long kill_sweep:: -- --nocapture
//! ```

use std::fs;
use std::path::PathBuf;

use crate::oracle;
use crate::scene::{self, Scene};
use crate::sweep;
use crate::sweep::Sweep;
use crate::sweep::passes::*;
use needs::needs;

#[needs(strace)]
#[test]
fn sync_behind() {
    let s = two_versions();
    second_version(&s);
    unfinished_work(&s);
    sweep::run(&Sweep {
        name: "sync, behind, with work of a person",
        scene: &s,
        pass: SYNC,
        recoveries: &[[SYNC, SYNC], [TICK, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn sync_diverged() {
    let s = two_versions();
    second_version(&s);
    s.we_commit("page").we_commit("turns-folder").we_commit("state/ours");
    unfinished_work(&s);
    sweep::run(&Sweep {
        name: "sync, diverged, with work of a person",
        scene: &s,
        pass: SYNC,
        recoveries: &[[SYNC, SYNC], [TICK, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn tick_commits_and_pushes() {
    let s = two_versions();
    s.we_write("page", "my page\n");
    s.we_write("staged", "mine, staged\n");
    s.git_ours(&["add", "staged"]);
    sweep::run(&Sweep {
        name: "tick, even with the remote",
        scene: &s,
        pass: TICK,
        recoveries: &[[TICK, TICK], [SYNC, TICK], [TICK, SYNC]],
        rest: IDLE,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &same_as_upstream,
    });
}

#[needs(strace)]
#[test]
fn tick_behind() {
    let s = two_versions();
    second_version(&s);
    unfinished_work(&s);
    sweep::run(&Sweep {
        name: "tick, behind, with work of a person",
        scene: &s,
        pass: TICK,
        recoveries: &[[TICK, TICK], [SYNC, TICK]],
        rest: IDLE,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn tick_alpha_overwrites() {
    let s = two_versions();
    second_version(&s);
    s.alpha().we_commit("page").we_commit("state/ours");
    s.we_write("page", "my page\n");
    sweep::run(&Sweep {
        name: "tick, alpha, diverged",
        scene: &s,
        pass: TICK,
        recoveries: &[[TICK, TICK], [SYNC, TICK]],
        rest: IDLE,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &same_as_upstream,
    });
}

#[needs(strace)]
#[test]
fn init_sync_clones() {
    let s = two_versions();
    fs::remove_dir_all(s.ours()).unwrap();
    fs::create_dir_all(s.ours().join("lost+found")).unwrap();
    s.we_write("page", "a stranger's page\n").we_write("notes", "a stranger's notes\n");
    let url = s.upstream().to_str().unwrap().to_owned();
    let init: &[&str] = &["init-sync", "--remote-url", &url];
    sweep::run(&Sweep {
        name: "init-sync, fresh",
        scene: &s,
        pass: init,
        recoveries: &[[init, init], [init, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn init_sync_over_a_merge_half_done() {
    let s = two_versions();
    s.git_ours(&["switch", "-q", "-c", "topic"]);
    s.we_write("page", "topic\n");
    s.git_ours(&["commit", "-q", "-a", "-m", "on a topic"]);
    s.git_ours(&["switch", "-q", "main"]);
    s.we_commit("page").we_commit("state/ours");
    assert!(!s.git_command(&s.ours()).args(["merge", "-q", "topic"]).output().unwrap().status.success());
    s.git_ours(&["branch", "-q", "-D", "topic"]);
    second_version(&s);
    s.we_write("new", "my new\n");
    let init: &[&str] = &["init-sync"];
    sweep::run(&Sweep {
        name: "init-sync, over a merge half done",
        scene: &s,
        pass: init,
        recoveries: &[[init, init], [init, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn init_sync_from_a_detached_head() {
    let s = two_versions();
    second_version(&s);
    s.git_ours(&["checkout", "-q", "--detach"]);
    s.we_commit("page");
    unfinished_work(&s);
    let init: &[&str] = &["init-sync"];
    sweep::run(&Sweep {
        name: "init-sync, from a detached HEAD",
        scene: &s,
        pass: init,
        recoveries: &[[init, init], [init, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn init_sync_over_a_damaged_repository() {
    let s = two_versions();
    s.we_commit("state/ours").we_commit("page");
    let readable = s.our_tip();
    s.we_commit("state/unreadable");
    let tip = s.our_tip();
    let blob = s.rev(&s.ours(), "HEAD:state/unreadable");
    fs::remove_file(s.ours().join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
    second_version(&s);
    s.we_write("page", "my page\n").we_write("new", "my new\n");
    let init: &[&str] = &["init-sync"];
    sweep::run(&Sweep {
        name: "init-sync, over a damaged repository",
        scene: &s,
        pass: init,
        recoveries: &[[init, init], [init, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[tip],
        thinned: sweep::SOME,
        at_once: &sweep::nothing,
        comes_to: &|s| {
            let mut all = clean(s);
            let mut found = s.git_command(&s.ours());
            let found = found.args(["for-each-ref", "--contains", &readable, "refs/gitsync/rescue"]).output().unwrap();
            if found.stdout.is_empty() {
                all.push(format!("{readable} could be read and was not carried over"));
            }
            all
        },
    });
}

/// The programs of git behind a path remote, struck in the middle of what they do for us.
#[needs(strace)]
#[test]
fn children_of_a_fetch() {
    let s = two_versions();
    second_version(&s);
    unfinished_work(&s);
    sweep::run_on_children(&Sweep {
        name: "children of a sync, behind",
        scene: &s,
        pass: SYNC,
        recoveries: &[[SYNC, SYNC], [TICK, TICK]],
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::FEW,
        at_once: &sweep::nothing,
        comes_to: &clean,
    });
}

#[needs(strace)]
#[test]
fn children_of_a_push() {
    let s = two_versions();
    s.we_write("page", "my page\n");
    sweep::run_on_children(&Sweep {
        name: "children of a tick, pushing",
        scene: &s,
        pass: TICK,
        recoveries: &[[TICK, TICK], [IDLE, IDLE]],
        rest: IDLE,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::FEW,
        at_once: &sweep::nothing,
        comes_to: &same_as_upstream,
    });
}

#[needs(strace)]
#[test]
fn children_of_an_overwriting_push() {
    let s = two_versions();
    second_version(&s);
    s.alpha().we_commit("page").we_commit("state/ours");
    // So that the upstream keeps a pack as it is, instead of unpacking it.
    s.git_upstream(&["config", "receive.unpackLimit", "1"]);
    sweep::run_on_children(&Sweep {
        name: "children of a tick, alpha, diverged",
        scene: &s,
        pass: TICK,
        recoveries: &[[TICK, TICK], [SYNC, IDLE]],
        rest: IDLE,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::FEW,
        at_once: &sweep::nothing,
        comes_to: &same_as_upstream,
    });
}

/// What a reader may find at any moment, and what must be in the end.
fn sweep_of_a_site(name: &str, s: &Scene, whole: bool, pass: &[&str], page: &str, recoveries: &[[&[&str]; 2]]) {
    let (old, new) = (site_of("v1 page\n"), site_of(page));
    let both: Vec<&PathBuf> =
        old.iter().map(|(path, ..)| path).filter(|path| new.iter().any(|(other, ..)| other == *path)).collect();
    let neighbour = scene::snapshot_of(&s.root().join("neighbour"));
    let at_once = |s: &Scene| -> Vec<String> {
        let mut all = Vec::new();
        let mut now = oracle::files(&s.public());
        now.retain(|(path, ..)| whole || !path.starts_with(".gitsync-incoming"));
        if whole && now != old && now != new {
            all.push("the site is neither wholly the old nor wholly the new one".to_owned());
        }
        for file in &now {
            if !old.contains(file) && !new.contains(file) {
                all.push(format!("{} is neither an old nor a new page", file.0.display()));
            }
        }
        for path in &both {
            if !now.iter().any(|(found, ..)| found == *path) {
                all.push(format!("{} is missing from the site", path.display()));
            }
        }
        if scene::snapshot_of(&s.root().join("neighbour")) != neighbour {
            all.push("G10: something outside the public dir was touched".to_owned());
        }
        for entry in fs::read_dir(s.root()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !["home", "upstream.git", "rival", "ours", "public", "neighbour", "trace"].contains(&&*name) {
                all.push(format!("G10: {name} was left beside the public dir"));
            }
        }
        all
    };
    let comes_to = |s: &Scene| -> Vec<String> {
        let mut all = same_as_upstream(s);
        all.extend(at_once(s));
        if oracle::files(&s.public()) != new {
            all.push("the public dir does not hold exactly the fresh site".to_owned());
        }
        let mut staged = Vec::new();
        for entry in fs::read_dir(s.private()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("site-staging") {
                staged.push(entry.path());
            }
            if name == "site-stale" {
                all.push("the site still counts as stale".to_owned());
            }
        }
        // What was exchanged away stays for readers who are in it, until the next site is staged.
        let kept = |staged: &PathBuf| [&old, &new].contains(&&oracle::files(staged));
        if staged.len() > usize::from(whole) || !staged.iter().all(kept) {
            all.push(format!("staging folders are left: {staged:?}"));
        }
        all
    };
    sweep::run(&Sweep {
        name,
        scene: s,
        pass,
        recoveries,
        rest: SYNC,
        paths: JOBS,
        unreadable: &[],
        thinned: sweep::FEW,
        at_once: &at_once,
        comes_to: &comes_to,
    });
}

#[needs(strace)]
#[test]
fn site_of_a_sync_exchanged_whole() {
    let s = with_a_site("whole");
    second_version(&s);
    sweep_of_a_site("site, sync, behind, whole", &s, true, SYNC, "v2 page\n", &[[SYNC, SYNC], [TICK, TICK]]);
}

#[needs(strace)]
#[test]
fn site_of_a_sync_file_by_file() {
    let s = with_a_site("files");
    second_version(&s);
    sweep_of_a_site("site, sync, behind, files", &s, false, SYNC, "v2 page\n", &[[SYNC, SYNC], [TICK, TICK]]);
}

#[needs(strace)]
#[test]
fn site_of_a_tick_exchanged_whole() {
    let s = with_a_site("whole");
    s.we_write("page", "my page\n");
    sweep_of_a_site("site, tick, whole", &s, true, TICK, "my page\n", &[[TICK, TICK], [SYNC, TICK]]);
}

#[needs(strace)]
#[test]
fn site_of_a_tick_file_by_file() {
    let s = with_a_site("files");
    s.we_write("page", "my page\n");
    sweep_of_a_site("site, tick, files", &s, false, TICK, "my page\n", &[[TICK, TICK], [SYNC, TICK]]);
}

#[needs(strace)]
#[test]
fn site_of_an_init_sync_exchanged_whole() {
    let s = with_a_site("whole");
    second_version(&s);
    let init: &[&str] = &["init-sync"];
    sweep_of_a_site("site, init-sync, whole", &s, true, init, "v2 page\n", &[[init, init], [SYNC, TICK]]);
}

#[needs(strace)]
#[test]
fn site_of_an_init_sync_file_by_file() {
    let s = with_a_site("files");
    second_version(&s);
    let init: &[&str] = &["init-sync"];
    sweep_of_a_site("site, init-sync, files", &s, false, init, "v2 page\n", &[[init, init], [SYNC, TICK]]);
}

/// What could not be removed after a site had gone in file by file does not wait for the next build.
#[test]
fn a_staging_folder_that_is_left_goes_with_the_next_pass() {
    let s = with_a_site("files");
    scene::write(&s.private().join("site-staging/page"), "left\n");
    s.sync().exits(0).says("up-to-date");
    assert!(!s.private().join("site-staging").exists(), "{}", s.last());
    assert_eq!(oracle::files(&s.public()), site_of("v1 page\n"));
}

/// A job that changes a file, adds two and deletes one, and says outside the repository when it is through.
const WHOLE_JOB: &[&str] = &[
    "tick",
    "--",
    "sh",
    "-c",
    "echo job >> state/a; echo job > state/added; rm audit/log; echo job > audit/added; touch ../job-is-done",
];

/// How much of the job's output a commit has, of four.
fn parts_of_job(s: &Scene, commit: &str) -> usize {
    let show = |path: &str| s.git_command(&s.ours()).args(["show", &format!("{commit}:{path}")]).output().unwrap();
    let changed = show("state/a").stdout.ends_with(b"job\n");
    let added = ["state/added", "audit/added"].map(|path| show(path).status.success());
    [changed, added[0], added[1], !show("audit/log").status.success()].into_iter().filter(|is_so| *is_so).count()
}

/// Kills a tick at every point; then a rival pushes, and then each pass is the next one. `pushed`: what the rival changes.
fn sweep_of_a_job(name: &str, s: &Scene, pushed: &str) {
    let rival_pushes = |s: &Scene| {
        s.git_in(&s.rival(), &["fetch", "-q"]);
        s.git_in(&s.rival(), &["reset", "-q", "--hard", "origin/main"]);
        s.rival_writes(pushed, "the rival's\n").rival_commits("in between");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        Vec::new()
    };
    let is_whole = |s: &Scene| {
        let mut all = clean(s);
        if s.root().join("job-is-done").exists() {
            // The rival may have changed on top what was pushed whole.
            let commits = s.git_ours(&["rev-list", "main"]);
            let whole = commits.lines().any(|commit| parts_of_job(s, commit) == 4);
            let on_branch = if whole { 4 } else { parts_of_job(s, "main") };
            let rescued = s.rescues("").iter().any(|rescue| parts_of_job(s, rescue) == 4);
            if !(on_branch == 4 || on_branch == 0 && rescued) {
                all.push(format!(
                    "G11: {on_branch} of 4 parts of the job's output are on the branch; rescued whole: {rescued}"
                ));
            }
        }
        all
    };
    const INIT: &[&str] = &["init-sync"];
    sweep::run(&Sweep {
        name,
        scene: s,
        pass: WHOLE_JOB,
        recoveries: &[[SYNC, IDLE], [IDLE, SYNC], [INIT, IDLE]],
        rest: IDLE,
        paths: &["state/", "audit/", "docs"],
        unreadable: &[],
        thinned: sweep::SOME,
        at_once: &rival_pushes,
        comes_to: &is_whole,
    });
}

#[needs(strace)]
#[test]
fn job_and_then_a_push_of_another_file() {
    sweep_of_a_job("tick with a whole job, then a push beside it", &two_versions(), "docs");
}

#[needs(strace)]
#[test]
fn job_and_then_a_push_of_the_same_file() {
    sweep_of_a_job("tick with a whole job, then a push that conflicts", &two_versions(), "state/a");
}
