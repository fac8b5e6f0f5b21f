//! Metrics for Prometheus: a file in its text format, for the textfile collector of node_exporter or any other reader.
//!
//! The file is replaced as a whole after each pass, so that a reader never sees half of it. The numbers come from the record of
//! all passes, not from this pass alone: a `sync` must not remove the last tick's numbers.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::error::Error;
use crate::fs::atomic::{self, How};
use crate::git::Peek;
use crate::policy::{self, Mode, SyncState};
use crate::state::record::Record;

/// The data that the metrics are made from.
pub struct Snapshot<'a> {
    /// The top of the work tree.
    pub repository: &'a Path,
    /// The branch.
    pub branch: &'a str,
    /// The mode that the settings give.
    pub mode: Mode,
    /// Whether a force push is pending.
    pub pending: bool,
    /// The commits of both sides now, if they can be read.
    pub peek: Option<&'a Peek>,
    /// The record of the last passes.
    pub record: &'a Record,
}

/// Refuses a path that can't be written to, before anything is done.
///
/// # Errors
/// A usage error.
pub fn check(path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    let (what, next) = if path.is_dir() || path.file_name().is_none() {
        (format!("--metrics-file {} is a folder", path.display()), "name a file, such as gitsync.prom in it")
    } else if !folder.is_dir() {
        let what = format!("the folder of --metrics-file {} does not exist", path.display());
        (what, "make it, or name a file in an existing folder")
    } else if is_no_file(path) {
        // The new file replaces whatever has that name. Run by root, /dev/null would become a file for the whole machine.
        let what = format!("--metrics-file {} is a device or other special file", path.display());
        (what, "name a regular file, which need not exist yet; leave --metrics-file out if you want no metrics")
    } else {
        return Ok(());
    };
    Err(Error::usage(what, next))
}

/// Whether the path exists and is not a regular file, or is a link into /proc: /dev/stdout is one, even if it leads to a file.
fn is_no_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| !meta.is_file()) || path.read_link().is_ok_and(|to| to.starts_with("/proc"))
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Writes the file under a temporary name and renames it into place, readable by all.
///
/// # Errors
/// If the file system fails. The old file is then still there.
pub fn write(path: &Path, snapshot: &Snapshot<'_>) -> io::Result<()> {
    // The temporary name must not end as the file's name does: a collector reads all `*.prom`.
    let mut beside = std::ffi::OsString::from(".");
    beside.push(path.file_name().unwrap_or_default());
    beside.push(".gitsync");
    let beside = folder_of(path).join(beside);
    // A killed pass may have left one. Only the holder of the lock writes here, so nobody uses it.
    let _ = std::fs::remove_file(&beside);
    atomic::replace(path, &beside, text(snapshot).as_bytes(), How::ReadableByAll)
}

/// The metrics in Prometheus's text format, version 0.0.4.
pub fn text(snapshot: &Snapshot<'_>) -> String {
    let mut page = Page { of: labels(snapshot), text: String::new() };
    page.family("gitsync_build_info", "gauge", "The version that wrote this.");
    page.sample("gitsync_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("gitsync_alpha", "gauge", "Whether this instance is dominant.");
    page.sample("gitsync_alpha", &[], u8::from(snapshot.mode == Mode::Alpha));
    page.family("gitsync_force_push_pending", "gauge", "Whether the next tick may overwrite the remote.");
    page.sample("gitsync_force_push_pending", &[], u8::from(snapshot.pending));
    if let Some(peek) = snapshot.peek {
        page.family("gitsync_rescue_refs", "gauge", "References under refs/gitsync/rescue/.");
        page.sample("gitsync_rescue_refs", &[], peek.rescues.len());
        if let Some(relation) = peek.relation {
            let now = policy::state(relation.same, relation.local_is_ancestor, relation.remote_is_ancestor);
            page.family("gitsync_state", "gauge", "The state of local and remote, as last seen.");
            for state in [SyncState::UpToDate, SyncState::Behind, SyncState::Ahead, SyncState::Diverged] {
                page.sample("gitsync_state", &[("state", state.word())], u8::from(state == now));
            }
            page.family("gitsync_ahead_commits", "gauge", "Commits that only local has.");
            page.sample("gitsync_ahead_commits", &[], relation.ahead);
            page.family("gitsync_behind_commits", "gauge", "Commits that only the remote has.");
            page.sample("gitsync_behind_commits", &[], relation.behind);
        }
    }
    if let Some(good) = snapshot.record.last_good_sync {
        page.family(
            "gitsync_last_good_sync_timestamp_seconds",
            "gauge",
            "When a pass last reached the remote, did what the rule says and ended with exit code 0.",
        );
        page.sample("gitsync_last_good_sync_timestamp_seconds", &[], seconds(good));
    }
    let runs = &snapshot.record.runs;
    if !runs.is_empty() {
        page.family("gitsync_passes_total", "counter", "Passes that had the lock, by result word.");
        for (command, totals) in &snapshot.record.totals {
            for (result, count) in totals {
                page.sample("gitsync_passes_total", &[("command", command), ("result", result)], count);
            }
        }
        page.family("gitsync_last_pass_timestamp_seconds", "gauge", "When the last pass began.");
        for (command, run) in runs {
            page.sample("gitsync_last_pass_timestamp_seconds", &[("command", command)], seconds(run.started));
        }
        page.family("gitsync_last_pass_duration_seconds", "gauge", "How long the last pass took.");
        for (command, run) in runs {
            let took = format!("{}.{:03}", run.duration_ms / 1000, run.duration_ms % 1000);
            page.sample("gitsync_last_pass_duration_seconds", &[("command", command)], took);
        }
        page.family("gitsync_last_pass_exit_code", "gauge", "The last pass's exit code.");
        for (command, run) in runs {
            page.sample("gitsync_last_pass_exit_code", &[("command", command)], run.exit_code);
        }
        page.family("gitsync_last_success_timestamp_seconds", "gauge", "When a pass last ended with exit code 0.");
        for (command, run) in runs {
            if let Some(good) = run.last_good {
                page.sample("gitsync_last_success_timestamp_seconds", &[("command", command)], seconds(good));
            }
        }
    }
    page.text
}

/// The labels of every sample: one machine may have metrics of several repositories.
fn labels(snapshot: &Snapshot<'_>) -> String {
    let repository = snapshot.repository.to_string_lossy();
    format!("repository=\"{}\",branch=\"{}\"", escaped(&repository), escaped(snapshot.branch))
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn seconds(time: DateTime<Utc>) -> i64 {
    time.timestamp()
}

struct Page {
    of: String,
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{{}", self.of);
        for (label, word) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escaped(word));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}
