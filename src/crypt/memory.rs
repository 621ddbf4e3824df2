//! A file in memory, for unit tests.

use std::cell::RefCell;

use super::Raw;
use crate::error::Result;

#[derive(Default)]
pub struct Memory(pub RefCell<Vec<u8>>);

impl Raw for Memory {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let data = self.0.borrow();
        let from = data
            .get((at as usize).min(data.len())..)
            .unwrap_or_default();
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        buf[len..].fill(0);
        Ok(len)
    }
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let (mut data, end) = (self.0.borrow_mut(), at as usize + buf.len());
        let size = data.len().max(end);
        data.resize(size, 0);
        data[at as usize..end].copy_from_slice(buf);
        Ok(())
    }
    fn truncate(&self, size: u64) -> Result<()> {
        self.0.borrow_mut().resize(size as usize, 0);
        Ok(())
    }
    fn size(&self) -> Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }
}
