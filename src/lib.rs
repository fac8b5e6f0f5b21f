//! gitsync keeps a git repository that a machine works in, and its remote, in sync, unattended.
//!
//! A **pass** is one run of one subcommand ([`init_sync`], [`sync`], [`tick`]). It takes the repository's lock ([`state`]), finishes what an
//! earlier pass was killed in, asks the remote for its tip, lets the [`policy`] decide, acts, and says one word
//! ([`outcome`]). A scheduler runs passes; nothing here loops. A pass may be killed at any moment: each step is either not
//! begun, or finished by the next pass.
//!
//! What a pass may do to a repository is in [`git`], with a promise to each verb; [`transport`] is how it reaches the remote;
//! [`process`] and [`publish`] run the machine's work and put its site up; [`watchdog`] ends what overstays.
//!
//! The crate is a program first. The library is there for the program's own examples and tests, and promises no stable
//! interface.

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
pub mod report;
pub mod rescued;
pub mod run;
pub mod site;
pub mod state;
pub mod status;
pub mod sync;
pub mod tick;
pub mod transport;
mod upkeep;
pub mod watchdog;
