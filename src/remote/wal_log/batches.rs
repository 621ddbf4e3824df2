//! The log by the batch (BatchLogEntries). The primary collects a batch before
//! it sends the first byte, so where a lot is to come several are asked for at
//! a time: each is received by a thread of its own, and looked into in its turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::super::grpc_web::{Answer, Item};
use super::piece::{Piece, Spares, frame_data};
use super::{LogFrames, PageSink, Progress, Refusal, WalLog, check_due, decode, refusal};
use crate::error::{Error, Result};
use crate::ffi::{attention, guard, thread};

const BATCH: &str = "/wal_log.ReplicationLog/BatchLogEntries";

/// The primary ends a batch with the first commit from this frame on
/// (libsql-server/src/rpc/replication/replication_log.rs, `MAX_FRAMES_PER_BATCH`).
const BATCH_FRAMES: u64 = 1024;
/// Batches that are received besides the one that is looked into.
const AHEAD: usize = 2;
/// Pieces of a batch that may wait for its turn: all of an ordinary one.
const PIECES: usize = 5;

pub enum Batch {
    /// So many frames, up to a commit.
    Frames(u64),
    Refused(Refusal),
    /// The first frame does not follow the position, but a frame with this checksum.
    Diverged(u64),
}

/// A batch that was asked for, and the thread that receives it.
struct Asked<'scope> {
    start: u64,
    /// While others were under way.
    ahead: bool,
    events: Receiver<Event>,
    /// Held as long as somebody wants it.
    _wanted: Arc<()>,
    thread: ScopedJoinHandle<'scope, ()>,
}

enum Event {
    Piece(Piece),
    End(Result<Batch>),
}

impl Asked<'_> {
    /// Over when it returns, after one network wait at most.
    fn abandon(self) {
        let Asked {
            events,
            _wanted: wanted,
            thread,
            ..
        } = self;
        drop((events, wanted));
        let _ = thread.join();
    }
}

impl WalLog {
    /// Frames from `progress.next` to `goal`, or to where something else is due.
    pub(super) fn batches(
        &self,
        goal: u64,
        progress: &mut Progress,
        sink: &mut dyn PageSink,
    ) -> Result<Batch> {
        let start = progress.next;
        let spares = Spares::default();
        let mut frames = LogFrames { progress, sink };
        if goal - start >= 2 * BATCH_FRAMES {
            return std::thread::scope(|scope| self.side_by_side(scope, &spares, goal, frames));
        }
        let mut diverged = None;
        let give = |piece| {
            diverged = frames.take_all(piece, &spares)?;
            Ok(diverged.is_none())
        };
        let batch = self.receive(start, &spares, &|| true, give)?;
        Ok(diverged.map_or(batch, Batch::Diverged))
    }

    fn side_by_side<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        spares: &'scope Spares,
        goal: u64,
        mut frames: LogFrames,
    ) -> Result<Batch> {
        let mut asked: VecDeque<Asked> = VecDeque::new();
        // What fails here ends all of them at once.
        let over = Arc::new(AtomicBool::new(false));
        let failed = |_: &Error| over.store(true, Relaxed);
        // Where a batch ends is known only when it has come: how far behind the
        // start of one the next is asked for, how many are, and may be.
        let (mut step, mut ahead, mut allowed) = (BATCH_FRAMES, 0, AHEAD);
        loop {
            let next = frames.progress.next;
            let current = match asked.pop_front() {
                Some(batch) if batch.start <= next => batch,
                too_far => {
                    too_far
                        .into_iter()
                        .chain(asked.drain(..))
                        .for_each(Asked::abandon);
                    self.ask(scope, spares, next, false, &over)?
                }
            };
            while asked.len() < ahead {
                let start = asked.back().unwrap_or(&current).start.saturating_add(step);
                if start > goal {
                    break;
                }
                match self.ask(scope, spares, start, true, &over) {
                    Ok(batch) => asked.push_back(batch),
                    // No threads to be had: it goes without.
                    Err(_) => (ahead, allowed) = (0, 0),
                }
            }
            let ended = loop {
                match current.events.recv_timeout(attention::STEP) {
                    Ok(Event::Piece(piece)) => {
                        let taken = frames.take_all(piece, spares).inspect_err(failed);
                        if let Some(checksum) = taken? {
                            return Ok(Batch::Diverged(checksum));
                        }
                    }
                    Ok(Event::End(end)) => break end,
                    Err(RecvTimeoutError::Timeout) => attention::check().inspect_err(failed)?,
                    Err(RecvTimeoutError::Disconnected) => {
                        break Err(Error::Internal("a receiver ended without a word".into()));
                    }
                }
            };
            let (first, next) = (next, frames.progress.next);
            match ended {
                Ok(Batch::Frames(count @ 1..)) if next <= goal => {
                    step = step.min(count);
                    // Transactions larger than a batch: whoever asks from
                    // within one is given all the rest of it, once more.
                    let large = count >= 2 * step;
                    ahead = if large { 0 } else { allowed.min(ahead + 1) };
                    let is_over = |batch: &Asked| batch.start.saturating_add(step) <= next;
                    while asked.front().is_some_and(is_over) {
                        asked.pop_front().into_iter().for_each(Asked::abandon);
                    }
                }
                // So many at a time may be what something on the way does not
                // bear, or too much to be there in time.
                Err(Error::Unreachable(_))
                    if next <= goal && (current.ahead || !asked.is_empty()) =>
                {
                    (ahead, allowed) = (0, 0);
                    asked.drain(..).for_each(Asked::abandon);
                }
                // Not said of the frame that is due.
                Ok(batch) if current.start < first && !matches!(batch, Batch::Frames(1..)) => {
                    ahead = 0;
                    asked.drain(..).for_each(Asked::abandon);
                }
                other => return other,
            }
        }
    }

    /// Asks for a batch and receives it, as far as there is room until its turn comes.
    fn ask<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        spares: &'scope Spares,
        start: u64,
        ahead: bool,
        over: &Arc<AtomicBool>,
    ) -> Result<Asked<'scope>> {
        let over = over.clone();
        let (sender, events) = sync_channel(PIECES);
        let wanted = Arc::new(());
        let held = Arc::downgrade(&wanted);
        let thread = thread::spawn_scoped(scope, "libreplica-pull", move || {
            let is_wanted = || held.strong_count() > 0;
            let give = |piece| Ok(sender.send(Event::Piece(piece)).is_ok());
            let end = attention::listening(
                move || over.load(Relaxed),
                || guard::caught(|| self.receive(start, spares, &is_wanted, give)),
            );
            // Where nobody listens any more nobody wants it.
            let _ = sender.send(Event::End(end));
        })?;
        Ok(Asked {
            start,
            ahead,
            events,
            _wanted: wanted,
            thread,
        })
    }

    /// One batch, piece by piece, as long as it is wanted: frames from `start`
    /// on, one after the other; their checksums are not looked at.
    fn receive(
        &self,
        start: u64,
        spares: &Spares,
        is_wanted: &dyn Fn() -> bool,
        mut give: impl FnMut(Piece) -> Result<bool>,
    ) -> Result<Batch> {
        let mut stream = match self.call(BATCH, start)? {
            Answer::Stream(stream) => stream,
            Answer::Refused(status) => return refusal(status).map(Batch::Refused),
        };
        let mut numbers = Numbers {
            next: start,
            in_transaction: false,
        };
        let mut item = stream.next()?;
        if let Item::Message = item {
            let mut piece = spares.take();
            while stream.left() > 0 {
                if !piece.fill(&mut stream, is_wanted)? {
                    return Ok(Batch::Frames(0));
                }
                let whole = piece.frames(|bytes| numbers.see(bytes))?;
                let beginning = piece.beginning(whole, spares.take());
                if !give(std::mem::replace(&mut piece, beginning))? {
                    return Ok(Batch::Frames(0));
                }
            }
            if !piece.is_empty() {
                let why = "a field longer than its message";
                return Err(Error::Protocol(why.into()));
            }
            spares.give_back(piece);
            item = stream.next()?;
        }
        match item {
            Item::Message => {
                let why = "more than one message where one is due";
                Err(Error::Protocol(why.into()))
            }
            Item::End(Some(status)) => refusal(status).map(Batch::Refused),
            Item::End(None) if numbers.in_transaction => {
                let why = "the log frames end within a transaction";
                Err(Error::Protocol(why.into()))
            }
            Item::End(None) => Ok(Batch::Frames(numbers.next - start)),
        }
    }
}

/// What the frames of a batch are seen to be as they arrive.
struct Numbers {
    next: u64,
    in_transaction: bool,
}

impl Numbers {
    fn see(&mut self, bytes: &[u8]) -> Result<()> {
        let (data, _) = frame_data(bytes)?;
        let frame = decode(&data)?;
        check_due(&frame, self.next)?;
        self.next += 1;
        self.in_transaction = frame.size_after == 0;
        Ok(())
    }
}

impl LogFrames<'_> {
    /// Takes those frames that have not come before, from another batch. As
    /// `take`, it may give a checksum, and stops there.
    fn take_all(&mut self, piece: Piece, spares: &Spares) -> Result<Option<u64>> {
        let mut diverged = None;
        piece.frames(|bytes| {
            let (data, rest) = frame_data(bytes)?;
            let frame = decode(&data)?;
            if frame.frame_no >= self.progress.next && diverged.is_none() {
                diverged = self.take(&frame, rest)?;
            }
            Ok(())
        })?;
        spares.give_back(piece);
        Ok(diverged)
    }
}
