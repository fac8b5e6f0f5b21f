//! The private folder, `.git/gitsync/`: what gitsync keeps between passes. It is never committed, and only its owner can read it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::fs::atomic::{self, How};
use crate::fs::files;

/// The suffix of a file that is still being written.
const FRESH: &str = ".new";

/// The private folder of one repository.
#[derive(Clone, Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// The private folder of the repository in `git_dir`. Nothing is created.
    pub fn of(git_dir: &Path) -> Self {
        Self(git_dir.join("gitsync"))
    }

    /// Creates the folder (mode 0700) if it is missing.
    ///
    /// # Errors
    /// If the file system fails, or if there is a link in the folder's place: writes would go elsewhere.
    pub fn create(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.0) {
            Ok(meta) if meta.is_dir() => {
                if meta.permissions().mode() & 0o777 != 0o700 {
                    fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))?;
                }
                Ok(())
            }
            Ok(_) => Err(self.is_no_folder()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&self.0)?;
                self.0.parent().map_or(Ok(()), sync_dir)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a folder that a job has replaced by a link: writes would go elsewhere. A missing folder is accepted.
    ///
    /// # Errors
    /// If there is something else in the folder's place.
    pub fn check(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.0) {
            Ok(meta) if !meta.is_dir() => Err(self.is_no_folder()),
            _ => Ok(()),
        }
    }

    fn is_no_folder(&self) -> io::Error {
        io::Error::other(format!("{} is not a folder", self.0.display()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file or folder in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// [`PrivateDir::file`], with as many `+` added as it takes to get a name that is not in use.
    pub fn free_file(&self, name: &str) -> PathBuf {
        let mut path = self.file(name);
        while path.symlink_metadata().is_ok() {
            path.as_mut_os_string().push("+");
        }
        path
    }

    /// Replaces a file as a whole. When this returns, the new content survives a power loss.
    ///
    /// # Errors
    /// If the file system fails. The old content is then still there.
    pub fn write_durably(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content, true)?;
        sync_dir(&self.0)
    }

    /// Replaces a file as a whole, without waiting for the disk.
    ///
    /// # Errors
    /// If the file system fails. The old content is then still there.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content, false)
    }

    fn replace(&self, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
        self.check()?;
        let fresh = self.file(&format!("{name}{FRESH}"));
        // A killed pass may have left this file. Only the holder of the lock writes here, so nobody uses it.
        remove_if_there(&fresh)?;
        let how = if durable { How::Durably } else { How::Quickly };
        atomic::replace(&self.file(name), &fresh, content, how)
    }

    /// Removes unfinished files of a killed pass. Not every pass would overwrite each of them.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn clear_unfinished(&self) -> io::Result<()> {
        self.check()?;
        for entry in files::entries(&self.0)? {
            let fresh = entry.name().to_string_lossy().ends_with(FRESH);
            if fresh && entry.kind == FileType::RegularFile {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes a file. When this returns, a power loss does not bring it back. Returns whether the file existed.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn remove_durably(&self, name: &str) -> io::Result<bool> {
        self.check()?;
        let existed = remove_if_there(&self.file(name))?;
        if existed {
            sync_dir(&self.0)?;
        }
        Ok(existed)
    }

    /// A folder in it, created if it is missing.
    ///
    /// # Errors
    /// If the file system fails, or if there is a link in the folder's place: writes would go elsewhere.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        self.check()?;
        let path = self.file(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(path),
            Ok(_) => Err(io::Error::other(format!("{} is not a folder", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&path)?;
                Ok(path)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that each of `files` is a file and each of `folders` is a folder, if it exists, and moves anything else into
    /// `aside/`. Returns what was moved, with the old and the new path.
    ///
    /// `stamp`: the time, which becomes part of the new name.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn set_aside_misplaced(
        &self,
        files: &[&str],
        folders: &[&str],
        stamp: &str,
    ) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        let mut moved = Vec::new();
        let files = files.iter().map(|name| (name, false));
        for (name, is_folder) in files.chain(folders.iter().map(|name| (name, true))) {
            let path = self.file(name);
            let fits = |meta: fs::Metadata| if is_folder { meta.is_dir() } else { meta.is_file() };
            if fs::symlink_metadata(&path).map_or(true, fits) {
                continue;
            }
            let mut to = self.folder("aside")?.join(format!("{name}-{stamp}"));
            while to.symlink_metadata().is_ok() {
                to.as_mut_os_string().push("+");
            }
            // If it is gone, another init-sync was faster.
            if rename_if_there(&path, &to)? {
                moved.push((path, to));
            }
        }
        Ok(moved)
    }

    /// Reads a file; `None` if it does not exist.
    ///
    /// # Errors
    /// If the file system fails, or if there is something that is not a file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match files::read(&self.file(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Renames a file or folder if it exists. Returns whether it did.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder that only its owner can read, unless another process has made it meanwhile.
fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => Ok(()),
        made => made,
    }
}

/// Removes a file if it exists. Returns whether it did.
///
/// # Errors
/// If the file system fails.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Syncs a folder's entries to disk.
///
/// # Errors
/// If the file system fails.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn private() -> (tempfile::TempDir, PrivateDir) {
        let git_dir = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(git_dir.path());
        private.create().unwrap();
        (git_dir, private)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_its_owner_can_read_what_is_in_it() {
        let (_git_dir, private) = private();
        assert_eq!(mode(private.path()), 0o700);
        for others_may in [0o755, 0o777, 0o710, 0o600] {
            fs::set_permissions(private.path(), fs::Permissions::from_mode(others_may)).unwrap();
            private.create().unwrap();
            assert_eq!(mode(private.path()), 0o700, "was {others_may:o}");
        }
        private.write("quick", b"1").unwrap();
        private.write_durably("safe", b"2").unwrap();
        assert_eq!((mode(&private.file("quick")), mode(&private.file("safe"))), (0o600, 0o600));
        assert_eq!(mode(&private.folder("inner").unwrap()), 0o700);
    }

    #[test]
    fn what_stands_in_its_place_is_refused_and_nothing_is_written_or_removed_there() {
        let git_dir = tempfile::tempdir().unwrap();
        let elsewhere = git_dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for name in ["mine", "mine.new"] {
            fs::write(elsewhere.join(name), "mine").unwrap();
        }
        let private = PrivateDir::of(git_dir.path());
        private.check().unwrap();
        for is_link in [true, false] {
            if is_link {
                symlink(&elsewhere, private.path()).unwrap();
            } else {
                fs::remove_file(private.path()).unwrap();
                fs::write(private.path(), "a file").unwrap();
            }
            let refused = [
                private.create(),
                private.check(),
                private.write("mine", b"ours"),
                private.write_durably("mine", b"ours"),
                private.remove_durably("mine").map(drop),
                private.clear_unfinished(),
                private.folder("mine").map(drop),
            ];
            for it in refused {
                assert!(it.unwrap_err().to_string().ends_with("gitsync is not a folder"));
            }
            assert_eq!(fs::read_to_string(elsewhere.join("mine")).unwrap(), "mine");
            assert_eq!(names(&elsewhere), ["mine", "mine.new"]);
        }
    }

    #[test]
    fn two_that_make_it_at_once_both_have_it() {
        let git_dir = tempfile::tempdir().unwrap();
        let private = PrivateDir::of(git_dir.path());
        for _ in 0..300 {
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        private.create().unwrap();
                        assert_eq!(private.folder("inner").unwrap(), private.file("inner"));
                    });
                }
            });
            fs::remove_dir_all(private.path()).unwrap();
        }
        assert_eq!(names(git_dir.path()), [""; 0]);
    }

    #[test]
    fn a_folder_is_not_made_where_something_else_is() {
        let git_dir = tempfile::tempdir().unwrap();
        let path = git_dir.path().join("folder");
        make(&path).unwrap();
        make(&path).unwrap();
        for (name, to) in [("to a folder", path.as_path()), ("to nothing", Path::new("nowhere"))] {
            let link = git_dir.path().join(name);
            symlink(to, &link).unwrap();
            assert_eq!(make(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(make(&git_dir.path().join("missing/folder")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn without_a_git_folder_it_is_not_made() {
        let git_dir = tempfile::tempdir().unwrap();
        let missing = PrivateDir::of(&git_dir.path().join("missing"));
        assert_eq!(missing.create().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_replaced_whole_read_and_removed() {
        let (_git_dir, private) = private();
        assert_eq!(private.read("a").unwrap(), None);
        assert!(!private.remove_durably("a").unwrap());
        // What a killed pass left half written is in nobody's way.
        fs::write(private.file("a.new"), "half writt").unwrap();
        private.write("a", b"one").unwrap();
        assert_eq!(private.read("a").unwrap().unwrap(), b"one");
        private.write_durably("a", b"2").unwrap();
        assert_eq!(private.read("a").unwrap().unwrap(), b"2");
        assert!(private.remove_durably("a").unwrap());
        assert_eq!(names(private.path()), [""; 0]);
    }

    #[test]
    fn a_folder_at_the_name_of_a_file_is_an_error_and_stays() {
        let (_git_dir, private) = private();
        fs::create_dir(private.file("a")).unwrap();
        fs::create_dir(private.file("b.new")).unwrap();
        private.read("a").unwrap_err();
        private.write("a", b"one").unwrap_err();
        private.write("b", b"one").unwrap_err();
        private.remove_durably("a").unwrap_err();
        remove_if_there(&private.file("a")).unwrap_err();
        assert_eq!(names(private.path()), ["a", "b.new"]);
    }

    #[test]
    fn only_unfinished_files_are_cleared() {
        let (_git_dir, private) = private();
        for name in ["status.json", "status.json.new", "new"] {
            fs::write(private.file(name), "text").unwrap();
        }
        fs::create_dir(private.file("folder.new")).unwrap();
        symlink("status.json", private.file("link.new")).unwrap();
        private.clear_unfinished().unwrap();
        assert_eq!(names(private.path()), ["folder.new", "link.new", "new", "status.json"]);
    }

    #[test]
    fn a_folder_in_it_is_made_once_and_never_taken_from_elsewhere() {
        let (git_dir, private) = private();
        assert_eq!(private.folder("inner").unwrap(), private.file("inner"));
        fs::write(private.file("inner").join("kept"), "").unwrap();
        assert_eq!(private.folder("inner").unwrap(), private.file("inner"));
        assert_eq!(names(&private.file("inner")), ["kept"]);
        symlink(git_dir.path(), private.file("link")).unwrap();
        fs::write(private.file("file"), "").unwrap();
        for name in ["link", "file"] {
            assert!(private.folder(name).unwrap_err().to_string().ends_with("is not a folder"), "{name}");
        }
        fs::remove_dir_all(private.path()).unwrap();
        assert_eq!(private.folder("inner").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_free_name_is_not_in_use_even_by_a_link_that_leads_nowhere() {
        let (_git_dir, private) = private();
        assert_eq!(private.free_file("kept"), private.file("kept"));
        fs::write(private.file("kept"), "").unwrap();
        symlink("nowhere", private.file("kept+")).unwrap();
        assert_eq!(private.free_file("kept"), private.file("kept++"));
    }

    #[test]
    fn what_has_the_wrong_kind_is_moved_aside_and_nothing_else() {
        let (_git_dir, private) = private();
        let aside = |moved: &[(PathBuf, PathBuf)]| -> Vec<String> {
            moved.iter().map(|(_, to)| to.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let set_aside = || private.set_aside_misplaced(&["file", "odd", "link"], &["folder", "flat"], "now").unwrap();
        fs::write(private.file("file"), "right").unwrap();
        fs::create_dir(private.file("folder")).unwrap();
        assert_eq!((set_aside(), names(private.path())), (vec![], vec!["file".to_owned(), "folder".to_owned()]));
        for name in ["odd-now", "odd-now+"] {
            fs::create_dir(private.file("odd")).unwrap();
            fs::write(private.file("odd").join("in it"), name).unwrap();
            let moved = set_aside();
            assert_eq!((aside(&moved), &moved[0].0), (vec![name.to_owned()], &private.file("odd")));
        }
        symlink("file", private.file("link")).unwrap();
        fs::write(private.file("flat"), "").unwrap();
        assert_eq!(aside(&set_aside()), ["link-now", "flat-now"]);
        assert_eq!(names(private.path()), ["aside", "file", "folder"]);
        assert_eq!(names(&private.file("aside")), ["flat-now", "link-now", "odd-now", "odd-now+"]);
        assert_eq!(fs::read_to_string(private.file("aside/odd-now/in it")).unwrap(), "odd-now");
    }

    #[test]
    fn what_cannot_be_moved_aside_is_an_error() {
        let (_git_dir, private) = private();
        fs::create_dir(private.file("file")).unwrap();
        let too_long = "0".repeat(300);
        private.set_aside_misplaced(&["file"], &[], &too_long).unwrap_err();
        assert!(private.file("file").is_dir());
    }

    #[test]
    fn what_another_process_has_just_moved_aside_is_no_error() {
        let (_git_dir, private) = private();
        assert!(!rename_if_there(&private.file("gone"), &private.file("to")).unwrap());
        fs::create_dir(private.file("folder")).unwrap();
        assert!(rename_if_there(&private.file("folder"), &private.file("to")).unwrap());
        assert_eq!(names(private.path()), ["to"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_on_disk() {
        let (_git_dir, private) = private();
        sync_dir(private.path()).unwrap();
        assert_eq!(sync_dir(&private.file("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
