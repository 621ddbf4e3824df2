//! Whose a replica is: the primary's address and the history of its content,
//! at the begin of `app.db-replica` (its layout: see `position`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::beside::{self, Companion};
use super::record::{os, u16_le, u64_le};
use crate::error::{Error, Result};

const MAGIC: &[u8; 16] = b"libreplica 1\0\0\0\0";
pub const IDENTITY_SIZE: usize = 4096;
const MAX_URL: usize = 2048;
const MAX_NAMESPACE: usize = 512;

/// The file beside a database.
pub fn path_of(db_path: &str) -> String {
    Companion::Position.path(db_path)
}

/// Which primary the replica belongs to. Secrets are never part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub sync_url: String,
    pub namespace: Option<String>,
}

impl Identity {
    /// What a database that was cut loose has.
    pub fn is_frozen(&self) -> bool {
        self.sync_url.is_empty()
    }

    pub fn encode(&self, generation: u64) -> Result<[u8; IDENTITY_SIZE]> {
        let (url, namespace) = (
            self.sync_url.as_bytes(),
            self.namespace.as_deref().unwrap_or("").as_bytes(),
        );
        if url.len() > MAX_URL || namespace.len() > MAX_NAMESPACE {
            return Err(Error::Config("sync_url or namespace is too long".into()));
        }
        let mut bytes = [0; IDENTITY_SIZE];
        bytes[8..24].copy_from_slice(MAGIC);
        bytes[24..32].copy_from_slice(&generation.to_le_bytes());
        bytes[32..34].copy_from_slice(&(url.len() as u16).to_le_bytes());
        bytes[34..36].copy_from_slice(&(namespace.len() as u16).to_le_bytes());
        let (url_end, end) = (36 + url.len(), 36 + url.len() + namespace.len());
        bytes[36..url_end].copy_from_slice(url);
        bytes[url_end..end].copy_from_slice(namespace);
        let sum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }
}

/// False where the file ends before.
pub fn read(mut file: &File, path: &str, buf: &mut [u8], at: u64) -> Result<bool> {
    let read = file.seek(SeekFrom::Start(at)).and_then(|_| {
        let mut filled = 0;
        while filled < buf.len() {
            match file.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    });
    read.map(|n| n == buf.len())
        .map_err(|e| os("read", path, &e))
}

/// The newest identity that is whole, and its generation.
pub fn newest_identity(file: &File, path: &str) -> Result<Option<(u64, Identity)>> {
    let mut newest: Option<(u64, Identity)> = None;
    for copy in 0..2 {
        let mut bytes = [0; IDENTITY_SIZE];
        if !read(file, path, &mut bytes, copy * IDENTITY_SIZE as u64)?
            || !sealed(&bytes)
            || &bytes[8..24] != MAGIC
        {
            continue;
        }
        let generation = u64_le(&bytes, 24);
        let (url, namespace) = (u16_le(&bytes, 32), u16_le(&bytes, 34));
        let is_older = newest.as_ref().is_some_and(|(n, _)| generation <= *n);
        if is_older || url > MAX_URL || namespace > MAX_NAMESPACE {
            continue;
        }
        let text = |range| String::from_utf8_lossy(&bytes[range]).into_owned();
        let identity = Identity {
            sync_url: text(36..36 + url),
            namespace: (namespace > 0).then(|| text(36 + url..36 + url + namespace)),
        };
        newest = Some((generation, identity));
    }
    Ok(newest)
}

/// Whether another connection has cut the database loose since the file was
/// opened. One that somebody has removed or that cannot be looked at is not a
/// frozen database's: what would be written then would be nowhere but here.
pub fn was_frozen(file: Option<&File>, path: &str) -> Result<bool> {
    if std::fs::metadata(path).is_ok() {
        return Ok(false);
    }
    match file.map(|file| newest_identity(file, path)).transpose()? {
        Some(Some((_, identity))) if identity.is_frozen() => Ok(true),
        _ => Err(gone(path)),
    }
}

fn gone(path: &str) -> Error {
    Error::ReadOnly(format!(
        "'{path}' is gone or cannot be reached, so nothing is written; bring it back, or close every connection to the database, remove that and open it anew"
    ))
}

/// Tells one history of a database's content from the next: the identity's
/// generation, which grows with each.
pub struct History {
    db_path: String,
    path: String,
    file: Mutex<Option<File>>,
}

impl History {
    pub fn of(db_path: &str) -> History {
        History {
            db_path: db_path.to_string(),
            path: path_of(db_path),
            file: Mutex::new(None),
        }
    }

    pub fn was_frozen(&self) -> Result<bool> {
        was_frozen(self.file.lock().as_ref(), &self.path)
    }

    /// None if that cannot be told.
    pub fn now(&self) -> Option<u64> {
        let mut file = self.file.lock();
        if file.is_none() {
            *file = beside::read(&self.db_path, Companion::Position).ok()?;
        }
        let file = file.as_ref()?;
        let mut newest = None;
        for copy in 0..2 {
            let mut bytes = [0; 8];
            let at = copy * IDENTITY_SIZE as u64 + 24;
            if read(file, &self.path, &mut bytes, at).is_ok_and(|whole| whole) {
                newest = newest.max(Some(u64::from_le_bytes(bytes)));
            }
        }
        newest
    }
}

fn sealed(bytes: &[u8]) -> bool {
    u64_le(bytes, 0) == xxh3_64(&bytes[8..])
}
