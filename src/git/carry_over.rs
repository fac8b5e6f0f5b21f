//! Commits of repositories that were put aside, carried over into the one in their place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::error::Doing;
use super::heal::{CARRIED, broken};
use super::rescue::What;
use super::{CommitId, Error, Repo};

impl Repo {
    /// Whether everything that a commit needs is here and can be read: every commit before it, its trees, its files.
    ///
    /// Loose objects, which are the youngest, are read in full; of packed ones, whose pack carries a checksum of its own,
    /// the heads.
    pub fn is_whole(&self, commit: CommitId) -> bool {
        let whole = || -> Result<(), git2::Error> {
            let odb = self.git.odb()?;
            let mut walk = self.git.revwalk()?;
            walk.push(commit)?;
            for id in walk {
                self.git.find_commit(id?)?;
            }
            let tree = self.git.find_commit(commit)?.tree()?;
            let mut trouble = None;
            tree.walk(git2::TreeWalkMode::PreOrder, |_, entry| {
                if entry.kind() == Some(git2::ObjectType::Commit) {
                    return git2::TreeWalkResult::Ok;
                }
                let hex = entry.id().to_string();
                let loose = self.place.git_dir.join("objects").join(&hex[..2]).join(&hex[2..]).exists();
                let read = if loose { odb.read(entry.id()).map(drop) } else { odb.read_header(entry.id()).map(drop) };
                match read {
                    Ok(()) => git2::TreeWalkResult::Ok,
                    Err(error) => {
                        trouble = Some(error);
                        git2::TreeWalkResult::Abort
                    }
                }
            })
            .or_else(|error| trouble.as_ref().map_or(Err(error), |_| Ok(())))?;
            trouble.map_or(Ok(()), Err)
        };
        match whole() {
            Ok(()) => true,
            // What a shallow clone left out is not damage.
            Err(_) if self.git.is_shallow() => true,
            Err(error) => {
                tracing::warn!(commit = %commit, "objects are missing or damaged: {}", error.message());
                false
            }
        }
    }

    /// Carries over from repositories that were put aside what is not here: each branch, rescue and log's last commit that
    /// can still be read, with its history, as rescue references.
    ///
    /// # Errors
    /// Where this repository can't be written.
    pub fn carry_over(&self, when: DateTime<Utc>) -> Result<Vec<String>, Error> {
        let doing = "reading the repository put aside";
        let mut kept = Vec::new();
        // Several, where a pass was killed in the middle of putting one aside: what one names another may hold.
        let fresh: Vec<PathBuf> = broken(&self.private).into_iter().filter(|old| !old.join(CARRIED).exists()).collect();
        if fresh.is_empty() {
            return Ok(kept);
        }
        // A handle of its own: what is written through one that sees the old objects is left out where they have it.
        let beside = Self {
            git: super::open_git(&self.place)?,
            place: self.place.clone(),
            private: self.private.clone(),
            names: self.names.clone(),
            scratch: None.into(),
            uncut: std::cell::OnceCell::new(),
        };
        let odb = beside.git.odb().doing(doing)?;
        for objects in fresh.iter().map(|old| old.join("objects")).filter(|objects| objects.is_dir()) {
            odb.add_disk_alternate(&objects.to_string_lossy()).doing(doing)?;
        }
        let tips: BTreeSet<CommitId> = fresh.iter().flat_map(|old| old_tips(old)).collect();
        let mut lost = Vec::new();
        for id in tips {
            if !beside.is_kept(id)? {
                lost.push(id);
            }
        }
        let mut complete = true;
        for id in beside.descendants_first(lost) {
            // A rescue made just now may keep it too.
            if beside.is_kept(id)? {
                continue;
            }
            match beside.copy_readable(id) {
                Ok(None) => {}
                Ok(Some(id)) => {
                    self.git.odb().and_then(|odb| odb.refresh()).doing(doing)?;
                    kept.push(self.rescue(What::Local, id, when, "carried over from the damaged repository")?);
                }
                // A disk that can't be read must not keep the instance from starting. What is there stays there.
                Err(error) => {
                    tracing::warn!("{}; the next init-sync tries again", error.what);
                    complete = false;
                }
            }
        }
        if !complete {
            return Ok(kept);
        }
        for old in fresh {
            fs::write(old.join(CARRIED), b"").doing("noting what was carried over")?;
        }
        Ok(kept)
    }

    /// Those with no descendant among them come first: what keeps them keeps the others, which need no rescue of their own.
    fn descendants_first(&self, mut commits: Vec<CommitId>) -> Vec<CommitId> {
        let all = commits.clone();
        // A commit has fewer descendants among them than any of its ancestors. What can't be read is nobody's descendant.
        let descends = |from: CommitId, id: CommitId| self.git.graph_descendant_of(from, id).unwrap_or(false);
        commits.sort_by_cached_key(|id| all.iter().filter(|other| descends(**other, *id)).count());
        commits
    }

    /// Packs a commit with all that it needs and this repository's references don't reach; where something of it can't be
    /// read, the first of its ancestors for which that can be done.
    fn copy_readable(&self, tip: CommitId) -> Result<Option<CommitId>, Error> {
        let mut at = Some(tip);
        while let Some(id) = at {
            let packed = || -> Result<(), git2::Error> {
                let mut walk = self.git.revwalk()?;
                walk.push(id)?;
                for reference in self.git.references()? {
                    if let Ok(commit) = reference.and_then(|reference| reference.peel_to_commit()) {
                        walk.hide(commit.id())?;
                    }
                }
                let mut pack = self.git.packbuilder()?;
                pack.insert_walk(&mut walk)?;
                pack.write(&self.place.git_dir.join("objects/pack"), 0o444)
            };
            if self.is_whole(id) {
                match packed() {
                    Ok(()) => return Ok(Some(id)),
                    // The system said no, to what is written as likely as to what is read: not the commit's fault.
                    Err(error) if matches!(error.class(), git2::ErrorClass::Os | git2::ErrorClass::Filesystem) => {
                        return Err(Error::git(format!("copying {id} from the repository put aside"), &error));
                    }
                    Err(_) => {}
                }
            }
            at = self.git.find_commit(id).ok().and_then(|commit| commit.parent_id(0).ok());
            if let Some(parent) = at
                && self.is_kept(parent)?
            {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

/// Every commit that a repository put aside names: its references, packed and loose, and the last lines of its logs.
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
    take(&fs::read_to_string(old.join("packed-refs")).unwrap_or_default());
    take(&fs::read_to_string(old.join("HEAD")).unwrap_or_default());
    let mut folders = vec![old.join("refs"), old.join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                let from = text.char_indices().rev().filter(|(_, c)| *c == '\n').nth(20).map_or(0, |(at, _)| at);
                take(&text[from..]);
            }
        }
    }
    tips
}
