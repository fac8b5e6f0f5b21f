//! No bytes from another machine, and no URL, make the parsers panic.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::Read;
use std::path::Path;

use gitsync::remote::pktline::{Packets, Sifted, ValidUtf8, encode, read_advertisement, read_ls_refs};
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
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn lists_of_refs(bytes in packets()) {
        let _ = read_ls_refs(&mut Packets::new(&bytes[..]), &["refs/heads/main"]);
        let _ = read_advertisement(&mut Packets::new(&bytes[..]), &["refs/heads/main"], true);
        let _ = read_advertisement(&mut Packets::new(&bytes[..]), &["refs/heads/main"], false);
    }

    #[test]
    fn mending_keeps_the_length_and_makes_packets_valid(bytes in packets()) {
        let mut mended = Vec::new();
        ValidUtf8::new(&bytes[..]).read_to_end(&mut mended).unwrap();
        prop_assert_eq!(mended.len(), bytes.len());
        prop_assert!(bytes.iter().zip(&mended).all(|(was, is)| was == is || (*is == b'?' && !was.is_ascii())));
    }

    #[test]
    fn sifting(bytes in packets(), over_http in any::<bool>(), one in any::<bool>()) {
        let wanted = one.then(|| vec!["refs/heads/main".to_owned()]);
        let mut sifted = Vec::new();
        Sifted::new(&bytes[..], wanted, over_http).read_to_end(&mut sifted).unwrap();
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
