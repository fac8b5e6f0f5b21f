//! What each line of the log carries, in every format.

use serde_json::Value;

use crate::scene::Scene;

const BOTH: [&str; 4] = ["--", "sh", "-c", "echo good; echo bad >&2"];

fn said(s: &Scene, format: &str) -> String {
    let args = ["tick", "-v", "--log-format", format];
    s.run(&[&args[..], &BOTH[..]].concat()).exits(0).last().stderr
}

#[test]
fn every_line_names_the_command_and_the_repository() {
    let s = Scene::new();
    let repo = s.ours().canonicalize().unwrap();
    let end = format!(" command=\"tick\" repo={repo:?}");
    for format in ["text", "github"] {
        for line in said(&s, format).lines() {
            assert!(line.ends_with(&end), "{format}: {line}");
        }
    }
    for line in said(&s, "json").lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["command"], &event["repo"]), (&"tick".into(), &repo.to_str().into()), "{line}");
        assert!(event["message"].is_string(), "{line}");
    }
}

#[test]
fn the_jobs_two_streams_are_told_apart() {
    let s = Scene::new();
    let text = said(&s, "json");
    let events = || text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    for (message, stream) in [("good", "stdout"), ("bad", "stderr")] {
        let event = events().find(|event| event["message"] == message).unwrap();
        assert_eq!((&event["from"], &event["stream"]), (&"job".into(), &stream.into()));
    }
    for format in ["text", "github"] {
        let text = said(&s, format);
        let line = text.lines().find(|line| line.contains("bad")).unwrap();
        assert!(line.contains("stream=\"stderr\""), "{line}");
    }
}

#[test]
fn a_failed_job_that_changed_nothing_is_said() {
    let s = Scene::new();
    s.tick_with("exit 3").exits(1).logs("the job failed and changed nothing under --path").logs_not("no state changes");
    s.tick_with("true").exits(0).logs("no state changes");
}
