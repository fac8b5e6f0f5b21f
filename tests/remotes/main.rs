//! Passes against servers: tokens, proxies, certificates, names, progress, memory.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod branches;
mod env_config;
mod memory;
mod name_lookup;
mod passes;
mod progress;
#[path = "../scene/mod.rs"]
mod scene;
#[path = "../servers/mod.rs"]
mod servers;
mod token_host;
