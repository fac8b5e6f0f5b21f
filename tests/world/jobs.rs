//! Jobs that use git in the repository that gitsync works in, each as a line of shell.
//!
//! None of them throws away bytes that nobody has committed: that would be the job's doing, and nothing for an oracle.

/// What a tick's job does, after it has written a file of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Job {
    #[default]
    Writes,
    Commits,
    /// With whatever a person has changed.
    CommitsAll,
    Amends,
    /// A branch of its own, a commit there, and back.
    SwitchesAndReturns,
    /// The same, and not back.
    SwitchesAway,
    /// To gitsync's other branch, where that is there.
    SwitchesToOther,
    Detaches,
    /// Makes the last two commits anew.
    Rebases,
    PullsRebasing,
    /// Stops in the middle.
    LeavesRebase,
    Stashes,
    StashesAndPops,
    /// A linked work tree, a commit there, and away with it.
    UsesWorktree,
    LeavesWorktree,
    Collects,
    /// The reflogs go first: only references keep a commit.
    ForgetsAndCollects,
    Fetches,
    Resets,
    ResetsAndForgets,
    AmendsAndForgets,
    FetchesAndForgets,
}

impl Job {
    /// After these a tick refuses to work until a person or init-sync has put it right.
    pub const LEAVING: &[Self] = &[Self::SwitchesAway, Self::SwitchesToOther, Self::Detaches, Self::LeavesRebase];
    /// The others.
    pub const OTHERS: &[Self] = &[
        Self::Writes,
        Self::Commits,
        Self::CommitsAll,
        Self::Amends,
        Self::SwitchesAndReturns,
        Self::Rebases,
        Self::PullsRebasing,
        Self::Stashes,
        Self::StashesAndPops,
        Self::UsesWorktree,
        Self::LeavesWorktree,
        Self::Collects,
        Self::ForgetsAndCollects,
        Self::Fetches,
        Self::Resets,
        Self::ResetsAndForgets,
        Self::AmendsAndForgets,
        Self::FetchesAndForgets,
    ];

    /// The line. `name` is in no other job's; `remote` and `branch` are those of the pass.
    pub fn script(self, name: &str, remote: &str, branch: &str) -> String {
        let write = format!("mkdir -p state/jobs && echo job {name} > state/jobs/{name}");
        let commit = format!("git add state && git commit -q -m 'job {name}'");
        let amend = format!("git commit -q --amend --allow-empty -m 'job {name} amends'");
        let fetch = format!("git fetch -q {remote} +refs/heads/{branch}:refs/remotes/{remote}/{branch}");
        // Not the stash's: git keeps what was stashed before by that log alone.
        let forget = "git reflog expire --expire=now --expire-unreachable=now HEAD \
                      $(git for-each-ref --format='%(refname)' refs/heads refs/remotes); git gc -q --prune=now";
        let reset = "git reset -q --keep HEAD~1";
        let then = match self {
            Self::Writes => String::new(),
            Self::Commits => commit,
            Self::CommitsAll => format!("git commit -q -a -m 'job {name}'"),
            Self::Amends => amend,
            Self::SwitchesAndReturns => format!("git switch -q -c side-{name} && {commit}; git switch -q {branch}"),
            Self::SwitchesAway => format!("git switch -q -c side-{name} && {commit}"),
            Self::SwitchesToOther => "git switch -q other".to_owned(),
            Self::Detaches => format!("git checkout -q --detach && {commit}"),
            Self::Rebases => {
                format!("{commit}; git rebase -q --autostash --force-rebase HEAD~2 || git rebase --abort")
            }
            Self::PullsRebasing => {
                format!("{commit}; git pull -q --rebase --autostash {remote} {branch} || git rebase --abort")
            }
            Self::LeavesRebase => "GIT_SEQUENCE_EDITOR='sed -i 1ibreak' git rebase -q -i --autostash HEAD~1".to_owned(),
            Self::Stashes => "git stash -q -u".to_owned(),
            Self::StashesAndPops => format!("git stash -q -u && echo more > state/jobs-{name}; git stash pop -q"),
            Self::UsesWorktree => format!(
                "git worktree add -q --detach ../tree-{name} && (cd ../tree-{name} && echo tree > state/tree && git add \
                 state && git commit -q -m 'job {name} in a work tree'); git worktree remove --force ../tree-{name}"
            ),
            Self::LeavesWorktree => format!("git worktree add -q -b tree-{name} ../tree-{name}"),
            Self::Collects => "git gc -q --prune=now".to_owned(),
            Self::ForgetsAndCollects => forget.to_owned(),
            Self::Fetches => fetch,
            Self::Resets => reset.to_owned(),
            Self::ResetsAndForgets => format!("{reset}; {forget}"),
            Self::AmendsAndForgets => format!("{amend}; {forget}"),
            Self::FetchesAndForgets => format!("{fetch}; {forget}"),
        };
        // What git says is of no matter here, and a job may fail.
        format!("{write}; {{ {then}\n}} >/dev/null 2>&1", then = if then.is_empty() { "true" } else { &then })
    }
}
