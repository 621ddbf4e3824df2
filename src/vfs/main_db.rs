//! The database file of a replica. Reads are SQLite's own affair; what would
//! write to the file behind the primary's back stops here.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use libsqlite3_sys as sql;

use crate::error::Error;
use crate::ffi::api;
use crate::ffi::file::Real;
use crate::ffi::pragma::{Pragma, prefix_vfs_name};
use crate::ffi::shim_file::FileHooks;
use crate::ffi::shm::ShmLock;
use crate::replica::{Replica, registry};

/// A file control of our own: only a replica's file knows it.
const FCNTL_IS_REPLICA: c_int = 0x4c52_4550;

/// Whether this connection has the schema open through our VFS as a replica.
pub fn is_replica(db: *mut sql::sqlite3, schema: &str) -> bool {
    api::file_control(db, schema, FCNTL_IS_REPLICA) == sql::SQLITE_OK
}

pub struct MainDb {
    /// Keeps the replica open for as long as a connection is.
    _replica: Arc<Replica>,
    /// Read locks and the checkpoint lock that this connection holds.
    readers: u32,
    checkpointer: bool,
}

impl MainDb {
    pub fn new(replica: Arc<Replica>) -> MainDb {
        MainDb {
            _replica: replica,
            readers: 0,
            checkpointer: false,
        }
    }

    /// Follows the locks; true if this call is the begin of a write transaction.
    ///
    /// The write lock is taken by three: a transaction, which holds a read
    /// lock; a checkpoint, which holds the checkpoint lock; recovery, which
    /// holds neither.
    fn begins_write(&mut self, slot: c_int, flags: c_int) -> bool {
        let lock = flags & sql::SQLITE_SHM_LOCK != 0;
        let exclusive = flags & sql::SQLITE_SHM_EXCLUSIVE != 0;
        lock && exclusive && slot == ShmLock::WRITE.slot && self.readers > 0 && !self.checkpointer
    }

    fn follow(&mut self, slot: c_int, flags: c_int) {
        let lock = flags & sql::SQLITE_SHM_LOCK != 0;
        let exclusive = flags & sql::SQLITE_SHM_EXCLUSIVE != 0;
        if exclusive && slot == ShmLock::CHECKPOINT.slot {
            self.checkpointer = lock;
        } else if !exclusive && slot >= ShmLock::FIRST_READER {
            let bit = 1 << slot;
            self.readers = if lock {
                self.readers | bit
            } else {
                self.readers & !bit
            };
        }
    }
}

fn refuse_write() -> c_int {
    let refused = Error::ReadOnly(
        "this version of libreplica only pulls: write at the primary, then replica_sync()".into(),
    );
    registry::set_last_error(&refused.to_string());
    refused.code()
}

impl FileHooks for MainDb {
    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        // Only a write transaction outside WAL mode asks for it: on a file that
        // was taken out of WAL mode, or by whoever is about to do so.
        if level == sql::SQLITE_LOCK_RESERVED {
            return refuse_write();
        }
        real.lock(level)
    }

    fn shm_lock(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        if self.begins_write(slot, flags) {
            return refuse_write();
        }
        let rc = real.shm_lock(slot, count, flags);
        if rc == sql::SQLITE_OK {
            self.follow(slot, flags);
        }
        rc
    }

    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int {
        if op == FCNTL_IS_REPLICA {
            return sql::SQLITE_OK;
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
