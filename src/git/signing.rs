//! Refuses to commit where signed commits are required: gitsync does not sign.

use super::{Repo, settings};
use crate::error::Error;

impl Repo {
    /// Refuses to make a commit if git's configuration asks for signed ones. `instead` says what was or was not done,
    /// as a part of a sentence.
    ///
    /// Rescues are gitsync's own and need no signature.
    ///
    /// # Errors
    /// If `commit.gpgsign` is true or can't be read.
    pub fn check_unsigned(&self, instead: &str) -> Result<(), Error> {
        let why = match self.config()?.get_bool("commit.gpgsign") {
            Ok(false) => return Ok(()),
            Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(()),
            Ok(true) => "commit.gpgsign is true in git's configuration, and gitsync signs no commits".to_owned(),
            Err(error) => {
                let refused = settings::refused(&self.place, &error);
                return Err(refused.unwrap_or_else(|| Error::git("reading commit.gpgsign", &error)));
            }
        };
        let next = format!(
            "`git -C {} config commit.gpgsign false` allows unsigned commits in this repository",
            self.place.work_dir.display()
        );
        Err(Error::person(format!("{why}: {instead}"), next))
    }
}
