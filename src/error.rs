//! The one error: what happened, to what, and what to do next. Its kind decides the exit code.
//!
//! A failure is built where it is known, and passed on as it is; [`Context`] says what was being done.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The remote can't be reached now, or its answer did not come. Exit 75.
    Unreachable,
    /// The remote's branch moved between our look and our push. Exit 75.
    LostRace,
    /// Somebody else is at work: another git process, another pass, an earlier job. Exit 75.
    Busy,
    /// The system had no more of something for now: file descriptors, memory, a disk that reads. Exit 75.
    Exhausted,
    /// Anything else that the next pass may find gone. Exit 75.
    Retry,
    /// The remote answered, and refuses. Exit 1.
    Refused,
    /// The repository is not in a state to work in: a person, or init-sync, has to put it right. Exit 1.
    NotReady,
    /// Objects or references that must be there seem to be missing or damaged. A suspicion: libgit2 says the same where it
    /// ran out of file descriptors. [`crate::git::damage::prove`] reads again before anything is put aside. Exit 1.
    Corrupt,
    /// What a commit of the remote holds can't be brought about here. The remote's to mend; local state stays. Exit 1.
    Unfit,
    /// Anything else that a retry alone won't help: a job that failed, a file system that refused. Exit 1.
    Person,
    /// The command line or the environment asks for something that can't be. Exit 2.
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

    /// The rank among several failures of a pass, whose gravest gives the exit code: what needs a person outranks what passes
    /// by itself.
    pub fn gravity(self) -> u8 {
        match self.exit_code() {
            75 => 0,
            1 => 1,
            _ => 2,
        }
    }
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What it asks for.
    pub kind: Kind,
    /// What happened, to what: one sentence without a full stop, free of secrets.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// What to do where the system does not allow it.
pub(crate) const MAY_NOT: &str = "give the user that runs gitsync the right to do so";

/// What to do on a full disk.
pub(crate) const MAKE_ROOM: &str = "make room on the disk; nothing is lost and the next pass goes on from here";

/// What to do where the system's words say that it had no more of something.
pub(crate) fn exhausted(words: &str) -> Option<&'static str> {
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
    /// An error of a kind.
    pub fn new(kind: Kind, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, what: what.into(), next: next.into() }
    }

    /// Passing trouble.
    pub fn retry(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Kind::Retry, what, next)
    }

    /// Somebody has to look.
    pub fn person(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Kind::Person, what, next)
    }

    /// The command line is at fault.
    pub fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what, next)
    }

    /// Says what was being done when the file system refused.
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

    /// Whether a later pass may succeed without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        self.kind.exit_code() == 75
    }

    /// The error that an [`io::Error`] carries.
    pub(crate) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).cloned()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // git2 makes a C string of what a stream fails with, and unwraps.
        f.write_str(&format!("{}; {}", self.what, self.next).replace('\0', "\u{fffd}"))
    }
}

impl std::error::Error for Error {}

/// Says what was being done, or in what, when something failed.
pub trait Context<T> {
    /// Puts `what` before what happened.
    ///
    /// # Errors
    /// The failure, with that before it.
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
