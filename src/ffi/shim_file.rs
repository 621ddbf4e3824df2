//! Our `sqlite3_file`: hooks in front, the real file of the base VFS right
//! behind it in the same memory (as SQLite's own cksumvfs does).

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::ptr;

use libsqlite3_sys as sql;

use super::file::Real;
use super::guard::guard;
use super::shim_open;

/// What a wrapped file does differently; every default forwards.
pub trait FileHooks: Sized {
    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int {
        real.file_control(op, arg)
    }
    /// What was just read begins as page 1 of a database does. Must not panic.
    fn read_page1(&mut self, _bytes: &mut [u8], _at: i64) {}
    fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        real.write_bytes(bytes, at as u64)
    }
    fn truncate(&mut self, real: Real, size: i64) -> c_int {
        real.truncate(size)
    }
    /// What is to be done before the file is locked, with no hook under way:
    /// it comes back with calls of its own.
    fn before_lock(&mut self) -> Option<Box<dyn FnOnce()>> {
        None
    }
    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        real.lock(level)
    }
    fn unlock(&mut self, real: Real, level: c_int) -> c_int {
        real.unlock(level)
    }
    /// The wal-index is mapped.
    fn shm_opened(&mut self) {}
    /// And is no more.
    fn shm_closed(&mut self) {}
    /// An exclusive lock.
    fn shm_lock(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        real.shm_lock(slot, count, flags)
    }
    /// A reader's lock. Must not panic.
    fn shm_shared(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        real.shm_lock(slot, count, flags)
    }
}

#[repr(C)]
pub(super) struct ShimFile<H> {
    base: sql::sqlite3_file,
    hooks: *mut H,
}

// The real file that follows needs the alignment of any C struct.
const _: () = assert!(size_of::<ShimFile<u8>>() == 16);

/// Bytes that stand in front of the real file.
pub(super) const HEAD: usize = size_of::<ShimFile<u8>>();

impl<H: FileHooks> ShimFile<H> {
    /// The place of the real file inside our memory.
    ///
    /// # Safety
    /// `file` is memory of our VFS' szOsFile.
    pub(super) unsafe fn slot(file: *mut sql::sqlite3_file) -> *mut sql::sqlite3_file {
        // SAFETY: szOsFile is HEAD plus the base VFS' size.
        unsafe { file.cast::<u8>().add(HEAD).cast() }
    }

    /// Makes `file` a wrapped file; its real file is open.
    ///
    /// # Safety
    /// As [`Self::slot`], and the real file in it is open.
    pub(super) unsafe fn wrap(file: *mut sql::sqlite3_file, hooks: H) {
        let shim = file.cast::<Self>();
        // SAFETY: per contract both are ours to write and the real one is open.
        unsafe {
            let version = Real::new(Self::slot(file)).version();
            (*shim).hooks = Box::into_raw(Box::new(hooks));
            (*shim).base.pMethods = match version {
                ..=1 => &Self::V1,
                2 => &Self::V2,
                _ => &Self::V3,
            };
        }
    }

    const V3: sql::sqlite3_io_methods = Self::methods(3);
    const V2: sql::sqlite3_io_methods = Self::methods(2);
    const V1: sql::sqlite3_io_methods = Self::methods(1);

    /// The table for a real file of this version: callers look no further.
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
            xFetch: Some(Self::fetch),
            xUnfetch: Some(Self::unfetch),
        }
    }

    /// The hooks of a file, if it is one that was wrapped with such.
    ///
    /// # Safety
    /// `file` is null or an open file; the answer is used while it stays so,
    /// by the thread that uses the file.
    pub(super) unsafe fn hooks_of<'a>(file: *mut sql::sqlite3_file) -> Option<&'a H> {
        if file.is_null() {
            return None;
        }
        // SAFETY: an open file has a method table or null; ours mark our files.
        unsafe {
            let methods = (*file).pMethods;
            let ours = [&Self::V1, &Self::V2, &Self::V3];
            (!methods.is_null() && ours.iter().any(|table| ptr::eq(*table, methods)))
                .then(|| &*(*file.cast::<Self>()).hooks)
        }
    }

    unsafe fn real(file: *mut sql::sqlite3_file) -> Real {
        // SAFETY: SQLite calls methods only between xOpen and xClose.
        unsafe { Real::new(Self::slot(file)) }
    }

    unsafe fn hooks<'a>(file: *mut sql::sqlite3_file) -> &'a mut H {
        // SAFETY: set by wrap, freed by close; one thread at a time uses a file.
        unsafe { &mut *(*file.cast::<Self>()).hooks }
    }

    unsafe extern "C" fn close(file: *mut sql::sqlite3_file) -> c_int {
        guard(|| {
            shim_open::closed(file);
            // SAFETY: SQLite's contract for xClose: the last call on this file.
            let (real, hooks) = unsafe {
                let shim = file.cast::<Self>();
                (Self::real(file), Box::from_raw((*shim).hooks))
            };
            // The real file first: what the hooks release may be the last use of the database.
            let rc = real.close();
            drop(hooks);
            rc
        })
    }
    unsafe extern "C" fn file_control(
        file: *mut sql::sqlite3_file,
        op: c_int,
        arg: *mut c_void,
    ) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::hooks(file).file_control(Self::real(file), op, arg) })
    }
    unsafe extern "C" fn lock(file: *mut sql::sqlite3_file, level: c_int) -> c_int {
        shim_open::locked(file);
        guard(|| {
            // SAFETY: a method of an open file; the hooks are borrowed for one call each.
            if let Some(prepare) = unsafe { Self::hooks(file) }.before_lock() {
                prepare();
            }
            // SAFETY: the same.
            unsafe { Self::hooks(file).lock(Self::real(file), level) }
        })
    }
    unsafe extern "C" fn shm_lock(
        file: *mut sql::sqlite3_file,
        slot: c_int,
        count: c_int,
        flags: c_int,
    ) -> c_int {
        // SAFETY: a method of an open file.
        let (real, hooks) = unsafe { (Self::real(file), Self::hooks(file)) };
        // On the way of every read: nothing of it can panic.
        if flags & sql::SQLITE_SHM_SHARED != 0 {
            return hooks.shm_shared(real, slot, count, flags);
        }
        guard(|| hooks.shm_lock(real, slot, count, flags))
    }

    unsafe extern "C" fn read(
        file: *mut sql::sqlite3_file,
        buf: *mut c_void,
        len: c_int,
        at: i64,
    ) -> c_int {
        // SAFETY: a method of an open file.
        let rc = unsafe { Self::real(file) }.read(buf, len, at);
        // On the way of every read: one look at what is in the cache by now.
        if len >= 8 && rc == sql::SQLITE_OK {
            // SAFETY: SQLite calls with len bytes at buf, and all of them are filled.
            let bytes = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), len as usize) };
            if bytes[..8] == *b"SQLite f" {
                // SAFETY: a method of an open file.
                unsafe { Self::hooks(file) }.read_page1(bytes, at);
            }
        }
        rc
    }

    unsafe extern "C" fn write(
        file: *mut sql::sqlite3_file,
        buf: *const c_void,
        len: c_int,
        at: i64,
    ) -> c_int {
        // SAFETY: a method of an open file, called with len bytes at buf.
        guard(|| unsafe {
            let bytes = std::slice::from_raw_parts(buf.cast::<u8>(), len.max(0) as usize);
            Self::hooks(file).write(Self::real(file), bytes, at)
        })
    }
    // Forwarding only: nothing here can panic.
    unsafe extern "C" fn truncate(file: *mut sql::sqlite3_file, size: i64) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::hooks(file).truncate(Self::real(file), size) })
    }
    unsafe extern "C" fn sync(file: *mut sql::sqlite3_file, flags: c_int) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.sync(flags)
    }
    unsafe extern "C" fn file_size(file: *mut sql::sqlite3_file, size: *mut i64) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.file_size(size)
    }
    unsafe extern "C" fn unlock(file: *mut sql::sqlite3_file, level: c_int) -> c_int {
        // SAFETY: a method of an open file.
        guard(|| unsafe { Self::hooks(file).unlock(Self::real(file), level) })
    }
    unsafe extern "C" fn check_reserved_lock(
        file: *mut sql::sqlite3_file,
        out: *mut c_int,
    ) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.check_reserved_lock(out)
    }
    unsafe extern "C" fn sector_size(file: *mut sql::sqlite3_file) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.sector_size()
    }
    unsafe extern "C" fn device_characteristics(file: *mut sql::sqlite3_file) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.device_characteristics()
    }
    unsafe extern "C" fn shm_map(
        file: *mut sql::sqlite3_file,
        block: c_int,
        size: c_int,
        extend: c_int,
        out: *mut *mut c_void,
    ) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file.
            let (real, hooks) = unsafe { (Self::real(file), Self::hooks(file)) };
            let rc = real.shm_map(block, size, extend, out);
            // Memory that can only be read is enough for a reader.
            if matches!(rc, sql::SQLITE_OK | sql::SQLITE_READONLY) {
                hooks.shm_opened();
            }
            rc
        })
    }
    unsafe extern "C" fn shm_barrier(file: *mut sql::sqlite3_file) {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.shm_barrier()
    }
    unsafe extern "C" fn shm_unmap(file: *mut sql::sqlite3_file, delete: c_int) -> c_int {
        guard(|| {
            // SAFETY: a method of an open file.
            let (real, hooks) = unsafe { (Self::real(file), Self::hooks(file)) };
            hooks.shm_closed();
            real.shm_unmap(delete)
        })
    }
    unsafe extern "C" fn fetch(
        file: *mut sql::sqlite3_file,
        at: i64,
        len: c_int,
        out: *mut *mut c_void,
    ) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.fetch(at, len, out)
    }
    unsafe extern "C" fn unfetch(
        file: *mut sql::sqlite3_file,
        at: i64,
        page: *mut c_void,
    ) -> c_int {
        // SAFETY: a method of an open file.
        unsafe { Self::real(file) }.unfetch(at, page)
    }
}
