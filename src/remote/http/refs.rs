//! The `git-upload-pack` service: which references a server has, by one request in protocol v2 or by the list of a server
//! without v2; and the requests of a fetch.

use std::time::Duration;

use git2::Oid;

use super::answer::Incoming;
use super::{Body, Failed, Http, Request};
use crate::error::{Error, Kind};
use crate::remote::pktline::{Bad, Packets};
use crate::remote::protocol::refs::{self, Greeting, Listing};
use crate::remote::{answers, redact};

/// How long a server that may not know protocol v2 has to begin its answer. Some leave such a request unanswered for ever.
const SILENCE: Duration = Duration::from_secs(3);

/// What a server made of a question in protocol v2.
enum V2 {
    Found(Vec<(String, Oid)>),
    /// It did not begin an answer.
    Silent,
    /// It said `ERR`, which may be of the question or of the repository: the old way tells.
    Refused(String),
    /// It did not answer as v2 would.
    Unknown,
}

impl Http {
    /// The tips of these refs, of those that are there.
    pub fn tips(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Error> {
        let mut words = None;
        if self.state().speaks_v2 != Some(false) {
            match self.tips_by_v2(refnames)? {
                V2::Found(found) => {
                    self.state().speaks_v2 = Some(true);
                    return Ok(found);
                }
                V2::Silent => return self.tips_of_silent(refnames),
                V2::Refused(said) => words = Some(said),
                V2::Unknown => {}
            }
            tracing::debug!("the server does not answer protocol v2; asking the old way in this pass");
            self.state().speaks_v2 = Some(false);
        }
        self.listed_tips(refnames, false).map_err(|error| {
            let Some(words) = words else { return error };
            let said = answers::server_said(&redact::url(&self.state().base.clean()), &words);
            match error.kind {
                Kind::Refused => said,
                _ => Error { what: format!("{}; before that, {}", error.what, said.what), ..error },
            }
        })
    }

    /// The same of a server that did not answer a question in protocol v2 soon. It is asked as git asks, which finds out
    /// whether it has v2: it may just be slow.
    fn tips_of_silent(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Error> {
        tracing::debug!("the server does not answer protocol v2 in {SILENCE:?}; asking what it has");
        let found = self.listed_tips(refnames, true)?;
        let mut state = self.state();
        state.silent = state.speaks_v2 == Some(false);
        Ok(found)
    }

    /// The tips by the list of everything that the server has. With `v2`, that protocol is used where the server offers it.
    fn listed_tips(&self, refnames: &[&str], v2: bool) -> Result<Vec<(String, Oid)>, Error> {
        match self.greeting("git-upload-pack", v2, refnames, &mut |_| {})? {
            Greeting::Listing(listing) => {
                let found = listing.refs.clone();
                let mut state = self.state();
                (state.speaks_v2, state.listing) = (Some(false), Some(listing));
                Ok(found)
            }
            Greeting::V2 => {
                self.state().speaks_v2 = Some(true);
                match self.tips_by_v2(refnames)? {
                    V2::Found(found) => Ok(found),
                    V2::Refused(words) => Err(self.bad(Bad::Refused(words), &self.shown())),
                    V2::Silent | V2::Unknown => {
                        Err(self.bad(Bad::Malformed("it offers protocol v2 and has none".to_owned()), &self.shown()))
                    }
                }
            }
        }
    }

    /// One POST, nothing before it.
    fn tips_by_v2(&self, refnames: &[&str]) -> Result<V2, Error> {
        let body = refs::ls_refs_request(refnames);
        let patience = self.state().speaks_v2.is_none().then_some(SILENCE);
        let answer = match self.exchange(&Request { patience, ..upload_pack(true) }, &Body::Whole(&body)) {
            Ok(answer) => answer,
            Err(Failed { silent: true, .. }) => return Ok(V2::Silent),
            // It is about the secret or about how often we ask: sending the same once more would only make it worse.
            Err(Failed { final_word: true, error, .. }) => return Err(error),
            // What servers without v2, or without this way of asking, answer such a POST with.
            Err(Failed { status: Some(400 | 403 | 404 | 405 | 406 | 411 | 415 | 422 | 500 | 501), .. })
            | Err(Failed { not_git: true, .. }) => return Ok(V2::Unknown),
            Err(failed) => return Err(failed.error),
        };
        let url = answer.url.clone();
        match refs::read_ls_refs(&mut Packets::new(answer), refnames) {
            Ok(found) => Ok(V2::Found(found)),
            Err(Bad::Io(e)) => Err(self.bad(Bad::Io(e), &url)),
            Err(Bad::Malformed(_)) => Ok(V2::Unknown),
            Err(Bad::Refused(words)) => Ok(V2::Refused(words)),
        }
    }

    /// What a server without v2 has listed, for a fetch; `None` for a server with v2.
    pub fn listing(&self) -> Result<Option<Listing>, Error> {
        if self.state().speaks_v2.is_none() {
            self.tips(&[])?;
        } else if self.state().speaks_v2 == Some(false) && self.state().listing.is_none() {
            self.listed_tips(&[], false)?;
        }
        Ok(self.state().listing.clone())
    }

    /// `GET info/refs`: what a service has.
    pub fn list(&self, service: &str, refnames: &[&str], each: &mut dyn FnMut(Oid)) -> Result<Greeting, Error> {
        self.greeting(service, false, refnames, each)
    }

    fn greeting(
        &self,
        service: &str,
        v2: bool,
        refnames: &[&str],
        each: &mut dyn FnMut(Oid),
    ) -> Result<Greeting, Error> {
        let request = Request {
            below: &format!("info/refs?service={service}"),
            content_type: None,
            expects: &format!("application/x-{service}-advertisement"),
            v2,
            gzip: false,
            patience: None,
        };
        let answer = self.exchange(&request, &Body::Nothing).map_err(|failed| failed.error)?;
        let url = answer.url.clone();
        refs::read_greeting(&mut Packets::new(answer), refnames, each).map_err(|bad| self.bad(bad, &url))
    }

    /// One request of a fetch, and its answer.
    pub fn upload_pack(&self, v2: bool, request: &[u8]) -> Result<Incoming, Error> {
        let request_of = Request { gzip: true, ..upload_pack(v2) };
        self.exchange(&request_of, &Body::Whole(request)).map_err(|failed| failed.error)
    }

    fn shown(&self) -> String {
        redact::url(&self.state().base.clean())
    }

    /// The error for an answer that can't be used.
    pub fn bad(&self, bad: Bad, url: &str) -> Error {
        match bad {
            Bad::Io(e) => self.broken(e, url),
            Bad::Refused(words) => answers::server_said(url, &words),
            // Cut short somewhere, by the server or on the way.
            Bad::Malformed(why) => Error {
                kind: Kind::Unreachable,
                what: format!("{url} answered what git's protocol does not know: {why}"),
                next: "nothing: the next pass tries again; if it goes on, see that the URL is a git repository's"
                    .to_owned(),
            },
        }
    }
}

fn upload_pack(v2: bool) -> Request<'static> {
    Request {
        below: "git-upload-pack",
        content_type: Some("application/x-git-upload-pack-request"),
        expects: "application/x-git-upload-pack-result",
        v2,
        gzip: false,
        patience: None,
    }
}
