//! SQLite's write-ahead log from the outside: formats, the wal-index, finding
//! a page and appending a transaction. Knows nothing of primaries.
//!
//! Sources: the SQLite file format document, section 4 ("The Write-Ahead
//! Log"), and the WAL-mode file format document ("walformat").

pub mod capture;
pub mod format;
pub mod index;
#[cfg(test)]
pub mod memory;
pub mod reader;
pub mod writer;

use crate::error::Result;

/// What a WAL or database file has to offer.
pub trait Storage {
    /// Fills `buf`; what lies past the end reads as zeros, and answers false.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<bool>;
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()>;
    fn sync(&self) -> Result<()>;
    fn size(&self) -> Result<u64>;
}

impl Storage for crate::ffi::file::OsFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<bool> {
        self.read_at(buf, at)
    }
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.write_at(buf, at)
    }
    fn sync(&self) -> Result<()> {
        self.sync()
    }
    fn size(&self) -> Result<u64> {
        self.size()
    }
}

/// The page size of every libSQL primary (its log frames have no other).
pub const PAGE_SIZE: usize = 4096;

/// A page's content.
pub type Page = [u8; PAGE_SIZE];

/// The page that holds SQLite's lock bytes and never any content
/// (file format, section 1.4).
pub const LOCK_PAGE: u32 = (0x4000_0000 / PAGE_SIZE as u32) + 1;
