//! The only place where clocks are read. Other code is given the time as an argument.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The time of day, UTC.
#[must_use]
pub fn now() -> DateTime<Utc> {
    // Other code has to call this function (see clippy.toml).
    #[allow(clippy::disallowed_methods)]
    Utc::now()
}

/// A point on the clock that never jumps, for deadlines.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// A time to compare with the timestamps of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// The time now, rounded so that no file changed from now on has an earlier timestamp.
    #[must_use]
    pub fn begin() -> Self {
        // The kernel takes the timestamps of files from a clock that lags by some milliseconds.
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::RealtimeCoarse;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Realtime;
        Self::of(clock)
    }

    /// The time now; no file changed before now has a later timestamp.
    #[must_use]
    pub fn end() -> Self {
        Self::of(rustix::time::ClockId::Realtime)
    }

    fn of(clock: rustix::time::ClockId) -> Self {
        let now = rustix::time::clock_gettime(clock);
        #[allow(clippy::useless_conversion)]
        Self { seconds: now.tv_sec.into(), nanoseconds: now.tv_nsec.into() }
    }

    /// A time that a file system gave.
    #[must_use]
    pub fn of_file(seconds: i64, nanoseconds: u32) -> Self {
        Self { seconds, nanoseconds: nanoseconds.into() }
    }

    /// Whether this is not before `other`. Some file systems keep whole seconds only.
    #[must_use]
    pub fn is_since(self, other: Self) -> bool {
        self >= other || (self.nanoseconds == 0 && self.seconds >= other.seconds)
    }
}

/// The readings of the clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The time of day, UTC. It may be set to anything.
    pub wall: DateTime<Utc>,
    /// How long the machine has been running, if that is known.
    pub boot: Option<Boot>,
}

/// How long a machine has been running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The id of this boot. Containers have that of their host.
    pub id: String,
    /// Seconds since the boot, including sleep. Setting the clock does not change them.
    pub seconds: i64,
}

/// Reads the clocks.
#[must_use]
pub fn reading() -> Reading {
    Reading { wall: now(), boot: boot() }
}

#[cfg(target_os = "linux")]
fn boot() -> Option<Boot> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    Some(Boot { id, seconds: rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec })
}

#[cfg(not(target_os = "linux"))]
fn boot() -> Option<Boot> {
    None
}
