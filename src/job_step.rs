//! Two steps of a tick: run the job, and commit what it wrote.
//!
//! What the job wrote is committed even if the job failed: state is evidence.

use std::io;

use chrono::SecondsFormat;

use crate::clock::{Stamp, now};
use crate::error::Error;
use crate::git::CommitId;
use crate::git::Repo;
use crate::git::changed::Scope;
use crate::git::commit::First;
use crate::git::outside::During;
use crate::job_left;
use crate::pass::{Pass, Task};
use crate::paths;
use crate::plan::{Basis, View};
use crate::process::job::{Ended, Program};
use crate::state::job_mark;

/// Runs the job, and checks that the repository is still usable after it.
///
/// # Errors
/// If nothing can be committed after the job. A failure of the job itself is added to the outcome.
pub fn run(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_, CommitId>) -> Result<(), Error> {
    repo.check_unsigned("the job was not run")?;
    job_left::mark_begun(pass, repo)?;
    let from = Stamp::begin();
    let started = start(pass, repo, basis);
    pass.job_ran = Some(During { from, until: Stamp::end() });
    started?;
    let head = repo.place.git_dir.join("HEAD").symlink_metadata();
    if head.is_err_and(|error| [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())) {
        return Err(Error::person(
            format!("the job removed the repository's {}", repo.place.git_dir.display()),
            "run `gitsync init-sync --remote-url URL`: it fetches again; the files in the folder are kept as a rescue",
        ));
    }
    // A job may have removed the private folder. The lock on `.git` still keeps others out.
    repo.private.create().map_err(|error| {
        let next = "remove what is there now; what the job wrote is in the work tree, and the next tick commits it";
        Error::person(format!("after the job: {error}"), next)
    })?;
    let ready = repo.check_files().and_then(|()| repo.read_config_again()).and_then(|()| repo.check_ready());
    ready.map_err(|error| Error {
        what: format!("after the job: {}; what it wrote is not committed", error.what),
        ..error
    })
}

fn start(pass: &mut Pass<'_>, repo: &Repo, basis: Basis<'_, CommitId>) -> Result<(), Error> {
    let (remote, mode) = (basis.view.tip(), basis.mode);
    let settings = pass.settings;
    let timeout = settings.job_timeout;
    let program = if settings.tick_argv.is_empty() {
        Program::Shell(settings.tick_command.clone())
    } else {
        Program::Argv(settings.tick_argv.clone())
    };
    let ended = match pass.keeping_tips(repo, "the job", |pass| {
        pass.run_task(repo, Task { label: "job", program, timeout, remote, mode, public_dir: None })
    }) {
        Ok(ended) => ended,
        Err(failure) => {
            pass.outcome.fail(failure);
            return Ok(());
        }
    };
    pass.outcome.job_exit_code = match &ended {
        Ended::Exited(code) => Some(*code),
        Ended::Signalled(signal) | Ended::Stopped { signal } => Some(128 + signal),
        Ended::TimedOut { .. } => None,
    };
    match ended {
        Ended::Exited(0) => {}
        ended => {
            let next = match ended {
                // These are a shell's exit codes; another program may mean something else by the number.
                Ended::Exited(126 | 127) if settings.tick_argv.is_empty() => {
                    "check that the shell finds each command of --tick-command, in PATH or relative to the repository, and that \
                     it is executable; what the job wrote is still committed"
                }
                _ => "see its output above; what the job wrote is still committed",
            };
            pass.outcome.fail(Error::person(format!("the job {ended}"), next));
        }
    }
    Ok(())
}

/// Commits what is new, changed or deleted under `--path`.
///
/// # Errors
/// If it can't be committed.
pub fn commit(pass: &mut Pass<'_>, repo: &Repo, view: &View<CommitId>) -> Result<(), Error> {
    if pass.outcome.site_built.is_some() {
        repo.check_files().map_err(|error| Error {
            what: format!("after the build: {}; what the job wrote is not committed", error.what),
            ..error
        })?;
    }
    let first = if view.is_empty() { First::Allowed } else { First::Refused };
    let settings = pass.settings;
    let when = now();
    let message = settings.message.replace("{time}", &when.to_rfc3339_opts(SecondsFormat::Secs, true));
    let scope = Scope { paths: &settings.paths, max_file_size: settings.max_file_size };
    let done = repo.commit_under(scope, &message, when, first)?;
    job_mark::remove(&repo.private)?;
    paths::warn(pass, repo, &done);
    for left_out in done.left_out {
        pass.outcome.fail(left_out.failure());
    }
    match done.commit {
        Some(commit) => {
            pass.outcome.commit = Some(commit.to_string());
            pass.outcome.local.clone_from(&pass.outcome.commit);
            pass.outcome.remember();
            tracing::info!(commit = %commit, files = done.files, "{}", message.lines().next().unwrap_or_default());
        }
        None if pass.outcome.job_exit_code == Some(0) => tracing::info!("no state changes"),
        None => tracing::info!("the job failed and changed nothing under --path"),
    }
    Ok(())
}
