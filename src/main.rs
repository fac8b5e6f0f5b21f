//! The `gitsync` program.

fn main() {}
