//! The wal-index: header, checkpoint info and hash tables (walformat, section
//! 2). Words are in the machine's byte order, since the memory is never shared
//! between machines.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::format::{Checksum, Salt, VERSION};
use crate::error::{Error, Result};
use crate::ffi::file::{OsFile, Real};
use crate::ffi::shm::Block;

/// Where the blocks come from.
pub trait Blocks {
    /// None where the block does not exist and `extend` is false.
    fn block(&self, number: u32, extend: bool) -> Result<Option<Block<'_>>>;
    fn barrier(&self);
}

impl Blocks for OsFile {
    fn block(&self, number: u32, extend: bool) -> Result<Option<Block<'_>>> {
        self.shm_block(number, extend)
    }
    fn barrier(&self) {
        self.shm_barrier()
    }
}

impl Blocks for Real {
    fn block(&self, number: u32, extend: bool) -> Result<Option<Block<'_>>> {
        self.shm_block(number, extend, true)
            .map_err(|code| Error::io("map", "the wal-index", code))
    }
    fn barrier(&self) {
        self.shm_barrier()
    }
}

/// Whether a file's wal-index has a header that holds: no recovery is due.
/// One that a writer is publishing does not, for a moment.
pub fn is_valid(file: Real) -> bool {
    (0..20).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        peek(file).is_some()
    })
}

/// The header as it is now, if it holds: which state readers find.
pub fn peek(file: Real) -> Option<Header> {
    match file.block(0, false) {
        Ok(Some(_)) => WalIndex(&file).header().ok().flatten(),
        _ => None,
    }
}

/// The header stands twice, 48 bytes each.
const HEADER_WORDS: usize = 12;
/// nBackfill follows, then five read marks.
const BACKFILL: usize = 2 * HEADER_WORDS;
const READ_MARKS: usize = BACKFILL + 1;
const BACKFILL_ATTEMPTED: usize = 32;
/// A read mark nobody uses.
const MARK_UNUSED: u32 = 0xffff_ffff;

/// Page numbers per block; block 0 gives 34 of its to the header.
const PAGES_PER_BLOCK: u32 = 4096;
const BLOCK0_HEADER_WORDS: u32 = 34;
const PAGES_IN_BLOCK0: u32 = PAGES_PER_BLOCK - BLOCK0_HEADER_WORDS;
const SLOTS: usize = 8192;

/// The block that holds a frame's page number, and the word in it.
pub fn place_of(frame: u64) -> Option<(usize, usize)> {
    let at = frame.checked_sub(1)? + u64::from(BLOCK0_HEADER_WORDS);
    let per_block = u64::from(PAGES_PER_BLOCK);
    Some(((at / per_block) as usize, (at % per_block) as usize))
}

/// The fields of a wal-index header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Counts transactions.
    pub change: u32,
    pub big_endian_checksum: bool,
    pub page_size: u32,
    /// The last committed frame.
    pub max_frame: u32,
    /// Database size in pages as of that frame.
    pub page_count: u32,
    /// Checksum of that frame.
    pub checksum: Checksum,
    pub salt: Salt,
}

impl Header {
    fn encode(&self) -> [u32; HEADER_WORDS] {
        let size = (self.page_size & 0xff00 | self.page_size >> 16) as u16;
        let [lo, hi] = size.to_ne_bytes();
        let flags = u32::from_ne_bytes([1, self.big_endian_checksum as u8, lo, hi]);
        let word = |i: usize| {
            u32::from_ne_bytes([
                self.salt[i],
                self.salt[i + 1],
                self.salt[i + 2],
                self.salt[i + 3],
            ])
        };
        let mut words = [
            VERSION,
            0,
            self.change,
            flags,
            self.max_frame,
            self.page_count,
            self.checksum.0,
            self.checksum.1,
            word(0),
            word(4),
            0,
            0,
        ];
        (words[10], words[11]) = Self::sum(&words);
        words
    }

    fn decode(words: [u32; HEADER_WORDS]) -> Option<Header> {
        let [is_init, big_endian, lo, hi] = words[3].to_ne_bytes();
        if is_init == 0 || words[0] != VERSION || (words[10], words[11]) != Self::sum(&words) {
            return None;
        }
        let size = u32::from(u16::from_ne_bytes([lo, hi]));
        let mut salt = [0; 8];
        salt[..4].copy_from_slice(&words[8].to_ne_bytes());
        salt[4..].copy_from_slice(&words[9].to_ne_bytes());
        Some(Header {
            change: words[2],
            big_endian_checksum: big_endian != 0,
            page_size: (size & 0xfe00) | (size & 1) << 16,
            max_frame: words[4],
            page_count: words[5],
            checksum: Checksum(words[6], words[7]),
            salt,
        })
    }

    fn sum(words: &[u32; HEADER_WORDS]) -> (u32, u32) {
        words[..10]
            .chunks_exact(2)
            .fold((0, 0), |(s0, s1): (u32, u32), pair| {
                let s0 = s0.wrapping_add(pair[0]).wrapping_add(s1);
                (s0, s1.wrapping_add(pair[1]).wrapping_add(s0))
            })
    }
}

/// The wal-index of one database, seen through one file handle. Its methods
/// ask for no lock; who holds which is said at each.
pub struct WalIndex<'a, B: Blocks>(pub &'a B);

impl<'a, B: Blocks> WalIndex<'a, B> {
    fn block0(&self) -> Result<Block<'a>> {
        self.0
            .block(0, true)?
            .ok_or_else(|| Error::Internal("no wal-index".into()))
    }

    /// The header, None while it is not valid (recovery is due, or a writer is
    /// in the midst of publishing).
    pub fn header(&self) -> Result<Option<Header>> {
        let words = self.block0()?.words;
        let copy = |at: usize| std::array::from_fn(|i| words[at + i].load(Relaxed));
        let first: [u32; HEADER_WORDS] = copy(0);
        self.0.barrier();
        let second: [u32; HEADER_WORDS] = copy(HEADER_WORDS);
        Ok(if first == second {
            Header::decode(first)
        } else {
            None
        })
    }

    /// Publishes a transaction: readers from now on see it. Holding WRITE.
    pub fn publish(&self, header: &Header) -> Result<()> {
        let words = self.block0()?.words;
        let encoded = header.encode();
        let store = |at: usize| {
            for (to, from) in words[at..at + HEADER_WORDS].iter().zip(encoded) {
                to.store(from, Relaxed);
            }
        };
        // The order that lets readers see a torn header as one: second copy first.
        store(HEADER_WORDS);
        self.0.barrier();
        store(0);
        Ok(())
    }

    /// Frames that are in the database file already.
    pub fn backfilled(&self) -> Result<u32> {
        Ok(self.block0()?.words[BACKFILL].load(Relaxed))
    }

    /// Begins the log anew with these salts: all frames are in the database
    /// and nobody reads them. Holding WRITE and the locks of read marks 1 to 4.
    pub fn restart(&self, header: &mut Header, salt: Salt) -> Result<()> {
        header.max_frame = 0;
        header.salt = salt;
        self.publish(header)?;
        let words = self.block0()?.words;
        words[BACKFILL].store(0, Relaxed);
        words[BACKFILL_ATTEMPTED].store(0, Relaxed);
        words[READ_MARKS + 1].store(0, Relaxed);
        for mark in 2..5 {
            words[READ_MARKS + mark].store(MARK_UNUSED, Relaxed);
        }
        Ok(())
    }

    /// Enters frame `frame`, which holds page `pgno`. Readers ignore it until
    /// a header that covers it is published. Holding WRITE.
    pub fn append(&self, frame: u32, pgno: u32) -> Result<()> {
        let number = block_of(frame);
        let block = self
            .0
            .block(number, true)?
            .ok_or_else(|| Error::Internal("no wal-index block".into()))?;
        let pages = pages(&block, number);
        let index = frame - first_frame(number); // 0-based within the block
        if index == 0 {
            pages.iter().for_each(|p| p.store(0, Relaxed));
            block.slots.iter().for_each(|s| s.store(0, Relaxed));
        } else if pages[index as usize].load(Relaxed) != 0 {
            // A writer that died left entries behind the last commit.
            forget_from(&block, pages, index);
        }
        let mut slot = hash(pgno);
        for _ in 0..SLOTS {
            if block.slots[slot].load(Relaxed) == 0 {
                pages[index as usize].store(pgno, Relaxed);
                block.slots[slot].store(index as u16 + 1, std::sync::atomic::Ordering::Release);
                return Ok(());
            }
            slot = (slot + 1) % SLOTS;
        }
        Err(Error::Corrupt("the wal-index hash table is full".into()))
    }

    /// The page of each frame, in their order.
    pub fn pages(&self, max_frame: u32) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        for number in 0..=block_of(max_frame) {
            if let Some(block) = self.0.block(number, false)? {
                let left = max_frame as usize - all.len();
                all.extend(
                    pages(&block, number)
                        .iter()
                        .take(left)
                        .map(|p| p.load(Relaxed)),
                );
            }
        }
        Ok(all)
    }

    /// The newest frame of a page that is not behind `max_frame`. Under a lock
    /// that keeps the log from being begun anew (WRITE, or a read mark).
    pub fn find(&self, pgno: u32, max_frame: u32) -> Result<Option<u32>> {
        if max_frame == 0 {
            return Ok(None);
        }
        for number in (0..=block_of(max_frame)).rev() {
            let Some(block) = self.0.block(number, false)? else {
                continue;
            };
            let (pages, first) = (pages(&block, number), first_frame(number));
            let (mut slot, mut found) = (hash(pgno), None);
            for _ in 0..SLOTS {
                let entry = u32::from(block.slots[slot].load(std::sync::atomic::Ordering::Acquire));
                if entry == 0 {
                    break;
                }
                let frame = first + entry - 1;
                let page = pages.get(entry as usize - 1).map(|p| p.load(Relaxed));
                if frame <= max_frame && page == Some(pgno) {
                    found = found.max(Some(frame));
                }
                slot = (slot + 1) % SLOTS;
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

fn block_of(frame: u32) -> u32 {
    (frame + PAGES_PER_BLOCK - PAGES_IN_BLOCK0 - 1) / PAGES_PER_BLOCK
}

fn first_frame(block: u32) -> u32 {
    if block == 0 {
        1
    } else {
        PAGES_IN_BLOCK0 + (block - 1) * PAGES_PER_BLOCK + 1
    }
}

fn pages<'b>(block: &Block<'b>, number: u32) -> &'b [AtomicU32] {
    if number == 0 {
        &block.words[BLOCK0_HEADER_WORDS as usize..]
    } else {
        &block.words[..]
    }
}

fn hash(pgno: u32) -> usize {
    (pgno.wrapping_mul(383) as usize) % SLOTS
}

/// Takes the entries of `index` and above out of a block.
fn forget_from(block: &Block, pages: &[AtomicU32], index: u32) {
    for slot in block.slots {
        if u32::from(slot.load(Relaxed)) > index {
            slot.store(0, Relaxed);
        }
    }
    pages[index as usize..]
        .iter()
        .for_each(|p| p.store(0, Relaxed));
}

#[cfg(test)]
mod tests {
    use super::super::format::FRAME_SIZE;
    use super::super::memory::MemoryIndex;
    use super::*;

    const WAL: &[u8] = include_bytes!("../../tests/data/sqlite.db-wal");
    /// The wal-index that SQLite had for that log, from a little-endian machine.
    const SHM: &[u8] = include_bytes!("../../tests/data/sqlite.db-shm");

    fn logged_pages() -> Vec<u32> {
        let pgno = |f: &[u8]| u32::from_be_bytes([f[0], f[1], f[2], f[3]]);
        WAL[32..].chunks_exact(FRAME_SIZE).map(pgno).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn sqlites_index_reads_and_ours_is_the_same() {
        let theirs = MemoryIndex::load(SHM);
        let header = WalIndex(&theirs).header().unwrap().unwrap();
        let pages = logged_pages();
        assert_eq!(header.max_frame as usize, pages.len());
        assert_eq!(header.page_size, 4096);
        assert_eq!(header.salt, WAL[16..24]);
        for &pgno in &pages {
            let newest = pages.iter().rposition(|p| *p == pgno).unwrap() as u32 + 1;
            assert_eq!(
                WalIndex(&theirs).find(pgno, header.max_frame).unwrap(),
                Some(newest)
            );
        }
        assert_eq!(
            WalIndex(&theirs).find(9999, header.max_frame).unwrap(),
            None
        );

        let ours = MemoryIndex::new();
        for (frame, pgno) in (1..).zip(&pages) {
            WalIndex(&ours).append(frame, *pgno).unwrap();
        }
        assert_eq!(ours.tables(), theirs.tables());
        WalIndex(&ours).publish(&header).unwrap();
        assert_eq!(WalIndex(&ours).header().unwrap(), Some(header));
        let bytes = |i: &MemoryIndex| -> Vec<u32> {
            i.block(0, false).unwrap().unwrap().words[..24]
                .iter()
                .map(|w| w.load(Relaxed))
                .collect()
        };
        assert_eq!(bytes(&ours), bytes(&theirs));
    }

    #[test]
    fn a_torn_or_damaged_header_is_none() {
        for word in 0..2 * HEADER_WORDS {
            let index = MemoryIndex::load(SHM);
            let words = index.block(0, false).unwrap().unwrap().words;
            words[word].store(words[word].load(Relaxed) ^ 0x100, Relaxed);
            assert_eq!(WalIndex(&index).header().unwrap(), None, "word {word}");
        }
    }

    #[test]
    fn finds_across_blocks_and_not_behind_the_mark() {
        let index = MemoryIndex::new();
        let last = PAGES_IN_BLOCK0 + 2 * PAGES_PER_BLOCK;
        for frame in 1..=last {
            WalIndex(&index).append(frame, frame % 3000 + 1).unwrap();
        }
        let newest = |pgno: u32, mark: u32| (1..=mark).rev().find(|f| f % 3000 + 1 == pgno);
        let all: Vec<u32> = (1..=last).map(|frame| frame % 3000 + 1).collect();
        for mark in [0, 1, 4062, 4063, 8158, 8159, last] {
            let pages = WalIndex(&index).pages(mark).unwrap();
            assert_eq!(pages, all[..mark as usize]);
        }
        for pgno in [1, 2, 1500, 2999, 3000] {
            for mark in [0, 1, 2998, 4062, 4063, 8158, 8159, last] {
                assert_eq!(
                    WalIndex(&index).find(pgno, mark).unwrap(),
                    newest(pgno, mark),
                    "{pgno} {mark}"
                );
            }
        }
    }

    #[test]
    fn entries_of_a_dead_writer_are_forgotten() {
        let (dead, clean) = (MemoryIndex::new(), MemoryIndex::new());
        for frame in 1..=20 {
            WalIndex(&dead).append(frame, 100 + frame).unwrap();
        }
        for (frame, pgno) in (1..=20).map(|f| (f, if f > 10 { 500 + f } else { 100 + f })) {
            WalIndex(&clean).append(frame, pgno).unwrap();
        }
        // Committed up to 10; a new writer appends 11 to 20.
        for frame in 11..=20 {
            WalIndex(&dead).append(frame, 500 + frame).unwrap();
        }
        assert_eq!(WalIndex(&dead).find(115, 20).unwrap(), None);
        assert_eq!(dead.tables(), clean.tables());
    }

    #[test]
    fn page_sizes_encode_as_sqlite_does() {
        for page_size in [512, 4096, 32768, 65536] {
            let header = Header {
                page_size,
                ..Header::default()
            };
            assert_eq!(Header::decode(header.encode()), Some(header));
        }
    }
}
