//! What a pass with nothing to do costs, next to what it replaces. `cargo bench --bench poll`; results in
//! docs/performance.md.
//!
//! The contenders run in turns against one server on loopback (`git upload-pack --stateless-rpc` behind the tests' own HTTP
//! server, as forges run it), so that a ratio within one run means something though the machine's speed may not. What
//! the server takes is in every number, so it is made to take little. Times are of whole processes, medians in milliseconds.
//!
//! `cargo bench --bench poll -- 100` sets the number of rounds; `-- transfer` measures the memory of large transfers instead;
//! `-- serve` keeps a server up, to profile against.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/servers/mod.rs"]
mod servers;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use servers::http::HttpServer;
use servers::{Upstream, isolated};

const GITSYNC: &str = env!("CARGO_BIN_EXE_gitsync");

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if args.iter().any(|a| a == "transfer") {
        transfer();
        return;
    }
    if args.iter().any(|a| a == "serve") {
        let upstream = Upstream::new();
        let servers = [false, true].map(|secure| HttpServer::lean(upstream.root(), secure));
        println!("{}\n{}\nSSL_CERT_FILE={}", servers[0].url(), servers[1].url(), servers[1].authority_path());
        std::thread::park();
    }
    let rounds = args.iter().find_map(|a| a.parse().ok()).unwrap_or(60);
    println!(
        "| | refs | gitsync sync | curl, same POST | git ls-remote | git fetch + rev-parse | the server alone | of curl | of the seed's pass | peak memory |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for secure in [false, true] {
        for refs in [1, 100_000] {
            poll(secure, refs, rounds);
        }
    }
    let size = std::fs::metadata(GITSYNC).unwrap().len();
    println!("\nThe binary: {:.1} MB.", size as f64 / 1e6);
}

fn poll(secure: bool, refs: usize, rounds: usize) {
    let upstream = Upstream::new();
    let server = HttpServer::lean(upstream.root(), secure);
    let ours = upstream.root().join("ours");
    std::fs::create_dir(&ours).unwrap();
    let bundle = upstream.root().join("bundle.pem");
    let mut authority = String::new();
    if secure {
        // curl and git take one file instead of the system's; so that all read the same, it holds the system's too.
        authority = server.authority_path();
        let mut all = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        all.extend(std::fs::read(&authority).unwrap());
        std::fs::write(&bundle, all).unwrap();
    }
    let ready = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        isolated(command.args(args).current_dir(&ours));
        command.env("HOME", upstream.home()).env("GIT_TERMINAL_PROMPT", "0").env("GIT_SYNC_REPO", &ours);
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE"] {
            command.env_remove(name);
        }
        if secure {
            command.env("SSL_CERT_FILE", &authority).env("GIT_SSL_CAINFO", &bundle).env("CURL_CA_BUNDLE", &bundle);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let cloned = ready(GITSYNC, &["init-sync", "--remote-url", &server.url()]).status().unwrap();
    assert!(cloned.success());
    if refs > 1 {
        upstream.many_refs(refs);
        // The seed's first fetch takes them all in; what is measured is the one after.
        assert!(ready("git", &["fetch", "-q", "origin"]).status().unwrap().success());
        assert!(ready("git", &["pack-refs", "--all"]).status().unwrap().success());
    }
    let request = upstream.root().join("request");
    std::fs::write(&request, gitsync::remote::protocol::refs::ls_refs_request(&["refs/heads/main"])).unwrap();
    let post = format!("{}/git-upload-pack", server.url());
    let body = format!("@{}", request.display());
    let curl = [
        "-sS",
        "-f",
        "-o",
        "/dev/null",
        "-H",
        "Git-Protocol: version=2",
        "-H",
        "Content-Type: application/x-git-upload-pack-request",
        "--data-binary",
        &body,
        &post,
    ];
    let seed = "git fetch -q origin main && git rev-parse main origin/main";
    let contenders: [(&str, Vec<&str>); 4] = [
        (GITSYNC, vec!["sync"]),
        ("curl", curl.to_vec()),
        ("git", vec!["ls-remote", "-q", "origin", "refs/heads/main"]),
        ("sh", vec!["-c", seed]),
    ];
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut server_times = Vec::new();
    let plain = HttpServer::lean(upstream.root(), false);
    let bytes = std::fs::read(&request).unwrap();
    for _ in 0..rounds {
        let start = Instant::now();
        bare_post(&plain, &bytes);
        server_times.push(start.elapsed());
        for (of, (program, args)) in times.iter_mut().zip(&contenders) {
            let mut command = ready(program, args);
            let start = Instant::now();
            let status = command.status().unwrap();
            of.push(start.elapsed());
            assert!(status.success(), "{program} {args:?}: {status}");
        }
    }
    let [ours_ms, curl_ms, ls_ms, seed_ms] = times.map(median);
    println!(
        "| {} | {refs} | {ours_ms:.1} | {curl_ms:.1} | {ls_ms:.1} | {seed_ms:.1} | {:.1} | {:.2} | {:.2} | {} |",
        if secure { "https" } else { "http" },
        median(server_times),
        ours_ms / curl_ms,
        ours_ms / seed_ms,
        memory(&mut ready(GITSYNC, &["sync"]))
    );
}

/// The same POST by nothing but a socket, in this process: what is left of a poll when the asking costs nothing.
fn bare_post(server: &HttpServer, body: &[u8]) {
    let mut stream = TcpStream::connect(server.address).unwrap();
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

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The peak of a run's resident memory, by GNU time.
fn memory(command: &mut Command) -> String {
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    timed.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let Ok(output) = timed.output() else { return "(no GNU time)".to_owned() };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match said.lines().last().and_then(|line| line.trim().parse::<f64>().ok()) {
        Some(kilobytes) if output.status.success() => format!("{:.1} MB", kilobytes / 1024.0),
        _ => format!("failed: {said}"),
    }
}

/// 200 MB that do not compress, in files of 1 MB, there and back.
fn transfer() {
    println!("| | push of 200 MB | git's | fetch of 200 MB | git's |\n|---|---:|---:|---:|---:|");
    for way in ["http", "https", "path"] {
        let upstream = Upstream::new();
        let server = HttpServer::lean(upstream.root(), way == "https");
        let url = if way == "path" { upstream.bare().display().to_string() } else { server.url() };
        let ready = |repo: &Path, args: &[&str]| {
            std::fs::create_dir_all(repo).unwrap();
            let mut command = Command::new(GITSYNC);
            isolated(command.args(args).current_dir(repo));
            command.env("HOME", upstream.home()).env("GIT_SYNC_REPO", repo);
            if way == "https" {
                command.env("SSL_CERT_FILE", server.authority_path());
            }
            command
        };
        let (ours, theirs) = (upstream.root().join("ours"), upstream.root().join("theirs"));
        assert!(ready(&ours, &["init-sync", "--remote-url", &url]).output().unwrap().status.success());
        let job =
            "mkdir -p state; i=0; while [ $i -lt 200 ]; do head -c 1000000 /dev/urandom >state/$i; i=$((i+1)); done";
        // Committed by a tick whose push fails, so that the push alone is what the next one does.
        upstream.hook("pre-receive", "exit 1");
        let _ = ready(&ours, &["tick", "--", "sh", "-c", job]).output().unwrap();
        std::fs::remove_file(upstream.bare().join("hooks/pre-receive")).unwrap();
        let start = Instant::now();
        let push = memory(&mut ready(&ours, &["tick", "--", "true"]));
        let push_time = start.elapsed();
        let start = Instant::now();
        let fetch = memory(&mut ready(&theirs, &["init-sync", "--remote-url", &url]));
        let fetch_time = start.elapsed();
        // The same by git, from what gitsync committed.
        upstream.git(&["update-ref", "refs/heads/main", "main~1"]);
        upstream.git(&["gc", "--quiet", "--prune=now"]);
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            isolated(command.args(args).current_dir(&ours)).env("HOME", upstream.home());
            if way == "https" {
                command.env("GIT_SSL_CAINFO", server.authority_path());
            }
            let start = Instant::now();
            assert!(command.output().unwrap().status.success(), "git {args:?}");
            start.elapsed()
        };
        let git_push = git(&["push", "-q", &url, "HEAD:refs/heads/main"]);
        let url = if way == "path" { format!("file://{url}") } else { url };
        let git_fetch = git(&["clone", "-q", &url, upstream.root().join("git's").to_str().unwrap()]);
        let [push_time, git_push, fetch_time, git_fetch] =
            [push_time, git_push, fetch_time, git_fetch].map(|time| format!("{:.1} s", time.as_secs_f64()));
        println!("| {way} | {push}, {push_time} | {git_push} | {fetch}, {fetch_time} | {git_fetch} |");
    }
}
