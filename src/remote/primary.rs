//! Writing at a libSQL primary: its write lock, a transaction's pages, and
//! what became of a commit whose answer was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value as Json;

use super::hrana::{Failure, Stream, batch, close, execute, executed, pipeline, ran, stmt};
use super::hrana_wire::{BatchResult, Empty, Row, SqlError, StmtResult, Value, ValueKind};
use super::http::Http;
use super::mailbox::Mailbox;
use super::pages::{Steps, blob, integer, stamped};
use super::wal_log::WalLog;
use super::{Head, PageSink, Position, Pull, Remote};
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
    stream: Stream,
    /// The end of the primary's log, exact for as long as the lock is held.
    pub log_id: String,
    pub frame_no: Option<u64>,
    page1: Option<Box<Page>>,
    version: u32,
    data_version: i64,
}

/// A stream that may ship the next transaction in one request, as long as
/// nobody else has committed.
pub struct Kept {
    stream: Stream,
    pub log_id: String,
    pub frame_no: Option<u64>,
    data_version: i64,
    used: Instant,
}

impl Kept {
    pub fn is_fresh(&self) -> bool {
        self.used.elapsed() < STREAM_LIFE
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
    http: Arc<Http>,
    log: Mutex<WalLog>,
}

impl Primary {
    pub fn new(http: Arc<Http>, log: WalLog) -> Primary {
        let log = Mutex::new(log);
        Primary { http, log }
    }

    fn hello(&self) -> Result<Head> {
        self.log.lock().hello()
    }

    /// Takes the write lock. While somebody else has it, `wait` is asked again
    /// and again whether to go on.
    pub fn lock(&self, wait: &mut dyn FnMut() -> bool) -> Result<Lease> {
        let (mailbox, http) = (Mailbox::default(), self.http.clone());
        let sender = mailbox.clone();
        thread::spawn("libreplica-lock", move || {
            // Nobody waits any more: the lock goes back at once.
            if let Some(Ok(lease)) = sender.put(begin(&http)) {
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
        let mut program = Program::new(&self.http, lease.stream, transaction);
        if after == before {
            program.steps.guard_size(after);
        }
        program.prove();
        if after != before {
            program.grow(base);
            pages.extend(transaction.schema_edge()?);
            pages.push(1);
            pages.sort_unstable();
            pages.dedup();
        }
        // The connection there has parsed pages that are other ones now.
        let keep = keep && after == before && !transaction.changes_schema();
        let done = program.run(&pages, keep, false)?;
        let page1 = match pages.first() {
            Some(1) => {
                let mut image = Box::new([0; PAGE_SIZE]);
                transaction.page(1, &mut image)?;
                Some(stamped(&image, base, lease.version))
            }
            _ => None,
        };
        Ok(Shipped {
            index: done.index,
            written: pages,
            page1,
            kept: done.stream.map(|stream| Kept {
                stream,
                log_id: lease.log_id,
                frame_no: done.index,
                data_version: lease.data_version,
                used: Instant::now(),
            }),
        })
    }

    /// Ships a transaction that changes neither size nor schema, without a
    /// lock taken before: in one request, if nobody else has committed since.
    pub fn ship_kept(
        &self,
        kept: Kept,
        transaction: &dyn Transaction,
    ) -> std::result::Result<Shipped, NotShipped> {
        let pages = transaction.pages().to_vec();
        let mut program = Program::new(&self.http, kept.stream, transaction);
        program.steps.begin();
        program.guard = Some(program.steps.guard_version(kept.data_version));
        program.steps.guard_size(transaction.sizes().1);
        let done = program.run(&pages, true, pages.first() == Some(&1))?;
        Ok(Shipped {
            index: done.index,
            written: pages,
            page1: done.page1,
            kept: done.stream.map(|stream| Kept {
                stream,
                log_id: kept.log_id,
                frame_no: done.index,
                data_version: kept.data_version,
                used: Instant::now(),
            }),
        })
    }

    /// What became of a commit whose answer was lost: true if it is in the
    /// log as the first transaction after `base`. Before it is looked up, it
    /// is made sure that the request cannot be run later.
    pub fn outcome(
        &self,
        mut stream: Stream,
        base: &Position,
        is_ours: &dyn Fn(&FirstCommit) -> bool,
        deadline: Instant,
    ) -> Result<bool> {
        let mut pause = Duration::from_millis(20);
        let mut closed = false;
        loop {
            let known = self.try_outcome(&mut stream, &mut closed, base, is_ours);
            match known {
                Err(Error::Unreachable(_) | Error::Busy(_))
                    if Instant::now() + pause < deadline =>
                {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                known => return known,
            }
        }
    }

    fn try_outcome(
        &self,
        stream: &mut Stream,
        closed: &mut bool,
        base: &Position,
        is_ours: &dyn Fn(&FirstCommit) -> bool,
    ) -> Result<bool> {
        if !*closed {
            // A baton counts once: either this closes the stream, and the lost
            // request finds it closed, or the request has been there.
            match pipeline(&self.http, stream, vec![close()]) {
                Ok(_) | Err(Failure::Gone(_)) => *closed = true,
                Err(failure) => return Err(failure.into_error()),
            }
        }
        // Under the lock nothing is under way any more.
        let lease = self.lock(&mut || true)?;
        let head = Head {
            log_id: lease.log_id.clone(),
            frame_no: lease.frame_no,
        };
        let found = self.first_commit(base, &head);
        self.give_back(lease);
        Ok(found?.is_some_and(|first| is_ours(&first)))
    }

    /// The first transaction after `base` in the log, if there is one.
    fn first_commit(&self, base: &Position, head: &Head) -> Result<Option<FirstCommit>> {
        let mut log = self.log.lock();
        if log.hello()?.log_id != head.log_id {
            return Err(Error::Unreachable(
                "the primary's history changed meanwhile".into(),
            ));
        }
        let mut first = FirstCommit::default();
        match log.pull(base, head, &mut first) {
            // It wants no more than the first.
            Ok(Pull::Reached(_)) => Ok(Some(first)),
            Err(_) if first.whole => Ok(Some(first)),
            Ok(Pull::UpToDate) => Ok(None),
            Ok(Pull::Diverged(why)) => Err(Error::Diverged(why)),
            Err(e) => Err(e),
        }
    }
}

/// A transaction's pages as the log has them, each in its last version.
#[derive(Default)]
pub struct FirstCommit {
    pub pages: std::collections::BTreeMap<u32, Box<Page>>,
    whole: bool,
}

impl PageSink for FirstCommit {
    fn page(&mut self, pgno: u32, page: &Page) -> Result<()> {
        if self.whole {
            return Err(Error::Internal("no more is wanted".into()));
        }
        self.pages.insert(pgno, Box::new(*page));
        Ok(())
    }

    fn committed(&mut self) {
        self.whole = true;
    }

    fn compacted(&mut self) -> Result<()> {
        // What the next commit was is not told any more.
        Err(Error::Protocol(
            "the primary has compacted its log meanwhile".into(),
        ))
    }
}

/// A transaction's steps on their way, request by request.
struct Program<'a> {
    http: &'a Arc<Http>,
    stream: Stream,
    transaction: &'a dyn Transaction,
    steps: Steps,
    /// Steps of the first request with a meaning of their own when they fail.
    proofs: std::ops::Range<u32>,
    growth: Option<u32>,
    guard: Option<u32>,
}

struct Done {
    index: Option<u64>,
    page1: Option<Box<Page>>,
    stream: Option<Stream>,
}

impl<'a> Program<'a> {
    fn new(http: &'a Arc<Http>, stream: Stream, transaction: &'a dyn Transaction) -> Self {
        Program {
            http,
            stream,
            transaction,
            steps: Steps::default(),
            proofs: 0..0,
            growth: None,
            guard: None,
        }
    }

    /// A schema that the primary cannot parse would break it for everybody.
    fn prove(&mut self) {
        let proofs = self.transaction.proofs();
        if proofs.is_empty() {
            return;
        }
        let first = self.steps.add("SAVEPOINT libreplica_proof", Vec::new());
        for sql in proofs {
            self.steps.add(sql.as_str(), Vec::new());
        }
        self.steps.add("ROLLBACK TO libreplica_proof", Vec::new());
        self.steps.add("RELEASE libreplica_proof", Vec::new());
        self.proofs = first..self.steps.len();
    }

    fn grow(&mut self, page1: &Page) {
        let (before, after) = self.transaction.sizes();
        self.growth = Some(self.steps.grow(page1, before, after, &unused_name()));
    }

    /// Writes `pages` and commits. `read`: asks for page 1 as it then is.
    fn run(
        mut self,
        pages: &[u32],
        keep: bool,
        read: bool,
    ) -> std::result::Result<Done, NotShipped> {
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
            self.transaction.page(pgno, &mut page)?;
            self.steps.page(pgno, &page);
            count += 1;
        }
        self.commit(keep, read)
    }

    /// A request with more to follow.
    fn send_part(&mut self) -> std::result::Result<(), NotShipped> {
        let steps = std::mem::take(&mut self.steps);
        let count = steps.len();
        let requests = vec![batch(steps.into_batch())];
        let results = match pipeline(self.http, &mut self.stream, requests) {
            Ok(results) => results,
            Err(Failure::Gone(_)) => return Err(NotShipped::LeaseLost),
            // COMMIT is still to come, so whatever ran will be undone.
            Err(failure) => {
                self.drop_stream();
                return Err(NotShipped::Refused(failure.into_error()));
            }
        };
        let failed = self.failure(results.into_iter().next(), count);
        (self.proofs, self.growth, self.guard) = (0..0, None, None);
        failed.map_or(Ok(()), |(_, failed)| {
            self.drop_stream();
            Err(failed)
        })
    }

    fn commit(mut self, keep: bool, read: bool) -> std::result::Result<Done, NotShipped> {
        let commit = self.steps.add("COMMIT", Vec::new());
        let count = self.steps.len();
        let mut requests = vec![
            batch(std::mem::take(&mut self.steps).with_rollback()),
            // Its result has the log's end.
            execute(match read {
                true => stmt(
                    "SELECT data FROM sqlite_dbpage WHERE pgno=1",
                    Vec::new(),
                    true,
                ),
                false => stmt("SELECT 1", Vec::new(), true),
            }),
        ];
        if !keep {
            requests.push(close());
        }
        let results = match pipeline(self.http, &mut self.stream, requests) {
            Ok(results) => results,
            Err(Failure::Gone(_)) => return Err(NotShipped::LeaseLost),
            Err(Failure::Refused(e)) => return Err(NotShipped::Refused(e)),
            Err(Failure::Lost(e)) => return Err(NotShipped::Unknown(e, self.stream)),
        };
        let mut results = results.into_iter();
        match self.failure(results.next(), count) {
            Some((step, NotShipped::Refused(e))) if step == commit => {
                return Err(NotShipped::Unknown(e, self.stream));
            }
            Some((_, failed)) => {
                self.drop_stream();
                return Err(failed);
            }
            None => {}
        }
        // It is committed; what the second result says is not needed for that.
        let told = executed(results.next()).ok().and_then(|told| told.ok());
        Ok(Done {
            index: told.as_ref().and_then(|told| told.replication_index),
            page1: told.filter(|_| read).and_then(|told| first_page(&told)),
            stream: keep.then_some(self.stream),
        })
    }

    /// The first step of `count` that has no result, and what that means.
    fn failure(
        &self,
        result: Option<super::hrana_wire::StreamResult>,
        count: u32,
    ) -> Option<(u32, NotShipped)> {
        let result = match ran(result) {
            Ok(Ok(result)) => result,
            Ok(Err(error)) if error.code == "TRANSACTION_TIMEOUT" => {
                return Some((0, NotShipped::LeaseLost));
            }
            Ok(Err(error)) => return Some((0, NotShipped::Refused(error.into_error()))),
            Err(e) => return Some((0, NotShipped::Refused(e))),
        };
        let (step, error) = first_failure(&result, count)?;
        let why = match error {
            None => NotShipped::LeaseLost,
            Some(error) if error.code == "TRANSACTION_TIMEOUT" => NotShipped::LeaseLost,
            Some(_) if self.guard == Some(step) => NotShipped::Moved,
            Some(_) if self.growth == Some(step) => NotShipped::Overgrown,
            Some(error) if self.proofs.contains(&step) => {
                NotShipped::Refused(Error::ReadOnly(format!(
                    "the primary does not understand the new schema: {} ({}); what it does understand can be run there with replica_exec",
                    error.message, error.code
                )))
            }
            Some(error) => NotShipped::Refused(error.into_error()),
        };
        Some((step, why))
    }

    fn drop_stream(&mut self) {
        close_soon(self.http, std::mem::take(&mut self.stream));
    }
}

/// Ends a stream without waiting for that. The primary has few of them, and
/// would end this one only after 10 s.
fn close_soon(http: &Arc<Http>, mut stream: Stream) {
    let http = http.clone();
    let _ = thread::spawn("libreplica-unlock", move || {
        let _ = pipeline(&http, &mut stream, vec![close()]);
    });
}

/// A value bound to a statement.
pub struct Argument(Value);

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
    fn release(mut self, http: &Arc<Http>) {
        // What is not closed ends by itself.
        let _ = pipeline(http, &mut self.stream, vec![close()]);
    }

    /// Nothing has ever been committed at the primary.
    pub fn is_empty(&self) -> bool {
        self.frame_no.is_none()
    }

    /// Whether its page 1 is this one.
    pub fn has_page1(&self, page: &Page) -> bool {
        self.page1.as_deref() == Some(page)
    }
}

/// BEGIN IMMEDIATE on a stream of its own, and what a writer has to know.
fn begin(http: &Arc<Http>) -> Result<Lease> {
    let mut stream = Stream::default();
    let requests = vec![
        execute(stmt("BEGIN IMMEDIATE", Vec::new(), false)),
        execute(stmt(
            "SELECT data, sqlite_version() FROM sqlite_dbpage WHERE pgno=1",
            Vec::new(),
            true,
        )),
        execute(stmt(
            "SELECT data_version FROM pragma_data_version",
            Vec::new(),
            true,
        )),
    ];
    let results = pipeline(http, &mut stream, requests).map_err(Failure::into_error)?;
    let mut results = results.into_iter();
    let begun = executed(results.next())?;
    let page = executed(results.next())?;
    let version = executed(results.next())?;
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let lease = Lease::unusable(stream);
            lease.release(http);
            return Err(error.into_error());
        }
    };
    let mut lease = Lease::unusable(stream);
    lease.frame_no = begun.replication_index;
    let usable = (|| {
        let page = page.map_err(|error| no_dbpage(&error))?;
        let version = version.map_err(SqlError::into_error)?;
        lease.page1 = first_page(&page);
        if lease.page1.is_some() {
            lease.version = text(&page, 1)
                .and_then(|v| version_number(&v))
                .ok_or_else(garbled)?;
        }
        lease.data_version = match version.rows.first().and_then(|r| r.values.first()) {
            Some(Value {
                kind: Some(ValueKind::Integer(n)),
            }) => *n,
            _ => return Err(garbled()),
        };
        Ok(())
    })();
    match usable {
        Ok(()) => Ok(lease),
        Err(e) => {
            lease.release(http);
            Err(e)
        }
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
        }
    }
}

fn no_dbpage(error: &SqlError) -> Error {
    if error.message.contains("no such table") {
        return Error::ReadOnly(
            "this primary takes no pages (it was built without sqlite_dbpage), so commits cannot be shipped to it; replica_exec works".into(),
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

/// The first of `count` steps without a result, and its error if it was run.
fn first_failure(result: &BatchResult, count: u32) -> Option<(u32, Option<SqlError>)> {
    (0..count)
        .find(|step| !result.results.contains_key(step))
        .map(|step| (step, result.errors.get(&step).cloned()))
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

    #[test]
    fn the_first_step_without_a_result_counts() {
        let mut result = BatchResult::default();
        result.results.insert(0, StmtResult::default());
        result.results.insert(2, StmtResult::default());
        assert_eq!(first_failure(&result, 3), Some((1, None)));
        let error = SqlError {
            message: "m".into(),
            code: "c".into(),
        };
        result.errors.insert(1, error.clone());
        assert_eq!(first_failure(&result, 3), Some((1, Some(error))));
        assert_eq!(first_failure(&result, 1), None);
    }
}
