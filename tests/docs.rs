//! What the docs name is there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

/// Source files are named below `src`, unless they say `tests/`; `docs/testing.md` is about tests alone.
#[test]
fn every_file_that_a_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for page in fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = fs::read_to_string(&page) else { continue };
        for name in
            text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && !name.contains(['*', ' ']))
        {
            let is_about_tests = page.ends_with("testing.md");
            let whole = name.starts_with("tests/") || name.starts_with("src/") || name.starts_with("benches/");
            let folder = if whole {
                "."
            } else if is_about_tests {
                "tests"
            } else {
                "src"
            };
            assert!(root.join(folder).join(name).exists(), "{} names {name}, which is not there", page.display());
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}
