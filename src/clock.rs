//! The one place where clocks are read, so that a step is given its time instead of taking it.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The time of day, UTC.
#[must_use]
pub fn now() -> DateTime<Utc> {
    // The one lawful place.
    #[allow(clippy::disallowed_methods)]
    Utc::now()
}

/// A point on the clock that never jumps, for deadlines.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// What the clocks say at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The time of day, UTC. Anybody may set it to anything.
    pub wall: DateTime<Utc>,
    /// How long the machine has been running, where that can be told.
    pub boot: Option<Boot>,
}

/// How long a machine has been running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Which run of the machine that is. Containers have that of their host.
    pub id: String,
    /// Seconds since it began, sleep included. Setting the clock does not move it.
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
