//! Starts a new repository with a person's configuration from the one that was put aside.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CARRIED, broken};
use crate::error::{Context, Error};
use crate::git::Place;
use crate::state::dir::{PrivateDir, remove_if_there, sync_dir};

/// Marks a new repository that has not had the remote's history yet: a commit in it may start an unrelated history.
pub(super) const BEGUN: &str = "begun";

#[allow(clippy::disallowed_methods)]
pub(super) fn init(place: &Place, branch: &str) -> Result<(), Error> {
    PrivateDir::of(&place.git_dir).write_durably(BEGUN, b"").context("starting a new repository")?;
    // Before HEAD exists: after a kill in between, this repository is put aside too, and its files are taken over from
    // there.
    take_over(place)?;
    let mut options = git2::RepositoryInitOptions::new();
    options.initial_head(branch).external_template(false).mkdir(false);
    git2::Repository::init_opts(place.home(), &options)
        .context(format!("making a repository in {}", place.work_dir.display()))?;
    for name in ["HEAD", "config", "objects", "refs", ""] {
        fs::File::open(place.git_dir.join(name)).and_then(|it| it.sync_all()).context("waiting for the disk")?;
    }
    Ok(())
}

/// Takes over a person's configuration, and the index, from a repository that was put aside.
///
/// Only the old index knows which files git tracked. Without it, what the remote has removed since would stay in the
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
                fs::create_dir_all(parent).context(doing)?;
            }
            // Completely or not at all: half a configuration would look like a person's mistake.
            let fresh = to.with_extension("gitsync.lock");
            remove_if_there(&fresh).context(doing)?;
            // A power loss may have left libgit2's own lock on the new index.
            remove_if_there(&fresh.with_extension("lock.lock")).context(doing)?;
            if name == "index" {
                take_over_index(&old.join(name), &fresh).context("taking over the index")?;
            } else {
                fs::copy(old.join(name), &fresh).context(doing)?;
            }
            fs::File::open(&fresh).and_then(|file| file.sync_all()).context(doing)?;
            fs::rename(&fresh, &to).context(doing)?;
            to.parent().map_or(Ok(()), sync_dir).context(doing)?;
        }
    }
    // On disk before HEAD exists: a repository with HEAD and no index no longer knows which files git tracked.
    sync_dir(&place.git_dir).context(doing)
}

/// Copies the index entry by entry, because the whole file also refers to trees that stayed with the damaged
/// repository.
fn take_over_index(from: &Path, to: &Path) -> Result<(), git2::Error> {
    const STAGE: u16 = 0x3000;
    let (old, mut new) = (git2::Index::open(from)?, git2::Index::open(to)?);
    for mut entry in old.iter() {
        // Of a conflict, keep one side: only the path matters here.
        entry.flags &= !STAGE;
        new.add(&entry)?;
    }
    new.write()
}
