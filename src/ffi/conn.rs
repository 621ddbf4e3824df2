//! A connection of our own to a database of the host, through the base VFS:
//! SQLite itself does recovery and checkpoints on it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libsqlite3_sys as sql;

use super::own;
use super::vfs::BaseVfs;
use crate::error::{Error, Result};

/// Whether the connection being opened on this thread is one of ours: it needs
/// none of our functions.
pub fn is_opening() -> bool {
    own::is_own()
}

pub struct Connection {
    db: *mut sql::sqlite3,
    path: String,
}

// SAFETY: used by one thread at a time (no `&Connection` crosses threads).
unsafe impl Send for Connection {}

/// How far `Connection::checkpoint` goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    Passive,
    Truncate,
}

impl Connection {
    pub fn open(vfs: &BaseVfs, path: &str) -> Result<Connection> {
        let name =
            CString::new(path).map_err(|_| Error::Config(format!("path '{path}' holds a NUL")))?;
        let mut db = ptr::null_mut();
        let opening = own::open();
        // SAFETY: an existing file, no creation; the handle is closed by Drop also after an error.
        let rc = unsafe {
            let flags = sql::SQLITE_OPEN_READWRITE
                | sql::SQLITE_OPEN_NOMUTEX
                | sql::SQLITE_OPEN_PRIVATECACHE;
            sql::sqlite3_open_v2(name.as_ptr(), &mut db, flags, vfs.name().as_ptr())
        };
        drop(opening);
        let conn = Connection {
            db,
            path: path.to_string(),
        };
        conn.check("open", rc)?;
        // Before anything is read: a SQLite may be built to lock exclusively.
        conn.run(c"PRAGMA locking_mode=NORMAL")?;
        conn.run(c"PRAGMA wal_autocheckpoint=0")?;
        conn.run(c"PRAGMA synchronous=NORMAL")?;
        Ok(conn)
    }

    fn check(&self, op: &'static str, rc: c_int) -> Result<()> {
        match rc {
            sql::SQLITE_OK => Ok(()),
            rc if rc & 0xff == sql::SQLITE_BUSY => Err(Error::Busy(format!(
                "{op} {}: the database is locked",
                self.path
            ))),
            rc => Err(Error::io(op, &self.path, rc)),
        }
    }

    fn run(&self, statement: &CStr) -> Result<()> {
        // SAFETY: our own live connection; no callback.
        let rc = unsafe {
            sql::sqlite3_exec(
                self.db,
                statement.as_ptr(),
                None,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        self.check("query", rc)
    }

    /// Begins and ends a read transaction: a hot journal is rolled back, the
    /// WAL recovered and the wal-index made valid if they were not.
    pub fn touch(&self) -> Result<()> {
        self.run(c"SELECT 1 FROM sqlite_schema LIMIT 1")
    }

    pub fn in_wal_mode(&self) -> Result<bool> {
        unsafe extern "C" fn first_column(
            out: *mut c_void,
            count: c_int,
            values: *mut *mut c_char,
            _names: *mut *mut c_char,
        ) -> c_int {
            // SAFETY: sqlite3_exec's contract for its callback; `out` is ours.
            unsafe {
                if count > 0 && !(*values).is_null() {
                    *out.cast::<bool>() = CStr::from_ptr(*values) == c"wal";
                }
            }
            0
        }
        let mut wal = false;
        // SAFETY: our own live connection; the callback gets a bool to write to.
        let rc = unsafe {
            let statement = c"PRAGMA journal_mode".as_ptr();
            sql::sqlite3_exec(
                self.db,
                statement,
                Some(first_column),
                (&raw mut wal).cast(),
                ptr::null_mut(),
            )
        };
        self.check("query", rc).map(|()| wal)
    }

    pub fn enter_wal_mode(&self) -> Result<()> {
        self.run(c"PRAGMA journal_mode=WAL")?;
        self.touch()
    }

    /// Checkpoints without waiting for anybody; answers (frames in the log,
    /// frames of it in the database), or None where the other holds a lock.
    pub fn checkpoint(&self, how: Checkpoint) -> Result<Option<(u32, u32)>> {
        let mode = match how {
            Checkpoint::Passive => sql::SQLITE_CHECKPOINT_PASSIVE,
            Checkpoint::Truncate => sql::SQLITE_CHECKPOINT_TRUNCATE,
        };
        let (mut log, mut done) = (-1, -1);
        // SAFETY: our own live connection; two ints are written.
        let rc = unsafe {
            sql::sqlite3_wal_checkpoint_v2(self.db, c"main".as_ptr(), mode, &mut log, &mut done)
        };
        match rc & 0xff {
            sql::SQLITE_BUSY | sql::SQLITE_LOCKED => Ok(None),
            _ => self
                .check("checkpoint", rc)
                .map(|()| Some((log.max(0) as u32, done.max(0) as u32))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: closed once; no statement of ours is open (sqlite3_exec finalizes).
        unsafe { sql::sqlite3_close(self.db) };
    }
}
