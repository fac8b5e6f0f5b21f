//! What git's configuration, attributes and index flags ask for: done as git does it, or named.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod attributes;
mod index_flags;
#[path = "../scene/mod.rs"]
mod scene;
mod signing;
