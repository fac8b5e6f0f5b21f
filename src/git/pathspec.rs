//! The pathspecs of `--path`, as in git.
//!
//! git's magic (`:(glob)`, `:!`) is parsed here, because libgit2 parses none of it. libgit2 matches the wildcards.
//! Where the two differ, gitsync does what git does: `:(glob)` is matched folder by folder, because libgit2 lets a `*`
//! match a slash.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Context, Error};

const OUTSIDE: &str = "give a path relative to the repository's top, without '..' and outside '.git'";

/// The characters that are special in git's glob patterns.
const WILD: &[u8] = b"*?[\\";

/// A pathspec that stays inside the work tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pathspec {
    given: OsString,
    /// The pattern, without magic and redundant components; empty for everything.
    pattern: Vec<u8>,
    /// Whether it ended with a slash: then it matches what is in this folder, but no file of that name.
    folder: bool,
    glob: Glob,
    exclude: bool,
    icase: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glob {
    /// The pattern is a plain path without wildcards.
    Literal,
    /// A `*` also matches slashes: git's default.
    AcrossFolders,
    /// `:(glob)`: a `*` stays within a folder, and `**` matches any number of folders.
    ByFolder,
}

/// The magic before a pattern.
#[derive(Clone, Copy, Debug, Default)]
struct Magic {
    exclude: bool,
    icase: bool,
    glob: bool,
    literal: bool,
}

impl Magic {
    /// Parses `:(word,word)` from after its bracket. Returns what follows.
    fn long<'t>(&mut self, text: &'t [u8]) -> Result<&'t [u8], String> {
        let end = text.iter().position(|byte| *byte == b')');
        let Some((words, rest)) = end.and_then(|end| text.split_at_checked(end)) else {
            return Err("its magic has no ')' at the end".into());
        };
        for word in words.split(|byte| *byte == b',').filter(|word| !word.is_empty()) {
            match word {
                b"exclude" => self.exclude = true,
                b"icase" => self.icase = true,
                b"glob" => self.glob = true,
                b"literal" => self.literal = true,
                // Paths are relative to the top anyway.
                b"top" => {}
                other => {
                    let known = "use exclude, glob, icase, literal or top";
                    return Err(format!("gitsync has no pathspec magic '{}': {known}", String::from_utf8_lossy(other)));
                }
            }
        }
        Ok(rest.get(1..).unwrap_or_default())
    }

    /// Parses `!`, `^` and `/` after a colon, up to a second colon if there is one. Returns what follows.
    fn short<'t>(&mut self, mut text: &'t [u8]) -> Result<&'t [u8], String> {
        while let Some((first, rest)) = text.split_first() {
            match first {
                b'!' | b'^' => self.exclude = true,
                b'/' => {}
                b':' => return Ok(rest),
                // git reserves these for future magic.
                b'"' | b'#' | b'%' | b'&' | b'\'' | b',' | b'-' | b';' | b'<' | b'=' | b'>' | b'@' | b'_' | b'`'
                | b'~' => {
                    return Err(format!("git has no pathspec magic '{}'", char::from(*first)));
                }
                _ => break,
            }
            text = rest;
        }
        Ok(text)
    }
}

impl Pathspec {
    /// Parses a pathspec in git's syntax.
    ///
    /// # Errors
    /// What is wrong with it, to show to the user: it leads out of the work tree or into `.git`, or its magic is
    /// unknown.
    pub fn parse(given: &OsStr) -> Result<Self, String> {
        let text = given.as_bytes();
        let mut magic = Magic::default();
        let rest = match (text.strip_prefix(b":("), text.strip_prefix(b":")) {
            (Some(long), _) => magic.long(long)?,
            (None, Some(short)) => magic.short(short)?,
            (None, None) => text,
        };
        if magic.glob && magic.literal {
            return Err("'glob' and 'literal' contradict each other".into());
        }
        let inside = inside(Path::new(OsStr::from_bytes(rest))).filter(|_| !text.is_empty()).ok_or(OUTSIDE)?;
        let pattern = inside.into_os_string().into_vec();
        let glob = match pattern.iter().any(|byte| WILD.contains(byte)) && !magic.literal {
            false => Glob::Literal,
            true if magic.glob => Glob::ByFolder,
            true => Glob::AcrossFolders,
        };
        if glob != Glob::Literal && pattern.iter().any(u8::is_ascii_control) {
            return Err("a pattern can't hold control characters: name the folder, or use ':(literal)'".into());
        }
        let wrong = |part: &[u8]| part != b"**" && part.windows(2).any(|two| two == b"**");
        if glob == Glob::ByFolder && pattern.split(|byte| *byte == b'/').any(wrong) {
            return Err("in a ':(glob)' pattern '**' must stand alone between slashes".into());
        }
        let folder = rest.ends_with(b"/") && !pattern.is_empty();
        Ok(Self { given: given.to_owned(), pattern, folder, glob, exclude: magic.exclude, icase: magic.icase })
    }

    /// A pathspec that matches everything: git uses it if only exclusions are given.
    fn everything() -> Self {
        let (given, pattern) = (OsString::from("."), Vec::new());
        Self { given, pattern, folder: false, glob: Glob::Literal, exclude: false, icase: false }
    }

    /// Returns whether this excludes paths that others match.
    pub fn is_exclusion(&self) -> bool {
        self.exclude
    }

    /// Returns whether what it matches depends on what exists: it has wildcards or ignores case.
    pub(super) fn is_pattern(&self) -> bool {
        self.glob != Glob::Literal || self.icase
    }

    /// Returns whether it matches only what is in a folder.
    pub(super) fn is_folder(&self) -> bool {
        self.folder
    }

    /// The text as it was given.
    pub fn given(&self) -> &OsStr {
        &self.given
    }

    /// The path that it names, or the folder that holds everything it may match; relative to the top.
    pub fn base(&self) -> PathBuf {
        let literal = self.literal();
        let folder = |text: &[u8]| text.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let base = match self.glob {
            _ if self.icase => &[][..],
            Glob::Literal => literal,
            Glob::AcrossFolders | Glob::ByFolder => literal.get(..folder(literal)).unwrap_or_default(),
        };
        super::path_of(base)
    }

    /// The pattern up to its first wildcard.
    fn literal(&self) -> &[u8] {
        let end = match self.glob {
            Glob::Literal => None,
            _ => self.pattern.iter().position(|byte| WILD.contains(byte)),
        };
        end.and_then(|end| self.pattern.get(..end)).unwrap_or(&self.pattern)
    }

    /// The names on the way from [`Pathspec::base`] to what matches, each with whether it is only the beginning of a
    /// name.
    pub(super) fn leads(&self) -> Vec<(Vec<u8>, bool)> {
        let base = self.base();
        let literal = self.literal();
        let rest = literal.get(base.as_os_str().len()..).unwrap_or_default();
        let mut leads: Vec<_> = rest.split(|byte| *byte == b'/').map(|name| (name.to_vec(), false)).collect();
        if let Some((_, is_beginning)) = leads.last_mut() {
            *is_beginning = self.glob != Glob::Literal;
        }
        leads.retain(|(name, _)| !name.is_empty());
        leads
    }

    pub(super) fn same(&self, ours: &[u8], theirs: &[u8]) -> bool {
        if self.icase { ours.eq_ignore_ascii_case(theirs) } else { ours == theirs }
    }

    /// Returns whether the pattern, taken as a plain path, is this path or a folder above it.
    fn names(&self, path: &[u8]) -> bool {
        let length = self.pattern.len();
        let (Some(head), after) = (path.get(..length), path.get(length)) else { return false };
        let whole = if length == 0 { true } else { after == Some(&b'/') || (after.is_none() && !self.folder) };
        whole && self.same(head, &self.pattern)
    }

    /// Returns whether something in this folder may match.
    pub fn may_match_in(&self, folder: &Path) -> bool {
        let mut ours = self.literal().to_vec();
        if self.glob == Glob::Literal && !ours.is_empty() {
            ours.push(b'/');
        }
        let folder = [folder.as_os_str().as_bytes(), b"/"].concat();
        let common = ours.len().min(folder.len());
        self.same(ours.get(..common).unwrap_or_default(), folder.get(..common).unwrap_or_default())
    }
}

impl fmt::Display for Pathspec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.given.display().fmt(f)
    }
}

/// A path without redundant components; `None` if it leads out of the work tree or into the repository's own `.git`.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Some file systems fold case; `.GIT` is `.git` there.
            Component::Normal(name) if name.eq_ignore_ascii_case(".git") => return None,
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Pathspecs, compiled. A path matches if one of them matches it and no exclusion does.
pub struct Matcher {
    included: Vec<One>,
    excluded: Vec<One>,
}

struct One {
    spec: Pathspec,
    wild: Wild,
}

enum Wild {
    None,
    Whole(git2::Pathspec),
    Parts(Vec<Part>),
}

/// A component of a `:(glob)` pattern.
enum Part {
    /// `**`
    Folders,
    Name(git2::Pathspec),
}

impl Matcher {
    /// # Errors
    /// If libgit2 refuses a pattern.
    pub fn new(specs: &[Pathspec]) -> Result<Self, Error> {
        let all: Result<Vec<One>, git2::Error> = specs.iter().cloned().map(One::new).collect();
        let (excluded, mut included): (Vec<_>, Vec<_>) =
            all.context("reading --path")?.into_iter().partition(|one| one.spec.exclude);
        if included.is_empty() {
            included.push(One { spec: Pathspec::everything(), wild: Wild::None });
        }
        Ok(Self { included, excluded })
    }

    /// The pathspecs that are not exclusions, in their order.
    pub fn included(&self) -> impl Iterator<Item = &Pathspec> {
        self.included.iter().map(|one| &one.spec)
    }

    /// Returns whether a file matches and is not excluded.
    pub fn matches(&self, path: &Path) -> bool {
        self.included.iter().any(|one| one.matches(path)) && !self.excludes(path)
    }

    /// Returns whether the pathspec at index `nth` of [`Matcher::included`] matches a file.
    pub(super) fn nth_matches(&self, nth: usize, path: &Path) -> bool {
        self.included.get(nth).is_some_and(|one| one.matches(path))
    }

    /// Returns whether a file, or a folder with everything in it, is excluded.
    pub fn excludes(&self, path: &Path) -> bool {
        self.excluded.iter().any(|one| one.matches(path))
    }

    /// Returns whether something in a folder may match, ignoring exclusions.
    pub(super) fn may_match_in(&self, folder: &Path) -> bool {
        self.included.iter().any(|one| one.spec.may_match_in(folder))
    }

    /// Returns whether everything in a folder matches.
    pub(super) fn takes_whole(&self, folder: &Path) -> bool {
        let inside = folder.join("_");
        self.excluded.is_empty() && self.included.iter().any(|one| one.spec.names(inside.as_os_str().as_bytes()))
    }
}

impl One {
    fn new(spec: Pathspec) -> Result<Self, git2::Error> {
        let wild = match spec.glob {
            _ if spec.folder => Wild::None,
            Glob::Literal => Wild::None,
            Glob::AcrossFolders => Wild::Whole(compiled(&spec.pattern)?),
            Glob::ByFolder => {
                let part = |text: &[u8]| match text {
                    b"**" => Ok(Part::Folders),
                    name => compiled(name).map(Part::Name),
                };
                Wild::Parts(spec.pattern.split(|byte| *byte == b'/').map(part).collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { spec, wild })
    }

    fn matches(&self, path: &Path) -> bool {
        let flags = if self.spec.icase { git2::PathspecFlags::IGNORE_CASE } else { git2::PathspecFlags::DEFAULT };
        let fits = |pattern: &git2::Pathspec, text: &Path| pattern.matches_path(text, flags);
        self.spec.names(path.as_os_str().as_bytes())
            || match &self.wild {
                Wild::None => false,
                // git2 panics on a path that is not relative.
                _ if !path.components().all(|part| matches!(part, Component::Normal(_))) => false,
                Wild::Whole(pattern) => path.components().next().is_some() && fits(pattern, path),
                Wild::Parts(parts) => fit_by_folder(parts, path, &fits),
            }
    }
}

/// Matches a path folder by folder, keeping track of how many names the parts so far can match: at most parts times
/// names steps.
fn fit_by_folder(parts: &[Part], path: &Path, fits: &dyn Fn(&git2::Pathspec, &Path) -> bool) -> bool {
    let names: Vec<&Path> = path.components().map(|name| Path::new(name.as_os_str())).collect();
    let mut reached = vec![false; names.len() + 1];
    reached[0] = true;
    for (at, part) in parts.iter().enumerate() {
        let is_last = at + 1 == parts.len();
        let mut next = vec![false; names.len() + 1];
        let mut any = false;
        for (count, here) in reached.iter().enumerate() {
            match part {
                Part::Folders => {
                    // At the end of a pattern it matches everything inside, but not the folder itself.
                    next[count] = any || (*here && !is_last);
                    any |= *here;
                }
                Part::Name(pattern) => {
                    if *here && names.get(count).is_some_and(|name| fits(pattern, name)) {
                        next[count + 1] = true;
                    }
                }
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

/// Compiles a pattern with libgit2, escaping what libgit2 would treat specially besides: a `!` or `#` at the beginning,
/// and blanks.
fn compiled(pattern: &[u8]) -> Result<git2::Pathspec, git2::Error> {
    let mut text = Vec::with_capacity(pattern.len() + 1);
    let mut escaped = false;
    for (at, byte) in pattern.iter().enumerate() {
        let special = *byte == b' ' || (at == 0 && (*byte == b'!' || *byte == b'#'));
        if special && !escaped {
            text.push(b'\\');
        }
        escaped = *byte == b'\\' && !escaped;
        text.push(*byte);
    }
    git2::Pathspec::new([text])
}
