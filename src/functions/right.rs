//! What a connection may do: a function with effects asks for what an UPDATE
//! of the database that it names would need.

use std::ffi::CString;

use libsqlite3_sys as sql;

use crate::error::{Error, Result};
use crate::ffi::api::random;
use crate::ffi::statement::{Statement, is_readonly};

/// An error unless the connection may change the schema's database.
pub fn check(db: *mut sql::sqlite3, schema: &str) -> Result<()> {
    let name = CString::new(schema).ok();
    match name.and_then(|name| is_readonly(db, &name)) {
        None => {
            let text = format!("no schema '{schema}' on this connection");
            return Err(Error::Config(text));
        }
        Some(true) => {
            let text = format!("'{schema}' is open for reading alone on this connection");
            return Err(Error::ReadOnly(text));
        }
        Some(false) => {}
    }
    check_query_only(db)?;
    ask_authorizer(db, schema)
}

fn check_query_only(db: *mut sql::sqlite3) -> Result<()> {
    let answer = Statement::prepare(db, "PRAGMA query_only").and_then(Statement::number);
    match answer {
        Ok(Some(0)) => Ok(()),
        Ok(Some(_)) => Err(Error::ReadOnly(
            "PRAGMA query_only is on: this connection may only read".into(),
        )),
        Ok(None) | Err(sql::SQLITE_AUTH) => Err(denied()),
        Err(code) => Err(Error::io("ask for PRAGMA query_only on", "main", code)),
    }
}

fn denied() -> Error {
    Error::Denied("the authorizer of this connection does not allow it".into())
}

/// SQLite asks the authorizer while it parses: here for INSERT into and UPDATE
/// of the schema's own table, and for CREATE TABLE. Nothing is run.
fn ask_authorizer(db: *mut sql::sqlite3, schema: &str) -> Result<()> {
    // A name that no database has: of a table that exists SQLite would ask less.
    let unique = u64::from_le_bytes(random());
    let quoted = schema.replace('"', "\"\"");
    let text = format!("CREATE TABLE \"{quoted}\".\"replica_may_write_{unique:x}\"(a)");
    match Statement::prepare(db, &text) {
        Ok(statement) if !statement.is_readonly() => Ok(()),
        Ok(_) => Err(denied()),
        Err(code) => match code & 0xff {
            sql::SQLITE_AUTH => Err(denied()),
            sql::SQLITE_BUSY => Err(Error::Busy(format!("'{schema}' is locked"))),
            // Its schema cannot be read, as before a replica_resync; all but
            // the UPDATE was asked by then.
            sql::SQLITE_CORRUPT | sql::SQLITE_NOTADB | sql::SQLITE_IOERR => Ok(()),
            _ => Err(Error::io("ask for the right to change", schema, code)),
        },
    }
}
