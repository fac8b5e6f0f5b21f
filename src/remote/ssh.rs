//! Which ssh is run, and with which words: as git chooses it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Env;
use super::url::SshUrl;
use crate::error::{Error, Kind};

/// The files that ssh is to use instead of its own.
#[derive(Clone, Debug, Default)]
pub struct SshFiles {
    /// `--ssh-key-file`: the one key that is offered.
    pub key: Option<PathBuf>,
    /// `--ssh-known-hosts-file`: the hosts' keys.
    pub known_hosts: Option<PathBuf>,
}

impl SshFiles {
    /// `-o KEY=VALUE` for each, once it is known that they can be read: ssh itself would go on without them.
    fn options(&self, dialect: Dialect) -> Result<Vec<String>, Error> {
        let mut options = Vec::new();
        let key = ("--ssh-key-file", "IdentityFile", &self.key);
        for (flag, option, path) in [key, ("--ssh-known-hosts-file", "UserKnownHostsFile", &self.known_hosts)] {
            let Some(path) = path else { continue };
            let refused = |what: String, next: &str| Error::new(Kind::Refused, what, next);
            File::open(path).map_err(|error| {
                let what = format!("the file {} of {flag} can't be read: {error}", path.display());
                refused(what, "see that the file is there and that this user may read it")
            })?;
            if dialect != Dialect::OpenSsh {
                let what = format!("{flag} is for OpenSSH, and another program is set to be used as ssh");
                return Err(refused(what, "set GIT_SSH_VARIANT or ssh.variant to ssh if it takes OpenSSH's options"));
            }
            let path = path.to_str().filter(|path| !path.contains(['"', '\n'])).ok_or_else(|| {
                refused(format!("ssh can't be told of the file {}", path.display()), "give the file a plainer name")
            })?;
            // ssh expands what begins with a percent sign, and splits at blanks.
            options.push(format!("{option}=\"{}\"", path.replace('%', "%%")));
        }
        if self.key.is_some() {
            options.push("IdentitiesOnly=yes".to_owned());
        }
        Ok(options)
    }
}

/// Which ssh to run.
#[derive(Clone, Debug)]
pub(crate) struct SshCommand {
    /// The command line, for a shell if `shell`.
    program: OsString,
    shell: bool,
    dialect: Dialect,
    /// The values of `-o` for OpenSSH.
    options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    OpenSsh,
    /// Whatever it is, it gets a host and a command and, if need be, `-p`.
    Simple,
}

impl SshCommand {
    /// In git's order: GIT_SSH_COMMAND, core.sshCommand (both for a shell), GIT_SSH (a program), `ssh`.
    ///
    /// # Errors
    /// If one of the files can't be read, or the program does not take them.
    pub fn choose(
        env: &Env,
        files: &SshFiles,
        configured: Option<&str>,
        variant: Option<&str>,
    ) -> Result<SshCommand, Error> {
        let (program, shell) = match (env.get("GIT_SSH_COMMAND"), configured, env.get("GIT_SSH")) {
            (Some(command), _, _) => (command.to_owned(), true),
            (None, Some(command), _) if !command.trim().is_empty() => (OsString::from(command), true),
            (None, _, Some(program)) => (program.to_owned(), false),
            _ => (OsString::from("ssh"), false),
        };
        let named = env.text("GIT_SSH_VARIANT").or(variant).unwrap_or("auto").to_ascii_lowercase();
        let dialect = match named.as_str() {
            "ssh" => Dialect::OpenSsh,
            "simple" => Dialect::Simple,
            _ => {
                let text = program.to_string_lossy();
                let first = if shell { first_word(&text) } else { text.into_owned() };
                let name = Path::new(&first).file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                if name == "ssh" { Dialect::OpenSsh } else { Dialect::Simple }
            }
        };
        let options = files.options(dialect)?;
        Ok(SshCommand { program, shell, dialect, options })
    }

    pub(super) fn command(&self, url: &SshUrl, service: &str, v2: bool) -> Command {
        let mut command = if self.shell {
            let mut script = self.program.clone();
            script.push(" \"$@\"");
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        match self.dialect {
            // BatchMode never asks, and so refuses a host key it does not know, unless the user's own configuration
            // says otherwise (StrictHostKeyChecking accept-new in an alias).
            Dialect::OpenSsh => {
                command.args(["-o", "BatchMode=yes"]);
                self.options.iter().for_each(|option| {
                    command.args(["-o", option]);
                });
                if v2 {
                    command.args(["-o", "SendEnv=GIT_PROTOCOL"]);
                }
            }
            Dialect::Simple => {}
        }
        if let Some(port) = url.port {
            command.arg("-p").arg(port.to_string());
        }
        command.arg(match &url.user {
            Some(user) => format!("{user}@{}", url.host),
            None => url.host.clone(),
        });
        command.arg(format!("{service} {}", shell_quoted(&url.path)));
        command
    }
}

/// The first word of a shell command, assignments before it left out (`FOO=bar ssh -v`).
fn first_word(command: &str) -> String {
    command
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']))
        .find(|word| !word.split('/').next().unwrap_or_default().contains('='))
        .unwrap_or_default()
        .to_owned()
}

/// As one word for a shell on the other side.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('!', r"'\!'"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> Env {
        Env::read(&move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    fn choose(env: &Env, configured: Option<&str>, variant: Option<&str>) -> SshCommand {
        SshCommand::choose(env, &SshFiles::default(), configured, variant).unwrap()
    }

    fn line(ssh: &SshCommand) -> Vec<String> {
        let url = SshUrl { user: Some("u".into()), host: "h".into(), port: Some(22), path: "it's/r".into() };
        let command = ssh.command(&url, "git-upload-pack", true);
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|a| a.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn ssh_is_chosen_as_git_chooses_it() {
        let last = r"git-upload-pack 'it'\''s/r'";
        let plain = line(&choose(&env(&[]), None, None));
        assert_eq!(plain, ["ssh", "-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL", "-p", "22", "u@h", last]);
        let command = choose(&env(&[("GIT_SSH_COMMAND", "A=b ssh -F /x")]), Some("other"), None);
        assert_eq!(command.dialect, Dialect::OpenSsh);
        assert_eq!(line(&command)[..3], ["sh", "-c", "A=b ssh -F /x \"$@\""]);
        assert_eq!(choose(&env(&[("GIT_SSH_COMMAND", "")]), Some("wrap ssh"), None).dialect, Dialect::Simple);
        assert_eq!(choose(&env(&[("GIT_SSH", "/opt/x")]), None, Some("ssh")).dialect, Dialect::OpenSsh);
    }
}
