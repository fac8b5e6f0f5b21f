//! What a server says in an `ERR` packet, found in a stream that somebody else reads.
//!
//! libgit2 does not always tell what such a packet says, and a server that has said it goes: what is seen of it first may be that
//! nothing more can be written to it.

use super::pktline::{MAX_PACKET, length_of};

const MARK: &[u8] = b"ERR ";

/// Watches a stream, from the beginning of a packet on.
#[derive(Debug, Default)]
pub(crate) struct ErrWatch {
    /// The beginning of the packet under way: its length and, of one that is an error, all there is of it.
    packet: Vec<u8>,
    /// So much of the packet under way is still to come and of no interest.
    skip: usize,
    /// Found, or the stream is no packets.
    over: bool,
    words: Option<Vec<u8>>,
}

impl ErrWatch {
    /// Takes note of what came next. Whether that completed an error.
    pub fn see(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.over {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.split_at(skipped).1;
            if bytes.is_empty() {
                return false;
            }
            let wanted = self.wanted();
            let (now, later) = bytes.split_at(wanted.saturating_sub(self.packet.len()).min(bytes.len()));
            self.packet.extend_from_slice(now);
            bytes = later;
            if self.packet.len() == wanted && wanted == self.wanted() {
                self.end_of_part(wanted);
            }
        }
        self.words.is_some()
    }

    /// How much of the packet under way is of interest, as far as that is known.
    fn wanted(&self) -> usize {
        match self.length() {
            None => 4,
            Some(length) if self.packet.len() < 4 + MARK.len() => length.clamp(4, 4 + MARK.len()),
            Some(length) if self.packet.get(4..4 + MARK.len()) == Some(MARK) => length,
            Some(_) => self.packet.len(),
        }
    }

    fn length(&self) -> Option<usize> {
        self.packet.first_chunk().and_then(length_of)
    }

    /// All that is of interest in a packet is here.
    fn end_of_part(&mut self, have: usize) {
        let Some(length) = self.length() else {
            self.over = true;
            return;
        };
        if let Some(words) = self.packet.get(4..).and_then(|payload| payload.strip_prefix(MARK)) {
            (self.words, self.over) = (Some(words.to_vec()), true);
            return;
        }
        self.skip = length.clamp(4, MAX_PACKET) - have.min(length.max(4));
        self.packet.clear();
    }

    /// What the error said, as it came.
    pub fn words(&self) -> Option<String> {
        self.words.as_ref().map(|words| String::from_utf8_lossy(words).into_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn words(stream: &[u8], at_a_time: usize) -> Option<String> {
        let mut watch = ErrWatch::default();
        for piece in stream.chunks(at_a_time) {
            watch.see(piece);
        }
        watch.words()
    }

    #[test]
    fn an_error_is_found_among_packets_and_only_there() {
        let found = [
            &b"0009ERR x"[..],
            b"00000009ERR x",
            b"0008NAK\n0009ERR x",
            b"000000010002000cERR-like0006ab0009ERR x and more",
            b"00040009ERR x0000",
        ];
        let none =
            [&b""[..], b"0008ERR ", b"0009ERR", b"PACK0009ERR x", b"0011\x020009ERR xabc0000", b"zzzz", b"0005E"];
        for at_a_time in [1, 2, 3, 5, 100] {
            for stream in found {
                assert_eq!(words(stream, at_a_time).as_deref(), Some("x"), "{}", stream.escape_ascii());
            }
            for stream in none {
                let words = words(stream, at_a_time).unwrap_or_default();
                assert_eq!(words, "", "{}", stream.escape_ascii());
            }
        }
    }
}
