//! gitsync keeps a git repository that a machine works in, and its remote, together with nobody watching.

pub mod deadline;
pub mod ffi;
pub mod git;
pub mod job;
pub mod lock;
pub mod marker;
pub mod outcome;
pub mod policy;
pub mod private;
pub mod publish;
pub mod record;
pub mod transport;
