//! What became of a commit whose answer was lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::hrana::{Failure, Stream, close};
use super::lease::Lease;
use super::primary::Primary;
use super::{Head, PageSink, Position, Pull, Remote};
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::ffi::attention;
use crate::wal::Page;

/// What became of it.
pub enum Outcome {
    Committed,
    /// It is not committed, and will not be.
    Refused,
    /// Nothing has been committed since. What was sent without the lock may
    /// still be on its way; upon this one it can be sent again, and then
    /// whatever comes later comes too late.
    Nothing(Lease),
}

/// Where to look for a commit in the primary's log.
pub struct Past<'a> {
    pub base: &'a Position,
    /// Frames behind `base` that were there before it.
    pub skip: u64,
    /// How it was shipped.
    pub path: WritePath,
    /// It was sent after this moment, in ms since 1970 by the primary's clock.
    pub sent: Option<i64>,
}

impl Primary {
    /// What became of the commit whose answer is missing. `unanswered`:
    /// the stream that it went to. If nothing else tells, it is whether the
    /// first transaction past a point is the one in question (`is_ours`).
    pub fn outcome(
        &self,
        mut unanswered: Option<Stream>,
        past: &Past,
        is_ours: &dyn Fn(&FirstCommit) -> Result<bool>,
        deadline: Instant,
    ) -> Result<Outcome> {
        let mut pause = Duration::from_millis(20);
        loop {
            let known = self.try_outcome(&mut unanswered, past, is_ours);
            match known {
                Err(Error::Unreachable(_) | Error::Busy(_))
                    if Instant::now() + pause < deadline =>
                {
                    attention::pause(pause)?;
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                known => return known,
            }
        }
    }

    fn try_outcome(
        &self,
        unanswered: &mut Option<Stream>,
        past: &Past,
        is_ours: &dyn Fn(&FirstCommit) -> Result<bool>,
    ) -> Result<Outcome> {
        // A baton counts once: either this closes the stream, and the request
        // will find it closed whenever it arrives, or the request was first.
        if let Some(stream) = unanswered.as_mut().filter(|stream| stream.is_open()) {
            match stream.ask(vec![close()]) {
                Ok(_) => return Ok(Outcome::Refused),
                Err(Failure::Gone(_)) => *unanswered = None,
                Err(failure) => return Err(failure.into_error()),
            }
        }
        // Under the lock nothing is under way any more.
        let lease = self.lock(past.path, &mut || true)?;
        let head = Head {
            log_id: lease.log_id.clone(),
            frame_no: lease.frame_no,
        };
        let found = self.first_commit(past, &head);
        if let Ok(None) = found {
            return Ok(Outcome::Nothing(lease));
        }
        self.give_back(lease);
        match found? {
            Some(first) if is_ours(&first)? => {
                first.is_younger(past.sent).map(|()| Outcome::Committed)
            }
            _ => Ok(Outcome::Refused),
        }
    }

    /// The first transaction past a point in the log, if there is one.
    fn first_commit(&self, past: &Past, head: &Head) -> Result<Option<FirstCommit>> {
        let mut log = self.log.lock();
        if log.hello()?.log_id != head.log_id {
            return Err(Error::Unreachable(
                "the primary's history changed meanwhile".into(),
            ));
        }
        let mut first = FirstCommit::new(past.skip);
        // It was the end of this very log when the commit was sent. Its
        // checksum would not tell more, and may have been computed here.
        let base = Position {
            checksum: None,
            ..past.base.clone()
        };
        let pulled = log.pull(&base, head, &mut first);
        match pulled {
            // It wants no more than the first.
            _ if first.whole => Ok(Some(first)),
            Ok(Pull::UpToDate) => Ok(None),
            Ok(Pull::Reached(_)) if first.frames == past.skip => Ok(None),
            Ok(Pull::Reached(_)) => Err(Error::Protocol(
                "the primary's log ends within a transaction".into(),
            )),
            Ok(Pull::Diverged(other)) => Err(Error::Diverged(other.why)),
            Err(e) => Err(e),
        }
    }

    /// Frame `index` of the log, if it is the newest and nothing is in the way.
    pub fn position(&self, log_id: &str, index: Option<u64>) -> Option<Position> {
        let before = Position {
            log_id: log_id.into(),
            frame_no: index?.checked_sub(1),
            checksum: None,
        };
        let head = Head {
            log_id: log_id.into(),
            frame_no: index,
        };
        match self.log.lock().pull(&before, &head, &mut Unread) {
            Ok(Pull::Reached(reached)) => Some(reached.position).filter(|p| p.frame_no == index),
            _ => None,
        }
    }
}

/// Pages that are here already.
struct Unread;

impl PageSink for Unread {
    fn page(&mut self, _: u32, _: &Page) -> Result<()> {
        Ok(())
    }

    fn compacted(&mut self) -> Result<()> {
        Err(compacted())
    }
}

/// A transaction's pages as the log has them, each in its last version.
#[derive(Default)]
pub struct FirstCommit {
    pub pages: BTreeMap<u32, Box<Page>>,
    /// The pages of the frames that were skipped.
    pub before: BTreeMap<u32, Box<Page>>,
    skip: u64,
    frames: u64,
    whole: bool,
    at: Option<i64>,
}

impl FirstCommit {
    /// Two replicas that do the same make the same commit, the second one
    /// without the lock, which it may have lost. One that is there before ours
    /// was sent is another's, unless a clock was set meanwhile.
    fn is_younger(&self, than: Option<i64>) -> Result<()> {
        match (self.at, than) {
            (Some(at), Some(sent)) if at < sent => Err(Error::Protocol(format!(
                "the primary has an equal commit that is {} ms older than this one, perhaps another replica's",
                sent - at
            ))),
            _ => Ok(()),
        }
    }

    fn new(skip: u64) -> FirstCommit {
        FirstCommit {
            skip,
            ..FirstCommit::default()
        }
    }
}

impl PageSink for FirstCommit {
    fn page(&mut self, pgno: u32, page: &Page) -> Result<()> {
        if self.whole {
            return Err(Error::Internal("no more is wanted".into()));
        }
        let pages = match self.frames < self.skip {
            true => &mut self.before,
            false => &mut self.pages,
        };
        pages.insert(pgno, Box::new(*page));
        self.frames += 1;
        Ok(())
    }

    fn committed(&mut self, page_count: u32, at: Option<i64>) {
        // Behind the end lies what was undone within a transaction so large
        // that the primary's cache had written it before.
        self.pages.retain(|pgno, _| *pgno <= page_count);
        self.whole = self.frames > self.skip;
        self.at = at;
    }

    fn compacted(&mut self) -> Result<()> {
        // What the next commit was is not told any more.
        Err(compacted())
    }
}

fn compacted() -> Error {
    Error::Protocol("the primary has compacted its log meanwhile".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::PAGE_SIZE;

    #[test]
    fn what_was_there_before_and_what_lies_behind_the_end_is_skipped() {
        let mut first = FirstCommit::new(3);
        let mut put = |pgno| first.page(pgno, &[0; PAGE_SIZE]).is_ok();
        assert!(put(1) && put(2) && put(1));
        first.committed(5, None);
        assert!(!first.whole);
        let mut put = |pgno| first.page(pgno, &[0; PAGE_SIZE]).is_ok();
        assert!(put(5) && put(6) && put(1));
        first.committed(5, None);
        assert!(first.whole && first.page(9, &[0; PAGE_SIZE]).is_err());
        assert_eq!(first.before.keys().collect::<Vec<_>>(), [&1, &2]);
        assert_eq!(first.pages.keys().collect::<Vec<_>>(), [&1, &5]);
    }
}
