//! The `git-receive-pack` service: a push, sent with its length.

use super::answer::Incoming;
use super::{Body, Http, Request};
use crate::error::Error;
use crate::remote::spool::Spool;

const RECEIVE_PACK: Request<'static> = Request {
    below: "git-receive-pack",
    content_type: Some("application/x-git-receive-pack-request"),
    expects: "application/x-git-receive-pack-result",
    v2: false,
    gzip: false,
    patience: None,
};

impl Http {
    /// Sends a push, and gives the server's answer. Where the server refuses it for want of credentials, or redirects it, it is
    /// sent again.
    ///
    /// # Errors
    /// Whatever keeps the server from answering. It may have taken the push.
    pub fn receive_pack(&self, command: &[u8], pack: &Spool) -> Result<Incoming, Error> {
        // A server that wants credentials first may not listen to all of a large push before it says so.
        if pack.is_large() && self.state().authorization.is_none() {
            drop(self.exchange(&RECEIVE_PACK, &Body::Whole(b"0000")).map_err(|failed| failed.error)?);
        }
        self.exchange(&RECEIVE_PACK, &Body::Push(command, pack)).map_err(|failed| failed.error)
    }
}
