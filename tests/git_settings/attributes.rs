//! Filter drivers, LFS and encodings, which gitsync does not apply: a commit leaves such a file out and names it, a follow writes
//! it as it is stored and says so once.

use std::fs;
use std::time::Instant;

use crate::scene::{Scene, write};

/// A driver that turns the letters of a file.
fn with_driver(s: &Scene) {
    s.git_ours(&["config", "filter.turn.clean", "tr a-z b-za"]);
    s.git_ours(&["config", "filter.turn.smudge", "tr b-za a-z"]);
}

/// Pushes an attribute file from the rival's side, and follows it.
fn with_attributes(text: &str) -> Scene {
    let s = Scene::new();
    s.rival_writes(".gitattributes", text).rival_pushes("pushed.txt").sync().exits(0).says("behind");
    s
}

/// "hi" in UTF-16, which git stores as UTF-8.
const UTF16: &[u8] = b"\xff\xfeh\0i\0";

/// What the rival has changed goes upstream.
fn rival_sends(s: &Scene) -> &Scene {
    s.rival_commits("changed").git_in(&s.rival(), &["push", "-q", "origin", "main"]);
    s
}

/// The paths of the commit at the tip of ours.
fn committed(s: &Scene) -> String {
    s.git_ours(&["show", "--format=", "--name-only", "HEAD"])
}

#[test]
fn a_file_with_a_configured_filter_is_named_and_left_out() {
    let s = with_attributes("*.t filter=turn\n");
    with_driver(&s);
    let job = "echo secret >state/x.t; echo plain >state/b";
    s.run(&["tick", "--dry-run", "--", "sh", "-c", job]).exits(0);
    s.tick_with(job).exits(1).says("pushed").logs("state/x.t was left out of the commit").logs("filter=turn");
    assert_eq!(committed(&s), "state/b");
    s.our_file("state/x.t", "secret\n");
    // It is said each time, and by a dry run too, as long as it lies there.
    s.run(&["tick", "--dry-run", "--", "true"]).exits(1).says("no-changes").logs("filter=turn");
    s.tick().exits(1).says("no-changes").logs("filter=turn");
    // With git it is committed as it is meant, and then it is nobody's business any more.
    s.git_ours(&["add", "state/x.t"]);
    s.git_ours(&["commit", "-qm", "by git"]);
    s.tick().exits(0).says("pushed").logs_not("filter=turn").upstream_file("state/x.t", "tfdsfu\n");
    s.tick().exits(0).says("no-changes").logs_not("filter=turn");
    // Its deletion needs no filter.
    s.tick_with("rm state/x.t").exits(0).says("pushed");
    assert_eq!(committed(&s), "state/x.t");
}

#[test]
fn each_way_to_configure_a_driver_counts() {
    for key in ["clean", "smudge", "process"] {
        let s = with_attributes("*.t filter=turn\n");
        s.git_ours(&["config", &format!("filter.turn.{key}"), "cat"]);
        s.tick_with("echo x >state/x.t").exits(1).says("no-changes").logs("filter=turn");
    }
}

#[test]
fn a_filter_without_a_driver_is_ignored_as_git_does() {
    let s = with_attributes("*.t filter=turn\n*.s filter\n*.u -filter\n");
    s.tick_with("for it in t s u; do echo x >state/x.$it; done").exits(0).says("pushed").logs_not("filter");
    assert_eq!(committed(&s), "state/x.s\nstate/x.t\nstate/x.u");
}

#[test]
fn a_file_under_lfs_is_left_out_whether_lfs_is_set_up_or_not() {
    let s = with_attributes("*.bin filter=lfs diff=lfs merge=lfs -text\n");
    s.tick_with("echo big >state/x.bin; echo plain >state/b").exits(1).says("pushed").logs("state/x.bin was left out");
    s.logs("LFS");
    assert_eq!(committed(&s), "state/b");
}

#[test]
fn another_encoding_is_left_out_and_utf8_is_none() {
    let s = with_attributes("*.w working-tree-encoding=UTF-16LE\n*.u working-tree-encoding=utf8\n");
    s.tick_with("printf 'a\\0' >state/x.w; echo plain >state/x.u").exits(1).says("pushed");
    s.logs("state/x.w was left out").logs("working-tree-encoding=UTF-16LE").logs_not("state/x.u was");
    assert_eq!(committed(&s), "state/x.u");
}

/// Attribute files in every place where git looks for them.
#[test]
fn attributes_count_wherever_git_finds_them() {
    let places: [(&str, &str); 4] = [
        ("state/.gitattributes", "state/x.t was left out"),
        (".git/info/attributes", "state/x.t was left out"),
        ("../home/.config/git/attributes", "state/x.t was left out"),
        ("../mine", "state/x.t was left out"),
    ];
    for (place, said) in places {
        let s = Scene::new();
        with_driver(&s);
        s.git_ours(&["config", "core.attributesFile", "../mine"]);
        if place.contains(".config") {
            s.git_ours(&["config", "--unset", "core.attributesFile"]);
        }
        write(&s.ours().join(place), "[attr]turned filter=turn\n*.t filter=turn\n");
        s.tick_with("echo x >state/x.t").exits(1).logs(said);
        s.run(&["tick", "--", "true"]).exits(1).logs(said);
    }
}

#[test]
fn a_macro_counts_and_a_later_line_takes_it_back() {
    let s = with_attributes("[attr]turned filter=turn\n*.t turned\nkept.t -filter\n");
    with_driver(&s);
    s.tick_with("echo x >state/x.t; echo x >state/kept.t")
        .exits(1)
        .logs("state/x.t was left out")
        .logs_not("kept.t was");
    assert_eq!(committed(&s), "state/kept.t");
}

#[test]
fn git_applies_nothing_to_a_link() {
    let s = with_attributes("*.t filter=turn\n");
    with_driver(&s);
    s.tick_with("ln -s a state/x.t").exits(0).says("pushed");
    assert_eq!(committed(&s), "state/x.t");
}

/// The file is written as it is stored; that is said once, and afterwards nothing is dirty.
#[test]
fn a_follow_says_once_what_it_does_not_apply() {
    let s = with_attributes("*.t filter=turn\n*.bin filter=lfs\n*.w working-tree-encoding=UTF-16\n*.n filter=none\n");
    with_driver(&s);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    for name in ["state/x.t", "state/y.t", "state/x.n"] {
        s.rival_writes(name, "stored\n");
    }
    fs::write(s.rival().join("state/x.w"), UTF16).unwrap();
    s.rival_writes("x.bin", pointer).rival_pushes("state/b").sync().exits(0).says("behind");
    let said = s.last().stderr;
    assert_eq!(said.matches("does not apply").count(), 1, "{said}");
    for what in
        ["filter=turn", "filter=lfs", "working-tree-encoding=UTF-16", "paths=4", "x.bin", "state/x.t", "state/x.w"]
    {
        assert!(said.contains(what), "{what}\n{said}");
    }
    assert!(!said.contains("x.n") && !said.contains("filter=none"), "{said}");
    s.our_file("state/x.t", "stored\n").our_file("x.bin", pointer).our_file("state/x.w", "hi");
    let tip = s.our_tip();
    s.sync().exits(0).says("up-to-date").logs_not("apply");
    s.tick().exits(0).says("no-changes").logs_not("apply").logs_not("left out");
    // Nor when something else comes in, or the files are only touched.
    s.isolated("touch").args(["ours/state/x.t", "ours/x.bin"]).status().unwrap();
    s.tick().exits(0).says("no-changes").logs_not("left out");
    s.rival_pushes("state/c").sync().exits(0).says("behind").logs_not("apply");
    s.init_sync().exits(0).says("up-to-date").logs_not("apply");
    assert_eq!(s.our_tip(), s.upstream_tip());
    assert_eq!(s.rescues(""), Vec::<String>::new(), "{}", s.last());
    assert_ne!(s.our_tip(), tip);
}

#[test]
fn a_clone_and_a_ticks_own_follow_say_it_too() {
    let s = Scene::without_ours();
    s.rival_writes(".gitattributes", "*.bin filter=lfs\n").rival_writes("x.bin", "1\n").rival_pushes("state/b");
    s.init_sync().exits(0).says("cloned").logs("filter=lfs").logs("x.bin");
    s.rival_writes("y.bin", "2\n").rival_pushes("state/b").tick().exits(0).logs("filter=lfs").logs("y.bin");
    s.logs_not("x.bin");
}

/// A rescue keeps the bytes of the file, not what a filter would make of them.
#[test]
fn a_rescue_keeps_the_bytes_of_a_filtered_file() {
    let s = with_attributes("*.t filter=turn\n*.bin filter=lfs\n*.w working-tree-encoding=UTF-16\n");
    with_driver(&s);
    let names = ["x.t", "x.bin", "x.w"];
    let rival_changes = |text: &str, encoded: &[u8]| {
        s.rival_writes("x.t", text).rival_writes("x.bin", text);
        fs::write(s.rival().join("x.w"), encoded).unwrap();
        rival_sends(&s).sync().exits(0).says("behind");
    };
    rival_changes("stored\n", UTF16);
    for name in names {
        fs::write(s.ours().join(name), b"dirty \0\xff\r\n").unwrap();
    }
    rival_changes("newer\n", b"\xff\xfen\0e\0w\0");
    let kept = s.rescues("worktree");
    assert_eq!(kept.len(), 1, "{}", s.last());
    for name in names {
        let object = s.git_ours(&["rev-parse", &format!("{}:{name}", kept[0])]);
        let out = s.git_command(&s.ours()).args(["cat-file", "blob", &object]).output().unwrap();
        assert_eq!(out.stdout, b"dirty \0\xff\r\n", "{name}");
    }
    s.our_file("x.t", "newer\n").our_file("x.bin", "newer\n").our_file("x.w", "new").fsck();
}

/// Not a bound, which a busy machine would break: `cargo test -- --ignored --nocapture` prints both times.
#[test]
#[ignore = "prints times"]
fn ten_thousand_files_with_and_without_attributes() {
    for text in ["", "* text=auto\n", "*.bin filter=lfs\n"] {
        let s = with_attributes(text);
        let job = "mkdir state/many; cd state/many; for i in $(seq 10000); do echo $i >$i; done";
        let began = Instant::now();
        s.tick_with(job).exits(0).says("pushed");
        let first = began.elapsed();
        let began = Instant::now();
        s.tick().exits(0).says("no-changes");
        println!("{text:?}: 10,000 new files {first:?}, nothing new {:?}", began.elapsed());
    }
}
