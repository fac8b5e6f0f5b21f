//! Files of a commit checked out into a folder of the private folder, with the content and modes that git gives them.

use std::path::PathBuf;

use super::{CommitId, Repo};
use crate::error::{Context, Error};
use crate::fs::files;
use crate::watchdog::step;

pub(super) const STAGING: &str = "staging";

pub(super) const STAGING_OLD: &str = "staging-old";

impl Repo {
    /// Checks paths of a commit out into a folder of the private folder, as git would into the work tree.
    ///
    /// libgit2 is given the staging folder as work tree and the commit as index, so that `.gitattributes` are the
    /// commit's own, not those of what is being replaced.
    pub(super) fn stage<'a>(
        &self,
        commit: CommitId,
        paths: impl Iterator<Item = &'a PathBuf>,
        name: &str,
    ) -> Result<PathBuf, Error> {
        let doing = "checking files out into the staging folder";
        step(doing);
        let staging = self.private.file(name);
        files::remove_folder(&staging).context("emptying the staging folder")?;
        std::fs::create_dir(&staging).context("making the staging folder")?;
        let tree = self.tree_of(commit)?;
        let mut checkout = git2::build::CheckoutBuilder::new();
        checkout.force().recreate_missing(true).disable_pathspec_match(true).update_index(false).refresh(false);
        let mut any = false;
        for path in paths {
            self.check_linked_rules(&tree, path, &staging)?;
            // Asked for by exact path; one that the commit does not have is no error and gives no file.
            checkout.path(path);
            any = true;
        }
        if any {
            let beside = self.beside()?;
            beside.set_workdir(&staging, false).context(doing)?;
            let mut index = git2::Index::new().context(doing)?;
            beside.set_index(&mut index).context(doing)?;
            index.read_tree(&tree).context(doing)?;
            let tree = beside.find_tree(tree.id()).context(doing)?;
            beside.checkout_tree(tree.as_object(), Some(&mut checkout)).context(doing)?;
        }
        Ok(staging)
    }

    pub(super) fn clear_staging(&self) -> Result<(), Error> {
        for name in [STAGING, STAGING_OLD] {
            files::remove_folder(&self.private.file(name)).context("removing the staging folder")?;
        }
        Ok(())
    }
}
