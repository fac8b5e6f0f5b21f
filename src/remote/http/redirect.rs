//! Where a redirect may lead: never to a place where the credentials of this one do not belong.

use std::path::Path;

use super::Http;
use super::failure::lasting;
use crate::error::Error;
use crate::remote::credentials::Authorization;
use crate::remote::redact;
use crate::remote::url::{HttpUrl, Remote, Scheme};

impl Http {
    /// Where a redirect leads, if it may be followed.
    pub(super) fn redirected(
        &self,
        from: &HttpUrl,
        below: &str,
        location: &[u8],
        authorization: Option<&Authorization>,
        shown: &str,
    ) -> Result<HttpUrl, Error> {
        let printable = redact::text(location);
        let nowhere = || {
            lasting(
                format!("{shown} redirects to `{printable}`, which is no git repository's URL"),
                "correct the remote's URL",
            )
        };
        let location = std::str::from_utf8(location).map_err(|_| nowhere())?;
        let absolute = if location.starts_with("//") {
            format!("{}:{location}", from.origin.scheme.as_str())
        } else if location.starts_with('/') {
            format!("{}{location}", from.origin)
        } else {
            location.to_owned()
        };
        let without_query = absolute.split('?').next().unwrap_or_default();
        let service = below.split('?').next().unwrap_or_default();
        let base = without_query.strip_suffix(service).and_then(|b| b.strip_suffix('/')).ok_or_else(nowhere)?;
        let Ok(Remote::Http(mut next)) = Remote::parse(base, Path::new("/")) else { return Err(nowhere()) };
        // A redirect has no say in who we are.
        (next.user, next.secret) = (from.user.clone(), None);
        if next.origin != from.origin {
            let to = &next.origin;
            if from.origin.scheme == Scheme::Https && to.scheme == Scheme::Http {
                return Err(lasting(
                    format!("{shown} redirects from https to plain http ({to}), which is not followed"),
                    "correct the remote's URL",
                ));
            }
            if authorization.is_some() || !self.credentials.extra_headers().is_empty() {
                return Err(lasting(
                    format!("{shown} redirects to another host ({to}), where its credentials do not go"),
                    &format!("if {to} is to be trusted, set the remote's URL to it"),
                ));
            }
        }
        tracing::debug!(to = redact::url(&next.clean()), "following a redirect");
        Ok(next)
    }
}
