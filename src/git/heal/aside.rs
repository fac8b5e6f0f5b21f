//! Putting a damaged repository aside, once for one cause, and what to stand on after it.
//!
//! Nothing of it is deleted. What it was put aside for is written beside it, so that damage that comes again, from a disk or
//! from the remote, does not fill the disk with copies, one at each restart of a container.

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

/// Beside a repository that was put aside, what it was put aside for.
const CAUSE: &str = "gitsync-cause";

/// Names the folder of `broken/` that a repository is being moved to.
const PUTTING_ASIDE: &str = "putting-aside";

/// Puts a damaged repository aside whole, and begins a new one with its configuration.
///
/// # Errors
/// [`Kind::NotReady`] where one is put aside already for the same damage, and those of the file system.
pub fn begin_anew(place: &Place, held: &Held, branch: &str, when: DateTime<Utc>, damage: &Damage) -> Result<(), Error> {
    let private = PrivateDir::of(&place.git_dir);
    put_aside(place, &private, held, when, damage)?;
    init(place, branch)
}

/// The names in a repository's folder, without our own.
pub(super) fn names_in(git_dir: &Path) -> Result<Vec<OsString>, Error> {
    let entries = files::entries(git_dir).context(format!("reading {}", git_dir.display()))?;
    Ok(entries.iter().map(|entry| entry.name().to_owned()).filter(|name| name != "gitsync").collect())
}

/// Puts everything but our private folder into a folder of `broken/`, once for one cause.
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
            // A pass was killed before it moved anything here; with anything else in it, it is not ours to remove.
            remove_if_there(&old.join(CAUSE)).context(doing)?;
            let _ = fs::remove_dir(&old);
        } else if files::read_to_string(&old.join(CAUSE)).is_ok_and(|cause| cause.trim_end() == damage.cause) {
            let what =
                format!("the repository is damaged again ({}), as when {} was put aside", damage.what, old.display());
            let next = format!(
                "it is not put aside a second time for the same cause: see whether the disk, the memory or the remote \
                 brings the damage, then remove {} and run `gitsync init-sync`",
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
    tracing::warn!(kept = %aside.display(), "the repository is damaged ({}): put aside, to be fetched anew", damage.what);
    fs::write(aside.join(CAUSE), format!("{}\n", damage.cause)).context(doing)?;
    fs::File::open(aside.join(CAUSE)).and_then(|file| file.sync_all()).context(doing)?;
    sync_dir(&aside).context(doing)?;
    sync_dir(&all).context(doing)?;
    let name = aside.file_name().unwrap_or_default().as_bytes();
    private.write_durably(PUTTING_ASIDE, name).context(doing)?;
    move_aside(place, private, &aside)
}

/// Goes on with putting a repository aside where an earlier pass was killed in it, so that there is one copy and not two.
pub(super) fn finish_putting_aside(place: &Place, private: &PrivateDir) -> Result<(), Error> {
    let doing = "finishing to put a damaged repository aside";
    let Some(name) = private.read(PUTTING_ASIDE).context(doing)? else { return Ok(()) };
    let aside = private.file(BROKEN).join(OsStr::from_bytes(&name));
    // HEAD goes first. Where it is in its old place alone nothing has gone, and the damage has to be proven again. It may be in
    // both, where a power loss came between the two folders.
    let begun = aside.join("HEAD").exists() || !names_in(&place.git_dir)?.iter().any(|name| name == "HEAD");
    let known = !name.is_empty() && !name.contains(&b'/') && aside.is_dir();
    if known && begun {
        return move_aside(place, private, &aside);
    }
    if known {
        remove_if_there(&aside.join(CAUSE)).context(doing)?;
        // With anything in it, it is not ours to remove.
        let _ = fs::remove_dir(&aside);
    }
    private.remove_durably(PUTTING_ASIDE).map(drop).context(doing)
}

fn move_aside(place: &Place, private: &PrivateDir, aside: &Path) -> Result<(), Error> {
    let doing = "putting the damaged repository aside";
    // HEAD first: without it what remains is plainly no repository, should we be killed in between.
    let mut names = vec![OsString::from("HEAD")];
    names.extend(names_in(&place.git_dir)?);
    for name in names {
        let mut to = aside.join(&name);
        // A folder that a power loss left in both places does not replace the other.
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
    // What an earlier pass meant to follow went with the repository that had it.
    private.remove_durably(crate::git::checkout::INTENT).context(doing)?;
    private.remove_durably(PUTTING_ASIDE).map(drop).context(doing)
}

impl Repo {
    /// The newest commit that the branch had in a repository put aside and that can be read whole here: carried over from there.
    ///
    /// # Errors
    /// Where this repository can't be read.
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

    /// Whether `ours` is a history that began here, on a branch without a commit, because the remote's could not be had. No push
    /// may force it over the remote's.
    ///
    /// # Errors
    /// Where history can't be read.
    pub fn began_beside(&self, ours: CommitId, theirs: CommitId) -> Result<bool, Error> {
        Ok(self.private.file(BEGUN).symlink_metadata().is_ok() && !self.are_related(ours, theirs)?)
    }

    /// Notes that the repository has a history that may be pushed: the remote's, or one begun where that has none.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn has_a_history(&self) -> Result<(), Error> {
        self.private.remove_durably(BEGUN).map(drop).context("noting that the repository has a history")
    }
}

/// Where a branch stood, newest first: its reference, then what its log says.
fn positions(old: &Path, branch: &str) -> Vec<CommitId> {
    let read = |name: &str| files::read(&old.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut words: Vec<String> = read(branch).into_iter().collect();
    let packed = read("packed-refs").unwrap_or_default();
    words.extend(packed.lines().filter_map(|line| line.strip_suffix(&format!(" {branch}"))).map(str::to_owned));
    let log = read(&format!("logs/{branch}")).unwrap_or_default();
    words.extend(log.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned));
    words.iter().filter_map(|word| CommitId::from_str(word.trim()).ok()).filter(|id| !id.is_zero()).collect()
}
