//! What runs in the background: a sync from time to time, or the primary's
//! stream, each commit applied as it comes.
//!
//! It has handles and connections of its own, so that nobody waits for its
//! network, and of what it shares with others it holds only the log's write
//! lock, while it applies what has already come.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::apply::{Located, Message};
use super::backoff::Backoff;
use super::beside::Companion;
use super::control::{Control, Event, News};
use super::files::Hold;
use super::leader::{self, Candidate, Watch};
use super::local::{Found, Local};
use super::pipeline::{self, Outcome};
use super::record::Record;
use super::session::Session;
use super::staged::{Fit, Staged};
use super::{Replica, frames_between, reconcile, registry, status};
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::log;
use crate::remote::wal_log::WalLog;
use crate::remote::{Divergence, Head, Position, Remote};

/// How often a process that does not work tries whether the one that does is gone.
const STANDBY: Duration = Duration::from_millis(200);
/// A silent stream: as often the primary is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// So long a frame may be on its way that the primary says it has.
const GRACE: Duration = Duration::from_secs(1);
/// Waits for a local lock in slices, orders being looked at in between.
const LOCK_SLICE: Duration = Duration::from_millis(300);
/// Frames of a sync in one local transaction, whatever the primary has: the
/// write lock is not held while more is fetched.
const STEP: u64 = 1000;
/// Frames applied at once when more have arrived than were applied.
const GROUP: usize = 1000;
/// A transaction of more frames is not collected in memory, but pulled.
const LARGE: usize = 8192;

pub struct Worker {
    /// For what it knows; its engine is not used.
    replica: Replica,
    control: Arc<Control>,
    events: Receiver<Event>,
    remote: Option<WalLog>,
    backoff: Backoff,
    /// The failure that was logged last.
    said: Option<String>,
    watch: Watch,
    streams: u64,
    /// A stream that did well broke off: perhaps only the stream, perhaps not.
    broken: bool,
}

/// A stream ended, by the primary's will or ours, and did not fail. What comes
/// next is a sync, whatever the reason.
struct Ended;

impl Worker {
    pub fn new(replica: Replica, control: Arc<Control>, events: Receiver<Event>) -> Worker {
        Worker {
            replica,
            control,
            events,
            remote: None,
            backoff: Backoff::default(),
            said: None,
            watch: Watch::default(),
            streams: 0,
            broken: false,
        }
    }

    /// Works until it is told to stop.
    pub fn run(&mut self) {
        while !self.control.stopped() {
            let result = self.lead().and_then(|()| self.round());
            let Err(error) = result else {
                continue;
            };
            if self.control.check().is_err() {
                // Whatever went wrong, an order came in between.
                self.remote = None;
                continue;
            }
            let [random] = api::random();
            let pause = self.backoff.failed(&error, random);
            self.failed(&error);
            let _ = self.pause(pause);
        }
        self.replica.status.update(|f| f.beside = None);
    }

    /// A bug, to be seen in the status; the work goes on after a while.
    pub fn panicked(&mut self, panic: String) {
        self.remote = None;
        let error = Error::Internal(panic);
        let pause = self.backoff.failed(&error, 128).max(STANDBY);
        self.failed(&error);
        let _ = self.pause(pause);
    }

    fn path(&self) -> &str {
        self.replica.path()
    }

    /// Waits until no other process works on this file.
    fn lead(&mut self) -> Result<()> {
        let mut candidate = None;
        while !self.control.leading.load(SeqCst) {
            let next = match candidate
                .take()
                .map_or_else(|| Candidate::new(self.path()), Ok)
            {
                Ok(candidate) => candidate,
                Err(e) => {
                    // Every process works then: more traffic, and nothing stale.
                    self.works_alone(format!("{e}; without it every process syncs for itself"));
                    return Ok(());
                }
            };
            match next.try_lead() {
                Ok(leader) => {
                    self.replica.status.update(|f| f.beside = None);
                    log::info(|| format!("'{}': this process keeps it current", self.path()));
                    self.control.hands.lock().leader = Some(leader);
                    self.control.leading.store(true, SeqCst);
                }
                Err(again) => {
                    if self.watch.is_silent(self.replica.path()) {
                        self.works_alone(format!(
                            "'{}' is locked by a process that does not sync (stopped, or another program); this one syncs for itself",
                            Companion::Lock.path(self.path())
                        ));
                        return Ok(());
                    }
                    self.replica.status.update(|f| f.beside = None);
                    if self.must_work_beside() {
                        return Ok(());
                    }
                    candidate = Some(again);
                    if self.pause(STANDBY).is_err() {
                        // A standby has nothing to do differently.
                        if self.control.stopped() {
                            return Err(Error::Interrupted);
                        }
                        self.begin()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Without the lock, and not in silence.
    fn works_alone(&self, why: String) {
        let mut facts = self.replica.status.facts();
        if facts.beside.replace(why.clone()).as_ref() != Some(&why) {
            log::warn(&format!("'{}': {why}", self.path()));
            registry::set_last_error(&why);
            self.replica.status.update(|f| f.beside = Some(why));
        }
    }

    /// Whether the process that works is less current than this one is to be.
    fn must_work_beside(&self) -> bool {
        let options = self.replica.options();
        let Some(note) = leader::noted(self.path()) else {
            return false;
        };
        if options.live {
            return !note.is_live();
        }
        // Some more than its own interval: two of the same take no turns.
        let patience = options.sync_interval.mul_f64(1.5) + STANDBY;
        let age = |at| status::unix_now() - at;
        !note.is_live()
            && note
                .last_sync()
                .is_none_or(|at| age(at) > patience.as_secs_f64())
    }

    /// With the options as they are now.
    fn begin(&mut self) -> Result<()> {
        let remote = Replica::wal_log(&self.replica.options, &self.replica.status)?;
        self.control.begin(remote.line());
        self.remote = Some(remote);
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        if self.remote.is_none() {
            self.begin()?;
        }
        self.control.check()?;
        self.open_local()?;
        if self.backoff.is_failing() || self.broken {
            let mut patience = self.backoff.patience(self.replica.timeout());
            if std::mem::take(&mut self.broken) {
                patience = patience.min(HEARTBEAT);
            }
            self.remote()?.probe(patience)?;
        }
        let position = self.catch_up()?;
        self.note();
        let options = self.replica.options();
        if options.live {
            self.follow(position)?;
            // Not at once again, should it end so every time.
            return self.pause(Duration::from_millis(25));
        }
        self.doing_well();
        self.pause(options.sync_interval.max(Duration::from_millis(1)))
    }

    fn remote(&mut self) -> Result<&mut WalLog> {
        self.remote.as_mut().ok_or(Error::Interrupted)
    }

    fn open_local(&self) -> Result<()> {
        let mut hands = self.control.hands.lock();
        if hands.local.is_some() || self.control.stopped() {
            return Ok(());
        }
        let found = Local::find(&self.replica.vfs, self.path(), LOCK_SLICE)?;
        let Found::Replica(local) = found else {
            return Err(Error::Diverged(format!(
                "'{}' was taken out of WAL mode by another SQLite, or removed",
                self.path()
            )));
        };
        hands.local = Some(local);
        Ok(())
    }

    /// What the worker's own handles are used for; nobody else waits for them.
    fn with_local<T>(&self, work: impl FnOnce(&mut Local) -> Result<T>) -> Result<T> {
        let mut hands = self.control.hands.lock();
        work(hands.local.as_mut().ok_or(Error::Interrupted)?)
    }

    /// Syncs, in steps; answers where the replica is then.
    fn catch_up(&mut self) -> Result<Position> {
        loop {
            self.control.check()?;
            // In this order, as in a sync.
            let base = self.with_local(|local| local.locate(Hold::Take(LOCK_SLICE)))?;
            let position = &base.record.position;
            let head = self.remote()?.hello()?;
            let replica = &self.replica;
            replica
                .status
                .update(|f| f.primary_frame_no = head.frame_no);
            if let Some(why) = reconcile::lost(&replica.vfs, self.path(), &base.record, &head)? {
                self.take_all_again(&base, &why.into())?;
                continue;
            }
            // Not back to before what is here already.
            let step = match (base.record.logical(), &base.record.undo) {
                (None, Some(_)) => head.frame_no,
                (here, _) => Some(position.next() + STEP).max(here),
            };
            let step = Head {
                frame_no: head.frame_no.min(step),
                ..head.clone()
            };
            // A primary that is behind is no matter of steps.
            let to = if head.frame_no < position.frame_no {
                &head
            } else {
                &step
            };
            let (control, hands) = (&self.control, &self.control.hands);
            let remote = self.remote.as_mut().ok_or(Error::Interrupted)?;
            let pulled = pipeline::pull(remote, position, to, &mut |_| {}, |messages| {
                let mut hands = hands.lock();
                let local = hands.local.as_mut().ok_or(Error::Interrupted)?;
                patiently(control, local, &base, messages)
            })?;
            match pulled {
                Outcome::UpToDate if base.record.undo.is_some() => {
                    self.with_local(|local| local.reconcile(&base, Hold::Take(LOCK_SLICE)))?;
                }
                Outcome::UpToDate => {
                    replica.noted(Some(&base.record), &head, 0);
                    return Ok(base.record.position);
                }
                Outcome::Applied(Some(record)) => {
                    let frames = frames_between(&base.record, &record);
                    replica.noted(Some(&record), &head, frames);
                    self.checkpoint();
                    log::debug(|| {
                        let at = record.position.frame_no.unwrap_or(0);
                        format!("'{}': {frames} frames pulled, at {at}", self.path())
                    });
                }
                Outcome::Applied(None) => {}
                Outcome::Diverged(other) => self.take_all_again(&base, &other)?,
            }
        }
    }

    /// Unless somebody else has, by now, or the log goes on from here after all.
    fn take_all_again(&mut self, base: &Located, other: &Divergence) -> Result<()> {
        let remote = self.remote.as_mut().ok_or(Error::Interrupted)?;
        let mut hands = self.control.hands.lock();
        let local = hands.local.as_mut().ok_or(Error::Interrupted)?;
        if local.is_at(base, Hold::Take(LOCK_SLICE))?
            && !local.goes_on(base, other, Hold::Take(LOCK_SLICE))?
        {
            self.replica.rebootstrap(local, remote, &other.why)?;
        }
        Ok(())
    }

    fn checkpoint(&self) {
        let mut hands = self.control.hands.lock();
        if let Some(local) = &mut hands.local {
            self.replica.checkpoint(local);
        }
    }

    /// Keeps the primary's stream open and applies what it brings.
    fn follow(&mut self, position: Position) -> Result<Ended> {
        self.streams += 1;
        let session = Session::open(&self.replica, &self.control, self.streams, position)?;
        let result = self.serve(&session);
        self.control.cut_attached();
        session.close(&self.events);
        result
    }

    fn serve(&mut self, session: &Session) -> Result<Ended> {
        let mut staged = Staged::default();
        let mut heard = Instant::now();
        let mut expected: Option<(u64, Instant)> = None;
        let mut well = false;
        // The newest commit that the stream has brought.
        let mut at = session.from.frame_no;
        loop {
            self.control.check()?;
            let wait = match expected {
                Some((_, until)) => until.saturating_duration_since(Instant::now()),
                None => HEARTBEAT.saturating_sub(heard.elapsed()),
            };
            let Ok(event) = self.events.recv_timeout(wait) else {
                if let Some((frame_no, until)) = expected
                    && Instant::now() >= until
                {
                    return Err(Error::Unreachable(format!(
                        "the live stream does not bring frame {frame_no}, which the primary has"
                    )));
                }
                if expected.is_none() && heard.elapsed() >= HEARTBEAT {
                    let patience = self.replica.timeout().min(HEARTBEAT);
                    let head = self.remote()?.probe(patience)?;
                    if head.log_id != session.from.log_id || head.frame_no < at {
                        return Ok(Ended);
                    }
                    match head.frame_no.filter(|_| head.frame_no > at) {
                        Some(frame_no) => expected = Some((frame_no, Instant::now() + GRACE)),
                        None => self.replica.status.heard(head.frame_no),
                    }
                    // A stream that opens and breaks at once is no success.
                    self.doing_well();
                    well = true;
                    self.note();
                    heard = Instant::now();
                }
                continue;
            };
            let mut ended = match self.stage(session, event, &mut staged, &mut at) {
                // Something on the way may end every stream after a while.
                Err(Error::Unreachable(why)) if well => {
                    log::debug(|| format!("'{}': the stream broke off: {why}", self.path()));
                    self.broken = true;
                    return Ok(Ended);
                }
                staged => staged?,
            };
            // What has arrived by now goes into the same local transaction.
            while ended.is_none() && staged.position().is_some() && staged.len() < GROUP {
                match self.events.try_recv() {
                    Ok(event) => ended = self.stage(session, event, &mut staged, &mut at)?,
                    Err(_) => break,
                }
            }
            if staged.position().is_some() {
                if !self.apply(&mut staged)? {
                    return Ok(Ended);
                }
                self.doing_well();
                well = true;
            }
            heard = Instant::now();
            expected = expected.filter(|(frame_no, _)| at < Some(*frame_no));
            if ended.is_some() || staged.len() > LARGE {
                return Ok(Ended);
            }
        }
    }

    /// Takes in an event of the stream; its end, if it is one.
    fn stage(
        &self,
        session: &Session,
        event: Event,
        staged: &mut Staged,
        at: &mut Option<u64>,
    ) -> Result<Option<Ended>> {
        let news = match event {
            Event::Stream(number, news) if number == session.number => news,
            // An order, looked at elsewhere, or the rest of an earlier stream.
            _ => return Ok(None),
        };
        match news {
            News::Opened(head) => {
                log::debug(|| format!("'{}': following the primary", self.path()));
                if head.frame_no <= *at {
                    self.replica.status.heard(head.frame_no);
                }
            }
            News::Page {
                frame_no,
                checksum,
                pgno,
                page,
            } => staged.push(frame_no, checksum, pgno, page),
            News::Commit(position, page_count) => {
                *at = position.frame_no;
                staged.commit(position, page_count);
            }
            News::Ended(followed) => return followed.map(|_| Some(Ended)),
        }
        Ok(None)
    }

    /// Applies what is complete; false if it does not fit onto what is there.
    fn apply(&self, staged: &mut Staged) -> Result<bool> {
        loop {
            self.control.check()?;
            match self.with_local(|local| self.apply_once(staged, local)) {
                // A writer, a checkpoint: they end some time.
                Err(Error::Busy(_)) => {}
                Ok(None) => {}
                Ok(Some(fits)) => return Ok(fits),
                Err(e) => return Err(e),
            }
        }
    }

    /// None if the local content changed at the same time.
    fn apply_once(&self, staged: &mut Staged, local: &mut Local) -> Result<Option<bool>> {
        let base = local.locate(Hold::Take(LOCK_SLICE))?;
        let head = staged.position().map(|p| Head {
            log_id: p.log_id.clone(),
            frame_no: p.frame_no,
        });
        let Some(head) = head else {
            return Ok(Some(true));
        };
        match staged.fit(&base.record.position) {
            Fit::Apart => Ok(Some(false)),
            Fit::Nothing => {
                self.replica.noted(Some(&base.record), &head, 0);
                Ok(Some(true))
            }
            // What comes first is not yet all that is here already.
            Fit::Next if head.frame_no < base.record.logical() => Ok(Some(true)),
            // How much is here already, the primary has to be asked.
            Fit::Next if base.record.undo.is_some() && base.record.logical().is_none() => {
                Ok(Some(false))
            }
            Fit::Next => {
                let applied =
                    local.increment(&base, Hold::Take(LOCK_SLICE), &mut staged.messages())?;
                let Some(record) = applied else {
                    return Ok(None);
                };
                staged.applied();
                let frames = frames_between(&base.record, &record);
                self.replica.noted(Some(&record), &head, frames);
                self.replica.checkpoint(local);
                Ok(Some(true))
            }
        }
    }

    /// Waits, unless there is an order.
    fn pause(&self, length: Duration) -> Result<()> {
        let deadline = Instant::now() + length;
        loop {
            self.control.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let _ = self.events.recv_timeout(left);
        }
    }

    /// Lets the other processes know how things are.
    fn note(&self) {
        if let Some(leader) = &mut self.control.hands.lock().leader {
            let live = self.replica.options().live;
            leader.note(live, &self.replica.status.facts());
        }
    }

    fn failed(&mut self, error: &Error) {
        if let Error::Busy(text) = error {
            return log::debug(|| format!("'{}': {text}; trying again", self.path()));
        }
        self.replica.status.failed(error);
        self.note();
        let text = error.to_string();
        if self.said.as_ref() != Some(&text) {
            log::warn(&format!("'{}': {text}; trying again", self.path()));
            self.said = Some(text);
        }
    }

    fn doing_well(&mut self) {
        self.backoff.reset();
        if self.said.take().is_some() {
            log::info(|| format!("'{}': the primary is back", self.path()));
        }
    }
}

/// As `increment`; a writer is waited for until there is an order, rather than
/// fetching everything again.
fn patiently(
    control: &Control,
    local: &mut Local,
    base: &Located,
    messages: &mut dyn Iterator<Item = Message>,
) -> Result<Option<Record>> {
    let begun = Cell::new(false);
    let mut messages = messages.inspect(|_| begun.set(true));
    loop {
        match local.increment(base, Hold::Take(LOCK_SLICE), &mut messages) {
            Err(Error::Busy(_)) if !begun.get() && control.check().is_ok() => {}
            result => return result,
        }
    }
}
