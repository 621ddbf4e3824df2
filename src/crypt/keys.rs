//! The user's key and the keys of a file.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::hkdf;
use zeroize::Zeroizing;

use super::nonce;
use super::seal::Sealer;
use crate::error::{Error, Result};

pub type Key = Zeroizing<[u8; 32]>;

/// How a passphrase becomes a key: OWASP's first recommendation for Argon2id
/// (Password Storage Cheat Sheet): 19 MiB, two passes, one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

pub const ARGON: Argon = Argon {
    memory_kib: 19 * 1024,
    passes: 2,
    lanes: 1,
};

/// Nothing has authenticated a header that asks for parameters: it gets no more
/// than a few times our own.
const MOST: Argon = Argon {
    memory_kib: 64 * 1024,
    passes: 8,
    lanes: 4,
};
/// KiB times passes: the time that it takes.
const MOST_WORK: u64 = 4 * (ARGON.memory_kib * ARGON.passes) as u64;

impl Argon {
    fn is_near_ours(self) -> bool {
        let work = u64::from(self.memory_kib) * u64::from(self.passes);
        self.memory_kib <= MOST.memory_kib
            && self.passes <= MOST.passes
            && self.lanes <= MOST.lanes
            && work <= MOST_WORK
    }
}

/// How the user's key becomes the one that wraps the data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kdf {
    Raw,
    Argon2id(Argon),
}

/// What the user gave.
#[derive(Clone)]
pub enum UserKey {
    /// 64 hexadecimal digits.
    Raw(Key),
    Passphrase(Zeroizing<Vec<u8>>),
}

impl UserKey {
    pub fn parse(text: &str) -> Result<UserKey> {
        if text.is_empty() {
            return Err(Error::Config("encryption_key: the key is empty".into()));
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut key = Key::default();
            for (byte, digits) in key.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
                *byte = hex(digits[0]) << 4 | hex(digits[1]);
            }
            return Ok(UserKey::Raw(key));
        }
        Ok(UserKey::Passphrase(Zeroizing::new(
            text.as_bytes().to_vec(),
        )))
    }

    pub fn kdf(&self) -> Kdf {
        match self {
            UserKey::Raw(_) => Kdf::Raw,
            UserKey::Passphrase(_) => Kdf::Argon2id(ARGON),
        }
    }

    /// Equal keys; takes as long whether they are or not.
    pub fn same(&self, other: &UserKey) -> bool {
        let (a, b): (&[u8], &[u8]) = match (self, other) {
            (UserKey::Raw(a), UserKey::Raw(b)) => (&a[..], &b[..]),
            (UserKey::Passphrase(a), UserKey::Passphrase(b)) => (a, b),
            _ => return false,
        };
        a.len() == b.len() && a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    }

    /// The key that wraps the data key. None if a file made with another kind
    /// of key asks for it.
    pub fn wrapping(&self, kdf: Kdf, salt: &[u8; 16]) -> Result<Option<Key>> {
        let secret = match (self, kdf) {
            (UserKey::Raw(key), Kdf::Raw) => key.clone(),
            (UserKey::Passphrase(text), Kdf::Argon2id(argon)) => stretch(text, salt, argon)?,
            _ => return Ok(None),
        };
        derive(&secret, salt, b"libreplica 1 wrap").map(Some)
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or_default() as u8
}

fn stretch(passphrase: &[u8], salt: &[u8; 16], argon: Argon) -> Result<Key> {
    let bad = |_| Error::NotADb("the header asks for impossible Argon2 parameters".into());
    if !argon.is_near_ours() {
        return Err(bad(argon2::Error::MemoryTooMuch));
    }
    let params = Params::new(argon.memory_kib, argon.passes, argon.lanes, Some(32)).map_err(bad)?;
    let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
    let mut key = Key::default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, &mut key[..], &mut memory[..])
        .map_err(bad)?;
    Ok(key)
}

/// HKDF-SHA-256.
fn derive(secret: &[u8; 32], salt: &[u8], info: &[u8]) -> Result<Key> {
    let bad = |_| Error::Internal("key derivation failed".into());
    let mut key = Key::default();
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key[..]))
        .map_err(bad)?;
    Ok(key)
}

/// An encrypted database's keys: one of each kind of its files.
pub struct FileKeys {
    pub file_id: [u8; 16],
    data_key: Key,
    pub db: Sealer,
    pub wal: Sealer,
    pub journal: Sealer,
}

impl FileKeys {
    pub fn new(file_id: [u8; 16], data_key: Key) -> Result<FileKeys> {
        let sealer = |info| derive(&data_key, &file_id, info).and_then(|key| Sealer::new(&key));
        Ok(FileKeys {
            file_id,
            db: sealer(b"libreplica 1 database")?,
            wal: sealer(b"libreplica 1 wal")?,
            journal: sealer(b"libreplica 1 journal")?,
            data_key,
        })
    }

    /// Of a file that is about to exist.
    pub fn generate() -> Result<FileKeys> {
        FileKeys::new(nonce::random()?, Zeroizing::new(nonce::random()?))
    }

    /// A key for something else that belongs to the file.
    pub fn derived(&self, purpose: &[u8]) -> Result<Key> {
        derive(&self.data_key, &self.file_id, purpose)
    }

    pub fn data_key(&self) -> &Key {
        &self.data_key
    }
}
