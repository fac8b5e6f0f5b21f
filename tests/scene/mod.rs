//! A scene: a bare upstream, our clone that gitsync works in, and a rival's clone; and what happens to them, as sentences.
//!
//! Everything is real: git makes the upstream and the rival's commits, the built binary works in ours. HOME, git's
//! configuration and the identity are the scene's own.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../signals/mod.rs"]
mod signals;

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// How one run of the binary ended.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran { command, code, stdout, stderr } = self;
        write!(f, "$ {command}\nexit {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

pub struct Scene {
    root: TempDir,
    last: RefCell<Ran>,
    alpha: Cell<bool>,
    env: RefCell<Vec<(String, String)>>,
    args: RefCell<Vec<String>>,
}

/// Two commits that a scene starts with, and an instance that is at the remote's latest.
impl Scene {
    pub fn new() -> Self {
        let scene = Self::without_ours();
        scene.init_sync().exits(0).says("cloned");
        scene
    }

    /// The upstream and the rival alone; `ours` is for the test to make.
    pub fn without_ours() -> Self {
        let scene = Self::empty_upstream();
        fs::create_dir(scene.rival().join("state")).unwrap();
        scene.rival_writes("index.html", "page 1\n").rival_writes("state/a", "a 1\n").rival_writes("gone.txt", "old\n");
        scene.rival_commits("first");
        scene.rival_writes("index.html", "page 2\n");
        scene.rival_commits("second");
        scene.git_in(&scene.rival(), &["push", "-q", "origin", "main"]);
        scene
    }

    /// An upstream without a commit, and a rival's clone of it.
    pub fn empty_upstream() -> Self {
        let root = TempDir::with_prefix("gitsync-scene-").unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        let scene = Self {
            root,
            last: RefCell::default(),
            alpha: Cell::new(false),
            env: RefCell::default(),
            args: RefCell::default(),
        };
        scene.git_in(scene.root(), &["init", "-q", "--bare", "-b", "main", "upstream.git"]);
        scene.git_in(scene.root(), &["clone", "-q", "upstream.git", "rival"]);
        scene.git_in(&scene.rival(), &["checkout", "-q", "-B", "main"]);
        scene
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }
    pub fn ours(&self) -> PathBuf {
        self.root().join("ours")
    }
    pub fn rival(&self) -> PathBuf {
        self.root().join("rival")
    }
    pub fn upstream(&self) -> PathBuf {
        self.root().join("upstream.git")
    }
    pub fn public(&self) -> PathBuf {
        self.root().join("public")
    }
    pub fn private(&self) -> PathBuf {
        self.ours().join(".git/gitsync")
    }

    /// From here on this instance is alpha.
    pub fn alpha(&self) -> &Self {
        self.alpha.set(true);
        self
    }
    pub fn non_alpha(&self) -> &Self {
        self.alpha.set(false);
        self
    }
    pub fn env(&self, name: &str, value: &str) -> &Self {
        self.env.borrow_mut().push((name.into(), value.into()));
        self
    }
    /// An argument that every further run gets.
    pub fn arg(&self, arg: &str) -> &Self {
        self.args.borrow_mut().push(arg.into());
        self
    }

    // ---- git

    pub fn git_command(&self, dir: &Path) -> Command {
        let mut git = Command::new("git");
        git.current_dir(dir);
        self.isolate(&mut git);
        git
    }

    /// Another program that is to see no more of this machine than git and gitsync do.
    pub fn isolated(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root());
        self.isolate(&mut command);
        command
    }

    fn isolate(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            // cargo sets LD_LIBRARY_PATH for tests, and the loader looks in each of its folders for each library.
            if name == "LD_LIBRARY_PATH"
                || name.starts_with("GIT")
                || name.starts_with("RUST_LOG")
                || name == "NO_COLOR"
            {
                command.env_remove(&*name);
            }
        }
        command
            .env("HOME", self.root().join("home"))
            .env("XDG_CONFIG_HOME", self.root().join("home/.config"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "A. Person")
            .env("GIT_AUTHOR_EMAIL", "person@example.org")
            .env("GIT_COMMITTER_NAME", "A. Person")
            .env("GIT_COMMITTER_EMAIL", "person@example.org")
            .env("TZ", "UTC");
    }

    /// Runs git, which must succeed, and gives its output without the last newline.
    pub fn git_in(&self, dir: &Path, args: &[&str]) -> String {
        let out = self.git_command(dir).args(args).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "git {args:?} in {}: {stdout}{stderr}", dir.display());
        stdout.trim_end_matches('\n').to_owned()
    }
    pub fn git_ours(&self, args: &[&str]) -> String {
        self.git_in(&self.ours(), args)
    }
    pub fn git_upstream(&self, args: &[&str]) -> String {
        self.git_in(&self.upstream(), args)
    }
    pub fn rev(&self, dir: &Path, what: &str) -> String {
        self.git_in(dir, &["rev-parse", "--verify", what])
    }
    pub fn our_tip(&self) -> String {
        self.rev(&self.ours(), "refs/heads/main")
    }
    pub fn upstream_tip(&self) -> String {
        self.rev(&self.upstream(), "refs/heads/main")
    }

    // ---- what people and other machines do

    pub fn rival_writes(&self, path: &str, text: &str) -> &Self {
        write(&self.rival().join(path), text);
        self
    }
    pub fn rival_commits(&self, message: &str) -> &Self {
        self.git_in(&self.rival(), &["add", "-A"]);
        self.git_in(&self.rival(), &["commit", "-q", "--allow-empty", "-m", message]);
        self
    }
    /// The rival takes in the upstream, changes a file and pushes.
    pub fn rival_pushes(&self, path: &str) -> &Self {
        self.git_in(&self.rival(), &["fetch", "-q"]);
        self.git_in(&self.rival(), &["reset", "-q", "--hard", "origin/main"]);
        let count = self.git_in(&self.rival(), &["rev-list", "--count", "HEAD"]);
        self.rival_writes(path, &format!("rival {count}\n")).rival_commits(&format!("rival: {path} {count}"));
        self.git_in(&self.rival(), &["push", "-q", "origin", "main"]);
        self
    }
    /// The rival replaces the last commit of the upstream by another.
    pub fn rival_rewrites(&self, path: &str) -> &Self {
        self.git_in(&self.rival(), &["fetch", "-q"]);
        self.git_in(&self.rival(), &["reset", "-q", "--hard", "origin/main"]);
        self.rival_writes(path, "rewritten\n");
        self.git_in(&self.rival(), &["add", "-A"]);
        self.git_in(&self.rival(), &["commit", "-q", "--amend", "-m", "rewritten"]);
        self.git_in(&self.rival(), &["push", "-q", "--force", "origin", "main"]);
        self
    }
    pub fn rival_deletes_branch(&self) -> &Self {
        self.git_upstream(&["update-ref", "-d", "refs/heads/main"]);
        self
    }
    /// A commit in our repository that the upstream does not have.
    pub fn we_commit(&self, path: &str) -> &Self {
        let count = self.git_ours(&["rev-list", "--count", "HEAD"]);
        write(&self.ours().join(path), &format!("ours {count}\n"));
        self.git_ours(&["add", "-A"]);
        self.git_ours(&["commit", "-q", "-m", &format!("ours: {path}")]);
        self
    }
    pub fn we_write(&self, path: &str, text: &str) -> &Self {
        write(&self.ours().join(path), text);
        self
    }
    /// The upstream can't be reached until [`Scene::upstream_comes_back`].
    pub fn upstream_goes_away(&self) -> &Self {
        fs::rename(self.upstream(), self.root().join("away.git")).unwrap();
        self
    }
    pub fn upstream_comes_back(&self) -> &Self {
        fs::rename(self.root().join("away.git"), self.upstream()).unwrap();
        self
    }
    /// A hook of the upstream, as a shell script.
    pub fn upstream_hook(&self, name: &str, script: &str) -> &Self {
        use std::os::unix::fs::PermissionsExt;
        let hook = self.upstream().join("hooks").join(name);
        write(&hook, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    // ---- gitsync

    /// The binary with a subcommand, ready to be run in this scene.
    pub fn gitsync<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitsync"));
        command.current_dir(self.root());
        self.isolate(&mut command);
        for (name, value) in self.env.borrow().iter() {
            command.env(name, value);
        }
        command.env("GIT_SYNC_REPO", self.ours());
        if self.alpha.get() {
            command.env("GIT_SYNC_ALPHA", "true");
        }
        let at = args.iter().position(|arg| arg.as_ref() == "--").unwrap_or(args.len());
        command.args(&args[..at]).args(self.args.borrow().iter()).args(&args[at..]);
        command.stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> &Self {
        let mut command = self.gitsync(args);
        let out = command.output().unwrap();
        self.keep(&command, out)
    }

    /// Runs another command than [`Scene::gitsync`] gives, and takes it as the last run.
    pub fn run_this(&self, mut command: Command) -> &Self {
        let out = command.output().unwrap();
        self.keep(&command, out)
    }

    fn keep(&self, command: &Command, out: std::process::Output) -> &Self {
        *self.last.borrow_mut() = Ran {
            command: format!("{command:?}"),
            code: out.status.code(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        };
        self
    }

    pub fn init_sync(&self) -> &Self {
        fs::create_dir_all(self.ours()).unwrap();
        self.run(&["init-sync", "--remote-url", self.upstream().to_str().unwrap()])
    }
    pub fn sync(&self) -> &Self {
        self.run(&["sync"])
    }
    /// A tick whose job does nothing.
    pub fn tick(&self) -> &Self {
        self.tick_with("true")
    }
    /// A tick whose job is a line of shell.
    pub fn tick_with(&self, script: &str) -> &Self {
        self.run(&["tick", "--", "sh", "-c", script])
    }
    /// Starts a run and does not wait for it.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Child {
        signals::are_heard_by_children();
        self.gitsync(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
    /// Waits for a started run, and takes it as the last one.
    pub fn wait(&self, child: Child) -> &Self {
        let out = child.wait_with_output().unwrap();
        self.keep(&Command::new("(started before)"), out)
    }

    // ---- what is to be seen

    pub fn last(&self) -> Ran {
        self.last.borrow().clone()
    }
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        let last = self.last();
        assert_eq!(last.code, Some(code), "{last}");
        self
    }
    /// stdout is this one line.
    #[track_caller]
    pub fn says(&self, word: &str) -> &Self {
        let last = self.last();
        assert_eq!(last.stdout, format!("{word}\n"), "{last}");
        self
    }
    #[track_caller]
    pub fn logs(&self, text: &str) -> &Self {
        let last = self.last();
        assert!(last.stderr.contains(text), "not logged: {text}\n{last}");
        self
    }
    #[track_caller]
    pub fn logs_not(&self, text: &str) -> &Self {
        let last = self.last();
        assert!(!last.stderr.contains(text), "logged: {text}\n{last}");
        self
    }
    /// The last run's JSON object.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let last = self.last();
        serde_json::from_str(&last.stdout).unwrap_or_else(|error| panic!("{error}\n{last}"))
    }
    #[track_caller]
    pub fn ours_equals_upstream(&self) -> &Self {
        assert_eq!(self.our_tip(), self.upstream_tip(), "{}", self.last());
        self.work_tree_is_clean()
    }
    /// Every tracked file is as committed.
    #[track_caller]
    pub fn work_tree_is_clean(&self) -> &Self {
        let status = self.git_ours(&["status", "--porcelain", "--untracked-files=no"]);
        assert_eq!(status, "", "{}", self.last());
        self
    }
    #[track_caller]
    pub fn our_file(&self, path: &str, text: &str) -> &Self {
        let found = fs::read_to_string(self.ours().join(path)).unwrap_or_else(|error| format!("({error})"));
        assert_eq!(found, text, "{path}\n{}", self.last());
        self
    }
    #[track_caller]
    pub fn upstream_file(&self, path: &str, text: &str) -> &Self {
        let out = self.git_command(&self.upstream()).args(["show", &format!("main:{path}")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), text, "{path} upstream\n{}", self.last());
        self
    }
    pub fn marker(&self) -> bool {
        self.private().join("force-push-pending").exists()
    }
    #[track_caller]
    pub fn marker_is(&self, there: bool) -> &Self {
        assert_eq!(self.marker(), there, "{}", self.last());
        self
    }
    /// Rescue references of a kind, or with "" of every kind, oldest first.
    pub fn rescues(&self, kind: &str) -> Vec<String> {
        let all = self.git_ours(&["for-each-ref", "--format=%(refname)", "refs/gitsync/rescue"]);
        let of_kind = |name: &&str| kind.is_empty() || name.contains(&format!("-{kind}-"));
        all.lines().filter(of_kind).map(str::to_owned).collect()
    }
    /// Every object is there and sound.
    #[track_caller]
    pub fn fsck(&self) -> &Self {
        let out =
            self.git_command(&self.ours()).args(["fsck", "--full", "--strict", "--no-dangling"]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let notes: Vec<&str> = said.lines().filter(|line| !line.starts_with("notice: ")).collect();
        assert!(out.status.success() && notes.is_empty(), "{notes:?}\n{}", self.last());
        self
    }
    /// The commit is reachable from the branch, from the upstream or from a rescue.
    #[track_caller]
    pub fn is_kept(&self, commit: &str) -> &Self {
        let out = self
            .git_command(&self.ours())
            .args(["for-each-ref", "--contains", commit, "refs/heads", "refs/gitsync/rescue"])
            .output()
            .unwrap();
        let upstream = self.git_command(&self.upstream()).args(["branch", "--contains", commit]).output().unwrap();
        assert!(!out.stdout.is_empty() || !upstream.stdout.is_empty(), "{commit} is lost\n{}", self.last());
        self
    }
    /// Everything below ours as paths with kind, mode and content: to compare before and after.
    pub fn snapshot(&self) -> Vec<(PathBuf, String)> {
        snapshot_of(&self.ours())
    }
}

/// Everything below a folder as paths with kind, mode and content.
pub fn snapshot_of(top: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    snapshot(top, top, &mut all);
    all.sort();
    all
}

fn snapshot(top: &Path, at: &Path, all: &mut Vec<(PathBuf, String)>) {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let mode = meta.permissions().mode();
        let inner = path.strip_prefix(top).unwrap().to_owned();
        if meta.is_dir() {
            all.push((inner, format!("{mode:o}")));
            snapshot(top, &path, all);
        } else if meta.is_symlink() {
            all.push((inner, format!("{mode:o} -> {}", fs::read_link(&path).unwrap().display())));
        } else if !meta.is_file() {
            all.push((inner, format!("{mode:o}")));
        } else {
            let content = fs::read(&path).unwrap();
            all.push((inner, format!("{mode:o} {}", content.escape_ascii())));
        }
    }
}

pub fn write(path: &Path, text: &str) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).unwrap();
    }
    fs::write(path, text).unwrap();
}

/// Waits until something is so, at most a minute; a deadline for what hangs, not a pace.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "waited a minute for: {what}");
        std::thread::yield_now();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
