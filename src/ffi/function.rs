//! SQL functions and their arguments. What SQLite is given is static: a
//! connection owns nothing of it. A value's length is asked for after its
//! text: for a text in UTF-16 only then is it the length of that.

use std::ffi::{CStr, c_int, c_void};
use std::slice::from_raw_parts;

use libsqlite3_sys as sql;
use sqlite_loadable::api;
use sqlite_loadable::ext::{
    sqlite3ext_create_function_v2, sqlite3ext_user_data, sqlite3ext_value_blob,
    sqlite3ext_value_bytes, sqlite3ext_value_double, sqlite3ext_value_int64, sqlite3ext_value_text,
    sqlite3ext_value_type,
};

use super::{connections, guard};

/// A function, under its name.
pub struct Function {
    pub name: &'static CStr,
    /// Must not panic.
    pub run: fn(&'static Function, &Call),
    /// What `run` makes of it.
    pub index: usize,
}

/// One call of a function.
pub struct Call<'a> {
    context: *mut sql::sqlite3_context,
    values: &'a [*mut sql::sqlite3_value],
}

/// An argument; text is as it is in the database, not always UTF-8.
pub enum Argument<'a> {
    Null,
    Integer(i64),
    Float(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
    /// There is no memory for it.
    Lost,
}

/// Defines `replica_version()`. Its data is the connection: when that closes,
/// SQLite destroys them.
pub fn define_version(db: *mut sql::sqlite3) -> c_int {
    let flags = sql::SQLITE_UTF8 | sql::SQLITE_DIRECTONLY;
    // SAFETY: db is live; what the destructor is called with is what `opened` has noted.
    unsafe {
        connections::opened(db);
        sqlite3ext_create_function_v2(
            db,
            c"replica_version".as_ptr(),
            0,
            flags,
            db.cast(),
            Some(version),
            None,
            None,
            Some(connections::closed),
        )
    }
}

unsafe extern "C" fn version(
    context: *mut sql::sqlite3_context,
    _: c_int,
    _: *mut *mut sql::sqlite3_value,
) {
    let _ = guard::catch(|| api::result_text(context, env!("CARGO_PKG_VERSION")));
}

/// Defines a function on a connection, for programs alone: no trigger or view
/// that came with the data can call it. Answers a result code.
pub fn define(db: *mut sql::sqlite3, function: &'static Function, arguments: c_int) -> c_int {
    let flags = sql::SQLITE_UTF8 | sql::SQLITE_DIRECTONLY;
    let data = std::ptr::from_ref(function).cast_mut().cast::<c_void>();
    // SAFETY: db is live; name, function and data are static.
    unsafe {
        let name = function.name.as_ptr();
        sqlite3ext_create_function_v2(
            db,
            name,
            arguments,
            flags,
            data,
            Some(called),
            None,
            None,
            None,
        )
    }
}

unsafe extern "C" fn called(
    context: *mut sql::sqlite3_context,
    count: c_int,
    values: *mut *mut sql::sqlite3_value,
) {
    // SAFETY: SQLite's contract for a function: count values, and the data it
    // was defined with.
    let (function, values) = unsafe {
        let function = &*sqlite3ext_user_data(context).cast::<Function>();
        let values: &[_] = match count {
            ..=0 => &[],
            count => from_raw_parts(values, count as usize),
        };
        (function, values)
    };
    let _ = guard::catch(|| (function.run)(function, &Call { context, values }));
}

impl Call<'_> {
    pub fn db(&self) -> *mut sql::sqlite3 {
        api::context_db_handle(self.context)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// One that is not there is NULL.
    pub fn argument(&self, at: usize) -> Argument<'_> {
        let Some(&value) = self.values.get(at) else {
            return Argument::Null;
        };
        // SAFETY: a value of the call, for as long as that lasts; it is read
        // in one form only, so what is read stays where it is.
        unsafe {
            match sqlite3ext_value_type(value) {
                sql::SQLITE_INTEGER => Argument::Integer(sqlite3ext_value_int64(value)),
                sql::SQLITE_FLOAT => Argument::Float(sqlite3ext_value_double(value)),
                sql::SQLITE_TEXT => match self.text(at) {
                    Some(text) => Argument::Text(text),
                    None => Argument::Lost,
                },
                sql::SQLITE_BLOB => {
                    let blob = sqlite3ext_value_blob(value).cast::<u8>();
                    match (blob.is_null(), sqlite3ext_value_bytes(value)) {
                        (_, 0) => Argument::Blob(&[]),
                        (true, _) => Argument::Lost,
                        (false, bytes) => Argument::Blob(from_raw_parts(blob, bytes as usize)),
                    }
                }
                _ => Argument::Null,
            }
        }
    }

    /// An argument as text, whatever it is; None of NULL, and without memory.
    pub fn text(&self, at: usize) -> Option<&[u8]> {
        let value = *self.values.get(at)?;
        // SAFETY: as above. The text first: that call may convert it, and moves it then.
        unsafe {
            let text = sqlite3ext_value_text(value);
            let bytes = sqlite3ext_value_bytes(value);
            (!text.is_null()).then(|| from_raw_parts(text, bytes.max(0) as usize))
        }
    }

    pub fn answer_null(&self) {
        api::result_null(self.context);
    }

    pub fn answer_integer(&self, n: i64) {
        api::result_int64(self.context, n);
    }

    /// False where the text is too long.
    pub fn answer_text(&self, text: String) -> bool {
        api::result_text(self.context, text).is_ok()
    }

    pub fn answer_error(&self, text: &str, code: c_int) {
        // The text first: a code without one would bring SQLite's own.
        let _ = api::result_error(self.context, &text.replace('\0', " "));
        api::result_error_code(self.context, code);
    }
}

/// To be called while a virtual table connects: no trigger or view may read it.
pub fn close_to_schema(db: *mut sql::sqlite3) {
    // SAFETY: db is the connection whose table is connecting; this option has no argument.
    unsafe { sql::sqlite3_vtab_config(db, sql::SQLITE_VTAB_DIRECTONLY) };
}
