//! Finds what there is to commit under `--path`, and what can't be committed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::attributes::Attributes;
use super::index::{is_one_to_git, is_submodule_in};
use super::index_flags::Flagged;
use super::named::Unmatched;
use super::pathspec::{Matcher, Pathspec};
use super::rules::Blocked;
use super::tree_edit::DEEPEST;
use super::{Repo, about, path_of};
use crate::error::{Context, Error};
use crate::fs::dir::{Dir, FileKind, Parent, last};
use crate::watchdog::step;

/// A path that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Relative to the top of the work tree.
    pub path: PathBuf,
    /// Why, as a part of a sentence: what it is, or what is wrong with it.
    pub why: String,
}

impl LeftOut {
    /// The failure of a pass that left it out.
    pub fn failure(&self) -> Error {
        Error::person(
            format!("{} was left out of the commit: it {}", self.path.display(), self.why),
            "remove it, ignore it (.gitignore), or change --path; the rest is committed",
        )
    }
}

/// What a commit may take in.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// What to look at.
    pub paths: &'a [Pathspec],
    /// The largest file, in bytes.
    pub max_file_size: u64,
}

/// What there is to commit.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Files that are new, changed or deleted.
    pub paths: BTreeSet<PathBuf>,
    /// What must be left out.
    pub left_out: BTreeSet<LeftOut>,
    /// The pathspecs that match nothing.
    pub unmatched: Vec<Unmatched>,
}

impl Repo {
    /// Finds what is new, changed or deleted under the paths of `scope`, including untracked files but not ignored
    /// ones.
    ///
    /// # Errors
    /// If the tree, the index or the work tree can't be read.
    pub fn changed_under(&self, scope: Scope<'_>) -> Result<Changed, Error> {
        let Scope { paths, max_file_size } = scope;
        let doing = "looking for what changed";
        step(doing);
        let matcher = Matcher::new(paths)?;
        let top = Dir::open(&self.place.work_dir).context("opening the work tree")?;
        let tree = self.head_tree()?;
        let mut changed = Changed::default();
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).include_untracked(true).recurse_untracked_dirs(true);
        options.ignore_submodules(true).skip_binary_check(true).disable_pathspec_match(true);
        let index = self.index()?;
        let mut blocked = BTreeSet::new();
        let usable = self.usable_roots(&top, &matcher, &index, &mut changed.left_out, &mut blocked)?;
        // Our walk skips ignored folders; libgit2 enters those with tracked files in them.
        blocked.extend(usable.iter().flat_map(|root| self.blocked_among_tracked_in(root, &index)));
        for it in &blocked {
            changed.left_out.insert(LeftOut { path: it.file.clone(), why: it.why() });
        }
        let mut any = false;
        for root in &usable {
            any |= self.add_unblocked(root, &blocked, &index, &mut options);
        }
        if !any {
            changed.left_out.retain(|one| !matcher.excludes(&one.path));
            changed.unmatched =
                self.unmatched(&matcher, &index, &changed.paths, changed.left_out.iter().map(|one| &one.path));
            return Ok(changed);
        }
        if blocked.is_empty() && usable.iter().any(|root| root.as_os_str().is_empty()) {
            options = git2::DiffOptions::new();
            options.include_typechange(true).include_untracked(true).recurse_untracked_dirs(true);
            options.ignore_submodules(true).skip_binary_check(true);
        }
        let to_index = self.git.diff_tree_to_index(tree.as_ref(), Some(&index), Some(&mut options)).context(doing)?;
        let deep = |one: &&LeftOut| one.path.components().count() >= DEEPEST;
        let mut deep: Vec<PathBuf> = changed.left_out.iter().filter(deep).map(|one| one.path.clone()).collect();
        if !deep.is_empty() {
            deep.extend(blocked.iter().map(|it| it.folder.clone()));
            options = self.options_for_all_but(&deep, &top, &usable, &index)?;
        }
        let to_files = self.git.diff_index_to_workdir(Some(&index), Some(&mut options)).context(doing)?;
        for delta in to_index.deltas().chain(to_files.deltas()) {
            if is_one_to_git(&delta, tree.as_ref(), &index) {
                continue;
            }
            for bytes in [delta.old_file(), delta.new_file()].iter().filter_map(|file| file.path_bytes()) {
                let path = path_of(bytes);
                // The path of a nested repository ends with a slash; our walk has named it already.
                if !bytes.ends_with(b"/") && !is_submodule_in(&index, &path) {
                    changed.paths.insert(path);
                }
            }
        }
        // Everything below a left-out path is left out too, such as the tracked files of a folder that became a
        // repository.
        changed.paths.retain(|path| !blocked.iter().any(|it| path.starts_with(&it.folder)));
        let left_out = &changed.left_out;
        changed.paths.retain(|path| !left_out.iter().any(|one| path.starts_with(&one.path) && *path != one.path));
        changed.paths.retain(|path| {
            // A submodule's own folder is not a file; git tracks it as a commit.
            !tree.as_ref().is_some_and(|tree| {
                tree.get_path(path).is_ok_and(|entry| entry.kind() == Some(git2::ObjectType::Commit))
            })
        });
        changed.paths.retain(|path| matcher.matches(path));
        changed.left_out.retain(|one| !matcher.excludes(&one.path));
        leave_out_unfit(&top, &index, max_file_size, &mut changed)?;
        self.leave_out_as_git_has_it(&top, &index, &mut changed)?;
        changed.unmatched =
            self.unmatched(&matcher, &index, &changed.paths, changed.left_out.iter().map(|one| &one.path));
        Ok(changed)
    }

    /// The paths in which libgit2 may look for matches. Records those that it must not enter and what can't be
    /// committed.
    fn usable_roots(
        &self,
        top: &Dir,
        matcher: &Matcher,
        index: &git2::Index,
        left_out: &mut BTreeSet<LeftOut>,
        blocked: &mut BTreeSet<Blocked>,
    ) -> Result<Vec<PathBuf>, Error> {
        let tree = self.head_tree()?;
        let mut usable = BTreeSet::new();
        for spec in matcher.included() {
            let base = spec.base();
            let found = top.find(&base).context(about("looking at {}", &base))?;
            let link_for_folder = spec.is_folder() && found.is_some_and(|found| found.kind == FileKind::Link);
            if let Some(why) = self.unusable(top, &base, tree.as_ref())? {
                left_out.insert(LeftOut { path: base, why });
            } else if link_for_folder {
                let why = "is a symbolic link, where --path names a folder: not followed".to_owned();
                left_out.insert(LeftOut { path: base, why });
            } else if let Some(above) = self.blocked_on_the_way(&base) {
                blocked.insert(above);
            } else {
                self.walk_for_specials(top, &base, matcher, left_out, blocked)?;
                usable.extend(self.roots_of(spec, index, tree.as_ref()));
            }
        }
        Ok(outermost(usable))
    }

    /// Leaves out files with an index flag that hides them from git, without reporting them; and files of which git
    /// would store other bytes than are in the work tree, reporting those.
    fn leave_out_as_git_has_it(&self, top: &Dir, index: &git2::Index, changed: &mut Changed) -> Result<(), Error> {
        let flagged = Flagged::of(index);
        changed.paths.retain(|path| !flagged.hides(path));
        let mut attributes = Attributes::of(self, index)?;
        let mut left_out = Vec::new();
        for path in &changed.paths {
            let Some(asked) = attributes.asked(path)? else { continue };
            let found = top.find(path).context(about("looking at {}", path))?;
            // git applies no attributes to a link, and a deleted file has no content to convert.
            if found.is_some_and(|found| matches!(found.kind, FileKind::File { .. })) {
                left_out.push(LeftOut { path: path.clone(), why: asked.why() });
            }
        }
        for one in left_out {
            changed.paths.remove(&one.path);
            changed.left_out.insert(one);
        }
        Ok(())
    }

    /// Returns why nothing under `root` can be judged, or `None` if it can.
    fn unusable(&self, top: &Dir, root: &Path, tree: Option<&git2::Tree<'_>>) -> Result<Option<String>, Error> {
        if root.as_os_str().is_empty() {
            return Ok(None);
        }
        let tracked = tree.and_then(|tree| tree.get_path(root).ok()).and_then(|entry| entry.kind());
        Ok(match top.parent_of(root).context(about("looking at {}", root))? {
            Parent::Obstacle(_) => {
                Some("lies beyond a symbolic link or something else that is no folder: not followed".to_owned())
            }
            Parent::Missing => gone(tracked),
            Parent::There(parent) => match parent.look(last(root)).context(about("looking at {}", root))? {
                None => gone(tracked),
                Some(found) => match (found.kind, tracked) {
                    (FileKind::Folder, _) | (FileKind::File { .. }, None | Some(git2::ObjectType::Blob)) => None,
                    (FileKind::File { .. }, _) => Some("was a folder and is a file now".to_owned()),
                    // A link that is tracked as a link is treated like a file.
                    (FileKind::Link, Some(git2::ObjectType::Blob)) => None,
                    (FileKind::Link, _) => Some("is a symbolic link: not followed".to_owned()),
                    (FileKind::Special, _) => Some("is a FIFO, socket or device".to_owned()),
                },
            },
        })
    }

    /// Finds entries that git silently skips or would take for a submodule.
    fn walk_for_specials(
        &self,
        top: &Dir,
        at: &Path,
        matcher: &Matcher,
        left_out: &mut BTreeSet<LeftOut>,
        blocked: &mut BTreeSet<Blocked>,
    ) -> Result<(), Error> {
        if at.components().count() >= DEEPEST {
            let why = format!("is {DEEPEST} or more folders deep; the limit is {}", DEEPEST - 1);
            left_out.insert(LeftOut { path: at.to_owned(), why });
            return Ok(());
        }
        let folder = if at.as_os_str().is_empty() {
            Dir::open(&self.place.work_dir)
        } else {
            match top.parent_of(at) {
                Ok(Parent::There(parent)) => match parent.look(last(at)) {
                    Ok(Some(found)) if found.kind == FileKind::Folder => parent.folder(last(at)),
                    Ok(_) => return Ok(()),
                    Err(error) => Err(error.into()),
                },
                Ok(_) => return Ok(()),
                Err(error) => Err(error),
            }
        };
        let entries = match folder.and_then(|folder| folder.list()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                left_out.insert(LeftOut { path: at.to_owned(), why: unreadable(at, &error)? });
                return Ok(());
            }
        };
        let nested = !at.as_os_str().is_empty() && entries.iter().any(|(name, _)| name == ".git");
        if nested {
            if !self.is_submodule(at) {
                let why = "is a repository of its own: its files belong to that one".to_owned();
                left_out.insert(LeftOut { path: at.to_owned(), why });
            }
            return Ok(());
        }
        // Files need no further look; only rule files that are not regular files are checked again.
        let rules = |(name, kind): &(OsString, FileType)| {
            (name == ".gitignore" || name == ".gitattributes")
                && !matches!(kind, FileType::RegularFile | FileType::Directory)
        };
        if let Some(found) = entries.iter().any(rules).then(|| self.blocked(at)).flatten() {
            blocked.insert(found);
            return Ok(());
        }
        for (name, kind) in entries {
            let path = at.join(&name);
            let is_named = || matcher.matches(&path) && !self.is_ignored(&path, false);
            match kind {
                FileType::Directory if name == ".git" || !matcher.may_match_in(&path) => {}
                // libgit2 silently skips it.
                FileType::Directory if name.eq_ignore_ascii_case(".git") => {
                    left_out.insert(LeftOut { path, why: "has a name that git allows in no tree".to_owned() });
                }
                FileType::Directory if self.is_ignored(&path, true) => {}
                FileType::Directory => self.walk_for_specials(top, &path, matcher, left_out, blocked)?,
                FileType::RegularFile | FileType::Symlink => {}
                FileType::Fifo if is_named() => {
                    left_out.insert(LeftOut { path, why: "is a FIFO".to_owned() });
                }
                FileType::Socket if is_named() => {
                    left_out.insert(LeftOut { path, why: "is a socket".to_owned() });
                }
                _ if is_named() => {
                    left_out.insert(LeftOut { path, why: "is a device".to_owned() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Diff options for `roots` that contain folders too deep for libgit2 to walk: they list every other file by its
    /// path.
    fn options_for_all_but(
        &self,
        deep: &[PathBuf],
        top: &Dir,
        roots: &[PathBuf],
        index: &git2::Index,
    ) -> Result<git2::DiffOptions, Error> {
        let mut paths = BTreeSet::new();
        for root in roots {
            self.files_below(top, root, deep, &mut paths)?;
        }
        let tracked = index.iter().map(|entry| path_of(&entry.path));
        paths.extend(tracked.filter(|path| roots.iter().any(|root| path.starts_with(root))));
        paths.retain(|path| !deep.iter().any(|deep| path.starts_with(deep)));
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).include_untracked(true).recurse_untracked_dirs(true);
        options.ignore_submodules(true).skip_binary_check(true).disable_pathspec_match(true);
        // Without any pathspec, libgit2 would match every path; `.git` matches none in a work tree.
        options.pathspec(".git");
        for path in paths {
            options.pathspec(path);
        }
        Ok(options)
    }

    fn files_below(&self, top: &Dir, at: &Path, but: &[PathBuf], into: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        let doing = about("reading {}", at);
        if but.iter().any(|but| at.starts_with(but)) || self.is_ignored(at, true) {
            return Ok(());
        }
        let folder = match top.parent_of(&at.join("_")).context(doing)? {
            Parent::There(folder) => folder,
            Parent::Obstacle(_) => {
                into.insert(at.to_owned());
                return Ok(());
            }
            Parent::Missing => return Ok(()),
        };
        for (name, kind) in folder.list().context(doing)? {
            match kind {
                FileType::Directory => self.files_below(top, &at.join(name), but, into)?,
                _ => {
                    into.insert(at.join(name));
                }
            }
        }
        Ok(())
    }

    fn is_submodule(&self, path: &Path) -> bool {
        self.head_tree()
            .ok()
            .flatten()
            .is_some_and(|tree| tree.get_path(path).is_ok_and(|entry| entry.kind() == Some(git2::ObjectType::Commit)))
    }

    pub(super) fn is_ignored(&self, path: &Path, folder: bool) -> bool {
        // A pattern that ends with a slash matches folders only; the slash marks this path as one.
        let asked = if folder { path.join("") } else { path.to_owned() };
        self.git.is_path_ignored(asked).unwrap_or(false)
    }
}

/// Removes paths that lie inside another of them.
fn outermost(paths: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        // The paths are sorted: a folder comes before its content.
        if !kept.last().is_some_and(|outer| path.starts_with(outer)) {
            kept.push(path);
        }
    }
    kept
}

/// Reports a whole tracked folder that is gone: it looks like a volume that is not mounted, and its deletion must not
/// be committed unasked. (A single file named by `--path` may be deleted like any other.)
fn gone(tracked: Option<git2::ObjectType>) -> Option<String> {
    (tracked == Some(git2::ObjectType::Tree)).then(|| {
        "is gone altogether, as if a volume were not mounted: its deletion is not committed (`git rm -r` it if it is meant)"
            .to_owned()
    })
}

/// Leaves out what must not be committed: files with an unresolved conflict, files that are too large, and the like.
fn leave_out_unfit(top: &Dir, index: &git2::Index, max_file_size: u64, changed: &mut Changed) -> Result<(), Error> {
    let mut left_out = Vec::new();
    // A stash, for one, leaves conflicts without a merge in progress. The file then holds a version that nobody meant.
    let conflicts = index.conflicts().context("reading the index")?;
    let unmerged: BTreeSet<PathBuf> = conflicts
        .flatten()
        .flat_map(|conflict| [conflict.ancestor, conflict.our, conflict.their])
        .flatten()
        .map(|entry| path_of(&entry.path))
        .collect();
    for path in &changed.paths {
        if unmerged.contains(path) {
            let why = "has a conflict that nobody has resolved (`git add` it when it is)".to_owned();
            left_out.push(LeftOut { path: path.clone(), why });
        } else if let Some(why) = cannot_commit(top, path, max_file_size)? {
            left_out.push(LeftOut { path: path.clone(), why });
        }
    }
    for one in left_out {
        changed.paths.remove(&one.path);
        // The walk may have named it already as something other than a file; once is enough.
        if !changed.left_out.iter().any(|known| known.path == one.path) {
            changed.left_out.insert(one);
        }
    }
    Ok(())
}

/// Why a file that can't be read is left out, if the reason lies with the file, such as its permissions.
///
/// # Errors
/// For a failing disk or a lack of memory: half of what a job wrote must not be committed because of that.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Result<String, Error> {
    match Errno::from_io_error(error) {
        Some(Errno::IO | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::STALE) => {
            Err(Error::io(about("reading {}, which is to be committed", path), error))
        }
        _ => Ok(format!("can't be read: {error}")),
    }
}

fn cannot_commit(top: &Dir, path: &Path, max_file_size: u64) -> Result<Option<String>, Error> {
    if std::str::from_utf8(path.as_os_str().as_bytes()).is_err() {
        return Ok(Some("has a name that is not UTF-8".to_owned()));
    }
    let Parent::There(parent) = top.parent_of(path).context(about("looking at {}", path))? else {
        return Ok(None);
    };
    let Some(found) = parent.look(last(path)).context(about("looking at {}", path))? else { return Ok(None) };
    Ok(match found.kind {
        FileKind::File { .. } => {
            let size = u64::try_from(found.stat.st_size).unwrap_or(u64::MAX);
            if size > max_file_size {
                let rounded = |bytes: u64| bytesize::ByteSize(bytes).display().si().to_string();
                let (has, most) = (rounded(size), rounded(max_file_size));
                // If both round to the same text, give the exact bytes.
                let exactly = if has == most { format!(" ({size} bytes, not {max_file_size})") } else { String::new() };
                Some(format!("has {has}, more than --max-file-size {most}{exactly}"))
            } else {
                match parent.open_file(last(path)) {
                    Ok(_) => None,
                    Err(error) => Some(unreadable(path, &error)?),
                }
            }
        }
        FileKind::Special => Some("is a FIFO, socket or device".to_owned()),
        FileKind::Link | FileKind::Folder => None,
    })
}
