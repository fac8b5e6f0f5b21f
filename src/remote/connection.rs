//! Remotes behind a program or a plain socket: paths and ssh by way of `git-upload-pack` and `git-receive-pack`, as git
//! itself does it, and the git daemon.
//!
//! Why programs: a real `git-receive-pack` runs the remote's hooks and swaps refs by compare-and-swap (libgit2's path
//! transport does neither), and a real `ssh` knows `~/.ssh/config`, agents and known hosts. Nothing here waits without
//! an end: every wait ends at the pass's deadline or after the idle time, and the program is killed then with all that it
//! started. What a program leaves behind when it ends well is meant to stay: a credential cache, an ssh that keeps its
//! connection.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::pktline::{Bad, Packet, Packets, refusal};
use super::programs::{self, GRACE, OWN_VARIABLES, REPOSITORY_VARIABLES, SECRET_VARIABLES};
use super::progress::Meter;
use super::ssh::SshCommand;
use super::url::{GitUrl, SshUrl};
use super::{Limits, answers, redact};
use crate::error::{Error, Kind};
use crate::process::programs::Running;
use crate::watchdog::STACK;

/// The most that is kept of what the other side says while we still write to it.
const MOST_AHEAD: usize = 8 << 20;
/// The most that is kept of a program's error output: its end.
const MOST_SAID: usize = 8 << 10;
/// What is read at a time where less is asked for.
const AT_ONCE: usize = 16 << 10;

/// How a repository that is no http remote is reached.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// The program on this machine.
    Path(PathBuf),
    /// The program on another machine.
    Ssh { url: SshUrl, command: SshCommand },
    /// A git daemon.
    Git(GitUrl),
}

impl Endpoint {
    /// Starts the program or opens the connection. `service`: `upload-pack` or `receive-pack`.
    ///
    /// # Errors
    /// When it cannot be started or reached.
    pub fn open(&self, service: &str, v2: bool, limits: Limits, url: &str) -> Result<Connection, Error> {
        limits.left(url)?;
        match self {
            Endpoint::Path(path) => {
                // A volume that is not mounted looks like this, and comes back.
                if !path.exists() {
                    return Err(Error {
                        kind: Kind::Unreachable,
                        what: format!("the remote {url} is not there"),
                        next: "see that the path is right and its volume mounted".to_owned(),
                    });
                }
                let mut command = Command::new("git");
                command.arg(service).arg(path);
                Connection::start(command, v2, limits, url, "git").map(|connection| connection.patient(service))
            }
            Endpoint::Ssh { url: ssh, command } => {
                let command = command.command(ssh, &format!("git-{service}"), v2);
                Connection::start(command, v2, limits, url, "openssh-client")
                    .map(|connection| connection.patient(service))
            }
            Endpoint::Git(git) => Connection::dial(git, service, v2, limits, url),
        }
    }
}

/// A conversation with a program or a socket.
#[derive(Debug)]
pub(crate) struct Connection {
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
    meter: Option<Arc<Meter>>,
}

impl Connection {
    fn start(mut command: Command, v2: bool, limits: Limits, url: &str, package: &str) -> Result<Connection, Error> {
        for variable in REPOSITORY_VARIABLES.iter().chain(SECRET_VARIABLES) {
            command.env_remove(variable);
        }
        if v2 {
            command.env("GIT_PROTOCOL", "version=2");
        } else {
            command.env_remove("GIT_PROTOCOL");
        }
        Connection::talk(command, limits, url, package)
    }

    fn patient(mut self, service: &str) -> Connection {
        self.patient = service == "receive-pack";
        self
    }

    /// Counts what comes and goes from here on.
    pub fn metered(mut self, meter: Arc<Meter>) -> Connection {
        self.meter = Some(meter);
        self
    }

    /// Starts a program and holds all three of its streams.
    pub fn talk(mut command: Command, limits: Limits, url: &str, package: &str) -> Result<Connection, Error> {
        for variable in OWN_VARIABLES {
            command.env_remove(variable);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = programs::start(&mut command, package)?;
        let (Some(to), Some(from), Some(errors)) =
            (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take())
        else {
            return Err(local_trouble("a program's streams are missing", url));
        };
        Connection::over(Some(to.into()), from.into(), Some(errors.into()), Some(running), limits, url)
    }

    fn dial(git: &GitUrl, service: &str, v2: bool, limits: Limits, url: &str) -> Result<Connection, Error> {
        let stream = connect(git, &limits, url)?;
        let _ = stream.set_nodelay(true);
        let other = stream.try_clone().map_err(|e| local_trouble(&e.to_string(), url))?;
        let mut connection = Connection::over(Some(stream.into()), other.into(), None, None, limits, url)?;
        let mut request = format!("git-{service} {}\0host={}\0", git.path, git.authority());
        if v2 {
            request.push_str("\0version=2\0");
        }
        let mut packet = Vec::new();
        super::pktline::encode(&mut packet, request.as_bytes());
        connection.send(&packet)?;
        Ok(connection)
    }

    fn over(
        to: Option<OwnedFd>,
        from: OwnedFd,
        errors: Option<OwnedFd>,
        running: Option<Running>,
        limits: Limits,
        url: &str,
    ) -> Result<Connection, Error> {
        for fd in [to.as_ref(), Some(&from), errors.as_ref()].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| local_trouble(&e.to_string(), url))?;
        }
        let url = url.to_owned();
        Ok(Connection {
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
            meter: None,
        })
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The deadline, the idle time, or the other side gone: then with what it said last.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let Some(to) = &self.to else { return Err(self.hung_up()) };
            match rustix::io::write(to, bytes) {
                Ok(n) => {
                    bytes = bytes.get(n..).unwrap_or_default();
                    self.meter.iter().for_each(|meter| meter.sent(n));
                }
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
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if !self.ahead.is_empty() {
            return Ok(self.ahead.read(buffer).unwrap_or(0));
        }
        let mut some = [0; AT_ONCE];
        loop {
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            // Packets are asked for in small pieces: one system call for each would be most of the work.
            let (read, ahead) = match buffer.len() < AT_ONCE {
                true => (rustix::io::read(&self.from, &mut some), true),
                false => (rustix::io::read(&self.from, &mut *buffer), false),
            };
            match read {
                Ok(n) => {
                    self.ended = n == 0;
                    self.meter.iter().for_each(|meter| meter.received(n));
                    if !ahead {
                        return Ok(n);
                    }
                    self.ahead.extend(some.get(..n).unwrap_or_default());
                    return Ok(self.ahead.read(buffer).unwrap_or(0));
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
    fn wait(&mut self, to_write: bool) -> Result<(), Error> {
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
                    Ok(n) => {
                        self.meter.iter().for_each(|meter| meter.received(n));
                        self.ahead.extend(some.get(..n).unwrap_or_default());
                    }
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

    /// How the program ended, once it has or a moment has passed.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut()?;
        running.ended_by(self.limits.until().min(Instant::now() + GRACE));
        running.child.try_wait().ok().flatten()
    }

    /// The error for a conversation the other side ended too early. What it said last may not have been read yet.
    pub fn hung_up(&mut self) -> Error {
        let words = self.last_words();
        let mut some = [0; 8192];
        // Nothing is waited for: it has gone.
        while self.ahead.len() < MOST_SAID
            && let Ok(n @ 1..) = rustix::io::read(&self.from, &mut some)
        {
            self.ahead.extend(some.iter().take(n));
        }
        // What was read so far ended with a packet.
        // A helper that reads nothing of its question has answered all the same: its answer is still to be received.
        let ahead: Vec<u8> = self.ahead.iter().copied().collect();
        let mut packets = Packets::new(ahead.as_slice());
        while let Ok(Some(packet)) = packets.packet() {
            if let Packet::Data(line) = packet
                && let Err(Bad::Refused(words)) = refusal(line)
            {
                return answers::server_said(&self.url, &words);
            }
        }
        // ssh says who closed the connection, git that it "could not read from remote repository": the cause is before.
        answers::server_said(&self.url, &words)
    }

    /// The error for a wait that has ended, which ends the program too.
    fn overdue(&mut self) -> Error {
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

impl Drop for Connection {
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

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer).map_err(io::Error::other)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn local_trouble(why: &str, url: &str) -> Error {
    Error {
        kind: Kind::Unreachable,
        what: format!("talking to {url}: {why}"),
        next: "nothing: the next pass tries again".to_owned(),
    }
}

/// Looks the name up, in a thread because the system's resolver knows no time-out, and connects.
fn connect(git: &GitUrl, limits: &Limits, url: &str) -> Result<TcpStream, Error> {
    let unreachable = |why: String| Error {
        kind: Kind::Unreachable,
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
