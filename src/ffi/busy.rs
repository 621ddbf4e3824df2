//! `SQLITE_FCNTL_BUSYHANDLER`: the connection's busy handler, for a VFS to ask.

use std::ffi::{c_int, c_void};

use libsqlite3_sys as sql;

#[derive(Clone, Copy)]
pub struct BusyHandler {
    call: unsafe extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

impl BusyHandler {
    /// Reads the argument of a file control, if it is this one.
    pub fn from_file_control(op: c_int, arg: *mut c_void) -> Option<BusyHandler> {
        if op != sql::SQLITE_FCNTL_BUSYHANDLER || arg.is_null() {
            return None;
        }
        // SAFETY: SQLite's contract: an array of two, a function and its argument.
        unsafe {
            let array = arg.cast::<*mut c_void>();
            let call = *array;
            (!call.is_null()).then(|| BusyHandler {
                call: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void) -> c_int,
                >(call),
                argument: *array.add(1),
            })
        }
    }

    /// Whether to go on waiting; sleeps as the handler does.
    pub fn ask(&self) -> bool {
        // SAFETY: whoever holds this is the file it was given to, in a call of
        // its methods; SQLite documents exactly this use.
        unsafe { (self.call)(self.argument) != 0 }
    }
}
