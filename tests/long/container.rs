//! What the container runs, run here: the entry point, the crontab under supercronic, supervisord.conf under supervisord.
//!
//! Only the cadence is another one, by the variables that a user would set.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::scene::{Scene, until};
use needs::needs;
use rustix::process::{Pid, Signal, kill_process};

/// What compose.yaml and the docs give a container to stop in.
const GRACE: Duration = Duration::from_secs(30);

/// Appends a line to state/log; while the file `hold` is there it goes on until it is asked to end, and with the file
/// `stubborn` it does not listen.
const JOB: &str = "echo line $$ >> state/log
if [ -e ../stubborn ]; then trap '' TERM; fi
if [ -e ../hold ]; then echo $$ > ../held; while [ -e ../hold ]; do sleep 0.1; done; fi";

const BUILD: &str = "mkdir -p {public_dir} && cp index.html {public_dir}/index.html";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A scene with a container's environment around it.
struct Container {
    scene: Scene,
    started: Cell<u32>,
}

impl Container {
    fn new() -> Self {
        let scene = Scene::without_ours();
        fs::create_dir(scene.root().join("tmp")).unwrap();
        Self { scene, started: Cell::new(0) }
    }

    fn entrypoint(&self, args: &[&str]) -> Command {
        let mut command = self.scene.isolated(shipped("entrypoint.sh"));
        let ours = Path::new(env!("CARGO_BIN_EXE_gitsync")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        command
            .args(args)
            .env("PATH", format!("{}:{path}", ours.display()))
            .env("TMPDIR", self.scene.root().join("tmp"))
            .env("GIT_SYNC_REPO", self.scene.ours())
            .env("GIT_SYNC_REMOTE_URL", self.scene.upstream())
            .env("GIT_SYNC_PUBLIC_DIR", self.scene.public())
            .env("GIT_SYNC_TICK_COMMAND", JOB)
            .env("GIT_SYNC_BUILD_COMMAND", BUILD)
            .env("GIT_SYNC_SYNC_INTERVAL", "1")
            .env("GIT_SYNC_TICK_INTERVAL", "2")
            .stdin(Stdio::null());
        command
    }

    /// Starts the container; what it says goes to a file, as a container's log does.
    fn start(&self, command: &mut Command) -> Started<'_> {
        self.started.set(self.started.get() + 1);
        let log = self.scene.root().join(format!("log.{}", self.started.get()));
        let file = File::options().append(true).create(true).open(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Started { container: self, child, log }
    }

    /// Every process that belongs to this container: its environment says so. As (pid, name).
    fn running(&self) -> Vec<(i32, String)> {
        let mark = self.scene.ours();
        let mark = mark.as_os_str().as_encoded_bytes();
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            if environment.windows(mark.len()).any(|part| part == mark) {
                let name = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                all.push((pid, String::from_utf8_lossy(&name).replace('\0', " ")));
            }
        }
        all
    }

    fn kill_all(&self) {
        for (pid, _) in self.running() {
            send(pid, Signal::KILL);
        }
    }

    fn ticks_upstream(&self) -> u32 {
        let out = self.scene.git_upstream(&["rev-list", "--count", "--grep=^chore(state): tick at", "main"]);
        out.parse().unwrap()
    }

    /// Waits for so many more ticks to arrive upstream.
    fn ticks_arrive(&self, count: u32) {
        let wanted = self.ticks_upstream() + count;
        until("ticks arrive upstream", || self.ticks_upstream() >= wanted);
    }

    /// A rival's push of a page, again and again where a tick was faster.
    fn rival_publishes(&self, text: &str) {
        let (scene, rival) = (&self.scene, self.scene.rival());
        until("the rival's push is accepted", || {
            scene.git_in(&rival, &["fetch", "-q"]);
            scene.git_in(&rival, &["reset", "-q", "--hard", "origin/main"]);
            scene.rival_writes("index.html", text).rival_commits("rival: page");
            scene.git_command(&rival).args(["push", "-q", "origin", "main"]).output().unwrap().status.success()
        });
    }

    /// A tick is in its job, and stays there until [`Container::let_go`].
    fn hold_a_tick(&self) -> String {
        let (hold, held) = (self.scene.root().join("hold"), self.scene.root().join("held"));
        let _ = fs::remove_file(&held);
        fs::write(hold, "").unwrap();
        until("a tick is in its job", || fs::read_to_string(&held).is_ok_and(|text| text.ends_with('\n')));
        format!("line {}", fs::read_to_string(held).unwrap().trim())
    }

    fn let_go(&self) {
        fs::remove_file(self.scene.root().join("hold")).unwrap();
    }

    /// The line that a job wrote is in the work tree, upstream or in a rescue.
    fn is_kept(&self, line: &str) {
        let has = |text: &str| text.lines().any(|found| found == line);
        let in_rescue = || {
            let names = self.scene.git_ours(&["for-each-ref", "--format=%(refname)", "refs/gitsync/rescue"]);
            names.lines().any(|name| has(&self.show(&self.scene.ours(), name)))
        };
        let there = has(&fs::read_to_string(self.scene.ours().join("state/log")).unwrap_or_default())
            || has(&self.show(&self.scene.upstream(), "main"))
            || in_rescue();
        assert!(there, "'{line}' is lost");
    }

    fn show(&self, dir: &Path, name: &str) -> String {
        let out = self.scene.git_command(dir).args(["show", &format!("{name}:state/log")]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill_all();
    }
}

struct Started<'a> {
    container: &'a Container,
    child: Child,
    log: PathBuf,
}

impl Started<'_> {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Asks it to end as `docker stop` does, and holds it to the grace. Nothing may be left.
    #[track_caller]
    fn stops_within_the_grace(&mut self) -> ExitStatus {
        send(i32::try_from(self.child.id()).unwrap(), Signal::TERM);
        let asked = Instant::now();
        let status = self.ends();
        assert!(asked.elapsed() < GRACE, "took {:?}", asked.elapsed());
        // What the container's end would kill without asking.
        let left = self.container.running();
        // The one that hands the log on ends with what wrote it.
        let left: Vec<_> = left.into_iter().filter(|(_, command)| !command.starts_with("cat ")).collect();
        assert!(left.is_empty(), "left running: {left:?}\n{}", self.log());
        status
    }

    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("the container ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The scheduler's process.
    fn scheduler(&self, name: &str) -> i32 {
        let mut found = None;
        until("the scheduler runs", || {
            // Its first words: the entry point has the name among its arguments, too.
            found = self.container.running().into_iter().find(|(_, command)| {
                let mut words = command.split(' ').map(|word| word.rsplit('/').next().unwrap_or_default());
                let first = words.next().unwrap_or_default();
                first == name || (first.starts_with("python") && words.next() == Some(name))
            });
            found.is_some()
        });
        found.unwrap().0
    }
}

fn send(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

// ---- the schedulers

fn keeps_both_sides_together(scheduler: &str) {
    let c = Container::new();
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    started.scheduler(scheduler);
    c.ticks_arrive(2);
    c.rival_publishes("the rival's page\n");
    let has = |path: PathBuf| fs::read_to_string(path).is_ok_and(|text| text == "the rival's page\n");
    until("the rival's push is in the work tree", || has(c.scene.ours().join("index.html")));
    until("the rival's push is published", || has(c.scene.public().join("index.html")));
    c.ticks_arrive(2);
    // Syncs of their own come between the ticks.
    let sync_began = || {
        let record = fs::read_to_string(c.scene.private().join("status.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
        record["runs"]["sync"]["started"].clone()
    };
    for _ in 0..3 {
        let before = sync_began();
        until("a sync comes", || sync_began() != before);
    }
    let healthy = c.entrypoint(&["gitsync", "status", "--max-age", "1m"]).output().unwrap();
    assert!(healthy.status.success(), "{healthy:?}");
    started.stops_within_the_grace();
    c.scene.fsck();
}

fn a_signal_in_the_middle_of_a_tick_loses_nothing(scheduler: &str) {
    let c = Container::new();
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    started.scheduler(scheduler);
    c.ticks_arrive(1);
    let line = c.hold_a_tick();
    started.stops_within_the_grace();
    c.is_kept(&line);
    c.scene.fsck();
    // The next start goes on.
    c.let_go();
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    c.ticks_arrive(2);
    c.is_kept(&line);
    started.stops_within_the_grace();
    c.scene.fsck();
}

/// The job is killed when its time to end is up, and all of it is within the grace.
fn a_job_that_does_not_listen_is_ended_too(scheduler: &str) {
    let c = Container::new();
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    started.scheduler(scheduler);
    c.ticks_arrive(1);
    fs::write(c.scene.root().join("stubborn"), "").unwrap();
    let line = c.hold_a_tick();
    started.stops_within_the_grace();
    c.is_kept(&line);
    c.scene.fsck();
}

fn a_killed_scheduler_is_started_again(scheduler: &str) {
    let c = Container::new();
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    let pid = started.scheduler(scheduler);
    c.ticks_arrive(1);
    // The scheduler alone, and no container around it: the tick it started lives on, and holds the lock.
    let line = c.hold_a_tick();
    send(pid, Signal::KILL);
    let status = started.ends();
    assert!(status.signal() == Some(9) || status.code() == Some(137), "{status:?}");
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    c.let_go();
    c.ticks_arrive(2);
    c.is_kept(&line);
    // Everything at once, as when a container is killed.
    let line = c.hold_a_tick();
    c.kill_all();
    started.ends();
    until("all is gone", || c.running().is_empty());
    c.is_kept(&line);
    c.let_go();
    let mut started = c.start(&mut c.entrypoint(&[scheduler]));
    c.ticks_arrive(2);
    c.is_kept(&line);
    started.stops_within_the_grace();
    c.scene.fsck();
}

#[needs(supercronic)]
#[test]
fn supercronic_keeps_both_sides_together() {
    keeps_both_sides_together("supercronic");
}

#[needs(supervisord)]
#[test]
fn supervisord_keeps_both_sides_together() {
    keeps_both_sides_together("supervisord");
}

#[needs(supercronic)]
#[test]
fn supercronic_in_the_middle_of_a_tick() {
    a_signal_in_the_middle_of_a_tick_loses_nothing("supercronic");
}

#[needs(supervisord)]
#[test]
fn supervisord_in_the_middle_of_a_tick() {
    a_signal_in_the_middle_of_a_tick_loses_nothing("supervisord");
}

#[needs(supercronic)]
#[test]
fn supercronic_and_a_stubborn_job() {
    a_job_that_does_not_listen_is_ended_too("supercronic");
}

#[needs(supervisord)]
#[test]
fn supervisord_and_a_stubborn_job() {
    a_job_that_does_not_listen_is_ended_too("supervisord");
}

#[needs(supercronic)]
#[test]
fn supercronic_killed() {
    a_killed_scheduler_is_started_again("supercronic");
}

#[needs(supervisord)]
#[test]
fn supervisord_killed() {
    a_killed_scheduler_is_started_again("supervisord");
}

#[needs(supervisord)]
#[test]
fn supervisord_where_stdout_can_not_be_opened_by_name() {
    let c = Container::new();
    // As under journald.
    let (theirs, ours) = UnixStream::pair().unwrap();
    let mut command = c.entrypoint(&["supervisord"]);
    let theirs = OwnedFd::from(theirs);
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let child = command.spawn().unwrap();
    drop(command);
    let mut started = Started { container: &c, child, log: PathBuf::from("/dev/null") };
    let said = std::thread::spawn(move || BufReader::new(ours).lines().map_while(Result::ok).collect::<Vec<_>>());
    c.ticks_arrive(3);
    started.stops_within_the_grace();
    let said = said.join().unwrap();
    assert!(said.iter().any(|line| line.contains("chore(state): tick at")), "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("/dev/fd")), "{said:#?}");
}

// ---- the files as they are shipped

#[needs(supercronic)]
#[test]
fn supercronic_takes_the_crontab() {
    takes(&shipped("crontab"));
}

#[track_caller]
fn takes(crontab: &Path) {
    let out = Command::new("supercronic").arg("-test").arg(crontab).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The lines of a crontab as (seven fields, command).
fn lines(crontab: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(crontab).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[..7].join(" "), words[7..].join(" "))
        })
        .collect()
}

#[test]
fn the_crontab_has_the_cadence_of_the_specification_and_no_secret() {
    let shipped = lines(&shipped("crontab"));
    let words: Vec<_> = shipped.iter().map(|(fields, command)| (fields.as_str(), command.as_str())).collect();
    assert_eq!(words, [("*/30 * * * * * *", "gitsync sync >/dev/null"), ("15 */15 * * * * *", "gitsync tick")]);
}

/// Docker fills an empty volume from whichever image is mounted on it first or last, owner and all.
#[test]
fn nothing_but_gitsync_fills_the_public_volume() {
    if shipped("compose.yaml").exists() {
        let text = fs::read_to_string(shipped("compose.yaml")).unwrap();
        let mounts = text.lines().map(str::trim).filter_map(|line| line.strip_prefix("- public:"));
        assert_eq!(mounts.collect::<Vec<_>>(), ["/public", "/usr/share/nginx/html:ro,nocopy"]);
    }
}

#[needs(shellcheck)]
#[test]
fn the_shell_scripts_are_clean() {
    for script in ["entrypoint.sh", ".ci/install.sh", "tests/image.sh", "tests/bare.sh", "tests/mutants.sh"] {
        // Some of these are no part of a published package.
        if shipped(script).exists() {
            let out = Command::new("shellcheck").arg(shipped(script)).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        }
    }
}

// ---- the entry point

/// Runs the start to its end, which it must have by itself.
#[needs(systemd-analyze)]
#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(shipped("docs/examples/systemd")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        // The program is looked for where the units say, and the tests don't install it.
        let text = fs::read_to_string(entry.path()).unwrap().replace("/usr/local/bin/gitsync", "/bin/true");
        let unit = folder.path().join(&name);
        fs::write(&unit, text).unwrap();
        if name.ends_with(".service") || name.ends_with(".timer") {
            units.push(unit);
        }
    }
    assert_eq!(units.len(), 5);
    let out = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    // What it finds strange it says, and ends well all the same.
    assert!(out.status.success() && !said.contains("gitsync"), "{said}");
}

/// cargo reads the whole manifest before it builds anything, and wants to see the files that it names.
#[test]
fn the_image_copies_all_that_a_build_needs() {
    let dockerfile = fs::read_to_string(shipped("Dockerfile")).unwrap();
    let (_, stage) = dockerfile.split_once(" AS build\n").unwrap();
    let (stage, _) = stage.split_once("\nFROM ").unwrap();
    let ignored = fs::read_to_string(shipped(".dockerignore")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for line in stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let (from, to) = line.rsplit_once(' ').unwrap();
        for name in from.split(' ') {
            assert!(
                ignored.lines().any(|line| line == format!("!{name}")),
                ".dockerignore keeps {name} from the builder"
            );
            let to = folder.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let done = Command::new("cp").arg("-r").arg(shipped(name)).arg(to).status().unwrap();
            assert!(done.success(), "{name}");
        }
    }
    assert!(folder.path().join("src/main.rs").exists() && folder.path().join("Cargo.lock").exists(), "{stage}");
    // A program that there is not: all is looked at, and nothing is built.
    let out = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--offline", "--bin", "no-such-program"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("no bin target named `no-such-program`"), "{said}");
}

fn ends_by_itself(c: &Container, command: &mut Command) -> (i32, String) {
    let mut started = c.start(command);
    let status = started.ends();
    (status.code().unwrap(), started.log())
}

#[test]
fn an_interval_that_cannot_be_stops_the_start() {
    for scheduler in ["supercronic", "supervisord"] {
        for name in ["GIT_SYNC_SYNC_INTERVAL", "GIT_SYNC_TICK_INTERVAL"] {
            for bad in ["0", "-5", "soon", "30s", "1.5", "030", " 30", "123456789", "30; touch x", "*"] {
                let c = Container::new();
                let (code, log) = ends_by_itself(&c, c.entrypoint(&[scheduler]).env(name, bad));
                assert_eq!(code, 2, "{name}={bad}: {log}");
                assert!(log.contains(&format!("{name} is '{bad}': set it to whole seconds")), "{log}");
                assert!(!c.scene.ours().exists(), "it began all the same");
            }
        }
    }
}

#[test]
fn an_interval_that_a_crontab_cannot_keep_stops_the_start() {
    for name in ["GIT_SYNC_SYNC_INTERVAL", "GIT_SYNC_TICK_INTERVAL"] {
        for bad in ["7", "45", "59", "61", "90", "420", "3601", "5400", "18000", "172800"] {
            let c = Container::new();
            let (code, log) = ends_by_itself(&c, c.entrypoint(&[]).env(name, bad));
            assert_eq!(code, 2, "{log}");
            assert!(log.contains(&format!("{name} is '{bad}'")) && log.contains("supervisord"), "{log}");
        }
    }
}

#[needs(supercronic)]
#[test]
fn other_intervals_become_a_crontab() {
    for (seconds, sync, tick) in [
        ("1", "* * * * * * *", "* * * * * * *"),
        ("2", "*/2 * * * * * *", "1-59/2 * * * * * *"),
        ("5", "*/5 * * * * * *", "*/5 * * * * * *"),
        ("30", "*/30 * * * * * *", "15-59/30 * * * * * *"),
        ("60", "0 * * * * * *", "15 * * * * * *"),
        ("120", "0 */2 * * * * *", "15 */2 * * * * *"),
        ("900", "0 */15 * * * * *", "15 */15 * * * * *"),
        ("3600", "0 0 * * * * *", "15 0 * * * * *"),
        ("7200", "0 0 */2 * * * *", "15 0 */2 * * * *"),
        ("86400", "0 0 0 * * * *", "15 0 0 * * * *"),
    ] {
        let c = Container::new();
        // Without a remote the start ends right after the crontab is written.
        let mut command = c.entrypoint(&[]);
        command.env("GIT_SYNC_SYNC_INTERVAL", seconds).env("GIT_SYNC_TICK_INTERVAL", seconds);
        let (code, log) = ends_by_itself(&c, command.env_remove("GIT_SYNC_REMOTE_URL"));
        assert_eq!(code, 2, "{log}");
        let made = fs::read_dir(c.scene.root().join("tmp")).unwrap().next().unwrap().unwrap().path().join("crontab");
        let words = lines(&made);
        assert_eq!((words[0].0.as_str(), words[1].0.as_str()), (sync, tick), "every {seconds} s");
        assert_eq!((words[0].1.as_str(), words[1].1.as_str()), ("gitsync sync >/dev/null", "gitsync tick"));
        takes(&made);
    }
}

#[test]
fn no_place_for_a_crontab_is_said() {
    let c = Container::new();
    let (code, log) = ends_by_itself(&c, c.entrypoint(&[]).env("TMPDIR", c.scene.root().join("nowhere")));
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("set TMPDIR"), "{log}");
}

#[needs(supercronic)]
#[test]
fn an_offline_start_is_a_warning() {
    let c = Container::new();
    let (code, log) = ends_by_itself(&c, &mut c.entrypoint(&["gitsync", "init-sync"]));
    assert_eq!(code, 0, "{log}");
    c.scene.upstream_goes_away();
    let mut started = c.start(&mut c.entrypoint(&[]));
    started.scheduler("supercronic");
    assert!(started.log().contains("started all the same"), "{}", started.log());
    // The job runs all the same; what it makes arrives when the remote is back.
    until("a tick commits", || c.scene.our_tip() != c.scene.rev(&c.scene.ours(), "refs/remotes/origin/main"));
    c.scene.upstream_comes_back();
    c.ticks_arrive(1);
    started.stops_within_the_grace();
}

#[needs(supercronic)]
#[test]
fn a_first_start_before_the_network_is_up_catches_up() {
    let c = Container::new();
    c.scene.upstream_goes_away();
    let mut started = c.start(&mut c.entrypoint(&[]));
    started.scheduler("supercronic");
    c.scene.upstream_comes_back();
    c.ticks_arrive(1);
    c.scene.our_file("index.html", "page 2\n");
    started.stops_within_the_grace();
}

#[test]
fn a_refused_token_stops_the_start_and_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/you/state.git", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let c = Container::new();
    let (code, log) = ends_by_itself(
        &c,
        c.entrypoint(&[]).env("GIT_SYNC_REMOTE_URL", url).env("GIT_SYNC_TOKEN", "token-that-nobody-may-see"),
    );
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("not started: gitsync init-sync failed (exit 1)"), "{log}");
    assert!(!log.contains("token-that-nobody-may-see"), "{log}");
}

#[test]
fn no_remote_at_all_stops_the_start() {
    let c = Container::new();
    let (code, log) = ends_by_itself(&c, c.entrypoint(&[]).env_remove("GIT_SYNC_REMOTE_URL"));
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("GITHUB_REPOSITORY") && log.contains("not started"), "{log}");
}

#[needs(supercronic)]
#[test]
fn a_failed_first_tick_is_a_warning() {
    let c = Container::new();
    let mut started = c.start(c.entrypoint(&[]).env("GIT_SYNC_TICK_COMMAND", "exit 3"));
    started.scheduler("supercronic");
    assert!(started.log().contains("the first tick failed (exit 1)"), "{}", started.log());
    started.stops_within_the_grace();
}

#[test]
fn a_signal_during_the_start_ends_it() {
    let c = Container::new();
    fs::write(c.scene.root().join("hold"), "").unwrap();
    let mut started = c.start(&mut c.entrypoint(&[]));
    let line = c.hold_a_tick();
    let status = started.stops_within_the_grace();
    assert_eq!(status.code(), Some(143), "{}", started.log());
    c.is_kept(&line);
}

#[test]
fn another_command_is_run_as_it_is() {
    let c = Container::new();
    let (code, log) = ends_by_itself(&c, &mut c.entrypoint(&["gitsync", "--version"]));
    assert_eq!((code, log), (0, format!("gitsync {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, _) = ends_by_itself(&c, &mut c.entrypoint(&["sh", "-c", "exit 7"]));
    assert_eq!(code, 7);
    assert!(!c.scene.ours().exists());
}
