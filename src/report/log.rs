//! Log events to stderr: one line for each event, with its fields.
//!
//! Every registered secret in a line is masked before it is written. Text from outside is redacted earlier already; this is the
//! last safeguard.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::{Config, LogFormat};
use crate::remote::redact;

/// The fields at the end of each line, in each format.
static FIELDS: Mutex<Fields> = Mutex::new(Fields { json: false, command: "", repo: String::new() });

struct Fields {
    json: bool,
    command: &'static str,
    repo: String,
}

/// Sets the repository that each line names from now on.
pub fn set_repo(repo: &Path) {
    FIELDS.lock().unwrap_or_else(PoisonError::into_inner).repo = repo.display().to_string();
}

impl Fields {
    /// Adds the fields at the end of a line, which is one formatted event.
    fn add_to(&self, line: &mut Vec<u8>) {
        let (command, repo) = (self.command, self.repo.as_str());
        if line.pop_if(|last| *last == b'\n').is_none() {
            return;
        }
        if self.json && line.pop_if(|last| *last == b'}').is_some() {
            let (command, repo) = (serde_json::json!(command), serde_json::json!(repo));
            line.extend_from_slice(format!(",\"command\":{command},\"repo\":{repo}}}").as_bytes());
        } else {
            let mut fields = format!(" command={command:?} repo={repo:?}").replace("##[", "## [");
            if line.starts_with(b"::") {
                fields = fields.replace('%', "%25");
            }
            line.extend_from_slice(fields.as_bytes());
        }
        line.push(b'\n');
    }
}

/// Sets up logging for this process. Each line names `command`, and the repository if it is known.
///
/// # Errors
/// A message, if `RUST_LOG` can't be parsed.
pub fn begin(command: &'static str, settings: &Config) -> Result<(), String> {
    let level = match settings.verbosity() {
        i8::MIN..=-1 => "error",
        0 => "info",
        1 => "gitsync=debug,info",
        2..=i8::MAX => "gitsync=trace,debug",
    };
    let filter = settings.log_filter.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("RUST_LOG can't be understood: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_target(false)
        // A closed stderr must not end a pass, but the subscriber would report it on stderr.
        .log_internal_errors(false);
    {
        let mut fields = FIELDS.lock().unwrap_or_else(PoisonError::into_inner);
        fields.json = settings.log_format == LogFormat::Json;
        fields.command = command;
    }
    match &settings.repo {
        Some(repo) => set_repo(repo),
        None => set_repo(&std::env::current_dir().unwrap_or_default()),
    }
    // A second call in one process (an example, a test) changes nothing: the format of the first call stays.
    let _ = match settings.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Github => builder.with_ansi(false).event_format(super::github::Workflow).try_init(),
        LogFormat::Auto | LogFormat::Text => {
            let colour = io::stderr().is_terminal() && !settings.no_color;
            builder.with_ansi(colour).try_init()
        }
    };
    Ok(())
}

struct Stderr;

/// One line on its way to stderr.
struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;
    fn make_writer(&'a self) -> Self::Writer {
        Line(Vec::new())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        FIELDS.lock().unwrap_or_else(PoisonError::into_inner).add_to(&mut self.0);
        let _ = io::stderr().write_all(&redact::secrets(&self.0));
    }
}
