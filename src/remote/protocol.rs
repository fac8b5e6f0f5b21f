//! git's protocol, over any stream: lists of references, fetches and pushes.
//!
//! Everything that is read here comes from another machine: nothing may panic, and no more than one packet and what was
//! asked for is held in memory.

pub mod fetch;
pub mod push;
pub mod refs;

use std::io::{self, Read};

use git2::Oid;

use super::pktline::{Bad, Packet, Packets};
use super::redact;

/// How this program names itself where git's protocol asks for it.
const AGENT: &str = concat!("git/gitsync-", env!("CARGO_PKG_VERSION"));

/// The most bytes kept of what a server says to people during one exchange.
const MOST_SAID: usize = 16 * 1024;

/// What a server can do, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// From the words after the NUL of an advertisement's first line. Words that are not UTF-8 are of no use.
    pub fn parse(words: &[u8]) -> Capabilities {
        let words = words.split(|b| *b == b' ' || *b == b'\n').filter(|word| !word.is_empty());
        Capabilities(words.filter_map(|word| String::from_utf8(word.to_vec()).ok()).collect())
    }

    /// Returns whether the server has it, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    }
}

/// The payload of a sideband: band 1. What the server says to people, band 2, is collected.
#[derive(Debug)]
pub struct Sideband<'p, R> {
    packets: &'p mut Packets<R>,
    ready: Vec<u8>,
    given: usize,
    over: bool,
    /// What the server said to people, at most 16 KB of it.
    pub said: Vec<u8>,
}

impl<'p, R: Read> Sideband<'p, R> {
    /// The payload of the packets that follow, up to the next flush.
    pub fn new(packets: &'p mut Packets<R>) -> Sideband<'p, R> {
        Sideband { packets, ready: Vec::new(), given: 0, over: false, said: Vec::new() }
    }

    /// Reads the next packet of band 1.
    fn fill(&mut self) -> Result<(), Bad> {
        self.ready.clear();
        self.given = 0;
        while self.ready.is_empty() && !self.over {
            match self.packets.packet()? {
                Some(Packet::Flush | Packet::ResponseEnd) => self.over = true,
                Some(Packet::Data([1, rest @ ..])) => self.ready.extend_from_slice(rest),
                Some(Packet::Data([2, rest @ ..])) => {
                    let room = MOST_SAID.saturating_sub(self.said.len());
                    self.said.extend_from_slice(rest.get(..room).unwrap_or(rest));
                }
                Some(Packet::Data([3, rest @ ..])) => return Err(Bad::Refused(redact::text(rest))),
                Some(Packet::Data(line)) => {
                    super::pktline::refusal(line)?;
                    return Err(Bad::Malformed("a packet of the answer belongs to no band".to_owned()));
                }
                Some(Packet::Delimiter) => return Err(Bad::Malformed("a separator within the answer".to_owned())),
                None => return Err(Bad::Malformed("the answer has no end".to_owned())),
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Sideband<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            self.fill().map_err(io::Error::other)?;
        }
        let n = self.ready.get(self.given..).unwrap_or_default().read(buffer)?;
        self.given += n;
        Ok(n)
    }
}

/// The id that a line consists of.
///
/// # Errors
/// If it is none.
fn id(text: &[u8]) -> Result<Oid, Bad> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let id = std::str::from_utf8(text).ok().filter(|id| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    let none = || Bad::Malformed(format!("`{}` is no object's id", redact::text(text)));
    id.and_then(|id| Oid::from_str(id).ok()).ok_or_else(none)
}
