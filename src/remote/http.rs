//! Smart HTTP on ureq and rustls.
//!
//! One exchange at a time over a kept connection, streaming both ways: a large push is sent from a file, a fetch is
//! indexed as it comes, and neither is ever held whole. Redirects are followed here and not by the client, because
//! what may be sent to the next URL depends on what it is: a secret goes to the origin it is bound to and nowhere else.

mod answer;
mod client;
mod client_cert;
mod failure;
mod forward;
mod proxy;
mod push;
mod redirect;
mod refs;

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use ureq::{Agent, SendBody};

pub(crate) use self::answer::Incoming;
pub use self::answer::{EndsLater, end_answers_later};
use self::answer::{Tail, drain, words_of};
use self::failure::{broken, explain, lasting};
use super::config::GitConfig;
use super::credentials::{Authorization, Credentials};
use super::progress::Meter;
use super::protocol::refs::Listing;
use super::spool::Spool;
use super::url::{HttpUrl, Origin};
use super::{Env, Limits, Options, answers, redact};
use crate::error::Error;

/// Requests below this size are not worth compressing (git's own threshold).
const WORTH_GZIP: usize = 1024;
const MOST_REDIRECTS: usize = 5;

/// A smart HTTP remote for one pass.
#[derive(Debug)]
pub(crate) struct Http {
    credentials: Credentials,
    env: Env,
    /// The remote's name.
    remote: Option<String>,
    config: GitConfig,
    limits: Limits,
    meter: Arc<Meter>,
    state: Mutex<State>,
    tail: Arc<Mutex<Option<Tail>>>,
}

#[derive(Debug)]
struct State {
    /// Where the repository is, redirects included.
    base: HttpUrl,
    /// What is sent to the home origin.
    authorization: Option<Authorization>,
    /// The tokens were looked for.
    looked: bool,
    /// The helpers were asked: that happens once.
    asked: bool,
    /// A request with what is now in `authorization` was answered well.
    proven: bool,
    /// Whether the server answers protocol v2. Unknown until asked.
    speaks_v2: Option<bool>,
    /// It left a request in protocol v2 unanswered, and answered an older one.
    silent: bool,
    /// What a server without v2 has listed.
    listing: Option<Listing>,
    agent: Option<(Origin, Agent)>,
    /// The proxy that this agent goes through, fit to be printed.
    proxy: Option<String>,
    /// The folders of authorities are read too.
    every_authority: bool,
}

/// What to send.
enum Body<'a> {
    Nothing,
    Whole(&'a [u8]),
    /// A command and its pack.
    Push(&'a [u8], &'a Spool),
}

/// One thing asked of the server.
struct Request<'a> {
    /// Below the repository's URL.
    below: &'a str,
    /// Of the request's body; none for a GET.
    content_type: Option<&'a str>,
    /// What a git server answers with; anything else is no git server.
    expects: &'a str,
    v2: bool,
    gzip: bool,
    /// How long the answer may take to begin.
    patience: Option<Duration>,
}

impl Http {
    /// `v2`: false where it is known that the server has no protocol v2.
    pub fn new(
        url: HttpUrl,
        config: &GitConfig,
        options: &Options,
        limits: Limits,
        meter: Arc<Meter>,
        v2: bool,
    ) -> Http {
        Http {
            credentials: Credentials::new(&url, config, options, limits.clone()),
            env: options.env.clone(),
            remote: options.remote.clone(),
            config: config.clone(),
            limits,
            meter,
            state: Mutex::new(State {
                base: url,
                authorization: None,
                looked: false,
                asked: false,
                proven: false,
                speaks_v2: (!v2).then_some(false),
                silent: false,
                listing: None,
                agent: None,
                proxy: None,
                every_authority: false,
            }),
            tail: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the server left a request in protocol v2 unanswered, and answered an older one.
    pub fn is_silent_to_v2(&self) -> bool {
        self.state().silent
    }

    /// A URL with the proxy through which it is asked, for a sentence.
    fn through(&self, url: &str) -> String {
        failure::through(url, self.state().proxy.as_deref())
    }

    fn broken(&self, e: io::Error, url: &str) -> Error {
        broken(e, url, &self.limits)
    }

    /// Sends a request, with the credentials that are for it, along the redirects that may be followed.
    fn exchange(&self, request: &Request<'_>, body: &Body<'_>) -> Result<Incoming, Failed> {
        let mut redirects = 0;
        loop {
            let base = self.state().base.clone();
            let url = base.join(request.below);
            let shown = redact::url(&base.clean());
            let at_home = base.origin == *self.credentials.home();
            let authorization = if at_home { self.authorization()? } else { None };
            let response = self.send(&base.origin, &url, request, authorization.as_ref(), at_home, body, &shown)?;
            let status = response.status().as_u16();
            match status {
                200..=299 => {
                    self.state().proven = true;
                    return self.accept(request, response, shown);
                }
                301 | 302 | 303 | 307 | 308 => {
                    redirects += 1;
                    let location = response.headers().get(LOCATION).map(|l| l.as_bytes().to_vec()).unwrap_or_default();
                    if redirects > MOST_REDIRECTS {
                        return Err(
                            lasting(format!("{shown} redirects without an end"), "correct the remote's URL").into()
                        );
                    }
                    drain(response);
                    let next = self.redirected(&base, request.below, &location, authorization.as_ref(), &shown)?;
                    self.state().base = next;
                }
                401 if authorization.is_none() && at_home && !self.state().asked => {
                    drain(response);
                    self.state().asked = true;
                    let found = self.credentials.when_asked()?;
                    if found.is_none() {
                        return Err(self.refused_without_secret(&shown).into());
                    }
                    self.state().authorization = found;
                }
                401 if authorization.is_none() && at_home => return Err(self.refused_without_secret(&shown).into()),
                401 if at_home && self.has_new_secret(authorization.as_ref())? => drain(response),
                401 if !at_home => {
                    let home = self.credentials.home();
                    let what = format!(
                        "{home} redirects to {shown}, which asks for credentials; those for {home} do not go there"
                    );
                    return Err(lasting(what, "set the remote's URL to where it redirects to").into());
                }
                _ => {
                    let throttled = response.headers().contains_key(RETRY_AFTER)
                        || response.headers().get("x-ratelimit-remaining").is_some_and(|v| v.as_bytes() == b"0");
                    let said = words_of(response);
                    let source = authorization.as_ref().map(|a| a.source.as_str());
                    let url = self.through(&shown);
                    let failure = answers::HttpFailure { status, url: &url, said: &said, source, throttled };
                    let mut error = answers::http_status(&failure);
                    if source.is_none() && matches!(status, 403 | 404) {
                        self.name_withheld(&mut error);
                    }
                    let final_word = throttled || (matches!(status, 401 | 403) && source.is_some());
                    return Err(Failed { error, status: Some(status), not_git: false, silent: false, final_word });
                }
            }
        }
    }

    fn refused_without_secret(&self, url: &str) -> Error {
        let url = self.through(url);
        let why = self.credentials.why_none();
        lasting(format!("{url} asks for credentials, and {why}"), &self.credentials.what_next())
    }

    /// A server that refuses us may do so for want of the token that was not sent.
    fn name_withheld(&self, error: &mut Error) {
        if let Some(withheld) = self.credentials.withheld() {
            error.what.push_str(&format!("; {withheld}"));
            error.next = self.credentials.remedy();
        }
    }

    fn authorization(&self) -> Result<Option<Authorization>, Error> {
        let mut state = self.state();
        if !state.looked {
            state.authorization = self.credentials.at_once()?;
            state.looked = true;
        }
        Ok(state.authorization.clone())
    }

    /// Returns whether the secret has been replaced since it was last accepted, as where a token file is written anew
    /// during a long job. It is then used from here on.
    fn has_new_secret(&self, refused: Option<&Authorization>) -> Result<bool, Error> {
        if !self.state().proven {
            return Ok(false);
        }
        let now = self.credentials.at_once()?;
        let is_new = now.is_some() && now.as_ref().map(|now| &now.header) != refused.map(|refused| &refused.header);
        if is_new {
            let mut state = self.state();
            (state.authorization, state.proven) = (now, false);
        }
        Ok(is_new)
    }

    #[allow(clippy::too_many_arguments, reason = "one call, whose parts all differ from try to try")]
    fn send(
        &self,
        origin: &Origin,
        url: &str,
        request: &Request<'_>,
        authorization: Option<&Authorization>,
        at_home: bool,
        body: &Body<'_>,
        shown: &str,
    ) -> Result<ureq::http::Response<ureq::Body>, Failed> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tail) = tail {
            tail.read_out();
        }
        let left = self.limits.left(shown)?;
        let mut headers = vec![("Accept", request.expects.to_owned())];
        if let Some(authorization) = authorization {
            headers.push(("Authorization", authorization.header.clone()));
        }
        let extra = if at_home { self.credentials.extra_headers() } else { Vec::new() };
        headers.extend(extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
        if request.v2 {
            headers.push(("Git-Protocol", "version=2".to_owned()));
        }
        loop {
            let agent = self.agent(origin)?;
            match self.attempt(&agent, url, request, &headers, left, body) {
                // Nothing of the body is sent before the connection is secure.
                Err(e) if self.knows_more_authorities(&e) => self.state().agent = None,
                Err(e) => {
                    let silent =
                        request.patience.is_some() && matches!(e, ureq::Error::Timeout(ureq::Timeout::RecvResponse));
                    let e = client::alert_behind(&agent, url, &e, left).unwrap_or(e);
                    let error = explain(&e, shown, &self.limits, self.state().proxy.as_deref());
                    return Err(Failed { silent, ..error.into() });
                }
                Ok(response) => return Ok(response),
            }
        }
    }

    fn attempt(
        &self,
        agent: &Agent,
        url: &str,
        request: &Request<'_>,
        headers: &[(&str, String)],
        left: Duration,
        body: &Body<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        match request.content_type {
            None => {
                let mut get = agent.get(url).config().timeout_global(Some(left)).build();
                get = get.header("Pragma", "no-cache");
                for (name, value) in headers {
                    get = get.header(*name, value);
                }
                get.call()
            }
            Some(content_type) => {
                let post = agent.post(url).config().timeout_global(Some(left));
                let mut post = match request.patience {
                    Some(patience) => post.timeout_recv_response(Some(patience)).build(),
                    None => post.build(),
                };
                post = post.header(CONTENT_TYPE, content_type);
                for (name, value) in headers {
                    post = post.header(*name, value);
                }
                match body {
                    Body::Nothing => post.send(&[][..]),
                    Body::Whole(bytes) => match gzipped(bytes).filter(|_| request.gzip) {
                        Some(small) => post.header("Content-Encoding", "gzip").send(&small[..]),
                        None => post.send(*bytes),
                    },
                    Body::Push(command, pack) => {
                        let length = command.len() as u64 + pack.length();
                        let mut reader = Counted(command.chain(pack.reader()), &self.meter);
                        post.header(CONTENT_LENGTH, length).send(SendBody::from_reader(&mut reader))
                    }
                }
            }
        }
    }

    /// The answer, if it is a git server's.
    fn accept(
        &self,
        request: &Request<'_>,
        response: ureq::http::Response<ureq::Body>,
        url: String,
    ) -> Result<Incoming, Failed> {
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(request.expects) {
            let error = lasting(
                format!("{url} answered `{}`, not as a git server does", redact::text(content_type.as_bytes())),
                "see that the remote's URL is that of a git repository, and that no login page stands before it",
            );
            return Err(Failed { not_git: true, ..error.into() });
        }
        Ok(Incoming {
            reader: Some(response.into_body().into_reader()),
            tail: self.tail.clone(),
            limits: self.limits.clone(),
            meter: self.meter.clone(),
            url,
            over: false,
        })
    }
}

/// Counts what is sent.
struct Counted<'m, R>(R, &'m Meter);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.sent(n);
        Ok(n)
    }
}

fn gzipped(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < WORTH_GZIP {
        return None;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// A failed exchange; what the caller may still make of it.
struct Failed {
    error: Error,
    status: Option<u16>,
    not_git: bool,
    /// It took the request and did not begin an answer in the time that it had for that.
    silent: bool,
    /// Asking another way gets no other answer.
    final_word: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, status: None, not_git: false, silent: false, final_word: false }
    }
}
