//! The wal-index as a connection has it mapped, for the log of the same
//! connection to look into.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::shm::{BLOCK_SIZE, Block};

/// Addresses of the blocks; 0 of one that is not mapped.
#[derive(Default)]
pub struct Mapped(Mutex<Vec<usize>>);

impl Mapped {
    /// What xShmMap has answered.
    pub(super) fn note(&self, block: usize, size: usize, base: *mut std::ffi::c_void) {
        let mut blocks = self.0.lock();
        if size == BLOCK_SIZE && !base.is_null() {
            if blocks.len() <= block {
                blocks.resize(block + 1, 0);
            }
            blocks[block] = base as usize;
        }
    }

    /// Before xShmUnmap, and before the file is closed.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// A word of the first half of a block, if it is mapped.
    pub fn word(&self, block: usize, word: usize) -> Option<u32> {
        let blocks = self.0.lock();
        let base = blocks.get(block).copied().filter(|base| *base != 0)?;
        // SAFETY: mapped by xShmMap with this size; `forget` waits for the lock
        // before the mapping may end.
        let block = unsafe { Block::from_raw(base as *mut u8) };
        Some(block.words.get(word)?.load(Relaxed))
    }
}
