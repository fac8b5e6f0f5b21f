//! The force-push-pending marker: alpha saw the histories part and keeps its own; the next tick's push may overwrite.
//!
//! A file, because each pass is a process of its own: a flag in memory would be forgotten with the process that set it.
//! It goes only when the remote has been seen to hold our commit, or when the remote's side was accepted.

use std::io;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::private::PrivateDir;

const NAME: &str = "force-push-pending";

/// Whether a forced push is pending. Any file of that name counts, whatever it holds: a person may have made it by hand.
pub fn is_pending(private: &PrivateDir) -> bool {
    private.file(NAME).symlink_metadata().is_ok()
}

/// Marks that the next tick's push may overwrite. Whether the marker is new.
///
/// # Errors
/// Those of the file system.
pub fn set(private: &PrivateDir, now: DateTime<Utc>, why: &str) -> io::Result<bool> {
    if is_pending(private) {
        return Ok(false);
    }
    let text = format!("{} {why}\n", now.to_rfc3339_opts(SecondsFormat::Secs, true));
    private.write_durably(NAME, text.as_bytes())?;
    Ok(true)
}

/// Takes the marker away. Whether it was there.
///
/// # Errors
/// Those of the file system.
pub fn clear(private: &PrivateDir) -> io::Result<bool> {
    private.remove_durably(NAME)
}
