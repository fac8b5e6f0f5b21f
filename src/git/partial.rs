//! Partial clones: what was left out is known to be on the remote, and is fetched by its id once a pass needs it.

use std::collections::HashSet;

use git2::{ErrorCode, ObjectType};

use super::fetch::{Failed, download};
use super::incoming::Incoming;
use super::remote::Remote;
use super::whole::is_partial;
use super::{CommitId, Repo, raw};
use crate::error::{Context, Error};
use crate::remote::protocol::fetch::Wanted;

/// What is missing at most so many times in turn: a tree, the trees in it, and so on.
const ROUNDS: usize = 100;

impl Remote<'_> {
    /// Fetches the files of a commit that are not here, if this is a partial clone.
    ///
    /// # Errors
    /// As for [`Remote::fetch`].
    pub fn fill(&self, commit: CommitId) -> Result<(), Error> {
        if !is_partial(self.repo.git.commondir()) {
            return Ok(());
        }
        let doing = format!("fetching files of {commit} from {}", self.display_url());
        for _ in 0..ROUNDS {
            let missing = self.repo.missing_of(commit)?;
            if missing.is_empty() {
                break;
            }
            tracing::debug!(objects = missing.len(), "this is a partial clone: fetching what it lacks");
            let incoming = Incoming::inside(self.repo)?;
            let wanted = Wanted { ids: &missing, shallow: &[], depth: None, thin: false, quiet: true };
            download(&self.fetch, &incoming.git, &wanted, &[]).map_err(|failed| match failed {
                Failed::Remote(error) => error,
                Failed::Pack(error) => Error::git(&doing, &error),
            })?;
            incoming.join(self.repo)?;
        }
        Ok(())
    }
}

impl Repo {
    /// The objects in the tree of a commit that are not here, as far as can be told without them.
    fn missing_of(&self, commit: CommitId) -> Result<Vec<CommitId>, Error> {
        let doing = "looking for what this partial clone lacks";
        let odb = self.git.odb().context(doing)?;
        let (mut missing, mut seen) = (Vec::new(), HashSet::new());
        let mut todo = vec![(self.raw_commit(commit)?.tree, true)];
        while let Some((id, is_folder)) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            if !is_folder {
                if !odb.exists_ext(id, git2::OdbLookupFlags::NO_REFRESH) {
                    missing.push(id);
                }
                continue;
            }
            match odb.read(id) {
                Ok(tree) if tree.kind() == ObjectType::Tree => {
                    let entries = raw::tree(tree.data()).unwrap_or_default();
                    let inside = entries.iter().filter(|entry| !entry.is_submodule());
                    todo.extend(inside.map(|entry| (entry.id, entry.is_folder())));
                }
                Ok(_) => {}
                Err(error) if error.code() == ErrorCode::NotFound => missing.push(id),
                Err(error) => return Err(Error::git(doing, &error)),
            }
        }
        Ok(missing)
    }
}
