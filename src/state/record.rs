//! `status.json`: the result of each subcommand's last run, for `gitsync status` and for other programs.
//!
//! It is replaced as a whole and not synced to disk: it is not precious, and a poll must not wait for the disk.
//!
//! A *good sync* is a pass that reached the remote, did what the rule says and ended with exit code 0. It may be any subcommand:
//! init-sync and tick ask the remote as sync does. A tick that went on without the remote is not a good sync.

use std::collections::BTreeMap;
use std::io;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::outcome::{Command, Outcome};
use crate::state::dir::PrivateDir;

const NAME: &str = "status.json";

/// The last run of one subcommand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    pub started: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Its result word.
    pub result: String,
    /// Its exit code.
    pub exit_code: i32,
    /// The local commit after it.
    pub local: Option<String>,
    /// The remote commit it saw.
    pub remote: Option<String>,
    /// What failed.
    pub error: Option<String>,
    /// When a run of this subcommand last ended with exit code 0.
    pub last_good: Option<DateTime<Utc>>,
    /// The version of gitsync. `None` if it was an early version, which did not record which public dir it had filled.
    #[serde(default)]
    pub version: Option<String>,
}

/// The whole of `status.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// By subcommand: `init-sync`, `sync`, `tick`.
    #[serde(default)]
    pub runs: BTreeMap<String, Run>,
    /// How many runs of each subcommand ended with each result word.
    #[serde(default)]
    pub totals: BTreeMap<String, BTreeMap<String, u64>>,
    /// When the last good sync ended.
    #[serde(default)]
    pub last_good_sync: Option<DateTime<Utc>>,
}

impl Record {
    /// Reads the record. If it is missing, damaged or unreadable it counts as empty, since it is not precious.
    pub fn read(private: &PrivateDir) -> Self {
        Self::try_read(private).unwrap_or_default()
    }

    /// Whether the last run of a subcommand was by an early version, which did not record which public dir it had filled.
    pub fn is_by_version_without_notes(&self, command: Command) -> bool {
        self.runs.get(command.word()).is_some_and(|run| run.version.is_none())
    }

    fn try_read(private: &PrivateDir) -> io::Result<Self> {
        let content = private.read(NAME)?;
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default())
    }

    /// Adds the outcome of a pass to the record, writes it and returns it.
    ///
    /// # Errors
    /// If the file system fails. A record that can't be read is not replaced: it would lose what the other passes recorded.
    pub fn keep(private: &PrivateDir, outcome: &Outcome, ended: DateTime<Utc>) -> io::Result<Self> {
        let mut record = Self::try_read(private)?;
        let name = outcome.command.word();
        let exit_code = outcome.exit_code();
        let before = record.runs.get(name).and_then(|run| run.last_good);
        let run = Run {
            started: outcome.started,
            duration_ms: outcome.duration_ms,
            result: outcome.result.word().to_owned(),
            exit_code,
            local: outcome.local.clone(),
            remote: outcome.remote.clone(),
            error: outcome.error(),
            last_good: if exit_code == 0 { Some(ended) } else { before },
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        };
        let results = record.totals.entry(name.to_owned()).or_default();
        *results.entry(run.result.clone()).or_default() += 1;
        record.runs.insert(name.to_owned(), run);
        let looked = match outcome.command {
            // With an empty remote there is no state, although the remote answered. Offline is exit code 75.
            Command::InitSync => true,
            Command::Sync | Command::Tick => outcome.state.is_some(),
        };
        if looked && exit_code == 0 {
            record.last_good_sync = Some(ended);
        }
        let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other)?;
        private.write(NAME, &text)?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::Error;
    use crate::outcome::Word;
    use crate::policy::SyncState;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn private() -> (tempfile::TempDir, PrivateDir) {
        let git_dir = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(git_dir.path());
        private.create().unwrap();
        (git_dir, private)
    }

    /// A pass that looked at the remote.
    fn looked(command: Command, result: Word) -> Outcome {
        let mut outcome = Outcome::new(command, at(0));
        outcome.result = result;
        outcome.state = Some(SyncState::UpToDate);
        outcome
    }

    fn failed(mut outcome: Outcome) -> Outcome {
        outcome.failures.push(Error::person("it broke", "mend it"));
        outcome
    }

    #[test]
    fn each_run_replaces_the_last_of_its_kind_and_is_counted_by_its_result() {
        let (_git_dir, private) = private();
        assert_eq!(Record::read(&private), Record::default());
        let runs = [
            looked(Command::Sync, Word::State(SyncState::UpToDate)),
            looked(Command::Sync, Word::State(SyncState::UpToDate)),
            looked(Command::Tick, Word::NoChanges),
            failed(looked(Command::Sync, Word::Error)),
        ];
        for (number, outcome) in (1..).zip(runs) {
            let kept = Record::keep(&private, &outcome, at(number)).unwrap();
            assert_eq!(kept, Record::read(&private));
            assert_eq!(kept.runs[outcome.command.word()].result, outcome.result.word());
        }
        let record = Record::read(&private);
        let total = |command: &str, word: &str| record.totals[command].get(word).copied();
        assert_eq!((total("sync", "up-to-date"), total("sync", "error")), (Some(2), Some(1)));
        assert_eq!((total("tick", "no-changes"), total("tick", "error")), (Some(1), None));
        let sync = &record.runs["sync"];
        assert_eq!((sync.exit_code, sync.last_good), (1, Some(at(2))), "the failed one was not good");
        assert_eq!((record.runs["tick"].exit_code, record.runs["tick"].last_good), (0, Some(at(3))));
        assert_eq!(record.last_good_sync, Some(at(3)));
    }

    #[test]
    fn a_good_sync_is_one_that_looked_at_the_remote_and_did_not_fail() {
        let (_git_dir, private) = private();
        let good = |outcome: &Outcome, ended| Record::keep(&private, outcome, at(ended)).unwrap().last_good_sync;
        let blind = |command| Outcome { state: None, ..looked(command, Word::NoChanges) };
        assert_eq!(good(&blind(Command::Tick), 1), None, "it went on without the remote");
        assert_eq!(good(&blind(Command::Sync), 2), None);
        assert_eq!(good(&failed(looked(Command::Sync, Word::Error)), 3), None);
        assert_eq!(good(&failed(blind(Command::InitSync)), 4), None);
        // With an empty remote there is no state.
        assert_eq!(good(&blind(Command::InitSync), 5), Some(at(5)));
        assert_eq!(good(&looked(Command::Sync, Word::State(SyncState::UpToDate)), 6), Some(at(6)));
        assert_eq!(good(&looked(Command::Tick, Word::NoChanges), 7), Some(at(7)));
        assert_eq!(good(&failed(looked(Command::Tick, Word::Error)), 8), Some(at(7)), "it takes nothing away");
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_empty_and_is_not_replaced() {
        let (_git_dir, private) = private();
        std::fs::create_dir(private.file(NAME)).unwrap();
        assert_eq!(Record::read(&private), Record::default());
        Record::keep(&private, &looked(Command::Sync, Word::State(SyncState::UpToDate)), at(1)).unwrap_err();
        std::fs::remove_dir(private.file(NAME)).unwrap();
        private.write(NAME, b"damaged").unwrap();
        assert_eq!(Record::read(&private), Record::default());
        Record::keep(&private, &looked(Command::Sync, Word::State(SyncState::UpToDate)), at(1)).unwrap();
        assert_eq!(Record::read(&private).runs.len(), 1);
    }

    #[test]
    fn a_run_by_an_early_version_is_known_by_the_version_that_it_lacks() {
        let (_git_dir, private) = private();
        assert!(!Record::default().is_by_version_without_notes(Command::Sync), "there was no run");
        let mut record =
            Record::keep(&private, &looked(Command::Sync, Word::State(SyncState::UpToDate)), at(1)).unwrap();
        assert!(!record.is_by_version_without_notes(Command::Sync));
        record.runs.get_mut("sync").unwrap().version = None;
        assert!(record.is_by_version_without_notes(Command::Sync));
        assert!(!record.is_by_version_without_notes(Command::Tick));
    }
}
