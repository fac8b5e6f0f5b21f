//! Flags and environment → [`Settings`]. Nothing else in the program reads either.
//!
//! A flag wins over its environment variable; a variable that is set to nothing counts as unset, because that is what
//! `${NAME:-}` in a compose file makes of one that nobody filled in.

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::policy::Mode;
use crate::transport::TokenHost;

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One word.
    Text,
    /// One JSON object.
    Json,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `github` in a GitHub Actions step (GITHUB_ACTIONS=true), else `text`.
    Auto,
    /// A line an event, for people.
    Text,
    /// An object an event, for programs.
    Json,
    /// Errors and warnings as annotations of a GitHub Actions step.
    Github,
}

/// How the site gets into the public dir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Publish {
    /// Built aside, then exchanged as a whole, or file by file inside a mounted volume.
    Whole,
    /// Built aside, then file by file even where it could be exchanged: for a folder that others have mounted or entered.
    Files,
    /// Built in the public dir itself: for builds that need their old output.
    InPlace,
}

/// What happens when the histories part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDivergence {
    /// The mode decides which side wins.
    Policy,
    /// Our unpushed commits are replayed on the remote's, if it only moved forward; on a conflict the mode decides.
    Rebase,
}

/// Everything that the command line and the environment say, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The repository as given; `None`: found from the current folder.
    pub repo: Option<PathBuf>,
    /// Name of the remote.
    pub remote: String,
    /// Name of the branch, without `refs/heads/`.
    pub branch: String,
    /// The remote's URL as given or built from `GITHUB_REPOSITORY` (init-sync); for the other passes, which use no more of it
    /// than a secret in it, the environment's.
    pub remote_url: Option<String>,
    /// Which side is dominant.
    pub mode: Mode,
    /// What happens when the histories part.
    pub on_divergence: OnDivergence,
    /// How long a rescue is kept.
    pub keep_rescues: Duration,
    /// Whether to say what the pass would do, and do nothing.
    pub dry_run: bool,
    /// Where the site is published.
    pub public_dir: Option<PathBuf>,
    /// How the site gets there.
    pub publish: Publish,
    /// The job's command string.
    pub tick_command: String,
    /// The job as a program and its arguments, where given after `--`.
    pub tick_argv: Vec<OsString>,
    /// The build's command string; `None`: no site is built.
    pub build_command: Option<String>,
    /// What a tick commits, relative to the repository, without trailing slash.
    pub paths: Vec<PathBuf>,
    /// The commit message, `{time}` standing for the time.
    pub message: String,
    /// How long to wait for the lock.
    pub lock_wait: Duration,
    /// How long a pass may spend on the network in all.
    pub network_timeout: Duration,
    /// How long the job may take.
    pub job_timeout: Duration,
    /// How long the build may take.
    pub build_timeout: Duration,
    /// A file whose content is the token.
    pub token_file: Option<PathBuf>,
    /// The host that a token is for, where it is named.
    pub token_host: Option<TokenHost>,
    /// Whether a secret may go over plain http to another host than this one.
    pub allow_insecure_http: bool,
    /// The largest file that a tick commits, in bytes.
    pub max_file_size: u64,
    /// How the result is printed.
    pub output: Output,
    /// Where what Prometheus is to be told is written.
    pub metrics_file: Option<PathBuf>,
    /// How events are printed; never [`LogFormat::Auto`].
    pub log_format: LogFormat,
    /// -1: errors alone, 0: warnings and what was done, 1: more, 2: everything.
    pub verbosity: i8,
    /// `NO_COLOR`: whether colours are unwanted even on a terminal.
    pub no_color: bool,
    /// `RUST_LOG`.
    pub log_filter: Option<String>,
    /// The identity that the environment names.
    pub identity: IdentityEnv,
    /// `HOME`: a place that is never published over.
    pub home: Option<PathBuf>,
}

impl Settings {
    /// The longest that a pass can take by all its limits together, and ten minutes for what has none: the disk.
    pub fn longest(&self) -> Duration {
        let limits = [self.lock_wait, self.network_timeout, self.job_timeout, self.build_timeout];
        limits.into_iter().fold(Duration::from_secs(600), Duration::saturating_add)
    }
}

/// `GIT_AUTHOR_*` and `GIT_COMMITTER_*`, as git reads them.
#[derive(Clone, Debug, Default)]
pub struct IdentityEnv {
    /// `GIT_AUTHOR_NAME`
    pub author_name: Option<String>,
    /// `GIT_AUTHOR_EMAIL`
    pub author_email: Option<String>,
    /// `GIT_COMMITTER_NAME`
    pub committer_name: Option<String>,
    /// `GIT_COMMITTER_EMAIL`
    pub committer_email: Option<String>,
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One pass.
    Pass(crate::outcome::Command),
    /// Where this instance stands, and whether that is good enough.
    Status(Option<Healthy>),
}

/// What `gitsync status --max-age` takes for healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healthy {
    /// What must not be older.
    pub of: Of,
    /// Than this.
    pub max_age: Duration,
}

/// What a health check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// The last pass that reached the remote and did what the rule says.
    Sync,
    /// The last tick that ended with exit code 0.
    Tick,
}

impl Of {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Tick => "tick",
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0      the pass did its work, or there was none to do
  1      it failed, and a retry alone won't help (job or build failed, bad repository,
         refused credentials, rejected by the server's rules)
  2      the command line or the environment asks for something that can't be
  75     passing trouble, the next pass retries (remote out of reach, time-out, push
         lost a race, lock not had in time)
  128+N  ended by signal N";

const INIT_HELP: &str = "\
At start-up: make the repository exist, heal it, and follow the remote, in either mode.

One pass:
  1. make the repository exist in --repo, in place (strangers' files stay), with its remote
  2. heal what an earlier crash or a person left: stale locks, a half merge, HEAD elsewhere,
     a killed clone; a corrupt repository is put aside and fetched anew
  3. fetch and follow the remote, in either mode; forget a pending force push
  4. build the site, so that the public dir holds exactly the fresh one

Result, one word on stdout:
  cloned        there was no repository, now there is
  reset         the repository was made equal to the remote
  up-to-date    nothing differed
  empty-remote  the remote has no such branch yet; the first tick's push makes it
  offline       the remote is out of reach; local state serves (exit 75)
  error         see stderr";

const INIT_EXAMPLE: &str = "\
Example:
  gitsync init-sync --repo /repo --remote-url https://github.com/you/state.git";

const SYNC_HELP: &str = "\
Every 30 s: ask the remote for its tip, and follow it where the rule says so.

One pass asks, and does by what it finds:
  up-to-date  nothing: no fetch, no look at the files
  behind      follow the remote, rebuild the site
  ahead       nothing: the next tick pushes
  diverged    accept the remote, rebuild the site; with --alpha: keep local, and the next
              tick's push may overwrite the remote

Following makes branch, index and every tracked file equal to the remote. What is replaced
and in no commit is kept first: `git for-each-ref refs/gitsync/rescue` lists it.

Result, one word on stdout: the state it found, as above; or
  skipped     another sync waits for the lock already
  error       see stderr";

const SYNC_EXAMPLE: &str = "\
Example:
  gitsync sync --repo /repo -v
  if [ \"$(gitsync sync)\" = behind ]; then echo new; fi";

const TICK_HELP: &str = "\
Every 15 min: sync, run the job, build the site, commit, push.

One pass:
  1. a sync, best effort: with the remote out of reach the tick goes on
  2. run the job: COMMAND as given, else --tick-command through `sh -c`; a failure is an
     error of the pass, yet what it wrote is committed: state is evidence
  3. build the site
  4. commit what is new, changed or deleted under --path, and nothing else
  5. push what the remote does not have, an earlier failed push included

Result, one word on stdout:
  no-changes   nothing to commit, nothing to push
  pushed       the remote has our commit (after a failed job too; the exit code is then 1)
  push-failed  the commit is kept, the next tick retries
  skipped      another tick waits for the lock already
  error        see stderr";

const TICK_EXAMPLE: &str = "\
Example:
  gitsync tick --repo /repo -- ./job.sh --quick
  gitsync tick --tick-command 'date > state/now' --path state/";

const STATUS_HELP: &str = "\
Where this instance stands, never touching the network; with --max-age a health check.

Tells branch, local and remote tip as last seen, state, mode, a pending force push, who
holds the lock, the last run of each subcommand with its age and result, and what was
rescued. Takes no lock, writes nothing, asks nobody.

With --max-age it is a health check: exit 1 if the last good sync is older, or never was.
A good sync is any pass, an init-sync or a tick too, that reached the remote, did what the
rule says and ended with exit code 0. While a pass is under way the others wait for it, so
its time does not count: age is measured up to its beginning, as long as it keeps its time
limits (say --job-timeout and the like here as there). So a long first tick right after
init-sync is healthy. With --of tick it is about the last tick that ended with exit code 0.

Result: lines for people; --output json: one object, whose `result` is `ok`, `unhealthy` or
`error`.";

const STATUS_EXAMPLE: &str = "\
Example:
  gitsync status --repo /repo
  gitsync status --repo /repo --max-age 2m || echo nobody syncs
  gitsync status --output json | jq .state";

const STATUS_CODES: &str = "\
Exit codes:
  0  told, and healthy where --max-age asked for that
  1  not healthy; or there is no repository to tell of
  2  the command line or the environment asks for something that can't be";

/// Keeps a git repository that a machine works in, and its remote, together with nobody watching.
///
/// Each subcommand takes the repository's lock, does one pass and exits; a scheduler gives the cadence. stdout gets one
/// line, the result; everything else goes to stderr.
#[derive(Debug, Parser)]
#[command(name = "gitsync", version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// At start-up: make the repository exist, heal it, and follow the remote, in either mode.
    #[command(long_about = INIT_HELP, after_help = format!("{INIT_EXAMPLE}\n\n{EXIT_CODES}"))]
    InitSync {
        /// The remote's URL; default: the one the repository has, else $GITHUB_SERVER_URL/$GITHUB_REPOSITORY.git.
        #[arg(long, value_name = "URL", env = "GIT_SYNC_REMOTE_URL", help_heading = "Repository")]
        remote_url: Option<String>,
    },
    /// Every 30 s: ask the remote for its tip, and follow it where the rule says so.
    #[command(long_about = SYNC_HELP, after_help = format!("{SYNC_EXAMPLE}\n\n{EXIT_CODES}"))]
    Sync,
    /// Every 15 min: sync, run the job, build the site, commit, push.
    #[command(long_about = TICK_HELP, after_help = format!("{TICK_EXAMPLE}\n\n{EXIT_CODES}"))]
    Tick {
        /// The job: a program and its arguments; default: --tick-command.
        #[arg(last = true, value_name = "COMMAND")]
        job: Vec<OsString>,
    },
    /// Where this instance stands, never touching the network; with --max-age a health check.
    #[command(long_about = STATUS_HELP, after_help = format!("{STATUS_EXAMPLE}\n\n{STATUS_CODES}"))]
    Status {
        /// Exit 1 if the last good sync is older than this, or never was.
        #[arg(long, value_name = "DUR", value_parser = duration, help_heading = "Health")]
        max_age: Option<Duration>,
        /// What must not be older.
        #[arg(long, value_enum, default_value = "sync", requires = "max_age", help_heading = "Health")]
        of: Of,
    },
}

#[derive(Debug, Args)]
struct Flags {
    /// The repository; a path that is given is taken as it is, no parent is searched [default: found from here].
    #[arg(long, global = true, value_name = "PATH", env = "GIT_SYNC_REPO", help_heading = "Repository")]
    repo: Option<PathBuf>,
    /// Name of the remote.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "GIT_SYNC_REMOTE",
        default_value = "origin",
        help_heading = "Repository"
    )]
    remote: String,
    /// Name of the branch.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "GIT_SYNC_BRANCH",
        default_value = "main",
        help_heading = "Repository"
    )]
    branch: String,
    /// On divergence this instance's state overrides the remote's; the default is that the remote wins.
    /// [env: GIT_SYNC_ALPHA=true|1|yes|on]
    #[arg(long, global = true, help_heading = "Repository")]
    alpha: bool,

    /// What happens when the histories part: the mode decides which side wins, or our unpushed commits are replayed on the
    /// remote's if it only moved forward (on a conflict the mode decides).
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        env = "GIT_SYNC_ON_DIVERGENCE",
        default_value = "policy",
        help_heading = "Repository"
    )]
    on_divergence: OnDivergence,
    /// How long what was rescued is kept under refs/gitsync/rescue/.
    #[arg(long, global = true, value_name = "DUR", env = "GIT_SYNC_KEEP_RESCUES", default_value = "90d",
        value_parser = duration, help_heading = "Repository")]
    keep_rescues: Duration,
    /// Say what the pass would do; change nothing, run nothing. [env: GIT_SYNC_DRY_RUN=true|1|yes|on]
    #[arg(long, global = true, help_heading = "Output")]
    dry_run: bool,
    /// A file whose content is the token; read anew each pass. Else the token is GIT_SYNC_TOKEN, or GITHUB_TOKEN for the
    /// host of GITHUB_SERVER_URL, or what git's credential helpers know.
    #[arg(long, global = true, value_name = "PATH", env = "GIT_SYNC_TOKEN_FILE", help_heading = "Repository")]
    token_file: Option<PathBuf>,
    /// The host that a token is for, and no other gets it: HOST or HOST:PORT
    /// [default: the host that --remote-url or GITHUB_SERVER_URL named at init-sync].
    #[arg(long, global = true, value_name = "HOST", env = "GIT_SYNC_TOKEN_HOST", value_parser = token_host,
        help_heading = "Repository")]
    token_host: Option<TokenHost>,
    /// Let a token go over plain http to another host than this one.
    /// [env: GIT_SYNC_ALLOW_INSECURE_HTTP=true|1|yes|on]
    #[arg(long, global = true, help_heading = "Repository")]
    allow_insecure_http: bool,

    /// The job, run through `sh -c` in the repository.
    #[arg(
        long,
        global = true,
        value_name = "STR",
        env = "GIT_SYNC_TICK_COMMAND",
        default_value = "python -m src.main tick",
        help_heading = "Job and commit"
    )]
    tick_command: String,
    /// What a tick commits; repeatable [env: GIT_SYNC_PATHS, blank-separated] [default: state/ audit/].
    #[arg(long = "path", global = true, value_name = "PATH", help_heading = "Job and commit")]
    paths: Vec<PathBuf>,
    /// The commit message; {time} is the time in UTC.
    #[arg(
        long,
        global = true,
        value_name = "TEMPLATE",
        env = "GIT_SYNC_MESSAGE",
        default_value = "chore(state): tick at {time}",
        help_heading = "Job and commit"
    )]
    message: String,
    /// A larger file is left out of the commit, with an error: the server would refuse the push, and every later one.
    #[arg(long, global = true, value_name = "SIZE", env = "GIT_SYNC_MAX_FILE_SIZE", default_value = "100MB",
        value_parser = size, help_heading = "Job and commit")]
    max_file_size: u64,

    /// Where the site is published [default: no site].
    #[arg(long, global = true, value_name = "PATH", env = "GIT_SYNC_PUBLIC_DIR", help_heading = "Site")]
    public_dir: Option<PathBuf>,
    /// Builds the site into {public_dir}, through `sh -c` in the repository
    /// [default with a public dir: python -m src.main build-site --output {public_dir}; '': no build].
    #[arg(long, global = true, value_name = "STR", env = "GIT_SYNC_BUILD_COMMAND", help_heading = "Site")]
    build_command: Option<String>,
    /// How the site gets into the public dir.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        env = "GIT_SYNC_PUBLISH",
        default_value = "whole",
        help_heading = "Site"
    )]
    publish: Publish,

    /// How long to wait for another pass to give the lock back.
    #[arg(long, global = true, value_name = "DUR", env = "GIT_SYNC_LOCK_WAIT", default_value = "15m",
        value_parser = duration, help_heading = "Time (90s, 15m)")]
    lock_wait: Duration,
    /// How long a pass may spend on the network in all [default: 5m, init-sync 1h].
    #[arg(long, global = true, value_name = "DUR", env = "GIT_SYNC_NETWORK_TIMEOUT", value_parser = duration,
        help_heading = "Time (90s, 15m)")]
    network_timeout: Option<Duration>,
    /// How long the job may take.
    #[arg(long, global = true, value_name = "DUR", env = "GIT_SYNC_JOB_TIMEOUT", default_value = "10m",
        value_parser = duration, help_heading = "Time (90s, 15m)")]
    job_timeout: Duration,
    /// How long the build may take.
    #[arg(long, global = true, value_name = "DUR", env = "GIT_SYNC_BUILD_TIMEOUT", default_value = "5m",
        value_parser = duration, help_heading = "Time (90s, 15m)")]
    build_timeout: Duration,

    /// How the result is printed on stdout.
    #[arg(long, global = true, value_enum, env = "GIT_SYNC_OUTPUT", default_value = "text", help_heading = "Output")]
    output: Output,
    /// How events are printed on stderr.
    #[arg(
        long,
        global = true,
        value_enum,
        env = "GIT_SYNC_LOG_FORMAT",
        default_value = "auto",
        help_heading = "Output"
    )]
    log_format: LogFormat,
    /// After each pass, write what Prometheus is to be told into this file [default: none].
    #[arg(long, global = true, value_name = "PATH", env = "GIT_SYNC_METRICS_FILE", help_heading = "Output")]
    metrics_file: Option<PathBuf>,
    /// Say more; twice: everything. RUST_LOG has the finer switches.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    verbose: u8,
    /// Say errors alone.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    quiet: bool,
}

/// Reads the command line and the environment.
///
/// # Errors
/// What clap has to say: the help and the version too, which are printed and end with exit code 0.
pub fn read(
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(Asked, Settings), clap::Error> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    // Some thousand small pieces, read once in a process that lives for milliseconds: taking them apart would be a part of
    // what a poll costs.
    let mut command = ManuallyDrop::new(without_empty_env(Cli::command(), env));
    let matches = ManuallyDrop::new(command.try_get_matches_from_mut(args)?);
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let mut usage = |text: String| command.error(clap::error::ErrorKind::ValueValidation, text);

    let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
    let mut switch = |name: &str| match text(name) {
        None => Ok(false),
        Some(word) => truth(&word).ok_or_else(|| {
            usage(format!("{name} is '{word}': set it to true, 1, yes or on, or to false, 0, no or off"))
        }),
    };
    let alpha = switch("GIT_SYNC_ALPHA")?;
    let insecure = switch("GIT_SYNC_ALLOW_INSECURE_HTTP")?;
    let dry_run = switch("GIT_SYNC_DRY_RUN")?;

    let mut paths = cli.flags.paths;
    if paths.is_empty()
        && let Some(list) = text("GIT_SYNC_PATHS")
    {
        paths = list.split_whitespace().map(PathBuf::from).collect();
    }
    if paths.is_empty() {
        paths = vec!["state".into(), "audit".into()];
    }
    let paths = paths
        .iter()
        .map(|path| {
            inside(path).ok_or_else(|| {
                usage(format!(
                    "--path '{}' does not stay inside the repository: give a path relative to its top, without '..' \
                     and outside '.git'",
                    path.display()
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;

    for (flag, name) in [("--branch", &cli.flags.branch), ("--remote", &cli.flags.remote)] {
        if !git2::Reference::is_valid_name(&format!("refs/heads/{name}")) {
            return Err(usage(format!("{flag} '{name}' is not a name that git allows")));
        }
    }
    if cli.flags.tick_command.trim().is_empty() {
        return Err(usage("--tick-command is empty: give a command, or leave the option out".into()));
    }
    if cli.flags.message.trim().is_empty() {
        return Err(usage("--message is empty: git refuses a commit without a message".into()));
    }
    if cli.flags.repo.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        return Err(usage("--repo is empty: give the repository's path, or leave the option out".into()));
    }

    let mut remote_url = None;
    let mut tick_argv = Vec::new();
    let asked = match cli.command {
        Subcommands::InitSync { remote_url: given } => {
            remote_url = given.or_else(|| {
                let server = text("GITHUB_SERVER_URL").unwrap_or_else(|| "https://github.com".into());
                text("GITHUB_REPOSITORY").map(|name| format!("{}/{name}.git", server.trim_end_matches('/')))
            });
            Asked::Pass(crate::outcome::Command::InitSync)
        }
        Subcommands::Sync => {
            remote_url = text("GIT_SYNC_REMOTE_URL");
            Asked::Pass(crate::outcome::Command::Sync)
        }
        Subcommands::Tick { job } => {
            tick_argv = job;
            remote_url = text("GIT_SYNC_REMOTE_URL");
            Asked::Pass(crate::outcome::Command::Tick)
        }
        Subcommands::Status { max_age, of } => Asked::Status(max_age.map(|max_age| Healthy { of, max_age })),
    };
    let default_network = match asked {
        Asked::Pass(crate::outcome::Command::InitSync) => Duration::from_secs(3600),
        Asked::Pass(crate::outcome::Command::Sync | crate::outcome::Command::Tick) | Asked::Status(_) => {
            Duration::from_secs(300)
        }
    };
    let build_command = match cli.flags.build_command {
        // Said on purpose: a public dir that nothing is built into.
        Some(command) if command.trim().is_empty() && cli.flags.public_dir.is_some() => None,
        Some(command) if command.trim().is_empty() => {
            return Err(usage("--build-command is empty: give a command, or leave the option out".into()));
        }
        Some(command) => Some(command),
        None => cli.flags.public_dir.as_ref().map(|_| "python -m src.main build-site --output {public_dir}".to_owned()),
    };

    let settings = Settings {
        repo: cli.flags.repo,
        remote: cli.flags.remote,
        branch: cli.flags.branch,
        remote_url,
        mode: if alpha || cli.flags.alpha { Mode::Alpha } else { Mode::NonAlpha },
        on_divergence: cli.flags.on_divergence,
        keep_rescues: cli.flags.keep_rescues,
        dry_run: cli.flags.dry_run || dry_run,
        public_dir: cli.flags.public_dir,
        publish: cli.flags.publish,
        tick_command: cli.flags.tick_command,
        tick_argv,
        build_command,
        paths,
        message: cli.flags.message,
        lock_wait: cli.flags.lock_wait,
        network_timeout: cli.flags.network_timeout.unwrap_or(default_network),
        job_timeout: cli.flags.job_timeout,
        build_timeout: cli.flags.build_timeout,
        token_file: cli.flags.token_file,
        token_host: cli.flags.token_host,
        allow_insecure_http: cli.flags.allow_insecure_http || insecure,
        max_file_size: cli.flags.max_file_size,
        output: cli.flags.output,
        metrics_file: cli.flags.metrics_file,
        log_format: match cli.flags.log_format {
            LogFormat::Auto if text("GITHUB_ACTIONS").is_some_and(|word| word == "true") => LogFormat::Github,
            LogFormat::Auto => LogFormat::Text,
            chosen => chosen,
        },
        verbosity: if cli.flags.quiet { -1 } else { i8::try_from(cli.flags.verbose).unwrap_or(i8::MAX) },
        no_color: set("NO_COLOR").is_some(),
        log_filter: text("RUST_LOG"),
        identity: IdentityEnv {
            author_name: text("GIT_AUTHOR_NAME"),
            author_email: text("GIT_AUTHOR_EMAIL"),
            committer_name: text("GIT_COMMITTER_NAME"),
            committer_email: text("GIT_COMMITTER_EMAIL"),
        },
        home: set("HOME").map(PathBuf::from),
    };
    Ok((asked, settings))
}

/// Whether the result is wanted as JSON, for a command line that could not be read as a whole.
pub fn wants_json(args: &[OsString], env: &dyn Fn(&str) -> Option<OsString>) -> bool {
    // What comes after `--` is the job's.
    let args = args.split(|arg| arg == "--").next().unwrap_or_default();
    let apart = args.windows(2).filter(|pair| pair[0] == "--output").map(|pair| pair[1].clone());
    let joined = args.iter().filter_map(|arg| Some(arg.to_str()?.strip_prefix("--output=")?.into()));
    let given = apart.chain(joined).last();
    given.or_else(|| env("GIT_SYNC_OUTPUT")).is_some_and(|value| value == "json")
}

/// The result object for a command line that could not be read: the keys of any other, and no command.
pub fn usage_json(error: &str, now: chrono::DateTime<chrono::Utc>) -> String {
    let mut object = crate::outcome::Outcome::new(crate::outcome::Command::Sync, now).json();
    object["command"] = serde_json::Value::Null;
    object["exit_code"] = 2.into();
    object["error"] = error.trim().into();
    object.to_string()
}

/// clap takes a variable that is set to nothing for a value. Takes such variables out of the definition.
fn without_empty_env(command: clap::Command, env: &dyn Fn(&str) -> Option<OsString>) -> clap::Command {
    let strip = |arg: Arg| {
        let empty = arg.get_env().and_then(|name| name.to_str()).and_then(env).is_some_and(|value| value.is_empty());
        let arg = arg.hide_env_values(true);
        if empty { arg.env(clap::builder::Resettable::Reset) } else { arg }
    };
    command.mut_args(strip).mut_subcommands(|sub| sub.mut_args(strip))
}

fn truth(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" | "" => Some(false),
        _ => None,
    }
}

/// A clock can't be set further ahead than some hundreds of years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text.trim()) {
        Ok(duration) if duration.is_zero() => Err("must be longer than nothing, such as 90s or 15m".into()),
        Ok(duration) if duration > LONGEST => Err("must be less than 100 years".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("give a number and a unit, such as 90s, 15m or 1h".into()),
    }
}

fn token_host(text: &str) -> Result<TokenHost, String> {
    TokenHost::named(text.trim())
        .ok_or_else(|| "give a host, or a host and a port, such as github.com or git.example:8443".into())
}

fn size(text: &str) -> Result<u64, String> {
    match text.trim().parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() == 0 => Err("must be more than nothing, such as 100MB".into()),
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err("give a number and a unit, such as 100MB or 512KiB".into()),
    }
}

/// The path with its needless parts gone, if it stays inside the repository and is not the repository's own `.git`.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Some file systems fold case; `.GIT` is `.git` there.
            Component::Normal(name) if name.eq_ignore_ascii_case(".git") => return None,
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(clean)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read_with(args: &[&str], env: &[(&str, &str)]) -> Result<(Asked, Settings), clap::Error> {
        let env = env.to_vec();
        let args = std::iter::once("gitsync").chain(args.iter().copied()).map(OsString::from);
        read(args, &move |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn clap_finds_no_fault_in_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn alpha_from_flag_and_environment() {
        let mode = |args: &[&str], env: &[(&str, &str)]| read_with(args, env).map(|(_, s)| s.mode);
        assert_eq!(mode(&["sync"], &[]).unwrap(), Mode::NonAlpha);
        assert_eq!(mode(&["sync", "--alpha"], &[]).unwrap(), Mode::Alpha);
        for word in ["true", "1", "yes", "on", "TRUE"] {
            assert_eq!(mode(&["sync"], &[("GIT_SYNC_ALPHA", word)]).unwrap(), Mode::Alpha, "{word}");
        }
        for word in ["false", "0", "no", "off", ""] {
            assert_eq!(mode(&["sync"], &[("GIT_SYNC_ALPHA", word)]).unwrap(), Mode::NonAlpha, "{word}");
            assert_eq!(mode(&["--alpha", "sync"], &[("GIT_SYNC_ALPHA", word)]).unwrap(), Mode::Alpha, "{word}");
        }
        assert_eq!(mode(&["sync"], &[("GIT_SYNC_ALPHA", "maybe")]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_path_stays_inside_the_repository() {
        for bad in ["/etc", "..", "state/../..", ".git", ".git/config", "state/.GIT"] {
            assert_eq!(read_with(&["tick", "--path", bad], &[]).unwrap_err().exit_code(), 2, "{bad}");
        }
        let (_, settings) = read_with(&["tick", "--path", "./state/", "--path", "a/b"], &[]).unwrap();
        assert_eq!(settings.paths, [PathBuf::from("state"), PathBuf::from("a/b")]);
        let (_, settings) = read_with(&["tick"], &[("GIT_SYNC_PATHS", " x/  y ")]).unwrap();
        assert_eq!(settings.paths, [PathBuf::from("x"), PathBuf::from("y")]);
    }

    #[test]
    fn the_form_of_a_usage_error_is_the_one_that_was_asked_for() {
        let wants = |args: &[&str], env: &'static str| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            wants_json(&args, &move |_| Some(env.into()))
        };
        assert!(wants(&["sync", "--bogus"], "json") && wants(&["sync", "--output=json", "--bogus"], ""));
        assert!(wants(&["sync", "--output", "json", "--bogus"], "text"), "a flag wins");
        assert!(!wants(&["sync", "--output", "text", "--bogus"], "json"), "a flag wins");
        assert!(!wants(&["sync", "--output=text", "--bogus"], "json"), "a flag wins");
        assert!(!wants(&["tick", "--bogus", "--", "job", "--output", "json"], ""), "that is the job's");
    }

    #[test]
    fn a_variable_set_to_nothing_is_unset() {
        let empty = [("GIT_SYNC_BRANCH", ""), ("GIT_SYNC_LOCK_WAIT", ""), ("GIT_SYNC_REMOTE_URL", "")];
        let (_, settings) = read_with(&["init-sync"], &empty).unwrap();
        assert_eq!((settings.branch.as_str(), settings.lock_wait), ("main", Duration::from_secs(900)));
        assert_eq!(settings.remote_url, None);
    }

    #[test]
    fn the_url_from_what_an_action_knows() {
        let env = [("GITHUB_REPOSITORY", "you/state"), ("GITHUB_SERVER_URL", "https://git.example/")];
        let (_, settings) = read_with(&["init-sync"], &env).unwrap();
        assert_eq!(settings.remote_url.unwrap(), "https://git.example/you/state.git");
    }

    #[test]
    fn durations_and_sizes_say_what_they_want() {
        let error = read_with(&["sync", "--lock-wait", "15"], &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("90s"), "{error}");
        for bad in ["0s", "1000000y", "-1s", "99999999999999999999s"] {
            assert_eq!(read_with(&["sync", "--lock-wait", bad], &[]).unwrap_err().exit_code(), 2, "{bad}");
        }
        let (_, settings) = read_with(&["tick", "--max-file-size", "1KiB"], &[]).unwrap();
        assert_eq!(settings.max_file_size, 1024);
    }

    /// The page cannot lie: its tables are read and compared with the definition and with the result object.
    #[test]
    fn the_tables_in_the_docs_are_the_program() {
        use std::collections::BTreeMap;
        let page = include_str!("../docs/usage.md");
        let rows: BTreeMap<&str, (String, &str)> = page
            .lines()
            .filter(|line| line.starts_with("| `--"))
            .map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
                (cells[0].trim_matches('`'), (cells[1].replace('`', ""), cells[2]))
            })
            .collect();
        let command = Cli::command();
        let mut known = std::collections::BTreeSet::new();
        for arg in command.get_arguments().chain(command.get_subcommands().flat_map(clap::Command::get_arguments)) {
            let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
            let flag = format!("--{long}");
            let (env, default) = rows.get(flag.as_str()).unwrap_or_else(|| panic!("{flag} is not in docs/usage.md"));
            if let Some(name) = arg.get_env() {
                assert_eq!(*env, name.to_string_lossy(), "{flag}");
            }
            if let [value] = arg.get_default_values() {
                assert_eq!(*default, format!("`{}`", value.to_string_lossy()), "{flag}");
            }
            known.insert(flag);
        }
        for flag in rows.keys() {
            assert!(known.contains(*flag), "docs/usage.md has {flag}, the program has not");
        }
        let outcome = crate::outcome::Outcome::new(crate::outcome::Command::Sync, chrono::DateTime::UNIX_EPOCH);
        let told = outcome.json();
        let keys: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        let mut in_docs: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("| key |"))
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        in_docs.sort_unstable();
        assert_eq!(keys, in_docs);
    }
}
