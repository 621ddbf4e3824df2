//! gRPC-web over HTTP/1.1: a request of one message, an answer of length-
//! prefixed messages and a trailer (github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).

use std::io::{BufRead, BufReader};
use std::sync::atomic::Ordering;

use prost::Message;
use ureq::{Body, BodyReader, http};

use super::answer::{NoAnswer, header};
use super::budget::{Pace, zeroed};
use super::http::{Http, is_timeout};
use crate::error::{Error, Result};

const CONTENT_TYPE: &str = "application/grpc-web+proto";
/// Answers' content-types begin so.
const KIND: &str = "application/grpc-web";
const TRAILER_FLAG: u8 = 0x80;
/// Trailers are a status and a sentence.
const MAX_TRAILER: u32 = 64 * 1024;

/// A status other than OK, in the server's own words.
#[derive(Debug, Clone)]
pub struct Status {
    pub code: u32,
    pub message: String,
}

impl Status {
    pub const FAILED_PRECONDITION: u32 = 9;
    pub const UNAVAILABLE: u32 = 14;

    pub fn is(&self, code: u32, text: &str) -> bool {
        self.code == code && self.message.contains(text)
    }

    /// The error for a status that the caller has no special answer to.
    pub fn into_error(self) -> Error {
        let Status { code, message } = self;
        match code {
            7 | 16 => Error::Auth(message),
            // sqld says so when a token is needed and none was sent.
            13 if message.contains("auth header") => Error::Auth(message),
            Self::UNAVAILABLE | 4 | 8 => Error::Unreachable(message),
            _ if message.contains("BLOCKED") => Error::Auth(message),
            _ => Error::Protocol(format!("gRPC status {code}: {message}")),
        }
    }
}

/// An answer's head, or the status that stands in it.
pub enum Answer<'a> {
    Stream(Stream<'a>),
    Refused(Status),
}

/// Messages of an answer.
pub struct Stream<'a> {
    http: &'a Http,
    body: BufReader<BodyReader<'static>>,
    /// Unread bytes of the message being read.
    left: u32,
    pace: Pace,
}

/// What stands next in a stream.
pub enum Item {
    /// A message, to be read whole with [`Stream::some`] or [`Stream::message`].
    Message,
    /// The end, with its status if that is not OK.
    End(Option<Status>),
}

pub fn call<'a, M: Message>(
    http: &'a Http,
    path: &str,
    mut headers: Vec<(&str, String)>,
    message: &M,
) -> Result<Answer<'a>> {
    let mut body = vec![0; 5];
    message
        .encode(&mut body)
        .map_err(|e| Error::Internal(e.to_string()))?;
    let len = (body.len() - 5) as u32;
    body[1..5].copy_from_slice(&len.to_be_bytes());
    headers.push(("content-type", CONTENT_TYPE.into()));
    // Everything that is asked this way only reads.
    let response = http.insist(
        |failure: &NoAnswer| failure.passing,
        || http.post(&http.url().base, path, &headers, &body, KIND),
    )?;
    let (parts, body) = response.into_parts();
    check_head(http, &parts, body)
}

fn check_head<'a>(http: &'a Http, parts: &http::response::Parts, body: Body) -> Result<Answer<'a>> {
    if let Some(status) = header(&parts.headers, "grpc-status") {
        let message = header(&parts.headers, "grpc-message").unwrap_or_default();
        if let Some(refused) = parse_status(&|text| http.heard(text), status, message)? {
            return Ok(Answer::Refused(refused));
        }
    }
    let body =
        BufReader::with_capacity(128 * 1024, body.into_with_config().limit(u64::MAX).reader());
    Ok(Answer::Stream(Stream {
        http,
        body,
        left: 0,
        pace: Pace::new(http.longest_wait()),
    }))
}

/// Makes a text of somebody else's fit for an error.
type Heard<'a> = &'a dyn Fn(&str) -> String;

fn parse_status(heard: Heard, code: &str, message: &str) -> Result<Option<Status>> {
    let parsed = code.trim().parse::<u32>();
    let code = parsed.map_err(|_| Error::Protocol(format!("a grpc-status '{}'", heard(code))))?;
    let message = percent_encoding::percent_decode_str(message.trim()).decode_utf8_lossy();
    Ok((code != 0).then(|| Status {
        code,
        message: heard(&message),
    }))
}

impl Stream<'_> {
    /// Waits for the next message to begin; false if nothing has come for as
    /// long as one network wait may last.
    pub fn wait(&mut self) -> Result<bool> {
        match self.body.fill_buf() {
            Ok(_) => {
                // Only from here on something is due.
                self.pace = Pace::new(self.http.longest_wait());
                Ok(true)
            }
            Err(e) if is_timeout(&e) => Ok(false),
            Err(e) => Err(self.http.explain_io(&e)),
        }
    }

    /// The next message, or the end. The message before has been read whole.
    pub fn next(&mut self) -> Result<Item> {
        debug_assert_eq!(self.left, 0);
        let mut prefix = [0; 5];
        self.raw(&mut prefix)?;
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        match prefix[0] {
            0 => {
                self.left = len;
                Ok(Item::Message)
            }
            TRAILER_FLAG => {
                if len > MAX_TRAILER {
                    return Err(Error::Protocol(format!("a gRPC trailer of {len} bytes")));
                }
                let mut text = vec![0; len as usize];
                self.raw(&mut text)?;
                // To the end of the body, so that the connection can be used again.
                let mut rest = [0; 1];
                match self.pace.read(&mut self.body, &mut rest) {
                    Ok(0) => {}
                    Ok(_) => return Err(Error::Protocol("data after the gRPC trailer".into())),
                    Err(e) => return Err(self.http.explain_io(&e)),
                }
                trailer_status(
                    &|said| self.http.heard(said),
                    &String::from_utf8_lossy(&text),
                )
                .map(Item::End)
            }
            flag => Err(Error::Protocol(format!(
                "gRPC-web flag {flag:#04x}; is something between here and the primary?"
            ))),
        }
    }

    /// Unread bytes of the current message.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Reads some of the current message.
    pub fn some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let most = buf.len().min(self.left as usize);
        match self.pace.read(&mut self.body, &mut buf[..most]) {
            Ok(0) => Err(self.cut_short()),
            Ok(n) => {
                self.left -= n as u32;
                self.received(n);
                Ok(n)
            }
            Err(e) => Err(self.broken(&e)),
        }
    }

    /// Reads a whole message of at most `max` bytes.
    pub fn message<M: Message + Default>(&mut self, max: u32) -> Result<M> {
        if self.left > max {
            return Err(Error::Protocol(format!(
                "a message of {} bytes where {max} is the most",
                self.left
            )));
        }
        let mut bytes = zeroed(self.left as usize)?;
        self.left = 0;
        self.raw(&mut bytes)?;
        M::decode(&bytes[..]).map_err(|e| Error::Protocol(e.to_string()))
    }

    fn raw(&mut self, buf: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.pace.read(&mut self.body, &mut buf[filled..]) {
                Ok(0) => return Err(self.cut_short()),
                Ok(n) => filled += n,
                Err(e) => return Err(self.broken(&e)),
            }
        }
        self.received(buf.len());
        Ok(())
    }

    fn broken(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.cut_short(),
            _ => self.http.explain_io(error),
        }
    }

    fn cut_short(&self) -> Error {
        let url = &self.http.url().text;
        Error::Unreachable(format!("{url}: the answer was cut short"))
    }

    fn received(&self, bytes: usize) {
        let received = &self.http.traffic.received;
        received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

fn trailer_status(heard: Heard, text: &str) -> Result<Option<Status>> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let code = field("grpc-status")
        .ok_or_else(|| Error::Protocol("a gRPC trailer without status".into()))?;
    parse_status(heard, code, field("grpc-message").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers() {
        let trailer_status = |text| trailer_status(&|said| said.to_uppercase(), text);
        assert!(trailer_status("grpc-status:0\r\n").unwrap().is_none());
        let status = trailer_status("grpc-status: 9\r\ngrpc-message: NO%5FHELLO\r\n")
            .unwrap()
            .unwrap();
        assert!(status.is(Status::FAILED_PRECONDITION, "NO_HELLO"));
        assert_eq!(status.message, "NO_HELLO");
        assert!(trailer_status("x: 1\r\n").is_err());
        assert!(trailer_status("grpc-status: none\r\n").is_err());
    }

    #[test]
    fn statuses_become_errors() {
        let error = |code, message: &str| {
            Status {
                code,
                message: message.into(),
            }
            .into_error()
        };
        assert!(matches!(
            error(16, "AuthError: The JWT has expired"),
            Error::Auth(_)
        ));
        assert!(matches!(
            error(13, "Error parsing auth header: none given"),
            Error::Auth(_)
        ));
        assert!(matches!(
            error(14, "snapshot not found"),
            Error::Unreachable(_)
        ));
        assert!(matches!(error(12, "unimplemented"), Error::Protocol(_)));
    }
}
