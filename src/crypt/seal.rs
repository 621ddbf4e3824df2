//! One cell: `nonce | ciphertext | tag`, AES-256-GCM.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::ffi::wipe::Wiped;

pub const NONCE: usize = 12;
pub const TAG: usize = 16;
/// What a cell is larger than its content.
pub const OVERHEAD: usize = NONCE + TAG;

/// What a cell is bound to: its number, and a context of its file.
pub type Place = [u8; 16];

pub fn place(cell: u64, context: [u8; 8]) -> Place {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&cell.to_le_bytes());
    place[8..].copy_from_slice(&context);
    place
}

pub struct Sealer {
    key: Wiped<LessSafeKey>,
    nonces: Wiped<NonceKeys>,
}

/// A nonce is a pseudo-random function of what was drawn for it, of the cell's
/// place and of its content. Where a copy of this memory (a clone of a virtual
/// machine, a fork) draws the same, other content gets another nonce, and the
/// same content gives the same cell: nothing is learned but that.
struct NonceKeys {
    /// Its tag under a nonce of zeros is a universal hash of the content (faster
    /// than as additional data), and shown to nobody.
    hash: LessSafeKey,
    prf: hmac::Key,
}

impl NonceKeys {
    fn new(key: &[u8; 32]) -> Option<NonceKeys> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
        let okm = prk.expand(&[b"libreplica 2 nonce"], Both).ok()?;
        let mut keys = Zeroizing::new([0; 64]);
        okm.fill(&mut keys[..]).ok()?;
        Some(NonceKeys {
            hash: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &keys[..32]).ok()?),
            prf: hmac::Key::new(hmac::HMAC_SHA256, &keys[32..]),
        })
    }

    fn nonce(&self, drawn: [u8; NONCE], aad: &[u8], content: &[u8]) -> Option<[u8; NONCE]> {
        let zeros = Nonce::assume_unique_for_key([0; NONCE]);
        // Left behind as ciphertext.
        let mut scratch = content.to_vec();
        let hash = self
            .hash
            .seal_in_place_separate_tag(zeros, Aad::empty(), &mut scratch)
            .ok()?;
        let mut mac = hmac::Context::with_key(&self.prf);
        for part in [&drawn[..], hash.as_ref(), aad] {
            mac.update(part);
        }
        mac.sign().as_ref()[..NONCE].try_into().ok()
    }
}

/// Two keys of 32 bytes.
struct Both;

impl hkdf::KeyType for Both {
    fn len(&self) -> usize {
        64
    }
}

impl Sealer {
    pub fn new(key: &[u8; 32]) -> Result<Sealer> {
        let bad = || Error::Internal("an AES key was refused".into());
        let cells = UnboundKey::new(&AES_256_GCM, key).map_err(|_| bad())?;
        Ok(Sealer {
            key: Wiped::new(LessSafeKey::new(cells)),
            nonces: Wiped::new(NonceKeys::new(key).ok_or_else(bad)?),
        })
    }

    /// Encrypts a cell whose content lies in its middle. `drawn`: from
    /// [`super::nonce::Nonces`].
    pub fn seal(&self, drawn: [u8; NONCE], aad: &[u8], cell: &mut [u8]) -> Result<()> {
        let content = cell.get(NONCE..cell.len().saturating_sub(TAG));
        let nonce = content.and_then(|content| self.nonces.nonce(drawn, aad, content));
        self.seal_with(nonce.ok_or_else(failed)?, aad, cell)
    }

    /// The nonce is one that this key has never been used with.
    pub(super) fn seal_with(&self, nonce: [u8; NONCE], aad: &[u8], cell: &mut [u8]) -> Result<()> {
        let end = cell.len().checked_sub(TAG).ok_or_else(failed)?;
        let (head, tag_slot) = cell.split_at_mut(end);
        let (nonce_slot, content) = head.split_at_mut_checked(NONCE).ok_or_else(failed)?;
        nonce_slot.copy_from_slice(&nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                content,
            )
            .map_err(|_| failed())?;
        tag_slot.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts a cell in place; None if it is not what was sealed for `aad`.
    #[inline]
    pub fn open<'a>(&self, aad: &[u8], cell: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (nonce, sealed) = cell.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.key.open_in_place(nonce, Aad::from(aad), sealed).ok()
    }

    /// Decrypts a cell into `content`, which is as long as its content; false
    /// if it is not what was sealed for `aad`.
    #[inline]
    pub fn open_into(&self, aad: &[u8], cell: &mut [u8], content: &mut [u8]) -> bool {
        match self.open(aad, cell) {
            Some(opened) if opened.len() == content.len() => {
                content.copy_from_slice(opened);
                true
            }
            _ => false,
        }
    }
}

#[cold]
fn failed() -> Error {
    Error::Internal("sealing failed".into())
}
