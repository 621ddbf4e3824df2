//! Where the parts of a log lie: the decoy, the log header's cell, and two
//! cells for each frame.

use super::SECTOR;
use super::seal::{OVERHEAD, place};

pub(super) const LOG_HEADER: usize = 32;
pub(super) const FRAME_HEADER: usize = 24;
/// In a cell the frame header is followed by the number of durable frames.
pub(super) const HEAD: usize = FRAME_HEADER + 4;
pub(super) const HEAD_CELL: usize = HEAD + OVERHEAD;
pub(super) const LOG_CELL: usize = LOG_HEADER + OVERHEAD;
/// Where the frames begin: behind the decoy and the log header's cell.
pub(super) const FIRST: u64 = (LOG_HEADER + LOG_CELL) as u64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) page: usize,
    pub(super) salt: [u8; 8],
    /// Each frame lies in sectors of its own.
    pub(super) spaced: bool,
}

impl Log {
    /// From a log header (file format, section 4.1).
    pub(super) fn of(header: &[u8; LOG_HEADER], spaced: bool) -> Option<Log> {
        let magic = u32_be(header, 0);
        let page = u32_be(header, 8) as usize;
        let valid =
            magic & !1 == 0x377f_0682 && page.is_power_of_two() && (512..=65_536).contains(&page);
        let salt = header[16..24].try_into().ok()?;
        valid.then_some(Log { page, salt, spaced })
    }

    pub(super) fn at_frame(&self, frame: u64) -> u64 {
        self.first() + (frame - 1) * self.stride() as u64
    }
    pub(super) fn first(&self) -> u64 {
        if self.spaced { SECTOR } else { FIRST }
    }
    pub(super) fn stride(&self) -> usize {
        let cells = HEAD_CELL + self.page + OVERHEAD;
        match self.spaced {
            true => cells.next_multiple_of(SECTOR as usize),
            false => cells,
        }
    }
    pub(super) fn frame(&self) -> usize {
        FRAME_HEADER + self.page
    }
}

pub(super) fn u32_be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A log header with a version that no SQLite accepts: one without the key
/// refuses the log, where it would take anything else for an empty one, and
/// delete it.
pub(super) fn decoy() -> [u8; LOG_HEADER] {
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

/// A part of a read or write that lies in one cell.
pub(super) enum Part {
    Header,
    Head(u64),
    Page(u64),
}

pub(super) fn log_place(spaced: bool) -> [u8; 16] {
    place(spaced.into(), [0; 8])
}

pub(super) fn head_place(frame: u64, log: Log) -> [u8; 16] {
    place(2 * frame, log.salt)
}

pub(super) fn page_place(frame: u64, log: Log, page: u32) -> [u8; 20] {
    let mut bound = [0; 20];
    bound[..16].copy_from_slice(&place(2 * frame + 1, log.salt));
    bound[16..].copy_from_slice(&page.to_le_bytes());
    bound
}

/// The part at an offset, the offset inside it, and its whole length.
pub(super) fn part_at(log: Log, at: u64) -> (Part, usize, usize) {
    let Some(behind) = at.checked_sub(LOG_HEADER as u64) else {
        return (Part::Header, at as usize, LOG_HEADER);
    };
    let frame = behind / log.frame() as u64 + 1;
    match (behind % log.frame() as u64) as usize {
        skip @ 0..FRAME_HEADER => (Part::Head(frame), skip, FRAME_HEADER),
        skip => (Part::Page(frame), skip - FRAME_HEADER, log.page),
    }
}
