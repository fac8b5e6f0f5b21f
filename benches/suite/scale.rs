//! How large the trees of a run are.

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// To be quoted.
    Full,
    /// To try it in a minute.
    Quick,
    /// To see that every row still works.
    Smoke,
}

impl Scale {
    /// A size that is `full` in a full run.
    pub fn size(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => (full / 50).max(full.min(20)),
            Self::Smoke => full.min(3),
        }
    }

    pub fn rounds(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full.min(3),
            Self::Smoke => 1,
        }
    }

    /// What is wanted is for full sizes.
    pub fn wanted(self, most: f64) -> Option<f64> {
        (self == Self::Full).then_some(most)
    }
}
