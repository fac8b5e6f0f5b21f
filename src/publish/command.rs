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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::process::Command;

    use super::*;

    /// What the shell makes of a command: the folder is one word, wherever it stands.
    #[test]
    fn the_shell_gets_the_folder_as_one_word_inside_any_quotes() {
        let folder = "/a  b/it's \"$(x)\" `y` \\z";
        let cases = [
            ("printf %s {public_dir}", "@"),
            ("printf %s x{public_dir}/y", "x@/y"),
            ("printf %s '{public_dir}/y'", "@/y"),
            ("printf %s \"{public_dir}/y\"", "@/y"),
            ("printf %s \"it's {public_dir}\"", "it's @"),
            ("printf %s '\"'{public_dir}'\"'", "\"@\""),
            ("printf %s \\\"{public_dir}\\\"", "\"@\""),
            ("printf %s \\'{public_dir}\\'", "'@'"),
            ("printf %s '\\'{public_dir}", "\\@"),
            ("printf %s '('{public_dir}')'", "(@)"),
            ("printf %s \"({public_dir})\"", "(@)"),
            ("(printf %s '{public_dir}')", "@"),
            ("(printf %s \"{public_dir}\"; printf %s '{public_dir}')", "@@"),
            ("printf %s \"$(printf %s '{public_dir}')\"", "@"),
            ("printf %s \"$(printf %s \"{public_dir}\")\" '{public_dir}'", "@@"),
            ("printf %s \"$(printf %s {public_dir})\" \"{public_dir}\"", "@@"),
            ("printf %s \"$((1 + 1))\" '{public_dir}'", "2@"),
            ("printf %s \"$ '{public_dir}'\"", "$ '@'"),
            ("printf %s \"${UNSET-$}\" '{public_dir}'", "$@"),
            ("printf %s \"`printf %s '{public_dir}'`\"", "@"),
            ("printf %s `printf x`'{public_dir}'", "x@"),
            ("printf %s \u{e4}'{public_dir}'\\\u{e4}'{public_dir}'", "\u{e4}@\u{e4}@"),
        ];
        for (command, says) in cases {
            let line = with_public_dir(command, Path::new(folder));
            let out = Command::new("sh").args(["-c", &line]).env("GITSYNC_PUBLIC_DIR", folder).output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout);
            assert_eq!(said, says.replace('@', folder), "{command}\n{line}\n{}", String::from_utf8_lossy(&out.stderr));
        }
    }

    #[test]
    fn a_plain_path_is_put_in_as_it_is() {
        let said = with_public_dir("build '{public_dir}' {public_dir}/x", Path::new("/srv/site-1/a.b_c+d,e:f@g%h"));
        assert_eq!(said, "build '/srv/site-1/a.b_c+d,e:f@g%h' /srv/site-1/a.b_c+d,e:f@g%h/x");
    }
}
