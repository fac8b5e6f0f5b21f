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
