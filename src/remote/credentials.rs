//! Which secret for which host, and from where.
//!
//! In this order, the first that is there: the token file, `GIT_SYNC_TOKEN`, `GITHUB_TOKEN` (only for the host of
//! `GITHUB_SERVER_URL`), a secret in the URL itself, git's credential helpers, `GIT_ASKPASS`, and an `Authorization`
//! in `http.<url>.extraheader` as actions/checkout leaves it. The first four are sent at once, which is what makes a poll one
//! request; helpers and askpass are programs, and only run when a server asks for credentials. Without any of them the
//! extra header is sent at once too.
//!
//! The first three, and the secret of the URL that a pass was given, go to the one [`TokenHost`] and nowhere else, whatever the
//! repository's configuration makes of the remote's URL. Any secret is bound to the scheme, host and port of the URL that is
//! asked; it never goes to another one, nor over plain http unless that is loopback or was allowed. One that is refused is not tried again, and no other in its place:
//! a machine that quietly goes on with the second-best secret hides that the first has expired.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::config::GitConfig;
use super::connection::Connection;
use super::programs;
use super::url::{HttpUrl, Origin, Remote, TOKEN_USER};
use super::{Env, Limits, Options, TokenHost, answers, cookies, encoding, redact};
use crate::clock::{self, instant};
use crate::error::{Error, Kind};
use crate::fs::files;

/// How long a token file that is a pipe, such as a shell's `<(…)`, may take to say it.
const TOKEN_TAKES: Duration = Duration::from_secs(10);

/// A value for the `Authorization` header, and where it came from.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub header: String,
    /// Printable: `GIT_SYNC_TOKEN`, `--token-file /run/secrets/token`, …
    pub source: String,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorization(from {})", self.source)
    }
}

impl Authorization {
    fn basic(user: &str, secret: &str, source: impl Into<String>) -> Authorization {
        redact::register_secret(secret);
        let pair = encoding::base64(format!("{user}:{secret}").as_bytes());
        redact::register_secret(&pair);
        Authorization { header: format!("Basic {pair}"), source: source.into() }
    }
}

/// What follows the scheme in an `Authorization`: as it is and, where it is that of Basic, the password in it.
fn register_credentials(value: &str) {
    redact::register_secret(value);
    let pair = encoding::from_base64(value).and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((_, secret)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
        redact::register_secret(secret);
    }
}

/// The secret in a line of `http.extraheader`.
pub(super) fn register_header_line(line: &str) {
    let Some((name, value)) = line.split_once(':') else { return };
    let value = value.trim();
    if name.trim().eq_ignore_ascii_case("authorization") {
        register_credentials(value.rsplit(' ').next().unwrap_or(value));
    } else if value.len() >= 16 {
        redact::register_secret(value);
    }
}

/// The credentials of one remote.
#[derive(Debug)]
pub(crate) struct Credentials {
    url: HttpUrl,
    env: Env,
    token_file: Option<std::path::PathBuf>,
    url_secret: Option<(String, String)>,
    token_host: TokenHost,
    allow_insecure_http: bool,
    config: GitConfig,
    limits: Limits,
    /// What programs that may know a secret failed with.
    failures: Mutex<Vec<String>>,
    /// The `Cookie` header, read once.
    cookies: OnceLock<Option<String>>,
}

impl Credentials {
    pub fn new(url: &HttpUrl, config: &GitConfig, options: &Options, limits: Limits) -> Credentials {
        Credentials {
            url: url.clone(),
            env: options.env.clone(),
            token_file: options.token_file.clone(),
            url_secret: options.url_secret.clone(),
            token_host: options.token_host.clone(),
            allow_insecure_http: options.allow_insecure_http,
            config: config.clone(),
            limits,
            failures: Mutex::default(),
            cookies: OnceLock::new(),
        }
    }

    /// The origin the secrets are bound to.
    pub fn home(&self) -> &Origin {
        &self.url.origin
    }

    /// The remote's URL, which git's configuration is asked for.
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// May a secret go there as far as the wire is concerned?
    pub fn is_safe(&self) -> bool {
        let origin = &self.url.origin;
        origin.scheme == super::url::Scheme::Https || origin.is_loopback() || self.allow_insecure_http
    }

    /// What is sent with the first request.
    ///
    /// # Errors
    /// A token file that cannot be read, or a token no header can carry.
    pub fn at_once(&self) -> Result<Option<Authorization>, Error> {
        let withheld = self.withheld();
        if let Some(withheld) = &withheld {
            warn_once(withheld, &self.remedy());
        }
        if !self.is_safe() {
            return Ok(None);
        }
        if withheld.is_none()
            && let Some(token) = self.token()?
        {
            return Ok(Some(token));
        }
        if self.helpers().is_empty() && self.ask_pass().is_none() {
            return Ok(self.extra_authorization());
        }
        Ok(None)
    }

    /// What is sent once the server has asked for credentials and `at_once` had none.
    ///
    /// # Errors
    /// A helper that ran into the deadline.
    pub fn when_asked(&self) -> Result<Option<Authorization>, Error> {
        if !self.is_safe() {
            return Ok(None);
        }
        for helper in self.helpers() {
            if let Some(found) = self.ask_helper(helper)? {
                return Ok(Some(found));
            }
        }
        if let Some((program, source)) = self.ask_pass()
            && let Some(found) = self.ask_program(&program, source)?
        {
            return Ok(Some(found));
        }
        Ok(self.extra_authorization())
    }

    /// Why no credentials were sent, for a person who thought they had set some.
    pub fn why_none(&self) -> String {
        let origin = &self.url.origin;
        if let Some(withheld) = self.withheld() {
            return withheld;
        }
        let failures = self.failures();
        if !failures.is_empty() {
            return failures.join("; ");
        }
        if !self.is_safe() {
            return format!(
                "no credentials were sent because {origin} is plain http; use https://, or --allow-insecure-http if it must be"
            );
        }
        match self.env.text("GITHUB_TOKEN") {
            Some(_) => format!("GITHUB_TOKEN is only for {}, not for {origin}", self.github()),
            None => "no credentials are set".to_owned(),
        }
    }

    fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do where there were no credentials.
    pub fn what_next(&self) -> String {
        if self.withheld().is_some() {
            return self.remedy();
        }
        if !self.failures().is_empty() {
            return "see that the program runs for the user that runs gitsync, and that it knows this host; or set \
                    GIT_SYNC_TOKEN or --token-file"
                .to_owned();
        }
        format!("set GIT_SYNC_TOKEN or --token-file to a token for it; {}", answers::RIGHTS)
    }

    /// The header lines git was told to add (`http.extraheader`, `http.cookieFile`), the `Authorization` among them left out.
    ///
    /// A line that looks secret goes over plain http no more than a token does.
    pub fn extra_headers(&self) -> Vec<(String, String)> {
        let cookies = self.cookies.get_or_init(|| self.read_cookies()).clone();
        let cookies = cookies.map(|cookies| ("Cookie".to_owned(), cookies));
        self.extra_header_lines()
            .into_iter()
            .chain(cookies)
            .filter(|(name, _)| {
                let name = name.to_ascii_lowercase();
                let secret = ["auth", "cookie", "token", "key", "secret"].iter().any(|word| name.contains(word));
                name != "authorization" && (!secret || self.is_safe())
            })
            .collect()
    }

    fn read_cookies(&self) -> Option<String> {
        let path = self.config.path("http", "cookiefile", &self.url, &self.env)?;
        match files::read(&path) {
            Ok(file) => cookies::for_url(&String::from_utf8_lossy(&file), &self.url, clock::now().timestamp()),
            Err(error) => {
                let what = format!("the file {} of http.cookieFile can't be read: {error}", path.display());
                warn_once(&what, "see that the file is there and that this user may read it");
                None
            }
        }
    }

    fn extra_header_lines(&self) -> Vec<(String, String)> {
        self.config
            .all("http", "extraheader", &self.url)
            .into_iter()
            .inspect(|line| register_header_line(line))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }

    fn extra_authorization(&self) -> Option<Authorization> {
        let (_, header) =
            self.extra_header_lines().into_iter().rfind(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
        Some(Authorization { header, source: "http.extraheader in git's configuration".to_owned() })
    }

    /// Why the token that is set is not sent: it is for another host. `None` where it may go, or where there is none.
    pub fn withheld(&self) -> Option<String> {
        let source = match self.source()? {
            // That of the URL itself goes where the URL says.
            TokenSource::Url(_) => return None,
            source => source,
        };
        let origin = &self.url.origin;
        (!self.token_host.allows(origin)).then(|| {
            let host = self.token_host.describe();
            format!("the token from {source} is for {host} and was not sent to {origin}, where the remote is now")
        })
    }

    /// What a person does about [`Credentials::withheld`].
    pub fn remedy(&self) -> String {
        let host = self.url.origin.authority();
        format!(
            "if {host} is to have the token, run `gitsync init-sync --remote-url URL` with the new URL, or give \
             --token-host {host}; else set the remote's URL, pushurl and insteadOf in git's configuration right"
        )
    }

    /// The token that costs nothing to read: the first there is.
    fn source(&self) -> Option<TokenSource<'_>> {
        let own = || self.url.secret.as_deref().map(TokenSource::Url);
        if let Some(path) = &self.token_file {
            Some(TokenSource::File(path))
        } else if let Some(token) = self.env.text("GIT_SYNC_TOKEN") {
            Some(TokenSource::Variable("GIT_SYNC_TOKEN", token))
        } else if let Some(token) =
            self.env.text("GITHUB_TOKEN").filter(|_| self.github() == self.url.origin.to_string())
        {
            Some(TokenSource::Variable("GITHUB_TOKEN", token))
        } else {
            own().or_else(|| self.url_secret.as_ref().map(|(user, secret)| TokenSource::Given(user, secret)))
        }
    }

    fn token(&self) -> Result<Option<Authorization>, Error> {
        let Some(found) = self.source() else { return Ok(None) };
        let source = found.to_string();
        let mut user = self.url.user.as_deref().unwrap_or(TOKEN_USER);
        let token = match found {
            TokenSource::File(path) => read_token(path, self.limits.until())?,
            TokenSource::Variable(_, token) | TokenSource::Url(token) => token.to_owned(),
            TokenSource::Given(name, token) => {
                user = self.url.user.as_deref().unwrap_or(name);
                token.to_owned()
            }
        };
        let token = token.trim();
        if token.is_empty() || token.chars().any(|c| c.is_control()) {
            return Err(Error {
                kind: Kind::Refused,
                what: format!("the secret from {source} is empty or has control characters in it"),
                next: "put the token there, on one line, and nothing else".to_owned(),
            });
        }
        Ok(Some(Authorization::basic(user, token, source)))
    }

    /// The one origin that `GITHUB_TOKEN` is for.
    fn github(&self) -> String {
        let server = self.env.text("GITHUB_SERVER_URL").unwrap_or("https://github.com");
        match Remote::parse(server, Path::new("/")) {
            Ok(Remote::Http(url)) => url.origin.to_string(),
            _ => "nowhere (GITHUB_SERVER_URL is no URL)".to_owned(),
        }
    }

    fn helpers(&self) -> Vec<&str> {
        self.config.all("credential", "helper", &self.url)
    }

    fn ask_pass(&self) -> Option<(String, &'static str)> {
        match self.env.text("GIT_ASKPASS") {
            Some(program) => Some((program.to_owned(), "GIT_ASKPASS")),
            None => self.config.ask_pass.clone().filter(|p| !p.is_empty()).map(|p| (p, "core.askPass")),
        }
    }

    /// Asks one helper, in the protocol of gitcredentials(7).
    fn ask_helper(&self, helper: &str) -> Result<Option<Authorization>, Error> {
        let script = match helper.strip_prefix('!') {
            Some(script) => script.to_owned(),
            None if helper.starts_with('/') => helper.to_owned(),
            None => format!("git credential-{helper}"),
        };
        // What the helper is told; it is also its name in an error, without its arguments, which may hold a secret.
        let name = helper.split_whitespace().next().unwrap_or(helper);
        let source =
            format!("the credential helper {}", if helper.starts_with('!') { "in git's configuration" } else { name });
        let mut question =
            format!("protocol={}\nhost={}\n", self.url.origin.scheme.as_str(), self.url.origin.authority());
        if self.config.one("credential", "usehttppath", &self.url).is_some_and(is_true) {
            question.push_str(&format!("path={}\n", encoding::decoded(self.url.path.trim_start_matches('/'))));
        }
        let user = self.url.user.as_deref().or(self.config.one("credential", "username", &self.url));
        if let Some(user) = user {
            question.push_str(&format!("username={user}\n"));
        }
        question.push('\n');
        let Some(answer) = self.run(programs::shell(&script, "get"), &question, &source)? else { return Ok(None) };
        let value = |key: &str| {
            answer
                .lines()
                .filter_map(|line| line.split_once('='))
                .filter(|(k, _)| *k == key)
                .map(|(_, v)| v)
                .next_back()
        };
        Ok(match (value("username").or(user), value("password")) {
            (user, Some(secret)) if !secret.is_empty() => {
                Some(Authorization::basic(user.unwrap_or(TOKEN_USER), secret, source))
            }
            _ => None,
        })
    }

    /// Asks an askpass program: one question an argument, the answer its first line.
    fn ask_program(&self, path: &str, source: &str) -> Result<Option<Authorization>, Error> {
        let origin = &self.url.origin;
        let ask = |question: String| -> Result<Option<String>, Error> {
            let answer = self.run(programs::program(path.as_ref(), &question), "", source)?;
            Ok(answer.and_then(|a| a.lines().next().map(str::to_owned)).filter(|a| !a.is_empty()))
        };
        let user = match &self.url.user {
            Some(user) => user.clone(),
            None => match ask(format!("Username for '{origin}': "))? {
                Some(user) => user,
                None => return Ok(None),
            },
        };
        let authority = origin.authority();
        let question = format!("Password for '{}://{user}@{authority}': ", origin.scheme.as_str());
        Ok(ask(question)?.map(|secret| Authorization::basic(&user, &secret, source)))
    }

    /// Runs a program that may know a secret; one that fails knows none, and is named if no other knows one.
    fn run(&self, mut command: Command, input: &str, source: &str) -> Result<Option<String>, Error> {
        // Nobody is there to answer.
        command.env("GIT_TERMINAL_PROMPT", "0").env("GCM_INTERACTIVE", "never");
        let mut connection = match Connection::talk(command, self.limits.clone(), source, "git") {
            Ok(connection) => connection,
            Err(e) => {
                self.failures().push(format!("{source} could not be run: {}", e.what));
                return Ok(None);
            }
        };
        // A helper that reads nothing has closed its end by now, which is no fault.
        let _ = connection.send(input.as_bytes());
        connection.close_input();
        let mut answer = Vec::new();
        let mut some = [0; 4096];
        loop {
            match connection.receive(&mut some)? {
                0 => break,
                n => answer.extend_from_slice(&some[..n]),
            }
            if answer.len() > 64 << 10 {
                break;
            }
        }
        let answer = String::from_utf8(answer).unwrap_or_default();
        // A helper that has a secret may go on for a while: `git credential-cache` leaves its daemon behind.
        let knows = if input.is_empty() { !answer.is_empty() } else { answer.contains("password=") };
        if let Some(status) = (!knows).then(|| connection.exit_status()).flatten().filter(|status| !status.success()) {
            let said = connection.last_words();
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            let how = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
            self.failures().push(format!("{source} failed with {how}{said}"));
        }
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    }
}

/// Where a token is from.
#[derive(Clone, Copy)]
enum TokenSource<'a> {
    File(&'a Path),
    /// Its name and its value.
    Variable(&'static str, &'a str),
    /// The secret in the URL that is asked.
    Url(&'a str),
    /// The user and the secret in the URL that the command line or the environment gives.
    Given(&'a str, &'a str),
}

impl fmt::Display for TokenSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenSource::File(path) => write!(f, "the token file {}", path.display()),
            TokenSource::Variable(name, _) => f.write_str(name),
            TokenSource::Url(_) => f.write_str("the remote's URL"),
            TokenSource::Given(..) => f.write_str("the remote's URL (--remote-url, GIT_SYNC_REMOTE_URL)"),
        }
    }
}

/// A pass opens several sessions; it says this once for each host.
pub(super) fn warn_once(what: &str, next: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.iter().any(|known| known == what) {
        tracing::warn!(next, "{what}");
        said.push(what.to_owned());
    }
}

fn read_token(path: &Path, until: Instant) -> Result<String, Error> {
    files::read_until(path, until.min(instant() + TOKEN_TAKES)).map_err(|e| Error {
        kind: Kind::Refused,
        what: format!("the token file {} cannot be read: {e}", path.display()),
        next: "see that the file is there, that this user may read it, and that it holds the token as plain text"
            .to_owned(),
    })
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
}
