//! Smart HTTP on ureq and rustls.
//!
//! One exchange at a time over a kept connection, streaming both ways: a push is sent as it is packed, a fetch is
//! indexed as it comes, and neither is ever held whole. Redirects are followed here and not by the client, because
//! what may be sent to the next URL depends on what it is: a secret goes to the origin it is bound to and nowhere else.

use std::io::{self, Cursor, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use git2::Oid;
use ureq::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, BodyReader, ProxyProtocol, SendBody};

use super::config::GitConfig;
use super::credentials::{Authorization, Credentials};
use super::pktline::{self, Bad, Packets, ValidUtf8};
use super::progress::Meter;
use super::url::{HttpUrl, Origin, Remote, Scheme};
use super::{Env, Kind, Limits, Options, TransportError, answers, redact};

/// Up to here a push is sent with its length, as one piece that can be sent again; beyond it is streamed.
const WHOLE: usize = 1 << 20;
/// What a streamed push is cut into.
const PIECE: usize = 64 << 10;
/// Requests below this size are not worth compressing (git's own threshold).
const WORTH_GZIP: usize = 1024;
const MOST_REDIRECTS: usize = 5;
/// What is read or written at a time.
const BUFFER: usize = 16 << 10;
/// Servers know a git by this.
const USER_AGENT: &str = concat!("git/2.40 (gitsync/", env!("CARGO_PKG_VERSION"), ")");

/// A smart HTTP remote for one pass.
#[derive(Debug)]
pub(crate) struct Http {
    credentials: Credentials,
    env: Env,
    config: GitConfig,
    limits: Limits,
    meter: Arc<Meter>,
    state: Mutex<State>,
    tail: Arc<Mutex<Option<Tail>>>,
}

/// An answer that has been read up to what matters; its end is still to come.
struct Tail(BodyReader<'static>);

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tail")
    }
}

impl Tail {
    /// Only an answer that is read to its end gives its connection back for the next request, and over https that is
    /// worth two round trips; and a server is not hung up on.
    fn read_out(mut self) {
        let _ = self.0.read(&mut [0]);
    }
}

/// Ends that are still to come when their session is over, while somebody will see to them.
static TAILS: Mutex<Option<Vec<Tail>>> = Mutex::new(None);

/// While the answer lives, a session that is over does not wait for the end of its last answer; the answer does, when it goes.
///
/// A server ends its answer when its git has ended, a good while after the last word. What is left to do meanwhile is done
/// in that time.
pub fn end_answers_later() -> EndsLater {
    *TAILS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    EndsLater(())
}

/// See [`end_answers_later`].
#[must_use = "dropping it waits for the ends"]
pub struct EndsLater(());

impl Drop for EndsLater {
    fn drop(&mut self) {
        let tails = TAILS.lock().unwrap_or_else(PoisonError::into_inner).take();
        tails.into_iter().flatten().for_each(Tail::read_out);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let Some(tail) = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if let Some(tails) = &mut *TAILS.lock().unwrap_or_else(PoisonError::into_inner) {
            tails.push(tail);
            return;
        }
        tail.read_out();
    }
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
    /// Does the server answer protocol v2? Unknown until asked.
    speaks_v2: Option<bool>,
    agent: Option<(Origin, Agent)>,
    /// The folders of authorities are read too.
    every_authority: bool,
}

/// What a server made of a question in protocol v2.
enum V2 {
    Found(Vec<(String, Oid)>),
    /// It said `ERR`, which may be of the question or of the repository: the old way tells.
    Refused(String),
    /// It did not answer as v2 would.
    Unknown,
}

/// What to send.
enum Body<'a> {
    Nothing,
    /// Can be sent again after a redirect or a 401.
    Whole(&'a [u8]),
    /// Can be sent once.
    Stream(Pieces),
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
}

impl Http {
    pub fn new(url: HttpUrl, config: &GitConfig, options: &Options, limits: Limits, meter: Arc<Meter>) -> Http {
        Http {
            credentials: Credentials::new(&url, config, options, limits.clone()),
            env: options.env.clone(),
            config: config.clone(),
            limits,
            meter,
            state: Mutex::new(State {
                base: url,
                authorization: None,
                looked: false,
                asked: false,
                proven: false,
                speaks_v2: None,
                agent: None,
                every_authority: false,
            }),
            tail: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Did the server answer v2 in this pass?
    pub fn speaks_v2(&self) -> bool {
        self.state().speaks_v2 == Some(true)
    }

    /// The tips of these refs, of those that are there.
    pub fn tips(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, TransportError> {
        let mut words = None;
        if self.state().speaks_v2 != Some(false) {
            match self.tips_by_v2(refnames)? {
                V2::Found(found) => {
                    self.state().speaks_v2 = Some(true);
                    return Ok(found);
                }
                V2::Refused(said) => words = Some(said),
                V2::Unknown => {}
            }
            tracing::debug!("the server does not answer protocol v2; asking the old way in this pass");
            self.state().speaks_v2 = Some(false);
        }
        self.advertised_tips(refnames).map_err(|error| {
            let Some(words) = words else { return error };
            let said = answers::server_said(&redact::url(&self.state().base.clean()), &words);
            match error.kind {
                Kind::Lasting => said,
                Kind::Passing => {
                    TransportError { what: format!("{}; before that, {}", error.what, said.what), ..error }
                }
            }
        })
    }

    fn advertised_tips(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, TransportError> {
        let answer = self.advertisement("git-upload-pack")?;
        let url = answer.url.clone();
        pktline::read_advertisement(&mut Packets::new(answer), refnames, true).map_err(|bad| self.bad(bad, &url))
    }

    /// One POST, nothing before it.
    fn tips_by_v2(&self, refnames: &[&str]) -> Result<V2, TransportError> {
        let body = pktline::ls_refs_request(refnames);
        let answer = match self.exchange(&upload_pack(true), Body::Whole(&body)) {
            Ok(answer) => answer,
            // It is about the secret or about how often we ask: sending the same once more would only make it worse.
            Err(Failed { final_word: true, error, .. }) => return Err(error),
            // What servers without v2, or without this way of asking, answer such a POST with.
            Err(Failed { status: Some(400 | 403 | 404 | 405 | 406 | 411 | 415 | 422 | 500 | 501), .. })
            | Err(Failed { not_git: true, .. }) => return Ok(V2::Unknown),
            Err(failed) => return Err(failed.error),
        };
        let url = answer.url.clone();
        match pktline::read_ls_refs(&mut Packets::new(answer), refnames) {
            Ok(found) => Ok(V2::Found(found)),
            Err(Bad::Io(e)) => Err(self.bad(Bad::Io(e), &url)),
            Err(Bad::Malformed(_)) => Ok(V2::Unknown),
            Err(Bad::Refused(words)) => Ok(V2::Refused(words)),
        }
    }

    /// `GET info/refs`.
    pub fn advertisement(&self, service: &str) -> Result<Incoming, TransportError> {
        let request = Request {
            below: &format!("info/refs?service={service}"),
            content_type: None,
            expects: &format!("application/x-{service}-advertisement"),
            v2: false,
            gzip: false,
        };
        self.exchange(&request, Body::Nothing).map_err(|failed| failed.error)
    }

    fn bad(&self, bad: Bad, url: &str) -> TransportError {
        match bad {
            Bad::Io(e) => self.broken(e, url),
            Bad::Refused(words) => answers::server_said(url, &words),
            // Cut short somewhere, by the server or on the way.
            Bad::Malformed(why) => TransportError {
                kind: Kind::Passing,
                what: format!("{url} answered what is no list of refs: {why}"),
                next: "nothing: the next pass tries again; if it goes on, see that the URL is a git repository's"
                    .to_owned(),
            },
        }
    }

    fn broken(&self, e: io::Error, url: &str) -> TransportError {
        broken(e, url, &self.limits)
    }

    /// Sends a request, with the credentials that are for it, along the redirects that may be followed.
    fn exchange(&self, request: &Request<'_>, mut body: Body<'_>) -> Result<Incoming, Failed> {
        let mut redirects = 0;
        loop {
            let base = self.state().base.clone();
            let url = base.join(request.below);
            let shown = redact::url(&base.clean());
            let at_home = base.origin == *self.credentials.home();
            let authorization = if at_home { self.authorization()? } else { None };
            let response =
                self.send(&base.origin, &url, request, authorization.as_ref(), at_home, &mut body, &shown)?;
            let status = response.status().as_u16();
            let repeatable = !matches!(body, Body::Stream(_));
            match status {
                200..=299 => {
                    self.state().proven = true;
                    return self.accept(request, response, shown);
                }
                301 | 302 | 303 | 307 | 308 if repeatable => {
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
                401 if repeatable && authorization.is_none() && at_home && !self.state().asked => {
                    drain(response);
                    self.state().asked = true;
                    let found = self.credentials.when_asked()?;
                    if found.is_none() {
                        return Err(self.refused_without_secret(&shown).into());
                    }
                    self.state().authorization = found;
                }
                401 if authorization.is_none() && at_home => return Err(self.refused_without_secret(&shown).into()),
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
                    let failure = answers::HttpFailure { status, url: &shown, said: &said, source, throttled };
                    let mut error = answers::http_status(&failure);
                    if source.is_none() && matches!(status, 403 | 404) {
                        self.name_withheld(&mut error);
                    }
                    let final_word = throttled || (matches!(status, 401 | 403) && source.is_some());
                    return Err(Failed { error, status: Some(status), not_git: false, final_word });
                }
            }
        }
    }

    fn refused_without_secret(&self, url: &str) -> TransportError {
        let next = match self.credentials.withheld() {
            Some(_) => self.credentials.remedy(),
            None => format!("set GIT_SYNC_TOKEN or --token-file to a token for it; {}", answers::RIGHTS),
        };
        lasting(format!("{url} asks for credentials, and {}", self.credentials.why_none()), &next)
    }

    /// A server that refuses us may do so for want of the token that was not sent.
    fn name_withheld(&self, error: &mut TransportError) {
        if let Some(withheld) = self.credentials.withheld() {
            error.what.push_str(&format!("; {withheld}"));
            error.next = self.credentials.remedy();
        }
    }

    fn authorization(&self) -> Result<Option<Authorization>, TransportError> {
        let mut state = self.state();
        if !state.looked {
            state.authorization = self.credentials.at_once()?;
            state.looked = true;
        }
        Ok(state.authorization.clone())
    }

    #[allow(clippy::too_many_arguments, reason = "one call, whose parts all differ from try to try")]
    fn send(
        &self,
        origin: &Origin,
        url: &str,
        request: &Request<'_>,
        authorization: Option<&Authorization>,
        at_home: bool,
        body: &mut Body<'_>,
        shown: &str,
    ) -> Result<ureq::http::Response<ureq::Body>, TransportError> {
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
                result => return result.map_err(|e| explain(&e, shown, &self.limits)),
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
        body: &mut Body<'_>,
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
                let mut post = agent.post(url).config().timeout_global(Some(left)).build();
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
                    Body::Stream(pieces) => post.send(SendBody::from_reader(pieces)),
                }
            }
        }
    }

    /// Folders of authorities hold a file for each, and the bundle has them all already but for what somebody put
    /// there by hand. So they are read, which takes as long as all the rest of a poll, when an issuer is not known, or is
    /// known by a name that another one bears too, as one that was renewed does.
    fn knows_more_authorities(&self, e: &ureq::Error) -> bool {
        use rustls::CertificateError::{BadSignature, UnknownIssuer};
        let unknown = matches!(rustls_error(e), Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)));
        let mut state = self.state();
        if state.every_authority || !unknown {
            return false;
        }
        state.every_authority = true;
        true
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
            return Err(Failed { error, status: None, not_git: true, final_word: false });
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

    /// Where a redirect leads, if it may be followed.
    fn redirected(
        &self,
        from: &HttpUrl,
        below: &str,
        location: &[u8],
        authorization: Option<&Authorization>,
        shown: &str,
    ) -> Result<HttpUrl, TransportError> {
        let printable = redact::text(location);
        let nowhere = || {
            lasting(
                format!("{shown} redirects to `{printable}`, which is no git repository's URL"),
                "correct the remote's URL",
            )
        };
        let location = std::str::from_utf8(location).map_err(|_| nowhere())?;
        let absolute = if location.starts_with("//") {
            format!("{}:{location}", from.origin.scheme.as_str())
        } else if location.starts_with('/') {
            format!("{}{location}", from.origin)
        } else {
            location.to_owned()
        };
        let without_query = absolute.split('?').next().unwrap_or_default();
        let service = below.split('?').next().unwrap_or_default();
        let base = without_query.strip_suffix(service).and_then(|b| b.strip_suffix('/')).ok_or_else(nowhere)?;
        let Ok(Remote::Http(mut next)) = Remote::parse(base, Path::new("/")) else { return Err(nowhere()) };
        // A redirect has no say in who we are.
        (next.user, next.secret) = (from.user.clone(), None);
        if next.origin != from.origin {
            let to = &next.origin;
            if from.origin.scheme == Scheme::Https && to.scheme == Scheme::Http {
                return Err(lasting(
                    format!("{shown} redirects from https to plain http ({to}), which is not followed"),
                    "correct the remote's URL",
                ));
            }
            if authorization.is_some() || !self.credentials.extra_headers().is_empty() {
                return Err(lasting(
                    format!("{shown} redirects to another host ({to}), where its credentials do not go"),
                    &format!("if {to} is to be trusted, set the remote's URL to it"),
                ));
            }
        }
        tracing::debug!(to = redact::url(&next.clean()), "following a redirect");
        Ok(next)
    }

    fn agent(&self, origin: &Origin) -> Result<Agent, TransportError> {
        if let Some((_, agent)) = self.state().agent.as_ref().filter(|(o, _)| o == origin) {
            return Ok(agent.clone());
        }
        let proxy = self.proxy(origin)?;
        let secure =
            origin.scheme == Scheme::Https || proxy.as_ref().is_some_and(|p| p.protocol() == ProxyProtocol::Https);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            // The client clears its buffers before use: at its own size, 128 KB each, that alone is a tenth of a poll.
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .proxy(proxy)
            .timeout_resolve(Some(self.limits.idle))
            .timeout_connect(Some(self.limits.idle))
            .timeout_per_read(Some(self.limits.idle))
            .timeout_per_write(Some(self.limits.idle));
        if secure {
            config = config.tls_config(self.tls());
        }
        let agent = Agent::with_parts(config.build(), DefaultConnector::default(), Names::default());
        self.state().agent = Some((origin.clone(), agent.clone()));
        Ok(agent)
    }

    /// The authorities: the system's, and those of SSL_CERT_FILE, SSL_CERT_DIR, GIT_SSL_CAINFO and http.sslCAInfo besides.
    fn tls(&self) -> ureq::tls::TlsConfig {
        let (base, every) = {
            let state = self.state();
            (state.base.clone(), state.every_authority)
        };
        let configured = |key| self.config.one("http", key, &base).filter(|v| !v.is_empty()).map(PathBuf::from);
        let named = |name| self.env.get(name).map(PathBuf::from);
        let bundle = system_bundle();
        let mut found = match bundle {
            Some(bundle) => vec![rustls_native_certs::load_certs_from_paths(Some(bundle), None)],
            None => vec![rustls_native_certs::load_native_certs()],
        };
        let files = [named("SSL_CERT_FILE"), named("GIT_SSL_CAINFO"), configured("sslcainfo")];
        for file in files.iter().flatten().filter(|file| Some(file.as_path()) != bundle) {
            found.push(rustls_native_certs::load_certs_from_paths(Some(file), None));
        }
        if every {
            found.push(rustls_native_certs::load_native_certs());
            let dirs = self.env.get("SSL_CERT_DIR").into_iter().flat_map(std::env::split_paths);
            for dir in dirs.chain(named("GIT_SSL_CAPATH")).chain(configured("sslcapath")) {
                if !dir.as_os_str().is_empty() {
                    found.push(rustls_native_certs::load_certs_from_paths(None, Some(&dir)));
                }
            }
        }
        for e in found.iter().flat_map(|found| &found.errors) {
            tracing::warn!(error = e.to_string(), "certificates could not be read");
        }
        let roots: Vec<_> = found
            .iter()
            .flat_map(|found| &found.certs)
            .map(|der| ureq::tls::Certificate::from_der(der).to_owned())
            .collect();
        ureq::tls::TlsConfig::builder()
            .provider(ureq::tls::TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(ureq::tls::RootCerts::from(roots))
            .build()
    }

    /// The proxy: git's configuration, else the environment, as curl reads it; never for this machine itself.
    fn proxy(&self, origin: &Origin) -> Result<Option<ureq::Proxy>, TransportError> {
        if origin.is_loopback() {
            return Ok(None);
        }
        let base = self.state().base.clone();
        let named = |names: &[&str]| names.iter().find_map(|n| self.env.text(n)).map(str::to_owned);
        let from_env = || match origin.scheme {
            // Not HTTP_PROXY: in a CGI it is what the client sent as `Proxy:`.
            Scheme::Http => named(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            Scheme::Https => named(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        };
        let proxy = match self.config.one("http", "proxy", &base) {
            // Git reads an empty one as "none".
            Some("") => return Ok(None),
            Some(proxy) => proxy.to_owned(),
            None => match from_env() {
                Some(proxy) => proxy,
                None => return Ok(None),
            },
        };
        if named(&["no_proxy", "NO_PROXY"]).is_some_and(|list| spared(&list, origin)) {
            return Ok(None);
        }
        if let Some((userinfo, _)) = proxy.rsplit_once('@')
            && let Some((_, secret)) = userinfo.rsplit_once(':')
        {
            redact::register_secret(secret);
        }
        let none = || {
            lasting(
                format!("the proxy {} is none that gitsync can use", redact::url(&proxy)),
                "set HTTPS_PROXY or http.proxy to http://host:port",
            )
        };
        let usable = ureq::Proxy::new(&proxy).map_err(|_| none())?;
        // The client would go there directly instead.
        match usable.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => Ok(Some(usable)),
            _ => Err(lasting(
                format!("the proxy {} is a SOCKS proxy, which gitsync can't use for http", redact::url(&proxy)),
                "set HTTPS_PROXY or http.proxy to an http:// proxy, name the host in NO_PROXY, or use an ssh:// URL whose \
                 ssh goes through the proxy (ProxyCommand)",
            )),
        }
    }
}

/// Looks names up, in a thread that can be given up on. An address is none and needs no thread, whose start alone is a
/// good part of a poll on a busy machine.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let address = uri.host().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        let port = uri.port_u16().or_else(|| match uri.scheme_str() {
            Some("http") => Some(Scheme::Http.default_port()),
            Some("https") => Some(Scheme::Https.default_port()),
            _ => None,
        });
        match (address, port) {
            (Some(address), Some(port)) => {
                let mut found = self.empty();
                found.push(SocketAddr::new(address, port));
                Ok(found)
            }
            // Whichever time is up, it was the name that was waited for.
            _ => self.0.resolve(uri, config, timeout).map_err(|e| match e {
                ureq::Error::Timeout(_) => ureq::Error::Timeout(ureq::Timeout::Resolve),
                e => e,
            }),
        }
    }
}

/// Is the host on a NO_PROXY list? `*`; a name, or a domain's end, with or without its dot; an address, in whatever way it
/// is written, or a block of addresses (`10.0.0.0/8`); each with a port or without.
fn spared(list: &str, origin: &Origin) -> bool {
    let address = origin.host.parse::<IpAddr>().ok();
    list.split([',', ' ']).map(|e| e.trim().to_ascii_lowercase()).filter(|e| !e.is_empty()).any(|entry| {
        let (name, port) = match entry.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or(port)),
            // More than one colon is an IPv6 address's.
            None => entry.split_once(':').filter(|(_, port)| !port.contains(':')).unwrap_or((&entry, "")),
        };
        if !port.is_empty() && port.parse() != Ok(origin.port) {
            return false;
        }
        match address {
            Some(address) => name == "*" || in_block(address, name),
            None => {
                let name = name.trim_start_matches("*.").trim_start_matches('.');
                name == "*"
                    || origin.host == name
                    || origin.host.strip_suffix(name).is_some_and(|front| front.ends_with('.'))
            }
        }
    })
}

/// Is it this address, or one of this block?
fn in_block(address: IpAddr, block: &str) -> bool {
    let (first, bits) = block.split_once('/').map_or((block, None), |(first, bits)| (first, Some(bits)));
    let (Ok(first), Ok(bits)) = (first.parse::<IpAddr>(), bits.map(str::parse::<u32>).transpose()) else {
        return false;
    };
    let same = |a: u128, b: u128, width: u32| {
        let free = width.saturating_sub(bits.unwrap_or(width));
        // All bits free: any address.
        a.checked_shr(free).unwrap_or(0) == b.checked_shr(free).unwrap_or(0)
    };
    match (address, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The bundle that distributions keep, where there is one.
fn system_bundle() -> Option<&'static Path> {
    const BUNDLES: &[&str] = &[
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
        "/usr/local/share/certs/ca-root-nss.crt",
    ];
    // macOS has its keychain.
    BUNDLES.iter().map(Path::new).find(|p| p.exists()).filter(|_| cfg!(not(target_os = "macos")))
}

fn upload_pack(v2: bool) -> Request<'static> {
    Request {
        below: "git-upload-pack",
        content_type: Some("application/x-git-upload-pack-request"),
        expects: "application/x-git-upload-pack-result",
        v2,
        gzip: !v2,
    }
}

const RECEIVE_PACK: Request<'static> = Request {
    below: "git-receive-pack",
    content_type: Some("application/x-git-receive-pack-request"),
    expects: "application/x-git-receive-pack-result",
    v2: false,
    gzip: false,
};

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
    error: TransportError,
    status: Option<u16>,
    not_git: bool,
    /// Asking another way gets no other answer.
    final_word: bool,
}

impl From<TransportError> for Failed {
    fn from(error: TransportError) -> Failed {
        Failed { error, status: None, not_git: false, final_word: false }
    }
}

fn lasting(what: String, next: &str) -> TransportError {
    TransportError { kind: Kind::Lasting, what, next: next.to_owned() }
}

/// Reads a short body to its end, so that the connection can be used again.
fn drain(response: ureq::http::Response<ureq::Body>) {
    let _ = io::copy(&mut response.into_body().into_reader().take(64 << 10), &mut io::sink());
}

/// What an error's body says to people, if it is for them.
fn words_of(response: ureq::http::Response<ureq::Body>) -> String {
    let plain = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().to_ascii_lowercase().starts_with(b"text/plain"));
    let mut said = Vec::new();
    let _ = response.into_body().into_reader().take(8 << 10).read_to_end(&mut said);
    if plain { redact::text(&said) } else { String::new() }
}

/// An answer's body, as it comes.
pub(crate) struct Incoming {
    reader: Option<BodyReader<'static>>,
    /// Where the reader goes when this does.
    tail: Arc<Mutex<Option<Tail>>>,
    limits: Limits,
    meter: Arc<Meter>,
    url: String,
    /// Nothing more will come: it ended or broke.
    over: bool,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming(from {})", self.url)
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        match reader.read(buffer) {
            Ok(n) => {
                self.over = n == 0 && !buffer.is_empty();
                self.meter.received(n);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                self.over = true;
                Err(io::Error::other(broken(e, &self.url, &self.limits)))
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Whoever reads packets stops at the last one.
        if let Some(reader) = self.reader.take().filter(|_| !self.over) {
            *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tail(reader));
        }
    }
}

/// The error within an error of a stream.
fn broken(e: io::Error, url: &str, limits: &Limits) -> TransportError {
    if let Some(known) = TransportError::within(&e) {
        return known;
    }
    match e.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(inner) => explain(inner, url, limits),
        None => explain(&ureq::Error::Io(e), url, limits),
    }
}

/// Sorts what the client failed with.
fn explain(e: &ureq::Error, url: &str, limits: &Limits) -> TransportError {
    use ureq::Error as E;
    let passing = |what: String, next: &str| TransportError { kind: Kind::Passing, what, next: next.to_owned() };
    let again = "nothing: the next pass tries again";
    if let Some(certificate) = rustls_error(e) {
        return tls_trouble(certificate, url);
    }
    match e {
        E::Timeout(ureq::Timeout::Resolve) => answers::no_name_in_time(url),
        E::Timeout(ureq::Timeout::Connect) => passing(
            format!("{url} did not take a connection in time"),
            "see that the network is up and no firewall swallows the connection; the next pass tries again",
        ),
        E::Timeout(_) => limits.overdue(url),
        E::HostNotFound => passing(
            format!("the name of {url} was not found"),
            "see that the host's name is right and the network up; the next pass tries again",
        ),
        E::Io(io) if io.kind() == io::ErrorKind::TimedOut => limits.overdue(url),
        E::Io(io) => {
            if let Some(known) = TransportError::within(io) {
                return known;
            }
            let why = redact::text(io.to_string().as_bytes());
            let name_unknown = why.contains("lookup address") || why.contains("resolve");
            let next = if name_unknown || io.kind() == io::ErrorKind::ConnectionRefused {
                "see that the host's name and port are right and the network up; the next pass tries again"
            } else {
                again
            };
            passing(format!("{url} cannot be reached: {why}"), next)
        }
        E::ConnectProxyFailed(why) => {
            let why = redact::text(why.as_bytes());
            if why.contains("407") {
                lasting(
                    format!("the proxy to {url} wants credentials ({why})"),
                    "put the proxy's user and password into its URL",
                )
            } else {
                passing(
                    format!("the proxy did not connect to {url} ({why})"),
                    "see that the proxy lets gitsync through; the next pass tries again",
                )
            }
        }
        E::BadUri(_) | E::Http(_) => lasting(format!("{url} is no URL that can be asked"), "correct the remote's URL"),
        E::Protocol(_) | E::LargeResponseHeader(..) | E::Decompress(..) | E::BodyStalled => passing(
            format!("{url} answered what is no HTTP, or half of it: {}", redact::text(e.to_string().as_bytes())),
            again,
        ),
        _ => passing(format!("talking to {url}: {}", redact::text(e.to_string().as_bytes())), again),
    }
}

/// The TLS error within, wherever the client put it.
fn rustls_error(e: &ureq::Error) -> Option<&rustls::Error> {
    match e {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(io) => {
            let inner = io.get_ref()?;
            inner.downcast_ref::<rustls::Error>().or_else(|| rustls_error(inner.downcast_ref::<ureq::Error>()?))
        }
        _ => None,
    }
}

fn tls_trouble(e: &rustls::Error, url: &str) -> TransportError {
    use rustls::{CertificateError as C, Error as E};
    let why = redact::text(e.to_string().as_bytes());
    let (kind, next) = match e {
        E::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            (Kind::Lasting, "if the server's own authority is to be trusted, give its certificate in SSL_CERT_FILE")
        }
        E::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => (Kind::Lasting, "see that this machine's clock is right, else the server needs a new certificate"),
        E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            (Kind::Lasting, "see that the remote's URL names the host the certificate is for")
        }
        E::InvalidCertificate(_) | E::NoCertificatesPresented => {
            (Kind::Lasting, "the server needs a certificate that is valid")
        }
        E::PeerIncompatible(_) => (Kind::Lasting, "the server needs TLS 1.2 or 1.3"),
        _ => (Kind::Passing, "nothing: the next pass tries again"),
    };
    TransportError { kind, what: format!("no secure connection to {url}: {why}"), next: next.to_owned() }
}

/// One step of a fetch: what libgit2 writes is held (it is a list of ids) and sent when it begins to read.
#[derive(Debug)]
pub(crate) struct FetchStep {
    http: Arc<Http>,
    request: Vec<u8>,
    answer: Option<Incoming>,
}

impl FetchStep {
    pub fn new(http: Arc<Http>) -> FetchStep {
        FetchStep { http, request: Vec::new(), answer: None }
    }
}

impl Write for FetchStep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.request.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for FetchStep {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.answer.is_none() {
            let answer = self.http.exchange(&upload_pack(false), Body::Whole(&self.request));
            self.answer = Some(answer.map_err(|failed| io::Error::other(failed.error))?);
        }
        match &mut self.answer {
            Some(answer) => answer.read(buffer),
            None => Ok(0),
        }
    }
}

/// A push: small ones are sent whole, larger ones as they are packed, by a thread, since the client wants to read the
/// body and libgit2 wants to write it.
#[derive(Debug)]
pub(crate) struct Push {
    http: Arc<Http>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Holding(Vec<u8>),
    Sending { pieces: SyncSender<Piece>, piece: Vec<u8>, answer: Receiver<Result<Incoming, TransportError>> },
    Reading(Box<ValidUtf8<Incoming>>),
    Over,
}

/// Part of a push, or its proper end: a sender that just goes away has given up, and then the request must break off
/// rather than end as if it were whole.
#[derive(Debug)]
enum Piece {
    Part(Vec<u8>),
    End,
}

impl Push {
    pub fn new(http: Arc<Http>) -> Push {
        Push { http, stage: Stage::Holding(Vec::new()) }
    }

    fn start(&mut self, first: Vec<u8>) -> Result<(), TransportError> {
        // A stream cannot be sent again, so whatever the server wants to ask first, it is made to ask now.
        if !self.http.state().proven || self.http.state().authorization.is_none() {
            drop(self.http.exchange(&RECEIVE_PACK, Body::Whole(b"0000")).map_err(|failed| failed.error)?);
        }
        let (pieces, rest) = sync_channel(4);
        let (tell, answer) = sync_channel(1);
        let http = self.http.clone();
        std::thread::Builder::new()
            .name("push".to_owned())
            .stack_size(crate::deadline::STACK)
            .spawn(move || {
                let body = Pieces { rest, piece: Cursor::new(Vec::new()), over: false, meter: http.meter.clone() };
                let answer = http.exchange(&RECEIVE_PACK, Body::Stream(body)).map_err(|failed| failed.error);
                let _ = tell.send(answer);
            })
            .map_err(|e| {
                lasting(format!("no thread for the push: {e}"), "see that the machine has processes to spare")
            })?;
        let _ = pieces.send(Piece::Part(first));
        self.stage = Stage::Sending { pieces, piece: Vec::with_capacity(PIECE), answer };
        Ok(())
    }

    fn given_up(answer: &Receiver<Result<Incoming, TransportError>>, url: &str) -> TransportError {
        match answer.recv() {
            Ok(Err(e)) => e,
            // It answered before it had heard all.
            Ok(Ok(_)) | Err(_) => TransportError {
                kind: Kind::Passing,
                what: format!("{url} ended the push before it was through"),
                next: "nothing: the next pass tries again".to_owned(),
            },
        }
    }

    fn url(&self) -> String {
        redact::url(&self.http.state().base.clean())
    }
}

impl Write for Push {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stage {
            Stage::Holding(held) => {
                held.extend_from_slice(bytes);
                if held.len() > WHOLE {
                    let first = std::mem::take(held);
                    self.start(first).map_err(io::Error::other)?;
                }
            }
            Stage::Sending { pieces, piece, answer } => {
                piece.extend_from_slice(bytes);
                if piece.len() >= PIECE {
                    let part = std::mem::replace(piece, Vec::with_capacity(PIECE));
                    if pieces.send(Piece::Part(part)).is_err() {
                        let shown = redact::url(&self.http.state().base.clean());
                        return Err(io::Error::other(Push::given_up(answer, &shown)));
                    }
                }
            }
            Stage::Reading(_) | Stage::Over => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Push {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !matches!(self.stage, Stage::Reading(_)) {
            let url = self.url();
            let answer = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Holding(held) => {
                    self.http.meter.sent(held.len());
                    self.http.exchange(&RECEIVE_PACK, Body::Whole(&held)).map_err(|failed| failed.error)
                }
                Stage::Sending { pieces, piece, answer } => {
                    let whole = pieces.send(Piece::Part(piece)).and_then(|()| pieces.send(Piece::End));
                    match (whole, answer.recv()) {
                        (_, Ok(answer)) => answer,
                        (_, Err(_)) => Err(Push::given_up(&answer, &url)),
                    }
                }
                Stage::Reading(_) | Stage::Over => return Ok(0),
            };
            let answer = answer.map_err(io::Error::other)?;
            self.stage = Stage::Reading(Box::new(ValidUtf8::new(answer)));
        }
        match &mut self.stage {
            Stage::Reading(answer) => answer.read(buffer),
            _ => Ok(0),
        }
    }
}

/// The body of a streamed push, as the client reads it.
struct Pieces {
    rest: Receiver<Piece>,
    piece: Cursor<Vec<u8>>,
    over: bool,
    meter: Arc<Meter>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buffer)?;
            if n > 0 || self.over {
                self.meter.sent(n);
                return Ok(n);
            }
            match self.rest.recv() {
                Ok(Piece::Part(part)) => self.piece = Cursor::new(part),
                Ok(Piece::End) => self.over = true,
                Err(_) => return Err(io::Error::other("the push was given up")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_curl_reads_it() {
        let origin = Origin { scheme: Scheme::Https, host: "git.example.com".into(), port: 443 };
        for (list, expected) in [
            ("*", true),
            ("example.com", true),
            (".example.com", true),
            ("git.example.com:443", true),
            ("*.example.com", true),
            ("git.example.com:8443", false),
            ("ample.com", false),
            ("other, git.example.com", true),
            ("", false),
        ] {
            assert_eq!(spared(list, &origin), expected, "{list}");
        }
        let [v4, v6] =
            ["192.0.2.7", "2001:db8::1"].map(|host| Origin { scheme: Scheme::Http, host: host.into(), port: 8080 });
        for (list, of_v4, of_v6) in [
            ("*", true, true),
            ("192.0.2.7", true, false),
            ("192.0.2.7:8080", true, false),
            ("192.0.2.7:80", false, false),
            // The end of an address is no domain's.
            ("0.2.7", false, false),
            (".2.7", false, false),
            ("192.0.2.0/24", true, false),
            ("192.0.3.0/24", false, false),
            ("0.0.0.0/0", true, false),
            ("192.0.2.7/x", false, false),
            ("2001:db8::1", false, true),
            ("[2001:db8::1]", false, true),
            ("[2001:DB8:0:0::1]:8080", false, true),
            ("[2001:db8::1]:80", false, false),
            ("2001:db8::/32", false, true),
            ("::/0", false, true),
            ("db8::1", false, false),
            ("::1", false, false),
        ] {
            assert_eq!((spared(list, &v4), spared(list, &v6)), (of_v4, of_v6), "{list}");
        }
    }
}
