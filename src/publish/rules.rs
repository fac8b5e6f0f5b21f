//! Which folders may be a public dir. Publishing replaces all that is in it, so each that could hold anything else is
//! refused, with the reason.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::{Site, Way};

/// Folders that hold a system or its users. (Their subfolders may well hold a site.)
const SYSTEM: [&str; 17] = [
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp",
    "/usr", "/var", "/Users", "/System",
];

/// What a public dir must keep clear of.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The work tree. It need not exist yet.
    pub repo: &'a Path,
    /// The repository's git folder. It need not exist yet.
    pub git_dir: &'a Path,
    /// The private folder. It need not exist yet.
    pub private_dir: &'a Path,
    /// What a tick commits, absolute or relative to the work tree.
    pub paths: &'a [PathBuf],
    /// The user's home folder.
    pub home: Option<&'a Path>,
}

/// A folder that may not be a public dir: a mistake in the settings.
#[derive(Debug)]
pub struct Refusal {
    /// Which folder, and why not.
    pub what: String,
    /// What to give instead.
    pub next: String,
    /// Why not.
    pub reason: Reason,
}

/// Why a folder may not be a public dir.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// No folder at all.
    Empty,
    /// The root, or a folder that holds a system.
    System,
    /// The user's home, or a parent of it.
    Home,
    /// The repository or a parent of it.
    HoldsRepository,
    /// Inside the repository's git folder.
    InsideGit,
    /// Inside what a tick commits: the site would be committed as state.
    InsidePath(PathBuf),
    /// A parent of what a tick commits: the state would be removed as an old page.
    HoldsPath(PathBuf),
    /// Something is mounted below it.
    HoldsMountPoint(PathBuf),
    /// A link.
    Link,
    /// Something else than a folder has the name, or one of its parents' names.
    NotAFolder(PathBuf),
    /// It, or the parent in which it would be made, can't be written to.
    Unwritable(PathBuf, io::Error),
    /// It can't be looked at.
    Unknown(io::Error),
}

impl Refusal {
    fn of(public_dir: &Path, reason: Reason) -> Refusal {
        const ITS_OWN: &str = "publishing removes all that is in it; give it a folder of its own";
        let (why, next) = match &reason {
            Reason::Empty => ("is an empty path".into(), "give a folder, or leave the option out".into()),
            Reason::System => ("is a folder of the system".into(), ITS_OWN.into()),
            Reason::Home => ("is the home folder or holds it".into(), ITS_OWN.into()),
            Reason::HoldsRepository => ("is the repository or holds it".into(), ITS_OWN.into()),
            Reason::InsideGit => {
                ("lies inside the repository's git folder".into(), "give it a folder outside of that".into())
            }
            Reason::InsidePath(path) => (
                format!("lies inside {}, which each tick commits", path.display()),
                "give it a folder outside of that, or change --path".into(),
            ),
            Reason::HoldsPath(path) => (
                format!("holds {}, which each tick commits and publishing would remove", path.display()),
                "give it a folder of its own, or change --path".into(),
            ),
            Reason::HoldsMountPoint(mount) => (
                format!("holds {}, where something is mounted", mount.display()),
                "give it that folder, or one without mounts in it".into(),
            ),
            Reason::Link => ("is a symbolic link".into(), "give it the folder that the link leads to".into()),
            Reason::NotAFolder(path) => {
                (format!("can't be a folder, since {} is none", path.display()), "give it another name".into())
            }
            Reason::Unwritable(path, error) => {
                (format!("can't be written to: {}: {error}", path.display()), "let this user write to it".into())
            }
            Reason::Unknown(error) => (format!("can't be looked at: {error}"), "see what is there".into()),
        };
        Refusal { what: format!("the public dir {} {why}", public_dir.display()), next, reason }
    }
}

impl Refusal {
    /// Whether the system could not tell now, which is no mistake of whoever gave the folder.
    pub fn passes(&self) -> bool {
        let (Reason::Unknown(error) | Reason::Unwritable(_, error)) = &self.reason else { return false };
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}

/// Whether this folder may be published to. Changes nothing; the folder need not exist yet. A relative one is taken from
/// the current folder.
///
/// # Errors
/// A [`Refusal`] with the reason, which is a mistake of whoever gave the folder.
pub fn check(public_dir: &Path, ground: &Ground<'_>, way: Way) -> Result<Site, Refusal> {
    look_at(public_dir, ground, way).map_err(|reason| Refusal::of(public_dir, reason))
}

fn look_at(given: &Path, ground: &Ground<'_>, way: Way) -> Result<Site, Reason> {
    if given.as_os_str().is_empty() {
        return Err(Reason::Empty);
    }
    let public = settle(given)?;
    let repo = settle_or_take(ground.repo);
    let private_dir = settle_or_take(ground.private_dir);
    let git = settle_or_take(ground.git_dir);

    if public.parent().is_none() || SYSTEM.iter().any(|system| Path::new(system) == public) {
        return Err(Reason::System);
    }
    if ["/proc", "/sys", "/dev"].iter().any(|system| public.starts_with(system) && !public.starts_with("/dev/shm")) {
        return Err(Reason::System);
    }
    if holds(&public, &repo)? || holds(&public, &git)? {
        return Err(Reason::HoldsRepository);
    }
    if let Some(home) = ground.home
        && holds(&public, &settle_or_take(home))?
    {
        return Err(Reason::Home);
    }
    if holds(&git, &public)? || holds(&repo.join(".git"), &public)? {
        return Err(Reason::InsideGit);
    }
    for path in ground.paths {
        let tracked = settle_or_take(&repo.join(path));
        if holds(&tracked, &public)? {
            return Err(Reason::InsidePath(path.clone()));
        }
        if holds(&public, &tracked)? {
            return Err(Reason::HoldsPath(path.clone()));
        }
    }
    if let Some(mount) = mount_points()?.into_iter().find(|mount| *mount != public && mount.starts_with(&public)) {
        return Err(Reason::HoldsMountPoint(mount));
    }
    let there = public.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match fs::metadata(there) {
        Ok(it) if !it.is_dir() => return Err(Reason::NotAFolder(there.to_owned())),
        Ok(_) => {}
        Err(error) => return Err(Reason::Unknown(error)),
    }
    match rustix::fs::accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Not every system can say.
        Ok(()) | Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(Reason::Unwritable(there.to_owned(), error.into())),
    }
    Ok(Site { public_dir: public, private_dir, way })
}

/// The path without links in it, absolute. The last component must not be a link; it, and its parents, may be missing.
fn settle(given: &Path) -> Result<PathBuf, Reason> {
    // By components: a slash at its end would have a link followed.
    let whole: PathBuf = std::path::absolute(given).map_err(Reason::Unknown)?.components().collect();
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        // The root, or something that ends in `..`.
        return whole.canonicalize().map_err(Reason::Unknown);
    };
    if if_there(fs::symlink_metadata(&whole))?.is_some_and(|it| it.is_symlink()) {
        return Err(Reason::Link);
    }
    let mut there = parent;
    loop {
        match there.canonicalize() {
            Ok(settled) => {
                let missing = parent.strip_prefix(there).unwrap_or(Path::new(""));
                if missing.components().any(|it| it == Component::ParentDir) {
                    return Err(Reason::Unknown(io::ErrorKind::NotFound.into()));
                }
                return Ok(settled.join(missing).join(name));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere is there all the same.
                if fs::symlink_metadata(there).is_ok() {
                    return Err(Reason::Link);
                }
                there = there.parent().unwrap_or(Path::new("/"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let file = there.ancestors().find(|it| it.is_file()).unwrap_or(there);
                return Err(Reason::NotAFolder(file.to_owned()));
            }
            Err(error) => return Err(Reason::Unknown(error)),
        }
    }
}

/// The same for a folder that is not ours to judge.
fn settle_or_take(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| settle(path)).unwrap_or_else(|_| path.to_owned())
}

/// Whether `outer` is `inner` or a parent of it, by name or, since a folder may be mounted at two places, by identity.
fn holds(outer: &Path, inner: &Path) -> Result<bool, Reason> {
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

fn identity(path: &Path) -> Result<Option<(u64, u64)>, Reason> {
    Ok(if_there(fs::metadata(path))?.map(|it| (it.dev(), it.ino())))
}

/// What was found, or nothing where there is nothing. What can't be looked at may be anything, the repository too.
fn if_there<T>(found: io::Result<T>) -> Result<Option<T>, Reason> {
    match found {
        Ok(it) => Ok(Some(it)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => Ok(None),
        Err(error) => Err(Reason::Unknown(error)),
    }
}

/// Where something is mounted, as far as the system tells.
fn mount_points() -> Result<BTreeSet<PathBuf>, Reason> {
    let table = if_there(fs::read("/proc/self/mountinfo"))?.unwrap_or_default();
    let points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
        .collect();
    Ok(points)
}

/// Blanks and the like are written as `\040` there.
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
    use super::unescaped;

    #[test]
    fn a_mount_point_may_have_blanks_in_its_name() {
        assert_eq!(unescaped(br"/srv/my\040site\134x"), br"/srv/my site\x");
        assert_eq!(unescaped(br"/srv/\9"), br"/srv/\9");
    }
}
