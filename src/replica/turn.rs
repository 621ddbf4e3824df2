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

const PAUSE: Duration = Duration::from_micros(200);

struct Place {
    /// A child that is forked has no part in it.
    _private: Private,
    file: File,
    number: u32,
    /// When it was last asked for.
    asked: Instant,
}

impl Place {
    /// The last place, if that is free.
    fn new(db_path: &str) -> Option<Place> {
        let file = beside::make(db_path, Companion::Lock).ok()?;
        let number = places::COUNT - 1;
        places::take(&file, number).then(|| Place {
            _private: fork::keep_private(&file),
            file,
            number,
            asked: Instant::now(),
        })
    }

    /// Goes on as far as nobody stands in front; true at the first place.
    fn advance(&mut self) -> bool {
        self.asked = Instant::now();
        while self.number > 0 && places::take(&self.file, self.number - 1) {
            places::leave(&self.file, self.number);
            self.number -= 1;
        }
        self.number == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        places::leave(&self.file, self.number);
    }
}

/// A connection's place in the queue, if it stands there.
pub struct Turn {
    db_path: String,
    place: Arc<Mutex<Option<Place>>>,
}

impl Turn {
    pub fn new(db_path: &str) -> Turn {
        Turn {
            db_path: db_path.to_string(),
            place: Arc::default(),
        }
    }

    /// Whether it is this connection's turn. If not, it stands in the queue.
    pub fn has_come(&self) -> bool {
        if let Some(place) = &mut *self.place.lock() {
            return place.advance();
        }
        match self.is_anybody_waiting() {
            true => self.wait(),
            false => true,
        }
    }

    /// Stands in the queue until the next try; true at its first place. Where
    /// it is full, or none can be had, chance decides, as without one.
    pub fn wait(&self) -> bool {
        let mut place = self.place.lock();
        if let Some(place) = &mut *place {
            return place.advance();
        }
        let Some(mut new) = Place::new(&self.db_path) else {
            return false;
        };
        let is_first = new.advance();
        *place = Some(new);
        self.expire();
        is_first
    }

    /// Whether it stands in the queue.
    pub fn is_waiting(&self) -> bool {
        self.place.lock().is_some()
    }

    /// How long it waits until it looks again: the next one is quick.
    pub fn pause(&self) -> Duration {
        match &*self.place.lock() {
            Some(place) if place.number > 1 => PAUSE * 8,
            _ => PAUSE,
        }
    }

    /// It writes, or gives up.
    pub fn leave(&self) {
        *self.place.lock() = None;
    }

    fn is_anybody_waiting(&self) -> bool {
        let file = beside::look(&self.db_path, Companion::Lock);
        file.is_some_and(|file| places::is_any_taken(&file))
    }

    /// Gives the place up if nobody asks for it any more.
    fn expire(&self) {
        let place = Arc::downgrade(&self.place);
        let expire = move || {
            let mut left = PATIENCE;
            while !left.is_zero() {
                std::thread::sleep(left);
                let Some(place) = place.upgrade() else { return };
                let mut place = place.lock();
                left = match &*place {
                    Some(place) => PATIENCE.saturating_sub(place.asked.elapsed()),
                    None => return,
                };
                if left.is_zero() {
                    *place = None;
                }
            }
        };
        if thread::spawn("libreplica-turn", expire).is_err() {
            self.leave();
        }
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
            assert!(!turn.has_come());
        }
        // Whoever has just written stands at the end.
        assert!(!turns[0].has_come());
        for next in [1, 2, 3, 4, 0] {
            for turn in &turns {
                let waits = turn.place.lock().is_some();
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
        assert!(first.wait() && !second.has_come());
        let begun = Instant::now();
        while !second.has_come() {
            assert!(begun.elapsed() < PATIENCE * 10);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() > PATIENCE / 2);
        drop(first);
    }
}
