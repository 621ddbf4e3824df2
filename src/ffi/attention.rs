//! Waits that end when the user wants it: `sqlite3_interrupt`, and a progress
//! handler that says so. Whoever works for a connection listens to it; every
//! wait on that thread goes on in short steps and asks in between.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use libsqlite3_sys as sql;

use super::{api, connections, thread};
use crate::error::{Error, Result};

/// No wait is longer without asking.
pub const STEP: Duration = Duration::from_millis(40);

/// Says whether the work of this thread is to end.
type Ear = Rc<dyn Fn() -> bool>;

thread_local! {
    static EAR: RefCell<Option<Ear>> = const { RefCell::new(None) };
    static HANDLES_BUSY: Cell<bool> = const { Cell::new(false) };
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Does `work`, which ends when `is_over` says so.
pub fn listening<T>(is_over: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Ear>, bool);
    impl Drop for Before {
        fn drop(&mut self) {
            EAR.set(self.0.take());
            HANDLES_BUSY.set(self.1);
        }
    }
    let ear: Ear = Rc::new(is_over);
    let _before = Before(EAR.replace(Some(ear)), HANDLES_BUSY.replace(false));
    ASKED.set(Some(Instant::now()));
    work()
}

/// Does `work` for a connection of the host, on its thread.
pub fn listening_to<T>(db: Connected, work: impl FnOnce() -> T) -> T {
    let probe = Probe::new(db);
    listening(move || probe.is_interrupted(), work)
}

/// From here on SQLite's busy handler counts, and would never end if it began
/// anew. Progress handlers are not called until this work is over.
pub fn handle_busy() {
    HANDLES_BUSY.set(true);
}

pub fn is_listening() -> bool {
    EAR.with_borrow(Option::is_some)
}

/// An error if the work is to end. Asks once in a while only.
pub fn check() -> Result<()> {
    let Some(ear) = EAR.with_borrow(Clone::clone) else {
        return Ok(());
    };
    let now = Instant::now();
    if ASKED.get().is_some_and(|asked| now - asked < STEP / 2) {
        return Ok(());
    }
    ASKED.set(Some(now));
    match ear() {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

/// What was interrupted may still be found out about, for a moment.
pub fn grace() {
    if is_listening() {
        ASKED.set(Some(Instant::now() + STEP));
    }
}

/// Sleeps, unless the work is to end.
pub fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// Asks `step` again and again, which waits as long as it is told, until it
/// has an answer or `limit` is over.
pub fn wait<T>(limit: Duration, mut step: impl FnMut(Duration) -> Option<T>) -> Result<Option<T>> {
    if !is_listening() {
        return Ok(step(limit));
    }
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Some(answer) = step(left.min(STEP)) {
            return Ok(Some(answer));
        }
        if left.is_zero() {
            return Ok(None);
        }
        check()?;
    }
}

/// Does something that cannot be interrupted, on a thread of its own where
/// somebody listens: that one is left alone if the work is to end.
pub fn apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if !is_listening() {
        return Ok(work());
    }
    let (sender, answer) = sync_channel(1);
    thread::spawn(name, move || {
        let _ = sender.send(work());
    })?;
    loop {
        match answer.recv_timeout(STEP) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => check()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Internal(format!("{name} ended without an answer")));
            }
        }
    }
}

/// A connection of the host that is in a call of this thread.
#[derive(Clone, Copy)]
pub enum Connected {
    /// Whose function is being called.
    Calls(*mut sql::sqlite3),
    /// Whose file is being used: where SQLite keeps the pointer to it.
    Uses(*mut *mut sql::sqlite3),
    Nobody,
}

impl Connected {
    /// Reads the argument of a file control, if it is `SQLITE_FCNTL_PDB`.
    pub fn from_file_control(op: c_int, arg: *mut c_void) -> Option<Connected> {
        (op == sql::SQLITE_FCNTL_PDB && !arg.is_null()).then(|| Connected::Uses(arg.cast()))
    }

    pub fn db(self) -> *mut sql::sqlite3 {
        match self {
            Connected::Calls(db) => db,
            // SAFETY: SQLite's contract: it points there for as long as the
            // file is open, and within a call of the file's methods to the
            // connection that makes it.
            Connected::Uses(place) => unsafe { *place },
            Connected::Nobody => std::ptr::null_mut(),
        }
    }
}

// SAFETY: used by the thread that is in a call of the connection only; the
// file that keeps it between calls is used by one thread at a time.
unsafe impl Send for Connected {}

/// Shows whether a connection is to end what it does. Every statement that is
/// prepared or run has the busy handler begin to count anew (prepare.c,
/// vdbe.c): while that counts, none is.
struct Probe {
    db: *mut sql::sqlite3,
    /// The connection is inside its own files.
    inside: bool,
    /// Some thousand steps, so that progress handlers are called.
    steps: Cell<*mut sql::sqlite3_stmt>,
    /// Listed, not run: that looks for an interrupt, and touches nothing
    /// (vdbeaux.c, `sqlite3VdbeList`).
    listed: Cell<*mut sql::sqlite3_stmt>,
}

const STEPS: &CStr =
    c"WITH n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n LIMIT 150) SELECT 1 FROM n WHERE i=0";
/// One that is no reader: the end of a reader ends its transaction.
const LISTED: &CStr = c"EXPLAIN SELECT 1";

impl Probe {
    fn new(db: Connected) -> Probe {
        Probe {
            db: db.db(),
            inside: matches!(db, Connected::Uses(_)),
            steps: Cell::new(std::ptr::null_mut()),
            listed: Cell::new(std::ptr::null_mut()),
        }
    }

    fn is_interrupted(&self) -> bool {
        if self.db.is_null() {
            return false;
        }
        // SAFETY: the connection is in a call of this thread (`Connected`).
        let told = unsafe { api::is_interrupted(self.db) };
        if let Some(true) = told {
            return true;
        }
        if HANDLES_BUSY.get() {
            return told.is_none() && self.shows(self.listed.get());
        }
        if told.is_none() {
            if self.listed.get().is_null() {
                self.listed.set(self.prepare(LISTED));
            }
            if self.shows(self.listed.get()) {
                return true;
            }
        }
        if self.inside && !connections::has_schema(self.db) {
            return false;
        }
        if self.steps.get().is_null() {
            self.steps.set(self.prepare(STEPS));
        }
        self.shows(self.steps.get())
    }

    /// Whether a statement ends as one does that is interrupted.
    fn shows(&self, statement: *mut sql::sqlite3_stmt) -> bool {
        if statement.is_null() {
            return false;
        }
        // SAFETY: our own statement, which changes nothing.
        unsafe {
            let step = sql::sqlite3_step(statement) & 0xff;
            let end = sql::sqlite3_reset(statement) & 0xff;
            step == sql::SQLITE_INTERRUPT || end == sql::SQLITE_INTERRUPT
        }
    }

    fn prepare(&self, statement: &CStr) -> *mut sql::sqlite3_stmt {
        let mut prepared = std::ptr::null_mut();
        // SAFETY: the connection is in a call of this thread (`Connected`), so
        // it is live and may prepare a statement.
        unsafe {
            let (text, tail) = (statement.as_ptr(), std::ptr::null_mut());
            sql::sqlite3_prepare_v2(self.db, text, -1, &mut prepared, tail);
        }
        prepared
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: ours, or null; the call that it was made in goes on.
        unsafe {
            sql::sqlite3_finalize(self.steps.get());
            sql::sqlite3_finalize(self.listed.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_when_they_are_told() {
        let begun = Instant::now();
        let ended = listening(
            move || begun.elapsed() > STEP,
            || {
                assert!(is_listening());
                (
                    pause(Duration::from_secs(60)),
                    wait(Duration::from_secs(60), |step| {
                        std::thread::sleep(step);
                        None::<()>
                    }),
                    apart("test", || std::thread::sleep(Duration::from_secs(5))),
                )
            },
        );
        assert!(matches!(ended.0, Err(Error::Interrupted)));
        assert!(matches!(ended.1, Err(Error::Interrupted)));
        assert!(matches!(ended.2, Err(Error::Interrupted)));
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(!is_listening() && check().is_ok());
    }

    #[test]
    fn what_is_not_to_end_has_its_answer() {
        let done = listening(|| false, || apart("test", || 5));
        assert!(matches!(done, Ok(5)));
        let found = listening(|| false, || wait(STEP * 3, |_| None::<()>));
        assert!(matches!(found, Ok(None)));
        assert!(matches!(apart("test", || 6), Ok(6)));
    }
}
