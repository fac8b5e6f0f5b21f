//! Guards against `.gitignore` and `.gitattributes` that are not regular files.
//!
//! libgit2 opens both in each folder of the work tree that it enters, and blocks forever on a FIFO. So the folders that
//! it is about to visit are checked first. It is kept out of those with such a file in them, and the rest continues.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::index::entries_below;
use super::{Repo, path_of, shown};
use crate::error::{Error, Kind};
use crate::fs::files;

const NAMES: [&str; 2] = [".gitignore", ".gitattributes"];

/// A folder that libgit2 must not enter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blocked {
    /// Relative to the top of the work tree.
    pub(crate) folder: PathBuf,
    /// The special file, relative to the top too.
    pub(crate) file: PathBuf,
    /// Its type, for example "a FIFO".
    pub(crate) kind: &'static str,
}

impl Blocked {
    /// Why the content of the folder is skipped.
    pub(crate) fn why(&self) -> String {
        format!("is {}: git can't read its rules, so everything in its folder is skipped", self.kind)
    }

    fn error(&self) -> Error {
        let what =
            format!("{} is {}, and git looks for rules there; nothing was touched", shown(&self.file), self.kind);
        Error::new(Kind::NotReady, what, "remove it")
    }
}

impl Repo {
    /// Returns why libgit2 must not enter this folder itself, if so.
    pub(crate) fn blocked(&self, folder: &Path) -> Option<Blocked> {
        NAMES.iter().find_map(|name| {
            let file = folder.join(name);
            let kind = files::special(&self.place.work_dir.join(&file))?;
            Some(Blocked { folder: folder.to_owned(), file, kind })
        })
    }

    /// Returns why libgit2 must not enter one of the folders above a path, if so.
    pub(crate) fn blocked_on_the_way(&self, path: &Path) -> Option<Blocked> {
        path.ancestors().skip(1).find_map(|folder| self.blocked(folder))
    }

    /// Refuses a folder if libgit2 must not enter it, one above it, or one below.
    ///
    /// # Errors
    /// [`Kind::NotReady`], which names the file.
    pub(crate) fn check_rules_around(&self, folder: &Path) -> Result<(), Error> {
        self.blocked_on_the_way(folder).or_else(|| self.blocked_below(folder)).map_or(Ok(()), |it| Err(it.error()))
    }

    fn blocked_below(&self, folder: &Path) -> Option<Blocked> {
        self.blocked(folder).or_else(|| {
            let entries = files::entries_if_any(&self.place.work_dir.join(folder));
            entries.iter().filter(|it| it.is_folder()).find_map(|it| self.blocked_below(&folder.join(it.name())))
        })
    }

    /// The folders with tracked files that libgit2 must not enter. This takes two system calls per folder.
    pub(crate) fn blocked_among_tracked(&self, index: &git2::Index) -> BTreeSet<Blocked> {
        self.blocked_among_tracked_in(Path::new(""), index)
    }

    /// Like [`Repo::blocked_among_tracked`], for a folder and those in it.
    pub(crate) fn blocked_among_tracked_in(&self, folder: &Path, index: &git2::Index) -> BTreeSet<Blocked> {
        tracked_folders(index, folder).iter().filter_map(|folder| self.blocked(folder)).collect()
    }

    /// Refuses a link with the name of a rules file in a commit if it leads to a FIFO, a socket or a device here:
    /// libgit2 follows it at checkout.
    ///
    /// # Errors
    /// [`Kind::NotReady`], which names the link.
    pub(crate) fn check_linked_rules(&self, tree: &git2::Tree<'_>, path: &Path, staging: &Path) -> Result<(), Error> {
        const LINK: i32 = 0o120_000;
        if !path.file_name().is_some_and(|name| NAMES.iter().any(|it| name == *it)) {
            return Ok(());
        }
        let Some(entry) = tree.get_path(path).ok().filter(|entry| entry.filemode() == LINK) else { return Ok(()) };
        let Ok(target) = self.git.find_blob(entry.id()) else { return Ok(()) };
        let leads_to = staging.join(path.parent().unwrap_or(path)).join(path_of(target.content()));
        let Some(kind) = files::special(&leads_to) else { return Ok(()) };
        let what = format!("the commit to follow has a link {} that leads to {kind} here", shown(path));
        Err(Error::new(Kind::NotReady, what, "remove that, or remove the link from the branch"))
    }

    /// Refuses the work tree if libgit2 must not enter a folder with tracked files.
    ///
    /// # Errors
    /// [`Kind::NotReady`], which names the file.
    pub(crate) fn check_tracked_rules(&self) -> Result<(), Error> {
        self.blocked_among_tracked(&self.index()?).first().map_or(Ok(()), |it| Err(it.error()))
    }

    /// Limits a comparison of the work tree to the folders that libgit2 may enter: adds to `options` the paths under
    /// `root` that are not blocked. Returns whether there are any.
    pub(crate) fn add_unblocked(
        &self,
        root: &Path,
        blocked: &BTreeSet<Blocked>,
        index: &git2::Index,
        options: &mut git2::DiffOptions,
    ) -> bool {
        let inside = |at: &Path| blocked.iter().any(|it| it.folder.starts_with(at));
        let mut any = false;
        let mut todo = vec![root.to_owned()];
        while let Some(at) = todo.pop() {
            if blocked.iter().any(|it| at.starts_with(&it.folder)) {
                continue;
            }
            if inside(&at) {
                todo.extend(self.names_in(&at, index).iter().map(|name| at.join(name)));
            } else {
                options.pathspec(&at);
                any = true;
            }
        }
        any
    }

    /// The paths in a folder, on disk or in the index.
    fn names_in(&self, folder: &Path, index: &git2::Index) -> BTreeSet<PathBuf> {
        let here = files::entries_if_any(&self.place.work_dir.join(folder));
        let tracked = index.iter().filter_map(|entry| {
            let path = path_of(&entry.path);
            path.strip_prefix(folder).ok()?.components().next().map(|name| PathBuf::from(name.as_os_str()))
        });
        here.iter().map(|it| PathBuf::from(it.name())).chain(tracked).filter(|name| name != Path::new(".git")).collect()
    }
}

/// Every folder below `inside`, and `inside` itself, that has a tracked file in it or below it.
pub(super) fn tracked_folders(index: &git2::Index, inside: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::from([inside.to_owned()]);
    let mut last = Vec::new();
    for entry in entries_below(index, inside) {
        let parent = entry.path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &entry.path[..at]);
        // Entries are sorted, so the files of a folder follow one another.
        if parent == last {
            continue;
        }
        last = parent.to_vec();
        for folder in path_of(parent).ancestors() {
            if !folders.insert(folder.to_owned()) {
                break;
            }
        }
    }
    folders
}
