//! The shape of the sources: no long file, no long function, no import circle.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const LONGEST_FILE: usize = 550;
const LONGEST_FUNCTION: usize = 80;
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut open, mut found) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = open.pop() {
        for path in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            match std::fs::read_to_string(&path) {
                Ok(text) => found.push((path.strip_prefix(root).unwrap().display().to_string(), text)),
                Err(_) => open.push(path),
            }
        }
    }
    found
}
fn check(found: &BTreeMap<String, usize>) {
    assert!(found.is_empty(), "make these smaller: {found:?}");
}

#[test]
fn no_file_is_long() {
    let lengths = sources().into_iter().map(|(name, text)| (name, text.lines().count()));
    check(&lengths.filter(|(_, lines)| *lines > LONGEST_FILE).collect());
}

#[test]
fn no_function_is_long() {
    let mut found = BTreeMap::new();
    for (file, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let Some((before, rest)) = code.split_once("fn ") else { continue };
            let is_fn =
                before.split(' ').all(|word| word.starts_with("pub") || ["const", "unsafe", ""].contains(&word));
            if !is_fn || code.ends_with(['}', ';']) {
                continue;
            }
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let length = lines[at..].iter().position(|line| *line == end).unwrap_or(0) + 1;
            let name = rest.split(['(', '<']).next().unwrap();
            if length > LONGEST_FUNCTION {
                found.insert(format!("{file} {name}"), length);
            }
        }
    }
    check(&found);
}

/// The modules named after `crate::` or `super::` here: the whole tree of a `use`, or a path in the code.
fn named(tree: &str, base: &[String], into: &mut Vec<Vec<String>>) {
    let tree = tree.trim_start();
    if let Some(inside) = tree.strip_prefix('{') {
        let (mut depth, mut parts) = (0, vec![String::new()]);
        for c in inside.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            match c {
                _ if depth < 0 => break,
                ',' if depth == 0 => parts.push(String::new()),
                c => parts.last_mut().unwrap().push(c),
            }
        }
        return parts.iter().for_each(|part| named(part, base, into));
    }
    let (name, rest) = tree.split_at(tree.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(tree.len()));
    let path = match name {
        "super" => base[..base.len().saturating_sub(1)].to_vec(),
        name => [base, &[name.to_owned()]].concat(),
    };
    match rest.strip_prefix("::") {
        Some(rest) => named(rest, &path, into),
        None => into.push(path),
    }
}

/// Who imports whom among the modules of a folder of `src`, and how often.
fn imports(folder: &[&str]) -> BTreeMap<(String, String), usize> {
    let folder: Vec<String> = folder.iter().map(|name| (*name).to_owned()).collect();
    let child = |path: &[String]| path.strip_prefix(folder.as_slice()).and_then(|rest| rest.first()).cloned();
    let mut edges = BTreeMap::new();
    let path_of = |file: &str| file.trim_end_matches(".rs").split('/').skip(1).map(str::to_owned).collect();
    let modules: Vec<(Vec<String>, String)> = sources().iter().map(|(f, text)| (path_of(f), text.clone())).collect();
    let known: BTreeSet<String> = modules.iter().filter_map(|(path, _)| child(path)).collect();
    for (module, text) in &modules {
        let Some(importer) = child(module) else { continue };
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().lines();
        let code: String = code.filter(|line| !line.trim_start().starts_with("//")).collect();
        let mut found = Vec::new();
        for (start, base) in [("crate::", &[][..]), ("super::", &module[..module.len() - 1])] {
            for (at, _) in code.match_indices(start) {
                if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == ':') {
                    named(&code[at + start.len()..], base, &mut found);
                }
            }
        }
        for imported in found.iter().filter_map(|path| child(path)).filter(|name| known.contains(name)) {
            if imported != importer {
                *edges.entry((importer.clone(), imported)).or_insert(0) += 1;
            }
        }
    }
    edges
}

#[test]
fn nothing_imports_in_a_circle() {
    let mut circles = BTreeMap::new();
    for folder in [&[][..], &["git"], &["remote"], &["process"], &["state"], &["fs"]] {
        let edges = imports(folder);
        let reaches = |from: &str, to: &str| {
            let (mut open, mut seen) = (vec![from.to_owned()], BTreeSet::new());
            while let Some(at) = open.pop() {
                open.extend(edges.keys().filter(|(a, b)| *a == at && seen.insert(b.clone())).map(|(_, b)| b.clone()));
            }
            seen.contains(to)
        };
        for ((a, b), times) in edges.iter().filter(|((a, b), _)| reaches(b, a)) {
            circles.insert(format!("{}: {a} {b}", folder.first().unwrap_or(&"src")), *times);
        }
    }
    check(&circles);
}
