//! Runs last, and counts by what is missing the tests that were ignored because this machine lacks something.
//!
//! Not a test: it has no harness, so that what it says is seen.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let remedies: BTreeMap<&str, &str> =
        needs::missing!().split('\x1f').filter_map(|entry| entry.split_once('=')).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sources = Vec::new();
    read_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut sources);
    for name in sources.iter().flat_map(|text| text.lines()).filter_map(names_in).flatten() {
        if let Some((name, _)) = remedies.get_key_value(name) {
            *counts.entry(name).or_default() += 1;
        }
    }
    for (name, count) in &counts {
        let tests = if *count == 1 { "test needs" } else { "tests need" };
        println!("not run: {count} {tests} {name}: {}", remedies[name]);
    }
    if !counts.is_empty() {
        println!("On Debian, as root, .ci/install.sh installs every program that the tests run.");
    }
}

/// The names in a line that is `#[needs(…)]`.
fn names_in(line: &str) -> Option<impl Iterator<Item = &str>> {
    let names = line.trim().strip_prefix("#[needs(")?.strip_suffix(")]")?;
    Some(names.split(',').map(str::trim))
}

fn read_below(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_below(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.extend(fs::read_to_string(&path));
        }
    }
}
