//! Frames of the stream that are not applied yet.

use super::apply::Message;
use crate::remote::{Position, Reached};
use crate::wal::Page;

struct Frame {
    frame_no: u64,
    checksum: u64,
    pgno: u32,
    page: Box<Page>,
}

#[derive(Default)]
pub struct Staged {
    frames: Vec<Frame>,
    /// The newest commit, its database size, and how many of the frames it ends.
    commit: Option<(Position, u32, usize)>,
}

/// How what is staged relates to where the local content is.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit {
    /// What is left of it comes next.
    Next,
    /// All of it is there already.
    Nothing,
    /// It is not a continuation.
    Apart,
}

impl Staged {
    pub fn push(&mut self, frame_no: u64, checksum: u64, pgno: u32, page: Box<Page>) {
        self.frames.push(Frame {
            frame_no,
            checksum,
            pgno,
            page,
        });
    }

    pub fn commit(&mut self, position: Position, page_count: u32) {
        self.commit = Some((position, page_count, self.frames.len()));
    }

    /// The commit that all of it leads to.
    pub fn position(&self) -> Option<&Position> {
        self.commit.as_ref().map(|(position, ..)| position)
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Drops what lies before `at`: another connection has pulled it, or has
    /// written it. The content is at a commit, so what is left is whole.
    pub fn fit(&mut self, at: &Position) -> Fit {
        let Some((position, _, complete)) = &mut self.commit else {
            return Fit::Nothing;
        };
        if position.log_id != at.log_id {
            return Fit::Apart;
        }
        if at.frame_no >= position.frame_no {
            self.frames.drain(..*complete);
            self.commit = None;
            return Fit::Nothing;
        }
        let first = self.frames.first().map_or(0, |f| f.frame_no);
        if at.next() < first {
            return Fit::Apart;
        }
        let known = (at.next() - first) as usize;
        if known > 0 {
            let last = &self.frames[known - 1];
            if at.checksum.is_some_and(|sum| sum != last.checksum) {
                return Fit::Apart;
            }
            self.frames.drain(..known);
            *complete -= known;
        }
        Fit::Next
    }

    /// The complete transactions, as one.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        let commit = self.commit.iter();
        commit.flat_map(|(position, page_count, complete)| {
            let pages = self.frames[..*complete].iter();
            [
                Message::Pages(pages.map(|f| (f.pgno, f.page.clone())).collect()),
                Message::Finish(Reached {
                    position: position.clone(),
                    page_count: *page_count,
                    frames: *complete as u64,
                }),
            ]
        })
    }

    /// They were applied.
    pub fn applied(&mut self) {
        if let Some((_, _, complete)) = self.commit.take() {
            self.frames.drain(..complete);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::PAGE_SIZE;

    fn at(frame_no: Option<u64>) -> Position {
        Position {
            log_id: "a".into(),
            frame_no,
            checksum: frame_no.map(|n| n * 10),
        }
    }

    /// Frames 5 to 8, with commits at 6 and 7.
    fn staged() -> Staged {
        let mut staged = Staged::default();
        for frame_no in 5..=8u64 {
            staged.push(frame_no, frame_no * 10, 1, Box::new([0; PAGE_SIZE]));
            if [6, 7].contains(&frame_no) {
                staged.commit(at(Some(frame_no)), 1);
            }
        }
        staged
    }

    fn pages(staged: &Staged) -> usize {
        let mut count = 0;
        for message in staged.messages() {
            match message {
                Message::Pages(pages) => count = pages.len(),
                Message::Finish(reached) => assert_eq!(reached.frames as usize, count),
            }
        }
        count
    }

    #[test]
    fn only_what_is_missing_is_applied() {
        for (frame_no, fit, count, left) in [
            (4, Fit::Next, 3, 1),
            (6, Fit::Next, 1, 1),
            (7, Fit::Nothing, 0, 1),
            (3, Fit::Apart, 3, 4),
        ] {
            let mut staged = staged();
            assert_eq!(staged.fit(&at(Some(frame_no))), fit, "{frame_no}");
            assert_eq!(pages(&staged), count, "{frame_no}");
            if fit == Fit::Next {
                staged.applied();
            }
            assert_eq!(staged.len(), left, "{frame_no}");
        }
    }

    #[test]
    fn another_history_does_not_fit() {
        let mut position = at(Some(6));
        position.checksum = Some(1);
        assert_eq!(staged().fit(&position), Fit::Apart);
        position.checksum = None;
        assert_eq!(staged().fit(&position), Fit::Next);
        position.log_id = "b".into();
        assert_eq!(staged().fit(&position), Fit::Apart);
    }
}
