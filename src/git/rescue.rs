//! Rescue: what is about to be dropped stays reachable under `refs/gitsync/rescue/`, on disk before the act.

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Duration, Utc};

use super::ages::Ages;
use super::changed::Changed;
use super::index::{is_one_to_git, is_submodule_in};
use super::index_flags::Flagged;
use super::survey::Survey;
use super::tree_edit::Edits;
use super::{CommitId, Repo, about, path_of, shown};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, FileKind, Found, Parent, last};
use crate::rescued::{PREFIX, RescueKind, RescueRef};

impl Repo {
    /// Keeps a commit reachable, and says how to get it back.
    ///
    /// What a reference of the same kind keeps already is not kept twice.
    ///
    /// # Errors
    /// Where the reference can't be written: then the act must not happen.
    pub fn rescue(&self, kind: RescueKind, commit: CommitId, when: DateTime<Utc>, why: &str) -> Result<(), Error> {
        let (name, new) = self.rescue_quietly(kind, commit, when, why)?;
        if new {
            self.tell(kind, &name, commit, why);
        }
        self.rescues_made.add(name);
        Ok(())
    }

    /// Keeps commits as they were before they were replayed. Nothing is lost, so there is nothing to get back.
    ///
    /// # Errors
    /// As [`Repo::rescue`].
    pub(super) fn rescue_replayed(&self, commit: CommitId, when: DateTime<Utc>) -> Result<(), Error> {
        let (name, _) = self.rescue_quietly(RescueKind::Local, commit, when, "replayed on the remote's commits")?;
        tracing::info!(rescue = %name, %commit, "kept our commits as they were before the replay");
        self.rescues_made.add(name);
        Ok(())
    }

    /// [`Repo::rescue`] without a word in the log; gives also whether the reference is new.
    ///
    /// # Errors
    /// As [`Repo::rescue`].
    pub(super) fn rescue_quietly(
        &self,
        kind: RescueKind,
        commit: CommitId,
        when: DateTime<Utc>,
        why: &str,
    ) -> Result<(RescueRef, bool), Error> {
        let ages = Ages::read(&self.private);
        let hex = commit.to_string();
        // Not each that is there: there may be thousands, and as many are made in one pass.
        for (name, kept) in self.rescues_like(&format!("*-{}-{}", kind.word(), &hex[..7]))? {
            if kept == commit && is_recent(&ages, &name, kept, when) {
                return Ok((name, false));
            }
        }
        self.objects_to_disk()?;
        let mut stamp = when;
        let name = loop {
            let name = RescueRef::new(kind, stamp, &hex);
            match self.git.reference(name.name(), commit, false, why) {
                Ok(_) => break name,
                // Another commit with the same first digits in the same second: the name must not be taken from it.
                Err(error) if error.code() == git2::ErrorCode::Exists => stamp += Duration::seconds(1),
                Err(error) => return Err(Error::git(format!("keeping {hex} as {name}"), &error)),
            }
        };
        self.ref_to_disk(name.name())?;
        Ok((name, true))
    }

    /// Every rescue reference with its commit, oldest first.
    ///
    /// # Errors
    /// Where references can't be read.
    pub fn rescues(&self) -> Result<Vec<(RescueRef, CommitId)>, Error> {
        self.rescues_like("*")
    }

    fn rescues_like(&self, pattern: &str) -> Result<Vec<(RescueRef, CommitId)>, Error> {
        let doing = "reading refs/gitsync/rescue/";
        let mut all = Vec::new();
        for reference in self.git.references_glob(&format!("{PREFIX}{pattern}")).context(doing)? {
            let reference = reference.context(doing)?;
            if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
                all.push((RescueRef::of(name), target));
            }
        }
        all.sort();
        Ok(all)
    }
}

/// Whether a rescue was made within a day. An older one would be let go before its time, counted from now.
fn is_recent(ages: &Ages, name: &RescueRef, kept: CommitId, when: DateTime<Utc>) -> bool {
    let day = Duration::days(1);
    // The clock may have been set back to the day that is in the name.
    !ages.may_be_kept_for(&format!("{name} {kept}"), day.num_seconds())
        && name.since().is_some_and(|stamp| stamp <= when && when - stamp < day)
}

impl Repo {
    /// Says that a commit was rescued, and how to get it back.
    pub(super) fn tell(&self, kind: RescueKind, name: &RescueRef, commit: CommitId, why: &str) {
        let get_back = self.get_back(kind, name.name(), commit);
        tracing::warn!(rescue = %name, commit = %commit, get_back, "{why}: kept what would have been dropped");
    }

    /// Commits file versions that no reachable tree holds, byte for byte, and keeps the commit.
    ///
    /// What is staged in the index and differs from both sides becomes the commit's second parent, as `git stash` does it.
    pub(super) fn rescue_files(
        &self,
        top: &Dir,
        target: CommitId,
        survey: &Survey,
        when: DateTime<Utc>,
        why: &str,
    ) -> Result<(), Error> {
        let head = self.tip_of("HEAD")?;
        let head_tree = head.map(|head| self.tree_of(head)).transpose()?;
        let staged = self.staged_only(head_tree.as_ref(), target)?;
        if survey.unsaved.is_empty() && staged.is_none() {
            return Ok(());
        }
        let mut kept: Vec<(PathBuf, git2::Oid, u32)> = Vec::new();
        for (path, found) in &survey.unsaved {
            kept.extend(self.keep_bytes(top, path, found)?.map(|(id, mode)| (path.clone(), id, mode)));
        }
        if staged.is_none()
            && let Some(name) = self.rescued_before(&kept)?
        {
            self.rescues_made.add(name);
            return Ok(());
        }
        let edits = kept.iter().map(|(path, id, mode)| (path.clone(), Some((*id, *mode)))).collect();
        let tree = self.edit_tree(head_tree.as_ref().map(git2::Tree::id), &edits)?;
        let (author, committer) = self.signatures(when)?;
        let branch = &self.names.branch;
        let mut parents: Vec<CommitId> = head.into_iter().collect();
        if let Some(staged) = staged {
            let message = format!("gitsync: what was staged on {branch}\n\n{why}\n");
            parents.push(self.write_commit(staged, &parents, &author, &committer, &message)?);
        }
        let mut message = format!("gitsync: uncommitted files on {branch}\n\n{why}\n\n");
        for (path, _, _) in kept.iter().take(100) {
            message.push_str(&format!("{}\n", shown(path)));
        }
        let id = self.write_commit(tree, &parents, &author, &committer, &message)?;
        self.rescue(RescueKind::Worktree, id, when, why)
    }

    /// Keeps files that are new, changed or gone as one rescue. Branch, index and files stay as they are.
    ///
    /// # Errors
    /// Where the repository can't be read or written.
    pub fn rescue_changed(&self, changed: &Changed, when: DateTime<Utc>, why: &str) -> Result<(), Error> {
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let mut edits = Edits::new();
        let left_out = changed.left_out.iter().map(|one| &one.path);
        for path in changed.paths.iter().chain(left_out) {
            let found = top.find(path).context(about("looking at {}", path))?;
            match found.map(|found| self.keep_bytes(&top, path, &found)).transpose()? {
                // A folder or a FIFO: no commit holds it.
                Some(None) => {}
                kept => {
                    edits.insert(path.clone(), kept.flatten());
                }
            }
        }
        let head = self.tip_of("HEAD")?;
        let head_tree = head.map(|head| self.tree_of(head)).transpose()?;
        let tree = self.edit_tree(head_tree.as_ref().map(git2::Tree::id), &edits)?;
        for (name, commit) in self.rescues()? {
            if name.kind() == Some(RescueKind::Worktree) && self.tree_of(commit).is_ok_and(|kept| kept.id() == tree) {
                self.rescues_made.add(name);
                return Ok(());
            }
        }
        let (author, committer) = self.signatures(when)?;
        let message = format!("gitsync: uncommitted files on {}\n\n{why}\n", self.names.branch);
        let id = self.write_commit(tree, head.as_slice(), &author, &committer, &message)?;
        self.rescue(RescueKind::Worktree, id, when, why)
    }

    /// Writes a file's or link's bytes as they are, and gives the object and its mode; `None` for what is neither.
    fn keep_bytes(&self, top: &Dir, path: &Path, found: &Found) -> Result<Option<(git2::Oid, u32)>, Error> {
        let doing = about("keeping {}, which is about to be replaced", path);
        let Parent::There(parent) = top.parent_of(path).context(doing)? else { return Ok(None) };
        Ok(match found.kind {
            FileKind::Link => {
                let bytes = parent.read(last(path), found.kind).context(doing)?;
                Some((self.git.blob(&bytes).context(doing)?, 0o120_000))
            }
            FileKind::File { executable } => {
                // Without a path to go by the writer applies no filters: the bytes are kept as they are.
                let mut blob = self.git.blob_writer(None).context(doing)?;
                let mut file = parent.open_file(last(path)).context(doing)?;
                io::copy(&mut file, &mut blob).context(doing)?;
                Some((blob.commit().context(doing)?, if executable { 0o100_755 } else { 0o100_644 }))
            }
            FileKind::Folder | FileKind::Special => None,
        })
    }

    /// The index as a tree, if something is staged that is neither in HEAD, nor in the target, nor in the file itself.
    fn staged_only(&self, head: Option<&git2::Tree<'_>>, target: CommitId) -> Result<Option<git2::Oid>, Error> {
        let doing = "looking at what is staged";
        let mut index = self.index()?;
        if index.has_conflicts() || self.follow_is_unfinished() {
            // A half merge can't be written as a tree. Its sides are commits, and its files are rescued as files.
            return Ok(None);
        }
        let flagged = Flagged::of(&index);
        let target = self.tree_of(target)?;
        let diff = self.git.diff_tree_to_index(head, Some(&index), None).context(doing)?;
        for delta in diff.deltas() {
            let file = delta.new_file();
            let Some(bytes) = file.path_bytes() else { continue };
            let path = path_of(bytes);
            if file.id().is_zero()
                || flagged.is_to_be_added(&path)
                || is_submodule_in(&index, &path)
                || is_one_to_git(&delta, head, &index)
            {
                continue;
            }
            let in_target = target.get_path(&path).is_ok_and(|entry| entry.id() == file.id());
            let in_file = || {
                if self.blocked_on_the_way(&path).is_some() {
                    return false;
                }
                let mut options = git2::DiffOptions::new();
                options.pathspec(&path).disable_pathspec_match(true).include_typechange(true);
                self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).is_ok_and(|d| d.deltas().len() == 0)
            };
            if !in_target && !in_file() {
                return match flagged.write_tree(self, &mut index) {
                    // An index taken over from a repository that was put aside names objects that stayed there.
                    Err(_) if head.is_none() => Ok(None),
                    Err(error) => self.write_what_is_left(head, &flagged, &index, error).context(doing),
                    Ok(tree) => Ok(Some(tree)),
                };
            }
        }
        Ok(None)
    }

    /// The index as a tree, without what is staged and has no object: git does not wait until an object that it adds is
    /// on disk, so a power loss can leave the index without it. Nobody can keep that, and it must not hold up every
    /// pass. `None` if nothing else is staged; gives `error` back if that is not what caused it.
    fn write_what_is_left(
        &self,
        head: Option<&git2::Tree<'_>>,
        flagged: &Flagged,
        index: &git2::Index,
        error: git2::Error,
    ) -> Result<Option<git2::Oid>, git2::Error> {
        let odb = self.git.odb()?;
        let in_head = |path: &Path, id| head.is_some_and(|tree| tree.get_path(path).is_ok_and(|it| it.id() == id));
        let is_lost = |path: &Path, id| !odb.exists(id) && !is_submodule_in(index, path) && !in_head(path, id);
        let staged = index.iter().map(|entry| (path_of(&entry.path), entry.id));
        let lost: Vec<PathBuf> = staged.filter(|(path, id)| is_lost(path, *id)).map(|(path, _)| path).collect();
        let Some(file) = index.path().filter(|_| !lost.is_empty()) else { return Err(error) };
        // The repository's own index must not change here.
        let mut left = git2::Index::open(file)?;
        for path in &lost {
            tracing::warn!(path = %shown(path), "what was staged of this file has no object and can't be kept");
            left.remove(path, 0)?;
        }
        let tree = flagged.write_tree_of(self, &mut left)?;
        Ok(Some(tree).filter(|tree| head.is_none_or(|head| head.id() != *tree)))
    }

    /// A rescue that holds all these versions already: a pass that was killed after it made one need not make another.
    fn rescued_before(&self, kept: &[(PathBuf, git2::Oid, u32)]) -> Result<Option<RescueRef>, Error> {
        for (name, commit) in self.rescues()? {
            if name.kind() != Some(RescueKind::Worktree) {
                continue;
            }
            let Ok(tree) = self.tree_of(commit) else { continue };
            let all = kept.iter().all(|(path, id, _)| tree.get_path(path).is_ok_and(|entry| entry.id() == *id));
            if all {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}
