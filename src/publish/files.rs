//! Publishes file by file into a folder that can't be exchanged. Each file is replaced atomically.
//!
//! There are three steps, the slow one first. Compare, and bring new and changed files into a hidden folder inside the public
//! dir, which is on the same file system as the files they replace. Rename them into place, new files before changed ones, so
//! that a page never refers to a file that is still missing. Remove the files that are not part of the site any more. If a file
//! becomes a folder or the other way round, the two are exchanged.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::folder::cannot_be_moved;
use crate::fs::dir::{Dir, FileKind, Found};

/// The hidden folder in the public dir for new and changed files. Others can't read it.
pub(super) const INCOMING: &str = ".gitsync-incoming";

/// The folder that mkfs makes at the root of a file system. It is not removed.
const LOST_AND_FOUND: &str = "lost+found";

type Failure = (String, io::Error);

fn to<E: Into<io::Error>>(what: &str, name: &OsStr) -> impl FnOnce(E) -> Failure {
    let what = format!("{what} {}", String::from_utf8_lossy(name.as_bytes()).escape_debug());
    move |error| (what, error.into())
}

/// Removes what a killed publish left in the public dir.
pub(super) fn remove_left_overs(public: &Dir) -> Result<(), Errno> {
    public.remove(OsStr::new(INCOMING))
}

/// Makes the public folder equal to the staged one, whose files are moved away.
pub(super) fn publish(staged: &Dir, public: &Dir) -> Result<(), Failure> {
    let incoming = OsStr::new(INCOMING);
    remove_left_overs(public).map_err(to("remove", incoming))?;
    public.make(incoming).map_err(to("make", incoming))?;
    let done = public.sub(incoming).map_err(to("open", incoming)).and_then(|folder| {
        let mut plan =
            Plan { incoming: &folder, at: Vec::new(), brought: 0, new: vec![], changed: vec![], gone: vec![] };
        plan.compare(staged, public)?;
        // A power loss must not leave a page's name without its bytes.
        if plan.brought > 0 {
            folder.sync_all().map_err(to("bring to disk", incoming))?;
        }
        plan.place(public)?;
        plan.remove(public)?;
        // The caller removes the note that the site is stale only after this.
        public.sync_all().map_err(to("bring to disk", OsStr::new("the public dir")))
    });
    done.and(public.remove(incoming).map_err(to("remove", incoming)))
}

struct Plan<'a> {
    incoming: &'a Dir,
    /// The names that lead from the public dir to the folder being compared.
    at: Vec<OsString>,
    brought: u64,
    new: Vec<Piece>,
    changed: Vec<Piece>,
    gone: Vec<Gone>,
}

/// A file, link or folder in the incoming folder, to be renamed into place.
struct Piece {
    waits_as: OsString,
    at: Vec<OsString>,
    name: OsString,
    /// Whether a folder replaces something else, or something else a folder.
    instead: bool,
}

struct Gone {
    at: Vec<OsString>,
    name: OsString,
}

impl Plan<'_> {
    fn compare(&mut self, staged: &Dir, public: &Dir) -> Result<(), Failure> {
        let mut names = staged.names().map_err(to("read what was built in", &self.path()))?;
        names.sort();
        for name in &names {
            if self.at.is_empty() && name == INCOMING {
                tracing::warn!(target: "gitsync::publish", "left out of the site, the name is taken: {INCOMING}");
                continue;
            }
            self.compare_one(name, staged, public)?;
        }
        let mut old = public.names().map_err(to("read", &self.path()))?;
        old.retain(|name| names.binary_search(name).is_err());
        for name in old {
            let ours = !self.at.is_empty() || (name != INCOMING && !is_lost_and_found(public, &name));
            if ours {
                self.gone.push(Gone { at: self.at.clone(), name });
            }
        }
        Ok(())
    }

    fn compare_one(&mut self, name: &OsStr, staged: &Dir, public: &Dir) -> Result<(), Failure> {
        let Some(new) = staged.look(name).map_err(to("look at what was built as", name))? else { return Ok(()) };
        let Some(old) = public.look(name).map_err(to("look at", name))? else {
            let piece = self.bring(name, staged, false)?;
            self.new.push(piece);
            return Ok(());
        };
        match (new.kind, old.kind) {
            (FileKind::Folder, FileKind::Folder) => {
                let inner = staged.sub_by_force(name).map_err(to("open what was built as", name))?;
                let shown = public.sub(name).map_err(to("open", name))?;
                self.at.push(name.to_owned());
                self.compare(&inner, &shown)?;
                self.at.pop();
                // Fails for a folder of another user, which then keeps its mode.
                let _ = shown.set_own_mode(new.readable());
                return Ok(());
            }
            (FileKind::File { .. }, FileKind::File { .. }) if is_same_file(name, staged, &new, public, &old) => {
                return Ok(());
            }
            (FileKind::Link, FileKind::Link) if staged.link_target(name).ok() == public.link_target(name).ok() => {
                return Ok(());
            }
            _ => {}
        }
        let instead = (new.kind == FileKind::Folder) != (old.kind == FileKind::Folder);
        let piece = self.bring(name, staged, instead)?;
        self.changed.push(piece);
        Ok(())
    }

    /// Moves or copies something into the incoming folder, and so onto the file system of the public dir.
    fn bring(&mut self, name: &OsStr, staged: &Dir, instead: bool) -> Result<Piece, Failure> {
        self.brought += 1;
        let waits_as = OsString::from(self.brought.to_string());
        match staged.rename(name, self.incoming, &waits_as) {
            Err(error) if cannot_be_moved(error) => {
                copy(name, staged, self.incoming, &waits_as).map_err(to("copy", name))?;
            }
            moved => moved.map_err(to("bring in", name))?,
        }
        Ok(Piece { waits_as, at: self.at.clone(), name: name.to_owned(), instead })
    }

    fn place(&self, public: &Dir) -> Result<(), Failure> {
        for piece in self.new.iter().chain(&self.changed) {
            let done = public.beneath(&piece.at).and_then(|folder| self.place_one(piece, &folder));
            done.map_err(to("put into place", &piece.name))?;
        }
        Ok(())
    }

    fn place_one(&self, piece: &Piece, folder: &Dir) -> Result<(), Errno> {
        if piece.instead {
            match self.incoming.exchange(&piece.waits_as, folder, &piece.name) {
                // It can't be exchanged, so for a moment there is nothing at this name.
                Err(error) if cannot_be_moved(error) => self.put_aside(folder, &piece.name)?,
                done => return done,
            }
        }
        self.incoming.rename(&piece.waits_as, folder, &piece.name)
    }

    /// Renames something into the incoming folder, with which it is removed; if that is not possible, removes it at once.
    fn put_aside(&self, folder: &Dir, name: &OsStr) -> Result<(), Errno> {
        let mut number = 0;
        loop {
            number += 1;
            let aside = OsString::from(format!("old-{number}"));
            if self.incoming.look(&aside)?.is_none() {
                return match folder.rename(name, self.incoming, &aside) {
                    Err(error) if cannot_be_moved(error) => folder.remove(name),
                    done => done,
                };
            }
        }
    }

    /// Removes what is gone from the site. A failure is reported only after everything else was removed.
    fn remove(&self, public: &Dir) -> Result<(), Failure> {
        let mut failure = Ok(());
        for gone in &self.gone {
            let done = public.beneath(&gone.at).and_then(|folder| match folder.look(&gone.name)?.map(|it| it.kind) {
                Some(FileKind::Folder) => self.put_aside(&folder, &gone.name),
                Some(FileKind::File { .. } | FileKind::Link | FileKind::Special) => folder.unlink(&gone.name),
                None => Ok(()),
            });
            failure = failure.and(done.map_err(to("remove", &gone.name)));
        }
        failure
    }

    fn path(&self) -> OsString {
        self.at.join(OsStr::new("/"))
    }
}

fn is_lost_and_found(public: &Dir, name: &OsStr) -> bool {
    name == LOST_AND_FOUND
        && matches!(public.look(name), Ok(Some(it)) if it.kind == FileKind::Folder && it.stat.st_uid == 0)
}

fn is_same_file(name: &OsStr, staged: &Dir, new: &Found, public: &Dir, old: &Found) -> bool {
    if new.stat.st_size != old.stat.st_size || (old.is_shared() && old.mode() != new.readable()) {
        return false;
    }
    let same =
        (|| -> io::Result<bool> { same_bytes(staged.open_file(name)?, public.open_file(name)?) })().unwrap_or(false);
    same && (old.mode() == new.readable() || public.set_mode(name, new.readable()).is_ok())
}

fn same_bytes(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    const CHUNK: u64 = 64 * 1024;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        one.by_ref().take(CHUNK).read_to_end(&mut left)?;
        other.by_ref().take(CHUNK).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Copies a file, a link, or a folder with everything in it. Special files were left out before.
fn copy(name: &OsStr, from: &Dir, to: &Dir, new_name: &OsStr) -> io::Result<()> {
    let Some(look) = from.look(name)? else { return Ok(()) };
    match look.kind {
        FileKind::File { .. } => from.copy_file(name, to, new_name, look.readable())?,
        FileKind::Link => to.create_link(new_name, &from.link_target(name)?)?,
        FileKind::Special => {}
        FileKind::Folder => {
            to.make(new_name)?;
            let (inner, copied) = (from.sub_by_force(name)?, to.sub(new_name)?);
            for name in inner.names()? {
                copy(&name, &inner, &copied, &name)?;
            }
            copied.set_own_mode(Mode::from_raw_mode(0o755))?;
        }
    }
    Ok(())
}
