//! A pass with nothing to do, next to git's commands, to curl with the same request, and to the least that it can cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Row;
use super::against_git::{Remote, Way, thousands};
use crate::entry::{Entry, NO_OP};
use crate::place::Shape;
use crate::rivals::{Stage, Who};
use crate::scale::Scale;
use crate::servers::git;
use crate::servers::http::HttpServer;
use crate::turns::{self, Run, Runs};

pub fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for secure in [false, true] {
        for refs in [1, 100_000] {
            let n = scale.size(refs);
            let name = format!("poll-{}/{n}", if secure { "https" } else { "http" });
            rows.push(Row::new(name, move || poll(scale, secure, n)));
        }
    }
    rows
}

fn poll(scale: Scale, secure: bool, refs: usize) -> Vec<Entry> {
    let remote = Remote::new(Shape::site(100), Way::Http);
    let root = remote.root.path();
    let server = HttpServer::lean(root, secure);
    let mut stage = Stage::new(root, server.url());
    if secure {
        let bundle = root.join("bundle.pem");
        let mut all = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        all.extend(std::fs::read(server.authority_path()).unwrap());
        std::fs::write(&bundle, all).unwrap();
        stage.authority = Some((server.authority_path(), bundle));
    }
    let dir = remote.dir(Who::Gitsync);
    stage.starting_point(&dir);
    if refs > 1 {
        many_refs(&remote, refs);
        fetch_all(&stage, &dir);
    }
    let request = root.join("request");
    let body = gitsync::remote::protocol::refs::ls_refs_request(&["refs/heads/main"]);
    std::fs::write(&request, &body).unwrap();
    let has_curl = Command::new("curl").arg("--version").output().is_ok();
    let mut alone = Vec::new();
    let runs = turns::take(scale.rounds(40), 5, |_, who| {
        if who == 0 {
            let start = Instant::now();
            bare_post(&remote.server, &body);
            alone.push(Run { wall: start.elapsed(), ..Run::default() });
        }
        match who {
            0 => stage.poll(Who::Gitsync, &dir),
            1 => stage.poll(Who::Git, &dir),
            2 if has_curl => stage.curl(&dir, &request),
            3 => stage.ls_remote(&dir),
            _ => stage.nothing(&dir),
        }
    });
    let [ours, passes, curl, ls_remote, nothing] = &runs[..] else { unreachable!() };
    let floor = Runs(alone).wall() + nothing.wall();
    let word = if secure { "https" } else { "http" };
    let name = format!(
        "{word}, {} of the server",
        if refs == 1 { "1 reference".to_owned() } else { format!("{} references", thousands(refs)) }
    );
    let key = |rival: &str| format!("poll-{word}/{refs}-{rival}");
    let pair = |rival: &str, label: &str, runs: &Runs| Entry::pair(NO_OP, &key(rival), &name, ours, label, runs);
    let mut entries = vec![pair("git", "git fetch, git rev-parse twice", passes).wanted(scale.wanted(0.2))];
    if !secure {
        let least = Entry::figure(NO_OP, &key("floor"), &name, ours.wall(), "ms");
        entries.push(least.beside("the server's answer + starting `true`", floor).wanted(scale.wanted(1.5)));
    }
    if has_curl {
        entries.push(pair("curl", "curl, the same request", curl));
    } else {
        println!("poll: curl is missing");
    }
    entries.push(pair("ls-remote", "git ls-remote", ls_remote));
    entries
}

/// Gives the upstream so many branches more.
pub fn many_refs(remote: &Remote, count: usize) {
    let tip = git(&remote.bare(), &["rev-parse", "main"]);
    let names = (0..count).map(|i| format!("{tip} refs/heads/many/{i:07}\n"));
    let packed = std::iter::once("# pack-refs with: peeled fully-peeled sorted \n".to_owned())
        .chain([format!("{tip} refs/heads/main\n")])
        .chain(names);
    std::fs::write(remote.bare().join("packed-refs"), packed.collect::<String>()).unwrap();
}

/// A clone by git has every branch; what is measured is the pass after.
pub fn fetch_all(stage: &Stage, dir: &std::path::Path) {
    for args in [["fetch", "-q", "origin"], ["pack-refs", "--all", "--prune"]] {
        assert!(stage.command("git", dir).args(args).stdout(Stdio::null()).status().unwrap().success());
    }
}

/// The same request by nothing but a socket, in this process: what is left of a poll when asking costs nothing.
fn bare_post(server: &HttpServer, body: &[u8]) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "POST /repo.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nGit-Protocol: version=2\r\nContent-Type: \
         application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"0\r\n\r\n") {
        let mut some = [0; 4096];
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..n]);
    }
}
