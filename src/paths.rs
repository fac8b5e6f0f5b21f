//! What a tick says of `--path`: where it names nothing, and where the job wrote beside it.

use crate::git::Repo;
use crate::git::commit::Committed;
use crate::git::named::Unmatched;
use crate::git::shown;
use crate::pass::Pass;

/// So many files are named.
const NAMED: usize = 10;

/// Says what a commit lacks because of `--path`.
pub fn say(pass: &Pass<'_>, repo: &Repo, done: &Committed) {
    let wrote_outside = done.commit.is_none() && say_outside(pass, repo);
    say_unmatched(pass, &done.unmatched, wrote_outside);
}

/// Names the files that the job changed outside `--path`; whether there are any.
fn say_outside(pass: &Pass<'_>, repo: &Repo) -> bool {
    let Some(during) = pass.job_ran else { return false };
    let site = pass.site.as_ref().and_then(|site| site.public_dir().strip_prefix(&repo.place.work_dir).ok());
    let found = match repo.changed_outside(&pass.settings.paths, site, during) {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!("what the job changed outside --path can't be told: {}", error.what);
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
    let next = "name what is to be committed with --path (GIT_SYNC_PATHS), or have git ignore the rest (.gitignore)";
    let named = named.join(", ");
    tracing::warn!(next, "nothing to commit under --path, but the job changed files outside it: {named}{more}");
    true
}

/// Names each path that names nothing. Of the default ones only where none is there, and nothing else was said.
pub fn say_unmatched(pass: &Pass<'_>, unmatched: &[Unmatched], said: bool) {
    let is_default = pass.settings.has_default_paths();
    for one in unmatched {
        let spec = shown(one.spec.given().as_ref());
        match &one.ignored {
            Some(path) => {
                let path = shown(path);
                let next = format!(
                    "`git check-ignore -v '{path}'` shows the rule: take it away, add the file with `git add -f`, or change --path"
                );
                tracing::warn!(next, "nothing of --path '{spec}' is committed: git ignores {path}");
            }
            None if is_default => {}
            None => {
                let is_list = spec.contains(',') && !spec.starts_with(":(");
                let next = if is_list {
                    "GIT_SYNC_PATHS is separated by blanks, and --path is given once for each"
                } else {
                    "correct it, or leave it out if there is nothing to come"
                };
                tracing::warn!(next, "--path '{spec}' matches no file");
            }
        }
    }
    let missing = unmatched.iter().filter(|one| one.ignored.is_none()).count();
    if is_default && !said && missing == pass.settings.paths.len() {
        let next = "name what the job writes with --path (GIT_SYNC_PATHS)";
        tracing::warn!(next, "there is neither state/ nor audit/, and a tick commits nothing else by default");
    }
}
