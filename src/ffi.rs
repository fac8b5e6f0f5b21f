//! What the program asks of libgit2 that git2 has no safe name for. The only module with `unsafe` in it.
#![allow(unsafe_code)]

use std::sync::Once;

/// Sets libgit2's process-wide switches: fsync for everything it writes, and who may own a repository.
///
/// `verify_owner`: false for a repository that the user named.
pub fn prepare_libgit2(verify_owner: bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // git2 initialises libgit2 on first use of nearly anything; the options below need that to have happened.
        let _ = git2::Version::get();
        libgit2_sys::init();
        // SAFETY: both options are set once, before the first repository is opened and before any thread of ours uses
        // libgit2; the arguments are of the types that `git_libgit2_opts` documents for them (an int each).
        unsafe {
            libgit2_sys::git_libgit2_opts(libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR as libc::c_int, 1 as libc::c_int);
            let _ = git2::opts::set_verify_owner_validation(verify_owner);
        }
    });
}
