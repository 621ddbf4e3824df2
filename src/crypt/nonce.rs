//! Nonces: random where a key outlives the handle, counted where it does not.

use ring::rand::{SecureRandom, SystemRandom};

use super::seal::NONCE;
use crate::error::{Error, Result};

const BATCH: usize = 64;

/// Fills an array from the system's generator.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
    Ok(bytes)
}

pub enum Nonces {
    /// Drawn in batches; never shared with a forked child.
    Random {
        batch: Box<[u8; BATCH * NONCE]>,
        left: usize,
        process: u32,
    },
    /// For a key that only this handle has.
    Counted(u64),
}

impl Nonces {
    pub fn random() -> Nonces {
        Nonces::Random {
            batch: Box::new([0; BATCH * NONCE]),
            left: 0,
            process: 0,
        }
    }

    pub fn counted() -> Nonces {
        Nonces::Counted(0)
    }

    pub fn take(&mut self) -> Result<[u8; NONCE]> {
        let mut nonce = [0; NONCE];
        match self {
            Nonces::Counted(next) => {
                nonce[..8].copy_from_slice(&next.to_le_bytes());
                *next += 1;
            }
            Nonces::Random {
                batch,
                left,
                process,
            } => {
                let current = std::process::id();
                if *left == 0 || *process != current {
                    **batch = random()?;
                    (*left, *process) = (BATCH, current);
                }
                *left -= 1;
                nonce.copy_from_slice(&batch[*left * NONCE..][..NONCE]);
            }
        }
        Ok(nonce)
    }
}
