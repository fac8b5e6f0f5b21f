//! What must not be lost, and what must be so afterwards: the guarantees G1 to G7, checked on any scene at any moment.
//!
//! An [`Oracle`] remembers every tip and every file version it was shown. Whether a guarantee holds is asked of the
//! repositories themselves, by reading them anew.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};

use crate::scene::Scene;

/// A file's place and content.
pub type Version = (PathBuf, Oid);

#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Every commit that was a tip, with what it was.
    tips: BTreeMap<Oid, String>,
    /// Every file version that was in the work tree.
    versions: BTreeMap<Version, String>,
    /// Commits that people made: what they hold is theirs to answer for.
    by_people: BTreeSet<Oid>,
    trees: BTreeMap<Oid, BTreeSet<Version>>,
    /// The references by name that count for commits, as tips and as what keeps them; without it every one does.
    keeps: Option<fn(&str) -> bool>,
}

impl Oracle {
    /// One for which a commit counts, as a tip and as kept, by references of certain names alone.
    pub fn keeping(keeps: fn(&str) -> bool) -> Self {
        Self { keeps: Some(keeps), ..Self::default() }
    }

    /// Takes in all there is now. From here on none of it may be lost.
    pub fn remember(&mut self, scene: &Scene, when: &str) {
        self.remember_tips(&scene.upstream(), when);
        self.remember_ours(scene, when);
    }

    /// Takes in what our side has: the remote's tips may be lost that gitsync has never seen.
    pub fn remember_ours(&mut self, scene: &Scene, when: &str) {
        self.remember_at(&scene.ours(), when);
    }

    /// The same, of one clone among several.
    pub fn remember_at(&mut self, ours: &Path, when: &str) {
        self.remember_tips(ours, when);
        for (path, id, _) in files(ours) {
            self.versions.entry((path, id)).or_insert_with(|| when.to_owned());
        }
    }

    /// The same, where there may be no repository yet.
    pub fn remember_ours_if_open(&mut self, scene: &Scene, when: &str) {
        if scene.ours().exists() {
            self.remember_ours(scene, when);
        }
    }

    /// Takes note that every commit that is there now was made by people, and may hold whatever they like.
    pub fn trust_what_is_there(&mut self, scene: &Scene) {
        for place in [scene.ours(), scene.upstream(), scene.rival()] {
            let Ok(git) = Repository::open(&place) else { continue };
            let odb = git.odb().unwrap();
            let by_people = &mut self.by_people;
            odb.foreach(|id| {
                if git.find_commit(*id).is_ok() {
                    by_people.insert(*id);
                }
                true
            })
            .unwrap();
        }
    }

    pub fn trust(&mut self, commit: &str) {
        self.by_people.insert(Oid::from_str(commit).unwrap());
    }

    /// Lets a commit go that nobody can read.
    pub fn forget_tip(&mut self, commit: &str) {
        self.tips.remove(&Oid::from_str(commit).unwrap());
    }

    /// Lets versions go that a person replaced themselves: of the path, of what is below it and of what it is below.
    pub fn forget_version(&mut self, path: &Path) {
        self.versions.retain(|(at, _), _| !at.starts_with(path) && !path.starts_with(at));
    }

    fn remember_tips(&mut self, place: &Path, when: &str) {
        let Ok(git) = Repository::open(place) else { return };
        let Ok(references) = git.references() else { return };
        for reference in references.flatten() {
            let (name, Some(id)) = (String::from_utf8_lossy(reference.name_bytes()).into_owned(), reference.target())
            else {
                continue;
            };
            if git.find_commit(id).is_ok() && self.keeps.is_none_or(|keeps| keeps(&name)) {
                self.tips.entry(id).or_insert_with(|| format!("{name} of {} {when}", place.display()));
            }
        }
        if self.keeps.is_none()
            && let Ok(head) = git.head()
            && let Some(id) = head.target()
        {
            self.tips.entry(id).or_insert_with(|| format!("HEAD of {} {when}", place.display()));
        }
    }

    /// What of the guarantees does not hold now; empty where all is well. `allowed`: how the paths begin that a
    /// commit of gitsync may change.
    pub fn complaints(&mut self, scene: &Scene, allowed: &[&str]) -> Vec<String> {
        let (ours, upstream) = (scene.ours(), scene.upstream());
        let mut all = self.complaints_at(scene, &ours, Some(&upstream), allowed);
        all.extend(fsck(scene, &upstream));
        all
    }

    /// The same for one clone among several. `upstream`: what keeps commits beside it, where nobody else moves it; where
    /// others do, what the clone last saw of it counts instead.
    pub fn complaints_at(
        &mut self,
        scene: &Scene,
        ours: &Path,
        upstream: Option<&Path>,
        allowed: &[&str],
    ) -> Vec<String> {
        let mut all = Vec::new();
        let mut kept_commits = BTreeSet::new();
        let mut kept_versions = BTreeSet::new();
        for place in [Some(ours), upstream].into_iter().flatten() {
            let git = match Repository::open(place) {
                Ok(git) => git,
                Err(error) => {
                    all.push(format!("G6: {} can't be opened: {}", place.display(), error.message()));
                    continue;
                }
            };
            if let Some(keeps) = self.keeps {
                kept_commits.extend(reachable_by(&git, keeps));
            }
            for id in stashed(&git) {
                kept_versions.extend(self.tree_of(&git, id).iter().cloned());
            }
            for id in reachable(&git, upstream.is_none()) {
                kept_versions.extend(self.tree_of(&git, id).iter().cloned());
                if self.keeps.is_none() {
                    kept_commits.insert(id);
                }
                if !self.by_people.contains(&id) {
                    all.extend(self.invented(&git, id, allowed));
                }
            }
        }
        for (path, id, _) in files(ours) {
            kept_versions.insert((path, id));
        }
        for (tip, what) in &self.tips {
            if !kept_commits.contains(tip) {
                all.push(format!("G1: commit {tip} is lost, which was {what}"));
            }
        }
        for ((path, id), when) in &self.versions {
            if !kept_versions.contains(&(path.clone(), *id)) {
                all.push(format!("G2: a version of {} is lost, which was there {when}", path.display()));
            }
        }
        all.extend(fsck(scene, ours));
        all
    }

    fn tree_of(&mut self, git: &Repository, commit: Oid) -> &BTreeSet<Version> {
        self.trees.entry(commit).or_insert_with(|| versions_in(git, commit))
    }

    /// G5: a commit of gitsync that is no rescue changes only what it may.
    fn invented(&mut self, git: &Repository, id: Oid, allowed: &[&str]) -> Vec<String> {
        let commit = git.find_commit(id).unwrap();
        // A job's commits, and a person's that a job made anew, are theirs to answer for.
        let theirs = [&b"gitsync: "[..], b"job ", b"by hand ", b"version ", b"first\n", b"second\n"];
        if theirs.iter().any(|begin| commit.message_bytes().starts_with(begin)) || stashed(git).contains(&id) {
            return Vec::new();
        }
        let before = commit.parent_id(0).map(|parent| self.tree_of(git, parent).clone()).unwrap_or_default();
        let after = self.tree_of(git, id).clone();
        let outside = |path: &Path| !allowed.iter().any(|begin| path.to_string_lossy().starts_with(begin));
        let changed = before.symmetric_difference(&after).map(|(path, _)| path);
        let beyond: BTreeSet<_> = changed.filter(|path| outside(path)).collect();
        if beyond.is_empty() {
            return Vec::new();
        }
        vec![format!("G5: commit {id} ({}) changes {beyond:?}", commit.summary().ok().flatten().unwrap_or_default())]
    }
}

/// Every commit that a reference reaches; `seen`: by what was last seen of a remote, too.
pub fn reachable(git: &Repository, seen: bool) -> BTreeSet<Oid> {
    reachable_by(git, |name| seen || !name.starts_with("refs/remotes/"))
}

/// Every commit that git keeps for somebody by other means than references, with what it holds besides: on the stash, all but
/// the last by its log alone, and what a rebase or a merge has put away until it ends.
fn stashed(git: &Repository) -> BTreeSet<Oid> {
    let mut ids: Vec<Oid> =
        git.reflog("refs/stash").map(|log| log.iter().map(|entry| entry.id_new()).collect()).unwrap_or_default();
    for file in ["MERGE_AUTOSTASH", "rebase-merge/autostash", "rebase-apply/autostash"] {
        let text = fs::read_to_string(git.path().join(file)).unwrap_or_default();
        ids.extend(Oid::from_str(text.trim()));
    }
    let commits = ids.into_iter().filter_map(|id| git.find_commit(id).ok());
    commits.flat_map(|commit| commit.parent_ids().chain([commit.id()]).collect::<Vec<_>>()).collect()
}

/// Every commit that a reference reaches whose name will do.
pub fn reachable_by(git: &Repository, keeps: impl Fn(&str) -> bool) -> BTreeSet<Oid> {
    let mut walk = git.revwalk().unwrap();
    let mut any = false;
    for reference in git.references().unwrap().flatten() {
        if !keeps(&String::from_utf8_lossy(reference.name_bytes())) {
            continue;
        }
        if let Ok(commit) = reference.peel_to_commit() {
            walk.push(commit.id()).unwrap();
            any = true;
        }
    }
    if any { walk.filter_map(Result::ok).collect() } else { BTreeSet::new() }
}

fn versions_in(git: &Repository, commit: Oid) -> BTreeSet<Version> {
    let mut all = BTreeSet::new();
    let Ok(tree) = git.find_commit(commit).and_then(|commit| commit.tree()) else { return all };
    let _ = tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
        if entry.kind() == Some(ObjectType::Blob) {
            let mut path = folder.as_bytes().to_vec();
            path.extend_from_slice(entry.name_bytes());
            all.insert((PathBuf::from(OsStr::from_bytes(&path)), entry.id()));
        }
        TreeWalkResult::Ok
    });
    all
}

/// Every file and link of a work tree with the identity of its bytes, and whether it may be executed.
pub fn files(top: &Path) -> Vec<(PathBuf, Oid, bool)> {
    let mut all = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name() == ".git" {
                continue;
            }
            let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let inner = path.strip_prefix(top).unwrap().to_owned();
            let hash = |bytes: &[u8]| Oid::hash_object(ObjectType::Blob, bytes).unwrap();
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_symlink() {
                all.push((inner, hash(fs::read_link(&path).unwrap().as_os_str().as_bytes()), false));
            } else if meta.is_file() {
                use std::os::unix::fs::PermissionsExt;
                all.push((inner, hash(&fs::read(&path).unwrap()), meta.permissions().mode() & 0o100 != 0));
            }
        }
    }
    all.sort();
    all
}

pub fn fsck(scene: &Scene, place: &Path) -> Option<String> {
    let out = scene.git_command(place).args(["fsck", "--full", "--strict", "--no-dangling"]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // An unborn branch is no damage.
    let harmless = ["notice: ", "Checking "];
    let words: Vec<&str> = said.lines().filter(|line| !harmless.iter().any(|word| line.starts_with(word))).collect();
    (!out.status.success() || !words.is_empty()).then(|| format!("G6: fsck of {}: {words:?}", place.display()))
}

/// Leftovers below `.git` that no pass may leave: lock files, half-written objects, a follow not ended.
pub fn leftovers(git_dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![git_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let private = folder == git_dir.join("gitsync");
            // `job.lock` is the private folder's own and stays.
            let stays = private && name == "job.lock";
            let unfinished = private
                && (["intent", "index-before", "staging", "staging-old", "let-go"].contains(&&*name)
                    || name.ends_with(".new"));
            if unfinished || (!stays && name.ends_with(".lock")) || name.contains("_git2_") || name.starts_with("tmp_")
            {
                all.push(path.clone());
            }
            // What was put aside is kept as it was found.
            let kept = private && ["aside", "broken", "empty-objects"].contains(&&*name);
            if !kept && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            }
        }
    }
    all
}
