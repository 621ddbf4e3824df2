//! Writes: the primary's lock at the begin of a local transaction, its pages
//! at the end of it.
//!
//! Everything here runs while a connection of the host holds the file's
//! WAL_WRITE_LOCK, so at most one transaction of one process is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::apply::{Located, Message};
use super::commit::{Commit, Next, Streams, at, same_page1, suits};
use super::files::{Hold, log_end};
use super::identity::path_of;
use super::local::Local;
use super::pipeline::{self, Outcome};
use super::record::Record;
use super::rows::Rows;
use super::transaction::{KnownSchema, LocalTransaction, Written};
use super::undo;
use super::{Replica, pages, reconcile};
use crate::config::{WriteLock, WritePath};
use crate::error::{Error, Result};
use crate::ffi::thread;
use crate::ffi::vfs::BaseVfs;
use crate::log;
use crate::remote::lease::{Kept, Lease};
use crate::remote::primary::Primary;
use crate::remote::transaction::Transaction;
use crate::remote::values::{Answer, Argument};
use crate::remote::{Head, Position, Reached};
use crate::wal::format::FrameHeader;
use crate::wal::index::Header;
use crate::wal::writer::LogEnd;
use crate::wal::{PAGE_SIZE, Page};

/// A lock whose statement has to be begun again waits so long for that.
const RETRY: Duration = Duration::from_millis(300);
/// After a conflict so many transactions take the lock first.
const EAGER_AFTER_CONFLICT: u32 = 16;

pub struct Writer {
    primary: Arc<Primary>,
    local: Option<Box<Local>>,
    /// The lock of the transaction that runs.
    lease: Option<Lease>,
    /// A lock for a statement that has to be begun again.
    spare: Option<Lease>,
    /// Tells one spare lock from the next.
    spare_number: u64,
    kept: Option<Kept>,
    /// Transactions that do not try their luck.
    eager: u32,
    after: After,
    /// Where the log ends with the transaction that `after` follows.
    end: Option<LogEnd>,
    /// Of this history.
    schema: Option<KnownSchema>,
    history: Option<u64>,
    /// The lock was taken for rows.
    by_rows: bool,
    rows: Rows,
}

/// What remains to be done once SQLite has committed.
enum After {
    Next(Next),
    /// `read_your_writes=0`: the content before, until the next sync.
    Hide(Header, Vec<u32>, Record),
}

/// How a write begins.
pub enum Begin {
    Ready,
    /// The primary was ahead and is no more; the statement can be begun again.
    CaughtUp,
    /// The primary is ahead; once that is pulled, the statement can be begun again.
    Behind,
}

impl Writer {
    pub fn new(primary: Arc<Primary>, vfs: BaseVfs, path: &str) -> Writer {
        Writer {
            primary,
            local: None,
            lease: None,
            spare: None,
            spare_number: 0,
            kept: None,
            eager: 0,
            after: After::Next(Next::Nothing),
            end: None,
            schema: None,
            history: None,
            by_rows: false,
            rows: Rows::new(vfs, path),
        }
    }

    /// The replica closes: what the writer has open must not outlive it.
    pub fn close(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.primary.discard(kept);
        }
        for lease in self.lease.take().into_iter().chain(self.spare.take()) {
            self.primary.give_back(lease);
        }
        if let Some(local) = self.local.take() {
            local.close();
        }
    }

    /// Lets go of what another process has, without ending it.
    pub fn forget(&mut self) {
        std::mem::forget(self.local.take());
    }

    fn local(&mut self, replica: &Replica) -> Result<&mut Local> {
        if self.local.is_none() {
            self.local = Some(Box::new(Local::reopen(&replica.vfs, &replica.path)?));
        }
        self.local
            .as_deref_mut()
            .ok_or_else(|| Error::Internal("no local files".into()))
    }
}

impl Replica {
    /// A connection has WAL_WRITE_LOCK and is about to write. `wait` is asked
    /// whether to go on waiting for the primary's lock.
    pub fn begin_write(&self, wait: &mut dyn FnMut() -> bool) -> Result<Begin> {
        self.check_writable()?;
        let writer = &mut *self.writer.lock();
        writer.after = After::Next(Next::Nothing);
        if self.is_inherited() {
            return Err(Error::ReadOnly(format!(
                "'{}' was opened before this process forked; open it anew",
                self.path
            )));
        }
        if self.is_frozen()? {
            return Ok(Begin::Ready);
        }
        let located = writer.local(self)?.locate(Hold::Held)?;
        let record = &located.record;
        let (path, write_lock, visible) = {
            let options = self.options.lock();
            (
                options.write_path,
                options.write_lock,
                options.read_your_writes,
            )
        };
        if write_lock == WriteLock::Optimistic
            && writer.eager == 0
            && let Some(kept) = writer.kept.as_ref().filter(|k| suits(k, record))
        {
            let by_rows = kept.is_for_rows();
            let pending = record.undo.as_ref();
            let whole = |undo| visible && writer.rows.can_build_upon(undo);
            let allowed = match path {
                WritePath::Auto => true,
                WritePath::Pages => !by_rows,
                WritePath::Rows => by_rows,
            };
            if allowed && pending.is_none_or(whole) {
                writer.by_rows = by_rows;
                return Ok(Begin::Ready);
            }
        }
        let lease = match writer.spare.take().or(writer.lease.take()) {
            Some(lease) => lease,
            None => writer.primary.lock(path, wait)?,
        };
        if lease.is_empty() {
            if record.frame_no().is_some() {
                writer.primary.give_back(lease);
                return Err(Error::Diverged(
                    "the primary is empty; this replica may be the last copy, so it stays as it is, and nothing can be written".into(),
                ));
            }
            writer.primary.initialize(lease)?;
            return Ok(Begin::Behind);
        }
        writer.by_rows = lease.is_for_rows();
        let name = if writer.by_rows { "rows" } else { "pages" };
        self.status.update(|f| f.write_path = Some(name));
        let ready = at(&lease, record)
            && match &record.undo {
                // What else builds upon these pages needs the primary's own.
                Some(undo) => writer.by_rows && visible && writer.rows.can_build_upon(undo),
                None => true,
            };
        if ready
            && !writer.by_rows
            && let Err(e) = page1(writer.local(self)?).and_then(|page| same_page1(&lease, &page))
        {
            writer.primary.give_back(lease);
            return Err(e);
        }
        if ready {
            writer.lease = Some(lease);
            return Ok(Begin::Ready);
        }
        // Under both locks: nobody else gets in between.
        let caught_up = self.pull_to(writer, &located, &lease);
        if !matches!(caught_up, Ok(true)) {
            writer.primary.give_back(lease);
            return caught_up.map(|_| Begin::Behind);
        }
        writer.spare = Some(lease);
        writer.spare_number += 1;
        self.expire_spare(writer.spare_number);
        Ok(Begin::CaughtUp)
    }

    /// Pulls up to where the primary's lock was taken; false if that takes
    /// more than to add what is new.
    fn pull_to(&self, writer: &mut Writer, base: &Located, lease: &Lease) -> Result<bool> {
        let primary = writer.primary.clone();
        let local = writer.local(self)?;
        let head = Head {
            log_id: lease.log_id.clone(),
            frame_no: lease.frame_no,
        };
        if reconcile::lost(&self.vfs, &self.path, &base.record, &head)?.is_some() {
            return Ok(false);
        }
        let apply = |messages: &mut dyn Iterator<Item = Message>| {
            local.increment(base, Hold::Held, messages)
        };
        let from = &base.record.position;
        let pulled = pipeline::pull(&mut *primary.log(), from, &head, &mut |_| {}, apply)?;
        let record = match pulled {
            Outcome::Applied(Some(record)) => record,
            Outcome::UpToDate => match local.reconcile(base, Hold::Held)? {
                Some(record) => record,
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        let frames = super::frames_between(&base.record, &record);
        self.noted(Some(&record), &head, frames);
        Ok(true)
    }

    /// Another connection has WAL_WRITE_LOCK: one of another process may be
    /// waiting for the primary's.
    pub fn give_way(&self) {
        if let Some(mut writer) = self.writer.try_lock()
            && let Some(lease) = writer.spare.take()
        {
            writer.primary.give_back(lease);
        }
    }

    /// Gives the lock back if the statement it waits for does not come.
    fn expire_spare(&self, number: u64) {
        let writer = self.writer.clone();
        let expire = move || {
            std::thread::sleep(RETRY);
            let mut writer = writer.lock();
            if writer.spare_number == number
                && let Some(lease) = writer.spare.take()
            {
                writer.primary.give_back(lease);
            }
        };
        // Without a thread the primary takes it back by itself.
        let _ = thread::spawn("libreplica-lease", expire);
    }

    /// The transaction's commit frame is about to be written. After Ok it is
    /// committed at the primary, and has to be here, with this header (None
    /// for a database that is no replica any more).
    pub fn commit(&self, written: Written) -> Result<Option<FrameHeader>> {
        if self.is_frozen()? {
            return Ok(None);
        }
        let writer = &mut *self.writer.lock();
        let (write_lock, visible) = {
            let options = self.options.lock();
            (options.write_lock, options.read_your_writes)
        };
        let history = self.history();
        if std::mem::replace(&mut writer.history, history) != history {
            writer.schema = None;
        }
        writer.local(self)?;
        let Writer {
            primary,
            local,
            lease,
            kept,
            eager,
            after,
            schema,
            by_rows,
            rows,
            end,
            ..
        } = writer;
        let local = local
            .as_deref_mut()
            .ok_or_else(|| Error::Internal("no local files".into()))?;
        let located = local.locate(Hold::Held)?;
        if local.store.is_sync_due() {
            local.files.wal.sync()?;
        }
        let base = located.record.clone();
        let header = local.files.header()?;
        let mut transaction = LocalTransaction::gather(&local.files, header, written, &base)?;
        let size = transaction.size();
        if size < base.page_count && !*by_rows {
            return Err(pages::shrinks(&transaction, base.page_count)?);
        }
        let state = Record {
            seq: 0,
            position: base.position.clone(),
            page_count: size,
            digest: transaction.digest,
            end: Some(transaction.end),
            stamp: Some(local.files.stamp(false)?),
            complete: false,
            undo: base.undo.clone(),
        };
        if transaction.pages().is_empty() {
            // Nothing has changed; the log grows all the same.
            local.store.append(state)?;
            local.store.sync()?;
            return Ok(Some(transaction.header));
        }
        transaction.look_at_schema(schema)?;
        let optimistic = write_lock == WriteLock::Optimistic;
        let commit = Commit {
            replica: self,
            primary,
            store: &mut local.store,
            base: &located,
            transaction: &transaction,
            state,
            keep: optimistic && *eager <= 1,
        };
        let mut streams = Streams {
            primary,
            lease,
            kept,
        };
        let done = match *by_rows {
            true => rows.commit(commit, &mut streams),
            false => pages::commit(commit, &mut streams, *eager == 0),
        };
        *eager = match &done {
            Err(Error::Snapshot(_)) if optimistic => EAGER_AFTER_CONFLICT,
            _ => eager.saturating_sub(1),
        };
        let done = done?;
        *end = Some(transaction.end);
        *after = match visible {
            true => After::Next(done.next),
            false => After::Hide(header, transaction.touched(), base),
        };
        if done.shipped {
            self.status.shipped(done.frame_no.filter(|_| visible));
        }
        Ok(Some(transaction.header))
    }

    /// The connection is about to give WAL_WRITE_LOCK back; true if a sync is due then.
    pub fn end_write(&self) -> bool {
        let writer = &mut *self.writer.lock();
        let after = std::mem::replace(&mut writer.after, After::Next(Next::Nothing));
        // Nothing was written, or a statement has to be begun again.
        if let Some(lease) = writer.lease.take() {
            writer.primary.give_back(lease);
        }
        if matches!(after, After::Next(Next::Nothing)) {
            return false;
        }
        let end = writer.end.take();
        let Some(local) = writer.local.as_deref_mut() else {
            return true;
        };
        // What SQLite could not write in the end, a sync brings.
        if !local.files.header().is_ok_and(|h| log_end(&h) == end) {
            return true;
        }
        let done = match after {
            After::Next(Next::Correct(position, page1)) => {
                local.correct(position, page1).map(|()| false)
            }
            After::Hide(header, pages, base) => local.hide(header, &pages, base).map(|()| false),
            After::Next(Next::Nothing | Next::Pull) => Ok(true),
        };
        done.unwrap_or_else(|e| {
            // What is here is behind the primary, and says so.
            log::error(e.code(), &format!("after a commit to '{}': {e}", self.path));
            true
        })
    }

    /// Runs one statement at the primary, and pulls what it did.
    pub fn execute(&self, sql: &str, args: Vec<Argument>) -> Result<Answer> {
        self.check_writable()?;
        let primary = self.writer.lock().primary.clone();
        let answer = self.told(|| primary.execute(sql, args))?;
        self.sync()?;
        Ok(answer)
    }

    /// Cuts the replica loose: from here on the file is an ordinary database.
    pub fn freeze(&self) -> Result<()> {
        self.check_writable()?;
        let mut engine = self.engine()?;
        let local = match &mut engine.local {
            Some(local) => local,
            None => {
                return Err(Error::Diverged(format!(
                    "'{}' is not in WAL mode",
                    self.path
                )));
            }
        };
        // No write of another connection or process is under way.
        let (_lock, _) = local.files.write_lock(Hold::Take(self.timeout()))?;
        local.store.mark_frozen()?;
        self.vfs.delete(&path_of(&self.path))?;
        undo::remove(&self.vfs, &self.path);
        self.frozen.store(true, Ordering::SeqCst);
        self.background.stop();
        Ok(())
    }

    /// Whether this or another process has frozen it.
    pub fn is_frozen(&self) -> Result<bool> {
        if !self.frozen.load(Ordering::SeqCst) {
            let frozen = self.history.was_frozen()?;
            self.frozen.store(frozen, Ordering::SeqCst);
        }
        Ok(self.frozen.load(Ordering::SeqCst))
    }

    /// Pulls what the primary is ahead, so that a statement can be begun again.
    pub fn catch_up(&self) -> Result<()> {
        self.sync().map(|_| ())
    }
}

fn page1(local: &mut Local) -> Result<Box<Page>> {
    let mut page = Box::new([0; PAGE_SIZE]);
    local
        .files
        .reader(local.files.header()?)
        .read(1, &mut page)?;
    Ok(page)
}

impl Local {
    /// Page 1 as the primary has stamped it, right behind the transaction that
    /// SQLite has just committed.
    fn correct(&mut self, position: Position, page1: Box<Page>) -> Result<()> {
        let page_count = self.locate(Hold::Held)?.record.page_count;
        let reached = Reached {
            position,
            page_count,
            frames: 0,
        };
        self.add([(1, page1)].into(), reached)
    }

    /// The content before the transaction that SQLite has just committed.
    fn hide(&mut self, before: Header, pages: &[u32], base: Record) -> Result<()> {
        let mut old = BTreeMap::new();
        for &pgno in pages.iter().filter(|p| **p <= base.page_count) {
            let mut page = Box::new([0; PAGE_SIZE]);
            self.files.reader(before).read(pgno, &mut page)?;
            old.insert(pgno, page);
        }
        let reached = Reached {
            position: base.position,
            page_count: base.page_count,
            frames: 0,
        };
        self.add(old, reached)
    }

    fn add(&mut self, pages: BTreeMap<u32, Box<Page>>, reached: Reached) -> Result<()> {
        let base = self.locate(Hold::Held)?;
        let mut messages = [
            super::apply::Message::Pages(pages.into_iter().collect()),
            super::apply::Message::Finish(reached),
        ]
        .into_iter();
        match self.increment(&base, Hold::Held, &mut messages)? {
            Some(_) => Ok(()),
            None => Err(Error::Internal("the log moved under its lock".into())),
        }
    }
}
