//! Finds a repository. This is also the only place where libgit2 opens one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error;
use super::settings;
use crate::error::{Context, Error, Kind};
use crate::fs::files;

/// The location of a repository.
#[derive(Clone, Debug)]
pub struct Place {
    /// The top of the work tree, absolute, without symbolic links.
    pub work_dir: PathBuf,
    /// Its `.git` folder.
    pub git_dir: PathBuf,
    /// Whether the user named it; otherwise it was found from the current folder. A named repository is trusted,
    /// whoever owns it.
    pub named: bool,
    /// Whether the `.git` folder is a dry run's copy, which may be written to, apart from the work tree.
    pub is_scratch: bool,
}

impl Place {
    /// The folder that libgit2 opens, or makes a repository in.
    pub(crate) fn home(&self) -> &Path {
        match self.git_dir.parent() {
            Some(home) if self.is_scratch => home,
            _ => &self.work_dir,
        }
    }
}

/// Finds the repository, without opening it.
///
/// # Errors
/// [`Kind::NotReady`] if there is none, or none that gitsync can work in.
pub fn find(repo: Option<&Path>, here: &Path) -> Result<Place, Error> {
    let Some(named) = repo else {
        for folder in here.ancestors() {
            if folder.join(".git").symlink_metadata().is_ok() {
                return place(folder, false);
            }
        }
        return Err(Error::new(
            Kind::NotReady,
            format!("no git repository in {} or above it", here.display()),
            "name one with --repo, or make one with `gitsync init-sync --remote-url URL`",
        ));
    };
    let path = here.join(named);
    let work_dir = path.canonicalize().map_err(|error| {
        let what = format!("there is no {}: {error}", path.display());
        Error::new(
            Kind::NotReady,
            what,
            "make the repository with `gitsync init-sync --remote-url URL`, or correct --repo",
        )
    })?;
    if work_dir.join(".git").symlink_metadata().is_ok() {
        return place(&work_dir, true);
    }
    let next = match work_dir.ancestors().skip(1).find(|folder| folder.join(".git").symlink_metadata().is_ok()) {
        Some(outer) => format!(
            "it lies inside the repository {}, which is not used instead: name that one with --repo, or make one \
             here with `gitsync init-sync --remote-url URL`",
            outer.display()
        ),
        None => "make one here with `gitsync init-sync --remote-url URL`, or name another with --repo".into(),
    };
    let bare = work_dir.join("HEAD").is_file() && work_dir.join("objects").is_dir();
    if bare {
        let what = format!("{} is a bare repository: it has no work tree to sync", work_dir.display());
        return Err(Error::new(Kind::NotReady, what, "name a clone of it with --repo"));
    }
    Err(Error::new(Kind::NotReady, format!("{} is not a git repository", work_dir.display()), next))
}

fn place(folder: &Path, named: bool) -> Result<Place, Error> {
    let work_dir = folder.canonicalize().context(format!("looking at {}", folder.display()))?;
    let dot_git = work_dir.join(".git");
    if dot_git.is_dir() {
        // As in git, this may be a link to the folder.
        let git_dir = dot_git.canonicalize().context(format!("looking at {}", dot_git.display()))?;
        return Ok(Place { git_dir, work_dir, named, is_scratch: false });
    }
    // A file gives the path of the folder (git init --separate-git-dir, submodules, linked work trees).
    let text = files::read(&dot_git).context(format!("reading {}", dot_git.display()))?;
    let target = text.strip_prefix(b"gitdir: ").map(|rest| rest.trim_ascii_end().to_vec()).ok_or_else(|| {
        let what = format!("{} is neither a folder nor a file that points to one", dot_git.display());
        Error::new(Kind::NotReady, what, "remove it and run `gitsync init-sync`")
    })?;
    let git_dir = work_dir.join(OsString::from_vec(target));
    if git_dir.join("commondir").exists() {
        return Err(Error::new(
            Kind::NotReady,
            format!("{} is a linked work tree: it shares its branches with another folder", work_dir.display()),
            "run gitsync in a separate clone: passes in two work trees of one repository would share a lock file \
             but not their state",
        ));
    }
    let git_dir = git_dir.canonicalize().context(format!("following {}", dot_git.display()))?;
    Ok(Place { work_dir, git_dir, named, is_scratch: false })
}

/// Opens a repository with libgit2. Nothing else may do that.
#[allow(clippy::disallowed_methods)]
pub(crate) fn open_git(place: &Place) -> Result<git2::Repository, Error> {
    let opened = git2::Repository::open(place.home());
    let with_files = |git: git2::Repository| match place.is_scratch {
        true => git.set_workdir(&place.work_dir, false).map(|()| git),
        false => Ok(git),
    };
    opened.and_then(with_files).map_err(|error| {
        if error.code() == git2::ErrorCode::Owner {
            return Error::new(
                Kind::NotReady,
                format!("{} belongs to another user", place.work_dir.display()),
                "name it with --repo to trust it, or `git config --global --add safe.directory` it",
            );
        }
        if let Err(format) = check_format(&place.git_dir) {
            return format;
        }
        if error.class() == git2::ErrorClass::Os {
            // The system denied access to a file of ours or of the user's configuration: no reason to put a repository
            // aside.
            let closed =
                error.message().contains("Permission denied").then(|| settings::refused(place, &error)).flatten();
            return closed.unwrap_or_else(|| Error::git(format!("opening {}", place.work_dir.display()), &error));
        }
        let what = format!("{} can't be opened as a repository: {}", place.work_dir.display(), error.message());
        if let Some(setting) = settings::refused(place, &error) {
            return setting;
        }
        match Error::git(&what, &error) {
            error if matches!(error.kind, Kind::Exhausted | Kind::NotReady) => Error::new(error.kind, what, error.next),
            _ => Error::new(Kind::Corrupt, what, error::MAY_BE_DAMAGED),
        }
    })
}

/// Refuses a repository in a format that libgit2 can't read, such as SHA-256 objects or reftable. It is not damaged,
/// and repairs must not touch it.
pub(crate) fn check_format(git_dir: &Path) -> Result<(), Error> {
    let Ok(config) = git2::Config::open(&git_dir.join("config")) else { return Ok(()) };
    let version = config.get_i32("core.repositoryformatversion").unwrap_or(0);
    let unread = |name: &str, value: &str| match name {
        "extensions.noop"
        | "extensions.worktreeconfig"
        | "extensions.preciousobjects"
        | "extensions.partialclone"
        | "extensions.relativeworktrees" => false,
        "extensions.objectformat" => !value.eq_ignore_ascii_case("sha1"),
        "extensions.refstorage" => !value.eq_ignore_ascii_case("files"),
        _ => true,
    };
    let mut found = (version > 1).then(|| format!("core.repositoryformatversion = {version}"));
    if version == 1
        && let Ok(mut entries) = config.entries(Some("^extensions\\."))
    {
        while let Some(Ok(entry)) = entries.next() {
            let (name, value) = (entry.name().unwrap_or_default(), entry.value().unwrap_or_default());
            if unread(&name.to_ascii_lowercase(), value) {
                found = Some(format!("{name} = {value}"));
            }
        }
    }
    found.map_or(Ok(()), |found| {
        let what = format!("the repository in {} has a format that gitsync can't read ({found})", git_dir.display());
        Err(Error::new(
            Kind::NotReady,
            what,
            "nothing was touched; use a clone in git's plain format (`git init --object-format=sha1 --ref-format=files`)",
        ))
    })
}
