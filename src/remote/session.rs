//! One remote for one pass: its tips, fetches and pushes, over as few connections as its protocol allows.
//!
//! Over http all of a pass runs over one kept connection, and credentials are looked up once. Over ssh, the git daemon and a
//! path, tips and the fetch that follows share one conversation; a push is another program at the other end.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use git2::Oid;

use super::config::GitConfig;
use super::connection::{Connection, Endpoint};
use super::http::{self, Http};
use super::pktline::{Bad, Packets};
use super::progress::{Meter, Progress};
use super::protocol::fetch::{self, Boundary, Channel, Haves, Wanted};
use super::protocol::push::{self, Report, Update};
use super::protocol::refs::{self, Greeting, Listing};
use super::spool::Spool;
use super::ssh::SshCommand;
use super::url::{Remote, split_url_secret};
use super::{Limits, Options, TokenHost, answers, redact};
use crate::error::{Error, Kind};

/// One remote for one pass.
#[derive(Debug)]
pub struct Session {
    shown: String,
    limits: Limits,
    meter: Arc<Meter>,
    is_watched: bool,
    reach: Reach,
}

#[derive(Debug)]
enum Reach {
    Http(Box<Http>),
    Program(Box<Program>),
}

/// A remote that is reached through a program or a socket.
#[derive(Debug)]
struct Program {
    endpoint: Endpoint,
    /// Protocol v2 is asked for.
    v2: Cell<bool>,
    /// The conversation with its `upload-pack`, while it can be used for more.
    open: RefCell<Option<Talk>>,
}

/// A conversation that has begun.
#[derive(Debug)]
struct Talk {
    packets: Packets<Connection>,
    greeting: Greeting,
}

impl Session {
    /// Opens a session. Nothing is sent yet.
    ///
    /// `url`: after git's `insteadOf`. `config`: git's configuration, of which credential helpers, extra headers, the proxy,
    /// the ssh command and `protocol.version` are honoured.
    ///
    /// # Errors
    /// [`Kind::Refused`] for a URL or a configuration that can't be used.
    pub fn open(url: &str, config: &git2::Config, options: Options) -> Result<Session, Error> {
        let config = read_config(config, &options)?;
        Session::with(url, &config, options)
    }

    fn with(url: &str, config: &GitConfig, options: Options) -> Result<Session, Error> {
        let limits = Limits::new(options.deadline, options.idle);
        // Masks it.
        split_url_secret(url);
        let remote = Remote::parse(url, &options.relative_to)?;
        let shown = match &remote {
            Remote::Http(http) => redact::url(&http.clean()),
            _ => redact::url(url),
        };
        let meter = Arc::new(Meter::new(options.progress, &shown));
        let v2 = options.v2 && !config.wants_old_protocol();
        let program =
            |endpoint| Reach::Program(Box::new(Program { endpoint, v2: Cell::new(v2), open: RefCell::new(None) }));
        let reach = match remote {
            Remote::Http(http) => {
                Reach::Http(Box::new(Http::new(http, config, &options, limits.clone(), meter.clone(), v2)))
            }
            Remote::Ssh(url) => {
                let (configured, variant) = (config.ssh_command.as_deref(), config.ssh_variant.as_deref());
                program(Endpoint::Ssh {
                    url,
                    command: SshCommand::choose(&options.env, &options.ssh, configured, variant)?,
                })
            }
            Remote::Git(git) => program(Endpoint::Git(git)),
            Remote::Path(path) => program(Endpoint::Path(path)),
        };
        let is_watched = options.progress != Progress::Quiet;
        Ok(Session { shown, limits, meter, is_watched, reach })
    }

    /// The remote's URL, redacted, for logs.
    pub fn display_url(&self) -> &str {
        &self.shown
    }

    /// To tell how many objects are through, and of how many.
    pub fn counter(&self) -> impl Fn(usize, usize) + Sync + use<> {
        let meter = self.meter.clone();
        move |done, total| meter.objects(done, total)
    }

    /// Returns whether the server left a request in protocol v2 unanswered, and answered an older one.
    pub fn is_silent_to_v2(&self) -> bool {
        matches!(&self.reach, Reach::Http(http) if http.is_silent_to_v2())
    }

    /// The tip of `refname` (in full: `refs/heads/main`) on the remote now; `None` if there is no such reference, as in an
    /// empty repository.
    ///
    /// Over http this is one POST of protocol v2's `ls-refs`. A server that does not answer that is asked the old way, for
    /// the rest of the session too.
    ///
    /// # Errors
    /// Whatever keeps the remote from answering.
    pub fn tip(&self, refname: &str) -> Result<Option<Oid>, Error> {
        Ok(refs::tip(&self.tips(&[refname])?, refname))
    }

    /// The remote's branches by their short names, its default first, and whether it has a tag of the name `tag`. Of very many
    /// branches only some.
    ///
    /// # Errors
    /// Whatever keeps the remote from answering.
    pub fn branches(&self, tag: &str) -> Result<(Vec<String>, bool), Error> {
        let tag = format!("refs/tags/{tag}");
        let found = self.tips(&["HEAD", &tag, "refs/heads/"])?;
        let head = refs::tip(&found, "HEAD");
        let branch = |(name, tip): &(String, Oid)| Some((name.strip_prefix("refs/heads/")?.to_owned(), *tip));
        let mut branches: Vec<(String, Oid)> = found.iter().filter_map(branch).collect();
        // Which branch HEAD names is not told by every server. Where several are at its commit, a usual name decides.
        branches.sort_by_key(|(name, tip)| (Some(*tip) != head, name != "main", name != "master", name.clone()));
        Ok((branches.into_iter().map(|(name, _)| name).collect(), refs::tip(&found, &tag).is_some()))
    }

    fn tips(&self, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Error> {
        match &self.reach {
            Reach::Http(http) => http.tips(refnames),
            Reach::Program(program) => {
                let mut talk = self.talk(program, refnames)?;
                let found = match &talk.greeting {
                    Greeting::Listing(listing) => listing.refs.clone(),
                    Greeting::V2 => self.ls_refs(&mut talk.packets, refnames)?,
                };
                *program.open.borrow_mut() = Some(talk);
                Ok(found)
            }
        }
    }

    fn ls_refs(&self, packets: &mut Packets<Connection>, refnames: &[&str]) -> Result<Vec<(String, Oid)>, Error> {
        let asked = packets.stream_mut().write_all(&refs::ls_refs_request(refnames)).map_err(Bad::from);
        let found = asked.and_then(|()| refs::read_ls_refs(packets, refnames));
        found.map_err(|bad| self.hung_up(bad, packets.stream_mut()))
    }

    /// The conversation that is open and can be asked for references, or a new one.
    fn talk(&self, program: &Program, refnames: &[&str]) -> Result<Talk, Error> {
        match program.open.borrow_mut().take() {
            Some(talk) if talk.greeting == Greeting::V2 => return Ok(talk),
            // It lists once.
            Some(talk) => farewell(talk),
            None => {}
        }
        let begun = self.begin(program, refnames);
        // A git daemon from before protocol v2 hangs up at the question; the others just do not answer it.
        if matches!(&begun, Err(begun) if begun.hung_up)
            && program.v2.get()
            && matches!(program.endpoint, Endpoint::Git(_))
        {
            program.v2.set(false);
            return self.begin(program, refnames).map_err(|not| not.error);
        }
        begun.map_err(|not| not.error)
    }

    fn begin(&self, program: &Program, refnames: &[&str]) -> Result<Talk, NotBegun> {
        let failed = |error| NotBegun { error, hung_up: false };
        let v2 = program.v2.get();
        let connection = self.connect(&program.endpoint, "upload-pack", v2).map_err(failed)?;
        let mut packets = Packets::new(connection);
        let greeting = refs::read_greeting(&mut packets, refnames, &mut |_| {});
        let greeting = greeting.map_err(|bad| NotBegun {
            hung_up: matches!(bad, Bad::Malformed(_)),
            error: self.hung_up(bad, packets.stream_mut()),
        })?;
        Ok(Talk { packets, greeting })
    }

    fn connect(&self, endpoint: &Endpoint, service: &str, v2: bool) -> Result<Connection, Error> {
        self.meter.done();
        Ok(endpoint.open(service, v2, self.limits.clone(), &self.shown)?.metered(self.meter.clone()))
    }

    /// Fetches what is wanted; the pack goes to `pack`. To call after [`Session::tip`], which finds out what the server can do.
    ///
    /// # Errors
    /// Whatever keeps the remote from answering; an [`Error`] within one of `pack`'s comes as it is.
    pub fn fetch(&self, wanted: &Wanted<'_>, haves: &mut dyn Haves, pack: &mut dyn Write) -> Result<Boundary, Error> {
        let wanted = &Wanted { quiet: !self.is_watched, ..*wanted };
        self.meter.done();
        let fetched = match &self.reach {
            Reach::Http(http) => {
                let listing = http.listing()?;
                let mut channel = HttpChannel { http, v2: listing.is_none(), answer: None };
                let fetched = fetch_by(&mut channel, listing.as_ref(), wanted, haves, pack);
                drop(channel);
                fetched.map_err(|bad| http.bad(bad, &self.shown))
            }
            Reach::Program(program) => {
                let mut talk = match program.open.borrow_mut().take() {
                    Some(talk) => talk,
                    None => self.begin(program, &[]).map_err(|not| not.error)?,
                };
                let listing = match &talk.greeting {
                    Greeting::V2 => None,
                    Greeting::Listing(listing) => Some(listing),
                };
                let mut channel = ProgramChannel(talk.packets.stream_mut());
                let fetched = fetch_by(&mut channel, listing, wanted, haves, pack);
                let fetched = fetched.map_err(|bad| self.hung_up(bad, talk.packets.stream_mut()));
                if fetched.is_ok() && talk.greeting == Greeting::V2 {
                    *program.open.borrow_mut() = Some(talk);
                }
                fetched
            }
        };
        self.meter.done();
        fetched
    }

    /// Begins a push to `refname`. `is_here` says whether an object is here.
    ///
    /// # Errors
    /// Whatever keeps the remote from answering.
    pub fn receiver(&self, refname: &str, is_here: &dyn Fn(Oid) -> bool) -> Result<Receiver<'_>, Error> {
        let mut theirs = Vec::new();
        let mut note = |id| {
            if theirs.len() < MOST_THEIRS && !theirs.contains(&id) && is_here(id) {
                theirs.push(id);
            }
        };
        self.rest();
        let (listing, packets) = match &self.reach {
            Reach::Http(http) => (http.list("git-receive-pack", &[refname], &mut note)?, None),
            Reach::Program(program) => {
                let mut packets = Packets::new(self.connect(&program.endpoint, "receive-pack", false)?);
                let greeting = refs::read_greeting(&mut packets, &[refname], &mut note);
                (greeting.map_err(|bad| self.hung_up(bad, packets.stream_mut()))?, Some(packets))
            }
        };
        let Greeting::Listing(listing) = listing else {
            return Err(self.no_list());
        };
        Ok(Receiver { session: self, refname: refname.to_owned(), listing, theirs, packets })
    }

    /// Ends the conversation with a program that is waiting for more, as before a job that takes its time.
    pub fn rest(&self) {
        if let Reach::Program(program) = &self.reach
            && let Some(talk) = program.open.borrow_mut().take()
        {
            farewell(talk);
        }
    }

    /// The error for a conversation that did not go on as it should.
    fn hung_up(&self, bad: Bad, connection: &mut Connection) -> Error {
        match bad {
            Bad::Io(error) => Error::within(&error).unwrap_or_else(|| {
                Error::new(Kind::Unreachable, format!("talking to {}: {error}", self.shown), answers::AGAIN)
            }),
            Bad::Refused(words) => answers::server_said(&self.shown, &words),
            Bad::Malformed(_) => connection.hung_up(),
        }
    }

    fn no_list(&self) -> Error {
        let what = format!("{} answered a push in protocol v2, which knows none", self.shown);
        Error::new(Kind::Unreachable, what, answers::AGAIN)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.meter.done();
        self.rest();
    }
}

/// Says that nothing more is wanted, without which a git daemon would log a fault.
fn farewell(mut talk: Talk) {
    let connection = talk.packets.stream_mut();
    let _ = connection.send(b"0000");
    connection.close_input();
}

/// Why no conversation began.
struct NotBegun {
    error: Error,
    /// The other side was reached, and went.
    hung_up: bool,
}

/// How many of the remote's commits that are here count for what need not be sent.
const MOST_THEIRS: usize = 256;

fn fetch_by(
    channel: &mut dyn Channel,
    listing: Option<&Listing>,
    wanted: &Wanted<'_>,
    haves: &mut dyn Haves,
    pack: &mut dyn Write,
) -> Result<Boundary, Bad> {
    let Some(listing) = listing else { return fetch::v2(channel, wanted, haves, pack) };
    let mut boundary = fetch::v0(channel, &listing.capabilities, wanted, haves, pack)?;
    if wanted.depth.is_none() {
        boundary.shallow.extend(&listing.shallow);
    }
    Ok(boundary)
}

/// Each request is a POST.
struct HttpChannel<'h> {
    http: &'h Http,
    v2: bool,
    answer: Option<http::Incoming>,
}

impl Channel for HttpChannel<'_> {
    fn ask(&mut self, request: &[u8]) -> Result<Packets<&mut dyn Read>, Bad> {
        // Its connection is free for this request then.
        self.answer = None;
        let answer = self.http.upload_pack(self.v2, request).map_err(io::Error::other)?;
        Ok(Packets::new(self.answer.insert(answer)))
    }

    fn is_stateless(&self) -> bool {
        true
    }
}

struct ProgramChannel<'c>(&'c mut Connection);

impl Channel for ProgramChannel<'_> {
    fn ask(&mut self, request: &[u8]) -> Result<Packets<&mut dyn Read>, Bad> {
        self.0.write_all(request)?;
        Ok(Packets::new(self.0))
    }

    fn is_stateless(&self) -> bool {
        false
    }
}

/// A push that has begun: the server has said what it has.
#[derive(Debug)]
pub struct Receiver<'s> {
    session: &'s Session,
    refname: String,
    listing: Listing,
    /// Commits that both sides have.
    pub theirs: Vec<Oid>,
    packets: Option<Packets<Connection>>,
}

impl Receiver<'_> {
    /// The reference's commit on the remote, as the server has just said.
    pub fn tip(&self) -> Option<Oid> {
        self.listing.tip(&self.refname)
    }

    /// Returns whether the pack may have deltas against objects that only the remote has.
    pub fn takes_thin(&self) -> bool {
        !self.listing.capabilities.has("no-thin")
    }

    /// Sends the pack. The server moves the reference from [`Receiver::tip`] to `new`, or refuses.
    ///
    /// # Errors
    /// Whatever kept the server from reporting. It may have moved the reference.
    pub fn send(mut self, new: Oid, pack: &Spool) -> Result<Report, Error> {
        let session = self.session;
        let update = Update { refname: &self.refname, old: self.tip(), new };
        let command = push::command(&update, &self.listing.capabilities);
        let report = match (&session.reach, &mut self.packets) {
            (Reach::Program(_), Some(packets)) => {
                let sent = self::send(packets.stream_mut(), &command, pack).map_err(Bad::from);
                let read = |()| push::read_report(packets, &self.listing.capabilities, &self.refname);
                sent.and_then(read).map_err(|bad| session.hung_up(bad, packets.stream_mut()))
            }
            (Reach::Http(http), _) => {
                let answer = http.receive_pack(&command, pack)?;
                let mut packets = Packets::new(answer);
                let report = push::read_report(&mut packets, &self.listing.capabilities, &self.refname);
                report.map_err(|bad| http.bad(bad, &session.shown))
            }
            (Reach::Program(_), None) => Err(session.no_list()),
        };
        session.meter.done();
        report
    }
}

fn send(connection: &mut Connection, command: &[u8], pack: &Spool) -> io::Result<()> {
    connection.write_all(command)?;
    let (mut reader, mut some) = (pack.reader(), vec![0; 64 << 10]);
    loop {
        match reader.read(&mut some)? {
            0 => return Ok(()),
            n => connection.write_all(some.get(..n).unwrap_or_default())?,
        }
    }
}

/// The sessions of a pass. One is used again for the same URL and configuration, with what it has learned.
#[derive(Debug, Default)]
pub struct Sessions(RefCell<Vec<(Key, Rc<Session>)>>);

#[derive(Debug, PartialEq, Eq)]
struct Key {
    url: String,
    config: GitConfig,
    token_host: TokenHost,
    url_secret: Option<(String, String)>,
}

impl Sessions {
    /// The session for a URL, with the deadline of `options`.
    ///
    /// # Errors
    /// As for [`Session::open`].
    pub fn open(&self, url: &str, config: &git2::Config, options: &Options) -> Result<Rc<Session>, Error> {
        let config = read_config(config, options)?;
        let (token_host, url_secret) = (options.token_host.clone(), options.url_secret.clone());
        let key = Key { url: url.to_owned(), config, token_host, url_secret };
        let mut sessions = self.0.borrow_mut();
        if let Some((_, session)) = sessions.iter().find(|(have, _)| *have == key) {
            session.move_deadline(options.deadline);
            return Ok(session.clone());
        }
        let session = Rc::new(Session::with(url, &key.config, options.clone())?);
        sessions.push((key, session.clone()));
        Ok(session)
    }
}

impl Session {
    fn move_deadline(&self, deadline: Instant) {
        self.limits.move_deadline(deadline);
    }
}

fn read_config(config: &git2::Config, options: &Options) -> Result<GitConfig, Error> {
    if let Some(fault) = &options.env.config.fault {
        return Err(Error::new(
            Kind::Refused,
            format!("the configuration in GIT_CONFIG_COUNT can't be used: {fault}"),
            "set GIT_CONFIG_COUNT to how many pairs of GIT_CONFIG_KEY_<n> and GIT_CONFIG_VALUE_<n> there are, from 0 on",
        ));
    }
    Ok(GitConfig::read(config, &options.env.config.entries))
}
