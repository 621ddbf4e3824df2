//! The database files that are open through our VFS, by path, and the one that
//! each thread locked last: SQLite locks a database and opens its log or
//! journal in one go, so that is the one such a file belongs to. Its name does
//! not say so: a VFS on top may have given it one of its own, which nothing of
//! SQLite's stands in front of.

use std::cell::Cell;
use std::collections::HashMap;

use libsqlite3_sys as sql;
use once_cell::sync::Lazy;
use parking_lot::Mutex;

static OPEN: Lazy<Mutex<HashMap<usize, String>>> = Lazy::new(Mutex::default);

thread_local! {
    static LOCKED: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn opened(file: *mut sql::sqlite3_file, path: &str) {
    OPEN.lock().insert(file as usize, path.to_string());
}

pub(super) fn closed(file: *mut sql::sqlite3_file) {
    OPEN.lock().remove(&(file as usize));
}

pub(super) fn locked(file: *mut sql::sqlite3_file) {
    LOCKED.set(file as usize);
}

/// The open database file whose log or journal this thread opens as `path`;
/// null if there is none.
pub(super) fn database_of(path: &str) -> *mut sql::sqlite3_file {
    let locked = LOCKED.get();
    let beside = |database: &String| {
        let suffix = path.strip_prefix(database.as_str());
        matches!(suffix, Some("-wal" | "-journal"))
    };
    match OPEN.lock().get(&locked).is_some_and(beside) {
        true => locked as *mut sql::sqlite3_file,
        false => std::ptr::null_mut(),
    }
}
