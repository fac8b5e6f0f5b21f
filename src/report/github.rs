//! Log events in the form of a GitHub Actions step. Errors and warnings become annotations of the run, debug lines are shown if
//! debug logging is on, and everything else is a plain line of the step's log, which has its own timestamps.
//!
//! The form is described in "Workflow commands for GitHub Actions": `::error title=T::MESSAGE` with `%`, CR and LF escaped. The
//! runner takes any line that begins with `::` for a command, and also an older form, `##[` anywhere in a line. So text from
//! outside (the job, a server, a commit message) is never put at the beginning of a line, and `##[` is broken up.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The event format.
pub struct Workflow;

impl<S, N> FormatEvent<S, N> for Workflow
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        writeln!(writer, "{}", line(*event.metadata().level(), &text))
    }
}

/// The text of an event: its message, its fields, and whose output it is.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    from: Option<String>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            "from" => self.from = Some(value.to_owned()),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push_str(&format!(" {name}={value:?}")),
        }
    }
}

fn line(level: Level, text: &Text) -> String {
    let all = format!("{}{}", text.message, text.fields).replace("##[", "## [");
    let escaped = || all.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let plain = || all.replace(['\r', '\n'], " ");
    match level {
        Level::ERROR => format!("::error title=gitsync::{}", escaped()),
        Level::WARN => format!("::warning title=gitsync::{}", escaped()),
        Level::INFO => format!("{}: {}", text.from.as_deref().unwrap_or("gitsync"), plain()),
        Level::DEBUG | Level::TRACE => format!("::debug::{}", escaped()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(level: Level, message: &str, from: Option<&str>) -> String {
        let text = Text { message: message.into(), fields: " state=\"behind\"".into(), from: from.map(str::to_owned) };
        line(level, &text)
    }

    #[test]
    fn each_level_has_its_form() {
        assert_eq!(
            formatted(Level::ERROR, "100%\r\nno", None),
            "::error title=gitsync::100%25%0D%0Ano state=\"behind\""
        );
        assert_eq!(formatted(Level::WARN, "w", None), "::warning title=gitsync::w state=\"behind\"");
        assert_eq!(formatted(Level::INFO, "followed", None), "gitsync: followed state=\"behind\"");
        assert_eq!(formatted(Level::DEBUG, "d", None), "::debug::d state=\"behind\"");
    }

    #[test]
    fn text_from_outside_never_becomes_a_command() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            for evil in
                ["::set-env name=PATH::x", "  ::stop-commands::x", "a\n::error::x", "a ##[error]x", "a\r::error::x"]
            {
                let line = formatted(level, evil, Some("job"));
                let commands = line.lines().filter(|line| line.trim_start().starts_with("::")).count();
                assert_eq!(commands, usize::from(level != Level::INFO), "{line}");
                assert!(!line.contains("##[") && !line.contains('\r'), "{line}");
            }
        }
    }
}
