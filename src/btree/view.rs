//! One of the two states of the database: before the transaction or after.

use std::borrow::Cow;
use std::collections::HashSet;

use super::corrupt;
use super::page::{Cell, u32_be};
use super::value::Encoding;
use crate::error::Result;

/// A transaction as pages: what was there, and what is there now.
pub trait Pages {
    fn before(&self, pgno: u32) -> Result<Cow<'_, [u8]>>;
    fn after(&self, pgno: u32) -> Result<Cow<'_, [u8]>>;
    /// The pages that may differ, ascending.
    fn changed(&self) -> &[u32];
    /// Sizes in pages; 0 is a database without content.
    fn size_before(&self) -> u32;
    fn size_after(&self) -> u32;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Base,
    New,
}

/// The database header's fields (file format, section 1.3) that concern us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub page_size: usize,
    pub usable: usize,
    pub encoding: Encoding,
    pub freelist: u32,
    pub auto_vacuum: bool,
    pub incremental_vacuum: bool,
    pub default_cache_size: u32,
    pub user_version: i32,
    pub application_id: u32,
}

pub struct View<'a> {
    pages: &'a dyn Pages,
    side: Side,
    pub size: u32,
    /// None for a database without content.
    pub header: Option<Header>,
}

impl<'a> View<'a> {
    pub fn open(pages: &'a dyn Pages, side: Side) -> Result<View<'a>> {
        let size = match side {
            Side::Base => pages.size_before(),
            Side::New => pages.size_after(),
        };
        let mut view = View {
            pages,
            side,
            size,
            header: None,
        };
        if size > 0 {
            view.header = Some(Header::parse(&view.raw(1)?)?);
        }
        Ok(view)
    }

    fn raw(&self, pgno: u32) -> Result<Cow<'a, [u8]>> {
        match self.side {
            Side::Base => self.pages.before(pgno),
            Side::New => self.pages.after(pgno),
        }
    }

    pub fn header(&self) -> Result<&Header> {
        let header = self.header.as_ref();
        header.ok_or_else(|| corrupt("a database without content"))
    }

    /// A page's bytes, exactly as many as a page has.
    pub fn page(&self, pgno: u32) -> Result<Cow<'a, [u8]>> {
        let header = self.header()?;
        if pgno == 0 || pgno > self.size || pgno == lock_page(header.page_size) {
            return Err(corrupt(&format!("there can be no page {pgno}")));
        }
        let page = self.raw(pgno)?;
        if page.len() != header.page_size {
            return Err(corrupt(&format!("page {pgno} has another size")));
        }
        Ok(page)
    }

    /// A cell's whole payload (file format, section 1.7); the overflow pages
    /// passed are told to `seen`.
    pub fn payload(&self, cell: &Cell, seen: &mut dyn FnMut(u32)) -> Result<Vec<u8>> {
        let mut payload = Vec::with_capacity(cell.local.len());
        payload.extend(cell.local);
        self.overflow(cell, &mut |pgno, content| {
            seen(pgno);
            payload.extend(content);
        })?;
        Ok(payload)
    }

    /// Passes the overflow pages of a cell. The chain ends where the
    /// payload does, and no page occurs in it twice.
    pub fn overflow(&self, cell: &Cell, visit: &mut dyn FnMut(u32, &[u8])) -> Result<()> {
        let Some(mut pgno) = cell.overflow else {
            return Ok(());
        };
        let usable = self.header()?.usable;
        let mut left = cell.payload_len - cell.local.len() as u64;
        if left.div_ceil(usable as u64 - 4) > u64::from(self.size) {
            return Err(corrupt("a payload larger than the database"));
        }
        let mut passed = HashSet::new();
        while left > 0 {
            if !passed.insert(pgno) {
                return Err(corrupt("an overflow chain that is a loop"));
            }
            let page = self.page(pgno)?;
            let len = left.min(usable as u64 - 4) as usize;
            visit(pgno, &page[4..4 + len]);
            left -= len as u64;
            pgno = u32_be(&page);
        }
        match pgno {
            0 => Ok(()),
            _ => Err(corrupt("an overflow chain longer than its payload")),
        }
    }

    /// The pages of the freelist (file format, section 1.5).
    pub fn freelist(&self) -> Result<HashSet<u32>> {
        let header = self.header()?;
        let (mut free, mut trunk) = (HashSet::new(), header.freelist);
        while trunk != 0 {
            if !free.insert(trunk) {
                return Err(corrupt("a freelist that is a loop"));
            }
            let page = self.page(trunk)?;
            let count = u32_be(&page[4..]) as usize;
            let leaves = page[8..header.usable].chunks_exact(4);
            if count > leaves.len() {
                return Err(corrupt("a freelist page that is none"));
            }
            for leaf in leaves.take(count) {
                if !free.insert(u32_be(leaf)) {
                    return Err(corrupt("a page that is free twice"));
                }
            }
            trunk = u32_be(&page);
        }
        Ok(free)
    }

    /// Pages that are no part of any b-tree by their position: the lock page
    /// (section 1.4) and pointer maps (section 1.8).
    pub fn is_reserved(&self, pgno: u32) -> Result<bool> {
        let header = self.header()?;
        let lock = lock_page(header.page_size);
        if pgno == lock {
            return Ok(true);
        }
        if !header.auto_vacuum || pgno < 2 {
            return Ok(false);
        }
        let stride = header.usable as u32 / 5 + 1;
        let mut map = (pgno - 2) / stride * stride + 2;
        if map == lock {
            map += 1;
        }
        Ok(map == pgno)
    }
}

impl Header {
    fn parse(page: &[u8]) -> Result<Header> {
        let broken = || corrupt("page 1 is no database header");
        let header = page.get(..100).ok_or_else(broken)?;
        if &header[..16] != b"SQLite format 3\0" {
            return Err(broken());
        }
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65536,
            n => usize::from(n),
        };
        let usable = page_size.wrapping_sub(usize::from(header[20]));
        if !page_size.is_power_of_two() || page_size < 512 || usable < 480 || usable > page_size {
            return Err(broken());
        }
        Ok(Header {
            page_size,
            usable,
            encoding: match u32_be(&header[56..]) {
                // 0 in a database that has no table yet.
                0 | 1 => Encoding::Utf8,
                2 => Encoding::Utf16le,
                3 => Encoding::Utf16be,
                _ => return Err(broken()),
            },
            freelist: u32_be(&header[32..]),
            auto_vacuum: u32_be(&header[52..]) != 0,
            incremental_vacuum: u32_be(&header[64..]) != 0,
            default_cache_size: u32_be(&header[48..]),
            user_version: u32_be(&header[60..]) as i32,
            application_id: u32_be(&header[68..]),
        })
    }
}

fn lock_page(page_size: usize) -> u32 {
    0x4000_0000 / page_size as u32 + 1
}
