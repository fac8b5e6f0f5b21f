//! Permission errors on files of another user: the error names the owner and says what to do.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

use super::files;
use crate::error::Error;

/// A user id, shown with the name if `/etc/passwd` has one.
struct User(u32);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = files::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
        let id = self.0.to_string();
        match list.lines().find(|line| line.split(':').nth(2) == Some(&id)).and_then(|line| line.split(':').next()) {
            Some(name) => write!(f, "{name} (uid {id})"),
            None => write!(f, "uid {id}"),
        }
    }
}

/// [`Error::io`], except for a permission error if one of the paths (innermost first) belongs to another user: the error then names
/// that path and its owner.
pub(crate) fn refused(doing: &str, paths: &[&Path], error: &io::Error) -> Error {
    let us = rustix::process::geteuid().as_raw();
    let refused = matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM));
    let owner = |path: &&Path| fs::symlink_metadata(path).ok().map(|meta| meta.uid()).filter(|uid| *uid != us);
    match paths.iter().find_map(|path| owner(path).map(|uid| (path.display(), User(uid)))) {
        Some((path, owner)) if refused => Error::person(
            format!("{doing}: {error}: {path} belongs to {owner}, and this is {}", User(us)),
            format!(
                "run every pass as one user: as {owner}, or give this one the whole repository (`chown -R {us}` as root)"
            ),
        ),
        _ => Error::io(doing, error),
    }
}
