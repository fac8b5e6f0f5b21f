//! The transports, as a library, against real servers on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod addresses;
mod err;
mod http;
mod programs;
mod proxy;
mod secrets;
#[path = "../servers/mod.rs"]
mod servers;
mod tls;
