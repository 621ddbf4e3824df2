//! The frame checksum of libSQL's replication log: a rolling CRC-64/GO-ISO
//! over the page bytes, each frame's checksum being the next one's initial
//! value (libsql-server/src/replication/primary/logger.rs, `digest_with_initial`).

use std::sync::LazyLock;

use crc_fast::{CrcAlgorithm, Digest};

use crate::wal::{PAGE_SIZE, Page};

/// The checksum of a frame with this page that follows a frame with `previous`.
pub fn next(previous: u64, page: &[u8]) -> u64 {
    // The algorithm is a reflected one, and so is its state.
    let state = previous.reverse_bits();
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64GoIso, state);
    digest.update(page);
    digest.finalize()
}

/// The checksum of the frame before, of which `next` with this page is `checksum`.
pub fn before(checksum: u64, page: &Page) -> u64 {
    difference_before(checksum ^ next(0, page))
}

/// Two chains over the same pages differ, frame by frame, by what follows from
/// the difference alone: this goes one frame back.
pub fn difference_before(difference: u64) -> u64 {
    BACK.of(difference).reverse_bits()
}

/// What takes a CRC's state back over a page's bits.
static BACK: LazyLock<Linear> = LazyLock::new(|| {
    let bit = |state: u64| match state >> 63 {
        1 => (state ^ POLYNOMIAL) << 1 | 1,
        _ => state << 1,
    };
    let mut back = Linear(std::array::from_fn(|i| bit(1 << i)));
    for _ in 0..(PAGE_SIZE * 8).trailing_zeros() {
        back = Linear(back.0.map(|column| back.of(column)));
    }
    back
});

/// x^64 + x^4 + x^3 + x + 1, reflected.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

/// A linear map of 64 bits, by what it makes of each.
struct Linear([u64; 64]);

impl Linear {
    fn of(&self, bits: u64) -> u64 {
        let columns = self.0.iter().enumerate();
        let set = columns.filter(|(i, _)| bits >> i & 1 == 1);
        set.fold(0, |sum, (_, column)| sum ^ column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_backwards() {
        let mut page = [7; PAGE_SIZE];
        page[9] = 3;
        for start in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(before(next(start, &page), &page), start);
        }
        // Two chains over three pages.
        let chain = |start| {
            [5, 6, 7]
                .iter()
                .fold(start, |sum, i| next(sum, &[*i; PAGE_SIZE]))
        };
        let mut difference = chain(0) ^ chain(99);
        for _ in 0..3 {
            difference = difference_before(difference);
        }
        assert_eq!(difference, 99);
    }

    /// The definition in words, without a table.
    fn plain(previous: u64, page: &[u8]) -> u64 {
        let mut state = previous.reverse_bits();
        for byte in page {
            state ^= u64::from(*byte);
            for _ in 0..8 {
                state = if state & 1 == 1 {
                    (state >> 1) ^ POLYNOMIAL
                } else {
                    state >> 1
                };
            }
        }
        state ^ u64::MAX
    }

    #[test]
    fn library_and_definition_agree() {
        let page: Vec<u8> = (0..4096u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut sums = (0, 0);
        for _ in 0..3 {
            sums = (next(sums.0, &page), plain(sums.1, &page));
            assert_eq!(sums.0, sums.1);
        }
    }
}
