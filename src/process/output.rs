//! Turns the output of a command into lines of the log.
//!
//! stdout and stderr have a pipe each, and each line says which one it came from. The lines of one stream keep their order. If both
//! are written at the same time, a line of one may be logged before an earlier one of the other. Only the current line of each
//! stream is kept in memory, and of that at most one piece.

use std::io::{self, Read};
use std::ops::ControlFlow;

/// A line longer than this, in bytes, is logged in pieces.
pub(super) const PIECE: usize = 8 * 1024;

/// How far back from the end of a piece we look for a place to cut, so that words, and secrets, stay whole.
const LOOK_BACK: usize = 1024;

/// The most that a pipe can hold, unless somebody raised the limit. Anything beyond that was written after the command had ended.
const PIPE_HOLDS: usize = 1024 * 1024;

pub(super) struct Lines<'a> {
    from: &'static str,
    stream: &'static str,
    redact: Option<&'a dyn Fn(&str) -> String>,
    chunk: Vec<u8>,
    line: Vec<u8>,
    /// The last piece ended in the middle of a line.
    cut: bool,
}

impl<'a> Lines<'a> {
    /// `from`: such as "job". `stream`: such as "stdout".
    pub(super) fn new(
        from: &'static str,
        stream: &'static str,
        redact: Option<&'a dyn Fn(&str) -> String>,
    ) -> Lines<'a> {
        Lines { from, stream, redact, chunk: vec![0; 64 * 1024], line: Vec::new(), cut: false }
    }

    /// Reads once from a pipe that does not block. Breaks at end of file.
    pub(super) fn take_some(&mut self, pipe: &mut impl Read) -> ControlFlow<()> {
        self.read(pipe).map_continue(|_| ())
    }

    /// Reads what the pipe holds now, and no more: somebody may still be writing to it.
    pub(super) fn take_what_is_there(&mut self, pipe: &mut impl Read) {
        let mut taken = 0;
        while taken < PIPE_HOLDS {
            match self.read(pipe) {
                ControlFlow::Continue(0) | ControlFlow::Break(()) => break,
                ControlFlow::Continue(length) => taken += length,
            }
        }
    }

    /// Logs the last line if it was not ended.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.log(&line);
        }
        self.cut = false;
    }

    fn read(&mut self, pipe: &mut impl Read) -> ControlFlow<(), usize> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let read = pipe.read(&mut chunk);
        if let Ok(length) = read {
            self.push(&chunk[..length]);
        }
        self.chunk = chunk;
        match read {
            Ok(0) => ControlFlow::Break(()),
            Ok(length) => ControlFlow::Continue(length),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                ControlFlow::Continue(0)
            }
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PIECE - self.line.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let (now, later) = bytes.split_at(end.unwrap_or(room.min(bytes.len())));
            self.line.extend_from_slice(now);
            bytes = later;
            if end.is_some() {
                bytes = &bytes[1..];
                // A line that was cut exactly at its end is logged already.
                if !(self.cut && self.line.is_empty()) {
                    let line = std::mem::take(&mut self.line);
                    self.log(&line);
                    self.line = line;
                    self.line.clear();
                }
                self.cut = false;
            } else if self.line.len() >= PIECE {
                let at = cut_at(&self.line).unwrap_or_else(|| {
                    // The end of the piece is one word of over a thousand bytes. Secrets in it are removed before the cut could
                    // split them, and what may be the beginning of a secret is kept until its end has come.
                    if let Some(redact) = self.redact {
                        self.line = redact(&String::from_utf8_lossy(&self.line)).into_bytes();
                    }
                    before_a_character(&self.line, self.line.len().saturating_sub(LOOK_BACK))
                });
                if at > 0 {
                    let rest = self.line.split_off(at);
                    let piece = std::mem::replace(&mut self.line, rest);
                    self.log(&piece);
                    self.cut = true;
                }
            }
        }
    }

    fn log(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        match self.redact {
            Some(redact) => log_line(self.from, self.stream, &redact(&text)),
            None => log_line(self.from, self.stream, &text),
        }
    }
}

fn log_line(from: &'static str, stream: &'static str, text: &str) {
    if text.chars().any(unsafe_to_show) {
        tracing::info!(target: "gitsync::output", from, stream, "{}", shown(text));
    } else {
        tracing::info!(target: "gitsync::output", from, stream, "{text}");
    }
}

/// Where to cut a line that is too long: after the last byte near its end that can't be part of a word or of a secret.
fn cut_at(line: &[u8]) -> Option<usize> {
    let near_the_end = line.len().saturating_sub(LOOK_BACK);
    let parts = |byte: &u8| byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"_-.+/=%~".contains(byte);
    line.iter().rposition(parts).filter(|at| *at >= near_the_end).map(|at| at + 1)
}

/// `at`, or the last index before it at which a character begins.
fn before_a_character(line: &[u8], at: usize) -> usize {
    let continued =
        line.get(..=at).unwrap_or(line).iter().rev().take(3).take_while(|byte| (**byte & 0xC0) == 0x80).count();
    at.saturating_sub(continued)
}

/// Control characters could clear the reader's screen or fake a line of our log.
fn unsafe_to_show(character: char) -> bool {
    character.is_control() && character != '\t'
}

fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if unsafe_to_show(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{PIECE, before_a_character, cut_at, shown};

    #[test]
    fn a_long_line_is_cut_after_a_word_or_between_characters() {
        let mut words = vec![b'a'; PIECE];
        words[PIECE - 100] = b' ';
        assert_eq!(cut_at(&words), Some(PIECE - 99));
        words[PIECE - 50] = b'"';
        assert_eq!(cut_at(&words), Some(PIECE - 49));
        let mut far = vec![b'a'; PIECE];
        far[10] = b' ';
        assert_eq!(cut_at(&far), None);
        let line = "aa€bb".as_bytes();
        let places: Vec<usize> = (0..line.len()).map(|at| before_a_character(line, at)).collect();
        assert_eq!(places, [0, 1, 2, 2, 2, 5, 6]);
    }

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(shown("\u{1b}[2Jgone\u{9b}\ttab"), "\\u{1b}[2Jgone\\u{9b}\ttab");
    }
}
