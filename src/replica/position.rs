//! What is remembered beside a replica `app.db`, in `app.db-replica`: the
//! primary it belongs to, and for each of the latest transactions which frame
//! of the primary the local content was at.
//!
//! A record never says "the file is at frame N". It says "a file in *this*
//! state is at frame N", and the state is looked up in the file itself: the
//! end of its log (salts, frame, checksum), or the stamp of a database file
//! that needs no log, or in the last resort the content's digest. So records
//! may be written before the transaction they speak of, a crash at any moment
//! leaves the file in some recorded state, and a backup put in the replica's
//! place is found to be at the frame it was copied at.
//!
//! Layout, all integers little-endian:
//! ```text
//!    0  identity, copy A (4096 bytes)
//! 4096  identity, copy B; the valid one with the higher generation counts
//! 8192  1024 records of 256 bytes, record `seq` in slot seq % 1024
//!
//! identity: 0 checksum u64 (XXH3 of 8..4096)   8 magic "libreplica 1\0\0\0\0"
//!          24 generation u64 (one more with each change of url or history)   32 url length u16   34 namespace length u16
//!          36 url, namespace
//! record:   0 checksum u64 (XXH3 of 8..256)    8 seq u64
//!          16 frame_no u64, 2^64-1 for none    24 frame checksum u64
//!          32 flags u8: 1 frame checksum known, 2 the database file is
//!             complete without the log, 4 log end given, 8 stamp given
//!          36 page count u32   40 digest u64
//!          48 log end: salts [u8; 8], frame u32, checksum u32 u32
//!          72 stamp: device, inode, size, mtime ns, ctime ns (u64 each)
//!         112 log_id length u16   114 log_id
//!         184 undo: id, entries, checksum (u64 each), frame_no u64 as above,
//!             page count u32; given if flag 16 is
//! ```
//! The checksum of a record with an undo is seeded: a version of this library
//! that knows of none must not take it for the primary's own pages at
//! `frame_no`, which is where the undo leads.
//!
//! Writes happen while the WAL's write lock is held.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::digest::Digest;
use super::undo::Undo;
use crate::error::{Error, Result};
use crate::remote::{MAX_LOG_ID, Position};
use crate::wal::format::Checksum;
use crate::wal::writer::LogEnd;

const MAGIC: &[u8; 16] = b"libreplica 1\0\0\0\0";
const IDENTITY_SIZE: usize = 4096;
const RECORDS_AT: u64 = 2 * IDENTITY_SIZE as u64;
const RECORD_SIZE: usize = 256;
pub const RECORDS: u64 = 1024;
const NO_FRAME: u64 = u64::MAX;
const MAX_URL: usize = 2048;
const MAX_NAMESPACE: usize = 512;

const CHECKSUM_KNOWN: u8 = 1;
const COMPLETE: u8 = 2;
const HAS_END: u8 = 4;
const HAS_STAMP: u8 = 8;
const HAS_UNDO: u8 = 16;
const UNDO_SEED: u64 = 0x6f64_6e75;

/// The file beside a database.
pub fn path_of(db_path: &str) -> String {
    format!("{db_path}-replica")
}

/// Which primary the replica belongs to. Secrets are never part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub sync_url: String,
    pub namespace: Option<String>,
}

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
    fn matches(&self, end: Option<LogEnd>, stamp: &Stamp) -> bool {
        self.stamp.as_ref() == Some(stamp)
            && match end {
                Some(_) => self.end == end,
                None => self.complete,
            }
    }

    fn encode(&self) -> [u8; RECORD_SIZE] {
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
        w.seal(self.undo.is_some())
    }

    /// None for bytes that are no record.
    fn decode(bytes: &[u8; RECORD_SIZE]) -> Option<Record> {
        let has_undo = bytes[32] & HAS_UNDO != 0;
        if u64_le(bytes, 0) != checksum(&bytes[8..], has_undo) {
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

/// The open file and its records, oldest first.
pub struct PositionFile {
    file: File,
    path: String,
    identity: Identity,
    generation: u64,
    records: Vec<Record>,
}

impl PositionFile {
    /// Opens the file beside `db_path`; None if there is none, or one whose
    /// creation did not finish (nothing else existed then).
    pub fn open(db_path: &str) -> Result<Option<PositionFile>> {
        let path = path_of(db_path);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(os("open", &path, &e)),
        };
        let mut this = PositionFile {
            file,
            path,
            identity: Identity::default(),
            generation: 0,
            records: Vec::new(),
        };
        if !this.read_identity()? {
            return Ok(None);
        }
        this.reload()?;
        Ok(Some(this))
    }

    /// Begins a new file, in place of any that is there.
    pub fn create(db_path: &str, identity: Identity) -> Result<PositionFile> {
        let path = path_of(db_path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| os("create", &path, &e))?;
        let mut this = PositionFile {
            file,
            path,
            identity: Identity::default(),
            generation: 0,
            records: Vec::new(),
        };
        this.set_identity(identity)?;
        Ok(this)
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Remembers another primary address.
    pub fn set_identity(&mut self, identity: Identity) -> Result<()> {
        let (url, namespace) = (
            identity.sync_url.as_bytes(),
            identity.namespace.as_deref().unwrap_or(""),
        );
        if url.len() > MAX_URL || namespace.len() > MAX_NAMESPACE {
            return Err(Error::Config("sync_url or namespace is too long".into()));
        }
        self.generation += 1;
        let mut bytes = [0; IDENTITY_SIZE];
        bytes[8..24].copy_from_slice(MAGIC);
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..34].copy_from_slice(&(url.len() as u16).to_le_bytes());
        bytes[34..36].copy_from_slice(&(namespace.len() as u16).to_le_bytes());
        bytes[36..36 + url.len()].copy_from_slice(url);
        bytes[36 + url.len()..36 + url.len() + namespace.len()]
            .copy_from_slice(namespace.as_bytes());
        let sum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        self.write(&bytes, (self.generation % 2) * IDENTITY_SIZE as u64)?;
        self.sync()?;
        self.identity = identity;
        Ok(())
    }

    /// The content is about to be that of another history, or has just become it.
    pub fn note_history(&mut self) -> Result<()> {
        self.read_identity()?;
        self.set_identity(self.identity.clone())
    }

    fn read_identity(&mut self) -> Result<bool> {
        for copy in 0..2 {
            let mut bytes = [0; IDENTITY_SIZE];
            if !self.read(&mut bytes, copy * IDENTITY_SIZE as u64)?
                || !sealed(&bytes)
                || &bytes[8..24] != MAGIC
            {
                continue;
            }
            let generation = u64_le(&bytes, 24);
            let (url, namespace) = (u16_le(&bytes, 32), u16_le(&bytes, 34));
            if generation <= self.generation || url > MAX_URL || namespace > MAX_NAMESPACE {
                continue;
            }
            let text = |range| String::from_utf8_lossy(&bytes[range]).into_owned();
            self.generation = generation;
            self.identity = Identity {
                sync_url: text(36..36 + url),
                namespace: (namespace > 0).then(|| text(36 + url..36 + url + namespace)),
            };
        }
        Ok(self.generation > 0)
    }

    /// Reads all records.
    fn reload(&mut self) -> Result<()> {
        let mut bytes = vec![0; RECORDS as usize * RECORD_SIZE];
        self.read(&mut bytes, RECORDS_AT)?;
        self.records = bytes
            .as_chunks()
            .0
            .iter()
            .filter_map(Record::decode)
            .collect();
        self.records.sort_by_key(|r| r.seq);
        Ok(())
    }

    /// Takes in what other processes have recorded since.
    pub fn refresh(&mut self) -> Result<()> {
        loop {
            let next = self.next_seq();
            let mut bytes = [0; RECORD_SIZE];
            self.read(&mut bytes, slot(next))?;
            match Record::decode(&bytes) {
                Some(record) if record.seq == next => self.push(record),
                Some(record) if record.seq > next => return self.reload(),
                _ => return Ok(()),
            }
        }
    }

    fn next_seq(&self) -> u64 {
        self.records.last().map_or(1, |r| r.seq + 1)
    }

    fn push(&mut self, record: Record) {
        if self.records.len() as u64 == RECORDS {
            self.records.remove(0);
        }
        self.records.push(record);
    }

    /// Adds a record. Durable only after `sync`.
    pub fn append(&mut self, record: Record) -> Result<Record> {
        // Another process may have added one since, for the same content.
        self.refresh()?;
        let record = Record {
            seq: self.next_seq(),
            ..record
        };
        self.write(&record.encode(), slot(record.seq))?;
        self.push(record.clone());
        Ok(record)
    }

    /// Puts the state that it began at in the place of one that did not come to be.
    pub fn retract(&mut self, record: &Record, base: &Record) -> Result<()> {
        let again = Record {
            seq: record.seq,
            ..base.clone()
        };
        self.write(&again.encode(), slot(again.seq))?;
        if let Some(kept) = self.records.iter_mut().rfind(|r| r.seq == again.seq) {
            *kept = again;
        }
        Ok(())
    }

    /// Whether it still lies beside the database: a frozen one has none.
    pub fn is_linked(&self) -> Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(os("stat", &self.path, &e)),
        }
    }

    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| os("sync", &self.path, &e))
    }

    pub fn last(&self) -> Option<&Record> {
        self.records.last()
    }

    /// The record of a file in this state, by the log's end and the stamp alone.
    pub fn find(&self, end: Option<LogEnd>, stamp: &Stamp) -> Option<&Record> {
        self.records.iter().rev().find(|r| r.matches(end, stamp))
    }

    /// The record of a log that ends so, whatever database file lies under it.
    pub fn find_end(&self, end: Option<LogEnd>) -> Option<&Record> {
        self.records.iter().rev().find(|r| r.end == end)
    }

    /// The record of a database with this content.
    pub fn find_content(&self, digest: Digest, page_count: u32) -> Option<&Record> {
        self.records
            .iter()
            .rev()
            .find(|r| r.digest == digest && r.page_count == page_count)
    }

    fn read(&self, buf: &mut [u8], at: u64) -> Result<bool> {
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| {
            let mut filled = 0;
            while filled < buf.len() {
                match file.read(&mut buf[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(filled)
        });
        read.map(|n| n == buf.len())
            .map_err(|e| os("read", &self.path, &e))
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(bytes))
            .map_err(|e| os("write", &self.path, &e))
    }
}

/// Tells one history of a database's content from the next: the identity's
/// generation, which grows with each.
pub struct History {
    path: String,
    file: Mutex<Option<File>>,
}

impl History {
    pub fn of(db_path: &str) -> History {
        History {
            path: path_of(db_path),
            file: Mutex::new(None),
        }
    }

    /// None if that cannot be told.
    pub fn now(&self) -> Option<u64> {
        let mut file = self.file.lock();
        if file.is_none() {
            *file = File::open(&self.path).ok();
        }
        let mut file = file.as_ref()?;
        let mut newest = None;
        for copy in 0..2 {
            let mut bytes = [0; 8];
            let at = SeekFrom::Start(copy * IDENTITY_SIZE as u64 + 24);
            if file
                .seek(at)
                .and_then(|_| file.read_exact(&mut bytes))
                .is_ok()
            {
                newest = newest.max(Some(u64::from_le_bytes(bytes)));
            }
        }
        newest
    }
}

fn slot(seq: u64) -> u64 {
    RECORDS_AT + (seq % RECORDS) * RECORD_SIZE as u64
}

fn sealed(bytes: &[u8]) -> bool {
    u64_le(bytes, 0) == xxh3_64(&bytes[8..])
}

/// Of a record.
fn checksum(bytes: &[u8], has_undo: bool) -> u64 {
    match has_undo {
        true => xxh3_64_with_seed(bytes, UNDO_SEED),
        false => xxh3_64(bytes),
    }
}

fn u64_le(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u16_le(bytes: &[u8], at: usize) -> usize {
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
    fn seal(mut self, has_undo: bool) -> [u8; RECORD_SIZE] {
        let sum = checksum(&self.0[8..], has_undo);
        self.put(0, &sum.to_le_bytes());
        self.0
    }
}

fn os(op: &'static str, path: &str, error: &std::io::Error) -> Error {
    Error::CantOpen(format!("cannot {op} '{path}': {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(frame_no: Option<u64>) -> Record {
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
        assert_eq!(Record::decode(&known.encode()), Some(known.clone()));
        let unknown = with(Undo {
            frame_no: None,
            ..undo
        });
        assert_eq!((unknown.logical(), unknown.frame_no()), (None, Some(9)));
        assert_eq!(Record::decode(&unknown.encode()), Some(unknown));
        // To a version that knows of no undo it is no record.
        assert!(!sealed(&known.encode()) && sealed(&record(Some(9)).encode()));
    }

    #[test]
    fn a_state_that_did_not_come_to_be_is_not_found() {
        let path = temp("retract");
        let mut store = PositionFile::create(&path, Identity::default()).unwrap();
        let base = store.append(record(Some(1))).unwrap();
        let mut never = record(Some(2));
        never.digest.add(77);
        let never = store.append(never).unwrap();
        let mut other = PositionFile::open(&path).unwrap().unwrap();
        store.retract(&never, &base).unwrap();
        for store in [&store, &PositionFile::open(&path).unwrap().unwrap()] {
            assert!(store.find_content(never.digest, never.page_count).is_none());
            assert!(store.find_content(base.digest, base.page_count).is_some());
        }
        // One that had seen it goes on from there.
        let next = store.append(record(Some(3))).unwrap();
        other.refresh().unwrap();
        assert_eq!(other.last(), Some(&next));
    }

    fn temp(name: &str) -> String {
        let dir = std::env::temp_dir().join(format!("libreplica-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join("a.db").to_str().unwrap().to_string()
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
            assert_eq!(Record::decode(&r.encode()), Some(r));
        }
        let mut torn = record(Some(9)).encode();
        torn[200] ^= 1;
        assert_eq!(Record::decode(&torn), None);
        assert_eq!(Record::decode(&[0; RECORD_SIZE]), None);
    }

    #[test]
    fn remembers_across_opens_and_wraps() {
        let db = temp("wrap");
        assert!(PositionFile::open(&db).unwrap().is_none());
        let identity = Identity {
            sync_url: "http://h".into(),
            namespace: Some("n".into()),
        };
        let mut file = PositionFile::create(&db, identity.clone()).unwrap();
        let mut other = PositionFile::open(&db).unwrap().unwrap();
        for n in 0..RECORDS + 5 {
            file.append(record(Some(n))).unwrap();
            if n == 3 {
                other.refresh().unwrap();
                assert_eq!(other.last(), file.last());
            }
        }
        other.refresh().unwrap();
        assert_eq!(other.last(), file.last());
        let reopened = PositionFile::open(&db).unwrap().unwrap();
        assert_eq!(reopened.identity(), &identity);
        assert_eq!(reopened.records.len() as u64, RECORDS);
        assert_eq!(reopened.last(), file.last());
        let wanted = record(Some(100));
        assert_eq!(
            reopened
                .find(wanted.end, &wanted.stamp.unwrap())
                .unwrap()
                .position,
            wanted.position
        );
        assert_eq!(
            reopened.find(
                wanted.end,
                &Stamp {
                    ctime: 6,
                    ..wanted.stamp.unwrap()
                }
            ),
            None
        );
        assert_eq!(
            reopened.find_content(wanted.digest, 7).unwrap().position,
            wanted.position
        );
        assert!(reopened.find_content(wanted.digest, 8).is_none());
    }

    #[test]
    fn a_torn_identity_leaves_the_other() {
        let db = temp("identity");
        let mut file = PositionFile::create(
            &db,
            Identity {
                sync_url: "http://a".into(),
                namespace: None,
            },
        )
        .unwrap();
        file.set_identity(Identity {
            sync_url: "http://b".into(),
            namespace: None,
        })
        .unwrap();
        file.write(&[0xff; 100], 0).unwrap(); // generation 2 lies in copy A
        assert_eq!(
            PositionFile::open(&db)
                .unwrap()
                .unwrap()
                .identity()
                .sync_url,
            "http://a"
        );
        file.write(&[0xff; 100], IDENTITY_SIZE as u64).unwrap();
        assert!(PositionFile::open(&db).unwrap().is_none());
    }
}
