//! The database file of a replica. Reads are SQLite's own affair; the locks
//! show when a transaction begins to write, and when it has ended.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libsqlite3_sys as sql;
use parking_lot::Mutex;

use super::access::{Asks, Locks, Phase, begins_checkpoint, is_rollback_write};
use super::schema_watch::is_page1;
use super::transaction::{Transaction, failed, refused};
use crate::error::Error;
use crate::ffi::api;
use crate::ffi::attention::{self, Connected};
use crate::ffi::busy::BusyHandler;
use crate::ffi::file::Real;
use crate::ffi::pragma::{Pragma, prefix_vfs_name};
use crate::ffi::shim_file::FileHooks;
use crate::ffi::shm::ShmLock;
use crate::replica::Replica;
use crate::replica::turn::Turn;
use crate::replica::writer::Begin;
use crate::wal::index;

/// A file control of our own: only a replica's file knows it.
const FCNTL_IS_REPLICA: c_int = 0x4c52_4550;
/// Another: OK while this connection is inside a write transaction.
const FCNTL_IS_WRITING: c_int = 0x4c52_4557;

const LOCK: c_int = sql::SQLITE_SHM_LOCK | sql::SQLITE_SHM_EXCLUSIVE;
const UNLOCK: c_int = sql::SQLITE_SHM_UNLOCK | sql::SQLITE_SHM_EXCLUSIVE;
/// So long a write that has come again is kept waiting for its turn, before
/// the busy handler is asked once more.
const MOMENT: Duration = Duration::from_millis(20);

/// Whether this connection has the schema open through our VFS as a replica.
pub fn is_replica(db: *mut sql::sqlite3, schema: &str) -> bool {
    api::file_control(db, schema, FCNTL_IS_REPLICA) == sql::SQLITE_OK
}

/// Whether this connection is inside a write transaction on the schema.
pub fn is_writing(db: *mut sql::sqlite3, schema: &str) -> bool {
    api::file_control(db, schema, FCNTL_IS_WRITING) == sql::SQLITE_OK
}

/// A SQLite can be built with exclusive locking as what a connection begins
/// with. That is set behind xOpen and behind the auto-extensions, so the first
/// lock is the time to set it back. (No `main.`: SQLite may be reading the
/// schema, where a name with a schema is an error.)
fn share_main(db: *mut sql::sqlite3) {
    if !db.is_null() && is_replica(db, "main") {
        api::exec(db, c"PRAGMA locking_mode=NORMAL");
    }
}

pub struct MainDb {
    /// Keeps the replica open for as long as a connection is.
    replica: Arc<Replica>,
    transaction: Arc<Mutex<Transaction>>,
    busy: Option<BusyHandler>,
    locks: Locks,
    /// It was locked before.
    is_used: bool,
    turn: Turn,
    /// The last write was told to come again.
    again: Cell<bool>,
}

impl MainDb {
    pub fn new(replica: Arc<Replica>) -> MainDb {
        MainDb {
            transaction: Arc::new(Mutex::new(Transaction::new(replica.clone()))),
            turn: Turn::new(replica.path()),
            replica,
            again: Cell::new(false),
            busy: None,
            locks: Locks::default(),
            is_used: false,
        }
    }

    pub fn transaction(&self) -> Arc<Mutex<Transaction>> {
        self.transaction.clone()
    }

    /// Keeps the reason in words; the code for SQLite.
    fn refuse(&self, why: impl Into<String>) -> c_int {
        failed(&self.replica, Err(Error::ReadOnly(why.into())))
    }

    /// What comes by no way that is known.
    fn refuse_unknown(&self, what: &str) -> c_int {
        failed(&self.replica, Err(refused(&self.replica, what)))
    }

    /// A rollback journal of this database is about to be made.
    pub fn refuse_journal(&self) -> c_int {
        self.refuse_unknown("a rollback journal")
    }

    /// Work that its connection can interrupt.
    fn listening<T>(&self, work: impl FnOnce() -> T) -> T {
        let connected = self.transaction.lock().connected;
        attention::listening_to(connected, work)
    }

    /// WAL_WRITE_LOCK, when it is this connection's turn. Whoever has come
    /// again, which the busy handler or the program wanted, is given a moment;
    /// what the database has become then, SQLite has to look at anew.
    fn take_turn(&self, real: Real) -> c_int {
        let seen = self.turn.is_waiting().then(|| index::peek(real));
        let end = Instant::now() + MOMENT;
        loop {
            if self.turn.has_come() {
                match real.shm_lock(ShmLock::WRITE.slot, ShmLock::WRITE.count, LOCK) {
                    sql::SQLITE_OK if seen.is_none_or(|seen| seen == index::peek(real)) => {
                        return sql::SQLITE_OK;
                    }
                    sql::SQLITE_OK => {
                        real.shm_lock(ShmLock::WRITE.slot, ShmLock::WRITE.count, UNLOCK);
                        return sql::SQLITE_BUSY;
                    }
                    sql::SQLITE_BUSY => {}
                    code => return code,
                }
            }
            self.replica.give_way();
            if seen.is_none() {
                // Who has nothing that waits for it does not come again.
                if self.busy.is_some_and(|handler| handler.ask()) {
                    self.turn.wait();
                }
                return sql::SQLITE_BUSY;
            }
            if Instant::now() > end {
                return sql::SQLITE_BUSY;
            }
            std::thread::sleep(self.turn.pause());
        }
    }

    /// WAL_WRITE_LOCK for a transaction that the replica is to know of.
    fn begin_write(&self, real: Real) -> c_int {
        match self.take_turn(real) {
            sql::SQLITE_OK => {}
            code => return code,
        }
        let unlock = || {
            real.shm_lock(ShmLock::WRITE.slot, ShmLock::WRITE.count, UNLOCK);
        };
        // The statement comes again: how long it has waited is being counted.
        if self.again.replace(true) {
            attention::handle_busy();
        }
        let busy = self.busy;
        let begun = self.replica.begin_write(&mut || {
            attention::handle_busy();
            busy.is_some_and(|handler| handler.ask())
        });
        let behind = match begun {
            Ok(Begin::Ready) => {
                self.turn.leave();
                self.again.set(false);
                self.transaction.lock().begin();
                return sql::SQLITE_OK;
            }
            Ok(Begin::CaughtUp) => {
                // The statement comes again, and then it is still its turn.
                self.turn.wait();
                unlock();
                return sql::SQLITE_BUSY_SNAPSHOT;
            }
            Ok(Begin::Behind) => None,
            Err(e) => Some(e),
        };
        if behind.is_some() {
            self.turn.leave();
            self.again.set(false);
        }
        unlock();
        match behind.map_or_else(|| self.replica.catch_up(), Err) {
            // A snapshot cannot move: a statement of its own is begun again by
            // the busy handler, a transaction that has read has to be.
            Ok(()) => sql::SQLITE_BUSY_SNAPSHOT,
            error => failed(&self.replica, error),
        }
    }

    /// Recovery, or a transaction that asks early: see `access`.
    fn before_reading(&self, real: Real) -> c_int {
        if !index::is_valid(real)
            && let Err(e) = self.replica.recover_log()
        {
            return failed(&self.replica, Err(e));
        }
        sql::SQLITE_BUSY
    }

    /// The transaction is over; what follows from it, follows at once.
    fn end_write(&self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        let sync_due = {
            let mut transaction = self.transaction.lock();
            transaction.phase = Phase::Reading;
            self.replica.end_write()
        };
        let code = real.shm_lock(slot, count, flags);
        if sync_due {
            // It is committed; what fails here, the next sync does.
            let _ = self.replica.sync();
        }
        code
    }

    fn other_lock(&self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        let checkpoint = begins_checkpoint(slot, count, flags);
        if checkpoint == Some(true) && self.transaction.lock().phase.is_writing() {
            return self.refuse_unknown("a checkpoint inside a write transaction");
        }
        let code = real.shm_lock(slot, count, flags);
        if let Some(begins) = checkpoint
            && code == sql::SQLITE_OK
        {
            self.transaction.lock().phase = match begins {
                true => Phase::Checkpoint,
                false => Phase::Reading,
            };
        }
        code
    }

    fn answer(&self, pragma: Pragma) -> Option<c_int> {
        match (pragma.name.as_str(), pragma.value.as_deref()) {
            ("journal_mode", Some(_)) => Some(pragma.answer("wal")),
            // Syncs need their share of the file.
            ("locking_mode", Some("exclusive")) => Some(pragma.answer("normal")),
            _ => None,
        }
    }
}

impl FileHooks for MainDb {
    fn read_page1(&mut self, bytes: &mut [u8], at: i64) {
        if at == 0 && is_page1(bytes) {
            self.transaction.lock().read_page1(bytes);
        }
    }

    fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        match self.transaction.lock().phase.may_write_file() {
            true => real.write_bytes(bytes, at as u64),
            false => self.refuse_unknown("a write to the database file outside a checkpoint"),
        }
    }

    fn truncate(&mut self, real: Real, size: i64) -> c_int {
        match self.transaction.lock().phase.may_write_file() {
            true => real.truncate(size),
            false => self.refuse_unknown("a cut of the database file outside a checkpoint"),
        }
    }

    fn before_lock(&mut self) -> Option<Box<dyn FnOnce()>> {
        if std::mem::replace(&mut self.is_used, true) || !api::locks_exclusively() {
            return None;
        }
        let db = self.transaction.lock().connected.db();
        Some(Box::new(move || share_main(db)))
    }

    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        // Only a write transaction outside WAL mode asks for it: on a file that
        // was taken out of WAL mode, or by whoever is about to do so.
        if level == sql::SQLITE_LOCK_RESERVED {
            return self.refuse(
                "this replica was taken out of WAL mode; `SELECT replica_resync()` makes it one again",
            );
        }
        if level != sql::SQLITE_LOCK_EXCLUSIVE {
            return real.lock(level);
        }
        if !self.locks.can_close(&self.transaction.lock().phase) {
            let why = format!(
                "'{}' cannot be locked exclusively: syncs need their share of the file; run PRAGMA locking_mode=NORMAL before it is read or attached",
                self.replica.path()
            );
            failed(&self.replica, Err(Error::CantOpen(why)));
            return sql::SQLITE_CANTOPEN;
        }
        let code = real.lock(level);
        if code == sql::SQLITE_OK {
            self.transaction.lock().phase = Phase::Closing;
        }
        code
    }

    fn unlock(&mut self, real: Real, level: c_int) -> c_int {
        if level < sql::SQLITE_LOCK_EXCLUSIVE {
            let mut transaction = self.transaction.lock();
            if matches!(transaction.phase, Phase::Closing) {
                transaction.phase = Phase::Reading;
            }
        }
        real.unlock(level)
    }

    fn shm_opened(&mut self) {
        self.locks.log_opened();
    }

    fn shm_closed(&mut self) {
        self.locks.log_closed();
        let before = std::mem::take(&mut self.transaction.lock().phase);
        if before.is_writing() {
            self.replica.end_write();
        }
    }

    fn shm_shared(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        let rc = real.shm_lock(slot, count, flags);
        if rc == sql::SQLITE_OK {
            self.locks.follow_reader(slot, flags);
        }
        rc
    }

    fn shm_lock(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        let asks = self
            .locks
            .ask(&self.transaction.lock().phase, slot, count, flags);
        match asks {
            Asks::ToWrite => self.listening(|| self.begin_write(real)),
            Asks::ToEnd => self.listening(|| self.end_write(real, slot, count, flags)),
            Asks::BeforeReading => self.before_reading(real),
            Asks::ToCheckpoint => real.shm_lock(slot, count, flags),
            Asks::Otherwise => self.other_lock(real, slot, count, flags),
            Asks::Unknown => self.refuse_unknown("an order of locks"),
        }
    }

    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int {
        match op {
            FCNTL_IS_REPLICA => return sql::SQLITE_OK,
            FCNTL_IS_WRITING => {
                return match self.transaction.lock().phase.is_writing() {
                    true => sql::SQLITE_OK,
                    false => sql::SQLITE_NOTFOUND,
                };
            }
            // It makes the file larger: the checkpoint's affair.
            sql::SQLITE_FCNTL_SIZE_HINT if !self.transaction.lock().phase.may_write_file() => {
                return sql::SQLITE_NOTFOUND;
            }
            op if is_rollback_write(op) => return self.refuse_unknown("an atomic write"),
            _ => {}
        }
        if let Some(connected) = Connected::from_file_control(op, arg) {
            self.transaction.lock().connected = connected;
        }
        if let Some(busy) = BusyHandler::from_file_control(op, arg) {
            self.busy = Some(busy);
        }
        if let Some(pragma) = Pragma::from_file_control(op, arg)
            && let Some(answered) = self.answer(pragma)
        {
            return answered;
        }
        let rc = real.file_control(op, arg);
        if op == sql::SQLITE_FCNTL_VFSNAME && rc == sql::SQLITE_OK {
            prefix_vfs_name(arg, "replica");
        }
        rc
    }
}
