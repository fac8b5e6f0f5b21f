//! A job with real processes: it hangs, forks, ignores signals, prints for ever, and nothing of it is left afterwards.
//!
//! What a test starts carries a word of its own in its environment, and what is left is looked for by that word in `/proc`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]
#![cfg(target_os = "linux")]

mod logged;
mod signals;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gitsync::error::{Error, Kind};
use gitsync::process::job::{Ended, Job, Program, end_orphans_within, run};
use gitsync::watchdog::{End, Watch};
use logged::Log;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Long enough for anything that should happen, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Jobs of one process run one at a time, and whatever else it starts meanwhile would be taken for a job's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Bench {
    dir: TempDir,
    watch: Watch,
    word: String,
    log: Log,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Bench {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let alone = alone();
        let word = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let watch = Watch::start(|end| panic!("the watch wants to end the tests: {end:?}")).unwrap();
        Bench { dir: TempDir::new().unwrap(), watch, word, log: Log::new(), _alone: alone }
    }

    fn job(&self, script: &str) -> Job<'_> {
        let mut job =
            Job::new("job", Program::Shell(script.to_owned()), self.dir.path(), PATIENCE, self.dir.path(), &self.watch);
        job.grace = Duration::from_millis(300);
        job.env.push(("TEST_WORD".into(), self.word.clone().into()));
        job
    }

    fn run(&self, job: &Job<'_>) -> Result<Ended, Error> {
        let ended = self.log.during(|| run(job));
        assert_eq!(with_word(&self.word), Vec::<i32>::new(), "left running after {ended:?}");
        assert_eq!(our_zombies(), Vec::<i32>::new(), "not reaped");
        ended
    }

    fn runs(&self, script: &str) -> Ended {
        self.run(&self.job(script)).unwrap()
    }
}

/// The living processes with this word in their environment or their name.
fn with_word(word: &str) -> Vec<i32> {
    let wanted = format!("TEST_WORD={word}");
    processes()
        .into_iter()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            [environment, arguments].iter().any(|text| text.windows(wanted.len()).any(|at| at == wanted.as_bytes()))
        })
        .filter(|pid| *pid != i32::try_from(std::process::id()).unwrap())
        .collect()
}

fn our_zombies() -> Vec<i32> {
    let us = format!(" Z {} ", std::process::id());
    processes()
        .into_iter()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(&us))
        .collect()
}

fn processes() -> Vec<i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn what_a_job_gets_and_what_comes_of_it() {
    let bench = Bench::new();
    let mut job = bench.job("pwd; echo \"$GIVEN\" >&2; echo \"${PATH:-no path}\"; cat; exit 7");
    job.env.push(("GIVEN".into(), "this".into()));
    job.env_remove.push("PATH".into());
    job.program = Program::Argv(
        ["/bin/sh", "-c", "pwd; echo \"$GIVEN\" >&2; echo \"${PATH_GIVEN:-none}\"; /bin/cat; printf end; exit 7"]
            .map(Into::into)
            .to_vec(),
    );
    job.env.push(("PATH_GIVEN".into(), "yes".into()));
    assert_eq!(bench.run(&job).unwrap(), Ended::Exited(7));
    let dir = bench.dir.path().canonicalize().unwrap();
    assert_eq!(bench.log.of_stream("stdout"), [dir.to_str().unwrap(), "yes", "end"]);
    assert_eq!(bench.log.of_stream("stderr"), ["this"]);
    assert!(bench.log.lines().iter().all(|line| line.from == "job"));
}

#[test]
fn a_removed_variable_does_not_reach_the_job() {
    let bench = Bench::new();
    let mut job = bench.job("echo \"${HOME-none}\"");
    job.env_remove.push("HOME".into());
    assert_eq!(bench.run(&job).unwrap(), Ended::Exited(0));
    assert_eq!(bench.log.output(), ["none"]);
}

#[test]
fn output_comes_while_the_job_runs() {
    let bench = Bench::new();
    let answer = bench.dir.path().join("answer");
    let seen = answer.clone();
    let log = Log::shown_to(move |line| {
        if line.text == "ready" {
            fs::write(&seen, "go").unwrap();
        }
    });
    let job = bench.job("echo ready; until test -e answer; do sleep 0.01; done");
    assert_eq!(log.during(|| run(&job)).unwrap(), Ended::Exited(0));
    assert!(answer.exists());
}

#[test]
fn a_job_that_dies_by_a_signal_says_which() {
    let bench = Bench::new();
    assert_eq!(bench.runs("kill -SEGV $$"), Ended::Signalled(11));
    assert_eq!(bench.runs("kill -KILL $$").to_string(), "was ended by SIGKILL");
}

#[test]
fn a_job_out_of_time_is_asked_and_may_tidy_up() {
    let bench = Bench::new();
    let mut job = bench.job("trap 'echo tidy; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    job.timeout = Duration::from_millis(300);
    job.grace = PATIENCE;
    assert_eq!(bench.run(&job).unwrap(), Ended::TimedOut { after: job.timeout });
    // What the shell says of the child that was ended comes on the other stream.
    assert_eq!(bench.log.of_stream("stdout"), ["up", "tidy"]);
    assert!(bench.log.warnings().is_empty());
}

#[test]
fn a_job_that_ignores_sigterm_is_killed() {
    let bench = Bench::new();
    let mut job = bench.job("trap '' TERM INT HUP; (trap '' TERM; sleep 1000) & while :; do sleep 1000; done");
    job.timeout = Duration::from_millis(200);
    let start = Instant::now();
    assert_eq!(bench.run(&job).unwrap(), Ended::TimedOut { after: job.timeout });
    assert!(start.elapsed() >= Duration::from_millis(500), "no grace was given");
}

#[test]
fn a_stopped_job_is_ended_too() {
    let bench = Bench::new();
    let mut job = bench.job("kill -STOP $$");
    job.timeout = Duration::from_millis(200);
    job.grace = PATIENCE;
    assert_eq!(bench.run(&job).unwrap(), Ended::TimedOut { after: job.timeout });
}

#[test]
fn a_grandchild_that_left_the_session_and_holds_the_pipe_is_not_waited_for_and_not_left() {
    let bench = Bench::new();
    assert_eq!(bench.runs("setsid sleep 1000 & echo done"), Ended::Exited(0));
    assert_eq!(bench.log.output(), ["done"]);
    let warnings = bench.log.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("sleep (pid "), "{warnings:?}");
}

#[test]
fn a_daemon_that_closed_everything_and_forgot_its_environment_is_ended() {
    let bench = Bench::new();
    let daemon = format!(
        "env -i setsid sh -c 'trap \"\" TERM; exec </dev/null >/dev/null 2>&1 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; \
         echo $$ >daemon; while :; do /bin/sleep 1000; done; : TEST_WORD={}' & until test -s daemon; do sleep 0.01; done",
        bench.word
    );
    assert_eq!(bench.runs(&format!("{daemon}; exit 3")), Ended::Exited(3));
    fs::remove_file(bench.dir.path().join("daemon")).unwrap();
    let mut job = bench.job(&format!("{daemon}; sleep 1000"));
    job.timeout = Duration::from_secs(1);
    assert_eq!(bench.run(&job).unwrap(), Ended::TimedOut { after: job.timeout });
}

#[test]
fn a_job_that_forks_sessions_for_ever_is_overtaken() {
    let bench = Bench::new();
    let mut job = bench.job("trap '' TERM; while :; do setsid sh -c 'trap \"\" TERM; sleep 1000' & sleep 0.005; done");
    job.timeout = Duration::from_millis(500);
    assert_eq!(bench.run(&job).unwrap(), Ended::TimedOut { after: job.timeout });
}

#[test]
fn the_far_end_of_a_pipeline_may_finish() {
    let bench = Bench::new();
    assert_eq!(bench.runs("(sleep 0.1; echo late) & echo early"), Ended::Exited(0));
    assert_eq!(bench.log.output(), ["early", "late"]);
    assert!(bench.log.warnings().is_empty(), "{:?}", bench.log.warnings());
}

#[test]
fn a_hundred_megabytes_grow_no_memory() {
    let bench = Bench::new();
    let (lines, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, sum) = (Arc::clone(&lines), Arc::clone(&bytes));
    let log = Log::shown_to(move |line| {
        count.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(line.text.len() + 1, Ordering::Relaxed);
    });
    let before = peak_memory_kb();
    let line = "0123456789".repeat(10);
    let job = bench.job("yes \"$LINE\" | head -n 1000000");
    let job = Job { env: [job.env.clone(), vec![("LINE".into(), line.into())]].concat(), ..job };
    assert_eq!(log.during(|| run(&job)).unwrap(), Ended::Exited(0));
    assert_eq!(lines.load(Ordering::Relaxed), 1_000_000);
    assert_eq!(bytes.load(Ordering::Relaxed), 101_000_000);
    let after = peak_memory_kb();
    assert!(after < before + 16 * 1024, "grew from {before} kB to {after} kB");
}

fn peak_memory_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_job_that_never_stops_printing_is_still_ended_in_time() {
    let bench = Bench::new();
    let mut job = bench.job("trap '' TERM; setsid yes & yes");
    job.timeout = Duration::from_millis(300);
    let log = Log::shown_to(|_| ());
    let start = Instant::now();
    assert_eq!(log.during(|| run(&job)).unwrap(), Ended::TimedOut { after: job.timeout });
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert_eq!(with_word(&bench.word), Vec::<i32>::new());
}

#[test]
fn odd_lines_do_no_harm() {
    let bench = Bench::new();
    let script =
        r"head -c 1048576 /dev/zero | tr '\0' x; echo; printf 'bad \377 byte\r\n\n\033[2Jclear\a\n'; printf last";
    assert_eq!(bench.runs(script), Ended::Exited(0));
    let output = bench.log.output();
    let (long, rest) = output.split_at(output.len() - 4);
    assert!(long.iter().all(|piece| piece.len() <= 8192 && piece.bytes().all(|byte| byte == b'x')));
    assert_eq!(long.iter().map(String::len).sum::<usize>(), 1_048_576);
    assert_eq!(rest, ["bad \u{fffd} byte", "", "\\u{1b}[2Jclear\\u{7}", "last"]);
}

#[test]
fn what_is_secret_is_taken_out_of_the_lines() {
    let bench = Bench::new();
    let redact = |line: &str| line.replace("hunter2", "***");
    let mut job = bench.job("echo password hunter2");
    job.redact = Some(&redact);
    bench.run(&job).unwrap();
    assert_eq!(bench.log.output(), ["password ***"]);
}

#[test]
fn what_cannot_be_started_is_said_with_the_next_step() {
    let bench = Bench::new();
    let says = |program: Program| {
        let job = Job { program, ..bench.job("") };
        let error = bench.run(&job).unwrap_err();
        assert_eq!(error.kind, Kind::Person, "{error}");
        error.to_string()
    };
    assert!(says(Program::Shell("  ".into())).contains("the job command is empty"));
    assert!(says(Program::Argv(vec![])).contains("the job command is empty"));
    assert!(says(Program::Argv(vec!["".into()])).contains("the job command is empty"));
    let missing = says(Program::Argv(vec!["no-such-program".into()]));
    assert!(missing.contains("no program `no-such-program` was found"), "{missing}");
    fs::write(bench.dir.path().join("plain"), "text").unwrap();
    let plain = says(Program::Argv(vec!["./plain".into()]));
    assert!(plain.contains("chmod +x ./plain"), "{plain}");
    fs::write(bench.dir.path().join("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(bench.dir.path().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = says(Program::Argv(vec!["./script".into()]));
    let path = bench.dir.path().join("script").display().to_string();
    assert!(script.contains(&format!("the interpreter of {path} was not found (#!/no/such/interpreter)")), "{script}");
    let line = says(Program::Argv(vec!["echo hi > x".into()]));
    assert!(line.contains("no program `echo hi > x`") && line.contains("--tick-command"), "{line}");
    let absent = says(Program::Argv(vec!["./job.sh".into()]));
    let (path, from) = (bench.dir.path().join("job.sh").display().to_string(), bench.dir.path().display().to_string());
    assert!(absent.contains(&format!("there is no {path}")), "{absent}");
    assert!(absent.contains(&format!("relative to the repository, {from}")), "{absent}");
    let job = Job { dir: Path::new("/no/such/folder"), ..bench.job("true") };
    let folder = bench.run(&job).unwrap_err().to_string();
    assert!(folder.contains("/no/such/folder does not exist"), "{folder}");
    // And a lock that was taken for one that did not start is free again.
    assert_eq!(bench.runs("true"), Ended::Exited(0));
}

#[test]
fn a_clean_end_leaves_nothing_to_look_for() {
    let bench = Bench::new();
    bench.runs("true");
    assert_eq!(fs::read(bench.dir.path().join("job.lock")).unwrap(), b"");
    assert_eq!(end_orphans_within(bench.dir.path(), Instant::now(), PATIENCE).unwrap(), Vec::<u32>::new());
    let mode = fs::metadata(bench.dir.path().join("job.lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

// ---- processes that are ended or killed themselves: this program again, in a role ----

/// Plays a role when started as a child of a test; as a test of its own it does nothing.
#[test]
fn role() {
    let Ok(role) = std::env::var("TEST_ROLE") else { return };
    let dir = std::env::current_dir().unwrap();
    let told = |end: &End| fs::write("end", format!("{end:?}")).unwrap();
    match role.as_str() {
        "run a job" | "run a job after a signal" => {
            let late = role == "run a job after a signal";
            let watch = Watch::start_with(Duration::from_millis(500), move |end| {
                told(&end);
                if late {
                    // The time in which a job could be started all the same.
                    std::thread::sleep(Duration::from_millis(500));
                }
                std::process::exit(77)
            })
            .unwrap();
            if late {
                kill_process(rustix::process::getpid(), Signal::TERM).unwrap();
                wait_until("the signal has come", || watch.asked_to_end().is_some());
            }
            let script = std::env::var("TEST_SCRIPT").unwrap();
            let mut job = Job::new("job", Program::Shell(script), &dir, PATIENCE, &dir, &watch);
            job.grace = Duration::from_millis(300);
            let log = Log::shown_to(|line| {
                if line.text == "block" {
                    std::thread::sleep(PATIENCE)
                }
            });
            if let Ok(timeout) = std::env::var("TEST_TIMEOUT_MS") {
                job.timeout = Duration::from_millis(timeout.parse().unwrap());
            }
            let ended = log.during(|| run(&job));
            fs::write("returned", format!("{ended:?}")).unwrap();
        }
        "overstay" => {
            let watch = Watch::start_with(Duration::from_millis(100), move |end| {
                assert!(Path::new("killed").exists(), "the children must go first");
                told(&end);
                std::process::exit(77)
            })
            .unwrap();
            let _kill = watch.on_kill(Box::new(|| fs::write("killed", "").unwrap()));
            drop(watch.limit("what came to its end", Instant::now() + Duration::from_millis(1)));
            let _limit = watch.limit("the fetch from origin", Instant::now() + Duration::from_millis(100));
            let _far = watch.limit("a later step", Instant::now() + PATIENCE);
            std::thread::sleep(PATIENCE);
        }
        "hang at the end" => {
            let watch = Watch::start_with(Duration::ZERO, |_| std::thread::sleep(PATIENCE)).unwrap();
            let _limit = watch.limit("nothing", Instant::now());
            std::thread::sleep(PATIENCE);
        }
        "wait for a signal" => {
            let watch = Watch::start(move |end| {
                told(&end);
                std::process::exit(77)
            })
            .unwrap();
            assert_eq!(watch.asked_to_end(), None);
            fs::write("ready", "").unwrap();
            wait_until("hangup was ignored or the process ended", || Path::new("go-on").exists());
            fs::write("returned", format!("{:?}", watch.asked_to_end())).unwrap();
        }
        other => panic!("unknown role {other}"),
    }
}

struct Role {
    dir: TempDir,
    word: String,
    child: std::process::Child,
    _alone: MutexGuard<'static, ()>,
}

fn role_command(role: &str, dir: &Path) -> Command {
    signals::are_heard_by_children();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "role", "--nocapture"]).env("TEST_ROLE", role).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command
}

impl Role {
    fn plays(role: &str, environment: &[(&str, &str)]) -> Role {
        let alone = alone();
        let dir = TempDir::new().unwrap();
        let word = format!("role-{}", dir.path().file_name().unwrap().display());
        let child =
            role_command(role, dir.path()).envs(environment.iter().copied()).env("TEST_WORD", &word).spawn().unwrap();
        Role { dir, word, child, _alone: alone }
    }

    fn waits_for(&self, file: &str) -> String {
        wait_until(file, || fs::metadata(self.dir.path().join(file)).is_ok_and(|it| it.len() > 0));
        self.read(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    fn gets(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ends(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        for pid in with_word(&self.word) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn sigterm_ends_the_job_and_then_us() {
    let script = "trap 'echo tidy >>said; exit 0' TERM; setsid sleep 1000 & echo up >up; while :; do sleep 0.01; done";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    us.waits_for("up");
    us.gets(Signal::TERM);
    assert_eq!(us.ends().code(), Some(77));
    assert_eq!(us.read("end"), "Signal(15)");
    assert_eq!(us.read("said"), "tidy\n");
    assert_eq!(us.read("returned"), "", "the pass must not go on after the job was stopped");
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn sigint_kills_a_job_that_ignores_it() {
    let script = "trap '' TERM INT; setsid sh -c 'trap \"\" TERM; sleep 1000' & echo up >up; while :; do sleep 1; done";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    us.waits_for("up");
    us.gets(Signal::INT);
    assert_eq!(us.ends().code(), Some(77));
    assert_eq!(us.read("end"), "Signal(2)");
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn nothing_is_started_once_we_were_asked_to_end() {
    let mut us = Role::plays("run a job after a signal", &[("TEST_SCRIPT", "echo started >started")]);
    assert_eq!(us.ends().code(), Some(77));
    assert_eq!((us.read("end").as_str(), us.read("started").as_str()), ("Signal(15)", ""));
}

#[test]
fn a_signal_at_any_moment_around_the_start_leaves_nothing() {
    for microseconds in (0..30_000).step_by(1500) {
        let mut us = Role::plays("run a job", &[("TEST_SCRIPT", "setsid sleep 1000 & sleep 1000")]);
        std::thread::sleep(Duration::from_micros(microseconds));
        us.gets(Signal::TERM);
        let status = us.ends();
        assert!(status.code() == Some(77) || status.signal() == Some(15), "{status:?}");
        assert_eq!(with_word(&us.word), Vec::<i32>::new(), "after {microseconds} µs");
    }
}

#[test]
fn a_stderr_nobody_reads_does_not_keep_the_job_alive() {
    let script = "echo block; setsid sleep 1000 & sleep 1000";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script), ("TEST_TIMEOUT_MS", "300")]);
    assert_eq!(us.ends().code(), Some(77));
    assert_eq!(us.read("end"), "Overstayed { waiting_for: \"the job\" }");
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn an_overstayed_limit_ends_the_process_children_first() {
    let mut us = Role::plays("overstay", &[]);
    assert_eq!(us.ends().code(), Some(77));
    assert_eq!(us.read("end"), "Overstayed { waiting_for: \"the fetch from origin\" }");
}

#[test]
fn last_words_that_hang_are_cut_short() {
    let mut us = Role::plays("hang at the end", &[]);
    assert_eq!(us.ends().signal(), Some(9));
}

#[test]
fn a_signal_with_no_job_ends_us_at_once() {
    let mut us = Role::plays("wait for a signal", &[]);
    wait_until("ready", || us.dir.path().join("ready").exists());
    us.gets(Signal::HUP);
    assert_eq!(us.ends().code(), Some(77));
    assert_eq!(us.read("end"), "Signal(1)");
}

#[test]
fn a_hangup_that_was_ignored_from_the_start_stays_ignored() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let role = role_command("wait for a signal", dir.path());
    let mut command = Command::new("nohup");
    command.arg(role.get_program()).args(role.get_args()).env("TEST_ROLE", "wait for a signal");
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_until("ready", || dir.path().join("ready").exists());
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    fs::write(dir.path().join("go-on"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("returned")).unwrap(), "None");
}

// ---- jobs whose gitsync was killed ----

fn end_orphans_of(us: &Role, grace: Duration) -> Result<Vec<u32>, Error> {
    end_orphans_within(us.dir.path(), Instant::now() + PATIENCE, grace)
}

#[test]
fn the_job_of_a_killed_gitsync_is_found_and_ended() {
    // Nobody reads the pipe any more: what is printed into it would end the job by SIGPIPE.
    let script = "exec >/dev/null 2>&1; trap 'echo tidy >said; exit' TERM; echo $$ >up; while :; do sleep 0.01; done";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    let job: u32 = us.waits_for("up").trim().parse().unwrap();
    us.gets(Signal::KILL);
    us.ends();
    assert!(!with_word(&us.word).is_empty(), "the test's ground: the job outlives its gitsync");
    assert!(end_orphans_of(&us, PATIENCE).unwrap().contains(&job));
    assert_eq!(us.read("said"), "tidy\n");
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
    assert_eq!(end_orphans_of(&us, PATIENCE).unwrap(), Vec::<u32>::new());
}

#[test]
fn an_orphan_is_asked_once_and_let_tidy_up_with_programs_of_its_own() {
    // Long enough to be looked at many times while it does so.
    let script = "exec >/dev/null 2>&1; trap 'sh -c \"sleep 0.5 && echo tidy >said\"; exit' TERM; echo $$ >up; \
                  while :; do sleep 0.01; done";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    let job: u32 = us.waits_for("up").trim().parse().unwrap();
    us.gets(Signal::KILL);
    us.ends();
    assert!(end_orphans_of(&us, PATIENCE).unwrap().contains(&job));
    assert_eq!(us.read("said"), "tidy\n");
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn an_orphan_that_ignores_sigterm_is_killed() {
    let script = "trap '' TERM; echo $$ >up; while :; do sleep 1000; done";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    us.waits_for("up");
    us.gets(Signal::KILL);
    us.ends();
    end_orphans_of(&us, Duration::from_millis(200)).unwrap();
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn an_orphan_that_closed_what_it_inherited_is_found_by_its_mark() {
    let script = "setsid bash -c 'for fd in /proc/self/fd/*; do fd=${fd##*/}; test $fd -gt 2 && eval \"exec $fd<&-\"; done; \
                  echo $$ >up; while :; do sleep 1000; done' & sleep 1000";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    let orphan: u32 = us.waits_for("up").trim().parse().unwrap();
    us.gets(Signal::KILL);
    us.ends();
    // The command itself goes, and with it the lock.
    for pid in with_word(&us.word).into_iter().filter(|pid| u32::try_from(*pid).unwrap() != orphan) {
        let parent = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if !parent.contains(&format!(" {orphan} ")) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
    assert!(end_orphans_of(&us, Duration::from_millis(200)).unwrap().contains(&orphan));
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn an_orphan_that_forgot_its_environment_is_found_by_the_lock() {
    let script = "exec env -i /bin/sh -c 'echo $$ >up; while :; do /bin/sleep 1000; done' TEST_WORD=$TEST_WORD";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    let orphan: u32 = us.waits_for("up").trim().parse().unwrap();
    us.gets(Signal::KILL);
    us.ends();
    assert!(end_orphans_of(&us, Duration::from_millis(200)).unwrap().contains(&orphan));
    assert_eq!(with_word(&us.word), Vec::<i32>::new());
}

#[test]
fn a_reader_of_the_lock_file_is_not_taken_for_an_orphan() {
    let script = "echo $$ >up; while :; do sleep 1000; done";
    let mut us = Role::plays("run a job", &[("TEST_SCRIPT", script)]);
    us.waits_for("up");
    let mut backup =
        Command::new("tail").args(["-f", "job.lock"]).current_dir(us.dir.path()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("tail has it open", || {
        fs::read_dir(format!("/proc/{}/fd", backup.id())).is_ok_and(|mut fds| {
            fds.any(|fd| fs::read_link(fd.unwrap().path()).is_ok_and(|to| to.ends_with("job.lock")))
        })
    });
    us.gets(Signal::KILL);
    us.ends();
    let ended = end_orphans_of(&us, PATIENCE).unwrap();
    assert!(!ended.contains(&backup.id()));
    assert!(backup.try_wait().unwrap().is_none(), "the reader was ended");
    backup.kill().unwrap();
    backup.wait().unwrap();
}

#[test]
fn an_orphan_out_of_sight_is_waited_for() {
    let bench = Bench::new();
    let path = bench.dir.path();
    // Held by this very process, which is never looked at: as a holder in another container is not.
    let held = fs::File::create(path.join("job.lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let error = end_orphans_within(path, Instant::now() + Duration::from_millis(200), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind, Kind::Busy, "{error}");
    let seen_none =
        "a job that an earlier gitsync started still runs out of sight, in another container or as another user";
    assert_eq!(error.what, seen_none);
    assert!(error.next.contains(&path.join("job.lock").display().to_string()), "{error}");
    let refused = run(&bench.job("true")).unwrap_err();
    assert_eq!((refused.kind, refused.what.as_str()), (Kind::Busy, seen_none));

    let freed = Arc::new(AtomicBool::new(false));
    let freeing = Arc::clone(&freed);
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        freeing.store(true, Ordering::SeqCst);
        drop(held);
    });
    end_orphans_within(path, Instant::now() + PATIENCE, Duration::ZERO).unwrap();
    assert!(freed.load(Ordering::SeqCst));
    holder.join().unwrap();
}
