//! A fetch: what is new on the remote comes into a folder of its own, is checked there, and joins the repository.

use std::io::{self, Write};

use super::connectivity::Fault;
use super::error::is_systems;
use super::incoming::{History, Incoming, incomplete, not_well_formed};
use super::negotiation::Negotiation;
use super::remote::Remote;
use super::{CommitId, Repo};
use crate::error::Error;
use crate::remote::Session;
use crate::remote::protocol::fetch::{Boundary, WHOLE, Wanted};

/// Where a pack goes. It keeps what libgit2 found wrong with it.
struct Sink<'o> {
    writer: git2::OdbPackwriter<'o>,
    failed: Option<git2::Error>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).inspect_err(|_| self.failed = Some(git2::Error::last_error(-1)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a download failed.
#[derive(Debug)]
pub enum Failed {
    /// The remote, or the way to it.
    Remote(Error),
    /// What came could not be taken in.
    Pack(git2::Error),
}

/// Downloads what is wanted into a repository. `known`: commits that are here with everything they need.
///
/// # Errors
/// See [`Failed`].
pub fn download(
    session: &Session,
    into: &git2::Repository,
    wanted: &Wanted<'_>,
    known: &[CommitId],
) -> Result<Boundary, Failed> {
    let odb = into.odb().map_err(Failed::Pack)?;
    let mut haves = Negotiation::new(&odb, known, wanted.shallow.iter().copied().collect());
    let mut writer = odb.packwriter().map_err(Failed::Pack)?;
    let count = session.counter();
    writer.progress(move |progress| {
        count(progress.received_objects(), progress.total_objects());
        true
    });
    let mut sink = Sink { writer, failed: None };
    let fetched = session.fetch(wanted, &mut haves, &mut sink);
    let boundary = fetched.map_err(|error| sink.failed.take().map_or(Failed::Remote(error), Failed::Pack))?;
    sink.writer.commit().map_err(Failed::Pack)?;
    Ok(boundary)
}

impl Remote<'_> {
    /// Fetches the branch, checks that nothing of it is missing, and records the tip.
    ///
    /// # Errors
    /// [`crate::error::Kind::Unreachable`] or [`crate::error::Kind::Refused`]; also if the repository can't be written.
    /// Nothing has changed then.
    pub fn fetch(&self, history: History) -> Result<Option<CommitId>, Error> {
        let make = || Incoming::inside(self.repo);
        let Some((incoming, tip)) = self.incoming(make, history)? else { return Ok(None) };
        incoming.join(self.repo)?;
        if history == History::Whole {
            self.repo.see_whole_history()?;
        }
        Ok(Some(tip))
    }

    /// Fetches the branch for a dry run, without writing to the repository: into a scratch repository whose objects
    /// only this process then sees as if they were the repository's.
    ///
    /// # Errors
    /// As for [`Remote::fetch`].
    pub fn fetch_beside(&self, history: History) -> Result<Option<CommitId>, Error> {
        let make = || Incoming::outside(self.repo);
        let Some((incoming, tip)) = self.incoming(make, history)? else { return Ok(None) };
        incoming.lend(self.repo)?;
        if history == History::Whole {
            // It is set already only if an earlier fetch did this, and then nothing has changed since.
            let _ = self.repo.uncut.set(incoming.opened_again()?);
        }
        // Read it while the scratch repository exists: libgit2 then keeps its packs open, and objects it has read.
        self.repo.raw_commit(tip)?;
        *self.repo.scratch.borrow_mut() = Some(incoming);
        Ok(Some(tip))
    }

    /// Downloads the branch's tip and everything it needs, and checks them.
    fn incoming(
        &self,
        make: impl Fn() -> Result<Incoming, Error>,
        history: History,
    ) -> Result<Option<(Incoming, CommitId)>, Error> {
        let doing = format!("fetching {} from {}", self.repo.names.branch, self.display_url());
        // All references tell the server what is here already.
        super::special::check_all_refs(&self.repo.place)?;
        let asked = self.asked.take();
        let Some(tip) = asked.map_or_else(|| self.fetch.tip(&self.repo.branch_ref()), Ok)? else { return Ok(None) };
        let mut incoming = make()?;
        if history == History::New && incoming.has_whole(tip) {
            return Ok(Some((incoming, tip)));
        }
        let boundary = self.transfer(&incoming, tip, history).map_err(|failed| match failed {
            Failed::Remote(error) => error,
            Failed::Pack(error) => self.not_taken(&doing, &error),
        })?;
        incoming.cut_at(&boundary, history)?;
        match incoming.check(tip, history)? {
            Ok(()) => Ok(Some((incoming, tip))),
            Err(Fault::Unreadable(_, _, error)) if is_systems(&error) => Err(Error::git(doing, &error)),
            Err(fault) => Err(self.not_ours().err().unwrap_or_else(|| match fault {
                Fault::Malformed(..) => not_well_formed(&doing, fault),
                Fault::Missing(..) | Fault::Unreadable(..) => incomplete(&doing, fault),
            })),
        }
    }

    /// Downloads what is new into `incoming`.
    fn transfer(&self, incoming: &Incoming, tip: CommitId, history: History) -> Result<Boundary, Failed> {
        let mut shallow: Vec<CommitId> = incoming.shallow.iter().copied().collect();
        shallow.sort();
        let depth = match history {
            History::New => None,
            History::Depth(depth) => Some(depth),
            History::Whole => Some(WHOLE),
        };
        let wanted = Wanted { ids: &[tip], shallow: &shallow, depth, thin: !incoming.partial, quiet: true };
        download(&self.fetch, &incoming.git, &wanted, &incoming.known)
    }

    /// The error for a pack that could not be taken in.
    fn not_taken(&self, doing: &str, error: &git2::Error) -> Error {
        let of_objects = matches!(
            error.class(),
            git2::ErrorClass::Odb | git2::ErrorClass::Object | git2::ErrorClass::Zlib | git2::ErrorClass::Indexer
        );
        match of_objects {
            true => self.not_ours().err().unwrap_or_else(|| incomplete(doing, error.message())),
            false => Error::git(doing, error),
        }
    }

    /// Checks our own objects before the server is blamed: one that can't be read during a fetch may be damaged here.
    fn not_ours(&self) -> Result<(), Error> {
        for tip in [self.repo.local_tip()?, self.repo.last_seen()?].into_iter().flatten() {
            self.repo.check_whole(tip)?;
        }
        // Both the negotiation and our own check walk from all references.
        self.repo.check_histories()
    }
}

impl Repo {
    /// To call once the full history was fetched into a shallow clone: from here on [`Repo::history`] sees all of it.
    fn see_whole_history(&self) -> Result<(), Error> {
        let fresh = self.beside()?;
        // It is set already only if an earlier fetch did this, and then nothing has changed since.
        let _ = self.uncut.set(fresh);
        Ok(())
    }
}
