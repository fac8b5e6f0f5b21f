//! Whose a public dir is: gitsync publishes over what it filled itself, and over nothing else.
//!
//! What it filled is noted in the private folder. A file in the site would be published, and would vouch for every copy of it.
//! The note names the public dir, the folders that may stand there, and what is in them. A folder is known by when it was made
//! and by its number, not by its device, which is another after a reboot. One that was restored from a backup is known by the
//! names in it: it holds none that was not published.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::files::INCOMING;
use super::rules::unknown;
use super::{Site, Staged, Way};
use crate::error::Error;
use crate::fs::dir::Dir;

/// What the root of a file system holds from the beginning.
const LOST_AND_FOUND: &str = "lost+found";

/// A site with more names at its top is known by its folder alone.
const MOST_NAMES: usize = 1000;

/// What the note says: the public dir, and behind it, each with a NUL before it, `f` with a folder or `n` with a name. Alone, the
/// public dir may hold anything.
struct Note<'n>(&'n [u8]);

impl<'n> Note<'n> {
    fn is_of(&self, public_dir: &Path) -> bool {
        self.0.split(|byte| *byte == 0).next() == Some(public_dir.as_os_str().as_bytes())
    }

    fn parts(&self) -> impl Iterator<Item = &'n [u8]> {
        self.0.split(|byte| *byte == 0).skip(1)
    }

    /// Whether a folder is one of those that it names.
    fn has_folder(&self, folder: &Folder) -> bool {
        self.parts().any(|part| part == folder.known_by)
    }

    fn covers(&self, folder: &Folder) -> bool {
        let has = |name: &OsString| self.parts().any(|part| part.split_first() == Some((&b'n', name.as_bytes())));
        self.parts().next().is_none() || self.has_folder(folder) || folder.names.iter().all(has)
    }
}

/// A folder, and what is in it.
struct Folder {
    known_by: Vec<u8>,
    names: Vec<OsString>,
}

impl Folder {
    /// `None` where there is none.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let known_by = format!("f{} {}", meta.ino(), born.as_nanos()).into_bytes();
        let mut names = Dir::reach(path)?.names()?;
        names.retain(|name| name != LOST_AND_FOUND && !name.as_bytes().starts_with(INCOMING.as_bytes()));
        names.sort();
        Ok(Some(Self { known_by, names }))
    }
}

impl Site {
    /// What the public dir holds that gitsync did not put there, by the note that was kept: one name of it. None where the public
    /// dir is missing or empty, or where gitsync filled it. (What somebody adds to a site of ours is not told from the site.)
    ///
    /// # Errors
    /// Where it can't be looked at.
    pub fn somebodys(&self, note: Option<&[u8]>) -> Result<Option<OsString>, Error> {
        let Some(folder) = self.folder()? else { return Ok(None) };
        let ours = note.map(Note).is_some_and(|note| note.is_of(&self.public_dir) && note.covers(&folder));
        Ok(folder.names.into_iter().next().filter(|_| !ours))
    }

    /// Whether a note is of this public dir, whatever is in it.
    #[must_use]
    pub fn is_noted(&self, note: Option<&[u8]>) -> bool {
        note.map(Note).is_some_and(|note| note.is_of(&self.public_dir))
    }

    /// The note to keep before anything is put into the public dir, where it has to be another than the one that was kept. With
    /// what was built, it is the note to keep before that is published, and the public dir is made where it is missing: files that
    /// a killed pass left there are then known for ours.
    ///
    /// # Errors
    /// Where the public dir can't be looked at or made.
    pub fn note(&self, kept: Option<&[u8]>, built: Option<&Staged>) -> Result<Option<Vec<u8>>, Error> {
        let mut note = self.public_dir.as_os_str().as_bytes().to_vec();
        // A build in place may replace the folder, and be killed.
        if self.way != Way::InPlace {
            if built.is_some() {
                let _ = self.open_public()?;
            }
            let there = self.folder()?;
            let is_known = |folder: &Folder| kept.map(Note).is_some_and(|kept| kept.has_folder(folder));
            if built.is_none() && there.as_ref().is_none_or(is_known) {
                return Ok(None);
            }
            let fresh = built.map_or(Ok(None), |built| Folder::at(&built.path)).map_err(unknown)?;
            let folders: Vec<Folder> = [there, fresh].into_iter().flatten().collect();
            let mut names: Vec<&OsString> = folders.iter().flat_map(|folder| &folder.names).collect();
            names.sort();
            names.dedup();
            if names.len() > MOST_NAMES {
                names.clear();
            }
            for folder in &folders {
                note.push(0);
                note.extend_from_slice(&folder.known_by);
            }
            for name in names {
                note.extend_from_slice(b"\0n");
                note.extend_from_slice(name.as_bytes());
            }
        }
        Ok(Some(note).filter(|note| kept != Some(note)))
    }

    fn folder(&self) -> Result<Option<Folder>, Error> {
        let about = |error| Error { what: self.in_words(&error), ..error };
        Folder::at(&self.public_dir).map_err(unknown).map_err(about)
    }

    fn in_words(&self, error: &Error) -> String {
        format!("the public dir {} {}", self.public_dir.display(), error.what)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn folder(known_by: &str, names: &[&str]) -> Folder {
        Folder {
            known_by: known_by.into(),
            names: names.iter().map(|name| OsString::from_vec((*name).into())).collect(),
        }
    }

    #[test]
    fn a_folder_is_known_by_itself_or_by_nothing_but_what_was_published() {
        let note = Note(b"/public\0f7 99\0nindex.html\0na b");
        assert!(note.is_of(Path::new("/public")) && !note.is_of(Path::new("/publi")));
        assert!(note.covers(&folder("f7 99", &["somebody's"])));
        assert!(note.covers(&folder("f8 100", &["a b", "index.html"])));
        assert!(!note.covers(&folder("f8 100", &["index.html", "somebody's"])));
        assert!(!note.covers(&folder("f7 100", &["index.htm"])));
    }

    #[test]
    fn a_note_of_the_public_dir_alone_is_of_whatever_is_in_it() {
        assert!(Note(b"/public").covers(&folder("f8 100", &["a"])));
    }
}
