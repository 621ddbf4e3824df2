//! One state of the local database and where in the primary's history it is,
//! as 256 bytes (see `position`), integers little-endian:
//! ```text
//!   0 checksum u64 (XXH3 of 8..256)    8 seq u64
//!  16 frame_no u64, 2^64-1 for none    24 frame checksum u64
//!  32 flags u8: 1 frame checksum known, 2 the database file is complete
//!     without the log, 4 log end given, 8 stamp given
//!  36 page count u32   40 digest u64
//!  48 log end: salts [u8; 8], frame u32, checksum u32 u32
//!  72 stamp: device, inode, size, mtime ns, ctime ns (u64 each)
//! 112 log_id length u16   114 log_id
//! 184 undo: id, entries, checksum (u64 each), frame_no u64 as above,
//!     page count u32; given if flag 16 is
//! 224 MAC (HMAC-SHA-256 of "record" and 8..224), of an encrypted database
//! ```
//! The checksum tells what a crash tore. Its seed is another one for each kind
//! of file: a record of one without a key (`position`) is none of one with a
//! key, and the other way round; there, one with an undo had a seed of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::digest::Digest;
use super::identity::FileKey;
use super::undo::Undo;
use crate::crypt::nonce;
use crate::error::{Error, Result};
use crate::remote::{MAX_LOG_ID, Position};
use crate::wal::format::Checksum;
use crate::wal::writer::LogEnd;

pub const RECORD_SIZE: usize = 256;
const NO_FRAME: u64 = u64::MAX;
const CHECKSUM_KNOWN: u8 = 1;
const COMPLETE: u8 = 2;
const HAS_END: u8 = 4;
const HAS_STAMP: u8 = 8;
const HAS_UNDO: u8 = 16;
const PLAIN_SEED: u64 = 0x3264_7263;
const SEALED_SEED: u64 = 0x3264_6c73;
/// Of files without a key.
const UNDO_SEED: u64 = 0x6f64_6e75;
const AT_MAC: usize = 224;
const MAC_OF: &[u8] = b"record";

/// What tells a file from the same file written to or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime: u64,
    pub ctime: u64,
}

impl Stamp {
    /// The coarsest clock a file system stamps with.
    const GRANULARITY: Duration = Duration::from_millis(10);

    /// A stamp that a later write is sure to change: waits until the clock of
    /// the file system has moved on from the last write.
    pub fn settled(path: &str) -> Result<Stamp> {
        loop {
            let stamp = Stamp::of(path)?;
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let age = now.saturating_sub(Duration::from_nanos(stamp.ctime.max(stamp.mtime)));
            // A time in the future (a clock set back) proves nothing either way.
            if age >= Self::GRANULARITY || age.is_zero() {
                return Ok(stamp);
            }
            std::thread::sleep(Self::GRANULARITY - age);
        }
    }

    /// Only looks at the name: opening and closing the file would drop the
    /// process's locks on it.
    pub fn of(path: &str) -> Result<Stamp> {
        let meta = std::fs::metadata(path).map_err(|e| os("stat", path, &e))?;
        Ok(Self::from(&meta))
    }

    #[cfg(unix)]
    fn from(meta: &std::fs::Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let ns = |s: i64, n: i64| {
            (s as u64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(n as u64)
        };
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mtime: ns(meta.mtime(), meta.mtime_nsec()),
            ctime: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    fn from(meta: &std::fs::Metadata) -> Stamp {
        let ns = |t: std::io::Result<SystemTime>| {
            t.ok()
                .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |d| d.as_nanos() as u64)
        };
        Stamp {
            device: 0,
            inode: 0,
            size: meta.len(),
            mtime: ns(meta.modified()),
            ctime: ns(meta.created()),
        }
    }
}

/// One state of the local database and where in the primary's history it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub position: Position,
    pub page_count: u32,
    pub digest: Digest,
    /// The log's end in this state, None for an empty log.
    pub end: Option<LogEnd>,
    /// The database file that lies under the log.
    pub stamp: Option<Stamp>,
    /// Whether that file has the content without the log, too.
    pub complete: bool,
    /// What leads to the primary's pages at `position`, if these are not they.
    pub undo: Option<Undo>,
}

impl Record {
    /// The primary's frame that the content is at, its rows if not its bytes;
    /// None if the primary has to be asked.
    pub fn logical(&self) -> Option<u64> {
        match &self.undo {
            Some(undo) => undo.frame_no,
            None => self.position.frame_no,
        }
    }

    /// The newest of the primary's frames that is surely here.
    pub fn frame_no(&self) -> Option<u64> {
        self.logical().or(self.position.frame_no)
    }

    /// Whether a file with this log end and stamp is surely in this state.
    pub fn matches(&self, end: Option<LogEnd>, stamp: &Stamp) -> bool {
        self.stamp.as_ref() == Some(stamp)
            && match end {
                Some(_) => self.end == end,
                None => self.complete,
            }
    }

    pub fn encode(&self, key: &FileKey) -> [u8; RECORD_SIZE] {
        let mut flags = 0;
        let mut w = Fields::new();
        w.put(8, &self.seq.to_le_bytes());
        w.put(
            16,
            &self.position.frame_no.unwrap_or(NO_FRAME).to_le_bytes(),
        );
        if let Some(sum) = self.position.checksum {
            flags |= CHECKSUM_KNOWN;
            w.put(24, &sum.to_le_bytes());
        }
        w.put(36, &self.page_count.to_le_bytes());
        w.put(40, &self.digest.0.to_le_bytes());
        if let Some(end) = self.end {
            flags |= HAS_END;
            w.put(48, &end.salt);
            w.put(56, &end.frame.to_le_bytes());
            w.put(60, &end.checksum.0.to_le_bytes());
            w.put(64, &end.checksum.1.to_le_bytes());
        }
        if let Some(s) = self.stamp {
            flags |= HAS_STAMP;
            for (i, field) in [s.device, s.inode, s.size, s.mtime, s.ctime]
                .iter()
                .enumerate()
            {
                w.put(72 + 8 * i, &field.to_le_bytes());
            }
        }
        if let Some(undo) = &self.undo {
            flags |= HAS_UNDO;
            let frame_no = undo.frame_no.unwrap_or(NO_FRAME);
            for (i, field) in [undo.id, undo.entries, undo.checksum, frame_no]
                .iter()
                .enumerate()
            {
                w.put(184 + 8 * i, &field.to_le_bytes());
            }
            w.put(216, &undo.page_count.to_le_bytes());
        }
        flags |= if self.complete { COMPLETE } else { 0 };
        w.put(32, &[flags]);
        let log_id = self.position.log_id.as_bytes();
        w.put(112, &(log_id.len() as u16).to_le_bytes());
        w.put(114, log_id);
        w.seal(key, self.undo.is_some())
    }

    /// Of a content that nothing is known of.
    pub fn of_nowhere() -> Result<Record> {
        Ok(Record {
            seq: 0,
            position: Position::start(String::new()),
            page_count: 0,
            // No content has it but by chance.
            digest: Digest(u64::from_le_bytes(nonce::random()?)),
            end: None,
            stamp: None,
            complete: false,
            undo: None,
        })
    }

    /// None for bytes that are no record of this file.
    pub fn decode(bytes: &[u8; RECORD_SIZE], key: &FileKey) -> Option<Record> {
        let has_undo = bytes[32] & HAS_UNDO != 0;
        if u64_le(bytes, 0) != checksum(&bytes[8..], key, has_undo) {
            return None;
        }
        if let Some(proof) = key.proof()
            && !proof.verify(MAC_OF, &bytes[8..AT_MAC], &bytes[AT_MAC..])
        {
            return None;
        }
        let u64_at = |at| u64_le(bytes, at);
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let flags = bytes[32];
        let frame_no = u64_at(16);
        let id_len = u16_le(bytes, 112);
        let log_id = bytes.get(114..114 + id_len.min(MAX_LOG_ID))?;
        Some(Record {
            seq: u64_at(8),
            position: Position {
                log_id: String::from_utf8(log_id.to_vec()).ok()?,
                frame_no: (frame_no != NO_FRAME).then_some(frame_no),
                checksum: (flags & CHECKSUM_KNOWN != 0).then(|| u64_at(24)),
            },
            page_count: u32_at(36),
            digest: Digest(u64_at(40)),
            end: (flags & HAS_END != 0).then(|| LogEnd {
                salt: u64_at(48).to_le_bytes(),
                frame: u32_at(56),
                checksum: Checksum(u32_at(60), u32_at(64)),
            }),
            stamp: (flags & HAS_STAMP != 0).then(|| Stamp {
                device: u64_at(72),
                inode: u64_at(80),
                size: u64_at(88),
                mtime: u64_at(96),
                ctime: u64_at(104),
            }),
            complete: flags & COMPLETE != 0,
            undo: has_undo.then(|| Undo {
                id: u64_at(184),
                entries: u64_at(192),
                checksum: u64_at(200),
                frame_no: Some(u64_at(208)).filter(|n| *n != NO_FRAME),
                page_count: u32_at(216),
            }),
        })
    }
}

/// Of a record.
fn checksum(bytes: &[u8], key: &FileKey, has_undo: bool) -> u64 {
    match key {
        FileKey::None if has_undo => xxh3_64_with_seed(bytes, UNDO_SEED),
        FileKey::None => xxh3_64(bytes),
        FileKey::Plain(_) => xxh3_64_with_seed(bytes, PLAIN_SEED),
        FileKey::Sealed(_) => xxh3_64_with_seed(bytes, SEALED_SEED),
    }
}

pub fn u64_le(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub fn u16_le(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// A record's bytes while they are put together.
struct Fields([u8; RECORD_SIZE]);

impl Fields {
    fn new() -> Fields {
        Fields([0; RECORD_SIZE])
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn seal(mut self, key: &FileKey, has_undo: bool) -> [u8; RECORD_SIZE] {
        if let Some(proof) = key.proof() {
            let mac = proof.sign(MAC_OF, &self.0[8..AT_MAC]);
            self.put(AT_MAC, &mac);
        }
        let sum = checksum(&self.0[8..], key, has_undo);
        self.put(0, &sum.to_le_bytes());
        self.0
    }
}

pub fn os(op: &'static str, path: &str, error: &std::io::Error) -> Error {
    Error::CantOpen(format!("cannot {op} '{path}': {error}"))
}

#[cfg(test)]
pub mod tests {
    use super::super::secret::tests::proof;
    use super::*;

    pub fn record(frame_no: Option<u64>) -> Record {
        Record {
            seq: 0,
            position: Position {
                log_id: "6b1d".into(),
                frame_no,
                checksum: frame_no.map(|n| n * 3),
            },
            page_count: 7,
            digest: Digest(frame_no.unwrap_or(0) + 1000),
            end: frame_no.map(|n| LogEnd {
                salt: [n as u8; 8],
                frame: n as u32,
                checksum: Checksum(1, 2),
            }),
            stamp: Some(Stamp {
                device: 1,
                inode: 2,
                size: 3,
                mtime: 4,
                ctime: 5,
            }),
            complete: frame_no.is_none(),
            undo: None,
        }
    }

    #[test]
    fn a_record_with_an_undo() {
        let undo = Undo {
            id: 1,
            entries: 2,
            checksum: 3,
            page_count: 4,
            frame_no: Some(12),
        };
        let with = |undo: Undo| Record {
            undo: Some(undo),
            ..record(Some(9))
        };
        let known = with(undo.clone());
        assert_eq!((known.logical(), known.frame_no()), (Some(12), Some(12)));
        let key = FileKey::None;
        assert_eq!(
            Record::decode(&known.encode(&key), &key),
            Some(known.clone())
        );
        let unknown = with(Undo {
            frame_no: None,
            ..undo
        });
        assert_eq!((unknown.logical(), unknown.frame_no()), (None, Some(9)));
        assert_eq!(Record::decode(&unknown.encode(&key), &key), Some(unknown));
        // To a version that knows of no undo it is no record.
        let sealed = |bytes: &[u8]| u64_le(bytes, 0) == xxh3_64(&bytes[8..]);
        assert!(!sealed(&known.encode(&key)) && sealed(&record(Some(9)).encode(&key)));
    }

    fn keys() -> [FileKey; 4] {
        [
            FileKey::None,
            FileKey::Plain([3; 32]),
            FileKey::Sealed(proof(4)),
            FileKey::Sealed(proof(5)),
        ]
    }

    #[test]
    fn records_round_trip() {
        for r in [
            record(None),
            record(Some(0)),
            record(Some(9)),
            Record {
                stamp: None,
                ..record(Some(1))
            },
        ] {
            for key in keys() {
                assert_eq!(Record::decode(&r.encode(&key), &key), Some(r.clone()));
            }
        }
        for key in keys() {
            let mut torn = record(Some(9)).encode(&key);
            torn[200] ^= 1;
            assert_eq!(Record::decode(&torn, &key), None);
            assert_eq!(Record::decode(&[0; RECORD_SIZE], &key), None);
        }
    }

    #[test]
    fn a_record_is_one_of_its_own_file_alone() {
        for (i, key) in keys().iter().enumerate() {
            let bytes = record(Some(9)).encode(key);
            for (j, other) in keys().iter().enumerate() {
                assert_eq!(Record::decode(&bytes, other).is_some(), i == j, "{i} {j}");
            }
        }
        // Whoever can compute the checksum cannot compute the MAC.
        let key = FileKey::Sealed(proof(4));
        let mut edited = record(Some(9)).encode(&key);
        edited[16] += 1;
        let sum = checksum(&edited[8..], &key, false);
        edited[..8].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Record::decode(&edited, &key), None);
    }
}
