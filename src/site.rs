//! The site in a pass: when it is stale, and how it is built, published or emptied.

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

/// The note that the site does not match the work tree: written before a follow, removed after a successful build.
pub const SITE_STALE: &str = "site-stale";

/// The note of which public dir gitsync has filled (`src/publish/owner.rs`).
pub const SITE_OURS: &str = "site-ours";

/// The paths from `--path` that may commit something in the public dir or contain it.
fn committed_around(paths: &[Pathspec], place: &Place, public_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let matcher = Matcher::new(paths)?;
    // With links resolved: a link may lead to a folder that is not excluded.
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
    /// Checks that the public dir, if one is given, may be published to.
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

    /// In a pass that may publish, refuses a public dir with files that gitsync did not put there, unless `--replace-public-dir` is
    /// given. Call it with the lock held: otherwise another pass may be about to exchange the folder.
    ///
    /// # Errors
    /// A usage error that names one of the files; or if the public dir can't be read.
    pub fn check_site_is_ours(&self, site: &Site, private: &PrivateDir) -> Result<(), Error> {
        let command = self.outcome.command;
        if self.settings.replace_public_dir || !(self.builds_site() || command == Command::InitSync) {
            return Ok(());
        }
        let note = private
            .read(SITE_OURS)
            .map_err(|error| Error::io("reading the note that the public dir is gitsync's", &error))?;
        // An early version published without a note, so the public dir counts as ours. Note that now: this pass may publish nothing,
        // but its record will hide that the last run was by an early version.
        if note.is_none() && Record::read(private).is_by_version_without_notes(command) {
            return if self.settings.dry_run { Ok(()) } else { Self::note_site(site, private, None) };
        }
        let Some(name) = site.foreign_name(note.as_deref())? else { return Ok(()) };
        let (public_dir, file) = (site.public_dir().display(), site.public_dir().join(name));
        Err(Error::usage(
            format!(
                "the public dir {public_dir} is not empty, and gitsync did not fill it (it holds {}); nothing was touched",
                file.display()
            ),
            "give an empty folder; or, if everything in it may be removed, --replace-public-dir or GIT_SYNC_REPLACE_PUBLIC_DIR=true",
        ))
    }

    /// Writes the note of what in the public dir is ours, on disk before anything is put there. With `built` that includes what was
    /// built.
    fn note_site(site: &Site, private: &PrivateDir, built: Option<&Staged>) -> Result<(), Error> {
        let kept = private.read(SITE_OURS).unwrap_or_default();
        let Some(note) = site.note(kept.as_deref(), built)? else { return Ok(()) };
        let written = private.write_durably(SITE_OURS, &note);
        written.map_err(|error| Error::io("writing the note that the public dir is gitsync's", &error))
    }

    /// Whether the settings ask for a site.
    pub fn builds_site(&self) -> bool {
        self.settings.build_command.is_some()
    }

    /// Notes on disk that the site has to be built again. To be called before the files change.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn site_goes_stale(&self, repo: &Repo) -> Result<(), Error> {
        if self.builds_site() {
            let noted = repo.private.write_durably(SITE_STALE, b"");
            noted.map_err(|error| Error::io("noting that the site has to be built again", &error))?;
        }
        Ok(())
    }

    /// Whether the last build failed or did not finish, or the files have changed since.
    pub fn site_is_stale(&self, repo: &Repo) -> bool {
        self.builds_site() && repo.private.file(SITE_STALE).exists()
    }

    /// Builds the site and swaps it in. If that fails, the failure is added to the outcome and the old site stays.
    pub fn build_site(&mut self, repo: &Repo, remote: Option<CommitId>, mode: Mode) {
        let Some(command) = self.settings.build_command.clone() else { return };
        self.outcome.site_built = Some(false);
        // The stale note comes first: if the site can't be published now, a later pass builds it.
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
                    "the old site stays; correct the build, the next pass tries again",
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

    /// Refuses a public dir with files of somebody else, since publishing would remove them. Inside the work tree these are also
    /// files that git tracks, and files that it neither tracks nor ignores. Then notes that the public dir is ours.
    ///
    /// # Errors
    /// A usage error that names one of the files.
    pub fn may_publish(&self, repo: &Repo) -> Result<(), Error> {
        let Some(site) = &self.site else { return Ok(()) };
        self.check_site_is_ours(site, &repo.private)?;
        if let Ok(inside) = site.public_dir().strip_prefix(&repo.place.work_dir) {
            // The note is about one folder only.
            let ours = repo.private.read(SITE_OURS).is_ok_and(|note| site.is_noted(note.as_deref()));
            if let Some(file) = repo.somebodys_file_in(inside, ours)? {
                return Err(Error::usage(
                    format!("the public dir {} holds {}, which is no part of a site", inside.display(), file.display()),
                    "give a folder that git ignores or that is empty: publishing removes whatever is not part of the site",
                ));
            }
        }
        if self.settings.dry_run { Ok(()) } else { Self::note_site(site, &repo.private, None) }
    }

    /// Empties the public dir, if there is one (init-sync without a build).
    ///
    /// # Errors
    /// If the file system fails.
    pub fn empty_site(&self, repo: &Repo) -> Result<(), Error> {
        self.may_publish(repo)?;
        let Some(site) = &self.site else { return Ok(()) };
        site.empty()?;
        // The exchange may have put another folder there.
        Self::note_site(site, &repo.private, None)
    }
}
