//! The wal-index as safe Rust sees it: 32 KiB blocks of atomics.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU16, AtomicU32};

/// Size of a wal-index block (walformat, "WAL-Index File Format").
pub const BLOCK_SIZE: usize = 32_768;

/// One mapped block. Other processes write it at any time, hence atomics; the
/// order between fields is made by `xShmBarrier`, as in SQLite.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// The first half: page numbers, in block 0 behind the header.
    pub words: &'a [AtomicU32; 4096],
    /// The second half: the hash table.
    pub slots: &'a [AtomicU16; 8192],
}

impl Block<'_> {
    /// # Safety
    /// `base` points at 32 KiB, aligned to 4 bytes, mapped for at least `'a`,
    /// and written by others only as the wal-index protocol allows.
    pub(super) unsafe fn from_raw<'a>(base: *mut u8) -> Block<'a> {
        // SAFETY: size and alignment per contract; the halves do not overlap.
        unsafe {
            Block {
                words: &*base.cast::<[AtomicU32; 4096]>(),
                slots: &*base.add(BLOCK_SIZE / 2).cast::<[AtomicU16; 8192]>(),
            }
        }
    }
}

/// The lock slots of the wal-index (walformat, "WAL-Index Locks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmLock {
    pub slot: c_int,
    pub count: c_int,
}

impl ShmLock {
    pub const WRITE: ShmLock = ShmLock { slot: 0, count: 1 };
    pub const CHECKPOINT: ShmLock = ShmLock { slot: 1, count: 1 };
    /// Readers that use the log: read marks 1 to 4.
    pub const LOG_READERS: ShmLock = ShmLock { slot: 4, count: 4 };
    /// All read marks, 0 to 4, begin here.
    pub const FIRST_READER: c_int = 3;
}
