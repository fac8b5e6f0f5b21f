//! The only unsafe code of the crate: what libgit2 offers and git2 does not make safe, and our own environment.
#![allow(unsafe_code)]

use std::sync::Once;

/// Sets libgit2's process-wide switches: fsync for everything it writes, who may own a repository, partial clones, and
/// how much of packs may be mapped at a time.
///
/// `verify_owner`: false for a repository that the user named.
pub fn prepare_libgit2(verify_owner: bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // git2 initialises libgit2 on first use of nearly anything; the options below need that to have happened.
        let _ = git2::Version::get();
        libgit2_sys::init();
        // SAFETY: all options are set once, before the first repository is opened and before any thread of ours uses
        // libgit2; the arguments are of the types that `git_libgit2_opts` documents for them (an int each).
        unsafe {
            libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR as libc::c_int, 1 as libc::c_int);
            let _ = git2::opts::set_verify_owner_validation(verify_owner);
            // libgit2 would not open a partial clone. What such a one lacks is asked for before libgit2 needs it.
            let _ = git2::opts::set_extensions(&["partialclone"]);
            // By default libgit2 maps packs as a whole, up to 8 GB of them, and what is mapped counts as this process's
            // memory: fetching 200 MB came to 199 MB. With these it is 32 MB at most, whatever is fetched.
            let _ = git2::opts::set_mwindow_size(8 << 20);
            let _ = git2::opts::set_mwindow_mapped_limit(32 << 20);
        }
    });
}

/// Does something without libgit2 looking up each object that goes into an index. For objects that are known to be here; while
/// no other thread uses libgit2.
pub(crate) fn trusting_objects<T>(work: impl FnOnce() -> T) -> T {
    git2::opts::strict_object_creation(false);
    let done = work();
    git2::opts::strict_object_creation(true);
    done
}

/// The folders where libgit2 looks for the configuration of a level, as one list with colons.
pub(crate) fn search_path(level: git2::ConfigLevel) -> Vec<u8> {
    // SAFETY: libgit2 keeps its search paths in a list without a lock, so they must not be set at the same time; nothing in this
    // crate sets them after libgit2's initialisation, which `prepare_libgit2` has done.
    let list = unsafe { git2::opts::get_search_path(level) };
    list.map(|list| list.as_bytes().to_vec()).unwrap_or_default()
}

/// Takes variables out of our environment and overwrites their values where `/proc/PID/environ` shows them.
///
/// Does nothing in a process that has several threads, or that does not know how many it has: another thread could be reading
/// the environment.
pub(crate) fn wipe_variables(names: &[&str]) {
    #[cfg(target_os = "linux")]
    {
        if !crate::fs::files::entries(std::path::Path::new("/proc/self/task")).is_ok_and(|threads| threads.len() == 1) {
            return;
        }
        unsafe extern "C" {
            static mut environ: *const *mut libc::c_char;
        }
        // SAFETY: `environ` is an array of pointers to C strings that ends with a null pointer, or is null itself. Its strings
        // are those that the kernel copied onto our stack at the start, or ones that std has put on the heap: both are writable.
        // There is no other thread that could read or change them, and no reference into them outlives this function, since
        // std gives values as copies.
        unsafe {
            let mut entry = environ;
            while !entry.is_null() && !(*entry).is_null() {
                let text = std::ffi::CStr::from_ptr(*entry).to_bytes();
                let name = text.iter().position(|b| *b == b'=').unwrap_or(text.len());
                if names.iter().any(|wanted| text.get(..name) == Some(wanted.as_bytes())) {
                    let (from, length) = (name.saturating_add(1).min(text.len()), text.len());
                    std::ptr::write_bytes((*entry).add(from), 0, length - from);
                }
                entry = entry.add(1);
            }
            for name in names {
                std::env::remove_var(name);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = names;
}
