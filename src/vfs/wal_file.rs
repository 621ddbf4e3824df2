//! The log of a replica as a connection writes it. The page of a commit frame
//! is the last write of a transaction: before it goes through, the primary has
//! to have committed.

use std::ffi::c_int;
use std::sync::Arc;

use parking_lot::Mutex;

use super::main_db::Transaction;
use crate::ffi::file::Real;
use crate::ffi::shim_file::FileHooks;

pub struct WalFile(pub Arc<Mutex<Transaction>>);

impl FileHooks for WalFile {
    fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        self.0.lock().write(real, bytes, at)
    }
}
