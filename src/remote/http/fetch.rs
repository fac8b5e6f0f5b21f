//! The `git-upload-pack` service: a fetch, one request and its answer at a time.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::answer::Incoming;
use super::{Body, Http, Request};

/// One step of a fetch: what libgit2 writes is held (it is a list of ids) and sent when it begins to read.
#[derive(Debug)]
pub(crate) struct FetchStep {
    http: Arc<Http>,
    request: Vec<u8>,
    answer: Option<Incoming>,
}

impl FetchStep {
    pub fn new(http: Arc<Http>) -> FetchStep {
        FetchStep { http, request: Vec::new(), answer: None }
    }
}

impl Write for FetchStep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.request.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for FetchStep {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.answer.is_none() {
            let answer = self.http.exchange(&upload_pack(false), Body::Whole(&self.request));
            self.answer = Some(answer.map_err(|failed| io::Error::other(failed.error))?);
        }
        match &mut self.answer {
            Some(answer) => answer.read(buffer),
            None => Ok(0),
        }
    }
}

pub(super) fn upload_pack(v2: bool) -> Request<'static> {
    Request {
        below: "git-upload-pack",
        content_type: Some("application/x-git-upload-pack-request"),
        expects: "application/x-git-upload-pack-result",
        v2,
        gzip: !v2,
    }
}
