//! The layouts against a plain file, and against whoever alters them.

mod databases;
mod logs;
mod property;

use std::sync::Arc;

use super::Raw;
use super::db::Db;
use super::header::{self, Found};
use super::keys::{ARGON, FileKeys, Kdf, UserKey};
use super::memory::Memory;
use super::seal::{NONCE, Sealer, place};
use super::vault::{self, Vault};
use crate::error::{Error, Result};

/// A generator of the tests' own: the same sequence every time.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn sealer() -> Sealer {
    Sealer::new(&[7; 32]).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
        .collect()
}

fn vault(path: &str, key: &str) -> Arc<Vault> {
    vault::offer(path, Some(UserKey::parse(key).unwrap()));
    let offered = vault::offered(path).unwrap();
    vault::withdraw();
    offered
}

const LAYOUT: header::Layout = header::Layout {
    unit: 4096,
    spaced: false,
};

const RAW_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Test case 16 of the GCM specification (McGrew and Viega), with its
/// additional data: what ring makes of a cell is what AES-256-GCM is.
#[test]
fn known_answer_of_a_cell() {
    let key: [u8; 32] = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
        .try_into()
        .unwrap();
    let nonce: [u8; NONCE] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let mut cell = [&nonce[..], &plain, &[0; 16]].concat();
    let sealer = Sealer::new(&key).unwrap();
    sealer.seal_with(nonce, &aad, &mut cell).unwrap();
    let expected = hex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
    assert_eq!(cell[NONCE..], expected[..]);
    let mut content = vec![1; plain.len()];
    assert!(sealer.open_into(&aad, &mut cell.clone(), &mut content));
    assert_eq!(content, plain);
    for at in 0..cell.len() {
        let mut altered = cell.clone();
        altered[at] ^= 1;
        assert!(
            !sealer.open_into(&aad, &mut altered, &mut content),
            "byte {at}"
        );
    }
    assert!(!sealer.open_into(&aad, &mut cell.clone()[1..], &mut content));
    assert_eq!(sealer.open(&aad, &mut cell).unwrap(), plain);
}

/// Every cell is what the reference implementation makes of it.
#[test]
fn cells_agree_with_the_reference() {
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    let mut rng = Rng(11);
    for len in [0, 1, 15, 16, 17, 28, 512, 514, 1000, 4096, 65_536] {
        let key: [u8; 32] = rng.bytes(32).try_into().unwrap();
        let nonce: [u8; NONCE] = rng.bytes(NONCE).try_into().unwrap();
        let (plain, aad) = (rng.bytes(len), place(rng.next(), [3; 8]));
        let mut cell = [&nonce[..], &plain, &[0; 16]].concat();
        Sealer::new(&key)
            .unwrap()
            .seal_with(nonce, &aad, &mut cell)
            .unwrap();
        let reference = aes_gcm::Aes256Gcm::new(&key.into());
        let payload = Payload {
            msg: &cell[NONCE..],
            aad: &aad,
        };
        assert_eq!(reference.decrypt(&nonce.into(), payload).unwrap(), plain);
    }
}

/// A copy of the memory that draws the same uses no nonce for two contents.
#[test]
fn equal_draws_are_no_equal_nonces() {
    let seal = |content: u8, cell_number| {
        let mut cell = [content; NONCE + 4096 + 16];
        let place = place(cell_number, [0; 8]);
        sealer().seal([7; NONCE], &place, &mut cell).unwrap();
        cell
    };
    assert_eq!(seal(1, 1), seal(1, 1));
    for other in [seal(2, 1), seal(1, 2)] {
        assert_ne!(seal(1, 1)[..NONCE], other[..NONCE]);
    }
    let mut random = super::nonce::Nonces::random();
    assert_ne!(random.take().unwrap(), random.take().unwrap());
}

/// What a header may ask of Argon2id before anything of it is authentic.
#[test]
fn parameters_are_near_our_own() {
    let user = UserKey::parse("words").unwrap();
    let kdf = |memory_kib, passes, lanes| {
        Kdf::Argon2id(super::keys::Argon {
            memory_kib,
            passes,
            lanes,
        })
    };
    for wrong in [
        kdf(1 << 20, 2, 1),
        kdf(65_537, 1, 1),
        kdf(19_456, 9, 1),
        kdf(8, 64, 1),
        kdf(19_456, 2, 16),
    ] {
        let begun = std::time::Instant::now();
        assert!(
            matches!(user.wrapping(wrong, &[1; 16]), Err(Error::NotADb(_))),
            "{wrong:?}"
        );
        assert!(begun.elapsed().as_millis() < 500);
    }
    assert!(user.wrapping(kdf(8, 1, 1), &[1; 16]).unwrap().is_some());
}

/// The keys of FORMAT.md's example: computed there by other means.
#[test]
fn known_answers_of_the_keys() {
    let salt = [0x5a; 16];
    let raw = UserKey::parse(RAW_KEY).unwrap();
    let wrap = raw.wrapping(Kdf::Raw, &salt).unwrap().unwrap();
    assert_eq!(wrap[..], hex(KNOWN_RAW_WRAP)[..]);
    let words = UserKey::parse("correct horse battery staple").unwrap();
    let wrap = words
        .wrapping(Kdf::Argon2id(ARGON), &salt)
        .unwrap()
        .unwrap();
    assert_eq!(wrap[..], hex(KNOWN_ARGON_WRAP)[..]);
    // The key of the database's cells, shown by a cell.
    let data_key = zeroize::Zeroizing::new([0xd0; 32]);
    let keys = FileKeys::new([0xf1; 16], data_key).unwrap();
    let mut cell = vec![0; NONCE + 16 + 16];
    keys.db
        .seal_with([9; NONCE], &place(1, [0; 8]), &mut cell)
        .unwrap();
    assert_eq!(cell, hex(KNOWN_CELL));
}

const KNOWN_RAW_WRAP: &str = "e6eb72804cc973b1d0ddce3e5373a22d43b02520216d882a23361e340df5a5de";
const KNOWN_ARGON_WRAP: &str = "d786f9bb5027a1c7f996a8327a3dc930e8e0f6b5f8d4082ea07225ef798e0dce";
const KNOWN_CELL: &str =
    "090909090909090909090909ae7142a768664f77be58e7c5ae9922ff640f3208dfafcfd735354857aa5b4ab3";

#[test]
fn keys_are_told_apart() {
    let key = |text: &str| UserKey::parse(text).unwrap();
    assert!(matches!(key(RAW_KEY), UserKey::Raw(_)));
    assert!(matches!(key(&RAW_KEY[1..]), UserKey::Passphrase(_)));
    assert!(key(RAW_KEY).same(&key(&RAW_KEY.to_uppercase())));
    assert!(
        !key("a").same(&key("b")) && !key("a").same(&key("aa")) && !key("a").same(&key(RAW_KEY))
    );
    assert!(UserKey::parse("").is_err());
}

#[test]
fn headers() {
    let keys = FileKeys::generate().unwrap();
    let (old, new) = (
        UserKey::parse(RAW_KEY).unwrap(),
        UserKey::parse("words").unwrap(),
    );
    let one = header::make(&keys, &old, LAYOUT, 1).unwrap();
    let two = header::make(&keys, &new, LAYOUT, 2).unwrap();
    let slot = |head: &[u8]| match header::find(head) {
        Found::Slot(slot) => slot,
        other => panic!("{other:?}"),
    };
    let accepts = |head: &[u8], user: &UserKey| slot(head).unwrap(user).unwrap().is_some();
    assert!(accepts(&one, &old) && !accepts(&one, &new));
    assert!(accepts(&two, &new) && !accepts(&two, &old));
    assert!(!accepts(&two, &UserKey::parse("Words").unwrap()));
    // At every byte that a change of the key may be cut off, one of the two keys fits.
    let mut head = one.clone();
    for at in header::SLOTS.into_iter().rev() {
        let before = head.clone();
        for cut in (0..=header::SLOT).step_by(37).chain([header::SLOT]) {
            head = before.clone();
            head[at as usize..][..cut].copy_from_slice(&two[at as usize..][..cut]);
            let key = if at == 0 || cut == header::SLOT {
                &new
            } else {
                &old
            };
            let other = if at == 0 || cut == header::SLOT {
                &old
            } else {
                &new
            };
            assert_eq!(slot(&head).layout, LAYOUT);
            assert!(accepts(&head, key), "{at} {cut}");
            assert!(!accepts(&head, other), "{at} {cut}");
        }
    }
    // A flipped bit of a slot leaves the other one; of both, nothing.
    let mut rng = Rng(5);
    for _ in 0..300 {
        let mut head = one.clone();
        let byte = rng.below(header::SLOT as u64) as usize;
        head[byte] ^= 1 << rng.below(8);
        assert_eq!(slot(&head).number(), 1, "byte {byte}");
        head[4096 + byte] ^= 1 << rng.below(8);
        assert!(
            !matches!(header::find(&head), Found::Slot(_)),
            "byte {byte}"
        );
    }
    assert!(matches!(header::find(b"SQLite format 3\0"), Found::Foreign));
    assert!(matches!(header::find(&[]), Found::Foreign));
}

/// What a layout has to offer in the property test.
trait File {
    fn read(&mut self, raw: &Memory, buf: &mut [u8], at: u64) -> Result<usize>;
    fn write(&mut self, raw: &Memory, buf: &[u8], at: u64) -> Result<()>;
    fn truncate(&mut self, raw: &Memory, to: u64) -> Result<()>;
    fn size(&mut self, raw: &Memory) -> Result<u64>;
    /// Another handle on the same file takes over.
    fn reopen(&mut self) {}
}

struct DbFile(Db, Arc<Vault>);
impl DbFile {
    fn new(vault: Arc<Vault>) -> DbFile {
        DbFile(Db::new(vault.clone(), Box::new(|| false)), vault)
    }
}
impl File for DbFile {
    fn read(&mut self, raw: &Memory, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read(raw, buf, at)
    }
    fn write(&mut self, raw: &Memory, buf: &[u8], at: u64) -> Result<()> {
        self.0.write(raw, buf, at)
    }
    fn truncate(&mut self, raw: &Memory, to: u64) -> Result<()> {
        self.0.truncate(raw, to)
    }
    fn size(&mut self, raw: &Memory) -> Result<u64> {
        self.0.size(raw)
    }
    fn reopen(&mut self) {
        self.0 = Db::new(self.1.clone(), Box::new(|| false));
    }
}

fn corrupt<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
}

#[test]
fn a_vault_takes_one_key() {
    let first = vault("one-key", "first").admit(None).unwrap();
    assert!(matches!(
        vault("one-key", "second").admit(None),
        Err(Error::NotADb(_))
    ));
    let again = vault("one-key", "first").admit(None).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let raw = Memory::default();
    DbFile::new(first.clone())
        .write(&raw, &[1; 4096], 0)
        .unwrap();
    let slot = super::db::slot(&raw, &|| false).unwrap().unwrap();
    assert!(matches!(
        vault("one-key", "second").admit(Some(&slot)),
        Err(Error::NotADb(_))
    ));
    // Another process changes it: the new one is right, the old one no more.
    let keys = first.keys().unwrap();
    let second = UserKey::parse("second").unwrap();
    let head = header::make(&keys, &second, LAYOUT, slot.generation + 1).unwrap();
    raw.write_at(&head, 0).unwrap();
    let slot = super::db::slot(&raw, &|| false).unwrap().unwrap();
    assert!(matches!(
        vault("one-key", "first").admit(Some(&slot)),
        Err(Error::NotADb(_))
    ));
    let admitted = vault("one-key", "second").admit(Some(&slot)).unwrap();
    assert!(Arc::ptr_eq(&first, &admitted));
    drop((first, again, admitted));
    assert!(vault::find("one-key").is_none());
}
