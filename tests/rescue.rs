//! What was rescued: how to get it back, and when it is let go.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod scene;

use std::fs;
use std::process::Command;

use scene::Scene;

/// The commands that the last run's log gives for getting work back.
fn ways_back(s: &Scene) -> Vec<String> {
    let json = s.last().stderr;
    let lines = json.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let field = |line: serde_json::Value| {
        let places = [&line["get_back"], &line["fields"]["get_back"]];
        places.into_iter().find_map(|text| text.as_str().map(str::to_owned))
    };
    lines.filter_map(field).collect()
}

/// The log names the reference and the commands; those commands, as they stand, bring the work back.
#[test]
fn what_the_log_says_gets_the_work_back() {
    let s = Scene::new();
    s.rival_pushes("index.html");
    s.we_commit("state/own");
    let own = s.our_tip();
    s.we_write("index.html", "mine, uncommitted\n");
    s.run(&["sync", "--log-format", "json"]).exits(0).says("diverged").ours_equals_upstream();
    let ways = ways_back(&s);
    assert_eq!(ways.len(), 2, "{}", s.last());
    let run = |command: &str| {
        let mut shell = Command::new("sh");
        let git = s.git_command(&s.ours());
        for (name, value) in git.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let out = shell.current_dir(s.ours()).args(["-c", command]).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let log = ways.iter().find(|way| way.starts_with("git log ")).unwrap();
    assert!(run(log).contains(&own), "{log}");
    let checkout = ways.iter().find(|way| way.contains("git checkout ")).unwrap();
    assert!(run(&checkout.replace("PATH", "index.html")).contains("index.html"), "{checkout}");
    s.our_file("index.html", "mine, uncommitted\n");
    for name in s.rescues("") {
        assert!(ways.iter().any(|way| way.contains(&name)), "{name} is not in {ways:?}");
    }
}

/// A rescue is kept as long as was asked for, by the time in its name, and then let go; what is no rescue of ours stays.
#[test]
#[allow(clippy::disallowed_methods)]
fn rescues_are_let_go_when_they_were_kept_long_enough() {
    let s = Scene::new();
    let tip = s.our_tip();
    let days_ago = |days: i64| (chrono::Utc::now() - chrono::Duration::days(days)).format("%Y%m%dT%H%M%SZ").to_string();
    let name = |days: i64| format!("refs/gitsync/rescue/{}-local-{}", days_ago(days), &tip[..7]);
    let (old, packed, young) = (name(91), name(400), name(89));
    let strange = "refs/gitsync/rescue/by-hand".to_owned();
    for name in [&old, &packed, &young, &strange] {
        s.git_ours(&["update-ref", name, &tip]);
    }
    s.git_ours(&["pack-refs", "--all"]);
    s.git_ours(&["update-ref", &old, &s.rev(&s.ours(), "HEAD~1")]);
    let kept = |names: &[&String]| {
        let mut names: Vec<String> = names.iter().map(|name| (*name).clone()).collect();
        names.sort();
        assert_eq!(s.rescues(""), names, "{}", s.last());
    };
    // Neither a dry run nor a poll lets go of anything.
    s.run(&["tick", "--dry-run", "--", "true"]).exits(0);
    s.sync().exits(0);
    kept(&[&old, &packed, &young, &strange]);
    s.run(&["tick", "--keep-rescues", "500d", "--", "true"]).exits(0);
    kept(&[&old, &packed, &young, &strange]);
    s.tick().exits(0).logs("let go of a rescue");
    kept(&[&young, &strange]);
    s.run(&["tick", "--keep-rescues", "80d", "--", "true"]).exits(0);
    kept(&[&strange]);
    s.fsck();
}

/// What a fetch left that was killed, and no `git gc` removes, goes at start-up.
#[test]
fn leftovers_of_fetches_go_at_start_up() {
    let s = Scene::new();
    let pack = s.ours().join(".git/objects/pack");
    for name in ["pack_git2_1234", "pack_git2_1234.idx.lock"] {
        fs::write(pack.join(name), "half").unwrap();
    }
    s.init_sync().exits(0);
    let left: Vec<_> = fs::read_dir(&pack).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("_git2_")), "{left:?}");
}
