//! What was rescued: how to get it back. When it is let go is in `clock.rs`.

use std::fs;
use std::process::Command;

use crate::scene::Scene;

/// The commands that the last run's log gives for getting work back.
fn ways_back(s: &Scene) -> Vec<String> {
    let json = s.last().stderr;
    let lines = json.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let field = |line: serde_json::Value| {
        let places = [&line["get_back"], &line["fields"]["get_back"]];
        places.into_iter().find_map(|text| text.as_str().map(str::to_owned))
    };
    lines.filter_map(field).collect()
}

/// The log names the reference and the commands; those commands, as they stand, bring the work back.
#[test]
fn what_the_log_says_gets_the_work_back() {
    let s = Scene::new();
    s.rival_pushes("index.html").rival_pushes("only-theirs");
    s.we_commit("state/own").we_commit("state/more");
    let read = |path: &str| fs::read_to_string(s.ours().join(path)).unwrap();
    let (own_text, more_text) = (read("state/own"), read("state/more"));
    s.we_write("index.html", "mine, uncommitted\n");
    s.run(&["sync", "--log-format", "json"]).exits(0).says("diverged").ours_equals_upstream();
    let ways = ways_back(&s);
    assert_eq!(ways.len(), 2, "{}", s.last());
    let run = |command: &str| {
        let mut shell = Command::new("sh");
        let git = s.git_command(&s.ours());
        for (name, value) in git.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let out = shell.current_dir(s.ours()).args(["-c", command]).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let checkout = ways.iter().find(|way| way.starts_with("git checkout ")).unwrap();
    let pick = ways.iter().find(|way| way.starts_with("git cherry-pick ")).unwrap();
    run(pick);
    s.our_file("state/own", &own_text).our_file("state/more", &more_text).our_file("only-theirs", "rival 3\n");
    run(checkout);
    s.our_file("index.html", "mine, uncommitted\n").our_file("only-theirs", "rival 3\n");
    assert_eq!(s.git_ours(&["log", "--format=%s", "-2"]), "ours: state/more\nours: state/own");
    for name in s.rescues("") {
        assert!(ways.iter().any(|way| way.contains(&name)), "{name} is not in {ways:?}");
    }
}

/// Of a remote that alpha overwrote, both commits come back; of many files, all that were kept and no other.
#[test]
fn what_alpha_overwrote_and_many_files_come_back() {
    let s = Scene::new();
    s.alpha().we_commit("state/own").rival_pushes("one").rival_pushes("two");
    s.run(&["tick", "--log-format", "json", "--", "true"]).exits(0).says("pushed");
    let pick = ways_back(&s).into_iter().find(|way| way.starts_with("git cherry-pick ")).unwrap();
    s.git_ours(&pick.split(' ').skip(1).collect::<Vec<_>>());
    assert!(s.ours().join("one").exists() && s.ours().join("two").exists(), "{pick}");

    let s = Scene::new();
    for number in 0..12 {
        s.rival_writes(&format!("a {number}*"), "theirs\n").we_write(&format!("a {number}*"), "ours\n");
    }
    s.rival_writes("index.html", "theirs\n").rival_commits("many");
    s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s.run(&["sync", "--log-format", "json"]).exits(0).says("behind").ours_equals_upstream();
    let checkout = ways_back(&s).pop().unwrap();
    let out = Command::new("sh").current_dir(s.ours()).args(["-c", &checkout]).output().unwrap();
    assert!(out.status.success(), "{checkout}: {}", String::from_utf8_lossy(&out.stderr));
    for number in 0..12 {
        s.our_file(&format!("a {number}*"), "ours\n");
    }
    s.our_file("index.html", "theirs\n");
}

/// What a fetch left that was killed, and no `git gc` removes, goes at start-up.
#[test]
fn leftovers_of_fetches_go_at_start_up() {
    let s = Scene::new();
    let pack = s.ours().join(".git/objects/pack");
    for name in ["pack_git2_1234", "pack_git2_1234.idx.lock"] {
        fs::write(pack.join(name), "half").unwrap();
    }
    s.init_sync().exits(0);
    let left: Vec<_> = fs::read_dir(&pack).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("_git2_")), "{left:?}");
}

/// Two commits can begin with the same digits, and be rescued in the same second.
#[test]
fn a_name_that_is_taken_stays_with_the_commit_that_has_it() {
    let s = Scene::new();
    s.we_commit("state/own").rival_pushes("theirs");
    let (ours, first) = (s.our_tip(), s.rev(&s.ours(), "HEAD~2"));
    let now = gitsync::clock::now();
    let names: Vec<String> = (-2..90)
        .map(|second| (now + chrono::Duration::seconds(second)).format("%Y%m%dT%H%M%SZ"))
        .map(|stamp| format!("refs/gitsync/rescue/{stamp}-local-{}", &ours[..7]))
        .collect();
    fs::create_dir_all(s.ours().join(".git/refs/gitsync/rescue")).unwrap();
    for name in &names {
        fs::write(s.ours().join(".git").join(name), format!("{first}\n")).unwrap();
    }
    s.sync().exits(0).says("diverged").ours_equals_upstream();
    let all = s.rescues("local");
    assert_eq!(all[..names.len()], names, "{}", s.last());
    assert!(names.iter().all(|name| s.rev(&s.ours(), name) == first));
    assert_eq!(all[names.len()..].iter().map(|name| s.rev(&s.ours(), name)).collect::<Vec<_>>(), [ours]);
}

/// As with `git stash`, what is staged is the second parent: if it is nowhere else.
#[test]
fn what_is_staged_is_kept_where_neither_side_nor_the_file_has_it() {
    let parents = |staged: &str, file: &str| {
        let s = Scene::new();
        s.rival_writes("index.html", "theirs\n").rival_commits("theirs");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.we_write("index.html", staged).git_ours(&["add", "index.html"]);
        s.we_write("index.html", file).sync().exits(0).says("behind").ours_equals_upstream();
        let rescues = s.rescues("worktree");
        assert_eq!(rescues.len(), 1, "{rescues:?}");
        let kept = s.git_ours(&["show", &format!("{}:index.html", rescues[0])]);
        assert_eq!(format!("{kept}\n"), file);
        s.git_ours(&["log", "-1", "--format=%p", &rescues[0]])
            .split(' ')
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .iter()
            .map(|parent| s.git_ours(&["show", &format!("{parent}:index.html")]))
            .collect::<Vec<_>>()
    };
    assert_eq!(parents("staged\n", "in the file\n"), ["staged"]);
    assert_eq!(parents("in the file\n", "in the file\n"), [""; 0], "the file has it");
    assert_eq!(parents("theirs\n", "in the file\n"), [""; 0], "the remote has it");
}

/// A repository that was put aside has left its index, and took its objects along.
#[test]
fn an_index_whose_objects_are_gone_holds_up_no_first_follow() {
    let s = Scene::without_ours();
    s.git_in(s.root(), &["init", "-q", "-b", "main", "ours"]);
    let gone = "0123456789012345678901234567890123456789";
    s.git_ours(&["update-index", "--add", "--cacheinfo", &format!("100644,{gone},index.html")]);
    s.we_write("index.html", "mine\n").init_sync().exits(0).ours_equals_upstream().fsck();
    assert_eq!(s.git_ours(&["show", &format!("{}:index.html", s.rescues("worktree")[0])]), "mine");
}

#[test]
fn a_reference_in_the_place_of_the_rescues_folder_is_an_error_and_drops_nothing() {
    let s = Scene::new();
    s.we_commit("state/own").rival_pushes("theirs");
    let ours = s.our_tip();
    s.git_ours(&["update-ref", "refs/gitsync", "HEAD"]);
    s.sync().exits(1).says("error").logs("refs/gitsync");
    assert_eq!(s.our_tip(), ours);
    s.init_sync().exits(0).is_kept(&ours).sync().exits(0);
}

/// git has no tree for an index with a conflict. Its sides are commits, and the file is kept.
#[test]
fn a_conflict_in_the_index_holds_up_no_follow() {
    let s = Scene::new();
    let blob = s.rev(&s.ours(), "HEAD:index.html");
    let other = s.rev(&s.ours(), "HEAD:gone.txt");
    let sides = s.root().join("sides");
    fs::write(
        &sides,
        format!("0 {0} 0\tindex.html\n100644 {blob} 2\tindex.html\n100644 {other} 3\tindex.html\n", "0".repeat(40)),
    )
    .unwrap();
    let mut git = s.git_command(&s.ours());
    git.args(["update-index", "--index-info"]).stdin(fs::File::open(sides).unwrap());
    assert!(git.status().unwrap().success());
    s.we_write("index.html", "<<<<<<< mine\n").rival_pushes("index.html");
    s.we_write("state/a", "staged\n").git_ours(&["add", "state/a"]);
    s.we_write("state/a", "in the file\n");
    s.sync().exits(0).says("behind").ours_equals_upstream().fsck();
    assert_eq!(s.git_ours(&["show", &format!("{}:index.html", s.rescues("worktree")[0])]), "<<<<<<< mine");
    assert_eq!(s.git_ours(&["show", &format!("{}:state/a", s.rescues("worktree")[0])]), "in the file");
    assert_eq!(s.git_ours(&["ls-files", "--unmerged"]), "");
}

/// git does not wait until what it adds is on disk, so a power loss can leave the index without it. The rest is kept.
#[test]
fn what_is_staged_and_has_no_object_holds_up_no_pass() {
    for (path, also_staged) in [("lost", false), ("index.html", true)] {
        let s = Scene::new();
        let gone = format!("100644,0123456789012345678901234567890123456789,{path}");
        s.git_ours(&["update-index", "--add", "--cacheinfo", &gone]);
        s.we_write("later", "").git_ours(&["add", "-N", "later"]);
        if also_staged {
            s.we_write("state/a", "staged\n").git_ours(&["add", "state/a"]);
            s.we_write("state/a", "in the file\n");
        }
        s.rival_pushes("news.txt").sync().exits(0).says("behind").logs(&format!("can't be kept path={path}")).fsck();
        assert_eq!(s.our_tip(), s.upstream_tip());
        assert_eq!(s.git_ours(&["status", "--porcelain"]), " A later");
        let rescues = s.rescues("worktree");
        assert_eq!(rescues.len(), usize::from(also_staged), "{rescues:?}");
        if also_staged {
            assert_eq!(s.git_ours(&["show", &format!("{}^2:state/a", rescues[0])]), "staged");
            assert_eq!(s.git_ours(&["ls-tree", "--name-only", &format!("{}^2", rescues[0]), "lost", "later"]), "");
        }
    }
}
