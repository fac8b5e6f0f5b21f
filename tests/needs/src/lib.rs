//! `#[needs(strace)]` before `#[test]`: where this machine lacks strace, the test is ignored, by name, and the runner prints
//! the reason. `CI=true` ignores nothing: there, a test that lacks something fails.

use proc_macro::TokenStream;

/// What is missing here, each as `name=what to do about it`.
const MISSING: &str = env!("MISSING");

fn remedy(name: &str) -> Option<&'static str> {
    MISSING
        .split('\x1f')
        .find_map(|entry| entry.split_once('=').filter(|(missing, _)| *missing == name))
        .map(|(_, r)| r)
}

/// Ignores the test where one of the names is missing: `#[needs(strace, mount)]`.
#[proc_macro_attribute]
pub fn needs(names: TokenStream, test: TokenStream) -> TokenStream {
    let names = names.to_string();
    let missing: Vec<String> = names
        .split(',')
        .map(str::trim)
        .filter_map(|name| remedy(&name.replace(' ', "")).map(|remedy| format!("needs {name}: {remedy}")))
        .collect();
    if missing.is_empty() {
        return test;
    }
    let reason = missing.join("; ");
    let mut ignored: TokenStream = format!("#[ignore = {reason:?}]").parse().unwrap_or_default();
    ignored.extend(test);
    ignored
}

/// What is missing here, as one string: entries `name=what to do about it`, separated by U+001F.
#[proc_macro]
pub fn missing(_: TokenStream) -> TokenStream {
    format!("{MISSING:?}").parse().unwrap_or_default()
}
