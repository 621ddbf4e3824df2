//! Hrana 3 over HTTP: SQL at the primary, on streams (docs/HRANA_3_SPEC.md).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prost::Message;

use super::hrana_wire::{
    Batch, BatchRequest, BatchResult, BatchStep, Empty, Execute, PipelineRequest, PipelineResponse,
    SqlError, Stmt, StmtResult, StreamRequest, StreamResult, Value,
};
use super::http::{Http, excerpt, header};
use crate::error::{Error, Result};
use crate::ffi::thread;

const PIPELINE: &str = "/v3-protobuf/pipeline";
/// The primary gives at most 10 MB a request of a pipeline.
const MAX_ANSWER: u64 = 64 << 20;

/// A stream: one SQLite connection at the primary, which lives until it is
/// closed, or nothing was asked of it for ten seconds.
#[derive(Default)]
pub struct Stream {
    /// None before the first request.
    baton: Option<String>,
    /// Where the primary wants further requests of this stream.
    base: Option<String>,
}

impl Stream {
    pub fn is_open(&self) -> bool {
        self.baton.is_some()
    }
}

/// Why a pipeline has no results.
#[derive(Debug)]
pub enum Failure {
    /// The stream does not exist any more; nothing was run.
    Gone(String),
    /// Nothing was run.
    Refused(Error),
    /// No answer came: it was run, or will be, or not.
    Lost(Error),
}

impl Failure {
    pub fn into_error(self) -> Error {
        match self {
            Failure::Gone(why) => Error::Unreachable(why),
            Failure::Refused(e) | Failure::Lost(e) => e,
        }
    }
}

pub fn stmt(sql: impl Into<String>, args: Vec<Value>, want_rows: bool) -> Stmt {
    Stmt {
        sql: Some(sql.into()),
        args,
        want_rows: Some(want_rows),
    }
}

pub fn execute(stmt: Stmt) -> StreamRequest {
    StreamRequest {
        execute: Some(Execute { stmt }),
        ..StreamRequest::default()
    }
}

pub fn batch(steps: Vec<BatchStep>) -> StreamRequest {
    let batch = Batch { steps };
    StreamRequest {
        batch: Some(BatchRequest { batch }),
        ..StreamRequest::default()
    }
}

pub fn close() -> StreamRequest {
    StreamRequest {
        close: Some(Empty {}),
        ..StreamRequest::default()
    }
}

/// One HTTP request: all of `requests`, in order, on the stream.
pub fn pipeline(
    http: &Arc<Http>,
    stream: &mut Stream,
    requests: Vec<StreamRequest>,
) -> std::result::Result<Vec<StreamResult>, Failure> {
    let count = requests.len();
    let body = PipelineRequest {
        // Batons are for one use.
        baton: stream.baton.clone(),
        requests,
    }
    .encode_to_vec();
    let mut headers = http.headers();
    headers.push(("content-type", "application/x-protobuf".into()));
    let base = stream.base.as_deref().unwrap_or(&http.url().base);
    let response =
        http.post_to(base, PIPELINE, &headers, &body)
            .map_err(|failure| match failure.sent {
                true => Failure::Lost(failure.error),
                false => Failure::Refused(failure.error),
            })?;
    let (parts, mut body) = response.into_parts();
    let status = parts.status.as_u16();
    if status != 200 {
        return Err(refused(
            http,
            status,
            &excerpt_of(&parts.headers, &mut body),
        ));
    }
    let read = body.with_config().limit(MAX_ANSWER).read_to_vec();
    let bytes = read.map_err(|e| Failure::Lost(http.explain(&e)))?;
    http.traffic.received.fetch_add(bytes.len() as u64, Relaxed);
    let answer = PipelineResponse::decode(&bytes[..])
        .map_err(|e| Failure::Lost(Error::Protocol(format!("{}: Hrana: {e}", http.url().text))))?;
    if answer.results.len() != count {
        let got = answer.results.len();
        return Err(Failure::Lost(Error::Protocol(format!(
            "{}: Hrana: {got} results for {count} requests",
            http.url().text
        ))));
    }
    stream.baton = answer.baton;
    if let Some(base) = answer
        .base_url
        .filter(|base| follows(&http.url().base, base))
    {
        stream.base = Some(base.trim_end_matches('/').to_string());
    }
    Ok(answer.results)
}

/// A primary may send a stream to another address, but never to one that is
/// less protected than the one the user gave.
fn follows(from: &str, to: &str) -> bool {
    to.starts_with("https://") || (to.starts_with("http://") && from.starts_with("http://"))
}

/// The words of an HTTP error: a Protobuf error message, or text.
fn excerpt_of(headers: &ureq::http::HeaderMap, body: &mut ureq::Body) -> String {
    let kind = header(headers, "content-type").unwrap_or_default();
    if !kind.starts_with("application/x-protobuf") {
        return excerpt(body);
    }
    let bytes = body.with_config().limit(64 << 10).read_to_vec();
    bytes
        .ok()
        .and_then(|bytes| SqlError::decode(&bytes[..]).ok())
        .map_or_else(String::new, |e| format!("{} ({})", e.message, e.code))
}

fn refused(http: &Http, status: u16, words: &str) -> Failure {
    let text = format!("{}: HTTP {status}: {words}", http.url().text);
    if matches!(status, 400 | 500..=599) {
        // As of a process that has just begun, or of a proxy that misses one.
        http.doubt();
    }
    match status {
        400 if words.contains("baton") || words.contains("STREAM_EXPIRED") => Failure::Gone(text),
        401 | 403 => Failure::Refused(Error::Auth(text)),
        // No connection was free for the stream.
        429 => Failure::Refused(Error::Busy(text)),
        404 => Failure::Refused(Error::Protocol(format!(
            "{text} (is this a libSQL server?)"
        ))),
        408 | 500..=599 => Failure::Lost(Error::Unreachable(text)),
        _ => Failure::Refused(Error::Protocol(text)),
    }
}

/// Ends a stream without waiting for that. The primary has few of them, and
/// would end this one only after 10 s.
pub fn close_soon(http: &Arc<Http>, mut stream: Stream) {
    let http = http.clone();
    let _ = thread::spawn("libreplica-unlock", move || {
        let _ = pipeline(&http, &mut stream, vec![close()]);
    });
}

/// The result of an `execute`, or the statement's error.
pub fn executed(result: Option<StreamResult>) -> Result<std::result::Result<StmtResult, SqlError>> {
    let result = result.unwrap_or_default();
    match (result.ok.and_then(|ok| ok.execute), result.error) {
        (Some(done), _) => Ok(Ok(done.result)),
        (None, Some(error)) => Ok(Err(error)),
        (None, None) => Err(no_result()),
    }
}

/// The result of a `batch`, or its error as a whole.
pub fn ran(result: Option<StreamResult>) -> Result<std::result::Result<BatchResult, SqlError>> {
    let result = result.unwrap_or_default();
    match (result.ok.and_then(|ok| ok.batch), result.error) {
        (Some(done), _) => Ok(Ok(done.result)),
        (None, Some(error)) => Ok(Err(error)),
        (None, None) => Err(no_result()),
    }
}

fn no_result() -> Error {
    Error::Protocol("Hrana: a result of another kind than asked for".into())
}

impl SqlError {
    /// The error for a statement that the primary refused.
    pub fn into_error(self) -> Error {
        let SqlError { message, code } = self;
        let text = format!("{message} ({code})");
        match code.as_str() {
            "BLOCKED" => Error::Auth(text),
            "SQLITE_BUSY" | "TRANSACTION_TIMEOUT" | "TRANSACTION_BUSY" => {
                Error::Busy(format!("the primary is busy: {text}"))
            }
            "SQLITE_AUTH" => Error::Auth(text),
            _ => Error::ReadOnly(format!("the primary refused it: {text}")),
        }
    }
}
