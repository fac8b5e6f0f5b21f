//! What takes longest, in one binary: the schedulers wait much while the sweeps use the processors.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod container;
#[path = "../disk/mod.rs"]
mod disk;
mod error_sweep;
mod kill_sweep;
mod model;
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../plot/mod.rs"]
mod plot;
mod power_loss;
mod remote_sweep;
#[path = "../scene/mod.rs"]
mod scene;
#[path = "../servers/mod.rs"]
mod servers;
mod soak;
#[path = "../sweep/mod.rs"]
mod sweep;
#[path = "../world/mod.rs"]
mod world;
