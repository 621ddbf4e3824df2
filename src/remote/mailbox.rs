//! One value from a thread to another that may not wait for it any more. It
//! is never lost in between: one of the two ends up with it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub struct Mailbox<T>(Arc<(Mutex<State<T>>, Condvar)>);

enum State<T> {
    Empty,
    Full(T),
    Closed,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox(self.0.clone())
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox(Arc::new((Mutex::new(State::Empty), Condvar::new())))
    }
}

impl<T> Mailbox<T> {
    /// Gives the value back if it is not wanted any more.
    pub fn put(&self, value: T) -> Option<T> {
        let mut state = self.0.0.lock();
        if let State::Closed = *state {
            return Some(value);
        }
        *state = State::Full(value);
        self.0.1.notify_one();
        None
    }

    /// Waits for the value.
    pub fn take(&self, limit: Duration) -> Option<T> {
        let mut state = self.0.0.lock();
        if let State::Empty = *state {
            self.0.1.wait_for(&mut state, limit);
        }
        match std::mem::replace(&mut *state, State::Empty) {
            State::Full(value) => Some(value),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Nothing is wanted any more, but for what is there already.
    pub fn close(&self) -> Option<T> {
        match std::mem::replace(&mut *self.0.0.lock(), State::Closed) {
            State::Full(value) => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_with_one_of_the_two() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take(Duration::ZERO), None);
        assert_eq!(mailbox.clone().put(1), None);
        assert_eq!(mailbox.take(Duration::ZERO), Some(1));
        assert_eq!(mailbox.put(2), None);
        assert_eq!(mailbox.close(), Some(2));
        assert_eq!(mailbox.put(3), Some(3));
        assert_eq!(mailbox.close(), None);
    }

    #[test]
    fn it_wakes_the_one_that_waits() {
        let mailbox = Mailbox::default();
        let sender = mailbox.clone();
        let thread = std::thread::spawn(move || sender.put(7));
        assert_eq!(mailbox.take(Duration::from_secs(10)), Some(7));
        assert_eq!(thread.join().unwrap(), None);
    }
}
