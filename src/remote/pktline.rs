//! git's framing, and the two questions asked in it: the tip of one ref by protocol v2, and by the old advertisement.
//!
//! All of it comes from another machine: nothing here may panic, nor hold more than one packet (64 KB) at a time,
//! however many refs the other side has.

use std::io::{self, Read};

use git2::Oid;

use super::redact;

/// The largest packet git's protocol knows, its four digits of length included.
pub const MAX_PACKET: usize = 65520;

/// What libgit2 cannot do.
const SHA256: &str = "this repository names its objects by SHA-256, which gitsync (libgit2) does not know";

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
    fn from(e: io::Error) -> Bad {
        Bad::Io(e)
    }
}

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

/// The body of the one POST: v2's `ls-refs`, for nothing but this ref.
pub fn ls_refs_request(refnames: &[&str]) -> Vec<u8> {
    let mut request = Vec::new();
    encode(&mut request, b"command=ls-refs\n");
    request.extend_from_slice(b"0001");
    for refname in refnames {
        encode(&mut request, format!("ref-prefix {refname}\n").as_bytes());
    }
    request.extend_from_slice(b"0000");
    request
}

/// What `ls-refs` answered: of the names asked for, those that are there.
///
/// # Errors
/// Whatever is not an answer of v2: the caller then asks the old way.
pub fn read_ls_refs<R: Read>(packets: &mut Packets<R>, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Bad> {
    let mut found = Vec::new();
    loop {
        match packets.packet()? {
            None => return Err(Bad::Malformed("the list of refs has no end".to_owned())),
            Some(Packet::Flush) => return Ok(found),
            Some(Packet::Delimiter | Packet::ResponseEnd) => {
                return Err(Bad::Malformed("a separator within the list of refs".to_owned()));
            }
            Some(Packet::Data(line)) => {
                refusal(line)?;
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let mut words = line.split(|&b| b == b' ');
                let (Some(id), Some(name)) = (words.next(), words.next()) else {
                    return Err(Bad::Malformed("a line of the list of refs has no name".to_owned()));
                };
                if id == b"unborn" {
                    continue;
                }
                keep(&mut found, id, name, refnames)?;
            }
        }
    }
}

/// The same from the advertisement of protocol v0 or v1, in full: it cannot be asked for less.
///
/// `over_http`: the list is preceded by `# service=…` and a flush.
///
/// # Errors
/// Whatever is not such an advertisement.
pub fn read_advertisement<R: Read>(
    packets: &mut Packets<R>,
    refnames: &[&str],
    over_http: bool,
) -> Result<Vec<(String, Oid)>, Bad> {
    let mut found = Vec::new();
    let mut first = true;
    let mut in_preamble = over_http;
    loop {
        match packets.packet()? {
            None if first => return Err(Bad::Malformed("the answer is empty".to_owned())),
            None => return Err(Bad::Malformed("the list of refs has no end".to_owned())),
            Some(Packet::Flush) if in_preamble => in_preamble = false,
            Some(Packet::Flush) => return Ok(found),
            Some(Packet::Delimiter | Packet::ResponseEnd) => {
                return Err(Bad::Malformed("a separator within the list of refs".to_owned()));
            }
            Some(Packet::Data(line)) => {
                refusal(line)?;
                first = false;
                if in_preamble && line.starts_with(b"# service=") {
                    continue;
                }
                in_preamble = false;
                take_advertised(&mut found, line, refnames)?;
            }
        }
    }
}

/// One line of an advertisement.
///
/// # Errors
/// When it is none.
pub fn take_advertised(found: &mut Vec<(String, Oid)>, line: &[u8], refnames: &[&str]) -> Result<(), Bad> {
    let line = line.split(|&b| b == 0).next().unwrap_or_default();
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line == b"version 1" || line.starts_with(b"shallow ") {
        return Ok(());
    }
    let Some(space) = line.iter().position(|&b| b == b' ') else {
        return Err(Bad::Malformed("a line of the list of refs has no name".to_owned()));
    };
    keep(found, &line[..space], &line[space + 1..], refnames)
}

/// Of the names that begin with a prefix so many are kept, and those that may be the remote's default.
pub(crate) const MOST_LISTED: usize = 500;

/// Whether a branch may be the remote's default: it has the name or the commit for it.
fn may_be_default(name: &[u8], oid: Oid, found: &[(String, Oid)]) -> bool {
    let is_named = name == b"refs/heads/main" || name == b"refs/heads/master";
    is_named || found.iter().any(|(have, head)| have == "HEAD" && *head == oid)
}

/// Keeps a reference that is among `refnames`, or whose name begins with one of these that ends in `/`.
fn keep(found: &mut Vec<(String, Oid)>, id: &[u8], name: &[u8], refnames: &[&str]) -> Result<(), Bad> {
    let id = std::str::from_utf8(id).ok().filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit()));
    match id {
        Some(id) if id.len() == 40 => {
            let oid = Oid::from_str(id).map_err(|_| Bad::Malformed("a ref's id is none".to_owned()))?;
            let is_wanted = |wanted: &&str| match wanted.strip_suffix('/') {
                Some(_) => {
                    let has_room = found.len() < MOST_LISTED || may_be_default(name, oid, found);
                    name.starts_with(wanted.as_bytes()) && has_room
                }
                None => name == wanted.as_bytes(),
            };
            if refnames.iter().any(is_wanted) {
                let name = String::from_utf8_lossy(name);
                if !found.iter().any(|(have, _)| *have == name) {
                    found.push((name.into_owned(), oid));
                }
            }
            Ok(())
        }
        Some(id) if id.len() == 64 => Err(Bad::Refused(SHA256.to_owned())),
        _ => Err(Bad::Malformed("a line of the list of refs does not begin with an id".to_owned())),
    }
}

/// # Errors
/// Where the line is an `ERR`.
pub(crate) fn refusal(line: &[u8]) -> Result<(), Bad> {
    match line.strip_prefix(b"ERR ") {
        Some(text) => Err(Bad::Refused(redact::text(text))),
        None => Ok(()),
    }
}

/// Passes packets through and makes their text valid UTF-8, byte for byte as long as it was.
///
/// git2 0.21 unwraps the UTF-8 of a server's refusal: one byte of Latin-1 in a hook's message would be a panic in the
/// middle of a push. So what `git-receive-pack` says is mended before libgit2 sees it.
#[derive(Debug)]
pub struct ValidUtf8<R> {
    stream: R,
    /// Mended bytes that were not taken yet, from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// Not packets after all: what comes is mended as it comes.
    raw: bool,
}

impl<R: Read> ValidUtf8<R> {
    /// Wraps a stream of packets.
    pub fn new(stream: R) -> ValidUtf8<R> {
        ValidUtf8 { stream, ready: Vec::new(), given: 0, raw: false }
    }

    /// The stream below.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        if self.raw {
            self.ready.resize(4096, 0);
            let n = self.stream.read(&mut self.ready)?;
            self.ready.truncate(n);
            mend(&mut self.ready);
            return Ok(());
        }
        read_up_to(&mut self.stream, &mut self.ready, 4)?;
        match <&[u8; 4]>::try_from(self.ready.as_slice()).ok().and_then(length_of) {
            Some(length) if length >= 4 => {
                read_up_to(&mut self.stream, &mut self.ready, length)?;
                mend(&mut self.ready);
            }
            Some(_) => {}
            None => {
                self.raw = true;
                mend(&mut self.ready);
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for ValidUtf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            self.fill()?;
        }
        let n = buffer.len().min(self.ready.len() - self.given);
        buffer[..n].copy_from_slice(&self.ready[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// Passes an advertisement through without the lines libgit2 is better off not to see, and all after it as it is.
///
/// git2 0.21 unwraps the UTF-8 of every ref's name it lists, so that one branch named in Latin-1 on the remote, by anybody,
/// would be a panic here. Such refs are left out; so are, for a fetch, all but those it is about.
#[derive(Debug)]
pub struct Sifted<R> {
    stream: R,
    /// All, if none.
    wanted: Option<Vec<String>>,
    /// What the server can do, until a line has taken it along.
    capabilities: Option<Vec<u8>>,
    /// `# service=…` and a flush come first.
    in_preamble: bool,
    /// The advertisement is through.
    over: bool,
    ready: Vec<u8>,
    given: usize,
}

impl<R: Read> Sifted<R> {
    /// Wraps a stream that begins with an advertisement. `over_http`: with its preamble.
    pub fn new(stream: R, wanted: Option<Vec<String>>, over_http: bool) -> Sifted<R> {
        let (ready, given) = (Vec::new(), 0);
        Sifted { stream, wanted, capabilities: None, in_preamble: over_http, over: false, ready, given }
    }

    /// The stream below.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Reads on until there is something to give.
    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        while self.ready.is_empty() && !self.over {
            let mut packet = Vec::new();
            read_up_to(&mut self.stream, &mut packet, 4)?;
            match <&[u8; 4]>::try_from(packet.as_slice()).ok().and_then(length_of) {
                Some(0) if self.in_preamble => {
                    self.in_preamble = false;
                    self.ready = packet;
                }
                Some(0) => {
                    self.over = true;
                    if let Some(capabilities) = self.capabilities.take() {
                        self.emit(b"0000000000000000000000000000000000000000 capabilities^{}", &capabilities);
                    }
                    self.ready.extend_from_slice(&packet);
                }
                Some(length) if length > 4 => {
                    read_up_to(&mut self.stream, &mut packet, length)?;
                    self.sift(&packet);
                }
                // Cut short or no packets at all, which is for the reader to find out.
                _ => {
                    self.over = true;
                    self.ready = packet;
                }
            }
        }
        Ok(())
    }

    fn sift(&mut self, packet: &[u8]) {
        let line = &packet[4..];
        if line.starts_with(b"# ") || line.starts_with(b"ERR ") || line.starts_with(b"shallow ") {
            self.ready = packet.to_vec();
            return;
        }
        let mut halves = line.splitn(2, |&b| b == 0);
        let line = halves.next().unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(capabilities) = halves.next() {
            let known = capabilities.strip_suffix(b"\n").unwrap_or(capabilities).split(|&b| b == b' ').filter(|word| {
                // The names of branches and programs are of no use here, and may hold anything. Of the object format
                // libgit2 wants a blank after it, which it need not have, and fails an assertion without.
                std::str::from_utf8(word).is_ok_and(|w| {
                    !["symref=", "agent=", "session-id=", "object-format="].iter().any(|named| w.starts_with(named))
                })
            });
            self.capabilities = Some(known.collect::<Vec<_>>().join(&b' '));
        }
        let Some(space) = line.iter().position(|&b| b == b' ') else { return };
        if space == 64 {
            self.over = true;
            encode(&mut self.ready, format!("ERR {SHA256}").as_bytes());
            return;
        }
        let name = std::str::from_utf8(&line[space + 1..]).ok();
        let keep = name.is_some_and(|name| match &self.wanted {
            Some(wanted) => wanted.iter().any(|w| w == name),
            None => true,
        });
        if keep {
            let capabilities = self.capabilities.take().unwrap_or_default();
            self.emit(line, &capabilities);
        }
    }

    fn emit(&mut self, line: &[u8], capabilities: &[u8]) {
        let nul: &[u8] = if capabilities.is_empty() { b"" } else { b"\0" };
        encode(&mut self.ready, &[line, nul, capabilities, b"\n"].concat());
    }
}

impl<R: Read> Read for Sifted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            if self.over {
                return self.stream.read(buffer);
            }
            self.fill()?;
        }
        let n = buffer.len().min(self.ready.len() - self.given);
        buffer[..n].copy_from_slice(&self.ready[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// Reads until `into` is `length` long or the stream ends.
fn read_up_to<R: Read>(stream: &mut R, into: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let have = into.len() as u64;
    stream.take(length as u64 - have).read_to_end(into)?;
    Ok(())
}

/// Puts a `?` in place of each byte that is no part of valid UTF-8.
fn mend(bytes: &mut [u8]) {
    let mut from = 0;
    while let Err(e) = std::str::from_utf8(&bytes[from..]) {
        let at = from + e.valid_up_to();
        let length = e.error_len().unwrap_or(bytes.len() - at);
        bytes[at..at + length].fill(b'?');
        from = at + length;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn the_request_is_what_git_sends() {
        let request = ls_refs_request(&["refs/heads/main"]);
        assert_eq!(request, b"0014command=ls-refs\n0001001fref-prefix refs/heads/main\n0000");
    }

    #[test]
    fn an_answer_is_read_for_the_exact_name() {
        let mut answer = Vec::new();
        encode(&mut answer, format!("{ID} refs/heads/main-2\n").as_bytes());
        encode(&mut answer, format!("{ID} refs/heads/main symref-target:refs/heads/x\n").as_bytes());
        answer.extend_from_slice(b"0000");
        let found = read_ls_refs(&mut Packets::new(&answer[..]), &["refs/heads/main"]).unwrap();
        assert_eq!(found, [("refs/heads/main".to_owned(), Oid::from_str(ID).unwrap())]);
        assert!(read_ls_refs(&mut Packets::new(&b"0000"[..]), &["refs/heads/main"]).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_an_answer_is_told_apart() {
        for answer in [&b""[..], b"00", b"0003", b"zzzz", b"fff1", b"0008abcd", b"0009ERR x", b"0005x", b"0001"] {
            assert!(read_ls_refs(&mut Packets::new(answer), &["x"]).is_err(), "{answer:?}");
            assert!(read_advertisement(&mut Packets::new(answer), &["x"], true).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn an_advertisement_is_read_with_and_without_its_preamble() {
        let mut list = Vec::new();
        encode(&mut list, format!("{ID} refs/heads/a\0 side-band\n").as_bytes());
        encode(&mut list, format!("{ID} refs/heads/b\n").as_bytes());
        list.extend_from_slice(b"0000");
        let found = read_advertisement(&mut Packets::new(&list[..]), &["refs/heads/b"], false).unwrap();
        assert_eq!(found.len(), 1);
        let mut http = Vec::new();
        encode(&mut http, b"# service=git-upload-pack\n");
        http.extend_from_slice(b"0000");
        http.extend_from_slice(&list);
        let found = read_advertisement(&mut Packets::new(&http[..]), &["refs/heads/a"], true).unwrap();
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_refusal_in_latin_1_becomes_utf_8_of_the_same_length() {
        let mut report = Vec::new();
        encode(&mut report, b"ng refs/heads/main zur\xfcckgewiesen\n");
        encode(&mut report, "ok refs/heads/gr\u{fc}n\n".as_bytes());
        report.extend_from_slice(b"0000");
        let mut out = Vec::new();
        ValidUtf8::new(&report[..]).read_to_end(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.len(), report.len());
        assert!(text.contains("zur?ckgewiesen") && text.contains("gr\u{fc}n"));
    }

    fn sifted(list: &[u8], wanted: Option<&str>, over_http: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Sifted::new(list, wanted.map(|w| vec![w.to_owned()]), over_http).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn an_advertisement_is_sifted() {
        let mut list = Vec::new();
        encode(&mut list, b"# service=x\n");
        list.extend_from_slice(b"0000");
        encode(&mut list, format!("{ID} HEAD\0thin-pack symref=HEAD:refs/heads/a agent=x ofs-delta\n").as_bytes());
        encode(&mut list, &[ID.as_bytes(), b" refs/heads/\xfc\n"].concat());
        encode(&mut list, format!("{ID} refs/heads/b\n").as_bytes());
        list.extend_from_slice(b"0000PACK and so on");
        let of = |lines: &[&str]| {
            let mut out = b"0010# service=x\n0000".to_vec();
            for line in lines {
                encode(&mut out, line.as_bytes());
            }
            out.extend_from_slice(b"0000PACK and so on");
            out
        };
        let caps = "\0thin-pack ofs-delta\n";
        let all = of(&[&format!("{ID} HEAD{caps}"), &format!("{ID} refs/heads/b\n")]);
        assert_eq!(sifted(&list, None, true), all);
        assert_eq!(sifted(&list, Some("refs/heads/b"), true), of(&[&format!("{ID} refs/heads/b{caps}")]));
        let none = format!("{} capabilities^{{}}{caps}", "0".repeat(40));
        assert_eq!(sifted(&list, Some("refs/heads/c"), true), of(&[&none]));
        assert_eq!(sifted(b"0000", None, false), b"0000");
        assert_eq!(sifted(b"0009ERR x", None, false), b"0009ERR x");
        assert_eq!(sifted(b"0040cut", None, false), b"");
        assert_eq!(sifted(b"<html>", None, false), b"<html>");
    }
}
