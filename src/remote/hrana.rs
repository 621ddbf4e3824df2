//! Hrana 3 over HTTP: SQL at the primary, on streams (docs/HRANA_3_SPEC.md).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use prost::Message;
use ureq::http::Uri;

use super::answer::NoAnswer;
use super::budget::{check_hrana, read_hrana};
use super::hrana_wire::{
    Batch, BatchRequest, BatchResult, BatchStep, Empty, Execute, PipelineRequest, PipelineResponse,
    SqlError, Stmt, StmtResult, StreamRequest, StreamResult, Value,
};
use super::http::Http;
use crate::error::{Error, Result};
use crate::ffi::{fork, thread};

const PIPELINE: &str = "/v3-protobuf/pipeline";
/// Answers' content-type.
const KIND: &str = "application/x-protobuf";

/// A stream: one SQLite connection at the primary. Dropped, it is closed at
/// once, whatever the reason: a transaction that is open on it holds the
/// primary's write lock, and streams are few.
pub struct Stream {
    http: Arc<Http>,
    at: Address,
    /// A forked child has a copy of it, which is not its own.
    process: u32,
}

/// How the primary knows a stream.
#[derive(Default)]
struct Address {
    /// None before the first request, and when it is closed.
    baton: Option<String>,
    /// Where the primary wants further requests of this stream.
    base: Option<String>,
}

impl Stream {
    pub fn new(http: &Arc<Http>) -> Stream {
        Stream {
            http: http.clone(),
            at: Address::default(),
            process: fork::process(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.at.baton.is_some()
    }

    /// One HTTP request: all of `requests`, in order.
    pub fn ask(
        &mut self,
        requests: Vec<StreamRequest>,
    ) -> std::result::Result<Vec<StreamResult>, Failure> {
        let answer = ask(&self.http, &mut self.at, requests);
        if let Err(Failure::Gone(_)) = answer {
            self.at = Address::default();
        }
        answer
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_open() && self.process == fork::process() {
            let (http, mut at) = (self.http.clone(), std::mem::take(&mut self.at));
            // Nobody waits for that. Without a thread the primary ends it by
            // itself, after ten seconds without a request.
            let _ = thread::spawn("libreplica-unlock", move || end(&http, &mut at));
        }
    }
}

/// What holds up a request that ends a stream is tried again for so long: then
/// the primary has taken the lock away from whoever is waited for.
const ENDING: Duration = Duration::from_secs(5);

fn end(http: &Http, at: &mut Address) {
    let deadline = Instant::now() + ENDING;
    let mut pause = Duration::from_millis(50);
    while let Err(failure) = ask(http, at, vec![close()]) {
        let is_gone = matches!(failure, Failure::Gone(_));
        let may_pass = matches!(failure.into_error(), Error::Unreachable(_) | Error::Busy(_));
        let may_pass = may_pass && !is_gone;
        if !may_pass || Instant::now() + pause > deadline {
            return;
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
}

/// Why a request has no results.
#[derive(Debug)]
pub enum Failure {
    /// The stream does not exist any more; nothing was run.
    Gone(String),
    /// Nothing was run.
    Refused(Error),
    /// Nothing was run: what lies on the way takes no request of so many bytes.
    TooLarge(usize, Error),
    /// No answer came: it was run, or will be, or not.
    Lost(NoAnswer),
}

impl Failure {
    pub fn into_error(self) -> Error {
        match self {
            Failure::Gone(why) => Error::Unreachable(why),
            Failure::Refused(e) | Failure::TooLarge(_, e) => e,
            Failure::Lost(failure) => failure.error,
        }
    }

    /// What is on the way failed, perhaps for a moment only.
    pub fn is_passing(&self) -> bool {
        matches!(self, Failure::Lost(failure) if failure.passing)
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

fn ask(
    http: &Http,
    at: &mut Address,
    requests: Vec<StreamRequest>,
) -> std::result::Result<Vec<StreamResult>, Failure> {
    let count = requests.len();
    let message = PipelineRequest {
        // Batons are for one use.
        baton: at.baton.clone(),
        requests,
    }
    .encode_to_vec();
    let mut headers = http.headers();
    headers.push(("content-type", KIND.into()));
    let base = at.base.as_deref().unwrap_or(&http.url().base);
    let answer = http.post(base, PIPELINE, &headers, &message, KIND);
    let body = answer
        .map_err(|failure| refused(failure, message.len()))?
        .into_body();
    let garbled = |why: String| {
        Failure::Lost(NoAnswer {
            error: Error::Protocol(format!("{}: Hrana: {why}", http.url().text)),
            status: None,
            sent: true,
            passing: false,
        })
    };
    let read = read_hrana(&mut body.into_reader(), http.longest_wait());
    let bytes = read.map_err(|e| Failure::Lost(NoAnswer::cut_off(http, &e)))?;
    http.traffic.received.fetch_add(bytes.len() as u64, Relaxed);
    check_hrana(&bytes).map_err(garbled)?;
    let answer = PipelineResponse::decode(&bytes[..]).map_err(|e| garbled(e.to_string()))?;
    if answer.results.len() != count {
        let got = answer.results.len();
        return Err(garbled(format!("{got} results for {count} requests")));
    }
    at.baton = answer.baton;
    if let Some(base) = answer
        .base_url
        .filter(|base| is_same_origin(&http.url().base, base))
    {
        at.base = Some(base.trim_end_matches('/').to_string());
    }
    Ok(answer
        .results
        .into_iter()
        .map(|result| fit(http, result))
        .collect())
}

/// With errors whose words are fit to be passed on.
fn fit(http: &Http, mut result: StreamResult) -> StreamResult {
    let fit = |error: &mut SqlError| {
        error.message = http.heard(&error.message);
        error.code = http.heard(&error.code);
    };
    result.error.as_mut().map(fit);
    if let Some(batch) = result.ok.as_mut().and_then(|ok| ok.batch.as_mut()) {
        batch.result.errors.values_mut().for_each(fit);
    }
    result
}

/// A primary may send a stream to another path, and to no other host: token
/// and statements would go there.
fn is_same_origin(from: &str, to: &str) -> bool {
    let origin = |url: &str| {
        let uri = url.parse::<Uri>().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match &*scheme {
            "https" => 443,
            _ => 80,
        };
        // No user info, which a host may be hidden behind.
        let plain = !uri.authority()?.as_str().contains('@');
        let host = uri.host()?.to_ascii_lowercase();
        plain.then(|| (scheme, host, uri.port_u16().unwrap_or(usual)))
    };
    origin(to).is_some_and(|to| Some(to) == origin(from))
}

/// What it means for a stream. `sent`: bytes of the request.
fn refused(failure: NoAnswer, sent: usize) -> Failure {
    let text = failure.error.to_string();
    match (failure.status, failure.error) {
        (Some(400), _) if text.contains("baton") || text.contains("STREAM_EXPIRED") => {
            Failure::Gone(text)
        }
        (Some(413), _) => Failure::TooLarge(
            sent,
            Error::ReadOnly(format!(
                "{text}: something between here and the primary takes no request of {sent} bytes, and this one cannot be split; give it a larger limit there (nginx: client_max_body_size)"
            )),
        ),
        // No connection was free for the stream.
        (Some(429), Error::Unreachable(why)) => Failure::Refused(Error::Busy(why)),
        (_, error) if failure.sent => Failure::Lost(NoAnswer { error, ..failure }),
        (_, error) => Failure::Refused(error),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_stays_where_the_user_sent_it() {
        let from = "http://db.example.org:80/x";
        for same in ["http://db.example.org", "HTTP://DB.example.org:80/other/"] {
            assert!(is_same_origin(from, same), "{same}");
        }
        for other in [
            "https://db.example.org",
            "http://db.example.org:81",
            "http://example.org",
            "http://db.example.org@evil.example",
            "http://me@db.example.org",
            "http://db.example.org.evil.example",
            "//db.example.org",
            "/x",
            "",
        ] {
            assert!(!is_same_origin(from, other), "{other}");
        }
        assert!(is_same_origin("https://[::1]/", "https://[::1]:443"));
    }
}
