//! Puts a damaged repository aside, once per cause, and finds which commit to use after that.
//!
//! Nothing of it is deleted. The cause is recorded in it. So if the damage comes back, from a disk or from the remote,
//! copies do not fill the disk, one per restart of a container.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::begin::{BEGUN, init};
use super::damage::Damage;
use super::{BROKEN, broken};
use crate::error::{Context, Error, Kind};
use crate::fs::files;
use crate::git::{CommitId, Place, Repo, raw};
use crate::state::dir::{PrivateDir, remove_if_there, sync_dir};
use crate::state::lock::Held;

/// The file in a repository put aside that records the cause.
const CAUSE: &str = "gitsync-cause";

/// The file that names the folder of `broken/` that a repository is being moved to.
const PUTTING_ASIDE: &str = "putting-aside";

/// Puts a damaged repository aside as a whole, and starts a new one with its configuration.
///
/// # Errors
/// [`Kind::NotReady`] if one was already put aside for the same damage; otherwise if the file system fails.
pub fn begin_anew(place: &Place, held: &Held, branch: &str, when: DateTime<Utc>, damage: &Damage) -> Result<(), Error> {
    let private = PrivateDir::of(&place.git_dir);
    put_aside(place, &private, held, when, damage)?;
    init(place, branch)
}

/// The names in a repository's folder, except our own.
pub(super) fn names_in(git_dir: &Path) -> Result<Vec<OsString>, Error> {
    let entries = files::entries(git_dir).context(format!("reading {}", git_dir.display()))?;
    Ok(entries.iter().map(|entry| entry.name().to_owned()).filter(|name| name != "gitsync").collect())
}

/// Moves everything but our private folder into a folder of `broken/`, once per cause.
pub(super) fn put_aside(
    place: &Place,
    private: &PrivateDir,
    _held: &Held,
    when: DateTime<Utc>,
    damage: &Damage,
) -> Result<(), Error> {
    let doing = "putting the damaged repository aside";
    for old in broken(private) {
        if !old.join("HEAD").exists() && !old.join("objects").exists() {
            // A pass was killed before it moved anything here. If the folder holds anything else, it must not be
            // removed.
            remove_if_there(&old.join(CAUSE)).context(doing)?;
            let _ = fs::remove_dir(&old);
        } else if files::read_to_string(&old.join(CAUSE)).is_ok_and(|cause| cause.trim_end() == damage.cause) {
            let what =
                format!("the repository is damaged again ({}), as when {} was put aside", damage.what, old.display());
            let next = format!(
                "it is not put aside a second time for the same cause: check whether the disk, the memory or the remote \
                 causes the damage, then remove {} and run `gitsync init-sync`",
                old.display()
            );
            return Err(Error::new(Kind::NotReady, what, next));
        }
    }
    let all = private.folder(BROKEN).context(doing)?;
    let mut aside = all.join(when.format("%Y%m%dT%H%M%SZ").to_string());
    while aside.exists() {
        aside.as_mut_os_string().push("+");
    }
    fs::create_dir(&aside).context(doing)?;
    tracing::warn!(kept = %aside.display(), "the repository is damaged ({}): put aside, to be fetched again", damage.what);
    fs::write(aside.join(CAUSE), format!("{}\n", damage.cause)).context(doing)?;
    fs::File::open(aside.join(CAUSE)).and_then(|file| file.sync_all()).context(doing)?;
    sync_dir(&aside).context(doing)?;
    sync_dir(&all).context(doing)?;
    let name = aside.file_name().unwrap_or_default().as_bytes();
    private.write_durably(PUTTING_ASIDE, name).context(doing)?;
    move_aside(place, private, &aside)
}

/// Finishes putting a repository aside if an earlier pass was killed while doing so, so that there is one copy and not
/// two.
pub(super) fn finish_putting_aside(place: &Place, private: &PrivateDir) -> Result<(), Error> {
    let doing = "finishing to put the damaged repository aside";
    let Some(name) = private.read(PUTTING_ASIDE).context(doing)? else { return Ok(()) };
    let aside = private.file(BROKEN).join(OsStr::from_bytes(&name));
    // HEAD is moved first. If it is only in its old place, nothing was moved, and the damage must be proven again.
    // After a power loss between the syncs of the two folders it may be in both.
    let begun = aside.join("HEAD").exists() || !names_in(&place.git_dir)?.iter().any(|name| name == "HEAD");
    let known = !name.is_empty() && !name.contains(&b'/') && aside.is_dir();
    if known && begun {
        return move_aside(place, private, &aside);
    }
    if known {
        remove_if_there(&aside.join(CAUSE)).context(doing)?;
        // This fails, as it should, if the folder holds anything.
        let _ = fs::remove_dir(&aside);
    }
    private.remove_durably(PUTTING_ASIDE).map(drop).context(doing)
}

fn move_aside(place: &Place, private: &PrivateDir, aside: &Path) -> Result<(), Error> {
    let doing = "putting the damaged repository aside";
    // HEAD first: without it, what remains is clearly not a repository if we are killed in between.
    let mut names = vec![OsString::from("HEAD")];
    names.extend(names_in(&place.git_dir)?);
    for name in names {
        let mut to = aside.join(&name);
        // After a power loss a folder may be in both places; one must not replace the other.
        while fs::symlink_metadata(&to).is_ok_and(|there| there.is_dir()) {
            to.as_mut_os_string().push("+");
        }
        match fs::rename(place.git_dir.join(&name), to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing, &error)),
            _ => {}
        }
    }
    sync_dir(aside).context(doing)?;
    sync_dir(&place.git_dir).context(doing)?;
    // The unfinished follow of an earlier pass belongs to the repository that was put aside.
    private.remove_durably(crate::git::checkout::INTENT).context(doing)?;
    private.remove_durably(PUTTING_ASIDE).map(drop).context(doing)
}

impl Repo {
    /// The newest position of the branch in a repository put aside that was carried over and is complete here.
    ///
    /// # Errors
    /// If this repository can't be read.
    pub fn newest_put_aside(&self) -> Result<Option<CommitId>, Error> {
        let doing = "looking for the newest commit that can be read";
        for old in broken(&self.private).into_iter().rev() {
            let odb = git2::Odb::new().context(doing)?;
            for objects in [old.join("objects"), self.place.git_dir.join("objects")].iter().filter(|path| path.is_dir())
            {
                odb.add_disk_alternate(&objects.to_string_lossy()).context(doing)?;
            }
            let mut seen = HashSet::new();
            for start in positions(&old, &self.branch_ref()) {
                let mut open = VecDeque::from([start]);
                while let Some(id) = open.pop_front() {
                    if !seen.insert(id) {
                        continue;
                    }
                    if self.has_commit(id) && self.check_whole(id).is_ok() {
                        return Ok(Some(id));
                    }
                    let commit = odb.read(id).ok().and_then(|object| raw::commit(object.data()));
                    open.extend(commit.map(|commit| commit.parents).unwrap_or_default());
                }
            }
        }
        Ok(None)
    }

    /// Returns whether `ours` is a history that started here, on a branch without a commit, because the remote's could
    /// not be fetched. No push may force it over the remote's.
    ///
    /// # Errors
    /// If history can't be read.
    pub fn began_beside(&self, ours: CommitId, theirs: CommitId) -> Result<bool, Error> {
        Ok(self.private.file(BEGUN).symlink_metadata().is_ok() && !self.are_related(ours, theirs)?)
    }

    /// Records that the repository has a history that may be pushed: the remote's, or a new one if the remote has none.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn has_a_history(&self) -> Result<(), Error> {
        self.private.remove_durably(BEGUN).map(drop).context("recording that the repository has a history")
    }
}

/// The positions of a branch, newest first: its reference, then the entries of its reflog.
fn positions(old: &Path, branch: &str) -> Vec<CommitId> {
    let read = |name: &str| files::read(&old.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut words: Vec<String> = read(branch).into_iter().collect();
    let packed = read("packed-refs").unwrap_or_default();
    words.extend(packed.lines().filter_map(|line| line.strip_suffix(&format!(" {branch}"))).map(str::to_owned));
    let log = read(&format!("logs/{branch}")).unwrap_or_default();
    words.extend(log.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned));
    words.iter().filter_map(|word| CommitId::from_str(word.trim()).ok()).filter(|id| !id.is_zero()).collect()
}
