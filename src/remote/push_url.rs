//! A push URL (`remote.<name>.pushurl`, `url.<base>.pushInsteadOf`) has to lead to the repository that is fetched from: what is
//! pushed to another one is never seen where passes look.

use std::path::Path;

use super::encoding::decoded;
use super::redact;
use super::url::Remote;
use crate::error::{Error, Kind};

/// Refuses a push URL of another repository, as far as the URLs tell. `remote`: the remote's name.
///
/// # Errors
/// [`Kind::NotReady`], which names both.
pub(crate) fn check_push_url(remote: &str, url: &str, push: Option<&str>, relative_to: &Path) -> Result<(), Error> {
    let Some(push) = push else { return Ok(()) };
    let (Ok(from), Ok(to)) = (Remote::parse(url, relative_to), Remote::parse(push, relative_to)) else { return Ok(()) };
    if !are_two_repositories(&from, &to) {
        return Ok(());
    }
    let (url, push) = (redact::url(url), redact::url(push));
    Err(Error::new(
        Kind::NotReady,
        format!("the push URL {push} of remote '{remote}' is another repository than {url}"),
        format!("set remote.{remote}.pushurl (or url.*.pushInsteadOf) to the same repository, or remove it"),
    ))
}

/// Whether two URLs, as far as they tell, name two different repositories. The same one may be reached in several ways, by
/// another host name and below another folder; but where both name it in the same way, the way has to be the same, and its own
/// name always.
fn are_two_repositories(one: &Remote, other: &Remote) -> bool {
    let names = |path: &str| -> Vec<String> {
        let path = decoded(path.trim_end_matches('/'));
        path.strip_suffix(".git")
            .unwrap_or(&path)
            .split('/')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let place = |remote: &Remote| match remote {
        Remote::Http(url) => (Some(url.origin.host.clone()), names(&url.path)),
        Remote::Ssh(url) => (Some(url.host.to_ascii_lowercase()), names(&url.path)),
        Remote::Git(url) => (Some(url.host.to_ascii_lowercase()), names(&url.path)),
        Remote::Path(path) => (None, names(&path.canonicalize().unwrap_or_else(|_| path.clone()).to_string_lossy())),
    };
    let ((host, path), (other_host, other_path)) = (place(one), place(other));
    let alike = std::mem::discriminant(one) == std::mem::discriminant(other) && host == other_host;
    // OWNER/REPOSITORY, as the forges have it.
    let forges = path.len() == 2 && other_path.len() == 2;
    if alike || forges { path != other_path } else { path.last() != other_path.last() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_push_url_may_be_another_way_to_the_same_repository_alone() {
        let read = |url: &str| Remote::parse(url, Path::new("/")).unwrap();
        let two = |one: &str, other: &str| are_two_repositories(&read(one), &read(other));
        for (one, other) in [
            ("https://github.com/o/r.git", "git@github.com:o/r.git"),
            ("https://github.com/o/r", "ssh://git@ssh.github.com:443/o/r.git"),
            ("https://me@git.example/o/r/", "https://git.example/o/r.git"),
            ("git://git.example/pub/scm/r.git", "ssh://git.example/srv/git/pub/scm/r.git"),
            ("https://git.example/git/r.git", "git@git.example:/srv/git/r.git"),
            ("https://mirror.example/o/r", "https://github.com/o/r"),
            ("git://git.example/r", "/srv/git/r.git"),
            ("/srv/r.git", "file:///srv/r.git"),
        ] {
            assert!(!two(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("https://github.com/them/r.git", "git@github.com:me/r.git"),
            ("https://github.com/them/r.git", "https://github.com/me/r.git"),
            ("https://github.com/o/r.git", "git@github.com:o/s.git"),
            ("ssh://git.example/srv/a/r.git", "ssh://git.example/srv/b/r.git"),
            ("/srv/a/r.git", "/srv/b/r.git"),
            ("git://git.example/pub/r.git", "/srv/git/s.git"),
        ] {
            assert!(two(one, other), "{one} {other}");
        }
    }
}
