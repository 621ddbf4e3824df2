//! A checksum over a database's content that can be kept current page by page.
//!
//! The sum of every page's hash, its number being part of it. Pages of zeros
//! count as nothing, so that a page never written and a page of zeros are the
//! same, as they are to SQLite.
//!
//! The digest decides that a content is the one that was recorded, so the hash
//! is a keyed one (SipHash-2-4): without the key of the file nobody can choose
//! pages that collide, nor pages whose hashes cancel each other in the sum.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::secret::Seed;
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

/// How the pages of one file are hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PageHash {
    Keyed(u64, u64),
    /// Before files had a key: to take such a one over, and for nothing else.
    Public,
}

impl PageHash {
    pub fn new(seed: &Seed) -> PageHash {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&seed[at..at + 8]);
            u64::from_le_bytes(word)
        };
        PageHash::Keyed(word(0), word(8))
    }

    pub fn of(self, pgno: u32, page: &Page) -> u64 {
        if page.iter().all(|&b| b == 0) {
            return 0;
        }
        match self {
            PageHash::Keyed(k0, k1) => {
                let mut hasher = SipHasher24::new_with_keys(k0, k1);
                hasher.write(page);
                hasher.write(&pgno.to_le_bytes());
                hasher.finish()
            }
            PageHash::Public => xxh3_64_with_seed(page, u64::from(pgno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_but_place_does() {
        let hash = PageHash::new(&[7; 32]);
        let (a, b) = ([1; 4096], [2; 4096]);
        let sum = |pages: &[(u32, &Page)]| {
            let mut d = Digest::default();
            pages.iter().for_each(|(n, p)| d.add(hash.of(*n, p)));
            d
        };
        assert_eq!(sum(&[(1, &a), (2, &b)]), sum(&[(2, &b), (1, &a)]));
        assert_ne!(sum(&[(1, &a), (2, &b)]), sum(&[(1, &b), (2, &a)]));
        assert_eq!(sum(&[(1, &a), (2, &[0; 4096])]), sum(&[(1, &a)]));
        let mut d = sum(&[(1, &a), (2, &b)]);
        d.remove(hash.of(2, &b));
        assert_eq!(d, sum(&[(1, &a)]));
    }

    #[test]
    fn each_file_has_its_own() {
        let page = [1; 4096];
        let [one, two] = [[7; 32], [8; 32]].map(|seed| PageHash::new(&seed).of(1, &page));
        assert_ne!(one, two);
    }

    /// As anyone can make them for XXH3: where the lower half of eight bytes
    /// is that of the public secret their product is 0, whatever the upper
    /// half; of that nothing but the sum over the block counts.
    fn colliding(pgno: u32) -> [Page; 2] {
        let secret = |bytes: [u8; 8]| u64::from_le_bytes(bytes) as u32;
        let one = secret([0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c]).wrapping_sub(pgno);
        let two = secret([0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb]).wrapping_add(pgno);
        [[1u32, 9], [4, 6]].map(|[x, y]| {
            let mut page = [5; 4096];
            for (at, word) in [(64, one), (68, x), (128, two), (132, y)] {
                page[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            page
        })
    }

    #[test]
    fn pages_that_collide_without_a_key_differ_with_one() {
        let [a, b] = colliding(9);
        assert_ne!(a, b);
        assert_eq!(PageHash::Public.of(9, &a), PageHash::Public.of(9, &b));
        let keyed = PageHash::new(&[7; 32]);
        assert_ne!(keyed.of(9, &a), keyed.of(9, &b));
    }
}
