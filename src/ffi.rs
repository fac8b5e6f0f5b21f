//! The only unsafe code of the crate: what libgit2 offers and git2 does not make safe.
#![allow(unsafe_code)]

use std::sync::Once;

/// Registers a transport with libgit2 for URLs that begin with `scheme://`, the first time it is called.
///
/// # Errors
/// When libgit2 refuses, on the first call; later calls do nothing.
pub(crate) fn register_transport<F>(scheme: &str, make: F) -> Result<(), git2::Error>
where
    F: Fn(&git2::Remote<'_>) -> Result<git2::transport::Transport, git2::Error> + Send + Sync + 'static,
{
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        // SAFETY: libgit2 keeps its transports in a list without a lock, so registering must not run at the same time as
        // another registering, or as the making of a transport. `Once` keeps the first apart. As for the second: the
        // list is also read whenever a remote of any kind connects; this crate connects through sessions alone, every
        // session is opened after this call has returned, and `Once` makes it visible to that thread.
        result = unsafe { git2::transport::register(scheme, make) };
    });
    result
}
