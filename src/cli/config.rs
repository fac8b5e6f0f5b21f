//! The settings from the command line and the environment, as one value.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{ArgPredicate, OsStringValueParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args};

use super::values::{self, LogFormat, Of, OnDivergence, Output, Publish};
use super::{Env, JOB, Subcommand, bad_variable};
use crate::git::pathspec::Pathspec;
use crate::policy::Mode;
use crate::remote::TokenHost;

/// The settings of one run.
///
/// A field's doc comment is its flag's help: the first paragraph for `-h`, all of it for `--help`. The fields at the end have
/// no flag and come from the environment only.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Repository")]
pub struct Config {
    /// The repository [default: the one we are in]
    ///
    /// A given path is used as it is: no parent folder is searched. Default: the repository that contains the current folder.
    #[arg(long, value_name = "PATH", env = "GIT_SYNC_REPO")]
    pub repo: Option<PathBuf>,
    /// The remote's URL
    ///
    /// Default: $GITHUB_SERVER_URL/$GITHUB_REPOSITORY.git if GITHUB_REPOSITORY is set, else the URL that the repository has.
    /// (sync and tick use only the secret in GIT_SYNC_REMOTE_URL, if it holds one.)
    #[arg(long, value_name = "URL", env = "GIT_SYNC_REMOTE_URL")]
    pub remote_url: Option<String>,
    /// Name of the remote
    #[arg(long, value_name = "NAME", env = "GIT_SYNC_REMOTE", default_value = "origin", value_parser = values::name)]
    pub remote: String,
    /// Name of the branch
    #[arg(long, value_name = "NAME", env = "GIT_SYNC_BRANCH", default_value = "main", value_parser = values::branch)]
    pub branch: String,
    /// Create the branch if the remote lacks it
    ///
    /// Without this option it is an error if the remote has branches but not this one, so that a mistyped name is never
    /// pushed. In the environment: true, 1, yes or on.
    #[arg(long, env = "GIT_SYNC_CREATE_BRANCH", action = ArgAction::SetTrue, value_parser = values::switch)]
    pub create_branch: bool,
    /// Clone only so many commits of history
    ///
    /// Later passes fetch what is new, and the rest where a comparison needs it.
    #[arg(long, value_name = "N", env = "GIT_SYNC_DEPTH", value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub depth: Option<u32>,
    /// On divergence, this instance wins
    ///
    /// By default the remote wins. Either way the commits of the losing side are kept under refs/gitsync/rescue/. In the
    /// environment: true, 1, yes or on.
    #[arg(long = "alpha", env = "GIT_SYNC_ALPHA", action = ArgAction::SetTrue, value_parser = values::mode)]
    pub mode: Mode,
    /// On divergence: policy or rebase
    #[arg(long, value_name = "HOW", env = "GIT_SYNC_ON_DIVERGENCE", default_value = "policy")]
    pub on_divergence: OnDivergence,
    /// How long rescues are kept
    ///
    /// Commits and files that a pass had to replace are kept this long under refs/gitsync/rescue/.
    #[arg(long, value_name = "DUR", env = "GIT_SYNC_KEEP_RESCUES", default_value = "90d",
        value_parser = values::duration, hide_short_help = true)]
    pub keep_rescues: Duration,
    /// A file that holds the token
    ///
    /// Each pass reads it again. Without a token file the token is GIT_SYNC_TOKEN, else GITHUB_TOKEN (for the host of
    /// GITHUB_SERVER_URL only), else what git's credential helpers give.
    #[arg(long, value_name = "PATH", env = "GIT_SYNC_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The host that the token is for: HOST or HOST:PORT
    ///
    /// No other host gets the token. Default: the host that --remote-url or GITHUB_SERVER_URL named at init-sync.
    #[arg(long, value_name = "HOST", env = "GIT_SYNC_TOKEN_HOST", help_heading = "Repository")]
    #[arg(value_parser = values::token_host, hide_short_help = true)]
    pub token_host: Option<TokenHost>,
    /// Send the token over plain http too
    ///
    /// Without this option the token is sent over plain http to this machine only. In the environment: true, 1, yes or on.
    #[arg(long, env = "GIT_SYNC_ALLOW_INSECURE_HTTP", hide_short_help = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    pub allow_insecure_http: bool,
    /// The key for ssh, instead of ssh's own
    ///
    /// It is the only key that is offered, and must need no passphrase.
    #[arg(long, value_name = "PATH", env = "GIT_SYNC_SSH_KEY_FILE", hide_short_help = true)]
    pub ssh_key_file: Option<PathBuf>,
    /// The known hosts for ssh, instead of ssh's own
    ///
    /// A host whose key is not in this file (or in the system's /etc/ssh/ssh_known_hosts) is refused.
    #[arg(long, value_name = "PATH", env = "GIT_SYNC_SSH_KNOWN_HOSTS_FILE", hide_short_help = true)]
    pub ssh_known_hosts_file: Option<PathBuf>,

    /// The job, a command line for `sh -c`
    ///
    /// It runs in the repository. If `-- COMMAND ARG…` is given, that runs instead.
    #[arg(long, value_name = "STR", env = "GIT_SYNC_TICK_COMMAND", default_value = "python -m src.main tick",
        value_parser = values::command, help_heading = "Job and commit")]
    pub tick_command: String,
    /// The job as a program and its arguments, where given after `--`.
    #[arg(skip)]
    pub tick_argv: Vec<OsString>,
    /// What to commit; repeatable
    ///
    /// A file, a folder or any other git pathspec (`*.json`, `:(exclude)state/tmp`), relative to the top of the repository. Repeat
    /// the flag for more; in the environment they are separated by blanks.
    /// (init-sync and sync read the variable too: the public dir must not contain one of these paths.)
    #[arg(long = "path", value_name = "PATH", env = "GIT_SYNC_PATHS", default_values = DEFAULT_PATHS,
        value_parser = OsStringValueParser::new().try_map(|path| Pathspec::parse(&path)), help_heading = "Job and commit")]
    pub paths: Vec<Pathspec>,
    /// The commit message
    ///
    /// {time} is replaced by the time in UTC.
    #[arg(long, value_name = "TEMPLATE", env = "GIT_SYNC_MESSAGE", default_value = "chore(state): tick at {time}",
        value_parser = values::message, help_heading = "Job and commit")]
    pub message: String,
    /// Larger files are left out of the commit
    ///
    /// Each such file is an error. Were it committed, the server would refuse this push and every later one.
    #[arg(long, value_name = "SIZE", env = "GIT_SYNC_MAX_FILE_SIZE", default_value = "100MB",
        value_parser = values::size, hide_short_help = true, help_heading = "Job and commit")]
    pub max_file_size: u64,

    /// Where the site is published [default: no site]
    #[arg(long, value_name = "PATH", env = "GIT_SYNC_PUBLIC_DIR", help_heading = "Site")]
    pub public_dir: Option<PathBuf>,
    /// Publish over files that gitsync did not put there
    ///
    /// Without this option a public dir is refused if it is not empty and gitsync did not fill it. In the environment: true, 1,
    /// yes or on.
    #[arg(long, env = "GIT_SYNC_REPLACE_PUBLIC_DIR", help_heading = "Site", hide_short_help = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    pub replace_public_dir: bool,
    /// Builds the site, a command line for `sh -c`
    ///
    /// It runs in the repository and builds into {public_dir}. Default if a public dir is given: python -m src.main build-site
    /// --output {public_dir}. With a public dir and an empty command nothing is built.
    #[arg(long, value_name = "STR", env = "GIT_SYNC_BUILD_COMMAND", help_heading = "Site")]
    #[arg(default_value_if("public_dir", ArgPredicate::IsPresent, BUILD_COMMAND))]
    pub build_command: Option<String>,
    /// How the site gets into the public dir
    #[arg(long, value_name = "HOW", env = "GIT_SYNC_PUBLISH", default_value = "whole", help_heading = "Site")]
    #[arg(hide_short_help = true)]
    pub publish: Publish,

    /// Exit 1 if the last good sync is older
    ///
    /// Exit 1 if the last good sync is older than this, or never was.
    #[arg(long, value_name = "DUR", value_parser = values::duration, help_heading = "Health")]
    pub max_age: Option<Duration>,
    /// Which runs: sync or tick [with --max-age: sync]
    ///
    /// With --max-age: the runs that are checked (default: sync). Without: only the last run of that subcommand is shown.
    #[arg(long, value_name = "WHAT", help_heading = "Health")]
    pub of: Option<Of>,

    /// Longest wait for another pass
    #[arg(long, value_name = "DUR", env = "GIT_SYNC_LOCK_WAIT", default_value = "15m",
        value_parser = values::duration, help_heading = TIME)]
    pub lock_wait: Duration,
    /// Time for the network in all
    ///
    /// A transfer also ends after 30 s without a byte.
    #[arg(long, value_name = "DUR", env = "GIT_SYNC_NETWORK_TIMEOUT", default_value = "5m",
        value_parser = values::duration, help_heading = TIME)]
    pub network_timeout: Duration,
    /// Time for the job
    #[arg(long, value_name = "DUR", env = "GIT_SYNC_JOB_TIMEOUT", default_value = "10m",
        value_parser = values::duration, help_heading = TIME)]
    pub job_timeout: Duration,
    /// Time for the build
    #[arg(long, value_name = "DUR", env = "GIT_SYNC_BUILD_TIMEOUT", default_value = "5m",
        value_parser = values::duration, help_heading = TIME)]
    pub build_timeout: Duration,

    /// Print what the pass would do, and do nothing
    ///
    /// No file is changed, and neither job nor build is run. In the environment: true, 1, yes or on.
    #[arg(long, env = "GIT_SYNC_DRY_RUN", help_heading = "Output")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    pub dry_run: bool,
    /// How the result is printed: text or json
    #[arg(long, value_name = "FORM", env = "GIT_SYNC_OUTPUT", default_value = "text", help_heading = "Output")]
    pub output: Output,
    /// How events are printed on stderr
    #[arg(long, value_name = "FORM", env = "GIT_SYNC_LOG_FORMAT", default_value = "auto", help_heading = "Output")]
    #[arg(hide_short_help = true)]
    pub log_format: LogFormat,
    /// A file for Prometheus's textfile collector
    ///
    /// Each pass writes its metrics there. Default: none.
    #[arg(long, value_name = "PATH", env = "GIT_SYNC_METRICS_FILE", help_heading = "Output")]
    #[arg(hide_short_help = true)]
    pub metrics_file: Option<PathBuf>,
    /// Log more; -vv logs everything
    ///
    /// RUST_LOG allows finer control, and wins if it is set.
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Log errors only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,

    /// Whether `NO_COLOR` is set: no colours, even on a terminal.
    #[arg(skip)]
    pub no_color: bool,
    /// `RUST_LOG`.
    #[arg(skip)]
    pub log_filter: Option<String>,
    /// The author and committer that the environment names.
    #[arg(skip)]
    pub identity: IdentityEnv,
    /// `HOME`: this folder is never used as a public dir.
    #[arg(skip)]
    pub home: Option<PathBuf>,
}

const TIME: &str = "Time limits (90s, 15m)";

const DEFAULT_PATHS: [&str; 2] = ["state/", "audit/"];

/// The placeholder for the public dir in a build command.
const PUBLIC_DIR: &str = "{public_dir}";

pub(super) const BUILD_COMMAND: &str = "python -m src.main build-site --output {public_dir}";

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

impl Config {
    /// -1: errors only, 0: also warnings and what was done, 1: more, 2: everything.
    pub fn verbosity(&self) -> i8 {
        if self.quiet { -1 } else { i8::try_from(self.verbose).unwrap_or(i8::MAX) }
    }

    /// Whether the paths to commit are the default ones.
    pub fn has_default_paths(&self) -> bool {
        self.paths.iter().map(Pathspec::given).eq(DEFAULT_PATHS)
    }

    /// The longest that a pass can take: the sum of its limits, and ten minutes for the disk, which has no limit.
    pub fn longest(&self) -> Duration {
        let limits = [self.lock_wait, self.network_timeout, self.job_timeout, self.build_timeout];
        limits.into_iter().fold(Duration::from_secs(600), Duration::saturating_add)
    }

    /// Adds the settings that have no flag, and those that depend on several variables.
    pub(super) fn with_environment(
        mut self,
        subcommand: Subcommand,
        matches: &ArgMatches,
        env: Env<'_>,
    ) -> Result<Self, String> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        if let Ok(Some(job)) = matches.try_get_many::<OsString>(JOB) {
            self.tick_argv = job.cloned().collect();
        }
        if matches.value_source("paths") == Some(ValueSource::EnvVariable) {
            // clap takes the whole list for one path. A list of blanks only counts as unset.
            let list = text("GIT_SYNC_PATHS").unwrap_or_default();
            let some = list.split_whitespace().next().is_some();
            let list = if some { list } else { DEFAULT_PATHS.join(" ") };
            let paths = list.split_whitespace().map(|path| Pathspec::parse(path.as_ref()));
            self.paths = paths.collect::<Result<_, _>>().map_err(|why| bad_variable("GIT_SYNC_PATHS", &list, &why))?;
        }
        if subcommand == Subcommand::InitSync && self.remote_url.is_none() {
            let server = text("GITHUB_SERVER_URL").unwrap_or_else(|| "https://github.com".into());
            let repository = text("GITHUB_REPOSITORY");
            self.remote_url = repository.map(|name| format!("{}/{name}.git", server.trim_end_matches('/')));
        }
        if self.build_command.as_ref().is_some_and(|command| command.trim().is_empty()) {
            // An empty command is given on purpose: nothing is built into the public dir.
            self.build_command = None;
            if self.public_dir.is_none() {
                return Err("--build-command is empty: give a command, or leave the option out".into());
            }
        }
        if let Some(command) = self.build_command.as_ref().filter(|_| self.public_dir.is_none())
            && command.contains(PUBLIC_DIR)
        {
            return Err(format!(
                "the build command is '{command}', but there is no public dir for {PUBLIC_DIR}: give --public-dir \
                 (GIT_SYNC_PUBLIC_DIR), or name the folder itself"
            ));
        }
        if self.log_format == LogFormat::Auto {
            let is_action = text("GITHUB_ACTIONS").is_some_and(|word| word == "true");
            self.log_format = if is_action { LogFormat::Github } else { LogFormat::Text };
        }
        self.no_color = set("NO_COLOR").is_some();
        self.log_filter = text("RUST_LOG");
        self.identity = IdentityEnv {
            author_name: text("GIT_AUTHOR_NAME"),
            author_email: text("GIT_AUTHOR_EMAIL"),
            committer_name: text("GIT_COMMITTER_NAME"),
            committer_email: text("GIT_COMMITTER_EMAIL"),
        };
        self.home = set("HOME").map(PathBuf::from);
        Ok(self)
    }
}
