//! The HTTP client: its limits, the authorities it trusts, how it looks names up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::ClientCert;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, ProxyProtocol};

use super::Http;
use super::failure::rustls_error;
use super::forward::{Connecting, Forward};
use crate::error::Error;
use crate::remote::credentials::warn_once;
use crate::remote::url::{Origin, Scheme};

/// What is read or written at a time.
const BUFFER: usize = 16 << 10;

/// Servers know a git by this, unless `http.userAgent` says something else.
const USER_AGENT: &str = concat!("git/2.40 (gitsync/", env!("CARGO_PKG_VERSION"), ")");

impl Http {
    pub(super) fn agent(&self, origin: &Origin) -> Result<Agent, Error> {
        if let Some((_, agent)) = self.state().agent.as_ref().filter(|(o, _)| o == origin) {
            return Ok(agent.clone());
        }
        let through = self.proxy(origin)?;
        let by =
            |protocols: &[ProxyProtocol]| through.as_ref().is_some_and(|t| protocols.contains(&t.proxy.protocol()));
        let secure = origin.scheme == Scheme::Https || by(&[ProxyProtocol::Https]);
        let forwards = origin.scheme == Scheme::Http && by(&[ProxyProtocol::Http, ProxyProtocol::Https]);
        let (proxy, shown) = through.map(|through| (through.proxy, through.shown)).unzip();
        let forward = proxy.as_ref().filter(|_| forwards).map(|proxy| Forward::new(proxy, origin));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(self.user_agent())
            // The client clears its buffers before use: at its own size, 128 KB each, that alone is a tenth of a poll.
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .proxy(proxy.filter(|_| !forwards))
            .timeout_resolve(Some(self.limits.idle))
            .timeout_connect(Some(self.limits.idle))
            .timeout_per_read(Some(self.limits.idle))
            .timeout_per_write(Some(self.limits.idle));
        if secure {
            self.refuse_to_trust_everybody();
            config = config.tls_config(self.tls(self.client_cert(origin)?));
        }
        let names = Names { resolver: DefaultResolver::default(), instead: forward.as_ref().map(|f| f.uri.clone()) };
        let connecting = Connecting { inner: DefaultConnector::default(), forward };
        let agent = Agent::with_parts(config.build(), connecting, names);
        let mut state = self.state();
        state.agent = Some((origin.clone(), agent.clone()));
        state.proxy = shown;
        Ok(agent)
    }

    fn user_agent(&self) -> String {
        let configured = self.config.one("http", "useragent", self.credentials.url());
        let named = self.env.text("GIT_HTTP_USER_AGENT").or(configured);
        named.filter(|name| !name.is_empty() && !name.chars().any(char::is_control)).unwrap_or(USER_AGENT).to_owned()
    }

    /// Says that certificates are checked although git was told not to.
    fn refuse_to_trust_everybody(&self) {
        let verify = self.config.one("http", "sslverify", self.credentials.url());
        let off = verify.is_some_and(|value| {
            value.is_empty() || matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0")
        });
        let by = match (self.env.get("GIT_SSL_NO_VERIFY"), off) {
            (Some(_), _) => "GIT_SSL_NO_VERIFY",
            (None, true) => "http.sslVerify=false",
            (None, false) => return,
        };
        warn_once(
            &format!("{by} is not honoured: the server's certificate is checked all the same"),
            "remove it; if the server has an authority of its own, name its certificate in http.sslCAInfo",
        );
    }

    /// The authorities: the system's, and those of SSL_CERT_FILE, SSL_CERT_DIR, GIT_SSL_CAINFO and http.sslCAInfo besides.
    fn tls(&self, client_cert: Option<ClientCert>) -> ureq::tls::TlsConfig {
        let (base, every) = {
            let state = self.state();
            (state.base.clone(), state.every_authority)
        };
        let configured = |key| self.config.path("http", key, &base, &self.env);
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
            .client_cert(client_cert)
            .build()
    }

    /// Folders of authorities hold a file for each, and the bundle has them all already but for what somebody put
    /// there by hand. So they are read, which takes as long as all the rest of a poll, when an issuer is not known, or is
    /// known by a name that another one bears too, as one that was renewed does.
    pub(super) fn knows_more_authorities(&self, e: &ureq::Error) -> bool {
        use rustls::CertificateError::{BadSignature, UnknownIssuer};
        let unknown = matches!(rustls_error(e), Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)));
        let mut state = self.state();
        if state.every_authority || !unknown {
            return false;
        }
        state.every_authority = true;
        true
    }
}

/// The TLS alert behind a connection that broke while a request was being sent, if there is one.
///
/// With TLS 1.3 a server refuses a client's certificate after the client has begun to send. What it says is only read when
/// there is nothing more to send, so a short request is made to hear it.
pub(super) fn alert_behind(agent: &Agent, url: &str, e: &ureq::Error, left: Duration) -> Option<ureq::Error> {
    let broke = |e: &ureq::Error| {
        let ureq::Error::Io(io) = e else { return false };
        rustls_error(e).is_none() && matches!(io.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    };
    if !url.starts_with("https:") || !broke(e) {
        return None;
    }
    // The short request may be too late to hear it, too.
    for _ in 0..3 {
        match agent.get(url).config().timeout_global(Some(left)).build().call() {
            Err(e) if rustls_error(&e).is_some() => return Some(e),
            Err(e) if broke(&e) => {}
            _ => return None,
        }
    }
    None
}

/// Looks names up, in a thread that can be given up on. An address is none and needs no thread, whose start alone is a
/// good part of a poll on a busy machine.
#[derive(Debug)]
struct Names {
    resolver: DefaultResolver,
    /// Whose addresses are wanted, whatever is asked for: the proxy that looks the host's name up itself.
    instead: Option<ureq::http::Uri>,
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let uri = self.instead.as_ref().unwrap_or(uri);
        let address = uri.host().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        let port = uri.port_u16().or_else(|| match uri.scheme_str() {
            Some("http") => Some(Scheme::Http.default_port()),
            Some("https") => Some(Scheme::Https.default_port()),
            // A SOCKS proxy's is always there.
            _ => None,
        });
        match (address, port) {
            (Some(address), Some(port)) => {
                let mut found = self.empty();
                found.push(SocketAddr::new(address, port));
                Ok(found)
            }
            // Whichever time is up, it was the name that was waited for.
            _ => self.resolver.resolve(uri, config, timeout).map_err(|e| match e {
                ureq::Error::Timeout(_) => ureq::Error::Timeout(ureq::Timeout::Resolve),
                e => e,
            }),
        }
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
