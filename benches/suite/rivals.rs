//! The same job done by gitsync, by git's own commands and by curl: the one place that knows how each of them does it.
//!
//! git's part is what a shell script would do, and what the Python program did that gitsync replaces: it ran `git fetch`, then two
//! `git rev-parse`; to follow `git reset --hard`; to tick `git add`, `git commit`, `git push`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::servers::isolated;

pub const GITSYNC: &str = env!("CARGO_BIN_EXE_gitsync");

/// Who is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Gitsync,
    Git,
}

/// Both, in the order in which a row names them.
pub const BOTH: [Who; 2] = [Who::Gitsync, Who::Git];

/// Where the commands of a row run.
pub struct Stage {
    pub home: PathBuf,
    pub url: String,
    /// For https: the authority's certificate, and a file with it and the system's, since curl and git take one file
    /// instead of the system's.
    pub authority: Option<(String, PathBuf)>,
}

impl Stage {
    pub fn new(root: &Path, url: String) -> Self {
        Self { home: root.join("home"), url, authority: None }
    }

    /// A command that sees no configuration but this stage's.
    pub fn command(&self, program: &str, dir: &Path) -> Command {
        let mut command = Command::new(program);
        isolated(command.current_dir(dir));
        // cargo sets LD_LIBRARY_PATH, and the loader looks in each of its folders for each library.
        for name in ["LD_LIBRARY_PATH", "GIT_CONFIG_GLOBAL", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"] {
            command.env_remove(name);
        }
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "A. Person").env(format!("GIT_{role}_EMAIL"), "person@example.org");
        }
        command.env("HOME", &self.home).env("GIT_TERMINAL_PROMPT", "0").env("GIT_SYNC_REPO", dir);
        if let Some((authority, bundle)) = &self.authority {
            command.env("SSL_CERT_FILE", authority).env("GIT_SSL_CAINFO", bundle).env("CURL_CA_BUNDLE", bundle);
        }
        command
    }

    fn shell(&self, dir: &Path, script: &str) -> Command {
        let mut command = self.command("sh", dir);
        command.args(["-ec", script]);
        command
    }

    pub fn gitsync(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = self.command(GITSYNC, dir);
        command.args(args);
        command
    }

    /// A clone into a folder that is not there yet.
    pub fn clone(&self, who: Who, dir: &Path) -> Command {
        std::fs::create_dir_all(dir).unwrap();
        match who {
            Who::Gitsync => self.gitsync(dir, &["init-sync", "--remote-url", &self.url]),
            Who::Git => {
                let mut command = self.command("git", dir);
                command.args(["clone", "-q", &self.url, "."]);
                command
            }
        }
    }

    /// Follows a remote that has moved on.
    pub fn follow(&self, who: Who, dir: &Path) -> Command {
        match who {
            Who::Gitsync => self.gitsync(dir, &["sync"]),
            Who::Git => self.shell(dir, "git fetch -q origin main; git reset -q --hard origin/main"),
        }
    }

    /// Runs a job, a line of shell that changes something under `state/` or `audit/`, commits what it changed and pushes.
    pub fn tick(&self, who: Who, dir: &Path, job: &str) -> Command {
        match who {
            Who::Gitsync => self.gitsync(dir, &["tick", "--", "sh", "-c", job]),
            Who::Git => self.shell(
                dir,
                &format!(
                    "git fetch -q origin main; sh -c '{job}'; git add state audit; git commit -qm tick; \
                     git push -q origin main"
                ),
            ),
        }
    }

    /// A pass with nothing to do.
    pub fn poll(&self, who: Who, dir: &Path) -> Command {
        match who {
            Who::Gitsync => self.gitsync(dir, &["sync"]),
            Who::Git => self.shell(dir, "git fetch -q origin main; git rev-parse HEAD; git rev-parse origin/main"),
        }
    }

    /// Asks for one reference and does nothing else.
    pub fn ls_remote(&self, dir: &Path) -> Command {
        let mut command = self.command("git", dir);
        command.args(["ls-remote", "-q", "origin", "refs/heads/main"]);
        command
    }

    /// The request of a poll that is in the file, sent by curl.
    pub fn curl(&self, dir: &Path, request: &Path) -> Command {
        let mut command = self.command("curl", dir);
        command.args(["-sS", "-f", "-o", "/dev/null", "-H", "Git-Protocol: version=2"]);
        command.args(["-H", "Content-Type: application/x-git-upload-pack-request"]);
        command.arg("--data-binary").arg(format!("@{}", request.display()));
        command.arg(format!("{}/git-upload-pack", self.url));
        command
    }

    /// The least that a process costs.
    pub fn nothing(&self, dir: &Path) -> Command {
        self.command("true", dir)
    }

    /// A clone by git, for both contenders to start from alike; not timed.
    pub fn starting_point(&self, dir: &Path) {
        let succeeds = |mut command: Command| {
            let out = command.stdout(Stdio::null()).output().unwrap();
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        succeeds(self.clone(Who::Git, dir));
        succeeds(self.gitsync(dir, &["init-sync"]));
    }
}
