//! What the machine was.

use std::fmt;
use std::path::Path;

use crate::place;
use crate::servers::git;

pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gb: f64,
    pub kernel: String,
    pub git: String,
    /// The commit that was measured; with a `+` if files differ from it.
    pub commit: String,
    pub trees: &'static str,
    /// Processes that were ready to run, on average of the last minute.
    pub load: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_gb, kernel, git, commit, trees, load } = self;
        write!(
            f,
            "{processor}, {cores} cores, {memory_gb:.0} GB of memory, {kernel}, {git}, gitsync {commit}; trees {trees}; \
             load at the start {load}"
        )
    }
}

pub fn describe() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let kilobytes = after(&read("/proc/meminfo"), "MemTotal");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_checkout = here.join(".git").exists();
    let commit = if is_checkout { git(here, &["rev-parse", "--short", "HEAD"]) } else { "unknown".to_owned() };
    let differs = is_checkout && !git(here, &["status", "--porcelain", "--", "src", "Cargo.toml"]).is_empty();
    let in_memory = place::folder().path().starts_with("/dev/shm");
    Machine {
        processor: after(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gb: kilobytes.trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1e6,
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        git: git(here, &["version"]),
        commit: format!("{commit}{}", if differs { "+" } else { "" }),
        trees: if in_memory { "in memory (tmpfs)" } else { "on disk" },
        load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
    }
}
