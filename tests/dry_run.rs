//! `--dry-run`: the plan is said, and nothing changes, byte for byte.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
use scene::Scene;

/// Runs it dry and holds everything below ours, upstream's references and the public dir against what they were.
#[track_caller]
fn dry(s: &Scene, args: &[&str]) -> String {
    let look = || {
        let refs = s.upstream().exists().then(|| s.git_upstream(&["for-each-ref"]));
        (s.ours().exists().then(|| s.snapshot()), refs, s.public().exists())
    };
    let before = look();
    let at = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
    let mut all = args.to_vec();
    all.insert(at, "--dry-run");
    s.run(&all);
    let after = look();
    assert_eq!(before, after, "{}", s.last());
    s.last().stderr
}

#[test]
fn sync_in_each_state() {
    let s = Scene::new();
    assert!(dry(&s, &["sync"]).contains("would change nothing"));
    s.says("up-to-date").exits(0);

    s.rival_pushes("index.html").we_write("index.html", "my edit\n");
    let said = dry(&s, &["sync"]);
    s.says("behind").exits(0);
    assert!(said.contains("would follow the remote") && said.contains("1 uncommitted files"), "{said}");

    s.we_commit("a.txt");
    let said = dry(&s, &["sync"]);
    s.says("diverged").exits(0);
    assert!(said.contains("local commits as a rescue"), "{said}");
    let said = dry(&s, &["sync", "--alpha"]);
    assert!(said.contains("would keep local"), "{said}");

    // What was said comes about.
    s.sync().says("diverged").ours_equals_upstream();
    assert_eq!((s.rescues("local").len(), s.rescues("worktree").len()), (1, 0));
}

#[test]
fn tick_runs_no_job_and_pushes_nothing() {
    let s = Scene::new();
    s.we_write("state/b", "waiting\n");
    let public = s.public();
    let args = [
        "tick",
        "--public-dir",
        public.to_str().unwrap(),
        "--build-command",
        "touch state/built",
        "--",
        "touch",
        "state/ran",
    ];
    let said = dry(&s, &args);
    s.says("pushed").exits(0);
    for plan in ["would run the job", "would build the site", "state/b", "would push"] {
        assert!(said.contains(plan), "{plan}: {said}");
    }
    dry(&s, &["tick", "--output", "json"]);
    assert!(s.json()["plan"].as_array().unwrap().len() >= 4);
}

#[test]
fn init_sync_where_there_is_nothing_yet_and_where_there_is() {
    let s = Scene::without_ours();
    let upstream = s.upstream();
    let args = ["init-sync", "--remote-url", upstream.to_str().unwrap()];
    assert!(dry(&s, &args).contains("would create a repository"));
    s.says("cloned").exits(0);
    s.init_sync();
    dry(&s, &args);
    s.says("up-to-date");
    s.we_commit("a.txt").git_ours(&["checkout", "-q", "--detach"]);
    assert!(dry(&s, &args).contains("would heal the repository"));
    s.says("reset");
}

#[test]
fn it_fails_where_the_pass_would() {
    let s = Scene::new();
    s.upstream_goes_away();
    dry(&s, &["sync"]);
    s.exits(75).says("error");
    s.upstream_comes_back().git_ours(&["checkout", "-q", "--detach"]);
    dry(&s, &["tick", "--", "true"]);
    s.exits(1).says("error").logs("HEAD is detached");
    let nowhere = s.root().join("nowhere");
    dry(&s, &["init-sync", "--repo", nowhere.to_str().unwrap()]);
    s.exits(2).says("error").logs("set --remote-url");
    let upstream = s.upstream();
    let upstream = upstream.to_str().unwrap();
    dry(&s, &["init-sync", "--repo", upstream, "--remote-url", upstream]);
    s.exits(1).says("error").logs("bare repository");
}
