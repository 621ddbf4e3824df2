//! Stand-in for the bindgen crate that sqlite-loadable depends on: the same
//! names, re-exported from libsqlite3-sys, so that both crates share one set
//! of types and a build needs neither libclang nor a second SQLite.
#![allow(non_camel_case_types)]

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use core::ops::Deref;

pub use libsqlite3_sys::{
    sqlite3, sqlite3_context, sqlite3_index_info,
    sqlite3_index_constraint as sqlite3_index_info_sqlite3_index_constraint,
    sqlite3_index_constraint_usage as sqlite3_index_info_sqlite3_index_constraint_usage,
    sqlite3_index_orderby as sqlite3_index_info_sqlite3_index_orderby, sqlite3_module,
    sqlite3_stmt, sqlite3_value, sqlite3_vtab, sqlite3_vtab_cursor,
};

pub const SQLITE_OK: u32 = 0;
pub const SQLITE_INTEGER: u32 = 1;
pub const SQLITE_FLOAT: u32 = 2;
pub const SQLITE_TEXT: u32 = 3;
pub const SQLITE_BLOB: u32 = 4;
pub const SQLITE_NULL: u32 = 5;
pub const SQLITE_UTF8: u32 = 1;
pub const SQLITE_UTF16LE: u32 = 2;
pub const SQLITE_UTF16BE: u32 = 3;
pub const SQLITE_UTF16: u32 = 4;
pub const SQLITE_DETERMINISTIC: u32 = 0x0000_0800;
pub const SQLITE_DIRECTONLY: u32 = 0x0008_0000;
pub const SQLITE_SUBTYPE: u32 = 0x0010_0000;
pub const SQLITE_INNOCUOUS: u32 = 0x0020_0000;

/// The host's table as of SQLite 3.39 (sqlite3ext.h): libsqlite3-sys knows it
/// up to 3.34, the fields behind follow in the header's order. Only read
/// through a pointer that the host gave, and only fields that its version has.
#[repr(C)]
pub struct sqlite3_api_routines {
    base: libsqlite3_sys::sqlite3_api_routines,
    pub changes64: Option<unsafe extern "C" fn(*mut sqlite3) -> i64>,
    pub total_changes64: Option<unsafe extern "C" fn(*mut sqlite3) -> i64>,
    pub autovacuum_pages: Option<
        unsafe extern "C" fn(
            *mut sqlite3,
            Option<unsafe extern "C" fn(*mut c_void, *const c_char, c_uint, c_uint, c_uint) -> c_uint>,
            *mut c_void,
            Option<unsafe extern "C" fn(*mut c_void)>,
        ) -> c_int,
    >,
    pub error_offset: Option<unsafe extern "C" fn(*mut sqlite3) -> c_int>,
    pub vtab_rhs_value:
        Option<unsafe extern "C" fn(*mut sqlite3_index_info, c_int, *mut *mut sqlite3_value) -> c_int>,
    pub vtab_distinct: Option<unsafe extern "C" fn(*mut sqlite3_index_info) -> c_int>,
    pub vtab_in: Option<unsafe extern "C" fn(*mut sqlite3_index_info, c_int, c_int) -> c_int>,
    pub vtab_in_first:
        Option<unsafe extern "C" fn(*mut sqlite3_value, *mut *mut sqlite3_value) -> c_int>,
    pub vtab_in_next:
        Option<unsafe extern "C" fn(*mut sqlite3_value, *mut *mut sqlite3_value) -> c_int>,
    pub deserialize: Option<
        unsafe extern "C" fn(*mut sqlite3, *const c_char, *mut c_uchar, i64, i64, c_uint) -> c_int,
    >,
    pub serialize:
        Option<unsafe extern "C" fn(*mut sqlite3, *const c_char, *mut i64, c_uint) -> *mut c_uchar>,
    pub db_name: Option<unsafe extern "C" fn(*mut sqlite3, c_int) -> *const c_char>,
}

impl Deref for sqlite3_api_routines {
    type Target = libsqlite3_sys::sqlite3_api_routines;
    fn deref(&self) -> &Self::Target {
        &self.base
    }
}
