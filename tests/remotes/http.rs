//! Smart HTTP, against `git http-backend` on loopback.

use std::time::{Duration, Instant};

use crate::servers::http::{Fault, HttpServer};
use crate::servers::{CANARY, Local, Upstream, decent, open, open_with, options};
use gitsync::error::Kind;

const MAIN: &str = "refs/heads/main";

#[test]
fn a_poll_is_one_request() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    assert_eq!(open(&server.url()).tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(server.log(), ["POST git-upload-pack"]);
    assert_eq!(server.seen()[0].header("git-protocol"), Some("version=2"));
}

#[test]
fn a_poll_of_an_empty_repository_or_an_absent_branch_is_none() {
    let upstream = Upstream::empty();
    let server = HttpServer::plain(&upstream);
    assert_eq!(open(&server.url()).tip(MAIN).unwrap(), None);
    upstream.commit("a", "a");
    upstream.git(&["branch", "-m", "main", "main-2"]);
    assert_eq!(open(&server.url()).tip(MAIN).unwrap(), None);
}

#[test]
fn a_server_without_v2_is_asked_the_old_way_and_remembered() {
    let upstream = Upstream::new();
    for refusal in [Fault::OldProtocol, Fault::status(404), Fault::status(403), Fault::status(500)] {
        let server = HttpServer::plain(&upstream);
        server.when(move |seen, _| (seen.short() == "POST git-upload-pack").then(|| refusal.clone()));
        let session = open(&server.url());
        assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
        assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
        let get = "GET info/refs git-upload-pack";
        assert_eq!(server.log(), ["POST git-upload-pack", get, get]);
    }
    let upstream = Upstream::empty();
    let server = HttpServer::plain(&upstream);
    server.always(Fault::OldProtocol);
    assert_eq!(open(&server.url()).tip(MAIN).unwrap(), None);
}

#[test]
fn a_fetch_after_a_poll_is_two_requests_on_one_connection() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    assert_eq!(local.fetch(&session).unwrap(), upstream.tip());
    assert_eq!(server.log(), ["POST git-upload-pack", "POST git-upload-pack"]);
    assert!(server.seen().iter().all(|s| s.connection == 0), "{:?}", server.seen());
    // Again, with something in common to negotiate about.
    let next = upstream.commit("second.txt", "second\n");
    assert_eq!(local.fetch(&session).unwrap(), Some(next));
}

#[test]
fn a_fetch_from_a_server_without_v2_reads_its_list_once() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    server.always(Fault::OldProtocol);
    assert_eq!(Local::new().fetch(&open(&server.url())).unwrap(), upstream.tip());
    assert_eq!(server.log(), ["POST git-upload-pack", "GET info/refs git-upload-pack", "POST git-upload-pack"]);
}

#[test]
fn a_long_history_is_negotiated() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    local.fetch(&session).unwrap();
    // More of our own than goes into one step of the negotiation, so that several requests are made.
    for i in 0..300 {
        local.commit("ours.txt", format!("{i}").as_bytes());
    }
    // What both have is found behind those alone.
    local.repo.find_reference("refs/remotes/origin/main").unwrap().delete().unwrap();
    let theirs = upstream.commit("theirs.txt", "theirs");
    server.forget();
    assert_eq!(local.fetch(&session).unwrap(), Some(theirs));
    assert!(server.log().len() > 3, "{:?}", server.log());
    assert!(server.seen().iter().any(|s| s.header("content-encoding") == Some("gzip")), "{:?}", server.log());
}

#[test]
fn a_push_is_seen_on_the_other_side() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    local.fetch(&session).unwrap();
    let ours = local.commit("ours.txt", b"ours");
    server.forget();
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    assert_eq!(server.log(), ["GET info/refs git-receive-pack", "POST git-receive-pack"]);
    assert_eq!(upstream.git(&["fsck", "--full", "--strict"]), "");
}

#[test]
fn a_first_push_makes_the_branch() {
    let upstream = Upstream::empty();
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    let ours = local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
}

#[test]
fn a_large_push_is_streamed() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    server.wants("x-access-token", CANARY);
    let session = open_with(&server.url(), options(&[("GIT_SYNC_TOKEN", CANARY)]), "");
    let local = Local::new();
    session.tip(MAIN).unwrap();
    local.fetch(&session).unwrap();
    let mut seed = 1u64;
    let noise: Vec<u8> = (0..3 << 20)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    let ours = local.commit("large.bin", &noise);
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    let push = server.seen().pop().unwrap();
    // Some servers take no body without its length.
    assert!(push.header("transfer-encoding").is_none() && push.header("content-length").is_some(), "{push:?}");
    // And back.
    let other = Local::new();
    assert_eq!(other.fetch(&session).unwrap(), Some(ours));
}

#[test]
fn a_hook_s_refusal_is_data_even_in_latin_1() {
    let upstream = Upstream::new();
    upstream.hook("pre-receive", "printf 'zur\\374ck\\033[31m\\n' >&2; exit 1");
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    local.fetch(&session).unwrap();
    local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap().as_deref(), Some("pre-receive hook declined"));

    // A server whose refusal of the ref itself is not UTF-8.
    let upstream = Upstream::new();
    upstream.hook("update", "exit 1");
    let server = HttpServer::plain(&upstream);
    server.on(
        "POST git-receive-pack",
        Fault::Rewrite(|mut answer| {
            let at = answer.windows(4).rposition(|w| w == b"hook").unwrap();
            answer[at] = 0xff;
            answer
        }),
    );
    let session = open(&server.url());
    let local = Local::new();
    local.fetch(&session).unwrap();
    local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap().as_deref(), Some("\u{fffd}ook declined"));
}

#[test]
fn a_hundred_thousand_refs_cost_a_poll_and_a_fetch_nothing() {
    let upstream = Upstream::new();
    upstream.many_refs(100_000);
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    let local = Local::new();
    local.fetch_tip(&session, upstream.tip().unwrap()).unwrap();
    assert_eq!(server.log(), ["POST git-upload-pack", "POST git-upload-pack"]);
    // A push cannot but read them.
    let ours = local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    // Nor can a poll the old way.
    server.on("POST git-upload-pack", Fault::OldProtocol);
    assert_eq!(open(&server.url()).tip(MAIN).unwrap(), Some(ours));
}

#[test]
fn statuses_are_passing_or_lasting() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    for (status, kind) in [
        (403, Kind::Refused),
        (404, Kind::Refused),
        (410, Kind::Refused),
        (429, Kind::Unreachable),
        (500, Kind::Unreachable),
        (502, Kind::Unreachable),
        (503, Kind::Unreachable),
    ] {
        let words = format!("told\x1b[2J {status}\r\n");
        server.always(Fault::Answer(status, vec![("Content-Type", "text/plain".into())], words.into_bytes()));
        let session = open(&server.url());
        for e in [session.tip(MAIN).unwrap_err(), Local::new().fetch(&session).unwrap_err()] {
            decent(&e);
            assert_eq!(e.kind, kind, "{e:?}");
            assert!(e.what.contains(&status.to_string()) && e.what.contains("told"), "{e:?}");
        }
    }
    let later = vec![("Retry-After", "60".to_owned())];
    server.always(Fault::Answer(403, later, Vec::new()));
    assert_eq!(open(&server.url()).tip(MAIN).unwrap_err().kind, Kind::Unreachable);
    let page = vec![("Content-Type", "text/html".to_owned())];
    server.always(Fault::Answer(200, page, b"<h1>Please log in</h1>".to_vec()));
    let e = open(&server.url()).tip(MAIN).unwrap_err();
    decent(&e);
    assert!(e.kind == Kind::Refused && e.next.contains("login"), "{e:?}");
}

#[test]
fn what_is_not_there_may_come() {
    let gone = HttpServer::plain(&Upstream::new()).url();
    let e = open(&gone).tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
    let e = open("http://no-such-host.invalid/r").tip(MAIN).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
}

#[test]
fn no_server_holds_us_beyond_the_idle_time_or_the_deadline() {
    let upstream = Upstream::new();
    // More than a first read takes.
    for i in 0..200 {
        upstream.commit(&format!("file-{i}"), &format!("{i}").repeat(100));
    }
    let server = HttpServer::plain(&upstream);
    let quick = |idle: u64, deadline: u64| {
        let mut options = options(&[]);
        options.idle = Duration::from_millis(idle);
        options.deadline = Instant::now() + Duration::from_millis(deadline);
        open_with(&server.url(), options, "")
    };
    let stalls = [Fault::StallBefore, Fault::StallAfter(0), Fault::StallAfter(3), Fault::StallAfter(2000)];
    for (idle, deadline, faults) in [
        (200, 20_000, stalls.to_vec()),
        (20_000, 300, stalls.to_vec()),
        (20_000, 500, vec![Fault::Drip(Duration::from_millis(20))]),
    ] {
        for fault in faults {
            // In the poll; in the list of a server without v2; in the pack.
            for at in ["poll", "list", "pack"] {
                if at != "pack" && matches!(fault, Fault::StallAfter(2000)) {
                    continue; // They are shorter than that.
                }
                let fault_here = fault.clone();
                server.when(move |seen, _| match (at, seen.short().as_str()) {
                    ("list", "POST git-upload-pack") => Some(Fault::status(404)),
                    ("poll", _) | ("list", _) => Some(fault_here.clone()),
                    _ => seen.is_fetch().then(|| fault_here.clone()),
                });
                let session = quick(idle, deadline);
                let start = Instant::now();
                let result = Local::new().fetch(&session);
                let e = result.expect_err(&format!("{fault:?} in {at}"));
                assert!(start.elapsed() < Duration::from_secs(3), "{fault:?} in {at}: {:?}", start.elapsed());
                decent(&e);
                assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
                let why = if idle < deadline { "sent nothing for 200ms" } else { "time for the network was up" };
                assert!(e.what.contains(why), "{fault:?} in {at}: {e:?}");
            }
        }
    }
    // Nor in a push.
    let local = Local::new();
    server.when(|_, _| None);
    local.fetch(&open(&server.url())).unwrap();
    local.commit("ours.txt", b"ours");
    server.on("POST git-receive-pack", Fault::StallBefore);
    let e = local.push(&quick(200, 20_000)).unwrap_err();
    assert_eq!(e.kind, Kind::Unreachable, "{e:?}");
}

#[test]
fn no_connection_that_is_never_made_holds_us() {
    // Nobody accepts: once its queue is full, further ones are not answered.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the queue has no end");
    }
    for (idle, deadline) in [(300, 20_000), (20_000, 300)] {
        for url in [format!("http://{address}/r"), format!("https://{address}/r"), format!("git://{address}/r")] {
            let mut options = options(&[]);
            options.idle = Duration::from_millis(idle);
            options.deadline = Instant::now() + Duration::from_millis(deadline);
            let start = Instant::now();
            let e = open_with(&url, options, "").tip(MAIN).unwrap_err();
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            decent(&e);
            assert!(e.kind == Kind::Unreachable && e.what.contains(&address.to_string()), "{e:?}");
        }
    }
}

#[test]
fn no_server_that_does_not_listen_holds_a_push() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let local = Local::new();
    local.fetch(&open(&server.url())).unwrap();
    // More than the sockets' buffers hold.
    let mut seed = 1u64;
    let noise: Vec<u8> = (0..16 << 20)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    local.commit("large.bin", &noise);
    server.when(|seen, _| (seen.header("content-length").is_some_and(|l| l.len() > 6)).then_some(Fault::Deaf));
    for (idle, deadline, why) in [(500, 60_000, "sent nothing for 500ms"), (30_000, 4_000, "time for the network")] {
        let mut options = options(&[]);
        options.idle = Duration::from_millis(idle);
        options.deadline = Instant::now() + Duration::from_millis(deadline);
        let start = Instant::now();
        let e = local.push(&open_with(&server.url(), options, "")).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        decent(&e);
        assert!(e.kind == Kind::Unreachable && e.what.contains(why), "{e:?}");
    }
}

#[test]
fn a_compressed_answer_is_understood() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    server.always(Fault::Gzip);
    let session = open(&server.url());
    let local = Local::new();
    assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
    assert_eq!(local.fetch(&session).unwrap(), upstream.tip());
    let ours = local.commit("ours.txt", b"ours");
    assert_eq!(local.push(&session).unwrap(), None);
    assert_eq!(upstream.tip(), Some(ours));
    assert!(server.seen().iter().all(|s| s.header("accept-encoding") == Some("gzip")), "{:?}", server.seen());
}

#[test]
fn a_cut_connection_passes_and_leaves_nothing_half() {
    let upstream = Upstream::new();
    for i in 0..200 {
        upstream.commit(&format!("file-{i}"), &format!("{i}").repeat(100));
    }
    let server = HttpServer::plain(&upstream);
    let local = Local::new();
    for cut in [0, 1, 5, 100, 1000, 8000] {
        server.always(Fault::CutAfter(cut));
        let session = open(&server.url());
        if cut < 50 {
            let e = session.tip(MAIN).unwrap_err();
            decent(&e);
            assert_eq!(e.kind, Kind::Unreachable, "{cut}: {e:?}");
        }
        let e = local.fetch(&session).unwrap_err();
        decent(&e);
        assert_eq!(e.kind, Kind::Unreachable, "{cut}: {e:?}");
    }
    server.always(Fault::HangUp);
    assert_eq!(open(&server.url()).tip(MAIN).unwrap_err().kind, Kind::Unreachable);
    server.when(|_, _| None);
    assert_eq!(local.fetch(&open(&server.url())).unwrap(), upstream.tip());
}

#[test]
fn an_answer_lost_after_the_push_is_an_error_though_the_push_is_in() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    local.fetch(&session).unwrap();
    let ours = local.commit("ours.txt", b"ours");
    server.on("POST git-receive-pack", Fault::AnswerLost);
    let e = local.push(&session).unwrap_err();
    decent(&e);
    assert_eq!(e.kind, Kind::Unreachable);
    server.when(|_, _| None);
    assert_eq!(session.tip(MAIN).unwrap(), Some(ours));
}

#[test]
fn the_connection_is_kept_through_a_whole_pass() {
    let upstream = Upstream::new();
    let server = HttpServer::plain(&upstream);
    let session = open(&server.url());
    let local = Local::new();
    session.tip(MAIN).unwrap();
    local.fetch(&session).unwrap();
    local.commit("ours.txt", b"ours");
    local.push(&session).unwrap();
    session.tip(MAIN).unwrap();
    assert!(server.seen().iter().all(|s| s.connection == 0), "{:?}", server.seen());
}

#[test]
fn a_branch_whose_name_is_no_utf_8_does_no_harm() {
    let upstream = Upstream::new();
    upstream.odd_ref();
    let server = HttpServer::plain(&upstream);
    let path = upstream.bare().display().to_string();
    server.on("POST git-upload-pack", Fault::OldProtocol);
    for url in [server.url(), path] {
        for ask_first in [true, false] {
            let session = open(&url);
            if ask_first {
                assert_eq!(session.tip(MAIN).unwrap(), upstream.tip());
            }
            let local = Local::new();
            assert_eq!(local.fetch(&session).unwrap(), upstream.tip());
            let ours = local.commit("ours.txt", format!("{url}{ask_first}").as_bytes());
            assert_eq!(local.push(&session).unwrap(), None);
            assert_eq!(upstream.tip(), Some(ours));
        }
    }
}
