//! gitsync keeps a git repository that a machine works in, and its remote, together with nobody watching.

pub mod deadline;
mod ffi;
pub mod job;
pub mod publish;
pub mod transport;
