//! The passes over http and ssh, killed and failed at one call after another, those that talk to the server among them.
//!
//! By default a few points of each; `GITSYNC_SWEEP=changes` and `full` are those of the kill sweep.

use std::fs;

use crate::scene::{self, Scene};
use crate::servers::http::HttpServer;
use crate::servers::inetd::Sshd;
use crate::sweep;
use crate::sweep::Sweep;
use crate::sweep::passes::*;
use needs::needs;

const INIT: &[&str] = &["init-sync"];
const SHALLOW: &[&str] = &["init-sync", "--depth", "1"];

/// Who serves the scene's upstream.
enum Server {
    Http(HttpServer),
    Ssh(Sshd),
}

impl Server {
    fn http(s: &Scene) -> Self {
        s.git_upstream(&["config", "http.receivepack", "true"]);
        let server = HttpServer::over(s.root(), false);
        s.git_ours(&["remote", "set-url", "origin", &format!("{}/upstream.git", server.origin())]);
        Self::Http(server)
    }

    fn ssh(s: &Scene) -> Self {
        let sshd = Sshd::new();
        s.env("GIT_SSH_COMMAND", &sshd.client("user", "known"));
        s.git_ours(&["remote", "set-url", "origin", &sshd.url(&s.upstream())]);
        Self::Ssh(sshd)
    }

    /// Waits until nothing of a pass that was ended is at work in the upstream.
    fn settles(&self) {
        scene::until("the server is idle", || match self {
            Self::Http(server) => server.is_idle(),
            Self::Ssh(sshd) => sshd.inetd.is_idle(),
        });
    }
}

/// The pass over one server after another. `alpha`: whether it may overwrite.
struct Served<'a> {
    name: &'a str,
    make: fn() -> Scene,
    pass: &'a [&'a str],
    recoveries: &'a [[&'a [&'a str]; 2]],
    rest: &'a [&'a str],
    alpha: bool,
    comes_to: &'a dyn Fn(&Scene) -> Vec<String>,
}

impl Served<'_> {
    fn over_http(&self) {
        let s = (self.make)();
        self.run(&s, "http", &Server::http(&s));
    }

    fn over_ssh(&self) {
        let s = (self.make)();
        self.run(&s, "ssh", &Server::ssh(&s));
    }

    fn run(&self, s: &Scene, over: &str, server: &Server) {
        let before = s.upstream_tip();
        sweep::sockets::run(&Sweep {
            name: &format!("{over}, {}", self.name),
            scene: s,
            pass: self.pass,
            recoveries: self.recoveries,
            rest: self.rest,
            paths: JOBS,
            unreadable: &[],
            thinned: if over == "http" { sweep::FEWER } else { sweep::FEWEST },
            at_once: &|s| {
                server.settles();
                let after = s.upstream_tip();
                let forward =
                    s.git_command(&s.upstream()).args(["merge-base", "--is-ancestor", &before, &after]).status();
                let moved = !self.alpha && !forward.unwrap().success();
                moved.then(|| format!("G3: non-alpha moved the remote from {before} to {after}")).into_iter().collect()
            },
            comes_to: self.comes_to,
        });
        server.settles();
    }
}

/// Cloned anew: a repository that knows its remote and holds nothing else, and a stranger's files around it.
fn fresh() -> Scene {
    let s = two_versions();
    fs::remove_dir_all(s.ours()).unwrap();
    s.git_in(s.root(), &["init", "-q", "-b", "main", "ours"]);
    s.git_ours(&["remote", "add", "origin", "nowhere"]);
    s.we_write("page", "a stranger's page\n").we_write("notes", "a stranger's notes\n");
    s
}

fn behind() -> Scene {
    let s = two_versions();
    second_version(&s);
    unfinished_work(&s);
    s
}

fn diverged() -> Scene {
    let s = two_versions();
    second_version(&s);
    s.we_commit("page").we_commit("turns-folder").we_commit("state/ours");
    unfinished_work(&s);
    s
}

fn to_push() -> Scene {
    let s = two_versions();
    s.we_write("page", "my page\n");
    s
}

/// More than a push holds in memory.
fn to_push_much() -> Scene {
    let s = to_push();
    let mut seed = 1u64;
    let noise: Vec<u8> = (0..2 << 20)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    fs::write(s.ours().join("much"), noise).unwrap();
    s.git_ours(&["add", "much"]);
    s.git_ours(&["commit", "-q", "-m", "much", "much"]);
    s
}

fn to_overwrite() -> Scene {
    let s = two_versions();
    second_version(&s);
    s.alpha().we_commit("page").we_commit("state/ours");
    s
}

/// A rival's commit that its job pushes while ours is under way, so that our push is refused and has to be made anew.
fn to_lose_a_race() -> Scene {
    let s = two_versions();
    s.env("GIT_SYNC_ON_DIVERGENCE", "rebase");
    s.git_in(&s.rival(), &["pull", "-q"]);
    s.rival_writes("rivals", "in time\n").rival_commits("rival's");
    s
}

const RACE: &str = "mkdir -p state audit; f=$(mktemp state/job-XXXXXX); echo \"$f\" > \"$f\"; \
                    echo \"$f\" > audit/${f#state/}; git -C ../rival push -q origin main";
const RACING: &[&str] = &["tick", "--", "sh", "-c", RACE];

const CLONES: Served<'_> = Served {
    name: "init-sync, fresh",
    make: fresh,
    pass: INIT,
    recoveries: &[[INIT, INIT], [INIT, TICK]],
    rest: SYNC,
    alpha: false,
    comes_to: &clean,
};

const CLONES_SHALLOW: Served<'_> = Served {
    name: "init-sync --depth, fresh",
    pass: SHALLOW,
    recoveries: &[[SHALLOW, SHALLOW], [INIT, TICK]],
    ..CLONES
};

const BEHIND: Served<'_> = Served {
    name: "sync, behind",
    make: behind,
    pass: SYNC,
    recoveries: &[[SYNC, SYNC], [TICK, TICK]],
    rest: SYNC,
    alpha: false,
    comes_to: &clean,
};

const DIVERGED: Served<'_> = Served { name: "sync, diverged", make: diverged, ..BEHIND };

const PUSHES: Served<'_> = Served {
    name: "tick",
    make: to_push,
    pass: TICK,
    recoveries: &[[TICK, TICK], [SYNC, TICK]],
    rest: IDLE,
    alpha: false,
    comes_to: &same_as_upstream,
};

const PUSHES_MUCH: Served<'_> = Served { name: "tick, much", make: to_push_much, ..PUSHES };

const OVERWRITES: Served<'_> = Served { name: "tick, alpha, diverged", make: to_overwrite, alpha: true, ..PUSHES };

const LOSES_A_RACE: Served<'_> = Served {
    name: "tick that loses a race",
    make: to_lose_a_race,
    pass: RACING,
    // Killed before its job ran, a pass that races must come first: after a tick's push the rival has nothing to push onto.
    recoveries: &[[RACING, TICK], [RACING, RACING]],
    comes_to: &|s| {
        let mut all = same_as_upstream(s);
        let rivals = s.rev(&s.rival(), "HEAD");
        let kept = s.git_command(&s.ours()).args(["merge-base", "--is-ancestor", &rivals, "main"]).status();
        if !kept.unwrap().success() {
            all.push(format!("the rival's commit {rivals} is not in the branch"));
        }
        all
    },
    ..PUSHES
};

#[needs(strace)]
#[test]
fn http_init_sync_clones() {
    CLONES.over_http();
}

#[needs(strace)]
#[test]
fn http_sync_behind() {
    BEHIND.over_http();
}

#[needs(strace)]
#[test]
fn http_sync_diverged() {
    DIVERGED.over_http();
}

#[needs(strace)]
#[test]
fn http_tick_pushes() {
    PUSHES.over_http();
}

#[needs(strace)]
#[test]
fn http_tick_alpha_overwrites() {
    OVERWRITES.over_http();
}

#[needs(strace)]
#[test]
fn http_tick_loses_a_race() {
    LOSES_A_RACE.over_http();
}

#[needs(sshd, strace)]
#[test]
fn ssh_init_sync_clones() {
    CLONES.over_ssh();
}

#[needs(sshd, strace)]
#[test]
fn ssh_sync_behind() {
    BEHIND.over_ssh();
}

#[needs(sshd, strace)]
#[test]
fn ssh_sync_diverged() {
    DIVERGED.over_ssh();
}

#[needs(sshd, strace)]
#[test]
fn ssh_tick_pushes() {
    PUSHES.over_ssh();
}

#[needs(sshd, strace)]
#[test]
fn ssh_tick_alpha_overwrites() {
    OVERWRITES.over_ssh();
}

#[needs(sshd, strace)]
#[test]
fn ssh_tick_loses_a_race() {
    LOSES_A_RACE.over_ssh();
}

#[needs(strace)]
#[test]
fn http_init_sync_clones_with_a_depth() {
    CLONES_SHALLOW.over_http();
}

#[needs(strace)]
#[test]
fn http_tick_pushes_much() {
    PUSHES_MUCH.over_http();
}

#[needs(sshd, strace)]
#[test]
fn ssh_tick_pushes_much() {
    PUSHES_MUCH.over_ssh();
}
