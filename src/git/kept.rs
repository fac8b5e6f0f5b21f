//! What a rescue keeps, for a person: its subject, its size, and the command that gets it back.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::{CommitId, Names, Place, Repo, path_of};
use crate::error::{Context, Error};
use crate::rescued::{RescueKind, RescueRef};

/// So many files are named in the command that gets them back.
const NAMED: usize = 10;

/// A rescue, as it is shown.
#[derive(Debug)]
pub struct Kept {
    /// The reference.
    pub name: RescueRef,
    /// The commit that it keeps.
    pub commit: CommitId,
    /// The first line of the commit's message; `None` where the commit can't be read.
    pub subject: Option<String>,
    /// When it was kept, by its name.
    pub since: Option<DateTime<Utc>>,
    /// The bytes of the files that the commit adds or changes against its first parent; `None` where that can't be read.
    pub bytes: Option<u64>,
    /// The command, run at the top of the work tree, that gets the work back.
    pub get_back: String,
}

/// Every rescue, oldest first. Nothing is walked: each costs one commit and what that one changed, however long the history is.
///
/// # Errors
/// Where the repository or its references can't be read.
pub fn kept(place: &Place, names: Names) -> Result<Vec<Kept>, Error> {
    let repo = Repo::open_unlocked(place, names)?;
    Ok(repo.rescues()?.into_iter().map(|(name, commit)| repo.describe(name, commit)).collect())
}

impl Repo {
    fn describe(&self, name: RescueRef, commit: CommitId) -> Kept {
        let found = self.git.find_commit(commit).ok();
        let subject = found.and_then(|commit| commit.summary_bytes().map(|text| String::from_utf8_lossy(text).into()));
        let kind = name.kind().unwrap_or(RescueKind::Local);
        let get_back = self.get_back(kind, name.name(), commit);
        Kept { subject, since: name.since(), bytes: self.bytes_changed(commit).ok(), get_back, name, commit }
    }

    fn bytes_changed(&self, commit: CommitId) -> Result<u64, Error> {
        let doing = "reading what a rescue keeps";
        let parent = self.git.find_commit(commit).context(doing)?.parent_id(0).ok();
        let odb = self.git.odb().context(doing)?;
        self.files_changed(parent, commit)?.iter().try_fold(0, |sum: u64, (_, id)| {
            let (size, _) = odb.read_header(*id).context(doing)?;
            Ok(sum.saturating_add(u64::try_from(size).unwrap_or(u64::MAX)))
        })
    }

    /// The files that are in `commit` and not so in `parent`.
    fn files_changed(&self, parent: Option<CommitId>, commit: CommitId) -> Result<Vec<(PathBuf, git2::Oid)>, Error> {
        let doing = "reading what a rescue keeps";
        let before = parent.map(|parent| self.tree_of(parent)).transpose()?;
        let after = self.tree_of(commit)?;
        let mut options = git2::DiffOptions::new();
        options.ignore_submodules(true).include_typechange(true);
        let diff = self.git.diff_tree_to_tree(before.as_ref(), Some(&after), Some(&mut options)).context(doing)?;
        let files = diff.deltas().map(|delta| delta.new_file()).filter(|file| !file.id().is_zero());
        Ok(files.filter_map(|file| file.path_bytes().map(|path| (path_of(path), file.id()))).collect())
    }

    /// The command that gets back what a rescue keeps, run at the top of the work tree.
    ///
    /// Commits: those that the branch does not have, on top of it. Files: those that were kept and no others, so that what came in
    /// meanwhile stays; the deletion of a file is not among what a rescue keeps.
    pub(super) fn get_back(&self, kind: RescueKind, name: &str, commit: CommitId) -> String {
        match kind {
            RescueKind::Local | RescueKind::Remote => format!("git cherry-pick HEAD..{name}"),
            RescueKind::Worktree => {
                self.get_files_back(name, commit).unwrap_or_else(|_| format!("git checkout {name} -- ."))
            }
        }
    }

    fn get_files_back(&self, name: &str, commit: CommitId) -> Result<String, Error> {
        let found = self.git.find_commit(commit).context("reading a rescue")?;
        let parent = found.parent_id(0).ok();
        let mut from = name.to_owned();
        let mut files = self.files_changed(parent, commit)?;
        if let (true, Ok(staged)) = (files.is_empty(), found.parent_id(1)) {
            from = format!("{name}^2");
            files = self.files_changed(parent, staged)?;
        }
        let paths: Option<Vec<String>> = files.iter().map(|(path, _)| path.to_str().map(quoted)).collect();
        Ok(match (paths, parent) {
            (_, None) => format!("git checkout {from} -- ."),
            (Some(paths), _) if (1..=NAMED).contains(&paths.len()) => {
                format!("git checkout {from} -- {}", paths.join(" "))
            }
            (..) => format!(
                "git diff --name-only -z --diff-filter=d {name}^ {from} | \
                 git checkout {from} --pathspec-from-file=- --pathspec-file-nul"
            ),
        })
    }
}

/// A path as a shell and git's pathspecs take it for itself.
fn quoted(path: &str) -> String {
    let magic = path.starts_with(':') || path.contains(['*', '?', '[', '\\']);
    let path = if magic { format!(":(literal){path}") } else { path.to_owned() };
    let plain = |character: char| character.is_alphanumeric() || "_-./+@%,=".contains(character);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_path_is_taken_for_itself() {
        assert_eq!(quoted("state/a-1.json"), "state/a-1.json");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("a*b"), "':(literal)a*b'");
    }
}
