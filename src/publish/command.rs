//! The build command with `{public_dir}` replaced.

use std::path::Path;

/// Replaces each `{public_dir}` in a command line for `sh` by the folder. If the path holds characters that are special to the
/// shell, it is replaced by the variable `GITSYNC_PUBLIC_DIR`, which the build also gets, quoted so that it stays one word inside
/// any quotes that the command has around it.
pub fn with_public_dir(command: &str, folder: &Path) -> String {
    const PLACE: &str = "{public_dir}";
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if let Some(text) = folder.to_str().filter(|text| text.chars().all(plain)) {
        return command.replace(PLACE, text);
    }
    let mut line = String::new();
    // The open quotes and brackets of `$(` at this point.
    let mut open: Vec<char> = Vec::new();
    let mut rest = command;
    while let Some(c) = rest.chars().next() {
        let inside = open.last().copied();
        if let Some(after) = rest.strip_prefix(PLACE) {
            line += match inside {
                Some('\'') => "'\"$GITSYNC_PUBLIC_DIR\"'",
                Some('"') => "${GITSYNC_PUBLIC_DIR}",
                _ => "\"$GITSYNC_PUBLIC_DIR\"",
            };
            rest = after;
            continue;
        }
        let mut taken = c.len_utf8();
        match (inside, c) {
            (Some('\''), '\'') | (Some('"'), '"') | (Some('`'), '`') | (Some('('), ')') => {
                open.pop();
            }
            (Some('\''), _) => {}
            (_, '\\') => taken += rest.chars().nth(1).map_or(0, char::len_utf8),
            (_, '`' | '"') | (None | Some('(' | '`'), '(' | '\'') => open.push(c),
            (Some('"'), '$') if rest.starts_with("$(") => {
                open.push('(');
                taken += 1;
            }
            _ => {}
        }
        line += &rest[..taken];
        rest = &rest[taken..];
    }
    line
}
