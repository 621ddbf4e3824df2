//! Fetching and applying at the same time, in bounded memory: a small pull is
//! collected and applied on the spot, a large one by a second thread while
//! more is being fetched.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::apply::Message;
use super::chunk::Chunk;
use crate::error::{Error, Result};
use crate::ffi::{attention, guard, thread};
use crate::remote::{Divergence, Head, PageSink, Position, Pull, Remote};
use crate::wal::Page;

/// Pages handed over at a time: less than an allocation that is a mapping of its own.
const CHUNK: usize = 28;
/// Chunks under way between the threads: 7 MiB.
const CHUNKS: usize = 64;
/// A pull of so many pages is worth a thread: 4 MiB.
const LARGE: usize = 1024;

/// How a pull that was applied ended.
pub enum Outcome<T> {
    UpToDate,
    Diverged(Divergence),
    Applied(T),
}

/// Pulls from `from` and gives what comes to `apply`, which sees
/// `Message::Finish` only if the pull reached its end. `progress` is told the
/// number of frames so far.
pub fn pull<T: Send>(
    remote: &mut dyn Remote,
    from: &Position,
    to: &Head,
    progress: &mut dyn FnMut(u64),
    apply: impl FnOnce(&mut dyn Iterator<Item = Message>) -> Result<T> + Send,
) -> Result<Outcome<T>> {
    std::thread::scope(|scope| {
        let mut pipe = Pipe {
            scope,
            apply: Some(apply),
            staged: Chunk::default(),
            running: None,
            stopped: false,
            frames: 0,
            progress,
        };
        let pulled = remote.pull(from, to, &mut pipe);
        let reached = match pulled {
            Ok(Pull::Reached(reached)) => reached,
            Ok(Pull::UpToDate) => return pipe.abandon().map(|()| Outcome::UpToDate),
            Ok(Pull::Diverged(other)) => return pipe.abandon().map(|()| Outcome::Diverged(other)),
            // The applier wants no more: its result counts, be it an error.
            Err(_) if pipe.stopped => return pipe.join().map(Outcome::Applied),
            Err(e) => return Err(pipe.abandon().err().unwrap_or(e)),
        };
        pipe.finish(reached).map(Outcome::Applied)
    })
}

struct Pipe<'scope, 'env, 'p, T, A> {
    scope: &'scope Scope<'scope, 'env>,
    /// Until it runs.
    apply: Option<A>,
    staged: Chunk,
    running: Option<(SyncSender<Message>, ScopedJoinHandle<'scope, Result<T>>)>,
    /// The applier ended before it was told the end.
    stopped: bool,
    frames: u64,
    progress: &'p mut dyn FnMut(u64),
}

impl<'scope, T, A> Pipe<'scope, '_, '_, T, A>
where
    T: Send + 'scope,
    A: FnOnce(&mut dyn Iterator<Item = Message>) -> Result<T> + Send + 'scope,
{
    fn start(&mut self) -> Result<()> {
        let Some(apply) = self.apply.take() else {
            return Ok(());
        };
        let (sender, receiver) = sync_channel(CHUNKS);
        let thread = thread::spawn_scoped(self.scope, "libreplica-apply", move || {
            guard::caught(|| apply(&mut receiver.into_iter()))
        })?;
        self.running = Some((sender, thread));
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<()> {
        match &self.running {
            Some((sender, _)) => sender.send(message).map_err(|_| {
                self.stopped = true;
                Error::Internal("the applier stopped".into())
            }),
            None => Ok(()),
        }
    }

    /// What the running applier came to.
    fn join(mut self) -> Result<T> {
        let Some((sender, thread)) = self.running.take() else {
            return Err(Error::Internal("no applier".into()));
        };
        drop(sender);
        join(thread)
    }

    /// Ends the applier without a Finish; its error, if it had one.
    fn abandon(self) -> Result<()> {
        match self.running {
            Some(_) => self.join().map(|_| ()),
            None => Ok(()),
        }
    }

    fn finish(mut self, reached: crate::remote::Reached) -> Result<T> {
        let staged = std::mem::take(&mut self.staged);
        if let Some(apply) = self.apply.take() {
            return apply(&mut [Message::Pages(staged), Message::Finish(reached)].into_iter());
        }
        // An applier that ended before it was told the end has a reason.
        let _ = self
            .send(Message::Pages(staged))
            .and_then(|()| self.send(Message::Finish(reached)));
        self.join()
    }
}

fn join<T>(thread: ScopedJoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::Internal("the applier panicked".into())))
}

impl<'scope, T, A> PageSink for Pipe<'scope, '_, '_, T, A>
where
    T: Send + 'scope,
    A: FnOnce(&mut dyn Iterator<Item = Message>) -> Result<T> + Send + 'scope,
{
    fn page(&mut self, pgno: u32, page: &Page) -> Result<()> {
        self.staged.push(pgno, page);
        self.frames += 1;
        if self.running.is_none() && self.staged.len() >= LARGE {
            self.start()?;
        }
        if self.running.is_some() && self.staged.len() >= CHUNK {
            let staged = std::mem::replace(&mut self.staged, Chunk::with_capacity(CHUNK));
            attention::check()?;
            self.send(Message::Pages(staged))?;
            (self.progress)(self.frames);
        }
        Ok(())
    }
}
