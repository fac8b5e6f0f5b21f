//! Which commits to name to a server, so that it sends only what is not here.

use std::collections::{BinaryHeap, HashMap, HashSet};

use git2::Odb;

use super::CommitId;
use super::connectivity::{Depth, Inspection};
use crate::remote::protocol::fetch::Haves;

/// The commits that are here, newest first. What the server says it has is not named again, nor is anything before it; nor
/// anything beyond a shallow root.
pub(super) struct Negotiation<'o> {
    inspection: Inspection<'o>,
    heap: BinaryHeap<(i64, CommitId)>,
    seen: HashMap<CommitId, State>,
    /// How many in the heap are not known to be on the server.
    open: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    is_common: bool,
    is_named: bool,
}

impl<'o> Negotiation<'o> {
    /// Begins at the commits `tips`.
    pub(super) fn new(odb: &'o Odb<'o>, tips: &[CommitId], shallow: HashSet<CommitId>) -> Self {
        let inspection = Inspection::new(odb, shallow, Depth::Header);
        let mut negotiation = Self { inspection, heap: BinaryHeap::new(), seen: HashMap::new(), open: 0 };
        tips.iter().for_each(|tip| negotiation.reach(*tip, false));
        negotiation
    }

    fn reach(&mut self, id: CommitId, is_common: bool) {
        if self.seen.contains_key(&id) {
            if is_common {
                self.is_common(id);
            }
        } else if let Ok(commit) = self.inspection.commit(id) {
            // A commit that is missing is not named, nor is anything before it.
            self.seen.insert(id, State { is_common, is_named: false });
            self.heap.push((commit.time, id));
            self.open += usize::from(!is_common);
        }
    }

    fn parents(&self, id: CommitId) -> Vec<CommitId> {
        self.inspection.commit(id).map(|commit| commit.parents).unwrap_or_default()
    }
}

impl Haves for Negotiation<'_> {
    fn next(&mut self) -> Option<CommitId> {
        while self.open > 0 {
            let (_, id) = self.heap.pop()?;
            let state = self.seen.get_mut(&id)?;
            state.is_named = true;
            let is_common = state.is_common;
            self.open -= usize::from(!is_common);
            for parent in self.parents(id) {
                self.reach(parent, is_common);
            }
            if !is_common {
                return Some(id);
            }
        }
        None
    }

    fn is_common(&mut self, id: CommitId) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let Some(state) = self.seen.get_mut(&id).filter(|state| !state.is_common) else { continue };
            state.is_common = true;
            if state.is_named {
                todo.extend(self.parents(id));
            } else {
                self.open -= 1;
            }
        }
    }
}
