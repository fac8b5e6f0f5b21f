//! Healing: what an earlier crash, a power loss or a person left behind.
//!
//! Two degrees. [`clear_leftovers`] and [`Repo::heal_index`] are safe in every pass. The rest is for `init-sync`, which may
//! bring a repository back that no pass could work in: [`make_or_mend`] and [`Repo::mend_state`]. Nothing is deleted that could hold somebody's
//! work: a damaged repository is put aside inside the private folder, and commits in it that can still be read are carried
//! over as rescue references.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use super::error::Doing;
use super::rescue::What;
use super::{CommitId, Error, Place, Repo, Sort};
use crate::lock::Held;
use crate::private::{PrivateDir, remove_if_there, sync_dir};

const DAMAGED_REFS: &str = "damaged-refs";
const BROKEN: &str = "broken";
const CARRIED: &str = "gitsync-carried";

/// A git lock file this old with no live owner is stale, even where no pass of ours is known to have died.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Clears what a killed pass, or a killed git, left in the way: lock files without an owner, leftovers of fetches.
///
/// A stale `index.lock` makes libgit2 rewrite every file and then fail, a stale lock of a reference makes a fetch fail with
/// a generic error; so the files are looked for, not the errors. `start_up`: whether this is `init-sync`, before anything
/// else runs.
///
/// # Errors
/// [`Sort::Busy`] where a live git process holds a lock, and those of the file system.
pub fn clear_leftovers(place: &Place, held: &Held, branch: &str, remote: &str, start_up: bool) -> Result<(), Error> {
    let git_dir = &place.git_dir;
    let ours_died = held.one_died_before_us();
    let mut locks: Vec<PathBuf> = ["index", "HEAD", "config", "packed-refs", "shallow"]
        .iter()
        .map(|name| git_dir.join(format!("{name}.lock")))
        .collect();
    locks.push(git_dir.join(format!("refs/heads/{branch}.lock")));
    locks.push(git_dir.join(format!("refs/remotes/{remote}/{branch}.lock")));
    // A rescue is made once and its lock is in nobody's way, until the rescue has been kept long enough and is to go.
    let refs = if start_up || ours_died { "refs" } else { "refs/gitsync" };
    collect_locks(&git_dir.join(refs), &mut locks);
    for lock in locks {
        let Ok(meta) = lock.symlink_metadata() else { continue };
        let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default();
        if let Some(pid) = live_git(place, &lock) {
            let what = format!("{} is held by a git process (pid {pid})", lock.display());
            return Err(Error::new(Sort::Busy, what, "the next pass tries again"));
        }
        if start_up || ours_died || age >= STALE_AFTER {
            remove_if_there(&lock).doing(format!("removing the stale lock {}", lock.display()))?;
            tracing::warn!(lock = %lock.display(), age_s = age.as_secs(), "removed a stale lock file");
        } else {
            let what = format!("{} is there: another git process may be at work", lock.display());
            return Err(Error::new(Sort::Busy, what, "the next pass tries again, and clears it once it is old"));
        }
    }
    if start_up || ours_died {
        clear_half_written(&git_dir.join("objects"))?;
        clear_half_written(&git_dir.join("objects/pack"))?;
        PrivateDir::of(git_dir).clear_unfinished().doing("clearing what a killed pass was writing")?;
    }
    bring_back_index(place)
}

/// The index that was there before the last one was written, where a power loss took the bytes of that one. Made again from
/// HEAD it would take what a job has just written for an edit that gives way.
fn bring_back_index(place: &Place) -> Result<(), Error> {
    let doing = "bringing back the index";
    let before = PrivateDir::of(&place.git_dir).file(super::worktree::INDEX_BEFORE);
    let Ok(meta) = before.symlink_metadata() else { return Ok(()) };
    if meta.is_dir() {
        // None of ours; a file could not take its place.
        return super::worktree::remove_folder(&before).doing(doing);
    }
    let index = place.git_dir.join("index");
    let is_whole = |path: &Path| begins_as_index(path) && git2::Index::open(path).is_ok();
    if !meta.is_file() || is_whole(&index) || !is_whole(&before) {
        return remove_if_there(&before).map(drop).doing(doing);
    }
    tracing::warn!("the index was damaged as it was written; the one before is brought back");
    fs::rename(&before, &index).doing(doing)?;
    sync_dir(&place.git_dir).doing(doing)
}

fn collect_locks(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_locks(&path, into),
            Ok(_) if path.extension() == Some(OsStr::new("lock")) && !into.contains(&path) => into.push(path),
            _ => {}
        }
    }
}

/// Packs and objects that libgit2 was writing when it was killed; no gc removes these.
fn clear_half_written(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_half_written(&entry.file_name()) {
            remove_if_there(&entry.path()).doing(format!("removing {}", entry.path().display()))?;
            tracing::info!(file = %entry.path().display(), "removed what an interrupted fetch left");
        }
    }
    Ok(())
}

/// libgit2's own temporary names: `pack_git2_…`, `tmp_object_git2_…`.
fn is_half_written(name: &OsStr) -> bool {
    name.to_string_lossy().contains("_git2_")
}

/// A git process that works in this repository, or any that has the lock file open.
///
/// Seen through /proc; where that is missing, or the process is in another container, nobody is seen and age decides.
pub(super) fn live_git(place: &Place, lock: &Path) -> Option<u32> {
    let us = std::process::id();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == us {
            continue;
        }
        let process = entry.path();
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let is_git = comm.trim() == "git" || comm.starts_with("git-");
        if is_git && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&place.work_dir)) {
            return Some(pid);
        }
        for fd in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            if fs::read_link(fd.path()).is_ok_and(|open| open == lock) {
                return Some(pid);
            }
        }
    }
    None
}

/// Makes the repository exist and open: a new one where there is none, and where there is a broken one a new one in its
/// place, the broken one put aside. Whether it is new.
///
/// # Errors
/// Those of the file system.
pub fn make_or_mend(place: &Place, held: &Held, branch: &str, when: DateTime<Utc>) -> Result<bool, Error> {
    let private = PrivateDir::of(&place.git_dir);
    let git_dir = &place.git_dir;
    super::check_format(git_dir)?;
    let only_ours = fs::read_dir(git_dir)
        .doing(format!("reading {}", git_dir.display()))?
        .flatten()
        .all(|entry| entry.file_name() == "gitsync");
    if only_ours {
        init(place, branch)?;
        return Ok(true);
    }
    if !git_dir.join("objects").is_dir() || !git_dir.join("HEAD").exists() {
        put_aside(place, &private, held, when, "it has no HEAD or no objects")?;
        init(place, branch)?;
        return Ok(true);
    }
    // A power loss leaves files of no length. Each of these can be made again from what is around it.
    fs::create_dir_all(git_dir.join("refs")).doing("making refs")?;
    let head = fs::read(git_dir.join("HEAD")).doing("reading HEAD")?;
    let head_ok = head.starts_with(b"ref: refs/")
        || CommitId::from_str(&String::from_utf8_lossy(&head)).is_ok()
        || String::from_utf8_lossy(&head).trim().len() == 40;
    if !head_ok {
        tracing::warn!("HEAD was damaged and is put on '{branch}'");
        fs::write(git_dir.join("HEAD"), format!("ref: refs/heads/{branch}\n")).doing("mending HEAD")?;
    }
    let config = git_dir.join("config");
    if is_damaged_config(&config) {
        tracing::warn!("the repository's configuration was empty or damaged and is made anew");
        if config.exists() {
            fs::rename(&config, private.file("damaged-config")).doing("setting the damaged configuration aside")?;
        }
        init(place, branch)?;
    }
    mend_refs(git_dir, &private, &git_dir.join("refs"))?;
    bring_back_branch(git_dir, branch)?;
    set_aside_empty_objects(git_dir, &private, when)?;
    Ok(false)
}

/// Puts a damaged repository aside whole, and begins a new one with its configuration.
///
/// # Errors
/// Those of the file system.
pub fn begin_anew(place: &Place, held: &Held, branch: &str, when: DateTime<Utc>, why: &str) -> Result<(), Error> {
    let private = PrivateDir::of(&place.git_dir);
    put_aside(place, &private, held, when, why)?;
    init(place, branch)
}

#[allow(clippy::disallowed_methods)]
fn init(place: &Place, branch: &str) -> Result<(), Error> {
    // Before there is a HEAD: killed in between, this is put aside in its turn and taken over from there.
    take_over(place)?;
    let mut options = git2::RepositoryInitOptions::new();
    options.initial_head(branch).external_template(false).mkdir(false);
    git2::Repository::init_opts(&place.work_dir, &options)
        .doing(format!("making a repository in {}", place.work_dir.display()))?;
    sync_dir(&place.git_dir).doing("waiting for the disk")
}

/// Takes over from a repository that was put aside what a person configured, and its index.
///
/// Which files were git's is known by the old index alone. Without it, what the remote has removed since would stay in the
/// work tree as if somebody had just made it, and the next tick would commit it.
fn take_over(place: &Place) -> Result<(), Error> {
    let doing = "keeping the repository's configuration";
    let private = PrivateDir::of(&place.git_dir);
    for name in ["config", "info/exclude", "info/attributes", "index"] {
        let to = place.git_dir.join(name);
        let sound = |old: &PathBuf| match name {
            "config" => !is_damaged_config(&old.join(name)),
            "index" => {
                !old.join(CARRIED).exists()
                    && fs::metadata(old.join(name)).is_ok_and(|meta| meta.len() > 0)
                    && git2::Index::open(&old.join(name)).is_ok()
            }
            _ => fs::metadata(old.join(name)).is_ok_and(|meta| meta.len() > 0),
        };
        if !to.exists()
            && let Some(old) = broken(&private).into_iter().rev().find(sound)
        {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).doing(doing)?;
            }
            if name == "index" {
                take_over_index(&old.join(name), &to).doing("taking over the index")?;
            } else {
                fs::copy(old.join(name), &to).doing(doing)?;
            }
        }
    }
    Ok(())
}

/// Entry by entry, since the whole file also names trees, which stayed with the damaged repository.
fn take_over_index(from: &Path, to: &Path) -> Result<(), git2::Error> {
    const STAGE: u16 = 0x3000;
    let (old, mut new) = (git2::Index::open(from)?, git2::Index::open(to)?);
    for mut entry in old.iter() {
        // Of a conflict, one side: that the path is git's is all that matters here.
        entry.flags &= !STAGE;
        new.add(&entry)?;
    }
    new.write()
}

/// A power loss leaves files of no length, or full of zeros; libgit2 reads the latter as empty and then can't write it.
fn is_damaged_config(path: &Path) -> bool {
    let content = fs::read(path).unwrap_or_default();
    content.is_empty()
        || content.contains(&0)
        || git2::Config::open(path).and_then(|mut config| config.snapshot()).is_err()
}

fn put_aside(place: &Place, private: &PrivateDir, _held: &Held, when: DateTime<Utc>, why: &str) -> Result<(), Error> {
    let doing = "putting the damaged repository aside";
    let all = private.folder(BROKEN).doing(doing)?;
    let mut aside = all.join(when.format("%Y%m%dT%H%M%SZ").to_string());
    while aside.exists() {
        aside.as_mut_os_string().push("+");
    }
    fs::create_dir(&aside).doing(doing)?;
    tracing::warn!(kept = %aside.display(), "the repository is damaged ({why}): put aside, to be fetched anew");
    // HEAD first: without it what remains is plainly no repository, should we be killed in between.
    let mut names = vec![PathBuf::from("HEAD")];
    for entry in fs::read_dir(&place.git_dir).doing(doing)?.flatten() {
        names.push(entry.file_name().into());
    }
    for name in names.iter().filter(|name| name.as_os_str() != "gitsync") {
        match fs::rename(place.git_dir.join(name), aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing, &error)),
            _ => {}
        }
    }
    sync_dir(&aside).doing(doing)?;
    sync_dir(&place.git_dir).doing(doing)?;
    // What an earlier pass meant to follow went with the repository that had it.
    private.remove_durably(super::worktree::INTENT).doing(doing).map(drop)
}

/// The repositories put aside, oldest first.
fn broken(private: &PrivateDir) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(private.file(BROKEN)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// A reference's file, replaced whole.
fn replace_ref(path: &Path, id: &str) -> io::Result<()> {
    let fresh = path.with_extension("gitsync.lock");
    remove_if_there(&fresh)?;
    fs::write(&fresh, format!("{id}\n"))?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)
}

/// A reference whose file is damaged gets the last value that its reflog knows; without one the file is set aside, since one
/// that names no commit keeps none reachable.
fn mend_refs(git_dir: &Path, private: &PrivateDir, folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            mend_refs(git_dir, private, &path)?;
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            // A reference as links were used for it long ago; where it leads is not ours to write.
            continue;
        }
        // One that can't be read is not known to be damaged.
        let content = fs::read(&path).doing(format!("reading the reference {}", path.display()))?;
        let content = String::from_utf8_lossy(&content);
        let text = content.trim();
        let good = text.starts_with("ref: ") || is_commit_id(text);
        if good || path.extension() == Some(OsStr::new("lock")) {
            continue;
        }
        let name = path.strip_prefix(git_dir).unwrap_or(&path);
        let last = last_in_log(git_dir, name);
        match last {
            Some(id) => {
                tracing::warn!(reference = %name.display(), commit = %id, "a damaged reference is mended from its log");
                replace_ref(&path, &id).doing(format!("mending {}", name.display()))?;
            }
            None => {
                let aside = private.folder(DAMAGED_REFS).doing("setting a damaged reference aside")?;
                let flat = name.to_string_lossy().replace('/', "+");
                fs::rename(&path, aside.join(&flat)).doing(format!("setting {} aside", name.display()))?;
                tracing::warn!(
                    reference = %name.display(), kept = %aside.join(&flat).display(),
                    "a damaged reference without a log is set aside"
                );
            }
        }
    }
    Ok(())
}

/// The branch's reference is gone and its log is not: git would have removed both, so a crash took it.
fn bring_back_branch(git_dir: &Path, branch: &str) -> Result<(), Error> {
    let name = format!("refs/heads/{branch}");
    let packed = fs::read_to_string(git_dir.join("packed-refs")).unwrap_or_default();
    if git_dir.join(&name).exists() || packed.lines().any(|line| line.ends_with(&format!(" {name}"))) {
        return Ok(());
    }
    let Some(id) = last_in_log(git_dir, Path::new(&name)) else { return Ok(()) };
    tracing::warn!(reference = %name, commit = %id, "the branch was gone and is brought back from its log");
    let path = git_dir.join(&name);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| replace_ref(&path, &id));
    made.doing(format!("bringing back {name}"))
}

/// The last commit that a reference's log knows.
fn last_in_log(git_dir: &Path, name: &Path) -> Option<String> {
    let log = fs::read_to_string(git_dir.join("logs").join(name)).ok()?;
    let line = log.lines().rev().find(|line| line.len() > 81)?;
    line.split(' ').nth(1).filter(|id| is_commit_id(id)).map(str::to_owned)
}

fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && CommitId::from_str(text).is_ok_and(|id| !id.is_zero())
}

/// Object files of no length: git takes them for damage, and a fetch will not replace them while they are there.
fn set_aside_empty_objects(git_dir: &Path, private: &PrivateDir, when: DateTime<Utc>) -> Result<(), Error> {
    let doing = "setting empty objects aside";
    for folder in fs::read_dir(git_dir.join("objects")).doing(doing)?.flatten() {
        for object in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            if !object.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
                continue;
            }
            let name = object.path();
            // A pack's keep file is empty by nature; what was being written when its writer died is cleared, not kept.
            if name.extension() == Some(OsStr::new("keep")) || is_half_written(&object.file_name()) {
                continue;
            }
            let aside = private.folder("empty-objects").doing(doing)?.join(when.format("%Y%m%dT%H%M%SZ").to_string());
            fs::create_dir_all(&aside).doing(doing)?;
            let flat = format!("{}{}", folder.file_name().to_string_lossy(), object.file_name().to_string_lossy());
            fs::rename(&name, aside.join(flat)).doing(doing)?;
            tracing::warn!(object = %name.display(), "an object file of no length was set aside");
        }
    }
    Ok(())
}

impl Repo {
    /// Makes the index again from HEAD where it is missing, empty or damaged, and brings back the files that a clone killed
    /// before its checkout never wrote. Whether there was anything to do.
    ///
    /// Without this, a tick after such a kill would commit the deletion of everything. `thoroughly`: whether the index is read
    /// whole (init-sync); a pass that may have nothing to do looks at its beginning alone.
    ///
    /// # Errors
    /// Those of [`Repo::follow`].
    pub fn heal_index(&self, when: DateTime<Utc>, thoroughly: bool) -> Result<bool, Error> {
        let Some(head) = self.tip_of("HEAD")? else { return Ok(false) };
        let path = self.place.git_dir.join("index");
        let begins = begins_as_index(&path);
        let unread = if begins && thoroughly { self.git.index().err() } else { None };
        if let Some(error) = unread.as_ref().filter(|error| error.message().contains("mandatory extension")) {
            // A split index, say: sound, and not ours to replace.
            let what = format!("the index has a format that gitsync can't read ({})", error.message());
            let next = "write it in git's plain format: `git update-index --no-split-index`";
            return Err(Error::new(Sort::NotReady, what, next));
        }
        if begins && unread.is_none() {
            return Ok(false);
        }
        tracing::warn!("the index is missing or damaged and is made again from HEAD");
        if path.exists() {
            fs::rename(&path, self.private.file("damaged-index")).doing("setting the damaged index aside")?;
        }
        let doing = "making the index again";
        let tree = self.git.find_commit(head).and_then(|commit| commit.tree()).doing(doing)?;
        // git2 keeps the damaged index of this handle in mind; a second handle has none.
        let beside = super::open_git(&self.place)?;
        let mut index = beside.index().doing(doing)?;
        index.read_tree(&beside.find_tree(tree.id()).doing(doing)?).doing(doing)?;
        if self.head_branch()?.as_deref() == Some(&self.branch_ref()) {
            self.follow_from_index(head, &mut index, when)?;
        } else {
            // init-sync alone comes here, and a follow of the branch comes next.
            self.index_to_disk(&mut index)?;
        }
        Ok(true)
    }

    /// What a merge, a rebase or the like that was left half done would drop is kept, and so is a detached HEAD's commit.
    /// The state itself is ended by the follow that comes after.
    ///
    /// # Errors
    /// Where references can't be read or written.
    pub fn mend_state(&self, when: DateTime<Utc>) -> Result<Vec<String>, Error> {
        let mut kept = Vec::new();
        let mut heads: BTreeSet<CommitId> = BTreeSet::new();
        let git_dir = &self.place.git_dir;
        // Uncommitted work that git put away when it began, and would have brought back at the end.
        for file in ["MERGE_AUTOSTASH", "rebase-merge/autostash", "rebase-apply/autostash"] {
            let text = fs::read_to_string(git_dir.join(file)).unwrap_or_default();
            let Ok(stash) = CommitId::from_str(text.trim()) else { continue };
            if self.git.find_commit(stash).is_ok() && !self.is_kept(stash)? {
                kept.push(self.rescue(What::Worktree, stash, when, "stashed by a work left half done")?);
            }
        }
        if self.git.state() != git2::RepositoryState::Clean {
            let files = [
                "MERGE_HEAD",
                "CHERRY_PICK_HEAD",
                "REVERT_HEAD",
                "REBASE_HEAD",
                "rebase-merge/orig-head",
                "rebase-apply/orig-head",
                "rebase-merge/amend",
                "rebase-merge/stopped-sha",
            ];
            for file in files {
                let text = fs::read_to_string(git_dir.join(file)).unwrap_or_default();
                heads.extend(text.lines().filter_map(|line| CommitId::from_str(line.trim()).ok()));
            }
            tracing::warn!(state = ?self.git.state(), "something was left half done in the repository; it is ended here");
        }
        match self.head_branch()? {
            None => heads.extend(self.tip_of("HEAD")?),
            Some(name) if name != self.branch_ref() => {
                tracing::warn!(was = %name, "the work tree was on another branch; that branch stays as it is");
            }
            Some(_) => {}
        }
        for head in heads {
            if self.git.find_commit(head).is_ok() && !self.is_kept(head)? {
                kept.push(self.rescue(What::Local, head, when, "a work left half done")?);
            }
        }
        Ok(kept)
    }

    /// Puts HEAD on the branch that has no commit yet.
    ///
    /// # Errors
    /// Where HEAD can't be written.
    pub fn stand_on_unborn_branch(&self) -> Result<(), Error> {
        if self.head_branch()?.as_deref() != Some(&self.branch_ref()) {
            self.git.set_head(&self.branch_ref()).doing("putting HEAD on the branch")?;
        }
        Ok(())
    }

    /// Whether a commit is reachable from any reference.
    fn is_kept(&self, commit: CommitId) -> Result<bool, Error> {
        let doing = "looking at the references";
        for reference in self.git.references().doing(doing)? {
            let Ok(tip) = reference.and_then(|reference| reference.peel_to_commit()) else { continue };
            if tip.id() == commit || self.git.graph_descendant_of(tip.id(), commit).unwrap_or(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

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

fn begins_as_index(path: &Path) -> bool {
    let mut beginning = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok_and(|()| beginning == *b"DIRC")
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
