//! Encryption at rest, bytes in and bytes out: keys, the header of an encrypted
//! database, and the layouts of its files. FORMAT.md beside this file is the
//! specification; knows nothing of SQLite's calls.

pub mod db;
pub mod grid;
pub mod header;
pub mod journal;
pub mod keys;
#[cfg(test)]
mod memory;
pub mod nonce;
pub mod seal;
#[cfg(test)]
mod tests;
pub mod vault;
pub mod wal;
mod wal_layout;

use crate::error::Result;

/// The encrypted bytes under a layout.
pub trait Raw {
    /// Fills `buf` and answers how much of it the file has; the rest is zeros.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize>;
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()>;
    fn truncate(&self, size: u64) -> Result<()>;
    fn size(&self) -> Result<u64>;
}

/// What a device may damage with a write of a part of it, where it is not
/// known to be safe: the sectors of all such devices are this at most.
const SECTOR: u64 = 4096;

/// The most bytes of a file that are read or written in one call.
const MAX_IO: usize = 120 * 1024;
