//! Files and folders: reading never blocks, files are replaced as a whole, and no links are followed.

pub(crate) mod atomic;
pub mod dir;
pub mod files;
pub(crate) mod owner;
pub mod walk;
