//! A stream of the primary, read by a thread of its own: the one that applies
//! may be busy, or have to listen to orders.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Replica;
use super::control::{Control, Event, News};
use crate::error::{Error, Result};
use crate::ffi::{guard, thread};
use crate::remote::{Follower, Head, Position, Remote};
use crate::wal::Page;

pub struct Session {
    /// Tells its news from those of an earlier one.
    pub number: u64,
    /// Where it began.
    pub from: Position,
    thread: JoinHandle<()>,
}

impl Session {
    pub fn open(
        replica: &Replica,
        control: &Arc<Control>,
        number: u64,
        position: Position,
    ) -> Result<Session> {
        let mut remote = Replica::wal_log(&replica.options, &replica.status)?;
        control.attach(remote.line())?;
        let from = position.clone();
        let mut reader = Reader {
            number,
            events: control.sender(),
            control: control.clone(),
        };
        let thread = thread::spawn("libreplica-live", move || {
            let followed = guard::caught(|| remote.follow(&position, &mut reader));
            // Nobody listens any more where this fails.
            let _ = reader.tell(News::Ended(followed));
        })?;
        Ok(Session {
            number,
            from,
            thread,
        })
    }

    /// Its connection is cut: the thread ends, in a moment or (a connect that
    /// hangs) by itself later.
    pub fn close(self, events: &Receiver<Event>) {
        let deadline = Instant::now() + Duration::from_millis(100);
        while !self.thread.is_finished() && Instant::now() < deadline {
            // It may want to hand something over.
            let _ = events.recv_timeout(Duration::from_millis(5));
        }
        if self.thread.is_finished() {
            let _ = self.thread.join();
        }
    }
}

/// Reads a stream and hands over what comes.
struct Reader {
    number: u64,
    events: SyncSender<Event>,
    control: Arc<Control>,
}

impl Reader {
    fn tell(&self, news: News) -> Result<()> {
        self.events
            .send(Event::Stream(self.number, news))
            .map_err(|_| Error::Interrupted)
    }
}

impl Follower for Reader {
    fn opened(&mut self, head: &Head) -> Result<()> {
        self.tell(News::Opened(head.clone()))
    }

    fn page(&mut self, frame_no: u64, checksum: u64, pgno: u32, page: &Page) -> Result<()> {
        self.tell(News::Page {
            frame_no,
            checksum,
            pgno,
            page: Box::new(*page),
        })
    }

    fn commit(&mut self, position: Position, page_count: u32) -> Result<()> {
        self.tell(News::Commit(position, page_count))
    }

    fn silent(&mut self) -> Result<()> {
        self.control.check()
    }
}
