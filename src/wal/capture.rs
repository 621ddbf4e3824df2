//! A transaction as SQLite writes it to the log, seen from its file writes
//! (wal.c, `walWriteOneFrame`, `sqlite3WalFrames`): a header, then the page;
//! the commit frame last, recognized by the database size in its header. Pages
//! spilled before may be overwritten in place, frames rolled back to a
//! savepoint are written again.

use std::collections::BTreeMap;

use super::format::{FRAME_HEADER_SIZE, FRAME_SIZE, HEADER_SIZE};
use super::{PAGE_SIZE, Page};

/// The frame that commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitFrame {
    pub frame: u32,
    pub pgno: u32,
    /// Database size in pages after the transaction.
    pub size: u32,
}

#[derive(Default)]
pub struct Capture {
    /// Page number of every frame written since the write lock was taken.
    frames: BTreeMap<u32, u32>,
    /// A commit frame of which only the header is written yet.
    pending: Option<CommitFrame>,
}

impl Capture {
    /// Forgets everything: another transaction begins.
    pub fn clear(&mut self) {
        *self = Capture::default();
    }

    /// Page numbers of the transaction's frames up to its commit frame.
    pub fn frames(&self, commit: CommitFrame) -> BTreeMap<u32, u32> {
        self.frames
            .range(..=commit.frame)
            .map(|(&f, &p)| (f, p))
            .collect()
    }

    /// The last frame that was written: behind a commit frame if some were
    /// rolled back to a savepoint.
    pub fn last(&self) -> u32 {
        self.frames.last_key_value().map_or(0, |(frame, _)| *frame)
    }

    /// Whether the header of a commit frame was written, and its page was not.
    pub fn is_commit_due(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a write has a form that SQLite's writes to a log have.
    pub fn knows(bytes: &[u8], at: u64) -> bool {
        let Some(behind) = at.checked_sub(HEADER_SIZE as u64) else {
            return at == 0 && bytes.len() == HEADER_SIZE;
        };
        match (behind % FRAME_SIZE as u64) as usize {
            0 => matches!(bytes.len(), FRAME_HEADER_SIZE | FRAME_SIZE),
            FRAME_HEADER_SIZE => bytes.len() == PAGE_SIZE,
            _ => false,
        }
    }

    /// Takes note of a write to the log. If it is the one after which the
    /// transaction is committed, answers its frame and page.
    pub fn write<'a>(&mut self, bytes: &'a [u8], at: u64) -> Option<(CommitFrame, &'a Page)> {
        if at == 0 && bytes.len() >= HEADER_SIZE {
            // The log begins anew.
            self.clear();
            return None;
        }
        let at = at.checked_sub(HEADER_SIZE as u64)?;
        let frame = u32::try_from(at / FRAME_SIZE as u64).ok()?.checked_add(1)?;
        let offset = (at % FRAME_SIZE as u64) as usize;
        if offset == 0 && bytes.len() >= FRAME_HEADER_SIZE {
            let word = |at: usize| {
                u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            };
            let (pgno, size) = (word(0), word(4));
            self.frames.insert(frame, pgno);
            self.pending = (size != 0).then_some(CommitFrame { frame, pgno, size });
            return self.commit(frame, &bytes[FRAME_HEADER_SIZE..]);
        }
        match offset {
            FRAME_HEADER_SIZE => self.commit(frame, bytes),
            _ => None,
        }
    }

    fn commit<'a>(&mut self, frame: u32, page: &'a [u8]) -> Option<(CommitFrame, &'a Page)> {
        let page: &Page = page.get(..PAGE_SIZE)?.try_into().ok()?;
        self.pending
            .take_if(|commit| commit.frame == frame)
            .map(|commit| (commit, page))
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::frame_offset;
    use super::*;

    const PAGE: Page = [7; PAGE_SIZE];

    fn header(pgno: u32, size: u32) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_SIZE];
        bytes[..4].copy_from_slice(&pgno.to_be_bytes());
        bytes[4..8].copy_from_slice(&size.to_be_bytes());
        bytes
    }

    fn frame(capture: &mut Capture, frame: u32, pgno: u32, size: u32) -> Option<CommitFrame> {
        let at = frame_offset(frame);
        assert!(capture.write(&header(pgno, size), at).is_none());
        capture
            .write(&PAGE, at + FRAME_HEADER_SIZE as u64)
            .map(|(commit, page)| {
                assert_eq!(page, &PAGE);
                commit
            })
    }

    fn pgnos(capture: &Capture, commit: CommitFrame) -> Vec<(u32, u32)> {
        capture.frames(commit).into_iter().collect()
    }

    #[test]
    fn only_the_commit_frame_commits() {
        let mut capture = Capture::default();
        assert_eq!(frame(&mut capture, 4, 2, 0), None);
        assert!(!capture.is_commit_due());
        let commit = frame(&mut capture, 5, 9, 12).unwrap();
        assert!(!capture.is_commit_due());
        assert_eq!(
            commit,
            CommitFrame {
                frame: 5,
                pgno: 9,
                size: 12
            }
        );
        assert_eq!(pgnos(&capture, commit), [(4, 2), (5, 9)]);
        // Checksums are rewritten behind it, header by header.
        assert!(capture.write(&header(9, 12), frame_offset(5)).is_none());
    }

    #[test]
    fn other_forms_of_writes_are_not_known() {
        let at = frame_offset(2);
        assert!(Capture::knows(&[0; HEADER_SIZE], 0) && Capture::knows(&[0; FRAME_SIZE], at));
        assert!(Capture::knows(&PAGE, at + FRAME_HEADER_SIZE as u64));
        assert!(!Capture::knows(&[0; 8192], at + FRAME_HEADER_SIZE as u64));
        assert!(!Capture::knows(&PAGE, at) && !Capture::knows(&PAGE, at + 100));
        assert!(!Capture::knows(&[0; 2 * FRAME_SIZE], at) && !Capture::knows(&PAGE, 8));
    }

    #[test]
    fn a_frame_in_one_write() {
        let mut bytes = header(3, 4);
        bytes.extend_from_slice(&PAGE);
        let mut capture = Capture::default();
        let (commit, page) = capture.write(&bytes, frame_offset(1)).unwrap();
        assert_eq!((commit.pgno, page), (3, &PAGE));
    }

    #[test]
    fn spilled_pages_rewritten_and_rolled_back() {
        let mut capture = Capture::default();
        (1..=6).for_each(|n| assert!(frame(&mut capture, n, 10 + n, 0).is_none()));
        // In place: the page alone.
        assert!(
            capture
                .write(&PAGE, frame_offset(2) + FRAME_HEADER_SIZE as u64)
                .is_none()
        );
        // Back to a savepoint after frame 3, and on with other pages.
        assert!(frame(&mut capture, 4, 50, 0).is_none());
        let commit = frame(&mut capture, 5, 51, 60).unwrap();
        assert_eq!(
            pgnos(&capture, commit),
            [(1, 11), (2, 12), (3, 13), (4, 50), (5, 51)]
        );
        assert_eq!(capture.last(), 6);
    }

    #[test]
    fn a_log_begun_anew_forgets() {
        let mut capture = Capture::default();
        assert!(frame(&mut capture, 7, 1, 0).is_none());
        assert!(capture.write(&[0; HEADER_SIZE], 0).is_none());
        let commit = frame(&mut capture, 1, 2, 3).unwrap();
        assert_eq!(pgnos(&capture, commit), [(1, 2)]);
    }
}
