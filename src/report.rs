//! An outcome told to whoever listens.

pub mod github;
pub mod log;
pub mod metrics;

use std::io::{IsTerminal, Write};

use crate::cli::{Config, LogFormat, Output};
use crate::outcome::Outcome;
use crate::transport::Progress;

/// Prints the result: one line on stdout.
pub fn print(outcome: &Outcome, output: Output) {
    say(&match output {
        Output::Text => outcome.result.word().to_owned(),
        Output::Json => outcome.json().to_string(),
    });
}

/// Prints to stdout. A reader that has gone away is no reason to fail.
pub fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// How long transfers are told of: a bar for a person at a terminal, else a line every few seconds.
pub fn progress(settings: &Config) -> Progress {
    if settings.verbosity() < 0 {
        Progress::Quiet
    } else if std::io::stderr().is_terminal() && settings.log_format == LogFormat::Text {
        Progress::Bar
    } else {
        Progress::Lines
    }
}
