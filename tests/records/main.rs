//! What a pass leaves for those who look: records, reports, packs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod lines;
mod report;
#[path = "../scene/mod.rs"]
mod scene;
#[path = "../servers/mod.rs"]
mod servers;
mod status;
mod upkeep;
