//! One commit on its way to the primary: what both ways of shipping share.

use std::time::{Duration, Instant};

use super::Replica;
use super::apply::Located;
use super::position::PositionFile;
use super::record::Record;
use super::transaction::LocalTransaction;
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::remote::Position;
use crate::remote::lease::{Ground, Kept, Lease};
use crate::remote::outcome::{FirstCommit, Past};
use crate::remote::primary::Primary;
use crate::remote::transaction::NotShipped;
use crate::wal::Page;

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
    pub fn lock(&self, path: WritePath) -> Result<Lease> {
        let mut wait = patience(self.replica.timeout());
        let lease = self.primary.lock(path, &mut wait)?;
        if at(&lease, &self.base.record) {
            return Ok(lease);
        }
        self.primary.give_back(lease);
        Err(moved())
    }

    /// After an error: no content like this one is to be taken for that state.
    pub fn retracted(self, record: &Record, error: Error) -> Error {
        // It came to be nowhere; a record that stays is never found.
        let _ = self.store.retract(record, &self.base.record);
        error
    }

    /// A definite outcome; None if it is committed and nothing else is known of it.
    pub fn settle<T>(
        &self,
        result: std::result::Result<T, NotShipped>,
        past: &Past,
        is_ours: &dyn Fn(&FirstCommit) -> Result<bool>,
    ) -> Result<Option<T>> {
        let (error, stream) = match result {
            Ok(shipped) => return Ok(Some(shipped)),
            Err(NotShipped::Refused(e)) => return Err(e),
            Err(NotShipped::Moved) => return Err(moved()),
            Err(NotShipped::LeaseLost) => {
                return Err(Error::Busy(
                    "the primary gave its write lock to another writer".into(),
                ));
            }
            Err(NotShipped::Overgrown) => {
                self.primary.reserve()?;
                return Err(moved());
            }
            Err(NotShipped::Unknown(error, stream)) => (error, stream),
        };
        let deadline = Instant::now() + self.replica.timeout() * 2;
        match self.primary.outcome(stream, past, is_ours, deadline) {
            Ok(true) => Ok(None),
            Ok(false) => Err(Error::Unreachable(format!(
                "the commit did not arrive: {error}"
            ))),
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
    move || {
        std::thread::sleep(Duration::from_millis(5));
        Instant::now() < deadline
    }
}

pub fn moved() -> Error {
    Error::Snapshot(
        "the primary has moved on since this transaction began; roll back and begin again".into(),
    )
}
