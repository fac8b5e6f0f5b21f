//! What a pass tells a GitHub Actions step, and what it tells Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::scene::{Scene, until};

// ---- a workflow

/// Lines that the runner would take for a command.
fn commands(s: &Scene) -> Vec<String> {
    s.last().stderr.lines().filter(|line| line.trim_start().starts_with("::")).map(str::to_owned).collect()
}

#[test]
fn a_failure_is_an_annotation_of_the_step() {
    for by in [&["--log-format", "github"][..], &[]] {
        let s = Scene::new();
        if by.is_empty() {
            s.env("GITHUB_ACTIONS", "true");
        }
        let mut tick = vec!["tick"];
        tick.extend(by);
        tick.extend(["--", "sh", "-c", "echo working; exit 3"]);
        s.run(&tick).exits(1).says("no-changes");
        let told = commands(&s);
        assert_eq!(told.len(), 1, "{}", s.last());
        assert!(told[0].starts_with("::error title=gitsync::the job exited with status 3 next="), "{told:?}");
        assert!(s.last().stderr.lines().any(|line| line.starts_with("job: working")), "{}", s.last());
    }
}

#[test]
fn what_costs_somebody_work_is_a_warning_and_what_was_done_a_plain_line() {
    let s = Scene::new();
    s.arg("--log-format=github").we_commit("mine").rival_pushes("theirs");
    s.sync().exits(0).says("diverged");
    let told = commands(&s);
    assert!(told.iter().all(|line| line.starts_with("::warning title=gitsync::")), "{told:?}");
    assert!(told.iter().any(|line| line.contains("rescue=refs/gitsync/rescue/")), "{told:?}");
    assert!(s.last().stderr.lines().any(|line| line.starts_with("gitsync: followed the remote")), "{}", s.last());
    s.arg("-v").sync().exits(0).says("up-to-date");
    assert!(commands(&s).iter().any(|line| line.starts_with("::debug::up to date")), "{}", s.last());
}

#[test]
fn neither_a_job_nor_a_server_can_give_the_runner_commands() {
    let s = Scene::new();
    s.env("GITHUB_ACTIONS", "true");
    s.upstream_hook("pre-receive", "echo '::set-env name=PATH::/evil'; echo '##[error]evil'; exit 1");
    let job = "printf '::add-path::/evil\\n  ::error::evil\\n##[error]evil\\n'; echo 1 > state/new";
    s.tick_with(job).exits(1).says("push-failed");
    let stderr = s.last().stderr;
    assert!(!stderr.contains("##["), "{stderr}");
    let told = commands(&s);
    assert!(
        !told.is_empty() && told.iter().all(|line| line.starts_with("::error title=gitsync::push failed")),
        "{told:?}"
    );
    assert!(stderr.contains("job: ::add-path::/evil"), "{stderr}");
}

#[test]
fn text_stays_text_outside_of_a_workflow() {
    let s = Scene::new();
    s.env("GITHUB_ACTIONS", "false").tick_with("exit 3").exits(1);
    assert!(commands(&s).is_empty() && s.last().stderr.contains("ERROR"), "{}", s.last());
    s.env("GITHUB_ACTIONS", "true").arg("--log-format=text").tick_with("exit 3").exits(1);
    assert!(commands(&s).is_empty() && s.last().stderr.contains("ERROR"), "{}", s.last());
}

// ---- Prometheus

fn told_to(s: &Scene) -> PathBuf {
    s.root().join("gitsync.prom")
}

/// Reads the file by the rules of the text format: each sample belongs to the family announced last, no sample comes twice.
fn metrics(s: &Scene) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(told_to(s)).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    let mut family = String::new();
    let mut families = Vec::new();
    let mut all = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&family), "{family} comes twice");
            families.push(family.clone());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap();
            assert_eq!(name, family, "{line}");
            let labels = labels.strip_suffix('}').unwrap();
            let ours = format!("repository=\"{}\",branch=\"main\"", s.ours().canonicalize().unwrap().display());
            let own = labels.strip_prefix(&ours).unwrap_or_else(|| panic!("{line}")).trim_start_matches(',');
            let before = all.insert(format!("{name}{{{own}}}"), value.parse().unwrap());
            assert_eq!(before, None, "{line}");
        }
    }
    all
}

#[test]
fn the_file_tells_where_the_instance_stands_and_what_its_passes_did() {
    let s = Scene::new();
    s.env("GIT_SYNC_METRICS_FILE", told_to(&s).to_str().unwrap());
    s.sync().exits(0).says("up-to-date").sync().exits(0);
    let told = metrics(&s);
    assert_eq!(told[r#"gitsync_passes_total{command="sync",result="up-to-date"}"#], 2.0);
    assert_eq!(told[r#"gitsync_passes_total{command="init-sync",result="cloned"}"#], 1.0);
    assert_eq!(told[r#"gitsync_state{state="up-to-date"}"#], 1.0);
    assert_eq!((told["gitsync_alpha{}"], told["gitsync_force_push_pending{}"]), (0.0, 0.0));
    assert_eq!(told[r#"gitsync_last_pass_exit_code{command="sync"}"#], 0.0);
    let good = told["gitsync_last_good_sync_timestamp_seconds{}"];
    assert!(good > 1.7e9);

    // A tick that can't push: its commit waits, and the file says so.
    s.upstream_hook("pre-receive", "exit 1").tick_with("echo 1 > state/new").exits(1).says("push-failed");
    let told = metrics(&s);
    assert_eq!(told[r#"gitsync_passes_total{command="tick",result="push-failed"}"#], 1.0);
    assert_eq!(told[r#"gitsync_last_pass_exit_code{command="tick"}"#], 1.0);
    assert!(!told.contains_key(r#"gitsync_last_success_timestamp_seconds{command="tick"}"#));
    assert_eq!((told["gitsync_ahead_commits{}"], told["gitsync_behind_commits{}"]), (1.0, 0.0));
    assert_eq!(told[r#"gitsync_state{state="ahead"}"#], 1.0);
    assert_eq!(told[r#"gitsync_state{state="up-to-date"}"#], 0.0);

    // Alpha and a rival: the marker, then a rescue.
    fs::remove_file(s.upstream().join("hooks/pre-receive")).unwrap();
    s.alpha().rival_pushes("theirs").sync().exits(0).says("diverged");
    let told = metrics(&s);
    assert_eq!((told["gitsync_alpha{}"], told["gitsync_force_push_pending{}"]), (1.0, 1.0));
    assert_eq!(told[r#"gitsync_state{state="diverged"}"#], 1.0);
    s.tick().exits(0).says("pushed");
    let told = metrics(&s);
    assert_eq!((told["gitsync_force_push_pending{}"], told["gitsync_rescue_refs{}"]), (0.0, 1.0));
    assert!(told.contains_key(r#"gitsync_last_success_timestamp_seconds{command="tick"}"#));

    // The page has each of them, and no other.
    let page = include_str!("../../docs/usage.md");
    let in_docs: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `gitsync_")?.split('`').next()).collect();
    let written: BTreeSet<&str> =
        told.keys().filter_map(|sample| sample.strip_prefix("gitsync_")?.split('{').next()).collect();
    assert_eq!(in_docs, written);
}

#[test]
fn the_file_is_replaced_whole_and_read_by_all() {
    let s = Scene::new();
    // A link in its place is replaced, not followed.
    fs::write(s.root().join("elsewhere"), "precious\n").unwrap();
    std::os::unix::fs::symlink("elsewhere", told_to(&s)).unwrap();
    let gitsync = s.gitsync(&["sync", "--metrics-file", told_to(&s).to_str().unwrap()]);
    let mut under_a_umask = s.isolated("sh");
    under_a_umask.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(gitsync.get_program()).args(gitsync.get_args());
    under_a_umask.env("GIT_SYNC_REPO", s.ours());
    let out = under_a_umask.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let meta = told_to(&s).symlink_metadata().unwrap();
    assert!(meta.is_file());
    assert_eq!(meta.permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_to_string(s.root().join("elsewhere")).unwrap(), "precious\n");
    let names: Vec<_> = fs::read_dir(s.root()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
}

#[test]
fn a_place_that_can_not_be_is_refused_before_anything_is_done() {
    let s = Scene::new();
    let tip = s.rival_pushes("theirs").our_tip();
    for place in [s.root().join("no/such/folder/x.prom"), s.root().to_owned()] {
        s.run(&["sync", "--metrics-file", place.to_str().unwrap()]).exits(2).says("error").logs("--metrics-file");
    }
    assert_eq!(s.our_tip(), tip);
}

/// As root a rename would make a file of /dev/null.
#[test]
fn a_metrics_file_takes_the_place_of_no_device() {
    let s = Scene::new();
    let [pipe, link, stdout] = ["pipe", "link", "stdout"].map(|name| s.root().join(name));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    std::os::unix::fs::symlink("/proc/self/fd/1", &stdout).unwrap();
    for place in [&pipe, &link, &stdout] {
        let before = place.symlink_metadata().unwrap().file_type();
        s.run(&["sync", "--metrics-file", place.to_str().unwrap()]).exits(2).says("error").logs("special file");
        assert_eq!(place.symlink_metadata().unwrap().file_type(), before, "{}", place.display());
    }
}

#[test]
fn a_file_that_can_not_be_written_costs_no_pass() {
    let s = Scene::new();
    let folder = s.root().join("metrics");
    fs::create_dir(&folder).unwrap();
    // Where a file should be made there is a folder with something in it.
    fs::create_dir_all(folder.join(".x.prom.gitsync/in-the-way")).unwrap();
    s.rival_pushes("theirs");
    s.run(&["sync", "--metrics-file", folder.join("x.prom").to_str().unwrap()]).exits(0).says("behind");
    s.ours_equals_upstream().logs("could not be written");
}

#[test]
fn a_pass_that_waits_or_only_looks_tells_nothing() {
    let s = Scene::new();
    let file = told_to(&s).display().to_string();
    s.run(&["sync", "--dry-run", "--metrics-file", &file]).exits(0);
    assert!(!told_to(&s).exists());
    let holding = s.start(&["tick", "--", "sh", "-c", "echo > ../up; while [ ! -e ../go-on ]; do sleep 0.01; done"]);
    until("the job runs", || s.root().join("up").exists());
    s.run(&["sync", "--lock-wait", "1ms", "--metrics-file", &file]).exits(75);
    assert!(!told_to(&s).exists());
    fs::write(s.root().join("go-on"), "").unwrap();
    s.wait(holding).exits(0);
}
