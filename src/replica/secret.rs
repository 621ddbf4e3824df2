//! What makes a replica's own checksums and records its own.
//!
//! Whoever chooses what is stored in a database may choose pages whose public
//! hashes collide. So what decides that two contents are equal is hashed under
//! a key of the file (`digest`): random, and kept with the identity; of an
//! encrypted database derived from its data key.
//!
//! Beside an encrypted database, identity and records carry a MAC under a key
//! that is derived from the data key, too: nobody without the key can say
//! whose replica it is, or where its content is in the primary's history.

use ring::hmac;

use super::digest::PageHash;
use crate::crypt::keys::Key;
use crate::crypt::vault;
use crate::error::Result;

/// Of each file its own.
pub type Seed = [u8; 32];
pub const MAC_SIZE: usize = 32;

/// The key that proves what lies beside an encrypted database.
pub struct Proof {
    mac: hmac::Key,
    pages: Seed,
}

impl Proof {
    /// For the database at `path`, if it is open (or being opened) with a key.
    pub fn of(path: &str) -> Result<Option<Proof>> {
        let vault = vault::offered(path).or_else(|| vault::find(path));
        let Some(vault) = vault else {
            return Ok(None);
        };
        let keys = vault.keys()?;
        Self::new(
            &keys.derived(b"libreplica 2 records")?,
            &keys.derived(b"libreplica 2 pages")?,
        )
        .map(Some)
    }

    fn new(mac: &Key, pages: &Key) -> Result<Proof> {
        Ok(Proof {
            mac: hmac::Key::new(hmac::HMAC_SHA256, &mac[..]),
            pages: **pages,
        })
    }

    /// For `what` the bytes are. They are of one length for each.
    pub fn sign(&self, what: &[u8], bytes: &[u8]) -> [u8; MAC_SIZE] {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(what);
        context.update(bytes);
        let mut mac = [0; MAC_SIZE];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    pub fn verify(&self, what: &[u8], bytes: &[u8], mac: &[u8]) -> bool {
        let signed = [what, bytes].concat();
        hmac::verify(&self.mac, &signed, mac).is_ok()
    }

    pub fn page_hash(&self) -> PageHash {
        PageHash::new(&self.pages)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn proof(byte: u8) -> Proof {
        let key = |byte| Key::new([byte; 32]);
        Proof::new(&key(byte), &key(byte + 1)).unwrap()
    }

    #[test]
    fn a_mac_is_of_one_key_one_purpose_and_these_bytes() {
        let mac = proof(1).sign(b"record", b"bytes");
        assert!(proof(1).verify(b"record", b"bytes", &mac));
        assert!(!proof(2).verify(b"record", b"bytes", &mac));
        assert!(!proof(1).verify(b"identity", b"bytes", &mac));
        assert!(!proof(1).verify(b"record", b"bytez", &mac));
        assert!(!proof(1).verify(b"record", b"bytes", &mac[..31]));
    }
}
