//! The error type: what happened, to what, and what to do next. Its kind decides the exit code.
//!
//! An error is built where the failure is understood, and passed on unchanged; [`Context`] adds what was being done.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// What kind of failure this is, and so who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The remote can't be reached, or did not answer. Exit 75.
    Unreachable,
    /// The remote's branch moved between our fetch and our push. Exit 75.
    LostRace,
    /// Something else is at work: another git process, another pass, an earlier job. Exit 75.
    Busy,
    /// The system ran out of a resource: file descriptors, memory, a readable disk. Exit 75.
    Exhausted,
    /// Any other failure that may be gone at the next pass. Exit 75.
    Retry,
    /// The remote answered, and refused. Exit 1.
    Refused,
    /// gitsync can't work in the repository as it is: a person, or init-sync, has to repair it. Exit 1.
    NotReady,
    /// Objects or refs seem to be missing or damaged. This is only a suspicion: libgit2 reports the same when it runs out of
    /// file descriptors. [`crate::git::damage::prove`] reads again before anything is put aside. Exit 1.
    Corrupt,
    /// The files of a remote commit can't be checked out here. It has to be mended on the remote; local state stays. Exit 1.
    Unfit,
    /// Any other failure that a retry alone won't help: a failed job, a file system that refused. Exit 1.
    Person,
    /// The command line or the environment asks for something that can't be done. Exit 2.
    Usage,
}

impl Kind {
    /// The exit code (75 is `EX_TEMPFAIL` of sysexits.h).
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Unreachable | Self::LostRace | Self::Busy | Self::Exhausted | Self::Retry => 75,
            Self::Refused | Self::NotReady | Self::Corrupt | Self::Unfit | Self::Person => 1,
            Self::Usage => 2,
        }
    }

    /// The rank among several failures of a pass: the most severe one gives the exit code. A failure that needs a person
    /// outranks one that goes away by itself.
    pub fn severity(self) -> u8 {
        match self.exit_code() {
            75 => 0,
            1 => 1,
            _ => 2,
        }
    }
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its kind, which decides the exit code.
    pub kind: Kind,
    /// What happened, to what: one sentence without a full stop and without secrets.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// The next step after a permission error.
pub(crate) const MAY_NOT: &str = "give the user that runs gitsync the right to do so";

/// The next step when the disk is full.
pub(crate) const MAKE_ROOM: &str = "make room on the disk; nothing is lost and the next pass goes on from here";

/// The next step if an error text says that the system ran out of a resource.
pub(crate) fn exhausted(text: &str) -> Option<&'static str> {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(&["Too many open files"]) {
        return Some(
            "allow it more file descriptors (`ulimit -n`), or run `git gc` to join the packs; nothing is damaged",
        );
    }
    if says(&["Cannot allocate memory", "Out of memory", "out of memory"]) {
        return Some("give it more memory, or run less next to it; nothing is damaged, the next pass tries again");
    }
    if says(&["Input/output error"]) {
        return Some("look at the disk and the system's log; the next pass reads again");
    }
    None
}

impl Error {
    /// An error of a kind.
    pub fn new(kind: Kind, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, what: what.into(), next: next.into() }
    }

    /// An error that may be gone at the next pass.
    pub fn retry(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Kind::Retry, what, next)
    }

    /// An error that needs a person.
    pub fn person(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Kind::Person, what, next)
    }

    /// An error of the command line or the environment.
    pub fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what, next)
    }

    /// An error from an I/O error; `doing` says what was being done. The next step depends on the errno.
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let text = format!("{doing}: {error}");
        if let Some(next) = exhausted(&text) {
            return Self::new(Kind::Exhausted, text, next);
        }
        let next = match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => MAKE_ROOM,
            Some(Errno::ACCESS | Errno::PERM) => MAY_NOT,
            Some(Errno::ROFS) => "mount the file system writable",
            _ => "look at the disk and the system's log; the next pass tries again",
        };
        Self::person(text, next)
    }

    /// [`Error::io`] about one path.
    pub fn path(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::io(format!("{doing} {}", path.display()), error)
    }

    /// Whether a later pass may succeed although nobody does anything.
    pub fn is_passing(&self) -> bool {
        self.kind.exit_code() == 75
    }

    /// The [`Error`] that an [`io::Error`] carries, if any.
    pub(crate) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).cloned()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.next)
    }
}

impl std::error::Error for Error {}

/// Adds to an error what was being done.
pub trait Context<T> {
    /// Puts `what` and a colon before the error's text.
    ///
    /// # Errors
    /// The error, with `what` before its text.
    fn context(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error { what: format!("{what}: {}", error.what), ..error })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::io(what, &error))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| Error::io(what, &error.into()))
    }
}
