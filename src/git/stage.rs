//! Files of a commit checked out into a folder of the private folder, with the content and modes that git gives them.

use std::path::PathBuf;

use super::error::Doing;
use super::{CommitId, Error, Repo};
use crate::deadline::step;
use crate::files;

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
        files::remove_folder(&staging).doing("emptying the staging folder")?;
        std::fs::create_dir(&staging).doing("making the staging folder")?;
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
            beside.set_workdir(&staging, false).doing(doing)?;
            let mut index = git2::Index::new().doing(doing)?;
            beside.set_index(&mut index).doing(doing)?;
            index.read_tree(&tree).doing(doing)?;
            let tree = beside.find_tree(tree.id()).doing(doing)?;
            beside.checkout_tree(tree.as_object(), Some(&mut checkout)).doing(doing)?;
        }
        Ok(staging)
    }

    pub(super) fn clear_staging(&self) -> Result<(), Error> {
        for name in [STAGING, STAGING_OLD] {
            files::remove_folder(&self.private.file(name)).doing("removing the staging folder")?;
        }
        Ok(())
    }
}
