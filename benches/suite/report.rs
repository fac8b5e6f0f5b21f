//! The tables: on the terminal while it runs, and between the markers of docs/performance.md.

use std::path::Path;

use crate::entry::{AGAINST_GIT, Entry, FLAT, LIMITS, NO_OP, TRANSFERS};
use crate::machine::Machine;
use crate::plots;

/// An entry as a line of a terminal.
pub fn line(entry: &Entry) -> String {
    let mut out = format!("{:<52} {:>10}", entry.name, figure(entry.ours, &entry.unit));
    if let Some(theirs) = entry.theirs {
        out.push_str(&format!("  {:>10} {}", figure(theirs, &entry.unit), entry.rival));
    }
    for (word, cell) in [("ratio", ratio(entry)), ("cpu", cpu(entry)), ("wanted", wanted(entry))] {
        if !cell.is_empty() {
            out.push_str(&format!("  {word} {cell}"));
        }
    }
    out
}

/// Puts what was measured in the place of what was measured before, and writes tables and plots anew.
pub fn write(measured: &[Entry], machine: &Machine) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::create_dir_all(docs.join("performance")).unwrap();
    let results = docs.join("performance/results.tsv");
    let mut all: Vec<Entry> =
        std::fs::read_to_string(&results).unwrap_or_default().lines().filter_map(Entry::from_line).collect();
    for entry in measured {
        match all.iter_mut().find(|old| (&old.table, &old.key) == (&entry.table, &entry.key)) {
            Some(old) => *old = entry.clone(),
            None => all.push(entry.clone()),
        }
    }
    let order = crate::rows::all(crate::scale::Scale::Full);
    let rank = |entry: &Entry| order.iter().rposition(|row| entry.key.starts_with(&row.name)).unwrap_or(order.len());
    all.sort_by_key(rank);
    std::fs::write(&results, all.iter().map(|entry| entry.to_line() + "\n").collect::<String>()).unwrap();
    let page = docs.join("performance.md");
    let mut text = std::fs::read_to_string(&page).unwrap();
    for table in [AGAINST_GIT, NO_OP, FLAT, TRANSFERS, LIMITS] {
        let of_it: Vec<&Entry> = all.iter().filter(|entry| entry.table == table).collect();
        let rows = if table == LIMITS { limits(&of_it) } else { pairs(&of_it) };
        text = between(&text, table, &rows);
    }
    text = between(&text, "machine", &about(&all, machine));
    text = between(&text, "missed", &missed(&all));
    std::fs::write(&page, text).unwrap();
    let plots: [(&str, String); 2] = [("against-git.svg", plots::by_size(&all)), ("no-op.svg", plots::by_axis(&all))];
    for (name, svg) in plots {
        std::fs::write(docs.join("performance").join(name), svg).unwrap();
    }
    println!("\nwritten: docs/performance.md and docs/performance/");
}

fn about(all: &[Entry], machine: &Machine) -> String {
    let mut commits: Vec<&str> = all.iter().map(|entry| entry.commit.as_str()).collect();
    commits.sort_unstable();
    commits.dedup();
    let note = match commits.len() {
        1 => String::new(),
        _ => format!("\nThe rows are of these commits: {}.\n", commits.join(", ")),
    };
    format!("{machine}\n{note}")
}

fn missed(all: &[Entry]) -> String {
    let mut out = String::new();
    for entry in all.iter().filter(|entry| entry.is_reached() == Some(false)) {
        let is = if entry.table == LIMITS { figure(entry.ours, &entry.unit) } else { ratio(entry) };
        let next_to = if entry.table == LIMITS { String::new() } else { format!(", next to {}", entry.rival) };
        let wanted = wanted(entry).replace("**", "").replace(", missed", "");
        out.push_str(&format!("- {}{next_to}: {is}, wanted {wanted}\n", entry.name));
    }
    if out.is_empty() { "None.\n".to_owned() } else { out }
}

fn pairs(entries: &[&Entry]) -> String {
    let mut out = "| | gitsync | next to | takes | ratio | middle half | processor time | wanted |\n\
                   |---|---:|---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for entry in entries {
        let theirs = entry.theirs.map_or_else(String::new, |theirs| figure(theirs, &entry.unit));
        let spread = entry.spread.map_or_else(String::new, |(low, high)| format!("{low:.2}-{high:.2}"));
        out.push_str(&format!(
            "| {} | {} | {} | {theirs} | {} | {spread} | {} | {} |\n",
            entry.name,
            figure(entry.ours, &entry.unit),
            entry.rival,
            ratio(entry),
            cpu(entry),
            wanted(entry)
        ));
    }
    out
}

fn limits(entries: &[&Entry]) -> String {
    let mut out = "| | gitsync | git | wanted |\n|---|---:|---:|---:|\n".to_owned();
    for entry in entries {
        let theirs = entry.theirs.map_or_else(String::new, |theirs| figure(theirs, &entry.unit));
        let ours = figure(entry.ours, &entry.unit);
        out.push_str(&format!("| {} | {ours} | {theirs} | {} |\n", entry.name, wanted(entry)));
    }
    out
}

fn ratio(entry: &Entry) -> String {
    entry.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

fn cpu(entry: &Entry) -> String {
    entry.cpu.filter(|cpu| cpu.is_finite()).map_or_else(String::new, |cpu| format!("{cpu:.2}"))
}

fn wanted(entry: &Entry) -> String {
    let unit = if entry.table == LIMITS { format!(" {}", entry.unit) } else { String::new() };
    match (entry.wanted, entry.is_reached()) {
        (Some(most), Some(false)) => format!("**≤ {most}{unit}, missed**"),
        (Some(most), _) => format!("≤ {most}{unit}"),
        (None, _) => String::new(),
    }
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "ms" if value >= 10_000.0 => format!("{:.1} s", value / 1000.0),
        "ms" if value >= 100.0 => format!("{value:.0} ms"),
        "calls" => format!("{value:.0}"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// The text with what is between two markers replaced.
pub fn between(text: &str, name: &str, new: &str) -> String {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let cut = text.split_once(&open).and_then(|(before, rest)| Some((before, rest.split_once(&close)?.1)));
    let (before, after) = cut.unwrap_or_else(|| panic!("docs/performance.md has no markers for {name}"));
    format!("{before}{open}{new}{close}{after}")
}
