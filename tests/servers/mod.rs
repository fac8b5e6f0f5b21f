//! Real servers on loopback, with real faults: smart HTTP over `git http-backend`, sshd, git daemon.
//!
//! None of them is a mock of git: what they say of refs and packs comes from git itself. Every server ends with the value
//! that stands for it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]
// What git2 answers is what these tests are about.
#![allow(clippy::disallowed_methods)]

pub mod http;
pub mod inetd;
pub mod socks;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use gitsync::error::Error;
use gitsync::git::fetch::{Failed, download};
use gitsync::git::pack::pack;
use gitsync::git::push::is_commit_here;
use gitsync::remote::protocol::fetch::Wanted;
use gitsync::remote::{Env, Options, Progress, Session, SshFiles, TokenHost};

const MAIN: &str = "refs/heads/main";

/// No output, no file and no request to another host may ever hold this.
pub const CANARY: &str = "canary-7f3a9c51e2";

/// A folder with a bare repository `repo.git` in it, which has one commit on `main`.
pub struct Upstream {
    dir: tempfile::TempDir,
}

impl Upstream {
    pub fn new() -> Upstream {
        let upstream = Upstream::empty();
        upstream.commit("first.txt", "first\n");
        upstream
    }

    pub fn empty() -> Upstream {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream { dir };
        std::fs::create_dir(upstream.home()).unwrap();
        git(upstream.root(), &["init", "--quiet", "--bare", "--initial-branch=main", "repo.git"]);
        upstream.git(&["config", "http.receivepack", "true"]);
        upstream
    }

    /// What a server serves.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn bare(&self) -> PathBuf {
        self.dir.path().join("repo.git")
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.bare(), args)
    }

    /// Somebody commits a file to `main`.
    pub fn commit(&self, path: &str, content: &str) -> git2::Oid {
        let repo = git2::Repository::open_bare(self.bare()).unwrap();
        commit_to(&repo, "refs/heads/main", path, content.as_bytes())
    }

    pub fn tip(&self) -> Option<git2::Oid> {
        git2::Repository::open_bare(self.bare()).unwrap().refname_to_id("refs/heads/main").ok()
    }

    pub fn hook(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.bare().join("hooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Somebody has a branch whose name is Latin-1.
    pub fn odd_ref(&self) {
        let mut packed =
            format!("# pack-refs with: peeled fully-peeled sorted \n{} refs/heads/", self.tip().unwrap()).into_bytes();
        packed.extend_from_slice(b"gr\xfcn\n");
        std::fs::write(self.bare().join("packed-refs"), packed).unwrap();
    }

    /// Gives the repository this many refs more.
    pub fn many_refs(&self, count: usize) {
        let tip = self.tip().unwrap();
        let packed: String = std::iter::once("# pack-refs with: peeled fully-peeled sorted \n".to_owned())
            .chain((0..count).map(|i| format!("{tip} refs/heads/many/{i:07}\n")))
            .collect();
        std::fs::write(self.bare().join("packed-refs"), packed).unwrap();
    }
}

/// Adds a commit of one file on top of a ref.
pub fn commit_to(repo: &git2::Repository, refname: &str, path: &str, content: &[u8]) -> git2::Oid {
    let parent = repo.refname_to_id(refname).ok().map(|oid| repo.find_commit(oid).unwrap());
    let base = parent.as_ref().map(|p| p.tree().unwrap());
    let mut tree = repo.treebuilder(base.as_ref()).unwrap();
    tree.insert(path, repo.blob(content).unwrap(), 0o100644).unwrap();
    let tree = repo.find_tree(tree.write().unwrap()).unwrap();
    let who = git2::Signature::new("somebody", "somebody@example.com", &git2::Time::new(1_700_000_000, 0)).unwrap();
    let parents: Vec<_> = parent.iter().collect();
    repo.commit(Some(refname), &who, &who, "a commit", &tree, &parents).unwrap()
}

/// Git as nobody has configured it.
pub fn isolated(command: &mut Command) -> &mut Command {
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .env_remove("GIT_PROTOCOL")
        .stdin(Stdio::null())
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    let output: Output = isolated(Command::new("git").args(args).current_dir(dir)).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository on this side of a session.
pub struct Local {
    pub dir: tempfile::TempDir,
    pub repo: git2::Repository,
}

impl Local {
    pub fn new() -> Local {
        let dir = tempfile::tempdir().unwrap();
        let repo = git2::Repository::init(dir.path()).unwrap();
        Local { dir, repo }
    }

    /// Adds a commit on top of what was fetched last (or of our own).
    pub fn commit(&self, path: &str, content: &[u8]) -> git2::Oid {
        let ours = self.repo.refname_to_id("refs/heads/main");
        if let (Err(_), Ok(fetched)) = (ours, self.repo.refname_to_id("refs/remotes/origin/main")) {
            self.repo.reference("refs/heads/main", fetched, false, "follow").unwrap();
        }
        commit_to(&self.repo, "refs/heads/main", path, content)
    }

    /// Asks for `main` and fetches it; the tracking ref afterwards.
    pub fn fetch(&self, session: &Session) -> Result<Option<git2::Oid>, Error> {
        match session.tip(MAIN)? {
            Some(tip) => self.fetch_tip(session, tip).map(Some),
            None => Ok(None),
        }
    }

    /// Fetches `main`, which was seen to be at `tip`.
    pub fn fetch_tip(&self, session: &Session, tip: git2::Oid) -> Result<git2::Oid, Error> {
        let known: Vec<_> = self.repo.references().unwrap().filter_map(|r| r.unwrap().target()).collect();
        let wanted = Wanted { ids: &[tip], shallow: &[], depth: None, thin: true, quiet: true };
        download(session, &self.repo, &wanted, &known).map_err(|failed| match failed {
            Failed::Remote(error) => error,
            Failed::Pack(error) => Error::git("taking the pack in", &error),
        })?;
        self.repo.reference("refs/remotes/origin/main", tip, true, "fetch").unwrap();
        Ok(tip)
    }

    /// Pushes `main`; the server's refusal of the ref, if it refused it.
    pub fn push(&self, session: &Session) -> Result<Option<String>, Error> {
        let ours = self.repo.refname_to_id(MAIN).unwrap();
        let odb = self.repo.odb().unwrap();
        let receiver = session.receiver(MAIN, &|id| is_commit_here(&odb, id))?;
        let theirs = (receiver.theirs.as_slice(), receiver.takes_thin());
        let pack = pack(&self.repo, ours, theirs, self.dir.path().join("pack.new"), &|_, _| {})?;
        let report = receiver.send(ours, &pack)?;
        Ok(report.update.expect("the server answered for the ref").err())
    }
}

/// Options with time enough, and this environment.
pub fn options(variables: &[(&str, &str)]) -> Options {
    let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    Options {
        remote: Some("origin".to_owned()),
        deadline: Instant::now() + Duration::from_secs(60),
        idle: Duration::from_secs(20),
        token_file: None,
        url_secret: None,
        token_host: TokenHost::Nowhere,
        env: Env::read(&|name| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.into())),
        allow_insecure_http: false,
        ssh: SshFiles::default(),
        relative_to: PathBuf::from("/"),
        progress: Progress::Quiet,
        v2: true,
    }
}

pub fn config(text: &str) -> git2::Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut config = git2::Config::open(file.path()).unwrap();
    // In memory from here on.
    config.snapshot().unwrap()
}

pub fn open(url: &str) -> Session {
    open_with(url, options(&[]), "")
}

/// Tokens are for the host of `url`, as where an init-sync was given it.
pub fn open_with(url: &str, options: Options, configured: &str) -> Session {
    let options = Options { token_host: TokenHost::of_url(url), ..options };
    Session::open(url, &config(configured), options).unwrap()
}

/// The error is fit for people: says something, says what next, and no secret.
pub fn decent(e: &Error) {
    assert!(!e.what.is_empty() && !e.next.is_empty(), "{e:?}");
    let all = format!("{e:?} {e}");
    assert!(!all.contains(CANARY), "{all}");
    assert!(!all.chars().any(|c| c.is_control()), "{all}");
}
