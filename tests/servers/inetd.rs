//! sshd and git daemon, as inetd would run them: a listener of ours hands each connection to a fresh process, so that
//! no port has to be guessed and no server outlives its test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{Upstream, isolated};

/// Hands each connection to a process.
pub struct Inetd {
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Child>>>,
}

impl Inetd {
    fn serve(ip: &str, make: impl Fn() -> Command + Send + 'static) -> Inetd {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let children: Arc<Mutex<Vec<Child>>> = Arc::default();
        let (ended, kept) = (over.clone(), children.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let stream = OwnedFd::from(stream.unwrap());
                let mut command = make();
                command.stdin(stream.try_clone().unwrap()).stdout(stream).process_group(0);
                kept.lock().unwrap().push(command.spawn().unwrap());
            }
        });
        Inetd { address, over, children }
    }

    /// Whether every process that a connection was handed to has ended.
    pub fn is_idle(&self) -> bool {
        let mut children = self.children.lock().unwrap();
        children.retain_mut(|child| child.try_wait().unwrap().is_none());
        children.is_empty()
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for child in self.children.lock().unwrap().iter_mut() {
            if let (Ok(None), Some(group)) = (child.try_wait(), rustix::process::Pid::from_raw(child.id() as i32)) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}

/// A git daemon that also takes pushes.
pub fn git_daemon(upstream: &Upstream) -> Inetd {
    git_daemon_at(upstream, "127.0.0.1")
}

pub fn git_daemon_at(upstream: &Upstream, ip: &str) -> Inetd {
    let root = upstream.root().to_owned();
    Inetd::serve(ip, move || {
        let mut command = Command::new("git");
        isolated(&mut command)
            .args(["daemon", "--inetd", "--export-all", "--enable=receive-pack", "--informative-errors"])
            .arg(format!("--base-path={}", root.display()))
            .stderr(Stdio::null());
        command
    })
}

/// An sshd with one host key and one user key.
pub struct Sshd {
    pub inetd: Inetd,
    dir: tempfile::TempDir,
}

impl Sshd {
    pub fn new() -> Sshd {
        Sshd::at_address("127.0.0.1")
    }

    pub fn at_address(ip: &str) -> Sshd {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd"]
            .iter()
            .map(PathBuf::from)
            .find(|p| p.exists())
            .expect("these tests need an sshd: apt-get install openssh-server");
        // sshd wants this folder, and as root only takes this one; another user's sshd does without.
        let _ = std::fs::create_dir_all("/run/sshd");
        let dir = tempfile::tempdir().unwrap();
        for key in ["host", "user", "stranger"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"])
                .arg(dir.path().join(key))
                .stdin(Stdio::null())
                .status()
                .unwrap();
            assert!(made.success());
        }
        std::fs::copy(dir.path().join("user.pub"), dir.path().join("authorized")).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\nPidFile none\nLogLevel QUIET\n",
            at("host"),
            at("authorized")
        );
        std::fs::write(dir.path().join("sshd_config"), config).unwrap();
        let (config, log) = (dir.path().join("sshd_config"), dir.path().join("log"));
        let inetd = Inetd::serve(ip, move || {
            let mut command = Command::new(&sshd);
            command.arg("-i").arg("-f").arg(&config).arg("-E").arg(&log).stderr(Stdio::null());
            command
        });
        let sshd = Sshd { inetd, dir };
        let key = std::fs::read_to_string(sshd.at("host.pub")).unwrap();
        std::fs::write(sshd.at("known"), format!("[{ip}]:{} {key}", sshd.inetd.address.port())).unwrap();
        std::fs::write(sshd.at("known_nobody"), "").unwrap();
        let stranger = std::fs::read_to_string(sshd.at("stranger.pub")).unwrap();
        std::fs::write(sshd.at("known_other"), format!("[{ip}]:{} {stranger}", sshd.inetd.address.port())).unwrap();
        sshd
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration file with the alias `upstream` in it; the command to use it with.
    pub fn client(&self, key: &str, known: &str) -> String {
        let file = self.at(&format!("config-{key}-{known}"));
        let text = format!(
            "Host upstream\n  HostName {}\n  Port {}\n  User {}\nHost *\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  IdentityAgent none\n",
            self.inetd.address.ip(),
            self.inetd.address.port(),
            user(),
            self.at(key).display(),
            self.at(known).display()
        );
        std::fs::write(&file, text).unwrap();
        format!("ssh -F {}", file.display())
    }

    pub fn url(&self, path: &Path) -> String {
        format!("ssh://{}@{}{}", user(), self.inetd.address, path.display())
    }
}

pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
