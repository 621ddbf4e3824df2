//! Whose process this is.

use std::fs::Metadata;

/// Whether somebody else than this user and root may change the file.
#[cfg(unix)]
pub fn others_may_write(file: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: no arguments, cannot fail.
    let user = unsafe { libc::geteuid() };
    ![user, 0].contains(&file.uid()) || file.mode() & 0o022 != 0
}

/// Access lists are not looked at.
#[cfg(not(unix))]
pub fn others_may_write(_: &Metadata) -> bool {
    false
}
