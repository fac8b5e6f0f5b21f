//! What a pass costs, next to git's own commands for the same job. docs/performance.md says what is measured and how to run it.
//!
//! ```text
//! cargo bench                        # all rows
//! cargo bench -- clone tick/100      # the rows that have one of these names, or whose names contain it
//! cargo bench -- --list              # their names
//! cargo bench -- --quick             # all rows with small trees, in about a minute
//! cargo bench -- --write             # also writes the tables and plots of docs/performance.md
//! cargo bench -- --serve 100000      # keeps a server with so many files up, to profile against
//! ```
//!
//! `cargo test` runs every row once, on tiny trees, and judges no time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

mod entry;
mod machine;
mod place;
#[path = "../../tests/plot/mod.rs"]
mod plot;
mod plots;
mod report;
mod rivals;
mod rows;
mod scale;
#[path = "../../tests/servers/mod.rs"]
mod servers;
mod turns;

use rows::Row;
use scale::Scale;

fn main() {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| all.iter().any(|arg| arg == flag);
    let names: Vec<&String> = all.iter().filter(|arg| !arg.starts_with("--")).collect();
    let scale = match (has("--bench"), has("--quick")) {
        (false, _) => Scale::Smoke,
        (true, true) => Scale::Quick,
        (true, false) => Scale::Full,
    };
    if has("--serve") {
        serve(names.first().map_or(100, |files| files.parse().unwrap()));
    }
    let rows = rows::all(scale);
    // A name that is a row's own means that row alone.
    let is_own = |name: &str| rows.iter().any(|row| row.name == name);
    let matches = |row: &Row, name: &str| row.name == name || (row.name.contains(name) && !is_own(name));
    let chosen = rows.iter().filter(|row| names.is_empty() || names.iter().any(|name| matches(row, name)));
    if has("--list") {
        chosen.for_each(|row| println!("{}", row.name));
        return;
    }
    if scale == Scale::Smoke {
        // Names that are given to `cargo test` are those of tests: there may be no row.
        let measured = chosen.map(|row| (row.measure)().len());
        println!("{} figures of the benchmarks can be measured", measured.sum::<usize>());
        return;
    }
    let machine = machine::describe();
    println!("{machine}\n");
    let mut measured = Vec::new();
    for row in chosen {
        for mut entry in (row.measure)() {
            entry.commit = machine.commit.clone();
            println!("{}", report::line(&entry));
            measured.push(entry);
        }
    }
    assert!(!measured.is_empty(), "no row has such a name; --list lists them");
    match (has("--write"), scale) {
        (true, Scale::Full) => report::write(&measured, &machine),
        (true, _) => println!("\nNothing is written: small trees are no measurement."),
        _ => {}
    }
}

/// Keeps a server up until it is ended from outside.
fn serve(files: usize) -> ! {
    let upstream = place::upstream(place::Shape::site(files));
    let servers = [false, true].map(|secure| servers::http::HttpServer::lean(upstream.path(), secure));
    println!("{}\n{}\nSSL_CERT_FILE={}", servers[0].url(), servers[1].url(), servers[1].authority_path());
    loop {
        std::thread::park();
    }
}
