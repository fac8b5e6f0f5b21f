//! A push under a lease: only if the remote's tip is the one that was judged, and only `ok` of the server counts.

use std::rc::Rc;

use git2::{ObjectType, Odb, OdbLookupFlags};

use super::CommitId;
use super::pack::pack;
use super::remote::Remote;
use crate::error::{Context, Error, Kind};
use crate::remote::protocol::push::Report;
use crate::remote::spool::Spool;
use crate::remote::{self, Session};

/// The name ends as those of unfinished files do, which every pass removes.
const PACK: &str = "push-pack.new";

/// How a push may move the remote's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Move it forward only.
    FastForward,
    /// Overwrite the exact tip that was judged, if it still is the tip.
    Overwrite,
}

/// A large pack, kept for the rest of the pass.
pub(super) struct Packed {
    commit: CommitId,
    /// What the remote had.
    theirs: Vec<CommitId>,
    pack: Rc<Spool>,
}

impl Remote<'_> {
    /// Pushes `commit` to the branch, if the remote's tip is still `expected`.
    ///
    /// Returns Ok only if the server has confirmed this reference, or was seen to hold the commit.
    ///
    /// # Errors
    /// [`Kind::LostRace`] if the tip has changed, [`Kind::Refused`] with the server's words, and [`Kind::Unreachable`]
    /// if the result of the push is unknown.
    pub fn push(&self, commit: CommitId, expected: Option<CommitId>, how: Push) -> Result<(), Error> {
        self.push_url.clone()?;
        let session = self.push.as_ref().unwrap_or(&self.fetch);
        let doing = format!("pushing to {}", session.display_url());
        let moved = || {
            let what = format!("{doing}: the remote's '{}' moved in the meantime", self.repo.names.branch);
            Error::new(Kind::LostRace, what, "the next pass looks again and decides")
        };
        if how == Push::FastForward && !self.is_forward(commit, expected)? {
            return Err(moved());
        }
        let odb = self.repo.git.odb().context(&doing)?;
        let receiver = session.receiver(&self.repo.branch_ref(), &|id| is_commit_here(&odb, id))?;
        match receiver.tip() {
            // Somebody else has pushed it, perhaps the job: the server itself lists it.
            Some(tip) if tip == commit => return Ok(()),
            tip if tip != expected => return Err(moved()),
            _ => {}
        }
        let pack = self.pack(session, commit, expected, (&receiver.theirs, receiver.takes_thin()))?;
        match receiver.send(commit, &pack) {
            Ok(Report { update: Some(Ok(())), unpack: None, .. }) => Ok(()),
            Ok(Report { update: None, unpack: None, .. }) => {
                let what = format!("{doing}: the server did not say whether it took the commit");
                let trouble = Error::new(Kind::Unreachable, what, "the next pass looks and pushes again");
                self.look_up(session, commit, expected, trouble, moved)
            }
            Ok(report) => Err(refused(&doing, &report)),
            Err(trouble) => self.look_up(session, commit, expected, trouble, moved),
        }
    }

    /// Returns whether a push of `commit` is a fast-forward of the remote's branch.
    fn is_forward(&self, commit: CommitId, expected: Option<CommitId>) -> Result<bool, Error> {
        expected.map_or(Ok(true), |expected| Ok(expected == commit || self.repo.descends(commit, expected)?))
    }

    /// The pack of everything that `commit` needs and the remote lacks. A large one is made once in a pass, as long as the
    /// remote still has what it had then.
    fn pack(
        &self,
        session: &Session,
        commit: CommitId,
        expected: Option<CommitId>,
        (theirs, thin): (&[CommitId], bool),
    ) -> Result<Rc<Spool>, Error> {
        if let Some(packed) = self.repo.packed.borrow().as_ref().filter(|packed| packed.commit == commit) {
            let mut still = true;
            for id in &packed.theirs {
                still &= theirs.contains(id) || expected.map_or(Ok(false), |tip| self.repo.contains(tip, *id))?;
            }
            if still {
                return Ok(packed.pack.clone());
            }
        }
        self.repo.private.check().context("packing what the remote lacks")?;
        let path = self.repo.private.file(PACK);
        let progress = session.counter();
        let git = &self.repo.git;
        let packed = pack(git, commit, (theirs, thin), path.clone(), &progress);
        // One of the remote's other branches may be here in part, as after an interrupted `git prune`.
        let expected: Vec<CommitId> = expected.into_iter().collect();
        let packed = packed.or_else(|_| pack(git, commit, (&expected, thin), path, &progress))?;
        let pack = Rc::new(packed);
        if pack.is_large() {
            let packed = Packed { commit, theirs: theirs.to_vec(), pack: pack.clone() };
            *self.repo.packed.borrow_mut() = Some(packed);
        }
        Ok(pack)
    }

    /// Reads the remote's tip after a push whose answer did not arrive.
    fn look_up(
        &self,
        session: &Session,
        commit: CommitId,
        expected: Option<CommitId>,
        trouble: Error,
        moved: impl Fn() -> Error,
    ) -> Result<(), Error> {
        match session.tip(&self.repo.branch_ref()) {
            Ok(tip) if tip == Some(commit) => {
                tracing::info!(commit = %commit, "the answer to the push was lost; the remote has the commit");
                Ok(())
            }
            Ok(tip) if tip == expected => Err(trouble),
            Ok(_) => Err(moved()),
            Err(_) => Err(trouble),
        }
    }
}

/// Returns whether a commit is here. A miss must not make libgit2 read the folder of packs again: a remote may have a hundred
/// thousand references.
pub fn is_commit_here(odb: &Odb<'_>, id: CommitId) -> bool {
    odb.exists_ext(id, OdbLookupFlags::NO_REFRESH)
        && odb.read_header(id).is_ok_and(|(_, kind)| kind == ObjectType::Commit)
}

/// The error for the server's refusal.
pub fn refused(doing: &str, report: &Report) -> Error {
    let (unpack, said) = (report.unpack.as_deref().unwrap_or_default(), &report.said);
    let words = match &report.update {
        Some(Err(words)) => words.as_str(),
        _ => unpack,
    };
    // The cause is often in what was said besides the report.
    let refusal = remote::refusal(words, &format!("{unpack}\n{said}"));
    let besides = [unpack, said.as_str()].into_iter().filter(|text| !text.is_empty() && *text != words);
    let besides: Vec<String> = besides.map(|text| remote::redact::text(text.as_bytes())).collect();
    let besides = if besides.is_empty() { String::new() } else { format!(" ({})", besides.join("; ")) };
    Error { what: format!("{doing}: the server refused: {}{besides}", refusal.what), ..refusal }
}
