//! Whether gitsync has filled the public dir itself: it replaces only what it has published.
//!
//! A note of that is kept in the private folder. A marker file inside the site would be published, and every copy of the site would
//! have it too. The note names the public dir, the folders that may be there, and the names in them. A folder is recognised by its
//! inode and its creation time, not by its device, whose number may change at a reboot. One that was restored from a backup is
//! recognised by the names in it: all of them were published.

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

/// The folder that mkfs makes at the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";

/// If a site has more names at its top than this, it is recognised by its folder only.
const MOST_NAMES: usize = 1000;

/// The content of the note: the public dir, followed by entries that begin with a NUL: `f` and a folder, or `n` and a name. Without
/// entries the public dir may hold anything.
struct Note<'n>(&'n [u8]);

impl<'n> Note<'n> {
    fn is_of(&self, public_dir: &Path) -> bool {
        self.0.split(|byte| *byte == 0).next() == Some(public_dir.as_os_str().as_bytes())
    }

    fn parts(&self) -> impl Iterator<Item = &'n [u8]> {
        self.0.split(|byte| *byte == 0).skip(1)
    }

    /// Whether the note names this folder.
    fn has_folder(&self, folder: &Folder) -> bool {
        self.parts().any(|part| part == folder.known_by)
    }

    fn covers(&self, folder: &Folder) -> bool {
        let has = |name: &OsString| self.parts().any(|part| part.split_first() == Some((&b'n', name.as_bytes())));
        self.parts().next().is_none() || self.has_folder(folder) || folder.names.iter().all(has)
    }
}

/// A folder and the names in it.
struct Folder {
    known_by: Vec<u8>,
    names: Vec<OsString>,
}

impl Folder {
    /// Reads the folder; `None` if there is none.
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
    /// One name in the public dir that gitsync did not put there, according to `note`. `None` if the public dir is missing or empty,
    /// or if gitsync filled it. (A file that somebody adds to our site can't be told from the site.)
    ///
    /// # Errors
    /// If the public dir can't be read.
    pub fn foreign_name(&self, note: Option<&[u8]>) -> Result<Option<OsString>, Error> {
        let Some(folder) = self.folder()? else { return Ok(None) };
        let ours = note.map(Note).is_some_and(|note| note.is_of(&self.public_dir) && note.covers(&folder));
        Ok(folder.names.into_iter().next().filter(|_| !ours))
    }

    /// Whether the note is about this public dir, whatever is in it.
    #[must_use]
    pub fn is_noted(&self, note: Option<&[u8]>) -> bool {
        note.map(Note).is_some_and(|note| note.is_of(&self.public_dir))
    }

    /// The note to write before anything is put into the public dir; `None` if `kept` is right already. With `built` it is the note
    /// to write before that is published, and the public dir is created if it is missing: so files that a killed pass leaves there
    /// are known to be ours.
    ///
    /// # Errors
    /// If the public dir can't be read or created.
    pub fn note(&self, kept: Option<&[u8]>, built: Option<&Staged>) -> Result<Option<Vec<u8>>, Error> {
        let mut note = self.public_dir.as_os_str().as_bytes().to_vec();
        // A build in place may replace the folder itself, so the note must not name folders.
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
    fn a_folder_is_recognised_by_itself_or_by_holding_only_published_names() {
        let note = Note(b"/public\0f7 99\0nindex.html\0na b");
        assert!(note.is_of(Path::new("/public")) && !note.is_of(Path::new("/publi")));
        assert!(note.covers(&folder("f7 99", &["somebody's"])));
        assert!(note.covers(&folder("f8 100", &["a b", "index.html"])));
        assert!(!note.covers(&folder("f8 100", &["index.html", "somebody's"])));
        assert!(!note.covers(&folder("f7 100", &["index.htm"])));
    }

    #[test]
    fn a_note_without_entries_covers_everything_in_the_public_dir() {
        assert!(Note(b"/public").covers(&folder("f8 100", &["a"])));
    }
}
