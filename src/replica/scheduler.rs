//! Background work of one open replica: one thread, from the first open that
//! asks for it to the last close. What it does stands in `live`.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Replica;
use super::control::Control;
use super::live::Worker;
use crate::config::Options;
use crate::error::{Error, Result};
use crate::ffi::{api, guard, thread};
use crate::log;

/// A close waits this long for work on the files to end; then it leaves the
/// thread alone, which ends by itself.
const LIMIT: Duration = Duration::from_secs(10);
/// A thread that waits for the network alone is not waited for.
const PATIENCE: Duration = Duration::from_millis(200);

struct Running {
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

/// The background work of a replica, running or not.
#[derive(Default)]
pub struct Background(Mutex<Option<Running>>);

fn wanted(options: &Options) -> bool {
    options.live || !options.sync_interval.is_zero()
}

impl Background {
    /// Makes what runs what the options ask for.
    pub fn adjust(&self, replica: &Replica) -> Result<()> {
        if !wanted(&replica.options()) {
            self.stop();
            return Ok(());
        }
        let mut running = self.0.lock();
        match &*running {
            Some(running) => running.control.order_change(),
            None => *running = Some(Running::start(replica)?),
        }
        Ok(())
    }

    /// Starts what is wanted and does not run; what runs goes on undisturbed.
    pub fn ensure(&self, replica: &Replica) -> Result<()> {
        if !wanted(&replica.options()) {
            return Ok(());
        }
        let mut running = self.0.lock();
        if running.is_none() {
            *running = Some(Running::start(replica)?);
        }
        Ok(())
    }

    /// Has what runs try again now, whatever it waits for.
    pub fn retry(&self) {
        if let Some(running) = &*self.0.lock() {
            running.control.order_change();
        }
    }

    /// Ends it: at once if it waits, else when its work on the files is done.
    pub fn stop(&self) {
        let running = self.0.lock().take();
        if let Some(running) = running {
            running.stop();
        }
    }

    /// Whether it is this process that works, and no other.
    pub fn is_leading(&self) -> bool {
        let running = self.0.lock();
        running
            .as_ref()
            .is_some_and(|r| r.control.leading.load(SeqCst))
    }
}

impl Running {
    fn start(replica: &Replica) -> Result<Running> {
        if !api::is_threadsafe() {
            return Err(Error::Config(
                "live and sync_interval need a SQLite that is built for threads".into(),
            ));
        }
        let (control, events) = Control::new();
        let mut worker = Worker::new(replica.twin()?, control.clone(), events);
        let theirs = control.clone();
        let thread = thread::spawn("libreplica", move || {
            while let Err(panic) = guard::catch(|| worker.run()) {
                log::error(libsqlite3_sys::SQLITE_INTERNAL, &panic);
                // Nothing that it left half done is used again.
                theirs.hands.lock().local = None;
                worker.panicked(panic);
            }
            let hands = std::mem::take(&mut *theirs.hands.lock());
            drop(hands);
            theirs.end();
        })?;
        Ok(Running { control, thread })
    }

    fn stop(self) {
        let Running { control, thread } = self;
        control.order_stop();
        let deadline = Instant::now() + LIMIT;
        while !control.wait_end(PATIENCE) {
            // It waits for the network in a way that nobody can cut short
            // (a name, a connect): without the files it may go on doing so.
            if let Some(mut hands) = control.hands.try_lock() {
                let hands = std::mem::take(&mut *hands);
                drop(hands);
                return;
            }
            if Instant::now() > deadline {
                return;
            }
        }
        // It has nothing left to do but to return.
        let _ = thread.join();
    }
}
