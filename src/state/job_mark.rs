//! The mark of a job that has started and whose output is not committed yet: `.git/gitsync/job-begun`.
//!
//! A tick that is killed during its job leaves uncommitted output in the work tree. The mark tells the next pass, of any
//! subcommand, what that tick would have committed, so that the job's output stays together (guarantee G11).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error};
use crate::state::dir::PrivateDir;

/// The file's name in the private folder.
pub const NAME: &str = "job-begun";

/// What the tick that ran the job would have committed, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMark {
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// The commit of the local branch when the job began; `None` while it was unborn.
    pub base: Option<String>,
    /// The tick's `--path`s.
    pub paths: Vec<String>,
    /// The tick's `--message`.
    pub message: String,
    /// The tick's `--max-file-size`, in bytes.
    pub max_file_size: u64,
    /// When the job began.
    pub since: DateTime<Utc>,
}

/// Reads the mark. `None` if there is none, or it can't be read.
pub fn read(private: &PrivateDir) -> Option<JobMark> {
    private.file(NAME).symlink_metadata().ok()?;
    serde_json::from_slice(&private.read(NAME).ok().flatten()?).ok()
}

/// Writes the mark. When this returns, it survives a power loss.
///
/// # Errors
/// If the file system fails.
pub fn set(private: &PrivateDir, mark: &JobMark) -> Result<(), Error> {
    let doing = "marking that the job begins";
    let text = serde_json::to_vec_pretty(mark).map_err(std::io::Error::from).context(doing)?;
    private.write_durably(NAME, &text).context(doing)
}

/// Removes the mark, if there is one.
///
/// # Errors
/// If the file system fails.
pub fn remove(private: &PrivateDir) -> Result<(), Error> {
    if private.file(NAME).symlink_metadata().is_err() {
        return Ok(());
    }
    private.remove_durably(NAME).map(drop).context("removing the mark of the job")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_there_from_the_begin_of_the_job_until_it_is_removed() {
        let git_dir = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(git_dir.path());
        private.create().unwrap();
        let mark = JobMark {
            branch: "main".into(),
            base: Some("aa".into()),
            paths: vec!["state/".into()],
            message: "tick at {time}".into(),
            max_file_size: 1 << 40,
            since: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        };
        assert_eq!(read(&private), None);
        remove(&private).unwrap();
        set(&private, &mark).unwrap();
        assert_eq!(read(&private), Some(mark));
        remove(&private).unwrap();
        assert_eq!(read(&private), None);
        assert!(!private.file(NAME).exists());
        private.write(NAME, b"not a mark").unwrap();
        assert_eq!(read(&private), None);
        remove(&private).unwrap();
        assert!(!private.file(NAME).exists(), "one that can't be read is removed too");
    }
}
