//! The built program against remotes that misbehave: what it answers, how many requests it makes, and that no secret
//! is anywhere afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::scene::Scene;
use crate::servers::CANARY;
use crate::servers::http::{Fault, HttpServer};
use needs::needs;

const POLL: &str = "POST git-upload-pack";

/// A scene whose upstream is behind a server, and an instance of ours that has cloned it.
fn served(secure: bool) -> (Scene, HttpServer) {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), secure);
    if secure {
        scene.env("SSL_CERT_FILE", &server.authority_path());
    }
    std::fs::create_dir(scene.ours()).unwrap();
    scene.run(&["init-sync", "--remote-url", &url(&server)]).exits(0).says("cloned");
    server.forget();
    (scene, server)
}

/// The same with a server that lets nobody in without the token.
fn guarded(secure: bool) -> (Scene, HttpServer) {
    let (scene, server) = served(secure);
    server.wants("x-access-token", CANARY);
    scene.env("GIT_SYNC_TOKEN", CANARY);
    (scene, server)
}

fn url(server: &HttpServer) -> String {
    server.url().replace("repo.git", "upstream.git")
}

/// Neither the last run's output nor any file of the scene (ours, its private folder, the site) holds the secret.
fn no_secret_anywhere(scene: &Scene) {
    let last = scene.last();
    assert!(!format!("{}{}", last.stdout, last.stderr).contains(CANARY), "{last}");
    let mut found = Vec::new();
    search(scene.root(), &mut found);
    assert!(found.is_empty(), "{found:?}");
}

fn search(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        } else if path.is_dir() {
            search(&path, found);
        } else {
            let content = std::fs::read(&path).unwrap();
            if content.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn a_sync_with_nothing_to_do_is_one_request() {
    for secure in [false, true] {
        let (scene, server) = guarded(secure);
        scene.sync().exits(0).says("up-to-date");
        assert_eq!(server.log(), [POLL]);
        no_secret_anywhere(&scene);
    }
}

#[test]
fn a_hundred_thousand_refs_do_not_change_that() {
    let (scene, server) = served(false);
    let tip = scene.upstream_tip();
    let packed: String = (0..100_000).map(|i| format!("{tip} refs/pull/{i:06}/head\n")).collect();
    std::fs::write(
        scene.upstream().join("packed-refs"),
        format!("# pack-refs with: peeled fully-peeled sorted \n{packed}"),
    )
    .unwrap();
    scene.sync().exits(0).says("up-to-date");
    assert_eq!(server.log(), [POLL]);
    scene.rival_pushes("b.txt");
    server.forget();
    scene.sync().exits(0).says("behind").ours_equals_upstream();
    assert!(!server.log().iter().any(|r| r.starts_with("GET")), "{:?}", server.log());
}

#[test]
fn a_whole_day_over_https_leaves_no_secret_behind() {
    let (scene, server) = guarded(true);
    scene.rival_pushes("b.txt");
    scene.run(&["sync", "-v"]).exits(0).says("behind").ours_equals_upstream();
    no_secret_anywhere(&scene);
    scene.run(&["tick", "-v", "--", "sh", "-c", "mkdir -p state; echo 1 >state/x; env"]).exits(0).says("pushed");
    scene.ours_equals_upstream().upstream_file("state/x", "1\n");
    no_secret_anywhere(&scene);
    // Diverged, in both modes.
    scene.we_commit("ours.txt").rival_pushes("c.txt").sync().exits(0).says("diverged").ours_equals_upstream();
    scene.alpha().we_commit("ours.txt").rival_pushes("d.txt");
    scene.tick_with("echo 2 >state/x").exits(0).says("pushed").ours_equals_upstream();
    no_secret_anywhere(&scene);
    scene.fsck();
    assert!(server.log().len() > 5);
}

#[test]
fn a_token_in_the_given_url_is_used_and_not_stored() {
    let scene = Scene::without_ours();
    let server = HttpServer::over(scene.root(), false);
    server.wants("x-access-token", CANARY);
    std::fs::create_dir(scene.ours()).unwrap();
    let with_token = url(&server).replace("http://", &format!("http://x-access-token:{CANARY}@"));
    scene.run(&["init-sync", "--remote-url", &with_token]).exits(0).says("cloned");
    no_secret_anywhere(&scene);
    // Put there by somebody else, it is taken out by the next start.
    scene.git_ours(&["remote", "set-url", "origin", &with_token]);
    scene.sync().exits(0).says("up-to-date");
    assert!(!scene.last().stderr.contains(CANARY));
    scene.run(&["init-sync"]).exits(0);
    no_secret_anywhere(&scene);
}

#[test]
fn a_container_that_gives_the_url_with_a_token_to_every_pass_gets_on() {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    server.wants("x-access-token", CANARY);
    std::fs::create_dir(scene.ours()).unwrap();
    scene.env("GIT_SYNC_REMOTE_URL", &url(&server).replace("http://", &format!("http://x-access-token:{CANARY}@")));
    scene.run(&["init-sync"]).exits(0).says("cloned");
    scene.sync().exits(0).says("up-to-date");
    scene.tick_with("env > state/env").exits(0).says("pushed").ours_equals_upstream();
    no_secret_anywhere(&scene);
}

#[test]
fn a_token_file_is_read_anew_by_each_pass() {
    let (scene, server) = served(false);
    server.wants("x-access-token", CANARY);
    // Outside what is searched.
    let file = tempfile::NamedTempFile::new().unwrap();
    scene.env("GIT_SYNC_TOKEN_FILE", file.path().to_str().unwrap()).env("GIT_SYNC_TOKEN", "not-this-one");
    std::fs::write(file.path(), "an-expired-one\n").unwrap();
    scene.sync().exits(1).says("error").logs(file.path().to_str().unwrap()).logs_not("an-expired-one");
    assert_eq!(server.log(), [POLL], "a wrong secret is tried once");
    std::fs::write(file.path(), format!("{CANARY}\n")).unwrap();
    scene.sync().exits(0).says("up-to-date");
    no_secret_anywhere(&scene);
}

#[test]
fn a_secret_that_is_refused_or_missing_is_for_a_person() {
    let (scene, server) = guarded(false);
    server.always(Fault::unauthorized());
    scene.sync().exits(1).says("error").logs("GIT_SYNC_TOKEN").logs("401");
    assert_eq!(server.log(), [POLL]);
    no_secret_anywhere(&scene);
    server.always(Fault::status(403));
    scene.sync().exits(1).says("error").logs("403").logs("Contents: read and write");
    server.always(Fault::status(404));
    scene.sync().exits(1).says("error").logs("404").logs("private repository");
    no_secret_anywhere(&scene);
}

#[test]
fn no_secret_goes_to_another_host() {
    let (scene, server) = guarded(false);
    let other = HttpServer::over(scene.root(), false);
    for status in [301, 302, 307, 308] {
        server.always(Fault::Redirect(status, other.origin()));
        scene.sync().exits(1).says("error").logs("redirects to another host");
        scene.tick_with("mkdir -p state; date +%N >state/n");
        assert_eq!(scene.last().code, Some(1), "{}", scene.last());
    }
    assert!(other.log().is_empty(), "{:?}", other.seen());
    no_secret_anywhere(&scene);
}

#[test]
fn a_server_in_trouble_is_passing() {
    let (scene, server) = served(false);
    for fault in [
        Fault::status(429),
        Fault::status(500),
        Fault::status(502),
        Fault::status(503),
        Fault::HangUp,
        Fault::CutAfter(0),
        Fault::CutAfter(7),
    ] {
        server.always(fault.clone());
        scene.sync().exits(75).says("error");
        // A tick goes on without the remote.
        scene.tick().exits(0).says("no-changes");
    }
    server.when(|_, _| None);
    scene.sync().exits(0).says("up-to-date");
}

#[test]
fn a_server_that_says_nothing_or_little_does_not_hold_a_pass() {
    let (scene, server) = served(false);
    scene.rival_pushes("b.txt");
    for fault in [Fault::StallBefore, Fault::StallAfter(10), Fault::Drip(Duration::from_secs(1))] {
        server.always(fault.clone());
        let start = Instant::now();
        scene.run(&["sync", "--network-timeout", "1s"]).exits(75).says("error");
        assert!(start.elapsed() < Duration::from_secs(8), "{fault:?} {:?}", start.elapsed());
    }
    server.when(|_, _| None);
    scene.sync().exits(0).says("behind").ours_equals_upstream();
}

#[test]
fn a_fetch_cut_anywhere_is_made_good_by_the_next_pass() {
    let (scene, server) = served(false);
    for cut in [0, 1, 30, 90, 200] {
        scene.rival_pushes(&format!("cut-{cut}.txt"));
        // The poll is answered; the pack is cut.
        server.when(move |seen, _| seen.is_fetch().then_some(Fault::CutAfter(cut)));
        scene.sync().exits(75);
        server.when(|_, _| None);
        scene.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    }
}

#[test]
fn a_push_whose_answer_was_lost_is_looked_up() {
    let (scene, server) = served(false);
    server.on("POST git-receive-pack", Fault::AnswerLost);
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    // Cut before it got there, it is not pushed, and says so.
    server.on("POST git-receive-pack", Fault::HangUp);
    scene.tick_with("echo 2 >state/x").exits(75).says("push-failed");
    server.when(|_, _| None);
    scene.tick().exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn a_refusal_is_told_whatever_bytes_it_is_made_of() {
    let (scene, server) = served(false);
    scene.upstream_hook("pre-receive", "printf 'nicht erw\\374nscht \\033[31m\\n' >&2; exit 1");
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(1).says("push-failed").logs("hook declined");
    assert!(!scene.last().stderr.contains("\u{1b}[31m\n"), "{}", scene.last());
    std::fs::remove_file(scene.upstream().join("hooks/pre-receive")).unwrap();
    scene.upstream_hook("update", "exit 1");
    server.on(
        "POST git-receive-pack",
        Fault::Rewrite(|mut answer| {
            let at = answer.windows(4).rposition(|w| w == b"hook").unwrap();
            answer[at] = 0xff;
            answer
        }),
    );
    scene.tick().exits(1).says("push-failed").logs("\u{fffd}ook declined");
    std::fs::remove_file(scene.upstream().join("hooks/update")).unwrap();
    server.when(|_, _| None);
    scene.tick().exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn a_signal_ends_a_pass_that_waits_for_a_server() {
    let (scene, server) = served(false);
    for (signal, code) in [(rustix::process::Signal::TERM, 143), (rustix::process::Signal::INT, 130)] {
        server.forget();
        server.always(Fault::StallBefore);
        let child = scene.start(&["sync"]);
        crate::scene::until("the request is there", || !server.log().is_empty());
        let start = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        scene.wait(child).exits(code);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
    server.when(|_, _| None);
    scene.sync().exits(0).says("up-to-date");
}

#[test]
fn a_push_goes_to_the_push_url() {
    let (scene, server) = served(false);
    let path = scene.upstream().display().to_string();
    scene.git_ours(&["config", "remote.origin.pushurl", &path]);
    // What is asked and fetched still comes from the other.
    scene.rival_pushes("b.txt");
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert!(server.log().contains(&POLL.to_owned()), "{:?}", server.log());
    assert!(!server.log().iter().any(|r| r.contains("receive-pack")), "{:?}", server.log());
    // As git's `pushInsteadOf` has it.
    scene.git_ours(&["config", "--unset", "remote.origin.pushurl"]);
    scene.git_ours(&[
        "config",
        &format!("url.{}/.pushInsteadOf", scene.root().display()),
        &format!("{}/", server.origin()),
    ]);
    scene.tick_with("echo 2 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert!(!server.log().iter().any(|r| r.contains("receive-pack")), "{:?}", server.log());
}

#[test]
fn what_a_server_answers_a_push_with_is_passing_or_lasting() {
    let (scene, server) = guarded(false);
    let push = "POST git-receive-pack";
    for (number, (fault, code, words)) in [
        (Fault::status(413), 1, "--max-file-size"),
        (Fault::status(403), 1, "Contents: read and write"),
        (Fault::unauthorized(), 1, "401"),
        (Fault::status(429), 75, "429"),
        (Fault::status(503), 75, "503"),
        (Fault::Answer(403, vec![("Retry-After", "60".to_owned())], Vec::new()), 75, "fewer requests"),
    ]
    .into_iter()
    .enumerate()
    {
        server.on(push, fault);
        server.forget();
        scene.tick_with(&format!("mkdir -p state; echo {number} >state/x"));
        scene.exits(code).says("push-failed").logs(words).logs("push failed");
        assert_eq!(server.log().iter().filter(|r| *r == push).count(), 1, "{:?}", server.log());
        no_secret_anywhere(&scene);
    }
    server.when(|_, _| None);
    server.wants("x-access-token", CANARY);
    scene.tick().exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn a_program_that_is_not_installed_is_named_with_its_package() {
    let scene = Scene::new();
    let empty = tempfile::tempdir().unwrap();
    scene.env("PATH", empty.path().to_str().unwrap());
    scene.sync().exits(1).says("error").logs("`git`").logs("install the package git");
    let set = |url: &str| {
        let mut git = std::process::Command::new("git");
        git.current_dir(scene.ours()).args(["remote", "set-url", "origin", url]);
        assert!(git.status().unwrap().success());
    };
    set("ssh://upstream.invalid/r.git");
    scene.sync().exits(1).says("error").logs("`ssh`").logs("install the package openssh-client");
    // http needs no program at all.
    let server = HttpServer::over(scene.root(), false);
    set(&url(&server));
    scene.sync().exits(0).says("up-to-date");
}

#[needs(mount)]
#[test]
fn the_system_s_authorities_hold_beside_those_that_are_named() {
    let scene = Scene::without_ours();
    let (server, other) = (HttpServer::over(scene.root(), true), HttpServer::over(scene.root(), true));
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    // In a mount namespace of its own the system trusts the server's authority; the environment names the other's.
    let in_a_system_that_trusts = |authority: &str, args: &[&str]| {
        let command = scene.gitsync(args);
        let mut isolated = scene.isolated("unshare");
        isolated.args(["-m", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        isolated.arg(authority).arg(bundle).arg(command.get_program()).args(command.get_args());
        isolated.env("GIT_SYNC_REPO", scene.ours()).env("SSL_CERT_FILE", other.authority_path());
        isolated.stdin(std::process::Stdio::null());
        isolated
    };
    std::fs::create_dir(scene.ours()).unwrap();
    for (number, trusted) in [&server, &other].into_iter().enumerate() {
        let args = ["init-sync", "--remote-url", &url(trusted)];
        let word = if number == 0 { "cloned" } else { "up-to-date" };
        scene.run_this(in_a_system_that_trusts(&server.authority_path(), &args)).exits(0).says(word);
    }
    // Neither is trusted by a system without them.
    let stranger = HttpServer::over(scene.root(), true);
    let pass = in_a_system_that_trusts(&server.authority_path(), &["init-sync", "--remote-url", &url(&stranger)]);
    scene.run_this(pass).exits(1).logs("certificate");
}

/// A server that dies in the middle must not cost the pass all its time, nor a core.
#[test]
#[allow(clippy::disallowed_methods)]
fn a_server_that_dies_in_the_middle_of_an_answer_ends_the_pass_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let s = Scene::new();
    s.rival_pushes("state/a").rival_pushes("state/b");
    let bin = s.root().join("bin");
    let real = s.git_in(s.root(), &["--exec-path"]);
    // Whoever asks for the tip is told it, or not even that; the one that fetches gets so much of its answer and no more.
    let script = format!(
        "#!/bin/sh\nif [ \"$LISTS\" ] && mkdir '{0}/asked' 2>/dev/null; then exec '{real}/git' \"$@\"; fi\n'{real}/git' \"$@\" | {{ dd bs=1 count=\"$CUT\" 2>&-; kill -9 0; }}\n",
        bin.display()
    );
    crate::scene::write(&bin.join("git"), &script);
    std::fs::set_permissions(bin.join("git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    s.env("PATH", &format!("{}:{path}", bin.display()));
    let mut failed = 0;
    let cuts = (20..200).step_by(20).map(|cut| (cut, "")).chain((20..1400).step_by(60).map(|cut| (cut, "yes")));
    for (cut, lists) in cuts {
        let _ = std::fs::remove_dir(bin.join("asked"));
        let began = Instant::now();
        let mut pass = s.gitsync(&["sync"]);
        let out = pass
            .env("CUT", cut.to_string())
            .env("LISTS", lists)
            .env("GIT_SYNC_NETWORK_TIMEOUT", "30s")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(began.elapsed() < Duration::from_secs(15), "cut after {cut} bytes: {said}");
        if out.status.success() {
            break;
        }
        assert_eq!(out.status.code(), Some(75), "cut after {cut} bytes: {said}");
        assert!(!said.contains("corrupt") && !said.contains("init-sync"), "cut after {cut} bytes: {said}");
        failed += 1;
    }
    assert!(failed > 5, "only {failed} answers were cut short");
    s.env("PATH", &path).sync().exits(0).ours_equals_upstream().fsck();
}

#[test]
fn a_pass_does_its_work_before_a_server_has_ended_its_answer() {
    let (scene, server) = served(false);
    let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    server.always(Fault::EndsWhen(ends.clone()));
    let start = Instant::now();
    let child = scene.start(&["sync"]);
    let record = scene.private().join("status.json");
    crate::scene::until("the pass is on record", || {
        std::fs::read_to_string(&record).is_ok_and(|text| text.contains("\"up-to-date\""))
    });
    // Not because it gave up waiting.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // And it does not hang up on the server.
    ends.store(true, std::sync::atomic::Ordering::SeqCst);
    scene.wait(child).exits(0).says("up-to-date");
}
