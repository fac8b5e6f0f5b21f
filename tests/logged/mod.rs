//! What was logged while something ran, kept instead of printed.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// One event.
#[derive(Clone, Debug)]
pub struct Line {
    pub level: Level,
    pub target: String,
    pub from: String,
    pub stream: String,
    pub text: String,
}

type Seen = Box<dyn Fn(&Line) + Send + Sync>;

/// All events of one call, in order.
#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    seen: Arc<Seen>,
    keeping: bool,
}

impl Log {
    /// A log that keeps every event.
    pub fn new() -> Log {
        Log { lines: Arc::default(), seen: Arc::new(Box::new(|_| ())), keeping: true }
    }

    /// A log that keeps nothing and shows every event as it comes.
    pub fn shown_to(seen: impl Fn(&Line) + Send + Sync + 'static) -> Log {
        Log { lines: Arc::default(), seen: Arc::new(Box::new(seen)), keeping: false }
    }

    /// Runs `act` with its events coming here.
    pub fn during<T>(&self, act: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(self.clone()), act)
    }

    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    /// The lines a job printed to one of its streams.
    #[allow(dead_code)]
    pub fn of_stream(&self, stream: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.stream == stream).map(|line| line.text).collect()
    }

    /// The lines a job printed.
    pub fn output(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.target == "gitsync::output").map(|line| line.text).collect()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.level == Level::WARN).map(|line| line.text).collect()
    }
}

#[derive(Default)]
struct Fields {
    from: String,
    stream: String,
    text: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "from" => self.from = value.to_owned(),
            "stream" => self.stream = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.text, "{value:?}").unwrap();
        }
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let Fields { from, stream, text } = fields;
        let line = Line { level: *meta.level(), target: meta.target().to_owned(), from, stream, text };
        (self.seen)(&line);
        if self.keeping {
            self.lines.lock().unwrap().push(line);
        }
    }
}
