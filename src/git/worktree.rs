//! Following a commit: branch, index and every tracked file become equal to it, and nothing that was there is lost.
//!
//! Why not `reset --hard`: it truncates files in place, follows links out of the tree, and killed half way it leaves the
//! old HEAD and index with a mixed work tree that looks like a person's edits; the next commit would mix two versions.
//! Instead:
//!
//! 1. one look for what differs from the target;
//! 2. libgit2 checks those paths out into a staging folder, so that line endings, modes and links are git's own;
//! 3. what is about to be replaced and is in no reachable tree goes into a rescue commit;
//! 4. an intent is written durably: from now on a pass that is killed is finished by the next one;
//! 5. each path is put in place by one rename, under a directory handle that follows no links;
//! 6. the index, then the branch, then HEAD; then the intent goes.
//!
//! Carrying out an intent twice is carrying it out once: each step looks at what is there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::commit::{is_one_to_git, is_submodule_in};
use super::error::Doing;
use super::rescue::What;
use super::tree_dir::{Found, Kind, Parent, TreeDir, last};
use super::{CommitId, Error, Repo, Sort, path_of, raw, shown};
use crate::deadline::step;
use crate::files;
use crate::private::{remove_if_there, sync_dir};

pub(super) const INTENT: &str = "intent";
pub(super) const INDEX_BEFORE: &str = "index-before";
const STAGING: &str = "staging";
const STAGING_OLD: &str = "staging-old";
pub(super) const ASIDE: &str = "aside";

/// Up to so many files are synced one by one; for more, one sync of the file system is cheaper.
const SYNC_SINGLY: usize = 16;

/// What a follow did.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// Whether anything was changed.
    pub changed: bool,
    /// Paths replaced, made or removed.
    pub paths: usize,
    /// The rescue references made.
    pub rescue_refs: Vec<String>,
}

/// What a follow would do.
#[derive(Clone, Debug, Default)]
pub struct WouldFollow {
    /// Paths that would be replaced, made or removed.
    pub paths: Vec<PathBuf>,
    /// Those of them whose present content is in no commit.
    pub uncommitted: Vec<PathBuf>,
    /// Whether there is anything to do: paths, the branch, HEAD, or something left half done.
    pub changed: bool,
}

/// A follow under way, on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Intent {
    branch: String,
    old: Option<String>,
    target: String,
    why: String,
}

/// What must stand at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// This blob, as a file or a link.
    Blob(git2::Oid),
    /// A submodule's folder, whatever is in it.
    Submodule,
    /// Nothing of git's.
    Gone,
}

type Changes = BTreeMap<PathBuf, Want>;

/// A path that was changed, and the staged file that took its place.
type Placed = (PathBuf, Option<Found>);

/// Something in the work tree that has to give way.
#[derive(Debug, Default)]
struct Survey {
    /// Files and links whose content is in no tree that stays reachable.
    unsaved: BTreeMap<PathBuf, Found>,
    /// Everything looked at, so that a change between look and act shows.
    seen: BTreeMap<PathBuf, Found>,
    /// Paths where what must stand there stands there already.
    in_place: BTreeSet<PathBuf>,
    /// Folders with something that no commit can hold: to be kept aside, not removed.
    special: BTreeSet<PathBuf>,
}

impl Repo {
    /// Makes the branch, the index and every tracked file equal to `target`.
    ///
    /// What would be lost goes into rescue references first: local commits that `target` does not contain, and file
    /// versions that no reachable tree holds.
    ///
    /// # Errors
    /// Where something can't be kept, read or written. Up to the intent nothing has happened; after it, the next pass
    /// goes on from where this one stopped.
    pub fn follow(&self, target: CommitId, why: &str, when: DateTime<Utc>) -> Result<Followed, Error> {
        let old = self.local_tip()?;
        let mut rescue_refs = Vec::new();
        let changes = self.differing(target)?;
        let in_order = self.is_on_branch_alone()?;
        if changes.is_empty() && old == Some(target) && in_order {
            return Ok(Followed::default());
        }
        self.check_branch_is_ours_alone()?;
        match old {
            Some(old) => rescue_refs.extend(self.rescue_commit_unless_in(old, target, when, why)?),
            None => self.check_branch_has_a_place()?,
        }
        let intent = Intent {
            branch: self.names.branch.clone(),
            old: old.map(|id| id.to_string()),
            target: target.to_string(),
            why: why.to_owned(),
        };
        let paths = self.carry_out(&intent, target, &changes, when, true, &mut rescue_refs)?;
        Ok(Followed { changed: true, paths, rescue_refs })
    }

    /// Writes an index made from scratch, as part of a follow of `target`, so that a kill in between is seen.
    pub(crate) fn follow_from_index(
        &self,
        target: CommitId,
        index: &mut git2::Index,
        when: DateTime<Utc>,
    ) -> Result<(), Error> {
        let old = self.local_tip()?.map(|id| id.to_string());
        let why = "bringing back the files of a checkout that never ended".to_owned();
        let intent = Intent { branch: self.names.branch.clone(), old, target: target.to_string(), why: why.clone() };
        let text = serde_json::to_vec(&intent).map_err(io::Error::other).doing("writing the intent")?;
        self.private.write_durably(INTENT, &text).doing("writing the intent")?;
        self.index_to_disk(index)?;
        self.finish_follow(when).map(drop)
    }

    /// What a follow of `target` would change, and which of that is committed nowhere. Nothing is written.
    ///
    /// # Errors
    /// Where the repository can't be read.
    pub fn would_follow(&self, target: CommitId) -> Result<WouldFollow, Error> {
        let doing = "looking for uncommitted files";
        let old = self.local_tip()?;
        let in_order = self.is_on_branch_alone()?;
        let paths: Vec<PathBuf> = self.differing(target)?.into_keys().collect();
        let top = TreeDir::open(&self.place.work_dir).doing("opening the work tree")?;
        let known = self.known_trees(target)?;
        let mut survey = Survey::default();
        for path in &paths {
            if top.find(path).doing(doing)?.is_some() {
                self.survey_one(&top, path, &known, &mut survey)?;
            }
        }
        let changed = !paths.is_empty() || old != Some(target) || !in_order;
        if changed {
            self.check_branch_is_ours_alone()?;
            old.map_or_else(|| self.check_branch_has_a_place(), |_| Ok(()))?;
        }
        Ok(WouldFollow { paths, uncommitted: survey.unsaved.into_keys().collect(), changed })
    }

    /// Whether HEAD is on the branch and nothing is left half done.
    fn is_on_branch_alone(&self) -> Result<bool, Error> {
        let on_branch = self.head_branch()?.as_deref() == Some(&self.branch_ref());
        Ok(on_branch && self.git.state() == git2::RepositoryState::Clean)
    }

    /// Keeps a commit that `target` does not contain.
    pub(crate) fn rescue_commit_unless_in(
        &self,
        commit: CommitId,
        target: CommitId,
        when: DateTime<Utc>,
        why: &str,
    ) -> Result<Option<String>, Error> {
        let contained = commit == target || self.descends(target, commit)?;
        if contained { Ok(None) } else { self.rescue(What::Local, commit, when, why).map(Some) }
    }

    /// Whether a follow was cut short. Until it is finished, the work tree may hold two versions: nothing may be committed.
    pub fn follow_is_unfinished(&self) -> bool {
        self.private.file(INTENT).symlink_metadata().is_ok()
    }

    /// Finishes a follow that an earlier pass was killed in.
    ///
    /// # Errors
    /// As [`Repo::follow`].
    pub fn finish_follow(&self, when: DateTime<Utc>) -> Result<Option<Followed>, Error> {
        let Some((intent, target, mine)) = self.intent()? else {
            // Cut short before it had an intent: nothing has happened yet, but for what was staged.
            self.clear_staging()?;
            return Ok(None);
        };
        if !mine {
            tracing::warn!(
                branch = %intent.branch, target = %intent.target,
                "a follow that an earlier pass was cut short in is taken back: its branch is another now, or was moved since"
            );
            self.take_back(&intent, target, when)?;
            return Ok(None);
        }
        tracing::info!(target = %intent.target, "finishing a follow that an earlier pass was cut short in");
        let mut rescue_refs = Vec::new();
        let changes = self.differing(target)?;
        let paths = self.carry_out(&intent, target, &changes, when, false, &mut rescue_refs)?;
        Ok(Some(Followed { changed: true, paths, rescue_refs }))
    }

    /// Where the branch is once [`Repo::finish_follow`] has finished a follow that was cut short. Nothing is written.
    ///
    /// # Errors
    /// As [`Repo::finish_follow`].
    pub fn unfinished_follow(&self) -> Result<Option<CommitId>, Error> {
        Ok(self.intent()?.filter(|(_, _, mine)| *mine).map(|(_, target, _)| target))
    }

    /// What an earlier pass meant to follow, and whether that still is to be done.
    fn intent(&self) -> Result<Option<(Intent, CommitId, bool)>, Error> {
        let Some(text) = self.private.read(INTENT).doing("reading the intent of an earlier pass")? else {
            return Ok(None);
        };
        let intent: Intent = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{} can't be read: {error}", self.private.file(INTENT).display());
            Error::new(Sort::NotReady, what, "run `gitsync init-sync`: it brings the work tree to the remote's state")
        })?;
        let target = CommitId::from_str(&intent.target).doing("reading the intent of an earlier pass")?;
        if !self.has_commit(target) {
            let what = format!("an earlier pass was following {target}, which is not here");
            let next = "run `gitsync init-sync`: it brings the work tree to the remote's state";
            return Err(Error::new(Sort::NotReady, what, next));
        }
        let tip = self.tip_of(&format!("refs/heads/{}", intent.branch))?;
        let expected = [intent.old.clone(), Some(intent.target.clone())];
        let mine = intent.branch == self.names.branch && expected.contains(&tip.map(|id| id.to_string()));
        Ok(Some((intent, target, mine)))
    }

    /// Drops what an earlier pass meant to do, because what follows makes it moot (init-sync).
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn drop_intent(&self) -> Result<(), Error> {
        self.private.remove_durably(INTENT).doing("dropping an intent").map(drop)
    }

    /// Takes back what a follow had placed before it was cut short, where it must not be finished: every path that it may have
    /// changed, and that still is as it left it, becomes HEAD's again. What a person has changed since stays.
    ///
    /// Without this the work tree would go on holding two versions, and the next tick would commit them.
    fn take_back(&self, intent: &Intent, target: CommitId, when: DateTime<Utc>) -> Result<(), Error> {
        let doing = "taking back what a follow had placed";
        let tree_of = |id: CommitId| self.tree_of(id);
        let old = intent.old.as_deref().map(CommitId::from_str).transpose().doing(doing)?.map(tree_of).transpose()?;
        let new = tree_of(target)?;
        let head = self.tip_of("HEAD")?;
        let head_tree = head.map(tree_of).transpose()?;
        let top = TreeDir::open(&self.place.work_dir).doing("opening the work tree")?;
        let diff = self.git.diff_tree_to_tree(old.as_ref(), Some(&new), None).doing(doing)?;
        let paths: BTreeSet<PathBuf> = diff
            .deltas()
            .flat_map(|delta| [delta.old_file().path_bytes().map(path_of), delta.new_file().path_bytes().map(path_of)])
            .flatten()
            .collect();
        let staging = self.stage(target, paths.iter(), STAGING)?;
        let mut changes = Changes::new();
        for path in paths {
            let placed = match want_at(&new, &path).doing(doing)? {
                Want::Blob(_) => self.is_staged_alike(&top, &staging, &path)?,
                Want::Gone => top.find(&path).doing(doing)?.is_none(),
                Want::Submodule => false,
            };
            if placed {
                let want = match &head_tree {
                    Some(tree) => want_at(tree, &path).doing(doing)?,
                    None => Want::Gone,
                };
                changes.insert(path, want);
            }
        }
        let mut index = self.index()?;
        if let Some(head) = head {
            let staging = self.stage(head, changes.keys(), STAGING)?;
            let survey = self.survey(&top, head, &changes, &staging)?;
            self.place_all(&top, &staging, &changes, &survey, when)?;
        } else {
            let staging = self.stage(target, std::iter::empty(), STAGING)?;
            let survey = self.survey(&top, target, &changes, &staging)?;
            self.place_all(&top, &staging, &changes, &survey, when)?;
        }
        for path in changes.keys() {
            match head_tree.as_ref().and_then(|tree| tree.get_path(path).ok()) {
                Some(kept) => {
                    let mode = u32::try_from(kept.filemode()).unwrap_or(0o100_644);
                    index.add(&entry(path, kept.id(), mode)).doing(doing)?;
                }
                None => match index.remove(path, 0) {
                    Err(error) if error.code() != git2::ErrorCode::NotFound => return Err(Error::git(doing, &error)),
                    _ => {}
                },
            }
        }
        self.index_to_disk(&mut index)?;
        self.clear_staging()?;
        self.drop_intent()
    }

    /// Refuses a branch that git has no place for, while nothing has happened yet: `a/b` where there is a branch `a`.
    fn check_branch_has_a_place(&self) -> Result<(), Error> {
        let doing = "looking at the branches";
        let branch = self.branch_ref();
        let mut in_the_way = self.git.references_glob(&format!("{branch}/*")).doing(doing)?;
        let below = in_the_way.names().next().and_then(Result::ok).map(str::to_owned);
        let above = Path::new(&branch).ancestors().skip(1).find_map(|outer| {
            let name = outer.to_str().filter(|name| name.starts_with("refs/heads/"))?;
            self.git.refname_to_id(name).ok().map(|_| name.to_owned())
        });
        match below.or(above) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                Sort::NotReady,
                format!("{branch} can't be made: there is {other}, and git allows only one of the two"),
                "rename or remove that branch, or name another with --branch",
            )),
        }
    }

    fn carry_out(
        &self,
        intent: &Intent,
        target: CommitId,
        changes: &Changes,
        when: DateTime<Utc>,
        fresh: bool,
        rescue_refs: &mut Vec<String>,
    ) -> Result<usize, Error> {
        let staging = self.stage(target, changes.keys(), STAGING)?;
        let top = TreeDir::open(&self.place.work_dir).doing("opening the work tree")?;
        let survey = self.survey(&top, target, changes, &staging)?;
        if !survey.unsaved.is_empty() || fresh {
            rescue_refs.extend(self.rescue_files(&top, target, &survey, when, &intent.why)?);
        }
        if fresh {
            let text = serde_json::to_vec(intent).map_err(io::Error::other).doing("writing the intent")?;
            self.private.write_durably(INTENT, &text).doing("writing the intent")?;
        }
        let placed = self.place_all(&top, &staging, changes, &survey, when)?;
        self.write_index(target, &top, &placed)?;
        // From what was judged, not from what is there now: a commit made meanwhile must not be stepped over.
        if self.tip_of(&self.branch_ref())? != Some(target) {
            let old = intent.old.as_deref().map(CommitId::from_str).transpose().doing("reading the intent")?;
            self.move_ref(&self.branch_ref(), old, target, &format!("gitsync: {}", intent.why))?;
        }
        if self.head_branch()?.as_deref() != Some(&self.branch_ref()) {
            self.git.set_head(&self.branch_ref()).doing("putting HEAD on the branch")?;
        }
        if self.git.state() != git2::RepositoryState::Clean {
            self.git.cleanup_state().doing("ending what was in progress")?;
        }
        self.clear_staging()?;
        self.private.remove_durably(INTENT).doing("ending the follow")?;
        Ok(placed.len())
    }

    fn clear_staging(&self) -> Result<(), Error> {
        for name in [STAGING, STAGING_OLD] {
            remove_folder(&self.private.file(name)).doing("removing the staging folder")?;
        }
        Ok(())
    }

    /// The paths at which index or work tree differ from the target, with what must stand there.
    ///
    /// Two cheap looks instead of one dear one: target against index needs no file, index against work tree only those
    /// whose numbers changed.
    fn differing(&self, target: CommitId) -> Result<Changes, Error> {
        let doing = "comparing the work tree with the commit to follow";
        step(doing);
        self.check_fit(target, self.local_tip()?)?;
        let tree = self.tree_of(target)?;
        let index = self.index()?;
        let mut changes = Changes::new();
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true);
        let to_index = self.git.diff_tree_to_index(Some(&tree), Some(&index), Some(&mut options)).doing(doing)?;
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).ignore_submodules(true).skip_binary_check(true);
        // What is untracked is not asked for, and may lie deeper than libgit2 walks.
        options.enable_fast_untracked_dirs(true);
        let blocked = self.blocked_among_tracked(&index);
        if !blocked.is_empty() {
            for it in &blocked {
                tracing::warn!(next = "take it away", "{} {}", shown(&it.file), it.why());
            }
            options.disable_pathspec_match(true);
            if !self.look_around(Path::new(""), &blocked, &index, &mut options) {
                self.check_tracked_rules()?;
            }
        }
        let to_files = self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).doing(doing)?;
        for delta in to_index.deltas().chain(to_files.deltas()) {
            if is_one_to_git(&delta, Some(&tree), &index) {
                continue;
            }
            for file in [delta.old_file(), delta.new_file()] {
                if let Some(bytes) = file.path_bytes() {
                    let path = path_of(bytes);
                    if let Entry::Vacant(place) = changes.entry(path) {
                        let want = want_at(&tree, place.key()).doing(doing)?;
                        place.insert(want);
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Checks paths of a commit out into a folder of the private folder, as git would into the work tree.
    ///
    /// libgit2 is given the staging folder as work tree and the commit as index, so that `.gitattributes` are the
    /// commit's own, not those of what is being replaced.
    fn stage<'a>(
        &self,
        commit: CommitId,
        paths: impl Iterator<Item = &'a PathBuf>,
        name: &str,
    ) -> Result<PathBuf, Error> {
        let doing = "checking files out into the staging folder";
        step(doing);
        let staging = self.private.file(name);
        remove_folder(&staging).doing("emptying the staging folder")?;
        std::fs::create_dir(&staging).doing("making the staging folder")?;
        let tree = self.tree_of(commit)?;
        let mut checkout = git2::build::CheckoutBuilder::new();
        checkout.force().recreate_missing(true).disable_pathspec_match(true).update_index(false).refresh(false);
        let mut any = false;
        for path in paths {
            self.check_linked_rules(&tree, path, &staging)?;
            // Asked for by exact path; one that the commit does not have is no error and gives no file.
            checkout.path(path);
            any = true;
        }
        if any {
            let beside = self.beside()?;
            beside.set_workdir(&staging, false).doing(doing)?;
            let mut index = git2::Index::new().doing(doing)?;
            beside.set_index(&mut index).doing(doing)?;
            index.read_tree(&tree).doing(doing)?;
            let tree = beside.find_tree(tree.id()).doing(doing)?;
            beside.checkout_tree(tree.as_object(), Some(&mut checkout)).doing(doing)?;
        }
        Ok(staging)
    }

    /// Looks at what stands where something must be put or removed.
    fn survey(&self, top: &TreeDir, target: CommitId, changes: &Changes, staging: &Path) -> Result<Survey, Error> {
        step("looking at the files to be replaced");
        let mut survey = Survey::default();
        let known = self.known_trees(target)?;
        for (path, want) in changes {
            let doing = || format!("looking at {}", shown(path));
            match top.parent_of(path).doing(doing())? {
                Parent::Missing => {}
                Parent::Obstacle(depth) => {
                    let obstacle: PathBuf = path.components().take(depth).collect();
                    if *want != Want::Gone && !survey.seen.contains_key(&obstacle) {
                        self.survey_one(top, &obstacle, &known, &mut survey)?;
                    }
                }
                Parent::There(parent) => match parent.look(last(path)).doing(doing())? {
                    None => {}
                    Some(found) if found.kind == Kind::Folder => {
                        if let Want::Blob(_) = want {
                            self.survey_folder(top, path, path, &known, &mut survey)?;
                        }
                    }
                    Some(found) if found.kind == Kind::Special && *want == Want::Gone => {}
                    Some(_) => self.survey_one(top, path, &known, &mut survey)?,
                },
            }
            if let Want::Blob(_) = want
                && self.is_staged_alike(top, staging, path)?
            {
                survey.unsaved.remove(path);
                survey.in_place.insert(path.clone());
            }
        }
        self.forgive_checked_out(top, target, &mut survey)?;
        Ok(survey)
    }

    fn survey_one(
        &self,
        top: &TreeDir,
        path: &Path,
        known: &[git2::Tree<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let doing = || format!("reading {}, which is about to be replaced", shown(path));
        let Parent::There(parent) = top.parent_of(path).doing(doing())? else { return Ok(()) };
        let Some(found) = parent.look(last(path)).doing(doing())? else { return Ok(()) };
        survey.seen.insert(path.to_owned(), found);
        match found.kind {
            Kind::Folder => {}
            Kind::Special => {
                survey.special.insert(path.to_owned());
            }
            Kind::File { .. } | Kind::Link => {
                let bytes = parent.read(last(path), found.kind).doing(doing())?;
                let id = git2::Oid::hash_object(git2::ObjectType::Blob, &bytes).doing(doing())?;
                let modes: &[u32] = match found.kind {
                    Kind::Link => &[0o120_000],
                    _ if !self.modes_count() => &[0o100_644, 0o100_755],
                    Kind::File { executable: true } => &[0o100_755],
                    _ => &[0o100_644],
                };
                let saved = known.iter().any(|tree| {
                    tree.get_path(path).is_ok_and(|entry| {
                        let mode = raw::canonical(entry.filemode_raw().unsigned_abs());
                        entry.id() == id && modes.contains(&mode)
                    })
                });
                if !saved {
                    survey.unsaved.insert(path.to_owned(), found);
                }
            }
        }
        Ok(())
    }

    /// Whether the executable bit is git's to know here.
    fn modes_count(&self) -> bool {
        self.git.config().and_then(|config| config.get_bool("core.filemode")).unwrap_or(true)
    }

    fn survey_folder(
        &self,
        top: &TreeDir,
        outer: &Path,
        path: &Path,
        known: &[git2::Tree<'_>],
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let doing = || format!("reading {}, which is about to be replaced", shown(path));
        let Parent::There(parent) = top.parent_of(path).doing(doing())? else { return Ok(()) };
        let folder = parent.folder(last(path)).doing(doing())?;
        for (name, kind) in folder.list().doing(doing())? {
            let inner = path.join(&name);
            match kind {
                // A repository of its own, or a name that git allows in no tree.
                _ if !git_allows(&inner) => {
                    survey.special.insert(outer.to_owned());
                }
                FileType::Directory => self.survey_folder(top, outer, &inner, known, survey)?,
                FileType::RegularFile | FileType::Symlink => self.survey_one(top, &inner, known, survey)?,
                _ => {
                    survey.special.insert(outer.to_owned());
                }
            }
        }
        Ok(())
    }

    /// The trees that stay reachable whatever happens: the target's, HEAD's and the branch's.
    fn known_trees(&self, target: CommitId) -> Result<Vec<git2::Tree<'_>>, Error> {
        let head = self.tip_of("HEAD")?;
        let mut known = Vec::new();
        for commit in [Some(target), head, self.local_tip()?].into_iter().flatten() {
            known.push(self.tree_of(commit)?);
        }
        Ok(known)
    }

    /// Whether the staged file and the one in the work tree are the same, byte for byte and in mode.
    fn is_staged_alike(&self, top: &TreeDir, staging: &Path, path: &Path) -> Result<bool, Error> {
        let doing = || format!("comparing {}", shown(path));
        let staged = TreeDir::open(staging).doing("opening the staging folder")?;
        let (Parent::There(here), Parent::There(there)) =
            (top.parent_of(path).doing(doing())?, staged.parent_of(path).doing(doing())?)
        else {
            return Ok(false);
        };
        let (Some(ours), Some(theirs)) =
            (here.look(last(path)).doing(doing())?, there.look(last(path)).doing(doing())?)
        else {
            return Ok(false);
        };
        let comparable = matches!(ours.kind, Kind::File { .. } | Kind::Link);
        if !comparable || ours.kind != theirs.kind || ours.stat.st_size != theirs.stat.st_size {
            return Ok(false);
        }
        let ours = here.read(last(path), ours.kind).doing(doing())?;
        Ok(ours == there.read(last(path), theirs.kind).doing(doing())?)
    }

    /// A file that is just what git checks out of HEAD (line endings converted, say) is saved by HEAD, though its bytes are
    /// not those of the blob.
    fn forgive_checked_out(&self, top: &TreeDir, target: CommitId, survey: &mut Survey) -> Result<(), Error> {
        if survey.unsaved.is_empty() {
            return Ok(());
        }
        for commit in [self.tip_of("HEAD")?, Some(target)].into_iter().flatten() {
            let staging = self.stage(commit, survey.unsaved.keys(), STAGING_OLD)?;
            let mut saved = Vec::new();
            for path in survey.unsaved.keys() {
                if self.is_staged_alike(top, &staging, path)? {
                    saved.push(path.clone());
                }
            }
            for path in saved {
                survey.unsaved.remove(&path);
            }
        }
        Ok(())
    }

    /// Commits file versions that no reachable tree holds, byte for byte, and keeps the commit.
    ///
    /// What is staged in the index and differs from both sides becomes the commit's second parent, as `git stash` does it.
    fn rescue_files(
        &self,
        top: &TreeDir,
        target: CommitId,
        survey: &Survey,
        when: DateTime<Utc>,
        why: &str,
    ) -> Result<Option<String>, Error> {
        let head = self.tip_of("HEAD")?;
        let head_tree = head.map(|head| self.tree_of(head)).transpose()?;
        let staged = self.staged_only(head_tree.as_ref(), target)?;
        if survey.unsaved.is_empty() && staged.is_none() {
            return Ok(None);
        }
        let mut kept: Vec<(PathBuf, git2::Oid, u32)> = Vec::new();
        for (path, found) in &survey.unsaved {
            let doing = || format!("keeping {}, which is about to be replaced", shown(path));
            let Parent::There(parent) = top.parent_of(path).doing(doing())? else { continue };
            let (id, mode) = match found.kind {
                Kind::Link => {
                    let bytes = parent.read(last(path), found.kind).doing(doing())?;
                    (self.git.blob(&bytes).doing(doing())?, 0o120_000)
                }
                Kind::File { executable } => {
                    // Without a path to go by the writer applies no filters: the bytes are kept as they are.
                    let mut blob = self.git.blob_writer(None).doing(doing())?;
                    let mut file = parent.open_file(last(path)).doing(doing())?;
                    io::copy(&mut file, &mut blob).doing(doing())?;
                    (blob.commit().doing(doing())?, if executable { 0o100_755 } else { 0o100_644 })
                }
                Kind::Folder | Kind::Special => continue,
            };
            kept.push((path.clone(), id, mode));
        }
        if staged.is_none()
            && let Some(name) = self.rescued_before(&kept)?
        {
            return Ok(Some(name));
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
        self.rescue(What::Worktree, id, when, why).map(Some)
    }

    /// The index as a tree, if something is staged that is neither in HEAD, nor in the target, nor in the file itself.
    fn staged_only(&self, head: Option<&git2::Tree<'_>>, target: CommitId) -> Result<Option<git2::Oid>, Error> {
        let doing = "looking at what is staged";
        let mut index = self.index()?;
        if index.has_conflicts() || self.follow_is_unfinished() {
            // A half merge can't be written as a tree. Its sides are commits, and its files are rescued as files.
            return Ok(None);
        }
        let target = self.tree_of(target)?;
        let diff = self.git.diff_tree_to_index(head, Some(&index), None).doing(doing)?;
        for delta in diff.deltas() {
            let file = delta.new_file();
            let Some(bytes) = file.path_bytes() else { continue };
            let path = path_of(bytes);
            if file.id().is_zero() || is_submodule_in(&index, &path) || is_one_to_git(&delta, head, &index) {
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
                return match index.write_tree_to(&self.git) {
                    // An index taken over from a repository that was put aside names objects that stayed there.
                    Err(_) if head.is_none() => Ok(None),
                    written => written.map(Some).doing(doing),
                };
            }
        }
        Ok(None)
    }

    /// A rescue that holds all these versions already: a pass that was killed after it made one need not make another.
    fn rescued_before(&self, kept: &[(PathBuf, git2::Oid, u32)]) -> Result<Option<String>, Error> {
        for (name, commit) in self.rescues()? {
            if !name.contains("-worktree-") {
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

    /// Puts every path in place. Gives those that were changed.
    fn place_all(
        &self,
        top: &TreeDir,
        staging: &Path,
        changes: &Changes,
        survey: &Survey,
        when: DateTime<Utc>,
    ) -> Result<Vec<Placed>, Error> {
        step("putting files in place");
        let staged = TreeDir::open(staging).doing("opening the staging folder")?;
        let wanted: Vec<&PathBuf> = changes
            .iter()
            .filter(|(path, want)| **want != Want::Gone && !survey.in_place.contains(*path))
            .map(|(path, _)| path)
            .collect();
        let singly = wanted.len() <= SYNC_SINGLY;
        if !singly {
            staged.sync_all().doing("waiting for the disk")?;
        }
        let mut placed = Vec::new();
        // What needs a folder out of its way waits until the folder's own tracked files are gone.
        let mut later = Vec::new();
        for path in wanted {
            if top.find(path).doing(format!("looking at {}", shown(path)))?.is_some_and(|f| f.kind == Kind::Folder) {
                later.push(path);
            } else {
                placed.push((path.clone(), self.place(top, &staged, path, changes, survey, singly, when)?));
            }
        }
        for (path, _) in changes.iter().rev().filter(|(_, want)| **want == Want::Gone) {
            if self.remove(top, path, survey, singly)? {
                placed.push((path.clone(), None));
            }
        }
        for path in later {
            placed.push((path.clone(), self.place(top, &staged, path, changes, survey, singly, when)?));
        }
        if !singly {
            top.sync_all().doing("waiting for the disk")?;
        }
        Ok(placed)
    }

    #[allow(clippy::too_many_arguments)]
    fn place(
        &self,
        top: &TreeDir,
        staged: &TreeDir,
        path: &Path,
        changes: &Changes,
        survey: &Survey,
        sync: bool,
        when: DateTime<Utc>,
    ) -> Result<Option<Found>, Error> {
        let doing = || format!("putting {} in place", shown(path));
        if let Parent::Obstacle(depth) = top.parent_of(path).doing(doing())? {
            let obstacle: PathBuf = path.components().take(depth).collect();
            if let Parent::There(parent) = top.parent_of(&obstacle).doing(doing())? {
                self.give_way(&parent, &obstacle, survey, when)?;
            }
        }
        let parent = top.make_parent_of(path, sync).doing(doing())?;
        let name = last(path);
        let there = parent.look(name).doing(doing())?;
        if changes.get(path) == Some(&Want::Submodule) {
            if there.is_some_and(|found| found.kind != Kind::Folder) {
                self.give_way(&parent, path, survey, when)?;
            }
            return parent.make_folder(name).map(|()| None).doing(doing());
        }
        let Parent::There(from) = staged.parent_of(path).doing(doing())? else {
            return Err(missing_in_staging(path));
        };
        let Some(new) = from.look(name).doing(doing())? else { return Err(missing_in_staging(path)) };
        if sync && matches!(new.kind, Kind::File { .. }) {
            from.open_file(name).and_then(|file| file.sync_all()).doing(doing())?;
        }
        match there {
            None => {}
            Some(found) if found.kind == Kind::Folder => self.give_way(&parent, path, survey, when)?,
            // A rename takes the place of a file in one step; what is no file has to go first.
            Some(found) if found.kind == Kind::Special => self.give_way(&parent, path, survey, when)?,
            Some(found) => check_unchanged(path, &found, survey)?,
        }
        match from.rename(name, &parent, name) {
            Ok(()) => {}
            Err(Errno::XDEV) => copy_over(&from, &parent, name, new).doing(doing())?,
            Err(error) => return Err(Error::io(doing(), &error.into())),
        }
        if sync {
            parent.sync().doing(doing())?;
        }
        Ok(Some(new))
    }

    /// Takes out of the way what was looked at, and kept where it had to be.
    fn give_way(&self, parent: &TreeDir, path: &Path, survey: &Survey, when: DateTime<Utc>) -> Result<(), Error> {
        let doing = || format!("taking {} out of the way", shown(path));
        let name = last(path);
        let Some(found) = parent.look(name).doing(doing())? else { return Ok(()) };
        let special = survey.special.contains(path);
        if found.kind != Kind::Folder && !special {
            check_unchanged(path, &found, survey)?;
            return parent.unlink(name).doing(doing());
        }
        if found.kind == Kind::Folder && parent.remove_empty(name).doing(doing())? {
            return Ok(());
        }
        let aside = self.private.file(ASIDE);
        self.private.folder(ASIDE).doing(doing())?;
        let aside_dir = TreeDir::open(&aside).doing(doing())?;
        let mut kept_as = PathBuf::new();
        for number in 0..1000 {
            kept_as = PathBuf::from(format!("{}-{number}", when.format("%Y%m%dT%H%M%SZ")));
            if aside_dir.look(&kept_as).doing(doing())?.is_none() {
                break;
            }
        }
        parent.rename(name, &aside_dir, &kept_as).doing(doing())?;
        let kept = aside.join(&kept_as);
        let changed = || -> io::Result<bool> { holds_more(&aside_dir, &kept_as, path, survey) };
        if special {
            tracing::warn!(path = %shown(path), kept = %kept.display(),
                "moved aside: the remote has a file here, and no commit can hold what was in its place");
        } else if changed().doing(doing())? {
            tracing::warn!(path = %shown(path), kept = %kept.display(),
                "moved aside: it was changed in the middle of the pass");
        } else {
            remove_folder(&kept).doing(doing())?;
        }
        Ok(())
    }

    /// Removes a tracked path that the target does not have. Whether it was there.
    fn remove(&self, top: &TreeDir, path: &Path, survey: &Survey, sync: bool) -> Result<bool, Error> {
        let doing = || format!("removing {}", shown(path));
        let Parent::There(parent) = top.parent_of(path).doing(doing())? else { return Ok(false) };
        let removed = match parent.look(last(path)).doing(doing())? {
            None => false,
            // A submodule's folder goes if nothing is in it; anything else in git's place is not git's.
            Some(found) if found.kind == Kind::Folder => parent.remove_empty(last(path)).doing(doing())?,
            Some(found) if found.kind == Kind::Special => false,
            Some(found) => {
                check_unchanged(path, &found, survey)?;
                parent.unlink(last(path)).doing(doing())?;
                if sync {
                    parent.sync().doing(doing())?;
                }
                true
            }
        };
        // Folders that held nothing else go with it, as git has it.
        let mut folder = path.parent();
        while let Some(at) = folder.filter(|at| !at.as_os_str().is_empty()) {
            match top.parent_of(at).doing(doing())? {
                Parent::There(outer) if outer.remove_empty(last(at)).doing(doing())? => {
                    if sync {
                        outer.sync().doing(doing())?;
                    }
                    folder = at.parent();
                }
                _ => break,
            }
        }
        Ok(removed)
    }

    /// Makes the index the target's, with the numbers of the files just placed, so that the next look need not read them.
    fn write_index(&self, target: CommitId, top: &TreeDir, placed: &[Placed]) -> Result<(), Error> {
        let doing = "writing the index";
        step(doing);
        let tree = self.tree_of(target)?;
        let mut index = self.index()?;
        index.read_tree(&tree).doing(doing)?;
        write_modes_as_git(&mut index).doing(doing)?;
        for (path, new) in placed {
            let (Some(mut entry), Some(new)) = (index.get_path(path, 0), new) else { continue };
            let Some(found) = top.find(path).doing(doing)? else { continue };
            // A file that was edited since it was placed keeps numbers that match nothing, so that the edit is seen.
            if found.is_placed_from(new) {
                set_numbers(&mut entry, &found);
                index.add(&entry).doing(doing)?;
            }
        }
        self.index_to_disk(&mut index)
    }

    /// Writes an index, and waits until it is on disk.
    ///
    /// libgit2 replaces it by a rename before its bytes are on disk. Until they are, the one before is kept beside.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn index_to_disk(&self, index: &mut git2::Index) -> Result<(), Error> {
        let doing = "writing the index";
        let Some(path) = index.path().map(Path::to_owned) else { return Ok(()) };
        let before = self.private.file(INDEX_BEFORE);
        remove_if_there(&before).doing(doing)?;
        match std::fs::hard_link(&path, &before) {
            Ok(()) => sync_dir(self.private.path()).doing(doing)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Not every file system has links.
            Err(_) => {
                files::read(&path).and_then(|bytes| self.private.write_durably(INDEX_BEFORE, &bytes)).doing(doing)?
            }
        }
        index.write().doing(doing)?;
        std::fs::File::open(&path).and_then(|file| file.sync_all()).doing(doing)?;
        path.parent().map_or(Ok(()), sync_dir).doing(doing)?;
        remove_if_there(&before).map(drop).doing(doing)
    }
}

/// Gives the entries that a tree has under a mode of another time the one that git has in its index. libgit2 took their numbers
/// for another file's, so they are taken from the index that is on disk.
fn write_modes_as_git(index: &mut git2::Index) -> Result<(), git2::Error> {
    let odd: Vec<git2::IndexEntry> = index.iter().filter(|entry| raw::canonical(entry.mode) != entry.mode).collect();
    if odd.is_empty() {
        return Ok(());
    }
    let before = index.path().and_then(|path| git2::Index::open(path).ok());
    for mut entry in odd {
        entry.mode = raw::canonical(entry.mode);
        let known = before.as_ref().and_then(|before| before.get_path(&path_of(&entry.path), 0));
        let same = known.filter(|known| known.id == entry.id && known.mode == entry.mode);
        index.add(&same.unwrap_or(entry))?;
    }
    Ok(())
}

fn want_at(tree: &git2::Tree<'_>, path: &Path) -> Result<Want, git2::Error> {
    match tree.get_path(path) {
        Ok(entry) => Ok(match entry.kind() {
            Some(git2::ObjectType::Commit) => Want::Submodule,
            Some(git2::ObjectType::Tree) => Want::Gone,
            _ => Want::Blob(entry.id()),
        }),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(Want::Gone),
        Err(error) => Err(error),
    }
}

/// Whether git allows the path in a tree: no component is `.git` or what some file system would take for it.
pub(crate) fn git_allows(path: &Path) -> bool {
    let blob = git2::Oid::hash_object(git2::ObjectType::Blob, b"").ok();
    blob.zip(git2::Index::new().ok()).is_some_and(|(id, mut index)| index.add(&entry(path, id, 0o100_644)).is_ok())
}

/// Whether a folder that was moved aside holds anything that was not looked at as it now is.
fn holds_more(outer: &TreeDir, name: &Path, was: &Path, survey: &Survey) -> io::Result<bool> {
    let folder = outer.folder(name)?;
    for (name, kind) in folder.list()? {
        let (name, was) = (PathBuf::from(&name), was.join(&name));
        if kind == FileType::Directory {
            if holds_more(&folder, &name, &was, survey)? {
                return Ok(true);
            }
            continue;
        }
        let now = folder.look(&name)?;
        if !now.zip(survey.seen.get(&was)).is_some_and(|(now, seen)| seen.is_same(&now)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was looked at must be what is replaced: an edit in between is not ours to drop.
fn check_unchanged(path: &Path, now: &Found, survey: &Survey) -> Result<(), Error> {
    if survey.seen.get(path).is_some_and(|seen| seen.is_same(now)) {
        return Ok(());
    }
    let what = format!("{} was changed in the middle of the pass", shown(path));
    Err(Error::new(Sort::Busy, what, "the next pass keeps the new version and goes on"))
}

fn missing_in_staging(path: &Path) -> Error {
    let what = format!("{} was not checked out into the staging folder", shown(path));
    Error::new(Sort::Corrupt, what, "run `gitsync init-sync`: it fetches anew what is damaged")
}

/// Puts a file in place across file systems (a volume mounted inside the work tree): a copy beside it, then one rename.
fn copy_over(from: &TreeDir, to: &TreeDir, name: &Path, new: Found) -> io::Result<()> {
    let beside = PathBuf::from(format!(".gitsync-{:x}", crc(name.as_os_str().as_bytes())));
    to.unlink(&beside)?;
    match new.kind {
        Kind::Link => to.create_link(&beside, &from.read(name, new.kind)?)?,
        _ => {
            let mut file = to.create_file(&beside, 0o600)?;
            io::copy(&mut from.open_file(name)?, &mut file)?;
            file.flush()?;
            file.set_permissions(std::fs::Permissions::from_mode(new.stat.st_mode & 0o777))?;
            file.sync_all()?;
        }
    }
    to.rename(&beside, to, name)?;
    Ok(())
}

/// A short name from a long one; FNV-1a.
fn crc(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Takes out of an index what a file at this path can't stand beside: what is below it, and what is a file above it.
///
/// libgit2 means to do that as it adds, and misses it depending on what else is in the index: the file is then not in the
/// tree that is written.
pub(crate) fn make_way(index: &mut git2::Index, path: &Path) -> Result<(), git2::Error> {
    let gone = |removed: Result<(), git2::Error>| match removed {
        Err(error) if error.code() != git2::ErrorCode::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(index.remove_dir(path, 0))?;
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        gone(index.remove(above, 0))?;
    }
    Ok(())
}

/// An index entry that says content and mode and nothing of a file's numbers.
pub(crate) fn entry(path: &Path, id: git2::Oid, mode: u32) -> git2::IndexEntry {
    git2::IndexEntry {
        ctime: git2::IndexTime::new(0, 0),
        mtime: git2::IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

// The index has 32 bits for each of these, and git cuts them the same way.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
fn set_numbers(entry: &mut git2::IndexEntry, found: &Found) {
    let stat = &found.stat;
    entry.ctime = git2::IndexTime::new(stat.st_ctime as i32, stat.st_ctime_nsec as u32);
    entry.mtime = git2::IndexTime::new(stat.st_mtime as i32, stat.st_mtime_nsec as u32);
    entry.dev = stat.st_dev as u32;
    entry.ino = stat.st_ino as u32;
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.file_size = stat.st_size as u32;
}

/// Removes a folder of the private folder, links in it not followed.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    files::remove_folder(path)
}
