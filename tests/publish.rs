//! The site on real file systems: exchanged, put into volumes file by file, read while it changes, killed on the way, and
//! with links laid across every path that leads out.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gitsync::error::{Error, Kind};
use gitsync::publish::{Site, Staged, Surroundings, Way, check};
use needs::needs;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A repository's folders, a public dir beside them, and a folder that is none of gitsync's business.
struct Bench {
    dir: TempDir,
    _mount: Option<Mount>,
}

impl Bench {
    fn new() -> Bench {
        let dir = TempDir::new().unwrap();
        for folder in ["repo/.git/gitsync", "repo/state", "public", "outside"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("outside/precious"), "precious").unwrap();
        fs::set_permissions(dir.path().join("outside/precious"), fs::Permissions::from_mode(0o600)).unwrap();
        Bench { dir, _mount: None }
    }

    /// With the public dir being the root of a file system of its own.
    fn on_tmpfs() -> Bench {
        let mut bench = Bench::new();
        bench._mount = Some(Mount::on(&bench.public(), &["-t", "tmpfs", "none"]));
        bench
    }

    /// With another folder of the same file system mounted as the public dir.
    fn on_bind_mount() -> Bench {
        let mut bench = Bench::new();
        let shown = bench.at("shown");
        fs::create_dir(&shown).unwrap();
        bench._mount = Some(Mount::on(&bench.public(), &["--bind", shown.to_str().unwrap()]));
        bench
    }

    /// With a public dir from an image's lower layer, which can't be renamed as a whole.
    fn on_overlay() -> Bench {
        let mut bench = Bench::new();
        // Overlays can't be stacked at will; a tmpfs can always carry one.
        let layers = bench.at("layers");
        fs::create_dir(&layers).unwrap();
        let carrier = Mount::on(&layers, &["-t", "tmpfs", "none"]);
        for folder in ["lower/public/sub", "upper", "work"] {
            fs::create_dir_all(layers.join(folder)).unwrap();
        }
        fs::write(layers.join("lower/public/sub/old.html"), "old").unwrap();
        let root = bench.dir.path().join("merged");
        fs::create_dir(&root).unwrap();
        let l = layers.to_str().unwrap();
        let options = format!("lowerdir={l}/lower,upperdir={l}/upper,workdir={l}/work");
        let mut mount = Mount::on(&root, &["-t", "overlay", "-o", &options, "overlay"]);
        mount.carrier = Some(Box::new(carrier));
        fs::create_dir_all(root.join("repo/.git/gitsync")).unwrap();
        bench._mount = Some(mount);
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn public(&self) -> PathBuf {
        self.at("public")
    }

    fn private(&self) -> PathBuf {
        self.at("repo/.git/gitsync")
    }

    fn checked(&self, public: &Path, way: Way) -> Result<Site, Error> {
        let (repo, private_dir, home) = (self.at("repo"), self.private(), self.at("home"));
        let around = Surroundings {
            repo: &repo,
            git_dir: &repo.join(".git"),
            private_dir: &private_dir,
            paths: &[PathBuf::from("state/"), PathBuf::from("audit/")],
            home: Some(&home),
        };
        check(public, &around, way)
    }

    fn site(&self, way: Way) -> Site {
        self.checked(&self.public(), way).unwrap()
    }

    fn nothing_outside_has_changed(&self) {
        assert_eq!(tree(&self.at("outside")), [("precious".into(), "file 600 precious".into())].into());
    }
}

struct Mount {
    at: PathBuf,
    carrier: Option<Box<Mount>>,
}

impl Mount {
    fn on(at: &Path, arguments: &[&str]) -> Mount {
        let done = Command::new("mount").args(arguments).arg(at).output();
        assert!(done.as_ref().is_ok_and(|it| it.status.success()), "can't mount ({arguments:?}): {done:?}");
        Mount { at: at.to_owned(), carrier: None }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(std::thread::panicking() || done.unwrap().success(), "still mounted: {}", self.at.display());
        drop(self.carrier.take());
    }
}

fn tree(root: &Path) -> BTreeMap<String, String> {
    fn below(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let it = fs::symlink_metadata(&path).unwrap();
            let mode = it.mode() & 0o7777;
            let what = if it.is_dir() {
                below(root, &path, found);
                format!("dir {mode:o}")
            } else if it.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else if it.is_file() {
                format!("file {mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            } else {
                "odd".to_owned()
            };
            found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), what);
        }
    }
    let mut found = BTreeMap::new();
    below(root, root, &mut found);
    found
}

fn expected(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect()
}

fn write(at: &Path, name: &str, content: &str) {
    let path = at.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn build(site: &Site, pages: &[(&str, &str)]) -> Staged {
    let staged = site.stage().unwrap();
    assert_eq!(tree(staged.path()), BTreeMap::new(), "the staging folder must be empty");
    for (name, content) in pages {
        write(staged.path(), name, content);
    }
    staged
}

fn publish(site: &Site, pages: &[(&str, &str)]) {
    site.publish(build(site, pages)).unwrap();
}

/// Runs a test once for each ground on which the site is published in a way of its own.
type Grounds = fn(&dyn Fn(&Bench, Way));

fn in_folders(test: &dyn Fn(&Bench, Way)) {
    test(&Bench::new(), Way::Whole);
    test(&Bench::new(), Way::FileByFile);
}

fn on_mounts(test: &dyn Fn(&Bench, Way)) {
    for bench in [Bench::on_tmpfs(), Bench::on_bind_mount()] {
        test(&bench, Way::Whole);
    }
}

/// Each of these in folders, and, with what it needs, on mounts.
macro_rules! on_each_ground {
    ($(#[$needs:meta] $name:ident;)*) => {
        mod in_a_folder {
            $(#[test] fn $name() { super::$name(super::in_folders); })*
        }
        mod on_a_mount {
            use needs::needs;
            $(#[$needs] #[test] fn $name() { super::$name(super::on_mounts); })*
        }
    };
}

on_each_ground! {
    #[needs(mount)]
    the_public_dir_holds_exactly_the_fresh_site;
    #[needs(mount)]
    a_build_that_failed_changes_nothing;
    #[needs(mount)]
    modes_are_those_a_web_server_can_read;
    #[needs(mount)]
    files_become_folders_and_folders_files;
    #[needs(mount)]
    a_build_that_left_nothing_is_an_error_and_the_old_site_stays;
    #[needs(mount)]
    a_build_may_replace_the_folder_it_writes_to;
    #[needs(mount)]
    what_is_neither_file_nor_folder_nor_link_is_left_out;
    #[needs(mount)]
    links_are_published_and_never_followed;
    #[needs(mount)]
    a_hard_link_out_of_the_site_keeps_its_mode;
    #[needs(mount)]
    what_killed_passes_left_is_removed;
    #[needs(mount)]
    a_reader_sees_no_missing_and_no_half_written_page;
    #[needs(mount)]
    a_killed_publish_leaves_whole_pages_and_heals;
}

fn the_public_dir_holds_exactly_the_fresh_site(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        write(&bench.public(), "stranger.html", "stranger");
        write(&bench.public(), "old/deep/page.html", "old");
        publish(&site, &[("index.html", "one"), ("a/b/c.html", "c"), ("same.html", "same")]);
        let one = expected(&[
            ("index.html", "file 644 one"),
            ("a", "dir 755"),
            ("a/b", "dir 755"),
            ("a/b/c.html", "file 644 c"),
            ("same.html", "file 644 same"),
        ]);
        assert_eq!(tree(&bench.public()), one);
        publish(&site, &[("index.html", "two"), ("a/new.html", "new"), ("same.html", "same")]);
        let two = expected(&[
            ("index.html", "file 644 two"),
            ("a", "dir 755"),
            ("a/new.html", "file 644 new"),
            ("same.html", "file 644 same"),
        ]);
        assert_eq!(tree(&bench.public()), two);
        site.empty().unwrap();
        assert_eq!(tree(&bench.public()), BTreeMap::new());
        assert!(bench.public().is_dir());
    });
}

#[test]
fn a_missing_public_dir_is_made() {
    let bench = Bench::new();
    for way in [Way::Whole, Way::FileByFile, Way::InPlace] {
        let public = bench.at(&format!("{way:?}/not/yet/there"));
        let site = bench.checked(&public, way).unwrap();
        assert!(!public.exists(), "a check changes nothing");
        let staged = site.stage().unwrap();
        write(staged.path(), "index.html", "page");
        site.publish(staged).unwrap();
        assert_eq!(tree(&public), expected(&[("index.html", "file 644 page")]));
        assert_eq!(fs::metadata(&public).unwrap().mode() & 0o777, 0o755);
    }
}

fn a_build_that_failed_changes_nothing(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        publish(&site, &[("index.html", "one")]);
        drop(build(&site, &[("index.html", "half")]));
        assert_eq!(tree(&bench.public()), expected(&[("index.html", "file 644 one")]));
    });
}

fn modes_are_those_a_web_server_can_read(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        for _ in 0..2 {
            let staged = build(&site, &[("private/page.html", "p"), ("run.cgi", "r"), ("odd.html", "o")]);
            for (name, mode) in
                [("private/page.html", 0o600), ("run.cgi", 0o4700), ("odd.html", 0o666), ("private", 0o700)]
            {
                fs::set_permissions(staged.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            site.publish(staged).unwrap();
            let modes = expected(&[
                ("private", "dir 755"),
                ("private/page.html", "file 644 p"),
                ("run.cgi", "file 755 r"),
                ("odd.html", "file 644 o"),
            ]);
            assert_eq!(tree(&bench.public()), modes);
            // Somebody changes them, the content staying as it is.
            fs::set_permissions(bench.public().join("odd.html"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(bench.public().join("private"), fs::Permissions::from_mode(0o700)).unwrap();
        }
    });
}

fn files_become_folders_and_folders_files(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        for _ in 0..2 {
            publish(&site, &[("a", "file"), ("b/index.html", "folder"), ("b/more/x", "x"), ("c/index.html", "c")]);
            let staged = build(&site, &[("a/index.html", "folder"), ("a/more/y", "y"), ("b", "file")]);
            symlink("b", staged.path().join("c")).unwrap();
            site.publish(staged).unwrap();
            let turned = expected(&[
                ("a", "dir 755"),
                ("a/index.html", "file 644 folder"),
                ("a/more", "dir 755"),
                ("a/more/y", "file 644 y"),
                ("b", "file 644 file"),
                ("c", "link b"),
            ]);
            assert_eq!(tree(&bench.public()), turned);
        }
    });
}

#[needs(mount)]
#[test]
fn in_a_volume_what_has_not_changed_is_not_touched() {
    for bench in [Bench::on_tmpfs(), Bench::on_bind_mount()] {
        let site = bench.site(Way::Whole);
        publish(&site, &[("same/page.html", "same"), ("other.html", "one")]);
        let before = fs::metadata(bench.public().join("same/page.html")).unwrap();
        publish(&site, &[("same/page.html", "same"), ("other.html", "two")]);
        let after = fs::metadata(bench.public().join("same/page.html")).unwrap();
        assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
    }
}

#[test]
fn a_link_is_replaced_where_it_leads_elsewhere_and_only_there() {
    let bench = Bench::new();
    let site = bench.site(Way::FileByFile);
    let with_links = |other: &str| {
        let staged = build(&site, &[("index.html", "one")]);
        symlink("index.html", staged.path().join("same")).unwrap();
        symlink(other, staged.path().join("other")).unwrap();
        site.publish(staged).unwrap();
        ["same", "other"].map(|name| fs::symlink_metadata(bench.public().join(name)).unwrap().ino())
    };
    let (before, after) = (with_links("index.html"), with_links("same"));
    assert!(before[0] == after[0] && before[1] != after[1], "{before:?} {after:?}");
    assert_eq!(fs::read_link(bench.public().join("other")).unwrap(), Path::new("same"));
}

/// Its time of change is what browsers and mirrors go by.
#[test]
fn a_page_that_did_not_change_keeps_its_file_whatever_its_mode_and_links() {
    let bench = Bench::new();
    let site = bench.site(Way::FileByFile);
    publish(&site, &[("closed", "same"), ("linked", "same")]);
    let at = |name: &str| bench.public().join(name);
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(at("linked"), bench.at("a mirror's")).unwrap();
    let files =
        || ["closed", "linked"].map(|name| fs::metadata(at(name)).map(|it| (it.ino(), it.mtime_nsec())).unwrap());
    let before = files();
    publish(&site, &[("closed", "same"), ("linked", "same")]);
    assert_eq!(files(), before);
    assert_eq!(tree(&bench.public()), expected(&[("closed", "file 644 same"), ("linked", "file 644 same")]));
}

#[test]
fn a_note_names_up_to_a_thousand_names() {
    let bench = Bench::new();
    let site = bench.site(Way::FileByFile);
    let staged = site.stage().unwrap();
    for (names, noted) in [(1000, 1000), (1001, 0)] {
        for number in 0..names {
            fs::write(staged.path().join(number.to_string()), "").unwrap();
        }
        let note = site.note(None, Some(&staged)).unwrap().unwrap();
        assert_eq!(note.windows(2).filter(|two| two == b"\0n").count(), noted);
    }
}

#[test]
fn a_public_dir_that_became_a_file_is_named() {
    let bench = Bench::new();
    let site = bench.site(Way::Whole);
    fs::remove_dir(bench.public()).unwrap();
    fs::write(bench.public(), "").unwrap();
    let refusal = site.foreign_name(None).unwrap_err();
    let says = format!("the public dir {} can't be looked at: ", site.public_dir().display());
    assert!(refusal.kind == Kind::Person && refusal.what.starts_with(&says), "{refusal:?}");
}

/// Who has the old folder open still sees the old site, unless it is to be published file by file.
#[test]
fn a_whole_site_is_one_folder_put_in_the_place_of_another() {
    for (way, is_exchanged) in [(Way::Whole, true), (Way::FileByFile, false)] {
        let bench = Bench::new();
        let site = bench.site(way);
        publish(&site, &[("index.html", "one")]);
        let folder = || fs::metadata(bench.public()).unwrap().ino();
        let before = folder();
        let staged = build(&site, &[("index.html", "two")]);
        let built = fs::metadata(staged.path()).unwrap().ino();
        site.publish(staged).unwrap();
        assert_eq!(folder(), if is_exchanged { built } else { before }, "{way:?}");
    }
}

#[test]
fn only_where_nobody_has_it_open_is_an_old_staging_folder_removed_at_once() {
    for (way, stays) in [(Way::Whole, true), (Way::FileByFile, false), (Way::InPlace, false)] {
        let bench = Bench::new();
        write(&bench.private(), "site-staging/index.html", "the site before");
        write(&bench.private(), "status.json", "{}");
        bench.site(way).tidy();
        assert_eq!(bench.private().join("site-staging").exists(), stays, "{way:?}");
        assert!(bench.private().join("status.json").exists());
    }
}

#[needs(mount)]
#[test]
fn a_staging_folder_that_cannot_be_removed_is_gone_around() {
    let bench = Bench::new();
    let site = bench.site(Way::FileByFile);
    let mut mounts = Vec::new();
    for (busy, free) in [("site-staging", "site-staging-2"), ("site-staging-2", "site-staging-3")] {
        fs::create_dir(bench.private().join(busy)).unwrap();
        mounts.push(Mount::on(&bench.private().join(busy), &["-t", "tmpfs", "none"]));
        let staged = build(&site, &[("index.html", free)]);
        assert_eq!(staged.path().file_name().unwrap(), free);
        site.publish(staged).unwrap();
        assert_eq!(tree(&bench.public()), expected(&[("index.html", &format!("file 644 {free}"))]));
    }
}

#[needs(mount)]
#[test]
fn a_volume_keeps_its_lost_and_found() {
    let bench = Bench::on_tmpfs();
    fs::create_dir(bench.public().join("lost+found")).unwrap();
    let site = bench.site(Way::Whole);
    publish(&site, &[("index.html", "one")]);
    site.empty().unwrap();
    assert_eq!(tree(&bench.public()).into_keys().collect::<Vec<_>>(), ["lost+found"]);
}

#[needs(mount)]
#[test]
fn a_folder_from_a_lower_layer_is_published_to() {
    let bench = Bench::on_overlay();
    let (repo, public) = (bench.at("merged/repo"), bench.at("merged/public"));
    let private_dir = repo.join(".git/gitsync");
    let around =
        Surroundings { repo: &repo, git_dir: &repo.join(".git"), private_dir: &private_dir, paths: &[], home: None };
    let site = check(&public, &around, Way::Whole).unwrap();
    publish(&site, &[("index.html", "one"), ("sub", "was a folder")]);
    let one = expected(&[("index.html", "file 644 one"), ("sub", "file 644 was a folder")]);
    assert_eq!(tree(&public), one);
    publish(&site, &[("sub/page.html", "two")]);
    assert_eq!(tree(&public), expected(&[("sub", "dir 755"), ("sub/page.html", "file 644 two")]));
}

fn a_build_that_left_nothing_is_an_error_and_the_old_site_stays(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        publish(&site, &[("index.html", "one")]);
        let nothing = |spoil: &dyn Fn(&Path)| {
            let staged = site.stage().unwrap();
            spoil(staged.path());
            let error = site.publish(staged).unwrap_err();
            assert!(error.kind == Kind::Person && error.what.contains("wrote nothing to"), "{error:?}");
            assert!(error.next.contains("{public_dir}"), "{}", error.next);
            assert_eq!(tree(&bench.public()), expected(&[("index.html", "file 644 one")]));
        };
        nothing(&|_| ());
        nothing(&|path| fs::remove_dir(path).unwrap());
        nothing(&|path| {
            fs::remove_dir(path).unwrap();
            fs::write(path, "a file").unwrap();
        });
        nothing(&|path| {
            fs::remove_dir(path).unwrap();
            symlink(bench.at("outside"), path).unwrap();
        });
        bench.nothing_outside_has_changed();
    });
}

fn a_build_may_replace_the_folder_it_writes_to(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        let staged = site.stage().unwrap();
        fs::remove_dir(staged.path()).unwrap();
        write(staged.path(), "index.html", "fresh");
        site.publish(staged).unwrap();
        assert_eq!(tree(&bench.public()), expected(&[("index.html", "file 644 fresh")]));
    });
}

fn what_is_neither_file_nor_folder_nor_link_is_left_out(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        let staged = build(&site, &[("sub/page.html", "page")]);
        assert!(Command::new("mkfifo").arg(staged.path().join("sub/pipe")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(staged.path().join("socket")).unwrap();
        assert!(fs::metadata(staged.path().join("socket")).unwrap().file_type().is_socket());
        // What stands in the way of a page is replaced by it.
        assert!(Command::new("mkfifo").arg(bench.public().join("sub")).status().unwrap().success());
        site.publish(staged).unwrap();
        assert_eq!(tree(&bench.public()), expected(&[("sub", "dir 755"), ("sub/page.html", "file 644 page")]));
    });
}

fn links_are_published_and_never_followed(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        let outside = bench.at("outside");
        // In the public dir: a link where the site has a folder, one where it has a file, one where it has nothing.
        for name in ["folder", "file", "nothing"] {
            symlink(&outside, bench.public().join(name)).unwrap();
        }
        symlink(outside.join("precious"), bench.public().join("precious")).unwrap();
        publish(&site, &[("folder/precious", "new"), ("file", "new"), ("precious", "new")]);
        bench.nothing_outside_has_changed();
        assert!(fs::symlink_metadata(bench.public().join("folder")).unwrap().is_dir());

        // In what was built: the same the other way round.
        let staged = site.stage().unwrap();
        for name in ["folder", "file", "another"] {
            symlink(&outside, staged.path().join(name)).unwrap();
        }
        symlink("file", staged.path().join("relative")).unwrap();
        site.publish(staged).unwrap();
        bench.nothing_outside_has_changed();
        let link = format!("link {}", outside.display());
        let links = expected(&[("folder", &link), ("file", &link), ("another", &link), ("relative", "link file")]);
        assert_eq!(tree(&bench.public()), links);

        site.empty().unwrap();
        drop(site.stage().unwrap());
        bench.nothing_outside_has_changed();
    });
}

fn a_hard_link_out_of_the_site_keeps_its_mode(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        let staged = build(&site, &[("index.html", "one")]);
        fs::hard_link(bench.at("outside/precious"), staged.path().join("linked")).unwrap();
        site.publish(staged).unwrap();
        bench.nothing_outside_has_changed();
        let both = expected(&[("index.html", "file 644 one"), ("linked", "file 644 precious")]);
        assert_eq!(tree(&bench.public()), both);

        // And one that lies in the public dir already, the same bytes as the page that comes.
        if fs::hard_link(bench.at("outside/precious"), bench.public().join("again")).is_ok() {
            publish(&site, &[("again", "precious")]);
            bench.nothing_outside_has_changed();
            assert_eq!(tree(&bench.public()), expected(&[("again", "file 644 precious")]));
        }
    });
}

#[test]
fn a_link_laid_across_the_way_after_the_check_is_not_followed() {
    for way in [Way::Whole, Way::FileByFile, Way::InPlace] {
        // The public dir itself.
        let bench = Bench::new();
        let site = bench.site(way);
        let staged = site.stage().unwrap();
        write(staged.path(), "index.html", "one");
        fs::remove_dir_all(bench.public()).unwrap();
        symlink(bench.at("outside"), bench.public()).unwrap();
        assert!(site.publish(staged).is_err());
        bench.nothing_outside_has_changed();

        // A folder on the way to it.
        let bench = Bench::new();
        fs::create_dir(bench.at("between")).unwrap();
        let site = bench.checked(&bench.at("between/public"), way).unwrap();
        let staged = site.stage().unwrap();
        write(staged.path(), "index.html", "one");
        fs::remove_dir_all(bench.at("between")).unwrap();
        symlink(bench.at("outside"), bench.at("between")).unwrap();
        assert!(site.publish(staged).is_err());
        bench.nothing_outside_has_changed();

        // The private folder.
        if way != Way::InPlace {
            let bench = Bench::new();
            let site = bench.site(way);
            let staged = build(&site, &[("index.html", "one")]);
            fs::remove_dir_all(bench.private()).unwrap();
            symlink(bench.at("outside"), bench.private()).unwrap();
            assert!(site.publish(staged).is_err());
            assert!(site.stage().is_err());
            bench.nothing_outside_has_changed();
        }
    }
}

#[needs(mount)]
#[test]
fn what_is_mounted_below_is_neither_exchanged_nor_emptied() {
    let bench = Bench::new();
    let site = bench.site(Way::FileByFile);
    publish(&site, &[("index.html", "one"), ("volume/page", "p")]);
    let staged = build(&site, &[("index.html", "two")]);
    // After the check, behind our back.
    let _mount = Mount::on(&bench.public().join("volume"), &["--bind", bench.at("outside").to_str().unwrap()]);
    let error = site.publish(staged).unwrap_err().to_string();
    assert!(error.contains("volume"), "{error}");
    bench.nothing_outside_has_changed();

    let refusal = bench.checked(&bench.public(), Way::Whole).unwrap_err();
    assert!(refusal.kind == Kind::Usage && refusal.what.contains("where something is mounted"), "{refusal:?}");
}

fn what_killed_passes_left_is_removed(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        write(&bench.private(), "site-staging/half/page.html", "half");
        write(&bench.private(), "site-staging-2", "a file");
        write(&bench.public(), ".gitsync-incoming/1", "half");
        write(&bench.private(), "status.json", "{}");
        publish(&site, &[("index.html", "one")]);
        assert_eq!(tree(&bench.public()), expected(&[("index.html", "file 644 one")]));
        drop(site.stage().unwrap());
        assert_eq!(fs::read_dir(bench.private()).unwrap().count(), 1, "only status.json stays");
    });
}

#[test]
fn a_tree_of_any_depth_is_removed_though_not_published() {
    let bench = Bench::new();
    let site = bench.site(Way::Whole);
    publish(&site, &[("index.html", "one")]);
    let staged = site.stage().unwrap();
    let deep = Command::new("sh")
        .args(["-c", "i=0; while [ $i -lt 3000 ]; do mkdir d && cd -P d && : >f || exit 1; i=$((i+1)); done"])
        .current_dir(staged.path())
        .status()
        .unwrap();
    assert!(deep.success());
    let error = site.publish(staged).unwrap_err().to_string();
    assert!(error.contains("nested"), "{error}");
    assert_eq!(tree(&bench.public()), expected(&[("index.html", "file 644 one")]));
    assert_eq!(fs::read_dir(bench.private()).unwrap().count(), 0);
}

#[test]
fn two_hundred_folders_deep_is_published_and_more_is_refused() {
    for (depth, is_published) in [(200, true), (201, false), (450, false)] {
        let bench = Bench::new();
        let site = bench.site(Way::Whole);
        let staged = site.stage().unwrap();
        fs::create_dir_all(staged.path().join("d/".repeat(depth))).unwrap();
        let done = site.publish(staged);
        assert_eq!(done.is_ok(), is_published, "{depth}: {done:?}");
        if let Err(error) = done {
            assert!(error.what.contains("nested more than 200 deep"), "{error:?}");
            assert_eq!(fs::read_dir(bench.private()).unwrap().count(), 0, "{depth}");
        }
        // Nothing of it is left, however deep.
        site.empty().unwrap();
        drop(site.stage().unwrap());
        assert_eq!(fs::read_dir(bench.private()).unwrap().count(), 0, "{depth}");
    }
}

#[test]
fn in_place_the_build_has_its_old_output() {
    let bench = Bench::new();
    let site = bench.site(Way::InPlace);
    write(&bench.public(), "old.html", "old");
    let staged = site.stage().unwrap();
    assert_eq!(staged.path(), bench.public().canonicalize().unwrap());
    write(staged.path(), "new.html", "new");
    fs::set_permissions(staged.path().join("new.html"), fs::Permissions::from_mode(0o600)).unwrap();
    site.publish(staged).unwrap();
    let both = expected(&[("old.html", "file 644 old"), ("new.html", "file 644 new")]);
    assert_eq!(tree(&bench.public()), both);
    site.empty().unwrap();
    assert_eq!(tree(&bench.public()), BTreeMap::new());
}

#[test]
fn folders_that_hold_anything_else_are_refused() {
    let bench = Bench::new();
    fs::create_dir_all(bench.at("home/user")).unwrap();
    fs::create_dir_all(bench.at("repo/state/sub")).unwrap();
    fs::write(bench.at("file"), "").unwrap();
    symlink(bench.at("public"), bench.at("link")).unwrap();
    symlink(bench.at("nowhere"), bench.at("dangling")).unwrap();
    symlink(bench.at("repo"), bench.at("alias")).unwrap();
    let reason = |path: &Path| bench.checked(path, Way::Whole).map(|site| format!("{site:?}")).unwrap_err();
    symlink(bench.at("round"), bench.at("round")).unwrap();
    let cases: [(PathBuf, &str); 22] = [
        ("/".into(), "folder of the system"),
        ("/etc".into(), "folder of the system"),
        ("/etc/../usr".into(), "folder of the system"),
        ("/proc/sys/site".into(), "folder of the system"),
        (bench.at("home"), "home folder"),
        (bench.at("repo"), "is the repository or holds it"),
        (bench.at("repo/"), "is the repository or holds it"),
        (bench.at("repo/state/.."), "is the repository or holds it"),
        (bench.dir.path().to_owned(), "is the repository or holds it"),
        (bench.at("repo/.git"), "is the repository or holds it"),
        (bench.at("repo/.git/site"), "inside the repository's git folder"),
        (bench.at("alias/.git/site"), "inside the repository's git folder"),
        (bench.at("repo/state"), "inside state/"),
        (bench.at("repo/state/sub/site"), "inside state/"),
        (bench.at("repo/audit/site"), "inside audit/"),
        (bench.at("link"), "symbolic link"),
        (bench.at("dangling"), "symbolic link"),
        (bench.at("dangling/site"), "symbolic link"),
        (bench.at("file"), "can't be a folder"),
        (bench.at("file/site"), "can't be a folder"),
        (bench.at("file/deep/er/site"), &format!("can't be a folder, since {} is not one", bench.at("file").display())),
        ("".into(), "is an empty path"),
    ];
    for (path, says) in cases {
        let refusal = reason(&path);
        assert!(refusal.kind == Kind::Usage && refusal.what.contains(says), "{}: {refusal:?}", path.display());
        assert!(refusal.what.starts_with(&format!("the public dir {} ", path.display())), "{refusal:?}");
    }
    let refusal = reason(&bench.at("round/deep/site"));
    assert!(refusal.kind == Kind::Person && refusal.what.contains("can't be looked at"), "{refusal:?}");
    // A home that is a parent's parent.
    let home = bench.at("public/home/user");
    let (repo, private_dir) = (bench.at("repo"), bench.private());
    let around = Surroundings {
        repo: &repo,
        git_dir: &repo.join(".git"),
        private_dir: &private_dir,
        paths: &["a/b".into()],
        home: Some(&home),
    };
    let refusal = check(&bench.public(), &around, Way::Whole).unwrap_err();
    assert!(refusal.kind == Kind::Usage && refusal.what.contains("is the home folder or holds it"), "{refusal:?}");
    let held = check(&bench.at("repo/a"), &around, Way::Whole).unwrap_err();
    assert!(held.kind == Kind::Usage && held.what.contains("holds a/b, which each tick commits"), "{held:?}");
    // A git folder apart from the work tree, whose `.git` is a file or nothing.
    let around = Surroundings { git_dir: &bench.at("apart.git"), ..around };
    for path in [bench.at("apart.git/site"), bench.at("repo/.git/site")] {
        let inside = check(&path, &around, Way::Whole).unwrap_err();
        assert!(inside.what.contains("inside the repository's git folder"), "{inside:?}");
    }
    // And those that may well be.
    for path in [bench.at("public"), bench.at("repo/site"), bench.at("alias/site"), bench.at("repo/state-of-things")] {
        bench.checked(&path, Way::Whole).unwrap();
    }
}

#[needs(mount)]
#[test]
fn a_repository_mounted_elsewhere_is_still_the_repository() {
    let bench = Bench::new();
    let _mount = Mount::on(&bench.public(), &["--bind", bench.at("repo").to_str().unwrap()]);
    let refusal = bench.checked(&bench.public(), Way::Whole).unwrap_err();
    assert!(refusal.kind == Kind::Usage && refusal.what.contains("is the repository or holds it"), "{refusal:?}");
    let refusal = bench.checked(&bench.public().join("state/site"), Way::Whole).unwrap_err();
    assert!(
        refusal.kind == Kind::Usage && refusal.what.contains("lies inside state/, which each tick commits"),
        "{refusal:?}"
    );
}

// ---- readers ----

const PAGES: [&str; 6] = ["index.html", "a.html", "b.css", "deep/er/page.html", "turn", "turn/index.html"];
const PUBLISHES: usize = 200;

/// A page that shows when it is not all of one version.
fn page(version: usize) -> String {
    format!("version {version:06}\n").repeat(3000)
}

fn is_whole(page: &str) -> bool {
    page.len() == 15 * 3000 && page.as_bytes().chunks(15).all(|line| line == &page.as_bytes()[..15])
}

/// Publishes again and again; every second site has `turn` as a file, the others as a folder.
fn publish_many(site: &Site, readers: &[Arc<AtomicUsize>]) {
    for version in 0..PUBLISHES {
        let text = page(version);
        let turned = if version % 2 == 0 { "turn" } else { "turn/index.html" };
        let mut pages: Vec<(&str, &str)> = PAGES[..4].iter().map(|name| (*name, text.as_str())).collect();
        pages.push((turned, &text));
        let name = format!("only-{version}.html");
        pages.push((&name, &text));
        publish(site, &pages);
        // On a busy machine the readers must not be left behind, or nothing is tested.
        let start = Instant::now();
        while version % 20 == 0 && readers.iter().any(|it| it.swap(0, Ordering::SeqCst) == 0) {
            assert!(start.elapsed() < PATIENCE, "a reader does not read");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn a_reader_sees_no_missing_and_no_half_written_page(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        publish(
            &site,
            &PAGES[..5]
                .iter()
                .map(|name| (*name, ""))
                .map(|(name, _)| (name, page(0)))
                .collect::<Vec<_>>()
                .iter()
                .map(|(name, text)| (*name, text.as_str()))
                .collect::<Vec<_>>(),
        );
        let stop = AtomicBool::new(false);
        let reads = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let done = StopOnDrop(&stop);
                publish_many(&site, &[Arc::clone(&reads)]);
                drop(done);
            });
            while !stop.load(Ordering::SeqCst) {
                for name in &PAGES[..4] {
                    let text = fs::read_to_string(bench.public().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert!(is_whole(&text), "{name} is half written: {} bytes", text.len());
                }
                // A page refers only to what is there.
                let version = || fs::read_to_string(bench.public().join("index.html")).unwrap()[8..14].to_owned();
                let before = version();
                let there = bench.public().join(format!("only-{}.html", before.trim_start_matches('0'))).exists();
                assert!(there || before == "000000" || version() != before, "index.html {before} came before its page");
                // Either a file or a folder, and never nothing.
                assert!(bench.public().join("turn").exists(), "turn is missing");
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Nginx {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Nginx {
    fn serving(root: &Path) -> Nginx {
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (d, root) = (dir.path().display(), root.display());
        let config = format!(
            "daemon off; master_process off; pid {d}/pid; error_log stderr crit;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {d}/1; proxy_temp_path {d}/2; fastcgi_temp_path {d}/3;\n\
             uwsgi_temp_path {d}/4; scgi_temp_path {d}/5; sendfile on;\n\
             server {{ listen 127.0.0.1:{port}; root {root}; index index.html; }}\n}}\n"
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.path().join("nginx.conf")).stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut nginx = Nginx { child, port, _dir: dir };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(nginx.child.try_wait().unwrap().is_none(), "nginx has ended");
            assert!(start.elapsed() < PATIENCE, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on an open connection: status and body.
fn get(connection: &mut BufReader<TcpStream>, path: &str) -> (u16, String) {
    write!(connection.get_mut(), "GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer but {line:?}")).parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

#[needs(nginx)]
#[test]
fn nginx_serves_no_missing_and_no_half_written_page() {
    nginx_serves_whole_pages(in_folders);
}

#[needs(mount, nginx)]
#[test]
fn on_a_mount_nginx_serves_no_missing_and_no_half_written_page() {
    nginx_serves_whole_pages(on_mounts);
}

fn nginx_serves_whole_pages(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        let first = page(0);
        publish(&site, &PAGES[..5].iter().map(|name| (*name, first.as_str())).collect::<Vec<_>>());
        let nginx = Nginx::serving(&bench.public().canonicalize().unwrap());
        let stop = AtomicBool::new(false);
        let reads: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
        std::thread::scope(|scope| {
            for count in &reads {
                scope.spawn(|| {
                    let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", nginx.port)).unwrap());
                    let mut served = 0;
                    while !stop.load(Ordering::SeqCst) {
                        for path in ["", "a.html", "b.css", "deep/er/page.html"] {
                            // nginx closes a connection after a thousand requests.
                            served += 1;
                            if served % 900 == 0 {
                                connection = BufReader::new(TcpStream::connect(("127.0.0.1", nginx.port)).unwrap());
                            }
                            let (status, text) = get(&mut connection, path);
                            assert_eq!(status, 200, "/{path}");
                            assert!(is_whole(&text), "/{path} is half written: {} bytes", text.len());
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            let done = StopOnDrop(&stop);
            publish_many(&site, &reads);
            drop(done);
        });
    });
}

// ---- a publisher that is killed, or has few rights: this program again, in a role ----

/// Plays a role when started as a child of a test; as a test of its own it does nothing.
#[test]
fn role() {
    let Ok(role) = std::env::var("TEST_ROLE") else { return };
    let base = std::env::current_dir().unwrap();
    let (repo, private_dir) = (base.join("repo"), base.join("repo/.git/gitsync"));
    let around =
        Surroundings { repo: &repo, git_dir: &repo.join(".git"), private_dir: &private_dir, paths: &[], home: None };
    let public = base.join("public");
    match role.as_str() {
        "publish for ever" => {
            let way = if std::env::var("TEST_WAY").unwrap() == "whole" { Way::Whole } else { Way::FileByFile };
            let site = check(&public, &around, way).unwrap();
            for version in 0.. {
                let text = page(version);
                let turned = if version % 2 == 0 { "turn" } else { "turn/index.html" };
                publish(
                    &site,
                    &[("index.html", &text), ("a.html", &text), ("deep/er/page.html", &text), (turned, &text)],
                );
            }
        }
        "publish without rights" => {
            assert!(check(&base.join("sealed"), &around, Way::Whole).is_err());
            assert!(check(&base.join("sealed/site"), &around, Way::Whole).is_err());
            // Our folder in a parent that is not ours: it can't be exchanged.
            let site = check(&base.join("sealed/ours"), &around, Way::Whole).unwrap();
            for text in ["one", "two"] {
                let staged = build(&site, &[("locked/page.html", text), ("index.html", text), ("gone/x", text)]);
                for (name, mode) in [("locked/page.html", 0), ("locked", 0), ("index.html", 0o200), ("gone", 0o500)] {
                    fs::set_permissions(staged.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
                }
                site.publish(staged).unwrap();
                publish(&site, &[("locked/page.html", text), ("index.html", text)]);
            }
            assert_eq!(
                tree(&base.join("sealed/ours")),
                expected(&[
                    ("locked", "dir 755"),
                    ("locked/page.html", "file 644 two"),
                    ("index.html", "file 644 two")
                ])
            );
            // A folder of another user keeps its mode.
            let shared = check(&base.join("sealed/shared"), &around, Way::InPlace).unwrap();
            write(&base.join("sealed/shared"), "index.html", "page");
            shared.publish(shared.stage().unwrap()).unwrap();
            let both = expected(&[("index.html", "file 644 page"), ("theirs", "dir 755")]);
            assert_eq!(tree(&base.join("sealed/shared")), both);
            // What a failed build left locked is removed all the same.
            let staged = build(&site, &[("locked/deep/page.html", "x")]);
            for name in ["locked/deep", "locked"] {
                fs::set_permissions(staged.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
            }
            drop(staged);
            assert_eq!(fs::read_dir(&private_dir).unwrap().count(), 0);
        }
        other => panic!("unknown role {other}"),
    }
}

fn plays(role: &str, dir: &Path) -> Command {
    plays_by(&std::env::current_exe().unwrap(), role, dir)
}

fn plays_by(program: &Path, role: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "role", "--nocapture"]).env("TEST_ROLE", role).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn a_killed_publish_leaves_whole_pages_and_heals(each_ground: Grounds) {
    each_ground(&|bench, way| {
        let site = bench.site(way);
        let name = if way == Way::Whole { "whole" } else { "files" };
        for round in 0..15_u64 {
            let first = page(7);
            publish(
                &site,
                &[("index.html", &first), ("a.html", &first), ("deep/er/page.html", &first), ("turn", &first)],
            );
            let before = fs::metadata(bench.public().join("index.html")).unwrap().ino();
            let mut child = plays("publish for ever", bench.dir.path()).env("TEST_WAY", name).spawn().unwrap();
            let start = Instant::now();
            while fs::metadata(bench.public().join("index.html")).unwrap().ino() == before {
                assert!(start.elapsed() < PATIENCE, "nothing is published");
                assert!(child.try_wait().unwrap().is_none(), "the publisher has ended");
            }
            std::thread::sleep(Duration::from_micros(round * 700));
            child.kill().unwrap();
            child.wait().unwrap();
            for page in ["index.html", "a.html", "deep/er/page.html"] {
                assert!(is_whole(&fs::read_to_string(bench.public().join(page)).unwrap()), "{page}");
            }
            publish(&site, &[("index.html", "healed")]);
            assert_eq!(tree(&bench.public()), expected(&[("index.html", "file 644 healed")]));
            drop(site.stage().unwrap());
            assert_eq!(fs::read_dir(bench.private()).unwrap().count(), 0);
        }
    });
}

#[needs(root)]
#[test]
fn a_publisher_without_rights_does_what_it_may() {
    const NOBODY: u32 = 65534;
    let bench = Bench::new();
    for folder in ["sealed", "sealed/ours", "sealed/other", "sealed/shared"] {
        fs::create_dir(bench.at(folder)).unwrap();
    }
    fs::set_permissions(bench.at("sealed/shared"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(bench.at("sealed/shared/theirs")).unwrap();
    for folder in [".", "repo", "repo/.git", "repo/.git/gitsync", "sealed/ours"] {
        std::os::unix::fs::chown(bench.at(folder), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // Where this program was built others may not get to. `cp` writes it: were it open here, what another test starts meanwhile
    // would inherit it, and a file that is open for writing can't be run.
    let program = bench.at("program");
    assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap().success());
    let mut command = plays_by(&program, "publish without rights", bench.dir.path());
    let done = command.uid(NOBODY).gid(NOBODY).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let done = done.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}{}", said(&done.stdout), said(&done.stderr));
}
