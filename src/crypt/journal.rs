//! A rollback journal: cells of a sector each, so that a new part of the
//! journal never rewrites a cell that an older, synced part is in. Every cell
//! says how much of it is used, so the file's size needs no short cell.
//!
//! A cell that fails authentication reads as zeros, SQLite's end of a journal:
//! a write that a crash tore looks so, or a file that is no journal of this
//! database. Where the journal's own header proves that a part was synced, it
//! is an error instead.

use super::nonce::Nonces;
use super::seal::{NONCE, OVERHEAD, Sealer, place};
use super::{MAX_IO, Raw, SECTOR};
use crate::error::{Error, Result};

/// The first byte keeps a SQLite without the key from taking the journal for
/// a hot one: it would "roll back" nothing and delete it.
const PREFIX: &[u8; 16] = b"\0libreplica-jrnl";
/// Of a transaction that found the database empty: until it has committed,
/// whatever the database file holds is nothing.
const FIRST: &[u8; 16] = b"\0libreplica-jrn0";
/// The same two of journals whose cells are spaced: what SQLite takes for a
/// sector, 64 KiB, lies in sectors of its own.
const SPACED: &[u8; 16] = b"\0libreplica-jrns";
const SPACED_FIRST: &[u8; 16] = b"\0libreplica-jrnz";
const PREFIXES: [&[u8; 16]; 4] = [PREFIX, FIRST, SPACED, SPACED_FIRST];
/// Cells of such a sector, and bytes from one to the next.
const GROUP: u64 = 65_536 / UNIT as u64;
const PITCH: u64 = (PREFIX.len() as u64 + GROUP * STRIDE as u64).next_multiple_of(SECTOR);
const UNIT: usize = 512;
/// A cell's content: two bytes of length, then the sector.
const CONTENT: usize = 2 + UNIT;
const STRIDE: usize = CONTENT + OVERHEAD;

/// The journal header (file format, section 3).
const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const UNSYNCED: u32 = 0xffff_ffff;
/// A transaction begins with more than this at offset 0; its header is
/// updated, or zeroed at its end, with less.
const LONGEST_UPDATE: usize = 28;
/// Behind the name of a super-journal: its length, a checksum, the magic.
const REFERENCE_TAIL: usize = 16;
const LONGEST_NAME: u32 = 8192;

type Content = [u8; CONTENT];

pub struct Journal {
    nonces: Nonces,
    buffer: Vec<u8>,
    /// The content of the cell written last, within one transaction.
    tail: Option<(u64, Content)>,
    /// What the header read last proves to have been synced.
    synced: std::ops::Range<u64>,
    prefix: &'static [u8; 16],
}

/// Whether a file that begins with these bytes is the journal of a
/// transaction that found the database empty.
pub fn is_of_first_transaction(head: &[u8]) -> bool {
    head.starts_with(FIRST) || head.starts_with(SPACED_FIRST)
}

/// The sector size that a journal's header gives; `head`: its first bytes.
pub fn sector_of(sealer: &Sealer, head: &[u8]) -> Option<usize> {
    let mut cell: [u8; STRIDE] = head.get(PREFIX.len()..)?.first_chunk().copied()?;
    let content = open(sealer, 0, &mut cell)?;
    let sector = u32::from_be_bytes(content[2 + 20..2 + 24].try_into().ok()?);
    content[2..].starts_with(&MAGIC).then_some(sector as usize)
}

/// Bytes that [`sector_of`] looks at.
pub const HEAD: usize = PREFIX.len() + STRIDE;

/// What a journal is begun for.
#[derive(Clone, Copy, Default)]
pub struct Begin {
    /// The database has no header yet.
    pub first: bool,
    /// The device may damage what lies beside a write.
    pub spaced: bool,
}

impl Begin {
    fn prefix(self) -> &'static [u8; 16] {
        PREFIXES[usize::from(self.first) + 2 * usize::from(self.spaced)]
    }
}

fn used(content: &Content) -> usize {
    usize::from(u16::from_le_bytes([content[0], content[1]])).min(UNIT)
}

fn open(sealer: &Sealer, cell: u64, sealed: &mut [u8]) -> Option<Content> {
    let content = sealer.open(&place(cell, [0; 8]), sealed)?;
    (&*content).try_into().ok()
}

impl Journal {
    pub fn new() -> Journal {
        Journal {
            nonces: Nonces::random(),
            buffer: Vec::new(),
            tail: None,
            synced: 0..0,
            prefix: PREFIX,
        }
    }

    fn is_spaced(&self) -> bool {
        self.prefix == SPACED || self.prefix == SPACED_FIRST
    }

    fn at_cell(&self, cell: u64) -> u64 {
        let (group, cell) = match self.is_spaced() {
            true => (cell / GROUP, cell % GROUP),
            false => (0, cell),
        };
        group * PITCH + PREFIX.len() as u64 + cell * STRIDE as u64
    }

    fn end_of(&self, cell: u64) -> u64 {
        self.at_cell(cell) + STRIDE as u64
    }

    /// How many cells so many bytes of a file are.
    fn cells(&self, bytes: u64) -> u64 {
        let (groups, bytes) = match self.is_spaced() {
            true => (bytes / PITCH, bytes % PITCH),
            false => (0, bytes),
        };
        let cells = bytes
            .saturating_sub(PREFIX.len() as u64)
            .div_ceil(STRIDE as u64);
        groups * GROUP
            + if self.is_spaced() {
                cells.min(GROUP)
            } else {
                cells
            }
    }

    /// How the file is laid out.
    fn learn(&mut self, raw: &impl Raw) -> Result<()> {
        let mut head = [0; PREFIX.len()];
        raw.read_at(&mut head, 0)?;
        if let Some(prefix) = PREFIXES.into_iter().find(|prefix| **prefix == head) {
            self.prefix = prefix;
        }
        Ok(())
    }

    fn load(&self, sealer: &Sealer, raw: &impl Raw, cell: u64) -> Result<Option<Content>> {
        let mut sealed = [0; STRIDE];
        raw.read_at(&mut sealed, self.at_cell(cell))?;
        Ok(open(sealer, cell, &mut sealed))
    }

    /// Where the journal ends, and the bytes behind it that name a
    /// super-journal in the clear.
    fn extent(&mut self, sealer: &Sealer, raw: &impl Raw) -> Result<(u64, u64)> {
        let mut bytes = raw.size()?;
        if bytes <= PREFIX.len() as u64 {
            return Ok((0, 0));
        }
        self.learn(raw)?;
        let mut reference = 0;
        if let Some(at) = bytes.checked_sub(STRIDE as u64) {
            let mut end = [0; STRIDE];
            raw.read_at(&mut end, at)?;
            let size = reference_cells(&end) * STRIDE as u64;
            if size > 0 && size + (PREFIX.len() as u64) < bytes {
                (bytes, reference) = (bytes - size, size);
            }
        }
        let Some(last) = self.cells(bytes).checked_sub(1) else {
            return Ok((0, 0));
        };
        let used = self.load(sealer, raw, last)?.map_or(UNIT, |c| used(&c)) as u64;
        Ok((last * UNIT as u64 + used, reference))
    }

    /// The journal names a super-journal if it does so in both places: who has
    /// the key and who has not must see the same. A byte less, and it does not.
    pub fn size(&mut self, sealer: &Sealer, raw: &impl Raw) -> Result<u64> {
        let (size, bytes) = self.extent(sealer, raw)?;
        let Some(sealed) = self.reference(sealer, raw, size)? else {
            return Ok(size);
        };
        let mut clear = vec![0; bytes as usize];
        raw.read_at(&mut clear, self.end_of((size - 1) / UNIT as u64))?;
        Ok(size - u64::from(clear != sealed))
    }

    pub fn read(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        let have = self.extent(sealer, raw)?.0.saturating_sub(at);
        let len = have.min(buf.len() as u64) as usize;
        let (mut filled, mut header) = (0, None);
        while filled < len {
            let here = at + filled as u64;
            let (cell, skip) = (here / UNIT as u64, (here % UNIT as u64) as usize);
            let count = (UNIT - skip).min(len - filled);
            match self.load(sealer, raw, cell)? {
                Some(content) => {
                    buf[filled..filled + count].copy_from_slice(&content[2 + skip..][..count]);
                    header = header.or(Some(content));
                }
                None if self.synced.contains(&here) => {
                    return Err(Error::Corrupt(format!(
                        "block {cell} of the encrypted rollback journal fails authentication"
                    )));
                }
                None => buf[filled..filled + count].fill(0),
            }
            filled += count;
        }
        buf[len..].fill(0);
        if let Some(content) = header
            && buf.len() == MAGIC.len()
            && at.is_multiple_of(UNIT as u64)
            && content[2..].starts_with(&MAGIC)
        {
            self.synced = synced(&content, at);
        }
        Ok(len)
    }

    pub fn write(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &[u8],
        at: u64,
        begin: Begin,
    ) -> Result<()> {
        self.synced = 0..0;
        if at == 0 {
            // A transaction begins; another process may have had one between.
            self.tail = None;
            self.learn(raw)?;
            if buf.len() > LONGEST_UPDATE {
                self.prefix = begin.prefix();
            } else if buf.iter().all(|b| *b == 0) {
                let spaced = self.is_spaced();
                self.prefix = Begin {
                    first: false,
                    spaced,
                }
                .prefix();
            }
        }
        self.put(sealer, raw, buf, at)?;
        if *buf == MAGIC {
            self.refer(sealer, raw, at + buf.len() as u64)?;
        }
        Ok(())
    }

    fn put(&mut self, sealer: &Sealer, raw: &impl Raw, buf: &[u8], at: u64) -> Result<()> {
        let mut from = 0;
        while from < buf.len() {
            let begin = at + from as u64;
            let first = begin / UNIT as u64;
            let mut sealed = std::mem::take(&mut self.buffer);
            sealed.clear();
            if first == 0 {
                sealed.extend_from_slice(self.prefix);
            }
            while from < buf.len() && sealed.len() + STRIDE <= MAX_IO {
                let here = at + from as u64;
                let (cell, skip) = (here / UNIT as u64, (here % UNIT as u64) as usize);
                if cell > first && self.is_spaced() && cell.is_multiple_of(GROUP) {
                    break;
                }
                let len = (UNIT - skip).min(buf.len() - from);
                let mut content = [0; CONTENT];
                if len < UNIT {
                    match &self.tail {
                        Some((number, tail)) if *number == cell => content = *tail,
                        _ => content = self.load(sealer, raw, cell)?.unwrap_or(content),
                    }
                }
                content[2 + skip..][..len].copy_from_slice(&buf[from..from + len]);
                let length = used(&content).max(skip + len) as u16;
                content[..2].copy_from_slice(&length.to_le_bytes());
                self.seal(sealer, cell, &content, &mut sealed)?;
                self.tail = Some((cell, content));
                from += len;
            }
            let place = if first == 0 { 0 } else { self.at_cell(first) };
            let written = raw.write_at(&sealed, place);
            self.buffer = sealed;
            written.inspect_err(|_| self.tail = None)?;
        }
        Ok(())
    }

    /// What stands behind the cells of a journal that ends with the name of a
    /// super-journal: the same in the clear, as SQLite looks for it.
    fn reference(&mut self, sealer: &Sealer, raw: &impl Raw, end: u64) -> Result<Option<Vec<u8>>> {
        let mut tail = [0; REFERENCE_TAIL];
        let Some(begin) = end.checked_sub(REFERENCE_TAIL as u64) else {
            return Ok(None);
        };
        self.read(sealer, raw, &mut tail, begin)?;
        let len = u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]);
        let Some(name) = begin.checked_sub(len.into()) else {
            return Ok(None);
        };
        if tail[8..] != MAGIC || len == 0 || len > LONGEST_NAME {
            return Ok(None);
        }
        let size = len as usize + REFERENCE_TAIL;
        let mut reference = vec![0; size.next_multiple_of(STRIDE)];
        let begin = reference.len() - size;
        self.read(sealer, raw, &mut reference[begin..], name)?;
        Ok(Some(reference))
    }

    /// Who has no key, too, has to see that the super-journal is still needed.
    fn refer(&mut self, sealer: &Sealer, raw: &impl Raw, end: u64) -> Result<()> {
        match self.reference(sealer, raw, end)? {
            Some(reference) => raw.write_at(&reference, self.end_of((end - 1) / UNIT as u64)),
            None => Ok(()),
        }
    }

    fn seal(
        &mut self,
        sealer: &Sealer,
        cell: u64,
        content: &Content,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let begin = out.len();
        out.resize(begin + NONCE, 0);
        out.extend_from_slice(content);
        out.resize(begin + STRIDE, 0);
        sealer.seal(self.nonces.take()?, &place(cell, [0; 8]), &mut out[begin..])
    }

    pub fn truncate(&mut self, sealer: &Sealer, raw: &impl Raw, to: u64) -> Result<()> {
        self.tail = None;
        self.synced = 0..0;
        if to == 0 {
            return raw.truncate(0);
        }
        // The last cell alone says how long the file is: no cells of zeros
        // are written where it grows.
        let last = (to - 1) / UNIT as u64;
        let length = (to - last * UNIT as u64) as usize;
        let mut content = self.load(sealer, raw, last)?.unwrap_or([0; CONTENT]);
        if used(&content) != length {
            content[2 + length..].fill(0);
            content[..2].copy_from_slice(&(length as u16).to_le_bytes());
            let mut sealed = Vec::new();
            self.seal(sealer, last, &content, &mut sealed)?;
            if raw.size()? == 0 {
                raw.write_at(self.prefix, 0)?;
            }
            raw.write_at(&sealed, self.at_cell(last))?;
        }
        if raw.size()? > self.end_of(last) {
            raw.truncate(self.end_of(last))?;
        }
        self.refer(sealer, raw, to)
    }
}

/// How many cells' places the name of a super-journal takes, if the last of
/// them ends so.
fn reference_cells(last: &[u8; STRIDE]) -> u64 {
    let tail = &last[STRIDE - REFERENCE_TAIL..];
    let len = u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]);
    if tail[8..] != MAGIC || len == 0 || len > LONGEST_NAME {
        return 0;
    }
    (len as usize + REFERENCE_TAIL).div_ceil(STRIDE) as u64
}

/// The records that the header at `at` counts: it got the count after they
/// were synced.
fn synced(content: &Content, at: u64) -> std::ops::Range<u64> {
    let field = |i: usize| {
        let b = &content[2 + i..];
        u32::from_be_bytes([b[0], b[1], b[2], b[3]])
    };
    let (records, sector, page) = (field(8), u64::from(field(20)), u64::from(field(24)));
    if records == UNSYNCED {
        return 0..0;
    }
    let begin = at + sector;
    begin..begin.saturating_add(u64::from(records) * (page + 8))
}
