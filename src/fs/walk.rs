//! Walks over sorted paths, and keeps the folders open that the next path shares.
//!
//! [`Dir::parent_of`] opens every folder of a path from the top. For a hundred thousand sorted paths, a walk opens a thousand
//! folders instead of half a million.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::dir::Dir;

/// The open folders from the top down to the last one asked for.
///
/// A handle stays with its folder even if that is renamed, so a caller that moves a folder has to call [`Walk::forget`].
#[derive(Debug)]
pub struct Walk {
    top: Dir,
    open: Vec<(OsString, Dir)>,
    /// The path of the last open folder.
    at: Vec<u8>,
}

/// Where the walk to a path's folder ended.
#[derive(Debug)]
pub enum Reached<'w> {
    /// At the folder.
    There(&'w Dir),
    /// A folder is missing: its depth, counted from 1, and its parent.
    Missing(usize, &'w Dir),
    /// A component is not a folder: its depth, counted from 1.
    Obstacle(usize),
}

impl Walk {
    /// Starts a walk below a folder.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn below(top: &Dir) -> io::Result<Self> {
        Ok(Self { top: top.again()?, open: Vec::new(), at: Vec::new() })
    }

    /// Closes the open folders, because one of them is about to be moved or removed.
    pub fn forget(&mut self) {
        self.open.clear();
        self.at.clear();
    }

    fn at(&self, depth: usize) -> &Dir {
        depth.checked_sub(1).and_then(|above| self.open.get(above)).map_or(&self.top, |(_, dir)| dir)
    }

    /// Walks to the folder that contains a path's last component.
    ///
    /// # Errors
    /// If the file system fails. A component that is missing or not a folder is no error.
    pub fn parent_of(&mut self, path: &Path) -> io::Result<Reached<'_>> {
        if self.at == above(path).as_os_str().as_bytes() {
            return Ok(Reached::There(self.at(self.open.len())));
        }
        let names: Vec<_> = path.parent().into_iter().flat_map(Path::components).map(|it| it.as_os_str()).collect();
        let same = self.open.iter().zip(&names).take_while(|((have, _), name)| have == *name).count();
        self.open.truncate(same);
        self.at.clear();
        for (name, _) in &self.open {
            push(&mut self.at, name);
        }
        for (depth, name) in names.iter().enumerate().skip(same) {
            match self.at(depth).child(*name) {
                Ok(next) => {
                    self.open.push(((*name).to_owned(), next));
                    push(&mut self.at, name);
                }
                Err(Errno::NOENT) => return Ok(Reached::Missing(depth + 1, self.at(depth))),
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Reached::Obstacle(depth + 1)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Reached::There(self.at(names.len())))
    }

    /// Walks to the folder that contains a path's last component, and creates missing folders. `sync`: whether to wait until those
    /// are on disk.
    ///
    /// # Errors
    /// If the file system fails; `NotADirectory` if a component is not a folder.
    pub fn make_parent_of(&mut self, path: &Path, sync: bool) -> io::Result<&Dir> {
        loop {
            match self.parent_of(path)? {
                Reached::There(_) => break,
                Reached::Obstacle(_) => return Err(Errno::NOTDIR.into()),
                Reached::Missing(depth, outer) => {
                    let name = path.components().nth(depth - 1).map_or(Path::new(""), |it| Path::new(it.as_os_str()));
                    match rustix::fs::mkdirat(outer, name, Mode::from_raw_mode(0o777)) {
                        Ok(()) if sync => outer.sync()?,
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(self.at(self.open.len()))
    }
}

/// A path without its last component. `Path::parent` reads the path component by component.
pub fn above(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let folder = bytes.iter().rposition(|byte| *byte == b'/').and_then(|end| bytes.get(..end));
    Path::new(OsStr::from_bytes(folder.unwrap_or_default()))
}

/// Whether a path is below a folder.
pub fn is_below(path: &Path, folder: &Path) -> bool {
    let rest = path.as_os_str().as_bytes().strip_prefix(folder.as_os_str().as_bytes());
    rest.is_some_and(|rest| rest.starts_with(b"/"))
}

fn push(at: &mut Vec<u8>, name: &OsStr) {
    if !at.is_empty() {
        at.push(b'/');
    }
    at.extend(name.as_bytes());
}

/// The first components of a path.
pub fn first(path: &Path, depth: usize) -> PathBuf {
    path.components().take(depth).collect()
}
