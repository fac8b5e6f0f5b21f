//! The soak: months of passes in minutes. Ticks, a rival who pushes and rewrites, edits that nobody committed, FIFOs in the way,
//! damage, and kills in between; git's gc as a tick runs it. What a pass does and what it leaves must not grow with time.
//!
//! Every pass sees a clock that is fifteen minutes further on. It begins in the past and ends now, so that no file that a pass has just
//! written looks old to it; the files are dated back to the time of the pass at every sample. A short run is a test, and judges counts
//! alone. A year, with the times of the passes, as `docs/performance/soak.csv` and a plot:
//!
//! ```text
//! GITSYNC_SOAK=35000 cargo test --release --test long soak:: -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use needs::needs;

use crate::plot::{self, Line, Lines};
use crate::scene::{Scene, write};
use crate::servers::commit_to;
use crate::world::odds;

const TICK: i64 = 900;
const DAY: i64 = 96 * TICK;

/// How long a run is, and how often what happens in it; everything counted in ticks.
#[derive(Clone, Copy)]
struct Length {
    ticks: i64,
    /// A sample is taken each time.
    sample: i64,
    /// Histories part, work is not committed, a FIFO is in the way: one after the other.
    mishap: i64,
    damage: i64,
    /// For how long rescues are kept.
    keep: i64,
    /// git's limits for loose objects and packs.
    gc: (i64, i64),
}

const SHORT: Length = Length { ticks: 288, sample: 24, mishap: 12, damage: 120, keep: 72, gc: (256, 20) };

/// What is there at one time of a run.
#[derive(Clone, Debug, Default)]
struct Sample {
    day: f64,
    /// Medians since the last sample, in milliseconds.
    tick_ms: f64,
    sync_ms: f64,
    packs: usize,
    loose: usize,
    disk: u64,
    rescues: usize,
    broken: usize,
    aside: usize,
    /// Names in the private folder.
    private: usize,
    /// System calls of a tick with nothing to do, and of a sync.
    calls: Option<(usize, usize)>,
}

struct Soak {
    s: Scene,
    length: Length,
    upstream: git2::Repository,
    ticks: i64,
    began: SystemTime,
    random: u64,
    times: BTreeMap<&'static str, Vec<f64>>,
    samples: Vec<Sample>,
    /// When what can leave a rescue happened, in ticks.
    mishaps: Vec<i64>,
    fifos: Vec<i64>,
    damages: Vec<i64>,
    kills: Vec<i64>,
    fetches: usize,
}

impl Soak {
    fn new(length: Length) -> Self {
        let s = Scene::without_ours();
        s.git_upstream(&["config", "receive.autogc", "false"]);
        s.git_upstream(&["config", "gc.auto", "0"]);
        s.init_sync().exits(0);
        s.git_ours(&["config", "gc.auto", &length.gc.0.to_string()]);
        s.git_ours(&["config", "gc.autoPackLimit", &length.gc.1.to_string()]);
        s.env("GIT_SYNC_KEEP_RESCUES", &format!("{}s", length.keep * TICK));
        let upstream = git2::Repository::open_bare(s.upstream()).unwrap();
        Self {
            s,
            length,
            upstream,
            ticks: 0,
            began: SystemTime::now(),
            random: 0x9e37_79b9_7f4a_7c15,
            times: BTreeMap::new(),
            samples: Vec::new(),
            mishaps: Vec::new(),
            fifos: Vec::new(),
            damages: Vec::new(),
            kills: Vec::new(),
            fetches: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// How far the clock of the passes is behind, in seconds.
    fn behind(&self) -> i64 {
        (self.length.ticks - self.ticks) * TICK
    }

    fn pass(&self, args: &[&str]) -> Command {
        let mut command = self.s.gitsync(args);
        odds::set_time(&mut command, &format!("-{}", self.behind()));
        command
    }

    /// Runs a pass that must succeed.
    fn run(&mut self, args: &[&str]) {
        let command = self.pass(args);
        let start = Instant::now();
        self.s.run_this(command);
        let took = start.elapsed().as_secs_f64() * 1000.0;
        self.times.entry(if args[0] == "tick" { "tick" } else { "sync" }).or_default().push(took);
        let lately_killed = self.kills.last().is_some_and(|at| self.ticks - at <= 1);
        let last = self.s.last();
        assert!(last.code == Some(0) || (lately_killed && last.code == Some(75)), "tick {}: {last}", self.ticks);
    }

    fn sync(&mut self) {
        self.run(&["sync"]);
    }

    fn job(&self) -> String {
        let (number, day) = (self.ticks, self.ticks * TICK / DAY);
        format!("mkdir -p state audit; echo {number} >state/{}; echo {number} >>audit/{}", number % 20, day % 90)
    }

    fn tick(&mut self) {
        let job = self.job();
        self.run(&["tick", "--", "sh", "-c", &job]);
    }

    /// Starts a pass and kills it after a random time.
    fn killed(&mut self) {
        let job = self.job();
        let args: &[&str] = if self.below(3) == 0 { &["sync"] } else { &["tick", "--", "sh", "-c", &job] };
        let mut child =
            self.pass(args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let usual = self.times.get("tick").map_or(50.0, |all| median(all));
        std::thread::sleep(Duration::from_micros(self.below((usual * 1200.0) as u64 + 1)));
        let _ = child.kill();
        child.wait().unwrap();
        self.kills.push(self.ticks);
    }

    fn rival_pushes(&mut self, path: &str) {
        commit_to(&self.upstream, "refs/heads/main", path, format!("{}\n", self.ticks).as_bytes());
        self.fetches += 1;
    }

    /// Our commit, or a rewrite of the remote's, loses; an edit that is not committed is replaced; a FIFO is in the way.
    fn mishap(&mut self) {
        let kind = self.mishaps.len() + self.fifos.len();
        let path = format!("page-{}", kind % 7);
        match kind % 4 {
            0 => {
                self.s.we_commit("ours");
                self.rival_pushes(&path);
            }
            1 => {
                let before = self.upstream.revparse_single("refs/heads/main~").unwrap().id();
                self.upstream.reference("refs/heads/main", before, true, "rewritten").unwrap();
                self.rival_pushes(&path);
            }
            2 => {
                self.s.we_write(&path, &format!("edit {}\n", self.ticks));
                self.rival_pushes(&path);
            }
            _ => {
                let name = format!("fifo-{}", self.ticks);
                let made = Command::new("mkfifo").arg(self.s.ours().join(&name)).status();
                assert!(made.unwrap().success());
                self.rival_pushes(&name);
                self.sync();
                self.fifos.push(self.ticks);
                return;
            }
        }
        self.mishaps.push(self.ticks);
        self.sync();
    }

    /// The newest tree is lost, and init-sync puts the repository aside.
    fn damage(&mut self) {
        self.s.we_commit("ours");
        let tree = self.s.rev(&self.s.ours(), "HEAD^{tree}");
        fs::remove_file(self.s.ours().join(format!(".git/objects/{}/{}", &tree[..2], &tree[2..]))).unwrap();
        self.run(&["init-sync"]);
        self.damages.push(self.ticks);
        self.s.git_ours(&["config", "gc.auto", &self.length.gc.0.to_string()]);
        self.s.git_ours(&["config", "gc.autoPackLimit", &self.length.gc.1.to_string()]);
    }

    /// Fifteen minutes pass, by every clock that gitsync reads.
    fn time_passes(&mut self) {
        self.ticks += 1;
        let path = self.s.private().join("ages.json");
        let Ok(text) = fs::read_to_string(&path) else { return };
        let mut ledger: serde_json::Value = serde_json::from_str(&text).unwrap();
        if let Some(boot) = ledger["last"].get_mut("boot").filter(|boot| !boot.is_null()) {
            boot["seconds"] = (boot["seconds"].as_i64().unwrap() - TICK).into();
            fs::write(&path, ledger.to_string()).unwrap();
        }
    }

    fn run_all(&mut self, each: impl Fn(&Self)) {
        while self.ticks < self.length.ticks {
            self.time_passes();
            let now = self.ticks;
            if self.below(35) < 10 {
                let path = format!("page-{}", now % 7);
                self.rival_pushes(&path);
                self.sync();
            }
            if now % self.length.damage == 0 {
                self.damage();
            } else if now % self.length.mishap == 0 {
                self.mishap();
            }
            if self.below(50) == 0 {
                self.killed();
            }
            self.tick();
            if now % self.length.sample == 0 {
                self.sample();
                each(self);
            }
        }
    }

    fn sample(&mut self) {
        self.date_back();
        odds::clear_faketime();
        let number = self.samples.len();
        if number.is_multiple_of(7) {
            self.s.git_upstream(&["gc", "-q"]);
        }
        let git_dir = self.s.ours().join(".git");
        let names = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
        let objects = git_dir.join("objects");
        let loose = (0..256).map(|byte| names(&objects.join(format!("{byte:02x}")))).sum();
        let packs = fs::read_dir(objects.join("pack")).unwrap();
        let packs = packs.filter(|it| it.as_ref().unwrap().path().extension().is_some_and(|end| end == "pack")).count();
        let calls = self.calls();
        let private = self.s.private();
        let times = std::mem::take(&mut self.times);
        let typical = |name: &str| times.get(name).map_or(0.0, |all| median(all));
        self.samples.push(Sample {
            day: (self.ticks * TICK) as f64 / DAY as f64,
            tick_ms: typical("tick"),
            sync_ms: typical("sync"),
            packs,
            loose,
            disk: size(&git_dir),
            rescues: self.s.rescues("").len(),
            broken: names(&private.join("broken")),
            aside: names(&private.join("aside")),
            private: names(&private),
            calls,
        });
    }

    /// System calls of a tick with nothing to do, and of a sync. Counted now and then: tracing takes its time.
    fn calls(&mut self) -> Option<(usize, usize)> {
        if !self.samples.len().is_multiple_of(if self.length.ticks > 1000 { 14 } else { 1 }) {
            return None;
        }
        // The first one may have something to do.
        self.run(&["tick", "--", "true"]);
        let count = |args: &[&str]| {
            let plain = self.pass(args);
            let summary = self.s.root().join("calls");
            let mut traced = self.s.isolated("strace");
            traced
                .args(["-f", "-c", "-U", "calls", "-o"])
                .arg(&summary)
                .arg(plain.get_program())
                .args(plain.get_args());
            traced.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
            self.s.run_this(traced).exits(0);
            let text = fs::read_to_string(&summary).unwrap();
            let total = text.lines().rev().find_map(|line| line.trim().strip_suffix("total"));
            total
                .and_then(|line| line.trim().parse().ok())
                .unwrap_or_else(|| text.lines().filter_map(first_number).sum())
        };
        Some((count(&["tick", "--", "true"]), count(&["sync"])))
    }

    /// Gives what was written since the last sample the time that the passes saw: git lets go of loose objects by it.
    fn date_back(&self) {
        let time = SystemTime::now() - Duration::from_secs(self.behind().unsigned_abs());
        let mut folders = vec![self.s.ours().join(".git/objects")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if meta.modified().unwrap() >= self.began {
                    let times = rustix::fs::Timestamps { last_access: stamp(time), last_modification: stamp(time) };
                    rustix::fs::utimensat(rustix::fs::CWD, entry.path(), &times, rustix::fs::AtFlags::empty()).unwrap();
                }
            }
        }
    }

    /// How many of these happened so lately that what they left may still be kept: an hour passes before the ledger counts, and
    /// another before it is sure.
    fn lately(&self, events: &[i64]) -> usize {
        let slack = 4 * 3600 / TICK + 1;
        events.iter().filter(|at| self.ticks - **at <= self.length.keep + slack).count()
    }

    fn csv(&self) -> String {
        let mut out =
            "day,tick_ms,sync_ms,packs,loose,disk_mb,rescues,broken,aside,private,tick_calls,sync_calls\n".to_owned();
        for it in &self.samples {
            let calls = it.calls.map_or_else(|| ",".to_owned(), |(tick, sync)| format!("{tick},{sync}"));
            let Sample { day, tick_ms, sync_ms, packs, loose, rescues, broken, aside, private, .. } = it;
            let disk = it.disk as f64 / 1e6;
            let _ = writeln!(
                out,
                "{day:.2},{tick_ms:.1},{sync_ms:.1},{packs},{loose},{disk:.2},{rescues},{broken},{aside},{private},{calls}"
            );
        }
        out
    }

    fn plot(&self) -> String {
        type Figure = (&'static str, fn(&Sample) -> f64);
        let panels: [(&str, &[Figure]); 4] = [
            ("Median time of a pass, in ms", &[("tick", |it| it.tick_ms), ("sync that follows", |it| it.sync_ms)]),
            ("Loose objects and packs", &[("loose objects", |it| it.loose as f64), ("packs", |it| it.packs as f64)]),
            ("Size of .git in MB", &[(".git", |it| it.disk as f64 / 1e6)]),
            (
                "What is kept",
                &[
                    ("rescues", |it| it.rescues as f64),
                    ("broken/", |it| it.broken as f64),
                    ("aside/", |it| it.aside as f64),
                ],
            ),
        ];
        let panels = panels.map(|(title, figures)| Lines {
            title,
            below: "day",
            powers: false,
            mark: None,
            lines: figures
                .iter()
                .map(|(name, value)| Line {
                    name: (*name).to_owned(),
                    points: self.samples.iter().map(|it| (it.day, value(it))).collect(),
                })
                .collect(),
        });
        plot::page(&panels, 210.0)
    }
}

fn first_number(line: &str) -> Option<usize> {
    line.split_whitespace().next()?.parse().ok()
}

fn stamp(time: SystemTime) -> rustix::fs::Timespec {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    rustix::fs::Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: 0 }
}

fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn size(path: &Path) -> u64 {
    let meta = path.symlink_metadata().unwrap();
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
}

fn judge(soak: &Soak) {
    let Length { gc: (loose, packs), .. } = soak.length;
    let story = soak.csv();
    let one_of =
        |name: &str, largest: usize, limit: usize| assert!(largest <= limit, "{name}: {largest} > {limit}\n{story}");
    let largest = |value: fn(&Sample) -> usize| soak.samples.iter().map(value).max().unwrap();
    // What a tick and a sync or two add before the next tick packs; git estimates loose objects from one folder of 256.
    one_of("packs", largest(|it| it.packs), usize::try_from(packs).unwrap() + 5);
    one_of("loose objects", largest(|it| it.loose), usize::try_from(loose).unwrap() * 3);
    // What the remote holds is the same history; besides, there are rescues, loose objects and a repository put aside.
    let most = 4 * size(&soak.s.upstream()) + (1 << 20);
    one_of("bytes", largest(|it| it.disk as usize), most as usize);
    one_of("names in the private folder", largest(|it| it.private), 16);
    let first = soak.samples[0].calls.unwrap();
    for (tick, sync) in soak.samples.iter().filter_map(|it| it.calls) {
        one_of("calls of a tick", tick, first.0 * 3 / 2);
        one_of("calls of a sync", sync, first.1 * 3 / 2);
    }
    // Each of these leaves two at most: our commits and our files.
    let (mishaps, damages, kills) = (&soak.mishaps, &soak.damages, &soak.kills);
    let last = soak.samples.last().unwrap();
    let kept = 2 * (soak.lately(mishaps) + soak.lately(damages) + soak.lately(kills));
    one_of("rescues", last.rescues, kept);
    one_of("aside/", last.aside, soak.lately(&soak.fifos));
    one_of("broken/", last.broken, soak.lately(damages));
    assert!(largest(|it| it.rescues) > 0 && largest(|it| it.aside) > 0 && largest(|it| it.broken) > 0, "{story}");
}

#[needs(faketime, strace)]
#[test]
fn nothing_grows_with_time() {
    let wanted = std::env::var("GITSYNC_SOAK").ok().and_then(|ticks| ticks.parse().ok());
    // Of a year: a mishap every other day, damage every four months, 90 days for what is kept; and git's own limits.
    let length = wanted.map_or(SHORT, |ticks: i64| Length {
        ticks,
        sample: 96,
        mishap: ticks / 180,
        damage: ticks / 3,
        keep: ticks / 4,
        gc: (6700, 50),
    });
    let mut soak = Soak::new(length);
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
    soak.run_all(|soak| {
        if wanted.is_some() {
            write(&folder.join("soak.csv"), &soak.csv());
            write(&folder.join("soak.svg"), &soak.plot());
            println!("{:?}", soak.samples.last().unwrap());
        }
    });
    println!("{} ticks, {} fetches, {} kills\n{}", soak.ticks, soak.fetches, soak.kills.len(), soak.csv());
    soak.tick();
    soak.s.ours_equals_upstream().fsck();
    judge(&soak);
}
