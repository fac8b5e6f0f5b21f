//! Every remote: one round trip a poll, never hanging, never leaking.
//!
//! libgit2 has transports of its own, and none of them will do: its https costs 22 ms of every start and knows no
//! protocol v2, its ssh no `~/.ssh/config`, its path transport neither hooks nor compare-and-swap, and none of them an
//! end to its patience. So git's protocol is our own (`protocol`), and a [`Session`] speaks it.
//!
//! Three rules hold for all of them. *Time*: name look-up, connecting, TLS, every read and every write end at the pass's
//! one deadline, and after the idle time without a byte. *Secrets*: see [`credentials`](self), bound to scheme, host and
//! port, and never printed. *Truth*: whatever goes wrong is a [`Error`] that says what happened to what, whether
//! it may pass by itself, and what to do next.

mod answers;
mod config;
mod connection;
mod cookies;
mod credentials;
mod encoding;
mod env;
mod env_config;
mod http;
mod include_if;
pub mod pktline;
mod programs;
mod progress;
pub mod protocol;
mod push_url;
pub mod redact;
mod refusals;
mod session;
pub mod spool;
mod ssh;
mod token_host;
mod url;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use answers::refusal;
pub use env::Env;
pub use http::{EndsLater, end_answers_later};
pub(crate) use include_if::value as configured;
pub use programs::{OWN_VARIABLES, REPOSITORY_VARIABLES, SECRET_VARIABLES};
pub use progress::Progress;
pub(crate) use push_url::check_push_url;
pub use session::{Receiver, Session, Sessions};
pub use ssh::SshFiles;
pub use token_host::TokenHost;
pub use url::{GitUrl, HttpUrl, Origin, Remote, Scheme, SshUrl, TOKEN_USER, split_url_secret};

use crate::error::{Error, Kind};
/// Takes the secrets that are ours alone out of this process's environment, once they are read: a job could read them in
/// `/proc/PID/environ`. For the beginning of `main`, before any thread is started; later it does nothing.
pub fn wipe_own_secrets() {
    crate::ffi::wipe_variables(OWN_VARIABLES);
}

/// All that one pass may use of the network.
#[derive(Clone, Debug)]
pub struct Options {
    /// The remote's name, for `remote.<name>.proxy`.
    pub remote: Option<String>,
    /// The pass's network budget ends here.
    pub deadline: Instant,
    /// So long without a byte ends it too.
    pub idle: Duration,
    /// `--token-file`, read anew by each session.
    pub token_file: Option<PathBuf>,
    /// The user and the secret of the URL that was given, which the stored URL is without.
    pub url_secret: Option<(String, String)>,
    /// Where all of these may go, and `GITHUB_TOKEN`.
    pub token_host: TokenHost,
    /// The environment.
    pub env: Env,
    /// Secrets may go over plain http to hosts other than this one.
    pub allow_insecure_http: bool,
    /// The key and the known hosts for ssh.
    pub ssh: SshFiles,
    /// What a relative path as URL starts from: the work tree.
    pub relative_to: PathBuf,
    /// How long transfers are told of.
    pub progress: Progress,
    /// Protocol v2 may be asked for: false for a server that was found to leave such a request unanswered.
    pub v2: bool,
}

/// The two ends to all waiting.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Shared by all that a session has opened.
    deadline: Arc<Mutex<Instant>>,
    idle: Duration,
}

impl Limits {
    fn new(deadline: Instant, idle: Duration) -> Limits {
        Limits { deadline: Arc::new(Mutex::new(deadline)), idle }
    }

    fn deadline(&self) -> Instant {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on the budget ends then.
    fn move_deadline(&self, to: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// When a wait that begins now ends.
    fn until(&self) -> Instant {
        self.deadline().min(Instant::now() + self.idle)
    }

    /// What is left of the budget.
    ///
    /// # Errors
    /// When that is nothing.
    fn left(&self, url: &str) -> Result<Duration, Error> {
        match self.deadline().saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(self.overdue(url)),
            left => Ok(left),
        }
    }

    /// The error for a wait that has ended.
    fn overdue(&self, url: &str) -> Error {
        // A wait may end a moment before the deadline that ended it.
        let spent = self.deadline().saturating_duration_since(Instant::now()) < Duration::from_millis(20);
        let (what, next) = if spent {
            (
                format!("the pass's time for the network was up while waiting for {url}"),
                "nothing: the next pass tries again; if the network is slow, raise --network-timeout".to_owned(),
            )
        } else {
            let idle = humantime::format_duration(self.idle);
            (format!("{url} sent nothing for {idle}"), "nothing: the next pass tries again".to_owned())
        };
        Error { kind: Kind::Unreachable, what, next }
    }
}
