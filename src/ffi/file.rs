//! Files of the base VFS: [`Real`], the file behind a shim, and [`OsFile`], a
//! handle of our own. Both go through the VFS, so that locks and shared memory
//! are those that the rest of the process sees.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use libsqlite3_sys as sql;

use super::own;
use super::shm::{BLOCK_SIZE, Block, ShmLock};
use super::vfs::BaseVfs;
use crate::error::{Error, Result};

/// An open `sqlite3_file` of the base VFS; a pointer, not an owner.
#[derive(Clone, Copy)]
pub struct Real(*mut sql::sqlite3_file);

/// Calls a method of a real file; `$default` where the file has none.
macro_rules! call {
    ($file:expr, $method:ident ( $($arg:expr),* ), $default:expr) => {{
        let file = $file.0;
        // SAFETY: an open file has a method table for as long as it is open,
        // and whoever made the Real vouched for it being open.
        match unsafe { (*(*file).pMethods).$method } {
            // SAFETY: as above; the arguments are the method's own.
            Some(method) => unsafe { method(file, $($arg),*) },
            None => $default,
        }
    }};
}

impl Real {
    /// # Safety
    /// `file` is an open file of the base VFS and stays so while this is used.
    pub(super) unsafe fn new(file: *mut sql::sqlite3_file) -> Real {
        Real(file)
    }

    pub(super) fn version(self) -> c_int {
        // SAFETY: as in `call!`.
        unsafe { (*(*self.0).pMethods).iVersion }
    }
    pub fn close(self) -> c_int {
        call!(self, xClose(), sql::SQLITE_OK)
    }
    pub(super) fn read(self, buf: *mut c_void, len: c_int, at: i64) -> c_int {
        call!(self, xRead(buf, len, at), sql::SQLITE_IOERR_READ)
    }
    pub(super) fn write(self, buf: *const c_void, len: c_int, at: i64) -> c_int {
        call!(self, xWrite(buf, len, at), sql::SQLITE_IOERR_WRITE)
    }
    pub fn truncate(self, size: i64) -> c_int {
        call!(self, xTruncate(size), sql::SQLITE_IOERR_TRUNCATE)
    }
    pub fn sync(self, flags: c_int) -> c_int {
        call!(self, xSync(flags), sql::SQLITE_IOERR_FSYNC)
    }
    pub(super) fn file_size(self, size: *mut i64) -> c_int {
        call!(self, xFileSize(size), sql::SQLITE_IOERR_FSTAT)
    }
    pub fn lock(self, level: c_int) -> c_int {
        call!(self, xLock(level), sql::SQLITE_OK)
    }
    pub fn unlock(self, level: c_int) -> c_int {
        call!(self, xUnlock(level), sql::SQLITE_OK)
    }
    pub(super) fn check_reserved_lock(self, out: *mut c_int) -> c_int {
        call!(self, xCheckReservedLock(out), sql::SQLITE_OK)
    }
    pub fn file_control(self, op: c_int, arg: *mut c_void) -> c_int {
        call!(self, xFileControl(op, arg), sql::SQLITE_NOTFOUND)
    }
    pub fn sector_size(self) -> c_int {
        call!(self, xSectorSize(), 4096)
    }
    pub fn device_characteristics(self) -> c_int {
        call!(self, xDeviceCharacteristics(), 0)
    }
    pub(super) fn shm_map(
        self,
        block: c_int,
        size: c_int,
        extend: c_int,
        out: *mut *mut c_void,
    ) -> c_int {
        call!(
            self,
            xShmMap(block, size, extend, out),
            sql::SQLITE_IOERR_SHMMAP
        )
    }
    /// A wal-index block; None where it does not exist and `extend` is false.
    pub fn shm_block(
        &self,
        block: u32,
        extend: bool,
        read_only: bool,
    ) -> std::result::Result<Option<Block<'_>>, c_int> {
        let mut base = ptr::null_mut();
        match self.shm_map(
            block as c_int,
            BLOCK_SIZE as c_int,
            extend.into(),
            &mut base,
        ) {
            sql::SQLITE_OK if base.is_null() => Ok(None),
            sql::SQLITE_READONLY if !read_only || base.is_null() => Err(sql::SQLITE_READONLY),
            sql::SQLITE_OK | sql::SQLITE_READONLY => {
                // SAFETY: xShmMap maps BLOCK_SIZE bytes, page-aligned, until the
                // file's xShmUnmap; a Real is used only while the file is open.
                Ok(Some(unsafe { Block::from_raw(base.cast()) }))
            }
            code => Err(code),
        }
    }
    pub fn shm_lock(self, slot: c_int, count: c_int, flags: c_int) -> c_int {
        call!(
            self,
            xShmLock(slot, count, flags),
            sql::SQLITE_IOERR_SHMLOCK
        )
    }
    pub fn shm_barrier(self) {
        call!(self, xShmBarrier(), ())
    }
    pub fn shm_unmap(self, delete: c_int) -> c_int {
        call!(self, xShmUnmap(delete), sql::SQLITE_OK)
    }
    pub(super) fn fetch(self, at: i64, len: c_int, out: *mut *mut c_void) -> c_int {
        call!(self, xFetch(at, len, out), sql::SQLITE_OK)
    }
    pub(super) fn unfetch(self, at: i64, page: *mut c_void) -> c_int {
        call!(self, xUnfetch(at, page), sql::SQLITE_OK)
    }
}

/// SQLite's unix VFS takes a length modulo 128 KiB.
const MAX_IO: usize = 0x1_c000;
/// Pages of 4096 bytes that are written in one call.
pub const MOST_PAGES: usize = MAX_IO / 4096;

/// What a file of ours is opened as; the base VFS treats each its own way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Database,
    Wal,
    Journal,
    /// Pages of a replica as they were (`replica/undo.rs`): to the VFS a journal.
    Undo,
}

impl FileKind {
    /// The path of the file that belongs to a database.
    pub fn path(self, db_path: &str) -> String {
        let suffix = match self {
            FileKind::Database => "",
            FileKind::Wal => "-wal",
            FileKind::Journal => "-journal",
            // As in `replica/beside.rs`, which makes it.
            FileKind::Undo => "-replica-undo",
        };
        format!("{db_path}{suffix}")
    }
}

/// A file name as `xOpen` wants it (sqlite3_create_filename).
struct Filename(*mut c_char);

impl Filename {
    fn new(path: &str) -> Result<Self> {
        let c = |suffix: &str| {
            CString::new(format!("{path}{suffix}"))
                .map_err(|_| Error::Config(format!("path '{path}' holds a NUL")))
        };
        let (db, journal, wal) = (c("")?, c("-journal")?, c("-wal")?);
        // SAFETY: three NUL-terminated names, no parameters.
        let name = unsafe {
            sql::sqlite3_create_filename(
                db.as_ptr(),
                journal.as_ptr(),
                wal.as_ptr(),
                0,
                ptr::null_mut(),
            )
        };
        if name.is_null() {
            Err(Error::Internal("out of memory".into()))
        } else {
            Ok(Filename(name))
        }
    }
}

impl Drop for Filename {
    fn drop(&mut self) {
        // SAFETY: made by sqlite3_create_filename, freed once.
        unsafe { sql::sqlite3_free_filename(self.0) }
    }
}

/// An open file of our own. Closing it closes no lock of anybody else: the
/// base VFS keeps the descriptor while the process holds locks on the file.
pub struct OsFile {
    real: Real,
    writable: bool,
    shm: bool,
    path: String,
    // Both outlive `real`, which points into them.
    _memory: Box<[u64]>,
    _name: Filename,
}

// SAFETY: a sqlite3_file may move between threads as long as one at a time
// uses it; `&OsFile` is not Sync, so that is the case.
unsafe impl Send for OsFile {}

impl OsFile {
    /// Opens `path` (of the kind's own: `app.db`, `app.db-wal`), creating it on request.
    pub fn open(vfs: &BaseVfs, db_path: &str, kind: FileKind, create: bool) -> Result<OsFile> {
        let create = if create { sql::SQLITE_OPEN_CREATE } else { 0 };
        Self::open_with(vfs, db_path, kind, sql::SQLITE_OPEN_READWRITE | create)
    }

    /// Makes the file; an error if there is one.
    pub fn create_new(vfs: &BaseVfs, db_path: &str, kind: FileKind) -> Result<OsFile> {
        let new = sql::SQLITE_OPEN_CREATE | sql::SQLITE_OPEN_EXCLUSIVE;
        Self::open_with(vfs, db_path, kind, sql::SQLITE_OPEN_READWRITE | new)
    }

    /// Opens the file to be looked at.
    pub fn open_to_read(vfs: &BaseVfs, db_path: &str, kind: FileKind) -> Result<OsFile> {
        Self::open_with(vfs, db_path, kind, sql::SQLITE_OPEN_READONLY)
    }

    fn open_with(vfs: &BaseVfs, db_path: &str, kind: FileKind, how: c_int) -> Result<OsFile> {
        let name = Filename::new(&match kind {
            FileKind::Undo => kind.path(db_path),
            _ => db_path.to_string(),
        })?;
        let (path, kind_flag) = match kind {
            FileKind::Database => (name.0.cast_const(), sql::SQLITE_OPEN_MAIN_DB),
            // SAFETY: a name made by sqlite3_create_filename has both companions.
            FileKind::Wal => (
                unsafe { sql::sqlite3_filename_wal(name.0) },
                sql::SQLITE_OPEN_WAL,
            ),
            // The unix VFS gives it the permissions of what its name begins with.
            FileKind::Undo => (name.0.cast_const(), sql::SQLITE_OPEN_MAIN_JOURNAL),
            FileKind::Journal => (
                // SAFETY: as above.
                unsafe { sql::sqlite3_filename_journal(name.0) },
                sql::SQLITE_OPEN_MAIN_JOURNAL,
            ),
        };
        let flags = how | kind_flag;
        let writable = how & sql::SQLITE_OPEN_READWRITE != 0;
        let mut memory = vec![0u64; vfs.file_size().div_ceil(8)].into_boxed_slice();
        let file = memory.as_mut_ptr().cast::<sql::sqlite3_file>();
        let mut out_flags = 0;
        let own = own::open();
        let rc = vfs.open(path, file, flags, &mut out_flags);
        drop(own);
        // SAFETY: xOpen left either null or a method table; Real is made only for an open file.
        let opened = unsafe { !(*file).pMethods.is_null() };
        let shown = kind.path(db_path);
        // SAFETY: as just checked.
        let real = opened.then(|| unsafe { Real::new(file) });
        match real {
            Some(real)
                if rc == sql::SQLITE_OK
                    && !(writable && out_flags & sql::SQLITE_OPEN_READONLY != 0) =>
            {
                Ok(OsFile {
                    real,
                    writable,
                    shm: false,
                    path: shown,
                    _memory: memory,
                    _name: name,
                })
            }
            other => {
                // The contract of xOpen: a set method table is closed even after an error.
                other.map(Real::close);
                let code = if rc == sql::SQLITE_OK {
                    sql::SQLITE_READONLY
                } else {
                    rc
                };
                Err(Error::io("open", &shown, code))
            }
        }
    }

    /// The first bytes of a file that is there, opened to be read alone;
    /// answers how many.
    pub fn peek(vfs: &BaseVfs, db_path: &str, kind: FileKind, buf: &mut [u8]) -> usize {
        if !vfs.exists(&kind.path(db_path)).unwrap_or(false) {
            return 0;
        }
        let Ok(name) = Filename::new(db_path) else {
            return 0;
        };
        let (path, flags) = match kind {
            FileKind::Journal => (
                // SAFETY: a name made by sqlite3_create_filename has both companions.
                unsafe { sql::sqlite3_filename_journal(name.0) },
                sql::SQLITE_OPEN_MAIN_JOURNAL,
            ),
            _ => return 0,
        };
        let mut memory = vec![0u64; vfs.file_size().div_ceil(8)].into_boxed_slice();
        let file = memory.as_mut_ptr().cast::<sql::sqlite3_file>();
        let (own, mut out_flags) = (own::open(), 0);
        let flags = flags | sql::SQLITE_OPEN_READONLY;
        let rc = vfs.open(path, file, flags, &mut out_flags);
        drop(own);
        // SAFETY: xOpen left either null or a method table.
        if unsafe { (*file).pMethods.is_null() } {
            return 0;
        }
        // SAFETY: an open file.
        let real = unsafe { Real::new(file) };
        let got = match (rc, real.bytes()) {
            (sql::SQLITE_OK, Ok(size)) => buf.len().min(size as usize),
            _ => 0,
        };
        let read = got > 0 && real.read_bytes(&mut buf[..got], 0) == sql::SQLITE_OK;
        real.close();
        if read { got } else { 0 }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    fn check(&self, op: &'static str, rc: c_int) -> Result<()> {
        if rc == sql::SQLITE_OK {
            Ok(())
        } else {
            Err(Error::io(op, &self.path, rc))
        }
    }

    /// Fills `buf`; what lies past the end of the file is zeros (answers false then).
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> Result<bool> {
        let mut whole = true;
        for (i, part) in buf.chunks_mut(MAX_IO).enumerate() {
            let at = at as i64 + (i * MAX_IO) as i64;
            match self
                .real
                .read(part.as_mut_ptr().cast(), part.len() as c_int, at)
            {
                sql::SQLITE_IOERR_SHORT_READ => whole = false,
                rc => self.check("read", rc)?,
            }
        }
        Ok(whole)
    }

    pub fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        for (i, part) in buf.chunks(MAX_IO).enumerate() {
            let at = at as i64 + (i * MAX_IO) as i64;
            self.check(
                "write",
                self.real
                    .write(part.as_ptr().cast(), part.len() as c_int, at),
            )?;
        }
        Ok(())
    }

    pub fn truncate(&self, size: u64) -> Result<()> {
        self.check("truncate", self.real.truncate(size as i64))
    }

    pub fn sync(&self) -> Result<()> {
        self.check("sync", self.real.sync(sql::SQLITE_SYNC_NORMAL))
    }

    pub fn size(&self) -> Result<u64> {
        let mut size = 0i64;
        self.check("size of", self.real.file_size(&mut size))?;
        Ok(size.max(0) as u64)
    }

    /// Takes a rollback-mode lock (SHARED, RESERVED, EXCLUSIVE); false if another holds it.
    pub fn lock(&self, level: c_int) -> Result<bool> {
        match self.real.lock(level) {
            sql::SQLITE_OK => Ok(true),
            rc if rc & 0xff == sql::SQLITE_BUSY => Ok(false),
            rc => Err(Error::io("lock", &self.path, rc)),
        }
    }

    /// Whether the name leads to another file by now, or to none.
    pub fn has_moved(&self) -> bool {
        let mut moved: c_int = 0;
        let rc = self
            .real
            .file_control(sql::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast());
        rc == sql::SQLITE_OK && moved != 0
    }

    /// A wal-index block; None where it does not exist and `extend` is false.
    pub fn shm_block(&self, block: u32, extend: bool) -> Result<Option<Block<'_>>> {
        // Memory that cannot be written to is enough for who only looks.
        let block = self.real.shm_block(block, extend, !self.writable);
        block.map_err(|code| Error::io("map the wal-index of", &self.path, code))
    }

    /// Notes that shared memory is open and has to be given back on drop.
    pub fn open_shm(&mut self) -> Result<()> {
        self.shm = true;
        self.shm_block(0, true).map(|_| ())
    }

    /// Takes wal-index locks for writing; false if another connection holds one.
    pub fn shm_lock(&self, lock: ShmLock) -> Result<bool> {
        let flags = sql::SQLITE_SHM_LOCK | sql::SQLITE_SHM_EXCLUSIVE;
        match self.real.shm_lock(lock.slot, lock.count, flags) {
            sql::SQLITE_OK => Ok(true),
            rc if rc & 0xff == sql::SQLITE_BUSY => Ok(false),
            rc => Err(Error::io("lock the wal-index of", &self.path, rc)),
        }
    }

    pub fn shm_unlock(&self, lock: ShmLock) {
        let flags = sql::SQLITE_SHM_UNLOCK | sql::SQLITE_SHM_EXCLUSIVE;
        self.real.shm_lock(lock.slot, lock.count, flags);
    }

    pub fn shm_barrier(&self) {
        self.real.shm_barrier();
    }
}

impl Drop for OsFile {
    fn drop(&mut self) {
        if self.shm {
            self.real.shm_unmap(0);
        }
        self.real.unlock(sql::SQLITE_LOCK_NONE);
        self.real.close();
    }
}
