//! Writing at a libSQL primary: its write lock, a transaction's pages, and
//! what became of a commit whose answer was lost.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::hrana::{Failure, Stream, batch, close, execute, executed, pipeline, ran, stmt};
use super::hrana_wire::{Empty, Row, SqlError, Stmt, StmtResult, Value, ValueKind};
use super::http::Http;
use super::pages::{Steps, blob, integer, stamped};
use super::program::{Done, Program, first_failure};
use super::wal_log::WalLog;
use super::{Head, Remote};
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::ffi::{api, thread};
use crate::wal::{PAGE_SIZE, Page};

/// Pages of one request.
const REQUEST_PAGES: usize = 4096;
/// A stream that nobody used for so long may be gone (the primary ends it after 10 s).
const STREAM_LIFE: Duration = Duration::from_secs(8);

/// A local transaction on its way to the primary.
pub trait Transaction {
    /// Size in pages before and after.
    fn sizes(&self) -> (u32, u32);
    /// The pages that differ, ascending; all that were added among them.
    fn pages(&self) -> &[u32];
    /// The pages of sqlite_schema that a new object at its end may touch.
    fn schema_edge(&self) -> Result<Vec<u32>>;
    /// Whether the schema is another one afterwards.
    fn changes_schema(&self) -> bool;
    /// Statements that prove, run at the primary and undone, that it understands the new schema.
    fn proofs(&self) -> &[String];
    /// A page as it is after the transaction.
    fn page(&self, pgno: u32, page: &mut Page) -> Result<()>;
}

/// The primary's write lock: an open transaction on a stream.
pub struct Lease {
    pub(super) stream: Stream,
    /// The end of the primary's log, exact for as long as the lock is held.
    pub log_id: String,
    pub frame_no: Option<u64>,
    page1: Option<Box<Page>>,
    version: u32,
    pub(super) data_version: i64,
    /// Commits upon it go as rows: it is to be so, or there is no other way.
    rows: bool,
}

/// A stream that may ship the next transaction in one request, as long as
/// nobody else has committed.
pub struct Kept {
    pub(super) stream: Stream,
    pub log_id: String,
    pub frame_no: Option<u64>,
    pub(super) data_version: i64,
    pub(super) used: Instant,
    /// It has shipped rows, and can ship no pages: its connection has parsed some.
    pub(super) rows: bool,
}

impl Kept {
    pub fn is_fresh(&self) -> bool {
        self.used.elapsed() < STREAM_LIFE
    }

    pub fn is_for_rows(&self) -> bool {
        self.rows
    }
}

/// A transaction that the primary has committed.
pub struct Shipped {
    /// The end of the log when the primary was asked after its commit.
    pub index: Option<u64>,
    /// The pages written there, ascending.
    pub written: Vec<u32>,
    /// Page 1 as the primary has it, if it was written and this is known.
    pub page1: Option<Box<Page>>,
    pub kept: Option<Kept>,
}

impl Shipped {
    fn of(
        done: Done,
        written: Vec<u32>,
        page1: Option<Box<Page>>,
        log_id: String,
        data_version: i64,
    ) -> Shipped {
        Shipped {
            index: done.index,
            written,
            page1,
            kept: done.stream.map(|stream| Kept {
                stream,
                log_id,
                frame_no: done.index,
                data_version,
                used: Instant::now(),
                rows: false,
            }),
        }
    }
}

/// A question whose answer has the log's end.
pub fn log_end() -> Stmt {
    stmt("SELECT 1", Vec::new(), true)
}

/// Why a transaction was not committed, or is not known to be.
pub enum NotShipped {
    /// It is not committed, and will not be.
    Refused(Error),
    /// The primary took the lock back; nothing was written.
    LeaseLost,
    /// Somebody else has committed since.
    Moved,
    /// The primary's allocator cannot add as few pages as are needed.
    Overgrown,
    /// No answer to the commit. The stream is what is known of it.
    Unknown(Error, Stream),
}

impl From<Error> for NotShipped {
    fn from(e: Error) -> NotShipped {
        NotShipped::Refused(e)
    }
}

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
        let (sender, receiver) = channel();
        let http = self.http.clone();
        thread::spawn("libreplica-lock", move || {
            let begun = begin(&http, path);
            // Nobody waits any more: the lock goes back at once.
            if let Err(unwanted) = sender.send(begun)
                && let Ok(lease) = unwanted.0
            {
                lease.release(&http);
            }
        })
        .map_err(|e| Error::Internal(format!("cannot start a thread: {e}")))?;
        if self.http.confirmed().is_none() {
            // At the same time, on another connection.
            self.hello()?;
        }
        let mut patience = self.http.round_trip() * 4 + Duration::from_millis(100);
        let begun = loop {
            match receiver.recv_timeout(patience) {
                Ok(begun) => break begun,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Internal("the lock thread ended".into()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            patience = Duration::from_millis(1);
            if !wait() {
                drop(receiver);
                // Held by somebody, or nobody is there?
                self.hello()?;
                return Err(Error::Busy(
                    "the primary's write lock is held by another writer".into(),
                ));
            }
        };
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

    /// Ships a transaction under the lock. `keep`: the stream stays open for the next one.
    pub fn ship(
        &self,
        lease: Lease,
        transaction: &dyn Transaction,
        keep: bool,
    ) -> std::result::Result<Shipped, NotShipped> {
        let base = lease.page1.as_ref();
        let base = base.ok_or_else(|| Error::Internal("a lock upon an empty primary".into()))?;
        let (before, after) = transaction.sizes();
        let mut pages = transaction.pages().to_vec();
        let mut program = Program::new(&self.http, lease.stream);
        if after == before {
            program.steps.guard_size(after);
        }
        program.prove(transaction.proofs());
        if after != before {
            let growth = program.steps.grow(base, before, after, &unused_name());
            program.special.growth = Some(growth);
            pages.extend(transaction.schema_edge()?);
            pages.push(1);
            pages.sort_unstable();
            pages.dedup();
        }
        // The connection there has parsed pages that are other ones now.
        let keep = keep && after == before && !transaction.changes_schema();
        program.write(transaction, &pages)?;
        let done = program.commit(keep, vec![log_end()])?;
        let page1 = match pages.first() {
            Some(1) => {
                let mut image = Box::new([0; PAGE_SIZE]);
                transaction.page(1, &mut image)?;
                Some(stamped(&image, base, lease.version))
            }
            _ => None,
        };
        let (log_id, data_version) = (lease.log_id, lease.data_version);
        Ok(Shipped::of(done, pages, page1, log_id, data_version))
    }

    /// Ships a transaction that changes neither size nor schema, without a
    /// lock taken before: in one request, if nobody else has committed since.
    pub fn ship_kept(
        &self,
        kept: Kept,
        transaction: &dyn Transaction,
    ) -> std::result::Result<Shipped, NotShipped> {
        let pages = transaction.pages().to_vec();
        let mut program = Program::new(&self.http, kept.stream);
        program.steps.begin();
        program.special.guard = Some(program.steps.guard_version(kept.data_version));
        program.steps.guard_size(transaction.sizes().1);
        program.write(transaction, &pages)?;
        let read = pages.first() == Some(&1);
        let question = match read {
            true => stmt(
                "SELECT data FROM sqlite_dbpage WHERE pgno=1",
                Vec::new(),
                true,
            ),
            false => log_end(),
        };
        let done = program.commit(true, vec![question])?;
        let told = done.told.first().filter(|_| read);
        let page1 = told.and_then(|told| first_page(told.as_ref()?));
        Ok(Shipped::of(
            done,
            pages,
            page1,
            kept.log_id,
            kept.data_version,
        ))
    }
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

/// A value bound to a statement.
#[derive(Clone)]
pub struct Argument(pub(super) Value);

impl Argument {
    pub fn null() -> Argument {
        Argument(ValueKind::Null(Empty {}).into())
    }
    pub fn integer(n: i64) -> Argument {
        Argument(integer(n))
    }
    pub fn float(n: f64) -> Argument {
        Argument(ValueKind::Float(n).into())
    }
    pub fn text(text: &str) -> Argument {
        Argument(ValueKind::Text(text.into()).into())
    }
    pub fn blob(bytes: &[u8]) -> Argument {
        Argument(blob(bytes))
    }
}

/// What a statement gave at the primary.
pub struct Answer(StmtResult);

impl Answer {
    pub fn columns(&self) -> Vec<&str> {
        let names = self.0.cols.iter().map(|col| col.name.as_deref());
        names.map(Option::unwrap_or_default).collect()
    }

    pub fn rows(&self) -> Vec<Vec<Json>> {
        let row = |row: &Row| row.values.iter().map(to_json).collect();
        self.0.rows.iter().map(row).collect()
    }

    pub fn affected_rows(&self) -> u64 {
        self.0.affected_row_count
    }

    pub fn last_insert_rowid(&self) -> Option<i64> {
        self.0.last_insert_rowid
    }
}

fn to_json(value: &Value) -> Json {
    match &value.kind {
        None | Some(ValueKind::Null(_)) => Json::Null,
        Some(ValueKind::Integer(n)) => (*n).into(),
        Some(ValueKind::Float(n)) => (*n).into(),
        Some(ValueKind::Text(bytes)) => String::from_utf8_lossy(bytes).into(),
        Some(ValueKind::Blob(bytes)) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

impl Lease {
    pub(super) fn release(mut self, http: &Arc<Http>) {
        // What is not closed ends by itself.
        let _ = pipeline(http, &mut self.stream, vec![close()]);
    }

    /// Nothing has ever been committed at the primary.
    pub fn is_empty(&self) -> bool {
        self.frame_no.is_none()
    }

    /// Commits go as rows.
    pub fn is_for_rows(&self) -> bool {
        self.rows
    }

    /// Whether its page 1 is this one.
    pub fn has_page1(&self, page: &Page) -> bool {
        self.page1.as_deref() == Some(page)
    }
}

/// BEGIN IMMEDIATE on a stream of its own, and what a writer has to know.
fn begin(http: &Arc<Http>, path: WritePath) -> Result<Lease> {
    let mut stream = Stream::default();
    let ask = |sql: &str| execute(stmt(sql, Vec::new(), true));
    let mut requests = vec![
        ask("BEGIN IMMEDIATE"),
        ask("SELECT data_version FROM pragma_data_version"),
    ];
    if path != WritePath::Rows {
        requests.push(ask(
            "SELECT data, sqlite_version() FROM sqlite_dbpage WHERE pgno=1",
        ));
    }
    if path != WritePath::Pages {
        // What cascades do is among the rows. It has no effect within a transaction.
        requests.insert(0, ask("PRAGMA foreign_keys=off"));
    }
    let results = pipeline(http, &mut stream, requests).map_err(Failure::into_error)?;
    let mut results = results.into_iter();
    let unbound = match path {
        WritePath::Pages => None,
        _ => executed(results.next())?.err(),
    };
    let begun = executed(results.next())?;
    let version = executed(results.next())?;
    let mut lease = Lease::unusable(stream);
    match begun {
        Ok(begun) => lease.frame_no = begun.replication_index,
        Err(error) => {
            lease.release(http);
            return Err(error.into_error());
        }
    }
    let usable = (|| {
        let version = version.map_err(SqlError::into_error)?;
        lease.data_version = data_version(Some(&version)).ok_or_else(garbled)?;
        lease.rows = match path {
            WritePath::Rows => true,
            _ => lease.take_page1(executed(results.next())?, path)?,
        };
        match unbound.filter(|_| lease.rows) {
            Some(error) => Err(error.into_error()),
            None => Ok(()),
        }
    })();
    match usable {
        Ok(()) => Ok(lease),
        Err(e) => {
            lease.release(http);
            Err(e)
        }
    }
}

/// The answer to a question for the data version.
pub(super) fn data_version(told: Option<&StmtResult>) -> Option<i64> {
    match told?.rows.first()?.values.first()?.kind {
        Some(ValueKind::Integer(n)) => Some(n),
        _ => None,
    }
}

impl Lease {
    /// Takes in page 1; true if the primary has no pages to give, and needs none.
    fn take_page1(
        &mut self,
        page: std::result::Result<StmtResult, SqlError>,
        path: WritePath,
    ) -> Result<bool> {
        let page = match page {
            Ok(page) => page,
            Err(error) if path == WritePath::Auto && lacks_dbpage(&error) => return Ok(true),
            Err(error) => return Err(no_dbpage(&error)),
        };
        self.page1 = first_page(&page);
        if self.page1.is_some() {
            self.version = text(&page, 1)
                .and_then(|v| version_number(&v))
                .ok_or_else(garbled)?;
        }
        Ok(false)
    }
}

impl Lease {
    fn unusable(stream: Stream) -> Lease {
        Lease {
            stream,
            log_id: String::new(),
            frame_no: None,
            page1: None,
            version: 0,
            data_version: 0,
            rows: false,
        }
    }
}

fn lacks_dbpage(error: &SqlError) -> bool {
    error.message.contains("no such table")
}

fn no_dbpage(error: &SqlError) -> Error {
    if lacks_dbpage(error) {
        return Error::ReadOnly(
            "this primary takes no pages (it was built without sqlite_dbpage), so commits cannot be shipped to it with write_path=pages; auto or rows can, and replica_exec works".into(),
        );
    }
    error.clone().into_error()
}

fn garbled() -> Error {
    Error::Protocol("Hrana: an answer of another shape than asked for".into())
}

/// `3.45.1` as SQLITE_VERSION_NUMBER.
fn version_number(text: &str) -> Option<u32> {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
    Some(major * 1_000_000 + minor * 1_000 + patch)
}

fn first_page(result: &StmtResult) -> Option<Box<Page>> {
    match &result.rows.first()?.values.first()?.kind {
        Some(ValueKind::Blob(bytes)) => Some(Box::new(bytes[..].try_into().ok()?)),
        _ => None,
    }
}

fn text(result: &StmtResult, column: usize) -> Option<String> {
    match &result.rows.first()?.values.get(column)?.kind {
        Some(ValueKind::Text(bytes)) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

/// A name that no object has.
fn unused_name() -> String {
    let hex: String = api::random::<6>()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("lr{hex}_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version_number("3.45.1"), Some(3_045_001));
        assert_eq!(version_number("3.45"), None);
        assert_eq!(version_number("x.y.z"), None);
    }
}
