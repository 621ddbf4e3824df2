//! A local transaction whose commit frame is about to be written: what it
//! changes, and where the log will end with it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::digest::Digest;
use super::files::Files;
use super::proof;
use super::record::Record;
use crate::btree::page::BtreePage;
use crate::btree::{Pages, SchemaPages, Side};
use crate::error::{Error, Result};
use crate::ffi::file::OsFile;
use crate::remote::pages::without_stamp;
use crate::remote::transaction::Transaction;
use crate::wal::capture::CommitFrame;
use crate::wal::format::{
    self, FRAME_HEADER_SIZE, FRAME_SIZE, FrameHeader, HEADER_SIZE, frame_offset,
};
use crate::wal::index::Header;
use crate::wal::reader::Reader;
use crate::wal::writer::LogEnd;
use crate::wal::{LOCK_PAGE, PAGE_SIZE, Page};

/// What SQLite has written so far, and the last page, which it is about to write.
pub struct Written<'a> {
    pub frames: BTreeMap<u32, u32>,
    pub commit: CommitFrame,
    /// The last frame in the log: behind the commit frame those that were
    /// rolled back.
    pub last: u32,
    pub page: &'a Page,
    /// How much later the schema cookie may be than what was read of the file.
    pub cookies_later: u32,
}

/// What is remembered of the schema as of a schema cookie (file format, section 1.3.9).
pub struct KnownSchema {
    cookie: u32,
    /// The pages of sqlite_schema.
    pages: HashSet<u32>,
    /// Tables that are looked at when any other one is dropped.
    has_statistics: bool,
}

pub struct LocalTransaction<'a> {
    files: &'a Files,
    /// The database before.
    pub before: Reader<'a, OsFile, OsFile>,
    base_size: u32,
    written: Written<'a>,
    /// The newest frame of each page.
    newest: HashMap<u32, u32>,
    pages: Vec<u32>,
    changes_schema: bool,
    has_statistics: bool,
    proofs: Vec<String>,
    pub digest: Digest,
    pub end: LogEnd,
    /// Of the commit frame.
    pub header: FrameHeader,
}

impl<'a> LocalTransaction<'a> {
    /// `header`: the wal-index header, of the database before.
    pub fn gather(
        files: &'a Files,
        header: Header,
        written: Written<'a>,
        base: &Record,
    ) -> Result<Self> {
        let mut this = LocalTransaction {
            files,
            before: files.reader(header),
            base_size: base.page_count,
            written,
            newest: HashMap::new(),
            pages: Vec::new(),
            changes_schema: false,
            has_statistics: false,
            proofs: Vec::new(),
            digest: base.digest,
            end: LogEnd::default(),
            header: [0; FRAME_HEADER_SIZE],
        };
        this.read_frames(&header)?;
        this.compare()?;
        Ok(this)
    }

    /// Reads the frames once: where each page's newest version is, and the
    /// log's end. Where it has overwritten pages, SQLite leaves headers empty
    /// from the first of them on until the commit frame is written; with a
    /// rollback to a savepoint in between some stay so for ever, and a crash
    /// takes what is committed (seen in 3.40, not in 3.54: wal.c, `iReCksum`
    /// outlives `sqlite3WalSavepointUndo`). They are completed here, and the
    /// frames behind the end carry its checksum, to go on from.
    fn read_frames(&mut self, header: &Header) -> Result<()> {
        let (salt, big_endian, mut sum) = if header.max_frame == 0 {
            let mut bytes = [0; HEADER_SIZE];
            self.files.wal.read_at(&mut bytes, 0)?;
            let (log, sum) =
                format::Header::decode(&bytes).ok_or_else(|| broken("no log header"))?;
            (log.salt, log.big_endian_checksum, sum)
        } else {
            (header.salt, header.big_endian_checksum, header.checksum)
        };
        let commit = self.written.commit;
        let mut frame = [0; FRAME_SIZE];
        for (next, (&number, &pgno)) in (header.max_frame + 1..).zip(&self.written.frames) {
            if number != next {
                return Err(broken("a gap between its frames"));
            }
            let (at, commits) = (frame_offset(number), number == commit.frame);
            if commits {
                frame[FRAME_HEADER_SIZE..].copy_from_slice(self.written.page);
            } else if !self.files.wal.read_at(&mut frame, at)? {
                return Err(broken("a frame is not in the log"));
            }
            let mut stored: FrameHeader = [0; FRAME_HEADER_SIZE];
            stored.copy_from_slice(&frame[..FRAME_HEADER_SIZE]);
            let size = if commits { commit.size } else { 0 };
            sum = format::seal_frame(&mut frame, pgno, size, salt, big_endian, sum);
            if !commits && frame[..FRAME_HEADER_SIZE] != stored {
                self.files.wal.write_at(&frame[..FRAME_HEADER_SIZE], at)?;
            }
            self.newest.insert(pgno, number);
        }
        if self.newest.get(&commit.pgno) != Some(&commit.frame) {
            return Err(broken("frames before its first"));
        }
        // The last one was the commit frame.
        self.header.copy_from_slice(&frame[..FRAME_HEADER_SIZE]);
        // No page number: none of these is a frame.
        let mut behind = self.header;
        behind[..8].fill(0);
        for number in commit.frame + 1..=self.written.last {
            self.files.wal.write_at(&behind, frame_offset(number))?;
        }
        self.end = LogEnd {
            salt,
            frame: commit.frame,
            checksum: sum,
        };
        Ok(())
    }

    /// Which pages differ from before: their bytes do. Pages that were added
    /// and never written are what a reader finds in their place.
    fn compare(&mut self) -> Result<()> {
        let (size, hash) = (self.written.commit.size, self.files.hash);
        let (mut old, mut new) = (Box::new([0; PAGE_SIZE]), Box::new([0; PAGE_SIZE]));
        let written = self.newest.keys().copied().filter(|p| *p <= size);
        let added = self.base_size.saturating_add(1)..=size;
        let mut pgnos: Vec<u32> = written.collect();
        pgnos.extend(added.filter(|p| !self.newest.contains_key(p)));
        pgnos.sort_unstable();
        for pgno in pgnos {
            self.page(pgno, &mut new)?;
            if pgno <= self.base_size {
                self.before.read(pgno, &mut old)?;
                if old == new {
                    continue;
                }
                self.digest.remove(hash.of(pgno, &old));
            }
            self.digest.add(hash.of(pgno, &new));
            if pgno != LOCK_PAGE {
                self.pages.push(pgno);
            }
        }
        for pgno in self.cut_off() {
            self.before.read(pgno, &mut old)?;
            self.digest.remove(hash.of(pgno, &old));
        }
        Ok(())
    }

    /// The pages that are no more.
    fn cut_off(&self) -> impl Iterator<Item = u32> + use<> {
        self.size().saturating_add(1)..=self.base_size
    }

    /// The pages that are others afterwards, or are no more.
    pub fn touched(&self) -> Vec<u32> {
        let cut_off = self.cut_off().filter(|pgno| *pgno != LOCK_PAGE);
        self.pages.iter().copied().chain(cut_off).collect()
    }

    /// What the transaction does to the schema.
    pub fn look_at_schema(&mut self, known: &mut Option<KnownSchema>) -> Result<()> {
        let (mut old, mut new) = (Box::new([0; PAGE_SIZE]), Box::new([0; PAGE_SIZE]));
        self.before.read(1, &mut old)?;
        self.page(1, &mut new)?;
        let was = cookie(&old);
        let known_now = match known.take() {
            Some(known) if known.cookie == was => known,
            _ => {
                let SchemaPages { schema, pages } = SchemaPages::read(self, Side::Base)?;
                let has_statistics = schema
                    .objects
                    .iter()
                    .any(|o| o.name.starts_with("sqlite_stat"));
                KnownSchema {
                    cookie: was,
                    pages,
                    has_statistics,
                }
            }
        };
        self.has_statistics = known_now.has_statistics;
        let known_now = known.insert(known_now);
        let touched = |pgno: &u32| *pgno != 1 && known_now.pages.contains(pgno);
        if old[100..] == new[100..] && was == cookie(&new) && !self.pages.iter().any(touched) {
            return Ok(());
        }
        let base = SchemaPages::read(self, Side::Base)?.schema;
        let now = SchemaPages::read(self, Side::New)?.schema;
        *known = None;
        self.proofs = proof::statements(&base, &now);
        self.changes_schema = true;
        Ok(())
    }

    /// How often the schema was changed, by the schema cookie.
    pub fn cookie_steps(&self) -> Result<u32> {
        let (mut old, mut new) = (Box::new([0; PAGE_SIZE]), Box::new([0; PAGE_SIZE]));
        self.before.read(1, &mut old)?;
        self.page(1, &mut new)?;
        let steps = cookie(&new).wrapping_sub(cookie(&old));
        Ok(steps.min(steps.wrapping_sub(self.written.cookies_later)))
    }

    pub fn size(&self) -> u32 {
        self.written.commit.size
    }

    /// Whether what the primary's log has is this transaction: the same
    /// pages, but for the stamp that a primary puts on page 1, and none besides
    /// but those that growing touches.
    pub fn is(&self, logged: &BTreeMap<u32, Box<Page>>) -> Result<bool> {
        let mut page = Box::new([0; PAGE_SIZE]);
        for (&pgno, theirs) in logged {
            self.page(pgno, &mut page)?;
            let equal = match pgno {
                1 => without_stamp(&page) == without_stamp(theirs),
                _ => page == *theirs,
            };
            if !equal {
                return Ok(false);
            }
        }
        Ok(self.pages.iter().all(|pgno| logged.contains_key(pgno)))
    }
}

impl Transaction for LocalTransaction<'_> {
    fn sizes(&self) -> (u32, u32) {
        (self.base_size, self.size())
    }

    fn pages(&self) -> &[u32] {
        &self.pages
    }

    fn schema_edge(&self) -> Result<Vec<u32>> {
        schema_edge(|pgno, page| self.page(pgno, page))
    }

    fn schema_has_room(&self) -> Result<bool> {
        let has_room = room_at_the_end(|pgno, page| self.before.read(pgno, page))?;
        Ok(has_room && !self.has_statistics)
    }

    fn changes_schema(&self) -> bool {
        self.changes_schema
    }

    fn proofs(&self) -> &[String] {
        &self.proofs
    }

    fn base_page(&self, pgno: u32, page: &mut Page) -> Result<()> {
        self.before.read(pgno, page)
    }

    fn page(&self, pgno: u32, page: &mut Page) -> Result<()> {
        match self.newest.get(&pgno) {
            Some(&frame) if frame == self.written.commit.frame => *page = *self.written.page,
            Some(&frame) => {
                let at = frame_offset(frame) + FRAME_HEADER_SIZE as u64;
                self.files.wal.read_at(page, at)?;
            }
            None => self.before.read(pgno, page)?,
        }
        Ok(())
    }
}

impl Pages for LocalTransaction<'_> {
    fn before(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        owned(|page| self.before.read(pgno, page))
    }

    fn after(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        owned(|page| self.page(pgno, page))
    }

    fn changed(&self) -> &[u32] {
        &self.pages
    }

    fn size_before(&self) -> u32 {
        self.base_size
    }

    fn size_after(&self) -> u32 {
        self.size()
    }
}

fn cookie(page1: &Page) -> u32 {
    u32::from_be_bytes([page1[40], page1[41], page1[42], page1[43]])
}

fn broken(what: &str) -> Error {
    Error::Internal(format!("the transaction in the log: {what}"))
}

/// Bytes on a page, far more than a throw-away table's row there takes.
const ROOM: usize = 500;
/// Children that a balanced insert at the right end may touch, on each level.
const EDGE: usize = 4;
/// No b-tree is deeper; a damaged one ends there.
const DEPTH: usize = 20;

/// Whether a row can come to the last leaf of sqlite_schema, and go again,
/// and no neighbour is touched: there is room between pointers and cells, and
/// without it the leaf is not so empty that SQLite would balance it
/// (btree.c, `sqlite3BtreeDelete`: more than two thirds free).
fn room_at_the_end(read: impl Fn(u32, &mut Page) -> Result<()>) -> Result<bool> {
    let (mut pgno, mut bytes) = (1, Box::new([0; PAGE_SIZE]));
    for _ in 0..DEPTH {
        read(pgno, &mut bytes)?;
        let page = BtreePage::parse(pgno, &bytes[..], PAGE_SIZE)?;
        match page.children()?.last() {
            Some(child) => pgno = *child,
            None => {
                let (gap, free) = page.free();
                return Ok(gap >= ROOM && (pgno == 1 || free * 3 <= PAGE_SIZE * 2));
            }
        }
    }
    Ok(false)
}

/// The right edge of the sqlite_schema b-tree.
fn schema_edge(read: impl Fn(u32, &mut Page) -> Result<()>) -> Result<Vec<u32>> {
    let mut bytes = Box::new([0; PAGE_SIZE]);
    let (mut edge, mut level) = (vec![1], vec![1u32]);
    for _ in 0..DEPTH {
        let mut children = Vec::new();
        for &pgno in &level {
            read(pgno, &mut bytes)?;
            children.extend(BtreePage::parse(pgno, &bytes[..], PAGE_SIZE)?.children()?);
        }
        level = children.split_off(children.len().saturating_sub(EDGE));
        if level.is_empty() {
            break;
        }
        edge.extend(&level);
    }
    Ok(edge)
}

/// A page as the b-tree reader takes it.
pub fn owned(read: impl FnOnce(&mut Page) -> Result<()>) -> Result<Cow<'static, [u8]>> {
    let mut page = Box::new([0; PAGE_SIZE]);
    read(&mut page)?;
    Ok(Cow::Owned((page as Box<[u8]>).into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_edge_of_a_tree() {
        let mut pages: HashMap<u32, Page> = HashMap::new();
        let mut root = [0; PAGE_SIZE];
        root[100] = 5;
        root[104] = 6; // cells
        for cell in 0..6usize {
            let at = 4000 + 8 * cell;
            root[112 + 2 * cell..114 + 2 * cell].copy_from_slice(&(at as u16).to_be_bytes());
            root[at + 3] = 10 + cell as u8;
        }
        root[108 + 3] = 20; // the right-most child
        pages.insert(1, root);
        let mut leaf = [0; PAGE_SIZE];
        leaf[0] = 13;
        let edge = schema_edge(|pgno, page| {
            *page = pages.get(&pgno).copied().unwrap_or(leaf);
            Ok(())
        });
        assert_eq!(edge.unwrap(), [1, 13, 14, 15, 20]);
        let room = |cells: u8, content: u16, freeblock: u16| {
            room_at_the_end(|pgno, page| {
                *page = pages.get(&pgno).copied().unwrap_or([0; PAGE_SIZE]);
                if pgno == 20 {
                    page[..8].copy_from_slice(&[13, 0, 0, 0, cells, 0, 0, 0]);
                    page[1..3].copy_from_slice(&freeblock.to_be_bytes());
                    page[5..7].copy_from_slice(&content.to_be_bytes());
                    page[3002..3004].copy_from_slice(&1000u16.to_be_bytes());
                }
                Ok(())
            })
            .unwrap()
        };
        assert!(room(3, 1024, 0));
        assert!(room(3, 2700, 0));
        // Too full; so empty that it is balanced.
        assert!(!room(3, 500, 0) && !room(3, 2800, 0));
        assert!(room(3, 1700, 3000) && !room(3, 1800, 3000));
        let leaf = schema_edge(|_, page| {
            page[100] = 13;
            Ok(())
        });
        assert_eq!(leaf.unwrap(), [1]);
    }
}
