//! Who does the background work: one process for each file, whoever holds the
//! lock on `app.db-replica-lock`. The system gives a lock back when its
//! process dies, however it dies; the next one that tries has it.
//!
//! What the working process knows of the primary stands in the file, for the
//! others to show: they ask nobody. Unless they are to be more current than it
//! is: then they work beside it, which is more traffic and nothing worse.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};

use serde_json::{Value, json};

use super::status::{Facts, State};
use crate::error::{Error, Result};
use crate::ffi::fork::{self, Private};

/// A note is padded to this length, so that a shorter one needs no truncating.
const NOTE_SIZE: usize = 2048;

fn path_of(db_path: &str) -> String {
    format!("{db_path}-replica-lock")
}

/// A lock file of the database's own: a lock on a file that others open and
/// close would get lost where the system forgets locks at any close (NFS).
pub struct Candidate {
    private: Private,
    file: File,
}

/// The lock, held until dropped.
pub struct Leader {
    _private: Private,
    file: File,
    noted: String,
}

impl Candidate {
    pub fn new(db_path: &str) -> Result<Candidate> {
        let path = path_of(db_path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::CantOpen(format!("cannot open '{path}': {e}")))?;
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
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Leader {
                _private: self.private,
                file: self.file,
                noted: String::new(),
            }),
        }
    }
}

impl Leader {
    /// Lets the other processes know. Not every commit: what changes seldom.
    pub fn note(&mut self, live: bool, facts: &Facts) {
        let text = json!({
            "live": live,
            "state": facts.state.name(),
            "primary_frame_no": facts.primary_frame_no,
            "last_sync": facts.last_sync,
            "last_error": facts.last_error,
            "offline_since": facts.offline_since,
        })
        .to_string();
        if text == self.noted || text.len() > NOTE_SIZE {
            return;
        }
        let padded = format!("{text:NOTE_SIZE$}");
        let mut file = &self.file;
        // For show only.
        let _ = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(padded.as_bytes()));
        self.noted = text;
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Not by closing alone: some child may have a copy of the handle.
        let _ = self.file.unlock();
    }
}

pub fn newer(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    if a > b { a } else { b }
}

/// What the working process last noted.
pub struct Note(Value);

/// The note, if a process works on this file.
pub fn noted(db_path: &str) -> Option<Note> {
    let file = File::open(path_of(db_path)).ok()?;
    // Nobody holds it: an old note of a process that is gone.
    if file.try_lock_shared().is_ok() {
        return None;
    }
    let mut text = String::new();
    file.take(NOTE_SIZE as u64).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.trim_end()).ok().map(Note)
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
