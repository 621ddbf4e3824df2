//! Statements on a connection of the host, and what it may do.

use std::ffi::{CStr, c_char, c_int};

use libsqlite3_sys as sql;

/// A statement that SQLite has parsed.
pub struct Statement(*mut sql::sqlite3_stmt);

impl Statement {
    /// Parses it, which asks the authorizer; runs nothing. The error is a result code.
    pub fn prepare(db: *mut sql::sqlite3, text: &str) -> Result<Statement, c_int> {
        let mut statement = std::ptr::null_mut();
        let text = text.as_bytes();
        let length = c_int::try_from(text.len()).map_err(|_| sql::SQLITE_TOOBIG)?;
        // SAFETY: db is live, the text has that length; the statement is finalized by Drop.
        let code = unsafe {
            let text = text.as_ptr().cast::<c_char>();
            sql::sqlite3_prepare_v2(db, text, length, &mut statement, std::ptr::null_mut())
        };
        match code {
            sql::SQLITE_OK => Ok(Statement(statement)),
            code => Err(code),
        }
    }

    /// Whether it would change nothing: also what is left of one whose effect
    /// the authorizer has taken away.
    pub fn is_readonly(&self) -> bool {
        // SAFETY: null or a live statement; null is read-only.
        self.0.is_null() || unsafe { sql::sqlite3_stmt_readonly(self.0) != 0 }
    }

    /// Runs it to its first row: the number in the first column. None without a row.
    pub fn number(self) -> Result<Option<c_int>, c_int> {
        if self.0.is_null() {
            return Ok(None);
        }
        // SAFETY: a live statement; the column is read while it stands on a row.
        unsafe {
            match sql::sqlite3_step(self.0) {
                sql::SQLITE_ROW => Ok(Some(sql::sqlite3_column_int(self.0, 0))),
                sql::SQLITE_DONE => Ok(None),
                code => Err(code),
            }
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: null or a live statement, finalized once.
        unsafe { sql::sqlite3_finalize(self.0) };
    }
}

/// Whether a schema of the connection can only be read; None if there is none
/// of that name.
pub fn is_readonly(db: *mut sql::sqlite3, schema: &CStr) -> Option<bool> {
    // SAFETY: db is live, the name NUL-terminated.
    match unsafe { sql::sqlite3_db_readonly(db, schema.as_ptr()) } {
        -1 => None,
        answer => Some(answer != 0),
    }
}
