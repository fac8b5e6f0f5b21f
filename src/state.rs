//! The private folder, `.git/gitsync/`: what gitsync keeps between passes.

pub mod dir;
pub mod job_mark;
pub mod lock;
pub mod marker;
pub mod old_server;
pub mod record;
pub mod token_host;
