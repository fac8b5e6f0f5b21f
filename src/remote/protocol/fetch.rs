//! A fetch: what is wanted, what is here already, and the pack that makes up the difference.
//!
//! Which commits are here is told in rounds of growing size, newest first, until the server knows enough.

use std::io::{self, Read, Write};

use git2::Oid;

use super::{Capabilities, Sideband};
use crate::remote::pktline::{Bad, Packet, Packets, encode, refusal};

/// How many commits the first round names; each further one twice as many, up to [`LARGEST_ROUND`].
const FIRST_ROUND: usize = 16;
const LARGEST_ROUND: usize = 16 * 1024;
/// So many commits that the server does not have, after one that it has, end the search for more.
const IN_VAIN: usize = 256;
/// How many commits are named to a server that can't say which ones it has.
const AT_ONCE: usize = 1024;
/// In so many places a server may cut history off.
pub(super) const MOST_CUT: usize = 1 << 20;
/// The depth that means all of history.
pub const WHOLE: u32 = 0x7fff_ffff;

/// What is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The objects; with each commit everything that it needs and the server does not know to be here.
    pub ids: &'a [Oid],
    /// Where our own history is cut off.
    pub shallow: &'a [Oid],
    /// How many commits of history, at most; `None` for what is new.
    pub depth: Option<u32>,
    /// The pack may have deltas against objects that are here.
    pub thin: bool,
    /// Nobody watches the progress.
    pub quiet: bool,
}

/// The commits that are here.
pub trait Haves {
    /// The next one to name.
    fn next(&mut self) -> Option<Oid>;
    /// The server has this one, and so everything before it.
    fn is_common(&mut self, id: Oid);
}

/// Where the server cuts history off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    /// The commits that come without their parents.
    pub shallow: Vec<Oid>,
    /// The commits that were cut off here, and whose parents come now.
    pub unshallow: Vec<Oid>,
}

impl Boundary {
    /// Takes a line that is about the boundary. Returns whether it was one.
    fn take(&mut self, line: &[u8]) -> Result<bool, Bad> {
        if self.shallow.len() + self.unshallow.len() >= MOST_CUT {
            return Err(Bad::Malformed("history is cut off in too many places".to_owned()));
        }
        if let Some(id) = line.strip_prefix(b"shallow ") {
            self.shallow.push(super::id(id)?);
        } else if let Some(id) = line.strip_prefix(b"unshallow ") {
            self.unshallow.push(super::id(id)?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads such lines up to a flush.
    fn read<R: Read>(packets: &mut Packets<R>) -> Result<Boundary, Bad> {
        let mut read = Boundary::default();
        loop {
            match packets.packet()? {
                Some(Packet::Flush) => return Ok(read),
                Some(Packet::Data(line)) => {
                    refusal(line)?;
                    if !read.take(line)? {
                        return Err(Bad::Malformed("a line is not about where history is cut off".to_owned()));
                    }
                }
                _ => return Err(Bad::Malformed("the list of where history is cut off has no end".to_owned())),
            }
        }
    }
}

/// How requests get to the server and answers back.
pub trait Channel {
    /// Sends a request and gives the stream of its answer.
    ///
    /// # Errors
    /// Whatever keeps the server from answering.
    fn ask(&mut self, request: &[u8]) -> Result<Packets<&mut dyn Read>, Bad>;

    /// Each request is answered by a server that has forgotten those before it.
    fn is_stateless(&self) -> bool;
}

/// How many commits each round names, and when it is the last.
struct Rounds<'h> {
    haves: &'h mut dyn Haves,
    /// Those that the server has.
    common: Vec<Oid>,
    size: usize,
    in_vain: usize,
    /// The server needs no more of them.
    ready: bool,
}

impl<'h> Rounds<'h> {
    fn new(haves: &'h mut dyn Haves) -> Rounds<'h> {
        Rounds { haves, common: Vec::new(), size: FIRST_ROUND, in_vain: 0, ready: false }
    }

    /// Names the commits of the next round. Returns whether it is the last.
    fn name(&mut self, request: &mut Vec<u8>, with_common: bool) -> bool {
        if with_common {
            self.common.iter().for_each(|id| encode(request, format!("have {id}\n").as_bytes()));
        }
        if self.ready {
            return true;
        }
        for _ in 0..self.size {
            let Some(id) = self.haves.next() else { return true };
            encode(request, format!("have {id}\n").as_bytes());
            self.in_vain += 1;
        }
        self.size = (self.size * 2).min(LARGEST_ROUND);
        !self.common.is_empty() && self.in_vain > IN_VAIN
    }

    fn is_common(&mut self, id: Oid) {
        if !self.common.contains(&id) {
            self.common.push(id);
            self.in_vain = 0;
        }
        self.haves.is_common(id);
    }
}

/// Fetches by protocol v2. The pack goes to `pack`.
///
/// # Errors
/// What the server refused with, or an answer that is none. Errors of `pack` come as they are, within [`Bad::Io`].
pub fn v2(
    channel: &mut dyn Channel,
    wanted: &Wanted<'_>,
    haves: &mut dyn Haves,
    pack: &mut dyn Write,
) -> Result<Boundary, Bad> {
    let mut head = Vec::new();
    encode(&mut head, b"command=fetch");
    head.extend_from_slice(b"0001");
    for (word, is_said) in [("thin-pack", wanted.thin), ("no-progress", wanted.quiet), ("ofs-delta", true)] {
        if is_said {
            encode(&mut head, format!("{word}\n").as_bytes());
        }
    }
    lines(&mut head, "shallow", wanted.shallow);
    if let Some(depth) = wanted.depth {
        encode(&mut head, format!("deepen {depth}\n").as_bytes());
    }
    lines(&mut head, "want", wanted.ids);
    let mut rounds = Rounds::new(haves);
    loop {
        let mut request = head.clone();
        let last = rounds.name(&mut request, true);
        if last {
            encode(&mut request, b"done\n");
        }
        request.extend_from_slice(b"0000");
        let mut packets = channel.ask(&request)?;
        if let Some(boundary) = v2_answer(&mut packets, &mut rounds, pack)? {
            return Ok(boundary);
        }
        if last {
            return Err(Bad::Malformed("the answer has no pack".to_owned()));
        }
    }
}

fn lines(request: &mut Vec<u8>, word: &str, ids: &[Oid]) {
    ids.iter().for_each(|id| encode(request, format!("{word} {id}\n").as_bytes()));
}

/// Reads the answer to one request; `None` if the server needs to hear more before it sends a pack.
fn v2_answer<R: Read>(
    packets: &mut Packets<R>,
    rounds: &mut Rounds<'_>,
    pack: &mut dyn Write,
) -> Result<Option<Boundary>, Bad> {
    let mut boundary = Boundary::default();
    let mut section = Vec::new();
    loop {
        match packets.packet()? {
            Some(Packet::Delimiter) => section.clear(),
            Some(Packet::Flush) => return Ok(None),
            Some(Packet::Data(line)) => {
                refusal(line)?;
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                match (section.as_slice(), line) {
                    (b"", b"packfile") => break,
                    (b"", header) => section.extend_from_slice(header),
                    (b"acknowledgments", line) => {
                        if let Some(id) = line.strip_prefix(b"ACK ") {
                            rounds.is_common(super::id(id)?);
                        }
                    }
                    (b"shallow-info", line) => _ = boundary.take(line)?,
                    // Sections that were not asked for.
                    _ => {}
                }
            }
            Some(Packet::ResponseEnd) | None => {
                return Err(Bad::Malformed("the answer ends before the pack".to_owned()));
            }
        }
    }
    copy(&mut Sideband::new(packets), pack)?;
    Ok(Some(boundary))
}

/// Fetches by the protocol from before v2. `capabilities`: those of the server's list of references.
///
/// # Errors
/// As for [`v2`].
pub fn v0(
    channel: &mut dyn Channel,
    capabilities: &Capabilities,
    wanted: &Wanted<'_>,
    haves: &mut dyn Haves,
    pack: &mut dyn Write,
) -> Result<Boundary, Bad> {
    let stateless = channel.is_stateless();
    let says_which = capabilities.has("multi_ack_detailed");
    let bands = ["side-band-64k", "side-band"].into_iter().find(|band| capabilities.has(band));
    let head = v0_head(capabilities, bands, wanted)?;
    let mut rounds = Rounds::new(haves);
    if !says_which {
        rounds.size = AT_ONCE;
    }
    let (mut first, mut boundary) = (true, Boundary::default());
    loop {
        let mut request = if first || stateless { head.clone() } else { Vec::new() };
        let last = rounds.name(&mut request, stateless) || !says_which;
        if last {
            encode(&mut request, b"done\n");
        } else {
            request.extend_from_slice(b"0000");
        }
        let mut packets = channel.ask(&request)?;
        if wanted.depth.is_some() && (first || stateless) {
            boundary = Boundary::read(&mut packets)?;
        }
        first = false;
        if v0_acknowledged(&mut packets, &mut rounds)? == Then::Pack || last {
            match bands {
                Some(_) => copy(&mut Sideband::new(&mut packets), pack)?,
                None => copy(packets.stream_mut(), pack)?,
            }
            return Ok(boundary);
        }
    }
}

/// What each conversation, or each request without a memory, begins with.
fn v0_head(capabilities: &Capabilities, bands: Option<&str>, wanted: &Wanted<'_>) -> Result<Vec<u8>, Bad> {
    if (wanted.depth.is_some() || !wanted.shallow.is_empty()) && !capabilities.has("shallow") {
        return Err(Bad::Refused("a history that is cut off can't be fetched from this server".to_owned()));
    }
    let mut words = String::new();
    let mut say = |word: &str| {
        words.push(' ');
        words.push_str(word);
    };
    let of_use =
        [("multi_ack_detailed", true), ("thin-pack", wanted.thin), ("no-progress", wanted.quiet), ("ofs-delta", true)];
    of_use.iter().filter(|(word, wanted)| *wanted && capabilities.has(word)).for_each(|(word, _)| say(word));
    bands.into_iter().for_each(&mut say);
    if capabilities.has("agent") {
        say(&format!("agent={}", super::AGENT));
    }
    let mut head = Vec::new();
    for (number, id) in wanted.ids.iter().enumerate() {
        let words = if number == 0 { words.as_str() } else { "" };
        encode(&mut head, format!("want {id}{words}\n").as_bytes());
    }
    lines(&mut head, "shallow", wanted.shallow);
    if let Some(depth) = wanted.depth {
        encode(&mut head, format!("deepen {depth}\n").as_bytes());
    }
    head.extend_from_slice(b"0000");
    Ok(head)
}

#[derive(PartialEq, Eq)]
enum Then {
    Pack,
    NextRound,
}

/// Reads which commits the server has, of those that a round has named.
fn v0_acknowledged<R: Read>(packets: &mut Packets<R>, rounds: &mut Rounds<'_>) -> Result<Then, Bad> {
    loop {
        match packets.packet()? {
            Some(Packet::Data(line)) => {
                refusal(line)?;
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                if line == b"NAK" {
                    return Ok(Then::NextRound);
                }
                let Some(rest) = line.strip_prefix(b"ACK ") else {
                    return Err(Bad::Malformed("the answer is neither ACK nor NAK".to_owned()));
                };
                let mut words = rest.splitn(2, |b| *b == b' ');
                let id = super::id(words.next().unwrap_or_default())?;
                match words.next() {
                    None => return Ok(Then::Pack),
                    Some(word) => {
                        rounds.is_common(id);
                        rounds.ready |= word == b"ready";
                    }
                }
            }
            _ => return Err(Bad::Malformed("the answer ends before the pack".to_owned())),
        }
    }
}

/// Copies a pack.
fn copy(from: &mut (impl Read + ?Sized), pack: &mut dyn Write) -> Result<(), Bad> {
    let mut some = vec![0; 64 << 10];
    loop {
        match from.read(&mut some) {
            Ok(0) => return Ok(()),
            Ok(n) => pack.write_all(some.get(..n).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
