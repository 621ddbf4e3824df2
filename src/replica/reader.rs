//! A replica as somebody sees it who only reads it: `mode=ro`, or a file that
//! this process cannot write to. Nothing is made for that, and nothing works
//! in the background; where the content is in the primary's history is looked
//! up in what the writing processes have recorded.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Replica;
use super::beside;
use super::identity::Identity;
use super::position::PositionFile;
use super::record::{Record, Stamp};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::ffi::file::{FileKind, OsFile};
use crate::ffi::fork;
use crate::ffi::vfs::BaseVfs;
use crate::wal::index::{Header, WalIndex};

pub struct Reader {
    vfs: BaseVfs,
    path: String,
    store: PositionFile,
    /// The state that was last known, and the wal-index header it had.
    seen: Option<(Header, Record)>,
}

/// What the log of a database says of its end.
enum Log {
    Empty,
    Ends(Header),
    /// Nobody has looked at it since it was last written.
    Unknown,
}

impl Reader {
    /// None if the database is no replica.
    pub fn find(vfs: &BaseVfs, path: &str) -> Result<Option<Reader>> {
        let Some(store) = PositionFile::open_to_read(path)? else {
            return Ok(None);
        };
        Ok(Some(Reader {
            vfs: *vfs,
            path: path.to_string(),
            store,
            seen: None,
        }))
    }

    pub fn identity(&self) -> &Identity {
        self.store.identity()
    }

    /// The record of the content as it is now; None if that cannot be told.
    pub fn look(&mut self) -> Result<Option<Record>> {
        let _inside = fork::inside();
        self.store.refresh()?;
        let stamp = Stamp::of(&self.path)?;
        let found = match self.log()? {
            Log::Unknown => None,
            Log::Empty => self.store.find(None, &stamp).cloned(),
            Log::Ends(header) => {
                let record = self.store.known(&header, &stamp, self.seen.as_ref());
                self.seen = record.clone().map(|record| (header, record));
                record
            }
        };
        Ok(found)
    }

    /// What was recorded last: of the content, unless a crash came in between.
    pub fn last(&self) -> Option<&Record> {
        self.store.last()
    }

    fn log(&self) -> Result<Log> {
        if !self.vfs.exists(&format!("{}-shm", self.path))? {
            let size = std::fs::metadata(format!("{}-wal", self.path)).map_or(0, |m| m.len());
            return Ok(if size == 0 { Log::Empty } else { Log::Unknown });
        }
        let mut db = OsFile::open_to_read(&self.vfs, &self.path, FileKind::Database)?;
        if db.open_shm().is_err() {
            return Ok(Log::Unknown);
        }
        let header = WalIndex(&db).header().unwrap_or(None);
        Ok(header.map_or(Log::Unknown, Log::Ends))
    }
}

impl Replica {
    /// For those who only read it. Nothing is made, nobody is asked.
    pub fn to_read(vfs: BaseVfs, path: &str, options: Options, reader: Reader) -> Result<Replica> {
        let mut replica = Replica::new(vfs, path, options)?;
        replica.reader = Some(Mutex::new(reader));
        Ok(replica)
    }

    /// An error where nobody can write to it.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.reader {
            None => Ok(()),
            Some(_) => Err(reads_only(&self.path)),
        }
    }

    /// Whether another process has brought the frame before the deadline.
    pub(super) fn see(&self, frame_no: u64, deadline: Instant) -> bool {
        loop {
            if self.look().flatten() >= Some(frame_no) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

/// The words for a database that has nothing to read.
pub fn nothing_to_read(path: &str) -> Error {
    Error::CantOpen(format!(
        "'{path}' has no content yet, and an open for reading alone fetches none; open it once by a process that may write to it"
    ))
}

/// The words for what only a process that writes can do.
fn reads_only(path: &str) -> Error {
    Error::ReadOnly(format!(
        "'{path}' is open for reading alone (mode=ro, or its rights allow no more); a connection that can write to it is needed for this"
    ))
}

/// Without locks, while others write, whoever reads gets torn pages.
pub fn refuse_without_locks(path: &str, option: &str) -> Result<()> {
    if !beside::is_replica(path) {
        return Ok(());
    }
    Err(Error::CantOpen(format!(
        "'{path}' is a replica, which changes with every sync: {option}=1 would read it without locks and without its log; mode=ro reads it as it should be, and VACUUM INTO makes a copy for {option}=1"
    )))
}
