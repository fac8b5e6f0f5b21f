//! A pack to push: in memory while it is small, else in a private file, so that it can be sent again without being made again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// What is larger goes to the file.
const IN_MEMORY: usize = 1 << 20;

/// Bytes that are written once and read any number of times.
#[derive(Debug)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
    path: PathBuf,
}

impl Spool {
    /// An empty one. `path` is where a file is made if one is needed. It loses its name at once, so that nothing is left of
    /// it when the process ends in any way.
    pub fn new(path: PathBuf) -> Spool {
        Spool { memory: Vec::new(), file: None, length: 0, path }
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether it is too large for memory.
    pub fn is_large(&self) -> bool {
        self.file.is_some()
    }

    /// Reads it from the beginning.
    pub fn reader(&self) -> Reader<'_> {
        Reader { spool: self, at: 0 }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            // A killed push may have left its file. No link that somebody has put there is followed.
            let _ = std::fs::remove_file(&self.path);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)?;
            std::fs::remove_file(&self.path)?;
            file.write_all_at(&self.memory, 0)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &self.file {
            Some(file) => file.write_all_at(bytes, self.length)?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a [`Spool`].
#[derive(Debug)]
pub struct Reader<'s> {
    spool: &'s Spool,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &self.spool.file {
            Some(file) => file.read_at(buffer, self.at)?,
            None => {
                let at = usize::try_from(self.at).unwrap_or(usize::MAX);
                self.spool.memory.get(at..).unwrap_or_default().read(buffer)?
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn it_is_read_as_often_as_it_takes_and_leaves_no_file() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("kept"), "kept").unwrap();
        for pieces in [3, 200] {
            let mut spool = Spool::new(folder.path().join("push.new"));
            std::os::unix::fs::symlink(other.path().join("kept"), folder.path().join("push.new")).unwrap();
            let all: Vec<u8> = (0..pieces * 10_000).map(|n| (n % 251) as u8).collect();
            all.chunks(10_000).for_each(|piece| spool.write_all(piece).unwrap());
            assert_eq!(spool.is_large(), pieces == 200);
            assert_eq!(folder.path().read_dir().unwrap().count(), usize::from(pieces != 200), "the file has no name");
            assert_eq!(spool.length(), all.len() as u64);
            for _ in 0..2 {
                let mut read = Vec::new();
                spool.reader().read_to_end(&mut read).unwrap();
                assert!(read == all);
            }
            assert_eq!(std::fs::read(other.path().join("kept")).unwrap(), b"kept", "no link is followed");
            let _ = std::fs::remove_file(folder.path().join("push.new"));
        }
    }
}
