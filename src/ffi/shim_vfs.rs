//! Our `sqlite3_vfs`: decides at `xOpen`, forwards all else to the base VFS.

use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as sql;

use super::guard::guard;
use super::shim_file::{FileHooks, HEAD, ShimFile};
use super::shim_open;
use super::vfs::BaseVfs;
use crate::config::Secret;

/// What is being opened.
pub struct Request {
    pub(super) name: *const c_char,
    pub(super) flags: c_int,
}

impl Request {
    pub fn is_main_db(&self) -> bool {
        self.flags & sql::SQLITE_OPEN_MAIN_DB != 0 && !self.name.is_null()
    }

    pub fn is_wal(&self) -> bool {
        self.flags & sql::SQLITE_OPEN_WAL != 0 && !self.name.is_null()
    }

    /// A rollback journal is to be made (not looked at, or rolled back).
    pub fn makes_journal(&self) -> bool {
        self.has(sql::SQLITE_OPEN_MAIN_JOURNAL)
            && self.has(sql::SQLITE_OPEN_CREATE)
            && !self.name.is_null()
    }

    /// The hooks of the database file that this log or journal belongs to.
    pub fn database<H: FileHooks>(&self) -> Option<&H> {
        // SAFETY: null or a file that is open, and that this thread is using.
        unsafe { ShimFile::<H>::hooks_of(shim_open::database_of(self.path()?)) }
    }

    pub fn has(&self, flags: c_int) -> bool {
        self.flags & flags != 0
    }

    /// The full path, if it is text.
    pub fn path(&self) -> Option<&str> {
        // SAFETY: xOpen's name is null or NUL-terminated and outlives the call.
        (!self.name.is_null())
            .then(|| unsafe { CStr::from_ptr(self.name) })?
            .to_str()
            .ok()
    }

    /// The URI parameters of the database's name, each with its value.
    pub fn parameters(&self) -> Vec<(String, Secret)> {
        // Of another VFS' names only these have parameters behind them.
        if !self.is_main_db() || !self.has(sql::SQLITE_OPEN_URI) {
            return Vec::new();
        }
        // SAFETY: a MAIN_DB that was given as a URI: its parameters lie behind the name.
        let keys = (0..).map_while(|n| unsafe {
            let key = sql::sqlite3_uri_key(self.name, n);
            (!key.is_null()).then(|| (key, CStr::from_ptr(key)))
        });
        keys.map(|(key, name)| {
            // SAFETY: as above; values are NUL-terminated and live as long as the name.
            let value = unsafe {
                let value = sql::sqlite3_uri_parameter(self.name, key);
                if value.is_null() {
                    c""
                } else {
                    CStr::from_ptr(value)
                }
            };
            let text = |text: &CStr| text.to_string_lossy().into_owned();
            (text(name), Secret::new(text(value)))
        })
        .collect()
    }

    /// A URI parameter that is on or off, as SQLite reads its own.
    pub fn is_on(&self, name: &CStr) -> bool {
        // SAFETY: as above.
        unsafe { sql::sqlite3_uri_boolean(self.name, name.as_ptr(), 0) != 0 }
    }
}

pub trait VfsHooks: Sync + 'static {
    type File: FileHooks;
    /// Hooks for the file, None to leave it to the base VFS untouched, or the
    /// result code of a refusal.
    fn open(&self, request: &Request) -> Result<Option<Self::File>, c_int>;
    /// The open is over, with or without success.
    fn opened(&self) {}
}

pub(super) struct State<V> {
    pub(super) base: BaseVfs,
    pub(super) hooks: V,
}

type Open = unsafe extern "C" fn(
    *mut sql::sqlite3_vfs,
    *const c_char,
    *mut sql::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;

/// A registered VFS; lives as long as the process.
#[derive(Clone, Copy)]
pub struct ShimVfs(*mut sql::sqlite3_vfs);

// SAFETY: never freed; registering is thread-safe in SQLite.
unsafe impl Send for ShimVfs {}
// SAFETY: as above.
unsafe impl Sync for ShimVfs {}

impl ShimVfs {
    /// Makes and registers a VFS over `base`, not as the default.
    pub fn register<V: VfsHooks>(
        name: &'static CStr,
        base: BaseVfs,
        hooks: V,
    ) -> Result<ShimVfs, c_int> {
        Self::register_with(name, State { base, hooks }, open::<V>)
    }

    pub(super) fn register_with<V>(
        name: &'static CStr,
        state: State<V>,
        open: Open,
    ) -> Result<ShimVfs, c_int> {
        // SAFETY: base is registered; its struct is read up to its own version.
        let b = unsafe { &*state.base.raw() };
        let vfs = Box::into_raw(Box::new(sql::sqlite3_vfs {
            iVersion: b.iVersion.min(3),
            szOsFile: b.szOsFile + HEAD as c_int,
            mxPathname: b.mxPathname,
            pNext: std::ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: Box::into_raw(Box::new(state)).cast(),
            xOpen: Some(open),
            xDelete: Some(delete::<V>),
            xAccess: Some(access::<V>),
            xFullPathname: Some(full_pathname::<V>),
            xDlOpen: b.xDlOpen.and(Some(dl_open::<V>)),
            xDlError: b.xDlError.and(Some(dl_error::<V>)),
            xDlSym: b.xDlSym.and(Some(dl_sym::<V>)),
            xDlClose: b.xDlClose.and(Some(dl_close::<V>)),
            xRandomness: Some(randomness::<V>),
            xSleep: Some(sleep::<V>),
            xCurrentTime: b.xCurrentTime.and(Some(current_time::<V>)),
            xGetLastError: b.xGetLastError.and(Some(get_last_error::<V>)),
            xCurrentTimeInt64: (b.iVersion >= 2).then_some(current_time_int64::<V> as _),
            xSetSystemCall: (b.iVersion >= 3).then_some(set_system_call::<V> as _),
            xGetSystemCall: (b.iVersion >= 3).then_some(get_system_call::<V> as _),
            xNextSystemCall: (b.iVersion >= 3).then_some(next_system_call::<V> as _),
        }));
        // SAFETY: a complete VFS that is never freed.
        match unsafe { sql::sqlite3_vfs_register(vfs, 0) } {
            sql::SQLITE_OK => Ok(ShimVfs(vfs)),
            rc => Err(rc),
        }
    }

    /// As what another VFS stands on.
    pub fn as_base(&self) -> BaseVfs {
        // SAFETY: registered, never freed.
        unsafe { BaseVfs::of(self.0) }
    }

    /// Makes it the process's default VFS.
    pub fn make_default(&self) -> c_int {
        // SAFETY: registered, never freed.
        unsafe { sql::sqlite3_vfs_register(self.0, 1) }
    }
}

/// The base VFS and the hooks behind our VFS pointer.
///
/// # Safety
/// `vfs` is the pointer made by [`ShimVfs::register`] for the same `V`.
pub(super) unsafe fn state<'a, V>(vfs: *mut sql::sqlite3_vfs) -> &'a State<V> {
    // SAFETY: pAppData is set there and never freed.
    unsafe { &*(*vfs).pAppData.cast::<State<V>>() }
}

unsafe extern "C" fn open<V: VfsHooks>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
    file: *mut sql::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: xOpen's contract: file is szOsFile bytes. Null methods tell
    // SQLite that there is nothing to close after an error.
    let state = unsafe {
        (*file).pMethods = std::ptr::null();
        state::<V>(vfs)
    };
    let request = Request { name, flags };
    let rc = guard(|| match state.hooks.open(&request) {
        Err(code) => code,
        Ok(None) => state.base.open(name, file, flags, out_flags),
        Ok(Some(hooks)) => {
            // SAFETY: inside our own szOsFile.
            let slot = unsafe { ShimFile::<V::File>::slot(file) };
            let rc = state.base.open(name, slot, flags, out_flags);
            // SAFETY: the slot is open if it has methods; only then is it wrapped or closed.
            unsafe {
                if rc == sql::SQLITE_OK {
                    ShimFile::wrap(file, hooks);
                    if let (true, Some(path)) = (request.is_main_db(), request.path()) {
                        shim_open::opened(file, path);
                    }
                } else if !(*slot).pMethods.is_null() {
                    super::file::Real::new(slot).close();
                }
            }
            rc
        }
    });
    guard(|| {
        state.hooks.opened();
        rc
    })
}

/// Calls the same method of the base VFS.
macro_rules! forward {
    ($vfs:ident, $method:ident ( $($arg:expr),* ), $default:expr) => {{
        // SAFETY: a method of our VFS; the base is registered for ever and the
        // arguments are the method's own.
        unsafe {
            let base = state::<V>($vfs).base.raw();
            match (*base).$method {
                Some(method) => method(base, $($arg),*),
                None => $default,
            }
        }
    }};
}

type Symbol = unsafe extern "C" fn(*mut sql::sqlite3_vfs, *mut c_void, *const c_char);

unsafe extern "C" fn delete<V>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    forward!(vfs, xDelete(name, sync_dir), sql::SQLITE_IOERR_DELETE)
}
unsafe extern "C" fn access<V>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    forward!(vfs, xAccess(name, flags, out), sql::SQLITE_IOERR_ACCESS)
}
unsafe extern "C" fn full_pathname<V>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    forward!(vfs, xFullPathname(name, len, out), sql::SQLITE_CANTOPEN)
}
unsafe extern "C" fn dl_open<V>(vfs: *mut sql::sqlite3_vfs, name: *const c_char) -> *mut c_void {
    forward!(vfs, xDlOpen(name), std::ptr::null_mut())
}
unsafe extern "C" fn dl_error<V>(vfs: *mut sql::sqlite3_vfs, len: c_int, out: *mut c_char) {
    forward!(vfs, xDlError(len, out), ())
}
unsafe extern "C" fn dl_sym<V>(
    vfs: *mut sql::sqlite3_vfs,
    lib: *mut c_void,
    name: *const c_char,
) -> Option<Symbol> {
    forward!(vfs, xDlSym(lib, name), None)
}
unsafe extern "C" fn dl_close<V>(vfs: *mut sql::sqlite3_vfs, lib: *mut c_void) {
    forward!(vfs, xDlClose(lib), ())
}
unsafe extern "C" fn randomness<V>(
    vfs: *mut sql::sqlite3_vfs,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    forward!(vfs, xRandomness(len, out), 0)
}
unsafe extern "C" fn sleep<V>(vfs: *mut sql::sqlite3_vfs, microseconds: c_int) -> c_int {
    forward!(vfs, xSleep(microseconds), 0)
}
unsafe extern "C" fn current_time<V>(vfs: *mut sql::sqlite3_vfs, out: *mut f64) -> c_int {
    forward!(vfs, xCurrentTime(out), sql::SQLITE_ERROR)
}
unsafe extern "C" fn get_last_error<V>(
    vfs: *mut sql::sqlite3_vfs,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    forward!(vfs, xGetLastError(len, out), 0)
}
unsafe extern "C" fn current_time_int64<V>(vfs: *mut sql::sqlite3_vfs, out: *mut i64) -> c_int {
    forward!(vfs, xCurrentTimeInt64(out), sql::SQLITE_ERROR)
}
unsafe extern "C" fn set_system_call<V>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
    call: sql::sqlite3_syscall_ptr,
) -> c_int {
    forward!(vfs, xSetSystemCall(name, call), sql::SQLITE_NOTFOUND)
}
unsafe extern "C" fn get_system_call<V>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
) -> sql::sqlite3_syscall_ptr {
    forward!(vfs, xGetSystemCall(name), None)
}
unsafe extern "C" fn next_system_call<V>(
    vfs: *mut sql::sqlite3_vfs,
    name: *const c_char,
) -> *const c_char {
    forward!(vfs, xNextSystemCall(name), std::ptr::null())
}
