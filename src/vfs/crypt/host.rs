//! The connection that opens an encrypted database: its temporary files have
//! to be sealed, too, and they go where its main database's VFS takes them.

use std::cell::Cell;

use super::FCNTL_IS_SEALED;
use crate::error::Error;
use crate::ffi::sealed_vfs::Host;

thread_local! {
    static SEALED: Cell<u64> = const { Cell::new(0) };
}

/// A temporary file of whatever connection was sealed on this thread.
pub fn note_sealed() {
    SEALED.set(SEALED.get() + 1);
}

/// Why the connection may not use the encrypted database at `path`.
pub fn refusal(host: &Host, path: &str) -> Option<Error> {
    // The main database itself: it came here, and so do temporary files.
    if host.main_path().is_none_or(|main| main == path) {
        return None;
    }
    let sealed = |name: &str| ["replica", "replica-registered"].contains(&name);
    if !host.vfs_name().is_some_and(|name| sealed(&name)) && !seals(host) {
        return Some(Error::CantOpen(format!(
            "'{path}' is encrypted, and temporary files of this connection would not be: open its main database with vfs=replica as well ('file:main.db?vfs=replica', 'file::memory:?vfs=replica')"
        )));
    }
    host.temp_file_ignores(FCNTL_IS_SEALED).then(|| {
        Error::CantOpen(format!(
            "'{path}' is encrypted, and this connection has a temporary file that is not: attach it before temporary tables grow, or on a new connection"
        ))
    })
}

/// Whether the connection's VFS, one of somebody else, stands on ours: a
/// temporary file that it opens comes here.
fn seals(host: &Host) -> bool {
    let before = SEALED.get();
    host.try_temp_file() && SEALED.get() != before
}
