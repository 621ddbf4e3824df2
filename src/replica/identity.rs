//! Whose a replica is: the primary's address and the history of its content,
//! at the begin of `app.db-replica` (its layout: see `position`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::beside::{self, Companion};
use super::digest::PageHash;
use super::record::{os, u16_le, u64_le};
use super::secret::{Proof, Seed};
use crate::error::{Error, Result};

const MAGIC: &[u8; 16] = b"libreplica 2\0\0\0\0";
/// Of files that had no key yet.
const MAGIC_1: &[u8; 16] = b"libreplica 1\0\0\0\0";
pub const IDENTITY_SIZE: usize = 4096;
/// Whether a MAC is there.
const AT_FLAG: usize = 4031;
const AT_SEED: usize = 4032;
const AT_MAC: usize = 4064;
const MAC_OF: &[u8] = b"identity";
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

    /// With what proves it, or else what its file hashes with.
    pub fn encode(&self, generation: u64, key: &FileKey) -> Result<[u8; IDENTITY_SIZE]> {
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
        match key {
            FileKey::Sealed(proof) => {
                bytes[AT_FLAG] = 1;
                let mac = proof.sign(MAC_OF, &bytes[8..AT_MAC]);
                bytes[AT_MAC..].copy_from_slice(&mac);
            }
            FileKey::Plain(seed) => bytes[AT_SEED..AT_MAC].copy_from_slice(seed),
            FileKey::None => bytes[8..24].copy_from_slice(MAGIC_1),
        }
        let sum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }
}

/// What a position file's content is proved by, or hashed with.
pub enum FileKey {
    /// Of an encrypted database.
    Sealed(Proof),
    Plain(Seed),
    /// A file of the first version.
    None,
}

impl FileKey {
    pub fn proof(&self) -> Option<&Proof> {
        match self {
            FileKey::Sealed(proof) => Some(proof),
            _ => None,
        }
    }

    pub fn page_hash(&self) -> PageHash {
        match self {
            FileKey::Sealed(proof) => proof.page_hash(),
            FileKey::Plain(seed) => PageHash::new(seed),
            FileKey::None => PageHash::Public,
        }
    }
}

/// What the two copies of an identity come to.
pub enum Newest {
    Found {
        generation: u64,
        identity: Identity,
        /// None: of an encrypted database, which proves it, or of a plain one
        /// that has no key yet.
        seed: Option<Seed>,
    },
    /// Neither is whole.
    Damaged,
    /// Beside an encrypted database, and not proved by its key.
    Unproven,
    /// Proved by a key that nobody has given.
    Locked,
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

/// The newest identity that is whole. `proof`: the database is encrypted.
pub fn newest_identity(file: &File, path: &str, proof: Option<&Proof>) -> Result<Newest> {
    let mut newest = Newest::Damaged;
    let mut newest_generation = 0;
    for copy in 0..2 {
        let mut bytes = [0; IDENTITY_SIZE];
        if !read(file, path, &mut bytes, copy * IDENTITY_SIZE as u64)? {
            continue;
        }
        let Some((generation, copy)) = decode(&bytes, proof) else {
            continue;
        };
        let found = matches!(copy, Newest::Found { .. });
        let had = matches!(newest, Newest::Found { .. });
        // One that is proved counts, whatever the other one says.
        if (found && !had) || (found == had && generation > newest_generation) {
            (newest, newest_generation) = (copy, generation);
        }
    }
    Ok(newest)
}

/// One copy; None if it is not whole.
fn decode(bytes: &[u8; IDENTITY_SIZE], proof: Option<&Proof>) -> Option<(u64, Newest)> {
    let first_version = &bytes[8..24] == MAGIC_1;
    if !sealed(bytes) || !(first_version || &bytes[8..24] == MAGIC) {
        return None;
    }
    let generation = u64_le(bytes, 24);
    let (url, namespace) = (u16_le(bytes, 32), u16_le(bytes, 34));
    if url > MAX_URL || namespace > MAX_NAMESPACE {
        return None;
    }
    let has_mac = !first_version && bytes[AT_FLAG] == 1;
    let newest = match proof {
        None if has_mac => Newest::Locked,
        Some(proof) if !has_mac || !proof.verify(MAC_OF, &bytes[8..AT_MAC], &bytes[AT_MAC..]) => {
            Newest::Unproven
        }
        _ => {
            let text = |range| String::from_utf8_lossy(&bytes[range]).into_owned();
            let mut seed = [0; 32];
            seed.copy_from_slice(&bytes[AT_SEED..AT_MAC]);
            Newest::Found {
                generation,
                identity: Identity {
                    sync_url: text(36..36 + url),
                    namespace: (namespace > 0).then(|| text(36 + url..36 + url + namespace)),
                },
                seed: (!has_mac && !first_version).then_some(seed),
            }
        }
    };
    Some((generation, newest))
}

/// Whether another connection has cut the database loose since the file was
/// opened. One that somebody has removed or that cannot be looked at is not a
/// frozen database's: what would be written then would be nowhere but here.
pub fn was_frozen(file: Option<&File>, path: &str, proof: Option<&Proof>) -> Result<bool> {
    if std::fs::metadata(path).is_ok() {
        return Ok(false);
    }
    match file
        .map(|file| newest_identity(file, path, proof))
        .transpose()?
    {
        Some(Newest::Found { identity, .. }) if identity.is_frozen() => Ok(true),
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
        let file = self.file.lock();
        if std::fs::metadata(&self.path).is_ok() {
            return Ok(false);
        }
        let proof = Proof::of(&self.db_path)?;
        was_frozen(file.as_ref(), &self.path, proof.as_ref())
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
