//! Background work of one open replica: one thread, from the first open that
//! asks for it to the last close. What it does stands in `live`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Replica;
use super::leader::Leader;
use super::live::Worker;
use super::local::Local;
use crate::config::Options;
use crate::error::{Error, Result};
use crate::ffi::{api, guard, thread};
use crate::log;
use crate::remote::http::Line;
use crate::remote::{Followed, Head, Position};
use crate::wal::Page;

/// Frames under way between the thread that reads and the one that applies.
const EVENTS: usize = 512;
/// A close waits this long for work on the files to end; then it leaves the
/// thread alone, which ends by itself.
const LIMIT: Duration = Duration::from_secs(10);
/// A thread that waits for the network alone is not waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a worker waits for.
pub enum Event {
    /// Look at the flags.
    Wake,
    /// From the stream with this number.
    Stream(u64, News),
}

pub enum News {
    Opened(Head),
    Page {
        frame_no: u64,
        checksum: u64,
        pgno: u32,
        page: Box<Page>,
    },
    Commit(Position, u32),
    Ended(Result<Followed>),
}

/// What a worker has in its hands: another thread may take it away.
#[derive(Default)]
pub struct Hands {
    pub local: Option<Box<Local>>,
    pub leader: Option<Leader>,
}

/// What a worker and those who give it orders share.
pub struct Control {
    stop: AtomicBool,
    changed: AtomicBool,
    pub leading: AtomicBool,
    pub hands: Mutex<Hands>,
    events: SyncSender<Event>,
    lines: Mutex<Vec<Line>>,
    ended: Mutex<bool>,
    ending: Condvar,
}

impl Control {
    fn new() -> (Arc<Control>, Receiver<Event>) {
        let (events, receiver) = sync_channel(EVENTS);
        let control = Control {
            stop: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            hands: Mutex::default(),
            events,
            lines: Mutex::default(),
            ended: Mutex::new(false),
            ending: Condvar::new(),
        };
        (Arc::new(control), receiver)
    }

    pub fn sender(&self) -> SyncSender<Event> {
        self.events.clone()
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// An error if there is something better to do.
    pub fn check(&self) -> Result<()> {
        if self.stopped() || self.changed.load(SeqCst) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// Begins with the configuration as it is now, and these connections.
    pub fn begin(&self, line: Line) {
        let mut lines = self.lines.lock();
        self.changed.store(false, SeqCst);
        *lines = vec![line];
    }

    /// A further connection that an order cuts. An error if there is an order.
    pub fn attach(&self, line: Line) -> Result<()> {
        self.lines.lock().push(line);
        self.check()
    }

    /// Cuts every connection but the first.
    pub fn cut_attached(&self) {
        let mut lines = self.lines.lock();
        let keep = lines.len().min(1);
        lines.drain(keep..).for_each(|line| line.cut());
    }

    /// Has the worker look at its flags, whatever it waits for.
    fn order(&self, flag: &AtomicBool) {
        {
            // Both under the lock: a worker that begins anew has not seen the
            // flag, or has not made the connection.
            let lines = self.lines.lock();
            flag.store(true, SeqCst);
            lines.iter().for_each(Line::cut);
        }
        // A full channel wakes it as well.
        let _ = self.events.try_send(Event::Wake);
    }

    fn wait_end(&self, limit: Duration) -> bool {
        let mut ended = self.ended.lock();
        let deadline = Instant::now() + limit;
        while !*ended {
            if self.ending.wait_until(&mut ended, deadline).timed_out() {
                return *ended;
            }
        }
        true
    }
}

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
            Some(running) => running.control.order(&running.control.changed),
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
            running.control.order(&running.control.changed);
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
            *theirs.ended.lock() = true;
            theirs.ending.notify_all();
        })
        .map_err(|e| Error::Internal(format!("cannot start a thread: {e}")))?;
        Ok(Running { control, thread })
    }

    fn stop(self) {
        let Running { control, thread } = self;
        control.order(&control.stop);
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
