//! The values that a flag or a variable may have. Each is checked where it is read; an error says what to write instead.

use std::time::Duration;

use clap::ValueEnum;

use crate::policy::Mode;
use crate::remote::TokenHost;

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
    /// One line for each event.
    Text,
    /// One JSON object for each event.
    Json,
    /// Errors and warnings as annotations of a GitHub Actions step.
    Github,
}

/// How the site gets into the public dir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Publish {
    /// Build aside, then swap the whole folder; inside a mounted volume file by file.
    Whole,
    /// Build aside, then file by file: for a folder that others have mounted or opened.
    Files,
    /// Build in the public dir itself: for builds that need their old output.
    InPlace,
}

/// What happens when the histories diverge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDivergence {
    /// The mode decides which side wins.
    Policy,
    /// Replay our unpushed commits on the remote's if it only moved forward; on a conflict the mode decides.
    Rebase,
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

/// Parses a switch from the environment.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err("set it to true, 1, yes or on, or to false, 0, no or off".into()),
    }
}

/// `--alpha` as a mode.
pub fn mode(text: &str) -> Result<Mode, String> {
    switch(text).map(|alpha| if alpha { Mode::Alpha } else { Mode::NonAlpha })
}

/// The longest duration allowed: a clock can't represent times further ahead than some hundreds of years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Parses a duration with its unit; zero is refused.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text.trim()) {
        Ok(duration) if duration.is_zero() => Err("must be longer than zero, such as 90s or 15m".into()),
        Ok(duration) if duration > LONGEST => Err("must be less than 100 years".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("give a number and a unit, such as 90s, 15m or 1h".into()),
    }
}

/// Parses a size with its unit, into bytes; zero is refused.
pub fn size(text: &str) -> Result<u64, String> {
    match text.trim().parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() == 0 => Err("must be more than zero, such as 100MB".into()),
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err("give a number and a unit, such as 100MB or 512KiB".into()),
    }
}

/// Parses the host that the token is for.
pub fn token_host(text: &str) -> Result<TokenHost, String> {
    TokenHost::named(text.trim())
        .ok_or_else(|| "give a host, or a host and a port, such as github.com or git.example:8443".into())
}

/// Parses a branch name; `refs/heads/NAME`, as in `$GITHUB_REF`, means NAME.
pub fn branch(text: &str) -> Result<String, String> {
    let short = text.strip_prefix("refs/heads/").unwrap_or(text);
    let is_commit = short.len() == 40 && short.bytes().all(|byte| byte.is_ascii_hexdigit());
    if short.starts_with("refs/") {
        return Err("it is not a branch: give a branch's name, such as main".into());
    }
    if short == "HEAD" || short == "@" {
        return Err("HEAD is not a branch's name: name the branch itself, such as main".into());
    }
    if is_commit {
        return Err("it is a commit's id: give a branch's name, such as main".into());
    }
    if short.starts_with('-') {
        return Err("git does not allow this name".into());
    }
    name(short)
}

/// Parses a remote's name.
pub fn name(text: &str) -> Result<String, String> {
    let allowed = git2::Reference::is_valid_name(&format!("refs/heads/{text}"));
    if allowed { Ok(text.to_owned()) } else { Err("git does not allow this name".into()) }
}

/// Parses the job's command line.
pub fn command(text: &str) -> Result<String, String> {
    not_blank(text, "it is empty: give a command, or leave the option out")
}

/// Parses a commit message.
pub fn message(text: &str) -> Result<String, String> {
    not_blank(text, "it is empty: git refuses a commit without a message")
}

fn not_blank(text: &str, why: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err(why.into()) } else { Ok(text.to_owned()) }
}
