//! `gitsync status`: what it tells, that it only looks, and when it calls an instance healthy.

use std::fs;

use crate::scene::{Scene, until};
use serde_json::Value;

fn json(s: &Scene, args: &[&str]) -> Value {
    let mut all = vec!["status", "--output", "json"];
    all.extend(args);
    s.run(&all).json()
}

#[test]
fn it_tells_where_the_instance_stands_without_touching_anything() {
    let s = Scene::new();
    s.sync().tick_with("echo 1 > state/a").says("pushed").we_commit("state/b");
    // The network is not asked: with the upstream away the answer is the same.
    s.upstream_goes_away();
    let before = s.snapshot();
    s.run(&["status"]).exits(0);
    let said = s.last().stdout;
    for text in ["branch          main", "mode            non-alpha", "state           ahead: 1 commit to push"] {
        assert!(said.contains(text), "{text}\n{said}");
    }
    for text in
        [&s.our_tip(), "(origin, as last seen)", "lock            free", "last tick       ", ": pushed (exit 0, took "]
    {
        assert!(said.contains(text), "{text}\n{said}");
    }
    assert!(said.contains("force push      none") && said.contains("rescues         none"), "{said}");
    assert_eq!(s.last().stderr, "");
    let told = json(&s, &[]);
    assert_eq!(s.snapshot(), before);
    assert_eq!(
        (&told["command"], &told["result"], &told["exit_code"], &told["state"]),
        (&"status".into(), &"ok".into(), &0.into(), &"ahead".into())
    );
    assert_eq!(told["local"], s.our_tip().as_str());
    assert_eq!((&told["ahead"], &told["behind"], &told["lock"]), (&1.into(), &0.into(), &Value::Null));
    assert_eq!(told["runs"]["tick"]["result"], "pushed");
    assert_eq!(told["runs"]["init-sync"]["result"], "cloned");
    assert_eq!(told["health"], Value::Null);
}

#[test]
fn diverged_alpha_shows_the_mode_and_the_pending_force_push() {
    let s = Scene::new();
    s.alpha().rival_pushes("b.txt").we_commit("a.txt").sync().says("diverged");
    let told = json(&s, &[]);
    assert_eq!(
        (&told["state"], &told["mode"], &told["force_push_pending"]),
        (&"diverged".into(), &"alpha".into(), &true.into())
    );
    s.run(&["status"]).exits(0);
    assert!(s.last().stdout.contains("pending: the next tick may overwrite"), "{}", s.last());
}

#[test]
fn rescues_are_listed() {
    let s = Scene::new();
    s.rival_pushes("b.txt").we_commit("a.txt");
    let ours = s.our_tip();
    s.sync().says("diverged");
    let told = json(&s, &[]);
    let kept = &told["rescue_refs"][0];
    assert_eq!((&kept["commit"], &kept["subject"]), (&ours.as_str().into(), &"ours: a.txt".into()));
    assert!(kept["age_seconds"].as_u64().unwrap() < 600, "{kept}");
    assert_eq!(kept["size_bytes"], s.git_ours(&["cat-file", "-s", &format!("{ours}:a.txt")]).parse::<u64>().unwrap());
    assert_eq!(kept["get_back"], format!("git cherry-pick HEAD..{}", s.rescues("local")[0]));
    s.run(&["status"]);
    for text in [s.rescues("local")[0].as_str(), "ago, 7 bytes: ours: a.txt", "git cherry-pick HEAD.."] {
        assert!(s.last().stdout.contains(text), "{text}\n{}", s.last());
    }
}

#[test]
fn one_subcommand_alone_is_shown_and_not_judged() {
    let s = Scene::new();
    s.run(&["status", "--of", "tick"]).exits(0).says("last tick       never");
    s.tick_with("exit 3").exits(1).run(&["status", "--of", "tick"]).exits(0);
    assert!(s.last().stdout.starts_with("last tick       ") && s.last().stdout.contains("(exit 1"), "{}", s.last());
    let told = json(&s, &["--of", "tick"]);
    assert_eq!(told["runs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["tick"]);
    assert_eq!(told["health"], Value::Null);
}

#[test]
fn it_names_the_pass_that_holds_the_lock_and_does_not_wait_for_it() {
    let s = Scene::new();
    let tick = s.start(&["tick", "--", "sh", "-c", "echo > ../began; while [ ! -e ../go ]; do sleep 0.05; done"]);
    until("the job runs", || s.root().join("began").exists());
    let told = json(&s, &[]);
    assert_eq!((&told["lock"]["command"], &told["lock"]["pid"]), (&"tick".into(), &tick.id().into()));
    s.run(&["status"]).exits(0);
    assert!(s.last().stdout.contains(&format!("held by gitsync tick (pid {}", tick.id())), "{}", s.last());
    // The pass under way is no fault: it began in good health.
    s.run(&["status", "--max-age", "5m"]).exits(0);
    fs::write(s.root().join("go"), "").unwrap();
    s.wait(tick).exits(0);
    assert_eq!(json(&s, &[])["lock"], Value::Null);
}

#[test]
fn healthy_after_start_up_alone_and_for_as_long_as_asked() {
    let s = Scene::new();
    // init-sync looked at the remote: good from the first moment.
    s.run(&["status", "--max-age", "2m"]).exits(0);
    let told = json(&s, &["--max-age", "2m"]);
    assert_eq!((&told["result"], &told["health"]["healthy"]), (&"ok".into(), &true.into()));
    // No tick has been.
    let told = json(&s, &["--max-age", "2m", "--of", "tick"]);
    s.exits(1);
    assert_eq!((&told["result"], &told["exit_code"]), (&"unhealthy".into(), &1.into()));
    s.tick().exits(0).run(&["status", "--max-age", "2m", "--of", "tick"]).exits(0);
    // A failed tick is not a good one, and does not take the good one away.
    s.tick_with("exit 3").exits(1).run(&["status", "--max-age", "2m", "--of", "tick"]).exits(0);
}

#[test]
fn passes_that_did_not_reach_the_remote_make_nobody_healthy() {
    let s = Scene::new();
    s.upstream_goes_away();
    let good = json(&s, &[])["last_good_sync"].clone();
    let age = |seconds: u64| format!("{seconds}s");
    // The record's times have whole milliseconds; two seconds on they differ.
    until("the clock goes on", || json(&s, &["--max-age", &age(1)])["health"]["healthy"] == false);
    s.sync().exits(75).run(&["status", "--max-age", "1s"]).exits(1);
    s.tick().exits(0).says("no-changes").run(&["status", "--max-age", "1s"]).exits(1);
    assert_eq!(json(&s, &[])["last_good_sync"], good);
    s.run(&["status", "--max-age", "1s"]);
    assert!(s.last().stdout.contains("health          bad: the last good sync is "), "{}", s.last());
    s.upstream_comes_back().tick().exits(0).run(&["status", "--max-age", "1m"]).exits(0);
    assert_ne!(json(&s, &[])["last_good_sync"], good);
}

#[test]
fn a_pass_that_a_signal_ended_is_the_last_run() {
    let s = Scene::new();
    s.tick().exits(0);
    let good = json(&s, &[])["runs"]["tick"]["last_good"].clone();
    let tick = s.start(&["tick", "--output", "json", "--", "sh", "-c", ": > ../up; exec sleep 1000"]);
    until("the job runs", || s.root().join("up").exists());
    rustix::process::kill_process(rustix::process::Pid::from_child(&tick), rustix::process::Signal::TERM).unwrap();
    s.wait(tick).exits(143);
    let ended = s.last().stdout;
    let told = json(&s, &[])["runs"]["tick"].clone();
    assert_eq!((&told["local"], &told["remote"]), (&s.our_tip().into(), &s.upstream_tip().into()), "{told}");
    let ended: Value = serde_json::from_str(&ended).unwrap();
    assert_eq!((&ended["state"], &ended["local"]), (&"up-to-date".into(), &told["local"]), "{ended}");
    assert_eq!(ended["remote"], told["remote"], "{ended}");
    assert_eq!((&told["result"], &told["exit_code"]), (&"error".into(), &143.into()), "{told}");
    assert_eq!(told["last_good"], good, "{told}");
    assert!(told["error"].as_str().unwrap().contains("SIGTERM"), "{told}");
}

#[test]
fn nothing_known_yet_is_said_so() {
    let s = Scene::without_ours();
    s.git_in(s.root(), &["clone", "-q", "upstream.git", "ours"]);
    s.run(&["status"]).exits(0);
    assert!(s.last().stdout.contains("last sync       never"), "{}", s.last());
    assert!(!s.private().exists(), "looking made something");
    s.run(&["status", "--max-age", "1h"]).exits(1);
    assert!(s.last().stdout.contains("bad: no good sync ever"), "{}", s.last());
}

#[test]
fn a_damaged_record_is_told_as_far_as_it_goes() {
    let s = Scene::new();
    s.sync().exits(0);
    let file = s.private().join("status.json");
    let record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let damages: [fn(&mut Value); 4] = [
        |record| record["runs"]["sync"]["duration_ms"] = 9_000_000_000_000_000_000_u64.into(),
        |record| record["runs"]["sync"]["duration_ms"] = u64::MAX.into(),
        |record| record["runs"]["sync"]["started"] = "+262000-01-01T00:00:00Z".into(),
        |record| record["runs"] = "no runs".into(),
    ];
    for damage in damages {
        let mut record = record.clone();
        damage(&mut record);
        std::fs::write(&file, record.to_string()).unwrap();
        s.run(&["status"]).exits(0);
        json(&s, &[]);
    }
    s.sync().exits(0).run(&["status", "--max-age", "1m"]).exits(0);
}

#[test]
fn an_unborn_branch_has_no_state() {
    let s = Scene::empty_upstream();
    s.init_sync().exits(0).says("empty-remote").run(&["status", "--max-age", "1h"]).exits(0);
    assert!(s.last().stdout.contains("no commit yet") && s.last().stdout.contains("unknown"), "{}", s.last());
}

#[test]
fn without_a_repository_it_says_what_to_do() {
    let s = Scene::without_ours();
    fs::create_dir(s.ours()).unwrap();
    s.run(&["status"]).exits(1).says("error").logs("is not a git repository");
    assert_eq!(json(&s, &[])["result"], "error");
    s.run(&["status", "--of", "tick"]).exits(1);
    s.run(&["status", "--max-age", "soon"]).exits(2);
}

#[test]
fn a_merge_in_the_way_is_told() {
    let s = Scene::new();
    fs::write(s.ours().join(".git/MERGE_HEAD"), format!("{}\n", s.our_tip())).unwrap();
    s.run(&["status"]).exits(0);
    assert!(s.last().stdout.contains("in the way      a merge is in progress"), "{}", s.last());
}

#[test]
fn its_help_says_what_healthy_means() {
    let s = Scene::without_ours();
    let text = s.run(&["status", "--help"]).exits(0).last().stdout;
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["Exit codes:", "Example", "--max-age", "--of", "--repo", "A good sync is", "unhealthy"] {
        assert!(flowing.contains(word), "not explained: {word}\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}
