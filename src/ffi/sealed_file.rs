//! A `sqlite3_file` whose bytes are not those of the real file behind it: data
//! goes through [`SealedOps`], locks and shared memory to the real file. It
//! offers no memory mapping, so SQLite never sees the real file's bytes.

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::sync::Arc;

use libsqlite3_sys as sql;

use super::file::Real;
use super::guard::guard;
use super::sealed_shm::Mapped;
use crate::error::Result;

/// What a sealed file does; a result code is SQLite's.
pub trait SealedOps: Sized {
    /// Fills `buf` and answers how much of it the file has; the rest is zeros.
    fn read(&mut self, real: Real, buf: &mut [u8], at: u64) -> Result<usize>;
    fn write(&mut self, real: Real, buf: &[u8], at: u64) -> Result<()>;
    fn truncate(&mut self, real: Real, size: u64) -> Result<()>;
    fn size(&mut self, real: Real) -> Result<u64>;
    fn sync(&mut self, real: Real, flags: c_int) -> c_int;
    fn lock(&mut self, real: Real, level: c_int) -> c_int;
    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int;
    fn sector_size(&mut self, real: Real) -> c_int;
    fn device_characteristics(&mut self, real: Real) -> c_int;
    /// Where the mapped wal-index is noted.
    fn index(&self) -> Option<Arc<Mapped>>;
    /// Keeps an error's words; answers its result code.
    fn failed(&self, error: &crate::error::Error) -> c_int;
}

/// The real file's bytes, as the operations above need them.
impl Real {
    pub fn read_bytes(self, buf: &mut [u8], at: u64) -> c_int {
        self.read(buf.as_mut_ptr().cast(), buf.len() as c_int, at as i64)
    }
    pub fn write_bytes(self, buf: &[u8], at: u64) -> c_int {
        self.write(buf.as_ptr().cast(), buf.len() as c_int, at as i64)
    }
    pub fn bytes(self) -> std::result::Result<u64, c_int> {
        let mut size = 0;
        match self.file_size(&mut size) {
            sql::SQLITE_OK => Ok(size.max(0) as u64),
            code => Err(code),
        }
    }
}

#[repr(C)]
pub(super) struct SealedFile<S> {
    base: sql::sqlite3_file,
    ops: *mut S,
}

// The real file that follows needs the alignment of any C struct.
const _: () = assert!(size_of::<SealedFile<u8>>() == super::shim_file::HEAD);

impl<S: SealedOps> SealedFile<S> {
    /// The place of the real file inside our memory.
    ///
    /// # Safety
    /// `file` is memory of our VFS' szOsFile.
    pub(super) unsafe fn slot(file: *mut sql::sqlite3_file) -> *mut sql::sqlite3_file {
        // SAFETY: szOsFile is HEAD plus the base VFS' size.
        unsafe { file.cast::<u8>().add(super::shim_file::HEAD).cast() }
    }

    /// Makes `file` a sealed file; its real file is open.
    ///
    /// # Safety
    /// As [`Self::slot`], and the real file in it is open.
    pub(super) unsafe fn wrap(file: *mut sql::sqlite3_file, ops: S) {
        let sealed = file.cast::<Self>();
        // SAFETY: per contract both are ours to write and the real one is open.
        unsafe {
            let version = Real::new(Self::slot(file)).version();
            (*sealed).ops = Box::into_raw(Box::new(ops));
            (*sealed).base.pMethods = if version < 2 { &Self::V1 } else { &Self::V2 };
        }
    }

    const V2: sql::sqlite3_io_methods = Self::methods(2);
    const V1: sql::sqlite3_io_methods = Self::methods(1);

    /// Version 2 at most: version 3 is memory mapping.
    const fn methods(version: c_int) -> sql::sqlite3_io_methods {
        sql::sqlite3_io_methods {
            iVersion: version,
            xClose: Some(Self::close),
            xRead: Some(Self::read),
            xWrite: Some(Self::write),
            xTruncate: Some(Self::truncate),
            xSync: Some(Self::sync),
            xFileSize: Some(Self::file_size),
            xLock: Some(Self::lock),
            xUnlock: Some(Self::unlock),
            xCheckReservedLock: Some(Self::check_reserved_lock),
            xFileControl: Some(Self::file_control),
            xSectorSize: Some(Self::sector_size),
            xDeviceCharacteristics: Some(Self::device_characteristics),
            xShmMap: Some(Self::shm_map),
            xShmLock: Some(Self::shm_lock),
            xShmBarrier: Some(Self::shm_barrier),
            xShmUnmap: Some(Self::shm_unmap),
            xFetch: None,
            xUnfetch: None,
        }
    }

    unsafe fn real(file: *mut sql::sqlite3_file) -> Real {
        // SAFETY: SQLite calls methods only between xOpen and xClose.
        unsafe { Real::new(Self::slot(file)) }
    }

    unsafe fn ops<'a>(file: *mut sql::sqlite3_file) -> &'a mut S {
        // SAFETY: set by wrap, freed by close; one thread at a time uses a file.
        unsafe { &mut *(*file.cast::<Self>()).ops }
    }

    unsafe extern "C" fn close(file: *mut sql::sqlite3_file) -> c_int {
        guard(|| {
            // SAFETY: SQLite's contract for xClose: the last call on this file.
            let (real, ops) = unsafe {
                let sealed = file.cast::<Self>();
                (Self::real(file), Box::from_raw((*sealed).ops))
            };
            if let Some(index) = ops.index() {
                index.forget();
            }
            let rc = real.close();
            drop(ops);
            rc
        })
    }
    unsafe extern "C" fn read(
        file: *mut sql::sqlite3_file,
        buf: *mut c_void,
        len: c_int,
        at: i64,
    ) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file; the buffer is len bytes for us to fill.
            let (ops, real, buf) = unsafe {
                let buf = std::slice::from_raw_parts_mut(buf.cast::<u8>(), len.max(0) as usize);
                (Self::ops(file), Self::real(file), buf)
            };
            match ops.read(real, buf, at.max(0) as u64) {
                Ok(n) if n < buf.len() => sql::SQLITE_IOERR_SHORT_READ,
                Ok(_) => sql::SQLITE_OK,
                Err(e) => ops.failed(&e),
            }
        })
    }
    unsafe extern "C" fn write(
        file: *mut sql::sqlite3_file,
        buf: *const c_void,
        len: c_int,
        at: i64,
    ) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file; the buffer is len bytes to read.
            let (ops, real, buf) = unsafe {
                let buf = std::slice::from_raw_parts(buf.cast::<u8>(), len.max(0) as usize);
                (Self::ops(file), Self::real(file), buf)
            };
            match ops.write(real, buf, at.max(0) as u64) {
                Ok(()) => sql::SQLITE_OK,
                Err(e) => ops.failed(&e),
            }
        })
    }
    unsafe extern "C" fn truncate(file: *mut sql::sqlite3_file, size: i64) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file.
            let (ops, real) = unsafe { (Self::ops(file), Self::real(file)) };
            match ops.truncate(real, size.max(0) as u64) {
                Ok(()) => sql::SQLITE_OK,
                Err(e) => ops.failed(&e),
            }
        })
    }
    unsafe extern "C" fn sync(file: *mut sql::sqlite3_file, flags: c_int) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::ops(file).sync(Self::real(file), flags) })
    }
    unsafe extern "C" fn file_size(file: *mut sql::sqlite3_file, size: *mut i64) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file.
            let (ops, real) = unsafe { (Self::ops(file), Self::real(file)) };
            match ops.size(real) {
                Ok(n) => {
                    // SAFETY: SQLite's place for the size.
                    unsafe { *size = n as i64 };
                    sql::SQLITE_OK
                }
                Err(e) => ops.failed(&e),
            }
        })
    }
    unsafe extern "C" fn lock(file: *mut sql::sqlite3_file, level: c_int) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::ops(file).lock(Self::real(file), level) })
    }
    unsafe extern "C" fn file_control(
        file: *mut sql::sqlite3_file,
        op: c_int,
        arg: *mut c_void,
    ) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::ops(file).file_control(Self::real(file), op, arg) })
    }
    unsafe extern "C" fn sector_size(file: *mut sql::sqlite3_file) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::ops(file).sector_size(Self::real(file)) })
    }
    unsafe extern "C" fn device_characteristics(file: *mut sql::sqlite3_file) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::ops(file).device_characteristics(Self::real(file)) })
    }

    // Forwarding only: nothing here can panic.
    unsafe extern "C" fn unlock(file: *mut sql::sqlite3_file, level: c_int) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.unlock(level)
    }
    unsafe extern "C" fn check_reserved_lock(
        file: *mut sql::sqlite3_file,
        out: *mut c_int,
    ) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.check_reserved_lock(out)
    }
    unsafe extern "C" fn shm_map(
        file: *mut sql::sqlite3_file,
        block: c_int,
        size: c_int,
        extend: c_int,
        out: *mut *mut c_void,
    ) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file, `out` SQLite's place for the address.
            let (real, ops) = unsafe { (Self::real(file), Self::ops(file)) };
            let rc = real.shm_map(block, size, extend, out);
            if rc == sql::SQLITE_OK
                && let Some(index) = ops.index()
            {
                // SAFETY: filled by a call that succeeded.
                index.note(block.max(0) as usize, size.max(0) as usize, unsafe { *out });
            }
            rc
        })
    }
    unsafe extern "C" fn shm_lock(
        file: *mut sql::sqlite3_file,
        slot: c_int,
        count: c_int,
        flags: c_int,
    ) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.shm_lock(slot, count, flags)
    }
    unsafe extern "C" fn shm_barrier(file: *mut sql::sqlite3_file) {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.shm_barrier()
    }
    unsafe extern "C" fn shm_unmap(file: *mut sql::sqlite3_file, delete: c_int) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file.
            let (real, ops) = unsafe { (Self::real(file), Self::ops(file)) };
            if let Some(index) = ops.index() {
                index.forget();
            }
            real.shm_unmap(delete)
        })
    }
}
