//! `gitsync sync`: asks the remote for its tip, and follows it if the rule says so.
//!
//! If the tip is what we have, that is the whole pass: one round trip, no fetch, no scan of the files.

use crate::act;
use crate::error::Error;
use crate::git::Repo;
use crate::outcome::Word;
use crate::pass::Pass;
use crate::plan::{self, Basis};
use crate::{job_left, look};

/// Does the pass. With `--dry-run` it prints what it would do.
///
/// # Errors
/// The error that ends the pass early.
pub fn run(pass: &mut Pass<'_>, repo: &Repo) -> Result<Word, Error> {
    job_left::commit(pass, repo)?;
    let view = look::look(pass, repo)?;
    job_left::keep_whole(pass, repo, &view)?;
    let mode = pass.settings.mode;
    let gone = plan::branch_is_gone(&repo.names.branch, &repo.names.remote);
    let plan = plan::sync(&view, mode, gone, pass.site_is_stale(repo));
    act::apply(pass, repo, Basis { view: &view, mode }, &plan)?;
    job_left::settle(pass, repo, &view)?;
    Ok(plan.word)
}
