//! What was rescued: how to get it back. When it is let go is in `clock.rs`.

use std::fs;
use std::process::Command;

use crate::scene::Scene;

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
