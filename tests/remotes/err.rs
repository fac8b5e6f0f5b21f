//! What a server says in an `ERR` packet is shown, whenever it says it and whichever way the remote is reached.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::servers::http::{Fault, HttpServer};
use crate::servers::{CANARY, Local, Upstream, decent, open, open_with, options};
use gitsync::error::{Error, Kind};
use gitsync::remote::Session;

const MAIN: &str = "refs/heads/main";
const WORDS: &str = "Repository not found.";

fn packet(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// The words, and the secret in them masked.
#[track_caller]
fn shown(e: &Error) {
    decent(e);
    assert!(e.what.contains(WORDS) && e.what.contains("***"), "{e:?}");
    assert!(e.kind == Kind::Refused && !e.what.contains("without a word"), "{e:?}");
}

fn err() -> String {
    gitsync::remote::redact::register_secret(CANARY);
    format!("ERR {WORDS} It was {CANARY}\n")
}

fn pushes(upstream: &Upstream, session: &Session) -> Error {
    let local = Local::new();
    local.fetch(&open(&upstream.bare().display().to_string())).unwrap();
    local.commit("ours", b"ours");
    local.push(session).unwrap_err()
}

fn answer(service: &str, kind: &str, body: Vec<u8>) -> Fault {
    Fault::Answer(200, vec![("Content-Type", format!("application/x-git-{service}-{kind}"))], body)
}

#[test]
fn over_http() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    // To the question for a tip, in v2 and the old way.
    server.when(|seen, _| {
        let preamble = [packet("# service=git-upload-pack\n"), b"0000".to_vec(), packet(&err())].concat();
        Some(match seen.short().as_str() {
            "POST git-upload-pack" => answer("upload-pack", "result", packet(&err())),
            _ => answer("upload-pack", "advertisement", preamble),
        })
    });
    shown(&open(&server.url()).tip(MAIN).unwrap_err());
    // In v2 alone: a server that then answers nothing else has said why.
    for status in [401, 404, 500] {
        server.when(move |seen, _| {
            Some(match seen.short().as_str() {
                "POST git-upload-pack" => answer("upload-pack", "result", packet(&err())),
                _ => Fault::status(status),
            })
        });
        let e = open(&server.url()).tip(MAIN).unwrap_err();
        if status == 500 {
            assert!(e.kind == Kind::Unreachable && e.what.contains(WORDS) && e.what.contains("500"), "{e:?}");
        } else {
            shown(&e);
        }
    }
    // Without the preamble.
    server.when(|seen, _| {
        Some(match seen.short().as_str() {
            "POST git-upload-pack" => Fault::status(404),
            _ => answer("upload-pack", "advertisement", packet(&err())),
        })
    });
    shown(&open(&server.url()).tip(MAIN).unwrap_err());
    // To a fetch, in v2 and not.
    for old in [true, false] {
        server.when(move |seen, _| match (seen.is_fetch(), old) {
            (true, _) => Some(answer("upload-pack", "result", packet(&err()))),
            (false, old) => old.then_some(Fault::OldProtocol),
        });
        shown(&Local::new().fetch(&open(&server.url())).unwrap_err());
    }
    // To a push: its list of refs, and its report.
    for below in ["GET info/refs git-receive-pack", "POST git-receive-pack"] {
        server.when(move |seen, _| {
            let kind = if below.starts_with("GET") { "advertisement" } else { "result" };
            (seen.short() == below).then(|| answer("receive-pack", kind, packet(&err())))
        });
        shown(&pushes(&upstream, &open(&server.url())));
    }
}

/// A server that says so to whoever comes. `listens`: it hears what is asked first.
fn refuser(listens: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if listens {
                let _ = stream.read(&mut [0; 1000]);
            }
            let _ = stream.write_all(&packet(&err()));
        }
    });
    format!("git://{address}/repo.git")
}

#[test]
fn over_the_git_protocol() {
    let upstream = Upstream::new();
    for listens in [true, false] {
        let url = refuser(listens);
        // Whichever comes first, its end or our next word: many times.
        for _ in 0..20 {
            shown(&open(&url).tip(MAIN).unwrap_err());
            shown(&Local::new().fetch(&open(&url)).unwrap_err());
            shown(&pushes(&upstream, &open(&url)));
        }
    }
}

/// An ssh that does what this script says.
fn over_ssh(upstream: &Upstream, script: &str) -> Session {
    let path = upstream.root().join("ssh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    open_with("ssh://git@127.0.0.1/repo.git", options(&[("GIT_SSH", path.to_str().unwrap())]), "")
}

#[test]
fn over_ssh_at_once_and_later() {
    let upstream = Upstream::new();
    let bare = upstream.bare().display().to_string();
    let text = String::from_utf8(packet(&err())).unwrap().replace('\n', "\\n");
    let at_once = format!("printf '{text}'");
    shown(&over_ssh(&upstream, &at_once).tip(MAIN).unwrap_err());
    shown(&Local::new().fetch(&over_ssh(&upstream, &at_once)).unwrap_err());
    shown(&pushes(&upstream, &over_ssh(&upstream, &at_once)));
    // Its list of refs, and then, to what is asked.
    let later = |service: &str, hears: &str| {
        format!("unset GIT_PROTOCOL; git {service} --stateless-rpc --advertise-refs '{bare}'; {hears}; printf '{text}'")
    };
    for hears in ["true", "head -c 1 >/dev/null", "head -c 60 >/dev/null"] {
        shown(&Local::new().fetch(&over_ssh(&upstream, &later("upload-pack", hears))).unwrap_err());
        shown(&pushes(&upstream, &over_ssh(&upstream, &later("receive-pack", hears))));
    }
    // A large push is still under way.
    let session = over_ssh(&upstream, &later("receive-pack", "head -c 60 >/dev/null"));
    let local = Local::new();
    local.fetch(&open(&bare)).unwrap();
    let noise: Vec<u8> = (0..4_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    local.commit("large", &noise);
    shown(&local.push(&session).unwrap_err());
    // Of v2: to the question for a tip.
    let v2 = "printf '000eversion 2\\n0000'; head -c 4 >/dev/null";
    shown(&over_ssh(&upstream, &format!("{v2}; printf '{text}'")).tip(MAIN).unwrap_err());
}
