//! A checksum over a database's content that can be kept current page by page.
//!
//! The sum of every page's hash, the page number being the seed. Pages of
//! zeros count as nothing, so that a page never written and a page of zeros
//! are the same, as they are to SQLite.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::wal::Page;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    pub fn add(&mut self, page_hash: u64) {
        self.0 = self.0.wrapping_add(page_hash);
    }
    pub fn remove(&mut self, page_hash: u64) {
        self.0 = self.0.wrapping_sub(page_hash);
    }
}

pub fn page_hash(pgno: u32, page: &Page) -> u64 {
    if page.iter().all(|&b| b == 0) {
        0
    } else {
        xxh3_64_with_seed(page, u64::from(pgno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_but_place_does() {
        let (a, b) = ([1; 4096], [2; 4096]);
        let sum = |pages: &[(u32, &Page)]| {
            let mut d = Digest::default();
            pages.iter().for_each(|(n, p)| d.add(page_hash(*n, p)));
            d
        };
        assert_eq!(sum(&[(1, &a), (2, &b)]), sum(&[(2, &b), (1, &a)]));
        assert_ne!(sum(&[(1, &a), (2, &b)]), sum(&[(1, &b), (2, &a)]));
        assert_eq!(sum(&[(1, &a), (2, &[0; 4096])]), sum(&[(1, &a)]));
        let mut d = sum(&[(1, &a), (2, &b)]);
        d.remove(page_hash(2, &b));
        assert_eq!(d, sum(&[(1, &a)]));
    }
}
