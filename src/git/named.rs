//! Finds what pathspecs match in this repository: where to look for it, and which of them match nothing.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::index::entries_below;
use super::pathspec::{Matcher, Pathspec};
use super::{Repo, path_of};
use crate::fs::files;

/// A `--path` that matches nothing that could be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// The pathspec.
    pub spec: Pathspec,
    /// A path that it matches and that git ignores; `None` if nothing is there at all.
    pub ignored: Option<PathBuf>,
}

impl Repo {
    /// The paths below which everything lies that a pathspec may match, so that a comparison of index and work tree can
    /// be limited to them.
    pub(super) fn roots_of(
        &self,
        spec: &Pathspec,
        index: &git2::Index,
        tree: Option<&git2::Tree<'_>>,
    ) -> BTreeSet<PathBuf> {
        let mut roots = BTreeSet::from([spec.base()]);
        for (lead, is_beginning) in spec.leads() {
            let fits = |name: &[u8]| {
                let head = if is_beginning { name.get(..lead.len()) } else { Some(name) };
                head.is_some_and(|head| spec.same(head, &lead))
            };
            let below = |at: &PathBuf| {
                let names = self.names_below(at, &lead, index, tree).into_iter();
                names.filter(|name| fits(name)).map(|name| at.join(path_of(&name))).collect::<Vec<_>>()
            };
            roots = roots.iter().flat_map(below).collect();
        }
        roots
    }

    /// The names in a folder: in the work tree, the index and HEAD's tree. From the index only those that begin with
    /// `lead`, ignoring case.
    fn names_below(
        &self,
        folder: &Path,
        lead: &[u8],
        index: &git2::Index,
        tree: Option<&git2::Tree<'_>>,
    ) -> BTreeSet<Vec<u8>> {
        let here = files::entries_if_any(&self.place.work_dir.join(folder));
        let mut names: BTreeSet<Vec<u8>> = here.iter().map(|entry| entry.name().as_bytes().to_vec()).collect();
        let subtree = match tree {
            Some(tree) if !folder.as_os_str().is_empty() => {
                tree.get_path(folder).and_then(|entry| self.git.find_tree(entry.id())).ok()
            }
            tree => tree.cloned(),
        };
        names.extend(
            subtree.iter().flat_map(|tree| tree.iter().map(|entry| entry.name_bytes().to_vec()).collect::<Vec<_>>()),
        );
        let inside = if folder.as_os_str().is_empty() { 0 } else { folder.as_os_str().len() + 1 };
        for entry in entries_below(index, folder) {
            let name = entry.path.get(inside..).and_then(|rest| rest.split(|byte| *byte == b'/').next());
            let begins = |name: &&[u8]| name.get(..lead.len()).is_some_and(|head| head.eq_ignore_ascii_case(lead));
            names.extend(name.filter(begins).map(<[u8]>::to_vec));
        }
        names.remove(&b".git"[..]);
        names
    }

    /// The pathspecs that match nothing: no file that is tracked, new, changed or deleted.
    pub(super) fn unmatched<'p>(
        &self,
        matcher: &Matcher,
        index: &git2::Index,
        changed: &BTreeSet<PathBuf>,
        left_out: impl Iterator<Item = &'p PathBuf> + Clone,
    ) -> Vec<Unmatched> {
        let mut found = Vec::new();
        for (nth, spec) in matcher.included().enumerate() {
            let named = |path: &Path| matcher.nth_matches(nth, path);
            let left_out = left_out.clone().any(|path| named(path) || spec.base().starts_with(path));
            if left_out || changed.iter().any(|path| named(path)) || is_any_tracked(spec, &named, index) {
                continue;
            }
            let base = spec.base();
            // libgit2 must not look there for ignored files.
            if self.blocked_on_the_way(&base.join("_")).is_some() {
                continue;
            }
            let stands = if spec.is_pattern() { None } else { self.place.work_dir.join(&base).symlink_metadata().ok() };
            let ignored = match &stands {
                Some(it) if it.is_dir() => self.ignored_in(&base),
                _ => None,
            };
            let is_what_was_named = stands.is_some_and(|it| it.is_dir() || !spec.is_folder());
            let ignored = ignored.or_else(|| (is_what_was_named && self.is_path_ignored(&base)).then_some(base));
            // An empty folder is fine: a job may fill it later.
            if ignored.is_some() || !is_what_was_named {
                found.push(Unmatched { spec: spec.clone(), ignored });
            }
        }
        found
    }

    /// Something inside a folder that git ignores.
    fn ignored_in(&self, folder: &Path) -> Option<PathBuf> {
        let entries = files::entries_if_any(&self.place.work_dir.join(folder));
        let names = entries.iter().map(|entry| entry.name()).filter(|name| *name != ".git");
        names.map(|name| folder.join(name)).find(|path| self.is_path_ignored(path))
    }

    fn is_path_ignored(&self, path: &Path) -> bool {
        let is_folder = self.place.work_dir.join(path).is_dir();
        self.is_ignored(path, is_folder)
    }
}

fn is_any_tracked(spec: &Pathspec, named: &dyn Fn(&Path) -> bool, index: &git2::Index) -> bool {
    let base = spec.base();
    let is_itself = !base.as_os_str().is_empty() && index.get_path(&base, 0).is_some() && named(&base);
    is_itself || entries_below(index, &base).any(|entry| named(&path_of(&entry.path)))
}
