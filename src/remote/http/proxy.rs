//! Which proxy a request goes through, read as git and curl read it.

use std::net::IpAddr;

use ureq::ProxyProtocol;

use super::Http;
use super::failure::lasting;
use crate::error::Error;
use crate::remote::encoding::decoded;
use crate::remote::redact;
use crate::remote::url::{Origin, Scheme};

/// The proxy for a host.
pub(super) struct Through {
    pub proxy: ureq::Proxy,
    /// Its URL, fit to be printed.
    pub shown: String,
}

impl Http {
    /// The proxy: `remote.<name>.proxy`, else `http.proxy`, else the environment, as curl reads it; never for this machine
    /// itself.
    pub(super) fn proxy(&self, origin: &Origin) -> Result<Option<Through>, Error> {
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
        let of_remote = self.remote.as_deref().and_then(|remote| self.config.remote_proxy(remote));
        let configured = of_remote.or_else(|| self.config.one("http", "proxy", &base));
        let proxy = match configured {
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
        // Without a scheme it is an http proxy, as for git.
        let with_scheme = if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") };
        if let Some((_, place)) = with_scheme.split_once("://")
            && let Some((userinfo, _)) = place.rsplit_once('@')
            && let Some((_, secret)) = userinfo.split_once(':')
        {
            redact::register_secret(secret);
            redact::register_secret(&decoded(secret));
        }
        let shown = redact::url(&with_scheme);
        let through = usable(&proxy).map(|proxy| Some(Through { proxy, shown: shown.clone() }));
        through.ok_or_else(|| {
            lasting(
                format!("the proxy {shown} is none that gitsync can use"),
                "set remote.<name>.proxy, http.proxy or HTTPS_PROXY to http://host:port, https://host:port or \
                 socks5h://host:port",
            )
        })
    }
}

/// The proxy that a URL names, as curl reads it: `socks://` is SOCKS 4, and the port is 1080 unless it is named.
fn usable(url: &str) -> Option<ureq::Proxy> {
    let url = url.strip_prefix("socks://").map_or_else(|| url.to_owned(), |rest| format!("socks4://{rest}"));
    let proxy = ureq::Proxy::new(&url).ok()?;
    if proxy.uri().port_u16().is_some() || proxy.protocol() == ProxyProtocol::Https {
        return Some(proxy);
    }
    let mut named = ureq::Proxy::builder(proxy.protocol()).host(proxy.host()).port(1080);
    if let Some(user) = proxy.username() {
        named = named.username(user);
    }
    if let Some(secret) = proxy.password() {
        named = named.password(secret);
    }
    named.build().ok()
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
