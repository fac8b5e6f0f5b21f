//! The `gitsync` program: read the command line, set up logs, run one pass, print the result, exit.
//!
//! Nothing else knows color-eyre or ends the process.

use std::ffi::OsString;
use std::io::Write;
use std::sync::Mutex;

use gitsync::cli::{self, Asked, Config, Output};
use gitsync::clock;
use gitsync::error::Error;
use gitsync::outcome::{Command, Outcome, Word};
use gitsync::process::job::signal_name;
use gitsync::process::programs;
use gitsync::watchdog;
use gitsync::watchdog::{End, Limit, PATIENCE, Watch};
use gitsync::{report, status, transport};

/// A pass goes as deep as the folders do. Where the stack that we were given (`ulimit -s`) is less than this, in bytes, a thread
/// with one of its own runs it: the answer to a stack that is too small would be SIGSEGV.
const SMALL_STACK: u64 = 4 << 20;

fn main() -> color_eyre::Result<()> {
    let given = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    if given.is_none_or(|given| given >= SMALL_STACK) {
        return run();
    }
    let runs = std::thread::Builder::new().name("gitsync".into()).stack_size(watchdog::PASS_STACK).spawn(run)?;
    runs.join().unwrap_or_else(|_| exit(101))
}

fn run() -> color_eyre::Result<()> {
    color_eyre::config::HookBuilder::default().display_env_section(false).install()?;
    // Only here and in cli.rs is the environment looked at.
    #[allow(clippy::disallowed_methods)]
    let env = |name: &str| std::env::var_os(name);
    let args: Vec<OsString> = std::env::args_os().collect();
    let read = cli::read(args.clone(), &env);
    // A URL with a token may stand where no argument belongs, and a token in a variable that is no switch: from here on they are
    // masked.
    let network = transport::Env::read(&env);
    transport::wipe_own_secrets();
    let (asked, settings) = match read {
        Ok(read) => read,
        Err(error) => {
            let text = error.to_string();
            let safe = String::from_utf8_lossy(&transport::redact::secrets(text.as_bytes())).into_owned();
            if safe == text {
                let _ = error.print();
            } else {
                eprintln_quietly(&safe);
            }
            if error.use_stderr() {
                let text = safe;
                let json = cli::wants_json(&args, &env);
                let line = if json { cli::usage_json(&text, clock::now()) } else { Word::Error.word().to_owned() };
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            exit(error.exit_code())
        }
    };
    let name = match &asked {
        Asked::Pass(command) => command.word(),
        Asked::Status(_) => "status",
    };
    let logs = report::log::begin(name, &settings).map_err(|error| {
        eprintln_quietly(&error);
        Error::usage(error, "mend RUST_LOG, or unset it and use -v")
    });
    let command = match asked {
        Asked::Pass(command) => command,
        Asked::Status(healthy) => {
            let (_watch, begun) = match watch_status(&settings) {
                Ok(watch) => (Some(watch), logs),
                Err(error) => (None, Err(unwatched(error))),
            };
            let told = status::tell(begun, healthy, &settings, clock::now());
            report::say(&told.lines(settings.output));
            exit(told.exit_code())
        }
    };
    if let Err(failure) = logs {
        let mut outcome = Outcome::new(command, clock::now());
        outcome.fail(failure);
        finish(&outcome, settings.output);
    }
    #[allow(clippy::disallowed_methods)]
    if let Some(unknown) = cli::unknown_variables(std::env::vars_os()) {
        tracing::warn!(next = "take it away, or give it the name of a variable in `gitsync --help`", "{unknown}");
    }
    let watch = match watch(command, &settings) {
        Ok(watch) => watch,
        Err(error) => {
            let mut outcome = Outcome::new(command, clock::now());
            outcome.fail(unwatched(error));
            finish(&outcome, settings.output)
        }
    };
    watch.guard_this_thread(PATIENCE);
    // What the transports started ends with us, whatever ends us. Nothing else here starts programs beside them.
    let _adopting = programs::adopt_orphans();
    let _children = watch.on_kill(Box::new(programs::kill_children));
    // Each wait has a limit of its own; this one is for what nobody thought of, such as a stderr that nobody reads.
    let _whole = watch.limit("its own end", clock::instant() + settings.longest());
    let outcome = gitsync::run::run(command, &settings, network, &watch);
    finish(&outcome, settings.output)
}

/// The watchdog: what it says when it ends the process is said as any pass says it.
fn watch(command: Command, settings: &Config) -> std::io::Result<Watch> {
    let output = settings.output;
    let (started, clock) = (clock::now(), clock::instant());
    Watch::start(move |end| {
        let mut outcome = Outcome::so_far(command, started);
        let code = match end {
            End::Signal(signal) => {
                let (what, next) =
                    (format!("asked to end by {}", signal_name(signal)), "the next pass goes on from here");
                tracing::warn!(next, "{what}");
                outcome.failures.push(Error::retry(what, next));
                Some(128 + signal)
            }
            End::Stalled { step } => {
                outcome.fail(stalled(&step));
                None
            }
            End::Overstayed { waiting_for } => {
                let what = format!("the time of the pass was up while waiting for {waiting_for}");
                outcome.fail(Error::retry(what, "the next pass tries again; raise --network-timeout if it is slow"));
                None
            }
        };
        outcome.ended_by = code;
        outcome.duration_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        gitsync::run::record_end(&outcome);
        finish(&outcome, output)
    })
}

/// Without the watchdog nothing would keep to its limits.
fn unwatched(error: std::io::Error) -> Error {
    let next = "allow it more threads or file descriptors (`ulimit -u`, `ulimit -n`); the next pass tries again";
    Error::retry(format!("the watchdog can't be started: {error}"), next)
}

/// The health check has nobody to wait for either.
fn watch_status(settings: &Config) -> std::io::Result<Limit> {
    let settings = settings.clone();
    let watch = Watch::start(move |end| {
        let (failure, code) = match end {
            End::Signal(signal) => {
                let what = format!("asked to end by {}", signal_name(signal));
                (Error::retry(what, "run it again"), 128 + signal)
            }
            End::Stalled { step } => (stalled(&step), 75),
            End::Overstayed { waiting_for } => {
                let what = format!("the time of the look at the repository was up while waiting for {waiting_for}");
                (Error::retry(what, "see whether the disk answers"), 75)
            }
        };
        let told = status::tell(Err(failure), None, &settings, clock::now());
        report::say(&told.lines(settings.output));
        exit(code)
    })?;
    watch.guard_this_thread(PATIENCE);
    // A disk that does not answer is no stall.
    Ok(watch.limit_exactly("the disk", clock::instant() + 5 * PATIENCE))
}

fn stalled(step: &str) -> Error {
    Error::retry(
        format!("no progress for {} while {step}", humantime::format_duration(PATIENCE)),
        "see whether a FIFO, a socket or a dead mount stands where git looks for a file; the next pass goes on from here",
    )
}

/// Prints the result and ends the process; once, whoever comes first.
fn finish(outcome: &Outcome, output: Output) -> ! {
    static ONCE: Mutex<()> = Mutex::new(());
    let _only = ONCE.lock();
    report::print(outcome, output);
    exit(outcome.exit_code())
}

fn eprintln_quietly(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[allow(clippy::disallowed_methods)]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}
