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
//! 8192  1024 records of 256 bytes (see `record`), record `seq` in slot seq % 1024
//!
//! identity: 0 checksum u64 (XXH3 of 8..4096)   8 magic "libreplica 2\0\0\0\0"
//!          24 generation u64 (one more with each change of url or history)
//!          32 url length u16   34 namespace length u16   36 url, namespace
//!        4031 flag u8: 1 of an encrypted database, with a MAC
//!        4032 key of the file's hashes (32 bytes), of a plain database
//!        4064 MAC (HMAC-SHA-256 of "identity" and 8..4064), of an encrypted one
//! ```
//! Without a url it is that of a database that was frozen: a mark for those
//! who have the file open, which is removed then.
//!
//! A file of the first version ("libreplica 1", no key, no MAC) of a plain
//! database is given a key when it is opened for writing (`give_key`). Beside
//! an encrypted database nothing is believed that is not proved (`secret`).
//!
//! Writes happen while the WAL's write lock is held.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use super::beside::{self, Companion};
use super::digest::{Digest, PageHash};
use super::files::log_end;
use super::identity::{
    FileKey, IDENTITY_SIZE, Identity, Newest, newest_identity, path_of, read, was_frozen,
};
use super::record::{RECORD_SIZE, Record, Stamp, os};
use super::secret::{Proof, Seed};
use crate::crypt::nonce;
use crate::error::{Error, Result};
use crate::remote::{Position, chain};
use crate::wal::format::Salt;
use crate::wal::index::Header;
use crate::wal::writer::LogEnd;

const RECORDS_AT: u64 = 2 * IDENTITY_SIZE as u64;
pub const RECORDS: u64 = 1024;
/// Own commits whose checksums are computed have no more frames.
const OWN_FRAMES: u64 = 1024;
/// Of the transactions in the log no more than so many are not synced: the
/// state that a power cut leaves has to be among the records.
const UNSYNCED: u64 = RECORDS / 4;

/// What is found beside a database.
pub enum Opened {
    /// Nothing, or what a removal that did not finish has left.
    Nothing,
    /// Not of this encrypted database: of another one, edited, or from before
    /// there was a proof.
    Unproven,
    File(Box<PositionFile>),
}

/// The open file and its records, oldest first.
pub struct PositionFile {
    file: File,
    path: String,
    identity: Identity,
    generation: u64,
    key: FileKey,
    records: Vec<Record>,
    /// The next record when the log was last synced.
    synced: u64,
}

impl PositionFile {
    /// Opens the file beside `db_path`; None if there is none, or one whose
    /// removal did not finish.
    pub fn open(db_path: &str) -> Result<Option<PositionFile>> {
        Self::believed(db_path, Self::examine(db_path)?)
    }

    /// The same, to be looked at alone.
    pub fn open_to_read(db_path: &str) -> Result<Option<PositionFile>> {
        let file = beside::read(db_path, Companion::Position)?;
        Self::believed(db_path, Self::load(db_path, file)?)
    }

    pub fn examine(db_path: &str) -> Result<Opened> {
        Self::load(db_path, beside::write(db_path, Companion::Position)?)
    }

    fn believed(db_path: &str, opened: Opened) -> Result<Option<PositionFile>> {
        match opened {
            Opened::Nothing => Ok(None),
            Opened::File(file) => Ok(Some(*file)),
            Opened::Unproven => Err(Error::CantOpen(format!(
                "'{}' is not proved by the key of '{db_path}': it is another database's, was edited, or comes from an older version; name the sync_url to have a new one made, and nothing of this one believed",
                path_of(db_path)
            ))),
        }
    }

    fn load(db_path: &str, file: Option<File>) -> Result<Opened> {
        let Some(file) = file else {
            return Ok(Opened::Nothing);
        };
        let path = path_of(db_path);
        let proof = Proof::of(db_path)?;
        let newest = newest_identity(&file, &path, proof.as_ref())?;
        match newest {
            Newest::Found { ref identity, .. } if identity.is_frozen() => Ok(Opened::Nothing),
            Newest::Found { .. } => {
                let key = proof.map_or(FileKey::None, FileKey::Sealed);
                let mut this = Self::unread(file, path, key);
                this.take_identity(newest);
                this.reload()?;
                this.synced = this.next_seq();
                Ok(Opened::File(Box::new(this)))
            }
            Newest::Unproven => Ok(Opened::Unproven),
            Newest::Locked => Err(Error::NotADb(format!(
                "'{db_path}' is encrypted; open it with its encryption_key"
            ))),
            Newest::Damaged => Err(damaged(&path)),
        }
    }

    /// Begins a new file, in place of one of ours that is there.
    pub fn create(db_path: &str, identity: Identity) -> Result<PositionFile> {
        let path = path_of(db_path);
        let file = beside::make(db_path, Companion::Position)?;
        file.set_len(0).map_err(|e| os("empty", &path, &e))?;
        let key = match Proof::of(db_path)? {
            Some(proof) => FileKey::Sealed(proof),
            None => FileKey::Plain(nonce::random()?),
        };
        let mut this = Self::unread(file, path, key);
        this.set_identity(identity)?;
        Ok(this)
    }

    fn unread(file: File, path: String, key: FileKey) -> PositionFile {
        PositionFile {
            file,
            path,
            identity: Identity::default(),
            generation: 0,
            key,
            records: Vec::new(),
            synced: 0,
        }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Remembers another primary address.
    pub fn set_identity(&mut self, identity: Identity) -> Result<()> {
        let bytes = identity.encode(self.generation + 1, &self.key)?;
        self.generation += 1;
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

    /// Takes in what another process has written of it.
    fn read_identity(&mut self) -> Result<()> {
        let newest = newest_identity(&self.file, &self.path, self.key.proof())?;
        self.take_identity(newest);
        Ok(())
    }

    fn take_identity(&mut self, newest: Newest) {
        if let Newest::Found {
            generation,
            identity,
            seed,
            ..
        } = newest
            && generation > self.generation
        {
            (self.generation, self.identity) = (generation, identity);
            if let Some(seed) = seed {
                self.key = FileKey::Plain(seed);
            }
        }
    }

    /// How the pages of this database are hashed.
    pub fn page_hash(&self) -> PageHash {
        self.key.page_hash()
    }

    /// Of a plain database, from before there were keys.
    pub fn has_no_key(&self) -> bool {
        matches!(self.key, FileKey::None)
    }

    /// Gives the file a key; of its records only `current` counts from then
    /// on, whose digest is by that key. Holding the write lock.
    pub fn give_key(&mut self, seed: Seed, current: Record) -> Result<()> {
        let seq = self.next_seq();
        self.key = FileKey::Plain(seed);
        // As long as the identity is the old one, this is no record.
        let record = Record { seq, ..current };
        self.write(&record.encode(&self.key), slot(seq))?;
        self.sync()?;
        self.records = vec![record];
        self.set_identity(self.identity.clone())
    }

    /// Marks it as that of a database that is cut loose. Then it is removed.
    pub fn mark_frozen(&mut self) -> Result<()> {
        self.read_identity()?;
        self.set_identity(Identity::default())
    }

    /// Reads all records.
    fn reload(&mut self) -> Result<()> {
        let mut bytes = vec![0; RECORDS as usize * RECORD_SIZE];
        self.read(&mut bytes, RECORDS_AT)?;
        self.records = bytes
            .as_chunks()
            .0
            .iter()
            .filter_map(|bytes| Record::decode(bytes, &self.key))
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
            match Record::decode(&bytes, &self.key) {
                Some(record) if record.seq == next => self.push(record),
                Some(record) if record.seq > next => return self.reload(),
                _ if self.has_no_key() => {
                    // Another process may have given it one.
                    self.read_identity()?;
                    return match self.has_no_key() {
                        true => Ok(()),
                        false => self.reload(),
                    };
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether nobody but who may write to the database can have written it.
    pub fn is_trusted(&self) -> bool {
        self.key.proof().is_some() || !beside::is_open_to_others(&self.file)
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
        self.write(&record.encode(&self.key), slot(record.seq))?;
        self.push(record.clone());
        Ok(record)
    }

    /// Puts the state that it began at in the place of one that did not come to be.
    pub fn retract(&mut self, record: &Record, base: &Record) -> Result<()> {
        let again = Record {
            seq: record.seq,
            ..base.clone()
        };
        self.write(&again.encode(&self.key), slot(again.seq))?;
        if let Some(kept) = self.records.iter_mut().rfind(|r| r.seq == again.seq) {
            *kept = again;
        }
        Ok(())
    }

    /// Whether another connection has cut the database loose meanwhile.
    pub fn was_frozen(&self) -> Result<bool> {
        was_frozen(Some(&self.file), &self.path, self.key.proof())
    }

    /// Whether the log is to be synced now, behind the newest record.
    pub fn is_sync_due(&mut self) -> bool {
        let next = self.next_seq();
        let due = next - self.synced >= UNSYNCED;
        if due {
            self.synced = next;
        }
        due
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

    /// The record of this state, if it can be told without reading the
    /// content. `seen`: what was known before. Once that is known, it stays so
    /// while the file is open: every transaction moves the log's end,
    /// checkpoints change nothing, and a restarted log has the content of the
    /// one before.
    pub fn known(
        &self,
        header: &Header,
        stamp: &Stamp,
        seen: Option<&(Header, Record)>,
    ) -> Option<Record> {
        let end = log_end(header);
        if let Some((seen, record)) = seen {
            if end.is_some()
                && let Some(record) = self.find_end(end)
            {
                return Some(record.clone());
            }
            if end.is_none() && header.change == seen.change && restarted(seen.salt, header.salt) {
                return Some(record.clone());
            }
        }
        self.find(end, stamp).cloned()
    }

    /// The record of a database with this content.
    pub fn find_content(&self, digest: Digest, page_count: u32) -> Option<&Record> {
        self.records
            .iter()
            .rev()
            .find(|r| r.digest == digest && r.page_count == page_count)
    }

    /// Whether `checksum` is that of `position`'s frame if the primary's log,
    /// and with it the chain of checksums, has begun anew behind one of the
    /// positions before. Own commits are not told of that: theirs was computed
    /// from the position before.
    pub fn has_begun_anew(&self, position: &Position, checksum: u64) -> bool {
        let (Some(mut at), Some(computed)) = (position.frame_no, position.checksum) else {
            return false;
        };
        let mut difference = computed ^ checksum;
        let before = self.records.iter().rev().map(|record| &record.position);
        for before in before.filter(|before| before.log_id == position.log_id) {
            let (Some(frame_no), Some(sum)) = (before.frame_no, before.checksum) else {
                continue;
            };
            if frame_no >= at {
                continue;
            }
            if at - frame_no > OWN_FRAMES {
                return false;
            }
            while at > frame_no {
                difference = chain::difference_before(difference);
                at -= 1;
            }
            if difference == sum {
                return true;
            }
        }
        false
    }

    fn read(&self, buf: &mut [u8], at: u64) -> Result<bool> {
        read(&self.file, &self.path, buf, at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(bytes))
            .map_err(|e| os("write", &self.path, &e))
    }
}

/// The same log, or the next one (wal.c, `walRestartHdr`: the first salt counts).
fn restarted(before: Salt, now: Salt) -> bool {
    let first = |salt: Salt| u32::from_be_bytes([salt[0], salt[1], salt[2], salt[3]]);
    before == now || first(now) == first(before).wrapping_add(1)
}

/// Neither copy of the identity is whole.
fn damaged(path: &str) -> Error {
    Error::CantOpen(format!(
        "'{path}' is damaged: it does not say any more whose replica this is; put back the file that was there, or move it and the database away and open the replica anew with its sync_url"
    ))
}

fn slot(seq: u64) -> u64 {
    RECORDS_AT + (seq % RECORDS) * RECORD_SIZE as u64
}

#[cfg(test)]
mod tests;
