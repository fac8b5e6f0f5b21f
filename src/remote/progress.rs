//! How far a long transfer is, for who watches: a bar on a terminal, else a line every few seconds; nothing for a short one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Progress {
    /// Not at all.
    #[default]
    Quiet,
    /// An event at level info every few seconds.
    Lines,
    /// A bar on stderr, which is a terminal.
    Bar,
}

/// A transfer shorter than this is nobody's concern.
const SHORT: Duration = Duration::from_secs(2);
/// Between two lines.
const EVERY: Duration = Duration::from_secs(5);

/// Counts the bytes of a session.
#[derive(Debug)]
pub(crate) struct Meter {
    how: Progress,
    url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    told: Option<Instant>,
    received: u64,
    sent: u64,
    objects: (usize, usize),
    bar: Option<ProgressBar>,
}

impl Meter {
    pub fn new(how: Progress, url: &str) -> Meter {
        Meter { how, url: url.to_owned(), state: Mutex::new(State::default()) }
    }

    pub fn received(&self, bytes: usize) {
        self.step(|state| state.received += bytes as u64);
    }

    pub fn sent(&self, bytes: usize) {
        self.step(|state| state.sent += bytes as u64);
    }

    /// `done` of `total` objects are through.
    pub fn objects(&self, done: usize, total: usize) {
        self.step(|state| state.objects = (done, total));
    }

    /// The transfer is over; the next one starts from nothing.
    pub fn done(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        *state = State::default();
    }

    fn step(&self, count: impl FnOnce(&mut State)) {
        if self.how == Progress::Quiet {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut state);
        let now = Instant::now();
        let since = *state.since.get_or_insert(now);
        if now - since < SHORT {
            return;
        }
        let (done, total) = state.objects;
        match self.how {
            Progress::Quiet => {}
            Progress::Lines => {
                if state.told.is_some_and(|told| now - told < EVERY) {
                    return;
                }
                state.told = Some(now);
                tracing::info!(
                    remote = self.url,
                    received = state.received,
                    sent = state.sent,
                    objects = done,
                    objects_total = total,
                    seconds = (now - since).as_secs(),
                    "transferring"
                );
            }
            Progress::Bar => {
                let message = format!("{} received, {} sent", HumanBytes(state.received), HumanBytes(state.sent));
                let bar = state.bar.get_or_insert_with(|| {
                    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                    if let Ok(style) =
                        ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} objects {elapsed}")
                    {
                        bar.set_style(style);
                    }
                    bar
                });
                if total > 0 {
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                }
                bar.set_message(message);
                bar.tick();
            }
        }
    }
}
