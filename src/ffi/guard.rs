//! No panic crosses into C.

use std::any::Any;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libsqlite3_sys as sql;

use super::api;
use crate::error::{self, Error};

/// Runs a callback's body; a panic becomes SQLITE_INTERNAL and a line in
/// SQLite's error log.
#[inline]
pub fn guard(body: impl FnOnce() -> c_int) -> c_int {
    catch(body).unwrap_or_else(|message| {
        api::log(sql::SQLITE_INTERNAL, &message);
        sql::SQLITE_INTERNAL
    })
}

/// As [`guard`] for any result: the panic's message is the error.
#[inline]
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| format!("panic: {}", text(&*panic)))
}

/// The body's own result; a panic is an internal error.
pub fn caught<T>(body: impl FnOnce() -> error::Result<T>) -> error::Result<T> {
    catch(body).unwrap_or_else(|panic| Err(Error::Internal(panic)))
}

/// Rust reports panics on stderr; that is the host's. They go to SQLite's
/// error log instead. (This library has a Rust runtime of its own: no other
/// Rust code in the process is affected.)
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|info| {
        api::log(sql::SQLITE_INTERNAL, &info.to_string())
    }));
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
