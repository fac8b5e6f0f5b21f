//! Files and folders: read without waiting, written whole, no link followed.

pub(crate) mod atomic;
pub mod dir;
pub mod files;
pub(crate) mod owner;
pub mod walk;
