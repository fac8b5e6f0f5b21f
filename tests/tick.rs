//! `gitsync tick`: what it commits and what it leaves, what it runs, and how a push ends.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "tick/paths.rs"]
mod paths;
mod scene;
use std::fs;

use needs::needs;
use scene::{Scene, write};

/// The paths that a commit changes against its first parent.
fn changed(s: &Scene, commit: &str) -> Vec<String> {
    let list = s.git_ours(&["diff-tree", "-r", "--root", "--no-commit-id", "--name-only", commit]);
    list.lines().map(str::to_owned).collect()
}

/// A line of shell with which the rival pushes a commit; for a job, to make it a race.
fn rival_pushes_now(s: &Scene, path: &str) -> String {
    format!(
        "(cd '{}' && git fetch -q && git reset -q --hard origin/main && date +%N >{path} && git add -A \
         && git commit -qm 'in the middle' && git push -q origin main)",
        s.rival().display()
    )
}

mod what_is_committed {
    use super::*;

    #[test]
    fn new_changed_and_deleted_files_under_state_and_audit() {
        let s = Scene::without_ours();
        s.rival_writes("state/old", "to go\n").rival_writes("audit/log", "1\n").rival_commits("more");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.init_sync();
        let before = s.our_tip();
        s.tick_with(
            "echo 2 >>audit/log; rm state/old; mkdir -p state/deep/er; echo x >state/deep/er/new; echo y >page.html",
        );
        s.exits(0).says("pushed").ours_equals_upstream().fsck();
        assert_eq!(changed(&s, "HEAD"), ["audit/log", "state/deep/er/new", "state/old"]);
        assert_eq!(s.rev(&s.ours(), "HEAD~1"), before);
        s.upstream_file("audit/log", "1\n2\n").our_file("page.html", "y\n");
        assert_eq!(s.git_ours(&["status", "--porcelain"]), "?? page.html");
        s.tick().exits(0).says("no-changes");
    }

    #[test]
    fn whatever_else_is_staged_or_dirty_stays_so() {
        let s = Scene::new();
        s.we_write("index.html", "staged\n").we_write("added.txt", "added\n").we_write("state/b", "staged too\n");
        s.git_ours(&["add", "index.html", "added.txt", "state/b"]);
        s.git_ours(&["rm", "-q", "--cached", "gone.txt"]);
        s.we_write("index.html", "and edited\n")
            .we_write("state/b", "edited in state\n")
            .we_write("free.txt", "free\n");
        let outside = [":(exclude)state"];
        let staged = s.git_ours(&["diff", "--cached", "--", outside[0]]);
        let dirty = s.git_ours(&["diff", "--", outside[0]]);
        s.tick_with("echo c >state/c").exits(0).says("pushed").fsck();
        // What lay there when the tick began is a commit of its own.
        assert_eq!((changed(&s, "HEAD~1"), changed(&s, "HEAD")), (vec!["state/b".into()], vec!["state/c".into()]));
        s.upstream_file("state/b", "edited in state\n")
            .upstream_file("index.html", "page 2\n")
            .upstream_file("gone.txt", "old\n");
        assert_eq!(s.git_ours(&["diff", "--cached", "--", outside[0]]), staged);
        assert_eq!(s.git_ours(&["diff", "--", outside[0]]), dirty);
        assert_eq!(s.git_ours(&["status", "--porcelain", "state"]), "");
        s.our_file("index.html", "and edited\n").our_file("free.txt", "free\n").our_file("gone.txt", "old\n");
        assert!(s.rescues("").is_empty());
    }

    #[test]
    fn a_mode_that_is_staged_already() {
        let s = Scene::new();
        s.tick_with("chmod +x state/a; git add state/a").exits(0).says("pushed").ours_equals_upstream();
        assert!(s.git_ours(&["ls-tree", "HEAD", "state/a"]).starts_with("100755"), "{}", s.last());
    }

    #[test]
    fn ignored_files_are_not_and_tracked_ones_that_are_ignored_are() {
        let s = Scene::without_ours();
        s.rival_writes(".gitignore", "*.tmp\nstate/cache/\n").rival_writes("state/kept.tmp", "1\n");
        s.git_in(&s.rival(), &["add", "-f", "state/kept.tmp"]);
        s.rival_commits("ignores");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.init_sync();
        s.tick_with(
            "echo 2 >state/kept.tmp; echo x >state/x.tmp; mkdir state/cache; echo y >state/cache/y; echo z >state/z",
        );
        s.exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/kept.tmp", "state/z"]);
        s.tick_with("echo more >state/more.tmp").exits(0).says("no-changes");
    }

    #[test]
    fn paths_with_a_common_beginning_are_not_taken_for_one_another() {
        let s = Scene::without_ours();
        for path in ["state-x/b", "state.txt", "state0", "audit", "State/a"] {
            s.rival_writes(path, "1\n");
        }
        s.rival_commits("look-alikes");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.init_sync();
        let job = "for f in state-x/b state.txt state0 State/a state/a; do echo 2 >$f; done; \
                   echo n >state-x/new; echo n >state-new; echo n >state/new; echo n >State/new";
        s.tick_with(job).exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/a", "state/new"]);
    }

    #[test]
    fn paths_as_given_by_flag_and_by_environment() {
        let s = Scene::new();
        let job = "mkdir -p x/y z; echo 1 >x/y/f; echo 1 >z/f; echo 1 >state/f; echo 1 >one.json";
        s.run(&["tick", "--path", "x/", "--path", "./one.json", "--", "sh", "-c", job]).exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["one.json", "x/y/f"]);
        s.env("GIT_SYNC_PATHS", " z/  nowhere ").tick().exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["z/f"]);
        // The flag wins.
        s.run(&["tick", "--path", "state", "--", "true"]).exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/f"]);
        s.run(&["tick", "--path", "one.json", "--", "rm", "one.json"]).exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["one.json"]);
    }

    #[test]
    fn the_whole_tree_when_told_so() {
        let s = Scene::new();
        s.run(&["tick", "--path", ".", "--", "sh", "-c", "echo 1 >new; rm gone.txt; echo 3 >state/a"]).exits(0);
        assert_eq!(changed(&s, "HEAD"), ["gone.txt", "new", "state/a"]);
        s.says("pushed").ours_equals_upstream();
    }

    #[test]
    fn a_path_that_leads_out_is_a_usage_error() {
        let s = Scene::new();
        for bad in ["/etc", "..", "state/../..", ".git", "state/.git/x", ""] {
            s.run(&["tick", "--path", bad, "--", "touch", "state/ran"]).exits(2).says("error").logs("--path");
        }
        s.env("GIT_SYNC_PATHS", "state ../x").tick().exits(2).says("error");
        assert!(!s.ours().join("state/ran").exists());
    }

    #[test]
    fn names_with_blanks_and_line_ends_and_letters_beyond_ascii() {
        let s = Scene::new();
        s.tick_with("printf 1 >'state/a b'; printf 2 >'state/ü✓'; printf 3 >\"state/line\nend\"; printf 4 >'state/-x'");
        s.exits(0).says("pushed").ours_equals_upstream().fsck();
        assert_eq!(changed(&s, "HEAD").len(), 4);
    }

    #[test]
    fn modes_and_links_and_a_file_that_becomes_a_folder() {
        let s = Scene::new();
        s.tick_with("chmod +x state/a; ln -s /etc/passwd state/link; echo f >state/f").exits(0).says("pushed");
        let listed = s.git_upstream(&["ls-tree", "main", "state/"]);
        assert!(listed.contains("100755 blob") && listed.contains("120000 blob"), "{listed}");
        assert_eq!(s.git_upstream(&["show", "main:state/link"]), "/etc/passwd");
        s.tick_with("rm state/f; mkdir state/f; echo in >state/f/in").exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/f", "state/f/in"]);
        s.tick_with("rm -r state/f; echo file >state/f").exits(0).says("pushed").upstream_file("state/f", "file\n");
        s.ours_equals_upstream().fsck();
    }

    #[test]
    fn through_a_link_in_place_of_a_path_nothing_is_taken() {
        let s = Scene::new();
        write(&s.root().join("outside/secret"), "not ours\n");
        let job = format!("rm -r state; ln -s '{}' state", s.root().join("outside").display());
        s.tick_with(&job).exits(1).logs("state").logs("symbolic link");
        assert_eq!(s.our_tip(), s.upstream_tip());
        assert_eq!(fs::read_to_string(s.root().join("outside/secret")).unwrap(), "not ours\n");
    }

    #[test]
    fn a_whole_path_that_is_gone_is_named_and_its_deletion_not_committed() {
        let s = Scene::new();
        let before = s.our_tip();
        s.tick_with("rm -r state; mkdir audit; echo 1 >audit/log").exits(1).says("pushed").logs("state was left out");
        assert_eq!(changed(&s, "HEAD"), ["audit/log"]);
        assert_eq!(s.rev(&s.ours(), "HEAD~1"), before);
        s.upstream_file("state/a", "a 1\n");
        // The last file of a path may go: the folder is there.
        s.git_ours(&["checkout", "-q", "state"]);
        s.tick_with("rm state/a").exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/a"]);
        // And from now on there is nothing under it to miss.
        s.tick_with("rmdir state").exits(0).says("no-changes");
    }

    #[test]
    fn line_endings_are_converted_as_git_would() {
        let s = Scene::without_ours();
        s.rival_writes(".gitattributes", "*.txt text eol=crlf\n").rival_commits("attributes");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.init_sync();
        s.tick_with("printf 'a\\r\\nb\\r\\n' >state/t.txt").exits(0).says("pushed");
        assert_eq!(s.git_upstream(&["cat-file", "-s", "main:state/t.txt"]), "4");
        s.tick().exits(0).says("no-changes");
        s.work_tree_is_clean();
    }

    #[test]
    fn nothing_changed_is_said_and_nothing_is_made() {
        let s = Scene::new();
        let before = s.our_tip();
        s.run(&["tick", "--output", "json", "--", "touch", "state/a"]).exits(0);
        let json = s.json();
        assert_eq!((&json["result"], &json["commit"]), (&"no-changes".into(), &serde_json::Value::Null));
        assert_eq!((&json["pushed"], &json["job_exit_code"]), (&false.into(), &0.into()));
        assert_eq!((s.our_tip(), s.upstream_tip()), (before.clone(), before));
        // Written anew with the same content is no change either.
        s.tick_with("cp state/a state/b; mv state/b state/a").exits(0).says("no-changes");
    }

    #[test]
    fn its_objects_are_one_pack() {
        let s = Scene::new();
        let counted = |s: &Scene| {
            let told = s.git_ours(&["count-objects", "-v"]);
            let number = |name: &str| -> u32 {
                told.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
            };
            (number("count:"), number("packs:"), number("in-pack:"))
        };
        let (loose, packs, packed) = counted(&s);
        s.tick_with("echo a >state/a; echo b >state/b; mkdir -p audit; echo c >audit/c").exits(0).says("pushed");
        // Three files, three trees, a commit.
        assert_eq!(counted(&s), (loose, packs + 1, packed + 7));
        // A file too large to be kept in memory is an object of its own; so is one that git converts.
        s.tick_with("head -c 700000 /dev/urandom >state/large; echo d >state/d").exits(0).says("pushed");
        assert_eq!(counted(&s), (loose + 1, packs + 2, packed + 7 + 4));
        // What is there already is not written again.
        s.tick_with("cp state/a state/e").exits(0).says("pushed");
        assert_eq!(counted(&s), (loose + 1, packs + 3, packed + 7 + 4 + 3));
        s.fsck();
    }

    /// With much in memory, files become objects of their own. A link's object is its target's name, never what it leads to.
    #[test]
    fn links_beside_many_large_files_are_links() {
        let s = Scene::new();
        let secret = s.root().join("secret");
        write(&secret, "outside\n");
        s.tick_with(
            "mkdir -p state/b; for n in $(seq 40); do head -c 500000 /dev/urandom >state/b/$n; done
             ln -s ../../secret state/z1; ln -s nowhere state/z2; ln -s b state/z3; printf '\\0%01000000d' 1 >state/z4",
        )
        .exits(0)
        .says("pushed");
        let kept = |path: &str| s.git_ours(&["cat-file", "-p", &format!("HEAD:{path}")]);
        assert_eq!(["state/z1", "state/z2", "state/z3"].map(kept), ["../../secret", "nowhere", "b"]);
        assert_eq!(s.git_ours(&["cat-file", "-s", "HEAD:state/z4"]), "1000001");
        s.work_tree_is_clean().fsck();
    }

    /// Somebody takes a file out of git and ignores it: what is written to it from then on is not for others.
    #[test]
    fn not_a_file_that_was_taken_out_and_is_ignored() {
        let s = Scene::new();
        s.tick_with("echo 1 >state/a; echo 1 >state/b").exits(0).says("pushed");
        write(&s.ours().join(".gitignore"), "state/a\n");
        s.git_ours(&["rm", "-q", "--cached", "state/a"]);
        s.tick_with("echo secret >state/a; echo 2 >state/b").exits(0).says("pushed");
        assert_eq!(s.git_ours(&["ls-tree", "-r", "--name-only", "HEAD", "state"]), "state/b");
        assert_eq!(std::fs::read_to_string(s.ours().join("state/a")).unwrap(), "secret\n");
    }

    #[test]
    fn on_top_of_what_the_remote_has() {
        let s = Scene::new();
        s.rival_pushes("news.txt");
        s.run(&["tick", "--output", "json", "--", "sh", "-c", "cat news.txt >state/copy"]).exits(0);
        let json = s.json();
        assert_eq!((&json["result"], &json["state"]), (&"pushed".into(), &"behind".into()));
        s.ours_equals_upstream().upstream_file("state/copy", "rival 2\n");
        assert_eq!(
            (&json["commit"], &json["local"], &json["remote"]),
            (&s.our_tip().into(), &s.our_tip().into(), &s.our_tip().into())
        );
        assert_eq!((&json["pushed"], &json["forced"]), (&true.into(), &false.into()));
    }
}

mod what_it_says {
    use super::*;

    #[test]
    fn message_and_time() {
        let s = Scene::new();
        let began = gitsync::clock::now().timestamp();
        s.tick_with("echo 1 >state/b").exits(0).says("pushed");
        let message = s.git_ours(&["log", "-1", "--format=%B"]);
        let time = message.trim_end().strip_prefix("chore(state): tick at ").unwrap();
        assert!(time.ends_with('Z') && time.len() == "2026-11-22T22:00:00Z".len(), "{time}");
        let told = chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp();
        assert!(told >= began && told <= gitsync::clock::now().timestamp(), "{time}");
        let out = s.git_command(&s.ours()).args(["cat-file", "commit", "HEAD"]).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).ends_with(&format!("at {time}\n")), "ends as git's own do");
        let made = s.git_ours(&["log", "-1", "--format=%at %ct %ai"]);
        assert!(made.starts_with(&format!("{told} {told} ")) && made.ends_with(" +0000"), "{made}");
    }

    #[test]
    fn the_message_as_given() {
        let s = Scene::new();
        s.env("GIT_SYNC_MESSAGE", "from the environment").tick_with("echo 1 >state/b").says("pushed");
        assert_eq!(s.git_ours(&["log", "-1", "--format=%B"]).trim_end(), "from the environment");
        let message = "{time} {other}\n\nbody {time}";
        s.run(&["tick", "--message", message, "--", "sh", "-c", "echo 2 >state/b"]).says("pushed");
        let said = s.git_ours(&["log", "-1", "--format=%B"]);
        assert!(said.starts_with("20") && said.contains(" {other}\n\nbody 20"), "{said}");
    }

    #[test]
    fn identity_from_the_environment() {
        let s = Scene::new();
        s.env("GIT_AUTHOR_NAME", "An Author").env("GIT_AUTHOR_EMAIL", "author@example.org");
        s.env("GIT_COMMITTER_NAME", "A Committer").env("GIT_COMMITTER_EMAIL", "committer@example.org");
        s.tick_with("echo 1 >state/b").says("pushed");
        let who = "An Author <author@example.org> A Committer <committer@example.org>";
        assert_eq!(s.git_ours(&["log", "-1", "--format=%an <%ae> %cn <%ce>"]), who);
    }

    #[test]
    fn identity_from_gits_configuration() {
        let s = Scene::new();
        for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
            s.env(name, "");
        }
        s.git_ours(&["config", "--unset", "user.name"]);
        s.git_ours(&["config", "--unset", "user.email"]);
        write(&s.root().join("home/.gitconfig"), "[user]\nname = Con Fig\nemail = config@example.org\n");
        s.tick_with("echo 1 >state/b").says("pushed");
        let who = "Con Fig <config@example.org> Con Fig <config@example.org>";
        assert_eq!(s.git_ours(&["log", "-1", "--format=%an <%ae> %cn <%ce>"]), who);
    }

    #[test]
    fn an_identity_with_line_ends_and_brackets_makes_no_broken_commit() {
        let s = Scene::new();
        s.env("GIT_AUTHOR_NAME", " An\n <Author> ").env("GIT_AUTHOR_EMAIL", "<author@example.org>\n");
        s.env("GIT_COMMITTER_NAME", "\n").env("GIT_COMMITTER_EMAIL", " ");
        s.git_ours(&["config", "user.name", "Con\nFig"]);
        for state in ["1", "2"] {
            s.tick_with(&format!("echo {state} >state/b")).exits(0).says("pushed");
        }
        let who = "An Author <author@example.org> ConFig <person@example.org>";
        assert_eq!(s.git_ours(&["log", "-1", "--format=%an <%ae> %cn <%ce>"]), who);
        s.init_sync().exits(0);
        assert_eq!(s.git_ours(&["config", "--local", "user.name"]), " An Author ");
        s.git_ours(&["fsck", "--full", "--strict"]);
    }

    #[test]
    fn identity_when_nobody_names_one() {
        let s = Scene::new();
        for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
            s.env(name, "");
        }
        s.git_ours(&["config", "--unset", "user.name"]);
        s.git_ours(&["config", "--unset", "user.email"]);
        s.tick_with("echo 1 >state/b").exits(0).says("pushed");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let who = format!("gitsync <gitsync@{host}>");
        assert_eq!(s.git_ours(&["log", "-1", "--format=%an <%ae>"]), who);
        assert_eq!(s.git_ours(&["log", "-1", "--format=%cn <%ce>"]), who);
    }
}

mod the_job {
    use super::*;

    #[test]
    fn as_a_program_with_arguments_that_no_shell_reads() {
        let s = Scene::new();
        s.run(&["tick", "--", "touch", "state/a b;c $HOME", "--", "state/--path"]).exits(0).says("pushed");
        assert!(s.ours().join("state/a b;c $HOME").exists() && s.ours().join("state/--path").exists());
    }

    #[test]
    fn as_a_line_for_the_shell() {
        let s = Scene::new();
        s.run(&["tick", "--tick-command", "pwd >state/where && echo told"]).exits(0).says("pushed").logs("told");
        assert_eq!(s.git_ours(&["show", "HEAD:state/where"]), s.ours().canonicalize().unwrap().to_str().unwrap());
        s.env("GIT_SYNC_TICK_COMMAND", "echo env >state/env").run(&["tick"]).exits(0).says("pushed");
        s.upstream_file("state/env", "env\n");
        // What follows `--` wins over both.
        s.run(&["tick", "--tick-command", "echo no >state/no", "--", "true"]).exits(0).says("no-changes");
        assert!(!s.ours().join("state/no").exists());
    }

    #[needs(python3)]
    #[test]
    fn by_default_the_python_module() {
        let s = Scene::without_ours();
        let main = "import pathlib, sys\nassert sys.argv[1:] == ['tick'], sys.argv\n\
                    pathlib.Path('state/by-python').write_text('ticked\\n')\n";
        s.rival_writes("src/__init__.py", "").rival_writes("src/main.py", main).rival_commits("the job");
        s.git_in(&s.rival(), &["push", "-q", "origin", "main"]);
        s.init_sync();
        s.run(&["tick"]).exits(0).says("pushed").upstream_file("state/by-python", "ticked\n");
        assert_eq!(changed(&s, "HEAD"), ["state/by-python"]);
    }

    #[test]
    fn its_failure_is_an_error_but_what_it_wrote_is_pushed() {
        let s = Scene::new();
        let job = "echo evidence >state/b; echo on stderr >&2; exit 7";
        s.run(&["tick", "--output", "json", "--", "sh", "-c", job]).exits(1).logs("on stderr");
        let json = s.json();
        assert_eq!(
            (&json["result"], &json["exit_code"], &json["job_exit_code"]),
            (&"pushed".into(), &1.into(), &7.into())
        );
        assert!(json["error"].as_str().unwrap().contains("the job exited with status 7"), "{json}");
        s.ours_equals_upstream().upstream_file("state/b", "evidence\n");
        s.tick_with("exit 7").exits(1).says("no-changes");
        assert_eq!(s.last().stderr.matches("ERROR").count(), 1, "{}", s.last());
    }

    #[test]
    fn its_time_is_up_and_what_it_wrote_is_pushed() {
        let s = Scene::new();
        let job = "echo begun >state/b; exec sleep 1000";
        s.run(&["tick", "--job-timeout", "1s", "--output", "json", "--", "sh", "-c", job])
            .exits(1)
            .logs("longer than 1s");
        assert_eq!((&s.json()["result"], &s.json()["job_exit_code"]), (&"pushed".into(), &serde_json::Value::Null));
        s.ours_equals_upstream().upstream_file("state/b", "begun\n");
    }

    #[test]
    fn ended_by_a_signal() {
        let s = Scene::new();
        let job = "echo begun >state/b; kill -SEGV $$";
        s.run(&["tick", "--output", "json", "--", "sh", "-c", job]).exits(1).logs("SIGSEGV");
        assert_eq!((&s.json()["result"], &s.json()["job_exit_code"]), (&"pushed".into(), &139.into()));
        s.ours_equals_upstream();
    }

    #[test]
    fn that_can_not_be_started() {
        let s = Scene::new();
        s.we_write("state/b", "of before\n");
        s.run(&["tick", "--", "no-such-program"]).exits(1).says("pushed").logs("no-such-program");
        s.upstream_file("state/b", "of before\n");
    }

    #[test]
    fn knows_what_the_pass_knows() {
        let s = Scene::new();
        s.rival_pushes("news.txt");
        let theirs = s.upstream_tip();
        s.tick_with("env | grep ^GITSYNC_ | sort >state/env").exits(0).says("pushed");
        let env = s.git_ours(&["show", "HEAD:state/env"]);
        for line in
            ["GITSYNC_BRANCH=main", "GITSYNC_COMMAND=tick", "GITSYNC_MODE=non-alpha", &format!("GITSYNC_HEAD={theirs}")]
        {
            assert!(env.lines().any(|had| had == line), "no {line} in\n{env}");
        }
        assert!(env.contains(&format!("GITSYNC_REMOTE_HEAD={theirs}")), "{env}");
    }

    #[test]
    fn that_commits_by_itself() {
        let s = Scene::new();
        let before = s.our_tip();
        s.tick_with("echo own >own.txt; git add own.txt; git commit -qm own; echo b >state/b").exits(0).says("pushed");
        s.ours_equals_upstream();
        assert_eq!(changed(&s, "HEAD"), ["state/b"]);
        assert_eq!(changed(&s, "HEAD~1"), ["own.txt"]);
        assert_eq!(s.rev(&s.ours(), "HEAD~2"), before);
        // And where it leaves nothing for us to commit, its own commit is pushed all the same.
        s.tick_with("echo own >own2.txt; git add own2.txt; git commit -qm own2").exits(0).says("pushed");
        s.ours_equals_upstream();
    }

    #[test]
    fn that_pushes_by_itself() {
        let s = Scene::new();
        let job = "echo own >own.txt; git add own.txt; git commit -qm own; git push -q origin main";
        s.tick_with(job).exits(0).says("pushed").ours_equals_upstream().logs_not("lost");
        let job = format!("{}; echo b >state/b", job.replace("own.txt", "own2.txt"));
        // Its push overtook ours: what the remote has is a part of what we push.
        s.tick_with(&job);
        s.tick().exits(0).ours_equals_upstream().upstream_file("state/b", "b\n").upstream_file("own2.txt", "own\n");
        assert!(s.rescues("").is_empty(), "{}", s.last());
    }

    #[test]
    fn that_switches_the_branch() {
        let s = Scene::new();
        let before = s.our_tip();
        s.tick_with("echo b >state/b; git checkout -q -b elsewhere").exits(1).says("error").logs("elsewhere");
        s.logs("git switch main").our_file("state/b", "b\n");
        assert_eq!(
            (s.our_tip(), s.upstream_tip(), s.rev(&s.ours(), "elsewhere")),
            (before.clone(), before.clone(), before)
        );
        s.git_ours(&["checkout", "-q", "main"]);
        s.tick().exits(0).says("pushed").upstream_file("state/b", "b\n");
    }

    #[test]
    fn that_detaches_head() {
        let s = Scene::new();
        let before = s.our_tip();
        s.tick_with("git checkout -q --detach; echo b >state/b; git commit -q --allow-empty -m lost")
            .exits(1)
            .says("error");
        let detached = s.rev(&s.ours(), "HEAD");
        assert_eq!((s.our_tip(), s.upstream_tip()), (before.clone(), before));
        s.our_file("state/b", "b\n");
        s.init_sync().exits(0).is_kept(&detached);
    }

    #[test]
    fn that_goes_back_in_history() {
        let s = Scene::new();
        let tip = s.our_tip();
        s.tick_with("git reset -q --hard HEAD~1; echo b >state/b").exits(75).says("push-failed");
        assert_eq!(s.upstream_tip(), tip, "non-alpha moves the remote by fast-forward only");
        let ours = s.our_tip();
        s.sync().exits(0).says("diverged").ours_equals_upstream().is_kept(&ours);
    }

    #[test]
    fn that_leaves_an_index_lock_behind() {
        let s = Scene::new();
        s.tick_with("echo b >state/b; touch .git/index.lock");
        // However this tick ended, nothing is lost and the next passes get over it.
        s.our_file("state/b", "b\n");
        let lock = s.ours().join(".git/index.lock");
        if lock.exists() {
            fs::File::open(&lock).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        s.tick().exits(0).upstream_file("state/b", "b\n").ours_equals_upstream();
    }

    #[test]
    fn that_removes_the_repository() {
        let s = Scene::new();
        s.tick_with("rm -rf .git").exits(1).says("error");
        s.init_sync().exits(0).ours_equals_upstream();
    }
}

mod what_is_left_out {
    use super::*;

    fn left_out(s: &Scene, name: &str, job: &str, why: &str) {
        s.tick_with(&format!("echo good >'state/z {name}'; {job}")).exits(1).says("pushed");
        let last = s.last();
        let naming = last.stderr.lines().filter(|line| line.contains(name) && line.contains("left out")).count();
        assert_eq!(naming, 1, "named once\n{last}");
        s.logs(why);
        assert_eq!(changed(s, "HEAD"), [format!("state/z {name}")], "{last}");
        assert_eq!(s.our_tip(), s.upstream_tip());
        s.fsck();
        s.tick().exits(1).says("no-changes").logs(name);
    }

    #[test]
    fn a_file_that_is_too_large() {
        let s = Scene::new();
        s.arg("--max-file-size").arg("1KiB");
        left_out(&s, "huge", "head -c 1025 /dev/zero >state/huge", "(1025 bytes, not 1024)");
        s.tick_with("head -c 1024 /dev/zero >state/huge").exits(0).says("pushed");
        // One that was committed before it grew keeps its last good version upstream.
        s.tick_with("head -c 2000 /dev/zero >state/huge").exits(1).says("no-changes");
        assert_eq!(s.git_upstream(&["cat-file", "-s", "main:state/huge"]), "1024");
    }

    #[test]
    fn a_repository_of_its_own() {
        let s = Scene::new();
        left_out(&s, "nested", "git init -q state/nested; echo x >state/nested/x", "a repository of its own");
    }

    #[test]
    fn a_repository_of_its_own_with_a_commit() {
        let s = Scene::new();
        let job = "git init -q state/nested; cd state/nested; echo x >x; git add x; git commit -qm x";
        left_out(&s, "nested", job, "a repository of its own");
    }

    #[test]
    fn a_fifo() {
        let s = Scene::new();
        left_out(&s, "pipe", "mkfifo state/pipe", "FIFO");
    }

    #[test]
    fn a_fifo_where_a_tracked_file_was() {
        let s = Scene::new();
        s.tick_with("rm state/a; mkfifo state/a; echo good >state/b").exits(1).says("pushed").logs("state/a");
        s.upstream_file("state/b", "good\n");
        let last = s.last();
        assert_eq!(last.stderr.lines().filter(|line| line.contains("left out")).count(), 1, "named once\n{last}");
    }

    #[needs(python3)]
    #[test]
    fn a_socket() {
        let s = Scene::new();
        let job = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"state/sock\")'";
        left_out(&s, "sock", job, "socket");
    }

    #[test]
    fn a_name_that_is_not_utf8() {
        let s = Scene::new();
        left_out(&s, "latin", "touch \"$(printf 'state/latin\\344')\"", "not UTF-8");
    }

    #[test]
    fn a_name_that_git_allows_in_no_tree() {
        let s = Scene::new();
        left_out(&s, ".GIT", "mkdir state/.GIT; echo x >state/.GIT/x", "git allows in no tree");
        left_out(&Scene::new(), "git~1", "echo x >state/git~1", "git allows in no tree");
    }

    #[test]
    fn a_repository_made_where_tracked_files_are_does_not_delete_them() {
        let s = Scene::new();
        s.tick_with("mkdir state/sub; echo x >state/sub/x").exits(0).says("pushed");
        left_out(&s, "sub", "git init -q state/sub; echo more >>state/sub/x", "a repository of its own");
        s.upstream_file("state/sub/x", "x\n");
    }

    /// What can't be looked at may be there all the same, so its deletion must not be committed.
    #[needs(root)]
    #[test]
    fn a_folder_that_this_user_may_not_read() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        const NOBODY: u32 = 65534;
        let s = Scene::new();
        s.tick_with("mkdir state/locked; echo 1 >state/locked/a").exits(0).says("pushed");
        fs::set_permissions(s.root(), fs::Permissions::from_mode(0o755)).unwrap();
        // Where the program was built others may not get to.
        let program = s.root().join("gitsync");
        assert!(s.isolated("cp").arg(env!("CARGO_BIN_EXE_gitsync")).arg(&program).status().unwrap().success());
        assert!(
            s.isolated("chown").args(["-R", "65534:65534", "ours", "upstream.git", "home"]).status().unwrap().success()
        );
        write(&s.root().join("home/.gitconfig"), "[safe]\n\tdirectory = *\n");
        fs::set_permissions(s.ours().join("state/locked"), fs::Permissions::from_mode(0o000)).unwrap();
        let mut command = s.isolated(&program);
        command.args(["tick", "--", "sh", "-c", "echo good >state/z"]).env("GIT_SYNC_REPO", s.ours());
        command.uid(NOBODY).gid(NOBODY);
        s.run_this(command).exits(1).says("pushed").logs("state/locked was left out of the commit: it can't be read");
        assert_eq!(changed(&s, "HEAD"), ["state/z"]);
    }

    #[needs(root)]
    #[test]
    fn a_device() {
        let s = Scene::new();
        left_out(&s, "null", "mknod state/null c 1 3", "is a device");
    }

    #[needs(perl)]
    #[test]
    fn what_is_ignored_or_not_named_is_no_error_whatever_it_is() {
        let s = Scene::new();
        s.we_write(".git/info/exclude", "*.run\ncache/\n");
        let odd = "mkfifo state/a.run state/cache/fifo state/other; git init -q state/cache/clone
                   perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => $_, Listen => 1) for qw(state/b.run state/c)' ";
        let null = "mknod state/d.run c 1 3 2>/dev/null; mknod state/e c 1 3 2>/dev/null";
        let job = format!("mkdir -p state/cache; {odd}; {null}; date >state/named.json");
        s.run(&["tick", "--path", "state/*.json", "--path", "audit/", "--", "sh", "-c", &job]).exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/named.json"]);
        // Where they are named, those that are not ignored are said; those that are ignored are not.
        s.tick_with("true").exits(1).logs("state/other was left out").logs("state/c was left out");
        for ignored in [".run", "cache"] {
            s.logs_not(ignored);
        }
    }

    #[test]
    fn a_submodule_is_nobodys_repository_of_its_own() {
        let s = Scene::new();
        s.git_ours(&["-c", "protocol.file.allow=always", "submodule", "add", "-q", "../upstream.git", "state/sub"]);
        // One that is only staged is named and stays staged.
        s.tick_with("echo new >state/c").exits(1).says("pushed").logs("state/sub was left out");
        assert_eq!(
            (changed(&s, "HEAD"), s.git_ours(&["diff", "--cached", "--name-only"])),
            (vec!["state/c".to_owned()], ".gitmodules\nstate/sub".to_owned())
        );
        s.git_ours(&["commit", "-qm", "a submodule"]);
        s.tick_with("echo inside >state/sub/index.html; echo new >state/b").exits(0).says("pushed");
        assert_eq!(changed(&s, "HEAD"), ["state/b"]);
        s.logs_not("left out");
    }

    #[test]
    fn a_terminal_is_not_disturbed_by_a_name() {
        let s = Scene::new();
        s.arg("--max-file-size").arg("1KiB");
        s.tick_with("head -c 2000 /dev/zero >\"$(printf 'state/\\033[31mred')\"").exits(1);
        assert!(!s.last().stderr.contains('\u{1b}'), "{:?}", s.last().stderr);
    }
}

mod the_push {
    use super::*;

    #[test]
    fn follows_first_and_says_so() {
        let s = Scene::new();
        s.we_commit("a.txt").rival_pushes("b.txt");
        let ours = s.our_tip();
        s.tick_with("echo 1 >state/b").exits(0).says("pushed").logs("accepting remote").ours_equals_upstream();
        s.is_kept(&ours).upstream_file("state/b", "1\n").upstream_file("b.txt", "rival 2\n");
    }

    #[test]
    fn out_of_reach_with_nothing_to_push_is_no_failure() {
        let s = Scene::new();
        s.upstream_goes_away().tick().exits(0).says("no-changes").logs("WARN");
        s.logs_not("ERROR");
    }

    #[test]
    fn out_of_reach_with_something_to_push_is_retried_though_nothing_changes() {
        let s = Scene::new();
        s.upstream_goes_away()
            .tick_with("echo 1 >state/b")
            .exits(75)
            .says("push-failed")
            .logs("push failed, will retry");
        let ours = s.our_tip();
        assert_eq!(changed(&s, "HEAD"), ["state/b"]);
        s.tick().exits(75).says("push-failed");
        s.upstream_comes_back().run(&["tick", "--output", "json", "--", "true"]).exits(0);
        let json = s.json();
        assert_eq!((&json["result"], &json["commit"]), (&"pushed".into(), &serde_json::Value::Null));
        assert_eq!((&json["pushed"], s.upstream_tip()), (&true.into(), ours));
        s.tick().exits(0).says("no-changes");
    }

    #[test]
    fn the_remote_comes_back_while_the_job_runs() {
        let s = Scene::new();
        s.upstream_goes_away();
        let back =
            format!("mv '{}' '{}'; echo 1 >state/b", s.root().join("away.git").display(), s.upstream().display());
        s.tick_with(&back).exits(0).says("pushed").ours_equals_upstream();
    }

    #[test]
    fn refused_by_a_hook() {
        for (hook, script) in
            [("pre-receive", "echo 'not on a Monday' >&2; exit 1"), ("update", "echo 'not on a Monday' >&2; exit 1")]
        {
            let s = Scene::new();
            let theirs = s.upstream_tip();
            s.upstream_hook(hook, script);
            s.tick_with("echo 1 >state/b").exits(1).says("push-failed").logs("not on a Monday");
            assert_eq!((s.upstream_tip(), changed(&s, "HEAD")), (theirs, vec!["state/b".to_owned()]));
            let ours = s.our_tip();
            assert_eq!(s.run(&["tick", "--output", "json", "--", "true"]).json()["pushed"], false);
            fs::remove_file(s.upstream().join("hooks").join(hook)).unwrap();
            s.tick().exits(0).says("pushed").ours_equals_upstream();
            assert_eq!(s.upstream_tip(), ours);
        }
    }

    #[test]
    fn refused_by_the_servers_configuration() {
        let s = Scene::new();
        s.git_upstream(&["config", "receive.denyNonFastForwards", "true"]);
        s.alpha().we_commit("a.txt").rival_pushes("b.txt");
        let theirs = s.upstream_tip();
        s.tick_with("echo 1 >state/b").says("push-failed").marker_is(true);
        assert_ne!(s.last().code, Some(0));
        assert_eq!(s.upstream_tip(), theirs);
    }

    #[test]
    fn a_lost_race_is_decided_by_the_next_tick() {
        let s = Scene::new();
        let job = format!("echo 1 >state/b; {}", rival_pushes_now(&s, "b.txt"));
        s.tick_with(&job).exits(75).says("push-failed").logs("will retry");
        let (ours, theirs) = (s.our_tip(), s.upstream_tip());
        assert_eq!(changed(&s, &ours), ["state/b"]);
        assert_eq!(s.git_upstream(&["log", "-1", "--format=%s", "main"]), "in the middle");
        s.tick_with("echo 2 >state/c").exits(0).says("pushed").ours_equals_upstream().is_kept(&ours).is_kept(&theirs);
        assert_eq!(s.rev(&s.ours(), "HEAD~1"), theirs);
        assert_eq!(s.rev(&s.ours(), &s.rescues("local")[0]), ours);
    }

    #[test]
    fn the_hooks_of_the_local_repository_are_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let s = Scene::new();
        for hook in ["pre-commit", "post-commit", "pre-push", "post-checkout", "reference-transaction", "commit-msg"] {
            let path = s.ours().join(".git/hooks").join(hook);
            write(&path, &format!("#!/bin/sh\ntouch '{}'\nexit 1\n", s.root().join("hooked").display()));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        s.rival_pushes("news.txt").tick_with("echo 1 >state/b").exits(0).says("pushed").ours_equals_upstream();
        s.rival_pushes("news.txt").sync().exits(0);
        assert!(!s.root().join("hooked").exists());
    }

    #[test]
    fn the_branch_gone_from_the_remote() {
        let s = Scene::new();
        s.rival_deletes_branch();
        s.tick_with("echo 1 >state/b").exits(1).says("push-failed").our_file("state/b", "1\n");
        assert_eq!(changed(&s, "HEAD"), ["state/b"]);
        assert_eq!(s.last().stderr.matches("ERROR").count(), 1, "a failure is logged once\n{}", s.last());
        assert_eq!(s.git_upstream(&["for-each-ref"]), "", "non-alpha does not make it again");
        s.alpha().tick().exits(0).says("pushed").ours_equals_upstream();
    }
}

mod alpha {
    use super::*;

    #[test]
    fn overwrites_the_remote_and_keeps_its_tip() {
        let s = Scene::new();
        s.alpha().we_commit("a.txt").rival_pushes("b.txt");
        let theirs = s.upstream_tip();
        s.run(&["tick", "--output", "json", "--", "sh", "-c", "echo 1 >state/b"]).exits(0).logs("keeping local");
        let json = s.json();
        assert_eq!(
            (&json["result"], &json["forced"], &json["state"]),
            (&"pushed".into(), &true.into(), &"diverged".into())
        );
        s.ours_equals_upstream().marker_is(false).upstream_file("a.txt", "ours 2\n").fsck();
        assert_eq!(s.rev(&s.ours(), &s.rescues("remote")[0]), theirs);
        assert_eq!(json["rescue_refs"], serde_json::json!(s.rescues("")));
        s.sync().exits(0).says("up-to-date");
    }

    #[test]
    fn pushes_by_fast_forward_where_that_will_do() {
        let s = Scene::new();
        s.alpha().rival_pushes("b.txt");
        s.run(&["tick", "--output", "json", "--", "sh", "-c", "echo 1 >state/b"]).exits(0).ours_equals_upstream();
        assert_eq!((&s.json()["forced"], &s.json()["pushed"]), (&false.into(), &true.into()));
        assert!(s.rescues("").is_empty());
        s.upstream_file("b.txt", "rival 2\n");
    }

    #[test]
    fn the_marker_survives_a_failed_push_and_a_restart() {
        let s = Scene::new();
        s.alpha().we_commit("a.txt").rival_pushes("b.txt").sync().says("diverged").marker_is(true);
        let theirs = s.upstream_tip();
        s.upstream_goes_away().tick_with("echo 1 >state/b").exits(75).says("push-failed").marker_is(true);
        s.upstream_comes_back();
        // The marker outlives the mode: what alpha decided is carried out by whoever ticks next.
        s.non_alpha().tick().exits(0).says("pushed").marker_is(false).ours_equals_upstream().is_kept(&theirs);
    }

    #[test]
    fn a_marker_with_nothing_to_force_goes_once_the_remote_has_our_commit() {
        let s = Scene::new();
        fs::write(s.private().join("force-push-pending"), "").unwrap();
        s.tick_with("echo 1 >state/b").exits(0).says("pushed").ours_equals_upstream().marker_is(false);
        fs::write(s.private().join("force-push-pending"), "").unwrap();
        s.tick().exits(0).says("no-changes").marker_is(false);
    }

    #[test]
    fn non_alphas_sync_accepts_the_remote_and_clears_the_marker() {
        let s = Scene::new();
        s.alpha().we_commit("a.txt").rival_pushes("b.txt").sync().says("diverged").marker_is(true);
        let ours = s.our_tip();
        s.non_alpha().sync().exits(0).says("diverged").ours_equals_upstream().marker_is(false).is_kept(&ours);
    }

    #[test]
    fn a_race_is_won_with_every_tip_kept() {
        let s = Scene::new();
        s.alpha().we_commit("a.txt").rival_pushes("b.txt");
        let first = s.upstream_tip();
        let job = format!(
            "echo 1 >state/b; {}; git -C '{}' rev-parse HEAD >'{}'",
            rival_pushes_now(&s, "c.txt"),
            s.rival().display(),
            s.root().join("second").display()
        );
        s.tick_with(&job).exits(0).says("pushed").ours_equals_upstream().marker_is(false).fsck();
        let second = fs::read_to_string(s.root().join("second")).unwrap();
        assert_eq!(s.upstream_tip(), s.our_tip());
        for tip in [&first, second.trim()] {
            let kept = s.git_ours(&["for-each-ref", "--contains", tip, "refs/gitsync/rescue"]);
            assert!(!kept.is_empty(), "{tip} is lost\n{}", s.last());
        }
    }

    #[test]
    fn a_refused_overwrite_keeps_the_marker() {
        let s = Scene::new();
        s.alpha().we_commit("a.txt").rival_pushes("b.txt");
        let theirs = s.upstream_tip();
        s.upstream_hook("pre-receive", "echo 'protected' >&2; exit 1");
        s.tick().exits(1).says("push-failed").marker_is(true).logs("protected");
        assert_eq!(s.upstream_tip(), theirs);
    }

    #[test]
    fn an_unrelated_history_is_overwritten_and_kept() {
        let s = Scene::new();
        s.git_in(&s.rival(), &["checkout", "-q", "--orphan", "other"]);
        s.rival_writes("fresh.txt", "factory reset\n").rival_commits("a new beginning");
        s.git_in(&s.rival(), &["push", "-q", "--force", "origin", "other:main"]);
        let (ours, theirs) = (s.our_tip(), s.upstream_tip());
        s.alpha().tick().exits(0).says("pushed").ours_equals_upstream().is_kept(&theirs);
        assert_eq!(s.upstream_tip(), ours);
    }
}

mod two_instances {
    use super::*;

    /// Every commit either instance ever made is reachable somewhere, and both end at the same tip.
    #[test]
    fn ticking_by_turns_lose_nothing() {
        let s = Scene::new();
        let other = s.root().join("theirs");
        let url = s.upstream();
        s.run(&["init-sync", "--repo", other.to_str().unwrap(), "--remote-url", url.to_str().unwrap()]).exits(0);
        let mut made = Vec::new();
        for round in 0..4 {
            let write = format!("echo {round} >>state/ours");
            let both = format!(
                "echo {round} >>state/theirs; '{}' tick --repo '{}' -- sh -c '{write}'",
                env!("CARGO_BIN_EXE_gitsync"),
                s.ours().display()
            );
            // Ours ticks while their job runs, so that theirs loses the race each time.
            let mut tick = s.gitsync(&["tick", "--repo", other.to_str().unwrap(), "--", "sh", "-c", &both]);
            let out = tick.env_remove("GIT_SYNC_REPO").output().unwrap();
            assert_eq!(out.status.code(), Some(75), "{}", String::from_utf8_lossy(&out.stderr));
            made.push((s.ours(), s.rev(&s.ours(), "main")));
            made.push((other.clone(), s.rev(&other, "main")));
        }
        for repo in [&other, &s.ours()] {
            s.run(&["sync", "--repo", repo.to_str().unwrap()]).exits(0);
            assert_eq!(s.rev(repo, "main"), s.upstream_tip());
        }
        for (repo, commit) in made {
            let kept = s.git_in(&repo, &["for-each-ref", "--contains", &commit, "refs/heads", "refs/gitsync/rescue"]);
            assert!(!kept.is_empty(), "{commit} is lost in {}", repo.display());
        }
        s.upstream_file("state/ours", "0\n1\n2\n3\n");
    }
}

/// A push whose answer was lost and was never recorded, and somebody's commit on top of it: alpha has nothing to overwrite.
#[test]
fn alpha_overwrites_nothing_that_is_on_top_of_its_own_commit() {
    let s = Scene::new();
    s.we_commit("a.txt").git_ours(&["push", "-q", s.upstream().to_str().unwrap(), "main"]);
    s.rival_pushes("b.txt");
    let theirs = s.upstream_tip();
    s.upstream_goes_away();
    let back = format!("mv '{}' '{}'", s.root().join("away.git").display(), s.upstream().display());
    s.run(&["tick", "--alpha", "--", "sh", "-c", &back]).exits(0).says("no-changes");
    assert_eq!(s.upstream_tip(), theirs, "{}", s.last());
}
