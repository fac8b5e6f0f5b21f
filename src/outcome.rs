//! The outcome of a pass: one result word, one exit code, and the facts behind them.
//!
//! Everything that the specification foresees is a value here, including failures. Only unforeseen errors are left to
//! color-eyre in `main.rs`.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use crate::error::{Error, Kind};
use crate::policy::SyncState;
use crate::rescued::Rescues;

/// What this process's pass has found so far. Read when a signal or the watchdog ends the pass.
static SO_FAR: Mutex<Option<Outcome>> = Mutex::new(None);

/// A subcommand that is a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `gitsync init-sync`
    InitSync,
    /// `gitsync sync`
    Sync,
    /// `gitsync tick`
    Tick,
}

impl Command {
    /// The subcommand's name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::InitSync => "init-sync",
            Self::Sync => "sync",
            Self::Tick => "tick",
        }
    }
}

/// The one word on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// init-sync: there was no repository, now there is.
    Cloned,
    /// init-sync: the repository was made equal to the remote.
    Reset,
    /// init-sync: the remote does not have the branch yet.
    EmptyRemote,
    /// init-sync: the remote can't be reached; the local state stays in use.
    Offline,
    /// sync: the state it found; init-sync: `up-to-date` if nothing differed.
    State(SyncState),
    /// sync, tick: another one of the same kind is already waiting for the lock.
    Skipped,
    /// tick: nothing to commit and nothing to push.
    NoChanges,
    /// tick: the remote has our commit.
    Pushed,
    /// tick: the push failed; the commit is kept, and the next tick retries the push.
    PushFailed,
    /// The pass failed.
    Error,
}

impl Word {
    /// The word as printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cloned => "cloned",
            Self::Reset => "reset",
            Self::EmptyRemote => "empty-remote",
            Self::Offline => "offline",
            Self::State(state) => state.word(),
            Self::Skipped => "skipped",
            Self::NoChanges => "no-changes",
            Self::Pushed => "pushed",
            Self::PushFailed => "push-failed",
            Self::Error => "error",
        }
    }
}

/// Everything a pass found and did, as `--output json` prints it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which subcommand this is.
    pub command: Command,
    /// The result, once known.
    pub result: Word,
    /// The state, if the remote answered.
    pub state: Option<SyncState>,
    /// The local branch's commit before the pass, as 40 hex digits.
    pub local_before: Option<String>,
    /// The local branch's commit after it.
    pub local: Option<String>,
    /// The remote branch's commit as last seen in this pass.
    pub remote: Option<String>,
    /// The number of commits that local has and the remote does not, if the remote answered.
    pub ahead: Option<usize>,
    /// The number of commits that the remote has and local does not, if the remote answered.
    pub behind: Option<usize>,
    /// The commit this tick made.
    pub commit: Option<String>,
    /// Whether the remote accepted our push in this pass.
    pub pushed: bool,
    /// Whether that push overwrote another history.
    pub forced: bool,
    /// What was put under `refs/gitsync/rescue/` in this pass.
    pub rescues: Rescues,
    /// Whether the site was built and published; `None` if no build was due.
    pub site_built: Option<bool>,
    /// The job's exit status; 128+N when signal N ended it.
    pub job_exit_code: Option<i32>,
    /// When the pass began.
    pub started: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// In a dry run, the steps that the pass would take.
    pub plan: Option<Vec<String>>,
    /// The exit code of a pass that a signal ended.
    pub ended_by: Option<i32>,
    /// What failed, in order.
    pub failures: Vec<Error>,
}

impl Outcome {
    /// An outcome at the beginning of a pass, with nothing known yet.
    pub fn new(command: Command, started: DateTime<Utc>) -> Self {
        Self {
            command,
            result: Word::Error,
            state: None,
            local_before: None,
            local: None,
            remote: None,
            ahead: None,
            behind: None,
            commit: None,
            pushed: false,
            forced: false,
            rescues: Rescues::default(),
            site_built: None,
            job_exit_code: None,
            started,
            duration_ms: 0,
            plan: None,
            ended_by: None,
            failures: Vec::new(),
        }
    }

    /// Keeps a copy for [`Outcome::so_far`]. A pass that is ended by a signal or the watchdog can't reach its own outcome.
    pub fn remember(&self) {
        *SO_FAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clone());
    }

    /// The outcome of a pass that is ended by a signal or the watchdog: state, tips, commit and rescues as last remembered.
    pub fn so_far(command: Command, started: DateTime<Utc>) -> Self {
        let known = SO_FAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.unwrap_or_else(|| Self::new(command, started));
        Self { command, started, result: Word::Error, ..known }
    }

    /// Adds a failure to the outcome and logs it. Failures are logged only here, so that each is logged once.
    pub fn fail(&mut self, failure: Error) {
        tracing::error!(next = %failure.next, "{}", failure.what);
        self.failures.push(failure);
    }

    /// Adds the reason why the push failed, or was not tried. A failure that the outcome already has is not added again.
    pub fn push_failed(&mut self, failure: Error) {
        if self.failures.contains(&failure) {
            return;
        }
        let message = if failure.is_passing() { "push failed, will retry" } else { "push failed" };
        self.fail(Error { what: format!("{message}: {}", failure.what), ..failure });
    }

    /// 0, or the code of the most severe failure: one that needs a person outranks one that goes away by itself.
    pub fn exit_code(&self) -> i32 {
        self.ended_by.unwrap_or_else(|| {
            self.failures.iter().map(|f| f.kind).max_by_key(|kind| kind.severity()).map_or(0, Kind::exit_code)
        })
    }

    /// The failures as one text, or `None`.
    pub fn error(&self) -> Option<String> {
        let all: Vec<String> = self.failures.iter().map(|f| f.to_string()).collect();
        (!all.is_empty()).then(|| all.join(" | "))
    }

    /// The object of `--output json`.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "command": self.command.word(),
            "result": self.result.word(),
            "exit_code": self.exit_code(),
            "state": self.state.map(SyncState::word),
            "local_before": self.local_before,
            "local": self.local,
            "remote": self.remote,
            "ahead": self.ahead,
            "behind": self.behind,
            "commit": self.commit,
            "pushed": self.pushed,
            "forced": self.forced,
            "rescue_refs": self.rescues.names(),
            "site_built": self.site_built,
            "job_exit_code": self.job_exit_code,
            "started": self.started.to_rfc3339_opts(SecondsFormat::Secs, true),
            "duration_ms": self.duration_ms,
            "plan": self.plan,
            "error": self.error(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_needs_a_person_outranks_a_passing_one() {
        let mut outcome = Outcome::new(Command::Tick, DateTime::<Utc>::UNIX_EPOCH);
        assert_eq!(outcome.exit_code(), 0);
        outcome.fail(Error::retry("the network is away", "nothing"));
        assert_eq!(outcome.exit_code(), 75);
        outcome.fail(Error::person("the job failed", "look"));
        outcome.fail(Error::retry("the network is away", "nothing"));
        assert_eq!(outcome.exit_code(), 1);
    }
}
