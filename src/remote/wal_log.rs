//! A libSQL primary (sqld) by its replication protocol: service `wal_log`,
//! gRPC-web. Everything that arrives is checked here before anyone sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::grpc_web::{self, Answer, Item, Status, Stream};
use super::http::{Http, Line};
use super::wire::{FRAME_SIZE, HelloRequest, HelloResponse, LogFrame, LogOffset, RpcFrame};
use super::{
    Divergence, Followed, Follower, Head, MAX_LOG_ID, PageSink, Position, Pull, Reached, Remote,
    SharedOptions, chain,
};
use crate::error::{Error, Result};
use crate::ffi::attention;

mod batches;
mod piece;
mod stream;

use batches::Batch;

const HELLO: &str = "/wal_log.ReplicationLog/Hello";
const SNAPSHOT: &str = "/wal_log.ReplicationLog/Snapshot";

/// Hello carries the database's configuration besides two ids.
const MAX_HELLO: u32 = 1 << 20;
/// An encoded Frame: the frame, a time stamp, a durable frame number.
const MAX_RPC_FRAME: u64 = FRAME_SIZE as u64 + 64;

pub struct WalLog {
    http: Arc<Http>,
    options: SharedOptions,
    session: Option<String>,
}

/// How far one pull has come.
struct Progress {
    next: u64,
    /// Checksum of the frame before `next`, None where it cannot be known
    /// (behind a snapshot).
    chain: Option<u64>,
    page_count: u32,
    frames: u64,
    /// The frame before `next` is not its transaction's last.
    in_transaction: bool,
}

impl From<&Position> for Progress {
    fn from(position: &Position) -> Progress {
        Progress {
            next: position.next(),
            chain: position.checksum,
            page_count: 0,
            frames: 0,
            in_transaction: false,
        }
    }
}

/// Why the primary gives no log, where there is something to be done about it.
enum Refusal {
    NoHello,
    NeedSnapshot,
}

fn refusal(status: Status) -> Result<Refusal> {
    if status.is(Status::FAILED_PRECONDITION, "NO_HELLO") {
        Ok(Refusal::NoHello)
    } else if status.is(Status::FAILED_PRECONDITION, "NEED_SNAPSHOT") {
        Ok(Refusal::NeedSnapshot)
    } else {
        Err(status.into_error())
    }
}

impl WalLog {
    pub fn new(http: Arc<Http>, options: SharedOptions) -> WalLog {
        WalLog {
            http,
            options,
            session: None,
        }
    }

    /// Ends its network waits from another thread.
    pub fn line(&self) -> Line {
        self.http.line()
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = self.http.headers();
        if let Some(session) = &self.session {
            headers.push(("x-session-token", session.clone()));
        }
        headers
    }

    fn call(&self, path: &str, next_offset: u64) -> Result<Answer<'_>> {
        grpc_web::call(&self.http, path, self.headers(), &LogOffset { next_offset })
    }

    /// The compacted part of the log: each page once, newest frame first.
    fn snapshot(&self, progress: &mut Progress, sink: &mut dyn PageSink) -> Result<()> {
        sink.compacted()?;
        let deadline = Instant::now() + self.options.lock().timeout;
        let mut pause = Duration::from_millis(10);
        loop {
            let status = match self.call(SNAPSHOT, progress.next)? {
                Answer::Stream(mut stream) => {
                    match self.snapshot_frames(&mut stream, progress, sink)? {
                        None => return Ok(()),
                        Some(status) => status,
                    }
                }
                Answer::Refused(status) => status,
            };
            // While the primary compacts its log there is no snapshot for a moment.
            if status.code != Status::UNAVAILABLE || Instant::now() + pause > deadline {
                return Err(status.into_error());
            }
            attention::pause(pause)?;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Reads a snapshot; answers a status with which it ended before its first frame.
    fn snapshot_frames(
        &self,
        stream: &mut Stream,
        progress: &mut Progress,
        sink: &mut dyn PageSink,
    ) -> Result<Option<Status>> {
        let bad = |why: String| Error::Protocol(format!("snapshot: {why}"));
        let mut end = None;
        let mut previous: Option<u64> = None;
        let mut size = 0;
        loop {
            match stream.next()? {
                Item::Message => {
                    let message: RpcFrame = stream.message(MAX_RPC_FRAME as u32)?;
                    let frame = decode(&message.data)?;
                    if size != 0 {
                        return Err(bad("frames behind the one with the database size".into()));
                    }
                    let below = previous.is_none_or(|p| frame.frame_no < p);
                    if !below || frame.frame_no < progress.next {
                        return Err(bad(format!("frame {} out of order", frame.frame_no)));
                    }
                    end.get_or_insert(frame.frame_no);
                    previous = Some(frame.frame_no);
                    size = frame.size_after;
                    sink.page(frame.pgno, frame.page)?;
                    progress.frames += 1;
                }
                Item::End(Some(status)) if end.is_none() => return Ok(Some(status)),
                Item::End(Some(status)) => return Err(status.into_error()),
                Item::End(None) => break,
            }
        }
        match end {
            Some(end) if size != 0 => {
                *progress = Progress {
                    next: end + 1,
                    chain: None,
                    page_count: size,
                    in_transaction: false,
                    ..*progress
                };
                Ok(None)
            }
            _ => Err(bad("it ends without the database size".into())),
        }
    }

    /// The same history, at least as far as a Hello said before?
    fn renew(&mut self, to: &Head) -> Result<Option<String>> {
        let head = self.hello()?;
        Ok((head.log_id != to.log_id || head.frame_no < to.frame_no)
            .then(|| "the primary's history changed during the sync".to_string()))
    }
}

impl WalLog {
    fn hello_now(&mut self) -> Result<Head> {
        self.session = None;
        let asked = Instant::now();
        let answer = grpc_web::call(
            &self.http,
            HELLO,
            self.headers(),
            &HelloRequest {
                handshake_version: Some(1),
            },
        )?;
        let mut stream = match answer {
            Answer::Stream(stream) => stream,
            Answer::Refused(status) => return Err(status.into_error()),
        };
        let hello: HelloResponse = match stream.next()? {
            Item::Message => stream.message(MAX_HELLO)?,
            Item::End(Some(status)) => return Err(status.into_error()),
            Item::End(None) => return Err(Error::Protocol("an empty Hello".into())),
        };
        if let Item::End(Some(status)) = stream.next()? {
            return Err(status.into_error());
        }
        let is_word = hello.log_id.bytes().all(|b| b.is_ascii_graphic());
        if hello.log_id.is_empty() || hello.log_id.len() > MAX_LOG_ID || !is_word {
            return Err(Error::Protocol("Hello without a usable log_id".into()));
        }
        let session = String::from_utf8(hello.session_token)
            .ok()
            .filter(|t| t.bytes().all(|b| (0x21..0x7f).contains(&b)))
            .ok_or_else(|| Error::Protocol("Hello with an unusable session token".into()))?;
        self.session = Some(session);
        self.http.confirm(&hello.log_id, asked.elapsed());
        Ok(Head {
            log_id: hello.log_id,
            frame_no: hello.current_replication_index,
        })
    }
}

impl Remote for WalLog {
    fn hello(&mut self) -> Result<Head> {
        self.http.limit_waits(Duration::MAX);
        self.hello_now()
    }

    fn probe(&mut self, limit: Duration) -> Result<Head> {
        self.http.limit_waits(limit);
        self.hello_now()
    }

    fn follow(&mut self, from: &Position, follower: &mut dyn Follower) -> Result<Followed> {
        self.follow_log(from, follower)
    }

    fn pull(&mut self, from: &Position, to: &Head, sink: &mut dyn PageSink) -> Result<Pull> {
        if from.log_id != to.log_id {
            let (theirs, ours) = (&to.log_id, &from.log_id);
            let why = format!("the primary has another log ({theirs} instead of {ours})");
            return Ok(Pull::Diverged(why.into()));
        }
        if to.frame_no < from.frame_no {
            let theirs = to
                .frame_no
                .map_or("its beginning".into(), |n| n.to_string());
            let ours = from.frame_no.unwrap_or(0);
            let why = format!("the primary lost frames: it is at {theirs}, this replica at {ours}");
            return Ok(Pull::Diverged(why.into()));
        }
        let Some(goal) = to.frame_no.filter(|_| to.frame_no != from.frame_no) else {
            return Ok(Pull::UpToDate);
        };
        let mut progress = Progress::from(from);
        let mut renewals = 0;
        while progress.next <= goal {
            match self.batches(goal, &mut progress, sink)? {
                Batch::Frames(0) => {
                    return Err(Error::Protocol(format!(
                        "no frame {} although Hello gave {goal} as the newest",
                        progress.next
                    )));
                }
                Batch::Frames(_) => {}
                Batch::Refused(Refusal::NeedSnapshot) => self.snapshot(&mut progress, sink)?,
                Batch::Refused(Refusal::NoHello) if renewals < 3 => {
                    renewals += 1;
                    if let Some(why) = self.renew(to)? {
                        return Ok(Pull::Diverged(why.into()));
                    }
                }
                Batch::Refused(Refusal::NoHello) => {
                    return Err(Error::Protocol("NO_HELLO again and again".into()));
                }
                Batch::Diverged(checksum) => {
                    return Ok(Pull::Diverged(Divergence {
                        why: format!(
                            "the primary's frame {} does not follow this replica's frame {}",
                            from.next(),
                            from.frame_no.unwrap_or(0)
                        ),
                        checksum: Some(checksum),
                    }));
                }
            }
        }
        Ok(Pull::Reached(Reached {
            position: Position {
                log_id: from.log_id.clone(),
                frame_no: Some(progress.next - 1),
                checksum: progress.chain,
            },
            page_count: progress.page_count,
            frames: progress.frames,
        }))
    }
}

/// Checks log frames against their neighbours and hands their pages on.
struct LogFrames<'a> {
    progress: &'a mut Progress,
    sink: &'a mut dyn PageSink,
}

impl LogFrames<'_> {
    /// `rest`: the other fields of its message. If the very first frame of the
    /// pull does not continue the chain: the checksum that it does continue.
    fn take(&mut self, frame: &LogFrame, rest: &[u8]) -> Result<Option<u64>> {
        let progress = &mut *self.progress;
        check_due(frame, progress.next)?;
        let follows = |previous| chain::next(previous, frame.page) == frame.checksum;
        // Where the primary has compacted its log the chain begins anew with
        // the next transaction (logger.rs, `LogFile::maybe_compact`).
        let begins_a_log = || !progress.in_transaction && follows(0);
        if !progress.chain.is_none_or(follows) && !begins_a_log() {
            if progress.frames == 0 && progress.next > 0 {
                return Ok(Some(chain::before(frame.checksum, frame.page)));
            }
            return Err(Error::Protocol(format!(
                "checksum of frame {} is wrong",
                frame.frame_no
            )));
        }
        self.sink.page(frame.pgno, frame.page)?;
        progress.chain = Some(frame.checksum);
        progress.next += 1;
        progress.frames += 1;
        progress.in_transaction = frame.size_after == 0;
        if frame.size_after != 0 {
            progress.page_count = frame.size_after;
            let rest: RpcFrame = prost::Message::decode(rest).unwrap_or_default();
            self.sink.committed(frame.size_after, rest.timestamp);
        }
        Ok(None)
    }
}

/// Frames come one after the other.
fn check_due(frame: &LogFrame, next: u64) -> Result<()> {
    match frame.frame_no {
        no if no == next => Ok(()),
        no => Err(Error::Protocol(format!("frame {no} where {next} is due"))),
    }
}

fn decode(bytes: &[u8]) -> Result<LogFrame<'_>> {
    let frame = LogFrame::decode(bytes)
        .ok_or_else(|| Error::Protocol(format!("a log frame of {} bytes", bytes.len())))?;
    if frame.pgno == 0 || frame.pgno.max(frame.size_after) == u32::MAX {
        return Err(Error::Protocol(format!(
            "frame {} is for page {} of {}",
            frame.frame_no, frame.pgno, frame.size_after
        )));
    }
    if frame.frame_no == u64::MAX {
        return Err(Error::Protocol("a frame number past all bounds".into()));
    }
    Ok(frame)
}
