//! Healing: what an earlier crash, a power loss or a person left behind.
//!
//! Two degrees. [`clear_leftovers`] and [`Repo::heal_index`] are safe in every pass. The rest is for `init-sync`, which may
//! bring a repository back that no pass could work in: [`make_or_mend`] and [`Repo::mend_state`]. Nothing is deleted that could hold somebody's
//! work: a damaged repository is put aside inside the private folder, and commits in it that can still be read are carried
//! over as rescue references.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use rustix::fs::FileType;

use super::aside::{finish_putting_aside, names_in, put_aside};
use super::damage::Damage;
use super::error::Doing;
use super::rescue::What;
use super::{CommitId, Error, Place, Repo, Sort};
use crate::files;
use crate::lock::Held;
use crate::private::{PrivateDir, remove_if_there, sync_dir};

pub(super) const DAMAGED_REFS: &str = "damaged-refs";
pub(super) const DAMAGED_CONFIG: &str = "damaged-config";
pub(super) const DAMAGED_INDEX: &str = "damaged-index";
pub(super) const EMPTY_OBJECTS: &str = "empty-objects";
pub(super) const BROKEN: &str = "broken";
pub(super) const CARRIED: &str = "gitsync-carried";

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
    // One that failed to remove it came to its end all the same.
    super::incoming::clear(place)?;
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
    let Ok(meta) = before.symlink_metadata() else {
        // A power loss left its name without its bytes: as good as none, and on a branch without a commit made again from none.
        let index = place.git_dir.join("index");
        let is_empty = index.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        return if is_empty { remove_if_there(&index).map(drop).doing(doing) } else { Ok(()) };
    };
    if meta.is_dir() {
        // None of ours; a file could not take its place.
        return super::worktree::remove_folder(&before).doing(doing);
    }
    let index = place.git_dir.join("index");
    let is_whole = |path: &Path| begins_as_index(path) && git2::Index::open(path).is_ok();
    if !meta.is_file() || !super::damage::index_is_damaged(&place.git_dir)? || !is_whole(&before) {
        return remove_if_there(&before).map(drop).doing(doing);
    }
    tracing::warn!("the index was damaged as it was written; the one before is brought back");
    fs::rename(&before, &index).doing(doing)?;
    sync_dir(&place.git_dir).doing(doing)
}

fn collect_locks(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in files::entries_if_any(folder) {
        let path = entry.path();
        if entry.is_folder() {
            collect_locks(&path, into);
        } else if path.extension() == Some(OsStr::new("lock")) && !into.contains(&path) {
            into.push(path);
        }
    }
}

/// Removes what a pass that failed was writing, as far as that can be done: one that fails each time must not fill the disk.
pub fn drop_half_written(place: &Place, _held: &Held) {
    for folder in ["objects", "objects/pack"] {
        if let Err(error) = clear_half_written(&place.git_dir.join(folder)) {
            tracing::debug!("{}", error.what);
        }
    }
}

/// Packs and objects that libgit2 was writing when it was killed; no gc removes these.
fn clear_half_written(folder: &Path) -> Result<(), Error> {
    for entry in files::entries_if_any(folder) {
        if is_half_written(entry.name()) {
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
    for entry in files::entries(Path::new("/proc")).ok()? {
        let Some(pid) = entry.name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == us {
            continue;
        }
        let process = entry.path();
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let is_git = comm.trim() == "git" || comm.starts_with("git-");
        if is_git && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&place.work_dir)) {
            return Some(pid);
        }
        for fd in files::entries_if_any(&process.join("fd")) {
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
    finish_putting_aside(place, &private)?;
    let config_is_damaged = is_damaged_config(place)?;
    let names = names_in(git_dir)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    if holds_nothing(git_dir)? && !(has("HEAD") && has("objects") && has("refs") && has("config")) {
        // Nothing but what init makes itself, and that not to its end.
        init(place, branch)?;
        return Ok(true);
    }
    if !has("objects") {
        let what = "the folder of its objects is missing".to_owned();
        put_aside(place, &private, held, when, &Damage { cause: what.clone(), what })?;
        init(place, branch)?;
        return Ok(true);
    }
    // A power loss leaves files of no length. Each of these can be made again from what is around it.
    fs::create_dir_all(git_dir.join("refs")).doing("making refs")?;
    fs::create_dir_all(git_dir.join("objects/pack")).doing("making a folder for packs")?;
    mend_head(git_dir, branch)?;
    let config = git_dir.join("config");
    if config_is_damaged {
        tracing::warn!("the repository's configuration was missing or damaged and is made anew");
        if has("config") {
            fs::rename(&config, private.free_file(DAMAGED_CONFIG)).doing("setting the damaged configuration aside")?;
        }
        init(place, branch)?;
    }
    mend_refs(git_dir, &private, &git_dir.join("refs"))?;
    bring_back_branch(git_dir, branch)?;
    set_aside_empty_objects(git_dir, &private, when)?;
    Ok(false)
}

/// Puts HEAD on the branch where it is missing or damaged. As a link, which git took it for long ago, it is written as a file: libgit2
/// would read the commit of the reference that it leads to, and write there.
fn mend_head(git_dir: &Path, branch: &str) -> Result<(), Error> {
    let path = git_dir.join("HEAD");
    let doing = "mending HEAD";
    if let Ok(target) = fs::read_link(&path)
        && let Some(target) = target.to_str().filter(|target| target.starts_with("refs/"))
    {
        tracing::warn!("HEAD was a link to {target} and is made a file");
        return replace_file(&path, &format!("ref: {target}")).doing(doing);
    }
    let head = match files::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        head => head.doing("reading HEAD")?,
    };
    if head.starts_with(b"ref: refs/") || String::from_utf8_lossy(&head).trim().len() == 40 {
        return Ok(());
    }
    tracing::warn!("HEAD was missing or damaged and is put on '{branch}'");
    replace_file(&path, &format!("ref: refs/heads/{branch}")).doing(doing)
}

/// Whether a repository has neither an object nor a reference: one that was begun and no more.
fn holds_nothing(git_dir: &Path) -> Result<bool, Error> {
    let mut open: Vec<PathBuf> =
        ["objects", "refs", "logs", "packed-refs"].iter().map(|name| git_dir.join(name)).collect();
    while let Some(path) = open.pop() {
        let doing = || format!("looking at {}", path.display());
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(doing(), &error)),
            Ok(meta) if meta.is_dir() => {
                open.extend(files::entries(&path).doing(doing())?.iter().map(files::Entry::path));
            }
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

#[allow(clippy::disallowed_methods)]
pub(super) fn init(place: &Place, branch: &str) -> Result<(), Error> {
    PrivateDir::of(&place.git_dir).write_durably(super::aside::BEGUN, b"").doing("beginning a repository")?;
    // Before there is a HEAD: killed in between, this is put aside in its turn and taken over from there.
    take_over(place)?;
    let mut options = git2::RepositoryInitOptions::new();
    options.initial_head(branch).external_template(false).mkdir(false);
    git2::Repository::init_opts(&place.work_dir, &options)
        .doing(format!("making a repository in {}", place.work_dir.display()))?;
    for name in ["HEAD", "config", "objects", "refs", ""] {
        fs::File::open(place.git_dir.join(name)).and_then(|it| it.sync_all()).doing("waiting for the disk")?;
    }
    Ok(())
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
            "config" => git2::Config::open(&old.join(name)).and_then(|mut config| config.snapshot()).is_ok(),
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
            // Whole or not at all: half of a configuration could not be told from one that a person mistyped.
            let fresh = to.with_extension("gitsync.lock");
            remove_if_there(&fresh).doing(doing)?;
            if name == "index" {
                take_over_index(&old.join(name), &fresh).doing("taking over the index")?;
            } else {
                fs::copy(old.join(name), &fresh).doing(doing)?;
            }
            fs::File::open(&fresh).and_then(|file| file.sync_all()).doing(doing)?;
            fs::rename(&fresh, &to).doing(doing)?;
            to.parent().map_or(Ok(()), sync_dir).doing(doing)?;
        }
    }
    // On disk before there is a HEAD: a repository that has one and no index has lost which files were git's.
    sync_dir(&place.git_dir).doing(doing)
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

/// Whether the repository's own configuration has to be made anew. A power loss leaves files of no length, or full of zeros;
/// libgit2 reads the latter as empty and then can't write it. What a person has mistyped is theirs to mend.
///
/// # Errors
/// [`Sort::NotReady`] where it says something that git can't read.
fn is_damaged_config(place: &Place) -> Result<bool, Error> {
    let path = place.git_dir.join("config");
    let content = match files::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Error::path("reading", &path, &error)),
    };
    if content.is_empty() || content.contains(&0) {
        return Ok(true);
    }
    match git2::Config::open(&path).and_then(|mut config| config.snapshot()) {
        Ok(_) => Ok(false),
        Err(error) => Err(super::settings::refused(place, &error)
            .unwrap_or_else(|| Error::git(format!("reading {}", path.display()), &error))),
    }
}

/// The repositories put aside, oldest first.
pub(super) fn broken(private: &PrivateDir) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = files::entries_if_any(&private.file(BROKEN)).iter().map(files::Entry::path).collect();
    all.sort();
    all
}

/// A file of one line, a reference's say, replaced whole. Of a link, the link itself is replaced.
pub(super) fn replace_file(path: &Path, line: &str) -> io::Result<()> {
    let fresh = path.with_extension("gitsync.lock");
    remove_if_there(&fresh)?;
    fs::write(&fresh, format!("{line}\n"))?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)
}

/// A reference whose file is damaged gets the last value that its reflog knows; without one the file is set aside, since one
/// that names no commit keeps none reachable.
fn mend_refs(git_dir: &Path, private: &PrivateDir, folder: &Path) -> Result<(), Error> {
    for entry in files::entries_if_any(folder) {
        let path = entry.path();
        if entry.is_folder() {
            mend_refs(git_dir, private, &path)?;
            continue;
        }
        if entry.kind == FileType::Symlink {
            // A reference as links were used for it long ago; where it leads is not ours to write.
            continue;
        }
        // One that can't be read is not known to be damaged.
        let content = files::read(&path).doing(format!("reading the reference {}", path.display()))?;
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
                replace_file(&path, &id).doing(format!("mending {}", name.display()))?;
            }
            None => {
                private.folder(DAMAGED_REFS).doing("setting a damaged reference aside")?;
                let flat = name.to_string_lossy().replace('/', "+");
                let aside = private.free_file(&format!("{DAMAGED_REFS}/{flat}"));
                fs::rename(&path, &aside).doing(format!("setting {} aside", name.display()))?;
                tracing::warn!(
                    reference = %name.display(), kept = %aside.display(),
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
    let packed = files::read_to_string(&git_dir.join("packed-refs")).unwrap_or_default();
    if git_dir.join(&name).exists() || packed.lines().any(|line| line.ends_with(&format!(" {name}"))) {
        return Ok(());
    }
    let Some(id) = last_in_log(git_dir, Path::new(&name)) else { return Ok(()) };
    tracing::warn!(reference = %name, commit = %id, "the branch was gone and is brought back from its log");
    let path = git_dir.join(&name);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| replace_file(&path, &id));
    made.doing(format!("bringing back {name}"))
}

/// The last commit that a reference's log knows.
fn last_in_log(git_dir: &Path, name: &Path) -> Option<String> {
    let log = files::read_to_string(&git_dir.join("logs").join(name)).ok()?;
    let line = log.lines().rev().find(|line| line.len() > 81)?;
    line.split(' ').nth(1).filter(|id| is_commit_id(id)).map(str::to_owned)
}

pub(super) fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && CommitId::from_str(text).is_ok_and(|id| !id.is_zero())
}

/// Object files of no length: git takes them for damage, and a fetch will not replace them while they are there.
fn set_aside_empty_objects(git_dir: &Path, private: &PrivateDir, when: DateTime<Utc>) -> Result<(), Error> {
    let doing = "setting empty objects aside";
    for folder in files::entries(&git_dir.join("objects")).doing(doing)? {
        for object in files::entries_if_any(&folder.path()) {
            if !object.path().symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
                continue;
            }
            let name = object.path();
            // Marks beside a pack are empty by nature: without its promisor mark git takes what a partial clone left out for missing.
            // What was being written when its writer died is cleared, not kept.
            let is_mark = name.extension().is_some_and(|end| end == "keep" || end == "promisor");
            if is_mark || is_half_written(object.name()) {
                continue;
            }
            let aside = private.folder(EMPTY_OBJECTS).doing(doing)?.join(when.format("%Y%m%dT%H%M%SZ").to_string());
            fs::create_dir_all(&aside).doing(doing)?;
            let flat = format!("{}{}", folder.name().to_string_lossy(), object.name().to_string_lossy());
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
        if begins_as_index(&path) && !thoroughly {
            return Ok(false);
        }
        // Read again by other means: what is staged is not to be lost to a disk that would not read once.
        if !super::damage::index_is_damaged(&self.place.git_dir)? {
            return Ok(false);
        }
        tracing::warn!("the index is missing or damaged and is made again from HEAD");
        if path.exists() {
            fs::rename(&path, self.private.free_file(DAMAGED_INDEX)).doing("setting the damaged index aside")?;
        }
        let doing = "making the index again";
        let tree = self.tree_of(head)?;
        // git2 keeps the damaged index of this handle in mind; a second handle has none.
        let beside = self.beside()?;
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
            let text = files::read_to_string(&git_dir.join(file)).unwrap_or_default();
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
                let text = files::read_to_string(&git_dir.join(file)).unwrap_or_default();
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
            if self.has_commit(head) && !self.is_kept(head)? {
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
    pub(super) fn is_kept(&self, commit: CommitId) -> Result<bool, Error> {
        let mut open = self.ref_tips()?;
        // One walk for all references: there may be thousands.
        let mut seen = HashSet::new();
        while let Some(id) = open.pop() {
            if id == commit {
                return Ok(true);
            }
            if seen.insert(id) {
                // What is behind a commit that can't be read is not kept by it.
                open.extend(self.parents_of(id).unwrap_or_default());
            }
        }
        Ok(false)
    }
}

fn begins_as_index(path: &Path) -> bool {
    let mut beginning = [0; 4];
    files::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok_and(|()| beginning == *b"DIRC")
}
