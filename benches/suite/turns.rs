//! Times whole processes in turns, so that a ratio means something on a machine whose speed changes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// From the start of the process to its end.
    pub wall: Duration,
    /// User and system time of the process and of every child that it waited for.
    pub cpu: Duration,
    /// The largest resident memory of one process, in bytes. Never less than this program's own peak, which a child's
    /// figure starts from.
    pub peak: u64,
}

/// The runs of one contender.
#[derive(Clone, Debug, Default)]
pub struct Runs(pub Vec<Run>);

impl Runs {
    /// The median, in milliseconds.
    pub fn wall(&self) -> f64 {
        median(self.0.iter().map(|run| milliseconds(run.wall)).collect())
    }

    /// The median of user and system time, in milliseconds.
    pub fn cpu(&self) -> f64 {
        median(self.0.iter().map(|run| milliseconds(run.cpu)).collect())
    }

    /// The largest of the peaks, in bytes.
    pub fn peak(&self) -> u64 {
        self.0.iter().map(|run| run.peak).max().unwrap_or_default()
    }

    /// The quartiles of the ratio to the other's run of the same round.
    pub fn spread(&self, other: &Runs) -> (f64, f64) {
        let mut ratios: Vec<f64> =
            self.0.iter().zip(&other.0).map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |quarter: usize| ratios[(ratios.len() - 1) * quarter / 4];
        (at(1), at(3))
    }
}

/// Runs `count` contenders in turns. `ready` prepares what the contender needs, which is not timed, and gives its command.
/// The order is reversed in every other round. With more than three rounds one more goes first and is not counted.
pub fn take(rounds: usize, count: usize, mut ready: impl FnMut(usize, usize) -> Command) -> Vec<Runs> {
    let mut all = vec![Runs::default(); count];
    let warm_up = usize::from(rounds > 3);
    for round in 0..rounds + warm_up {
        for turn in 0..count {
            let who = if round % 2 == 0 { turn } else { count - 1 - turn };
            let run = timed(&mut ready(round, who));
            if round >= warm_up {
                all[who].0.push(run);
            }
        }
    }
    all
}

/// Runs a command that has to succeed.
pub fn timed(command: &mut Command) -> Run {
    let log = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen().unwrap());
    let start = Instant::now();
    let ended = command.spawn().and_then(|mut child| child.wait4()).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let wall = start.elapsed();
    let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
    assert!(ended.status.success(), "{command:?}: {}\n{}", ended.status, said());
    let used = ended.rusage;
    Run { wall, cpu: used.utime + used.stime, peak: used.maxrss }
}

/// The peak of this program's own resident memory, in bytes: no child's peak can be seen below it.
pub fn own_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { (all[middle - 1] + all[middle]) / 2.0 }
}
