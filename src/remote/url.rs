//! A remote's URL, read the way git reads it.
//!
//! gitsync never hands a URL to libgit2 or to a shell: it takes the URL apart here, once, and each transport (http, ssh,
//! git, a path) gets the parts. What git would treat as an option or as a program to run is refused here:
//! a host or path that begins with `-`, and `helper::address`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::encoding::{decoded, decoded_bytes, percent_encode};
use super::redact;
use crate::error::{Error, Kind};

/// Where a remote is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Smart HTTP.
    Http(HttpUrl),
    /// A program on another machine, through `ssh`.
    Ssh(SshUrl),
    /// The anonymous git protocol, TCP port 9418.
    Git(GitUrl),
    /// A repository on this machine.
    Path(PathBuf),
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// Under TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port when the URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// What a secret is bound to: scheme, host and port. The same host on another port is another origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Lower case; an IPv6 address is without its brackets.
    pub host: String,
    /// Never 0; the scheme's own when the URL names none.
    pub port: u16,
}

impl Origin {
    /// Is the host this machine itself, so that nothing sent to it crosses a wire?
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| match ip {
                std::net::IpAddr::V4(v4) => v4.is_loopback(),
                std::net::IpAddr::V6(v6) => v6.is_loopback(),
            })
    }

    /// `host` or `host:port`, as a credential helper and a `Host:` header want it.
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// An `http://` or `https://` remote, its secret kept apart.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Scheme, host, port.
    pub origin: Origin,
    /// Begins with `/` unless empty, has no `/` at its end, and is fit for a request line.
    pub path: String,
    /// The user of `user@host`, decoded, if it is not itself the secret.
    pub user: Option<String>,
    /// The secret found in the URL, decoded.
    pub secret: Option<String>,
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({}{}, secret: {})", self.origin, self.path, self.secret.is_some())
    }
}

impl HttpUrl {
    /// The URL of something below the repository, such as `info/refs`.
    pub fn join(&self, below: &str) -> String {
        format!("{}{}/{below}", self.origin, self.path)
    }

    /// The URL without any secret, with the user if it names one.
    pub fn clean(&self) -> String {
        match &self.user {
            Some(user) => format!(
                "{}://{}@{}{}",
                self.origin.scheme.as_str(),
                percent_encode(user.as_bytes(), is_unreserved),
                self.origin.authority(),
                self.path
            ),
            None => format!("{}{}", self.origin, self.path),
        }
    }
}

/// A repository behind `ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshUrl {
    /// Before the `@`; never begins with `-`.
    pub user: Option<String>,
    /// A host name, an address, or an alias in `~/.ssh/config`; never begins with `-`.
    pub host: String,
    /// Only if the URL names one: an alias may name another.
    pub port: Option<u16>,
    /// As the other machine sees it; never begins with `-`.
    pub path: String,
}

/// A repository behind a git daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitUrl {
    /// Without brackets.
    pub host: String,
    /// 9418 unless named.
    pub port: u16,
    /// Begins with `/` (or `~`).
    pub path: String,
}

impl GitUrl {
    /// `host` or `host:port`, as the daemon's `host=` wants it.
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.port == 9418 { host } else { format!("{host}:{}", self.port) }
    }
}

impl Remote {
    /// Reads a remote's URL. Whoever means to use it has its secret masked by [`split_url_secret`].
    ///
    /// `relative_to`: what a relative path starts from (the work tree, as git has it).
    ///
    /// # Errors
    /// Lasting, naming what is wrong with the URL, redacted.
    pub fn parse(url: &str, relative_to: &Path) -> Result<Remote, Error> {
        if url.is_empty() {
            return Err(bad(url, "is empty"));
        }
        if url.chars().any(|c| c.is_control()) {
            return Err(bad(url, "holds control characters"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return parse_without_scheme(url, relative_to);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => parse_http(url, Scheme::Http, rest).map(Remote::Http),
            "https" => parse_http(url, Scheme::Https, rest).map(Remote::Http),
            "ssh" | "git+ssh" | "ssh+git" => parse_ssh(url, rest).map(Remote::Ssh),
            "git" => parse_git(url, rest).map(Remote::Git),
            "file" => parse_file(url, rest).map(Remote::Path),
            // A slash before the `://` makes it a path, as in `./odd://name`.
            _ if scheme.contains('/') => parse_without_scheme(url, relative_to),
            _ => Err(bad(url, "has a scheme gitsync does not speak")),
        }
    }
}

/// Takes the secret out of a URL: the URL as it may be stored, and `(user, secret)` if there was one, which is masked in every
/// text from here on.
///
/// The user is `x-access-token` where the URL gave the token in the user's place, as in `https://TOKEN@host/…`.
/// A URL that cannot be read comes back as it is.
pub fn split_url_secret(url: &str) -> (String, Option<(String, String)>) {
    match Remote::parse(url, Path::new("/")) {
        Ok(Remote::Http(mut http)) => match http.secret.take() {
            Some(secret) => {
                redact::register_secret(&secret);
                let user = http.user.take().unwrap_or_else(|| TOKEN_USER.to_owned());
                (http.clean(), Some((user, secret)))
            }
            None => (url.to_owned(), None),
        },
        // ssh takes no password from a URL, so one that is there is of no use and only to be taken out.
        _ => match url.split_once("://").and_then(|(scheme, rest)| {
            let (userinfo, host) = authority_of(rest).rsplit_once('@')?;
            let (user, secret) = userinfo.split_once(':')?;
            let tail = &rest[userinfo.len() + 1 + host.len()..];
            Some((format!("{scheme}://{user}@{host}{tail}"), decoded(user), decoded(secret)))
        }) {
            Some((clean, user, secret)) => {
                redact::register_secret(&secret);
                (clean, Some((user, secret)))
            }
            None => (url.to_owned(), None),
        },
    }
}

/// The user name that goes with a token.
pub const TOKEN_USER: &str = "x-access-token";

fn bad(url: &str, why: &str) -> Error {
    Error {
        kind: Kind::Refused,
        what: format!("the remote's URL {} {why}", redact::url(url)),
        next: "set it to an https://, http://, ssh://, git:// or file:// URL, user@host:path, or a path".to_owned(),
    }
}

fn parse_without_scheme(url: &str, relative_to: &Path) -> Result<Remote, Error> {
    let before_slash = url.split('/').next().unwrap_or_default();
    let helper = before_slash.split_once("::").map(|(name, _)| name);
    if helper.is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))) {
        return Err(bad(url, "names a remote helper, which gitsync does not run"));
    }
    if !before_slash.contains(':') {
        let path = relative_to.join(url);
        if looks_like_host(before_slash) && url.contains('/') && !path.exists() {
            let what = format!("the remote's URL {} is a path, and there is no such folder", redact::url(url));
            let next =
                format!("did you mean https://{}? (a path that is not there yet begins with ./)", redact::url(url));
            return Err(Error::new(Kind::Refused, what, next));
        }
        return Ok(Remote::Path(path));
    }
    // user@host:path, user@[::1]:path, [user@host:port]:path
    let (authority, path) = match url.find('[') {
        Some(open) if open == 0 || url.as_bytes().get(open - 1) == Some(&b'@') => {
            let close = url.find("]:").ok_or_else(|| bad(url, "has a [ without its ]:"))?;
            (format!("{}{}", &url[..open], &url[open + 1..close]), &url[close + 2..])
        }
        _ => {
            let (authority, path) = url.split_once(':').unwrap_or((url, ""));
            (authority.to_owned(), path)
        }
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host.to_owned()),
        None => (None, authority),
    };
    // Within brackets one colon is a port's, more are an IPv6 address's.
    let (host, port) = match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => {
            let port = port.parse::<u16>().map_err(|_| bad(url, "has a port that is no number"))?;
            (name.to_owned(), Some(port))
        }
        _ => (host, None),
    };
    ssh(url, user, host, port, path.to_owned()).map(Remote::Ssh)
}

/// Whether a path's first name is one that a host has: `github.com`, `git.example.org`.
fn looks_like_host(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let fits = |label: &&str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let top = labels.last().is_some_and(|top| top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic()));
    labels.len() > 1 && labels.iter().all(fits) && top && !name.to_ascii_lowercase().ends_with(".git")
}

fn parse_http(url: &str, scheme: Scheme, rest: &str) -> Result<HttpUrl, Error> {
    let authority = authority_of(rest);
    let path = &rest[authority.len()..];
    let (userinfo, host_port) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    let (host, port) = host_and_port(url, host_port)?;
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':')) {
        return Err(bad(url, "has characters in its host that no host has"));
    }
    if path.contains(['?', '#']) {
        return Err(bad(url, "has a ? or # in its path"));
    }
    let (user, secret) = userinfo.map_or((None, None), user_and_secret);
    let path =
        percent_encode(path.trim_end_matches('/').as_bytes(), |b| is_unreserved(b) || b"/%:@!$&'()*+,;=".contains(&b));
    let origin = Origin { scheme, host: host.to_ascii_lowercase(), port: port.unwrap_or(scheme.default_port()) };
    Ok(HttpUrl { origin, path, user, secret })
}

/// `user:secret`; where only one of the two is there it may be either, and tokens are known by their looks.
fn user_and_secret(userinfo: &str) -> (Option<String>, Option<String>) {
    let some = |s: String| (!s.is_empty()).then_some(s);
    match userinfo.split_once(':') {
        Some((user, secret)) => match (some(decoded(user)), some(decoded(secret))) {
            // GitHub's old way: the token as the user, with this word or nothing for a password.
            (Some(token), Some(word)) if word == "x-oauth-basic" => (None, Some(token)),
            (Some(token), None) => (None, Some(token)),
            (user, secret) => (user, secret),
        },
        None => match some(decoded(userinfo)) {
            Some(user) if looks_like_token(&user) => (None, Some(user)),
            user => (user, None),
        },
    }
}

fn looks_like_token(text: &str) -> bool {
    redact::TOKEN_PREFIXES.iter().any(|p| text.starts_with(p))
        || (text.len() >= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
}

fn parse_ssh(url: &str, rest: &str) -> Result<SshUrl, Error> {
    let authority = authority_of(rest);
    let path = decoded(&rest[authority.len()..]);
    let (userinfo, host_port) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    let user = userinfo.map(|u| decoded(u.split(':').next().unwrap_or_default())).filter(|u| !u.is_empty());
    let (host, port) = host_and_port(url, host_port)?;
    // ssh://host/~user/repo: the home directory is the other machine's to find.
    let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
    ssh(url, user, decoded(&host), port, path)
}

fn ssh(url: &str, user: Option<String>, host: String, port: Option<u16>, path: String) -> Result<SshUrl, Error> {
    if host.is_empty() {
        return Err(bad(url, "names no host"));
    }
    if path.is_empty() {
        return Err(bad(url, "names no path"));
    }
    // `ssh -oProxyCommand=…` would run a program of the URL's choosing.
    if host.starts_with('-') || user.as_deref().is_some_and(|u| u.starts_with('-')) || path.starts_with('-') {
        return Err(bad(url, "has a host, user or path that begins with -"));
    }
    if [Some(&host), user.as_ref(), Some(&path)].into_iter().flatten().any(|s| s.chars().any(char::is_control)) {
        return Err(bad(url, "holds control characters"));
    }
    Ok(SshUrl { user, host, port, path })
}

fn parse_git(url: &str, rest: &str) -> Result<GitUrl, Error> {
    let authority = authority_of(rest);
    let path = decoded(&rest[authority.len()..]);
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port(url, host_port)?;
    if path.is_empty() {
        return Err(bad(url, "names no path"));
    }
    if host.chars().chain(path.chars()).any(char::is_control) {
        return Err(bad(url, "holds control characters"));
    }
    let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
    Ok(GitUrl { host, port: port.unwrap_or(9418), path })
}

fn parse_file(url: &str, rest: &str) -> Result<PathBuf, Error> {
    let authority = authority_of(rest);
    if !authority.is_empty() && !authority.eq_ignore_ascii_case("localhost") {
        return Err(bad(url, "names another host, which file:// cannot reach (three slashes: file:///path)"));
    }
    let path = decoded_bytes(&rest[authority.len()..]);
    if path.is_empty() || path.contains(&0) {
        return Err(bad(url, "names no path"));
    }
    Ok(PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path)))
}

/// All before the path: `user:secret@host:port`.
fn authority_of(rest: &str) -> &str {
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

pub(super) fn host_and_port(url: &str, text: &str) -> Result<(String, Option<u16>), Error> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']').ok_or_else(|| bad(url, "has a [ without its ]"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(bad(url, "has no IPv6 address between its brackets"));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err(bad(url, "has text after its ]")),
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if host.is_empty() {
        return Err(bad(url, "names no host"));
    }
    if port.is_empty() {
        return Ok((host.to_owned(), None));
    }
    match port.parse::<u16>() {
        Ok(port) if port != 0 => Ok((host.to_owned(), Some(port))),
        _ => Err(bad(url, "has a port that is no number from 1 to 65535")),
    }
}

pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
