//! Refuses a FIFO, a socket or a device where git looks for a file.
//!
//! libgit2 opens whatever it finds and blocks forever on a FIFO, while we hold the lock. So each pass first checks
//! exactly the files that will be opened: those of the repository and of git's configuration here, `.gitignore` and
//! `.gitattributes` in `rules.rs`. What it finds is named, and nothing is touched.

use std::path::{Path, PathBuf};

use super::{Names, Place, Repo};
use crate::error::{Error, Kind};
use crate::fs::files;

/// How deep nested includes are followed; the same limit as git's.
const DEEPEST_INCLUDE: usize = 10;

/// What libgit2 or a pass opens in `.git`, if it exists.
const IN_GIT_DIR: [&str; 17] = [
    "config",
    "config.worktree",
    "HEAD",
    "index",
    "packed-refs",
    "shallow",
    "commondir",
    "FETCH_HEAD",
    "ORIG_HEAD",
    "MERGE_HEAD",
    "info/exclude",
    "info/attributes",
    "info/grafts",
    "objects/info/alternates",
    "objects/info/commit-graph",
    "objects/pack/multi-pack-index",
    "logs/HEAD",
];

/// Refuses a repository in which a FIFO, a socket or a device is at the path of a file. This takes about forty system
/// calls.
///
/// # Errors
/// [`Kind::NotReady`], which names it.
pub(crate) fn check_files(place: &Place, names: &Names) -> Result<(), Error> {
    let git_dir = &place.git_dir;
    let branch = format!("refs/heads/{}", names.branch);
    let seen = format!("refs/remotes/{}/{}", names.remote, names.branch);
    let logs = [format!("logs/{branch}"), format!("logs/{seen}")];
    let here = IN_GIT_DIR.iter().copied().chain([&*branch, &*seen]).chain(logs.iter().map(String::as_str));
    for path in here.map(|name| git_dir.join(name)) {
        check(&path, "remove it; if git needs the file, `gitsync init-sync` makes it again")?;
    }
    for folder in ["objects/pack", "refs/gitsync"] {
        if let Some(path) = files::special_below(&git_dir.join(folder)) {
            check(&path, "remove it: git keeps only files there")?;
        }
    }
    let shared = [git2::Config::find_system(), git2::Config::find_xdg(), git2::Config::find_global()];
    let mine = [git_dir.join("config"), git_dir.join("config.worktree")];
    for config in shared.into_iter().flatten().chain(mine) {
        check_config(&config, place, 0)?;
    }
    for (level, name) in [
        (git2::ConfigLevel::XDG, "ignore"),
        (git2::ConfigLevel::XDG, "attributes"),
        (git2::ConfigLevel::System, "gitattributes"),
    ] {
        for folder in folders(&crate::ffi::search_path(level)) {
            check(&folder.join(name), "remove it: git looks for rules there")?;
        }
    }
    Ok(())
}

/// Refuses special files among the references, which a walk over all references would open.
///
/// # Errors
/// [`Kind::NotReady`], which names it.
pub(crate) fn check_all_refs(place: &Place) -> Result<(), Error> {
    for folder in ["refs", "logs"] {
        if let Some(path) = files::special_below(&place.git_dir.join(folder)) {
            check(&path, "remove it: git keeps only files there")?;
        }
    }
    Ok(())
}

impl Repo {
    /// Repeats the checks made when the repository was opened: a job may have put anything anywhere.
    ///
    /// # Errors
    /// [`Kind::NotReady`], which names it.
    pub fn check_files(&self) -> Result<(), Error> {
        check_files(&self.place, &self.names)
    }

    /// Refuses special files among the rules files outside the work tree that the configuration names.
    ///
    /// # Errors
    /// [`Kind::NotReady`], which names the file and the setting.
    pub(crate) fn check_configured_files(&self) -> Result<(), Error> {
        let Ok(config) = self.git.config() else { return Ok(()) };
        for key in ["core.excludesfile", "core.attributesfile"] {
            if let Ok(path) = config.get_path(key) {
                check(&self.place.work_dir.join(path), &format!("correct {key} in git's configuration"))?;
            }
        }
        Ok(())
    }
}

/// The files outside the work tree in which git looks for attributes.
pub(super) fn attribute_files(repo: &Repo, config: &git2::Config) -> Vec<PathBuf> {
    let in_folders = |level, name: &'static str| {
        folders(&crate::ffi::search_path(level)).into_iter().map(move |folder| folder.join(name))
    };
    let mut files: Vec<PathBuf> = in_folders(git2::ConfigLevel::XDG, "attributes").collect();
    files.extend(in_folders(git2::ConfigLevel::System, "gitattributes"));
    files.push(repo.git.commondir().join("info/attributes"));
    files.extend(config.get_path("core.attributesfile").map(|path| repo.place.work_dir.join(path)));
    files
}

fn check(path: &Path, next: &str) -> Result<(), Error> {
    match files::special(path) {
        None => Ok(()),
        Some(kind) => {
            let what = format!("{} is {kind}, and git looks for a file there; nothing was touched", path.display());
            Err(Error::new(Kind::NotReady, what, next))
        }
    }
}

/// Checks a configuration file and every file it includes. Conditions of includes are ignored: all files that may be
/// included are checked.
fn check_config(path: &Path, place: &Place, depth: usize) -> Result<(), Error> {
    check(path, "remove it, or correct the include that names it")?;
    if depth > DEEPEST_INCLUDE {
        return Ok(());
    }
    let Ok(text) = files::read(path) else { return Ok(()) };
    for included in includes(&String::from_utf8_lossy(&text)) {
        let folder = path.parent().unwrap_or(&place.git_dir);
        let included = match included.strip_prefix("~/") {
            Some(rest) => {
                folders(&crate::ffi::search_path(git2::ConfigLevel::Global)).first().map(|home| home.join(rest))
            }
            None => Some(folder.join(included)),
        };
        if let Some(included) = included {
            check_config(&included, place, depth + 1)?;
        }
    }
    Ok(())
}

/// The paths that a configuration file includes.
fn includes(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut rest = line;
        if let Some(section) = line.strip_prefix('[') {
            inside = section.to_ascii_lowercase().starts_with("include");
            // A setting may be on the same line as its section.
            rest = section.rsplit_once(']').map_or("", |(_, rest)| rest).trim();
        }
        let Some((key, value)) = rest.split_once('=').filter(|_| inside) else { continue };
        if key.trim().eq_ignore_ascii_case("path") {
            found.push(value.trim().trim_matches('"').replace("\\\\", "\\"));
        }
    }
    found
}

/// The folders in a search path, in order.
fn folders(list: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let folder = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    list.split(|byte| *byte == b':').filter(|one| !one.is_empty()).map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_included_is_found_as_git_writes_it() {
        let text = "[user]\n\tpath = no\n[include]\n\tpath = a\n\tPath=\"b c\"\n[includeIf \"gitdir:~/x/\"] path = d\n[core]\n\tpath = no\n";
        assert_eq!(includes(text), ["a", "b c", "d"]);
    }
}
