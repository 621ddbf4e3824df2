//! The header of an encrypted database: two slots, each in a sector of its
//! own, with the data key wrapped by the user's key. The valid slot of the
//! highest generation counts, so a new key is in force the moment its slot is
//! written, and a torn slot leaves the other.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use ring::digest;
use zeroize::Zeroizing;

use super::keys::{Argon, FileKeys, Kdf, Key, UserKey};
use super::{SECTOR, nonce};
use crate::error::{Error, Result};

pub const MAGIC: &[u8; 16] = b"libreplica-crypt";
pub const SLOT: usize = 512;
/// Where the slots are.
pub const SLOTS: [u64; 2] = [0, 4096];
/// The first cell begins here.
pub const SIZE: usize = 4096 + SLOT;

pub const VERSION: u8 = 2;
/// In the byte of the cell size: the cells are spaced.
const SPACED: u8 = 0x80;
const AT_GENERATION: usize = 20;
const AT_ARGON: usize = 24;
const AT_SALT: usize = 36;
pub const AT_FILE_ID: usize = 52;
const AT_NONCE: usize = 68;
const AT_WRAPPED: usize = 80;
const WRAPPED: usize = 32 + 16;
const AT_HASH: usize = SLOT - 32;

/// How the cells lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a cell's content: a power of two, 512 to 4096.
    pub unit: usize,
    /// Made for a device that may damage the rest of a sector that it writes a
    /// part of: cells of 64 KiB of content lie in sectors of their own.
    pub spaced: bool,
}

impl Layout {
    /// Where the first cell begins.
    pub fn base(self) -> u64 {
        match self.spaced {
            true => (SIZE as u64).next_multiple_of(SECTOR),
            false => SIZE as u64,
        }
    }
}

/// A slot's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub generation: u32,
    pub layout: Layout,
    pub kdf: Kdf,
    pub salt: [u8; 16],
    pub file_id: [u8; 16],
    bytes: Box<[u8; SLOT]>,
}

/// What the head of a file shows.
#[derive(Debug)]
pub enum Found {
    /// No magic: not an encrypted database.
    Foreign,
    /// The magic, but no valid slot.
    Damaged,
    /// Whole, and of another version of the format.
    Version(u8),
    Slot(Slot),
}

/// Both slots for a key.
pub fn make(keys: &FileKeys, user: &UserKey, layout: Layout, generation: u32) -> Result<Box<[u8]>> {
    let salt = nonce::random()?;
    let kdf = user.kdf();
    let wrapping = user
        .wrapping(kdf, &salt)?
        .ok_or_else(|| Error::Internal("no key to wrap with".into()))?;
    let mut header = vec![0; SIZE].into_boxed_slice();
    for (number, at) in SLOTS.into_iter().enumerate() {
        let mut slot = [0; SLOT];
        slot[..16].copy_from_slice(MAGIC);
        slot[16] = VERSION;
        slot[17] = number as u8;
        slot[19] = layout.unit.trailing_zeros() as u8 | if layout.spaced { SPACED } else { 0 };
        slot[AT_GENERATION..][..4].copy_from_slice(&generation.to_le_bytes());
        if let Kdf::Argon2id(argon) = kdf {
            slot[18] = 1;
            for (i, n) in [argon.memory_kib, argon.passes, argon.lanes]
                .into_iter()
                .enumerate()
            {
                slot[AT_ARGON + 4 * i..][..4].copy_from_slice(&n.to_le_bytes());
            }
        }
        slot[AT_SALT..][..16].copy_from_slice(&salt);
        slot[AT_FILE_ID..][..16].copy_from_slice(&keys.file_id);
        slot[AT_NONCE..][..12].copy_from_slice(&nonce::random::<12>()?);
        let wrapped = cipher(&wrapping)
            .encrypt(
                &nonce_of(&slot),
                Payload {
                    msg: &keys.data_key()[..],
                    aad: &slot[..AT_NONCE],
                },
            )
            .map_err(|_| Error::Internal("wrapping the data key failed".into()))?;
        slot[AT_WRAPPED..][..WRAPPED].copy_from_slice(&wrapped);
        let hash = hash(&slot);
        slot[AT_HASH..].copy_from_slice(&hash);
        header[at as usize..][..SLOT].copy_from_slice(&slot);
    }
    Ok(header)
}

fn cipher(key: &Key) -> Aes256Gcm {
    Aes256Gcm::new((&**key).into())
}

fn nonce_of(slot: &[u8; SLOT]) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&slot[AT_NONCE..][..12]);
    nonce.into()
}

fn hash(slot: &[u8; SLOT]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, &slot[..AT_HASH]).as_ref());
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Slot {
    fn parse(bytes: &[u8], number: usize) -> Option<Slot> {
        let bytes: Box<[u8; SLOT]> = Box::new(bytes.try_into().ok()?);
        let valid = bytes[..16] == *MAGIC
            && bytes[AT_HASH..] == hash(&bytes)
            && bytes[16] == VERSION
            && usize::from(bytes[17]) == number
            && (9..=12).contains(&(bytes[19] & !SPACED));
        if !valid {
            return None;
        }
        Some(Slot {
            generation: u32_at(&bytes[..], AT_GENERATION),
            layout: Layout {
                unit: 1 << (bytes[19] & !SPACED),
                spaced: bytes[19] & SPACED != 0,
            },
            kdf: match bytes[18] {
                0 => Kdf::Raw,
                1 => Kdf::Argon2id(Argon {
                    memory_kib: u32_at(&bytes[..], AT_ARGON),
                    passes: u32_at(&bytes[..], AT_ARGON + 4),
                    lanes: u32_at(&bytes[..], AT_ARGON + 8),
                }),
                _ => return None,
            },
            salt: bytes[AT_SALT..][..16].try_into().ok()?,
            file_id: bytes[AT_FILE_ID..][..16].try_into().ok()?,
            bytes,
        })
    }

    /// Which of the slots it is.
    pub fn number(&self) -> usize {
        usize::from(self.bytes[17])
    }

    /// The keys of the file, if this is the user's key.
    pub fn unwrap(&self, user: &UserKey) -> Result<Option<FileKeys>> {
        let Some(wrapping) = user.wrapping(self.kdf, &self.salt)? else {
            return Ok(None);
        };
        let payload = Payload {
            msg: &self.bytes[AT_WRAPPED..][..WRAPPED],
            aad: &self.bytes[..AT_NONCE],
        };
        let Ok(plain) = cipher(&wrapping).decrypt(&nonce_of(&self.bytes), payload) else {
            return Ok(None);
        };
        let plain = Zeroizing::new(plain);
        let mut data_key = Key::default();
        data_key.copy_from_slice(&plain);
        FileKeys::new(self.file_id, data_key).map(Some)
    }
}

/// Looks at the first [`SIZE`] bytes of a file (fewer of a shorter one).
pub fn find(head: &[u8]) -> Found {
    let slots = SLOTS
        .into_iter()
        .enumerate()
        .filter_map(|(number, at)| Slot::parse(head.get(at as usize..at as usize + SLOT)?, number));
    if let Some(slot) = slots.max_by_key(|slot| slot.generation) {
        return Found::Slot(slot);
    }
    let slot = |at: u64| {
        head.get(at as usize..at as usize + SLOT)?
            .first_chunk::<SLOT>()
    };
    let whole = |slot: &&[u8; SLOT]| slot.starts_with(MAGIC) && slot[AT_HASH..] == hash(slot);
    if let Some(other) = SLOTS.into_iter().filter_map(slot).find(whole)
        && other[16] != VERSION
    {
        return Found::Version(other[16]);
    }
    let ours = |at: u64| {
        head.get(at as usize..)
            .is_some_and(|b| b.starts_with(MAGIC))
    };
    if SLOTS.into_iter().any(ours) {
        Found::Damaged
    } else {
        Found::Foreign
    }
}
