//! A connection's write transaction, as its database file and its log see it.

use std::ffi::c_int;
use std::sync::Arc;

use libsqlite3_sys as sql;

use super::access::{Phase, belongs_to};
use super::schema_watch::SchemaWatch;
use crate::error::{Error, Result};
use crate::ffi::attention::{self, Connected};
use crate::ffi::file::Real;
use crate::replica::Replica;
use crate::replica::transaction::Written;
use crate::wal::capture::Capture;

pub struct Transaction {
    pub replica: Arc<Replica>,
    pub phase: Phase,
    /// Whose transaction it is.
    pub connected: Connected,
    capture: Capture,
    /// The header of the frame that commits, as long as the primary has not.
    /// In the log it could make a whole frame with what an older log has left
    /// behind it, and recovery would find a commit that never was.
    held: Option<(Vec<u8>, i64)>,
    schema: SchemaWatch,
}

impl Transaction {
    pub fn new(replica: Arc<Replica>) -> Transaction {
        Transaction {
            replica,
            phase: Phase::default(),
            connected: Connected::Nobody,
            capture: Capture::default(),
            held: None,
            schema: SchemaWatch::default(),
        }
    }

    /// The replica knows of it.
    pub fn begin(&mut self) {
        self.phase = Phase::Writing;
        self.capture.clear();
        self.held = None;
    }

    /// The connection has read page 1.
    pub fn read_page1(&mut self, page1: &mut [u8]) {
        // What a checkpoint reads, it writes.
        if self.phase.is_copying() {
            return;
        }
        if let Some(history) = self.replica.history() {
            self.schema.read(page1, history);
        }
    }

    /// A write to the log.
    pub fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        if let Err(refused) = self.check(bytes, at) {
            return failed(&self.replica, Err(refused));
        }
        let code = match self.make_room(real, bytes, at) {
            sql::SQLITE_OK => self.before_write(bytes, at as u64),
            code => code,
        };
        if code != sql::SQLITE_OK {
            return code;
        }
        let committed = matches!(self.phase, Phase::Committed(..));
        if self.capture.is_commit_due() && !committed {
            self.held = Some((bytes.to_vec(), at));
            return sql::SQLITE_OK;
        }
        let code = match self.held.take() {
            Some((header, before)) => match real.write_bytes(&header, before as u64) {
                sql::SQLITE_OK => real.write_bytes(bytes, at as u64),
                code => code,
            },
            None => real.write_bytes(bytes, at as u64),
        };
        if committed && code != sql::SQLITE_OK {
            let why = "the primary has committed, and the local file cannot be written; replica_sync() brings it";
            return failed(&self.replica, Err(Error::Unknown(why.into())));
        }
        code
    }

    /// Whether this write is one of an announced transaction.
    fn check(&self, bytes: &[u8], at: i64) -> Result<()> {
        let why = match &self.phase {
            _ if at < 0 => "a write before its begin",
            Phase::Writing if !Capture::knows(bytes, at as u64) => {
                "a write of another form than SQLite's log has"
            }
            Phase::Committed(commit, page) if !belongs_to(commit, page, bytes, at as u64) => {
                "a write behind a commit that is no part of it"
            }
            phase if !phase.may_write_log() => "a write that no transaction announced",
            _ => return Ok(()),
        };
        Err(refused(&self.replica, &format!("{why} to its log")))
    }

    /// The log is cut back.
    pub fn truncate(&self, real: Real, size: i64) -> c_int {
        if self.phase.may_cut_log() {
            return real.truncate(size);
        }
        failed(
            &self.replica,
            Err(refused(
                &self.replica,
                "a cut of its log outside a checkpoint",
            )),
        )
    }

    /// The frame that is about to commit has its place in the log before the
    /// primary is asked: a full disk is no surprise afterwards. Without the
    /// database size in its header its checksum is wrong, and it no frame.
    fn make_room(&self, real: Real, bytes: &[u8], at: i64) -> c_int {
        let Some((header, before)) = &self.held else {
            return sql::SQLITE_OK;
        };
        if at != before + header.len() as i64 {
            return sql::SQLITE_OK;
        }
        let mut unfinished = header.clone();
        unfinished[4..8].fill(0);
        match real.write_bytes(&unfinished, *before as u64) {
            sql::SQLITE_OK => real.write_bytes(bytes, at as u64),
            code => code,
        }
    }

    fn before_write(&mut self, bytes: &[u8], at: u64) -> c_int {
        let Some((commit, page)) = self.capture.write(bytes, at) else {
            return sql::SQLITE_OK;
        };
        // The frame that commits is repeated to fill a sector where a torn
        // write could harm its neighbours.
        if !matches!(self.phase, Phase::Writing) {
            return sql::SQLITE_OK;
        }
        let written = Written {
            frames: self.capture.frames(commit),
            commit,
            last: self.capture.last(),
            page,
            cookies_later: self.schema.later(),
        };
        let done = attention::listening_to(self.connected, || self.replica.commit(written));
        if done.is_ok() {
            self.phase = Phase::Committed(commit, Box::new(*page));
        }
        match (&done, &mut self.held) {
            (Err(_), held) => *held = None,
            (Ok(Some(sealed)), Some((header, _))) => header[..sealed.len()].copy_from_slice(sealed),
            (Ok(_), _) => {}
        }
        failed(&self.replica, done.map(drop))
    }
}

/// The result code of a step of a write, its error kept in words.
pub fn failed(replica: &Replica, result: Result<()>) -> c_int {
    let Err(error) = result else {
        return sql::SQLITE_OK;
    };
    replica.note_failure(&error);
    error.write_code()
}

/// Bytes that come by no way that `access` knows.
pub fn refused(replica: &Replica, what: &str) -> Error {
    Error::ReadOnly(format!(
        "'{}': refused {what}: this SQLite does something that the library does not know; nothing was changed",
        replica.path()
    ))
}
