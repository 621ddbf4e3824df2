//! The host's API table and the few calls that need nothing else.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use libsqlite3_sys as sql;

/// The oldest host that is accepted: the oldest whose table has every call
/// that libsqlite3-sys binds.
pub const MIN_VERSION: &str = "3.34.1";

/// The table of the one SQLite that this library serves; null before the first load.
static HOST: AtomicPtr<sql::sqlite3_api_routines> = AtomicPtr::new(std::ptr::null_mut());

/// Takes over the host's API table, the first time. Answers why not, if it
/// cannot be used: too old, or another SQLite's than the one that is served.
///
/// # Safety
/// `host` is the table that SQLite handed to the extension's entry point.
pub unsafe fn init(host: *mut sql::sqlite3_api_routines) -> Result<(), String> {
    if host.is_null() {
        return Err("libreplica: the host gave no API table".into());
    }
    let served = HOST.load(Ordering::Acquire);
    if !served.is_null() {
        // SAFETY: both are tables of a SQLite; those do not move.
        let [ours, theirs] =
            [served, host].map(|api| unsafe { (*api).malloc64 }.map(|f| f as usize));
        return match ours == theirs {
            true => Ok(()),
            false => Err("libreplica serves another SQLite of this process already, the one that loaded it first; use one of the two for replicas, or two processes".into()),
        };
    }
    // SAFETY: per contract the table is the host's, complete for its version.
    unsafe {
        sql::rusqlite_extension_init2(host)
            .map_err(|_| format!("libreplica needs SQLite {MIN_VERSION} or newer"))?;
        sqlite_loadable::ext::faux_sqlite_extension_init2(host.cast());
    }
    HOST.store(host, Ordering::Release);
    Ok(())
}

/// SQLite's version as a number, as it counts them.
pub fn version() -> c_int {
    // SAFETY: no arguments, no state.
    unsafe { sql::sqlite3_libversion_number() }
}

/// The host's table up to SQLite 3.41 (sqlite3ext.h): libsqlite3-sys knows it
/// up to 3.34.
#[repr(C)]
struct Newer {
    _known: sql::sqlite3_api_routines,
    /// `changes64` to `value_encoding`.
    _between: [*const c_void; 13],
    is_interrupted: Option<unsafe extern "C" fn(*mut sql::sqlite3) -> c_int>,
}

/// Whether a connection was interrupted, where SQLite can be asked for that.
///
/// # Safety
/// The connection is open.
pub(super) unsafe fn is_interrupted(db: *mut sql::sqlite3) -> Option<bool> {
    let host = HOST.load(Ordering::Acquire);
    if host.is_null() || version() < 3_041_000 {
        return None;
    }
    // SAFETY: a table of this version has the field; the connection per contract.
    unsafe {
        (*host.cast::<Newer>())
            .is_interrupted
            .map(|ask| ask(db) != 0)
    }
}

fn is_ready() -> bool {
    !HOST.load(Ordering::Acquire).is_null()
}

/// Writes to SQLite's error log (`SQLITE_CONFIG_LOG`), the host's own choice.
pub fn log(code: c_int, message: &str) {
    if !is_ready() {
        return;
    }
    let text =
        CString::new(format!("libreplica: {message}").replace('\0', " ")).unwrap_or_default();
    // SAFETY: constant format with one string argument, both NUL-terminated.
    unsafe { sql::sqlite3_log(code, c"%s".as_ptr(), text.as_ptr()) }
}

/// Whether this SQLite may be used from several threads.
pub fn is_threadsafe() -> bool {
    // SAFETY: no arguments, no state.
    unsafe { sql::sqlite3_threadsafe() != 0 }
}

/// Whether connections of this SQLite begin with exclusive locking.
pub fn locks_exclusively() -> bool {
    // SAFETY: a constant text; no state.
    unsafe { sql::sqlite3_compileoption_used(c"DEFAULT_LOCKING_MODE=1".as_ptr()) != 0 }
}

/// Random bytes from SQLite's generator, as its own salts are.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    // SAFETY: writes N bytes into an array of N bytes.
    unsafe { sql::sqlite3_randomness(N as c_int, bytes.as_mut_ptr().cast::<c_void>()) }
    bytes
}

/// A copy in SQLite's memory, for SQLite to free; null without memory.
pub fn malloc_text(text: &str) -> *mut c_char {
    let bytes = text.as_bytes();
    // SAFETY: the allocation has room for the text and its terminator.
    unsafe {
        let copy = sql::sqlite3_malloc64(bytes.len() as u64 + 1).cast::<u8>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
            *copy.add(bytes.len()) = 0;
        }
        copy.cast()
    }
}

/// The file behind a connection's schema (`main`, an ATTACHed name); None if
/// there is no such schema, empty for a temporary or in-memory database.
pub fn db_filename(db: *mut sql::sqlite3, schema: &str) -> Option<String> {
    let schema = CString::new(schema).ok()?;
    // SAFETY: db is the live connection a function was called on.
    unsafe {
        let name = sql::sqlite3_db_filename(db, schema.as_ptr());
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// A URI parameter that a schema's file was opened with.
pub fn db_parameter(db: *mut sql::sqlite3, schema: &CStr, name: &CStr) -> Option<String> {
    // SAFETY: db is live; what it answers is a name of the kind asked for, and null is one, too.
    unsafe {
        let file = sql::sqlite3_db_filename(db, schema.as_ptr());
        let value = sql::sqlite3_uri_parameter(file, name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// Sends a file control without argument to the database file of a schema.
pub fn file_control(db: *mut sql::sqlite3, schema: &str, op: c_int) -> c_int {
    let Ok(schema) = CString::new(schema) else {
        return sql::SQLITE_NOTFOUND;
    };
    // SAFETY: db is live, the name NUL-terminated.
    unsafe { sql::sqlite3_file_control(db, schema.as_ptr(), op, std::ptr::null_mut()) }
}

/// Lowers SQLITE_LIMIT_LENGTH of a connection to this.
pub fn limit_length(db: *mut sql::sqlite3, bytes: c_int) {
    // SAFETY: db is live.
    unsafe {
        if sql::sqlite3_limit(db, sql::SQLITE_LIMIT_LENGTH, -1) > bytes {
            sql::sqlite3_limit(db, sql::SQLITE_LIMIT_LENGTH, bytes);
        }
    }
}

/// Runs SQL whose result does not matter on a connection of the host.
pub fn exec(db: *mut sql::sqlite3, statement: &CStr) -> c_int {
    // SAFETY: db is live, the statement NUL-terminated, no callback is given.
    unsafe {
        sql::sqlite3_exec(
            db,
            statement.as_ptr(),
            None,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    }
}

/// Has `on_connect` run on every connection that this process opens from now on.
pub fn auto_extension(
    on_connect: unsafe extern "C" fn(
        *mut sql::sqlite3,
        *mut *mut c_char,
        *const sql::sqlite3_api_routines,
    ) -> c_int,
) -> c_int {
    // SAFETY: the documented cast; SQLite calls it with the entry point's arguments.
    unsafe {
        sql::sqlite3_auto_extension(Some(std::mem::transmute::<
            unsafe extern "C" fn(
                *mut sql::sqlite3,
                *mut *mut c_char,
                *const sql::sqlite3_api_routines,
            ) -> c_int,
            unsafe extern "C" fn(),
        >(on_connect)))
    }
}

/// Whether a connection knows what this statement needs.
pub fn prepares(db: *mut sql::sqlite3, statement: &CStr) -> bool {
    let mut prepared = std::ptr::null_mut();
    // SAFETY: db is live, the statement NUL-terminated; finalize takes null, too.
    unsafe {
        let code = sql::sqlite3_prepare_v2(
            db,
            statement.as_ptr(),
            -1,
            &mut prepared,
            std::ptr::null_mut(),
        );
        sql::sqlite3_finalize(prepared);
        // The connection's own error is not to be ours.
        exec(db, c"");
        code == sql::SQLITE_OK
    }
}

/// Gives the host that loads the library a text of its own to free; without
/// memory, or where it is not asked for, none.
///
/// # Safety
/// `slot` and `host` are the arguments of the extension's entry point.
pub unsafe fn set_text(host: *mut sql::sqlite3_api_routines, slot: *mut *mut c_char, text: &str) {
    if slot.is_null() || host.is_null() {
        return;
    }
    // SAFETY: per contract. Not by the table that is served: it may be
    // another SQLite's, or none. Every SQLite that loads extensions has malloc.
    unsafe {
        let Some(malloc) = (*host).malloc else { return };
        let copy = malloc(text.len() as c_int + 1).cast::<u8>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
            *copy.add(text.len()) = 0;
            *slot = copy.cast();
        }
    }
}
