//! What can go wrong with a repository, sorted by what has to happen next.

use std::io;
use std::path::Path;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The remote can't be reached now, or its answer did not come.
    Unreachable,
    /// The remote answered, and won't have it.
    Refused,
    /// The remote's branch moved between our look and our push.
    LostRace,
    /// Another git process is at work in the repository.
    Busy,
    /// The repository is not in a state to work in: a person, or init-sync, has to put it right.
    NotReady,
    /// Objects or references that must be there seem to be missing or damaged. A suspicion: libgit2 says the same where it
    /// ran out of file descriptors. [`super::damage::prove`] reads again before anything is put aside.
    Corrupt,
    /// What a commit of the remote holds can't be brought about here. The remote's to mend; local state stays.
    Unfit,
    /// The system had no more of something for now: file descriptors, memory, a disk that reads.
    Exhausted,
    /// The file system refused, or something nobody foresaw.
    Broken,
}

/// One error of the git layer: what happened, to what, and what to do next.
#[derive(Clone, Debug)]
pub struct Error {
    /// What it asks for.
    pub sort: Sort,
    /// One sentence without a full stop, free of secrets.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// What to do about a suspicion of damage.
pub(crate) const MAY_BE_DAMAGED: &str = "run `gitsync init-sync`: it reads everything again, puts the repository aside only if \
                                         something is damaged, and fetches anew, losing nothing";

/// What to do where the system does not allow it.
const MAY_NOT: &str = "give the user that runs gitsync the right to do so";

/// What to do where the system's words say that it had no more of something.
fn exhausted(words: &str) -> Option<&'static str> {
    let of = |names: &[&str]| names.iter().any(|name| words.contains(name));
    if of(&["Too many open files"]) {
        return Some(
            "allow it more file descriptors (`ulimit -n`), or let `git gc` make one pack of many; nothing is damaged",
        );
    }
    if of(&["Cannot allocate memory", "Out of memory", "out of memory"]) {
        return Some("give it more memory, or run less beside it; nothing is damaged, the next pass tries again");
    }
    if of(&["Input/output error"]) {
        return Some("look at the disk and the system's log; the next pass reads again");
    }
    None
}

impl Error {
    /// An error of a sort.
    pub fn new(sort: Sort, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { sort, what: what.into(), next: next.into() }
    }

    /// Says what was being done when the file system refused.
    pub fn io(doing: impl std::fmt::Display, error: &io::Error) -> Self {
        let text = format!("{doing}: {error}");
        if let Some(next) = exhausted(&text) {
            return Self::new(Sort::Exhausted, text, next);
        }
        let next = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                "make room on the disk; nothing is lost and the next pass goes on from here"
            }
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => MAY_NOT,
            Some(rustix::io::Errno::ROFS) => "mount the file system writable",
            _ => "look at the disk and the system's log; the next pass tries again",
        };
        Self::new(Sort::Broken, text, next)
    }

    /// [`Error::io`] about one path.
    pub fn path(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::io(format!("{doing} {}", path.display()), error)
    }

    /// Says what was being done when libgit2 gave up.
    pub fn git(doing: impl std::fmt::Display, error: &git2::Error) -> Self {
        let last = io::Error::last_os_error();
        let text = format!("{doing}: {}", error.message());
        // libgit2 puts the system's words behind its own and keeps no number; what the system had too little of has to be told
        // from damage.
        let full = error.class() == git2::ErrorClass::Os || error.class() == git2::ErrorClass::Filesystem;
        if full && (error.message().contains("No space left") || error.message().contains("quota exceeded")) {
            let next = "make room on the disk; nothing is lost and the next pass goes on from here";
            return Self::new(Sort::Broken, text, next);
        }
        if let Some(next) = exhausted(error.message()) {
            return Self::new(Sort::Exhausted, text, next);
        }
        match (error.class(), error.code()) {
            // libgit2 calls locked what the system lets nobody open.
            (_, git2::ErrorCode::Locked) if error.message().contains("Permission denied") => {
                Self::new(Sort::Broken, text.replace(" is locked: ", ": "), MAY_NOT)
            }
            (_, git2::ErrorCode::Locked) => {
                Self::new(Sort::Busy, text, "another git process works in this repository; the next pass tries again")
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
                Self::new(Sort::Corrupt, text, MAY_BE_DAMAGED)
            }
            // libgit2 says so of a file that the system would not look at, and not of one that is missing.
            (git2::ErrorClass::Config, _) if error.message().starts_with("failed to stat") => {
                Self::new(Sort::Exhausted, text, "see whether the disk gives the file; the next pass tries again")
            }
            (git2::ErrorClass::Config, code) if code != git2::ErrorCode::NotFound => {
                Self::new(Sort::NotReady, text, "mend git's configuration; `git config --list --show-origin` shows it")
            }
            _ => {
                tracing::debug!(class = ?error.class(), code = ?error.code(), os = %last, "libgit2: {}", error.message());
                Self::new(Sort::Broken, text, "run it again with -vv for more; the next pass tries again")
            }
        }
    }
}

/// Whether it was the system that said no.
pub(super) fn is_systems(error: &git2::Error) -> bool {
    matches!(error.class(), git2::ErrorClass::Os | git2::ErrorClass::Filesystem)
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.next)
    }
}

impl std::error::Error for Error {}

/// Puts the words "while doing this" to a failure.
pub trait Doing<T> {
    /// Names what was being done.
    ///
    /// # Errors
    /// The failure, with that name.
    fn doing(self, what: impl std::fmt::Display) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, git2::Error> {
    fn doing(self, what: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::git(what, &error))
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::io(what, &error))
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, what: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::io(what, &error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody works there, and waiting does not help.
    #[test]
    fn what_the_system_lets_nobody_open_is_not_locked() {
        let words = "failed open - '.git/HEAD' is locked: Permission denied";
        let error = Error::git("reading HEAD", &git2::Error::new(git2::ErrorCode::Locked, git2::ErrorClass::Os, words));
        assert_eq!((error.sort, &*error.next), (Sort::Broken, MAY_NOT));
        assert_eq!(error.what, "reading HEAD: failed open - '.git/HEAD': Permission denied");
        let words = "failed to lock file '.git/HEAD.lock' for writing";
        let error = Error::git("moving HEAD", &git2::Error::new(git2::ErrorCode::Locked, git2::ErrorClass::Os, words));
        assert_eq!(error.sort, Sort::Busy);
    }
}
