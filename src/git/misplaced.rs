//! Sets aside a folder where git keeps a file, or a file where git keeps a folder (`init-sync` only).
//!
//! A job, a person or a broken disk can cause this, and no pass can continue then: what it has to write there can't be
//! written. A reference in the place of a folder of references keeps its commit, under a name beside that folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::heal::{DAMAGED_REFS, is_commit_id, replace_file};
use super::{Names, Place};
use crate::error::{Context, Error};
use crate::fs::files;
use crate::state::dir::{PrivateDir, sync_dir};
use crate::state::lock::Held;

const FILES: [&str; 5] = ["HEAD", "config", "index", "packed-refs", "shallow"];

/// Each folder comes after its parent.
const FOLDERS: [&str; 16] = [
    "info",
    "logs",
    "logs/refs",
    "logs/refs/gitsync",
    "logs/refs/gitsync/rescue",
    "logs/refs/heads",
    "logs/refs/remotes",
    "objects",
    "objects/info",
    "objects/pack",
    "refs",
    "refs/gitsync",
    "refs/gitsync/rescue",
    "refs/heads",
    "refs/remotes",
    "refs/tags",
];

/// Sets aside what is of the wrong type, and those lines of `shallow` that are not commit ids.
///
/// # Errors
/// [`super::Kind::NotReady`] for a repository in a format that can't be read; otherwise if the file system fails.
pub fn set_aside_misplaced(place: &Place, names: &Names, _held: &Held) -> Result<(), Error> {
    let git_dir = &place.git_dir;
    // With references in another format, git itself keeps a file at refs/heads.
    super::check_format(git_dir)?;
    let private = PrivateDir::of(git_dir);
    for name in FILES {
        if git_dir.join(name).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            set_aside(git_dir, &private, name, "set aside a folder at a path where git keeps a file")?;
        }
    }
    let remote = &names.remote;
    let of_remote = [format!("logs/refs/remotes/{remote}"), format!("refs/remotes/{remote}")];
    for name in FOLDERS.into_iter().chain(of_remote.iter().map(String::as_str)) {
        let path = git_dir.join(name);
        // A link to a folder is fine. A link that leads nowhere is left alone too: a disk may not be mounted.
        if path.metadata().is_ok_and(|meta| meta.is_file()) && path.symlink_metadata().is_ok_and(|meta| meta.is_file())
        {
            move_file(git_dir, &private, name)?;
        }
    }
    repair_shallow(git_dir, &private)
}

fn move_file(git_dir: &Path, private: &PrivateDir, name: &str) -> Result<(), Error> {
    let path = git_dir.join(name);
    let content = files::read(&path).context(format!("reading {}", path.display()))?;
    if !name.starts_with("refs/") || !is_commit_id(String::from_utf8_lossy(&content).trim()) {
        return set_aside(git_dir, private, name, "set aside a file at a path where git keeps a folder");
    }
    let mut beside = path.as_os_str().to_owned();
    while {
        beside.push("-was");
        Path::new(&beside).symlink_metadata().is_ok()
    } {}
    fs::rename(&path, &beside).context(format!("renaming the reference {name}"))?;
    path.parent().map_or(Ok(()), sync_dir).context(format!("renaming the reference {name}"))?;
    let renamed = PathBuf::from(beside);
    let to = renamed.strip_prefix(git_dir).unwrap_or(&renamed);
    tracing::warn!(reference = name, to = %to.display(), "renamed a reference at a path where git keeps a folder of references");
    Ok(())
}

fn set_aside(git_dir: &Path, private: &PrivateDir, name: &str, why: &str) -> Result<(), Error> {
    let doing = || format!("setting {name} aside");
    private.folder(DAMAGED_REFS).context(doing())?;
    let kept = private.free_file(&format!("{DAMAGED_REFS}/{}", name.replace('/', "+")));
    let path = git_dir.join(name);
    fs::rename(&path, &kept).context(doing())?;
    path.parent().map_or(Ok(()), sync_dir).context(doing())?;
    tracing::warn!(path = %path.display(), kept = %kept.display(), "{why}");
    Ok(())
}

/// git and libgit2 refuse a repository if one line of its `shallow` is not a commit id. If the lost line was a real
/// root, the next check finds damaged history.
fn repair_shallow(git_dir: &Path, private: &PrivateDir) -> Result<(), Error> {
    let doing = "reading the list of shallow roots";
    let path = git_dir.join("shallow");
    let content = match files::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        content => content.context(doing)?,
    };
    let text = String::from_utf8_lossy(&content);
    let (good, bad): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| is_commit_id(line));
    if bad.is_empty() {
        return Ok(());
    }
    set_aside(git_dir, private, "shallow", "set aside a list of shallow roots that git can't read")?;
    if good.is_empty() { Ok(()) } else { replace_file(&path, &good.join("\n")).context(doing) }
}
