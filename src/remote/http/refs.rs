//! Which refs a server has: one protocol v2 request, and the advertisement where a server has no v2.

use git2::Oid;

use super::answer::Incoming;
use super::fetch::upload_pack;
use super::{Body, Failed, Http, Request};
use crate::error::{Error, Kind};
use crate::remote::pktline::{self, Bad, Packets};
use crate::remote::{answers, redact};

/// What a server made of a question in protocol v2.
enum V2 {
    Found(Vec<(String, Oid)>),
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
                V2::Refused(said) => words = Some(said),
                V2::Unknown => {}
            }
            tracing::debug!("the server does not answer protocol v2; asking the old way in this pass");
            self.state().speaks_v2 = Some(false);
        }
        self.advertised_tips(refnames).map_err(|error| {
            let Some(words) = words else { return error };
            let said = answers::server_said(&redact::url(&self.state().base.clean()), &words);
            match error.kind {
                Kind::Refused => said,
                _ => Error { what: format!("{}; before that, {}", error.what, said.what), ..error },
            }
        })
    }

    fn advertised_tips(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Error> {
        let answer = self.advertisement("git-upload-pack")?;
        let url = answer.url.clone();
        pktline::read_advertisement(&mut Packets::new(answer), refnames, true).map_err(|bad| self.bad(bad, &url))
    }

    /// One POST, nothing before it.
    fn tips_by_v2(&self, refnames: &[&str]) -> Result<V2, Error> {
        let body = pktline::ls_refs_request(refnames);
        let answer = match self.exchange(&upload_pack(true), Body::Whole(&body)) {
            Ok(answer) => answer,
            // It is about the secret or about how often we ask: sending the same once more would only make it worse.
            Err(Failed { final_word: true, error, .. }) => return Err(error),
            // What servers without v2, or without this way of asking, answer such a POST with.
            Err(Failed { status: Some(400 | 403 | 404 | 405 | 406 | 411 | 415 | 422 | 500 | 501), .. })
            | Err(Failed { not_git: true, .. }) => return Ok(V2::Unknown),
            Err(failed) => return Err(failed.error),
        };
        let url = answer.url.clone();
        match pktline::read_ls_refs(&mut Packets::new(answer), refnames) {
            Ok(found) => Ok(V2::Found(found)),
            Err(Bad::Io(e)) => Err(self.bad(Bad::Io(e), &url)),
            Err(Bad::Malformed(_)) => Ok(V2::Unknown),
            Err(Bad::Refused(words)) => Ok(V2::Refused(words)),
        }
    }

    /// `GET info/refs`.
    pub fn advertisement(&self, service: &str) -> Result<Incoming, Error> {
        let request = Request {
            below: &format!("info/refs?service={service}"),
            content_type: None,
            expects: &format!("application/x-{service}-advertisement"),
            v2: false,
            gzip: false,
        };
        self.exchange(&request, Body::Nothing).map_err(|failed| failed.error)
    }

    fn bad(&self, bad: Bad, url: &str) -> Error {
        match bad {
            Bad::Io(e) => self.broken(e, url),
            Bad::Refused(words) => answers::server_said(url, &words),
            // Cut short somewhere, by the server or on the way.
            Bad::Malformed(why) => Error {
                kind: Kind::Unreachable,
                what: format!("{url} answered what is no list of refs: {why}"),
                next: "nothing: the next pass tries again; if it goes on, see that the URL is a git repository's"
                    .to_owned(),
            },
        }
    }
}
