//! Passes against servers, and the transports, as a library, against the same: tokens, proxies, certificates, names,
//! progress, memory.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod addresses;
// Takes longest, so it is to start early: tests run in the order of their names.
mod big_transfers;
mod branches;
mod env_config;
mod err;
mod git_config;
mod http;
mod name_lookup;
mod passes;
mod programs;
mod progress;
mod protocol;
mod proxy;
mod refusals;
#[path = "../scene/mod.rs"]
mod scene;
mod secrets;
#[path = "../servers/mod.rs"]
mod servers;
mod ssh_files;
mod tls;
mod token_host;
mod url_mistakes;
