//! Histories that went apart: what is forced, replayed, deepened or rescued.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod job_left;
mod marker;
mod rebase;
mod rescue;
mod rewound;
#[path = "../scene/mod.rs"]
mod scene;
mod shallow;
