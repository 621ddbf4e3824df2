//! Who does the background work: one process for each file, whoever holds the
//! lock on `app.db-replica-lock`. The system gives a lock back when its
//! process dies, however it dies; the next one that tries has it.
//!
//! What the working process knows of the primary stands in the file, for the
//! others to show: they ask nobody. Unless they are to be more current than it
//! is: then they work beside it, which is more traffic and nothing worse.
//!
//! Whoever can read the file can lock it, and keep everybody else from the
//! work without doing any. So the note goes on, a beat every few seconds; who
//! holds the lock and does not go on is no reason to wait (`Watch`).

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::beside::{self, Companion};
use super::status::{Facts, State, unix_now};
use crate::error::Result;
use crate::ffi::fork::{self, Private};
use crate::ffi::thread;

/// What a note begins with; then JSON.
const MAGIC: &str = "libreplica lock\n";
/// A note is padded to this length, so that a shorter one needs no truncating.
const NOTE_SIZE: usize = 2048;
/// So often it is written anew.
const BEAT: Duration = Duration::from_secs(4);
/// A note that has not changed for so long is nobody's.
const SILENCE: Duration = Duration::from_secs(15);

/// A lock file of the database's own: a lock on a file that others open and
/// close would get lost where the system forgets locks at any close (NFS).
pub struct Candidate {
    private: Private,
    file: File,
}

/// The lock, held until dropped.
pub struct Leader {
    _private: Private,
    notes: Arc<Mutex<Notes>>,
    /// Ends the beat when dropped.
    _beat: Option<Sender<()>>,
}

/// What the working process lets the others know.
struct Notes {
    file: File,
    /// Without its beat.
    note: Value,
    beat: u64,
    /// The file is the next one's.
    ended: bool,
}

impl Candidate {
    pub fn new(db_path: &str) -> Result<Candidate> {
        let file = beside::make(db_path, Companion::Lock)?;
        Ok(Candidate {
            private: fork::keep_private(&file),
            file,
        })
    }

    /// The lock, if no other process (and no other worker of this one) has it.
    pub fn try_lead(self) -> std::result::Result<Leader, Candidate> {
        match self.file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(self),
            // No locks on this file system: everyone works, which is more
            // traffic and nothing worse.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Leader::new(self)),
        }
    }
}

impl Leader {
    fn new(candidate: Candidate) -> Leader {
        let notes = Arc::new(Mutex::new(Notes {
            file: candidate.file,
            note: json!({}),
            beat: 0,
            ended: false,
        }));
        notes.lock().write();
        let (stop, stopped) = channel();
        let beating = notes.clone();
        let beat = thread::spawn("libreplica-beat", move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                beating.lock().write();
            }
        });
        Leader {
            _private: candidate.private,
            notes,
            // Without a thread others may work, too.
            _beat: beat.ok().map(|_| stop),
        }
    }

    /// Lets the other processes know. Not every commit: what changes seldom.
    pub fn note(&mut self, live: bool, facts: &Facts) {
        let note = json!({
            "live": live,
            "state": facts.state.name(),
            "primary_frame_no": facts.primary_frame_no,
            "last_sync": facts.last_sync,
            "last_error": facts.last_error,
            "offline_since": facts.offline_since,
        });
        let mut notes = self.notes.lock();
        if notes.note != note {
            notes.note = note;
            notes.write();
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Not by closing alone: some child may have a copy of the handle.
        let mut notes = self.notes.lock();
        notes.note = json!({});
        notes.write();
        notes.ended = true;
        let _ = notes.file.unlock();
    }
}

impl Notes {
    fn write(&mut self) {
        if self.ended {
            return;
        }
        self.beat += 1;
        let mut note = self.note.clone();
        note["beat"] = json!(self.beat);
        note["pid"] = json!(fork::process());
        note["at"] = json!(unix_now());
        let mut text = format!("{MAGIC}{note}");
        if text.len() > NOTE_SIZE {
            // An error in too many words.
            note["last_error"] = Value::Null;
            text = format!("{MAGIC}{note}");
        }
        let padded = format!("{text:NOTE_SIZE$}");
        // For show, and to show that it goes on.
        let _ = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(padded.as_bytes()));
    }
}

/// Looks whether whoever holds the lock goes on.
#[derive(Default)]
pub struct Watch(Option<(String, Instant)>);

impl Watch {
    /// Whether nothing has been heard for a while of a process that works.
    pub fn is_silent(&mut self, db_path: &str) -> bool {
        let text = text(db_path).unwrap_or_default();
        match &self.0 {
            Some((heard, since)) if *heard == text => since.elapsed() >= SILENCE,
            _ => {
                self.0 = Some((text, Instant::now()));
                false
            }
        }
    }
}

fn text(db_path: &str) -> Option<String> {
    let mut file = beside::read(db_path, Companion::Lock).ok()??;
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(NOTE_SIZE as u64).read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn newer(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    if a > b { a } else { b }
}

/// What the working process last noted.
pub struct Note(Value);

/// The note, if a process works on this file.
pub fn noted(db_path: &str) -> Option<Note> {
    let file = beside::read(db_path, Companion::Lock).ok()??;
    // Nobody holds it: an old note of a process that is gone.
    if file.try_lock_shared().is_ok() {
        return None;
    }
    let text = text(db_path)?;
    let note: Value = serde_json::from_str(text.strip_prefix(MAGIC)?.trim_end()).ok()?;
    // Of a process that has nothing to say yet, or that does not hold the lock
    // any more: somebody else does.
    let age = unix_now() - note["at"].as_f64()?;
    (note["state"].is_string() && age.abs() <= SILENCE.as_secs_f64()).then_some(Note(note))
}

impl Note {
    pub fn last_sync(&self) -> Option<f64> {
        self.0["last_sync"].as_f64()
    }

    pub fn is_live(&self) -> bool {
        self.0["live"] == true
    }

    /// When the primary was last known to be there, or not to be.
    pub fn newest(&self) -> Option<f64> {
        let offline_since = self.0["offline_since"].as_f64();
        newer(self.last_sync(), offline_since)
    }

    pub fn apply(&self, facts: &mut Facts) {
        let note = &self.0;
        facts.state = match note["state"].as_str() {
            Some("online") => State::Online,
            _ => State::Offline,
        };
        facts.primary_frame_no = note["primary_frame_no"].as_u64();
        facts.last_sync = self.last_sync();
        facts.last_error = note["last_error"].as_str().map(str::to_string);
        facts.offline_since = note["offline_since"].as_f64();
    }
}
