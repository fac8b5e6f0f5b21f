//! gitsync keeps a git repository that a machine works in, and its remote, in sync, unattended.
//!
//! A **pass** is one run of one subcommand ([`init_sync`], [`sync`], [`tick`]). It takes the repository's lock ([`state`]), finishes
//! what a killed pass has left unfinished, asks the remote for its tip, lets the [`policy`] decide, acts, and prints one result
//! word ([`outcome`]). A scheduler runs the passes; nothing here loops. A pass may be killed at any moment: the next pass finishes
//! any step that was begun.
//!
//! [`git`] has the operations on the repository, each with its guarantees; [`remote`] reaches the remote; [`process`] runs the
//! job and the build; [`publish`] publishes the site; [`watchdog`] ends a pass that exceeds its limits.
//!
//! The crate is a program first. The library exists for the program's own examples and tests; its interface is not stable.

mod act;
pub mod cli;
pub mod clock;
mod dry_run;
pub mod error;
mod ffi;
pub mod fs;
pub mod git;
pub mod init_sync;
mod job_left;
mod job_step;
mod look;
pub mod outcome;
pub mod pass;
pub mod paths;
pub mod plan;
pub mod policy;
pub mod process;
pub mod publish;
pub mod remote;
pub mod report;
pub mod rescued;
pub mod run;
pub mod site;
pub mod state;
pub mod status;
pub mod sync;
pub mod tick;
mod upkeep;
pub mod watchdog;
