//! Starting programs: process groups, jobs, the processes they leave running, and their output.

pub mod group;
pub mod job;
mod orphans;
mod output;
pub mod programs;
