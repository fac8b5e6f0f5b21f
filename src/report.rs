//! Reports an outcome: the result on stdout, the log, metrics.

pub mod github;
pub mod log;
pub mod metrics;

use std::io::{IsTerminal, Write};

use crate::cli::{Config, LogFormat, Output};
use crate::outcome::Outcome;
use crate::remote::Progress;

/// Prints the result: one line on stdout.
pub fn print(outcome: &Outcome, output: Output) {
    print_line(&match output {
        Output::Text => outcome.result.word().to_owned(),
        Output::Json => outcome.json().to_string(),
    });
}

/// Prints a line to stdout. A closed stdout is no reason to fail.
pub fn print_line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// How the progress of long transfers is shown: as a bar at a terminal, else as a line every few seconds.
pub fn progress(settings: &Config) -> Progress {
    if settings.verbosity() < 0 {
        Progress::Quiet
    } else if std::io::stderr().is_terminal() && settings.log_format == LogFormat::Text {
        Progress::Bar
    } else {
        Progress::Lines
    }
}
