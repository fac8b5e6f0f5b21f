//! Which folders may be a public dir. Publishing replaces everything in it, so every folder that may hold anything else is refused,
//! with the reason.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::{Site, Way};
use crate::error::{Error, Kind};

/// Folders of the system and of its users. (A subfolder may well hold a site.)
const SYSTEM: [&str; 17] = [
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp",
    "/usr", "/var", "/Users", "/System",
];

/// What a public dir must not overlap with.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The work tree. It need not exist yet.
    pub repo: &'a Path,
    /// The repository's git folder. It need not exist yet.
    pub git_dir: &'a Path,
    /// The private folder. It need not exist yet.
    pub private_dir: &'a Path,
    /// The paths that a tick commits, absolute or relative to the work tree.
    pub paths: &'a [PathBuf],
    /// The user's home folder.
    pub home: Option<&'a Path>,
}

const ITS_OWN: &str = "publishing removes everything in it; give it a folder of its own";

// In the errors below, `what` continues a sentence that begins with the public dir.

fn is_a_link() -> Error {
    Error::usage("is a symbolic link", "give it the folder that the link leads to")
}

/// `file`: the public dir or one of its parents, which is not a folder.
fn not_a_folder(file: &Path) -> Error {
    Error::usage(format!("can't be a folder, since {} is not one", file.display()), "give it another name")
}

/// The public dir, or the parent in which it would be created, can't be written to.
fn unwritable(path: &Path, error: &io::Error) -> Error {
    let kind = if is_passing(error) { Kind::Retry } else { Kind::Usage };
    Error::new(kind, format!("can't be written to: {}: {error}", path.display()), "let this user write to it")
}

/// The public dir can't be read.
pub(super) fn unknown(error: io::Error) -> Error {
    let kind = if is_passing(&error) { Kind::Retry } else { Kind::Person };
    Error::new(kind, format!("can't be looked at: {error}"), "check what is there")
}

/// Whether the system could not answer now, which is not the fault of the given folder.
fn is_passing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Checks that this folder may be published to. Changes nothing; the folder need not exist yet. A relative path is relative to
/// the current folder.
///
/// # Errors
/// A usage error with the reason. [`Kind::Person`] or [`Kind::Retry`] if the folder can't be read.
pub fn check(public_dir: &Path, around: &Surroundings<'_>, way: Way) -> Result<Site, Error> {
    look_at(public_dir, around, way)
        .map_err(|error| Error { what: format!("the public dir {} {}", public_dir.display(), error.what), ..error })
}

fn look_at(given: &Path, around: &Surroundings<'_>, way: Way) -> Result<Site, Error> {
    if given.as_os_str().is_empty() {
        return Err(Error::usage("is an empty path", "give a folder, or leave the option out"));
    }
    let public = settle(given)?;
    let repo = settle_or_take(around.repo);
    let private_dir = settle_or_take(around.private_dir);
    let git = settle_or_take(around.git_dir);

    if public.parent().is_none() || SYSTEM.iter().any(|system| Path::new(system) == public) {
        return Err(Error::usage("is a folder of the system", ITS_OWN));
    }
    if ["/proc", "/sys", "/dev"].iter().any(|system| public.starts_with(system) && !public.starts_with("/dev/shm")) {
        return Err(Error::usage("is a folder of the system", ITS_OWN));
    }
    if holds(&public, &repo)? || holds(&public, &git)? {
        return Err(Error::usage("is the repository or holds it", ITS_OWN));
    }
    if let Some(home) = around.home
        && holds(&public, &settle_or_take(home))?
    {
        return Err(Error::usage("is the home folder or holds it", ITS_OWN));
    }
    if holds(&git, &public)? || holds(&repo.join(".git"), &public)? {
        return Err(Error::usage("lies inside the repository's git folder", "give it a folder outside of that"));
    }
    for path in around.paths {
        let tracked = settle_or_take(&repo.join(path));
        if holds(&tracked, &public)? {
            return Err(Error::usage(
                format!("lies inside {}, which each tick commits", path.display()),
                "give it a folder outside of that, or change --path",
            ));
        }
        if holds(&public, &tracked)? {
            return Err(Error::usage(
                format!("holds {}, which each tick commits and publishing would remove", path.display()),
                "give it a folder of its own, or change --path",
            ));
        }
    }
    if let Some(mount) = mount_points()?.into_iter().find(|mount| *mount != public && mount.starts_with(&public)) {
        return Err(Error::usage(
            format!("holds {}, where something is mounted", mount.display()),
            "give it that folder, or one without mounts in it",
        ));
    }
    let there = public.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match fs::metadata(there) {
        Ok(it) if !it.is_dir() => return Err(not_a_folder(there)),
        Ok(_) => {}
        Err(error) => return Err(unknown(error)),
    }
    match rustix::fs::accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Not every system supports this check.
        Ok(()) | Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(unwritable(there, &error.into())),
    }
    Ok(Site { public_dir: public, private_dir, way })
}

/// The absolute path without links. The last component must not be a link; it and its parents may be missing.
fn settle(given: &Path) -> Result<PathBuf, Error> {
    // Rebuilt from its components: with a slash at the end, a link would be followed.
    let whole: PathBuf = std::path::absolute(given).map_err(unknown)?.components().collect();
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        // The root, or a path that ends in `..`.
        return whole.canonicalize().map_err(unknown);
    };
    if if_there(fs::symlink_metadata(&whole))?.is_some_and(|it| it.is_symlink()) {
        return Err(is_a_link());
    }
    let mut there = parent;
    loop {
        match there.canonicalize() {
            Ok(settled) => {
                let missing = parent.strip_prefix(there).unwrap_or(Path::new(""));
                if missing.components().any(|it| it == Component::ParentDir) {
                    return Err(unknown(io::ErrorKind::NotFound.into()));
                }
                return Ok(settled.join(missing).join(name));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A dangling link exists nevertheless.
                if fs::symlink_metadata(there).is_ok() {
                    return Err(is_a_link());
                }
                there = there.parent().unwrap_or(Path::new("/"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let file = there.ancestors().find(|it| it.is_file()).unwrap_or(there);
                return Err(not_a_folder(file));
            }
            Err(error) => return Err(unknown(error)),
        }
    }
}

/// The same for a folder that is not checked here; if it can't be resolved, it is taken as it is.
fn settle_or_take(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| settle(path)).unwrap_or_else(|_| path.to_owned())
}

/// Whether `outer` is `inner` or a parent of it: by name or, since a folder may be mounted in two places, by device and inode.
fn holds(outer: &Path, inner: &Path) -> Result<bool, Error> {
    if inner.starts_with(outer) {
        return Ok(true);
    }
    let Some(outer) = identity(outer)? else { return Ok(false) };
    for it in inner.ancestors() {
        if identity(it)? == Some(outer) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn identity(path: &Path) -> Result<Option<(u64, u64)>, Error> {
    Ok(if_there(fs::metadata(path))?.map(|it| (it.dev(), it.ino())))
}

/// `None` if there is nothing. Any other failure is an error: what can't be read may be anything, even the repository.
fn if_there<T>(found: io::Result<T>) -> Result<Option<T>, Error> {
    match found {
        Ok(it) => Ok(Some(it)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => Ok(None),
        Err(error) => Err(unknown(error)),
    }
}

/// All mount points, if the system lists them.
fn mount_points() -> Result<BTreeSet<PathBuf>, Error> {
    let table = if_there(fs::read("/proc/self/mountinfo"))?.unwrap_or_default();
    let points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
        .collect();
    Ok(points)
}

/// Resolves escapes: a blank is written as `\040` in the table.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, later)) = rest.split_first() {
        let octal = later.get(..3).filter(|_| *first == b'\\').and_then(|it| std::str::from_utf8(it).ok());
        match octal.and_then(|it| u8::from_str_radix(it, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &later[3..];
            }
            None => {
                plain.push(*first);
                rest = later;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::io::Errno;

    use super::{unescaped, unknown, unwritable};
    use crate::error::Kind;

    #[test]
    fn what_the_system_could_not_answer_now_is_tried_again() {
        for errno in [Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert_eq!(unknown(errno.into()).kind, Kind::Retry, "{errno}");
            assert_eq!(unwritable(Path::new("/x"), &errno.into()).kind, Kind::Retry, "{errno}");
        }
        assert_eq!(unknown(Errno::ACCESS.into()).kind, Kind::Person);
        assert_eq!(unwritable(Path::new("/x"), &Errno::ACCESS.into()).kind, Kind::Usage);
    }

    #[test]
    fn a_mount_point_may_have_blanks_in_its_name() {
        assert_eq!(unescaped(br"/srv/my\040site\134x"), br"/srv/my site\x");
        assert_eq!(unescaped(br"/srv/\9"), br"/srv/\9");
    }
}
