//! A process that forks: the child has the parent's memory and none of its
//! threads. What a thread of ours was doing at that moment would stay half
//! done in the child for ever, SQLite's own mutexes included, so a fork waits
//! for a moment in which none is inside SQLite.

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Threads inside SQLite now.
static WORKING: AtomicUsize = AtomicUsize::new(0);
/// Forks that wait for them, or go on.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// A fork waits no longer than this: a child with a stale lock is better than
/// a parent that hangs.
#[cfg(unix)]
const LIMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(200);

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Which process this is. A system call, so not for the read path.
pub fn process() -> u32 {
    std::process::id()
}

/// This thread is inside SQLite until the guard is dropped.
pub struct Inside(());

pub fn inside() -> Inside {
    DEPTH.set(DEPTH.get() + 1);
    if DEPTH.get() == 1 {
        loop {
            while FORKING.load(SeqCst) > 0 {
                std::thread::sleep(PAUSE);
            }
            WORKING.fetch_add(1, SeqCst);
            if FORKING.load(SeqCst) == 0 {
                break;
            }
            WORKING.fetch_sub(1, SeqCst);
        }
    }
    Inside(())
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            WORKING.fetch_sub(1, SeqCst);
        }
    }
}

/// Files that a child must not keep open: a lock on one would outlive the
/// parent in it. -1: none.
static PRIVATE: [AtomicI32; 128] = [const { AtomicI32::new(-1) }; 128];

/// A file that no child gets, until this is dropped (before the file is).
pub struct Private(Option<usize>);

/// More files than there are places for are left as they are.
#[cfg(unix)]
pub fn keep_private(file: &std::fs::File) -> Private {
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    let taken = |place: &&AtomicI32| place.compare_exchange(-1, fd, SeqCst, SeqCst).is_ok();
    let mut places = PRIVATE.iter().enumerate();
    Private(places.find(|(_, place)| taken(place)).map(|(i, _)| i))
}

#[cfg(not(unix))]
pub fn keep_private(_: &std::fs::File) -> Private {
    Private(None)
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            PRIVATE[place].store(-1, SeqCst);
        }
    }
}

/// Has every later fork of this process wait for such a moment. Once.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(register);
}

#[cfg(unix)]
fn register() {
    // SAFETY: POSIX; the handlers stay mapped (the library is never unloaded),
    // never unwind, and in the child touch nothing but atomics and files.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

#[cfg(not(unix))]
fn register() {}

#[cfg(unix)]
extern "C" fn prepare() {
    // A thread that forks while it is inside itself must not wait for itself.
    let own = DEPTH.try_with(Cell::get).map_or(0, |d| usize::from(d > 0));
    FORKING.fetch_add(1, SeqCst);
    let begun = std::time::Instant::now();
    while WORKING.load(SeqCst) > own && begun.elapsed() < LIMIT {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(unix)]
extern "C" fn parent() {
    FORKING.fetch_sub(1, SeqCst);
}

#[cfg(unix)]
extern "C" fn child() {
    let own = DEPTH.try_with(Cell::get).map_or(0, |d| usize::from(d > 0));
    WORKING.store(own, SeqCst);
    FORKING.store(0, SeqCst);
    for place in &PRIVATE {
        let fd = place.swap(-1, SeqCst);
        if fd >= 0 {
            // SAFETY: whoever registered it is the parent's; in the child
            // nothing uses or closes it any more.
            drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_nest() {
        let outer = inside();
        let inner = inside();
        assert_eq!(DEPTH.get(), 2);
        drop(inner);
        assert_eq!(DEPTH.get(), 1);
        drop(outer);
        assert_eq!(DEPTH.get(), 0);
    }
}
