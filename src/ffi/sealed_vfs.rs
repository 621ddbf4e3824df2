//! The VFS of sealed files: its `xOpen`; all else forwards as in `shim_vfs`.

use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as sql;

use super::api;
use super::file::Real;
use super::guard::guard;
use super::sealed_file::{SealedFile, SealedOps};
use super::shim_vfs::{Request, ShimVfs, State, state};
use super::vfs::BaseVfs;

pub trait SealedHooks: Sync + 'static {
    type File: SealedOps;
    /// What is decided before a file is opened.
    type Plan;
    /// None: the file stays the base VFS' own. Or the result code of a refusal.
    fn plan(&self, request: &Request) -> Result<Option<Self::Plan>, c_int>;
    /// The file is open: its operations, or the result code of a refusal.
    fn attach(&self, plan: Self::Plan, request: &Request, real: Real) -> Result<Self::File, c_int>;
    /// The base VFS' own file is open: OK, or the result code of a refusal.
    fn passed(&self, request: &Request, real: Real) -> c_int;
}

impl ShimVfs {
    /// Makes and registers a VFS of sealed files over `base`.
    pub fn register_sealed<V: SealedHooks>(
        name: &'static CStr,
        base: BaseVfs,
        hooks: V,
    ) -> Result<ShimVfs, c_int> {
        ShimVfs::register_with(name, State { base, hooks }, open::<V>)
    }
}

unsafe extern "C" fn open<V: SealedHooks>(
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
    guard(|| {
        let plan = match state.hooks.plan(&request) {
            Ok(plan) => plan,
            Err(code) => return code,
        };
        let slot = match &plan {
            None => file,
            // SAFETY: inside our own szOsFile.
            Some(_) => unsafe { SealedFile::<V::File>::slot(file) },
        };
        let rc = state.base.open(name, slot, flags, out_flags);
        // SAFETY: xOpen left either null or a method table.
        let opened = unsafe { !(*slot).pMethods.is_null() };
        // SAFETY: as just checked; only an open file is used.
        let real = opened.then(|| unsafe { Real::new(slot) });
        let (Some(real), sql::SQLITE_OK) = (real, rc) else {
            if let (Some(real), Some(_)) = (real, &plan) {
                real.close();
            }
            return rc;
        };
        let refused = match plan {
            None => state.hooks.passed(&request, real),
            Some(plan) => match state.hooks.attach(plan, &request, real) {
                Ok(ops) => {
                    // SAFETY: the real file is open in its slot.
                    unsafe { SealedFile::wrap(file, ops) };
                    sql::SQLITE_OK
                }
                Err(code) => code,
            },
        };
        if refused != sql::SQLITE_OK {
            real.close();
            // SAFETY: our memory, nothing open in it any more.
            unsafe { (*file).pMethods = std::ptr::null() };
        }
        refused
    })
}

/// `SQLITE_FCNTL_PDB`: the connection that a database is being opened for,
/// where this is the first one of the file: the thread is inside it.
pub struct Host(*mut sql::sqlite3);

impl Host {
    pub fn from_file_control(op: c_int, arg: *mut c_void) -> Option<Host> {
        if op != sql::SQLITE_FCNTL_PDB || arg.is_null() {
            return None;
        }
        // SAFETY: SQLite's contract: a pointer to the connection's.
        let db = unsafe { *arg.cast::<*mut sql::sqlite3>() };
        (!db.is_null()).then_some(Host(db))
    }

    /// The file of its main database, empty of one without; None while there
    /// is no main database. Takes no lock.
    pub fn main_path(&self) -> Option<String> {
        api::db_filename(self.0, "main")
    }

    fn control<T>(&self, schema: &CStr, op: c_int, out: &mut T) -> c_int {
        // SAFETY: a live connection whose mutex this thread holds; `out` is
        // what the operation writes.
        unsafe { sql::sqlite3_file_control(self.0, schema.as_ptr(), op, (out as *mut T).cast()) }
    }

    /// The VFS of the main database, which temporary files go to.
    fn vfs(&self) -> Option<BaseVfs> {
        let mut vfs: *mut sql::sqlite3_vfs = std::ptr::null_mut();
        let rc = self.control(c"main", sql::SQLITE_FCNTL_VFS_POINTER, &mut vfs);
        // SAFETY: a VFS that a connection uses is registered.
        (rc == sql::SQLITE_OK && !vfs.is_null()).then(|| unsafe { BaseVfs::of(vfs) })
    }

    pub fn vfs_name(&self) -> Option<String> {
        Some(self.vfs()?.name().to_string_lossy().into_owned())
    }

    /// Has the connection's VFS open a temporary file; whether it did.
    pub fn try_temp_file(&self) -> bool {
        let Some(vfs) = self.vfs() else { return false };
        let flags = sql::SQLITE_OPEN_TEMP_DB
            | sql::SQLITE_OPEN_READWRITE
            | sql::SQLITE_OPEN_CREATE
            | sql::SQLITE_OPEN_EXCLUSIVE
            | sql::SQLITE_OPEN_DELETEONCLOSE;
        let mut memory = vec![0u64; vfs.file_size().div_ceil(8)].into_boxed_slice();
        let file = memory.as_mut_ptr().cast::<sql::sqlite3_file>();
        let mut out_flags = 0;
        let rc = vfs.open(std::ptr::null(), file, flags, &mut out_flags);
        // SAFETY: xOpen left either null or a method table; only an open file is closed.
        unsafe {
            if !(*file).pMethods.is_null() {
                Real::new(file).close();
            }
        }
        rc == sql::SQLITE_OK
    }

    /// Whether the temporary database has a file that does not answer `op`.
    pub fn temp_file_ignores(&self, op: c_int) -> bool {
        let mut file: *mut sql::sqlite3_file = std::ptr::null_mut();
        let rc = self.control(c"temp", sql::SQLITE_FCNTL_FILE_POINTER, &mut file);
        // SAFETY: a file that SQLite keeps as long as the connection, open or not.
        let open =
            rc == sql::SQLITE_OK && !file.is_null() && unsafe { !(*file).pMethods.is_null() };
        // SAFETY: an open file.
        open && unsafe { Real::new(file) }.file_control(op, std::ptr::null_mut()) != sql::SQLITE_OK
    }
}
