//! Servers that do not send what they say: any one object left out, another pack, none at all. Whatever comes, nothing here
//! changes until all of it is here, and a good server puts things right in the next pass.
//!
//! The server is git's own: `uploadpack.packObjectsHook` has it send packs made of other objects than were asked for.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};

use scene::{Scene, write};
use servers::http::{Fault, HttpServer};

/// How a pass reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    HttpV2,
    HttpV0,
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Clone,
    InitSync,
    Sync,
    Tick,
}

/// What the server sends.
#[derive(Clone, Debug)]
enum Lie {
    Without(String),
    Only(Vec<String>),
    Nothing,
    CutShort,
}

/// An upstream with news, a clone of ours with commits that nobody else has, and a server that can lie.
struct Liar {
    scene: Scene,
    server: Option<HttpServer>,
    way: Way,
    news: String,
    base: String,
    own: String,
}

impl Liar {
    fn over(way: Way) -> Liar {
        let scene = Scene::without_ours();
        let hook = scene.root().join("pack");
        let lie = scene.root().join("lie");
        // `--not` as `^` before each commit: git before 2.42 does not take it from standard input.
        let script = format!(
            "#!/bin/sh\nread kind < {lie}\ncase $kind in\nwithout)\n\
             \tcat > {lie}.$$; sed -n 's/^--shallow //p' {lie}.$$ > {lie}.$$.cut\n\
             \tsed '/^--shallow /d; /^--not$/,$ s/^[0-9a-f]/^&/; /^--not$/d' {lie}.$$ |\n\
             \t\tgit --shallow-file {lie}.$$.cut rev-list --objects --stdin |\n\
             \t\tcut -d' ' -f1 | grep -v -x -F -f {lie} | git pack-objects -q --stdout ;;\n\
             only)\n\tcat > /dev/null; tail -n +2 {lie} | git pack-objects -q --stdout ;;\n\
             cut)\n\t\"$@\" | head -c 100 ;;\n*)\n\texec \"$@\" ;;\nesac\n",
            lie = lie.display()
        );
        write(&hook, &script);
        scene.git_in(
            scene.root(),
            &["config", "--global", "uploadpack.packObjectsHook", &format!("sh {}", hook.display())],
        );
        let base = scene.upstream_tip();
        let server = (way != Way::Path).then(|| {
            let server = HttpServer::over(scene.root(), false);
            server.env("GIT_CONFIG_GLOBAL", scene.root().join("home/.gitconfig").to_str().unwrap());
            if way == Way::HttpV0 {
                server.always(Fault::OldProtocol);
            }
            server
        });
        scene.git_upstream(&["config", "http.receivepack", "true"]);
        let mut liar = Liar { scene, server, way, news: String::new(), base, own: String::new() };
        liar.tells(None);
        let s = &liar.scene;
        fs::create_dir(s.ours()).unwrap();
        s.run(&["init-sync", "--remote-url", &liar.url()]).exits(0).says("cloned");
        s.we_commit("state/own").we_commit("own.txt");
        liar.own = s.our_tip();
        fs::rename(s.ours(), liar.template()).unwrap();
        // Two commits, one of them from aside, and their merge.
        s.rival_writes("docs/deep/page", "page\n").rival_writes("state/a", "a 2\n").rival_commits("third");
        s.git_in(&s.rival(), &["checkout", "-q", "-b", "aside", "HEAD~1"]);
        s.rival_writes("aside/b", "b\n").rival_commits("aside");
        s.git_in(&s.rival(), &["checkout", "-q", "main"]);
        s.git_in(&s.rival(), &["merge", "-q", "--no-ff", "-m", "merge", "aside"]);
        s.rival_writes("index.html", "page 3\n").rival_commits("fourth");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        liar.news = s.upstream_tip();
        liar
    }

    fn url(&self) -> String {
        match &self.server {
            Some(server) => format!("{}/upstream.git", server.origin()),
            None => self.scene.upstream().display().to_string(),
        }
    }

    fn template(&self) -> PathBuf {
        self.scene.root().join("template")
    }

    fn tells(&self, lie: Option<&Lie>) {
        let text = match lie {
            None => "truth\n".to_owned(),
            Some(Lie::Without(id)) => format!("without\n{id}\n"),
            Some(Lie::Only(ids)) => format!("only\n{}\n", ids.join("\n")),
            Some(Lie::Nothing) => "only\n".to_owned(),
            Some(Lie::CutShort) => "cut\n".to_owned(),
        };
        write(&self.scene.root().join("lie"), &text);
    }

    /// Every object that the pass has to fetch.
    fn objects(&self, pass: Pass) -> Vec<String> {
        let not = format!("^{}", self.base);
        let mut args = vec!["rev-list", "--objects", &self.news];
        if pass != Pass::Clone {
            args.push(&not);
        }
        let list = self.scene.git_upstream(&args);
        list.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    /// Ours as it was before, and upstream too.
    fn begin(&self, pass: Pass) {
        let s = &self.scene;
        let _ = fs::remove_dir_all(s.ours());
        s.git_upstream(&["update-ref", "refs/heads/main", &self.news]);
        if pass == Pass::Clone {
            fs::create_dir(s.ours()).unwrap();
        } else {
            s.git_in(s.root(), &["--version"]);
            let copied = std::process::Command::new("cp").arg("-a").arg(self.template()).arg(s.ours()).status();
            assert!(copied.unwrap().success());
        }
    }

    fn run(&self, pass: Pass) -> &Scene {
        let s = &self.scene;
        match pass {
            Pass::Clone | Pass::InitSync => s.run(&["init-sync", "--remote-url", &self.url()]),
            Pass::Sync => s.sync(),
            Pass::Tick => s.tick_with("mkdir -p state; date +%N > state/tick"),
        }
    }

    fn refs(&self) -> String {
        self.scene.git_ours(&["for-each-ref"])
    }

    /// The server lies in one pass, and is good in the next.
    fn lies_once(&self, pass: Pass, lie: &Lie) {
        let s = &self.scene;
        self.begin(pass);
        let before = if pass == Pass::Clone { String::new() } else { self.refs() };
        self.tells(Some(lie));
        self.run(pass);
        let last = s.last();
        assert!(matches!(last.code, Some(1 | 75)), "{lie:?} {pass:?} {:?}\n{last}", self.way);
        match lie {
            Lie::Without(id) if *id != self.news => s.logs(id),
            _ => s,
        };
        match pass {
            // It commits what its job wrote, on our own tip.
            Pass::Tick => {
                let others = |refs: &str| -> Vec<String> {
                    refs.lines().filter(|line| !line.ends_with("refs/heads/main")).map(str::to_owned).collect()
                };
                assert_eq!(others(&self.refs()), others(&before), "{lie:?}\n{last}");
                assert_eq!(s.rev(&s.ours(), "main~1"), self.own, "{lie:?}\n{last}");
            }
            _ => assert_eq!(self.refs(), before, "{lie:?} {pass:?}\n{last}"),
        }
        assert!(!s.private().join("broken").exists(), "{lie:?} {pass:?}\n{last}");
        assert!(!s.ours().join(".git/objects/tmp_objdir-gitsync").exists(), "{last}");
        s.fsck();
        if pass != Pass::Clone {
            s.is_kept(&self.own);
        }
        self.is_put_right(pass);
    }

    /// The server is good: one pass reaches the state that the rule demands.
    fn is_put_right(&self, pass: Pass) {
        let s = &self.scene;
        self.tells(None);
        let word = match pass {
            Pass::Clone => "cloned",
            Pass::InitSync => "reset",
            Pass::Sync => "diverged",
            Pass::Tick => "pushed",
        };
        self.run(pass).exits(0).says(word).fsck().ours_equals_upstream();
        assert!(!s.private().join("broken").exists(), "{}", s.last());
        if pass != Pass::Clone {
            s.is_kept(&self.own);
        }
        if pass != Pass::Tick {
            assert_eq!(s.our_tip(), self.news, "{}", s.last());
        }
        s.is_kept(&self.news);
    }

    /// Every object in turn is left out.
    fn leaves_out_each(&self, pass: Pass) {
        let objects = self.objects(pass);
        assert!(objects.len() > 10, "{objects:?}");
        for object in objects {
            self.lies_once(pass, &Lie::Without(object));
        }
    }

    /// Packs that have little to do with what was asked for.
    fn sends_others(&self, pass: Pass) {
        let objects = self.objects(pass);
        let others = self.scene.git_upstream(&["rev-list", "--objects", &self.base]);
        let others = others.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        let lies = [Lie::Nothing, Lie::Only(others), Lie::Only(vec![objects[0].clone()]), Lie::CutShort];
        for lie in lies {
            self.lies_once(pass, &lie);
        }
    }
}

macro_rules! lies {
    ($($name:ident: $way:ident $pass:ident;)*) => {
        mod leaves_out_each_object {
            use super::*;
            $(#[test]
            fn $name() {
                Liar::over(Way::$way).leaves_out_each(Pass::$pass);
            })*
        }
        mod sends_another_pack {
            use super::*;
            $(#[test]
            fn $name() {
                Liar::over(Way::$way).sends_others(Pass::$pass);
            })*
        }
    };
}

lies! {
    clone_by_v2: HttpV2 Clone;
    clone_by_v0: HttpV0 Clone;
    clone_by_path: Path Clone;
    init_sync_by_v2: HttpV2 InitSync;
    init_sync_by_v0: HttpV0 InitSync;
    sync_by_v2: HttpV2 Sync;
    sync_by_v0: HttpV0 Sync;
    sync_by_path: Path Sync;
    tick_by_v2: HttpV2 Tick;
    tick_by_v0: HttpV0 Tick;
}

/// Objects that lie here without what they need, as an earlier version and a person's `git unpack-objects` leave them, are
/// not taken for a history that is here.
#[test]
fn half_a_history_that_lies_here_is_fetched_whole() {
    for way in [Way::HttpV2, Way::Path] {
        let liar = Liar::over(way);
        for pass in [Pass::Sync, Pass::InitSync, Pass::Tick] {
            for left_out in liar.objects(pass) {
                if left_out == liar.news {
                    continue;
                }
                liar.begin(pass);
                let half: Vec<String> = liar.objects(pass).into_iter().filter(|id| *id != left_out).collect();
                lay_down(&liar.scene, &half, &liar.scene.ours());
                liar.is_put_right(pass);
            }
        }
    }
}

/// All of it is here, and only the reference was not moved: nothing has to be sent again.
#[test]
fn a_whole_history_that_lies_here_is_not_fetched_again() {
    let liar = Liar::over(Way::HttpV2);
    liar.begin(Pass::Sync);
    lay_down(&liar.scene, &liar.objects(Pass::Sync), &liar.scene.ours());
    liar.tells(Some(&Lie::Nothing));
    liar.scene.sync().exits(0).says("diverged").ours_equals_upstream().fsck().is_kept(&liar.own);
}

/// Objects of upstream, put into ours as they are.
fn lay_down(s: &Scene, ids: &[String], ours: &Path) {
    let list = s.root().join("list");
    write(&list, &format!("{}\n", ids.join("\n")));
    let pack = fs::File::create(s.root().join("some.pack")).unwrap();
    let made = s
        .git_command(&s.upstream())
        .args(["pack-objects", "-q", "--stdout"])
        .stdin(fs::File::open(&list).unwrap())
        .stdout(pack)
        .status();
    assert!(made.unwrap().success());
    let pack = fs::File::open(s.root().join("some.pack")).unwrap();
    let unpacked = s.git_command(ours).args(["unpack-objects", "-q"]).stdin(pack).status();
    assert!(unpacked.unwrap().success());
}

/// A shallow clone that is deepened: what comes from below the cut is checked too.
#[test]
fn history_from_below_a_cut_is_checked_too() {
    let liar = Liar::over(Way::Path);
    let s = &liar.scene;
    liar.tells(None);
    let url = format!("file://{}", s.upstream().display());
    let below = s.git_upstream(&["rev-list", "--objects", &liar.base]);
    for object in below.lines().map(|line| line.split(' ').next().unwrap()) {
        s.git_upstream(&["update-ref", "refs/heads/main", &liar.news]);
        let _ = fs::remove_dir_all(s.ours());
        s.git_in(s.root(), &["clone", "-q", "--depth", "1", &url, "ours"]);
        if s.git_command(&s.ours()).args(["cat-file", "-e", object]).status().unwrap().success() {
            continue;
        }
        // What the remote goes back to is below the cut: whether that is a divergence takes history to know.
        s.git_upstream(&["update-ref", "refs/heads/main", &format!("{}~1", liar.news)]);
        let cut = fs::read(s.ours().join(".git/shallow")).unwrap();
        let refs = liar.refs();
        liar.tells(Some(&Lie::Without(object.to_owned())));
        s.sync().says("error");
        assert!(matches!(s.last().code, Some(1 | 75)), "{}", s.last());
        s.fsck().logs(object);
        assert_eq!((liar.refs(), fs::read(s.ours().join(".git/shallow")).unwrap()), (refs, cut));
        liar.tells(None);
        s.sync().exits(0).says("diverged").fsck();
    }
}

/// A repository is put aside, and the server sends half of what is to take its place: our commits stay to be carried over.
#[test]
fn nothing_counts_as_carried_over_into_half_a_history() {
    for way in [Way::HttpV2, Way::Path] {
        let liar = Liar::over(way);
        let s = &liar.scene;
        for object in liar.objects(Pass::Clone) {
            liar.begin(Pass::InitSync);
            // What the remote has too.
            fs::remove_dir_all(s.ours().join(".git/objects/pack")).unwrap();
            liar.tells(Some(&Lie::Without(object.clone())));
            for _ in 0..2 {
                liar.run(Pass::InitSync);
                assert!(matches!(s.last().code, Some(1 | 75)), "{object}\n{}", s.last());
                assert_eq!(liar.refs(), "", "{}", s.last());
            }
            let aside: Vec<PathBuf> =
                fs::read_dir(s.private().join("broken")).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(aside.len(), 1, "{}", s.last());
            assert!(!aside[0].join("gitsync-carried").exists(), "{}", s.last());
            liar.tells(None);
            liar.run(Pass::InitSync).exits(0).says("cloned").fsck().ours_equals_upstream();
            assert!(!s.git_ours(&["for-each-ref", "--contains", &liar.own]).is_empty(), "{}", s.last());
            assert!(aside[0].join("gitsync-carried").exists(), "{}", s.last());
        }
    }
}

/// A dry run says what the pass would, and changes nothing.
#[test]
fn a_dry_run_says_so_too() {
    let liar = Liar::over(Way::Path);
    let s = &liar.scene;
    liar.begin(Pass::Sync);
    let before = s.snapshot();
    for object in liar.objects(Pass::Sync) {
        liar.tells(Some(&Lie::Without(object.clone())));
        s.run(&["sync", "--dry-run"]).exits(75).says("error").logs(&object);
        assert!(s.snapshot() == before, "{}", s.last());
    }
    liar.tells(None);
    s.run(&["sync", "--dry-run"]).exits(0).says("diverged");
}

/// A tree that says of a folder that it is a file: no later fetch will make that better, so a person is asked for.
#[test]
fn a_history_that_is_not_well_formed_is_refused() {
    let liar = Liar::over(Way::Path);
    let s = &liar.scene;
    liar.begin(Pass::Tick);
    let folder = s.rev(&s.upstream(), &format!("{}^{{tree}}", liar.news));
    let mut bytes = b"100644 x\0".to_vec();
    let digits = folder.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    bytes.extend(digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()));
    fs::write(s.root().join("tree"), bytes).unwrap();
    let path = s.root().join("tree");
    let tree = s.git_upstream(&["hash-object", "-t", "tree", "-w", "--literally", path.to_str().unwrap()]);
    let bad = s.git_upstream(&["commit-tree", &tree, "-p", &liar.news, "-m", "bad"]);
    let mut objects = liar.objects(Pass::Tick);
    objects.extend([tree, bad.clone()]);
    s.git_upstream(&["update-ref", "refs/heads/main", &bad]);
    let tracking = s.rev(&s.ours(), "refs/remotes/origin/main");
    liar.tells(Some(&Lie::Only(objects)));
    for pass in [Pass::Sync, Pass::InitSync, Pass::Tick] {
        liar.run(pass).exits(1).logs("what the server sent can't be used").logs(&folder).fsck().is_kept(&liar.own);
        assert_eq!(s.rev(&s.ours(), "refs/remotes/origin/main"), tracking, "{}", s.last());
        assert!(!s.private().join("broken").exists(), "{}", s.last());
    }
    assert_eq!(s.rev(&s.ours(), "main~1"), liar.own, "the tick commits all the same\n{}", s.last());
}
