//! git's framing: packets with their length before them.
//!
//! All of it comes from another machine: nothing here may panic, nor hold more than one packet (64 KB) at a time.

use std::io::{self, Read};

use super::redact;

/// The largest packet git's protocol knows, its four digits of length included.
pub const MAX_PACKET: usize = 65520;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0000`: the end of a list.
    Flush,
    /// `0001`: between the parts of a v2 request.
    Delimiter,
    /// `0002`: the end of a v2 answer over a stateless connection.
    ResponseEnd,
    /// Anything else, without its length.
    Data(&'a [u8]),
}

/// Why an answer could not be used.
#[derive(Debug)]
pub enum Bad {
    /// The stream broke.
    Io(io::Error),
    /// It is not what the protocol prescribes; what was wrong.
    Malformed(String),
    /// The server said `ERR …`; its text, redacted.
    Refused(String),
}

impl From<io::Error> for Bad {
    /// One that a reader of packets has put into an error of a stream is taken out again.
    fn from(error: io::Error) -> Bad {
        error.downcast().unwrap_or_else(Bad::Io)
    }
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Io(error) => error.fmt(f),
            Bad::Malformed(why) | Bad::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Bad {}

/// Appends one data packet. Payloads longer than a packet are cut, as no caller has any.
pub fn encode(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX_PACKET - 4)];
    out.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend_from_slice(payload);
}

/// Reads packets off a stream, one at a time.
#[derive(Debug)]
pub struct Packets<R> {
    stream: R,
    payload: Vec<u8>,
}

impl<R: Read> Packets<R> {
    /// Starts reading.
    pub fn new(stream: R) -> Packets<R> {
        Packets { stream, payload: Vec::new() }
    }

    /// The next packet; `None` at a clean end of the stream.
    ///
    /// # Errors
    /// An end within a packet, a length that is none, or what the stream itself failed with.
    pub fn packet(&mut self) -> Result<Option<Packet<'_>>, Bad> {
        let mut length = [0; 4];
        let mut have = 0;
        while have < 4 {
            match self.stream.read(&mut length[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(Bad::Malformed("the answer ends within a packet".to_owned())),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        let length = length_of(&length)
            .ok_or_else(|| Bad::Malformed(format!("{:?} is no packet length", redact::text(&length))))?;
        match length {
            0 => return Ok(Some(Packet::Flush)),
            1 => return Ok(Some(Packet::Delimiter)),
            2 => return Ok(Some(Packet::ResponseEnd)),
            3 => return Err(Bad::Malformed("0003 is no packet length".to_owned())),
            _ => {}
        }
        self.payload.resize(length - 4, 0);
        self.stream.read_exact(&mut self.payload).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Bad::Malformed("the answer ends within a packet".to_owned()),
            _ => Bad::Io(e),
        })?;
        Ok(Some(Packet::Data(&self.payload)))
    }

    /// The stream, to go on with by other means.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }
}

/// The length that four hexadecimal digits say, if they are that and not beyond what a packet may have.
pub fn length_of(digits: &[u8; 4]) -> Option<usize> {
    let mut length = 0;
    for &digit in digits {
        length = length * 16 + char::from(digit).to_digit(16)? as usize;
    }
    (length <= MAX_PACKET).then_some(length)
}

/// # Errors
/// Where the line is an `ERR`.
pub(crate) fn refusal(line: &[u8]) -> Result<(), Bad> {
    match line.strip_prefix(b"ERR ") {
        Some(text) => Err(Bad::Refused(redact::text(text))),
        None => Ok(()),
    }
}
