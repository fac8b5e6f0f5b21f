//! Who commits: the environment, then git's configuration, then gitsync itself.

use chrono::{DateTime, Utc};

use super::Repo;
use crate::error::{Error, Kind};
use crate::remote;

/// The identity that the environment gives.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Author's name.
    pub author_name: Option<String>,
    /// Author's e-mail address.
    pub author_email: Option<String>,
    /// Committer's name.
    pub committer_name: Option<String>,
    /// Committer's e-mail address.
    pub committer_email: Option<String>,
}

impl Repo {
    /// The author and the committer of gitsync's commits.
    pub(crate) fn signatures(
        &self,
        when: DateTime<Utc>,
    ) -> Result<(git2::Signature<'static>, git2::Signature<'static>), Error> {
        let config = self.config()?;
        let configured = |key: &str| remote::configured(&config, key).and_then(|value| fit_to_sign(&value));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let who = &self.names.identity;
        let name = configured("user.name").unwrap_or_else(|| "gitsync".into());
        let email = configured("user.email").unwrap_or_else(|| format!("gitsync@{host}"));
        let time = git2::Time::new(when.timestamp(), 0);
        let sign = |env_name: Option<&String>, role_name: &str, env_email: Option<&String>, role_email: &str| {
            let given = |value: Option<&String>| value.and_then(|value| fit_to_sign(value));
            let name = given(env_name).or_else(|| configured(role_name)).unwrap_or_else(|| name.clone());
            let email = given(env_email).or_else(|| configured(role_email)).unwrap_or_else(|| email.clone());
            git2::Signature::new(&name, &email, &time).map_err(|error| {
                let what = format!("'{name} <{email}>' can't be the author of a commit: {}", error.message());
                Error::new(
                    Kind::NotReady,
                    what,
                    "correct GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL, or user.name and user.email",
                )
            })
        };
        let author = sign(who.author_name.as_ref(), "author.name", who.author_email.as_ref(), "author.email")?;
        let committer =
            sign(who.committer_name.as_ref(), "committer.name", who.committer_email.as_ref(), "committer.email")?;
        Ok((author, committer))
    }
}

/// A name or an address as git writes it into a commit: a line end or an angle bracket in it would make a commit that
/// nobody can read. `None` if nothing is left of it. libgit2 trims both ends.
pub(crate) fn fit_to_sign(text: &str) -> Option<String> {
    let fit: String = text.chars().filter(|c| !matches!(c, '\n' | '<' | '>')).collect();
    let needless = |c: char| c <= ' ' || ".,:;\"\\'".contains(c);
    (!fit.trim_matches(needless).is_empty()).then_some(fit)
}
