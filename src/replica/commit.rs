//! One commit on its way to the primary: what both ways of shipping share.

use std::time::{Duration, Instant};

use super::Replica;
use super::apply::Located;
use super::position::PositionFile;
use super::record::Record;
use super::transaction::LocalTransaction;
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::ffi::attention;
use crate::remote::Position;
use crate::remote::lease::{Ground, Kept, Lease};
use crate::remote::outcome::{FirstCommit, Outcome, Past};
use crate::remote::primary::Primary;
use crate::remote::transaction::{NotShipped, Transaction};
use crate::wal::{PAGE_SIZE, Page};

pub struct Commit<'a> {
    pub replica: &'a Replica,
    pub primary: &'a Primary,
    pub store: &'a mut PositionFile,
    pub base: &'a Located,
    pub transaction: &'a LocalTransaction<'a>,
    /// The state it leads to, with the position that it began at.
    pub state: Record,
    /// The stream is to stay open for the next one.
    pub keep: bool,
}

/// What became of it: it is at the primary.
pub struct Committed {
    /// Whether there was anything to ship.
    pub shipped: bool,
    /// The primary's frame, if that is known.
    pub frame_no: Option<u64>,
    pub next: Next,
}

/// What remains to be done once SQLite has committed, too.
pub enum Next {
    Nothing,
    /// Page 1 as the primary has stamped it.
    Correct(Position, Box<Page>),
    /// The primary's log says how far this is.
    Pull,
}

/// The writer's open streams.
pub struct Streams<'a> {
    pub primary: &'a Primary,
    pub lease: &'a mut Option<Lease>,
    pub kept: &'a mut Option<Kept>,
}

impl Streams<'_> {
    /// Where a transaction can begin that is not upon a lock still to be taken.
    pub fn take(&mut self, suits: impl Fn(&Kept) -> bool) -> Option<Ground> {
        if let Some(lease) = self.lease.take() {
            return Some(Ground::Lease(lease));
        }
        let kept = self.kept.take()?;
        if suits(&kept) {
            return Some(Ground::Kept(kept));
        }
        self.primary.discard(kept);
        None
    }

    pub fn keep(&mut self, fresh: Option<Kept>) {
        if let Some(fresh) = fresh
            && let Some(old) = self.kept.replace(fresh)
        {
            self.primary.discard(old);
        }
    }
}

impl Commit<'_> {
    /// The lock was taken back in the meantime, or has still to be taken.
    fn lock(&self, path: WritePath) -> Result<Lease> {
        let mut wait = patience(self.replica.timeout());
        let lease = self.primary.lock(path, &mut wait)?;
        match self.fits(&lease, path) {
            Ok(()) => Ok(lease),
            Err(e) => {
                self.primary.give_back(lease);
                Err(e)
            }
        }
    }

    fn fits(&self, lease: &Lease, path: WritePath) -> Result<()> {
        if !at(lease, &self.base.record) {
            return Err(moved());
        }
        if path == WritePath::Rows {
            return Ok(());
        }
        let mut page1 = Box::new([0; PAGE_SIZE]);
        self.transaction.base_page(1, &mut page1)?;
        same_page1(lease, &page1)
    }

    /// After an error: no content like this one is to be taken for that state.
    pub fn retracted(self, record: &Record, error: Error) -> Error {
        // It came to be nowhere; a record that stays is never found.
        let _ = self.store.retract(record, &self.base.record);
        error
    }

    /// Ships it upon `ground`, or upon a lock that is taken now. None: it is
    /// committed, and nothing else is known of it.
    pub fn ship<T>(
        &self,
        mut ground: Option<Ground>,
        mut past: Past,
        send: &dyn Fn(Ground) -> std::result::Result<T, NotShipped>,
        is_ours: &dyn Fn(&FirstCommit) -> Result<bool>,
    ) -> Result<Option<T>> {
        let mut once_more = true;
        loop {
            let upon = match ground.take() {
                Some(ground) => ground,
                None => Ground::Lease(self.lock(past.path)?),
            };
            past.sent = upon.now();
            match send(upon) {
                Ok(shipped) => return Ok(Some(shipped)),
                Err(NotShipped::LeaseLost) if once_more => {}
                Err(failed) => match self.settle(failed, &past, is_ours)? {
                    None => return Ok(None),
                    Some((lease, _)) if once_more && self.fits(&lease, past.path).is_ok() => {
                        ground = Some(Ground::Lease(lease));
                    }
                    Some((lease, error)) => {
                        self.primary.give_back(lease);
                        return Err(error);
                    }
                },
            }
            once_more = false;
        }
    }

    /// None if it is committed; else the error, with a lock if it can be sent
    /// again upon that.
    fn settle(
        &self,
        failed: NotShipped,
        past: &Past,
        is_ours: &dyn Fn(&FirstCommit) -> Result<bool>,
    ) -> Result<Option<(Lease, Error)>> {
        let gone = matches!(failed, NotShipped::Gone);
        let (error, stream) = match failed {
            NotShipped::Refused(e) => return Err(e),
            NotShipped::Moved => return Err(moved()),
            NotShipped::LeaseLost => return Err(lease_lost()),
            NotShipped::Gone => (moved(), None),
            NotShipped::Unknown(error, stream) => (error, stream),
        };
        let did_not_arrive = |error: Error| match gone {
            true => error,
            false => Error::Unreachable(format!("the commit did not arrive: {error}")),
        };
        let deadline = Instant::now() + self.replica.timeout() * 2;
        attention::grace();
        match self.primary.outcome(stream, past, is_ours, deadline) {
            Ok(Outcome::Committed) => Ok(None),
            Ok(Outcome::Refused) => Err(did_not_arrive(error)),
            Ok(Outcome::Nothing(lease)) => Ok(Some((lease, did_not_arrive(error)))),
            // What was sent to a stream of that one was not sent to this one.
            Err(Error::Diverged(_)) if gone => Err(error),
            Err(e) => Err(Error::Unknown(format!(
                "whether the primary has committed is unknown: {error}; and then: {e}; replica_sync() will show it"
            ))),
        }
    }
}

/// Whether the lock was taken upon this state.
pub fn at(lease: &Lease, record: &Record) -> bool {
    lease.log_id == record.position.log_id && lease.frame_no == record.logical()
}

/// Whether nobody had committed since this state when the stream was last used.
pub fn suits(kept: &Kept, record: &Record) -> bool {
    kept.is_fresh()
        && (record.undo.is_none() || kept.is_for_rows())
        && kept.log_id == record.position.log_id
        && kept.frame_no == record.logical()
}

/// Waits for a lock that SQLite cannot be asked about any more.
fn patience(limit: Duration) -> impl FnMut() -> bool {
    let deadline = Instant::now() + limit;
    move || attention::pause(Duration::from_millis(5)).is_ok() && Instant::now() < deadline
}

/// At the same position there is the same page 1, else the histories differ.
pub fn same_page1(lease: &Lease, page1: &Page) -> Result<()> {
    match lease.has_page1(page1) {
        true => Ok(()),
        false => Err(Error::Diverged(
            "the primary is at this replica's frame and has another page 1".into(),
        )),
    }
}

fn lease_lost() -> Error {
    Error::Busy("the primary gave its write lock to another writer".into())
}

pub fn moved() -> Error {
    Error::Snapshot(
        "the primary has moved on since this transaction began; roll back and begin again".into(),
    )
}
