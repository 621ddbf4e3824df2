//! The layouts against a plain file, and against whoever alters them.

use std::sync::Arc;

use super::Raw;
use super::db::Db;
use super::grid::Grid;
use super::header::{self, Found};
use super::journal::Journal;
use super::keys::{ARGON, FileKeys, Kdf, UserKey};
use super::memory::Memory;
use super::seal::{NONCE, Sealer, place};
use super::vault::{self, Vault};
use super::wal::Wal;
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
    sealer.seal(nonce, &aad, &mut cell).unwrap();
    let expected = hex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
    assert_eq!(cell[NONCE..], expected[..]);
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
            .seal(nonce, &aad, &mut cell)
            .unwrap();
        let reference = aes_gcm::Aes256Gcm::new(&key.into());
        let payload = Payload {
            msg: &cell[NONCE..],
            aad: &aad,
        };
        assert_eq!(reference.decrypt(&nonce.into(), payload).unwrap(), plain);
    }
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
        .seal([9; NONCE], &place(1, [0; 8]), &mut cell)
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
    let one = header::make(&keys, &old, 4096, 1).unwrap();
    let two = header::make(&keys, &new, 4096, 2).unwrap();
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
            assert_eq!(slot(&head).unit, 4096);
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

struct GridFile(Grid, usize);
impl File for GridFile {
    fn read(&mut self, raw: &Memory, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read(&sealer(), raw, buf, at)
    }
    fn write(&mut self, raw: &Memory, buf: &[u8], at: u64) -> Result<()> {
        self.0.write(&sealer(), raw, buf, at)
    }
    fn truncate(&mut self, raw: &Memory, to: u64) -> Result<()> {
        self.0.truncate(&sealer(), raw, to)
    }
    fn size(&mut self, raw: &Memory) -> Result<u64> {
        self.0.size(raw)
    }
    fn reopen(&mut self) {
        if self.1 > 0 {
            self.0 = Grid::shared(0, self.1, None);
        }
    }
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

struct JournalFile(Journal);
impl File for JournalFile {
    fn read(&mut self, raw: &Memory, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read(&sealer(), raw, buf, at)
    }
    fn write(&mut self, raw: &Memory, buf: &[u8], at: u64) -> Result<()> {
        self.0.write(&sealer(), raw, buf, at)
    }
    fn truncate(&mut self, raw: &Memory, to: u64) -> Result<()> {
        self.0.truncate(&sealer(), raw, to)
    }
    fn size(&mut self, raw: &Memory) -> Result<u64> {
        self.0.size(&sealer(), raw)
    }
    fn reopen(&mut self) {
        self.0 = Journal::new();
    }
}

/// Random reads, writes, truncations and changes of the handle: as a plain file.
fn behaves_as_a_plain_file(seed: u64, aligned: u64, file: &mut dyn File) {
    let (mut rng, raw, mut model) = (Rng(seed), Memory::default(), Vec::<u8>::new());
    let mut seen = Vec::new();
    for step in 0..1500 {
        let far = rng.below(10) == 0;
        let at = rng.below(if far { 60_000 } else { model.len() as u64 + 1 });
        let at = if rng.below(2) == 0 {
            at / aligned * aligned
        } else {
            at
        };
        let len = match rng.below(4) {
            0 => rng.below(40),
            1 => aligned,
            2 => aligned * (1 + rng.below(8)),
            _ => rng.below(9000),
        } as usize;
        match rng.below(12) {
            0..=5 => {
                let data = rng.bytes(len);
                file.write(&raw, &data, at).unwrap();
                if len > 0 {
                    let size = model.len().max(at as usize + len);
                    model.resize(size, 0);
                    model[at as usize..][..len].copy_from_slice(&data);
                    seen.push(data);
                }
            }
            6 => {
                // SQLite never makes a file longer this way but by a little.
                let to = at.min(model.len() as u64 + 5000);
                file.truncate(&raw, to).unwrap();
                model.resize(to as usize, 0);
            }
            7 => file.reopen(),
            _ => {
                let mut buf = vec![0xaa; len];
                let have = model.len().saturating_sub(at as usize).min(len);
                let got = file.read(&raw, &mut buf, at).unwrap();
                assert_eq!(
                    got,
                    have,
                    "step {step}: read {len} at {at} of {}",
                    model.len()
                );
                let mut expected = vec![0; len];
                let from = model.len().min(at as usize);
                expected[..have].copy_from_slice(&model[from..][..have]);
                assert!(buf == expected, "step {step}: read {len} at {at}");
            }
        }
        assert_eq!(file.size(&raw).unwrap(), model.len() as u64, "step {step}");
    }
    // Nothing of it is in the raw bytes.
    let raw = raw.0.into_inner();
    for data in seen.iter().filter(|d| d.len() >= 16).take(200) {
        assert!(!raw.windows(16).any(|w| w == &data[..16]));
    }
}

#[test]
fn databases_and_temporary_files_behave_as_plain_files() {
    for seed in 1..6 {
        for unit in [512, 4096] {
            behaves_as_a_plain_file(seed, unit as u64, &mut GridFile(Grid::alone(unit), 0));
            let shared = Grid::shared(0, unit, None);
            behaves_as_a_plain_file(seed, unit as u64, &mut GridFile(shared, unit));
        }
        let path = format!("property-{seed}");
        let vault = vault(&path, RAW_KEY);
        behaves_as_a_plain_file(seed, 4096, &mut DbFile::new(vault));
    }
}

#[test]
fn journals_behave_as_plain_files() {
    for seed in 1..6 {
        behaves_as_a_plain_file(seed, 512, &mut JournalFile(Journal::new()));
    }
}

fn corrupt<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
}

#[test]
fn whatever_is_altered_in_a_database_is_found() {
    let vault = vault("altered", RAW_KEY);
    let (raw, mut rng) = (Memory::default(), Rng(3));
    let mut db = DbFile::new(vault.clone());
    let pages = rng.bytes(8 * 4096);
    db.write(&raw, &pages, 0).unwrap();
    let original = raw.0.borrow().clone();
    assert_eq!(original.len(), header::SIZE + 8 * 4124);
    let read = |page: u64| {
        let mut buf = vec![0; 4096];
        DbFile::new(vault.clone()).read(&raw, &mut buf, page * 4096)
    };
    for page in 0..8u64 {
        let begin = header::SIZE + page as usize * 4124;
        for byte in (0..NONCE)
            .chain([NONCE, NONCE + 2000, NONCE + 4095])
            .chain(4108..4124)
        {
            raw.0.borrow_mut()[begin + byte] ^= 1 << rng.below(8);
            corrupt(read(page));
            *raw.0.borrow_mut() = original.clone();
        }
    }
    // Swapped.
    let cell = |page: usize| header::SIZE + page * 4124..header::SIZE + (page + 1) * 4124;
    raw.0.borrow_mut().copy_within(cell(2), cell(5).start);
    corrupt(read(5));
    assert_eq!(read(2).unwrap(), 4096);
    *raw.0.borrow_mut() = original.clone();
    // Of another file with the same user key.
    let other = Memory::default();
    DbFile::new(self::vault("altered-2", RAW_KEY))
        .write(&other, &pages, 0)
        .unwrap();
    raw.0.borrow_mut()[cell(3)].copy_from_slice(&other.0.borrow()[cell(3)]);
    corrupt(read(3));
    *raw.0.borrow_mut() = original.clone();
    // Zeros are no page.
    raw.0.borrow_mut()[cell(4)].fill(0);
    corrupt(read(4));
    *raw.0.borrow_mut() = original.clone();
    // Cut off: inside a cell it is found here, between cells the size shows it.
    raw.truncate(cell(6).start as u64 + 100).unwrap();
    corrupt(read(6));
    raw.truncate(cell(6).start as u64).unwrap();
    assert_eq!(DbFile::new(vault.clone()).size(&raw).unwrap(), 6 * 4096);
    for cut in [header::SIZE as u64, 4096, 600, 100] {
        raw.truncate(cut).unwrap();
        corrupt(DbFile::new(vault.clone()).size(&raw));
    }
}

#[test]
fn an_interrupted_creation_is_an_empty_file() {
    let vault = vault("interrupted", RAW_KEY);
    let raw = Memory::default();
    DbFile::new(vault.clone())
        .write(&raw, &[1; 4096], 0)
        .unwrap();
    let whole = raw.0.borrow().clone();
    for cut in [100, 4096, header::SIZE] {
        *raw.0.borrow_mut() = whole[..cut].to_vec();
        let mut db = Db::new(vault.clone(), Box::new(|| true));
        assert_eq!(db.size(&raw).unwrap(), 0);
        db.sweep(&raw).unwrap();
        assert_eq!(raw.size().unwrap(), 0);
        db.write(&raw, &[2; 4096], 0).unwrap();
        let mut page = [0; 4096];
        assert_eq!(db.read(&raw, &mut page, 0).unwrap(), 4096);
        assert_eq!(page, [2; 4096]);
    }
}

/// A page 1 that a crash tore is for the journal or the log to repair.
#[test]
fn a_torn_first_page_does_not_keep_sqlite_from_looking() {
    let vault = vault("torn", RAW_KEY);
    let raw = Memory::default();
    let mut db = DbFile::new(vault);
    db.write(&raw, &[1; 8192], 0).unwrap();
    raw.0.borrow_mut()[header::SIZE + 3000] ^= 1;
    let (mut head, mut counter, mut page) = ([9; 100], [9; 16], [9; 4096]);
    assert_eq!(db.read(&raw, &mut head, 0).unwrap(), 0);
    assert_eq!(
        (db.read(&raw, &mut counter, 24).unwrap(), counter),
        (0, [0; 16])
    );
    assert_eq!(head, [0; 100]);
    corrupt(db.read(&raw, &mut page, 0));
    db.write(&raw, &[3; 4096], 0).unwrap();
    assert_eq!(db.read(&raw, &mut page, 0).unwrap(), 4096);
}

const PAGE: usize = 1024;
const FRAME: usize = 24 + PAGE;

fn log_header(salt: u8) -> [u8; 32] {
    let mut header = [0; 32];
    header[..4].copy_from_slice(&0x377f_0682u32.to_be_bytes());
    header[8..12].copy_from_slice(&(PAGE as u32).to_be_bytes());
    header[16..24].fill(salt);
    header
}

fn frame_header(page: u32, size: u32, salt: u8) -> [u8; 24] {
    let mut header = [salt; 24];
    header[..4].copy_from_slice(&page.to_be_bytes());
    header[4..8].copy_from_slice(&size.to_be_bytes());
    header
}

/// Writes frames as SQLite does: header, then page.
fn write_frames(wal: &mut Wal, raw: &Memory, salt: u8, frames: std::ops::Range<u64>) {
    for frame in frames.clone() {
        let size = if frame + 1 == frames.end { 9 } else { 0 };
        let at = 32 + frame * FRAME as u64;
        let header = frame_header(frame as u32 + 1, size, salt);
        wal.write(&sealer(), raw, &header, at).unwrap();
        wal.write(&sealer(), raw, &[frame as u8; PAGE], at + 24)
            .unwrap();
    }
}

fn read_frame(wal: &mut Wal, raw: &Memory, frame: u64) -> Result<Vec<u8>> {
    let mut buf = vec![0xaa; FRAME];
    wal.read(&sealer(), raw, &mut buf, 32 + frame * FRAME as u64)?;
    Ok(buf)
}

fn read_page(wal: &mut Wal, raw: &Memory, frame: u64) -> Result<Vec<u8>> {
    let mut buf = vec![0xaa; PAGE];
    wal.read(&sealer(), raw, &mut buf, 32 + frame * FRAME as u64 + 24)?;
    Ok(buf)
}

#[test]
fn logs() {
    let (raw, mut wal) = (Memory::default(), Wal::new());
    assert_eq!(wal.size(&sealer(), &raw).unwrap(), 0);
    wal.write(&sealer(), &raw, &log_header(1), 0).unwrap();
    write_frames(&mut wal, &raw, 1, 0..3);
    assert_eq!(wal.size(&sealer(), &raw).unwrap(), 32 + 3 * FRAME as u64);
    let mut reader = Wal::new();
    for frame in 0..3 {
        let whole = read_frame(&mut reader, &raw, frame).unwrap();
        assert_eq!(whole[24..], [frame as u8; PAGE]);
        assert_eq!(whole[..4], (frame as u32 + 1).to_be_bytes());
        assert_eq!(
            read_page(&mut reader, &raw, frame).unwrap(),
            [frame as u8; PAGE]
        );
    }
    let mut header = [0; 32];
    assert_eq!(reader.read(&sealer(), &raw, &mut header, 0).unwrap(), 32);
    assert_eq!(header, log_header(1));
    // Begun anew by another handle: old frames are none, and this handle sees it.
    let mut other = Wal::new();
    other.write(&sealer(), &raw, &log_header(2), 0).unwrap();
    write_frames(&mut other, &raw, 2, 0..1);
    assert_eq!(read_page(&mut reader, &raw, 0).unwrap(), [0; PAGE]);
    assert_eq!(read_frame(&mut reader, &raw, 1).unwrap(), [0; FRAME]);
    corrupt(read_page(&mut reader, &raw, 1));
    // And writes to it under the new salts.
    write_frames(&mut wal, &raw, 2, 1..2);
    assert_eq!(read_page(&mut other, &raw, 1).unwrap(), [1; PAGE]);
    // Rewritten in place, and its header after it; split at any byte.
    wal.write(&sealer(), &raw, &[7; PAGE], 32 + FRAME as u64 + 24)
        .unwrap();
    wal.write(&sealer(), &raw, &[8; 100], 32 + FRAME as u64 + 24)
        .unwrap();
    let page = read_page(&mut other, &raw, 1).unwrap();
    assert_eq!(
        (&page[..100], &page[100..]),
        (&[8; 100][..], &[7; PAGE - 100][..])
    );
    wal.write(
        &sealer(),
        &raw,
        &frame_header(5, 0, 2)[..9],
        32 + FRAME as u64,
    )
    .unwrap();
    assert_eq!(read_frame(&mut other, &raw, 1).unwrap()[3], 5);
    // Many frames in one call.
    let frames: Vec<u8> = (2..200u32)
        .flat_map(|f| [&frame_header(f + 1, 0, 2)[..], &[f as u8; PAGE]].concat())
        .collect();
    wal.write(&sealer(), &raw, &frames, 32 + 2 * FRAME as u64)
        .unwrap();
    let mut back = vec![0; frames.len()];
    other
        .read(&sealer(), &raw, &mut back, 32 + 2 * FRAME as u64)
        .unwrap();
    assert!(back == frames);
    wal.truncate(&sealer(), &raw, 0).unwrap();
    assert_eq!(raw.size().unwrap(), 0);
}

#[test]
fn whatever_is_altered_in_a_log_is_found_where_it_can_be() {
    let raw = Memory::default();
    let stride = 56 + PAGE + 28;
    let (head, page) = (92 + stride, 92 + stride + 56); // of the second frame
    for synced in [false, true] {
        raw.truncate(0).unwrap();
        let mut wal = Wal::new();
        wal.write(&sealer(), &raw, &log_header(1), 0).unwrap();
        write_frames(&mut wal, &raw, 1, 0..3);
        if synced {
            wal.synced();
        }
        write_frames(&mut wal, &raw, 1, 3..5);
        let original = raw.0.borrow().clone();
        for byte in [
            head,
            head + 12,
            head + 30,
            head + 40,
            head + 55,
            page,
            page + 12,
            page + 700,
            page + PAGE + 27,
        ] {
            raw.0.borrow_mut()[byte] ^= 4;
            let mut reader = Wal::new();
            if byte >= page {
                // A reader that the wal-index sends there.
                read_frame(&mut reader, &raw, 0).unwrap();
                corrupt(read_page(&mut reader, &raw, 1));
            }
            // Recovery: the end of the log, unless it was synced for certain.
            let read = read_frame(&mut reader, &raw, 1);
            if synced {
                corrupt(read);
            } else {
                let bad = read.unwrap();
                assert!(
                    bad[..24] == [0; 24] || bad[24..] == [0; PAGE],
                    "byte {byte}"
                );
            }
            *raw.0.borrow_mut() = original.clone();
        }
        // The header of the log is never torn by a crash.
        for byte in [32, 50, 91] {
            raw.0.borrow_mut()[byte] ^= 4;
            corrupt(Wal::new().read(&sealer(), &raw, &mut [0; 32], 0));
            *raw.0.borrow_mut() = original.clone();
        }
        // The frame of another place.
        raw.0
            .borrow_mut()
            .copy_within(page + stride..page + 2 * stride - 56, page);
        let mut reader = Wal::new();
        read_frame(&mut reader, &raw, 0).unwrap();
        corrupt(read_page(&mut reader, &raw, 1));
        *raw.0.borrow_mut() = original;
    }
}

/// Uncommitted frames that are written over claim nothing of those after them.
#[test]
fn frames_of_a_rolled_back_transaction_prove_nothing() {
    let (raw, mut wal) = (Memory::default(), Wal::new());
    wal.write(&sealer(), &raw, &log_header(1), 0).unwrap();
    write_frames(&mut wal, &raw, 1, 0..8);
    wal.synced();
    // Another transaction from frame 4 on, torn in frame 5.
    for frame in 4..6u64 {
        let at = 32 + frame * FRAME as u64;
        wal.write(&sealer(), &raw, &frame_header(9, 0, 1), at)
            .unwrap();
        wal.write(&sealer(), &raw, &[9; PAGE], at + 24).unwrap();
    }
    let at = 92 + 5 * (56 + PAGE + 28) + 200;
    raw.0.borrow_mut()[at] ^= 1;
    assert_eq!(
        read_frame(&mut Wal::new(), &raw, 5).unwrap()[24..],
        [0; PAGE]
    );
}

/// A journal as SQLite writes it, with `records` in its header.
fn journal(raw: &Memory, records: u32) -> Journal {
    let mut journal = Journal::new();
    let mut header = [0; 512];
    header[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    header[8..12].copy_from_slice(&records.to_be_bytes());
    header[20..24].copy_from_slice(&512u32.to_be_bytes());
    header[24..28].copy_from_slice(&(PAGE as u32).to_be_bytes());
    let s = sealer();
    journal.write(&s, raw, &header, 0).unwrap();
    for record in 0..3u64 {
        let at = 512 + record * (PAGE as u64 + 8);
        journal.write(&s, raw, &[0, 0, 0, 1], at).unwrap();
        journal
            .write(&s, raw, &[record as u8 + 1; PAGE], at + 4)
            .unwrap();
        journal
            .write(&s, raw, &[5; 4], at + 4 + PAGE as u64)
            .unwrap();
    }
    journal
}

#[test]
fn whatever_is_altered_in_a_synced_journal_is_found() {
    let raw = Memory::default();
    for records in [2, u32::MAX] {
        raw.truncate(0).unwrap();
        journal(&raw, records);
        let original = raw.0.borrow().clone();
        for cell in 1..7 {
            raw.0.borrow_mut()[16 + cell * 542 + 300] ^= 1;
            let mut reader = Journal::new();
            let mut magic = [0; 8];
            reader.read(&sealer(), &raw, &mut magic, 0).unwrap();
            let mut part = [1; 4];
            // Cells 1 to 5 hold the two records that were synced.
            let read = reader.read(&sealer(), &raw, &mut part, cell as u64 * 512);
            match records {
                2 if cell < 6 => corrupt(read),
                _ => assert_eq!((read.unwrap(), part), (4, [0; 4]), "cell {cell}"),
            }
            *raw.0.borrow_mut() = original.clone();
        }
        // A stock SQLite takes it for no journal at all.
        assert_eq!(original[0], 0);
        raw.0.borrow_mut()[0] = 0xd9;
        corrupt(Journal::new().read(&sealer(), &raw, &mut [0], 0));
    }
}

/// A later part of a journal begins in a cell of its own: what was synced
/// before is not written again.
#[test]
fn a_new_part_of_a_journal_leaves_the_old_one_alone() {
    let raw = Memory::default();
    let mut journal = journal(&raw, 3);
    let before = raw.0.borrow().clone();
    let end = (512 + 3 * (PAGE as u64 + 8)).next_multiple_of(512);
    journal.write(&sealer(), &raw, &[1; 512], end).unwrap();
    journal.write(&sealer(), &raw, &[2; 4], end + 512).unwrap();
    assert_eq!(raw.0.borrow()[..before.len()], before[..]);
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
    let slot = super::db::slot(&raw).unwrap().unwrap();
    assert!(matches!(
        vault("one-key", "second").admit(Some(&slot)),
        Err(Error::NotADb(_))
    ));
    // Another process changes it: the new one is right, the old one no more.
    let keys = first.keys().unwrap();
    let second = UserKey::parse("second").unwrap();
    let head = header::make(&keys, &second, 4096, slot.generation + 1).unwrap();
    raw.write_at(&head, 0).unwrap();
    let slot = super::db::slot(&raw).unwrap().unwrap();
    assert!(matches!(
        vault("one-key", "first").admit(Some(&slot)),
        Err(Error::NotADb(_))
    ));
    let admitted = vault("one-key", "second").admit(Some(&slot)).unwrap();
    assert!(Arc::ptr_eq(&first, &admitted));
    drop((first, again, admitted));
    assert!(vault::find("one-key").is_none());
}
