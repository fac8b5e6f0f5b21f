//! What counts as damage and what does not, and how `init-sync` mends it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod heal;
mod not_damage;
mod odd_history;
#[path = "../scene/mod.rs"]
mod scene;
