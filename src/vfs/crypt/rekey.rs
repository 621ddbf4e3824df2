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
use crate::log;
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
        replace(&file, SLOTS[first], header)?;
        repeat(&file, path, SLOTS[1 - first], header);
        Ok(())
    })?;
    registry::key_changed(path, new);
    Ok(())
}

fn put(file: &OsFile, at: u64, slot: &[u8]) -> Result<()> {
    file.write_at(slot, at)?;
    file.sync()
}

/// Writes the slot that counts from then on. If that fails it is as it was.
fn replace(file: &OsFile, at: u64, header: &[u8]) -> Result<()> {
    let mut before = [0; SLOT];
    file.read_at(&mut before, at)?;
    let Err(error) = put(file, at, &header[at as usize..][..SLOT]) else {
        return Ok(());
    };
    put(file, at, &before).map_err(|_| {
        Error::Unknown(format!(
            "{error}, and so did taking the change of the key back: it is unknown whether the old or the new key opens the file after a crash; try both"
        ))
    })?;
    Err(error)
}

/// The key has changed by now: what fails here leaves the old slot, which no
/// longer counts, and is no failure of the change.
fn repeat(file: &OsFile, path: &str, at: u64, header: &[u8]) {
    if let Err(error) = put(file, at, &header[at as usize..][..SLOT]) {
        let text = format!(
            "'{path}': the key has been changed, but the header's second copy still has the old one ({error}): change it again to have it overwritten"
        );
        log::warn(&text);
        registry::set_last_error(&text);
    }
}
