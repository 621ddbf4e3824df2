//! The kinds of sealed files, between SQLite's calls and their layouts.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libsqlite3_sys as sql;
use zeroize::Zeroizing;

use super::database::{Database, Shared};
use super::{FCNTL_IS_SEALED, failed};
use crate::crypt::grid::Grid;
use crate::crypt::journal;
use crate::crypt::keys::FileKeys;
use crate::crypt::seal::Sealer;
use crate::crypt::vault::Vault;
use crate::crypt::wal::Wal;
use crate::crypt::{Raw, nonce};
use crate::error::{Error, Result};
use crate::ffi::file::Real;
use crate::ffi::pragma::prefix_vfs_name;
use crate::ffi::sealed_file::SealedOps;
use crate::ffi::sealed_shm::Mapped;
use crate::wal::index;

/// The bytes of a real file.
pub struct RealBytes(pub Real);

impl RealBytes {
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        self.read_at(buf, 0)
    }

    fn check(&self, op: &'static str, rc: c_int) -> Result<()> {
        match rc {
            sql::SQLITE_OK => Ok(()),
            rc => Err(Error::io(op, "the encrypted file", rc)),
        }
    }
}

impl Raw for RealBytes {
    #[inline(always)]
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        match self.0.read_bytes(buf, at) {
            sql::SQLITE_OK => Ok(buf.len()),
            sql::SQLITE_IOERR_SHORT_READ => {
                let have = self.size()?.saturating_sub(at).min(buf.len() as u64) as usize;
                buf[have..].fill(0);
                Ok(have)
            }
            rc => self.check("read", rc).map(|()| buf.len()),
        }
    }
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.check("write", self.0.write_bytes(buf, at))
    }
    fn truncate(&self, size: u64) -> Result<()> {
        self.check("truncate", self.0.truncate(size as i64))
    }
    fn size(&self) -> Result<u64> {
        self.0
            .bytes()
            .map_err(|rc| Error::io("size of", "the encrypted file", rc))
    }
}

pub enum Sealed {
    Database(Database),
    Log(Log),
    Journal(Box<Journal>),
    Temporary(Temporary),
}

/// The keys that a companion file last used; the vault's may become others
/// while no database file exists.
struct Keys {
    vault: Arc<Vault>,
    known: Option<(u64, Arc<FileKeys>)>,
}

impl Keys {
    /// The keys, and whether they are others than before.
    fn current(&mut self) -> Result<(Arc<FileKeys>, bool)> {
        if let Some((version, keys)) = &self.known
            && *version == self.vault.version()
        {
            return Ok((keys.clone(), false));
        }
        let keys = self.vault.keys()?;
        self.known = Some((self.vault.version(), keys.clone()));
        Ok((keys, true))
    }
}

pub struct Log {
    keys: Keys,
    wal: Wal,
    /// The connection's database file.
    database: Option<Arc<Shared>>,
}

impl Log {
    pub fn new(vault: Arc<Vault>, database: Option<Arc<Shared>>) -> Log {
        if let Some(database) = &database {
            database.has_log.store(true, Ordering::Relaxed);
        }
        Log {
            keys: Keys { vault, known: None },
            wal: Wal::new(),
            database,
        }
    }

    fn read(&mut self, raw: &RealBytes, buf: &mut [u8], at: u64) -> Result<usize> {
        let keys = self.keys()?;
        let database = self.database.as_ref();
        let page_of = |frame: u64| {
            let (block, word) = index::place_of(frame)?;
            database?.index.word(block, word)
        };
        self.wal.read(&keys.wal, raw, buf, at, &page_of)
    }

    fn keys(&mut self) -> Result<Arc<FileKeys>> {
        let (keys, changed) = self.keys.current()?;
        if changed {
            self.wal = Wal::new();
        }
        Ok(keys)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(database) = &self.database {
            database.has_log.store(false, Ordering::Relaxed);
        }
    }
}

pub struct Journal {
    keys: Keys,
    journal: journal::Journal,
}

impl Journal {
    pub fn new(vault: Arc<Vault>) -> Journal {
        Journal {
            keys: Keys { vault, known: None },
            journal: journal::Journal::new(),
        }
    }

    fn keys(&mut self) -> Result<Arc<FileKeys>> {
        let (keys, changed) = self.keys.current()?;
        if changed {
            self.journal = journal::Journal::new();
        }
        Ok(keys)
    }
}

/// A file that nobody else ever opens: its key is forgotten with it.
pub struct Temporary {
    grid: Grid,
    sealer: Sealer,
}

impl Temporary {
    pub fn new() -> Result<Temporary> {
        let key = Zeroizing::new(nonce::random()?);
        Ok(Temporary {
            grid: Grid::alone(4096),
            sealer: Sealer::new(&key)?,
        })
    }
}

impl Sealed {
    #[inline(never)]
    fn read_any(&mut self, real: Real, buf: &mut [u8], at: u64) -> Result<usize> {
        let raw = RealBytes(real);
        match self {
            Sealed::Database(f) => f.read(&raw, buf, at),
            Sealed::Log(f) => f.read(&raw, buf, at),
            Sealed::Journal(f) => {
                let keys = f.keys()?;
                f.journal.read(&keys.journal, &raw, buf, at)
            }
            Sealed::Temporary(f) => f.grid.read(&f.sealer, &raw, buf, at),
        }
    }
}

impl SealedOps for Sealed {
    #[inline(always)]
    fn read(&mut self, real: Real, buf: &mut [u8], at: u64) -> Result<usize> {
        // The usual read takes the short way: one function down to the file.
        if let Sealed::Database(f) = self
            && !f.is_refused()
            && let Some(read) = f.db.read_cell(&RealBytes(real), buf, at)
        {
            let got = read?;
            return match got == buf.len() {
                true => Ok(got),
                false => f.whole(&RealBytes(real), buf.len(), at, got).map(|()| got),
            };
        }
        self.read_any(real, buf, at)
    }

    fn write(&mut self, real: Real, buf: &[u8], at: u64) -> Result<()> {
        let raw = RealBytes(real);
        match self {
            Sealed::Database(f) => f.write(&raw, buf, at),
            Sealed::Log(f) => {
                let keys = f.keys()?;
                f.wal
                    .write(&keys.wal, &raw, buf, at, f.keys.vault.is_careful())
            }
            Sealed::Journal(f) => {
                let keys = f.keys()?;
                let vault = &f.keys.vault;
                let begin = journal::Begin {
                    first: !vault.is_written(),
                    spaced: vault.is_careful(),
                };
                f.journal.write(&keys.journal, &raw, buf, at, begin)
            }
            Sealed::Temporary(f) => f.grid.write(&f.sealer, &raw, buf, at),
        }
    }

    fn truncate(&mut self, real: Real, size: u64) -> Result<()> {
        let raw = RealBytes(real);
        match self {
            Sealed::Database(f) => f.db.truncate(&raw, size),
            Sealed::Log(f) => {
                let keys = f.keys()?;
                f.wal.truncate(&keys.wal, &raw, size)
            }
            Sealed::Journal(f) => {
                let keys = f.keys()?;
                f.journal.truncate(&keys.journal, &raw, size)
            }
            Sealed::Temporary(f) => f.grid.truncate(&f.sealer, &raw, size),
        }
    }

    fn size(&mut self, real: Real) -> Result<u64> {
        let raw = RealBytes(real);
        match self {
            Sealed::Database(f) => f.db.size(&raw),
            Sealed::Log(f) => {
                let keys = f.keys()?;
                f.wal.size(&keys.wal, &raw)
            }
            Sealed::Journal(f) => {
                let keys = f.keys()?;
                f.journal.size(&keys.journal, &raw)
            }
            Sealed::Temporary(f) => f.grid.size(&raw),
        }
    }

    fn sync(&mut self, real: Real, flags: c_int) -> c_int {
        let rc = real.sync(flags);
        if let Sealed::Log(f) = self
            && rc == sql::SQLITE_OK
        {
            f.wal.synced();
        }
        rc
    }

    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        match self {
            Sealed::Database(f) => f.lock(real, level).unwrap_or_else(|e| self.failed(&e)),
            _ => real.lock(level),
        }
    }

    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int {
        match op {
            // They would change the real file's size, or map it.
            sql::SQLITE_FCNTL_SIZE_HINT | sql::SQLITE_FCNTL_CHUNK_SIZE => return sql::SQLITE_OK,
            sql::SQLITE_FCNTL_MMAP_SIZE => return sql::SQLITE_NOTFOUND,
            FCNTL_IS_SEALED if matches!(self, Sealed::Temporary(_)) => return sql::SQLITE_OK,
            _ => {}
        }
        if let Sealed::Database(f) = self
            && let Some(answer) = f.file_control(real, op, arg)
        {
            return answer;
        }
        let rc = real.file_control(op, arg);
        if op == sql::SQLITE_FCNTL_VFSNAME && rc == sql::SQLITE_OK {
            prefix_vfs_name(arg, "crypt");
        }
        rc
    }

    fn sector_size(&mut self, real: Real) -> c_int {
        match self {
            Sealed::Database(f) => f.sector_size(real),
            // Frames share no sector: SQLite has little to fill.
            Sealed::Log(f) if f.keys.vault.is_careful() => 512,
            _ => real.sector_size(),
        }
    }

    fn device_characteristics(&mut self, real: Real) -> c_int {
        // Whatever else the device promises, it promises of other writes than these.
        let mut kept = sql::SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN | sql::SQLITE_IOCAP_IMMUTABLE;
        let cells = match self {
            Sealed::Database(f) => f.sector(real).is_some(),
            _ => false,
        };
        if !cells {
            kept |= sql::SQLITE_IOCAP_POWERSAFE_OVERWRITE;
        }
        real.device_characteristics() & kept
    }

    fn index(&self) -> Option<Arc<Mapped>> {
        match self {
            Sealed::Database(f) => Some(f.index()),
            _ => None,
        }
    }

    fn failed(&self, error: &Error) -> c_int {
        match self {
            Sealed::Database(f) => failed(f.path(), error),
            Sealed::Log(f) => failed(f.keys.vault.path(), error),
            Sealed::Journal(f) => failed(f.keys.vault.path(), error),
            Sealed::Temporary(_) => failed("", error),
        }
    }
}
