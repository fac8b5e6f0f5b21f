//! Lets go, after `--keep-rescues`, of rescues and of what was put aside in the private folder.
//!
//! Nothing is let go because of a single reading of the clock: see [`super::ages`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ages::{self, Ages};
use super::{Repo, heal, place};
use crate::clock::Reading;
use crate::error::{Context, Error};
use crate::fs::files;
use crate::rescued::{RescueRef, time_at_start};
use crate::state::dir::{PrivateDir, sync_dir};

/// Subfolders of the private folder that hold one entry for each item put aside.
const FOLDERS: [&str; 4] = [heal::BROKEN, place::ASIDE, heal::EMPTY_OBJECTS, heal::DAMAGED_REFS];

/// The prefixes of single files that were put aside.
const FILES: [&str; 2] = [heal::DAMAGED_CONFIG, heal::DAMAGED_INDEX];

/// Where an item is moved before it is removed. If it were half removed in its own place, it would look damaged.
const GOING: &str = "let-go";

/// An item that is kept for a time.
struct Kept {
    /// Its name in the ledger.
    key: String,
    stamp: Option<chrono::DateTime<chrono::Utc>>,
    what: What,
}

enum What {
    Rescue(RescueRef),
    Aside(PathBuf),
}

impl Repo {
    /// Lets go of what was kept for `keep`: rescues, and what was put aside. For a repository put aside, the time
    /// starts when everything in it was carried over; until then it stays.
    ///
    /// # Errors
    /// If references or the private folder can't be read or written. Everything else that is due is let go all the
    /// same.
    pub fn let_go(&self, keep: Duration, now: &Reading) -> Result<(), Error> {
        self.private.check().context("letting go of what was put aside")?;
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let kept = self.kept()?;
        let before = Ages::read(&self.private);
        if kept.is_empty() && before.is_empty() {
            return finish_going(&self.private);
        }
        let mut ages = before.clone();
        let agreed = ages.take_in(now, keep);
        ages.note(kept.iter().map(|kept| kept.key.as_str()));
        let mut done = finish_going(&self.private);
        let is_old = |kept: &&Kept| {
            let by_name = kept.stamp.is_none_or(|stamp| ages::is_old_by_name(stamp, now.wall, keep));
            by_name && ages.is_kept_for(&kept.key, keep)
        };
        let old: Vec<&Kept> = kept.iter().filter(|_| agreed).filter(is_old).collect();
        for kept in old {
            match self.drop_kept(kept) {
                Ok(()) => ages.forget(&kept.key),
                Err(error) => done = Err(error),
            }
        }
        if ages != before {
            ages.write(&self.private).context("recording how long things have been kept")?;
        }
        done
    }

    fn drop_kept(&self, kept: &Kept) -> Result<(), Error> {
        match &kept.what {
            What::Rescue(name) => {
                let mut reference = self.git.find_reference(name.name()).context(format!("reading {name}"))?;
                reference.delete().context(format!("removing {name}"))?;
                tracing::info!(rescue = %name, "let go of a rescue that was kept long enough");
            }
            What::Aside(path) => {
                let doing = format!("removing {}", path.display());
                finish_going(&self.private)?;
                fs::rename(path, self.private.file(GOING)).context(&doing)?;
                sync_dir(self.private.path()).context(&doing)?;
                if let Some(folder) = path.parent().filter(|folder| *folder != self.private.path()) {
                    sync_dir(folder).context(&doing)?;
                    // This fails, as it should, while the folder holds something else.
                    let _ = fs::remove_dir(folder);
                }
                tracing::info!(path = %path.display(), "let go of what was put aside and kept long enough");
                finish_going(&self.private)?;
            }
        }
        Ok(())
    }

    /// Everything that is kept for a time.
    fn kept(&self) -> Result<Vec<Kept>, Error> {
        let mut all = Vec::new();
        for (name, commit) in self.rescues()? {
            // A reference with a name that gitsync did not make is not gitsync's to remove.
            let Some(stamp) = name.since() else { continue };
            // Moved to another commit by hand it keeps something new.
            all.push(Kept { key: format!("{name} {commit}"), stamp: Some(stamp), what: What::Rescue(name) });
        }
        for folder in FOLDERS {
            // What a link leads to is not gitsync's to remove.
            if fs::symlink_metadata(self.private.file(folder)).is_ok_and(|meta| meta.is_dir()) {
                let not_carried = |path: &PathBuf| folder == heal::BROKEN && !path.join(heal::CARRIED).exists();
                all.extend(
                    self.entries(folder)?.into_iter().filter(|path| !not_carried(path)).map(|path| self.aside(path)),
                );
            }
        }
        let is_one = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            FILES.iter().any(|file| name.strip_prefix(file).is_some_and(|rest| rest.chars().all(|c| c == '+')))
        };
        all.extend(self.entries("")?.into_iter().filter(is_one).map(|path| self.aside(path)));
        Ok(all)
    }

    fn entries(&self, folder: &str) -> Result<Vec<PathBuf>, Error> {
        let folder = self.private.file(folder);
        let doing = || format!("reading {}", folder.display());
        files::entries(&folder).map(|all| all.iter().map(files::Entry::path).collect()).context(doing())
    }

    fn aside(&self, path: PathBuf) -> Kept {
        let inner = path.strip_prefix(self.private.path()).unwrap_or(&path);
        let key = inner.as_os_str().as_encoded_bytes().escape_ascii().to_string();
        let stamp = path.file_name().and_then(|name| time_at_start(&name.to_string_lossy()));
        Kept { key, stamp, what: What::Aside(path) }
    }
}

/// Finishes a removal that an earlier pass was killed in.
fn finish_going(private: &PrivateDir) -> Result<(), Error> {
    let going = private.file(GOING);
    remove_all(&going).map_err(|error| {
        let error = Error::io(format!("removing {}", going.display()), &error);
        Error {
            next: format!("remove it by hand: it was kept long enough, and nothing needs it; {}", error.next),
            ..error
        }
    })
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => files::remove_folder(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
