//! Files and a wal-index in memory, for unit tests.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

use super::Storage;
use super::index::Blocks;
use crate::error::Result;
use crate::ffi::shm::{BLOCK_SIZE, Block};

#[derive(Default)]
pub struct MemoryFile(pub RefCell<Vec<u8>>);

impl Storage for MemoryFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<bool> {
        let data = self.0.borrow();
        let from = data
            .get((at as usize).min(data.len())..)
            .unwrap_or_default();
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        buf[len..].fill(0);
        Ok(len == buf.len())
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let (mut data, end) = (self.0.borrow_mut(), at as usize + buf.len());
        let size = data.len().max(end);
        data.resize(size, 0);
        data[at as usize..end].copy_from_slice(buf);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }
}

type Half = (Box<[AtomicU32; 4096]>, Box<[AtomicU16; 8192]>);

/// Four blocks, enough for 16,000 frames.
pub struct MemoryIndex(Vec<Half>);

impl MemoryIndex {
    pub fn new() -> Self {
        let block = |_| {
            (
                Box::new(std::array::from_fn(|_| AtomicU32::new(0))),
                Box::new(std::array::from_fn(|_| AtomicU16::new(0))),
            )
        };
        MemoryIndex((0..4).map(block).collect())
    }

    /// From the bytes of a `-shm` file of this machine's byte order.
    pub fn load(bytes: &[u8]) -> Self {
        let this = Self::new();
        for (block, bytes) in this.0.iter().zip(bytes.chunks_exact(BLOCK_SIZE)) {
            let (words, slots) = bytes.split_at(BLOCK_SIZE / 2);
            for (to, from) in block.0.iter().zip(words.as_chunks().0) {
                to.store(u32::from_ne_bytes(*from), Relaxed);
            }
            for (to, from) in block.1.iter().zip(slots.as_chunks().0) {
                to.store(u16::from_ne_bytes(*from), Relaxed);
            }
        }
        this
    }

    /// The page numbers and the hash table of block 0.
    pub fn tables(&self) -> (Vec<u32>, Vec<u16>) {
        let (words, slots) = &self.0[0];
        let words = words[34..].iter().map(|w| w.load(Relaxed)).collect();
        (words, slots.iter().map(|s| s.load(Relaxed)).collect())
    }
}

impl Blocks for MemoryIndex {
    fn block(&self, number: u32, _extend: bool) -> Result<Option<Block<'_>>> {
        Ok(self
            .0
            .get(number as usize)
            .map(|(words, slots)| Block { words, slots }))
    }
    fn barrier(&self) {}
}
