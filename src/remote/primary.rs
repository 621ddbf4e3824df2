//! Writing at a libSQL primary: its write lock, and a transaction's pages.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::hrana::{
    Failure, Stream, batch, close, close_soon, execute, executed, pipeline, ran, stmt,
};
use super::hrana_wire::SqlError;
use super::http::Http;
use super::lease::{Ground, Kept, Lease, begin, first_page, prepare};
use super::mailbox::Mailbox;
use super::pages::{Steps, stamped, unused_name};
use super::program::{Program, first_failure, log_end};
use super::transaction::{NotShipped, Shipped, Transaction};
use super::values::{Answer, Argument};
use super::wal_log::WalLog;
use super::{Head, Remote};
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::ffi::thread;
use crate::wal::PAGE_SIZE;

/// Pages of one request.
const REQUEST_PAGES: usize = 4096;

/// A stream that is on its way.
pub struct Prepared(Mailbox<Result<Kept>>);

/// The primary as a writer needs it.
pub struct Primary {
    pub(super) http: Arc<Http>,
    pub(super) log: Mutex<WalLog>,
}

impl Primary {
    pub fn new(http: Arc<Http>, log: WalLog) -> Primary {
        let log = Mutex::new(log);
        Primary { http, log }
    }

    fn hello(&self) -> Result<Head> {
        self.log.lock().hello()
    }

    /// Takes the write lock, for a transaction that will be shipped that way.
    /// While somebody else has it, `wait` is asked again and again whether to go on.
    pub fn lock(&self, path: WritePath, wait: &mut dyn FnMut() -> bool) -> Result<Lease> {
        let (mailbox, http) = (Mailbox::default(), self.http.clone());
        let sender = mailbox.clone();
        thread::spawn("libreplica-lock", move || {
            // Nobody waits any more: the lock goes back at once.
            if let Some(Ok(lease)) = sender.put(begin(&http, path)) {
                lease.release(&http);
            }
        })
        .map_err(|e| Error::Internal(format!("cannot start a thread: {e}")))?;
        let begun = self.await_lock(&mailbox, wait);
        if let Some(Ok(unwanted)) = mailbox.close() {
            self.give_back(unwanted);
        }
        let mut lease = begun?;
        lease.log_id = match self.http.confirmed() {
            Some(log_id) => log_id,
            None => match self.hello() {
                Ok(head) => head.log_id,
                Err(e) => {
                    self.give_back(lease);
                    return Err(e);
                }
            },
        };
        Ok(lease)
    }

    /// A stream for the next transaction, whatever that may be: it comes after
    /// a while.
    pub fn prepare(self: &Arc<Self>) -> Prepared {
        let prepared = Prepared(Mailbox::default());
        let (primary, sender) = (self.clone(), prepared.0.clone());
        // Without a thread it never comes, and the lock is taken instead.
        let spawned = thread::spawn("libreplica-prepare", move || {
            let kept = primary.prepare_now();
            if let Some(Ok(unwanted)) = sender.put(kept) {
                primary.discard(unwanted);
            }
        });
        if let Err(e) = spawned {
            prepared.0.put(Err(Error::Internal(e.to_string())));
        }
        prepared
    }

    fn prepare_now(&self) -> Result<Kept> {
        let mut kept = prepare(&self.http)?;
        kept.log_id = match self.http.confirmed() {
            Some(log_id) => log_id,
            None => self.hello()?.log_id,
        };
        Ok(kept)
    }

    /// Waits for it, as for a lock; None if it cannot be had.
    pub fn prepared(&self, prepared: Prepared, wait: &mut dyn FnMut() -> bool) -> Option<Kept> {
        let kept = self.await_begun(&prepared.0, wait);
        if let Some(Ok(unwanted)) = prepared.0.close() {
            self.discard(unwanted);
        }
        kept.ok()
    }

    /// It is not wanted any more.
    pub fn give_up(&self, prepared: Prepared) {
        if let Some(Ok(unwanted)) = prepared.0.close() {
            self.discard(unwanted);
        }
    }

    fn await_lock(
        &self,
        mailbox: &Mailbox<Result<Lease>>,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<Lease> {
        if self.http.confirmed().is_none() {
            // At the same time, on another connection.
            self.hello()?;
        }
        self.await_begun(mailbox, wait)
    }

    fn await_begun<T>(
        &self,
        mailbox: &Mailbox<Result<T>>,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<T> {
        let mut patience = self.http.round_trip() * 4 + Duration::from_millis(100);
        loop {
            if let Some(begun) = mailbox.take(patience) {
                return begun;
            }
            patience = Duration::from_millis(1);
            if !wait() {
                // At the last moment?
                if let Some(begun) = mailbox.close() {
                    return begun;
                }
                // Held by somebody, or nobody is there?
                self.hello()?;
                return Err(Error::Busy(
                    "the primary's write lock is held by another writer".into(),
                ));
            }
        }
    }

    /// Ends a stream that is not to be used again.
    pub fn discard(&self, kept: Kept) {
        close_soon(&self.http, kept.stream);
    }

    /// The log, as a sync reads it.
    pub fn log(&self) -> MutexGuard<'_, WalLog> {
        self.log.lock()
    }

    /// Gives a lock back, without waiting for the primary's answer.
    pub fn give_back(&self, lease: Lease) {
        let http = self.http.clone();
        // Without a thread the primary ends the stream by itself, after 10 s.
        let _ = thread::spawn("libreplica-unlock", move || lease.release(&http));
    }

    /// Gives an empty primary its first pages, so that it is one like any other.
    pub fn initialize(&self, lease: Lease) -> Result<()> {
        let Lease { mut stream, .. } = lease;
        let name = unused_name();
        let mut steps = Steps::default();
        steps.add(format!("CREATE TABLE {name}(x)"), Vec::new());
        steps.add(format!("DROP TABLE {name}"), Vec::new());
        let commit = steps.add("COMMIT", Vec::new());
        let requests = vec![batch(steps.into_batch()), close()];
        let results = pipeline(&self.http, &mut stream, requests).map_err(Failure::into_error)?;
        let result = ran(results.into_iter().next())?.map_err(SqlError::into_error)?;
        match first_failure(&result, commit + 1) {
            None => Ok(()),
            Some((_, Some(error))) => Err(error.into_error()),
            Some((_, None)) => Err(Error::Busy("the primary took its write lock back".into())),
        }
    }

    /// Makes the database so that the next transactions need no growth: a few
    /// pages for its freelist. A commit of its own.
    pub fn reserve(&self) -> Result<()> {
        let name = unused_name();
        let mut steps = Steps::default();
        steps.begin();
        steps.add(format!("CREATE TABLE {name}(x)"), Vec::new());
        steps.add(
            format!("INSERT INTO {name} VALUES(zeroblob(262144))"),
            Vec::new(),
        );
        steps.add(format!("DROP TABLE {name}"), Vec::new());
        steps.add("COMMIT", Vec::new());
        let requests = vec![batch(steps.into_batch()), close()];
        let mut stream = Stream::default();
        pipeline(&self.http, &mut stream, requests)
            .map(|_| ())
            .map_err(Failure::into_error)
    }

    /// Runs one statement at the primary, in a transaction of its own.
    pub fn execute(&self, sql: &str, args: Vec<Argument>) -> Result<Answer> {
        let mut stream = Stream::default();
        let args = args.into_iter().map(|argument| argument.0).collect();
        let requests = vec![execute(stmt(sql, args, true)), close()];
        let results =
            pipeline(&self.http, &mut stream, requests).map_err(|failure| match failure {
                Failure::Lost(e) => Error::Unknown(format!(
                    "whether the primary has run the statement is unknown: {e}"
                )),
                failure => failure.into_error(),
            })?;
        let result = executed(results.into_iter().next())?;
        result
            .map(Answer)
            .map_err(|error| match error.code.as_str() {
                "SQLITE_CONSTRAINT" => Error::Statement {
                    message: error.message,
                    code: libsqlite3_sys::SQLITE_CONSTRAINT,
                },
                "BLOCKED" | "SQLITE_AUTH" | "SQLITE_BUSY" | "TRANSACTION_TIMEOUT" => {
                    error.into_error()
                }
                code => Error::Statement {
                    message: format!("{} ({code})", error.message),
                    code: libsqlite3_sys::SQLITE_ERROR,
                },
            })
    }

    /// Ships a transaction as pages. `keep`: the stream stays open for the
    /// next one, if it can be of use for that.
    pub fn ship(
        &self,
        ground: Ground,
        transaction: &dyn Transaction,
        keep: bool,
    ) -> std::result::Result<Shipped, NotShipped> {
        let (stream, log_id, version, base, begins) = match ground {
            Ground::Lease(lease) => {
                let Lease { stream, log_id, .. } = lease;
                (stream, log_id, lease.data_version, lease.page1, false)
            }
            Ground::Kept(kept) => {
                let Kept { stream, log_id, .. } = kept;
                (stream, log_id, kept.data_version, kept.fresh, true)
            }
        };
        let (before, after) = transaction.sizes();
        let mut pages = transaction.pages().to_vec();
        let mut program = Program::new(&self.http, stream);
        if begins {
            program.steps.begin();
            program.special.guard = Some(program.steps.guard_version(version));
        }
        if after == before {
            program.steps.guard_size(after);
        }
        program.prove(transaction.proofs());
        if after != before {
            let base = base.as_ref().ok_or_else(no_page1)?;
            let growth = program
                .steps
                .grow(&base.page, before, after, &unused_name());
            program.special.growth = Some(growth);
            pages.extend(transaction.schema_edge()?);
            pages.push(1);
            pages.sort_unstable();
            pages.dedup();
        }
        program.write(transaction, &pages)?;
        // The connection there has parsed pages that are other ones now.
        let keep = keep && after == before && !transaction.changes_schema();
        let has_page1 = pages.first() == Some(&1);
        let question = match has_page1 && base.is_none() {
            true => stmt(
                "SELECT data FROM sqlite_dbpage WHERE pgno=1",
                Vec::new(),
                true,
            ),
            false => log_end(),
        };
        let done = program.commit(keep, vec![question])?;
        let page1 = match (has_page1, base) {
            (false, _) => None,
            (true, None) => done
                .told
                .first()
                .and_then(|told| first_page(told.as_ref()?)),
            (true, Some(base)) => {
                let mut image = Box::new([0; PAGE_SIZE]);
                transaction.page(1, &mut image)?;
                Some(stamped(&image, &base.page, base.version))
            }
        };
        Ok(Shipped::of(done, pages, page1, log_id, version))
    }
}

fn no_page1() -> Error {
    Error::Internal("a primary without page 1, or one that has changed".into())
}

impl Program<'_> {
    /// Adds the steps that write `pages`.
    fn write(
        &mut self,
        transaction: &dyn Transaction,
        pages: &[u32],
    ) -> std::result::Result<(), NotShipped> {
        // Page 1 last: with it the schema may change, and the connection there
        // must not look at it again before the commit.
        let (first, rest) = match pages.split_first() {
            Some((1, rest)) => (Some(1), rest),
            _ => (None, pages),
        };
        let mut page = Box::new([0; PAGE_SIZE]);
        let mut count = 0;
        for &pgno in rest.iter().chain(&first) {
            if count == REQUEST_PAGES {
                self.send_part()?;
                count = 0;
            }
            transaction.page(pgno, &mut page)?;
            self.steps.page(pgno, &page);
            count += 1;
        }
        Ok(())
    }
}
