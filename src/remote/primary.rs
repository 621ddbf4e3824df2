//! Writing at a libSQL primary: its write lock, and a transaction's pages.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::answer::NoAnswer;
use super::hrana::{Failure, Stream, batch, close, execute, executed, ran, stmt};
use super::hrana_wire::SqlError;
use super::http::Http;
use super::lease::{CLOCK, Ground, Kept, Lease, begin, first_page};
use super::mailbox::Mailbox;
use super::pages::{Steps, moves_pages, stamped, unused_name, without_stamp};
use super::program::{Done, Program, first_failure, log_end};
use super::transaction::{NotShipped, Shipped, Transaction};
use super::values::{Answer, Argument};
use super::wal_log::WalLog;
use super::{Head, Remote};
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::ffi::{attention, thread};
use crate::wal::PAGE_SIZE;

/// Pages that are cheaply taken and given back again: one throw-away table has them.
const SMALL_GROWTH: u32 = 1024;

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
            // Where nobody waits any more the lock goes back at once.
            drop(sender.put(begin(&http, path)));
        })?;
        let begun = self.await_lock(&mailbox, wait);
        drop(mailbox.close());
        let mut lease = begun?;
        lease.log_id = match self.http.confirmed() {
            Some(log_id) => log_id,
            None => self.hello()?.log_id,
        };
        Ok(lease)
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
        let mut patience = self.http.round_trip() * 4 + Duration::from_millis(100);
        loop {
            if let Some(begun) = attention::wait(patience, |step| mailbox.take(step))? {
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
        drop(kept);
    }

    /// The log, as a sync reads it.
    pub fn log(&self) -> MutexGuard<'_, WalLog> {
        self.log.lock()
    }

    /// Gives a lock back, without waiting for the primary's answer.
    pub fn give_back(&self, lease: Lease) {
        drop(lease);
    }

    /// Gives an empty primary its first pages, so that it is one like any other.
    pub fn initialize(&self, lease: Lease) -> Result<()> {
        let Lease { mut stream, .. } = lease;
        let name = unused_name();
        let mut steps = Steps::default();
        steps.add(format!("CREATE TABLE {name}(x)"), Vec::new());
        steps.add(format!("DROP TABLE {name}"), Vec::new());
        let commit = steps.add("COMMIT", Vec::new());
        let requests = vec![batch(steps.batch(0..steps.len(), false)), close()];
        let results = stream.ask(requests).map_err(Failure::into_error)?;
        let result = ran(results.into_iter().next())?.map_err(SqlError::into_error)?;
        match first_failure(&result, commit + 1) {
            None => Ok(()),
            Some((_, Some(error))) => Err(error.into_error()),
            Some((_, None)) => Err(Error::Busy("the primary took its write lock back".into())),
        }
    }

    /// Runs one statement at the primary, in a transaction of its own.
    pub fn execute(&self, sql: &str, args: Vec<Argument>) -> Result<Answer> {
        let mut stream = Stream::new(&self.http);
        let args = args.into_iter().map(|argument| argument.0).collect();
        let requests = vec![execute(stmt(sql, args, true)), close()];
        let results = stream.ask(requests).map_err(|failure| match failure {
            Failure::Lost(NoAnswer {
                error: Error::Interrupted,
                ..
            }) => Error::Statement {
                message: "interrupted; whether the primary has run the statement is unknown".into(),
                code: libsqlite3_sys::SQLITE_INTERRUPT,
            },
            Failure::Lost(lost) => Error::Unknown(format!(
                "whether the primary has run the statement is unknown: {}",
                lost.error
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
        let (stream, log_id, version, stamp, begins) = match ground {
            Ground::Lease(lease) => {
                let stamp = Some(lease.version);
                (lease.stream, lease.log_id, lease.data_version, stamp, false)
            }
            Ground::Kept(kept) => (kept.stream, kept.log_id, kept.data_version, None, true),
        };
        let (before, after) = transaction.sizes();
        let mut program = Program::new(&self.http.requests, stream);
        if begins {
            program.steps.begin();
            program.special.guard = Some(program.steps.guard_version(version));
        }
        let mut base = Box::new([0; PAGE_SIZE]);
        transaction.base_page(1, &mut base)?;
        program.prove(transaction.proofs(), Some(&base));
        let mut pages = transaction.pages().to_vec();
        // What a connection has parsed must not become something else.
        let mut keep = keep && !transaction.changes_schema();
        if after == before {
            program.steps.guard_size(after);
        } else {
            if moves_pages(&base) {
                return Err(Error::ReadOnly(
                    "the primary's database has auto_vacuum on, so none can be added to it as pages; write_path=auto or rows can".into(),
                ).into());
            }
            keep &= can_tidy(transaction)?;
            let growth = program
                .steps
                .grow(&base, before, after, &unused_name(), keep);
            program.special.growth = Some(growth);
            pages.extend(transaction.schema_edge()?);
            pages.push(1);
            pages.sort_unstable();
            pages.dedup();
        }
        program.write(transaction, &pages)?;
        let image = match pages.first() {
            Some(1) => {
                let mut image = Box::new([0; PAGE_SIZE]);
                transaction.page(1, &mut image)?;
                Some(image)
            }
            _ => None,
        };
        let question = match image.is_some() && stamp.is_none() {
            true => {
                let sql = format!("SELECT data, {CLOCK} FROM sqlite_dbpage WHERE pgno=1");
                stmt(sql, Vec::new(), true)
            }
            false => log_end(),
        };
        let done = program.commit(keep, vec![question])?;
        let page1 = image.and_then(|image| match stamp {
            Some(version) => Some(stamped(&image, &base, version)),
            // Unless it is somebody else's by now.
            None => (done.told.first())
                .and_then(|told| first_page(told.as_ref()?))
                .filter(|told| without_stamp(told) == without_stamp(&image)),
        });
        let Done {
            index,
            clock,
            stream,
            ..
        } = done;
        Ok(Shipped {
            index,
            written: pages,
            page1,
            kept: stream.map(|stream| Kept::new(stream, log_id, index, version, clock, false)),
        })
    }
}

/// Whether a transaction can add its pages on a connection that has shipped
/// pages, and will.
pub fn can_tidy(transaction: &dyn Transaction) -> Result<bool> {
    let (before, after) = transaction.sizes();
    Ok(after - before <= SMALL_GROWTH && transaction.schema_has_room()?)
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
        for &pgno in rest.iter().chain(&first) {
            self.send_full()?;
            transaction.page(pgno, &mut page)?;
            self.steps.page(pgno, &page);
        }
        Ok(())
    }
}
