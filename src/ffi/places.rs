//! Places in a file that one holds and others wait for: locks on single bytes
//! far behind its content, of the open file, not of the process (Linux's
//! "open file description" locks). They end with the file, however that ends.

use std::fs::File;

/// Where the places begin.
#[cfg(target_os = "linux")]
const BEGIN: i64 = 1 << 40;

/// So many there are.
pub const COUNT: u32 = 32;

#[cfg(target_os = "linux")]
fn control(file: &File, command: i32, kind: i32, first: u32, count: u32) -> Option<libc::flock> {
    use std::os::fd::AsRawFd;

    // SAFETY: a struct of numbers, for which zeros are values.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = BEGIN + i64::from(first);
    lock.l_len = i64::from(count);
    // SAFETY: an open file, and a lock that is read and written.
    let code = unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) };
    (code == 0).then_some(lock)
}

/// Takes a place; false if another file has it.
#[cfg(target_os = "linux")]
pub fn take(file: &File, place: u32) -> bool {
    control(file, libc::F_OFD_SETLK, libc::F_WRLCK, place, 1).is_some()
}

#[cfg(target_os = "linux")]
pub fn leave(file: &File, place: u32) {
    control(file, libc::F_OFD_SETLK, libc::F_UNLCK, place, 1);
}

/// Whether another file has any.
#[cfg(target_os = "linux")]
pub fn is_any_taken(file: &File) -> bool {
    let found = control(file, libc::F_OFD_GETLK, libc::F_WRLCK, 0, COUNT);
    found.is_some_and(|lock| i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Elsewhere there are none to be had.
#[cfg(not(target_os = "linux"))]
pub fn take(_: &File, _: u32) -> bool {
    false
}
#[cfg(not(target_os = "linux"))]
pub fn leave(_: &File, _: u32) {}
#[cfg(not(target_os = "linux"))]
pub fn is_any_taken(_: &File) -> bool {
    false
}
