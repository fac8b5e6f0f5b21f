//! What libgit2 reads and writes through: a session behind a URL of a scheme of its own, its streams mended where libgit2
//! would wait for ever or trust what it should not.

use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, PoisonError};

use git2::Oid;
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};

use super::connection::Connection;
use super::err_packet::ErrWatch;
use super::http::{self, FetchStep, Http, Push};
use super::pktline::{Sifted, ValidUtf8};
use super::progress::Meter;
use super::{Inner, Reach, SESSIONS, answers, from_git2, pktline};
use crate::error::Error;

pub(super) fn make_transport(remote: &git2::Remote<'_>) -> Result<Transport, git2::Error> {
    let url = remote.url().unwrap_or_default();
    let sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let inner = sessions.iter().find(|(have, _)| have == url).and_then(|(_, session)| session.upgrade());
    drop(sessions);
    let inner = inner.ok_or_else(|| git2::Error::from_str("this transport session is over"))?;
    let stateless = matches!(inner.reach, Reach::Http(_));
    Transport::smart(remote, stateless, Sub(inner))
}

impl Inner {
    fn act(&self, service: Service) -> Result<Box<dyn Stream>, Error> {
        self.meter.done();
        let program = |service: &str| -> Result<Metered, Error> {
            match &self.reach {
                Reach::Endpoint(endpoint) => {
                    let connection = endpoint.open(service, false, self.limits.clone(), &self.shown)?;
                    Ok(Metered { connection, meter: self.meter.clone() })
                }
                Reach::Http(_) => Err(from_git2(&git2::Error::from_str("no program for http"), &self.shown)),
            }
        };
        Ok(match (&self.reach, service) {
            (Reach::Http(http), Service::UploadPackLs) => match self.judged(http)? {
                Some(found) => Box::new(Cursor::new(advertised(&found))),
                None => Box::new(Received(Sifted::new(http.advertisement("git-upload-pack")?, self.wanted(), true))),
            },
            (Reach::Http(http), Service::ReceivePackLs) => {
                Box::new(Received(Sifted::new(http.advertisement("git-receive-pack")?, None, true)))
            }
            (Reach::Http(http), Service::UploadPack) => Box::new(FetchStep::new(http.clone())),
            (Reach::Http(http), Service::ReceivePack) => Box::new(Push::new(http.clone())),
            (Reach::Endpoint(_), Service::UploadPackLs | Service::UploadPack) => {
                Box::new(Listing(Sifted::new(program("upload-pack")?, self.wanted(), false)))
            }
            (Reach::Endpoint(_), Service::ReceivePackLs | Service::ReceivePack) => {
                Box::new(Mended(ValidUtf8::new(Listing(Sifted::new(program("receive-pack")?, None, false)))))
            }
        })
    }

    /// What a fetch is about, if it was said: what was asked for before.
    fn wanted(&self) -> Option<Vec<String>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        (!asked.names.is_empty()).then(|| asked.names.clone())
    }

    /// The refs a fetch is to see: those asked for, if the server answers questions about single refs.
    fn judged(&self, http: &Http) -> Result<Option<Vec<(String, Oid)>>, Error> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.names.is_empty() || !http.speaks_v2() {
            return Ok(None);
        }
        if let Some(fresh) = asked.fresh.take() {
            return Ok(Some(fresh));
        }
        let names: Vec<&str> = asked.names.iter().map(String::as_str).collect();
        let found = http.tips(&names)?;
        Ok(http.speaks_v2().then_some(found))
    }
}

/// libgit2's side of a session.
struct Sub(Arc<Inner>);

impl SmartSubtransport for Sub {
    fn action(&self, _url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        match self.0.act(service) {
            Ok(stream) => {
                Ok(Box::new(Noted { inner: self.0.clone(), stream, ended: false, watch: ErrWatch::default() }))
            }
            Err(e) => {
                // git2 makes a C string of this, and unwraps.
                let text = e.what.replace('\0', "\u{fffd}");
                *self.0.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                Err(git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Net, text))
            }
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        self.0.meter.done();
        Ok(())
    }
}

/// A stream for libgit2; what a program said as it hung up is had from it.
trait Stream: Read + Write + Send + 'static {
    /// Why a stream ended that libgit2 wanted more of.
    fn why_ended(&mut self) -> Option<Error> {
        None
    }
}

impl Stream for Cursor<Vec<u8>> {}
impl Stream for FetchStep {}
impl Stream for Push {}

/// Keeps the error that libgit2 turns into a line of text, and tells it that a stream is over.
///
/// A read of no bytes ends a pack for libgit2, but not the wait for a line: it asks again and again, as fast as it can, until
/// somebody ends the process. So the second such read in a row is an error.
struct Noted {
    inner: Arc<Inner>,
    stream: Box<dyn Stream>,
    /// The last read gave nothing.
    ended: bool,
    /// What the server gives for the end of it all counts more than how it then ends.
    watch: ErrWatch,
}

impl Noted {
    /// Keeps why the stream broke or ended.
    fn remember(&self, why: Error) {
        let why = self.watch.words().map_or(why, |words| answers::server_said(&self.inner.shown, &words));
        *self.inner.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    fn broke(&self, e: io::Error) -> io::Error {
        if let Some(known) = Error::within(&e) {
            self.remember(known);
        }
        e
    }
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let n = self.stream.read(buffer).map_err(|e| self.broke(e))?;
        let over = n == 0 && !buffer.is_empty();
        if over || self.watch.see(buffer.get(..n).unwrap_or_default()) {
            self.ended = over;
            let why = self.stream.why_ended().filter(|_| over);
            self.remember(why.unwrap_or_else(|| answers::server_said(&self.inner.shown, "")));
        }
        Ok(n)
    }
}

impl Write for Noted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ended = false;
        let result = self.stream.write(bytes);
        // libgit2 says goodbye with a flush, also to who has gone already.
        if bytes == b"0000" {
            return result;
        }
        result.map_err(|e| self.broke(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// An advertisement: only read.
struct Received(Sifted<http::Incoming>);

impl Stream for Received {}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Received {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A program's or socket's stream, counted.
struct Metered {
    connection: Connection,
    meter: Arc<Meter>,
}

impl Stream for Metered {
    fn why_ended(&mut self) -> Option<Error> {
        Some(self.connection.hung_up())
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.connection.read(buffer)?;
        self.meter.received(n);
        Ok(n)
    }
}

impl Write for Metered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.connection.write(bytes)?;
        self.meter.sent(n);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.flush()
    }
}

/// A program's stream, its advertisement sifted.
struct Listing(Sifted<Metered>);

impl Stream for Listing {
    fn why_ended(&mut self) -> Option<Error> {
        self.0.stream_mut().why_ended()
    }
}

impl Read for Listing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Listing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stream_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a `git-receive-pack` says, as valid UTF-8.
struct Mended(ValidUtf8<Listing>);

impl Stream for Mended {
    fn why_ended(&mut self) -> Option<Error> {
        self.0.stream_mut().why_ended()
    }
}

impl Read for Mended {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Mended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stream_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The advertisement libgit2 would have got, of these refs alone.
///
/// The capabilities are those that every git has had since smart HTTP began (1.6.6), and a server that answered v2 is
/// younger than that by far.
fn advertised(found: &[(String, Oid)]) -> Vec<u8> {
    let mut out = Vec::new();
    pktline::encode(&mut out, b"# service=git-upload-pack\n");
    out.extend_from_slice(b"0000");
    let mut capabilities =
        "\0multi_ack_detailed multi_ack thin-pack side-band-64k ofs-delta shallow include-tag no-progress";
    for (name, oid) in found {
        pktline::encode(&mut out, format!("{oid} {name}{capabilities}\n").as_bytes());
        capabilities = "";
    }
    out.extend_from_slice(b"0000");
    out
}
