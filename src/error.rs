//! One error type for the whole library and its one mapping to SQLite's
//! result codes. Messages say what happened and what to do; they never hold a
//! secret.

use std::ffi::c_int;

use libsqlite3_sys as sql;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An option or argument the user gave.
    #[error("{0}")]
    Config(String),
    /// There is nothing local and nothing can be fetched, or the local file is not ours.
    #[error("{0}")]
    CantOpen(String),
    /// The primary cannot be reached, or answered that it cannot serve now.
    #[error("primary unreachable: {0}")]
    Unreachable(String),
    /// Token missing, refused, expired, or database blocked.
    #[error("primary refused access: {0}")]
    Auth(String),
    /// The primary answered something that is no valid answer.
    #[error("invalid answer from the primary: {0}")]
    Protocol(String),
    /// Local file and primary do not share one history.
    #[error(
        "{0}; `VACUUM INTO 'copy.db'` keeps a copy of what is here, `SELECT replica_freeze()` makes an ordinary database of it, and `SELECT replica_resync()` throws it away and takes the primary's"
    )]
    Diverged(String),
    /// Another connection or process holds what is needed; a retry may succeed.
    #[error("{0}")]
    Busy(String),
    /// The primary has moved on since this snapshot was taken.
    #[error("{0}")]
    Snapshot(String),
    #[error("{0}")]
    ReadOnly(String),
    /// The host's authorizer does not let the connection do it.
    #[error("{0}")]
    Denied(String),
    /// A statement that the primary ran and refused, in its words.
    #[error("{message}")]
    Statement { message: String, code: c_int },
    /// A commit that was sent and of which nothing more can be found out.
    #[error("{0}")]
    Unknown(String),
    /// The local file is damaged.
    #[error("{0}")]
    Corrupt(String),
    /// No encrypted database, or not with this key.
    #[error("{0}")]
    NotADb(String),
    /// A file operation failed with a SQLite result code.
    #[error("{op} {path}: {}", code_name(*code))]
    Io {
        op: &'static str,
        path: String,
        code: c_int,
    },
    /// What went on was told to end: a close, another configuration.
    #[error("interrupted")]
    Interrupted,
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    pub fn io(op: &'static str, path: &str, code: c_int) -> Self {
        Error::Io {
            op,
            path: path.to_string(),
            code,
        }
    }

    /// The SQLite result code a statement or function fails with.
    pub fn code(&self) -> c_int {
        match self {
            Error::Config(_) | Error::Protocol(_) | Error::Diverged(_) => sql::SQLITE_ERROR,
            Error::CantOpen(_) => sql::SQLITE_CANTOPEN,
            Error::Unreachable(_) => sql::SQLITE_IOERR,
            Error::Auth(_) | Error::Denied(_) => sql::SQLITE_AUTH,
            Error::Busy(_) => sql::SQLITE_BUSY,
            Error::Snapshot(_) => sql::SQLITE_BUSY_SNAPSHOT,
            Error::ReadOnly(_) => sql::SQLITE_READONLY,
            Error::Statement { code, .. } => *code,
            Error::Unknown(_) => sql::SQLITE_IOERR,
            Error::Corrupt(_) => sql::SQLITE_CORRUPT,
            Error::NotADb(_) => sql::SQLITE_NOTADB,
            Error::Io { code, .. } => *code,
            Error::Interrupted => sql::SQLITE_INTERRUPT,
            Error::Internal(_) => sql::SQLITE_INTERNAL,
        }
    }

    /// The code a write fails with: whatever keeps the primary from taking it
    /// leaves a database that can be read.
    pub fn write_code(&self) -> c_int {
        match self {
            Error::Unreachable(_)
            | Error::Protocol(_)
            | Error::Diverged(_)
            | Error::Config(_)
            | Error::CantOpen(_) => sql::SQLITE_READONLY,
            e => e.code(),
        }
    }

    /// The code `sqlite3_open` fails with: a database that cannot be had is
    /// CANTOPEN whatever the reason, but for a refused token.
    pub fn open_code(&self) -> c_int {
        match self {
            Error::Auth(_) => sql::SQLITE_AUTH,
            Error::Busy(_) => sql::SQLITE_BUSY,
            Error::Interrupted => sql::SQLITE_INTERRUPT,
            Error::NotADb(_) => sql::SQLITE_NOTADB,
            Error::Io { code, .. }
                if matches!(*code & 0xff, sql::SQLITE_NOTADB | sql::SQLITE_CORRUPT) =>
            {
                *code
            }
            _ => sql::SQLITE_CANTOPEN,
        }
    }
}

fn code_name(code: c_int) -> String {
    let name = match code & 0xff {
        sql::SQLITE_BUSY => "busy",
        sql::SQLITE_PERM => "permission denied",
        sql::SQLITE_NOMEM => "out of memory",
        sql::SQLITE_READONLY => "read-only",
        sql::SQLITE_IOERR => "disk I/O error",
        sql::SQLITE_CORRUPT => "database disk image is malformed",
        sql::SQLITE_NOTADB => "file is not a database",
        sql::SQLITE_FULL => "disk full",
        sql::SQLITE_CANTOPEN => "unable to open file",
        _ => "failed",
    };
    format!("{name} (code {code})")
}
