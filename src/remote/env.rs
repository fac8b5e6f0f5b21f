//! The variables that the transports read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use super::config::Rewriting;
use super::env_config::EnvConfig;
use super::redact;

/// What the transports need of the environment, read once. An empty variable counts as unset.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<&'static str, OsString>,
    pub(super) config: EnvConfig,
}

impl Env {
    /// Every variable that is read, and no other but `GIT_CONFIG_COUNT` and what belongs to it.
    pub const NAMES: &'static [&'static str] = &[
        "GIT_SYNC_TOKEN",
        "GITHUB_TOKEN",
        "GITHUB_SERVER_URL",
        "GIT_ASKPASS",
        "GIT_SSH_COMMAND",
        "GIT_SSH",
        "GIT_SSH_VARIANT",
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSL_CERT",
        "GIT_SSL_KEY",
        "GIT_SSL_NO_VERIFY",
        "GIT_HTTP_USER_AGENT",
        "HOME",
    ];

    /// Looks each of [`Env::NAMES`] up. The secrets among them are masked in every text from here on.
    pub fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> Env {
        let variables: BTreeMap<_, _> =
            Self::NAMES.iter().filter_map(|name| Some((*name, lookup(name).filter(|v| !v.is_empty())?))).collect();
        let env = Env { variables, config: EnvConfig::read(lookup) };
        for secret in ["GIT_SYNC_TOKEN", "GITHUB_TOKEN"] {
            if let Some(value) = env.text(secret) {
                redact::register_secret(value);
            }
        }
        env
    }

    /// What `url.<base>.insteadOf` in the environment and in `config` make of a remote's URLs, as they are stored. `None`
    /// where the environment has none: libgit2 then does it.
    pub(crate) fn rewriting(&self, config: &git2::Config) -> Option<Rewriting> {
        self.config.rewriting(config)
    }

    /// `GITHUB_SERVER_URL`.
    pub fn server_url(&self) -> Option<&str> {
        self.text("GITHUB_SERVER_URL")
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str).map(str::trim).filter(|v| !v.is_empty())
    }
}

impl fmt::Debug for Env {
    /// The names alone: two of the values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
