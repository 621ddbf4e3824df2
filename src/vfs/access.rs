//! What may change a replica's bytes. Everything else is refused, whatever
//! SQLite's version and options:
//!
//! | change | allowed |
//! | --- | --- |
//! | frames in the log | in a write transaction that was announced to the replica when it took WAL_WRITE_LOCK; once the primary has committed, only what fills the commit up |
//! | cutting the log back | in such a transaction, in a checkpoint, by the last one to close |
//! | pages and size of the database file | in a checkpoint (WAL_CKPT_LOCK is held), by the last one to close (EXCLUSIVE on the file, with its log open) |
//! | anything of rollback mode: RESERVED, a journal, atomic writes, EXCLUSIVE to keep | never |
//!
//! WAL_WRITE_LOCK is asked for by a transaction, upon its read lock; by a
//! checkpoint, upon WAL_CKPT_LOCK; and with neither by recovery, and by a
//! SQLite that is built with SETLK_TIMEOUT for a transaction to come. The
//! last two cannot be told apart, so neither gets it: recovery is run here,
//! and both begin again, in the usual order.

use std::ffi::c_int;

use libsqlite3_sys as sql;

use crate::ffi::shm::ShmLock;
use crate::wal::capture::CommitFrame;
use crate::wal::{PAGE_SIZE, Page};

/// What a connection is allowed to change now.
#[derive(Default)]
pub enum Phase {
    /// Nothing.
    #[default]
    Reading,
    /// The log: the transaction was announced.
    Writing,
    /// The primary has committed; the log takes what belongs to this commit.
    Committed(CommitFrame, Box<Page>),
    /// The database file, from the log.
    Checkpoint,
    /// The same: nobody else has the file open any more.
    Closing,
}

impl Phase {
    pub fn is_writing(&self) -> bool {
        matches!(self, Phase::Writing | Phase::Committed(..))
    }

    /// Whether the log is copied into the database file.
    pub fn is_copying(&self) -> bool {
        matches!(self, Phase::Checkpoint | Phase::Closing)
    }

    pub fn may_write_log(&self) -> bool {
        self.is_writing()
    }

    pub fn may_cut_log(&self) -> bool {
        self.is_writing() || self.is_copying()
    }

    pub fn may_write_file(&self) -> bool {
        self.is_copying()
    }
}

/// Who asks for WAL_WRITE_LOCK, or gives it back.
#[derive(Debug, PartialEq, Eq)]
pub enum Asks {
    /// A transaction that is to be announced.
    ToWrite,
    /// A checkpoint that lets nobody write meanwhile.
    ToCheckpoint,
    /// Recovery, or a transaction that is early.
    BeforeReading,
    /// A transaction ends.
    ToEnd,
    /// For another lock.
    Otherwise,
    /// Something that no known SQLite does.
    Unknown,
}

/// The locks of one connection.
#[derive(Default)]
pub struct Locks {
    /// Read marks that it holds, a bit each.
    readers: u32,
    /// It has the wal-index mapped, so the log is open.
    has_log: bool,
}

impl Locks {
    /// A reader's lock was taken or given back.
    #[inline]
    pub fn follow_reader(&mut self, slot: c_int, flags: c_int) {
        if slot >= ShmLock::FIRST_READER {
            let bit = 1 << slot;
            self.readers = match flags & sql::SQLITE_SHM_LOCK != 0 {
                true => self.readers | bit,
                false => self.readers & !bit,
            };
        }
    }

    pub fn log_opened(&mut self) {
        self.has_log = true;
    }

    pub fn log_closed(&mut self) {
        *self = Locks::default();
    }

    /// Whether EXCLUSIVE on the database file can be the last one's to close:
    /// a connection that is to keep it has no log open, or a transaction.
    pub fn can_close(&self, phase: &Phase) -> bool {
        self.has_log && self.readers == 0 && matches!(phase, Phase::Reading)
    }

    /// What an exclusive lock of the wal-index is wanted for.
    pub fn ask(&self, phase: &Phase, slot: c_int, count: c_int, flags: c_int) -> Asks {
        if slot != ShmLock::WRITE.slot {
            return Asks::Otherwise;
        }
        let lock = flags & sql::SQLITE_SHM_LOCK != 0;
        match (phase, lock) {
            _ if count != ShmLock::WRITE.count => Asks::Unknown,
            (Phase::Checkpoint | Phase::Closing, _) => Asks::ToCheckpoint,
            (Phase::Reading, true) if self.readers != 0 => Asks::ToWrite,
            (Phase::Reading, true) => Asks::BeforeReading,
            (Phase::Writing | Phase::Committed(..), false) => Asks::ToEnd,
            // Given back without having been taken.
            (Phase::Reading, false) => Asks::Otherwise,
            (Phase::Writing | Phase::Committed(..), true) => Asks::Unknown,
        }
    }
}

/// `None` for an exclusive lock that says nothing of checkpoints.
pub fn begins_checkpoint(slot: c_int, count: c_int, flags: c_int) -> Option<bool> {
    // Recovery takes it together with others, and changes no file.
    let alone = slot == ShmLock::CHECKPOINT.slot && count == ShmLock::CHECKPOINT.count;
    alone.then_some(flags & sql::SQLITE_SHM_LOCK != 0)
}

/// File controls that change content, or announce that: of rollback mode.
pub fn is_rollback_write(op: c_int) -> bool {
    matches!(
        op,
        sql::SQLITE_FCNTL_BEGIN_ATOMIC_WRITE
            | sql::SQLITE_FCNTL_COMMIT_ATOMIC_WRITE
            | sql::SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE
    )
}

/// Whether a write to the log behind a commit belongs to it: the commit frame
/// again, to fill a sector, or checksums of the frames before it.
pub fn belongs_to(commit: &CommitFrame, page: &Page, bytes: &[u8], at: u64) -> bool {
    use crate::wal::format::{FRAME_HEADER_SIZE, FRAME_SIZE, HEADER_SIZE};

    let Some(mut at) = at.checked_sub(HEADER_SIZE as u64) else {
        return false;
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let (frame, offset) = (
            at / FRAME_SIZE as u64 + 1,
            (at % FRAME_SIZE as u64) as usize,
        );
        let (end, is_header) = match offset < FRAME_HEADER_SIZE {
            true => (FRAME_HEADER_SIZE, true),
            false => (FRAME_SIZE, false),
        };
        let (part, behind) = rest.split_at(rest.len().min(end - offset));
        let is_behind = frame > u64::from(commit.frame);
        let fits = match is_header {
            // Of a header that is cut in two only the whole can be judged.
            true if is_behind && offset == 0 && part.len() >= 8 => {
                part[..4] == commit.pgno.to_be_bytes() && part[4..8] == commit.size.to_be_bytes()
            }
            true if !is_behind && offset == 0 && part.len() >= 8 => {
                let size = u32::from_be_bytes([part[4], part[5], part[6], part[7]]);
                (size != 0) == (frame == u64::from(commit.frame))
            }
            true => is_behind,
            false => {
                let from = offset - FRAME_HEADER_SIZE;
                is_behind && from + part.len() <= PAGE_SIZE && page[from..][..part.len()] == *part
            }
        };
        if !fits {
            return false;
        }
        at += part.len() as u64;
        rest = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::format::{FRAME_HEADER_SIZE, frame_offset};

    const LOCK: c_int = sql::SQLITE_SHM_LOCK | sql::SQLITE_SHM_EXCLUSIVE;
    const UNLOCK: c_int = sql::SQLITE_SHM_UNLOCK | sql::SQLITE_SHM_EXCLUSIVE;
    const COMMIT: CommitFrame = CommitFrame {
        frame: 3,
        pgno: 7,
        size: 9,
    };

    fn reader() -> Locks {
        let mut locks = Locks::default();
        locks.log_opened();
        locks.follow_reader(4, sql::SQLITE_SHM_LOCK | sql::SQLITE_SHM_SHARED);
        locks
    }

    #[test]
    fn the_write_lock_is_for_who_reads() {
        let committed = || Phase::Committed(COMMIT, Box::new([0; PAGE_SIZE]));
        assert_eq!(reader().ask(&Phase::Reading, 0, 1, LOCK), Asks::ToWrite);
        let none = Locks::default();
        assert_eq!(none.ask(&Phase::Reading, 0, 1, LOCK), Asks::BeforeReading);
        assert_eq!(none.ask(&Phase::Checkpoint, 0, 1, LOCK), Asks::ToCheckpoint);
        assert_eq!(reader().ask(&Phase::Writing, 0, 1, UNLOCK), Asks::ToEnd);
        assert_eq!(reader().ask(&committed(), 0, 1, UNLOCK), Asks::ToEnd);
        assert_eq!(reader().ask(&Phase::Reading, 4, 1, LOCK), Asks::Otherwise);
        // Nothing that is known does these.
        assert_eq!(reader().ask(&Phase::Reading, 0, 8, LOCK), Asks::Unknown);
        assert_eq!(reader().ask(&Phase::Writing, 0, 1, LOCK), Asks::Unknown);
        assert_eq!(reader().ask(&committed(), 0, 1, LOCK), Asks::Unknown);
    }

    #[test]
    fn the_last_to_close_has_a_log_and_reads_nothing() {
        let mut locks = reader();
        assert!(!locks.can_close(&Phase::Reading));
        locks.follow_reader(4, sql::SQLITE_SHM_UNLOCK | sql::SQLITE_SHM_SHARED);
        assert!(locks.can_close(&Phase::Reading) && !locks.can_close(&Phase::Writing));
        locks.log_closed();
        assert!(!locks.can_close(&Phase::Reading));
    }

    fn header(pgno: u32, size: u32) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_SIZE];
        bytes[..4].copy_from_slice(&pgno.to_be_bytes());
        bytes[4..8].copy_from_slice(&size.to_be_bytes());
        bytes
    }

    #[test]
    fn only_what_belongs_to_a_commit_may_follow_it() {
        let page = [5; PAGE_SIZE];
        let fits = |bytes: &[u8], frame, offset: usize| {
            belongs_to(&COMMIT, &page, bytes, frame_offset(frame) + offset as u64)
        };
        // The frame again, in its two writes, in one, and cut anywhere.
        assert!(fits(&header(7, 9), 4, 0) && fits(&page, 4, FRAME_HEADER_SIZE));
        assert!(fits(&[header(7, 9), page.to_vec()].concat(), 5, 0));
        assert!(fits(&page[..100], 4, FRAME_HEADER_SIZE));
        assert!(fits(&page[100..], 4, FRAME_HEADER_SIZE + 100));
        // Checksums before it.
        assert!(fits(&header(2, 0), 1, 0) && fits(&header(7, 9), 3, 0));
        // Another page, another commit, another content, the log anew.
        assert!(!fits(&header(8, 9), 4, 0) && !fits(&header(7, 10), 4, 0));
        assert!(!fits(&header(2, 4), 1, 0) && !fits(&header(7, 0), 3, 0));
        assert!(!fits(&[6; PAGE_SIZE], 4, FRAME_HEADER_SIZE));
        assert!(!fits(&page, 3, FRAME_HEADER_SIZE));
        assert!(!belongs_to(&COMMIT, &page, &[0; 32], 0));
    }
}
