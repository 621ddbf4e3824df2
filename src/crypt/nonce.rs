//! What makes each nonce another (`seal.rs`): drawn anew for every write where
//! a key outlives the handle, counted where it does not.

use ring::rand::{SecureRandom, SystemRandom};

use super::seal::NONCE;
use crate::error::{Error, Result};

/// Fills an array from the system's generator.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
    Ok(bytes)
}

pub enum Nonces {
    Random,
    /// For a key that only this handle has.
    Counted(u64),
}

impl Nonces {
    pub fn random() -> Nonces {
        Nonces::Random
    }

    pub fn counted() -> Nonces {
        Nonces::Counted(0)
    }

    /// Nothing is drawn ahead: what a copy of the memory has, nobody uses.
    pub fn take(&mut self) -> Result<[u8; NONCE]> {
        match self {
            Nonces::Random => random(),
            Nonces::Counted(next) => {
                let mut count = [0; NONCE];
                count[..8].copy_from_slice(&next.to_le_bytes());
                *next += 1;
                Ok(count)
            }
        }
    }
}
