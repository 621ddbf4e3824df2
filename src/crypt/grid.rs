//! A file of equal cells, the last of which may be short: databases, and
//! temporary files. Behaves as a plain file does.

use super::header::Layout;
use super::nonce::Nonces;
use super::seal::{NONCE, OVERHEAD, Sealer, place};
use super::{MAX_IO, Raw, SECTOR};
use crate::error::{Error, Result};

/// The content that SQLite takes for one sector at most: so much of it lies in
/// sectors of its own where cells are spaced.
const GROUP: u64 = 65_536;

/// A cache line.
const ALIGN: usize = 64;

pub struct Grid {
    /// Where the first cell is.
    base: u64,
    /// Bytes of content in a cell.
    unit: usize,
    /// Cells in a group, and bytes from one group to the next.
    group: u64,
    pitch: u64,
    nonces: Nonces,
    buffer: Vec<u8>,
    /// Written in front of the first cell, in the same call.
    prefix: Option<Box<[u8]>>,
    /// The size, while nobody else can change it.
    size: Option<u64>,
    /// The content of the cell written last, where nobody else writes.
    tail: Option<(u64, Vec<u8>)>,
    alone: bool,
}

impl Grid {
    pub fn shared(layout: Layout, prefix: Option<Box<[u8]>>) -> Grid {
        Grid::new(layout.base(), layout, prefix)
    }

    fn new(base: u64, layout: Layout, prefix: Option<Box<[u8]>>) -> Grid {
        let unit = layout.unit;
        let stride = (unit + OVERHEAD) as u64;
        let (group, pitch) = match layout.spaced {
            true => {
                let cells = GROUP / unit as u64;
                (cells, (cells * stride).next_multiple_of(SECTOR))
            }
            false => (u64::MAX, 0),
        };
        Grid {
            base,
            unit,
            group,
            pitch,
            nonces: Nonces::random(),
            buffer: Vec::new(),
            prefix,
            size: None,
            tail: None,
            alone: false,
        }
    }

    /// With a key and a file of its own.
    pub fn alone(unit: usize) -> Grid {
        Grid {
            nonces: Nonces::counted(),
            alone: true,
            ..Grid::new(
                0,
                Layout {
                    unit,
                    spaced: false,
                },
                None,
            )
        }
    }

    pub fn unit(&self) -> usize {
        self.unit
    }

    fn stride(&self) -> usize {
        self.unit + OVERHEAD
    }

    fn at_cell(&self, cell: u64) -> u64 {
        self.base + cell / self.group * self.pitch + cell % self.group * self.stride() as u64
    }

    /// Cells from this one on that lie behind each other.
    fn run(&self, cell: u64) -> u64 {
        self.group - cell % self.group
    }

    /// Others may change the size from here on.
    pub fn forget_size(&mut self) {
        self.size = None;
    }

    pub fn size(&mut self, raw: &impl Raw) -> Result<u64> {
        let mut cells = raw.size()?.saturating_sub(self.base);
        let (mut before, stride) = (0, self.stride() as u64);
        if let Some(groups) = cells.checked_div(self.pitch) {
            before = groups * self.group;
            cells = (cells % self.pitch).min(self.group * stride);
        }
        let (full, rest) = (before + cells / stride, cells % stride);
        let size = full * self.unit as u64 + rest.saturating_sub(OVERHEAD as u64);
        self.size = Some(size);
        Ok(size)
    }

    fn known_size(&mut self, raw: &impl Raw) -> Result<u64> {
        match self.size {
            Some(size) => Ok(size),
            None => self.size(raw),
        }
    }

    /// Fills `buf`, answers how much of it the file has.
    pub fn read(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        if let Some(read) = self.read_cell(sealer, raw, buf, at) {
            return read;
        }
        let (unit, stride) = (self.unit as u64, self.stride());
        let end = at + buf.len() as u64;
        let (mut cell, last) = (at / unit, end.div_ceil(unit));
        let group = (MAX_IO / stride) as u64;
        let mut filled = 0;
        while cell < last {
            let count = (last - cell).min(group).min(self.run(cell));
            self.buffer.resize(count as usize * stride, 0);
            let from = self.at_cell(cell);
            let got = raw.read_at(&mut self.buffer, from)?;
            for (i, sealed) in self.buffer[..got].chunks_mut(stride).enumerate() {
                if sealed.len() <= OVERHEAD {
                    break;
                }
                let number = cell + i as u64;
                let content = sealer
                    .open(&place(number, [0; 8]), sealed)
                    .ok_or_else(|| damaged(number))?;
                let skip = at.saturating_sub(number * unit) as usize;
                let content = content.get(skip..).unwrap_or_default();
                let len = content.len().min(buf.len() - filled);
                buf[filled..filled + len].copy_from_slice(&content[..len]);
                filled += len;
            }
            if got < self.buffer.len() {
                break;
            }
            cell += count;
        }
        buf[filled..].fill(0);
        Ok(filled)
    }

    /// One whole cell, the usual read; None if it is another.
    #[inline(always)]
    pub fn read_cell(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &mut [u8],
        at: u64,
    ) -> Option<Result<usize>> {
        if buf.len() != self.unit || !at.is_multiple_of(self.unit as u64) {
            return None;
        }
        let cell = at / self.unit as u64;
        let from = self.at_cell(cell);
        self.buffer.resize(ALIGN * 2 + self.stride(), 0);
        // As the file is aligned: the kernel's copy is the larger part.
        let skip = self.buffer.as_ptr().align_offset(ALIGN) + (from % ALIGN as u64) as usize;
        let sealed = &mut self.buffer[skip..skip + self.unit + OVERHEAD];
        let got = match raw.read_at(sealed, from) {
            Ok(got) => got,
            Err(e) => return Some(Err(e)),
        };
        let len = got.saturating_sub(OVERHEAD);
        let (content, rest) = buf.split_at_mut(len);
        if len > 0 && !sealer.open_into(&place(cell, [0; 8]), &mut sealed[..got], content) {
            return Some(Err(damaged(cell)));
        }
        rest.fill(0);
        Some(Ok(len))
    }

    pub fn write(&mut self, sealer: &Sealer, raw: &impl Raw, buf: &[u8], at: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let size = self.known_size(raw)?;
        if at > size {
            self.fill(sealer, raw, size, at - at % self.unit as u64)?;
        }
        self.put(sealer, raw, buf, at)
    }

    /// Zeros from the end of the file to the cell that begins at `to`.
    fn fill(&mut self, sealer: &Sealer, raw: &impl Raw, size: u64, to: u64) -> Result<()> {
        let zeros = vec![0; self.unit * 16];
        let mut at = size;
        while at < to {
            let len = (to - at).min(zeros.len() as u64);
            self.put(sealer, raw, &zeros[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    /// Writes at or before the end of the file.
    fn put(&mut self, sealer: &Sealer, raw: &impl Raw, buf: &[u8], at: u64) -> Result<()> {
        let (unit, stride) = (self.unit as u64, self.stride());
        let (mut from, mut at) = (0, at);
        let size = self.known_size(raw)?;
        while from < buf.len() {
            let first = at / unit;
            let mut sealed = std::mem::take(&mut self.buffer);
            sealed.clear();
            while from < buf.len() && sealed.len() + stride <= MAX_IO {
                let (cell, skip) = (at / unit, (at % unit) as usize);
                if cell > first && cell.is_multiple_of(self.group) {
                    break;
                }
                let len = (self.unit - skip).min(buf.len() - from);
                let begin = sealed.len();
                let piece = &buf[from..from + len];
                if len == self.unit {
                    sealed.resize(begin + NONCE, 0);
                    sealed.extend_from_slice(piece);
                } else {
                    let mut content = self.content(sealer, raw, cell, size)?;
                    content.resize(content.len().max(skip + len), 0);
                    content[skip..skip + len].copy_from_slice(piece);
                    sealed.resize(begin + NONCE, 0);
                    sealed.extend_from_slice(&content);
                    if self.alone {
                        self.tail = Some((cell, content));
                    }
                }
                sealed.resize(sealed.len() + OVERHEAD - NONCE, 0);
                let nonce = self.nonces.take()?;
                sealer.seal(nonce, &place(cell, [0; 8]), &mut sealed[begin..])?;
                if len == self.unit && self.tail.as_ref().is_some_and(|(c, _)| *c == cell) {
                    self.tail = None;
                }
                from += len;
                at += len as u64;
            }
            let written = match &self.prefix {
                Some(prefix) if first == 0 => {
                    let whole = [prefix, &sealed[..]].concat();
                    let written = raw.write_at(&whole, self.base - prefix.len() as u64);
                    if written.is_ok() {
                        self.prefix = None;
                    }
                    written
                }
                _ => raw.write_at(&sealed, self.at_cell(first)),
            };
            self.buffer = sealed;
            if written.is_err() {
                self.tail = None;
                self.size = None;
                return written;
            }
            self.size = Some(self.size.unwrap_or_default().max(at));
        }
        Ok(())
    }

    /// What a cell holds now.
    fn content(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        cell: u64,
        size: u64,
    ) -> Result<Vec<u8>> {
        if let Some((number, content)) = &self.tail
            && *number == cell
        {
            return Ok(content.clone());
        }
        let have = size
            .saturating_sub(cell * self.unit as u64)
            .min(self.unit as u64) as usize;
        if have == 0 {
            return Ok(Vec::new());
        }
        let mut sealed = vec![0; have + OVERHEAD];
        raw.read_at(&mut sealed, self.at_cell(cell))?;
        let content = sealer.open(&place(cell, [0; 8]), &mut sealed);
        content.map(|c| c.to_vec()).ok_or_else(|| damaged(cell))
    }

    pub fn truncate(&mut self, sealer: &Sealer, raw: &impl Raw, to: u64) -> Result<()> {
        let size = self.size(raw)?;
        let (cell, rest) = (to / self.unit as u64, (to % self.unit as u64) as usize);
        if to > size {
            self.fill(sealer, raw, size, to)?;
        } else if rest == 0 {
            raw.truncate(match cell.checked_sub(1) {
                None => self.base,
                Some(last) => self.at_cell(last) + self.stride() as u64,
            })?;
        } else if to < size {
            let mut content = self.content(sealer, raw, cell, size)?;
            content.truncate(rest);
            let mut sealed = vec![0; NONCE];
            sealed.extend_from_slice(&content);
            sealed.resize(rest + OVERHEAD, 0);
            sealer.seal(self.nonces.take()?, &place(cell, [0; 8]), &mut sealed)?;
            raw.write_at(&sealed, self.at_cell(cell))?;
            raw.truncate(self.at_cell(cell) + sealed.len() as u64)?;
        }
        self.tail = None;
        self.size = Some(to);
        Ok(())
    }
}

#[cold]
fn damaged(cell: u64) -> Error {
    Error::Corrupt(format!(
        "block {cell} of the encrypted file fails authentication: it is damaged, altered or of another file"
    ))
}
