//! gitsync keeps a git repository that a machine works in, and its remote, together with nobody watching.

pub mod cli;
pub mod deadline;
mod ffi;
pub mod git;
pub mod init_sync;
pub mod job;
pub mod lock;
pub mod marker;
pub mod outcome;
pub mod pass;
pub mod policy;
pub mod private;
pub mod publish;
pub mod record;
pub mod report;
pub mod sync;
pub mod tick;
pub mod transport;
