//! Whose turn it is to write, where several connections and processes want to
//! at the same time. SQLite's lock goes to whoever asks at the right moment,
//! and that is the one who has just written: the others sleep. So whoever
//! finds it taken stands in a queue, of places in `app.db-replica-lock`, and
//! who comes while there is a queue stands at its end. It costs a look where
//! nobody waits.
//!
//! One goes on to the next place when that is free, so none overtakes another.
//! SQLite's busy handler is what waits, as long as it is told; whoever does
//! not come again loses the place.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::beside::{self, Companion};
use crate::ffi::fork::{self, Private};
use crate::ffi::{places, thread};

/// A busy handler sleeps no longer than a third of it at a time.
const PATIENCE: Duration = Duration::from_millis(300);
/// Whoever stands there for the first time may never come again: a first sleep
/// is short.
const FIRST: Duration = Duration::from_millis(120);
/// Who stands in front and does not go on for so long may be stopped.
const STUCK: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(200);

struct Place {
    /// A child that is forked has no part in it.
    owned: Option<(Private, File)>,
    process: u32,
    number: u32,
    /// Since when it is this one.
    reached: Instant,
    /// When it was last asked for, and whether it was asked for again.
    asked: Instant,
    again: bool,
}

impl Place {
    /// The last place, if that is free.
    fn new(db_path: &str) -> Option<Place> {
        let file = beside::make(db_path, Companion::Lock).ok()?;
        let private = fork::keep_private(&file);
        let (number, now) = (places::COUNT - 1, Instant::now());
        places::take(&file, number).then(|| Place {
            owned: Some((private, file)),
            process: fork::process(),
            number,
            reached: now,
            asked: now,
            again: false,
        })
    }

    /// Goes on as far as nobody stands in front; true at the first place, or
    /// where whoever is in front does not move.
    fn advance(&mut self) -> bool {
        self.asked = Instant::now();
        if let Some((_, file)) = &self.owned {
            while self.number > 0 && places::take(file, self.number - 1) {
                places::leave(file, self.number);
                self.number -= 1;
                self.reached = self.asked;
            }
        }
        self.number == 0 || self.reached.elapsed() > STUCK
    }

    /// How long it is still kept if nobody asks for it.
    fn left(&self) -> Duration {
        let life = if self.again { PATIENCE } else { FIRST };
        life.saturating_sub(self.asked.elapsed())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.process != fork::process() {
            // In a child the file is closed already, and its number another's.
            return std::mem::forget(self.owned.take());
        }
        if let Some((_, file)) = &self.owned {
            places::leave(file, self.number);
        }
    }
}

#[derive(Default)]
struct State {
    place: Option<Place>,
    /// A thread looks after it.
    watched: bool,
}

/// A connection's place in the queue, if it stands there.
pub struct Turn {
    db_path: String,
    state: Arc<Mutex<State>>,
}

impl Turn {
    pub fn new(db_path: &str) -> Turn {
        Turn {
            db_path: db_path.to_string(),
            state: Arc::default(),
        }
    }

    /// Whether it is this connection's turn: it stands in front, or nobody waits.
    pub fn has_come(&self) -> bool {
        if let Some(place) = &mut self.state.lock().place {
            place.again = true;
            return place.advance();
        }
        !self.is_anybody_waiting()
    }

    /// Stands in the queue until the next try; true at its first place. Where
    /// it is full, or none can be had, chance decides, as without one.
    pub fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if let Some(place) = &mut state.place {
            return place.advance();
        }
        let Some(mut new) = Place::new(&self.db_path) else {
            return true;
        };
        let is_first = new.advance();
        state.place = Some(new);
        if !state.watched {
            state.watched = self.watch();
        }
        is_first
    }

    /// Whether it stands in the queue.
    pub fn is_waiting(&self) -> bool {
        self.state.lock().place.is_some()
    }

    /// How long it waits until it looks again: the next one is quick.
    pub fn pause(&self) -> Duration {
        match &self.state.lock().place {
            Some(place) if place.number > 1 => PAUSE * 8,
            _ => PAUSE,
        }
    }

    /// It writes, or gives up.
    pub fn leave(&self) {
        self.state.lock().place = None;
    }

    fn is_anybody_waiting(&self) -> bool {
        let file = beside::look(&self.db_path, Companion::Lock);
        file.is_some_and(|file| places::is_any_taken(&file))
    }

    /// Has a thread give the place up if nobody asks for it any more; it ends
    /// when there is none.
    fn watch(&self) -> bool {
        let state = Arc::downgrade(&self.state);
        let watch = move || {
            let mut left = FIRST;
            loop {
                std::thread::sleep(left.max(Duration::from_millis(1)));
                let Some(state) = state.upgrade() else { return };
                let mut state = state.lock();
                match state.place.as_ref().map(Place::left) {
                    Some(more) if !more.is_zero() => left = more,
                    _ => {
                        *state = State::default();
                        return;
                    }
                }
            }
        };
        thread::spawn("libreplica-turn", watch).is_ok()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn db_path(name: &str) -> String {
        let dir = std::env::temp_dir().join(format!("libreplica-turn-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        std::fs::write(&path, b"").unwrap();
        path.to_str().unwrap().to_string()
    }

    #[test]
    fn none_overtakes_another() {
        let path = db_path("order");
        let turns: Vec<Turn> = (0..5).map(|_| Turn::new(&path)).collect();
        assert!(turns[0].has_come());
        // The lock was taken: the others queue.
        assert!(turns[1].wait());
        for turn in &turns[2..] {
            assert!(!turn.has_come() && !turn.wait());
        }
        // Whoever has just written stands at the end.
        assert!(!turns[0].has_come() && !turns[0].wait());
        for next in [1, 2, 3, 4, 0] {
            for turn in &turns {
                let waits = turn.is_waiting();
                assert_eq!(waits && turn.has_come(), std::ptr::eq(turn, &turns[next]));
            }
            turns[next].leave();
        }
        assert!(turns[3].has_come() && turns[2].has_come());
    }

    #[test]
    fn a_place_that_nobody_asks_for_is_given_up() {
        let path = db_path("expiry");
        let (first, second) = (Turn::new(&path), Turn::new(&path));
        assert!(first.wait() && !second.has_come() && !second.wait());
        let begun = Instant::now();
        while !second.has_come() {
            assert!(begun.elapsed() < PATIENCE * 3);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() > FIRST / 2);
        drop(first);
    }
}
