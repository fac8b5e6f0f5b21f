//! How a long transfer is told: a bar on a terminal, else a line every few seconds, and of a short one nothing.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::scene::{Scene, until};
use crate::servers::http::{Fault, HttpServer};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A scene with something to fetch, that takes ten times as long as what is called short if it comes drop by drop: the
/// pack has that many.
fn served() -> (Scene, HttpServer) {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    std::fs::create_dir(scene.ours()).unwrap();
    scene.run(&["init-sync", "--remote-url", &server.url().replace("repo.git", "upstream.git")]).exits(0);
    let noise: String = (0..20_000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    scene.rival_writes("large.txt", &noise).rival_commits("large");
    scene.git_in(&scene.rival(), &["push", "-q", "origin", "main"]);
    server.forget();
    (scene, server)
}

/// The pack comes drop by drop until the answer is set.
fn drips(server: &HttpServer) -> Arc<AtomicBool> {
    let enough = Arc::new(AtomicBool::new(false));
    let drip = Fault::DripUntil(enough.clone());
    server.when(move |seen, _| seen.is_fetch().then(|| drip.clone()));
    enough
}

/// Everything that has come out of a file so far.
struct Heard {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Heard {
    fn from(mut file: File) -> Heard {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = text.clone();
        let reader = std::thread::spawn(move || {
            let mut some = [0; 4096];
            // A terminal whose programs have all gone ends with an error.
            while let Ok(n @ 1..) = file.read(&mut some) {
                kept.lock().unwrap().extend_from_slice(&some[..n]);
            }
        });
        Heard { text, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn all(self) -> String {
        self.reader.join().unwrap();
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

/// A sync whose stderr is a terminal 120 columns wide, and what is drawn there.
fn on_a_terminal(scene: &Scene, args: &[&str]) -> (Child, Heard) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs: OwnedFd = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
    rustix::termios::tcsetwinsize(
        &theirs,
        rustix::termios::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 },
    )
    .unwrap();
    let mut command = scene.gitsync(&[&["sync"], args].concat());
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(theirs);
    let child = command.spawn().unwrap();
    // The command holds the terminal open, which would never end.
    drop(command);
    (child, Heard::from(File::from(ours)))
}

fn ends_well(child: Child, word: &str) {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{word}\n"));
}

#[test]
fn a_bar_on_a_terminal() {
    let (scene, server) = served();
    let enough = drips(&server);
    let (child, screen) = on_a_terminal(&scene, &[]);
    until("a bar is drawn, and drawn anew", || screen.so_far().matches(" received, ").count() > 2);
    enough.store(true, Ordering::SeqCst);
    ends_well(child, "behind");
    let screen = screen.all();
    assert!(screen.contains(" objects "), "{screen:?}");
    let after = screen.rsplit(" objects ").next().unwrap();
    assert!(after.contains("\u{1b}[2K"), "the bar is taken away: {screen:?}");
    assert!(after.contains("followed the remote"), "{screen:?}");
    assert!(!screen.contains("transferring"), "{screen:?}");
    scene.ours_equals_upstream();
}

#[test]
fn a_line_every_few_seconds_in_a_log() {
    let (scene, server) = served();
    let enough = drips(&server);
    // A quiet one has had the same slow transfer, and longer, by the time the other has told of its own twice.
    let quiet = Scene::without_ours();
    std::fs::create_dir(quiet.ours()).unwrap();
    let url = server.url().replace("repo.git", "upstream.git");
    let mut hushed = quiet.gitsync(&["init-sync", "--remote-url", &url, "-q"]);
    let hushed = hushed.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the quiet one fetches", || server.log().len() == 2);
    let mut child = scene.start(&["sync"]);
    let log = Heard::from(File::from(OwnedFd::from(child.stderr.take().unwrap())));
    until("two lines are there", || log.so_far().matches("transferring").count() > 1);
    enough.store(true, Ordering::SeqCst);
    ends_well(child, "behind");
    let log = log.all();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("transferring")).collect();
    assert!(lines.len() < 10, "{log}");
    let received = |line: &str| -> u64 {
        let (_, rest) = line.split_once("received=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(received(lines[1]) > received(lines[0]) && received(lines[0]) > 0, "{log}");
    assert!(lines.iter().all(|line| line.contains(&server.address.to_string())), "{log}");
    assert!(!log.contains('\u{1b}') && !log.contains('\r'), "{log:?}");
    let hushed = hushed.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&hushed.stdout), "cloned\n");
    assert_eq!(String::from_utf8_lossy(&hushed.stderr), "");
}

#[test]
fn no_bar_among_objects_for_programs() {
    let (scene, server) = served();
    let enough = drips(&server);
    let (child, screen) = on_a_terminal(&scene, &["--log-format", "json"]);
    until("a line is there", || screen.so_far().contains("transferring"));
    enough.store(true, Ordering::SeqCst);
    ends_well(child, "behind");
    for line in screen.all().lines() {
        let event: serde_json::Value = serde_json::from_str(line.trim()).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(event.is_object(), "{line}");
    }
}

#[test]
fn nothing_for_a_short_transfer() {
    let (scene, _server) = served();
    let (child, screen) = on_a_terminal(&scene, &[]);
    ends_well(child, "behind");
    let screen = screen.all();
    assert!(screen.contains("followed the remote"), "{screen:?}");
    assert!(!screen.contains(" received") && !screen.contains("transferring"), "{screen:?}");
    scene.rival_pushes("small.txt").sync().exits(0).says("behind").logs_not("transferring").logs_not("received");
}
