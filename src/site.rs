//! The site of a pass: when it is stale, built, published or emptied.

use std::path::{Path, PathBuf};

use crate::cli::Publish;
use crate::error::Error;
use crate::git::pathspec::{Matcher, Pathspec};
use crate::git::{CommitId, Place, Repo};
use crate::outcome::Command;
use crate::pass::{Pass, Task};
use crate::policy::Mode;
use crate::process::job::{Ended, Program};
use crate::publish::{self, Site, Staged, Surroundings, Way};
use crate::state::dir::PrivateDir;
use crate::state::record::Record;

/// Says that the site is not what the work tree would build: written before a follow, gone after a good build.
pub const SITE_STALE: &str = "site-stale";

/// Says which public dir holds what was put there by us (`src/publish/owner.rs`).
pub const SITE_OURS: &str = "site-ours";

/// Where `--path` may commit something in the public dir or around it.
fn committed_around(paths: &[Pathspec], place: &Place, public_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let matcher = Matcher::new(paths)?;
    // As it really is: a link in it may lead to a folder that is not excluded.
    let real = |path: &Path| {
        path.canonicalize().ok().or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
    };
    let inside = match (place.work_dir.canonicalize().ok(), real(public_dir)) {
        (Some(top), Some(public)) => public.strip_prefix(top).ok().map(Path::to_owned),
        _ => None,
    };
    if inside.as_ref().is_some_and(|inside| matcher.excludes(inside)) {
        return Ok(Vec::new());
    }
    let may_match = |spec: &&Pathspec| inside.as_ref().is_none_or(|inside| spec.may_match_in(inside));
    Ok(matcher.included().filter(may_match).map(|spec| place.work_dir.join(spec.base())).collect())
}

impl Pass<'_> {
    /// Refuses a public dir that must not be published over.
    pub fn check_site(&self, place: &Place, here: &Path) -> Result<Option<Site>, Error> {
        let settings = self.settings;
        let Some(public_dir) = &settings.public_dir else { return Ok(None) };
        let public_dir = here.join(public_dir);
        let paths = committed_around(&settings.paths, place, &public_dir)?;
        let way = match settings.publish {
            Publish::Whole => Way::Whole,
            Publish::Files => Way::FileByFile,
            Publish::InPlace => Way::InPlace,
        };
        let private = PrivateDir::of(&place.git_dir);
        let surroundings = Surroundings {
            repo: &place.work_dir,
            git_dir: &place.git_dir,
            private_dir: private.path(),
            paths: &paths,
            home: settings.home.as_deref(),
        };
        publish::check(&public_dir, &surroundings, way).map(Some)
    }

    /// Refuses a public dir that holds what gitsync did not put there, unless `--replace-public-dir` allows it, in a pass that
    /// may publish. To be asked under the lock: another pass may be about to exchange the folder.
    ///
    /// # Errors
    /// A usage error that names one of the files, and where the public dir can't be looked at.
    pub fn check_site_is_ours(&self, site: &Site, private: &PrivateDir) -> Result<(), Error> {
        let command = self.outcome.command;
        if self.settings.replace_public_dir || !(self.builds_site() || command == Command::InitSync) {
            return Ok(());
        }
        let note = private.read(SITE_OURS).map_err(|error| Error::io("reading whose the public dir is", &error))?;
        // An earlier version noted nothing, and published there. This pass may have nothing to publish, and be recorded all the same.
        if note.is_none() && Record::read(private).is_of_before_notes(command) {
            return if self.settings.dry_run { Ok(()) } else { Self::note_site(site, private, None) };
        }
        let Some(name) = site.somebodys(note.as_deref())? else { return Ok(()) };
        let (public_dir, file) = (site.public_dir().display(), site.public_dir().join(name));
        Err(Error::usage(
            format!(
                "the public dir {public_dir} is not empty, and gitsync did not fill it (it holds {}); nothing was touched",
                file.display()
            ),
            "give an empty folder; or, where all that is in it may go, --replace-public-dir or GIT_SYNC_REPLACE_PUBLIC_DIR=true",
        ))
    }

    /// Notes what of the public dir is ours, on disk before anything is put there: nothing of it, and what was built if that
    /// is given.
    fn note_site(site: &Site, private: &PrivateDir, built: Option<&Staged>) -> Result<(), Error> {
        let kept = private.read(SITE_OURS).unwrap_or_default();
        let Some(note) = site.note(kept.as_deref(), built)? else { return Ok(()) };
        let written = private.write_durably(SITE_OURS, &note);
        written.map_err(|error| Error::io("noting whose the public dir is", &error))
    }

    /// Whether a site is to be built at all.
    pub fn builds_site(&self) -> bool {
        self.settings.build_command.is_some()
    }

    /// Notes that the site is to be built again; on disk before the files change.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn site_goes_stale(&self, repo: &Repo) -> Result<(), Error> {
        if self.builds_site() {
            let noted = repo.private.write_durably(SITE_STALE, b"");
            noted.map_err(|error| Error::io("noting that the site is to be built again", &error))?;
        }
        Ok(())
    }

    /// Whether the last build failed, or never finished, or its files changed since.
    pub fn site_is_stale(&self, repo: &Repo) -> bool {
        self.builds_site() && repo.private.file(SITE_STALE).exists()
    }

    /// Builds the site and swaps it in. A failure is a failure of the pass; the old site stays.
    pub fn build_site(&mut self, repo: &Repo, remote: Option<CommitId>, mode: Mode) {
        let Some(command) = self.settings.build_command.clone() else { return };
        self.outcome.site_built = Some(false);
        // First: a site that can't be published now is built by a later pass.
        let ready = self.site_goes_stale(repo).and_then(|()| self.may_publish(repo));
        let built =
            ready.and_then(|()| self.keeping_tips(repo, "the build", |pass| pass.build(repo, &command, remote, mode)));
        if let Err(failure) = built {
            self.outcome.fail(failure);
            return;
        }
        self.outcome.site_built = Some(true);
        if let Err(error) = repo.private.remove_durably(SITE_STALE) {
            tracing::warn!("the site will be built once more than needed: {error}");
        }
    }

    fn build(&self, repo: &Repo, command: &str, remote: Option<CommitId>, mode: Mode) -> Result<(), Error> {
        let staged = match &self.site {
            Some(site) => Some(site.stage()?),
            None => None,
        };
        let folder = staged.as_ref().map(|staged| staged.path().to_owned());
        let command = match &folder {
            Some(folder) => publish::with_public_dir(command, folder),
            None => command.to_owned(),
        };
        let build = Task {
            label: "build",
            program: Program::Shell(command),
            timeout: self.settings.build_timeout,
            remote,
            mode,
            public_dir: folder.as_deref(),
        };
        let ended = self.run_task(repo, build)?;
        match ended {
            Ended::Exited(0) => {}
            ended => {
                return Err(Error::person(
                    format!("the build {ended}"),
                    "the old site stays; mend the build, the next pass tries again",
                ));
            }
        }
        if let (Some(site), Some(staged)) = (&self.site, staged) {
            Self::note_site(site, &repo.private, Some(&staged))?;
            site.publish(staged)?;
        }
        tracing::info!("the site is built");
        Ok(())
    }

    /// Refuses a public dir that holds somebody's files: what is not of the site is removed from it. Inside the work tree that is
    /// also what git tracks, and what it neither tracks nor ignores. Notes that it is ours.
    ///
    /// # Errors
    /// A usage error that names one of them.
    pub fn may_publish(&self, repo: &Repo) -> Result<(), Error> {
        let Some(site) = &self.site else { return Ok(()) };
        self.check_site_is_ours(site, &repo.private)?;
        if let Ok(inside) = site.public_dir().strip_prefix(&repo.place.work_dir) {
            // The note is of one folder: another may hold anything.
            let ours = repo.private.read(SITE_OURS).is_ok_and(|note| site.is_noted(note.as_deref()));
            if let Some(file) = repo.somebodys_file_in(inside, ours)? {
                return Err(Error::usage(
                    format!("the public dir {} holds {}, which is no part of a site", inside.display(), file.display()),
                    "name a folder that git ignores or that is empty: publishing removes what is not of the site",
                ));
            }
        }
        if self.settings.dry_run { Ok(()) } else { Self::note_site(site, &repo.private, None) }
    }

    /// Empties the public dir, where there is one and nothing to build into it (init-sync).
    ///
    /// # Errors
    /// Those of the file system.
    pub fn empty_site(&self, repo: &Repo) -> Result<(), Error> {
        self.may_publish(repo)?;
        let Some(site) = &self.site else { return Ok(()) };
        site.empty()?;
        // It may be another folder now.
        Self::note_site(site, &repo.private, None)
    }
}
