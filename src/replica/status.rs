//! What can be known of a replica without asking anyone: counters and the last
//! of each event.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::Error;
use crate::remote::Traffic;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Online,
    Offline,
    Bootstrapping,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Online => "online",
            State::Offline => "offline",
            State::Bootstrapping => "bootstrapping",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Facts {
    pub state: State,
    pub frame_no: Option<u64>,
    pub primary_frame_no: Option<u64>,
    /// Unix seconds.
    pub last_sync: Option<f64>,
    pub last_error: Option<String>,
    /// Why background work goes on without the other processes' knowledge.
    pub beside: Option<String>,
    /// Unix seconds, since when the primary has not answered; None while it
    /// does, and before it was asked.
    pub offline_since: Option<f64>,
    pub frames_applied: u64,
    pub commits_shipped: u64,
    /// How commits travel, once one has.
    pub write_path: Option<&'static str>,
}

pub struct Status {
    facts: Mutex<Facts>,
    pub traffic: Arc<Traffic>,
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}

impl Status {
    fn new() -> Status {
        let facts = Facts {
            // Nothing is known of the primary before it is asked.
            state: State::Offline,
            frame_no: None,
            primary_frame_no: None,
            last_sync: None,
            last_error: None,
            beside: None,
            offline_since: None,
            frames_applied: 0,
            commits_shipped: 0,
            write_path: None,
        };
        Status {
            facts: Mutex::new(facts),
            traffic: Arc::default(),
        }
    }

    pub fn facts(&self) -> Facts {
        self.facts.lock().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock());
    }

    /// The primary answered, and the replica is at this frame.
    pub fn synced(&self, frame_no: Option<u64>, frames: u64) {
        self.update(|f| {
            f.state = State::Online;
            f.frame_no = frame_no;
            f.frames_applied += frames;
            f.last_sync = Some(unix_now());
            f.last_error = None;
            f.offline_since = None;
        });
    }

    /// The primary answered that it is at this frame.
    pub fn heard(&self, primary_frame_no: Option<u64>) {
        self.update(|f| {
            f.state = State::Online;
            f.primary_frame_no = primary_frame_no.max(f.frame_no);
            f.last_sync = Some(unix_now());
            f.last_error = None;
            f.offline_since = None;
        });
    }

    /// A commit is at the primary, and this frame is its end, if that is known.
    pub fn shipped(&self, frame_no: Option<u64>) {
        self.update(|f| {
            f.state = State::Online;
            f.commits_shipped += 1;
            f.last_error = None;
            if frame_no.is_some() {
                f.frame_no = frame_no;
                f.primary_frame_no = f.primary_frame_no.max(frame_no);
            }
        });
    }

    pub fn failed(&self, error: &Error) {
        self.update(|f| {
            f.last_error = Some(error.to_string());
            if matches!(error, Error::Unreachable(_)) || f.state == State::Bootstrapping {
                f.state = State::Offline;
                f.offline_since.get_or_insert_with(unix_now);
            }
        });
    }
}

/// Seconds since 1970.
pub fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
