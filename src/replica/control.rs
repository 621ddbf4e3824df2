//! What a background worker is told, and what it hears from its streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::leader::Leader;
use super::local::Local;
use crate::error::{Error, Result};
use crate::remote::http::Line;
use crate::remote::{Followed, Head, Position};
use crate::wal::Page;

/// Frames under way between the thread that reads and the one that applies.
const EVENTS: usize = 512;

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
    pub fn new() -> (Arc<Control>, Receiver<Event>) {
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

    /// Has the worker begin anew, with the configuration as it is by then.
    pub fn order_change(&self) {
        self.order(&self.changed);
    }

    pub fn order_stop(&self) {
        self.order(&self.stop);
    }

    /// The worker has ended.
    pub fn end(&self) {
        *self.ended.lock() = true;
        self.ending.notify_all();
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

    pub fn wait_end(&self, limit: Duration) -> bool {
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
