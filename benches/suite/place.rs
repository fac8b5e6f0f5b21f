//! Where a row is measured: a folder with an upstream, its server and clones of it.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::servers::{git, isolated};

/// How much has to be free in memory for the trees to be there: the largest row needs about half of it.
const ROOM: u64 = 6 << 30;

/// A folder of its own, in memory if there is room.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |it| it.f_bavail * it.f_frsize);
    let builder = |at: &Path| tempfile::Builder::new().prefix("gitsync-bench-").tempdir_in(at).unwrap();
    if room >= ROOM { builder(memory) } else { builder(&std::env::temp_dir()) }
}

/// What an upstream holds.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Files, a hundred in a folder, of 100 to 1,000 bytes.
    pub files: usize,
    /// The folder that holds them; apart from them there is `state/now` and `audit/log`.
    pub under: &'static str,
    /// Commits; each after the first changes one file.
    pub commits: usize,
}

impl Shape {
    pub fn site(files: usize) -> Self {
        Self { files, under: "site", commits: 10 }
    }
}

/// The path of a file.
pub fn path(under: &str, file: usize) -> String {
    format!("{under}/{:02}/{:02}/{:02}.txt", file / 10_000, file / 100 % 100, file % 100)
}

/// A bare repository `repo.git` in a new folder, packed and with a bitmap, as a forge keeps it.
pub fn upstream(shape: Shape) -> TempDir {
    let root = folder();
    std::fs::create_dir(root.path().join("home")).unwrap();
    // Nothing is to be packed in the middle of a row.
    std::fs::write(root.path().join("home/.gitconfig"), "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n").unwrap();
    git(root.path(), &["init", "-q", "--bare", "-b", "main", "repo.git"]);
    let bare = root.path().join("repo.git");
    for (key, value) in [("http.receivepack", "true"), ("receive.autogc", "false"), ("gc.auto", "0")] {
        git(&bare, &["config", key, value]);
    }
    import(&bare, |stream| {
        for commit in 0..shape.commits {
            head(stream, "refs/heads/main", commit)?;
            let files = if commit == 0 { 0..shape.files } else { commit % shape.files..commit % shape.files + 1 };
            for file in files {
                inline(stream, &path(shape.under, file), &text(commit, file))?;
            }
            if commit == 0 {
                inline(stream, "state/now", b"0\n")?;
                inline(stream, "audit/log", b"begun\n")?;
            }
        }
        Ok(())
    });
    git(&bare, &["repack", "-q", "-a", "-d", "--write-bitmap-index"]);
    git(&bare, &["pack-refs", "--all"]);
    root
}

/// Somebody pushes a commit that changes so many of the files.
pub fn advance(bare: &Path, shape: Shape, round: usize, changed: usize) {
    import(bare, |stream| {
        head(stream, "refs/heads/main", 1000 + round)?;
        writeln!(stream, "from refs/heads/main^0")?;
        // Spread over all folders.
        let step = (shape.files / changed).max(1);
        (0..changed).try_for_each(|n| {
            let file = (n * step + round) % shape.files;
            inline(stream, &path(shape.under, file), &text(1000 + round, file))
        })
    });
}

/// Feeds what `write` writes to `git fast-import`.
pub fn import(repo: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) {
    let mut command = Command::new("git");
    isolated(command.args(["fast-import", "--quiet", "--force"]).current_dir(repo));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stream = BufWriter::with_capacity(1 << 20, child.stdin.take().unwrap());
    write(&mut stream).and_then(|()| stream.flush()).unwrap();
    drop(stream);
    assert!(child.wait().unwrap().success());
}

/// The head of a commit in a stream for fast-import.
pub fn head(stream: &mut dyn Write, name: &str, number: usize) -> std::io::Result<()> {
    let time = 1_700_000_000 + 60 * number;
    write!(stream, "commit {name}\ncommitter A. Person <person@example.org> {time} +0000\ndata 2\nc\n")
}

/// A file of a commit in a stream for fast-import.
pub fn inline(stream: &mut dyn Write, path: &str, content: &[u8]) -> std::io::Result<()> {
    write!(stream, "M 100644 inline {path}\ndata {}\n", content.len())?;
    stream.write_all(content)?;
    stream.write_all(b"\n")
}

/// 100 to 1,000 bytes that are the same each time, and compress about as text does.
fn text(commit: usize, file: usize) -> Vec<u8> {
    let mut random = Random::new((commit * 1_000_003 + file) as u64);
    let lines = 3 + random.next() as usize % 32;
    (0..lines).flat_map(|_| format!("value {:016x}, note\n", random.next()).into_bytes()).collect()
}

/// Numbers that look random and are the same each time (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A folder with files of 1 MB that do not compress, to be moved into a work tree: about so many megabytes.
pub fn large_files(folder: PathBuf, round: usize, megabytes: usize) -> PathBuf {
    std::fs::create_dir_all(&folder).unwrap();
    let mut random = Random::new(round as u64 + 77);
    for number in 0..megabytes {
        let bytes: Vec<u8> = (0..125_000).flat_map(|_| random.next().to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{number}")), bytes).unwrap();
    }
    folder
}
