//! Creates a repository, or repairs one in place that no pass could work in: HEAD, configuration, references, index.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FileType;

use super::aside::{finish_putting_aside, names_in, put_aside};
use super::begin::init;
use super::damage::{Damage, begins_as_index, index_is_damaged};
use super::locks::is_half_written;
use super::{DAMAGED_CONFIG, DAMAGED_INDEX, DAMAGED_REFS, EMPTY_OBJECTS};
use crate::error::{Context, Error};
use crate::fs::atomic::{self, How};
use crate::fs::files;
use crate::git::{CommitId, Place, Repo};
use crate::state::dir::{PrivateDir, remove_if_there};
use crate::state::lock::Held;

/// Makes sure that the repository exists and can be opened. If there is none, makes a new one; if there is a broken
/// one, puts it aside and makes a new one in its place. Returns whether it is new.
///
/// # Errors
/// If the file system fails.
pub fn make_or_mend(place: &Place, held: &Held, branch: &str, when: DateTime<Utc>) -> Result<bool, Error> {
    let private = PrivateDir::of(&place.git_dir);
    let git_dir = &place.git_dir;
    crate::git::check_format(git_dir)?;
    finish_putting_aside(place, &private)?;
    let config_is_damaged = is_damaged_config(place)?;
    let names = names_in(git_dir)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    if holds_nothing(git_dir)? && !(has("HEAD") && has("objects") && has("refs") && has("config")) {
        // There is only what init makes, and init did not finish.
        init(place, branch)?;
        return Ok(true);
    }
    if !has("objects") {
        let what = "the folder of its objects is missing".to_owned();
        put_aside(place, &private, held, when, &Damage { cause: what.clone(), what })?;
        init(place, branch)?;
        return Ok(true);
    }
    // A power loss leaves empty files. Each of these can be recreated from the rest.
    files::make_folders(&git_dir.join("refs")).context("making refs")?;
    files::make_folders(&git_dir.join("objects/pack")).context("making a folder for packs")?;
    repair_head(git_dir, branch)?;
    let config = git_dir.join("config");
    if config_is_damaged {
        tracing::warn!("the repository's configuration was missing or damaged and is made again");
        if has("config") {
            fs::rename(&config, private.free_file(DAMAGED_CONFIG))
                .context("setting the damaged configuration aside")?;
        }
        init(place, branch)?;
    }
    repair_refs(git_dir, &private, &git_dir.join("refs"))?;
    restore_branch(git_dir, branch)?;
    set_aside_empty_objects(git_dir, &private, when)?;
    Ok(false)
}

/// Puts HEAD on the branch if it is missing or damaged. If it is a symbolic link, as in very old repositories, replaces
/// it by a file: libgit2 would read the commit of the reference it leads to, and write there.
fn repair_head(git_dir: &Path, branch: &str) -> Result<(), Error> {
    let path = git_dir.join("HEAD");
    let doing = "repairing HEAD";
    if let Ok(target) = fs::read_link(&path)
        && let Some(target) = target.to_str().filter(|target| target.starts_with("refs/"))
    {
        tracing::warn!("HEAD was a link to {target} and is replaced by a file");
        return replace_file(&path, &format!("ref: {target}")).context(doing);
    }
    let head = match files::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        head => head.context("reading HEAD")?,
    };
    if head.starts_with(b"ref: refs/") || String::from_utf8_lossy(&head).trim().len() == 40 {
        return Ok(());
    }
    tracing::warn!("HEAD was missing or damaged and is put on '{branch}'");
    replace_file(&path, &format!("ref: refs/heads/{branch}")).context(doing)
}

/// Returns whether a repository has no objects and no references: it was only just started.
fn holds_nothing(git_dir: &Path) -> Result<bool, Error> {
    let mut open: Vec<PathBuf> =
        ["objects", "refs", "logs", "packed-refs"].iter().map(|name| git_dir.join(name)).collect();
    while let Some(path) = open.pop() {
        let doing = || format!("looking at {}", path.display());
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(doing(), &error)),
            Ok(meta) if meta.is_dir() => {
                open.extend(files::entries(&path).context(doing())?.iter().map(files::Entry::path));
            }
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Returns whether the repository's own configuration must be made again. A power loss leaves it empty or full of
/// zeros; libgit2 reads the latter as empty, and then can't write it. A person's mistake in it is left for that person
/// to correct.
///
/// # Errors
/// [`crate::git::Kind::NotReady`] if it says something that git can't read.
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
        Err(error) => Err(crate::git::settings::refused(place, &error)
            .unwrap_or_else(|| Error::git(format!("reading {}", path.display()), &error))),
    }
}

/// Replaces a file of one line, such as a reference, as a whole. A link is replaced itself, not its target.
pub(in crate::git) fn replace_file(path: &Path, line: &str) -> io::Result<()> {
    let fresh = path.with_extension("gitsync.lock");
    remove_if_there(&fresh)?;
    atomic::replace(path, &fresh, format!("{line}\n").as_bytes(), How::LikeGit)
}

/// Resets each damaged reference to the last value in its reflog. Without a reflog its file is set aside: a reference
/// that names no commit keeps none reachable.
fn repair_refs(git_dir: &Path, private: &PrivateDir, folder: &Path) -> Result<(), Error> {
    for entry in files::entries_if_any(folder) {
        let path = entry.path();
        if entry.is_folder() {
            repair_refs(git_dir, private, &path)?;
            continue;
        }
        if entry.kind == FileType::Symlink {
            // Very old repositories use links as references. What a link leads to must not be written here.
            continue;
        }
        // A file that can't be read is not known to be damaged.
        let content = files::read(&path).context(format!("reading the reference {}", path.display()))?;
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
                tracing::warn!(reference = %name.display(), commit = %id, "a damaged reference is repaired from its reflog");
                replace_file(&path, &id).context(format!("repairing {}", name.display()))?;
            }
            None => {
                private.folder(DAMAGED_REFS).context("setting a damaged reference aside")?;
                let flat = name.to_string_lossy().replace('/', "+");
                let aside = private.free_file(&format!("{DAMAGED_REFS}/{flat}"));
                fs::rename(&path, &aside).context(format!("setting {} aside", name.display()))?;
                tracing::warn!(
                    reference = %name.display(), kept = %aside.display(),
                    "a damaged reference without a reflog is set aside"
                );
            }
        }
    }
    Ok(())
}

/// Restores the branch if its reference is gone and its reflog is not: git would have removed both, so a crash removed
/// it.
fn restore_branch(git_dir: &Path, branch: &str) -> Result<(), Error> {
    let name = format!("refs/heads/{branch}");
    let packed = files::read_to_string(&git_dir.join("packed-refs")).unwrap_or_default();
    if git_dir.join(&name).exists() || packed.lines().any(|line| line.ends_with(&format!(" {name}"))) {
        return Ok(());
    }
    let Some(id) = last_in_log(git_dir, Path::new(&name)) else { return Ok(()) };
    tracing::warn!(reference = %name, commit = %id, "the branch was gone and is restored from its reflog");
    let path = git_dir.join(&name);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| replace_file(&path, &id));
    made.context(format!("restoring {name}"))
}

/// The last commit in a reference's reflog.
fn last_in_log(git_dir: &Path, name: &Path) -> Option<String> {
    let log = files::read_to_string(&git_dir.join("logs").join(name)).ok()?;
    let line = log.lines().rev().find(|line| line.len() > 81)?;
    line.split(' ').nth(1).filter(|id| is_commit_id(id)).map(str::to_owned)
}

pub(in crate::git) fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && CommitId::from_str(text).is_ok_and(|id| !id.is_zero())
}

/// Sets aside empty object files: git takes them for damage, and while they are there a fetch will not replace them.
fn set_aside_empty_objects(git_dir: &Path, private: &PrivateDir, when: DateTime<Utc>) -> Result<(), Error> {
    let doing = "setting empty objects aside";
    for folder in files::entries(&git_dir.join("objects")).context(doing)? {
        for object in files::entries_if_any(&folder.path()) {
            if !object.path().symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
                continue;
            }
            let name = object.path();
            // Marker files beside a pack are always empty. Without its promisor marker, git would report what a partial
            // clone left out as missing. Unfinished files of a killed process are cleared elsewhere, not kept.
            let is_mark = name.extension().is_some_and(|end| end == "keep" || end == "promisor");
            if is_mark || is_half_written(object.name()) {
                continue;
            }
            let aside = private.folder(EMPTY_OBJECTS).context(doing)?.join(when.format("%Y%m%dT%H%M%SZ").to_string());
            fs::create_dir_all(&aside).context(doing)?;
            let flat = format!("{}{}", folder.name().to_string_lossy(), object.name().to_string_lossy());
            fs::rename(&name, aside.join(flat)).context(doing)?;
            tracing::warn!(object = %name.display(), "an empty object file was set aside");
        }
    }
    Ok(())
}

impl Repo {
    /// Makes the index again from HEAD if it is missing, empty or damaged, and restores the files that a clone did not
    /// write because it was killed before its checkout. Returns whether there was anything to do.
    ///
    /// Without this, a tick after such a kill would commit the deletion of everything. `thoroughly` says whether to
    /// read the whole index (init-sync); a pass that may have nothing to do checks only its beginning.
    ///
    /// # Errors
    /// As for [`Repo::follow`].
    pub fn heal_index(&self, when: DateTime<Utc>, thoroughly: bool) -> Result<bool, Error> {
        let Some(head) = self.index_to_make_again(thoroughly)? else { return Ok(false) };
        let path = self.place.git_dir.join("index");
        tracing::warn!("the index is missing or damaged and is made again from HEAD");
        if path.exists() {
            fs::rename(&path, self.private.free_file(DAMAGED_INDEX)).context("setting the damaged index aside")?;
        }
        let doing = "making the index again";
        let tree = self.tree_of(head)?;
        // git2 caches the damaged index in this handle; a new handle does not have it.
        let beside = self.beside()?;
        let mut index = beside.index().context(doing)?;
        index.read_tree(&beside.find_tree(tree.id()).context(doing)?).context(doing)?;
        if self.head_branch()?.as_deref() == Some(&self.branch_ref()) {
            self.follow_from_index(head, &mut index, when)?;
        } else {
            // Only init-sync gets here, and a follow of the branch comes next.
            self.index_to_disk(&mut index)?;
        }
        Ok(true)
    }

    /// The commit from which [`Repo::heal_index`] would make the index again, if necessary. Writes nothing.
    ///
    /// # Errors
    /// [`crate::git::Kind::NotReady`] for an index in a format that libgit2 can't read; others if it can't be
    /// determined.
    pub fn index_to_make_again(&self, thoroughly: bool) -> Result<Option<CommitId>, Error> {
        let Some(head) = self.tip_of("HEAD")? else { return Ok(None) };
        if begins_as_index(&self.place.git_dir.join("index")) && !thoroughly {
            return Ok(None);
        }
        // Check it again by other means: staged changes must not be lost because the disk failed to read once.
        Ok(index_is_damaged(&self.place.git_dir)?.then_some(head))
    }
}
