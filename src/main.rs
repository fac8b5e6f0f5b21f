//! The `gitsync` program: it reads the command line, sets up logging, runs one pass, prints the result and exits.
//!
//! No other file uses color-eyre or ends the process.

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
use gitsync::{remote, report, status};

/// A pass recurses as deep as the folders are nested. If the stack limit (`ulimit -s`) is less than this, in bytes, the pass runs in
/// a thread with a larger stack: overflowing a small one would end in SIGSEGV.
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
    // The environment is read only here and in cli.rs.
    #[allow(clippy::disallowed_methods)]
    let env = |name: &str| std::env::var_os(name);
    let args: Vec<OsString> = std::env::args_os().collect();
    let read = cli::read(args.clone(), &env);
    // An error about the command line may quote a URL with a token, or a variable's value that is a token: from here on they are
    // masked.
    let network = remote::Env::read(&env);
    remote::wipe_own_secrets();
    let (asked, settings) = match read {
        Ok(read) => read,
        Err(error) => {
            let text = error.to_string();
            let safe = String::from_utf8_lossy(&remote::redact::secrets(text.as_bytes())).into_owned();
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
        Error::usage(error, "correct RUST_LOG, or unset it and use -v")
    });
    let command = match asked {
        Asked::Pass(command) => command,
        Asked::Status(healthy) => {
            let (_watch, started) = match watch_status(&settings) {
                Ok(watch) => (Some(watch), logs),
                Err(error) => (None, Err(unwatched(error))),
            };
            let status = status::look(started, healthy, &settings, clock::now());
            report::print_line(&status.lines(settings.output));
            exit(status.exit_code())
        }
    };
    if let Err(failure) = logs {
        let mut outcome = Outcome::new(command, clock::now());
        outcome.fail(failure);
        finish(&outcome, settings.output);
    }
    #[allow(clippy::disallowed_methods)]
    if let Some(unknown) = cli::unknown_variables(std::env::vars_os()) {
        tracing::warn!(next = "unset it, or correct its name; `gitsync --help` lists the variables", "{unknown}");
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
    // Programs that the transports started end with this process, however it ends. Nothing else starts programs at the same time.
    let _adopting = programs::adopt_orphans();
    let _children = watch.on_kill(Box::new(programs::kill_children));
    // Each wait has a limit of its own. This one is for unforeseen ones, such as a stderr that nobody reads.
    let _whole = watch.limit("its own end", clock::instant() + settings.longest());
    let outcome = gitsync::run::run(command, &settings, network, &watch);
    finish(&outcome, settings.output)
}

/// Starts the watchdog. When it ends the process, it reports that like the outcome of any pass.
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

/// The error for a watchdog that can't be started. Without it, nothing would enforce the limits.
fn unwatched(error: std::io::Error) -> Error {
    let next = "allow it more threads or file descriptors (`ulimit -u`, `ulimit -n`); the next pass tries again";
    Error::retry(format!("the watchdog can't be started: {error}"), next)
}

/// Starts the watchdog for `status`: a health check must not hang either.
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
                let what = format!("the time for reading the repository was up while waiting for {waiting_for}");
                (Error::retry(what, "check whether the disk responds"), 75)
            }
        };
        let status = status::look(Err(failure), None, &settings, clock::now());
        report::print_line(&status.lines(settings.output));
        exit(code)
    })?;
    watch.guard_this_thread(PATIENCE);
    // A disk that does not respond does not count as a stall, so it needs this limit.
    Ok(watch.limit_exactly("the disk", clock::instant() + 5 * PATIENCE))
}

fn stalled(step: &str) -> Error {
    Error::retry(
        format!("no progress for {} while {step}", humantime::format_duration(PATIENCE)),
        "check whether there is a FIFO, a socket or a dead mount where git expects a file; the next pass goes on from here",
    )
}

/// Prints the result and ends the process. Only the first caller does so.
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
