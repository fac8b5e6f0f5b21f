//! The rule that decides which side wins.
//!
//! There are four states and two modes, so eight cells. A test compares the table in `docs/how-it-decides.md` with this file.
//! This module is pure and imports nothing: the code that decides about somebody's data can be read in a minute.

/// The relation of the local branch to the remote branch, decided from the commit graph alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Both sides name the same commit.
    UpToDate,
    /// The local commit is an ancestor of the remote's: there is something to follow.
    Behind,
    /// The remote's commit is an ancestor of the local one: there is something to push.
    Ahead,
    /// Neither is an ancestor of the other; unrelated histories included.
    Diverged,
}

/// Which side is dominant when the histories diverge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// This instance: its state overrides the remote's.
    Alpha,
    /// The remote (the default): this instance adapts and follows.
    NonAlpha,
}

/// What `sync` does about a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing to do.
    Rest,
    /// Make branch, index and every tracked file equal to the remote's commit.
    FollowRemote,
    /// Do nothing now: the next tick pushes.
    LeaveForTick,
    /// Keep local, and mark that the next tick's push may overwrite the remote.
    KeepLocal,
}

/// The state, from three facts about the commit graph.
///
/// A commit is its own ancestor, so `same` is checked first.
pub fn state(same: bool, local_is_ancestor: bool, remote_is_ancestor: bool) -> SyncState {
    match (same, local_is_ancestor, remote_is_ancestor) {
        (true, _, _) => SyncState::UpToDate,
        (false, true, _) => SyncState::Behind,
        (false, false, true) => SyncState::Ahead,
        (false, false, false) => SyncState::Diverged,
    }
}

/// The decision table.
pub fn decide(state: SyncState, mode: Mode) -> Action {
    match (state, mode) {
        (SyncState::UpToDate, Mode::Alpha | Mode::NonAlpha) => Action::Rest,
        (SyncState::Behind, Mode::Alpha | Mode::NonAlpha) => Action::FollowRemote,
        (SyncState::Ahead, Mode::Alpha | Mode::NonAlpha) => Action::LeaveForTick,
        (SyncState::Diverged, Mode::Alpha) => Action::KeepLocal,
        (SyncState::Diverged, Mode::NonAlpha) => Action::FollowRemote,
    }
}

/// The state after the remote took commits back (a reset to an older commit and a force push). `local_holds_them`: whether local
/// still has one of these. Then the remote's history was rewritten, and the rule decides, instead of a push that brings the
/// commits back.
#[must_use]
pub fn state_after_taking_back(state: SyncState, local_holds_them: bool) -> SyncState {
    match state {
        SyncState::Ahead if local_holds_them => SyncState::Diverged,
        other => other,
    }
}

impl SyncState {
    /// Every state, in the order of the specification.
    pub const ALL: [SyncState; 4] = [Self::UpToDate, Self::Behind, Self::Ahead, Self::Diverged];

    /// The word for it, in results and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::Diverged => "diverged",
        }
    }
}

impl Mode {
    /// The word for it, in logs, `status` and the job's environment.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::NonAlpha => "non-alpha",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_truth_table() {
        use Action::*;
        let table = [
            (SyncState::UpToDate, Mode::NonAlpha, Rest),
            (SyncState::UpToDate, Mode::Alpha, Rest),
            (SyncState::Behind, Mode::NonAlpha, FollowRemote),
            (SyncState::Behind, Mode::Alpha, FollowRemote),
            (SyncState::Ahead, Mode::NonAlpha, LeaveForTick),
            (SyncState::Ahead, Mode::Alpha, LeaveForTick),
            (SyncState::Diverged, Mode::NonAlpha, FollowRemote),
            (SyncState::Diverged, Mode::Alpha, KeepLocal),
        ];
        for (state, mode, action) in table {
            assert_eq!(decide(state, mode), action, "{state:?} × {mode:?}");
        }
    }

    #[test]
    fn the_state_from_all_eight_combinations_of_facts() {
        assert_eq!(state(true, true, true), SyncState::UpToDate);
        assert_eq!(state(true, true, false), SyncState::UpToDate);
        assert_eq!(state(true, false, true), SyncState::UpToDate);
        assert_eq!(state(true, false, false), SyncState::UpToDate);
        assert_eq!(state(false, true, true), SyncState::Behind);
        assert_eq!(state(false, true, false), SyncState::Behind);
        assert_eq!(state(false, false, true), SyncState::Ahead);
        assert_eq!(state(false, false, false), SyncState::Diverged);
    }

    #[test]
    fn what_the_remote_took_back_is_not_ahead_of_it() {
        for state in SyncState::ALL {
            let held = if state == SyncState::Ahead { SyncState::Diverged } else { state };
            assert_eq!(state_after_taking_back(state, true), held);
            assert_eq!(state_after_taking_back(state, false), state);
        }
    }

    /// The job's environment has these words, so a script may compare them.
    #[test]
    fn the_words_of_the_modes() {
        assert_eq!([Mode::Alpha, Mode::NonAlpha].map(Mode::word), ["alpha", "non-alpha"]);
    }

    /// Compares the table in the docs with the code, cell by cell.
    #[test]
    fn the_table_in_the_docs_is_this_table() {
        let page = include_str!("../docs/how-it-decides.md");
        let mut seen = 0;
        for line in page.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [state, non_alpha, alpha] = cells[..] else { continue };
            let Some(state) = SyncState::ALL.into_iter().find(|s| state == format!("`{}`", s.word())) else { continue };
            for (mode, cell) in [(Mode::NonAlpha, non_alpha), (Mode::Alpha, alpha)] {
                let action = match cell.split(':').next() {
                    Some("rest") => Action::Rest,
                    Some("follow the remote") => Action::FollowRemote,
                    Some("leave it for the tick") => Action::LeaveForTick,
                    Some("keep local") => Action::KeepLocal,
                    other => panic!("the docs name an action that the code does not know: {other:?}"),
                };
                assert_eq!(decide(state, mode), action, "{state:?} × {mode:?} in the docs");
                seen += 1;
            }
        }
        assert_eq!(seen, 8, "the docs must show all eight cells");
    }
}
