//! libreplica: embedded replicas of a libSQL primary for stock SQLite.
//!
//! A loadable extension. Reading direction, each floor importing only from
//! those below: this entry point; `functions`, the SQL surface, and `vfs`;
//! `replica`, one database's life; `remote`, the primary's protocols, `rows`,
//! row changes as SQL, `wal`, the log's formats, and `crypt`, encrypted files;
//! `btree`, pages to row changes; `config`, `error`, `log`, `ffi`.
#![deny(unsafe_code)]

mod btree;
mod config;
mod crypt;
mod error;
mod ffi;
mod functions;
mod log;
mod remote;
mod replica;
mod rows;
mod vfs;
mod wal;

/// For tests and tools of this repository; no part of the library's surface.
#[doc(hidden)]
pub mod internal {
    pub use crate::btree::{
        Decoded, Encoding, Known, Pages, Row, RowChange, Step, TableRows, Value, decode,
    };
    pub use crate::error::{Error, Result};
    pub use crate::rows::{Effect, Statement, is_same, plan};
}

use std::ffi::{c_char, c_int};

use libsqlite3_sys as sql;
use parking_lot::Mutex;

use crate::ffi::{api, conn, guard};

/// Loaded, and to stay loaded until the process ends.
const OK_LOAD_PERMANENTLY: c_int = sql::SQLITE_OK | 1 << 8;

/// The entry point that SQLite derives from the file name `libreplica`.
///
/// # Safety
/// Called by SQLite's extension loader with its own arguments.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_replica_init(
    db: *mut sql::sqlite3,
    error: *mut *mut c_char,
    host: *mut sql::sqlite3_api_routines,
) -> c_int {
    // Two threads that load it first at the same time: the one makes the VFS,
    // the other finds it.
    static LOADING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = LOADING.lock();
    guard::silence_panics();
    let loaded = guard::catch(|| {
        // SAFETY: the arguments of the extension loader.
        unsafe { api::init(host) }?;
        // Before anything is registered: SQLite unloads what does not load.
        vfs::check_early_open(db)?;
        vfs::register()?;
        if api::auto_extension(on_connect) != sql::SQLITE_OK {
            return Err("libreplica: out of memory".to_string());
        }
        // Auto-extensions run on connections to come, not on this one.
        define(db).map_err(|e| format!("libreplica: {e}"))
    });
    match loaded.and_then(|r| r) {
        Ok(()) => OK_LOAD_PERMANENTLY,
        Err(text) => {
            // SAFETY: SQLite frees the text it is given here.
            unsafe { api::set_text(host, error, &text) };
            sql::SQLITE_ERROR
        }
    }
}

/// Defines our functions, unless the connection has them: while a statement
/// runs on it (such as the one that loads us) they cannot be defined again.
fn define(db: *mut sql::sqlite3) -> Result<(), String> {
    if api::prepares(db, c"SELECT replica_version() FROM replica_databases") {
        return Ok(());
    }
    functions::define(db).map_err(|e| e.result_error_message())
}

/// Runs on every connection that is opened from now on. Always OK: no failure
/// of ours may keep the host from opening a database.
#[allow(unsafe_code)]
unsafe extern "C" fn on_connect(
    db: *mut sql::sqlite3,
    _error: *mut *mut c_char,
    _host: *const sql::sqlite3_api_routines,
) -> c_int {
    guard::guard(|| {
        if conn::is_opening() {
            return sql::SQLITE_OK;
        }
        if let Err(e) = functions::define(db) {
            log::error(sql::SQLITE_ERROR, &e.result_error_message());
        }
        if vfs::is_replica(db, "main") {
            match vfs::foreign_keys(db) {
                Some(true) => api::exec(db, c"PRAGMA foreign_keys=ON"),
                Some(false) => api::exec(db, c"PRAGMA foreign_keys=OFF"),
                // The table rebuilds of migrations rely on the host's own default.
                None => sql::SQLITE_OK,
            };
            // Long enough for a sync that is under way.
            api::exec(db, c"PRAGMA busy_timeout=5000");
            // A larger value could be written, but nobody could read it there.
            api::limit_length(db, remote::MAX_VALUE);
        }
        sql::SQLITE_OK
    });
    sql::SQLITE_OK
}
