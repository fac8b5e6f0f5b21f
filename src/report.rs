//! An outcome told to whoever listens.

pub mod log;

use std::io::Write;

use crate::cli::Output;
use crate::outcome::Outcome;

/// Prints the result: one line on stdout. A reader that has gone away is no reason to fail.
pub fn print(outcome: &Outcome, output: Output) {
    let line = match output {
        Output::Text => outcome.result.word().to_owned(),
        Output::Json => outcome.json().to_string(),
    };
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}
