//! The primary's write lock, and streams kept for the next transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hrana::{Failure, Stream, close, execute, executed, pipeline, stmt};
use super::hrana_wire::{SqlError, StmtResult, Value, ValueKind};
use super::http::Http;
use crate::error::{Error, Result};
use crate::wal::Page;

/// A stream that nobody used for so long may be gone (the primary ends it after 10 s).
const STREAM_LIFE: Duration = Duration::from_secs(8);

/// The primary's write lock: an open transaction on a stream.
pub struct Lease {
    pub(super) stream: Stream,
    /// The end of the primary's log, exact for as long as the lock is held.
    pub log_id: String,
    pub frame_no: Option<u64>,
    pub(super) page1: Option<Box<Page>>,
    pub(super) version: u32,
    pub(super) data_version: i64,
}

/// A stream that may ship the next transaction in one request, as long as
/// nobody else has committed.
pub struct Kept {
    pub(super) stream: Stream,
    pub log_id: String,
    pub frame_no: Option<u64>,
    pub(super) data_version: i64,
    pub(super) used: Instant,
}

impl Kept {
    pub fn is_fresh(&self) -> bool {
        self.used.elapsed() < STREAM_LIFE
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

    /// Whether its page 1 is this one.
    pub fn has_page1(&self, page: &Page) -> bool {
        self.page1.as_deref() == Some(page)
    }
}

/// BEGIN IMMEDIATE on a stream of its own, and what a writer has to know.
pub(super) fn begin(http: &Arc<Http>) -> Result<Lease> {
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
