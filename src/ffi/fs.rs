//! What std has no word for about files of our own: who this process is, what
//! it may do, and opens that follow no link and wait for nobody.

use std::fs::{File, Metadata, OpenOptions};
use std::io;

/// Whose a file is, and who may use it: as SQLite does, the lower nine bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
}

/// Opens a file that exists. A link is an error, a pipe without a writer is
/// not waited for. (std keeps it from programs that this one starts.)
pub fn open(path: &str, write: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write);
    careful(&mut options).open(path)
}

/// Makes a file that does not exist yet.
pub fn create_new(path: &str, rights: Option<&Rights>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    born_with(&mut options, rights.map_or(0o600, |r| r.mode));
    careful(&mut options).open(path)
}

#[cfg(unix)]
mod unix {
    use std::ffi::CString;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};

    use super::*;

    pub fn careful(options: &mut OpenOptions) -> &OpenOptions {
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    pub fn born_with(options: &mut OpenOptions, mode: u32) {
        options.mode(mode);
    }

    pub fn is_link(error: &io::Error) -> bool {
        // What the systems answer to O_NOFOLLOW (FreeBSD: EMLINK).
        matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK))
    }

    pub fn rights(meta: &Metadata) -> Option<Rights> {
        Some(Rights {
            mode: meta.mode() & 0o777,
            owner: meta.uid(),
            group: meta.gid(),
        })
    }

    /// Gives an open file these rights, as far as this process can.
    pub fn set_rights(file: &File, rights: &Rights) -> io::Result<()> {
        let meta = file.metadata()?;
        // As SQLite: nobody else can give files away.
        if user() == 0 && (meta.uid(), meta.gid()) != (rights.owner, rights.group) {
            fchown(file, Some(rights.owner), Some(rights.group))?;
        }
        if meta.mode() & 0o777 != rights.mode {
            file.set_permissions(std::fs::Permissions::from_mode(rights.mode))?;
        }
        Ok(())
    }

    /// The user whose rights this process has.
    pub fn user() -> u32 {
        // SAFETY: POSIX: it cannot fail.
        unsafe { libc::geteuid() }
    }

    /// Whether this process can write to the file as it is: its rights, and a
    /// file system that takes writes.
    pub fn may_write(path: &str) -> bool {
        let Ok(name) = CString::new(path) else {
            return false;
        };
        // SAFETY: a NUL-terminated name.
        let rc =
            unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK, libc::AT_EACCESS) };
        rc == 0
    }
}

#[cfg(not(unix))]
mod other {
    use super::*;

    pub fn careful(options: &mut OpenOptions) -> &OpenOptions {
        options
    }
    pub fn born_with(_: &mut OpenOptions, _: u32) {}
    pub fn is_link(_: &io::Error) -> bool {
        false
    }
    pub fn rights(_: &Metadata) -> Option<Rights> {
        None
    }
    pub fn set_rights(_: &File, _: &Rights) -> io::Result<()> {
        Ok(())
    }
    pub fn user() -> u32 {
        0
    }
    pub fn may_write(path: &str) -> bool {
        std::fs::metadata(path).is_ok_and(|meta| !meta.permissions().readonly())
    }
}

#[cfg(not(unix))]
use other::{born_with, careful};
#[cfg(not(unix))]
pub use other::{is_link, may_write, rights, set_rights, user};
#[cfg(unix)]
use unix::{born_with, careful};
#[cfg(unix)]
pub use unix::{is_link, may_write, rights, set_rights, user};
