//! Remotes behind a program or a plain socket: paths and ssh by way of `git-upload-pack` and `git-receive-pack`, as git
//! itself does it, and the git daemon.
//!
//! Why programs: a real `git-receive-pack` runs the remote's hooks and swaps refs by compare-and-swap (libgit2's path
//! transport does neither), and a real `ssh` knows `~/.ssh/config`, agents and known hosts. Nothing here waits without
//! an end: every wait ends at the pass's deadline or after the idle time, and the program is killed then with all that it
//! started. What a program leaves behind when it ends well is meant to stay: a credential cache, an ssh that keeps its
//! connection.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use super::err_packet::ErrWatch;
use super::url::{GitUrl, SshUrl};
use super::{Env, Kind, Limits, TransportError, answers, redact};
use crate::deadline::STACK;
use crate::family::{Family, Subreaper};

/// The most that is kept of what the other side says while we still write to it.
const MOST_AHEAD: usize = 8 << 20;
/// The most that is kept of a program's error output: its end.
const MOST_SAID: usize = 8 << 10;
/// How long a program may take to go once it has nothing more to say and nothing more is wanted of it.
const GRACE: Duration = Duration::from_secs(2);

/// What the environment and repository of this process must not tell a git in another repository.
pub const REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
];
/// Ours alone: no program that we start is told of these.
pub const OWN_VARIABLES: &[&str] = &["GIT_SYNC_TOKEN", "GIT_SYNC_TOKEN_FILE", "GIT_SYNC_REMOTE_URL"];
/// The tokens are for http remotes: a remote's hooks and ssh get none.
pub const SECRET_VARIABLES: &[&str] = &["GIT_SYNC_TOKEN", "GIT_SYNC_TOKEN_FILE", "GIT_SYNC_REMOTE_URL", "GITHUB_TOKEN"];

/// The programs now running, so that whoever ends this process can end them too.
static PROGRAMS: Mutex<Programs> = Mutex::new(Programs { running: Vec::new(), over: false });

struct Programs {
    running: Vec<Family>,
    /// This process is ending: no program may start any more.
    over: bool,
}

fn programs() -> MutexGuard<'static, Programs> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether every child of this process is a program of ours or what one left behind.
static ADOPTING: AtomicBool = AtomicBool::new(false);

/// How long the kernel may take to carry out SIGKILL before we go on without.
const KILL_TAKES: Duration = Duration::from_secs(2);

/// While the answer lives, what a program started is known for its own even when it has left the program's process group
/// and its parent has died: it becomes a child of this process instead of init's.
///
/// For a process in which nothing but this crate starts programs: a child of anybody else would be taken for what a program
/// left behind.
pub fn adopt_orphans() -> Adopting {
    ADOPTING.store(true, Ordering::SeqCst);
    Adopting { _subreaper: Subreaper::become_one() }
}

/// See [`adopt_orphans`].
pub struct Adopting {
    _subreaper: Subreaper,
}

impl Drop for Adopting {
    fn drop(&mut self) {
        ADOPTING.store(false, Ordering::SeqCst);
    }
}

/// Kills every program this module started and has not yet seen end, with all that it started, and lets none start from
/// now on: what fails because a program was killed may otherwise start the next one.
///
/// For the watchdog and the signal thread, just before the process ends.
pub fn kill_children() {
    let mut programs = programs();
    programs.over = true;
    for family in &programs.running {
        family.kill(KILL_TAKES);
    }
}

/// A program in its own process group, killed at the latest when this is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    family: Family,
    over: bool,
}

impl Running {
    fn start(command: &mut Command, package: &str) -> Result<Running, TransportError> {
        command.process_group(0);
        // Under the lock, so that the program cannot be missed by `kill_children` between its start and its entry.
        let mut programs = programs();
        if programs.over {
            return Err(TransportError {
                kind: Kind::Passing,
                what: "gitsync is being ended".to_owned(),
                next: "nothing: the next pass tries again".to_owned(),
            });
        }
        let before = ADOPTING.load(Ordering::SeqCst).then(Family::children_of_ours);
        let child = command.spawn().map_err(|e| {
            let program = command.get_program().to_string_lossy().into_owned();
            match e.kind() {
                io::ErrorKind::NotFound => TransportError {
                    kind: Kind::Lasting,
                    what: format!("the program `{program}` that this remote needs is not installed"),
                    next: format!("install the package {package} (apt-get install {package}), or use an https:// URL"),
                },
                _ => TransportError {
                    kind: Kind::Passing,
                    what: format!("`{program}` could not be started: {e}"),
                    next: "see that the machine has processes and memory to spare".to_owned(),
                },
            }
        })?;
        let family = Family::new(Pid::from_child(&child), before);
        programs.running.push(family.clone());
        Ok(Running { child, family, over: false })
    }

    /// Has it ended, by `until` at the latest?
    fn ended_by(&mut self, until: Instant) -> bool {
        let mut pause = Duration::from_micros(200);
        loop {
            if self.try_reap() {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            std::thread::sleep(pause.min(until - now));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn try_reap(&mut self) -> bool {
        if !self.over {
            // Under the lock: once reaped, its number may be another's, and must not be in the list.
            let mut programs = programs();
            if !matches!(self.child.try_wait(), Ok(None)) {
                programs.running.retain(|family| family.leader() != self.family.leader());
                self.over = true;
            }
        }
        self.over
    }

    /// Ends it and all it started. It is not reaped before: as long as it is not, its number is no other's.
    fn kill(&mut self) {
        if !self.over {
            // SIGKILL is not refused; what can hang is a process stuck in the kernel, and that is not waited for.
            self.family.kill(KILL_TAKES);
            self.ended_by(Instant::now() + GRACE / 10);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.try_reap() {
            self.kill();
        }
    }
}

/// How a repository that is no http remote is reached.
#[derive(Debug)]
pub(crate) enum Road {
    /// The program on this machine.
    Path(PathBuf),
    /// The program on another machine.
    Ssh { url: SshUrl, command: SshCommand },
    /// A git daemon.
    Git(GitUrl),
}

/// Which ssh to run.
#[derive(Clone, Debug)]
pub(crate) struct SshCommand {
    /// The command line, for a shell if `shell`.
    program: OsString,
    shell: bool,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    OpenSsh,
    /// plink: `-P` for the port, `-batch` so as not to ask.
    Putty,
    /// Whatever it is, it gets a host and a command and, if need be, `-p`.
    Simple,
}

impl SshCommand {
    /// In git's order: GIT_SSH_COMMAND, core.sshCommand (both for a shell), GIT_SSH (a program), `ssh`.
    pub fn choose(env: &Env, configured: Option<&str>, variant: Option<&str>) -> SshCommand {
        let (program, shell) = match (env.get("GIT_SSH_COMMAND"), configured, env.get("GIT_SSH")) {
            (Some(command), _, _) => (command.to_owned(), true),
            (None, Some(command), _) if !command.trim().is_empty() => (OsString::from(command), true),
            (None, _, Some(program)) => (program.to_owned(), false),
            _ => (OsString::from("ssh"), false),
        };
        let named = env.text("GIT_SSH_VARIANT").or(variant).unwrap_or("auto").to_ascii_lowercase();
        let dialect = match named.as_str() {
            "ssh" => Dialect::OpenSsh,
            "plink" | "putty" | "tortoiseplink" => Dialect::Putty,
            "simple" => Dialect::Simple,
            _ => {
                let text = program.to_string_lossy();
                let first = if shell { first_word(&text) } else { text.into_owned() };
                let name = Path::new(&first).file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                match name.trim_end_matches(".exe") {
                    "ssh" => Dialect::OpenSsh,
                    "plink" | "putty" | "tortoiseplink" => Dialect::Putty,
                    _ => Dialect::Simple,
                }
            }
        };
        SshCommand { program, shell, dialect }
    }

    fn command(&self, url: &SshUrl, service: &str, v2: bool) -> Command {
        let mut command = if self.shell {
            let mut script = self.program.clone();
            script.push(" \"$@\"");
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        match self.dialect {
            // BatchMode never asks, and so refuses a host key it does not know, unless the user's own configuration
            // says otherwise (StrictHostKeyChecking accept-new in an alias).
            Dialect::OpenSsh => {
                command.args(["-o", "BatchMode=yes"]);
                if v2 {
                    command.args(["-o", "SendEnv=GIT_PROTOCOL"]);
                }
            }
            Dialect::Putty => {
                command.arg("-batch");
            }
            Dialect::Simple => {}
        }
        if let Some(port) = url.port {
            command.arg(if self.dialect == Dialect::Putty { "-P" } else { "-p" }).arg(port.to_string());
        }
        command.arg(match &url.user {
            Some(user) => format!("{user}@{}", url.host),
            None => url.host.clone(),
        });
        command.arg(format!("{service} {}", shell_quoted(&url.path)));
        command
    }
}

/// The first word of a shell command, assignments before it left out (`FOO=bar ssh -v`).
fn first_word(command: &str) -> String {
    command
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']))
        .find(|word| !word.split('/').next().unwrap_or_default().contains('='))
        .unwrap_or_default()
        .to_owned()
}

/// As one word for a shell on the other side.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('!', r"'\!'"))
}

impl Road {
    /// Starts the program or opens the connection. `service`: `upload-pack` or `receive-pack`.
    ///
    /// # Errors
    /// When it cannot be started or reached.
    pub fn open(&self, service: &str, v2: bool, limits: Limits, url: &str) -> Result<Wire, TransportError> {
        limits.left(url)?;
        match self {
            Road::Path(path) => {
                // A volume that is not mounted looks like this, and comes back.
                if !path.exists() {
                    return Err(TransportError {
                        kind: Kind::Passing,
                        what: format!("the remote {url} is not there"),
                        next: "see that the path is right and its volume mounted".to_owned(),
                    });
                }
                let mut command = Command::new("git");
                command.arg(service).arg(path);
                Wire::start(command, v2, limits, url, "git").map(|wire| wire.patient(service))
            }
            Road::Ssh { url: ssh, command } => {
                let command = command.command(ssh, &format!("git-{service}"), v2);
                Wire::start(command, v2, limits, url, "openssh-client").map(|wire| wire.patient(service))
            }
            Road::Git(git) => Wire::dial(git, service, v2, limits, url),
        }
    }
}

/// A conversation with a program or a socket.
#[derive(Debug)]
pub(crate) struct Wire {
    to: Option<OwnedFd>,
    from: OwnedFd,
    errors: Option<OwnedFd>,
    /// What came while we were writing.
    ahead: VecDeque<u8>,
    /// The end of what the program said on its error output.
    said: Vec<u8>,
    running: Option<Running>,
    limits: Limits,
    url: String,
    /// The other side closed its end.
    ended: bool,
    /// The program may have work to do after it has answered.
    patient: bool,
}

impl Wire {
    fn start(mut command: Command, v2: bool, limits: Limits, url: &str, package: &str) -> Result<Wire, TransportError> {
        for variable in REPOSITORY_VARIABLES.iter().chain(SECRET_VARIABLES) {
            command.env_remove(variable);
        }
        if v2 {
            command.env("GIT_PROTOCOL", "version=2");
        } else {
            command.env_remove("GIT_PROTOCOL");
        }
        Wire::talk(command, limits, url, package)
    }

    fn patient(mut self, service: &str) -> Wire {
        self.patient = service == "receive-pack";
        self
    }

    /// Starts a program and holds all three of its streams.
    pub fn talk(mut command: Command, limits: Limits, url: &str, package: &str) -> Result<Wire, TransportError> {
        for variable in OWN_VARIABLES {
            command.env_remove(variable);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command, package)?;
        let (Some(to), Some(from), Some(errors)) =
            (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take())
        else {
            return Err(local_trouble("a program's streams are missing", url));
        };
        Wire::over(Some(to.into()), from.into(), Some(errors.into()), Some(running), limits, url)
    }

    fn dial(git: &GitUrl, service: &str, v2: bool, limits: Limits, url: &str) -> Result<Wire, TransportError> {
        let stream = connect(git, &limits, url)?;
        let _ = stream.set_nodelay(true);
        let other = stream.try_clone().map_err(|e| local_trouble(&e.to_string(), url))?;
        let mut wire = Wire::over(Some(stream.into()), other.into(), None, None, limits, url)?;
        let mut request = format!("git-{service} {}\0host={}\0", git.path, git.authority());
        if v2 {
            request.push_str("\0version=2\0");
        }
        let mut packet = Vec::new();
        super::pktline::encode(&mut packet, request.as_bytes());
        wire.send(&packet)?;
        Ok(wire)
    }

    fn over(
        to: Option<OwnedFd>,
        from: OwnedFd,
        errors: Option<OwnedFd>,
        running: Option<Running>,
        limits: Limits,
        url: &str,
    ) -> Result<Wire, TransportError> {
        for fd in [to.as_ref(), Some(&from), errors.as_ref()].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| local_trouble(&e.to_string(), url))?;
        }
        let url = url.to_owned();
        Ok(Wire {
            to,
            from,
            errors,
            ahead: VecDeque::new(),
            said: Vec::new(),
            running,
            limits,
            url,
            ended: false,
            patient: false,
        })
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The deadline, the idle time, or the other side gone: then with what it said last.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), TransportError> {
        while !bytes.is_empty() {
            let Some(to) = &self.to else { return Err(self.hung_up()) };
            match rustix::io::write(to, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::AGAIN) => self.wait(true)?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(self.hung_up()),
            }
        }
        Ok(())
    }

    /// Receives some of it; 0 at its end.
    ///
    /// # Errors
    /// The deadline or the idle time.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        if !self.ahead.is_empty() {
            return Ok(self.ahead.read(buffer).unwrap_or(0));
        }
        loop {
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            match rustix::io::read(&self.from, &mut *buffer) {
                Ok(n) => {
                    self.ended = n == 0;
                    return Ok(n);
                }
                Err(Errno::AGAIN) => self.wait(false)?,
                Err(Errno::INTR) => {}
                Err(_) => self.ended = true,
            }
        }
    }

    /// Nothing more will be sent.
    pub fn close_input(&mut self) {
        self.to = None;
    }

    /// Waits until something can be read or, if `to_write`, written. Reads ahead while writing: a program that says
    /// much while it is being written to would else wait for us as we wait for it.
    fn wait(&mut self, to_write: bool) -> Result<(), TransportError> {
        let until = self.limits.until();
        loop {
            let now = Instant::now();
            if now >= until {
                return Err(self.overdue());
            }
            let left = until - now;
            let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
            let read_from = !self.ended && self.ahead.len() < MOST_AHEAD;
            let (mut can_read, mut can_write, mut can_hear) = (false, false, false);
            {
                let mut fds = Vec::with_capacity(3);
                let mut which = Vec::with_capacity(3);
                if read_from {
                    fds.push(PollFd::new(&self.from, PollFlags::IN));
                    which.push(&mut can_read);
                }
                if let (true, Some(to)) = (to_write, &self.to) {
                    fds.push(PollFd::new(to, PollFlags::OUT));
                    which.push(&mut can_write);
                }
                if let Some(errors) = &self.errors {
                    fds.push(PollFd::new(errors, PollFlags::IN));
                    which.push(&mut can_hear);
                }
                match poll(&mut fds, Some(&timeout)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(local_trouble(&e.to_string(), &self.url)),
                }
                for (fd, ready) in fds.iter().zip(which) {
                    *ready = !fd.revents().is_empty();
                }
            }
            if can_hear {
                self.hear();
            }
            if can_write || (can_read && !to_write) {
                return Ok(());
            }
            if can_read {
                let mut some = [0; 8192];
                match rustix::io::read(&self.from, &mut some) {
                    Ok(0) => self.ended = true,
                    Ok(n) => self.ahead.extend(&some[..n]),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => self.ended = true,
                }
            }
        }
    }

    /// Takes what there is of the program's error output and keeps its end.
    fn hear(&mut self) {
        let Some(errors) = &self.errors else { return };
        let mut some = [0; 4096];
        match rustix::io::read(errors, &mut some) {
            Ok(0) => self.errors = None,
            Ok(n) => {
                self.said.extend_from_slice(&some[..n]);
                let surplus = self.said.len().saturating_sub(MOST_SAID);
                self.said.drain(..surplus);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.errors = None,
        }
    }

    /// What the program said on its error output, once it has ended or a moment has passed.
    pub fn last_words(&mut self) -> String {
        let until = self.limits.until().min(Instant::now() + GRACE);
        while let Some(errors) = &self.errors {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let left = until - now;
            let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
            let mut fds = [PollFd::new(errors, PollFlags::IN)];
            if poll(&mut fds, Some(&timeout)).is_err() {
                break;
            }
            self.hear();
        }
        redact::text(&self.said)
    }

    /// The error for a conversation the other side ended too early. What it said last may not have been read yet.
    pub fn hung_up(&mut self) -> TransportError {
        let words = self.last_words();
        let mut watch = ErrWatch::default();
        let mut some = [0; 8192];
        // Nothing is waited for: it has gone.
        while self.ahead.len() < MOST_SAID
            && let Ok(n @ 1..) = rustix::io::read(&self.from, &mut some)
        {
            self.ahead.extend(some.iter().take(n));
        }
        if watch.see(self.ahead.make_contiguous())
            && let Some(words) = watch.words()
        {
            return answers::server_said(&self.url, &words);
        }
        // ssh says who closed the connection, git that it "could not read from remote repository": the cause is before.
        answers::server_said(&self.url, &words)
    }

    /// The error for a wait that has ended, which ends the program too.
    fn overdue(&mut self) -> TransportError {
        if let Some(running) = &mut self.running {
            running.kill();
        }
        let words = redact::text(&self.said);
        let mut e = self.limits.overdue(&self.url);
        if !words.is_empty() {
            e.what.push_str(&format!(" (it said: {words})"));
        }
        e
    }
}

impl Drop for Wire {
    /// Lets a program that has done its work end by itself; whatever does not end is killed.
    fn drop(&mut self) {
        self.to = None;
        let Some(mut running) = self.running.take() else { return };
        // A `git-receive-pack` still runs the remote's hooks after it has told us that the push is in: it may take what
        // time the pass has. Nobody listens to it any more, but it must not have to wait for that. Its end is looked
        // for in the process, not in its output, which a daemon it started may hold open for ever.
        let until = self.limits.until().min(Instant::now() + if self.patient { self.limits.idle } else { GRACE / 10 });
        self.limits.idle = Duration::from_millis(10);
        let mut some = [0; 8192];
        while !self.ended && !running.try_reap() && Instant::now() < until {
            self.ahead.clear();
            let _ = self.receive(&mut some);
        }
        running.ended_by(until.max(Instant::now() + GRACE / 10));
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer).map_err(io::Error::other)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn local_trouble(why: &str, url: &str) -> TransportError {
    TransportError {
        kind: Kind::Passing,
        what: format!("talking to {url}: {why}"),
        next: "nothing: the next pass tries again".to_owned(),
    }
}

/// Looks the name up, in a thread because the system's resolver knows no time-out, and connects.
fn connect(git: &GitUrl, limits: &Limits, url: &str) -> Result<TcpStream, TransportError> {
    let unreachable = |why: String| TransportError {
        kind: Kind::Passing,
        what: format!("{url} cannot be reached: {why}"),
        next: "see that the host's name is right and the network up; the next pass tries again".to_owned(),
    };
    let addresses: Vec<SocketAddr> = match git.host.parse::<std::net::IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, git.port)],
        Err(_) => {
            let (tell, told) = mpsc::channel();
            let name = (git.host.clone(), git.port);
            std::thread::Builder::new()
                .name("names".to_owned())
                .stack_size(STACK)
                .spawn(move || tell.send(name.to_socket_addrs().map(Vec::from_iter)))
                .map_err(|e| unreachable(format!("no thread to look its name up: {e}")))?;
            match told.recv_timeout(limits.left(url)?.min(limits.idle)) {
                Ok(found) => found.map_err(|e| unreachable(e.to_string()))?,
                Err(_) => return Err(answers::no_name_in_time(url)),
            }
        }
    };
    let mut last = unreachable("its name has no address".to_owned());
    for address in addresses {
        match TcpStream::connect_timeout(&address, limits.left(url)?.min(limits.idle)) {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => last = limits.overdue(url),
            Err(e) => last = unreachable(e.to_string()),
        }
    }
    Err(last)
}

/// A command line for a shell, with one more word.
pub(crate) fn shell(script: &str, word: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{script} {word}"));
    command
}

/// A program by its path, with one word.
pub(crate) fn program(path: &OsStr, word: &str) -> Command {
    let mut command = Command::new(path);
    command.arg(word);
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> Env {
        Env::read(&move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    fn line(ssh: &SshCommand) -> Vec<String> {
        let url = SshUrl { user: Some("u".into()), host: "h".into(), port: Some(22), path: "it's/r".into() };
        let command = ssh.command(&url, "git-upload-pack", true);
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|a| a.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn ssh_is_chosen_as_git_chooses_it() {
        let last = r"git-upload-pack 'it'\''s/r'";
        let plain = line(&SshCommand::choose(&env(&[]), None, None));
        assert_eq!(plain, ["ssh", "-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL", "-p", "22", "u@h", last]);
        let command = SshCommand::choose(&env(&[("GIT_SSH_COMMAND", "A=b ssh -F /x")]), Some("other"), None);
        assert_eq!(command.dialect, Dialect::OpenSsh);
        assert_eq!(line(&command)[..3], ["sh", "-c", "A=b ssh -F /x \"$@\""]);
        assert_eq!(
            SshCommand::choose(&env(&[("GIT_SSH_COMMAND", "")]), Some("wrap ssh"), None).dialect,
            Dialect::Simple
        );
        assert_eq!(SshCommand::choose(&env(&[("GIT_SSH", "/opt/plink")]), None, None).dialect, Dialect::Putty);
        assert_eq!(SshCommand::choose(&env(&[("GIT_SSH", "/opt/x")]), None, Some("ssh")).dialect, Dialect::OpenSsh);
    }
}
