//! Everything that starts a program: process groups, jobs, what they leave running, their output.

pub mod group;
pub mod job;
mod orphans;
mod output;
pub mod programs;
