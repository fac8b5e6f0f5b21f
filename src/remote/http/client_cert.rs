//! The client certificate: `http.sslCert` and `http.sslKey`, or GIT_SSL_CERT and GIT_SSL_KEY. It is for the remote's own host.

use std::path::{Path, PathBuf};

use ureq::tls::{ClientCert, PemItem, parse_pem};

use super::Http;
use super::failure::lasting;
use crate::error::Error;
use crate::fs::files;
use crate::remote::url::Origin;

impl Http {
    /// The certificate for this host, if one is set for it.
    ///
    /// # Errors
    /// Lasting: it can't be read.
    pub(super) fn client_cert(&self, origin: &Origin) -> Result<Option<ClientCert>, Error> {
        if origin != self.credentials.home() {
            return Ok(None);
        }
        let setting = |variable, key| {
            let variable = self.env.get(variable).map(PathBuf::from);
            variable.or_else(|| self.config.path("http", key, self.credentials.url(), &self.env))
        };
        let Some(cert) = setting("GIT_SSL_CERT", "sslcert") else { return Ok(None) };
        // Without a key of its own the file has both, as for curl.
        let key = setting("GIT_SSL_KEY", "sslkey").unwrap_or_else(|| cert.clone());
        let mut chain = Vec::new();
        for item in parse_pem(&read("certificate", &cert)?).flatten() {
            if let PemItem::Certificate(cert) = item {
                chain.push(cert);
            }
        }
        let found = read("key", &key)?;
        let encrypted = String::from_utf8_lossy(&found).contains("ENCRYPTED");
        let private = parse_pem(&found).flatten().find_map(|item| match item {
            PemItem::PrivateKey(key) => Some(key),
            _ => None,
        });
        match private {
            Some(private) if !chain.is_empty() => Ok(Some(ClientCert::new_with_certs(&chain, private))),
            Some(_) => Err(unusable("certificate", &cert, "has no certificate in PEM form", "give one (http.sslCert)")),
            None if encrypted => {
                let next =
                    "give a key without a password (`openssl pkey -in KEY -out NEW`), readable by this user alone";
                Err(unusable("key", &key, "wants a password, which nobody is there to type", next))
            }
            None => Err(unusable("key", &key, "has no private key in PEM form", "give one (http.sslKey)")),
        }
    }
}

fn unusable(what: &str, path: &Path, why: &str, next: &str) -> Error {
    lasting(format!("the file {} of the client's {what} {why}", path.display()), next)
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, Error> {
    files::read(path).map_err(|error| {
        let next = "see that the file is there and that this user may read it (http.sslCert, http.sslKey)";
        unusable(what, path, &format!("can't be read: {error}"), next)
    })
}
