//! Writes new objects: each to a file of its own, or all of a commit's as one pack.
//!
//! A pack is one file to sync where loose objects are one each, and two folders.

use std::io::Write;

use git2::{ObjectType, Odb, OdbLookupFlags};

use super::Repo;
use crate::error::{Context, Error};

/// Where objects are read from and written to.
pub(super) struct Objects<'g> {
    git: &'g git2::Repository,
    odb: Odb<'g>,
    /// The objects that exist in memory only.
    in_memory: Option<Vec<git2::Oid>>,
    /// Bytes written so far.
    pub(super) size: u64,
}

impl<'g> Objects<'g> {
    /// Writes each object where the repository handle writes it.
    ///
    /// # Errors
    /// If the object store can't be opened.
    pub(super) fn of(git: &'g git2::Repository) -> Result<Self, Error> {
        Ok(Self { git, odb: git.odb().context("opening the objects")?, in_memory: None, size: 0 })
    }

    /// Keeps new objects in memory until [`Objects::into_pack`]. The handle must not be used for anything else.
    ///
    /// # Errors
    /// If the object store can't be opened.
    pub(super) fn in_memory(git: &'g git2::Repository) -> Result<Self, Error> {
        let objects = Self { in_memory: Some(Vec::new()), ..Self::of(git)? };
        objects.odb.add_new_mempack_backend(1000).context("opening the objects")?;
        Ok(objects)
    }

    pub(super) fn read(&self, id: git2::Oid) -> Result<git2::OdbObject<'_>, git2::Error> {
        self.odb.read(id)
    }

    pub(super) fn write(&mut self, kind: ObjectType, bytes: &[u8]) -> Result<git2::Oid, git2::Error> {
        self.size += bytes.len() as u64;
        let Some(in_memory) = &mut self.in_memory else { return self.odb.write(kind, bytes) };
        let id = git2::Oid::hash_object(kind, bytes)?;
        let is_new = !self.odb.exists_ext(id, OdbLookupFlags::NO_REFRESH);
        // Also if it is there already: this keeps `git gc` from removing it as an old object that nothing needs.
        let written = self.odb.write(kind, bytes)?;
        if is_new {
            in_memory.push(id);
        }
        Ok(written)
    }

    /// Writes what is in memory to the repository as one pack, and waits until that is on disk.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn into_pack(self, repo: &Repo) -> Result<(), Error> {
        let doing = "writing a pack";
        let Some(ids) = self.in_memory.filter(|ids| !ids.is_empty()) else { return Ok(()) };
        let mut pack = self.git.packbuilder().context(doing)?;
        for id in ids {
            pack.insert_object(id, None).context(doing)?;
        }
        let mut bytes = git2::Buf::new();
        pack.write_buf(&mut bytes).context(doing)?;
        let odb = repo.git.odb().context(doing)?;
        let mut writer = odb.packwriter().context(doing)?;
        writer.write_all(&bytes).context(doing)?;
        writer.commit().map(drop).context(doing)
    }
}
