//! Smart HTTP on loopback over `git http-backend`, with or without TLS, with the faults that servers and networks have.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::{Upstream, isolated};

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// The connection it came over, counted from 0.
    pub connection: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The target from its path on: a proxy is asked for a whole URL.
    fn local(&self) -> &str {
        match self.target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => &self.target,
        }
    }

    /// Whether it asks for a pack, in any version of the protocol: a question for the tip of a branch is shorter.
    pub fn is_fetch(&self) -> bool {
        self.short() == "POST git-upload-pack"
            && self
                .header("content-length")
                .and_then(|length| length.parse().ok())
                .is_some_and(|length: u64| length > 110)
    }

    /// `GET info/refs git-upload-pack`, `POST git-receive-pack`, …
    pub fn short(&self) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let below = if path.ends_with("/info/refs") { "info/refs" } else { path.rsplit('/').next().unwrap() };
        format!("{} {below} {}", self.method, query.trim_start_matches("service=")).trim().to_owned()
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, these headers, this body, and nothing of git.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// To the same path below another URL.
    Redirect(u16, String),
    /// Takes the request and says nothing.
    StallBefore,
    /// So much of the body, then nothing.
    StallAfter(usize),
    /// A byte at a time, with this pause between.
    Drip(Duration),
    /// A byte at a time until this is true, and then the rest at once.
    DripUntil(Arc<AtomicBool>),
    /// So much of the body, then the connection is cut.
    CutAfter(usize),
    /// git does what was asked, and the connection is cut before the answer.
    AnswerLost,
    /// Closes the connection without a byte.
    HangUp,
    /// Ignores `Git-Protocol`, as servers before v2 did.
    OldProtocol,
    /// All of the body, and its end only when this is true.
    EndsWhen(Arc<AtomicBool>),
    /// Takes the head of the request and reads none of its body.
    Deaf,
    /// git's answer, compressed, to whoever says that they understand that.
    Gzip,
    /// Changes git's answer.
    Rewrite(fn(Vec<u8>) -> Vec<u8>),
}

impl Fault {
    pub fn status(status: u16) -> Fault {
        Fault::Answer(status, Vec::new(), Vec::new())
    }

    pub fn unauthorized() -> Fault {
        Fault::Answer(401, vec![("WWW-Authenticate", "Basic realm=\"git\"".to_owned())], Vec::new())
    }
}

type Rule = Box<dyn Fn(&Seen, usize) -> Option<Fault> + Send + Sync>;

struct Shared {
    root: PathBuf,
    /// Serve by `git upload-pack` and `git receive-pack` themselves.
    lean: bool,
    seen: Mutex<Vec<Seen>>,
    rule: Mutex<Rule>,
    wanted: Mutex<Option<String>>,
    /// What git's own programs behind it get besides.
    env: Mutex<Vec<(String, String)>>,
    over: AtomicBool,
    /// How many connections are being served.
    busy: AtomicUsize,
    /// All that ever came in, to be searched for secrets.
    bytes: Mutex<Vec<u8>>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

pub struct HttpServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped with the server: whoever waits on the other end goes on.
    _alive: Sender<()>,
    /// The authority's certificate, if there is TLS.
    pub authority: Option<tempfile::NamedTempFile>,
}

impl HttpServer {
    pub fn plain(upstream: &Upstream) -> HttpServer {
        HttpServer::plain_at(upstream, "127.0.0.1")
    }

    /// At another of this machine's own addresses.
    pub fn plain_at(upstream: &Upstream, ip: &str) -> HttpServer {
        HttpServer::start(upstream.root(), ip, None, false)
    }

    pub fn tls_at(upstream: &Upstream, ip: &str) -> HttpServer {
        HttpServer::start(upstream.root(), ip, Some(&[ip]), false)
    }

    /// With a certificate for 127.0.0.1 and localhost from an authority made for the occasion.
    pub fn tls(upstream: &Upstream) -> HttpServer {
        HttpServer::tls_for(upstream, &["127.0.0.1", "localhost"])
    }

    /// Over a folder that holds `upstream.git` or the like; `secure`: with TLS.
    pub fn over(root: &Path, secure: bool) -> HttpServer {
        HttpServer::start(root, "127.0.0.1", secure.then_some(&["127.0.0.1", "localhost"]), false)
    }

    /// One that costs as little as a server over git can: `git upload-pack --stateless-rpc` and `git receive-pack
    /// --stateless-rpc` themselves, as forges do it, without a `git http-backend` before them.
    pub fn lean(root: &Path, secure: bool) -> HttpServer {
        HttpServer::start(root, "127.0.0.1", secure.then_some(&["127.0.0.1", "localhost"]), true)
    }

    pub fn tls_for(upstream: &Upstream, names: &[&str]) -> HttpServer {
        HttpServer::start(upstream.root(), "127.0.0.1", Some(names), false)
    }

    fn start(root: &Path, ip: &str, names: Option<&[&str]>, lean: bool) -> HttpServer {
        HttpServer::serve(root, ip, names.map(certificates), lean)
    }

    /// One that lets nobody in without a certificate.
    pub fn tls_for_clients(upstream: &Upstream) -> (HttpServer, ClientFiles) {
        let (authority, tls, files) = certificates_for_clients(&["127.0.0.1", "localhost"]);
        (HttpServer::serve(upstream.root(), "127.0.0.1", Some((authority, tls)), false), files)
    }

    fn serve(
        root: &Path,
        ip: &str,
        tls: Option<(tempfile::NamedTempFile, Arc<rustls::ServerConfig>)>,
        lean: bool,
    ) -> HttpServer {
        let (authority, tls) = tls.unzip();
        let ip: std::net::IpAddr = ip.parse().unwrap();
        assert!(ip.is_loopback());
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            lean,
            seen: Mutex::default(),
            rule: Mutex::new(Box::new(|_, _| None)),
            wanted: Mutex::default(),
            env: Mutex::default(),
            over: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            bytes: Mutex::default(),
            tls,
        });
        let (alive, ended) = channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let server = shared.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if server.over.load(Ordering::SeqCst) {
                    return;
                }
                let (server, ended) = (server.clone(), ended.clone());
                server.busy.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = serve(&server, stream.unwrap(), number, &ended);
                    server.busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        HttpServer { address, shared, _alive: alive, authority }
    }

    pub fn url(&self) -> String {
        format!("{}/repo.git", self.origin())
    }

    pub fn origin(&self) -> String {
        format!("{}://{}", if self.shared.tls.is_some() { "https" } else { "http" }, self.address)
    }

    pub fn authority_path(&self) -> String {
        self.authority.as_ref().unwrap().path().display().to_string()
    }

    /// From now on, what goes wrong; the number is that of the request, from 0.
    pub fn when(&self, rule: impl Fn(&Seen, usize) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// From now on, every request goes wrong like this.
    pub fn always(&self, fault: Fault) {
        self.when(move |_, _| Some(fault.clone()));
    }

    /// From now on, requests of this kind ([`Seen::short`]) go wrong like this.
    pub fn on(&self, short: &'static str, fault: Fault) {
        self.when(move |seen, _| (seen.short() == short).then(|| fault.clone()));
    }

    /// From now on, nobody gets in without this user and secret.
    pub fn wants(&self, user: &str, secret: &str) {
        *self.shared.wanted.lock().unwrap() = Some(format!("Basic {}", base64(&format!("{user}:{secret}"))));
    }

    /// From now on, git's own programs behind it have this in their environment.
    pub fn env(&self, name: &str, value: &str) {
        self.shared.env.lock().unwrap().push((name.into(), value.into()));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The requests so far, each in short.
    pub fn log(&self) -> Vec<String> {
        self.seen().iter().map(Seen::short).collect()
    }

    /// Whether every connection has ended, and git behind it.
    pub fn is_idle(&self) -> bool {
        self.shared.busy.load(Ordering::SeqCst) == 0
    }

    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// Did this text come in, plainly or as base64, in any request?
    pub fn heard(&self, text: &str) -> bool {
        let bytes = self.shared.bytes.lock().unwrap();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|w| w == needle.as_bytes());
        holds(text) || self.seen().iter().any(|s| s.header("authorization").is_some_and(|a| decoded(a).contains(text)))
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // So that the listener looks up, and goes.
        let _ = TcpStream::connect(self.address);
    }
}

fn decoded(authorization: &str) -> String {
    let coded = authorization.rsplit(' ').next().unwrap();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = coded
        .bytes()
        .filter_map(|b| digits.iter().position(|&d| d == b))
        .flat_map(|v| (0..6).rev().map(move |i| (v >> i & 1) as u8))
        .collect();
    let bytes = bits.chunks_exact(8).map(|c| c.iter().fold(0, |n, b| n << 1 | b)).collect();
    String::from_utf8(bytes).unwrap_or_default()
}

pub fn base64(text: &str) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let n = (0..3).fold(0u32, |n, i| n << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for i in 0..4 {
            out.push(if i <= chunk.len() { char::from(digits[(n >> (18 - 6 * i)) as usize & 63]) } else { '=' });
        }
    }
    out
}

/// What a client of [`HttpServer::tls_for_clients`] has: files in PEM form, in one folder.
pub struct ClientFiles {
    folder: tempfile::TempDir,
}

impl ClientFiles {
    /// `cert.pem`, `key.pem`, or both in `both.pem`; of a stranger, `other-cert.pem` and `other-key.pem`.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// A server's certificates, and a client's that are signed by the same authority.
fn certificates_for_clients(names: &[&str]) -> (tempfile::NamedTempFile, Arc<rustls::ServerConfig>, ClientFiles) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority for clients");
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(vec!["client".to_owned()]).unwrap();
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = client.clone().signed_by(&key, &issuer).unwrap();
    write("cert.pem", cert.pem());
    write("key.pem", key.serialize_pem());
    write("both.pem", cert.pem() + &key.serialize_pem());
    let other = KeyPair::generate().unwrap();
    write("other-cert.pem", client.self_signed(&other).unwrap().pem());
    write("other-key.pem", other.serialize_pem());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (file, chain, key) = server_certificate(names);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    (file, Arc::new(config), ClientFiles { folder })
}

fn certificates(names: &[&str]) -> (tempfile::NamedTempFile, Arc<rustls::ServerConfig>) {
    let (file, chain, key) = server_certificate(names);
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (file, Arc::new(config))
}

type ServerCertificate = (
    tempfile::NamedTempFile,
    Vec<rustls::pki_types::CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
);

/// The authority's certificate, and what a server shows.
fn server_certificate(names: &[&str]) -> ServerCertificate {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // By default both would have the same name, and OpenSSL would take the server's for its own issuer.
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority for a test");
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    (file, vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
}

trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

/// One connection; ends with it.
fn serve(server: &Shared, stream: TcpStream, number: usize, ended: &Mutex<Receiver<()>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream: Box<dyn Both> = match &server.tls {
        None => Box::new(stream),
        Some(config) => {
            let connection = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Box::new(rustls::StreamOwned::new(connection, stream))
        }
    };
    let mut stream = BufReader::new(stream);
    loop {
        let Some(seen) = read_head(&mut stream, server, number)? else { return Ok(()) };
        let count = {
            let mut all = server.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let mut fault = (server.rule.lock().unwrap())(&seen, count);
        let wanted = server.wanted.lock().unwrap().clone();
        if fault.is_none() && wanted.is_some_and(|w| seen.header("authorization") != Some(&w)) {
            fault = Some(Fault::unauthorized());
        }
        match fault {
            Some(Fault::HangUp) => return Ok(()),
            Some(Fault::Deaf) => {
                // Until this server ends.
                let _ = ended.lock().unwrap().recv();
                return Ok(());
            }
            Some(Fault::StallBefore) => {
                read_body(&mut stream, &seen, server, &mut io::sink())?;
                // Until the client has had enough.
                let _ = stream.read(&mut [0]);
                return Ok(());
            }
            Some(Fault::Answer(status, headers, body)) => {
                read_body(&mut stream, &seen, server, &mut io::sink())?;
                let mut head = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                stream.get_mut().write_all(head.as_bytes())?;
                stream.get_mut().write_all(&body)?;
                stream.get_mut().flush()?;
            }
            Some(Fault::Redirect(status, base)) => {
                read_body(&mut stream, &seen, server, &mut io::sink())?;
                let head = format!(
                    "HTTP/1.1 {status} Elsewhere\r\nLocation: {base}{}\r\nContent-Length: 0\r\n\r\n",
                    seen.target
                );
                stream.get_mut().write_all(head.as_bytes())?;
                stream.get_mut().flush()?;
            }
            // As a proxy that is itself where it connects to.
            None if seen.method == "CONNECT" => raw(stream.get_mut(), b"HTTP/1.1 200 Connected\r\n\r\n")?,
            None if server.lean => lean(server, &mut stream, &seen)?,
            fault => backend(server, &mut stream, &seen, fault, ended)?,
        }
    }
}

fn read_head(stream: &mut impl BufRead, server: &Shared, connection: usize) -> io::Result<Option<Seen>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        server.bytes.lock().unwrap().extend_from_slice(&line);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let headers =
        lines[1..].iter().filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Ok(Some(Seen { method, target, headers, connection }))
}

fn read_body(stream: &mut impl BufRead, seen: &Seen, server: &Shared, to: &mut dyn Write) -> io::Result<()> {
    // The beginning is enough to look for secrets in.
    let mut copy = |bytes: &[u8]| {
        let mut all = server.bytes.lock().unwrap();
        if all.len() < 4 << 20 {
            all.extend_from_slice(bytes);
        }
        drop(all);
        // git may have gone, which is its business.
        let _ = to.write_all(bytes);
    };
    let mut part = |stream: &mut dyn BufRead, mut length: usize| -> io::Result<()> {
        while length > 0 {
            let mut some = vec![0; length.min(64 << 10)];
            stream.read_exact(&mut some)?;
            copy(&some);
            length -= some.len();
        }
        Ok(())
    };
    if seen.header("transfer-encoding").is_some_and(|t| t.contains("chunked")) {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            part(stream, length)?;
            stream.read_line(&mut line)?;
            if length == 0 {
                return Ok(());
            }
        }
    }
    let length = seen.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    part(stream, length)
}

/// A request, served by git's own program; each part of the answer is one write.
fn lean(server: &Shared, stream: &mut BufReader<Box<dyn Both>>, seen: &Seen) -> io::Result<()> {
    let asks = seen.method == "GET";
    let service = if seen.target.contains("git-receive-pack") { "receive-pack" } else { "upload-pack" };
    let path = seen.local().split(['?']).next().unwrap().trim_start_matches('/');
    let end = if asks { "/info/refs".to_owned() } else { format!("/git-{service}") };
    let repo = path.strip_suffix(&end).unwrap();
    let mut command = Command::new("git");
    isolated(&mut command).args([service, "--stateless-rpc"]);
    if asks {
        command.arg("--advertise-refs");
    }
    command.arg(server.root.join(repo)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(version) = seen.header("git-protocol") {
        command.env("GIT_PROTOCOL", version);
    }
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().unwrap();
    let mut body = Vec::new();
    if seen.header("content-encoding") == Some("gzip") {
        let mut packed = Vec::new();
        read_body(stream, seen, server, &mut packed)?;
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut body)?;
    } else if service == "receive-pack" {
        // A pack may be large. git answers after it has read all of it.
        read_body(stream, seen, server, &mut input)?;
    } else {
        read_body(stream, seen, server, &mut body)?;
    }
    let feeding = std::thread::scope(|scope| {
        // Only what a pipe does not hold needs somebody to push it.
        if body.len() <= 4096 {
            let _ = input.write_all(&body);
            drop(input);
        } else {
            scope.spawn(|| {
                let mut input = input;
                let _ = input.write_all(&body);
            });
        }
        let kind = if asks { "advertisement" } else { "result" };
        let mut out = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-{service}-{kind}\r\nCache-Control: no-cache\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        if asks && seen.header("git-protocol") != Some("version=2") {
            let line = format!("# service=git-{service}\n");
            let all = format!("{:04x}{line}0000", line.len() + 4);
            out.extend_from_slice(format!("{:x}\r\n{all}\r\n", all.len()).as_bytes());
        }
        let mut output = child.stdout.take().unwrap();
        let mut some = vec![0; 64 << 10];
        loop {
            let n = output.read(&mut some)?;
            if n > 0 {
                out.extend_from_slice(format!("{n:x}\r\n").as_bytes());
                out.extend_from_slice(&some[..n]);
                out.extend_from_slice(b"\r\n");
            } else {
                out.extend_from_slice(b"0\r\n\r\n");
            }
            raw(stream.get_mut(), &out)?;
            out.clear();
            if n == 0 {
                return Ok(());
            }
        }
    });
    if feeding.is_err() {
        let _ = child.kill();
    }
    child.wait()?;
    feeding
}

fn backend(
    server: &Shared,
    stream: &mut BufReader<Box<dyn Both>>,
    seen: &Seen,
    fault: Option<Fault>,
    ended: &Mutex<Receiver<()>>,
) -> io::Result<()> {
    let (path, query) = seen.local().split_once('?').unwrap_or((seen.local(), ""));
    // By its own path, as web servers are set up with it: `git http-backend` would be one more process a request.
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| PathBuf::from(super::git(Path::new("/"), &["--exec-path"])).join("git-http-backend"));
    let mut command = Command::new(&*PROGRAM);
    isolated(&mut command)
        .env("GIT_PROJECT_ROOT", &server.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &seen.method)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env_remove("CONTENT_LENGTH")
        .envs(server.env.lock().unwrap().iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "HTTP_GIT_PROTOCOL"),
    ] {
        if header == "git-protocol" && matches!(fault, Some(Fault::OldProtocol)) {
            continue;
        }
        if let Some(value) = seen.header(header) {
            command.env(variable, value);
        }
    }
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().unwrap();
    let read = read_body(stream, seen, server, &mut input);
    drop(input);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    if read.is_err() {
        // It would look for the rest of a body with a length for ever. Its own child ends with its input.
        let _ = child.kill();
        let _ = io::copy(&mut output, &mut io::sink());
        let _ = child.wait();
        return read;
    }
    let mut status = "200 OK".to_owned();
    let mut head = String::new();
    loop {
        let mut line = String::new();
        output.read_line(&mut line)?;
        let line = line.trim_end();
        match line.split_once(": ") {
            Some(("Status", value)) => status = value.to_owned(),
            Some((name, value)) => head.push_str(&format!("{name}: {value}\r\n")),
            None => break,
        }
    }
    let out = stream.get_mut();
    if matches!(fault, Some(Fault::AnswerLost)) {
        io::copy(&mut output, &mut io::sink())?;
        child.wait()?;
        return Err(io::Error::other("cut"));
    }
    let head = format!("HTTP/1.1 {status}\r\n{head}Transfer-Encoding: chunked\r\n\r\n");
    let mut some = [0; 32 << 10];
    match fault {
        Some(Fault::StallAfter(most) | Fault::CutAfter(most)) => {
            let mut begun = vec![0; most];
            let mut have = 0;
            while have < most {
                match output.read(&mut begun[have..])? {
                    0 => break,
                    n => have += n,
                }
            }
            raw(out, head.as_bytes())?;
            let framed = format!("{:x}\r\n", have + 1000);
            raw(out, framed.as_bytes())?;
            raw(out, &begun[..have])?;
            let _ = child.kill();
            let _ = child.wait();
            if matches!(fault, Some(Fault::StallAfter(_))) {
                let _ = stream.read(&mut [0]);
            }
            return Err(io::Error::other("cut"));
        }
        Some(Fault::Drip(pause)) => {
            raw(out, head.as_bytes())?;
            while output.read(&mut some[..1])? == 1 {
                raw(out, b"1\r\n")?;
                raw(out, &some[..1])?;
                raw(out, b"\r\n")?;
                if ended.lock().unwrap().recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        }
        Some(Fault::DripUntil(enough)) => {
            raw(out, head.as_bytes())?;
            loop {
                let size = if enough.load(Ordering::SeqCst) { some.len() } else { 1 };
                let n = output.read(&mut some[..size])?;
                if n == 0 {
                    break;
                }
                raw(out, &[format!("{n:x}\r\n").as_bytes(), &some[..n], b"\r\n"].concat())?;
                let pause = if size == 1 { Duration::from_millis(10) } else { Duration::ZERO };
                if ended.lock().unwrap().recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        }
        Some(fault @ (Fault::Rewrite(_) | Fault::Gzip)) => {
            let mut all = Vec::new();
            output.read_to_end(&mut all)?;
            let understood = seen.header("accept-encoding").is_some_and(|a| a.contains("gzip"));
            let mut head = head;
            match fault {
                Fault::Rewrite(change) => all = change(all),
                _ if understood => {
                    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(&all)?;
                    all = encoder.finish()?;
                    head = head.replacen("\r\n", "\r\nContent-Encoding: gzip\r\n", 1);
                }
                _ => {}
            }
            raw(out, head.as_bytes())?;
            raw(out, format!("{:x}\r\n", all.len()).as_bytes())?;
            raw(out, &all)?;
            raw(out, b"\r\n")?;
        }
        fault => {
            raw(out, head.as_bytes())?;
            let mut send = |bytes: &[u8]| -> io::Result<()> {
                raw(out, format!("{:x}\r\n", bytes.len()).as_bytes())?;
                raw(out, bytes)?;
                raw(out, b"\r\n")
            };
            loop {
                match output.read(&mut some)? {
                    0 => break,
                    n => {
                        if let Err(e) = send(&some[..n]) {
                            let _ = child.kill();
                            let _ = child.wait();
                            return Err(e);
                        }
                    }
                }
            }
            if let Some(Fault::EndsWhen(now)) = fault {
                while !now.load(Ordering::SeqCst) {
                    if ended.lock().unwrap().recv_timeout(Duration::from_millis(5)) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
            }
        }
    }
    child.wait()?;
    raw(stream.get_mut(), b"0\r\n\r\n")
}

fn raw(out: &mut Box<dyn Both>, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// A proxy that connects everybody to one server, whatever was asked for.
pub struct Proxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    pub fn to(server: &HttpServer) -> Proxy {
        let target = server.address;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, ended) = (heads.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let kept = kept.clone();
                std::thread::spawn(move || -> io::Result<()> {
                    let mut stream = stream?;
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
                        head.push(byte[0]);
                    }
                    kept.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                    let mut server = TcpStream::connect(target)?;
                    if head.starts_with(b"CONNECT ") {
                        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
                    } else {
                        // The server takes a request with a whole URL, too.
                        server.write_all(&head)?;
                    }
                    let (mut back, mut to_client) = (server.try_clone()?, stream.try_clone()?);
                    std::thread::spawn(move || io::copy(&mut back, &mut to_client));
                    io::copy(&mut stream, &mut server)?;
                    server.shutdown(std::net::Shutdown::Both)
                });
            }
        });
        Proxy { address, heads, over }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked, each in full.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
