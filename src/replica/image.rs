//! What must hold for a database image (file format, section 1.3), and the
//! smallest one.

use std::collections::HashMap;

use super::digest::{Digest, PageHash};
use crate::error::{Error, Result};
use crate::wal::{LOCK_PAGE, PAGE_SIZE, Page};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A database without any table, in WAL mode: what a replica of an empty
/// primary is.
pub fn empty_database() -> Box<Page> {
    let mut page = Box::new([0; PAGE_SIZE]);
    page[..16].copy_from_slice(MAGIC);
    page[16..18].copy_from_slice(&(PAGE_SIZE as u16).to_be_bytes());
    // WAL for reading and writing, no reserved bytes, the fixed payload fractions.
    page[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
    page[31] = 1; // size in pages
    page[47] = 4; // schema format
    page[59] = 1; // UTF-8
    page[100] = 0x0d; // an empty leaf table page,
    page[105..107].copy_from_slice(&(PAGE_SIZE as u16).to_be_bytes()); // content at its end
    page
}

/// A trunk page of the freelist has at most so many others on it.
const FREE_ON_A_TRUNK: u64 = PAGE_SIZE as u64 / 4 - 2;

/// The pages a transaction brings: their hashes, and page 1 itself.
pub struct Changes {
    hash: PageHash,
    pub hashes: HashMap<u32, u64>,
    pub page1: Option<Box<Page>>,
}

impl Changes {
    pub fn new(hash: PageHash) -> Changes {
        Changes {
            hash,
            hashes: HashMap::new(),
            page1: None,
        }
    }

    pub fn note(&mut self, pgno: u32, page: &Page) {
        self.hashes.insert(pgno, self.hash.of(pgno, page));
        if pgno == 1 {
            self.page1 = Some(Box::new(*page));
        }
    }

    /// The digest of a database that has these pages and no others.
    pub fn digest(&self, page_count: u32) -> Digest {
        let mut digest = Digest::default();
        self.hashes
            .iter()
            .filter(|(pgno, _)| **pgno <= page_count)
            .for_each(|(_, h)| digest.add(*h));
        digest
    }

    /// What a database grows by, and what does not come of it because it is
    /// free: a trunk page has come for it. A size that nothing stands behind
    /// would make a file of any size.
    pub fn check_growth(&self, before: u32, page_count: u32) -> Result<()> {
        let added = u64::from(page_count.saturating_sub(before));
        let came = self.hashes.len() as u64;
        let lock_page = u64::from(before < LOCK_PAGE && page_count >= LOCK_PAGE);
        if added > came * (FREE_ON_A_TRUNK + 1) + lock_page {
            return Err(Error::Protocol(format!(
                "a size of {page_count} pages instead of {before}, of which {came} came"
            )));
        }
        Ok(())
    }

    /// Pages of a whole image that did not come. SQLite never writes pages
    /// that are freed in the transaction that allocated them, so a few may be
    /// missing: as many as the freelist has.
    pub fn check_whole(&self, page_count: u32) -> Result<()> {
        let page1 = self
            .page1
            .as_ref()
            .ok_or_else(|| Error::Protocol("no page 1 came".into()))?;
        self.check_growth(0, page_count)?;
        let lock_page = u32::from(page_count >= LOCK_PAGE);
        let have = self
            .hashes
            .keys()
            .filter(|p| **p <= page_count && **p != LOCK_PAGE)
            .count() as u32;
        let missing = page_count.saturating_sub(lock_page).saturating_sub(have);
        let free = u32_be(&page1[..], 36);
        if missing > free {
            return Err(Error::Protocol(format!(
                "{missing} of {page_count} pages did not come, and only {free} are free"
            )));
        }
        Ok(())
    }
}

/// Checks a primary's page 1 against the size its commit gave.
pub fn check_page1(page1: &Page, page_count: u32) -> Result<()> {
    let bad = |why: String| Err(Error::Protocol(format!("page 1: {why}")));
    if &page1[..16] != MAGIC {
        return bad("not a SQLite database".into());
    }
    let page_size = u16::from_be_bytes([page1[16], page1[17]]);
    if usize::from(page_size) != PAGE_SIZE {
        return bad(format!("page size {page_size} instead of {PAGE_SIZE}"));
    }
    if page1[18..20] != [2, 2] {
        return bad("the primary's database is not in WAL mode".into());
    }
    let size = u32_be(page1, 28);
    if size != page_count {
        return bad(format!(
            "a size of {size} pages, but the commit says {page_count}"
        ));
    }
    Ok(())
}

fn u32_be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_database_passes_its_own_checks() {
        let page = empty_database();
        check_page1(&page, 1).unwrap();
        assert!(check_page1(&page, 2).is_err());
        for at in [0, 16, 18, 19, 31] {
            let mut damaged = page.clone();
            damaged[at] ^= 1;
            assert!(check_page1(&damaged, 1).is_err(), "byte {at}");
        }
    }

    #[test]
    fn only_free_pages_may_be_missing() {
        let mut page1 = empty_database();
        page1[39] = 1; // one free page
        let hash = PageHash::new(&[1; 32]);
        let mut changes = Changes::new(hash);
        assert!(changes.check_whole(1).is_err());
        changes.note(1, &page1);
        changes.note(3, &[1; PAGE_SIZE]);
        changes.note(9, &[1; PAGE_SIZE]);
        changes.check_whole(3).unwrap();
        assert!(changes.check_whole(4).is_err());
        let mut expected = Digest::default();
        expected.add(hash.of(1, &page1));
        expected.add(hash.of(3, &[1; PAGE_SIZE]));
        assert_eq!(changes.digest(3), expected);
    }

    #[test]
    fn a_size_that_nothing_stands_behind() {
        let mut page1 = empty_database();
        page1[36..40].fill(0xff); // free pages without end
        let mut changes = Changes::new(PageHash::new(&[1; 32]));
        changes.note(1, &page1);
        changes.check_whole(1000).unwrap();
        assert!(changes.check_whole(2000).is_err());
        assert!(changes.check_whole(u32::MAX - 1).is_err());
        changes.check_growth(50_000, 50_900).unwrap();
        changes.check_growth(50_000, 10).unwrap();
        assert!(changes.check_growth(50_000, 60_000).is_err());
    }

    #[test]
    fn the_lock_page_never_comes() {
        let mut changes = Changes::new(PageHash::new(&[1; 32]));
        changes.note(1, &empty_database());
        (2..=LOCK_PAGE + 1)
            .filter(|p| *p != LOCK_PAGE)
            .for_each(|p| {
                changes.hashes.insert(p, 1);
            });
        changes.check_whole(LOCK_PAGE + 1).unwrap();
        changes.hashes.remove(&LOCK_PAGE.wrapping_sub(5));
        assert!(changes.check_whole(LOCK_PAGE + 1).is_err());
    }
}
