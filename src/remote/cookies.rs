//! `http.cookieFile`: the cookies in it that are for a host, as curl reads Netscape's format.

use super::redact;
use super::url::{HttpUrl, Scheme};

/// The value of the `Cookie` header for a URL; `None` where no cookie is for it. `now`: seconds since 1970.
///
/// Each line is a domain, whether hosts below it count, a path, whether https is needed, the time it expires, a name and a
/// value. Each value is a secret, masked in every text from here on.
pub(super) fn for_url(file: &str, url: &HttpUrl, now: i64) -> Option<String> {
    let lines = file.lines().map(|line| line.strip_prefix("#HttpOnly_").unwrap_or(line));
    let cookies: Vec<String> = lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split('\t').map(str::trim);
            let mut next = || fields.next();
            let (domain, below, path, secure) = (next()?, next()?, next()?, next()?);
            let (expires, name, value) = (next()?.parse::<i64>().ok()?, next()?, next().unwrap_or_default());
            redact::register_secret(value);
            let fits = is_for_host(domain, below, &url.origin.host)
                && is_for_path(path, &url.path)
                && (!is_yes(secure) || url.origin.scheme == Scheme::Https || url.origin.is_loopback())
                && (expires == 0 || expires > now)
                && !name.is_empty();
            fits.then(|| format!("{name}={value}"))
        })
        .collect();
    (!cookies.is_empty()).then(|| cookies.join("; "))
}

fn is_yes(field: &str) -> bool {
    field.eq_ignore_ascii_case("true")
}

fn is_for_host(domain: &str, below: &str, host: &str) -> bool {
    let name = domain.trim_start_matches('.').to_ascii_lowercase();
    let is_below = || host.strip_suffix(name.as_str()).is_some_and(|front| front.ends_with('.'));
    !name.is_empty() && (host == name || (is_yes(below) && host.parse::<std::net::IpAddr>().is_err() && is_below()))
}

fn is_for_path(path: &str, asked: &str) -> bool {
    let path = path.trim_end_matches('/');
    asked.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::remote::url::Remote;

    #[test]
    fn a_cookie_goes_to_its_host_and_path_until_it_expires() {
        let file = "# Netscape HTTP Cookie File\n\
                    git.example\tFALSE\t/\tFALSE\t0\ta\t1\n\
                    .example\tTRUE\t/o\tFALSE\t0\tb\t2\n\
                    #HttpOnly_git.example\tFALSE\t/\tTRUE\t0\tc\t3\n\
                    git.example\tFALSE\t/\tFALSE\t100\td\t4\n\
                    other.example\tFALSE\t/\tFALSE\t0\te\t5\n\
                    half a line\n";
        let of = |url: &str, now| match Remote::parse(url, std::path::Path::new("/")).unwrap() {
            Remote::Http(url) => for_url(file, &url, now).unwrap_or_default(),
            other => unreachable!("{other:?}"),
        };
        assert_eq!(of("https://git.example/o/r", 50), "a=1; b=2; c=3; d=4");
        assert_eq!(of("http://git.example/o/r", 150), "a=1; b=2");
        assert_eq!(of("https://git.example/other", 150), "a=1; c=3");
        assert_eq!(of("https://x.git.example/o", 50), "b=2");
        assert_eq!(of("https://badexample/o", 50), "");
        assert_eq!(of("https://elsewhere.test/o", 50), "");
    }
}
