//! The write-ahead log: two cells for each frame, its header and its page, as
//! SQLite writes them, so that nothing of a committed frame is ever rewritten.
//! Cells are bound to the log's salts: those of an earlier log are no frames.
//! A page's cell is bound to its page number, too: of a reader that a wal-index
//! sends to a frame, it has to be the number that the wal-index gives for it.
//!
//! A frame that fails authentication looks like the end of the log, as a torn
//! one must, unless a later frame proves that it was synced: each frame header
//! carries how far the log was known to be durable when it was written.

use super::nonce::Nonces;
use super::seal::{NONCE, OVERHEAD, Sealer, place};
use super::{MAX_IO, Raw, SECTOR};
use crate::error::{Error, Result};

const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// In a cell the frame header is followed by the number of durable frames.
const HEAD: usize = FRAME_HEADER + 4;
const HEAD_CELL: usize = HEAD + OVERHEAD;
const LOG_CELL: usize = LOG_HEADER + OVERHEAD;
/// Where the frames begin: behind the decoy and the log header's cell.
const FIRST: u64 = (LOG_HEADER + LOG_CELL) as u64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Log {
    page: usize,
    salt: [u8; 8],
    /// Each frame lies in sectors of its own.
    spaced: bool,
}

impl Log {
    /// From a log header (file format, section 4.1).
    fn of(header: &[u8; LOG_HEADER], spaced: bool) -> Option<Log> {
        let magic = u32_be(header, 0);
        let page = u32_be(header, 8) as usize;
        let valid =
            magic & !1 == 0x377f_0682 && page.is_power_of_two() && (512..=65_536).contains(&page);
        let salt = header[16..24].try_into().ok()?;
        valid.then_some(Log { page, salt, spaced })
    }

    fn at_frame(&self, frame: u64) -> u64 {
        self.first() + (frame - 1) * self.stride() as u64
    }
    fn first(&self) -> u64 {
        if self.spaced { SECTOR } else { FIRST }
    }
    fn stride(&self) -> usize {
        let cells = HEAD_CELL + self.page + OVERHEAD;
        match self.spaced {
            true => cells.next_multiple_of(SECTOR as usize),
            false => cells,
        }
    }
    fn frame(&self) -> usize {
        FRAME_HEADER + self.page
    }
}

fn u32_be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A log header with a version that no SQLite accepts: one without the key
/// refuses the log, where it would take anything else for an empty one, and
/// delete it.
fn decoy() -> [u8; LOG_HEADER] {
    let mut header = [0; LOG_HEADER];
    header[..4].copy_from_slice(&0x377f_0682u32.to_be_bytes());
    header[4..8].copy_from_slice(b"crpt");
    header[8..12].copy_from_slice(&4096u32.to_be_bytes());
    let (mut a, mut b) = (0u32, 0u32);
    for pair in header[..24].as_chunks::<8>().0 {
        let word = |i: usize| u32::from_le_bytes([pair[i], pair[i + 1], pair[i + 2], pair[i + 3]]);
        a = a.wrapping_add(word(0)).wrapping_add(b);
        b = b.wrapping_add(word(4)).wrapping_add(a);
    }
    header[24..28].copy_from_slice(&a.to_be_bytes());
    header[28..32].copy_from_slice(&b.to_be_bytes());
    header
}

pub struct Wal {
    nonces: Nonces,
    buffer: Vec<u8>,
    log: Option<Log>,
    /// The frame whose header was written last, and its page number.
    head: Option<(u64, u32)>,
    /// A commit frame whose page is yet to come.
    committing: Option<u32>,
    /// The newest commit this handle wrote, and the newest it then synced.
    committed: u32,
    durable: u32,
}

/// A part of a read or write that lies in one cell.
enum Part {
    Header,
    Head(u64),
    Page(u64),
}

impl Wal {
    pub fn new() -> Wal {
        Wal {
            nonces: Nonces::random(),
            buffer: Vec::new(),
            log: None,
            head: None,
            committing: None,
            committed: 0,
            durable: 0,
        }
    }

    fn set(&mut self, log: Option<Log>) {
        if self.log != log {
            (self.log, self.committed, self.durable) = (log, 0, 0);
            self.head = None;
        }
    }

    /// Everything written so far is on the disk.
    pub fn synced(&mut self) {
        self.durable = self.committed;
    }

    /// The log header; None if there is none. One that is not authentic is
    /// none: a crash may leave any bytes there, and so may a log of somebody
    /// else.
    fn header(&mut self, sealer: &Sealer, raw: &impl Raw) -> Result<Option<[u8; LOG_HEADER]>> {
        let mut cell = [0; LOG_CELL];
        let got = raw.read_at(&mut cell, LOG_HEADER as u64)?;
        if got < LOG_CELL || cell == [0; LOG_CELL] {
            self.set(None);
            return Ok(None);
        }
        let sealed = cell;
        let opened = [false, true].into_iter().find_map(|spaced| {
            cell = sealed;
            let content = sealer.open(&log_place(spaced), &mut cell)?;
            Some((<[u8; LOG_HEADER]>::try_from(&*content).ok()?, spaced))
        });
        let Some((header, spaced)) = opened else {
            self.set(None);
            return Ok(None);
        };
        self.set(Log::of(&header, spaced));
        Ok(Some(header))
    }

    fn log(&mut self, sealer: &Sealer, raw: &impl Raw) -> Result<Option<Log>> {
        if self.log.is_none() {
            self.header(sealer, raw)?;
        }
        Ok(self.log)
    }

    pub fn size(&mut self, sealer: &Sealer, raw: &impl Raw) -> Result<u64> {
        let size = raw.size()?;
        if size < FIRST {
            return Ok(0);
        }
        let Some(log) = self.log(sealer, raw)? else {
            return Ok(0);
        };
        let size = size.saturating_sub(log.first());
        let (frames, rest) = (
            size / log.stride() as u64,
            (size % log.stride() as u64) as usize,
        );
        let rest = match rest {
            0..HEAD_CELL => 0,
            rest => FRAME_HEADER + (rest - HEAD_CELL).saturating_sub(OVERHEAD).min(log.page),
        };
        Ok(LOG_HEADER as u64 + frames * log.frame() as u64 + rest as u64)
    }

    /// `page_of`: the page number that the wal-index gives for a frame, where
    /// others can write to it.
    pub fn read(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &mut [u8],
        at: u64,
        page_of: &dyn Fn(u64) -> Option<u32>,
    ) -> Result<usize> {
        if at == 0 && buf.len() <= LOG_HEADER {
            let header = self.header(sealer, raw)?;
            buf.copy_from_slice(&header.unwrap_or_default()[..buf.len()]);
            return Ok(header.map_or(0, |_| buf.len()));
        }
        let Some(log) = self.log(sealer, raw)? else {
            buf.fill(0);
            return Ok(0);
        };
        let behind = at.saturating_sub(LOG_HEADER as u64);
        let (frame, skip) = (
            behind / log.frame() as u64 + 1,
            (behind % log.frame() as u64) as usize,
        );
        if at >= LOG_HEADER as u64 && skip == FRAME_HEADER && buf.len() == log.page {
            return self.read_page(sealer, raw, frame, buf, page_of);
        }
        self.read_parts(sealer, raw, log, buf, at)
    }

    /// The page of a frame that the wal-index knows: it must be there.
    fn read_page(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        frame: u64,
        buf: &mut [u8],
        page_of: &dyn Fn(u64) -> Option<u32>,
    ) -> Result<usize> {
        for fresh in [false, true] {
            if fresh {
                // Another process may have begun the log anew.
                self.header(sealer, raw)?;
            }
            let Some(log) = self.log else { break };
            if log.page != buf.len() {
                break;
            }
            let number = match page_of(frame) {
                Some(number) => Some(number),
                None => self.page_number(sealer, raw, log, frame)?,
            };
            let Some(number) = number else { continue };
            self.buffer.resize(log.page + OVERHEAD, 0);
            let got = raw.read_at(&mut self.buffer, log.at_frame(frame) + HEAD_CELL as u64)?;
            if got < self.buffer.len() {
                continue;
            }
            if sealer.open_into(&page_place(frame, log, number), &mut self.buffer, buf) {
                return Ok(buf.len());
            }
        }
        Err(damaged(frame))
    }

    /// Any other read. Frames that are none read as zeros.
    fn read_parts(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        mut log: Log,
        buf: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        let have = self.size(sealer, raw)?.saturating_sub(at);
        let len = have.min(buf.len() as u64) as usize;
        let (mut filled, mut head) = (0, None);
        while filled < len {
            let (part, skip, content) = part_at(log, at + filled as u64);
            let count = (content - skip).min(len - filled);
            let out = &mut buf[filled..filled + count];
            let mut opened = self.open_part(sealer, raw, log, &part)?;
            if opened.is_none() && self.header(sealer, raw)?.is_some() {
                // Another process may have begun the log anew.
                if let Some(current) = self.log.filter(|l| *l != log && l.page == log.page) {
                    log = current;
                    opened = self.open_part(sealer, raw, log, &part)?;
                }
            }
            if let Part::Head(_) = part {
                head = Some(filled);
            }
            match (opened, part) {
                (Some(content), _) => out.copy_from_slice(&content[skip..skip + count]),
                (None, Part::Header) => out.fill(0),
                (None, Part::Head(frame) | Part::Page(frame)) => {
                    let Some(begin) = head else {
                        return Err(damaged(frame));
                    };
                    if self.proven(sealer, raw, log, frame)? {
                        return Err(damaged(frame));
                    }
                    // The frame's header, too: its checksum may be that of a
                    // page of zeros.
                    buf[begin..filled + count].fill(0);
                }
            }
            filled += count;
        }
        buf[len..].fill(0);
        Ok(len)
    }

    /// The number of the page in a frame; None where there is no frame.
    fn page_number(
        &self,
        sealer: &Sealer,
        raw: &impl Raw,
        log: Log,
        frame: u64,
    ) -> Result<Option<u32>> {
        let mut cell = [0; HEAD_CELL];
        raw.read_at(&mut cell, log.at_frame(frame))?;
        let head = sealer.open(&head_place(frame, log), &mut cell);
        Ok(head.map(|head| u32_be(head, 0)))
    }

    fn open_part(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        log: Log,
        part: &Part,
    ) -> Result<Option<Vec<u8>>> {
        let (at, len, place) = match *part {
            Part::Header => return Ok(self.header(sealer, raw)?.map(|h| h.to_vec())),
            Part::Head(frame) => (
                log.at_frame(frame),
                HEAD_CELL,
                head_place(frame, log).to_vec(),
            ),
            Part::Page(frame) => {
                let Some(number) = self.page_number(sealer, raw, log, frame)? else {
                    return Ok(None);
                };
                let place = page_place(frame, log, number).to_vec();
                (
                    log.at_frame(frame) + HEAD_CELL as u64,
                    log.page + OVERHEAD,
                    place,
                )
            }
        };
        let mut cell = vec![0; len];
        raw.read_at(&mut cell, at)?;
        Ok(sealer.open(&place, &mut cell).map(|c| c.to_vec()))
    }

    /// Whether a later frame of this log proves that `frame` was durable.
    fn proven(&self, sealer: &Sealer, raw: &impl Raw, log: Log, frame: u64) -> Result<bool> {
        let frames = raw.size()?.saturating_sub(log.first()) / log.stride() as u64 + 1;
        for later in frame..=frames {
            let mut cell = [0; HEAD_CELL];
            if raw.read_at(&mut cell, log.at_frame(later))? < HEAD_CELL {
                break;
            }
            if let Some(head) = sealer.open(&head_place(later, log), &mut cell)
                && u64::from(u32_be(head, FRAME_HEADER)) >= frame
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `spaced`: how a log is laid out that begins with this write.
    pub fn write(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        buf: &[u8],
        at: u64,
        spaced: bool,
    ) -> Result<()> {
        let mut from = 0;
        if at == 0 && buf.len() >= LOG_HEADER {
            self.write_header(sealer, raw, &buf[..LOG_HEADER], spaced)?;
            from = LOG_HEADER;
        }
        let Some(mut log) = self.log(sealer, raw)? else {
            return match from == buf.len() {
                true => Ok(()),
                false => Err(Error::Corrupt(
                    "the header of the encrypted log is gone while it is in use".into(),
                )),
            };
        };
        while from < buf.len() {
            let mut sealed = std::mem::take(&mut self.buffer);
            sealed.clear();
            let mut start = None;
            while from < buf.len() && sealed.len() + log.page + OVERHEAD <= MAX_IO {
                let (part, skip, content) = part_at(log, at + from as u64);
                if matches!(part, Part::Head(_)) && log.spaced && start.is_some() {
                    break;
                }
                let len = (content - skip).min(buf.len() - from);
                let piece = &buf[from..from + len];
                if let Part::Head(_) = part
                    && len == FRAME_HEADER
                    && piece[8..16] != log.salt
                    && start.is_none()
                {
                    // Another process began the log anew.
                    self.header(sealer, raw)?;
                    log = self.log.filter(|l| l.page == log.page).unwrap_or(log);
                }
                let phys = match part {
                    Part::Header => {
                        return Err(Error::Internal("part of a log header".into()));
                    }
                    Part::Head(frame) => log.at_frame(frame),
                    Part::Page(frame) => log.at_frame(frame) + HEAD_CELL as u64,
                };
                start.get_or_insert(phys);
                let begin = sealed.len();
                sealed.resize(begin + NONCE, 0);
                if len == content {
                    sealed.extend_from_slice(piece);
                } else {
                    let mut whole = self
                        .open_part(sealer, raw, log, &part)?
                        .unwrap_or_else(|| vec![0; content]);
                    whole[skip..skip + len].copy_from_slice(piece);
                    sealed.extend_from_slice(&whole[..content]);
                }
                if let Part::Head(frame) = part {
                    let frame = u32::try_from(frame).unwrap_or(u32::MAX);
                    self.durable = self.durable.min(frame - 1);
                    self.committed = self.committed.min(frame - 1);
                    let commits = u32_be(&sealed, begin + NONCE + 4) != 0;
                    self.committing = commits.then_some(frame);
                    self.head = Some((frame.into(), u32_be(&sealed, begin + NONCE)));
                    sealed.extend_from_slice(&self.durable.to_be_bytes());
                }
                sealed.resize(sealed.len() + OVERHEAD - NONCE, 0);
                let nonce = self.nonces.take()?;
                match part {
                    Part::Page(frame) => {
                        let number = match self.head.filter(|(of, _)| *of == frame) {
                            Some((_, number)) => Some(number),
                            None => self.page_number(sealer, raw, log, frame)?,
                        };
                        let number = number.ok_or_else(|| damaged(frame))?;
                        let place = page_place(frame, log, number);
                        sealer.seal(nonce, &place, &mut sealed[begin..])?;
                    }
                    Part::Head(frame) => {
                        let place = head_place(frame, log);
                        sealer.seal(nonce, &place, &mut sealed[begin..])?;
                    }
                    Part::Header => {}
                }
                from += len;
            }
            let written = raw.write_at(&sealed, start.unwrap_or(FIRST));
            self.buffer = sealed;
            written?;
            if let Some(frame) = self.committing
                && at + from as u64 == LOG_HEADER as u64 + u64::from(frame) * log.frame() as u64
            {
                self.committed = frame;
            }
        }
        Ok(())
    }

    fn write_header(
        &mut self,
        sealer: &Sealer,
        raw: &impl Raw,
        header: &[u8],
        spaced: bool,
    ) -> Result<()> {
        let header: &[u8; LOG_HEADER] = header
            .try_into()
            .map_err(|_| Error::Internal("a log header of another size".into()))?;
        let mut bytes = [0; LOG_HEADER + LOG_CELL];
        bytes[..LOG_HEADER].copy_from_slice(&decoy());
        let cell = &mut bytes[LOG_HEADER..];
        cell[NONCE..][..LOG_HEADER].copy_from_slice(header);
        sealer.seal(self.nonces.take()?, &log_place(spaced), cell)?;
        raw.write_at(&bytes, 0)?;
        self.set(None);
        self.set(Log::of(header, spaced));
        Ok(())
    }

    /// Cuts at the end of a frame: what is behind it is no log.
    pub fn truncate(&mut self, sealer: &Sealer, raw: &impl Raw, to: u64) -> Result<()> {
        if to < LOG_HEADER as u64 {
            self.set(None);
            return raw.truncate(0);
        }
        let Some(log) = self.log(sealer, raw)? else {
            return Ok(());
        };
        let frames = (to - LOG_HEADER as u64) / log.frame() as u64;
        let end = log.at_frame(frames + 1);
        if end < raw.size()? {
            raw.truncate(end)?;
        }
        Ok(())
    }
}

fn log_place(spaced: bool) -> [u8; 16] {
    place(spaced.into(), [0; 8])
}

fn head_place(frame: u64, log: Log) -> [u8; 16] {
    place(2 * frame, log.salt)
}

fn page_place(frame: u64, log: Log, page: u32) -> [u8; 20] {
    let mut bound = [0; 20];
    bound[..16].copy_from_slice(&place(2 * frame + 1, log.salt));
    bound[16..].copy_from_slice(&page.to_le_bytes());
    bound
}

/// The part at an offset, the offset inside it, and its whole length.
fn part_at(log: Log, at: u64) -> (Part, usize, usize) {
    let Some(behind) = at.checked_sub(LOG_HEADER as u64) else {
        return (Part::Header, at as usize, LOG_HEADER);
    };
    let frame = behind / log.frame() as u64 + 1;
    match (behind % log.frame() as u64) as usize {
        skip @ 0..FRAME_HEADER => (Part::Head(frame), skip, FRAME_HEADER),
        skip => (Part::Page(frame), skip - FRAME_HEADER, log.page),
    }
}

fn damaged(frame: u64) -> Error {
    Error::Corrupt(format!(
        "frame {frame} of the encrypted log fails authentication: it is damaged or altered"
    ))
}
