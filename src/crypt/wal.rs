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
use super::seal::{NONCE, OVERHEAD, Sealer};
use super::wal_layout::*;
use super::{MAX_IO, Raw};
use crate::error::{Error, Result};

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

fn damaged(frame: u64) -> Error {
    Error::Corrupt(format!(
        "frame {frame} of the encrypted log fails authentication: it is damaged or altered"
    ))
}
