//! The log of a replica as a connection writes it. The page of a commit frame
//! is the last write of a transaction: before it goes through, the primary has
//! to have committed.

use std::ffi::c_int;
use std::sync::Arc;

use parking_lot::Mutex;

use super::schema_watch::is_page1;
use super::transaction::Transaction;
use crate::ffi::file::Real;
use crate::ffi::shim_file::FileHooks;

pub struct WalFile(pub Arc<Mutex<Transaction>>);

impl FileHooks for WalFile {
    fn read_page1(&mut self, bytes: &mut [u8], _at: i64) {
        if is_page1(bytes) {
            self.0.lock().read_page1(bytes);
        }
    }

    fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        self.0.lock().write(real, bytes, at)
    }

    fn truncate(&mut self, real: Real, size: i64) -> c_int {
        self.0.lock().truncate(real, size)
    }
}
