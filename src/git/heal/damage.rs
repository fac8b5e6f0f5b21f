//! Proves whether a repository is damaged, by reading it again before it is put aside.
//!
//! libgit2 says "object not found" for a missing object, and also for one whose pack it could not open for lack of a
//! file descriptor. So its answer is only a suspicion. The proof is a second reading that shares nothing with the
//! first: it uses a new handle, and for an object that this one can't read either, the files themselves, one at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Kind};
use crate::fs::files;
use crate::git::raw;
use crate::git::{CommitId, Names, Place};
use crate::state::dir::PrivateDir;

/// The folder in which the files of one pack are linked, to be read without any other.
const READING: &str = "reading";

/// Proven damage of the repository's own objects or references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged, by name: a sentence without a full stop.
    pub what: String,
    /// What identifies the same damage when it comes back.
    pub cause: String,
}

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Every commit, and the trees of the tips; of packed files only the headers.
    Quick,
    /// Every commit with its trees and files, in full.
    Full,
}

/// An object that could not be read.
struct Unread {
    id: git2::Oid,
    kind: &'static str,
    error: git2::Error,
}

/// Reads everything that is reachable, each object once.
struct Reader<'o> {
    odb: &'o git2::Odb<'o>,
    /// The folder of loose objects.
    objects: PathBuf,
    /// The shallow roots, whose parents are not here.
    cut: HashSet<CommitId>,
    seen: HashSet<git2::Oid>,
    reading: Reading,
    /// What is missing of trees and files is on the remote, which has promised to give it.
    partial: bool,
}

impl Reader<'_> {
    fn read(&self, id: git2::Oid, kind: &'static str) -> Result<git2::OdbObject<'_>, Unread> {
        self.odb.read(id).map_err(|error| Unread { id, kind, error })
    }

    /// Reads a commit and all its ancestors. An object that is not a commit has none.
    fn history(&mut self, tip: CommitId, with_trees: bool) -> Result<(), Unread> {
        let mut open = vec![tip];
        while let Some(id) = open.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            let commit = {
                let object = self.read(id, "commit")?;
                match object.kind() {
                    git2::ObjectType::Tag => {
                        let target = object.data().split(|byte| *byte == b'\n').next();
                        let hex = target.and_then(|line| line.strip_prefix(b"object "));
                        open.extend(hex.and_then(|hex| CommitId::from_str(&String::from_utf8_lossy(hex)).ok()));
                        None
                    }
                    git2::ObjectType::Commit => raw::commit(object.data()),
                    _ => None,
                }
            };
            let Some(commit) = commit else { continue };
            if with_trees && (self.reading == Reading::Full || id == tip) {
                self.tree(commit.tree)?;
            }
            if !self.cut.contains(&id) {
                open.extend(commit.parents);
            }
        }
        Ok(())
    }

    /// Reads a tree and everything below it.
    fn tree(&mut self, top: git2::Oid) -> Result<(), Unread> {
        let mut open = vec![top];
        while let Some(id) = open.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            let object = match self.read(id, "tree") {
                Err(unread) if self.is_promised(&unread) => continue,
                object => object?,
            };
            let (mut folders, mut files) = (Vec::new(), Vec::new());
            for entry in raw::tree(object.data()).unwrap_or_default().iter().filter(|entry| !entry.is_submodule()) {
                if entry.is_folder() { folders.push(entry.id) } else { files.push(entry.id) }
            }
            drop(object);
            open.extend(folders);
            for file in files {
                self.file(file)?;
            }
        }
        Ok(())
    }

    /// Reads a file. A pack has a checksum of its own; a loose object, which is among the newest, is read in full.
    fn file(&mut self, id: git2::Oid) -> Result<(), Unread> {
        if !self.seen.insert(id) {
            return Ok(());
        }
        let unread = |error| Unread { id, kind: "file", error };
        let read = if self.reading == Reading::Full || loose_path(&self.objects, id).exists() {
            self.odb.read(id).map(drop).map_err(unread)
        } else {
            self.odb.read_header(id).map(drop).map_err(unread)
        };
        read.or_else(|unread| if self.is_promised(&unread) { Ok(()) } else { Err(unread) })
    }

    fn is_promised(&self, unread: &Unread) -> bool {
        self.partial && unread.error.code() == git2::ErrorCode::NotFound
    }
}

fn loose_path(objects: &Path, id: git2::Oid) -> PathBuf {
    let hex = id.to_string();
    let (folder, file) = hex.split_at(2);
    objects.join(folder).join(file)
}

/// Reads the repository again. Returns the damage if it is proven; `None` if everything can be read, so that the
/// earlier failure was temporary.
///
/// No other handle of the repository may be open in this process: the file descriptors it holds would be missing here.
///
/// # Errors
/// [`Kind::Exhausted`] if the system ran out of something; others if it can't be determined, for example because an
/// alternate object store is unavailable.
pub fn prove(place: &Place, names: &Names, reading: Reading) -> Result<Option<Damage>, Error> {
    crate::git::check_format(&place.git_dir)?;
    let references = match references(&place.git_dir)? {
        Ok(references) => references,
        Err(damage) => return Ok(Some(damage)),
    };
    let stores = Stores::of(place)?;
    let doing = "reading the repository's objects again";
    let odb = git2::Odb::new().context(doing)?;
    for store in &stores.all {
        odb.add_disk_alternate(&store.to_string_lossy()).context(doing)?;
    }
    let cut = cut_commits(&place.git_dir)?;
    let partial = crate::git::whole::is_partial(&place.git_dir);
    let objects = stores.own().to_owned();
    let mut reader = Reader { odb: &odb, objects, cut, seen: HashSet::new(), reading, partial };
    let mut trees_of = BTreeSet::from(["HEAD".to_owned(), format!("refs/heads/{}", names.branch)]);
    trees_of.insert(format!("refs/remotes/{}/{}", names.remote, names.branch));
    // A fetch walks the history of every reference; files are read only for our own.
    let ours = |name: &str| trees_of.contains(name) || name.starts_with("refs/gitsync/");
    let (first, rest): (Vec<_>, Vec<_>) = references.into_iter().partition(|(name, _)| ours(name));
    for ((name, id), with_trees) in first.iter().map(|one| (one, true)).chain(rest.iter().map(|one| (one, false))) {
        if let Err(unread) = reader.history(*id, with_trees) {
            return stores.judge(&unread, name).map(Some);
        }
    }
    Ok(None)
}

/// Returns whether the index is damaged, judging by its own bytes.
///
/// # Errors
/// If that can't be determined: the file exists but can't be read, or it is in a format of git's that libgit2 does not
/// know.
pub fn index_is_damaged(git_dir: &Path) -> Result<bool, Error> {
    let path = git_dir.join("index");
    match files::read(&path) {
        Ok(bytes) if !bytes.starts_with(b"DIRC") => return Ok(true),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Error::path("reading", &path, &error)),
    }
    let Err(error) = git2::Index::open(&path) else { return Ok(false) };
    if error.message().contains("mandatory extension") {
        // It is intact and must not be replaced.
        let what = format!("the index has a format that gitsync can't read ({})", error.message());
        let next = match error.message() {
            it if it.contains("'link'") => {
                "it is split: `git update-index --no-split-index` joins it, and `git config core.splitIndex false` keeps it so"
            }
            it if it.contains("'sdir'") => {
                "it is sparse: `git sparse-checkout disable`, and `git config index.sparse false`"
            }
            _ => "let git write it without that extension",
        };
        return Err(Error::new(Kind::NotReady, what, next));
    }
    match Error::git("reading the index", &error) {
        error if error.kind == Kind::Exhausted => Err(error),
        // libgit2 does not always say why it could not read the file. An error of the disk may be gone at the next try.
        _ => Ok(git2::Index::open(&path).is_err()),
    }
}

/// Returns whether a file begins like an index. A pass that may have nothing to do checks no more than that.
pub(super) fn begins_as_index(path: &Path) -> bool {
    let mut beginning = [0; 4];
    files::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok_and(|()| beginning == *b"DIRC")
}

/// The shallow roots of a repository.
fn cut_commits(git_dir: &Path) -> Result<HashSet<CommitId>, Error> {
    let path = git_dir.join("shallow");
    match files::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(|line| CommitId::from_str(line.trim()).ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(Error::path("reading", &path, &error)),
    }
}

/// Every reference that names an object, read from its own file; or the damage among them.
fn references(git_dir: &Path) -> Result<Result<Vec<(String, CommitId)>, Damage>, Error> {
    // A map by name, because there may be tens of thousands.
    let mut all = BTreeMap::new();
    let damaged = |what: String| Damage { cause: what.clone(), what };
    let packed = git_dir.join("packed-refs");
    let text = match files::read(&packed) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::path("reading", &packed, &error)),
    };
    for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.starts_with(['#', '^'])) {
        match line.split_once(' ').map(|(id, name)| (CommitId::from_str(id), name)) {
            Some((Ok(id), name)) if name.starts_with("refs/") => drop(all.insert(name.to_owned(), id)),
            _ => return Ok(Err(damaged("packed-refs has a line that names no reference".into()))),
        }
    }
    let mut open = vec![(git_dir.join("HEAD"), "HEAD".to_owned()), (git_dir.join("refs"), "refs".to_owned())];
    while let Some((path, name)) = open.pop() {
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::path("looking at", &path, &error)),
        };
        if meta.is_dir() {
            for entry in files::entries(&path).map_err(|error| Error::path("reading", &path, &error))? {
                open.push((entry.path(), format!("{name}/{}", entry.name().to_string_lossy())));
            }
        } else if meta.is_file() && !name.ends_with(".lock") {
            let bytes = files::read(&path).map_err(|error| Error::path("reading", &path, &error))?;
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            match CommitId::from_str(&text) {
                Ok(id) if text.len() == 40 => {
                    // The loose reference is newer than the packed one.
                    all.insert(name, id);
                }
                _ if text.starts_with("ref: ") => {}
                _ => return Ok(Err(damaged(format!("the reference {name} names no commit")))),
            }
        }
    }
    Ok(Ok(all.into_iter().collect()))
}

/// The object stores: the repository's own, and those that it borrows from.
struct Stores {
    all: Vec<PathBuf>,
    /// The borrowed stores that do not exist now.
    away: Vec<PathBuf>,
    private: PrivateDir,
}

impl Stores {
    fn of(place: &Place) -> Result<Self, Error> {
        const MOST: usize = 20;
        let mut stores = Self {
            all: vec![place.git_dir.join("objects")],
            away: Vec::new(),
            private: PrivateDir::of(&place.git_dir),
        };
        let mut at = 0;
        while let Some(store) = stores.all.get(at).cloned().filter(|_| at < MOST) {
            at += 1;
            let list = store.join("info/alternates");
            let text = match files::read(&list) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::path("reading", &list, &error)),
            };
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let borrowed = store.join(line);
                let known = stores.all.contains(&borrowed);
                if borrowed.is_dir() && !known {
                    stores.all.push(borrowed);
                } else if !known {
                    stores.away.push(borrowed);
                }
            }
        }
        Ok(stores)
    }

    fn own(&self) -> &Path {
        self.all.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Searches the files themselves for an object that the second handle could not read either.
    fn judge(&self, unread: &Unread, reference: &str) -> Result<Damage, Error> {
        let Unread { id, kind, error } = unread;
        let mut damaged: Option<PathBuf> = None;
        for store in &self.all {
            let found = match look_loose(store, *id)? {
                Found::Absent => self.look_packed(store, *id)?,
                found => found,
            };
            match found {
                Found::Sound => return Err(self.too_little(&format!("{kind} {id}"), error)),
                Found::Damaged(file) => damaged = damaged.or(Some(file)),
                Found::Absent => {}
            }
        }
        let what = match &damaged {
            Some(file) => format!("{kind} {id}, which {reference} needs, is damaged in {}", file.display()),
            None => format!("{kind} {id}, which {reference} needs, is missing"),
        };
        let borrowed = damaged.as_ref().filter(|file| !file.starts_with(self.own())).or(self.away.first());
        if let Some(borrowed) = borrowed {
            let list = self.own().join("info/alternates");
            let what = format!("{what}; {} borrows from {}", list.display(), borrowed.display());
            let next = "make that object store available again; nothing was put aside, because the repository's own \
                        objects may be intact";
            return Err(Error::new(Kind::NotReady, what, next));
        }
        Ok(Damage { what, cause: format!("{kind} {id}") })
    }

    /// The error for an object that is intact: as far as possible, it says what the system ran out of.
    fn too_little(&self, object: &str, error: &git2::Error) -> Error {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let count = |store: &PathBuf| {
            let entries = files::entries_if_any(&store.join("pack"));
            entries.iter().filter(|entry| entry.path().extension().is_some_and(|end| end == "pack")).count()
        };
        let packs: usize = self.all.iter().map(count).sum();
        // Besides the packs, a pass has about twenty files open.
        let few = limit.is_some_and(|limit| limit < u64::try_from(packs).unwrap_or(0) + 32);
        if few {
            let limit = limit.unwrap_or_default();
            let what = format!("too few file descriptors: {limit} are allowed, and the repository has {packs} packs");
            let next = "allow more (`ulimit -n 1024`), or combine the packs with `git gc`; nothing is damaged";
            return Error::new(Kind::Exhausted, what, next);
        }
        let what = format!("{object} could not be read ({}), but is intact when read alone", error.message());
        Error::new(
            Kind::Exhausted,
            what,
            "check whether memory or file descriptors are short; the next pass tries again",
        )
    }

    /// Searches the packs of a store for an object.
    fn look_packed(&self, store: &Path, id: git2::Oid) -> Result<Found, Error> {
        let folder = store.join("pack");
        let entries = match files::entries(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
            Err(error) => return Err(Error::path("reading", &folder, &error)),
        };
        let mut damaged = None;
        for index in entries.iter().map(files::Entry::path) {
            let pack = index.with_extension("pack");
            let of_pack = index.with_extension("idx");
            if index.extension().is_some_and(|end| end == "pack") && !entries.iter().any(|it| it.path() == of_pack) {
                damaged = Some(of_pack);
            }
            if index.extension().is_none_or(|end| end != "idx") {
                continue;
            }
            let bytes = files::read(&index).map_err(|error| Error::path("reading", &index, &error))?;
            match holds(&bytes, id) {
                None => damaged = Some(index),
                Some(false) => {}
                Some(true) => match read_through(&pack) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => damaged = Some(pack),
                    Err(error) => return Err(Error::path("reading", &pack, &error)),
                    Ok(()) => match self.read_alone(&index, &pack, id)? {
                        true => return Ok(Found::Sound),
                        false => damaged = Some(pack),
                    },
                },
            }
        }
        Ok(damaged.map_or(Found::Absent, Found::Damaged))
    }

    /// Returns whether one pack, without any other, yields the object.
    fn read_alone(&self, index: &Path, pack: &Path, id: git2::Oid) -> Result<bool, Error> {
        let doing = "reading one pack alone";
        let store = self.private.folder(READING).context(doing)?;
        files::remove_folder(&store).context(doing)?;
        fs::create_dir_all(store.join("pack")).context(doing)?;
        for file in [index, pack] {
            let name = file.file_name().unwrap_or_default();
            std::os::unix::fs::symlink(file, store.join("pack").join(name)).context(doing)?;
        }
        let read = git2::Odb::new().and_then(|odb| {
            odb.add_disk_alternate(&store.to_string_lossy())?;
            let read = odb.read(id).map(drop);
            // Damage can make an object claim any size: libgit2 then says that there is no memory for it.
            let claims_too_much = || odb.read_header(id).map_or(true, |(size, _)| size as u64 > LARGEST);
            match read {
                Err(error) if error.class() == git2::ErrorClass::NoMemory && claims_too_much() => {
                    Err(git2::Error::from_str("an object claims an impossible size"))
                }
                read => read,
            }
        });
        // libgit2 does not say why it found nothing: check that the files it needed could be accessed.
        let looked: Result<Vec<_>, _> = [index, pack].iter().map(|file| rustix::fs::stat(*file)).collect();
        files::remove_folder(&store).context(doing)?;
        looked.context(doing)?;
        match read {
            Ok(()) => Ok(true),
            Err(error) => match Error::git(doing, &error) {
                error if error.kind == Kind::Exhausted => Err(error),
                _ => Ok(false),
            },
        }
    }
}

/// No object of a repository that a pass can work in is larger, in bytes.
const LARGEST: u64 = 1 << 40;

/// What the files show about an object.
enum Found {
    Absent,
    Sound,
    Damaged(PathBuf),
}

fn look_loose(store: &Path, id: git2::Oid) -> Result<Found, Error> {
    let path = loose_path(store, id);
    let packed = match files::read(&path) {
        Ok(packed) => packed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(Error::path("reading", &path, &error)),
    };
    let mut bytes = Vec::new();
    let sound = flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).is_ok() && is(&bytes, id);
    Ok(if sound { Found::Sound } else { Found::Damaged(path) })
}

/// Returns whether a loose object's bytes, including the header, have this id.
fn is(bytes: &[u8], id: git2::Oid) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return false };
    let (header, data) = bytes.split_at(end);
    let kind = match header.split(|byte| *byte == b' ').next() {
        Some(b"commit") => git2::ObjectType::Commit,
        Some(b"tree") => git2::ObjectType::Tree,
        Some(b"blob") => git2::ObjectType::Blob,
        Some(b"tag") => git2::ObjectType::Tag,
        _ => return false,
    };
    let data = data.get(1..).unwrap_or_default();
    git2::Oid::hash_object(kind, data).is_ok_and(|hash| hash == id)
}

/// Returns whether a pack's index contains an object; `None` if it is not an index.
fn holds(index: &[u8], id: git2::Oid) -> Option<bool> {
    const FAN_OUT: usize = 256 * 4;
    let (fan_out_at, entry, id_in_entry) =
        if index.starts_with(b"\xfftOc\0\0\0\x02") { (8, 20, 0) } else { (0, 24, 4) };
    let fan_out = index.get(fan_out_at..fan_out_at + FAN_OUT)?;
    let number = |at: usize| {
        let bytes = fan_out.get(at * 4..at * 4 + 4)?;
        usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(255)?;
    let table = index.get(fan_out_at + FAN_OUT..)?.get(..count.checked_mul(entry)?)?;
    let wanted = id.as_bytes();
    let first = usize::from(*wanted.first()?);
    let (from, to) = (if first == 0 { 0 } else { number(first - 1)? }, number(first)?);
    let mut ids = table.get(from.checked_mul(entry)?..to.checked_mul(entry)?)?.chunks_exact(entry);
    Some(ids.any(|bytes| bytes.get(id_in_entry..id_in_entry + 20) == Some(wanted)))
}

/// Reads a file to its end, so that any error of the disk shows.
fn read_through(path: &Path) -> io::Result<()> {
    io::copy(&mut files::open(path)?, &mut io::sink()).map(drop)
}
