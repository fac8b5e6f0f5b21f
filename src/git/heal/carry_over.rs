//! Carries over commits of repositories that were put aside into the present one.
//!
//! One walk leads from everything that those repositories refer to, down to what is here. Each commit that can be read
//! with everything it needs is copied, and the newest of them get rescue references. A repository put aside counts as
//! carried over once those references were checked to hold all of it; until then every later start tries again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{CARRIED, broken};
use crate::clock;
use crate::error::{Context, Error};
use crate::fs::files;
use crate::git::connectivity::{self, Commit, Commits, Depth, Fault, Inspection};
use crate::git::error::is_systems;
use crate::git::{CommitId, Repo};
use crate::rescued::RescueKind;

/// After this many objects, what was copied is written and gets its references, so that it stays in any case.
const BATCH: usize = 100_000;

/// Whether what can't be carried over now might be later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// The remote's history is here. What can't be carried over now never can be.
    WithTheRemotes,
    /// The remote could not be reached, and our commits may need objects that it has.
    WithoutTheRemotes,
}

impl Repo {
    /// Carries over what is missing here from repositories that were put aside, as rescue references: every branch,
    /// rescue and last reflog entry that can still be read, with its history. For one that can't, the ancestors that
    /// can. What is not finished by `until` is left to the next time.
    ///
    /// # Errors
    /// If this repository can't be read or written.
    pub fn carry_over(&self, carry: Carry, when: DateTime<Utc>, until: Instant) -> Result<(), Error> {
        let doing = "reading the repository put aside";
        // There are several if a pass was killed while putting one aside: one may hold what another refers to. Even one
        // that was carried over long ago may hold what was lost since.
        let all = broken(&self.private);
        let fresh: Vec<&PathBuf> = all.iter().filter(|old| !old.join(CARRIED).exists()).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let tips: BTreeSet<CommitId> = fresh.iter().flat_map(|old| old_tips(old)).collect();
        let tips: Vec<CommitId> = tips.into_iter().collect();
        let mut shallow = connectivity::shallow_roots(self.git.commondir());
        // A separate handle: a handle that sees the old objects does not write objects that they contain already.
        let beside = self.beside()?;
        let odb = beside.odb().context(doing)?;
        for old in &all {
            shallow.extend(connectivity::shallow_roots(old));
            if old.join("objects").is_dir() {
                odb.add_disk_alternate(&old.join("objects").to_string_lossy()).context(doing)?;
            }
        }
        let ours = self.whole_refs()?;
        let mut inspection = Inspection::new(&odb, shallow, Depth::Content);
        inspection.seen = Some(Vec::new());
        let (commits, mut complete) = readable(inspection.beyond(&tips, &ours.reached));
        let pack = beside.packbuilder().context(doing)?;
        let mut copy = Copy { repo: self, beside: &beside, when, pack, heads: BTreeSet::new(), kept: Vec::new() };
        let done = copy.copy(&mut inspection, &commits, &tips, &ours.reached, until);
        complete &= done.unwrap_or_else(|error| {
            // A disk that can't be read must not prevent the start. Everything stays where it is.
            tracing::warn!("{}; the next init-sync tries again", error.what);
            false
        });
        let held = copy.kept;
        let here = self.git.odb().context(doing)?;
        let cut = connectivity::shallow_roots(self.git.commondir());
        if let Err(fault) = connectivity::check(&here, &held, &ours.tips, cut, false) {
            tracing::warn!("what was carried over is incomplete: {fault}; the next init-sync tries again");
            complete = false;
        }
        if complete && carry == Carry::WithTheRemotes {
            for old in fresh {
                fs::write(old.join(CARRIED), b"").context("recording what was carried over")?;
            }
        }
        Ok(())
    }

    /// The references for which everything they need is here, and every commit that they reach.
    fn whole_refs(&self) -> Result<Ours, Error> {
        let doing = "reading what is here";
        let odb = self.git.odb().context(doing)?;
        let cut = connectivity::shallow_roots(self.git.commondir());
        let mut tips = self.ref_tips()?;
        let is_whole = |tips: &[CommitId]| match connectivity::check(&odb, tips, &[], cut.clone(), false) {
            Err(Fault::Unreadable(_, _, error)) if is_systems(&error) => Err(Error::git(doing, &error)),
            checked => Ok(checked.is_ok()),
        };
        if !is_whole(&tips)? {
            let mut whole = Vec::new();
            for tip in tips {
                if is_whole(&[tip])? {
                    whole.push(tip);
                }
            }
            tips = whole;
        }
        let inspection = Inspection::new(&odb, cut, Depth::Header);
        let reached = inspection.beyond(&tips, &HashSet::new()).into_keys().collect();
        Ok(Ours { tips, reached })
    }
}

/// What is here and complete.
struct Ours {
    tips: Vec<CommitId>,
    reached: HashSet<CommitId>,
}

/// The commits that can be read, and whether the system allowed reading all that exist.
fn readable(commits: Commits) -> (HashMap<CommitId, Commit>, bool) {
    let mut complete = true;
    let mut read = HashMap::new();
    for (id, commit) in commits {
        match commit {
            Ok(commit) => {
                read.insert(id, commit);
            }
            Err(fault) => complete &= !is_refusal(&fault),
        }
    }
    (read, complete)
}

/// Returns whether the system refused to read: then it is unknown whether the object is intact.
fn is_refusal(fault: &Fault) -> bool {
    matches!(fault, Fault::Unreadable(_, _, error) if is_systems(error))
}

/// The copying of objects into the repository.
struct Copy<'r> {
    repo: &'r Repo,
    /// The handle that sees both the objects here and those put aside.
    beside: &'r git2::Repository,
    when: DateTime<Utc>,
    pack: git2::PackBuilder<'r>,
    /// Copied commits that no other copied commit descends from.
    heads: BTreeSet<CommitId>,
    /// The commits that got rescue references, with those references.
    kept: Vec<CommitId>,
}

impl Copy<'_> {
    /// Copies every complete commit, parents first. Returns whether it finished: in time, and without an object that
    /// the system refused to read.
    fn copy(
        &mut self,
        inspection: &mut Inspection<'_>,
        commits: &HashMap<CommitId, Commit>,
        tips: &[CommitId],
        ours: &HashSet<CommitId>,
        until: Instant,
    ) -> Result<bool, Error> {
        let doing = "copying from the repository put aside";
        let mut complete = true;
        let mut whole: HashSet<CommitId> = HashSet::new();
        for id in connectivity::parents_first(commits, tips) {
            let Some(commit) = commits.get(&id) else { continue };
            if clock::instant() >= until {
                tracing::warn!(
                    "there was no time to carry over all of the repository put aside; the next init-sync goes on"
                );
                complete = false;
                break;
            }
            if !commit.parents.iter().all(|parent| ours.contains(parent) || whole.contains(parent)) {
                continue;
            }
            let checked = inspection.files(commit, commits);
            let seen = inspection.seen.replace(Vec::new()).unwrap_or_default();
            if let Err(fault) = checked {
                complete &= !is_refusal(&fault);
                tracing::warn!(commit = %id, "a commit of the repository put aside can't be read: {fault}");
                continue;
            }
            whole.insert(id);
            for object in std::iter::once(id).chain(seen.into_iter().map(|(object, _)| object)) {
                self.pack.insert_object(object, None).context(doing)?;
            }
            for parent in &commit.parents {
                self.heads.remove(parent);
            }
            self.heads.insert(id);
            if self.pack.object_count() >= BATCH {
                self.keep()?;
            }
        }
        self.keep()?;
        Ok(complete)
    }

    /// Writes what was copied so far, and makes references to keep it.
    fn keep(&mut self) -> Result<(), Error> {
        let doing = "copying from the repository put aside";
        if self.pack.object_count() > 0 {
            let folder = self.repo.git.commondir().join("objects/pack");
            self.pack.write(&folder, 0o444).context(doing)?;
            self.pack = self.beside.packbuilder().context(doing)?;
            self.repo.git.odb().and_then(|odb| odb.refresh()).context(doing)?;
        }
        for head in std::mem::take(&mut self.heads) {
            let why = "carried over from the damaged repository";
            self.repo.rescue(RescueKind::Local, head, self.when, why)?;
            self.kept.push(head);
        }
        Ok(())
    }
}

/// Every commit that a repository put aside refers to: by its packed and loose references, and by the last lines of its
/// reflogs.
fn old_tips(old: &Path) -> BTreeSet<CommitId> {
    let mut tips = BTreeSet::new();
    let mut take = |text: &str| {
        for word in text.split_whitespace().filter(|word| word.len() == 40) {
            if let Ok(id) = CommitId::from_str(word)
                && !id.is_zero()
            {
                tips.insert(id);
            }
        }
    };
    take(&files::read_to_string(&old.join("packed-refs")).unwrap_or_default());
    take(&files::read_to_string(&old.join("HEAD")).unwrap_or_default());
    let mut folders = vec![old.join("refs"), old.join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in files::entries_if_any(&folder) {
            if entry.is_folder() {
                folders.push(entry.path());
            } else if let Ok(text) = files::read_to_string(&entry.path()) {
                let from = text.char_indices().rev().filter(|(_, c)| *c == '\n').nth(20).map_or(0, |(at, _)| at);
                take(&text[from..]);
            }
        }
    }
    tips
}
