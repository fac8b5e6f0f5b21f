//! The rows: each names itself and measures.

mod against_git;
mod flat;
mod limits;
mod no_op;
mod pure;

use crate::entry::Entry;
use crate::scale::Scale;

pub struct Row {
    pub name: String,
    pub measure: Box<dyn Fn() -> Vec<Entry>>,
}

impl Row {
    fn new(name: impl Into<String>, measure: impl Fn() -> Vec<Entry> + 'static) -> Self {
        Self { name: name.into(), measure: Box::new(measure) }
    }
}

/// Every row, in the order of the page. In small runs several sizes are the same, and one row stands for them.
pub fn all(scale: Scale) -> Vec<Row> {
    let mut rows = against_git::rows(scale);
    rows.extend(no_op::rows(scale));
    rows.extend(flat::rows(scale));
    rows.extend(limits::rows(scale));
    rows.extend(pure::rows());
    let mut seen = std::collections::BTreeSet::new();
    rows.retain(|row| seen.insert(row.name.clone()));
    rows
}
