//! Programs that a remote is reached through: what they are told of this repository and of secrets, and what it means where
//! one can't be started.

use std::ffi::OsStr;
use std::io;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::process::programs::Running;

/// How long a program may take to go once it has nothing more to say and nothing more is wanted of it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What the environment and repository of this process must not tell a git in another repository.
pub const REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
];

/// Ours alone: no program that we start is told of these.
pub const OWN_VARIABLES: &[&str] = &["GIT_SYNC_TOKEN", "GIT_SYNC_TOKEN_FILE", "GIT_SYNC_REMOTE_URL"];

/// The tokens are for http remotes: a remote's hooks and ssh get none.
pub const SECRET_VARIABLES: &[&str] = &["GIT_SYNC_TOKEN", "GIT_SYNC_TOKEN_FILE", "GIT_SYNC_REMOTE_URL", "GITHUB_TOKEN"];

/// Starts a program that a remote is reached through; `package` has it.
pub(super) fn start(command: &mut Command, package: &str) -> Result<Running, Error> {
    in_english(command);
    match Running::start(command) {
        Ok(Some(running)) => Ok(running),
        Ok(None) => Err(Error::new(Kind::Unreachable, "gitsync is being ended", "nothing: the next pass tries again")),
        Err(error) => {
            let program = command.get_program().to_string_lossy();
            Err(match error.kind() {
                io::ErrorKind::NotFound => Error::new(
                    Kind::Refused,
                    format!("the program `{program}` that this remote needs is not installed"),
                    format!("install the package {package} (apt-get install {package}), or use an https:// URL"),
                ),
                _ => Error::new(
                    Kind::Unreachable,
                    format!("`{program}` could not be started: {error}"),
                    "see that the machine has processes and memory to spare",
                ),
            })
        }
    }
}

/// Has a program say its errors in English, which [`super::refusals`] reads: git and ssh translate them.
fn in_english(command: &mut Command) {
    // LC_ALL would win over LC_MESSAGES. What it says of the encoding is as good as always UTF-8.
    command.env_remove("LC_ALL").env("LC_MESSAGES", "C").env("LC_CTYPE", "C.UTF-8");
}

/// A command line for a shell, with one more word.
pub(crate) fn shell(script: &str, word: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{script} {word}"));
    command
}

/// A program by its path, with one word.
pub(crate) fn program(path: &OsStr, word: &str) -> Command {
    let mut command = Command::new(path);
    command.arg(word);
    command
}
