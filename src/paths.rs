//! A tick's warnings about `--path`: if a path matches nothing, and if the job wrote files outside it.

use crate::git::Repo;
use crate::git::commit::Committed;
use crate::git::named::Unmatched;
use crate::git::shown;
use crate::pass::Pass;

/// How many files a warning names at most.
const NAMED: usize = 10;

/// Warns about files that a commit lacks because of `--path`.
pub fn warn(pass: &Pass<'_>, repo: &Repo, done: &Committed) {
    let wrote_outside = done.commit.is_none() && warn_outside(pass, repo);
    warn_unmatched(pass, &done.unmatched, wrote_outside);
}

/// Names the files that the job changed outside `--path`. Returns whether there are any.
fn warn_outside(pass: &Pass<'_>, repo: &Repo) -> bool {
    let Some(during) = pass.job_ran else { return false };
    let site = pass.site.as_ref().and_then(|site| site.public_dir().strip_prefix(&repo.place.work_dir).ok());
    let found = match repo.changed_outside(&pass.settings.paths, site, during) {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!("can't find out what the job changed outside --path: {}", error.what);
            return false;
        }
    };
    if found.is_empty() {
        return false;
    }
    let named: Vec<String> = found.iter().take(NAMED).map(|path| shown(path)).collect();
    let more = match found.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let next = "give what should be committed with --path (GIT_SYNC_PATHS), or have git ignore the rest (.gitignore)";
    let named = named.join(", ");
    tracing::warn!(next, "nothing to commit under --path, but the job changed files outside it: {named}{more}");
    true
}

/// Names each path that matches nothing. The default paths are named only if neither of them matches, and no other warning was
/// given (`warned`).
pub fn warn_unmatched(pass: &Pass<'_>, unmatched: &[Unmatched], warned: bool) {
    let is_default = pass.settings.has_default_paths();
    for one in unmatched {
        let spec = shown(one.spec.given().as_ref());
        match &one.ignored {
            Some(path) => {
                let path = shown(path);
                let next = format!(
                    "`git check-ignore -v '{path}'` shows the rule: remove it, add the file with `git add -f`, or change --path"
                );
                tracing::warn!(next, "nothing of --path '{spec}' is committed: git ignores {path}");
            }
            None if is_default => {}
            None => {
                let is_list = spec.contains(',') && !spec.starts_with(":(");
                let next = if is_list {
                    "GIT_SYNC_PATHS is separated by blanks, and --path is given once for each"
                } else {
                    "correct it, or leave it out if no file will ever match"
                };
                tracing::warn!(next, "--path '{spec}' matches no file");
            }
        }
    }
    let missing = unmatched.iter().filter(|one| one.ignored.is_none()).count();
    if is_default && !warned && missing == pass.settings.paths.len() {
        let next = "give what the job writes with --path (GIT_SYNC_PATHS)";
        tracing::warn!(next, "there is neither state/ nor audit/, and a tick commits nothing else by default");
    }
}
