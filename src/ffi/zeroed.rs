//! The parts of virtual tables that SQLite fills in.

use libsqlite3_sys as sql;

pub fn vtab() -> sql::sqlite3_vtab {
    sql::sqlite3_vtab {
        pModule: std::ptr::null(),
        nRef: 0,
        zErrMsg: std::ptr::null_mut(),
    }
}

pub fn cursor() -> sql::sqlite3_vtab_cursor {
    sql::sqlite3_vtab_cursor {
        pVtab: std::ptr::null_mut(),
    }
}
