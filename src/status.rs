//! `gitsync status`: the state of this instance, and its health.
//!
//! It uses no network, takes no lock and writes nothing, so it answers at once, even while a pass is running. It shows what the
//! passes have recorded.

use std::io;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use crate::cli::{Config, Healthy, Of, Output};
use crate::error::{Error, Kind};
use crate::fs::{files, owner};
use crate::git::kept::{self, Kept};
use crate::git::{self, Identity, Names, Peek, Place};
use crate::outcome::Command;
use crate::policy::{self, SyncState};
use crate::state::dir::PrivateDir;
use crate::state::lock::{self, Holder};
use crate::state::marker::{self, Marked};
use crate::state::record::{Record, Run};
use crate::watchdog::step;

/// Everything that `status` shows.
#[derive(Debug)]
pub struct Report {
    found: Result<Found, Error>,
    mode: &'static str,
    branch: String,
    remote: String,
    now: DateTime<Utc>,
}

#[derive(Debug)]
struct Found {
    place: Place,
    peek: Peek,
    rescues: Vec<Kept>,
    /// The only subcommand to show, if there is one.
    only: Option<&'static str>,
    marked: Option<Marked>,
    lock: Option<Option<Holder>>,
    record: Record,
    health: Option<Health>,
}

/// The result of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Health {
    of: Of,
    max_age: Duration,
    last_good: Option<DateTime<Utc>>,
    /// The age now, or when the running pass began, which the others wait for.
    age: Option<Duration>,
    /// How far the last good one is ahead of the clock, if the clock was set back since. The age is then unknown.
    ahead: Option<Duration>,
}

impl Health {
    fn is_good(&self) -> bool {
        self.age.is_some_and(|age| age <= self.max_age)
    }
}

/// Collects everything to show; `now` is the time. If `before` is an error, the report is that error.
pub fn look(before: Result<(), Error>, healthy: Option<Healthy>, settings: &Config, now: DateTime<Utc>) -> Report {
    let found = before.and_then(|()| find(healthy, settings, now));
    if let Err(failure) = &found {
        tracing::error!(next = %failure.next, "{}", failure.what);
    }
    Report { found, mode: settings.mode.word(), branch: settings.branch.clone(), remote: settings.remote.clone(), now }
}

fn find(healthy: Option<Healthy>, settings: &Config, now: DateTime<Utc>) -> Result<Found, Error> {
    let here = std::env::current_dir().map_err(|error| {
        Error::person(format!("the current folder can't be found: {error}"), "run gitsync in a folder that exists")
    })?;
    step("looking at the repository");
    let place = git::find(settings.repo.as_deref(), &here)?;
    let private = PrivateDir::of(&place.git_dir);
    // Everything below takes an unreadable file for a missing one. Without permission to read, the report would be wrong.
    match files::entries(private.path()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let doing = format!("reading the private folder {}", private.path().display());
            let next = "run `gitsync status` as the user that runs the passes".to_owned();
            return Err(Error { kind: Kind::Person, next, ..owner::refused(&doing, &[private.path()], &error) });
        }
    }
    let names =
        || Names { branch: settings.branch.clone(), remote: settings.remote.clone(), identity: Identity::default() };
    // The lock first: if a pass ends in between, the record that we read next is the one it wrote.
    let lock = lock::peek(&private);
    let record = Record::read(&private);
    let busy_since = lock.as_ref().and_then(Option::as_ref).filter(|holder| in_time(holder, settings, now));
    let health = healthy.map(|wanted| health(wanted, &record, busy_since.map(|holder| holder.since), now));
    let only = if healthy.is_none() { settings.of.map(Of::word) } else { None };
    let rescues = kept::kept(&place, names())?;
    let peek = git::peek(&place, names())?;
    Ok(Found { peek, rescues, only, marked: marker::read(&private), place, lock, record, health })
}

/// Whether a running pass is within the time it may take. One that has exceeded it hangs, and does not excuse an old sync.
fn in_time(holder: &Holder, settings: &Config, now: DateTime<Utc>) -> bool {
    let network = if holder.command == Command::InitSync.word() {
        settings.network_timeout.max(Duration::from_secs(3600))
    } else {
        settings.network_timeout
    };
    let slack = Duration::from_secs(60);
    // A pass may wait as long as for the lock again, for processes that a killed pass left running.
    let all = settings.lock_wait + network + settings.job_timeout + settings.build_timeout + slack;
    since(holder.since, now) <= all
}

/// Checks the health; `busy_since` is when the running pass began.
fn health(wanted: Healthy, record: &Record, busy_since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Health {
    let last_good = match wanted.of {
        Of::Sync => record.last_good_sync,
        Of::Tick => record.runs.get(Command::Tick.word()).and_then(|run| run.last_good),
    };
    let until = busy_since.unwrap_or(now).min(now);
    // If the clock was set back a little, the last good sync counts as new, and the next good one corrects the record. If it was
    // set back far, the last good sync must not count as new until the clock has caught up with it.
    let ahead = last_good.map(|good| since(until, good)).filter(|ahead| *ahead > wanted.max_age);
    let age = last_good.map(|good| since(good, until)).filter(|_| ahead.is_none());
    Health { of: wanted.of, max_age: wanted.max_age, last_good, age, ahead }
}

impl Report {
    /// 0; 1 if the instance is not healthy; or the exit code of the error.
    pub fn exit_code(&self) -> i32 {
        match &self.found {
            Ok(found) => i32::from(!found.is_healthy()),
            Err(failure) => failure.kind.exit_code(),
        }
    }

    /// The text for stdout, without the last newline.
    pub fn lines(&self, output: Output) -> String {
        match (output, &self.found) {
            (Output::Text, Ok(found)) => self.text(found),
            (Output::Text, Err(_)) => "error".to_owned(),
            (Output::Json, Ok(found)) => self.json(found).to_string(),
            (Output::Json, Err(failure)) => json!({
                "command": "status",
                "result": "error",
                "exit_code": self.exit_code(),
                "error": format!("{}; {}", failure.what, failure.next),
            })
            .to_string(),
        }
    }

    fn text(&self, found: &Found) -> String {
        if let Some(only) = found.only {
            let run = found.record.runs.get(only);
            let text = run.map_or_else(|| "never".to_owned(), |run| self.run_in_words(run));
            return format!("{:<14}  {text}", format!("last {only}"));
        }
        let heads = &found.peek.heads;
        let commit = |id: Option<git::CommitId>, none: &str| id.map_or_else(|| none.to_owned(), |id| id.to_string());
        let mut lines = vec![
            ("repository", found.place.work_dir.display().to_string()),
            ("branch", self.branch.clone()),
            ("mode", self.mode.to_owned()),
            ("state", found.state_in_words()),
            ("local", commit(heads.local, "no commit yet")),
            ("remote", format!("{} ({}, as last seen)", commit(heads.remote, "none"), self.remote)),
            ("force push", found.force_push_in_words()),
            (
                "lock",
                match &found.lock {
                    None => "free".to_owned(),
                    Some(None) => "held".to_owned(),
                    Some(Some(holder)) => format!("held by {holder}"),
                },
            ),
        ];
        for command in [Command::InitSync, Command::Sync, Command::Tick] {
            let name = match command {
                Command::InitSync => "last init-sync",
                Command::Sync => "last sync",
                Command::Tick => "last tick",
            };
            let run = found.record.runs.get(command.word());
            lines.push((name, run.map_or_else(|| "never".to_owned(), |run| self.run_in_words(run))));
        }
        let good = found.record.last_good_sync;
        lines.push(("good sync", good.map_or_else(|| "never".to_owned(), |good| self.ago(good))));
        if let Some(health) = &found.health {
            lines.push(("health", health.in_words()));
        }
        if let Some(error) = &found.peek.not_ready {
            lines.push(("in the way", format!("{}; {}", error.what, error.next)));
        }
        let rescues = &found.rescues;
        lines.push(("rescues", if rescues.is_empty() { "none".into() } else { rescues.len().to_string() }));
        let mut text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<14}  {value}")).collect();
        text.extend(rescues.iter().map(|kept| self.rescue_in_words(kept)));
        text.join("\n")
    }

    fn rescue_in_words(&self, kept: &Kept) -> String {
        let age = kept.since.map_or_else(|| "at an unknown time".to_owned(), |since| self.ago(since));
        let size = kept.bytes.map_or_else(|| "size unknown".to_owned(), |bytes| format!("{bytes} bytes"));
        let subject: String = kept.subject.as_deref().unwrap_or("its commit can't be read").escape_debug().collect();
        format!("  {}  {}  {age}, {size}: {subject}\n    {}", kept.name, kept.commit, kept.get_back)
    }

    fn run_in_words(&self, run: &Run) -> String {
        let took = Duration::from_millis(run.duration_ms);
        let mut words = format!("{}: {}", self.ago(ended(run)), run.result);
        words += &format!(" (exit {}, took {})", run.exit_code, humantime::format_duration(rounded(took)));
        if let Some(error) = &run.error {
            words += &format!(": {error}");
        }
        words
    }

    fn ago(&self, then: DateTime<Utc>) -> String {
        format!("{} ago", humantime::format_duration(rounded(since(then, self.now))))
    }

    fn json(&self, found: &Found) -> serde_json::Value {
        let heads = &found.peek.heads;
        let relation = found.peek.relation;
        let run_json = |run: &Run| {
            json!({
                "started": stamp(run.started), "duration_ms": run.duration_ms,
                "age_seconds": since(ended(run), self.now).as_secs(),
                "result": run.result, "exit_code": run.exit_code, "local": run.local, "remote": run.remote,
                "error": run.error, "last_good": run.last_good.map(stamp),
            })
        };
        let runs: serde_json::Map<_, _> = found.runs().map(|(name, run)| (name.clone(), run_json(run))).collect();
        let lock = found.lock.as_ref().map(|holder| match holder {
            Some(Holder { pid, command, since }) => {
                json!({ "pid": pid, "command": command, "since": stamp(*since) })
            }
            None => json!({ "pid": null, "command": null, "since": null }),
        });
        let health = found.health.as_ref().map(|health| {
            json!({
                "of": health.of.word(), "healthy": health.is_good(), "max_age_seconds": health.max_age.as_secs(),
                "last_good": health.last_good.map(stamp), "age_seconds": health.age.map(|age| age.as_secs()),
            })
        });
        let rescue_json = |kept: &Kept| {
            json!({
                "ref": kept.name.name(), "commit": kept.commit.to_string(), "subject": kept.subject,
                "age_seconds": kept.since.map(|then| since(then, self.now).as_secs()),
                "size_bytes": kept.bytes, "get_back": kept.get_back,
            })
        };
        let rescues: Vec<_> = found.rescues.iter().map(rescue_json).collect();
        json!({
            "command": "status",
            "result": if found.is_healthy() { "ok" } else { "unhealthy" },
            "exit_code": self.exit_code(),
            "repository": found.place.work_dir.display().to_string(),
            "branch": self.branch,
            "remote_name": self.remote,
            "mode": self.mode,
            "state": found.state().map(SyncState::word),
            "local": heads.local.map(|id| id.to_string()),
            "remote": heads.remote.map(|id| id.to_string()),
            "ahead": relation.map(|relation| relation.ahead),
            "behind": relation.map(|relation| relation.behind),
            "force_push_pending": found.force_push_is_pending(),
            "lock": lock,
            "runs": runs,
            "last_good_sync": found.record.last_good_sync.map(stamp),
            "health": health,
            "not_ready": found.peek.not_ready.as_ref().map(|error| format!("{}; {}", error.what, error.next)),
            "rescue_refs": rescues,
            "error": null,
        })
    }
}

impl Found {
    fn runs(&self) -> impl Iterator<Item = (&String, &Run)> {
        self.record.runs.iter().filter(|(name, _)| self.only.is_none_or(|only| only == name.as_str()))
    }

    fn is_healthy(&self) -> bool {
        self.health.as_ref().is_none_or(Health::is_good)
    }

    fn state(&self) -> Option<SyncState> {
        let relation = self.peek.relation?;
        Some(policy::state(relation.same, relation.local_is_ancestor, relation.remote_is_ancestor))
    }

    fn force_push_is_pending(&self) -> bool {
        let destination = self.peek.destination.as_ref();
        self.marked.as_ref().zip(destination).is_some_and(|(marked, to)| marked.is_for(to))
    }

    fn force_push_in_words(&self) -> String {
        match &self.marked {
            None => "none".to_owned(),
            Some(Marked::Unknown) => {
                "marked, but for an unknown branch: nothing is forced; `gitsync tick --alpha` sets it again".to_owned()
            }
            Some(Marked::For(marker)) if self.force_push_is_pending() => {
                let tip = marker.remote_tip.as_deref().unwrap_or("none");
                format!("pending: the next tick may overwrite the remote, if its commit still is {tip}")
            }
            Some(Marked::For(marker)) => format!("marked for {} only", marker.destination),
        }
    }

    fn state_in_words(&self) -> String {
        let Some(state) = self.state() else { return "unknown: no pass has seen both sides yet".to_owned() };
        let (ahead, behind) = self.peek.relation.map_or((0, 0), |relation| (relation.ahead, relation.behind));
        let commits = |count: usize| if count == 1 { "1 commit".to_owned() } else { format!("{count} commits") };
        match state {
            SyncState::UpToDate => state.word().to_owned(),
            SyncState::Behind => format!("{}: the remote has {} more", state.word(), commits(behind)),
            SyncState::Ahead => format!("{}: {} to push", state.word(), commits(ahead)),
            SyncState::Diverged => {
                format!("{}: {} here, {} there", state.word(), commits(ahead), commits(behind))
            }
        }
    }
}

impl Health {
    fn in_words(&self) -> String {
        let limit = humantime::format_duration(self.max_age);
        match (self.age, self.ahead) {
            (None, Some(ahead)) => {
                let ahead = humantime::format_duration(rounded(ahead));
                format!("bad: the last good {} is {ahead} ahead of the clock, which was set back", self.of.word())
            }
            (None, None) => format!("bad: no good {} ever", self.of.word()),
            (Some(age), _) => {
                let word = if self.is_good() { "good" } else { "bad" };
                let age = humantime::format_duration(rounded(age));
                format!("{word}: the last good {} is {age} old, {limit} is the limit", self.of.word())
            }
        }
    }
}

fn ended(run: &Run) -> DateTime<Utc> {
    // A damaged record may name a time beyond the calendar's end.
    let took = i64::try_from(run.duration_ms).ok().and_then(chrono::Duration::try_milliseconds);
    took.and_then(|took| run.started.checked_add_signed(took)).unwrap_or(run.started)
}

/// The time from `then` to `now`; zero if the clock was set back in between.
fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}

/// Rounds down to seconds, for people.
fn rounded(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + chrono::Duration::minutes(minute)
    }

    fn two_minutes(of: Of) -> Healthy {
        Healthy { of, max_age: Duration::from_secs(120) }
    }

    #[test]
    fn age_is_measured_up_to_the_start_of_the_running_pass() {
        let record = Record { last_good_sync: Some(at(100)), ..Record::default() };
        let good =
            |busy: Option<DateTime<Utc>>, now: i64| health(two_minutes(Of::Sync), &record, busy, at(now)).is_good();
        assert!(good(None, 102));
        assert!(!good(None, 103));
        assert!(good(Some(at(101)), 114), "a long tick that began in good health");
        assert!(!good(Some(at(103)), 114), "it was bad before the tick began");
    }

    #[test]
    fn an_instance_without_a_good_run_is_not_healthy() {
        for of in [Of::Sync, Of::Tick] {
            assert!(!health(two_minutes(of), &Record::default(), None, at(0)).is_good());
            assert!(!health(two_minutes(of), &Record::default(), Some(at(0)), at(0)).is_good());
        }
    }

    #[test]
    fn after_a_clock_was_set_back_a_good_sync_is_new_only_within_the_limit() {
        let record = Record { last_good_sync: Some(at(100)), ..Record::default() };
        let judged = |now: i64| health(two_minutes(Of::Sync), &record, None, at(now));
        assert_eq!(judged(99).age, Some(Duration::ZERO));
        assert!(judged(98).is_good());
        assert!(!judged(97).is_good() && !judged(50).is_good(), "nobody knows how long ago that was");
        assert_eq!(judged(50).in_words(), "bad: the last good sync is 50m ahead of the clock, which was set back");
    }
}
