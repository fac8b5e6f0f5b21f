//! A file replaced whole: written beside its place, then put there by one rename, so that a reader sees the old or the new.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// How a file is replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// Its bytes are on disk before the rename; [`sync_dir`](crate::state::dir::sync_dir) keeps the rename as well.
    Durably,
    /// Without waiting for the disk.
    Quickly,
    /// Without waiting for the disk, and readable by all whatever the umask: who reads it is hardly ever who writes it.
    ReadableByAll,
    /// As `Durably`, with the mode that git gives its files.
    LikeGit,
}

/// Puts `content` in place as `path`. `beside`: where it is written first, on the same file system; what a killed pass left
/// there must have been removed.
///
/// # Errors
/// Those of the file system; what was at `path` is then still there, and nothing stays at `beside`.
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
        // Less the umask.
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
