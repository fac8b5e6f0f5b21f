//! Maintenance at the end of a tick: packs the repository's objects together (`git gc`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use chrono::DateTime;

use crate::clock;
use crate::git::Repo;
use crate::pass::Pass;
use crate::process::job::{self, Ended, Job, Program};
use crate::remote;

/// How long packing the repository's objects together may take.
const GC_TIMEOUT: Duration = Duration::from_secs(300);

/// The file that records when packing failed. It is tried again a day later, as git does: a repository that takes longer than the
/// limit must not hold the lock for that time in every tick.
pub const GC_FAILED: &str = "gc-failed";

/// Packs the repository's objects together if that is due and git is installed. A failure is only a warning.
pub fn pack_together(pass: &Pass<'_>, repo: &Repo) {
    if !repo.is_due_for_gc() || gc_failed_lately(repo) {
        return;
    }
    repo.clear_half_packed(&BTreeSet::new(), false);
    let before = repo.half_packed();
    let private = repo.private.path();
    let program = Program::Argv(repo.gc_command());
    let mut job = Job::new("gc", program, &repo.place.work_dir, GC_TIMEOUT, private, pass.watch);
    let kept_from_it = remote::REPOSITORY_VARIABLES.iter().chain(remote::SECRET_VARIABLES);
    job.env_remove = kept_from_it.map(OsString::from).collect();
    job.redact = Some(&remote::redact::known);
    match job::run(&job) {
        Ok(Ended::Exited(0)) => {
            tracing::info!("the repository's objects were packed together (git gc)");
            let _ = repo.private.remove_durably(GC_FAILED);
        }
        Ok(ended) => {
            let next = "run `git gc` there and see what it says; until it works the repository grows; it is tried again in a day";
            // If this can't be written, the next tick tries again.
            let _ = repo.private.write(GC_FAILED, clock::now().to_rfc3339().as_bytes());
            tracing::warn!(next, "packing the repository's objects together (git gc): it {ended}");
            repo.clear_half_packed(&before, true);
        }
        // Without git nothing can be packed. That is no fault: only path remotes need git.
        Err(error) => tracing::debug!(next = error.next, "git gc was due: {}", error.what),
    }
}

fn gc_failed_lately(repo: &Repo) -> bool {
    let text = repo.private.read(GC_FAILED).ok().flatten().unwrap_or_default();
    let failed = DateTime::parse_from_rfc3339(&String::from_utf8_lossy(&text));
    // A time in the future means that the clock was set back; it is ignored.
    failed.is_ok_and(|failed| {
        let age = clock::now().signed_duration_since(failed);
        age >= chrono::Duration::zero() && age < chrono::Duration::days(1)
    })
}
