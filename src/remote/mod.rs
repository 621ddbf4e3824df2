//! The primary, as the replica sees it. One trait; a file for each protocol.

mod answer;
mod budget;
pub mod chain;
pub mod grpc_web;
mod heard;
mod hrana;
mod hrana_wire;
pub mod http;
pub mod lease;
pub mod mailbox;
pub mod outcome;
pub mod pages;
pub mod primary;
mod program;
mod proxies;
pub mod rows;
mod socket;
pub mod transaction;
pub mod values;
pub mod wal_log;
pub mod wire;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::Options;
use crate::error::{Error, Result};
use crate::wal::Page;

/// A log_id longer than this is none (sqld's are uuids, 36 characters).
pub const MAX_LOG_ID: usize = 64;

/// A point in a primary's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which history: sqld's log_id. Positions of different histories never compare.
    pub log_id: String,
    /// The newest frame applied; None before the first.
    pub frame_no: Option<u64>,
    /// That frame's checksum in the primary's log, where known: it ties the
    /// next frame to it.
    pub checksum: Option<u64>,
}

impl Position {
    pub fn start(log_id: String) -> Position {
        // The chain of frame 0 begins at zero.
        Position {
            log_id,
            frame_no: None,
            checksum: Some(0),
        }
    }

    /// The first frame after it.
    pub fn next(&self) -> u64 {
        self.frame_no.map_or(0, |n| n + 1)
    }
}

/// What the primary says of itself.
#[derive(Clone, Debug)]
pub struct Head {
    pub log_id: String,
    /// Its newest frame; None for an empty database.
    pub frame_no: Option<u64>,
}

/// Takes pages as they arrive; of a page that comes twice the later one counts.
pub trait PageSink {
    fn page(&mut self, pgno: u32, page: &Page) -> Result<()>;
    /// The pages so far are a transaction's last (not told within a compacted
    /// part), and the database has so many of them. `at`: when, in ms since
    /// 1970, by the primary's clock.
    fn committed(&mut self, _page_count: u32, _at: Option<i64>) {}
    /// A compacted part begins: its pages are those of many transactions.
    fn compacted(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How a pull ended.
#[derive(Debug)]
pub enum Pull {
    /// Nothing newer than the position.
    UpToDate,
    /// The sink was given every page that changed between the position and here.
    Reached(Reached),
    /// The position is not in the primary's history. What the sink was given
    /// is to be thrown away.
    Diverged(Divergence),
}

/// Why a position is not in the primary's history.
#[derive(Debug)]
pub struct Divergence {
    /// In words.
    pub why: String,
    /// What the primary's log has for the checksum of the position's frame, if
    /// that is all that differs.
    pub checksum: Option<u64>,
}

impl From<String> for Divergence {
    fn from(why: String) -> Divergence {
        Divergence {
            why,
            checksum: None,
        }
    }
}

#[derive(Debug)]
pub struct Reached {
    pub position: Position,
    /// Database size in pages.
    pub page_count: u32,
    /// Frames received.
    pub frames: u64,
}

/// A primary. Every call is bounded: no single network wait lasts longer than
/// the `timeout` option.
pub trait Remote: Send {
    /// Which history the primary has now, and how far it is.
    fn hello(&mut self) -> Result<Head>;
    /// The same, for a primary that may be away: each wait at most `limit`.
    fn probe(&mut self, limit: Duration) -> Result<Head>;
    /// Sends every change after `from` up to `to`, which a hello just gave, into the sink.
    fn pull(&mut self, from: &Position, to: &Head, sink: &mut dyn PageSink) -> Result<Pull>;
    /// Hands every change after `from` on as it happens, without end.
    fn follow(&mut self, from: &Position, follower: &mut dyn Follower) -> Result<Followed>;
}

/// Takes the primary's log as it grows. An error of any of these ends the
/// stream and is its result.
pub trait Follower {
    /// The stream is open; the primary was at `head` just before.
    fn opened(&mut self, head: &Head) -> Result<()>;
    /// The page of a frame, in the order of the log.
    fn page(&mut self, frame_no: u64, checksum: u64, pgno: u32, page: &Page) -> Result<()>;
    /// The pages so far lead to this commit, at this database size.
    fn commit(&mut self, position: Position, page_count: u32) -> Result<()>;
    /// Nothing has come for as long as a network wait may last.
    fn silent(&mut self) -> Result<()>;
}

/// How a stream ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Followed {
    /// The primary ended it.
    Ended,
    /// The position is not in the primary's log (any more); a pull knows what to do.
    SyncFirst,
}

/// The longest text, blob or row of a libSQL primary, in bytes
/// (libsql-server/src/connection/config.rs).
pub const MAX_VALUE: i32 = 5_000_000;

/// The replica's options. They may change while it is open, even during a
/// sync: a request takes the token and the time limit that hold when it begins.
pub type SharedOptions = std::sync::Arc<Mutex<Options>>;

/// Bytes of requests and answers, bodies only; and what they made us do.
#[derive(Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    histories: budget::Histories,
}

impl Traffic {
    pub fn snapshot(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.received.load(Relaxed))
    }

    /// The primary has another history, so everything is to be fetched anew:
    /// unless that was so again and again.
    pub fn begin_history(&self) -> Result<()> {
        self.histories.begin(Instant::now()).map_err(|wait| {
            Error::Unreachable(format!(
                "the primary has another history again and again; everything is fetched anew in {:.1} s at the earliest, or with replica_resync()",
                wait.as_secs_f64()
            ))
        })
    }
}
