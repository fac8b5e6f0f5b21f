//! Turns libgit2's errors into an [`Error`] with a kind.

use std::io;

use crate::error::{Context, Error, Kind, MAKE_ROOM, MAY_NOT, exhausted};

/// What to do about suspected damage.
pub(crate) const MAY_BE_DAMAGED: &str = "run `gitsync init-sync`: it reads everything again, puts the repository aside only if \
                                         something is damaged, and fetches it again, losing nothing";

impl Error {
    /// An error of libgit2, with what was being done.
    pub fn git(doing: impl std::fmt::Display, error: &git2::Error) -> Self {
        let last = io::Error::last_os_error();
        let text = format!("{doing}: {}", error.message());
        // libgit2 appends the system's message to its own and keeps no error number. A full disk must not look like
        // damage.
        let full = error.class() == git2::ErrorClass::Os || error.class() == git2::ErrorClass::Filesystem;
        if full && (error.message().contains("No space left") || error.message().contains("quota exceeded")) {
            return Self::new(Kind::Person, text, MAKE_ROOM);
        }
        if let Some(next) = exhausted(error.message()) {
            return Self::new(Kind::Exhausted, text, next);
        }
        match (error.class(), error.code()) {
            // libgit2 says "locked" for a file that nobody may open.
            (_, git2::ErrorCode::Locked) if error.message().contains("Permission denied") => {
                Self::new(Kind::Person, text.replace(" is locked: ", ": "), MAY_NOT)
            }
            (_, git2::ErrorCode::Locked) => {
                Self::new(Kind::Busy, text, "another git process works in this repository; the next pass tries again")
            }
            (
                git2::ErrorClass::Odb
                | git2::ErrorClass::Object
                | git2::ErrorClass::Zlib
                | git2::ErrorClass::Tree
                | git2::ErrorClass::Repository,
                _,
            )
            | (git2::ErrorClass::Reference, git2::ErrorCode::GenericError)
            | (git2::ErrorClass::Index, git2::ErrorCode::GenericError) => {
                Self::new(Kind::Corrupt, text, MAY_BE_DAMAGED)
            }
            // libgit2 says this of a file that the system failed to stat, not of a missing one.
            (git2::ErrorClass::Config, _) if error.message().starts_with("failed to stat") => {
                Self::new(Kind::Exhausted, text, "check the disk that holds the file; the next pass tries again")
            }
            (git2::ErrorClass::Config, code) if code != git2::ErrorCode::NotFound => Self::new(
                Kind::NotReady,
                text,
                "correct git's configuration; `git config --list --show-origin` shows it",
            ),
            _ => {
                tracing::debug!(class = ?error.class(), code = ?error.code(), os = %last, "libgit2: {}", error.message());
                Self::new(Kind::Person, text, "run it again with -vv for more; the next pass tries again")
            }
        }
    }
}

/// Returns whether the error came from the system.
pub(super) fn is_systems(error: &git2::Error) -> bool {
    matches!(error.class(), git2::ErrorClass::Os | git2::ErrorClass::Filesystem)
}

impl<T> Context<T> for Result<T, git2::Error> {
    fn context(self, what: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::git(what, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No git process is working there, and waiting does not help.
    #[test]
    fn what_the_system_lets_nobody_open_is_not_locked() {
        let words = "failed open - '.git/HEAD' is locked: Permission denied";
        let error = Error::git("reading HEAD", &git2::Error::new(git2::ErrorCode::Locked, git2::ErrorClass::Os, words));
        assert_eq!((error.kind, &*error.next), (Kind::Person, MAY_NOT));
        assert_eq!(error.what, "reading HEAD: failed open - '.git/HEAD': Permission denied");
        let words = "failed to lock file '.git/HEAD.lock' for writing";
        let error = Error::git("moving HEAD", &git2::Error::new(git2::ErrorCode::Locked, git2::ErrorClass::Os, words));
        assert_eq!(error.kind, Kind::Busy);
    }
}
