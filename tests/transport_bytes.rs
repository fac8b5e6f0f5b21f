//! No bytes from another machine, and no URL, make the parsers panic.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::Read;
use std::path::Path;

use gitsync::remote::pktline::{Bad, Packets, encode};
use gitsync::remote::protocol::fetch::{self, Channel, Haves, Wanted};
use gitsync::remote::protocol::push::read_report;
use gitsync::remote::protocol::refs::{read_greeting, read_ls_refs};
use gitsync::remote::protocol::{Capabilities, Sideband};
use gitsync::remote::{Remote, redact, refusal, split_url_secret};
use proptest::prelude::*;

/// Bytes that look like packets often enough to get far.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let id = "0123456789abcdef0123456789abcdef01234567";
    let piece = prop_oneof![
        Just(b"0000".to_vec()),
        Just(b"0001".to_vec()),
        Just(b"0002".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(|payload| {
            let mut out = Vec::new();
            encode(&mut out, &payload);
            out
        }),
        ".{0,20}".prop_map(move |name| {
            let mut out = Vec::new();
            encode(&mut out, format!("{id} refs/heads/{name}\n").as_bytes());
            out
        }),
        Just(b"000cERR no!\n".to_vec()),
        prop_oneof![
            Just("packfile\n".to_owned()),
            Just("acknowledgments\n".to_owned()),
            Just("shallow-info\n".to_owned()),
            Just("NAK\n".to_owned()),
            Just("ready\n".to_owned()),
            Just(format!("ACK {id}\n")),
            Just(format!("ACK {id} common\n")),
            Just(format!("ACK {id} ready\n")),
            Just(format!("shallow {id}\n")),
            Just(format!("unshallow {id}\n")),
            Just("version 2\n".to_owned()),
            Just("version 1\n".to_owned()),
            Just("unpack ok\n".to_owned()),
            Just("ok refs/heads/main\n".to_owned()),
            Just("ng refs/heads/main no\n".to_owned()),
            Just("\u{1}PACK".to_owned()),
            Just("\u{2}words".to_owned()),
            Just("\u{3}fatal".to_owned()),
        ]
        .prop_map(|line| {
            let mut out = Vec::new();
            encode(&mut out, line.as_bytes());
            out
        }),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// A server that answers every request with the same bytes.
struct Parrot<'b>(&'b [u8], bool);

impl Channel for Parrot<'_> {
    fn ask(&mut self, _: &[u8]) -> Result<Packets<&mut dyn Read>, Bad> {
        let stream: &'static mut dyn Read = Box::leak(Box::new(std::io::Cursor::new(self.0.to_vec())));
        Ok(Packets::new(stream))
    }

    fn is_stateless(&self) -> bool {
        self.1
    }
}

/// Some commits that are here.
struct Some3(u8);

impl Haves for Some3 {
    fn next(&mut self) -> Option<git2::Oid> {
        self.0 += 1;
        (self.0 < 40).then(|| git2::Oid::from_bytes(&[self.0; 20]).unwrap())
    }

    fn is_common(&mut self, _: git2::Oid) {}
}

proptest! {
    #[test]
    fn lists_of_refs(bytes in packets()) {
        let _ = read_ls_refs(&mut Packets::new(&bytes[..]), &["refs/heads/main"]);
        let mut ids = 0;
        let _ = read_greeting(&mut Packets::new(&bytes[..]), &["refs/heads/main", "refs/heads/"], &mut |_| ids += 1);
    }

    #[test]
    fn answers_to_a_fetch(bytes in packets(), stateless in any::<bool>(), depth in any::<bool>(), bands in any::<bool>()) {
        let id = git2::Oid::from_bytes(&[1; 20]).unwrap();
        let depth = depth.then_some(3);
        let wanted = Wanted { ids: &[id], shallow: &[], depth, thin: true, quiet: true };
        let mut pack = Vec::new();
        let _ = fetch::v2(&mut Parrot(&bytes, stateless), &wanted, &mut Some3(0), &mut pack);
        let words: &[u8] = if bands { b"multi_ack_detailed side-band-64k shallow" } else { b"shallow" };
        let capabilities = Capabilities::parse(words);
        let _ = fetch::v0(&mut Parrot(&bytes, stateless), &capabilities, &wanted, &mut Some3(0), &mut pack);
        prop_assert!(pack.len() <= bytes.len() * 100, "no more comes out than went in");
    }

    #[test]
    fn bands_and_reports(bytes in packets()) {
        let mut packets = Packets::new(&bytes[..]);
        let mut payload = Vec::new();
        let _ = Sideband::new(&mut packets).read_to_end(&mut payload);
        prop_assert!(payload.len() <= bytes.len());
        for words in [&b"report-status"[..], b"report-status-v2 side-band-64k", b""] {
            let _ = read_report(&mut Packets::new(&bytes[..]), &Capabilities::parse(words), "refs/heads/main");
        }
    }

    #[test]
    fn urls_of_any_kind(url in "\\PC{0,60}") {
        let _ = Remote::parse(&url, Path::new("/"));
        let _ = split_url_secret(&url);
        let _ = redact::url(&url);
    }

    #[test]
    fn urls_that_look_like_some(
        scheme in "(https?|ssh|git|file|ext)(://|::|:)", user in "([a-z%:-]{0,6}@)?", host in "[a-z.:%\\[\\]-]{0,8}",
        port in "(:[0-9]{0,6})?", path in "[a-z/%~?#-]{0,12}",
    ) {
        let url = format!("{scheme}{user}{host}{port}{path}");
        match Remote::parse(&url, Path::new("/")) {
            Ok(Remote::Ssh(ssh)) => {
                prop_assert!(!ssh.host.starts_with('-') && !ssh.path.starts_with('-') && !ssh.host.is_empty());
            }
            Ok(Remote::Http(http)) => {
                // What was read is read again as the same, and its clean form has no secret.
                let Ok(Remote::Http(again)) = Remote::parse(&http.clean(), Path::new("/")) else {
                    return Err(TestCaseError::fail(http.clean()));
                };
                prop_assert_eq!(again.origin, http.origin);
                prop_assert_eq!(again.path, http.path);
                prop_assert_eq!(again.secret, None);
            }
            _ => {}
        }
    }

    #[test]
    fn texts(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = redact::text(&bytes);
        prop_assert!(!text.chars().any(char::is_control));
        let _ = refusal(&text, &text);
    }

    #[test]
    fn a_secret_is_never_printed(before in "\\PC{0,20}", after in "\\PC{0,20}") {
        redact::register_secret("hunter2-hunter2");
        let text = redact::text(format!("{before}hunter2-hunter2{after}").as_bytes());
        prop_assert!(!text.contains("hunter2-hunter2"), "{}", text);
        let url = redact::url(&format!("https://me:never-seen-before@host/{after}"));
        prop_assert!(!url.contains("never-seen-before"), "{}", url);
    }
}
