//! Threads in somebody else's process.

use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// Starts a thread that takes no signals: those are for the host's own
/// threads, which may count on being interrupted by them.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let _blocked = Signals::block();
    // The new thread has the mask of the one that starts it.
    let thread = Builder::new().name(name.into()).spawn(body);
    thread.map_err(not_started)
}

/// The same for a thread that ends within `scope`.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let _blocked = Signals::block();
    let thread = Builder::new().name(name.into()).spawn_scoped(scope, body);
    thread.map_err(not_started)
}

fn not_started(error: std::io::Error) -> Error {
    Error::Internal(format!("cannot start a thread: {error}"))
}

/// Signals of this thread are held back until it is dropped.
#[cfg(unix)]
struct Signals(Option<libc::sigset_t>);

#[cfg(unix)]
impl Signals {
    fn block() -> Signals {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `all`, pthread_sigmask `before`; that
        // one is read only if it said so.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            let set = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Signals((set == 0).then(|| before.assume_init()))
        }
    }
}

#[cfg(unix)]
impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: a mask that this thread had.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn block() -> Signals {
        Signals
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn is_blocked(signal: i32) -> bool {
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: asks for the mask and changes nothing.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
            libc::sigismember(mask.as_ptr(), signal) == 1
        }
    }

    #[test]
    fn signals_are_for_the_threads_of_the_host() {
        let thread = spawn("test", || {
            assert!(is_blocked(libc::SIGALRM) && is_blocked(libc::SIGINT))
        });
        thread.unwrap().join().unwrap();
        assert!(!is_blocked(libc::SIGALRM) && !is_blocked(libc::SIGINT));
    }
}
