//! Lists of references: v2's `ls-refs`, and what a server without v2 lists before it is asked anything.

use std::io::Read;

use git2::Oid;

use super::Capabilities;
use crate::remote::pktline::{Bad, Packet, Packets, encode, refusal};

/// gitsync keeps objects by libgit2, which knows SHA-1 only.
const SHA256: &str = "this repository names its objects by SHA-256, which gitsync (libgit2) does not know";

/// How many references are kept of those whose names begin with a prefix, besides those that may be the remote's default.
pub(crate) const MOST_LISTED: usize = 500;

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It has protocol v2, and waits for a command.
    V2,
    /// It lists everything it has.
    Listing(Listing),
}

/// A list of references with what the server can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The references that were asked for.
    pub refs: Vec<(String, Oid)>,
    /// What the server can do.
    pub capabilities: Capabilities,
    /// The commits where the server's own history is cut off.
    pub shallow: Vec<Oid>,
}

impl Listing {
    /// The commit of a reference.
    pub fn tip(&self, refname: &str) -> Option<Oid> {
        tip(&self.refs, refname)
    }
}

/// The commit of a reference in a list.
pub fn tip(refs: &[(String, Oid)], refname: &str) -> Option<Oid> {
    refs.iter().find(|(name, _)| name == refname).map(|(_, id)| *id)
}

/// The request for the references with these names; of one that ends in `/`, for all below it.
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

/// Reads the answer to [`ls_refs_request`].
///
/// # Errors
/// If it is not such an answer.
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
                if id != b"unborn" {
                    keep(&mut found, read_id(id)?, name, refnames);
                }
            }
        }
    }
}

/// Reads what a server says first, in any version of the protocol. Over http a list may come after `# service=…` and a flush.
///
/// `each` gets the id of everything that a list names, whether it was asked for or not.
///
/// # Errors
/// If it is not such an answer.
pub fn read_greeting<R: Read>(
    packets: &mut Packets<R>,
    refnames: &[&str],
    each: &mut dyn FnMut(Oid),
) -> Result<Greeting, Bad> {
    let mut listing = Listing::default();
    let (mut first, mut in_preamble) = (true, false);
    loop {
        let line = match packets.packet()? {
            None if first => return Err(Bad::Malformed("the answer is empty".to_owned())),
            None => return Err(Bad::Malformed("the list of refs has no end".to_owned())),
            Some(Packet::Flush) if in_preamble => {
                in_preamble = false;
                continue;
            }
            Some(Packet::Flush) => return Ok(Greeting::Listing(listing)),
            Some(Packet::Delimiter | Packet::ResponseEnd) => {
                return Err(Bad::Malformed("a separator within the list of refs".to_owned()));
            }
            Some(Packet::Data(line)) => line,
        };
        refusal(line)?;
        if first && line.starts_with(b"# service=") {
            (first, in_preamble) = (false, true);
            continue;
        }
        (first, in_preamble) = (false, false);
        match line.strip_suffix(b"\n").unwrap_or(line) {
            b"version 1" => {}
            b"version 2" => return skip_to_flush(packets).map(|()| Greeting::V2),
            line => take(&mut listing, line, refnames, each)?,
        }
    }
}

/// What a v2 server can do. `ls-refs` and `fetch` are what every one can.
fn skip_to_flush<R: Read>(packets: &mut Packets<R>) -> Result<(), Bad> {
    loop {
        match packets.packet()? {
            Some(Packet::Flush) => return Ok(()),
            Some(Packet::Data(line)) => match line.strip_suffix(b"\n").unwrap_or(line) {
                b"object-format=sha256" => return Err(Bad::Refused(SHA256.to_owned())),
                line => refusal(line)?,
            },
            Some(Packet::Delimiter | Packet::ResponseEnd) => {}
            None => return Err(Bad::Malformed("the list of what it can do was cut off".to_owned())),
        }
    }
}

/// Takes one line of a list.
fn take(listing: &mut Listing, line: &[u8], refnames: &[&str], each: &mut dyn FnMut(Oid)) -> Result<(), Bad> {
    if let Some(shallow) = line.strip_prefix(b"shallow ") {
        if listing.shallow.len() < super::fetch::MOST_CUT {
            listing.shallow.push(super::id(shallow)?);
        }
        return Ok(());
    }
    let mut halves = line.splitn(2, |&b| b == 0);
    let line = halves.next().unwrap_or_default();
    if let Some(words) = halves.next() {
        listing.capabilities = Capabilities::parse(words);
    }
    let mut words = line.splitn(2, |&b| b == b' ');
    let (Some(id), Some(name)) = (words.next(), words.next()) else {
        return Err(Bad::Malformed("a line of the list of refs has no name".to_owned()));
    };
    let id = read_id(id)?;
    // It stands for the capabilities of a server that has no references.
    if name != b"capabilities^{}" {
        each(id);
        keep(&mut listing.refs, id, name.strip_suffix(b"\n").unwrap_or(name), refnames);
    }
    Ok(())
}

/// So many more are kept that may be the default branch.
const MOST_DEFAULTS: usize = 16;

/// git allows no longer names, in bytes.
const LONGEST_NAME: usize = 4096;

/// How many branches are kept before this one is left out: more for one that has the commit of the remote's default branch, and
/// no limit for the names that it has as a rule.
fn room_for(name: &[u8], oid: Oid, found: &[(String, Oid)]) -> usize {
    if name == b"refs/heads/main" || name == b"refs/heads/master" {
        return usize::MAX;
    }
    let has_its_commit = found.iter().any(|(have, head)| have == "HEAD" && *head == oid);
    if has_its_commit { MOST_LISTED + MOST_DEFAULTS } else { MOST_LISTED }
}

/// Keeps a reference that is among `refnames`, or whose name begins with one of these that ends in `/`.
fn keep(found: &mut Vec<(String, Oid)>, id: Oid, name: &[u8], refnames: &[&str]) {
    let is_wanted = |wanted: &&str| match wanted.strip_suffix('/') {
        Some(_) => {
            let room = room_for(name, id, found);
            name.starts_with(wanted.as_bytes()) && found.len() < room && name.len() <= LONGEST_NAME
        }
        None => name == wanted.as_bytes(),
    };
    if refnames.iter().any(is_wanted) {
        let name = String::from_utf8_lossy(name);
        if !found.iter().any(|(have, _)| *have == name) {
            found.push((name.into_owned(), id));
        }
    }
}

/// The id at the beginning of a line.
fn read_id(id: &[u8]) -> Result<Oid, Bad> {
    if id.len() == 64 && id.iter().all(u8::is_ascii_hexdigit) {
        return Err(Bad::Refused(SHA256.to_owned()));
    }
    super::id(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    fn greeting(bytes: &[u8], refnames: &[&str]) -> Result<Greeting, Bad> {
        read_greeting(&mut Packets::new(bytes), refnames, &mut |_| {})
    }

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
            assert!(greeting(answer, &["x"]).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_list_is_read_with_and_without_its_preamble() {
        let mut list = Vec::new();
        encode(
            &mut list,
            &[ID.as_bytes(), b" HEAD\0thin-pack symref=HEAD:refs/heads/a agent=x \xfc ofs-delta\n"].concat(),
        );
        encode(&mut list, &[ID.as_bytes(), b" refs/heads/\xfc\n"].concat());
        encode(&mut list, format!("{ID} refs/heads/b\n").as_bytes());
        encode(&mut list, format!("shallow {ID}\n").as_bytes());
        list.extend_from_slice(b"0000PACK and so on");
        let http = [&b"0011# service=xy\n0000"[..], &list].concat();
        for list in [list, http] {
            let Greeting::Listing(read) = greeting(&list, &["refs/heads/b"]).unwrap() else { panic!() };
            assert_eq!(read.tip("refs/heads/b"), Oid::from_str(ID).ok());
            assert_eq!((read.refs.len(), read.shallow.len()), (1, 1));
            assert!(read.capabilities.has("ofs-delta") && read.capabilities.has("symref"));
            assert!(!read.capabilities.has("ofs"));
        }
        assert_eq!(greeting(b"0000", &["x"]).unwrap(), Greeting::Listing(Listing::default()));
        let none = format!("{} capabilities^{{}}\0report-status\n", "0".repeat(40));
        let mut list = Vec::new();
        encode(&mut list, none.as_bytes());
        list.extend_from_slice(b"0000");
        let mut seen = 0;
        let read = read_greeting(&mut Packets::new(&list[..]), &["x"], &mut |_| seen += 1).unwrap();
        assert!(matches!(read, Greeting::Listing(l) if l.capabilities.has("report-status") && l.refs.is_empty()));
        assert_eq!(seen, 0, "there is no reference");
    }

    #[test]
    fn a_server_with_v2_says_so_first() {
        let mut greet = Vec::new();
        encode(&mut greet, b"version 2\n");
        encode(&mut greet, b"ls-refs\n");
        encode(&mut greet, b"fetch=shallow filter\n");
        greet.extend_from_slice(b"0000");
        assert_eq!(greeting(&greet, &["x"]).unwrap(), Greeting::V2);
        let http = [&b"001e# service=git-upload-pack\n0000"[..], &greet].concat();
        assert_eq!(greeting(&http, &["x"]).unwrap(), Greeting::V2);
    }

    #[test]
    fn sha_256_is_named() {
        for list in
            [format!("{} refs/heads/main\n", "a".repeat(64)), format!("{} x\0object-format=sha256", "0".repeat(64))]
        {
            let mut bytes = Vec::new();
            encode(&mut bytes, list.as_bytes());
            assert!(matches!(greeting(&bytes, &["x"]), Err(Bad::Refused(words)) if words == SHA256));
        }
    }
}
