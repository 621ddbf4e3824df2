//! Another key for an open database: the data key stays, its wrapping is
//! written anew, one slot after the other.

use libsqlite3_sys as sql;

use crate::config::Secret;
use crate::crypt::header::{SLOT, SLOTS};
use crate::crypt::keys::UserKey;
use crate::crypt::{Raw, db, vault};
use crate::error::{Error, Result};
use crate::ffi::file::{FileKind, OsFile};
use crate::ffi::vfs::BaseVfs;
use crate::replica::registry;

impl Raw for OsFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let whole = OsFile::read_at(self, buf, at)?;
        let have = self.size()?.saturating_sub(at).min(buf.len() as u64) as usize;
        Ok(if whole { buf.len() } else { have })
    }
    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        OsFile::write_at(self, buf, at)
    }
    fn truncate(&self, size: u64) -> Result<()> {
        OsFile::truncate(self, size)
    }
    fn size(&self) -> Result<u64> {
        OsFile::size(self)
    }
}

/// `base`: the VFS that sees the encrypted bytes.
pub fn rekey(base: &BaseVfs, path: &str, new: &Secret) -> Result<()> {
    let vault = vault::find(path).ok_or_else(|| {
        Error::Config(format!(
            "'{path}' is not encrypted; VACUUM INTO 'file:new.db?vfs=replica&encryption_key=…' makes an encrypted copy"
        ))
    })?;
    let user = UserKey::parse(new.expose())?;
    let file = OsFile::open(base, path, FileKind::Database, false)?;
    // One at a time, in whatever process: nobody holds it in WAL mode.
    if !file.lock(sql::SQLITE_LOCK_SHARED)? || !file.lock(sql::SQLITE_LOCK_RESERVED)? {
        return Err(Error::Busy(format!(
            "'{path}': a transaction or another change of its key is under way"
        )));
    }
    let slot = db::slot(&file, &|| false)?;
    // The slot that does not count first; from its last byte on the new key
    // does, and the old one does no more.
    let first = slot.as_ref().map_or(0, |slot| 1 - slot.number());
    vault.rekey(slot.as_ref(), user, |header| {
        for number in [first, 1 - first] {
            let at = SLOTS[number];
            file.write_at(&header[at as usize..][..SLOT], at)?;
            file.sync()?;
        }
        Ok(())
    })?;
    registry::key_changed(path, new);
    Ok(())
}
