//! The connections of this process that have our functions, and which of them
//! an open is for: SQLite tells a VFS only once the file is open.

use std::ffi::{CStr, c_void};

use libsqlite3_sys as sql;
use parking_lot::Mutex;

use super::attention::Connected;
use super::{api, guard};

struct Connection {
    db: *mut sql::sqlite3,
}

// SAFETY: a name for a connection; used as `attaching` says.
unsafe impl Send for Connection {}

static OPEN: Mutex<Vec<Connection>> = Mutex::new(Vec::new());

/// A connection is open, until [`closed`] is called with its pointer.
pub(super) fn opened(db: *mut sql::sqlite3) {
    OPEN.lock().push(Connection { db });
}

/// SQLite's destructor for what was defined with the connection as its data.
pub(super) unsafe extern "C" fn closed(db: *mut c_void) {
    let _ = guard::catch(|| {
        let mut open = OPEN.lock();
        if let Some(at) = open.iter().position(|c| c.db.cast() == db) {
            open.swap_remove(at);
        }
    });
}

/// The connection on whose behalf this thread opens a file, if that is an
/// ATTACH: until the file is open, nothing else leads to it.
pub fn attaching() -> Connected {
    // Nobody closes one meanwhile: `closed` needs this lock.
    let open = OPEN.lock();
    let found = open.iter().find(|connection| {
        // SAFETY: the connection is open. Only a mutex that is free, or this
        // thread's own, is entered, and left again.
        unsafe {
            let mutex = sql::sqlite3_db_mutex(connection.db);
            // One without a mutex may be in another thread's hands.
            if mutex.is_null() {
                return false;
            }
            if sql::sqlite3_mutex_try(mutex) != sql::SQLITE_OK {
                return false;
            }
            let attaching = is_attaching(connection.db);
            sql::sqlite3_mutex_leave(mutex);
            attaching
        }
    });
    found.map_or(Connected::Nobody, |connection| {
        Connected::Calls(connection.db)
    })
}

/// Whether an ATTACH of the connection is running: such a statement runs only
/// within a call, so it is this thread's.
unsafe fn is_attaching(db: *mut sql::sqlite3) -> bool {
    // SAFETY: per contract the connection is this thread's to look at.
    unsafe { is_running(db, |word| word.eq_ignore_ascii_case(b"attach")) }
}

/// From this version on SQLite reads the schema before it prepares whatever
/// SELECT, if the connection has not read it yet.
const READS_SCHEMA: i32 = 3_048_000;
/// Statements that cannot be running where it has not.
const WITH_SCHEMA: [&str; 9] = [
    "insert", "replace", "update", "delete", "with", "create", "drop", "alter", "select",
];

/// Whether the connection, which is in a call of this thread, can prepare a
/// SELECT inside its own files: reading the schema would begin and end a
/// transaction on the b-tree that is at work, and take its pages away.
pub(super) fn has_schema(db: *mut sql::sqlite3) -> bool {
    let needs_schema = |word: &[u8]| {
        let mut known = WITH_SCHEMA.iter();
        known.any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
    };
    // SAFETY: the connection is in a call of this thread.
    api::version() < READS_SCHEMA || unsafe { is_running(db, needs_schema) }
}

/// Whether a statement is running whose first word is wanted.
unsafe fn is_running(db: *mut sql::sqlite3, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut statement = std::ptr::null_mut();
    loop {
        // SAFETY: per contract the connection is this thread's to look at.
        unsafe {
            statement = sql::sqlite3_next_stmt(db, statement);
            if statement.is_null() {
                return false;
            }
            let text = sql::sqlite3_sql(statement);
            if sql::sqlite3_stmt_busy(statement) != 0
                && !text.is_null()
                && is_wanted(first_word(CStr::from_ptr(text).to_bytes()))
            {
                return true;
            }
        }
    }
}

/// Behind spaces and comments.
fn first_word(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        let end: &[u8] = match text {
            [b'-', b'-', ..] => b"\n",
            [b'/', b'*', ..] => b"*/",
            _ => {
                let end = text.iter().position(|b| !b.is_ascii_alphabetic());
                return &text[..end.unwrap_or(text.len())];
            }
        };
        let Some(at) = text[2..].windows(end.len()).position(|w| w == end) else {
            return &[];
        };
        text = &text[2 + at + end.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words() {
        let word = |text: &'static str| std::str::from_utf8(first_word(text.as_bytes())).unwrap();
        for text in ["ATTACH 'a' AS b", " ATTACH?", "-- why\n/* * */ ATTACH"] {
            assert_eq!(word(text), "ATTACH");
        }
        assert_eq!(word("SELECT 'ATTACH'"), "SELECT");
        for text in ["", " ", "-- ATTACH", "/* ATTACH", "'a'"] {
            assert_eq!(word(text), "");
        }
    }
}
