//! Opens that the library does for itself. What is meant for it alone asks
//! here; no name, URI or flag that a user can give says so.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// What this thread opens is the library's own, until this is dropped.
pub struct Own(());

pub fn open() -> Own {
    DEPTH.set(DEPTH.get() + 1);
    Own(())
}

pub fn is_own() -> bool {
    DEPTH.get() > 0
}

impl Drop for Own {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
