//! A disk that keeps only what it was told to keep, as a pass's system calls tell it.
//!
//! [`Disk`] follows the calls that strace saw: what stands where, which names of a folder and which file's bytes have been
//! synced since they changed. It is strict where file systems are kind: a file's fsync brings the file to the disk and not its
//! name, a folder's brings the names in it and not the folder's own.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The calls that are followed, for `strace -e trace=`.
pub const CALLS: &str = "openat,write,pwrite64,ftruncate,mmap,copy_file_range,rename,renameat,renameat2,link,linkat,symlink,\
                         symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,syncfs,vfork,clone,clone3";

/// One call that changes something, or relies on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Create(PathBuf),
    Write(PathBuf),
    Folder(PathBuf),
    Link(PathBuf),
    Hard(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Gone(PathBuf),
    Sync(PathBuf),
    SyncAll,
    /// A program is started.
    Start,
}

impl Event {
    /// The names that it changes.
    pub fn names(&self) -> Vec<&Path> {
        match self {
            Self::Create(path) | Self::Folder(path) | Self::Link(path) | Self::Gone(path) => vec![path],
            Self::Hard(_, to) => vec![to],
            Self::Rename(from, to) | Self::Exchange(from, to) => vec![from, to],
            Self::Write(_) | Self::Sync(_) | Self::SyncAll | Self::Start => Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    folder: bool,
    /// Its bytes have changed since they were synced.
    dirty: bool,
    /// Where it was at the start.
    origin: Option<PathBuf>,
    /// The names in it, as programs see them.
    live: BTreeMap<OsString, usize>,
    /// The names in it that a power loss leaves.
    disk: BTreeMap<OsString, usize>,
}

/// What a power loss takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Every name and every byte that was not synced.
    NamesAndBytes,
    /// The bytes; files are there and empty.
    Bytes,
    /// The names; what was not brought to disk by name is as it was, with all its bytes.
    Names,
}

#[derive(Clone, Debug)]
pub struct Disk {
    top: PathBuf,
    nodes: Vec<Node>,
}

impl Disk {
    /// All that is below a folder now, and on disk.
    pub fn of(top: &Path) -> Self {
        let mut disk = Self { top: top.to_owned(), nodes: Vec::new() };
        disk.take_in(top);
        disk
    }

    /// Of a folder only what these names in it hold; what is made beside them is followed too.
    pub fn of_some(top: &Path, names: &[&str]) -> Self {
        let mut disk = Self { top: top.to_owned(), nodes: vec![Node { folder: true, ..Node::default() }] };
        for name in names.iter().filter(|name| top.join(name).exists()) {
            let at = disk.take_in(&top.join(name));
            disk.nodes[0].live.insert(OsString::from(name), at);
        }
        disk.nodes[0].disk = disk.nodes[0].live.clone();
        disk
    }

    fn take_in(&mut self, path: &Path) -> usize {
        let folder = path.symlink_metadata().unwrap().is_dir();
        let origin = Some(path.strip_prefix(&self.top).unwrap().to_owned());
        let at = self.new_node(Node { folder, origin, ..Node::default() });
        if folder {
            for entry in fs::read_dir(path).unwrap().flatten() {
                let inner = self.take_in(&entry.path());
                self.nodes[at].live.insert(entry.file_name(), inner);
            }
            self.nodes[at].disk = self.nodes[at].live.clone();
        }
        at
    }

    fn new_node(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let inner = path.strip_prefix(&self.top).ok()?;
        inner.iter().try_fold(0, |at, name| self.nodes[at].live.get(name).copied())
    }

    fn set(&mut self, path: &Path, node: Option<usize>) {
        let Some(parent) = path.parent().and_then(|parent| self.find(parent)) else { return };
        let name = path.file_name().unwrap().to_owned();
        match node {
            Some(node) => self.nodes[parent].live.insert(name, node),
            None => self.nodes[parent].live.remove(&name),
        };
    }

    /// Follows one call.
    pub fn follow(&mut self, event: &Event) {
        match event {
            Event::Create(path) | Event::Link(path) => {
                let dirty = matches!(event, Event::Create(_));
                let node = self.new_node(Node { dirty, ..Node::default() });
                self.set(path, Some(node));
            }
            Event::Folder(path) => {
                let node = self.new_node(Node { folder: true, ..Node::default() });
                self.set(path, Some(node));
            }
            Event::Write(path) => {
                if let Some(at) = self.find(path) {
                    self.nodes[at].dirty = true;
                }
            }
            Event::Hard(from, to) => self.set(to, self.find(from)),
            Event::Rename(from, to) => {
                let moved = self.find(from);
                self.set(from, None);
                self.set(to, moved);
            }
            Event::Exchange(from, to) => {
                let (one, other) = (self.find(from), self.find(to));
                self.set(from, other);
                self.set(to, one);
            }
            Event::Gone(path) => self.set(path, None),
            Event::Sync(path) => {
                if let Some(at) = self.find(path) {
                    self.sync(at);
                }
            }
            Event::SyncAll => (0..self.nodes.len()).for_each(|at| self.sync(at)),
            Event::Start => {}
        }
    }

    fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.dirty = false;
        node.disk = node.live.clone();
    }

    pub fn is_there(&self, path: &Path) -> bool {
        self.find(path).is_some()
    }

    /// Whether a file's bytes are on disk, whatever becomes of its name.
    pub fn has_bytes(&self, path: &Path) -> bool {
        self.find(path).is_some_and(|at| !self.nodes[at].dirty)
    }

    /// What is not on disk as it is, below a path or on the way to it.
    pub fn not_on_disk(&self, path: &Path) -> Vec<String> {
        let Ok(inner) = path.strip_prefix(&self.top) else { return Vec::new() };
        let mut all = Vec::new();
        let (mut at, mut shown) = (0, PathBuf::new());
        for name in inner {
            let parent = &self.nodes[at];
            shown.push(name);
            if parent.live.get(name) != parent.disk.get(name) {
                all.push(format!("the name {}", shown.display()));
            }
            let Some(next) = parent.live.get(name) else { return all };
            at = *next;
        }
        self.below(at, &shown, &mut all);
        all
    }

    fn below(&self, at: usize, shown: &Path, all: &mut Vec<String>) {
        let node = &self.nodes[at];
        if node.dirty {
            all.push(format!("the bytes of {}", shown.display()));
        }
        for name in node.live.keys().chain(node.disk.keys().filter(|name| !node.live.contains_key(*name))) {
            let inner = shown.join(name);
            if node.live.get(name) != node.disk.get(name) {
                all.push(format!("the name {}", inner.display()));
            }
            if let Some(next) = node.live.get(name) {
                self.below(*next, &inner, all);
            }
        }
    }

    /// Every path there is, for comparing with the real folder.
    pub fn paths(&self) -> Vec<PathBuf> {
        fn walk(disk: &Disk, at: usize, path: &Path, all: &mut Vec<PathBuf>) {
            for (name, next) in &disk.nodes[at].live {
                all.push(path.join(name));
                walk(disk, *next, &path.join(name), all);
            }
        }
        let mut all = Vec::new();
        walk(self, 0, Path::new(""), &mut all);
        all.sort();
        all
    }

    /// Keeps copies of all files that are new since the start: a name that is on disk may outlive them.
    pub fn keep_new(&self, kept: &mut HashMap<usize, PathBuf>, store: &Path) {
        fn walk(disk: &Disk, at: usize, path: &Path, kept: &mut HashMap<usize, PathBuf>, store: &Path) {
            let node = &disk.nodes[at];
            if !node.folder && node.origin.is_none() {
                let copy = store.join(at.to_string());
                let _ = fs::remove_file(&copy);
                copy_one(path, &copy);
                kept.insert(at, copy);
            }
            for (name, next) in &node.live {
                walk(disk, *next, &path.join(name), kept, store);
            }
        }
        walk(self, 0, &self.top, kept, store);
    }

    /// Makes `to` what a power loss leaves of the folder. `start`: a copy of what it was; `kept`: see [`Disk::keep_new`].
    pub fn after(&self, loss: Loss, start: &Path, kept: &HashMap<usize, PathBuf>, to: &Path) {
        self.make(0, loss, start, kept, to);
    }

    fn make(&self, at: usize, loss: Loss, start: &Path, kept: &HashMap<usize, PathBuf>, to: &Path) {
        let node = &self.nodes[at];
        if node.folder {
            fs::create_dir_all(to).unwrap();
            let names = if loss == Loss::Bytes { &node.live } else { &node.disk };
            for (name, next) in names {
                // A file that was new and was replaced since, whose bytes no earlier cut has kept: the disk then has the next
                // one, as it may.
                let next = if self.is_unknown(*next, loss, kept) { node.live.get(name) } else { Some(next) };
                if let Some(next) = next {
                    self.make(*next, loss, start, kept, &to.join(name));
                }
            }
            let private = to.ends_with(".git/gitsync");
            fs::set_permissions(to, fs::Permissions::from_mode(if private { 0o700 } else { 0o755 })).unwrap();
        } else if node.dirty && loss != Loss::Names {
            fs::write(to, "").unwrap();
        } else if let Some(copy) = kept.get(&at) {
            copy_one(copy, to);
        } else if let Some(origin) = &node.origin {
            copy_one(&start.join(origin), to);
        } else {
            panic!("nobody kept the bytes of {}", to.display());
        }
    }
}

impl Disk {
    /// Whether nobody knows what a file held.
    fn is_unknown(&self, at: usize, loss: Loss, kept: &HashMap<usize, PathBuf>) -> bool {
        let node = &self.nodes[at];
        let is_empty = node.dirty && loss != Loss::Names;
        !node.folder && !is_empty && node.origin.is_none() && !kept.contains_key(&at)
    }
}

fn copy_one(from: &Path, to: &Path) {
    if let Ok(target) = fs::read_link(from) {
        symlink(target, to).unwrap();
    } else {
        fs::copy(from, to).unwrap();
        let modified = from.metadata().unwrap().modified().unwrap();
        if let Ok(file) = fs::File::options().append(true).open(to) {
            file.set_modified(modified).unwrap();
        }
    }
}

/// The calls of a trace (`strace -y -s 0 -e trace=CALLS`, one thread), in order; a call that failed or had no end is none.
pub fn events(trace: &str, seen: &Disk) -> Vec<Event> {
    let mut disk = seen.clone();
    let mut all = Vec::new();
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let Some((args, result)) = rest.rsplit_once(") = ") else {
            continue;
        };
        if result.starts_with(['-', '?']) {
            continue;
        }
        let event = event(call, args, result, &disk);
        if let Some(event) = event {
            disk.follow(&event);
            all.push(event);
        }
    }
    all
}

fn event(call: &str, args: &str, result: &str, disk: &Disk) -> Option<Event> {
    let args: Vec<&str> = args.split(", ").collect();
    let handle = |text: &str| -> Option<PathBuf> {
        let (_, path) = text.split_once('<')?;
        Some(PathBuf::from(path.strip_suffix('>')?))
    };
    let text = |text: &str| text.trim_matches('"').to_owned();
    let below = |folder: &str, name: &str| Some(handle(folder)?.join(text(name)));
    match call {
        "openat" => {
            let path = handle(result)?;
            if !disk.is_there(&path) && args[2].contains("O_CREAT") {
                Some(Event::Create(path))
            } else {
                args[2].contains("O_TRUNC").then_some(Event::Write(path))
            }
        }
        "write" | "pwrite64" | "ftruncate" => Some(Event::Write(handle(args[0])?)),
        "copy_file_range" => Some(Event::Write(handle(args[2])?)),
        "mmap" => (args[2].contains("PROT_WRITE") && args[3].contains("MAP_SHARED"))
            .then(|| handle(args[4]).map(Event::Write))
            .flatten(),
        "rename" => Some(Event::Rename(text(args[0]).into(), text(args[1]).into())),
        "renameat" => Some(Event::Rename(below(args[0], args[1])?, below(args[2], args[3])?)),
        "renameat2" if args[4].contains("EXCHANGE") => {
            Some(Event::Exchange(below(args[0], args[1])?, below(args[2], args[3])?))
        }
        "renameat2" => Some(Event::Rename(below(args[0], args[1])?, below(args[2], args[3])?)),
        "link" => Some(Event::Hard(text(args[0]).into(), text(args[1]).into())),
        "linkat" => Some(Event::Hard(below(args[0], args[1])?, below(args[2], args[3])?)),
        "symlink" => Some(Event::Link(text(args[1]).into())),
        "symlinkat" => Some(Event::Link(below(args[1], args[2])?)),
        "unlink" | "rmdir" => Some(Event::Gone(text(args[0]).into())),
        "unlinkat" => Some(Event::Gone(below(args[0], args[1])?)),
        "mkdir" => Some(Event::Folder(text(args[0]).into())),
        "mkdirat" => Some(Event::Folder(below(args[0], args[1])?)),
        "fsync" | "fdatasync" => Some(Event::Sync(handle(args[0])?)),
        "syncfs" => Some(Event::SyncAll),
        "vfork" | "clone" | "clone3" => (!rest_is_a_thread(&args)).then_some(Event::Start),
        _ => None,
    }
}

fn rest_is_a_thread(args: &[&str]) -> bool {
    args.iter().any(|arg| arg.contains("CLONE_THREAD"))
}
