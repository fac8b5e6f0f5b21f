//! Files and folders: read without waiting, written whole, no link followed.

pub mod dir;
pub mod files;
