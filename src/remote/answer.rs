//! The head of an HTTP answer: whether it is the primary's, and in which words
//! it is not; and what may be asked again.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use prost::Message;
use ureq::http::{HeaderMap, Response, Uri, response::Parts};
use ureq::{Body, Timeout};

use super::budget::Pace;
use super::hrana_wire::SqlError;
use super::http::Http;
use crate::error::Error;
use crate::ffi::attention;

/// An error's words in an answer are read so far.
const MAX_WORDS: usize = 64 << 10;
/// Of a page that is no message so much is shown.
const EXCERPT: usize = 400;

/// A request that is tried again is tried so often,
const ATTEMPTS: u32 = 3;
/// with such pauses, each three times the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// A request that got no answer of the primary's.
#[derive(Debug)]
pub struct NoAnswer {
    pub error: Error,
    /// Of the answer that is none.
    pub status: Option<u16>,
    /// It may have been run, or may still be.
    pub sent: bool,
    /// What is on the way failed, perhaps for a moment only.
    pub passing: bool,
}

impl From<NoAnswer> for Error {
    fn from(failure: NoAnswer) -> Error {
        failure.error
    }
}

impl NoAnswer {
    /// A failure of the connection.
    pub fn new(http: &Http, failure: &ureq::Error) -> NoAnswer {
        NoAnswer {
            error: http.explain(failure),
            status: None,
            sent: may_be_sent(failure),
            passing: is_cut(failure),
        }
    }
}

impl NoAnswer {
    /// A failure while the answer was read.
    pub fn cut_off(http: &Http, failure: &std::io::Error) -> NoAnswer {
        let inner = failure.get_ref().and_then(|e| e.downcast_ref());
        NoAnswer {
            error: http.explain_io(failure),
            status: None,
            sent: true,
            passing: inner.is_some_and(is_cut) || is_end(failure.kind()),
        }
    }
}

fn may_be_sent(error: &ureq::Error) -> bool {
    use ureq::Error;
    match error {
        Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) | Error::Tls(_) => false,
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => false,
        Error::Io(e) => e.kind() != ErrorKind::ConnectionRefused,
        _ => true,
    }
}

/// The connection was there, and ended: as one that was kept open does when a
/// server or a proxy is restarted.
fn is_cut(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(e) if is_end(e.kind()))
}

fn is_end(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

impl Http {
    /// Does what may be done twice, and again where what is on the way failed:
    /// within the time of one network wait.
    pub fn insist<T, E>(
        &self,
        is_passing: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let deadline = Instant::now() + self.longest_wait();
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match attempt() {
                Err(e) if is_passing(&e) && Instant::now() + pause < deadline && !self.is_cut() => {
                    // Whoever is interrupted is told by the next attempt.
                    let _ = attention::pause(pause);
                    pause *= 3;
                }
                done => return done,
            }
        }
        attempt()
    }

    /// The answer, if it is the primary's, of this content-type.
    pub fn check(
        &self,
        answer: Response<Body>,
        kind: &str,
    ) -> std::result::Result<Response<Body>, NoAnswer> {
        let status = answer.status().as_u16();
        let found = header(answer.headers(), "content-type").unwrap_or("none");
        let is_expected = found.starts_with(kind);
        if status == 200 && is_expected {
            return Ok(answer);
        }
        if matches!(status, 400 | 500..=599) {
            // As of a process that has just begun, or of a proxy that misses one.
            self.doubt();
        }
        let found = self.heard(found);
        let (parts, body) = answer.into_parts();
        let words = self.heard(&words(&found, body, self.longest_wait()));
        let error = match status {
            200 => Error::Protocol(format!(
                "{}: {}: {words}",
                self.url().text,
                other(&found, kind)
            )),
            _ => self.status(&parts, &words),
        };
        Err(NoAnswer {
            error,
            status: Some(status),
            sent: matches!(status, 200 | 408 | 500..=599),
            passing: matches!(status, 502..=504),
        })
    }

    fn status(&self, parts: &Parts, words: &str) -> Error {
        let status = parts.status.as_u16();
        let text = format!("{}: HTTP {status}: {words}", self.url().text);
        match status {
            401 | 403 => Error::Auth(text),
            408 | 429 | 500..=599 => Error::Unreachable(text),
            300..=399 => {
                let to = header(&parts.headers, "location").map_or("nowhere".into(), origin);
                let to = self.heard(&to);
                Error::Protocol(format!(
                    "{text} (redirected to {to}, which is not followed: the token would go there; if that is the primary, use it as sync_url)"
                ))
            }
            _ => Error::Protocol(format!("{text} (is this a libSQL server?)")),
        }
    }
}

fn other(found: &str, kind: &str) -> String {
    match found.starts_with("text/html") {
        true => {
            "a web page instead of the primary's answer, as from a login page or a proxy on the way"
                .into()
        }
        false => format!("content-type {found} instead of {kind} (is this a libSQL server?)"),
    }
}

/// Where a redirect leads: scheme, host and port, and nothing that may be a secret.
fn origin(location: &str) -> String {
    match location.parse::<Uri>() {
        Ok(uri) => match (uri.scheme_str(), uri.host()) {
            (Some(scheme), Some(host)) => {
                let port = uri
                    .port_u16()
                    .map_or(String::new(), |port| format!(":{port}"));
                format!("{scheme}://{host}{port}")
            }
            _ => "another path of this host".into(),
        },
        Err(_) => "no valid URL".into(),
    }
}

/// The words of an answer that is none: a message's, or the beginning of a text.
fn words(kind: &str, body: Body, wait: Duration) -> String {
    let mut bytes = Vec::new();
    let (mut body, mut pace) = (body.into_reader(), Pace::new(wait));
    let mut piece = [0; 4096];
    while bytes.len() < MAX_WORDS
        && let Ok(n @ 1..) = pace.read(&mut body, &mut piece)
    {
        bytes.extend_from_slice(&piece[..n]);
    }
    if kind.starts_with("application/x-protobuf")
        && let Ok(SqlError { message, code }) = SqlError::decode(&bytes[..])
    {
        return format!("{message} ({code})");
    }
    bytes.truncate(EXCERPT);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A header's value if it is there and text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_named_without_secrets() {
        let of = |text: &str| origin(text);
        assert_eq!(
            of("https://db.example.org/x?token=s3cret#a"),
            "https://db.example.org"
        );
        assert_eq!(of("http://me:s3cret@10.0.0.1:81/y"), "http://10.0.0.1:81");
        assert_eq!(of("/login?next=s3cret"), "another path of this host");
        assert_eq!(of("ht tp://s3cret"), "no valid URL");
    }
}
