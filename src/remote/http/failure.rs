//! What the HTTP client or TLS failed with, told so that a person knows what to do.

use std::io;

use crate::error::{Error, Kind};
use crate::remote::{Limits, answers, redact};

/// The error within an error of a stream.
pub(super) fn broken(e: io::Error, url: &str, limits: &Limits) -> Error {
    if let Some(known) = Error::within(&e) {
        return known;
    }
    match e.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(inner) => explain(inner, url, limits, None),
        None => explain(&ureq::Error::Io(e), url, limits, None),
    }
}

const PROXY_CREDENTIALS: &str = "put the proxy's user and password into its URL (remote.<name>.proxy, http.proxy, https_proxy): http://user:password@host:port";

const PROXY_RULES: &str = "have the proxy let gitsync connect to that host and port, or name the host in NO_PROXY";

/// A URL with the proxy through which it is asked, for a sentence.
pub(super) fn through(url: &str, proxy: Option<&str>) -> String {
    proxy.map_or_else(|| url.to_owned(), |proxy| format!("{url} (through the proxy {proxy})"))
}

/// Sorts what the client failed with. `proxy`: the one it went through.
pub(super) fn explain(e: &ureq::Error, url: &str, limits: &Limits, proxy: Option<&str>) -> Error {
    use ureq::Error as E;
    let url = &*through(url, proxy);
    let passing = |what: String, next: &str| {
        let next = match proxy {
            Some(_) => {
                "see that the proxy is up, and its address right (remote.<name>.proxy, http.proxy, https_proxy); the next pass \
                 tries again"
            }
            None => next,
        };
        Error { kind: Kind::Unreachable, what, next: next.to_owned() }
    };
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
        E::Io(io) if proxy.is_some() && refused_by_socks(io).is_some() => {
            let next = refused_by_socks(io).unwrap_or(again);
            lasting(format!("no connection to {url}: {}", redact::text(io.to_string().as_bytes())), next)
        }
        E::Io(io) => {
            if let Some(known) = Error::within(io) {
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
            let what = format!("no connection to {url}: {why}");
            let answered = |status: &str| why.contains(&format!("responded {status}"));
            if answered("401") || answered("407") {
                lasting(what, PROXY_CREDENTIALS)
            } else if answered("403") {
                lasting(what, PROXY_RULES)
            } else {
                passing(what, again)
            }
        }
        E::BadUri(_) | E::Http(_) => lasting(format!("{url} is no URL that can be asked"), "correct the remote's URL"),
        E::Protocol(_) | E::LargeResponseHeader(..) | E::Decompress(..) | E::BodyStalled => passing(
            format!("{url} answered what is no HTTP, or half of it: {}", redact::text(e.to_string().as_bytes())),
            "if it goes on, see that host and port of the remote's URL are those of a web server; the next pass tries again",
        ),
        _ => passing(format!("talking to {url}: {}", redact::text(e.to_string().as_bytes())), again),
    }
}

/// What to do where a SOCKS proxy lets nobody through, or not us, or not to that host.
fn refused_by_socks(e: &io::Error) -> Option<&'static str> {
    let said = |words: &str| e.to_string().contains(words);
    if e.kind() == io::ErrorKind::PermissionDenied || said("no acceptable auth methods") {
        return Some(PROXY_CREDENTIALS);
    }
    said("not allowed by ruleset").then_some(PROXY_RULES)
}

/// The TLS error within, wherever the client put it.
pub(super) fn rustls_error(e: &ureq::Error) -> Option<&rustls::Error> {
    match e {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(io) => {
            let inner = io.get_ref()?;
            inner.downcast_ref::<rustls::Error>().or_else(|| rustls_error(inner.downcast_ref::<ureq::Error>()?))
        }
        _ => None,
    }
}

fn tls_trouble(e: &rustls::Error, url: &str) -> Error {
    use rustls::{AlertDescription as Alert, CertificateError as C, Error as E};
    let why = redact::text(e.to_string().as_bytes());
    let (kind, next) = match e {
        E::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => (
            Kind::Refused,
            "if the server's own authority is to be trusted, give its certificate in http.sslCAInfo or SSL_CERT_FILE",
        ),
        E::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => (Kind::Refused, "see that this machine's clock is right, else the server needs a new certificate"),
        E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            (Kind::Refused, "see that the remote's URL names the host the certificate is for")
        }
        E::AlertReceived(
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => (
            Kind::Refused,
            "the server wants a client certificate that it knows: set http.sslCert and http.sslKey (GIT_SSL_CERT, GIT_SSL_KEY)",
        ),
        E::InvalidCertificate(_) | E::NoCertificatesPresented => {
            (Kind::Refused, "the server needs a certificate that is valid")
        }
        E::PeerIncompatible(_) => (Kind::Refused, "the server needs TLS 1.2 or 1.3"),
        // What it sent is no TLS record at all: most likely an answer in plain http.
        E::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            let what = format!("{url} does not speak TLS: it answered in plain text");
            let next = "see that the remote's URL has the right port, that of https, or set it to http:// where the server has no \
                        https; the next pass tries again";
            return Error::new(Kind::Unreachable, what, next);
        }
        E::InvalidMessage(_) => (
            Kind::Unreachable,
            "if it goes on, see that the remote's URL has the right port, and https:// only where the server has it; the next \
             pass tries again",
        ),
        _ => (Kind::Unreachable, "nothing: the next pass tries again"),
    };
    Error { kind, what: format!("no secure connection to {url}: {why}"), next: next.to_owned() }
}

pub(super) fn lasting(what: String, next: &str) -> Error {
    Error { kind: Kind::Refused, what, next: next.to_owned() }
}
