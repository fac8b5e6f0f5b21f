//! Every parser that reads a server's bytes, on any bytes at all: none may panic, hang, or hold more than it was sent.
#![no_main]

use std::io::{Cursor, Read};

use gitsync::remote::pktline::{Bad, Packets};
use gitsync::remote::protocol::fetch::{self, Channel, Haves, Wanted};
use gitsync::remote::protocol::push::read_report;
use gitsync::remote::protocol::refs::{read_greeting, read_ls_refs};
use gitsync::remote::protocol::{Capabilities, Sideband};
use gitsync::remote::{redact, refusal};
use libfuzzer_sys::fuzz_target;

/// A server whose answers are one stream, or the same one again and again.
struct Server<'b> {
    stream: Cursor<&'b [u8]>,
    stateless: bool,
}

impl Channel for Server<'_> {
    fn ask(&mut self, _: &[u8]) -> Result<Packets<&mut dyn Read>, Bad> {
        if self.stateless {
            self.stream.set_position(0);
        }
        Ok(Packets::new(&mut self.stream))
    }

    fn is_stateless(&self) -> bool {
        self.stateless
    }
}

/// Sixty commits that are here.
struct Sixty(u8);

impl Haves for Sixty {
    fn next(&mut self) -> Option<git2::Oid> {
        self.0 += 1;
        (self.0 < 60).then(|| git2::Oid::from_bytes(&[self.0; 20]).unwrap())
    }

    fn is_common(&mut self, _: git2::Oid) {}
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let names = ["HEAD", "refs/heads/main", "refs/heads/"];
    let _ = read_ls_refs(&mut Packets::new(bytes), &names);
    let _ = read_greeting(&mut Packets::new(bytes), &names, &mut |_| {});
    let mut payload = Vec::new();
    let _ = Sideband::new(&mut Packets::new(bytes)).read_to_end(&mut payload);
    assert!(payload.len() <= bytes.len());
    let words: [&[u8]; 4] = [b"report-status", b"report-status-v2 side-band-64k", b"", bytes];
    for words in words {
        let _ = read_report(&mut Packets::new(bytes), &Capabilities::parse(words), "refs/heads/main");
    }
    let id = git2::Oid::from_bytes(&[1; 20]).unwrap();
    let depth = (how & 1 != 0).then_some(3);
    let wanted = Wanted { ids: &[id], shallow: &[id], depth, thin: true, quiet: true };
    let mut server = Server { stream: Cursor::new(bytes), stateless: how & 2 != 0 };
    let mut pack = Vec::new();
    let _ = if how & 4 != 0 {
        fetch::v2(&mut server, &wanted, &mut Sixty(0), &mut pack)
    } else {
        let words: &[u8] = if how & 8 != 0 { b"multi_ack_detailed side-band-64k shallow" } else { b"shallow" };
        fetch::v0(&mut server, &Capabilities::parse(words), &wanted, &mut Sixty(0), &mut pack)
    };
    let text = redact::text(bytes);
    let _ = refusal(&text, &text);
});
