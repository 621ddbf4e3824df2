//! Values that leave no trace: for keys in types that do not wipe themselves.

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence};

/// Overwritten with zeros when dropped. For types without a heap of their own.
pub struct Wiped<T>(Box<MaybeUninit<T>>);

impl<T> Wiped<T> {
    pub fn new(value: T) -> Wiped<T> {
        Wiped(Box::new(MaybeUninit::new(value)))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: initialised by `new`, until `drop`.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        let bytes = self.0.as_mut_ptr().cast::<u8>();
        // SAFETY: initialised and dropped once; then its own bytes are written.
        unsafe {
            self.0.assume_init_drop();
            for i in 0..size_of::<T>() {
                bytes.add(i).write_volatile(0);
            }
        }
        compiler_fence(Ordering::SeqCst);
    }
}
