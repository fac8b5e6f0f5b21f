//! A repository that no pass could work in, made or mended in place: HEAD, configuration, references, index.

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

/// Makes the repository exist and open: a new one where there is none, and where there is a broken one a new one in its
/// place, the broken one put aside. Whether it is new.
///
/// # Errors
/// Those of the file system.
pub fn make_or_mend(place: &Place, held: &Held, branch: &str, when: DateTime<Utc>) -> Result<bool, Error> {
    let private = PrivateDir::of(&place.git_dir);
    let git_dir = &place.git_dir;
    crate::git::check_format(git_dir)?;
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
    fs::create_dir_all(git_dir.join("refs")).context("making refs")?;
    fs::create_dir_all(git_dir.join("objects/pack")).context("making a folder for packs")?;
    mend_head(git_dir, branch)?;
    let config = git_dir.join("config");
    if config_is_damaged {
        tracing::warn!("the repository's configuration was missing or damaged and is made anew");
        if has("config") {
            fs::rename(&config, private.free_file(DAMAGED_CONFIG))
                .context("setting the damaged configuration aside")?;
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
                open.extend(files::entries(&path).context(doing())?.iter().map(files::Entry::path));
            }
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether the repository's own configuration has to be made anew. A power loss leaves files of no length, or full of zeros;
/// libgit2 reads the latter as empty and then can't write it. What a person has mistyped is theirs to mend.
///
/// # Errors
/// [`crate::git::Kind::NotReady`] where it says something that git can't read.
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

/// A file of one line, a reference's say, replaced whole. Of a link, the link itself is replaced.
pub(in crate::git) fn replace_file(path: &Path, line: &str) -> io::Result<()> {
    let fresh = path.with_extension("gitsync.lock");
    remove_if_there(&fresh)?;
    atomic::replace(path, &fresh, format!("{line}\n").as_bytes(), How::LikeGit)
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
                tracing::warn!(reference = %name.display(), commit = %id, "a damaged reference is mended from its log");
                replace_file(&path, &id).context(format!("mending {}", name.display()))?;
            }
            None => {
                private.folder(DAMAGED_REFS).context("setting a damaged reference aside")?;
                let flat = name.to_string_lossy().replace('/', "+");
                let aside = private.free_file(&format!("{DAMAGED_REFS}/{flat}"));
                fs::rename(&path, &aside).context(format!("setting {} aside", name.display()))?;
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
    made.context(format!("bringing back {name}"))
}

/// The last commit that a reference's log knows.
fn last_in_log(git_dir: &Path, name: &Path) -> Option<String> {
    let log = files::read_to_string(&git_dir.join("logs").join(name)).ok()?;
    let line = log.lines().rev().find(|line| line.len() > 81)?;
    line.split(' ').nth(1).filter(|id| is_commit_id(id)).map(str::to_owned)
}

pub(in crate::git) fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && CommitId::from_str(text).is_ok_and(|id| !id.is_zero())
}

/// Object files of no length: git takes them for damage, and a fetch will not replace them while they are there.
fn set_aside_empty_objects(git_dir: &Path, private: &PrivateDir, when: DateTime<Utc>) -> Result<(), Error> {
    let doing = "setting empty objects aside";
    for folder in files::entries(&git_dir.join("objects")).context(doing)? {
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
            let aside = private.folder(EMPTY_OBJECTS).context(doing)?.join(when.format("%Y%m%dT%H%M%SZ").to_string());
            fs::create_dir_all(&aside).context(doing)?;
            let flat = format!("{}{}", folder.name().to_string_lossy(), object.name().to_string_lossy());
            fs::rename(&name, aside.join(flat)).context(doing)?;
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
        let Some(head) = self.index_to_make_again(thoroughly)? else { return Ok(false) };
        let path = self.place.git_dir.join("index");
        tracing::warn!("the index is missing or damaged and is made again from HEAD");
        if path.exists() {
            fs::rename(&path, self.private.free_file(DAMAGED_INDEX)).context("setting the damaged index aside")?;
        }
        let doing = "making the index again";
        let tree = self.tree_of(head)?;
        // git2 keeps the damaged index of this handle in mind; a second handle has none.
        let beside = self.beside()?;
        let mut index = beside.index().context(doing)?;
        index.read_tree(&beside.find_tree(tree.id()).context(doing)?).context(doing)?;
        if self.head_branch()?.as_deref() == Some(&self.branch_ref()) {
            self.follow_from_index(head, &mut index, when)?;
        } else {
            // init-sync alone comes here, and a follow of the branch comes next.
            self.index_to_disk(&mut index)?;
        }
        Ok(true)
    }

    /// The commit that [`Repo::heal_index`] would make the index again from, where there is need of it. Nothing is written.
    ///
    /// # Errors
    /// [`crate::git::Kind::NotReady`] for an index in a format that libgit2 does not read, and where it can't be known.
    pub fn index_to_make_again(&self, thoroughly: bool) -> Result<Option<CommitId>, Error> {
        let Some(head) = self.tip_of("HEAD")? else { return Ok(None) };
        if begins_as_index(&self.place.git_dir.join("index")) && !thoroughly {
            return Ok(None);
        }
        // Read again by other means: what is staged is not to be lost to a disk that would not read once.
        Ok(index_is_damaged(&self.place.git_dir)?.then_some(head))
    }
}
