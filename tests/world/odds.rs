//! What can be wrong around a pass: the clock, the system's limits, a remote that does not send all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use crate::scene::{self, Scene};

/// What the clock says to a pass and to all that it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    Right,
    Ahead,
    Epoch,
}

impl Clock {
    pub fn set_for(self, command: &mut Command) {
        let time = match self {
            Self::Right => return,
            Self::Ahead => "+120d",
            Self::Epoch => "@1970-01-02 00:00:00",
        };
        set_time(command, time);
    }
}

/// Gives a command and all that it starts another time of day, in libfaketime's words.
pub fn set_time(command: &mut Command, time: &str) {
    command.env("LD_PRELOAD", faketime()).env("FAKETIME", time);
    // What waits is no part of it, and the times of files are the kernel's.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
}

/// The library that gives programs another time.
fn faketime() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let out = Command::new("faketime").args(["-f", "+0d", "sh", "-c", "echo $LD_PRELOAD"]).output().unwrap();
        assert!(out.status.success(), "faketime: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    })
}

/// What a killed process leaves of libfaketime in shared memory.
pub fn clear_faketime() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("faketime_shm_").or_else(|| name.strip_prefix("sem.faketime_sem_"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A limit of the shell's `ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Files(u32),
    /// In KiB, as the next ones.
    Memory(u32),
    FileSize(u32),
    Stack(u32),
}

impl Limit {
    pub const ALL: &[Self] = &[
        Self::Files(22),
        Self::Files(16),
        Self::Files(12),
        Self::Files(32),
        Self::Memory(300_000),
        Self::Memory(100_000),
        Self::Memory(50_000),
        Self::FileSize(1),
        Self::FileSize(4),
        Self::Stack(1024),
        Self::Stack(256),
        Self::Stack(64),
    ];

    /// The command with the limit before it.
    pub fn before(self, command: &Command) -> Command {
        let ulimit = match self {
            Self::Files(number) => format!("ulimit -n {number}"),
            Self::Memory(kib) => format!("ulimit -v {kib}"),
            Self::FileSize(kib) => format!("ulimit -f {}", kib * 2),
            Self::Stack(kib) => format!("ulimit -s {kib}"),
        };
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("{ulimit} && exec \"$0\" \"$@\"")]).arg(command.get_program());
        limited.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.current_dir(command.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
        limited
    }

    /// Whether the system may end a pass for it: then it is as if the pass were killed.
    pub fn may_end_it(self, status: ExitStatus) -> bool {
        let signal = status.signal().or(status.code().map(|code| code - 128));
        match self {
            Self::Files(_) => false,
            // Without memory nothing can go on; before main, the loader says so with 127.
            Self::Memory(_) => matches!(signal, Some(6 | 9 | 11 | -1)),
            Self::FileSize(_) => signal == Some(25),
            Self::Stack(_) => matches!(signal, Some(6 | 11)),
        }
    }
}

/// From here on both remotes send packs without an object, where a [`Lie`] says so.
pub fn let_the_remotes_lie(scene: &Scene) {
    let hook = scene.root().join("pack-objects");
    // The revisions come on stdin, those after `--not` are what the other side has.
    let script = format!(
        r#"#!/bin/sh
lie='{}'
test -e "$lie" || exec "$@"
awk '/^--not/ {{ not = 1; next }} NF {{ print (not ? "^" : "") $0 }}' |
    git rev-list --objects --stdin | cut -c 1-40 >"$lie.all"
n=$(( $(cat "$lie") % $(wc -l <"$lie.all") + 1 ))
sed "${{n}}d" "$lie.all" | git pack-objects -q --stdout
"#,
        lie_of(scene).display()
    );
    scene::write(&hook, &script);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let hook = hook.display().to_string();
    scene.git_in(scene.root(), &["config", "--global", "uploadpack.packObjectsHook", &hook]);
}

fn lie_of(scene: &Scene) -> PathBuf {
    scene.root().join("lie")
}

/// As long as this lives, the remotes leave out an object of what they send.
pub struct Lie(PathBuf);

impl Lie {
    pub fn tell(scene: &Scene, number: usize) -> Self {
        let lie = lie_of(scene);
        fs::write(&lie, number.to_string()).unwrap();
        Self(lie)
    }
}

impl Drop for Lie {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Ends, as a container's end would, every process that is at work in a folder of the test's own.
pub fn end_all_in(folder: &Path) {
    let folder = folder.canonicalize().unwrap();
    scene::until("the end of what a killed pass had started", || {
        let mut any = false;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let cwd = fs::read_link(entry.path().join("cwd"));
            if cwd.is_ok_and(|cwd| cwd.starts_with(&folder)) {
                any = true;
                let _ = Command::new("kill").arg("-KILL").arg(entry.file_name()).output();
            }
        }
        !any
    });
}
