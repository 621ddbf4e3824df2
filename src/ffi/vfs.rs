//! The base VFS: the process's default when the extension was loaded.

use std::ffi::{CStr, CString, c_char, c_int};

use libsqlite3_sys as sql;

use crate::error::{Error, Result};

#[derive(Clone, Copy)]
pub struct BaseVfs(*mut sql::sqlite3_vfs);

// SAFETY: a registered VFS is never freed and its methods are thread-safe.
unsafe impl Send for BaseVfs {}
// SAFETY: as above.
unsafe impl Sync for BaseVfs {}

impl BaseVfs {
    /// The process's default VFS now.
    pub fn default() -> Option<BaseVfs> {
        // SAFETY: null asks for the default.
        let vfs = unsafe { sql::sqlite3_vfs_find(std::ptr::null()) };
        (!vfs.is_null()).then_some(BaseVfs(vfs))
    }

    /// # Safety
    /// `vfs` is registered and never freed.
    pub(super) unsafe fn of(vfs: *mut sql::sqlite3_vfs) -> BaseVfs {
        BaseVfs(vfs)
    }

    pub(super) fn raw(&self) -> *mut sql::sqlite3_vfs {
        self.0
    }

    pub fn name(&self) -> &CStr {
        // SAFETY: a registered VFS has a name for as long as it is registered.
        unsafe { CStr::from_ptr((*self.0).zName) }
    }

    pub(super) fn file_size(&self) -> usize {
        // SAFETY: registered, never freed.
        unsafe { (*self.0).szOsFile as usize }
    }

    pub(super) fn open(
        &self,
        name: *const c_char,
        file: *mut sql::sqlite3_file,
        flags: c_int,
        out_flags: *mut c_int,
    ) -> c_int {
        // SAFETY: the caller's name has the form xOpen asks for, the file
        // memory is szOsFile bytes.
        unsafe {
            (*file).pMethods = std::ptr::null();
            match (*self.0).xOpen {
                Some(open) => open(self.0, name, file, flags, out_flags),
                None => sql::SQLITE_CANTOPEN,
            }
        }
    }

    pub fn exists(&self, path: &str) -> Result<bool> {
        let name = c_path(path)?;
        let mut found = 0;
        // SAFETY: xAccess writes one int.
        let rc = unsafe {
            match (*self.0).xAccess {
                Some(access) => {
                    access(self.0, name.as_ptr(), sql::SQLITE_ACCESS_EXISTS, &mut found)
                }
                None => sql::SQLITE_IOERR_ACCESS,
            }
        };
        if rc == sql::SQLITE_OK {
            Ok(found != 0)
        } else {
            Err(Error::io("access", path, rc))
        }
    }

    /// Deletes a file and syncs its folder; a file that is not there is no error.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.unlink(path, true)
    }

    /// The same, and a crash may bring it back.
    pub fn discard(&self, path: &str) -> Result<()> {
        self.unlink(path, false)
    }

    fn unlink(&self, path: &str, sync: bool) -> Result<()> {
        let name = c_path(path)?;
        // SAFETY: a NUL-terminated name.
        let rc = unsafe {
            match (*self.0).xDelete {
                Some(delete) => delete(self.0, name.as_ptr(), sync.into()),
                None => sql::SQLITE_IOERR_DELETE,
            }
        };
        match rc {
            sql::SQLITE_OK | sql::SQLITE_IOERR_DELETE_NOENT => Ok(()),
            rc => Err(Error::io("delete", path, rc)),
        }
    }

    /// The name SQLite would give to `xOpen` for this path.
    pub fn full_path(&self, path: &str) -> Result<String> {
        let name = c_path(path)?;
        // SAFETY: registered, never freed; the buffer has the size SQLite itself uses.
        unsafe {
            let mut buf = vec![0u8; (*self.0).mxPathname as usize + 1];
            let rc = match (*self.0).xFullPathname {
                Some(full) => full(
                    self.0,
                    name.as_ptr(),
                    buf.len() as c_int,
                    buf.as_mut_ptr().cast(),
                ),
                None => sql::SQLITE_CANTOPEN,
            };
            // SQLITE_OK_SYMLINK has the primary code OK.
            if rc & 0xff != sql::SQLITE_OK {
                return Err(Error::io("find the full path of", path, rc));
            }
            let full = CStr::from_bytes_until_nul(&buf).unwrap_or(c"");
            Ok(full.to_string_lossy().into_owned())
        }
    }
}

fn c_path(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| Error::Config(format!("path '{path}' holds a NUL")))
}
