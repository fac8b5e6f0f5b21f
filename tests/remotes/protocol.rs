//! git's protocol as passes use it: how many connections and requests they make, servers of every age, histories that are cut
//! off, and clones that lack what the remote has promised.

use std::fs;
use std::time::{Duration, Instant};

use crate::scene::{Scene, write};
use crate::servers::CANARY;
use crate::servers::http::{Fault, HttpServer, base64};

const POLL: &str = "POST git-upload-pack";
const LIST: &str = "GET info/refs git-upload-pack";
const PUSH: [&str; 2] = ["GET info/refs git-receive-pack", "POST git-receive-pack"];

fn url(server: &HttpServer) -> String {
    server.url().replace("repo.git", "upstream.git")
}

/// An upstream behind a server, and nothing of ours yet.
fn upstream() -> (Scene, HttpServer) {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    fs::create_dir(scene.ours()).unwrap();
    (scene, server)
}

/// The same, and an instance of ours that has cloned it.
fn served() -> (Scene, HttpServer) {
    let (scene, server) = upstream();
    scene.run(&["init-sync", "--remote-url", &url(&server)]).exits(0).says("cloned");
    server.forget();
    (scene, server)
}

/// Bytes that do not compress.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_whole_tick_is_one_connection_one_refusal_and_one_run_of_the_helper() {
    let (scene, server) = served();
    server.wants("x-access-token", CANARY);
    let helper = format!(
        "!echo run >>'{}'; echo username=x-access-token; echo password={CANARY};:",
        scene.root().join("runs").display()
    );
    scene.git_ours(&["config", "credential.helper", &helper]);
    scene.rival_pushes("news.txt");
    scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
    assert_eq!(server.log(), [POLL, POLL, POLL, PUSH[0], PUSH[1]], "a refusal, the tip, the news, the push");
    assert!(server.seen().iter().all(|seen| seen.connection == server.seen()[0].connection), "{:?}", server.seen());
    assert_eq!(server.seen().iter().filter(|seen| seen.header("authorization").is_none()).count(), 1);
    assert_eq!(fs::read_to_string(scene.root().join("runs")).unwrap(), "run\n");
}

#[test]
fn a_token_file_that_changes_during_the_job_is_read_again() {
    let (scene, server) = served();
    let token = scene.root().join("token");
    write(&token, "the-first-token");
    scene.env("GIT_SYNC_TOKEN_FILE", token.to_str().unwrap());
    // The server takes what the file holds and nothing else.
    let watched = token.clone();
    server.when(move |seen, _| {
        let pair = base64(&format!("x-access-token:{}", fs::read_to_string(&watched).unwrap()));
        (seen.header("authorization") != Some(&format!("Basic {pair}"))).then(Fault::unauthorized)
    });
    let job = format!("mkdir -p state; echo 1 >state/x; printf the-second-token >'{}'", token.display());
    scene.tick_with(&job).exits(0).says("pushed").ours_equals_upstream();
}

#[test]
fn a_server_that_never_answers_v2_is_found_out_and_remembered_for_a_day() {
    let (scene, server) = served();
    // It takes such a request and says nothing; whoever asks the old way is served.
    server.when(|seen, _| match seen.header("git-protocol") {
        Some(_) if seen.method == "POST" => Some(Fault::StallBefore),
        Some(_) => Some(Fault::OldProtocol),
        None => None,
    });
    scene.rival_pushes("news.txt");
    let start = Instant::now();
    scene.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    assert!(
        start.elapsed() > Duration::from_secs(2) && start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(server.log(), [POLL, LIST, POLL]);
    server.forget();
    scene.sync().exits(0).says("up-to-date");
    assert_eq!(server.log(), [LIST], "it is remembered");
    assert!(server.seen()[0].header("git-protocol").is_none());
    // From another day.
    let record = scene.private().join("old-server");
    let text = fs::read_to_string(&record).unwrap();
    write(&record, &format!("2001-01-01T00:00:00+00:00 {}", text.split_once(' ').unwrap().1));
    server.when(|_, _| None);
    server.forget();
    scene.sync().exits(0).says("up-to-date");
    assert_eq!(server.log(), [POLL]);
}

#[test]
fn a_slow_server_is_not_taken_for_an_old_one() {
    let (scene, server) = served();
    // The first request is lost; what the server lists says that it has v2.
    server.when(|_, count| (count == 0).then_some(Fault::StallBefore));
    scene.sync().exits(0).says("up-to-date");
    assert_eq!(server.log(), [POLL, LIST, POLL]);
    assert!(!scene.private().join("old-server").exists());
}

#[test]
fn git_s_protocol_version_is_honoured() {
    let (scene, server) = served();
    for version in ["0", "1"] {
        scene.git_ours(&["config", "protocol.version", version]);
        scene.rival_pushes(&format!("{version}.txt"));
        server.forget();
        scene.sync().exits(0).says("behind").ours_equals_upstream().fsck();
        assert_eq!(server.log(), [LIST, POLL]);
        assert!(server.seen().iter().all(|seen| seen.header("git-protocol").is_none()), "{:?}", server.seen());
    }
    // By a path, where git's own program is asked.
    scene.git_ours(&["remote", "set-url", "origin", scene.upstream().to_str().unwrap()]);
    scene.rival_pushes("path.txt").sync().exits(0).says("behind").ours_equals_upstream();
}

/// Each way to reach the upstream: http with and without v2, a path with and without.
fn each_way(test: impl Fn(&Scene, &str)) {
    for (way, old) in [("http", false), ("http", true), ("path", false), ("path", true)] {
        let (scene, server) = upstream();
        let url = if way == "http" { url(&server) } else { format!("file://{}", scene.upstream().display()) };
        if old && way == "http" {
            server.always(Fault::OldProtocol);
        } else if old {
            scene.git_in(scene.root(), &["config", "--global", "protocol.version", "0"]);
        }
        test(&scene, &url);
    }
}

#[test]
fn a_shallow_remote_is_cloned_as_shallow_as_it_is() {
    each_way(|scene, url| {
        for n in 0..5 {
            scene.rival_pushes(&format!("{n}.txt"));
        }
        let whole = scene.root().join("whole.git");
        fs::rename(scene.upstream(), &whole).unwrap();
        let from = format!("file://{}", whole.display());
        scene.git_in(
            scene.root(),
            &["clone", "-q", "--bare", "--depth", "2", &from, scene.upstream().to_str().unwrap()],
        );
        scene.git_upstream(&["config", "http.receivepack", "true"]);
        scene.git_upstream(&["remote", "remove", "origin"]);
        scene.run(&["init-sync", "--remote-url", url]).exits(0).says("cloned").ours_equals_upstream().fsck();
        assert_eq!(scene.git_ours(&["rev-parse", "--is-shallow-repository"]), "true", "{url}");
        assert_eq!(scene.git_ours(&["rev-list", "--count", "HEAD"]), "2");
        scene.sync().exits(0).says("up-to-date");
        scene.rival_pushes("news.txt").sync().exits(0).says("behind").ours_equals_upstream().fsck();
        scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream().fsck();
        assert_eq!(scene.git_ours(&["rev-list", "--count", "HEAD"]), "4");
        scene.init_sync().exits(0).says("up-to-date").fsck();
    });
}

#[test]
fn a_whole_clone_of_a_remote_that_became_shallow_stays_whole() {
    let (scene, server) = served();
    let tip = scene.upstream_tip();
    scene.rival_pushes("news.txt");
    write(&scene.upstream().join("shallow"), &format!("{tip}\n"));
    scene.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    assert_eq!(scene.git_ours(&["rev-parse", "--is-shallow-repository"]), "false");
    drop(server);
}

#[test]
fn a_shallow_remote_takes_no_history_from_a_clone_that_has_more() {
    let (scene, server) = upstream();
    for n in 0..5 {
        scene.rival_pushes(&format!("{n}.txt"));
    }
    scene.run(&["init-sync", "--depth", "3", "--remote-url", &url(&server)]).exits(0).says("cloned");
    let before = scene.git_ours(&["rev-list", "HEAD"]);
    // The remote has less now, and another tip: all of its history is asked for.
    let cut = scene.git_upstream(&["rev-parse", "main~1"]);
    scene.git_in(&scene.rival(), &["commit", "-q", "--amend", "-m", "another"]);
    scene.git_in(&scene.rival(), &["push", "-q", "--force", "origin", "main"]);
    write(&scene.upstream().join("shallow"), &format!("{cut}\n"));
    scene.we_commit("ours.txt").sync();
    assert_eq!(scene.git_ours(&["rev-list", &before[..40]]), before, "{}", scene.last());
    scene.fsck();
}

#[test]
fn a_clone_of_some_depth_and_the_passes_on_it() {
    each_way(|scene, url| {
        for n in 0..5 {
            scene.rival_pushes(&format!("{n}.txt"));
        }
        scene.run(&["init-sync", "--depth", "2", "--remote-url", url]).exits(0).says("cloned").ours_equals_upstream();
        scene.fsck();
        assert_eq!(scene.git_ours(&["rev-list", "--count", "HEAD"]), "2", "{url}");
        // The option is for the clone alone.
        scene.rival_pushes("5.txt").rival_pushes("6.txt").rival_pushes("7.txt");
        scene.run(&["init-sync", "--depth", "2"]).exits(0).says("reset").ours_equals_upstream().fsck();
        assert_eq!(scene.git_ours(&["rev-list", "--count", "HEAD"]), "5");
        scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream().fsck();
        // A rewind to where our history does not reach is judged on all of it.
        let pushed = scene.our_tip();
        scene.git_in(&scene.rival(), &["push", "-q", "--force", "origin", "HEAD~5:main"]);
        scene.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&pushed).fsck();
        assert_eq!(scene.git_ours(&["rev-parse", "--is-shallow-repository"]), "false");
    });
}

/// In a cut history it can't be seen that the remote took a commit back. What is not seen must not be forgotten either: a pass
/// that fails here made the next one push the commit again.
#[test]
fn a_shallow_clone_never_pushes_again_what_was_taken_back() {
    let (scene, server) = upstream();
    scene.rival_pushes("a.txt").rival_pushes("b.txt").rival_pushes("taken-back.txt");
    scene.run(&["init-sync", "--depth", "1", "--remote-url", &url(&server)]).exits(0).says("cloned");
    let taken_back = scene.our_tip();
    scene.git_in(&scene.rival(), &["push", "-q", "--force", "origin", "HEAD~1:main"]);
    let tip = scene.upstream_tip();
    // All but the first question fail.
    server.forget();
    server.when(|_, number| (number > 1).then(|| Fault::status(503)));
    scene.sync().exits(75).says("error");
    server.when(|_, _| None);
    scene.tick_with("true").exits(0).is_kept(&taken_back);
    assert_eq!(scene.upstream_tip(), tip, "{}", scene.last());
    scene.ours_equals_upstream().fsck();
}

#[test]
fn a_depth_that_is_none_is_a_usage_error() {
    let scene = Scene::new();
    for depth in ["0", "-1", "x"] {
        scene.run(&["init-sync", &format!("--depth={depth}")]).exits(2);
    }
    scene.run(&["sync", "--depth", "1"]).exits(2);
}

#[test]
fn a_partial_clone_gets_what_it_needs() {
    each_way(|scene, url| {
        for name in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
            scene.git_upstream(&["config", name, "true"]);
        }
        let before = scene.upstream_tip();
        for n in 0..3 {
            scene.rival_writes("changes.txt", &format!("{n}\n")).rival_commits("change");
        }
        scene.git_in(&scene.rival(), &["push", "-q", "origin", "main"]);
        fs::remove_dir(scene.ours()).unwrap();
        let file = format!("file://{}", scene.upstream().display());
        scene.git_in(scene.root(), &["clone", "-q", "--filter=blob:none", &file, "ours"]);
        // As older versions of git note it.
        scene.git_ours(&["config", "extensions.partialClone", "origin"]);
        scene.git_ours(&["remote", "set-url", "origin", url]);
        let marks = || {
            let packs = fs::read_dir(scene.ours().join(".git/objects/pack")).unwrap();
            packs.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|end| end == "promisor")).count()
        };
        let marked = marks();
        assert!(marked > 0);
        scene.init_sync().exits(0).says("up-to-date");
        assert!(marks() >= marked, "git's own marks are left alone");
        // What the remote goes back to is here but for its files.
        let tip = scene.our_tip();
        scene.git_in(&scene.rival(), &["push", "-q", "--force", "origin", "main~1:main"]);
        scene.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&tip);
        assert_eq!(fs::read_to_string(scene.ours().join("changes.txt")).unwrap(), "1\n");
        scene.git_in(&scene.rival(), &["reset", "-q", "--hard", "main~1"]);
        // Old content comes back in a new commit: the server believes that it is here.
        scene.rival_writes("changes.txt", "0\n").rival_writes("more.txt", "more\n").rival_commits("again");
        scene.git_in(&scene.rival(), &["push", "-q", "origin", "main"]);
        scene.sync().exits(0).says("behind").ours_equals_upstream();
        scene.tick_with("mkdir -p state; echo 1 >state/x").exits(0).says("pushed").ours_equals_upstream();
        assert!(!scene.private().join("broken").exists());
        scene.git_ours(&["fsck", "--full", "--strict"]);
        assert!(scene.git_ours(&["rev-list", "--count", &before]) == "2");
    });
}

#[test]
fn a_large_push_is_packed_once_whatever_the_server_says_to_it() {
    let (scene, server) = served();
    let packed = |scene: &Scene| scene.last().stderr.matches("packed what the remote lacks").count();
    write_bytes(&scene, "state/first.bin", 1);
    // It asks for credentials only when all of the push is there.
    let helper = format!("!echo username=x-access-token; echo password={CANARY};:");
    scene.git_ours(&["config", "credential.helper", &helper]);
    server.when(|seen, _| {
        let is_large = seen.header("content-length").is_some_and(|length| length.len() > 6);
        (is_large && seen.header("authorization").is_none()).then(Fault::unauthorized)
    });
    scene.run(&["tick", "-vv", "--", "true"]).exits(0).says("pushed").ours_equals_upstream();
    assert_eq!(packed(&scene), 1, "{}", scene.last());
    assert_eq!(server.log().iter().filter(|line| *line == PUSH[1]).count(), 3, "the probe, the refused one, the push");
    // It lost a race the first time.
    write_bytes(&scene, "state/second.bin", 2);
    let rival = scene.upstream().display().to_string();
    scene.upstream_hook(
        "pre-receive",
        &format!(
            "test -e ../raced && exit 0; touch ../raced; unset GIT_QUARANTINE_PATH; \
             git -C '{rival}' update-ref refs/heads/main $(git -C '{rival}' -c user.name=r -c user.email=r commit-tree -m rival -p main main^{{tree}})"
        ),
    );
    scene.alpha();
    scene.run(&["tick", "-vv", "--", "true"]).exits(0).says("pushed").ours_equals_upstream();
    assert!(scene.root().join("raced").exists());
    assert_eq!(packed(&scene), 1, "{}", scene.last());
    assert!(!scene.private().join("push-pack.new").exists());
}

fn write_bytes(scene: &Scene, path: &str, seed: u64) {
    let path = scene.ours().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, noise(3 << 20, seed)).unwrap();
}

#[test]
fn a_line_more_in_a_large_file_is_a_small_push() {
    let (scene, server) = served();
    write_bytes(&scene, "state/ledger", 1);
    scene.tick_with("true").exits(0).says("pushed").ours_equals_upstream();
    let length = |server: &HttpServer| -> usize {
        let push = server.seen().into_iter().rfind(|seen| seen.short() == PUSH[1]).unwrap();
        push.header("content-length").unwrap().parse().unwrap()
    };
    assert!(length(&server) > 3 << 20);
    for n in 0..3 {
        scene.tick_with(&format!("echo line {n} >>state/ledger")).exits(0).says("pushed").ours_equals_upstream();
        assert!(length(&server) < 2000, "{} bytes", length(&server));
    }
    scene.git_upstream(&["fsck", "--full", "--strict"]);
}

#[test]
fn a_push_of_many_commits_and_files_is_whole() {
    let (scene, _server) = served();
    for n in 0..60 {
        for file in 0..5 {
            let path = scene.ours().join(format!("state/{file}/{}", n % 7));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{file} {n}\n").repeat(n * 20)).unwrap();
        }
        scene.git_ours(&["add", "-A"]);
        scene.git_ours(&["commit", "-q", "-m", &format!("{n}")]);
    }
    // Two files change places, and one becomes a folder.
    scene.git_ours(&["mv", "state/0/1", "swap"]);
    scene.git_ours(&["mv", "state/1/1", "state/0/1"]);
    scene.git_ours(&["mv", "swap", "state/1/1"]);
    scene.git_ours(&["commit", "-q", "-m", "swap"]);
    scene
        .tick_with("rm state/0/2; mkdir state/0/2; echo 1 >state/0/2/x")
        .exits(0)
        .says("pushed")
        .ours_equals_upstream();
    scene.git_upstream(&["fsck", "--full", "--strict"]);
}
