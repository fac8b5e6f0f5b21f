//! Every remote: one round trip a poll, never hanging, never leaking.
//!
//! libgit2 has transports of its own, and none of them will do: its https costs 22 ms of every start and knows no
//! protocol v2, its ssh no `~/.ssh/config`, its path transport neither hooks nor compare-and-swap, and none of them an
//! end to its patience. So a [`Session`] asks for a tip by itself, and for a fetch or a push hands libgit2 a URL of a private
//! scheme behind which the bytes run through the session.
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
mod err_packet;
mod http;
mod include_if;
mod libgit2;
pub mod pktline;
mod programs;
mod progress;
mod push_url;
pub mod redact;
mod refusals;
mod ssh;
mod token_host;
mod url;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use git2::Oid;

pub use answers::{from_git2, refusal};
pub use env::Env;
pub use http::{EndsLater, end_answers_later};
pub(crate) use include_if::value as configured;
pub use programs::{OWN_VARIABLES, REPOSITORY_VARIABLES, SECRET_VARIABLES};
pub use progress::Progress;
pub(crate) use push_url::check_push_url;
pub use ssh::SshFiles;
pub use token_host::TokenHost;
pub use url::{GitUrl, HttpUrl, Origin, Remote, Scheme, SshUrl, TOKEN_USER, split_url_secret};

use crate::error::{Error, Kind};
use config::GitConfig;
use connection::{Connection, Endpoint};
use http::Http;
use libgit2::make_transport;
use pktline::{Bad, Packet, Packets};
use progress::Meter;
use ssh::SshCommand;

/// The scheme of the URLs that libgit2 gets. Nobody has an `insteadOf` for it.
const SCHEME: &str = "gitsync-session";

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
}

/// The two ends to all waiting.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    deadline: Instant,
    idle: Duration,
}

impl Limits {
    /// When a wait that begins now ends.
    fn until(&self) -> Instant {
        self.deadline.min(Instant::now() + self.idle)
    }

    /// What is left of the budget.
    ///
    /// # Errors
    /// When that is nothing.
    fn left(&self, url: &str) -> Result<Duration, Error> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(self.overdue(url)),
            left => Ok(left),
        }
    }

    /// The error for a wait that has ended.
    fn overdue(&self, url: &str) -> Error {
        // A wait may end a moment before the deadline that ended it.
        let spent = self.deadline.saturating_duration_since(Instant::now()) < Duration::from_millis(20);
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

/// One remote for one pass.
#[derive(Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    libgit2_url: String,
    shown: String,
    limits: Limits,
    reach: Reach,
    meter: Arc<Meter>,
    error: Mutex<Option<Error>>,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
enum Reach {
    Http(Arc<Http>),
    Endpoint(Endpoint),
}

/// What [`Session::tip`] was asked, for the fetch that follows.
#[derive(Debug, Default)]
struct Asked {
    names: Vec<String>,
    /// The answer, until a fetch has used it.
    fresh: Option<Vec<(String, Oid)>>,
}

static SESSIONS: Mutex<Vec<(String, Weak<Inner>)>> = Mutex::new(Vec::new());
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Session {
    /// Opens a session. Nothing is sent yet.
    ///
    /// `url`: after git's `insteadOf`. `config`: git's configuration, of which credential helpers, extra headers, the proxy
    /// and the ssh command are honoured.
    ///
    /// # Errors
    /// Lasting: a URL that cannot be used.
    pub fn open(url: &str, config: &git2::Config, options: Options) -> Result<Session, Error> {
        if let Some(fault) = &options.env.config.fault {
            return Err(Error {
                kind: Kind::Refused,
                what: format!("the configuration in GIT_CONFIG_COUNT can't be used: {fault}"),
                next: "set GIT_CONFIG_COUNT to how many pairs of GIT_CONFIG_KEY_<n> and GIT_CONFIG_VALUE_<n> there are, from 0 on"
                    .to_owned(),
            });
        }
        let limits = Limits { deadline: options.deadline, idle: options.idle };
        let more = &options.env.config.entries;
        // Masks it.
        split_url_secret(url);
        let remote = Remote::parse(url, &options.relative_to)?;
        let shown = match &remote {
            Remote::Http(http) => redact::url(&http.clean()),
            _ => redact::url(url),
        };
        let meter = Arc::new(Meter::new(options.progress, &shown));
        let reach = match remote {
            Remote::Http(http) => {
                let config = GitConfig::read(config, more);
                Reach::Http(Arc::new(Http::new(http, &config, &options, limits.clone(), meter.clone())))
            }
            Remote::Ssh(ssh) => {
                let config = GitConfig::read(config, more);
                let (configured, variant) = (config.ssh_command.as_deref(), config.ssh_variant.as_deref());
                Reach::Endpoint(Endpoint::Ssh {
                    url: ssh,
                    command: SshCommand::choose(&options.env, &options.ssh, configured, variant)?,
                })
            }
            Remote::Git(git) => Reach::Endpoint(Endpoint::Git(git)),
            Remote::Path(path) => Reach::Endpoint(Endpoint::Path(path)),
        };
        crate::ffi::register_transport(SCHEME, make_transport).map_err(|e| Error {
            kind: Kind::Refused,
            what: format!("libgit2 does not take our transport: {e}"),
            next: "this is a bug; please report it".to_owned(),
        })?;
        let libgit2_url = format!("{SCHEME}://{}/", NUMBER.fetch_add(1, Ordering::Relaxed));
        let inner = Arc::new(Inner {
            libgit2_url: libgit2_url.clone(),
            shown,
            limits,
            reach,
            meter,
            error: Mutex::default(),
            asked: Mutex::default(),
        });
        let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(_, session)| session.strong_count() > 0);
        sessions.push((libgit2_url, Arc::downgrade(&inner)));
        Ok(Session { inner })
    }

    /// The tip of `refname` (in full: `refs/heads/main`) on the remote now; `None` if there is no such ref, as in an
    /// empty repository.
    ///
    /// Over http this is one POST of protocol v2's `ls-refs`; a server that does not answer that is asked the old way,
    /// for the rest of the session too.
    ///
    /// # Errors
    /// Whatever keeps the remote from answering.
    pub fn tip(&self, refname: &str) -> Result<Option<Oid>, Error> {
        let inner = &self.inner;
        let found = inner.tips(&[refname])?;
        let tip = found.iter().find(|(name, _)| name == refname).map(|(_, oid)| *oid);
        let mut asked = inner.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked.names.iter().any(|name| name == refname) {
            asked.names.push(refname.to_owned());
        }
        // A fetch that follows at once is spared the question, if it was the only one.
        asked.fresh = Some(found).filter(|_| asked.names.len() == 1);
        Ok(tip)
    }

    /// The remote's branches by their short names, its default first, and whether it has a tag of the name `tag`. Of very many
    /// branches only some.
    ///
    /// # Errors
    /// Whatever keeps the remote from answering.
    pub fn branches(&self, tag: &str) -> Result<(Vec<String>, bool), Error> {
        let tag = format!("refs/tags/{tag}");
        let found = self.inner.tips(&["HEAD", &tag, "refs/heads/"])?;
        let head = found.iter().find(|(name, _)| name == "HEAD").map(|(_, tip)| *tip);
        let branch = |(name, tip): &(String, Oid)| Some((name.strip_prefix("refs/heads/")?.to_owned(), *tip));
        let mut branches: Vec<(String, Oid)> = found.iter().filter_map(branch).collect();
        // Which branch HEAD names is not told by every server. Where several are at its commit, a usual name decides.
        branches.sort_by_key(|(name, tip)| (Some(*tip) != head, name != "main", name != "master", name.clone()));
        Ok((branches.into_iter().map(|(name, _)| name).collect(), found.iter().any(|(name, _)| *name == tag)))
    }

    /// The URL to give libgit2, with `Repository::remote_anonymous`: fetch and push then run through this session, as
    /// long as it lives.
    ///
    /// After [`Session::tip`] a fetch sees only the refs asked for; over http with protocol v2 at the tip that was told, so
    /// that the fetch is of what was judged, and a server with a hundred thousand refs does not list them. A push always
    /// sees what the server advertises in that very push.
    pub fn libgit2_url(&self) -> &str {
        &self.inner.libgit2_url
    }

    /// The cause behind the error libgit2 returned, if it was the transport's, since the last call.
    pub fn take_error(&self) -> Option<Error> {
        self.inner.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The cause behind an error libgit2 returned from a fetch or push over this session: the transport's own if it has
    /// one, else what libgit2's says, sorted.
    pub fn explain(&self, e: &git2::Error) -> Error {
        self.take_error().unwrap_or_else(|| from_git2(e, &self.inner.shown))
    }

    /// The remote's URL, redacted, for logs.
    pub fn display_url(&self) -> &str {
        &self.inner.shown
    }

    /// For `transfer_progress` and `push_transfer_progress`: `done` of `total` objects are through.
    pub fn objects(&self, done: usize, total: usize) {
        self.inner.meter.objects(done, total);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.inner.meter.done();
        let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(url, _)| *url != self.inner.libgit2_url);
    }
}

impl Inner {
    fn tips(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Error> {
        match &self.reach {
            Reach::Http(http) => http.tips(refnames),
            Reach::Endpoint(endpoint) => {
                let asked = self.tips_by_program(endpoint, refnames, true);
                match asked {
                    // A git daemon from before protocol v2 hangs up at the question; the others just do not answer it.
                    Err(Unanswered { hung_up: true, .. }) if matches!(endpoint, Endpoint::Git(_)) => {
                        self.tips_by_program(endpoint, refnames, false)
                    }
                    asked => asked,
                }
                .map_err(|unanswered| unanswered.error)
            }
        }
    }

    fn tips_by_program(
        &self,
        endpoint: &Endpoint,
        refnames: &[&str],
        v2: bool,
    ) -> Result<Vec<(String, Oid)>, Unanswered> {
        let failed = |error| Unanswered { error, hung_up: false };
        let connection = endpoint.open("upload-pack", v2, self.limits.clone(), &self.shown).map_err(failed)?;
        let mut packets = Packets::new(connection);
        let found = list(&mut packets, refnames);
        found.map_err(|bad| match bad {
            Bad::Io(e) => failed(
                Error::within(&e).unwrap_or_else(|| from_git2(&git2::Error::from_str(&e.to_string()), &self.shown)),
            ),
            Bad::Refused(words) => failed(answers::server_said(&self.shown, &words)),
            Bad::Malformed(_) => Unanswered { error: packets.stream_mut().hung_up(), hung_up: true },
        })
    }
}

/// Why the other end listed nothing.
struct Unanswered {
    error: Error,
    /// It was reached, and went.
    hung_up: bool,
}

/// Reads what the program at the other end lists, by v2 if it offers that.
fn list(packets: &mut Packets<Connection>, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Bad> {
    let mut found = Vec::new();
    let v2 = match packets.packet()? {
        // No refs at all.
        Some(Packet::Flush) => return Ok(found),
        Some(Packet::Data(line)) if line.strip_suffix(b"\n").unwrap_or(line) == b"version 2" => true,
        Some(Packet::Data(line)) => {
            pktline::refusal(line)?;
            pktline::take_advertised(&mut found, line, refnames)?;
            false
        }
        Some(Packet::Delimiter | Packet::ResponseEnd) | None => {
            return Err(Bad::Malformed("no list of refs".to_owned()));
        }
    };
    if !v2 {
        let rest = pktline::read_advertisement(packets, refnames, false)?;
        found.extend(rest);
    } else {
        // What it can do; `ls-refs` is what every v2 can.
        loop {
            match packets.packet()? {
                Some(Packet::Flush) => break,
                Some(Packet::Data(line)) => pktline::refusal(line)?,
                Some(Packet::Delimiter | Packet::ResponseEnd) => {}
                None => return Err(Bad::Malformed("the list of what it can do was cut off".to_owned())),
            }
        }
        let request = pktline::ls_refs_request(refnames);
        packets.stream_mut().write_all(&request)?;
        found = pktline::read_ls_refs(packets, refnames)?;
    }
    // The flush says that nothing more is asked, without which a git daemon would log a fault.
    let _ = packets.stream_mut().write_all(b"0000");
    packets.stream_mut().close_input();
    Ok(found)
}
