//! The `git-receive-pack` service: a push, sent whole where it is small and as it is packed where it is not.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::answer::Incoming;
use super::failure::lasting;
use super::{Body, Http, Request};
use crate::error::{Error, Kind};
use crate::remote::pktline::ValidUtf8;
use crate::remote::progress::Meter;
use crate::remote::redact;

/// Up to here a push is sent with its length, as one piece that can be sent again; beyond it is streamed.
const WHOLE: usize = 1 << 20;

/// What a streamed push is cut into.
const PIECE: usize = 64 << 10;

const RECEIVE_PACK: Request<'static> = Request {
    below: "git-receive-pack",
    content_type: Some("application/x-git-receive-pack-request"),
    expects: "application/x-git-receive-pack-result",
    v2: false,
    gzip: false,
};

/// A push: small ones are sent whole, larger ones as they are packed, by a thread, since the client wants to read the
/// body and libgit2 wants to write it.
#[derive(Debug)]
pub(crate) struct Push {
    http: Arc<Http>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Holding(Vec<u8>),
    Sending { pieces: SyncSender<Piece>, piece: Vec<u8>, answer: Receiver<Result<Incoming, Error>> },
    Reading(Box<ValidUtf8<Incoming>>),
    Over,
}

/// Part of a push, or its proper end: a sender that just goes away has given up, and then the request must break off
/// rather than end as if it were whole.
#[derive(Debug)]
enum Piece {
    Part(Vec<u8>),
    End,
}

impl Push {
    pub fn new(http: Arc<Http>) -> Push {
        Push { http, stage: Stage::Holding(Vec::new()) }
    }

    fn start(&mut self, first: Vec<u8>) -> Result<(), Error> {
        // A stream cannot be sent again, so whatever the server wants to ask first, it is made to ask now.
        if !self.http.state().proven || self.http.state().authorization.is_none() {
            drop(self.http.exchange(&RECEIVE_PACK, Body::Whole(b"0000")).map_err(|failed| failed.error)?);
        }
        let (pieces, rest) = sync_channel(4);
        let (tell, answer) = sync_channel(1);
        let http = self.http.clone();
        std::thread::Builder::new()
            .name("push".to_owned())
            .stack_size(crate::watchdog::STACK)
            .spawn(move || {
                let body = Pieces { rest, piece: Cursor::new(Vec::new()), over: false, meter: http.meter.clone() };
                let answer = http.exchange(&RECEIVE_PACK, Body::Stream(body)).map_err(|failed| failed.error);
                let _ = tell.send(answer);
            })
            .map_err(|e| {
                lasting(format!("no thread for the push: {e}"), "see that the machine has processes to spare")
            })?;
        let _ = pieces.send(Piece::Part(first));
        self.stage = Stage::Sending { pieces, piece: Vec::with_capacity(PIECE), answer };
        Ok(())
    }

    fn given_up(answer: &Receiver<Result<Incoming, Error>>, url: &str) -> Error {
        match answer.recv() {
            Ok(Err(e)) => e,
            // It answered before it had heard all.
            Ok(Ok(_)) | Err(_) => Error {
                kind: Kind::Unreachable,
                what: format!("{url} ended the push before it was through"),
                next: "nothing: the next pass tries again".to_owned(),
            },
        }
    }

    fn url(&self) -> String {
        redact::url(&self.http.state().base.clean())
    }
}

impl Write for Push {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stage {
            Stage::Holding(held) => {
                held.extend_from_slice(bytes);
                if held.len() > WHOLE {
                    let first = std::mem::take(held);
                    self.start(first).map_err(io::Error::other)?;
                }
            }
            Stage::Sending { pieces, piece, answer } => {
                piece.extend_from_slice(bytes);
                if piece.len() >= PIECE {
                    let part = std::mem::replace(piece, Vec::with_capacity(PIECE));
                    if pieces.send(Piece::Part(part)).is_err() {
                        let shown = redact::url(&self.http.state().base.clean());
                        return Err(io::Error::other(Push::given_up(answer, &shown)));
                    }
                }
            }
            Stage::Reading(_) | Stage::Over => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Push {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !matches!(self.stage, Stage::Reading(_)) {
            let url = self.url();
            let answer = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Holding(held) => {
                    self.http.meter.sent(held.len());
                    self.http.exchange(&RECEIVE_PACK, Body::Whole(&held)).map_err(|failed| failed.error)
                }
                Stage::Sending { pieces, piece, answer } => {
                    let whole = pieces.send(Piece::Part(piece)).and_then(|()| pieces.send(Piece::End));
                    match (whole, answer.recv()) {
                        (_, Ok(answer)) => answer,
                        (_, Err(_)) => Err(Push::given_up(&answer, &url)),
                    }
                }
                Stage::Reading(_) | Stage::Over => return Ok(0),
            };
            let answer = answer.map_err(io::Error::other)?;
            self.stage = Stage::Reading(Box::new(ValidUtf8::new(answer)));
        }
        match &mut self.stage {
            Stage::Reading(answer) => answer.read(buffer),
            _ => Ok(0),
        }
    }
}

/// The body of a streamed push, as the client reads it.
pub(super) struct Pieces {
    rest: Receiver<Piece>,
    piece: Cursor<Vec<u8>>,
    over: bool,
    meter: Arc<Meter>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buffer)?;
            if n > 0 || self.over {
                self.meter.sent(n);
                return Ok(n);
            }
            match self.rest.recv() {
                Ok(Piece::Part(part)) => self.piece = Cursor::new(part),
                Ok(Piece::End) => self.over = true,
                Err(_) => return Err(io::Error::other("the push was given up")),
            }
        }
    }
}
