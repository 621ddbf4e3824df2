//! Our own handles on a replica's database: the file, its log, and a
//! connection on which SQLite itself recovers and checkpoints.

use std::time::{Duration, Instant};

use libsqlite3_sys as sql;

use super::digest::{Digest, PageHash};
use super::record::Stamp;
use crate::error::{Error, Result};
use crate::ffi::attention;
use crate::ffi::conn::Connection;
use crate::ffi::file::{FileKind, OsFile};
use crate::ffi::shm::ShmLock;
use crate::ffi::vfs::BaseVfs;
use crate::wal::PAGE_SIZE;
use crate::wal::index::{Header, WalIndex};
use crate::wal::reader::Reader;
use crate::wal::writer::LogEnd;

/// Fields drop in this order: the connection last, so that it closes as the
/// last user does, checkpointing and removing the log.
pub struct Files {
    pub vfs: BaseVfs,
    pub db: OsFile,
    pub wal: OsFile,
    pub conn: Connection,
    /// How this database's pages are hashed.
    pub hash: PageHash,
    inode: u64,
}

/// WAL_WRITE_LOCK, given back on drop.
pub struct WriteLock<'a>(Option<&'a OsFile>);

impl Drop for WriteLock<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            file.shm_unlock(ShmLock::WRITE);
        }
    }
}

/// How to come by WAL_WRITE_LOCK.
#[derive(Clone, Copy)]
pub enum Hold {
    /// Wait for it, at most so long.
    Take(Duration),
    /// The connection on whose behalf this runs has it, and keeps it.
    Held,
}

impl Files {
    /// Opens a database that exists, recovering it if that is due. None if it
    /// is not in WAL mode: then it is not as this library left it.
    pub fn open(vfs: &BaseVfs, path: &str, hash: PageHash) -> Result<Option<Files>> {
        let conn = Connection::open(vfs, path)?;
        conn.touch()?;
        if conn.in_wal_mode()? {
            Self::with(vfs, path, conn, hash).map(Some)
        } else {
            Ok(None)
        }
    }

    /// As `open`, and puts the database into WAL mode if it is not.
    pub fn open_converted(vfs: &BaseVfs, path: &str, hash: PageHash) -> Result<Files> {
        let conn = Connection::open(vfs, path)?;
        conn.enter_wal_mode()?;
        Self::with(vfs, path, conn, hash)
    }

    fn with(vfs: &BaseVfs, path: &str, conn: Connection, hash: PageHash) -> Result<Files> {
        let mut db = OsFile::open(vfs, path, FileKind::Database, false)?;
        if !db.lock(sql::SQLITE_LOCK_SHARED)? {
            return Err(Error::Busy(format!("'{path}' is locked")));
        }
        db.open_shm()?;
        let wal = OsFile::open(vfs, path, FileKind::Wal, true)?;
        Ok(Files {
            vfs: *vfs,
            db,
            wal,
            conn,
            hash,
            inode: Stamp::of(path)?.inode,
        })
    }

    pub fn index(&self) -> WalIndex<'_, OsFile> {
        WalIndex(&self.db)
    }

    /// The current header; recovery is SQLite's, on our connection.
    pub fn header(&self) -> Result<Header> {
        for attempt in 0..50 {
            if let Some(header) = self.index().header()? {
                return Ok(header);
            }
            // A writer is publishing, or one died doing so.
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            match self.conn.touch() {
                Ok(()) | Err(Error::Busy(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Busy(format!(
            "the wal-index of '{}' stays invalid",
            self.db.path()
        )))
    }

    /// The write lock, and the header that holds under it.
    pub fn write_lock(&self, hold: Hold) -> Result<(WriteLock<'_>, Header)> {
        let Hold::Take(timeout) = hold else {
            return self.header().map(|header| (WriteLock(None), header));
        };
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            // Recovery first: it needs the lock for itself.
            self.header()?;
            if self.db.shm_lock(ShmLock::WRITE)? {
                let lock = WriteLock(Some(&self.db));
                if let Some(header) = self.index().header()? {
                    return Ok((lock, header));
                }
            }
            if Instant::now() + pause > deadline {
                return Err(Error::Busy(format!(
                    "'{}': another connection is writing",
                    self.db.path()
                )));
            }
            attention::pause(pause)?;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    pub fn reader(&self, header: Header) -> Reader<'_, OsFile, OsFile> {
        Reader {
            db: &self.db,
            wal: Some(&self.wal),
            index: self.index(),
            header,
        }
    }

    /// The digest of the whole content, and its size. Holding the write lock.
    pub fn digest(&self, header: Header) -> Result<(Digest, u32)> {
        self.digest_by(self.hash, header)
    }

    pub fn digest_by(&self, hash: PageHash, header: Header) -> Result<(Digest, u32)> {
        let reader = self.reader(header);
        let page_count = reader.page_count()?;
        let (mut digest, mut page) = (Digest::default(), Box::new([0; PAGE_SIZE]));
        for pgno in 1..=page_count {
            reader.read(pgno, &mut page)?;
            digest.add(hash.of(pgno, &page));
        }
        Ok((digest, page_count))
    }

    /// The stamp of the database file; an error if the name leads to another
    /// file than the one that is open.
    pub fn stamp(&self, settled: bool) -> Result<Stamp> {
        let path = self.db.path();
        let stamp = if settled {
            Stamp::settled(path)?
        } else {
            Stamp::of(path)?
        };
        if stamp.inode != self.inode {
            return Err(Error::Corrupt(format!(
                "'{path}' was replaced by another file while it was open; close every connection to it and open it again"
            )));
        }
        Ok(stamp)
    }
}

/// The end of a log that has transactions.
pub fn log_end(header: &Header) -> Option<LogEnd> {
    (header.max_frame > 0).then(|| LogEnd::of(header))
}
