//! `SQLITE_FCNTL_PRAGMA`: a PRAGMA on its way, for the VFS to answer itself.

use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as sql;

use super::api;

pub struct Pragma {
    argv: *mut *mut c_char,
    pub name: String,
    pub value: Option<String>,
}

impl Pragma {
    /// Reads the argument of a file control, if it is this one.
    pub fn from_file_control(op: c_int, arg: *mut c_void) -> Option<Pragma> {
        if op != sql::SQLITE_FCNTL_PRAGMA || arg.is_null() {
            return None;
        }
        let argv = arg.cast::<*mut c_char>();
        // SAFETY: SQLite's contract: an array of three, the second the name,
        // the third the value or null.
        let text = |i| unsafe {
            let item = *argv.add(i);
            (!item.is_null()).then(|| CStr::from_ptr(item).to_string_lossy().to_ascii_lowercase())
        };
        Some(Pragma {
            argv,
            name: text(1)?,
            value: text(2),
        })
    }

    /// Ends the PRAGMA with this row.
    pub fn answer(self, text: &str) -> c_int {
        self.set(text);
        sql::SQLITE_OK
    }

    /// Ends the PRAGMA with this error.
    pub fn refuse(self, text: &str) -> c_int {
        self.set(text);
        sql::SQLITE_ERROR
    }

    fn set(&self, text: &str) {
        // SAFETY: the first item is ours to set, SQLite frees it.
        unsafe { *self.argv = api::malloc_text(text) }
    }
}

/// `SQLITE_FCNTL_VFSNAME`: puts our name in front of the base VFS' own.
pub fn prefix_vfs_name(arg: *mut c_void, prefix: &str) {
    let slot = arg.cast::<*mut c_char>();
    // SAFETY: SQLite's contract: the slot holds null or text in SQLite's
    // memory, which is replaced by another such text.
    unsafe {
        let old = *slot;
        let rest = if old.is_null() {
            String::new()
        } else {
            CStr::from_ptr(old).to_string_lossy().into_owned()
        };
        sql::sqlite3_free(old.cast());
        *slot = api::malloc_text(&format!("{prefix}/{rest}"));
    }
}
