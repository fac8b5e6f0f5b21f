//! Nothing secret, and nothing that drives a terminal, in a text that is printed.
//!
//! Every text a remote sent and every URL goes through here before it reaches a log, an error or a record. Secrets are
//! known by value (each one is registered as soon as it is read) and, in case one was not, by their looks.

use std::sync::{Mutex, PoisonError};

use super::encoding::{base64, decoded, percent_encode};

/// How long a printed text may be, in bytes.
const LONGEST: usize = 2000;
/// What stands in a secret's place.
const MASK: &str = "***";
/// Shorter secrets are not looked for: masking every `a` of a text tells more than it hides.
const SHORTEST_SECRET: usize = 4;
/// Shorter secrets are not looked for inside base64, where a few digits are anybody's.
const SHORTEST_ENCODED: usize = 8;

/// How the tokens of the well-known forges begin.
pub const TOKEN_PREFIXES: &[&str] =
    &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glcbt-"];

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on this value is masked wherever it stands, also in the forms that a server, a proxy or a log may give it: see
/// `forms`.
pub fn register_secret(secret: &str) {
    hide_memory();
    let secret = secret.trim();
    if secret.len() < SHORTEST_SECRET {
        return;
    }
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    if secrets.iter().any(|known| known == secret) && secrets.contains(&base64(secret.as_bytes())) {
        return;
    }
    for form in forms(secret) {
        if !secrets.contains(&form) {
            secrets.push(form);
        }
    }
    // The longest first: a secret may hold another.
    secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
}

/// A process that holds a secret is not to be read by others of the same user, a job above all: neither its memory nor its
/// environment, by `/proc` or a debugger. A program that it starts is as it always is.
fn hide_memory() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // Every kernel knows it; where one says no there is nothing else to be done.
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        });
    }
}

/// A secret as it is, percent-encoded, escaped for JSON, as HTML, and, unless it is short, as a part of whatever was made
/// base64: `user:secret`, with or without padding, URL-safe too.
fn forms(secret: &str) -> Vec<String> {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let html = |quot: &str, apos: &str| {
        let text = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('"', quot).replace('\'', apos)
    };
    let encoded = percent_encode(secret.as_bytes(), unreserved);
    let in_path = percent_encode(secret.as_bytes(), |b| unreserved(b) || b == b'/');
    let mut forms = vec![
        secret.to_owned(),
        encoded,
        in_path,
        secret.replace('\\', r"\\").replace('"', "\\\""),
        html("&quot;", "&#39;"),
        html("&quot;", "&#x27;"),
        html("&#34;", "&#39;"),
        base64(secret.as_bytes()),
    ];
    if secret.len() >= SHORTEST_ENCODED {
        // What is before it shifts its bits, what is behind it shares its last digit.
        for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
            let bytes = [&vec![0; before], secret.as_bytes()].concat();
            let whole = base64(&bytes).get(shared..bytes.len() * 8 / 6).unwrap_or_default().to_owned();
            forms.extend([whole.replace('+', "-").replace('/', "_"), whole]);
        }
    }
    forms
}

/// A remote's text, fit to be printed: one line of valid UTF-8 without control characters or secrets, of bounded length.
pub fn text(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(64 * LONGEST)];
    let mut line = String::with_capacity(bytes.len().min(LONGEST));
    for c in String::from_utf8_lossy(bytes).trim().chars() {
        match c {
            '\n' => line.push_str(" | "),
            '\r' => {}
            '\t' => line.push(' '),
            c if is_unprintable(c) => line.push('\u{fffd}'),
            c => line.push(c),
        }
    }
    let mut line = masked(line);
    // A secret with a line's end or an invisible character in its middle is one all the same, and so is one of which other
    // characters are percent-encoded than need be.
    let squeezed: String = line.chars().filter(|c| !c.is_whitespace() && !matches!(c, '|' | '\u{fffd}')).collect();
    let hides_one = |text: &str| known(text) != text;
    if hides_one(&squeezed) || (squeezed.contains('%') && hides_one(&decoded(&squeezed))) {
        line = format!("{MASK} (a text with a secret in it)");
    }
    if line.len() > LONGEST {
        let mut end = LONGEST;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Masks the secrets whose values are known, and nothing by its looks: for a text that goes on, whose end could be the
/// beginning of one.
pub fn known(text: &str) -> String {
    let mut text = text.to_owned();
    for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), MASK);
        }
    }
    text
}

/// Bytes about to be printed, whatever they are, without the secrets in them. Lines and colours stay.
pub fn secrets(bytes: &[u8]) -> Vec<u8> {
    masked(String::from_utf8_lossy(bytes).into_owned()).into_bytes()
}

/// A URL, fit to be printed: its password is masked, and so is a user that looks like a token.
pub fn url(url: &str) -> String {
    text(url.as_bytes())
}

/// Control characters, and those that turn the direction of text around or have no width: a remote's text could else
/// repaint a terminal or say something other than it reads.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn masked(mut line: String) -> String {
    line = known(&line);
    mask_tokens(&mask_authorization(&mask_userinfo(&line)))
}

/// `scheme://user:secret@host` → `scheme://***@host`; a plain user name stays.
fn mask_userinfo(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>'))
            .unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rsplit_once('@') {
            Some((userinfo, host)) if userinfo.contains(':') || userinfo.len() >= 20 => {
                out.push_str(MASK);
                out.push('@');
                out.push_str(host);
            }
            _ => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// `Authorization: Basic xyz` → `Authorization: ***`.
fn mask_authorization(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    // ASCII only, so the positions are those of the line itself.
    while let Some(at) = rest.to_ascii_lowercase().find("authorization:") {
        let end = at + "authorization:".len();
        out.push_str(&rest[..end]);
        let value = &rest[end..];
        let stop = value.find(" | ").unwrap_or(value.len());
        out.push(' ');
        out.push_str(MASK);
        rest = &value[stop..];
    }
    out.push_str(rest);
    out
}

fn mask_tokens(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    loop {
        let found = TOKEN_PREFIXES.iter().filter_map(|p| rest.find(p).map(|at| (at, *p))).min_by_key(|(at, _)| *at);
        let Some((at, prefix)) = found else { break };
        let after = &rest[at + prefix.len()..];
        let length = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(after.len());
        out.push_str(&rest[..at]);
        if length >= 8 {
            out.push_str(MASK);
        } else {
            out.push_str(&rest[at..at + prefix.len() + length]);
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn secrets_are_masked_by_value_and_by_looks() {
        register_secret("canary/value");
        for bad in [
            "has canary/value in it",
            "has canary%2Fvalue in it",
            "https://u:hunter2@h/r",
            "ghp_0123456789abcdef",
            "Authorization: Basic Zm9vOmJhcg==",
            "aUtHoRiZaTiOn: bearer Zm9vOmJhcg==",
        ] {
            let out = text(bad.as_bytes());
            for leak in ["canary", "hunter2", "0123456789abcdef", "Zm9v"] {
                assert!(!out.contains(leak), "{out}");
            }
            assert!(out.contains("***"), "{out}");
        }
        assert_eq!(url("https://git@h/r"), "https://git@h/r");
    }

    #[test]
    fn a_secret_is_masked_in_whatever_form_a_server_gives_it_back() {
        let secret = "CANARY\"%\\/<&'>+0?123456789";
        register_secret(secret);
        for said in [
            base64(secret.as_bytes()).trim_end_matches('=').to_owned(),
            base64(format!("u:{secret}").as_bytes()),
            base64(format!("x-access-token:{secret}").as_bytes()).trim_end_matches('=').to_owned(),
            base64(format!("me:{secret}\n").as_bytes()).replace('+', "-").replace('/', "_"),
            percent_encode(secret.as_bytes(), |b| b.is_ascii_alphanumeric()),
            percent_encode(secret.as_bytes(), |b| b.is_ascii_alphanumeric() || b == b'/'),
            "CANARY%22%25%5c%2f%3c%26%27%3e%2b0%3f123456789".to_owned(),
            percent_encode(secret.as_bytes(), |b| b == b'N'),
            format!("{secret:?}").replace(r"\'", "'"),
            serde_json::to_string(secret).unwrap(),
            "CANARY&quot;%\\/&lt;&amp;&#39;&gt;+0?123456789".to_owned(),
        ] {
            let shown = text(format!("no: {said}.").as_bytes());
            // Of base64 a digit at either end is shared with what is beside it.
            let left = shown.chars().filter(|c| said.contains(*c)).count();
            assert!(shown.contains(MASK) && left < 40 && !shown.contains(&said), "{said}: {shown}");
            assert!(!shown.contains("123456789") && !shown.contains("%43"), "{said}: {shown}");
        }
        assert_eq!(text(b"100% of %41 and Zm9v"), "100% of %41 and Zm9v", "what holds none stays");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(text(b"a\x1b[31mb\x07\xffc\r\nd\te"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c | d e");
        assert_eq!(text("x\u{202e}y".as_bytes()), "x\u{fffd}y");
        assert!(text(&[b'x'; 1 << 20]).len() < 2100);
    }

    #[test]
    fn a_secret_with_a_break_in_it_is_one_all_the_same() {
        register_secret("canary-broken-0123456789");
        for said in
            ["no: canary-bro\nken-0123456789", "canary-broken\u{200b}-0123456789", "canary-\0broken-01234 56789"]
        {
            let shown = text(said.as_bytes());
            assert!(!shown.contains("canary") && !shown.contains("56789"), "{shown}");
        }
        assert_eq!(text(b"two | words\nand a line"), "two | words | and a line");
    }
}
