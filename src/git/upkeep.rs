//! Decides when a repository is due for `git gc`.
//!
//! Every tick adds loose objects and every fetch adds a pack, a hundred thousand objects a year, and libgit2 never
//! collects them. `git gc --auto` does. Whether it would is decided here by git's own rules, so that a tick need not
//! start git to find out that nothing is due.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Repo;
use super::heal::live_git;
use crate::fs::files;
use crate::state::dir::remove_if_there;

/// git's default for `gc.auto`, in loose objects.
const LOOSE: i64 = 6700;

/// git's default for `gc.autoPackLimit`, in packs.
const PACKS: i64 = 50;

/// An unfinished pack that has not been written to for this long belongs to a git that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

impl Repo {
    /// Removes unfinished packs of a git that was killed, except those in `spared`. git itself waits two weeks.
    /// Meanwhile, if a repository is too large for gc's time limit, each gc would leave another unfinished pack, until
    /// the disk is full.
    ///
    /// Packs written to within the last hour stay, unless `recent_too` says that no process is writing them.
    pub fn clear_half_packed(&self, spared: &BTreeSet<PathBuf>, recent_too: bool) {
        for path in self.half_packed().difference(spared) {
            let Ok(meta) = path.symlink_metadata() else { continue };
            let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            let abandoned = recent_too || age.is_some_and(|age| age >= ABANDONED_AFTER);
            if !abandoned || live_git(&self.place, path).is_some() {
                continue;
            }
            match remove_if_there(path) {
                Ok(_) => tracing::info!(file = %path.display(), "removed what an interrupted gc left"),
                Err(error) => tracing::warn!("what an interrupted gc left stays: {}: {error}", path.display()),
            }
        }
    }

    /// The temporary files of packs that git is writing, or was writing when it was killed.
    pub fn half_packed(&self) -> BTreeSet<PathBuf> {
        let entries = files::entries_if_any(&self.place.git_dir.join("objects/pack"));
        let is_one = |name: &str| name.starts_with("tmp_") || name.starts_with(".tmp-");
        entries.iter().filter(|it| it.name().to_str().is_some_and(is_one)).map(files::Entry::path).collect()
    }

    /// Returns whether `git gc --auto` would pack: if there are more loose objects than `gc.auto` (estimated, as git
    /// does, from one of the 256 folders) or more packs than `gc.autoPackLimit`. Never if `gc.auto` or
    /// `maintenance.auto` turns it off.
    pub fn is_due_for_gc(&self) -> bool {
        let Ok(config) = self.config() else { return false };
        let loose = config.get_i64("gc.auto").unwrap_or(LOOSE);
        let packs = config.get_i64("gc.autopacklimit").unwrap_or(PACKS);
        if loose <= 0 || !config.get_bool("maintenance.auto").unwrap_or(true) {
            return false;
        }
        let objects = self.place.git_dir.join("objects");
        let count = |folder: &str, counts: &dyn Fn(&str) -> bool| {
            let entries = files::entries_if_any(&objects.join(folder));
            let found = entries.iter().filter(|entry| entry.name().to_str().is_some_and(counts)).count();
            i64::try_from(found).unwrap_or(i64::MAX)
        };
        let is_object = |name: &str| name.len() == 38 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_pack = |name: &str| {
            name.strip_suffix(".pack").is_some_and(|stem| !objects.join("pack").join(format!("{stem}.keep")).exists())
        };
        count("17", &is_object) > loose.saturating_add(255) / 256 || (packs > 0 && count("pack", &is_pack) > packs)
    }

    /// The command that packs. It does not return before it has finished: nothing may continue without the lock.
    pub fn gc_command(&self) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec!["git".into()];
        for setting in [
            "gc.autoDetach=false",
            // It removes objects after writing them elsewhere, and the new copy must be on disk first.
            "core.fsync=all",
            // Do not run the local repository's hooks.
            "core.hooksPath=/dev/null",
            // gitsync does not read one.
            "gc.writeCommitGraph=false",
        ] {
            command.extend(["-c".into(), setting.into()]);
        }
        let mut git_dir = OsString::from("--git-dir=");
        git_dir.push(&self.place.git_dir);
        command.extend([git_dir, "gc".into(), "--auto".into(), "--quiet".into()]);
        command
    }
}
