//! Replaces a file as a whole: the new content is written to another file, which is then renamed into place. A reader sees either
//! the old content or the new.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// How a file is replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// The content is on disk before the rename. [`sync_dir`](crate::state::dir::sync_dir) makes the rename durable too.
    Durably,
    /// Without waiting for the disk.
    Quickly,
    /// Without waiting for the disk, and readable by all whatever the umask: the reader is usually another user.
    ReadableByAll,
    /// Like `Durably`, with the mode that git gives its files.
    LikeGit,
}

/// Replaces the file at `path` by `content`, which is first written to `beside`. That must be on the same file system and must
/// not exist: what a killed pass left there has to be removed before.
///
/// # Errors
/// If the file system fails. The old file is then still at `path`, and `beside` is removed.
pub(crate) fn replace(path: &Path, beside: &Path, content: &[u8], how: How) -> io::Result<()> {
    let written = write_and_rename(path, beside, content, how);
    if written.is_err() {
        let _ = fs::remove_file(beside);
    }
    written
}

fn write_and_rename(path: &Path, beside: &Path, content: &[u8], how: How) -> io::Result<()> {
    let mode = match how {
        How::Durably | How::Quickly => 0o600,
        How::ReadableByAll => 0o644,
        // The umask is applied to it.
        How::LikeGit => 0o666,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    if matches!(how, How::ReadableByAll) {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(content)?;
    if matches!(how, How::Durably | How::LikeGit) {
        file.sync_all()?;
    }
    fs::rename(beside, path)
}
