//! The frame checksum of libSQL's replication log: a rolling CRC-64/GO-ISO
//! over the page bytes, each frame's checksum being the next one's initial
//! value (libsql-server/src/replication/primary/logger.rs, `digest_with_initial`).

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of a frame with this page that follows a frame with `previous`.
pub fn next(previous: u64, page: &[u8]) -> u64 {
    // The algorithm is a reflected one, and so is its state.
    let state = previous.reverse_bits();
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64GoIso, state);
    digest.update(page);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in words, without a table.
    fn plain(previous: u64, page: &[u8]) -> u64 {
        let mut state = previous.reverse_bits();
        for byte in page {
            state ^= u64::from(*byte);
            for _ in 0..8 {
                state = if state & 1 == 1 {
                    (state >> 1) ^ 0xd800_0000_0000_0000
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
