//! One cell: `nonce | ciphertext | tag`, AES-256-GCM.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

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

pub struct Sealer(Wiped<LessSafeKey>);

impl Sealer {
    pub fn new(key: &[u8; 32]) -> Result<Sealer> {
        UnboundKey::new(&AES_256_GCM, key)
            .map(|key| Sealer(Wiped::new(LessSafeKey::new(key))))
            .map_err(|_| Error::Internal("an AES key was refused".into()))
    }

    /// Encrypts a cell whose content lies in its middle. The nonce is one that
    /// this key has never been used with.
    pub fn seal(&self, nonce: [u8; NONCE], aad: &[u8], cell: &mut [u8]) -> Result<()> {
        let bad = || Error::Internal("sealing failed".into());
        let end = cell.len().checked_sub(TAG).ok_or_else(bad)?;
        let (head, tag_slot) = cell.split_at_mut(end);
        let (nonce_slot, content) = head.split_at_mut_checked(NONCE).ok_or_else(bad)?;
        nonce_slot.copy_from_slice(&nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                content,
            )
            .map_err(|_| bad())?;
        tag_slot.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts a cell in place; None if it is not what was sealed for `aad`.
    #[inline]
    pub fn open<'a>(&self, aad: &[u8], cell: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (nonce, sealed) = cell.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.0.open_in_place(nonce, Aad::from(aad), sealed).ok()
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
