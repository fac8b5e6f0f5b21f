//! Packs what a remote lacks.
//!
//! libgit2's builder of packs makes no thin ones, and looks for deltas among objects that have nothing in common, a dozen of
//! them in memory at a time. Here an object is told by what was at its path before, whether that is in the pack or only on the
//! remote: the line that a tick adds to a ledger costs a line.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::{ObjectType, Odb};
use ring::digest::{Context as Digest, SHA1_FOR_LEGACY_USE_ONLY};

use super::CommitId;
use super::connectivity::{Depth, Fault, Inspection, parents_first, shallow_roots};
use super::delta::delta;
use crate::error::{Context, Error};
use crate::remote::spool::Spool;
use crate::watchdog::STACK;

/// An object whose delta needs so many others is told whole.
const LONGEST_CHAIN: usize = 50;
/// Larger objects are told whole, and compressed one at a time, straight into the pack.
const LARGE: usize = 8 << 20;
/// Fewer objects than this are not worth a thread.
const WORTH_THREADS: usize = 64;
const MOST_THREADS: usize = 4;
/// What git's format calls an object that is told by its difference from another one.
const REF_DELTA: u8 = 7;

/// An object of the pack, and the one that it is told by.
struct Entry {
    id: CommitId,
    base: Option<CommitId>,
}

/// The pack under way.
struct Output {
    spool: Spool,
    digest: Digest,
    written: usize,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.spool.write_all(bytes)?;
        self.digest.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs everything that `commit` needs and that `theirs` do not reach. `thin`: what `theirs` reach may be told from. `path`:
/// where a large pack is written. `progress` gets how many objects are through, and of how many.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] if an object is missing; the file system's error.
pub fn pack(
    git: &git2::Repository,
    commit: CommitId,
    (theirs, thin): (&[CommitId], bool),
    path: PathBuf,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Spool, Error> {
    let doing = "packing what the remote lacks";
    let odb = git.odb().context(doing)?;
    let entries = entries(&odb, git, commit, theirs, thin).map_err(|fault| fault.ours(doing))?;
    let count = u32::try_from(entries.len()).map_err(|_| Error::person(doing, "push less at a time"))?;
    let mut output = Output { spool: Spool::new(path), digest: Digest::new(&SHA1_FOR_LEGACY_USE_ONLY), written: 0 };
    output.write_all(b"PACK\0\0\0\x02").and_then(|()| output.write_all(&count.to_be_bytes())).context(doing)?;
    let (output, next) = (Mutex::new(output), AtomicUsize::new(0));
    let work = || -> Result<(), Error> {
        while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
            write(&odb, entry, &output).map_err(|failed| failed.context(doing))?;
            let written = {
                let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
                output.written += 1;
                output.written
            };
            progress(written, entries.len());
        }
        Ok(())
    };
    let helpers = match entries.len() < WORTH_THREADS {
        true => 0,
        false => std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS) - 1,
    };
    std::thread::scope(|scope| {
        // One that can't be started does no harm: this thread works too.
        let thread = || std::thread::Builder::new().name("pack".to_owned()).stack_size(STACK).spawn_scoped(scope, work);
        let helpers: Vec<_> = (0..helpers).filter_map(|_| thread().ok()).collect();
        let ours = work();
        helpers.into_iter().filter_map(|helper| helper.join().ok()).fold(ours, |all, one| all.and(one))
    })?;
    let Output { mut spool, digest, .. } = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    spool.write_all(digest.finish().as_ref()).context(doing)?;
    tracing::debug!(objects = count, bytes = spool.length(), "packed what the remote lacks");
    Ok(spool)
}

/// The commits, trees and files that `commit` needs and that `theirs` do not reach. What an object is told by comes before it.
fn entries(
    odb: &Odb<'_>,
    git: &git2::Repository,
    commit: CommitId,
    theirs: &[CommitId],
    thin: bool,
) -> Result<Vec<Entry>, Fault> {
    let mut inspection = Inspection::new(odb, shallow_roots(git.commondir()), Depth::Header);
    inspection.seen = Some(Vec::new());
    let mut commits = HashMap::new();
    for (id, read) in inspection.commits(&[commit], theirs)? {
        commits.insert(id, read?);
    }
    let order = parents_first(&commits, &[commit]);
    for id in &order {
        if let Some(commit) = commits.get(id) {
            inspection.files(commit, &commits)?;
        }
    }
    let mut entries: Vec<Entry> = order.into_iter().map(|id| Entry { id, base: None }).collect();
    let mut depths: HashMap<CommitId, usize> = HashMap::new();
    let seen = inspection.seen.take().unwrap_or_default();
    let ours: std::collections::HashSet<CommitId> = seen.iter().map(|(id, _)| *id).collect();
    for (id, before) in seen {
        if depths.contains_key(&id) {
            continue;
        }
        let depth_by = |base: &CommitId| match depths.get(base) {
            Some(depth) => Some(depth + 1).filter(|depth| *depth < LONGEST_CHAIN),
            // It comes later in the pack, or is not in it.
            None => (thin && !ours.contains(base)).then_some(1),
        };
        let base = before.filter(|base| *base != id).and_then(|base| depth_by(&base).map(|depth| (base, depth)));
        depths.insert(id, base.map_or(0, |(_, depth)| depth));
        entries.push(Entry { id, base: base.map(|(base, _)| base) });
    }
    Ok(entries)
}

/// Why an object could not be packed.
enum Failed {
    Object(git2::Error),
    File(io::Error),
}

impl Failed {
    fn context(self, doing: &str) -> Error {
        match self {
            Failed::Object(error) => Error::git(doing, &error),
            Failed::File(error) => Error::io(doing, &error),
        }
    }
}

/// Writes one object to the pack.
fn write(odb: &Odb<'_>, entry: &Entry, output: &Mutex<Output>) -> Result<(), Failed> {
    let object = odb.read(entry.id).map_err(Failed::Object)?;
    let kind = match object.kind() {
        ObjectType::Commit => 1,
        ObjectType::Tree => 2,
        ObjectType::Blob => 3,
        ObjectType::Tag => 4,
        ObjectType::Any => 0,
    };
    let lock = || output.lock().unwrap_or_else(PoisonError::into_inner);
    let data = object.data();
    if data.len() > LARGE {
        let mut output = lock();
        return header(&mut *output, kind, data.len())
            .and_then(|()| compress(&mut *output, data))
            .map_err(Failed::File);
    }
    let base = entry.base.filter(|base| odb.read_header(*base).is_ok_and(|(size, _)| size <= LARGE));
    // What can't be read makes no difference smaller.
    let base = base.and_then(|id| Some((id, odb.read(id).ok().filter(|base| base.kind() == object.kind())?)));
    let difference = base.and_then(|(id, base)| Some((id, delta(base.data(), data)?)));
    let mut bytes = Vec::new();
    let written = match difference {
        Some((base, delta)) => header(&mut bytes, REF_DELTA, delta.len())
            .and_then(|()| bytes.write_all(base.as_bytes()))
            .and_then(|()| compress(&mut bytes, &delta)),
        None => header(&mut bytes, kind, data.len()).and_then(|()| compress(&mut bytes, data)),
    };
    written.and_then(|()| lock().write_all(&bytes)).map_err(Failed::File)
}

/// What comes before each object: its kind and size.
fn header(out: &mut impl Write, kind: u8, size: usize) -> io::Result<()> {
    let mut byte = kind << 4 | (size & 0x0f) as u8;
    let mut rest = size >> 4;
    let mut bytes = Vec::new();
    while rest > 0 {
        bytes.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    bytes.push(byte);
    out.write_all(&bytes)
}

fn compress(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let mut encoder = ZlibEncoder::new(out, Compression::default());
    encoder.write_all(data)?;
    encoder.finish().map(drop)
}
