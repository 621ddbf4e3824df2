//! The file of an encrypted database as one connection has it open.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use libsqlite3_sys as sql;

use super::files::RealBytes;
use super::{FCNTL_IS_SEALED, host};
use crate::crypt::db::Db;
use crate::crypt::journal;
use crate::crypt::vault::Vault;
use crate::error::{Error, Result};
use crate::ffi::file::{FileKind, OsFile, Real};
use crate::ffi::pragma::Pragma;
use crate::ffi::sealed_shm::Mapped;
use crate::ffi::sealed_vfs::Host;
use crate::ffi::vfs::BaseVfs;

/// What the log of a connection needs of its database file.
pub struct Shared {
    path: String,
    pub index: Arc<Mapped>,
    /// The log is open: the database's size is what it says.
    pub has_log: AtomicBool,
}

thread_local! {
    /// The database that this thread locked last: SQLite locks it, then opens
    /// its log, in one go.
    static LOCKED: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

/// The database whose log this thread is about to open.
pub fn of_log(path: &str) -> Option<Arc<Shared>> {
    LOCKED
        .with_borrow(Weak::upgrade)
        .filter(|shared| shared.path == path)
}

pub struct Database {
    pub db: Db,
    shared: Arc<Shared>,
    /// Why this connection may not use it.
    refused: Option<Error>,
    /// SQLite has not yet named the connection.
    opening: bool,
    /// Whether the connection was told, when it opened the file, that writes
    /// are of whole cells: it does not ask again.
    told_cells: Option<bool>,
    /// The page size that the connection asked for, if cells are larger.
    smaller: Option<usize>,
    base: BaseVfs,
    vault: Arc<Vault>,
}

/// The most that SQLite takes for a sector; spaced cells are laid out for it.
const LARGEST_SECTOR: usize = 65_536;

/// Whether a write of a part of a sector leaves the rest of it alone.
fn is_powersafe(real: Real) -> bool {
    real.device_characteristics() & sql::SQLITE_IOCAP_POWERSAFE_OVERWRITE != 0
}

/// Whether the journal beside a database file is that of its first transaction.
pub fn is_unfinished(base: &BaseVfs, path: &str) -> bool {
    let mut head = [0; 16];
    let got = OsFile::peek(base, path, FileKind::Journal, &mut head);
    journal::is_of_first_transaction(&head[..got])
}

impl Database {
    pub fn new(path: &str, vault: Arc<Vault>, base: BaseVfs, real: Real) -> Database {
        if !is_powersafe(real) {
            vault.set_careful();
        }
        let of = path.to_string();
        let unfinished = move || is_unfinished(&base, &of);
        Database {
            db: Db::new(vault.clone(), Box::new(unfinished)),
            shared: Arc::new(Shared {
                path: path.to_string(),
                index: Arc::default(),
                has_log: AtomicBool::new(false),
            }),
            refused: None,
            opening: true,
            told_cells: None,
            smaller: None,
            base,
            vault,
        }
    }

    pub fn path(&self) -> &str {
        &self.shared.path
    }

    pub fn index(&self) -> Arc<Mapped> {
        self.shared.index.clone()
    }

    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    pub fn allowed(&self) -> Result<()> {
        match &self.refused {
            None => Ok(()),
            Some(refused) => Err(refused.clone()),
        }
    }

    pub fn read(&mut self, raw: &RealBytes, buf: &mut [u8], at: u64) -> Result<usize> {
        self.allowed()?;
        let read = self.db.read(raw, buf, at);
        if at == 0
            && !matches!(read, Ok(got) if got == buf.len())
            && let Some(page) = self.db.page_size(raw).filter(|page| *page < buf.len())
        {
            // SQLite does not know the page size yet: what is behind page 1
            // may be a free page, and anything.
            buf[page..].fill(0);
            return self.db.read(raw, &mut buf[..page], 0);
        }
        let got = read?;
        self.whole(raw, buf.len(), at, got).map(|()| got)
    }

    /// Of a page all is there, or nothing. And where there is a log, nothing
    /// may be missing: the database is as long as the log says, and SQLite
    /// would take what the file lacks for zeros.
    pub fn whole(&mut self, raw: &RealBytes, len: usize, at: u64, got: usize) -> Result<()> {
        let is_page = |unit| len >= unit && at.is_multiple_of(len as u64);
        if got == len
            || !self.db.unit().is_some_and(is_page)
            || (got == 0 && !self.has_log())
            || self.db.shared_cells(raw).is_some()
        {
            return Ok(());
        }
        Err(Error::Corrupt(format!(
            "the encrypted database was cut off: the page at {at} is missing"
        )))
    }

    pub fn write(&mut self, raw: &RealBytes, buf: &[u8], at: u64) -> Result<()> {
        self.allowed()?;
        self.db.write(raw, buf, at)
    }

    pub fn lock(&mut self, real: Real, level: c_int) -> Result<c_int> {
        self.allowed()?;
        let rc = real.lock(level);
        if rc != sql::SQLITE_OK {
            return Ok(rc);
        }
        let raw = RealBytes(real);
        self.db.locked(&raw);
        if level == sql::SQLITE_LOCK_RESERVED {
            if self.db.sweep(&raw)? {
                return Ok(real.sync(sql::SQLITE_SYNC_NORMAL));
            }
            if self.told_cells == Some(false) && self.db.shared_cells(&raw).is_some() {
                real.unlock(sql::SQLITE_LOCK_SHARED);
                return Err(Error::ReadOnly(
                    "the pages of this encrypted database were made smaller than its cells while this connection had it open: open it anew to write".into(),
                ));
            }
        }
        LOCKED.set(Arc::downgrade(&self.shared));
        Ok(rc)
    }

    /// Bytes that are written as one, where they are more than a page.
    pub fn sector(&mut self, real: Real) -> Option<usize> {
        let unit = self.db.shared_cells(&RealBytes(real));
        self.told_cells.get_or_insert(unit.is_some());
        unit
    }

    /// What SQLite has to keep, and to write, as one. A journal that is there
    /// may have been written for less, and would seem to be cut off.
    pub fn sector_size(&mut self, real: Real) -> c_int {
        let cells = self.sector(real).unwrap_or(0);
        if is_powersafe(real) {
            return real.sector_size().max(cells as c_int);
        }
        let mut head = [0; journal::HEAD];
        let got = OsFile::peek(&self.base, self.path(), FileKind::Journal, &mut head);
        let keys = self.vault.keys().ok().filter(|_| self.vault.is_written());
        let hot = keys.and_then(|keys| journal::sector_of(&keys.journal, &head[..got]));
        hot.unwrap_or(LARGEST_SECTOR).clamp(512, LARGEST_SECTOR) as c_int
    }

    /// None: the real file answers.
    pub fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> Option<c_int> {
        if op == FCNTL_IS_SEALED && !self.is_refused() {
            return Some(sql::SQLITE_OK);
        }
        if op == sql::SQLITE_FCNTL_CKPT_START {
            self.db.forget_size();
        }
        if op == sql::SQLITE_FCNTL_OVERWRITE && self.smaller.is_some() && !self.has_log() {
            let refused = Error::ReadOnly("VACUUM would make the pages of this encrypted database smaller than its cells; VACUUM INTO makes a new file with any page size".into());
            return Some(super::failed(self.path(), &refused));
        }
        // Later ones may name any connection that shares the cache, on
        // whatever thread.
        if self.opening
            && let Some(host) = Host::from_file_control(op, arg)
        {
            self.opening = false;
            self.refused = host::refusal(&host, self.path());
        }
        Pragma::from_file_control(op, arg).and_then(|pragma| self.pragma(real, pragma))
    }

    fn has_log(&self) -> bool {
        self.shared.has_log.load(Ordering::Relaxed)
    }

    fn pragma(&mut self, real: Real, pragma: Pragma) -> Option<c_int> {
        match (pragma.name.as_str(), pragma.value.as_deref()) {
            ("page_size", Some(size)) => {
                let smaller = |size: &usize| self.db.unit().is_some_and(|unit| *size < unit);
                self.smaller = size.parse().ok().filter(smaller).filter(|n| *n >= 512);
                None
            }
            ("journal_mode", Some("wal")) if self.sector(real).is_some() => Some(pragma.refuse(
                "the pages of this encrypted database are smaller than its cells; VACUUM INTO makes a new file that can have a log",
            )),
            _ => None,
        }
    }
}
