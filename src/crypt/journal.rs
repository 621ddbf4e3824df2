//! A rollback journal: cells of a sector each, so that a new part of the
//! journal never rewrites a cell that an older, synced part is in. Every cell
//! says how much of it is used, so the file's size needs no short cell.
//!
//! A cell that fails authentication reads as zeros, SQLite's end of a journal:
//! a write that a crash tore looks so. Where the journal's own header proves
//! that a part was synced, it is an error instead.

use super::nonce::Nonces;
use super::seal::{NONCE, OVERHEAD, Sealer, place};
use super::{MAX_IO, Raw};
use crate::error::{Error, Result};

/// The first byte keeps a SQLite without the key from taking the journal for
/// a hot one: it would "roll back" nothing and delete it.
const PREFIX: &[u8; 16] = b"\0libreplica-jrnl";
const UNIT: usize = 512;
/// A cell's content: two bytes of length, then the sector.
const CONTENT: usize = 2 + UNIT;
const STRIDE: usize = CONTENT + OVERHEAD;

/// The journal header (file format, section 3).
const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const UNSYNCED: u32 = 0xffff_ffff;

type Content = [u8; CONTENT];

pub struct Journal {
    nonces: Nonces,
    buffer: Vec<u8>,
    /// The content of the cell written last, within one transaction.
    tail: Option<(u64, Content)>,
    /// What the header read last proves to have been synced.
    synced: std::ops::Range<u64>,
}

fn at_cell(cell: u64) -> u64 {
    PREFIX.len() as u64 + cell * STRIDE as u64
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
        }
    }

    /// How many cells the file has. An error for a file that is no journal of ours.
    fn cells(&self, raw: &impl Raw) -> Result<u64> {
        let size = raw.size()?.saturating_sub(PREFIX.len() as u64);
        if size > 0 {
            let mut prefix = [0; PREFIX.len()];
            raw.read_at(&mut prefix, 0)?;
            if prefix != *PREFIX && prefix != [0; PREFIX.len()] {
                return Err(Error::Corrupt(
                    "the rollback journal of the encrypted database is not encrypted, or damaged"
                        .into(),
                ));
            }
        }
        Ok(size.div_ceil(STRIDE as u64))
    }

    fn load(&self, sealer: &Sealer, raw: &impl Raw, cell: u64) -> Result<Option<Content>> {
        let mut sealed = [0; STRIDE];
        raw.read_at(&mut sealed, at_cell(cell))?;
        Ok(open(sealer, cell, &mut sealed))
    }

    pub fn size(&self, sealer: &Sealer, raw: &impl Raw) -> Result<u64> {
        let Some(last) = self.cells(raw)?.checked_sub(1) else {
            return Ok(0);
        };
        let tail = self.load(sealer, raw, last)?;
        Ok(last * UNIT as u64 + tail.map_or(UNIT, |c| used(&c)) as u64)
    }

    pub fn read(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        let have = self.size(sealer, raw)?.saturating_sub(at);
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

    pub fn write(&mut self, sealer: &Sealer, raw: &impl Raw, buf: &[u8], at: u64) -> Result<()> {
        self.synced = 0..0;
        if at == 0 {
            // A transaction begins; another process may have had one between.
            self.tail = None;
        }
        let mut from = 0;
        while from < buf.len() {
            let begin = at + from as u64;
            let first = begin / UNIT as u64;
            let mut sealed = std::mem::take(&mut self.buffer);
            sealed.clear();
            if first == 0 {
                sealed.extend_from_slice(PREFIX);
            }
            while from < buf.len() && sealed.len() + STRIDE <= MAX_IO {
                let here = at + from as u64;
                let (cell, skip) = (here / UNIT as u64, (here % UNIT as u64) as usize);
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
            let place = if first == 0 { 0 } else { at_cell(first) };
            let written = raw.write_at(&sealed, place);
            self.buffer = sealed;
            written.inspect_err(|_| self.tail = None)?;
        }
        Ok(())
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
                raw.write_at(PREFIX, 0)?;
            }
            raw.write_at(&sealed, at_cell(last))?;
        }
        if raw.size()? > at_cell(last + 1) {
            raw.truncate(at_cell(last + 1))?;
        }
        Ok(())
    }
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
