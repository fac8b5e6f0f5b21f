//! An answer as it comes, and what becomes of its end.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::BodyReader;
use ureq::http::header::CONTENT_TYPE;

use super::Http;
use super::failure::broken;
use crate::remote::progress::Meter;
use crate::remote::{Limits, redact};

/// An answer that has been read up to what matters; its end is still to come.
pub(super) struct Tail(BodyReader<'static>);

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tail")
    }
}

impl Tail {
    /// Only an answer that is read to its end gives its connection back for the next request, and over https that is
    /// worth two round trips; and a server is not hung up on.
    pub(super) fn read_out(mut self) {
        let _ = self.0.read(&mut [0]);
    }
}

/// Ends that are still to come when their session is over, while somebody will see to them.
static TAILS: Mutex<Option<Vec<Tail>>> = Mutex::new(None);

/// While the answer lives, a session that is over does not wait for the end of its last answer; the answer does, when it goes.
///
/// A server ends its answer when its git has ended, a good while after the last word. What is left to do meanwhile is done
/// in that time.
pub fn end_answers_later() -> EndsLater {
    *TAILS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    EndsLater(())
}

/// See [`end_answers_later`].
#[must_use = "dropping it waits for the ends"]
pub struct EndsLater(());

impl Drop for EndsLater {
    fn drop(&mut self) {
        let tails = TAILS.lock().unwrap_or_else(PoisonError::into_inner).take();
        tails.into_iter().flatten().for_each(Tail::read_out);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let Some(tail) = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if let Some(tails) = &mut *TAILS.lock().unwrap_or_else(PoisonError::into_inner) {
            tails.push(tail);
            return;
        }
        tail.read_out();
    }
}

/// An answer's body, as it comes.
pub(crate) struct Incoming {
    pub(super) reader: Option<BodyReader<'static>>,
    /// Where the reader goes when this does.
    pub(super) tail: Arc<Mutex<Option<Tail>>>,
    pub(super) limits: Limits,
    pub(super) meter: Arc<Meter>,
    pub(super) url: String,
    /// Nothing more will come: it ended or broke.
    pub(super) over: bool,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming(from {})", self.url)
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        match reader.read(buffer) {
            Ok(n) => {
                self.over = n == 0 && !buffer.is_empty();
                self.meter.received(n);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                self.over = true;
                Err(io::Error::other(broken(e, &self.url, &self.limits)))
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Whoever reads packets stops at the last one.
        if let Some(reader) = self.reader.take().filter(|_| !self.over) {
            *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tail(reader));
        }
    }
}

/// Reads a short body to its end, so that the connection can be used again.
pub(super) fn drain(response: ureq::http::Response<ureq::Body>) {
    let _ = io::copy(&mut response.into_body().into_reader().take(64 << 10), &mut io::sink());
}

/// What an error's body says to people, if it is for them.
pub(super) fn words_of(response: ureq::http::Response<ureq::Body>) -> String {
    let plain = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().to_ascii_lowercase().starts_with(b"text/plain"));
    let mut said = Vec::new();
    let _ = response.into_body().into_reader().take(8 << 10).read_to_end(&mut said);
    if plain { redact::text(&said) } else { String::new() }
}
