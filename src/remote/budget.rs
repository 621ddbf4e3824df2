//! What a request may have, and what an answer may cost: bytes, memory, time,
//! and what it makes us do. A primary, or whatever answers in its place, is
//! trusted with none of these.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::hrana_wire::{Col, Row, SqlError, StmtResult, StreamResult, Value};
use crate::error::{Error, Result};
use crate::wal::PAGE_SIZE;

/// Steps of a request at most: an answer may have 10 MB.
pub const REQUEST_STEPS: u32 = 20_000;
/// Bytes of a request, about, as long as nothing on the way refuses that.
const REQUEST_BYTES: usize = 8 << 20;
/// What is tried after a refusal: most proxies take a megabyte (nginx does by default).
const USUAL_BYTES: usize = 960 << 10;
/// Proxies are configured anew.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How large a request may be, as refusals have shown.
#[derive(Default)]
pub struct RequestLimit(Mutex<Option<(usize, Instant)>>);

impl RequestLimit {
    pub fn bytes(&self) -> usize {
        match *self.0.lock() {
            Some((bytes, since)) if since.elapsed() < REMEMBERED => bytes,
            _ => REQUEST_BYTES,
        }
    }

    /// A request of so many bytes was too large (HTTP 413).
    pub fn refused(&self, bytes: usize) {
        let less = match bytes {
            much if much > 2 * USUAL_BYTES => USUAL_BYTES,
            little => little / 2,
        };
        let less = less.min(self.bytes());
        *self.0.lock() = Some((less, Instant::now()));
    }
}

/// Bytes of a Hrana answer: the primary gives 10 MB of values at most.
const HRANA_BYTES: usize = 24 << 20;
/// Memory for what they are decoded to, besides themselves.
const HRANA_MEMORY: usize = 128 << 20;

/// An answer in a row of pieces has to come as fast as a page a second, once
/// the time of one network wait has passed.
const BYTES_A_SECOND: u64 = PAGE_SIZE as u64;

/// The time that a request of so many bytes may take to be sent.
pub fn sending(bytes: usize, wait: Duration) -> Duration {
    wait.saturating_add(Duration::from_secs(bytes as u64 / BYTES_A_SECOND))
}

/// How long an answer has been waited for, and how much of it has come. Only
/// waiting counts: whoever reads may be busy in between.
pub struct Pace {
    wait: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `wait`: the longest single wait.
    pub fn new(wait: Duration) -> Pace {
        Pace {
            wait,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Reads some; fails if all of it comes too slowly.
    pub fn read(&mut self, source: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        let read = source.read(buf);
        self.waited += begun.elapsed();
        self.bytes += *read.as_ref().unwrap_or(&0) as u64;
        let due = self.waited.saturating_sub(self.wait).as_secs_f64() * BYTES_A_SECOND as f64;
        match read {
            Ok(n) if n > 0 && due > self.bytes as f64 => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the answer comes too slowly: {} bytes in {:.1} s",
                    self.bytes,
                    self.waited.as_secs_f64()
                ),
            )),
            read => read,
        }
    }
}

/// All of a Hrana answer's body.
pub fn read_hrana(source: &mut impl Read, wait: Duration) -> io::Result<Vec<u8>> {
    let (mut pace, mut all) = (Pace::new(wait), Vec::new());
    let mut piece = [0; 16 << 10];
    loop {
        match pace.read(source, &mut piece)? {
            0 => return Ok(all),
            n if all.len() + n > HRANA_BYTES => {
                return Err(io::Error::other(format!(
                    "an answer of more than {HRANA_BYTES} bytes"
                )));
            }
            n => {
                all.try_reserve(n)?;
                all.extend_from_slice(&piece[..n]);
            }
        }
    }
}

/// Zeroed memory for an answer, if there is so much.
pub fn zeroed(bytes: usize) -> Result<Vec<u8>> {
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(bytes)
        .map_err(|_| Error::Protocol(format!("no memory for a message of {bytes} bytes")))?;
    memory.resize(bytes, 0);
    Ok(memory)
}

/// A message's fields that are messages again: number, memory of one, its fields.
struct Shape(&'static [(u32, usize, &'static Shape)]);

/// A list doubles as it grows, and moves.
const fn weight<T>() -> usize {
    2 * size_of::<T>()
}

const LEAF: Shape = Shape(&[]);
const ROW: Shape = Shape(&[(1, weight::<Value>(), &LEAF)]);
const STMT: Shape = Shape(&[(1, weight::<Col>(), &LEAF), (2, weight::<Row>(), &ROW)]);
const RESULT: Shape = Shape(&[(1, 0, &STMT)]);
/// Entries of two maps: results and errors by step.
const BATCH: Shape = Shape(&[
    (1, 2 * weight::<StmtResult>(), &Shape(&[(2, 0, &STMT)])),
    (2, 2 * weight::<SqlError>(), &LEAF),
]);
const BATCH_RESULT: Shape = Shape(&[(1, 0, &BATCH)]);
const RESPONSE: Shape = Shape(&[(2, 0, &RESULT), (3, 0, &BATCH_RESULT)]);
const STREAM_RESULT: Shape = Shape(&[(1, 0, &RESPONSE)]);
const PIPELINE: Shape = Shape(&[(3, weight::<StreamResult>(), &STREAM_RESULT)]);

/// Whether a pipeline's answer can be decoded in bounded memory: two bytes may
/// become hundreds.
pub fn check_hrana(bytes: &[u8]) -> std::result::Result<(), String> {
    let mut left = HRANA_MEMORY;
    weigh(bytes, &PIPELINE, &mut left)
}

fn weigh(mut bytes: &[u8], shape: &Shape, left: &mut usize) -> std::result::Result<(), String> {
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).map_err(|e| e.to_string())?;
        if wire != WireType::LengthDelimited {
            let skipped = skip_field(wire, tag, &mut bytes, DecodeContext::default());
            skipped.map_err(|e| e.to_string())?;
            continue;
        }
        let len = decode_varint(&mut bytes).map_err(|e| e.to_string())?;
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| bytes.split_at_checked(len));
        let (item, rest) = split.ok_or("a field longer than its message")?;
        bytes = rest;
        if let Some((_, weight, inner)) = shape.0.iter().find(|(number, ..)| *number == tag) {
            let rest = left.checked_sub(*weight);
            *left = rest.ok_or("an answer of more items than anything asks for")?;
            weigh(item, inner, left)?;
        }
    }
    Ok(())
}

/// Of the last minute: when everything was fetched because the primary had
/// another history.
#[derive(Default)]
pub struct Histories(Mutex<Vec<Instant>>);

const MINUTE: Duration = Duration::from_secs(60);
/// So many follow each other at once: a primary may crash now and then.
const AT_ONCE: usize = 5;

impl Histories {
    /// Another one: how long to wait with it, or that it begins now. The more
    /// there were, the longer.
    pub fn begin(&self, now: Instant) -> std::result::Result<(), Duration> {
        let mut begun = self.0.lock();
        begun.retain(|at| now.duration_since(*at) < MINUTE);
        let pause = Duration::from_secs((begun.len() + 1).saturating_sub(AT_ONCE) as u64);
        let due = begun.last().map_or(now, |last| *last + pause);
        match due
            .checked_duration_since(now)
            .filter(|wait| !wait.is_zero())
        {
            Some(wait) => Err(wait),
            None => {
                begun.push(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_not_tried_again() {
        let limit = RequestLimit::default();
        assert_eq!(limit.bytes(), REQUEST_BYTES);
        limit.refused(5 << 20);
        assert_eq!(limit.bytes(), USUAL_BYTES);
        limit.refused(900 << 10);
        assert_eq!(limit.bytes(), 450 << 10);
    }

    /// Field `number` with these bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        field.extend(bytes);
        field
    }

    #[test]
    fn a_small_answer_that_would_take_much_memory() {
        let nothing = |number| field(number, &[]);
        let stmt = |inner: Vec<u8>| field(3, &field(1, &field(2, &field(1, &inner))));
        assert!(check_hrana(&stmt(field(2, &nothing(1).repeat(100_000)))).is_ok());
        for many in [
            nothing(3).repeat(2_000_000),
            stmt(nothing(1).repeat(5_000_000)),
            stmt(nothing(2).repeat(5_000_000)),
            stmt(field(2, &nothing(1).repeat(5_000_000))),
            field(
                3,
                &field(1, &field(3, &field(1, &nothing(1).repeat(2_000_000)))),
            ),
            field(
                3,
                &field(1, &field(3, &field(1, &nothing(2).repeat(2_000_000)))),
            ),
        ] {
            assert!(many.len() < HRANA_BYTES && check_hrana(&many).is_err());
        }
        assert!(check_hrana(&[0x1a, 5, 0]).is_err());
    }

    #[test]
    fn slowness_is_what_is_waited_for() {
        struct Slow(Duration, usize);
        impl Read for Slow {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(self.0);
                Ok(self.1.min(buf.len()))
            }
        }
        let read = |pause, bytes, wait| {
            let mut pace = Pace::new(Duration::from_millis(wait));
            let mut source = Slow(Duration::from_millis(pause), bytes);
            (0..20).all(|_| pace.read(&mut source, &mut [0; 4096]).is_ok())
        };
        assert!(read(1, 4096, 0) && read(1, 1, 1000));
        assert!(!read(5, 1, 10));
    }

    #[test]
    fn histories_that_follow_each_other() {
        let (histories, start) = (Histories::default(), Instant::now());
        let begun =
            (0..6_000).filter(|ms| histories.begin(start + Duration::from_millis(*ms)).is_ok());
        assert_eq!(begun.count(), 7);
        // A quiet minute later.
        assert!(histories.begin(start + 2 * MINUTE).is_ok());
    }
}
