//! The plots of docs/performance.md.

use crate::entry::{AGAINST_GIT, Entry, FLAT};
use crate::plot::{self, Line, Lines};

/// The ratio to git by the number of files.
pub fn by_size(all: &[Entry]) -> String {
    let kinds = [
        ("clone/", "clone"),
        ("follow/10-of-", "behind by 10 files"),
        ("follow/10000-of-", "behind by 10,000 files"),
        ("tick/", "tick, files elsewhere"),
        ("tick-inside/", "tick, files in state/"),
    ];
    let line = |(prefix, name): (&str, &str)| {
        let mut points: Vec<(f64, f64)> = all
            .iter()
            .filter(|entry| entry.table == AGAINST_GIT)
            .filter_map(|entry| Some((entry.key.strip_prefix(prefix)?.parse().ok()?, entry.ratio()?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name: name.to_owned(), points }
    };
    let lines = kinds.map(line).into_iter().filter(|line| !line.points.is_empty()).collect();
    let title = "Time of a pass, by that of git's own commands";
    plot::page(&[Lines { title, below: "files", powers: true, mark: Some((1.0, "git")), lines }], 360.0)
}

/// A pass with nothing to do in a large repository, by one in a small repository.
pub fn by_axis(all: &[Entry]) -> String {
    let of = |key: &str| all.iter().find(|entry| entry.table == FLAT && entry.key == key);
    let axes = all.iter().filter(|entry| entry.table == FLAT && entry.key.starts_with("flat/"));
    let bars: Vec<_> = axes
        .filter(|entry| !entry.key.ends_with("-git"))
        .filter_map(|entry| {
            let small = entry.theirs?;
            let git = of(&format!("{}-git", entry.key)).and_then(|git| git.theirs).map(|git| git / small);
            let ours = ("gitsync".to_owned(), entry.ratio()?);
            let name = entry.name.trim_start_matches("no-op with ").to_owned();
            Some((name, std::iter::once(ours).chain(git.map(|git| ("git".to_owned(), git))).collect::<Vec<_>>()))
        })
        .collect();
    plot::bars("A no-op in a large repository, by gitsync's in a small one", (1.0, "small repository"), &bars)
}
