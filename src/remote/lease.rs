//! The primary's write lock, and streams kept for the next transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hrana::{Failure, Stream, execute, executed, stmt};
use super::hrana_wire::{SqlError, StmtResult, Value, ValueKind};
use super::http::Http;
use super::pages::moves_pages;
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::wal::Page;

/// A stream that nobody used for so long may be gone (the primary ends it after 10 s).
const STREAM_LIFE: Duration = Duration::from_secs(8);

/// The primary's clock, in ms since 1970.
pub(super) const CLOCK: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// The primary's write lock: an open transaction on a stream. Dropped, it is given back.
pub struct Lease {
    pub(super) stream: Stream,
    /// The end of the primary's log, exact for as long as the lock is held.
    pub log_id: String,
    pub frame_no: Option<u64>,
    pub(super) page1: Option<Box<Page>>,
    pub(super) version: u32,
    pub(super) data_version: i64,
    taken: Moment,
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
    used: Moment,
    /// It has shipped rows, and can ship no pages: its connection has parsed some.
    rows: bool,
}

/// When the primary has answered.
struct Moment {
    here: Instant,
    /// The primary's clock then, or somewhat before: in ms since 1970.
    there: Option<i64>,
}

impl Moment {
    fn now(there: Option<i64>) -> Moment {
        Moment {
            here: Instant::now(),
            there,
        }
    }
}

/// Where a transaction begins.
pub enum Ground {
    /// It has begun: the lock is held.
    Lease(Lease),
    /// In the same request, if nobody else has committed since.
    Kept(Kept),
}

impl Ground {
    /// What the primary's clock has passed by now.
    pub fn now(&self) -> Option<i64> {
        let moment = match self {
            Ground::Lease(lease) => &lease.taken,
            Ground::Kept(kept) => &kept.used,
        };
        Some(moment.there? + moment.here.elapsed().as_millis() as i64)
    }
}

impl Kept {
    /// It has just been used.
    pub(super) fn new(
        stream: Stream,
        log_id: String,
        frame_no: Option<u64>,
        data_version: i64,
        clock: Option<i64>,
        rows: bool,
    ) -> Kept {
        Kept {
            stream,
            log_id,
            frame_no,
            data_version,
            used: Moment::now(clock),
            rows,
        }
    }

    pub fn is_fresh(&self) -> bool {
        self.used.here.elapsed() < STREAM_LIFE
    }

    pub fn is_for_rows(&self) -> bool {
        self.rows
    }
}

impl Lease {
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
pub(super) fn begin(http: &Arc<Http>, path: WritePath) -> Result<Lease> {
    let ask = |sql: &str| execute(stmt(sql, Vec::new(), true));
    let mut requests = vec![
        ask("BEGIN IMMEDIATE"),
        ask(&format!(
            "SELECT data_version, {CLOCK} FROM pragma_data_version"
        )),
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
    // Without its answer a lock is of no use, and does no harm: the primary
    // takes it away from a stream of which nothing more is heard.
    let begun = http.insist(Failure::is_passing, || {
        let mut stream = Stream::new(http);
        stream
            .ask(requests.clone())
            .map(|results| (stream, results))
    });
    let (stream, results) = begun.map_err(Failure::into_error)?;
    let mut results = results.into_iter();
    let unbound = match path {
        WritePath::Pages => None,
        _ => executed(results.next())?.err(),
    };
    let begun = executed(results.next())?;
    let version = executed(results.next())?;
    let mut lease = Lease::unusable(stream);
    lease.frame_no = begun.map_err(SqlError::into_error)?.replication_index;
    let version = version.map_err(SqlError::into_error)?;
    lease.data_version = data_version(Some(&version)).ok_or_else(garbled)?;
    lease.taken = Moment::now(last_integer(&version));
    lease.rows = match path {
        WritePath::Rows => true,
        _ => lease.take_page1(executed(results.next())?, path)?,
    };
    match unbound.filter(|_| lease.rows) {
        Some(error) => Err(error.into_error()),
        None => Ok(lease),
    }
}

/// The answer to a question for the data version.
pub(super) fn data_version(told: Option<&StmtResult>) -> Option<i64> {
    integer(told?.rows.first()?.values.first()?)
}

/// The last one in the answer's first row.
pub(super) fn last_integer(told: &StmtResult) -> Option<i64> {
    integer(told.rows.first()?.values.last()?)
}

fn integer(value: &Value) -> Option<i64> {
    match value.kind {
        Some(ValueKind::Integer(n)) => Some(n),
        _ => None,
    }
}

impl Lease {
    /// Takes in page 1; true if the primary has no pages to give, and needs
    /// none, or if few transactions could be pages there.
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
        let moves = self.page1.as_deref().is_some_and(moves_pages);
        Ok(moves && path == WritePath::Auto)
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
            taken: Moment::now(None),
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

pub(super) fn first_page(result: &StmtResult) -> Option<Box<Page>> {
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
