//! The record of a server that leaves requests in git's protocol v2 unanswered: `old-server` in the private folder. For a day
//! it is not asked that way again, which would cost every pass a wait.

use std::io;

use chrono::{DateTime, TimeDelta, Utc};

use crate::state::dir::PrivateDir;

const NAME: &str = "old-server";

/// How long the record counts.
const COUNTS: TimeDelta = TimeDelta::days(1);

/// Returns whether the server of this URL was found to be such a one less than a day ago. A record that can't be read, or that
/// is from the future, counts for nothing.
pub fn is_known(private: &PrivateDir, url: &str, now: DateTime<Utc>) -> bool {
    let text = private.read(NAME).ok().flatten().and_then(|text| String::from_utf8(text).ok());
    let parts = text.as_deref().and_then(|text| text.trim_end().split_once(' '));
    parts.is_some_and(|(since, of)| {
        let since = DateTime::parse_from_rfc3339(since).map(|since| now.signed_duration_since(since));
        of == url && since.is_ok_and(|age| age >= TimeDelta::zero() && age < COUNTS)
    })
}

/// Records that the server of this URL is such a one. `url` has no secrets in it.
///
/// # Errors
/// If the file system fails.
pub fn record(private: &PrivateDir, url: &str, now: DateTime<Utc>) -> io::Result<()> {
    private.write_durably(NAME, format!("{} {url}\n", now.to_rfc3339()).as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_record_counts_for_a_day_and_for_its_url() {
        let folder = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(folder.path());
        private.create().unwrap();
        let now = crate::clock::now();
        assert!(!is_known(&private, "https://a/r", now));
        record(&private, "https://a/r", now).unwrap();
        assert!(is_known(&private, "https://a/r", now + TimeDelta::hours(23)));
        assert!(!is_known(&private, "https://b/r", now));
        assert!(!is_known(&private, "https://a/r", now + TimeDelta::hours(25)));
        assert!(!is_known(&private, "https://a/r", now - TimeDelta::hours(1)), "the clock was wrong then or is now");
        private.write(NAME, b"\xff").unwrap();
        assert!(!is_known(&private, "https://a/r", now));
    }
}
