//! The newest content of a page: the log's frame of it, else the database file.

use super::format::{FRAME_HEADER_SIZE, frame_offset};
use super::index::{Blocks, Header, WalIndex};
use super::{PAGE_SIZE, Page, Storage};
use crate::error::{Error, Result};

/// A database as of one wal-index header. The caller holds a lock that keeps
/// the log from being begun anew.
pub struct Reader<'a, S: Storage, B: Blocks> {
    pub db: &'a S,
    /// None while the database has no log file.
    pub wal: Option<&'a S>,
    pub index: WalIndex<'a, B>,
    pub header: Header,
}

impl<S: Storage, B: Blocks> Reader<'_, S, B> {
    /// Size in pages.
    pub fn page_count(&self) -> Result<u32> {
        if self.header.max_frame > 0 {
            return Ok(self.header.page_count);
        }
        Ok((self.db.size()? / PAGE_SIZE as u64) as u32)
    }

    /// Reads a page; one that was never written is zeros.
    pub fn read(&self, pgno: u32, page: &mut Page) -> Result<()> {
        let frame = match self.wal {
            Some(_) => self.index.find(pgno, self.header.max_frame)?,
            None => None,
        };
        match (frame, self.wal) {
            (Some(frame), Some(wal)) => {
                // An encrypted log answers for its frames, the wal-index for nothing.
                let mut number = [0; 4];
                wal.read_at(&mut number, frame_offset(frame))?;
                if number != pgno.to_be_bytes() {
                    return Err(Error::Corrupt(format!(
                        "frame {frame} of the log is not of page {pgno}, as the wal-index has it"
                    )));
                }
                wal.read_at(page, frame_offset(frame) + FRAME_HEADER_SIZE as u64)?
            }
            _ => self
                .db
                .read_at(page, u64::from(pgno - 1) * PAGE_SIZE as u64)?,
        };
        Ok(())
    }
}
