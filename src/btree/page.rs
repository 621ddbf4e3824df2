//! B-tree pages and their cells (file format, section 1.6).

use super::{corrupt, varint};
use crate::error::Result;

const HEADER: usize = 8;
/// Interior pages have four more bytes: the rightmost child.
const INTERIOR_HEADER: usize = 12;
/// The database header stands in front of page 1's own.
const FILE_HEADER: usize = 100;

/// The two kinds of b-tree: by rowid, or by a record that is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    Table,
    Index,
}

#[derive(Debug)]
pub struct BtreePage<'a> {
    /// The page up to its usable size.
    data: &'a [u8],
    /// Where the b-tree header begins.
    start: usize,
    pub kind: TreeKind,
    pub leaf: bool,
    pub cells: usize,
}

/// A cell; its payload goes on at `overflow` if it does not fit.
#[derive(Debug)]
pub struct Cell<'a> {
    /// 0 in index b-trees.
    pub rowid: i64,
    pub payload_len: u64,
    pub local: &'a [u8],
    pub overflow: Option<u32>,
}

impl<'a> BtreePage<'a> {
    pub fn parse(pgno: u32, page: &'a [u8], usable: usize) -> Result<BtreePage<'a>> {
        let broken = || corrupt(&format!("page {pgno} is no b-tree page"));
        let data = page.get(..usable).ok_or_else(broken)?;
        let start = if pgno == 1 { FILE_HEADER } else { 0 };
        let header = data
            .get(start..start + INTERIOR_HEADER)
            .ok_or_else(broken)?;
        let (kind, leaf) = match header[0] {
            0x02 => (TreeKind::Index, false),
            0x05 => (TreeKind::Table, false),
            0x0a => (TreeKind::Index, true),
            0x0d => (TreeKind::Table, true),
            _ => return Err(broken()),
        };
        let cells = usize::from(u16_be(&header[3..]));
        let page = BtreePage {
            data,
            start,
            kind,
            leaf,
            cells,
        };
        if page.pointers() + 2 * cells > usable {
            return Err(broken());
        }
        Ok(page)
    }

    fn pointers(&self) -> usize {
        self.start + if self.leaf { HEADER } else { INTERIOR_HEADER }
    }

    /// The pages below an interior page, in key order.
    pub fn children(&self) -> Result<Vec<u32>> {
        if self.leaf {
            return Ok(Vec::new());
        }
        let mut children = Vec::with_capacity(self.cells + 1);
        for i in 0..self.cells {
            let cell = self.cell_bytes(i)?;
            children.push(u32_be(cell.get(..4).ok_or_else(truncated)?));
        }
        children.push(u32_be(&self.data[self.start + HEADER..]));
        Ok(children)
    }

    /// The free bytes between pointers and cells, and all that are free.
    pub fn free(&self) -> (usize, usize) {
        let word = |at: usize| usize::from(u16_be(&self.data[at..]));
        let used = self.pointers() + 2 * self.cells;
        let gap = word(self.start + 5).saturating_sub(used);
        let mut free = gap + usize::from(self.data[self.start + 7]);
        let mut block = word(self.start + 1);
        // Those of a damaged page may form a circle.
        while block >= used && block + 4 <= self.data.len() && free <= self.data.len() {
            free += word(block + 2).max(4);
            block = word(block);
        }
        (gap, free)
    }

    fn cell_bytes(&self, i: usize) -> Result<&'a [u8]> {
        let pointer = self.pointers() + 2 * i;
        let at = usize::from(u16_be(&self.data[pointer..]));
        if at < self.pointers() + 2 * self.cells {
            return Err(corrupt("a cell inside its page's header"));
        }
        self.data.get(at..).ok_or_else(truncated)
    }

    /// A cell with payload: of a leaf, or of an interior index page.
    pub fn cell(&self, i: usize) -> Result<Cell<'a>> {
        let mut bytes = self.cell_bytes(i)?;
        if !self.leaf {
            bytes = bytes.get(4..).ok_or_else(truncated)?;
        }
        let (payload_len, n) = varint::read(bytes).ok_or_else(truncated)?;
        bytes = &bytes[n..];
        let mut rowid = 0;
        if self.kind == TreeKind::Table {
            let (id, n) = varint::read(bytes).ok_or_else(truncated)?;
            rowid = id as i64;
            bytes = &bytes[n..];
        }
        let local_len = self.local_len(payload_len);
        let local = bytes.get(..local_len).ok_or_else(truncated)?;
        let overflow = if local_len as u64 == payload_len {
            None
        } else {
            let next = bytes.get(local_len..local_len + 4).ok_or_else(truncated)?;
            Some(u32_be(next))
        };
        Ok(Cell {
            rowid,
            payload_len,
            local,
            overflow,
        })
    }

    /// How much of a payload stands on the page itself.
    fn local_len(&self, payload_len: u64) -> usize {
        let usable = self.data.len() as u64;
        let max = match self.kind {
            TreeKind::Table => usable - 35,
            TreeKind::Index => (usable - 12) * 64 / 255 - 23,
        };
        if payload_len <= max {
            return payload_len as usize;
        }
        let min = (usable - 12) * 32 / 255 - 23;
        let fitting = min + (payload_len - min) % (usable - 4);
        (if fitting <= max { fitting } else { min }) as usize
    }
}

fn truncated() -> crate::error::Error {
    corrupt("a cell that reaches past its page")
}

pub fn u32_be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn u16_be(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Vec<u8> {
        let mut page = vec![0; 512];
        page[0] = 0x0d;
        page[4] = 1;
        page[8..10].copy_from_slice(&500u16.to_be_bytes());
        page[500..505].copy_from_slice(&[3, 7, 2, 1, 9]);
        page
    }

    #[test]
    fn a_leaf_with_one_row() {
        let bytes = leaf();
        let page = BtreePage::parse(2, &bytes, 512).unwrap();
        assert!(page.leaf && page.kind == TreeKind::Table && page.cells == 1);
        let cell = page.cell(0).unwrap();
        assert_eq!((cell.rowid, cell.payload_len), (7, 3));
        assert_eq!((cell.local, cell.overflow), (&[2u8, 1, 9][..], None));
    }

    #[test]
    fn what_is_free() {
        let free = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = leaf();
            bytes[5..7].copy_from_slice(&400u16.to_be_bytes());
            change(&mut bytes);
            BtreePage::parse(2, &bytes, 512).unwrap().free()
        };
        assert_eq!(free(&|_| {}), (390, 390));
        // Three bytes in fragments, and a block of 20.
        let block = |bytes: &mut Vec<u8>| {
            bytes[7] = 3;
            bytes[1..3].copy_from_slice(&420u16.to_be_bytes());
            bytes[422..424].copy_from_slice(&20u16.to_be_bytes());
        };
        assert_eq!(free(&block), (390, 413));
        // A block that is its own next.
        let circle = |bytes: &mut Vec<u8>| {
            block(bytes);
            bytes[420..422].copy_from_slice(&420u16.to_be_bytes());
        };
        assert!(free(&circle).1 > 413);
    }

    #[test]
    fn the_boundary_of_overflow() {
        // Usable 512: a table leaf keeps 477 bytes, else 39 + what fills whole pages.
        let bytes = leaf();
        let page = BtreePage::parse(2, &bytes, 512).unwrap();
        assert_eq!(page.local_len(477), 477);
        // What fills the last overflow page would not fit here: 478 > 477.
        assert_eq!(page.local_len(478), 39);
        assert_eq!(page.local_len(39 + 508), 39);
        assert_eq!(page.local_len(39 + 508 + 438), 39 + 438);
        assert_eq!(page.local_len(39 + 508 + 439), 39);
    }

    #[test]
    fn broken_pages_are_errors() {
        let broken = |at: usize, with: &[u8]| {
            let mut bytes = leaf();
            bytes[at..at + with.len()].copy_from_slice(with);
            let page = BtreePage::parse(2, &bytes, 512);
            page.and_then(|p| p.cell(0).map(|_| ())).is_err()
        };
        assert!(broken(0, &[3]));
        assert!(broken(3, &[0xff, 0xff]));
        assert!(broken(8, &[0, 4]));
        assert!(broken(8, &[0xff, 0xff]));
        assert!(broken(8, &511u16.to_be_bytes()));
        assert!(broken(500, &[0x7f]));
        assert!(!broken(100, &[1]));
    }
}
