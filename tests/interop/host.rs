//! A server's program: in a folder of its own, on a loopback port, ended with everything it started.

use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::scene::{until, write};

/// Who runs a server that refuses to serve as root.
const NOBODY: &str = "65534";

pub struct Host {
    pub port: u16,
    children: Vec<Child>,
    folder: TempDir,
}

impl Host {
    pub fn new() -> Host {
        let folder = TempDir::with_prefix("gitsync-host-").unwrap();
        open_to_all(folder.path());
        // Free now; that nobody takes it in between is likely enough.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Host { port, children: Vec::new(), folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a file that the server reads.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write(&path, text);
        open_to_all(&path);
        path
    }

    /// Starts a program and waits until `is_up`.
    pub fn start(&mut self, command: &mut Command, is_up: impl Fn(&Host) -> bool) {
        let log = std::fs::File::create(self.path("log")).unwrap();
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.current_dir(self.folder.path());
        let name = format!("{command:?}");
        self.children.push(command.spawn().unwrap_or_else(|e| panic!("{name}: {e}")));
        until(&name, || {
            let ended = self.children.last_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{name} has ended: {ended:?}: {}", self.text("log"));
            is_up(self)
        });
    }

    pub fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in &mut self.children {
            let group = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// A program as a user without rights.
pub fn unprivileged(program: impl AsRef<OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
    command
}

/// Lets that user read and write what is there.
pub fn open_to_all(path: &Path) {
    let done = Command::new("chmod").args(["-R", "a+rwX"]).arg(path).status().unwrap();
    assert!(done.success());
}

/// Where git keeps its own programs.
pub fn git_http_backend() -> PathBuf {
    PathBuf::from(crate::servers::git(Path::new("/"), &["--exec-path"])).join("git-http-backend")
}
