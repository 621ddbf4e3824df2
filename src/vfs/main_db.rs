//! The database file of a replica. Reads are SQLite's own affair; the locks
//! show when a transaction begins to write, and when it has ended.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use libsqlite3_sys as sql;
use parking_lot::Mutex;

use super::schema_watch::{SchemaWatch, is_page1};
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::ffi::busy::BusyHandler;
use crate::ffi::file::Real;
use crate::ffi::pragma::{Pragma, prefix_vfs_name};
use crate::ffi::shim_file::FileHooks;
use crate::ffi::shm::ShmLock;
use crate::replica::Replica;
use crate::replica::transaction::Written;
use crate::replica::writer::Begin;
use crate::wal::capture::Capture;

/// A file control of our own: only a replica's file knows it.
const FCNTL_IS_REPLICA: c_int = 0x4c52_4550;
/// Another: OK while this connection is inside a write transaction.
const FCNTL_IS_WRITING: c_int = 0x4c52_4557;

/// Whether this connection has the schema open through our VFS as a replica.
pub fn is_replica(db: *mut sql::sqlite3, schema: &str) -> bool {
    api::file_control(db, schema, FCNTL_IS_REPLICA) == sql::SQLITE_OK
}

/// Whether this connection is inside a write transaction on the schema.
pub fn is_writing(db: *mut sql::sqlite3, schema: &str) -> bool {
    api::file_control(db, schema, FCNTL_IS_WRITING) == sql::SQLITE_OK
}

/// A connection's write transaction, as its database file and its log see it.
pub struct Transaction {
    replica: Arc<Replica>,
    /// The connection holds WAL_WRITE_LOCK to write, not to check or recover.
    writing: bool,
    committed: bool,
    capture: Capture,
    /// The header of the frame that commits, as long as the primary has not.
    /// In the log it could make a whole frame with what an older log has left
    /// behind it, and recovery would find a commit that never was.
    held: Option<(Vec<u8>, i64)>,
    schema: SchemaWatch,
    /// The connection copies the log into the database: what it reads, it writes.
    checkpoints: bool,
}

impl Transaction {
    fn begin(&mut self) {
        (self.writing, self.committed) = (true, false);
        self.capture.clear();
        self.held = None;
    }

    /// The connection has read page 1.
    pub fn read_page1(&mut self, page1: &mut [u8]) {
        if let Some(history) = self.replica.history().filter(|_| !self.checkpoints) {
            self.schema.read(page1, history);
        }
    }

    /// A write to the log.
    pub fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        let code = match self.make_room(real, bytes, at) {
            sql::SQLITE_OK => self.before_write(bytes, at as u64),
            code => code,
        };
        if code != sql::SQLITE_OK {
            return code;
        }
        if self.capture.is_commit_due() && !self.committed {
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
        if self.committed && code != sql::SQLITE_OK {
            let why = "the primary has committed, and the local file cannot be written; replica_sync() brings it";
            return failed(&self.replica, Err(Error::Unknown(why.into())));
        }
        code
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
        if self.committed {
            return sql::SQLITE_OK;
        }
        let written = Written {
            frames: self.capture.frames(commit),
            commit,
            last: self.capture.last(),
            page,
            cookies_later: self.schema.later(),
        };
        let done = self.replica.commit(written);
        self.committed = done.is_ok();
        match (&done, &mut self.held) {
            (Err(_), held) => *held = None,
            (Ok(Some(sealed)), Some((header, _))) => header[..sealed.len()].copy_from_slice(sealed),
            (Ok(_), _) => {}
        }
        failed(&self.replica, done.map(drop))
    }
}

/// The result code of a step of a write, its error kept in words.
fn failed(replica: &Replica, result: Result<()>) -> c_int {
    let Err(error) = result else {
        return sql::SQLITE_OK;
    };
    replica.note_failure(&error);
    error.write_code()
}

pub struct MainDb {
    /// Keeps the replica open for as long as a connection is.
    replica: Arc<Replica>,
    transaction: Arc<Mutex<Transaction>>,
    busy: Option<BusyHandler>,
    /// Read locks and the checkpoint lock that this connection holds.
    readers: u32,
    checkpointer: bool,
}

impl MainDb {
    pub fn new(replica: Arc<Replica>) -> MainDb {
        let transaction = Transaction {
            replica: replica.clone(),
            writing: false,
            committed: false,
            capture: Capture::default(),
            held: None,
            schema: SchemaWatch::default(),
            checkpoints: false,
        };
        MainDb {
            replica,
            transaction: Arc::new(Mutex::new(transaction)),
            busy: None,
            readers: 0,
            checkpointer: false,
        }
    }

    pub fn transaction(&self) -> Arc<Mutex<Transaction>> {
        self.transaction.clone()
    }

    /// Follows the locks; true if this call is the begin of a write transaction.
    ///
    /// The write lock is taken by three: a transaction, which holds a read
    /// lock; a checkpoint, which holds the checkpoint lock; recovery, which
    /// holds neither.
    fn begins_write(&self, slot: c_int, flags: c_int) -> bool {
        let lock = flags & sql::SQLITE_SHM_LOCK != 0;
        let exclusive = flags & sql::SQLITE_SHM_EXCLUSIVE != 0;
        lock && exclusive && slot == ShmLock::WRITE.slot && self.readers > 0 && !self.checkpointer
    }

    fn ends_write(&self, slot: c_int, flags: c_int) -> bool {
        flags & sql::SQLITE_SHM_UNLOCK != 0
            && slot == ShmLock::WRITE.slot
            && self.transaction.lock().writing
    }

    /// Read locks are shared, all other ones exclusive.
    fn follow(&mut self, slot: c_int, flags: c_int) {
        if flags & sql::SQLITE_SHM_EXCLUSIVE != 0 && slot == ShmLock::CHECKPOINT.slot {
            self.checkpointer = flags & sql::SQLITE_SHM_LOCK != 0;
            self.transaction.lock().checkpoints = self.checkpointer;
        }
    }

    #[inline]
    fn follow_reader(&mut self, slot: c_int, flags: c_int) {
        if slot >= ShmLock::FIRST_READER {
            let bit = 1 << slot;
            self.readers = match flags & sql::SQLITE_SHM_LOCK != 0 {
                true => self.readers | bit,
                false => self.readers & !bit,
            };
        }
    }

    /// The connection has the lock; answers what keeps it from writing.
    fn begin_write(&mut self, unlock: impl Fn()) -> c_int {
        let busy = self.busy;
        let begun = self
            .replica
            .begin_write(&mut || busy.is_some_and(|handler| handler.ask()));
        let behind = match begun {
            Ok(Begin::Ready) => {
                self.transaction.lock().begin();
                return sql::SQLITE_OK;
            }
            Ok(Begin::CaughtUp) => {
                unlock();
                return sql::SQLITE_BUSY_SNAPSHOT;
            }
            Ok(Begin::Behind) => None,
            Err(e) => Some(e),
        };
        unlock();
        match behind.map_or_else(|| self.replica.catch_up(), Err) {
            // A snapshot cannot move: a statement of its own is begun again by
            // the busy handler, a transaction that has read has to be.
            Ok(()) => sql::SQLITE_BUSY_SNAPSHOT,
            error => failed(&self.replica, error),
        }
    }
}

impl FileHooks for MainDb {
    fn read_page1(&mut self, bytes: &mut [u8], at: i64) {
        if at == 0 && is_page1(bytes) {
            self.transaction.lock().read_page1(bytes);
        }
    }

    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        // Only a write transaction outside WAL mode asks for it: on a file that
        // was taken out of WAL mode, or by whoever is about to do so.
        if level == sql::SQLITE_LOCK_RESERVED {
            let why = "this replica was taken out of WAL mode; `SELECT replica_resync()` makes it one again";
            return failed(&self.replica, Err(Error::ReadOnly(why.into())));
        }
        let code = real.lock(level);
        if level == sql::SQLITE_LOCK_EXCLUSIVE && code == sql::SQLITE_OK {
            // The last one to close checkpoints without a lock of its own.
            self.transaction.lock().checkpoints = true;
        }
        code
    }

    fn shm_shared(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        let rc = real.shm_lock(slot, count, flags);
        if rc == sql::SQLITE_OK {
            self.follow_reader(slot, flags);
        }
        rc
    }

    fn shm_lock(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        let begins = self.begins_write(slot, flags);
        let ends = self.ends_write(slot, flags);
        let sync_due = ends && {
            let mut transaction = self.transaction.lock();
            transaction.writing = false;
            self.replica.end_write()
        };
        let rc = real.shm_lock(slot, count, flags);
        if rc == sql::SQLITE_OK {
            self.follow(slot, flags);
        }
        if sync_due {
            // It is committed; what fails here, the next sync does.
            let _ = self.replica.sync();
        }
        if begins && rc == sql::SQLITE_BUSY {
            self.replica.give_way();
        }
        if begins && rc == sql::SQLITE_OK {
            let unlock = sql::SQLITE_SHM_UNLOCK | sql::SQLITE_SHM_EXCLUSIVE;
            return self.begin_write(|| {
                real.shm_lock(slot, count, unlock);
            });
        }
        rc
    }

    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int {
        match op {
            FCNTL_IS_REPLICA => return sql::SQLITE_OK,
            FCNTL_IS_WRITING => {
                return match self.transaction.lock().writing {
                    true => sql::SQLITE_OK,
                    false => sql::SQLITE_NOTFOUND,
                };
            }
            _ => {}
        }
        if let Some(busy) = BusyHandler::from_file_control(op, arg) {
            self.busy = Some(busy);
        }
        if let Some(pragma) = Pragma::from_file_control(op, arg) {
            match (pragma.name.as_str(), pragma.value.as_deref()) {
                ("journal_mode", Some(_)) => return pragma.answer("wal"),
                ("locking_mode", Some("exclusive")) => {
                    return pragma.refuse(
                        "a replica cannot be locked exclusively: syncs need their share of the file",
                    );
                }
                _ => {}
            }
        }
        let rc = real.file_control(op, arg);
        if op == sql::SQLITE_FCNTL_VFSNAME && rc == sql::SQLITE_OK {
            prefix_vfs_name(arg, "replica");
        }
        rc
    }
}
