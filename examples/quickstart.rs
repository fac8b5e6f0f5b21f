//! The main job on an embedded default: a throwaway upstream on disk, two instances, a rival; the real passes.
//!
//! `cargo run --example quickstart`. Everything happens in a temporary folder, which is removed at the end.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use gitsync::cli::{self, Asked};
use gitsync::watchdog::Watch;
use gitsync::{remote, report};

fn main() {
    let folder = std::env::temp_dir().join(format!("gitsync-quickstart-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the quickstart");
    let show = Show { folder: folder.clone(), watch: Watch::start(|_| std::process::exit(130)).expect("a watch") };
    show.story();
    std::fs::remove_dir_all(&folder).expect("the folder to be removable");
}

struct Show {
    folder: std::path::PathBuf,
    watch: Watch,
}

impl Show {
    fn story(&self) {
        title("A remote: a bare repository with a page in it, and a rival's clone");
        self.git(".", &["init", "-q", "--bare", "-b", "main", "upstream.git"]);
        self.git(".", &["init", "-q", "-b", "main", "rival"]);
        self.git("rival", &["remote", "add", "origin", "../upstream.git"]);
        self.rival("page 1", "the first page");

        title("Two instances start up: each makes its repository from the remote");
        self.gitsync("machine", &["init-sync", "--remote-url", "upstream.git"], "cloned");
        self.gitsync("second", &["init-sync", "--remote-url", "upstream.git"], "cloned");

        title("The machine ticks: its job writes state, gitsync commits and pushes it");
        self.gitsync("machine", &["tick", "--", "sh", "-c", JOB], "pushed");
        self.gitsync("machine", &["tick", "--", "true"], "no-changes");

        title("The second instance sees that it is behind, and follows");
        self.gitsync("second", &["sync"], "behind");
        self.gitsync("second", &["sync"], "up-to-date");

        title("A person pushes; the machine follows before its next tick builds on it");
        self.rival("page 2", "a better page");
        self.gitsync("machine", &["tick", "--", "sh", "-c", JOB], "pushed");

        title("The histories part. Non-alpha (default): the remote wins, our commit is kept as a rescue");
        self.commit_in("second", "state/second.txt", "unpushed", "the second instance's unpushed work");
        self.rival("page 3", "the rival was faster");
        self.gitsync("second", &["sync"], "diverged");
        self.git("second", &["for-each-ref", "--format=  kept: %(refname) (%(subject))", "refs/gitsync/rescue"]);

        title("The histories part. Alpha: we win, and the remote's commit is kept as a rescue");
        self.commit_in("machine", "state/machine.txt", "unpushed", "the machine's unpushed work");
        self.rival("page 4", "the rival was faster again");
        self.gitsync("machine", &["sync", "--alpha"], "diverged");
        self.gitsync("machine", &["tick", "--alpha", "--", "sh", "-c", JOB], "pushed");
        self.git("machine", &["for-each-ref", "--format=  kept: %(refname) (%(subject))", "refs/gitsync/rescue"]);

        title("What the remote has now");
        self.git("upstream.git", &["log", "--oneline", "--graph", "-8", "main"]);
        println!("\nEvery commit that was ever made above is reachable: nothing was lost.");
    }

    /// Runs one pass, in this process, as the command line would.
    fn gitsync(&self, instance: &str, args: &[&str], expected: &str) {
        let repo = self.folder.join(instance);
        let upstream = self.folder.join("upstream.git");
        println!("\n$ cd {instance} && gitsync {}", args.join(" "));
        let mut line: Vec<OsString> = vec!["gitsync".into()];
        let split = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
        line.extend(args[..split].iter().map(|arg| match *arg {
            "upstream.git" => upstream.clone().into_os_string(),
            other => other.into(),
        }));
        line.extend(["--repo".into(), repo.into_os_string()]);
        line.extend(args[split..].iter().map(OsString::from));
        // None of the environment, so that the story is the same everywhere.
        let (asked, settings) = cli::read(line, &|_| None).expect("a valid command line");
        let Asked::Pass(command) = asked else { unreachable!("the story runs passes alone") };
        report::log::begin(command.word(), &settings).expect("a log");
        let outcome = gitsync::run::run(command, &settings, remote::Env::read(&|_| None), &self.watch);
        report::print(&outcome, settings.output);
        assert_eq!(outcome.result.word(), expected, "the quickstart expects another result here");
    }

    fn rival(&self, page: &str, message: &str) {
        if self.folder.join("rival/index.html").exists() {
            self.git("rival", &["pull", "-q", "--rebase", "origin", "main"]);
        }
        self.commit_in("rival", "index.html", page, message);
        self.git("rival", &["push", "-q", "origin", "main"]);
    }

    fn commit_in(&self, clone: &str, file: &str, text: &str, message: &str) {
        let path = self.folder.join(clone).join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a folder");
        }
        std::fs::write(path, format!("{text}\n")).expect("a file");
        self.git(clone, &["add", file]);
        self.git(clone, &["commit", "-q", "-m", message]);
    }

    fn git(&self, dir: &str, args: &[&str]) {
        let quoted = |arg: &&str| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() };
        println!("$ cd {dir} && git {}", args.iter().map(quoted).collect::<Vec<_>>().join(" "));
        let status = Command::new("git")
            .args(["-c", "user.name=A. Rival", "-c", "user.email=rival@example.org", "-c", "init.defaultBranch=main"])
            .args(args)
            .current_dir(self.folder.join(Path::new(dir)))
            .status()
            .expect("git, which made the clone this runs from");
        assert!(status.success(), "git failed");
    }
}

const JOB: &str = "mkdir -p state && date -u +%FT%T.%N > state/last-run && echo the job ran";

fn title(text: &str) {
    println!("\n=== {text}");
}
