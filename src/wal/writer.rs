//! Appends one transaction to the log: frames as they come, of each page only
//! the newest, the commit frame last, then one header for readers to see.
//!
//! Until the commit frame is written nothing of it exists for anybody: a
//! writer that is dropped, or dies, leaves bytes that the next one overwrites.

use std::collections::HashMap;

use super::format::{
    self, Checksum, FRAME_HEADER_SIZE, FRAME_SIZE, HEADER_SIZE, Salt, frame_offset,
};
use super::index::{Blocks, Header, WalIndex};
use super::{PAGE_SIZE, Page, Storage};
use crate::error::{Error, Result};

/// Frames are gathered to this many before they are written.
const BUFFER_FRAMES: usize = 32;

/// The end of a committed transaction in the log: which log, which frame, and
/// the checksum over everything up to it. Two logs that agree in it are equal
/// up to that frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    pub salt: Salt,
    pub frame: u32,
    pub checksum: Checksum,
}

impl LogEnd {
    pub fn of(header: &Header) -> LogEnd {
        LogEnd {
            salt: header.salt,
            frame: header.max_frame,
            checksum: header.checksum,
        }
    }
}

/// A transaction being written. The caller holds WRITE from before `begin`
/// until after `publish`.
pub struct Writer<'a, S: Storage, B: Blocks> {
    wal: &'a S,
    index: WalIndex<'a, B>,
    /// As of the last commit; `publish` makes the next one of it.
    header: Header,
    /// Checksum of the last frame handed to the buffer.
    checksum: Checksum,
    /// Page numbers of this transaction's frames, in order.
    pgnos: Vec<u32>,
    frame_of: HashMap<u32, u32>,
    /// Sealed frames not written yet; the last frame is held back unsealed.
    buffer: Vec<u8>,
    last: Option<Box<[u8; FRAME_SIZE]>>,
    /// The first frame whose page was replaced: checksums from there on are stale.
    stale_from: Option<u32>,
}

/// A transaction of which all but the commit frame is in the log.
pub struct Prepared<'a, S: Storage, B: Blocks> {
    wal: &'a S,
    index: WalIndex<'a, B>,
    header: Header,
    pgnos: Vec<u32>,
    commit_frame: Box<[u8; FRAME_SIZE]>,
}

impl<'a, S: Storage, B: Blocks> Writer<'a, S, B> {
    /// `header` is the current one; `fresh_salt` is used for a log that has
    /// no salts yet.
    pub fn begin(
        wal: &'a S,
        index: WalIndex<'a, B>,
        mut header: Header,
        fresh_salt: Salt,
    ) -> Result<Self> {
        if header.max_frame == 0 {
            let mut old = [0; HEADER_SIZE];
            wal.read_at(&mut old, 0)?;
            let old = format::Header::decode(&old);
            if header.salt == [0; 8] {
                header.salt = fresh_salt;
            }
            header.big_endian_checksum = cfg!(target_endian = "big");
            header.page_size = PAGE_SIZE as u32;
            let (bytes, checksum) = format::Header {
                big_endian_checksum: header.big_endian_checksum,
                page_size: PAGE_SIZE as u32,
                sequence: old.map_or(0, |(h, _)| h.sequence.wrapping_add(1)),
                salt: header.salt,
            }
            .encode();
            wal.write_at(&bytes, 0)?;
            // Else a power cut could leave new frames behind an old header
            // whose salts they do not match, and older ones that do.
            wal.sync()?;
            header.checksum = checksum;
        }
        Ok(Writer {
            wal,
            index,
            checksum: header.checksum,
            header,
            pgnos: Vec::new(),
            frame_of: HashMap::new(),
            buffer: Vec::new(),
            last: None,
            stale_from: None,
        })
    }

    /// Adds a page, or replaces it if the transaction has it already.
    pub fn put(&mut self, pgno: u32, page: &Page) -> Result<()> {
        if let Some(&frame) = self.frame_of.get(&pgno) {
            return self.replace(frame, page);
        }
        self.flush_last()?;
        let frame = self
            .header
            .max_frame
            .checked_add(self.pgnos.len() as u32 + 1)
            .ok_or_else(|| Error::Internal("the log is full".into()))?;
        let mut bytes = Box::new([0; FRAME_SIZE]);
        bytes[FRAME_HEADER_SIZE..].copy_from_slice(page);
        self.last = Some(bytes);
        self.pgnos.push(pgno);
        self.frame_of.insert(pgno, frame);
        Ok(())
    }

    fn replace(&mut self, frame: u32, page: &Page) -> Result<()> {
        if frame == self.last_frame()
            && let Some(last) = &mut self.last
        {
            last[FRAME_HEADER_SIZE..].copy_from_slice(page);
            return Ok(());
        }
        self.flush_buffer()?;
        self.stale_from = Some(self.stale_from.map_or(frame, |first| first.min(frame)));
        self.wal
            .write_at(page, frame_offset(frame) + FRAME_HEADER_SIZE as u64)
    }

    fn last_frame(&self) -> u32 {
        self.header.max_frame + self.pgnos.len() as u32
    }

    /// Seals the frame that is held back and hands it to the buffer.
    fn flush_last(&mut self) -> Result<()> {
        if let Some(mut frame) = self.last.take() {
            self.checksum = self.seal(&mut frame[..], self.last_frame(), 0, self.checksum);
            self.buffer.extend_from_slice(&frame[..]);
            if self.buffer.len() >= BUFFER_FRAMES * FRAME_SIZE {
                // `last` is taken, so the buffer ends with the last frame.
                self.write_buffer(self.last_frame())?;
            }
        }
        Ok(())
    }

    fn seal(&self, bytes: &mut [u8], frame: u32, size_after: u32, previous: Checksum) -> Checksum {
        let pgno = self.pgnos[(frame - self.header.max_frame) as usize - 1];
        let h = &self.header;
        format::seal_frame(
            bytes,
            pgno,
            size_after,
            h.salt,
            h.big_endian_checksum,
            previous,
        )
    }

    fn flush_buffer(&mut self) -> Result<()> {
        let held_back = u32::from(self.last.is_some());
        self.write_buffer(self.last_frame() - held_back)
    }

    fn write_buffer(&mut self, last_in_buffer: u32) -> Result<()> {
        if !self.buffer.is_empty() {
            let frames = (self.buffer.len() / FRAME_SIZE) as u32;
            self.wal
                .write_at(&self.buffer, frame_offset(last_in_buffer - frames + 1))?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Seals the frames again from the first replaced one on, as SQLite does.
    fn reseal(&mut self) -> Result<()> {
        let Some(first) = self.stale_from.take() else {
            return Ok(());
        };
        let end = self.last_frame() - 1; // the last is held back
        let mut previous = if first == self.header.max_frame + 1 {
            self.header.checksum
        } else {
            let mut bytes = [0; FRAME_HEADER_SIZE];
            self.wal.read_at(&mut bytes, frame_offset(first - 1))?;
            format::frame_checksum(&bytes)
        };
        let mut chunk = vec![0; BUFFER_FRAMES * FRAME_SIZE];
        let mut at = first;
        while at <= end {
            let count = (end - at + 1).min(BUFFER_FRAMES as u32);
            let bytes = &mut chunk[..count as usize * FRAME_SIZE];
            self.wal.read_at(bytes, frame_offset(at))?;
            for (i, frame) in bytes.chunks_exact_mut(FRAME_SIZE).enumerate() {
                previous = self.seal(frame, at + i as u32, 0, previous);
            }
            self.wal.write_at(bytes, frame_offset(at))?;
            at += count;
        }
        self.checksum = previous;
        Ok(())
    }

    /// Whether the transaction has this page.
    pub fn contains(&self, pgno: u32) -> bool {
        self.frame_of.contains_key(&pgno)
    }

    /// Writes everything but the commit frame.
    pub fn prepare(mut self, page_count: u32) -> Result<Prepared<'a, S, B>> {
        self.flush_buffer()?;
        self.reseal()?;
        let last_frame = self.last_frame();
        let mut commit_frame = self
            .last
            .take()
            .ok_or_else(|| Error::Internal("a transaction without pages".into()))?;
        let checksum = self.seal(&mut commit_frame[..], last_frame, page_count, self.checksum);
        let header = Header {
            change: self.header.change.wrapping_add(1),
            max_frame: last_frame,
            page_count,
            checksum,
            ..self.header
        };
        Ok(Prepared {
            wal: self.wal,
            index: self.index,
            header,
            pgnos: self.pgnos,
            commit_frame,
        })
    }
}

impl<S: Storage, B: Blocks> Prepared<'_, S, B> {
    /// Where the log will end.
    pub fn end(&self) -> LogEnd {
        LogEnd::of(&self.header)
    }

    /// Commits: the commit frame, the hash tables, the header.
    pub fn publish(self) -> Result<Header> {
        let last = self.header.max_frame;
        self.wal
            .write_at(&self.commit_frame[..], frame_offset(last))?;
        let first = last - self.pgnos.len() as u32 + 1;
        for (frame, pgno) in (first..).zip(&self.pgnos) {
            self.index.append(frame, *pgno)?;
        }
        self.index.publish(&self.header)?;
        Ok(self.header)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::memory::{MemoryFile, MemoryIndex};
    use super::super::reader::Reader;
    use super::*;

    struct Db {
        db: MemoryFile,
        wal: MemoryFile,
        index: MemoryIndex,
        header: Header,
        expected: HashMap<u32, u8>,
    }

    impl Db {
        fn new() -> Db {
            let (db, wal) = Default::default();
            Db {
                db,
                wal,
                index: MemoryIndex::new(),
                header: Header::default(),
                expected: HashMap::new(),
            }
        }

        fn commit(&mut self, pages: &[(u32, u8)], size: u32) {
            let mut writer =
                Writer::begin(&self.wal, WalIndex(&self.index), self.header, [3; 8]).unwrap();
            for &(pgno, fill) in pages {
                writer.put(pgno, &[fill; PAGE_SIZE]).unwrap();
            }
            let prepared = writer.prepare(size).unwrap();
            let end = prepared.end();
            self.header = prepared.publish().unwrap();
            assert_eq!(LogEnd::of(&self.header), end);
            self.expected.extend(pages.iter().copied());
            self.check();
        }

        /// Recovers the log as SQLite would and compares.
        fn check(&self) {
            let bytes = self.wal.0.borrow();
            let (file, mut sum) =
                format::Header::decode(bytes[..HEADER_SIZE].try_into().unwrap()).unwrap();
            let mut commits = Vec::new();
            for (i, frame) in bytes[HEADER_SIZE..].chunks_exact(FRAME_SIZE).enumerate() {
                let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
                let mut ours = frame.to_vec();
                sum = format::seal_frame(
                    &mut ours,
                    word(0),
                    word(4),
                    file.salt,
                    file.big_endian_checksum,
                    sum,
                );
                assert!(ours == frame, "frame {}", i + 1);
                if word(4) != 0 {
                    commits.push((i as u32 + 1, word(4), sum));
                }
            }
            drop(bytes);
            let h = &self.header;
            assert_eq!(
                commits.last(),
                Some(&(h.max_frame, h.page_count, h.checksum))
            );
            assert_eq!(WalIndex(&self.index).header().unwrap(), Some(*h));
            let reader = Reader {
                db: &self.db,
                wal: Some(&self.wal),
                index: WalIndex(&self.index),
                header: *h,
            };
            let mut page = [0; PAGE_SIZE];
            for (&pgno, &fill) in &self.expected {
                reader.read(pgno, &mut page).unwrap();
                assert!(page == [fill; PAGE_SIZE], "page {pgno}");
            }
        }
    }

    #[test]
    fn transactions_follow_each_other() {
        let mut db = Db::new();
        db.commit(&[(1, 1), (2, 2)], 2);
        db.commit(&[(2, 3)], 2);
        db.commit(&[(3, 4), (1, 5)], 3);
        assert_eq!(db.header.max_frame, 5);
        assert_eq!(db.header.change, 3);
    }

    #[test]
    fn of_a_repeated_page_the_newest_stays() {
        let mut db = Db::new();
        db.commit(&[(1, 1), (1, 2)], 1); // while it is held back
        assert_eq!(db.header.max_frame, 1);
        db.commit(&[(1, 3), (2, 1), (1, 4), (3, 1)], 3); // in the buffer
        assert_eq!(db.header.max_frame, 4);
        // Already written, the first frame and one in the midst, and the last one again.
        let mut pages: Vec<_> = (1..=200).map(|n| (n, n as u8)).collect();
        pages.extend([(1, 77), (120, 78), (200, 79), (1, 80), (201, 1)]);
        db.commit(&pages, 201);
        assert_eq!(db.header.max_frame, 4 + 201);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let mut db = Db::new();
        db.commit(&[(1, 1), (2, 2)], 2);
        let mut writer = Writer::begin(&db.wal, WalIndex(&db.index), db.header, [3; 8]).unwrap();
        (1..=100).for_each(|n| writer.put(n, &[9; PAGE_SIZE]).unwrap());
        drop(writer.prepare(100).unwrap());
        assert_eq!(WalIndex(&db.index).header().unwrap(), Some(db.header));
        assert_eq!(WalIndex(&db.index).find(50, u32::MAX / 2).unwrap(), None);
        // The next transaction overwrites what was left, and is valid up to its end.
        db.wal
            .0
            .borrow_mut()
            .truncate(format::frame_offset(db.header.max_frame + 1) as usize);
        db.commit(&[(2, 4)], 2);
    }

    #[test]
    fn a_log_begun_anew_has_new_salts() {
        let mut db = Db::new();
        db.commit(&[(1, 1), (2, 2), (3, 3)], 3);
        let old = db.header;
        (1..=3u8).for_each(|n| {
            db.db
                .write_at(&[n; PAGE_SIZE], u64::from(n - 1) * PAGE_SIZE as u64)
                .unwrap()
        });
        WalIndex(&db.index)
            .restart(&mut db.header, format::next_salt(old.salt, [8; 4]))
            .unwrap();
        db.wal.0.borrow_mut().truncate(HEADER_SIZE); // for `check`: old frames behind the end are garbage
        db.commit(&[(2, 7)], 3);
        assert_eq!(db.header.max_frame, 1);
        assert_eq!(db.header.salt, [3, 3, 3, 4, 8, 8, 8, 8]);
        let (file, _) =
            format::Header::decode(db.wal.0.borrow()[..HEADER_SIZE].try_into().unwrap()).unwrap();
        assert_eq!(file.sequence, 1);
    }

    #[test]
    fn a_transaction_without_pages_is_an_error() {
        let db = Db::new();
        let writer = Writer::begin(&db.wal, WalIndex(&db.index), db.header, [3; 8]).unwrap();
        assert!(writer.prepare(1).is_err());
    }
}
