//! A commit shipped as pages: what was computed here is what the primary
//! holds, byte for byte, but for the stamp that it puts on page 1.

use super::commit::{Commit, Committed, Next, Streams, moved, suits};
use super::record::Record;
use super::rows::only_shrinks;
use super::transaction::LocalTransaction;
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::remote::lease::Kept;
use crate::remote::outcome::{FirstCommit, Past};
use crate::remote::pages::moves_pages;
use crate::remote::primary::can_tidy;
use crate::remote::transaction::{Shipped, Transaction};
use crate::remote::{Position, chain};
use crate::wal::{PAGE_SIZE, Page};

/// The primary's cache holds more pages than this: they come to its log in
/// their order, and each once.
const SURELY_ONCE: usize = 256;

/// `try_kept`: a stream that was kept may ship it in one request.
pub fn commit(commit: Commit, streams: &mut Streams, try_kept: bool) -> Result<Committed> {
    let (base, transaction) = (&commit.base.record, commit.transaction);
    if base.undo.is_some() {
        return Err(moved());
    }
    // Recorded and durable before anything is sent: whichever state a crash
    // leaves, there is a record of it. Where the primary will have to be
    // looked at first, the record is of the position before: pulling what is
    // here already does no harm.
    let expected = expected(&base.position, transaction)?;
    let record = commit.store.append(Record {
        position: expected.clone().unwrap_or_else(|| base.position.clone()),
        ..commit.state.clone()
    })?;
    commit.store.sync()?;
    let shipped = match commit.ship_pages(streams, try_kept) {
        Ok(shipped) => shipped,
        Err(e) => return Err(commit.retracted(&record, e)),
    };
    // Where that is not known, a pull will tell.
    let reached = shipped.as_ref().and_then(|shipped| commit.reached(shipped));
    let page1 = shipped.and_then(|shipped| shipped.page1);
    // With another page 1 it is the state before: that page is still to come.
    let recorded = reached.clone().filter(|_| page1.is_none());
    if recorded != expected {
        // It is committed: where this fails, what was recorded before stands
        // there, and that is where the primary's log was at least.
        let state = Record {
            position: recorded.unwrap_or_else(|| base.position.clone()),
            ..commit.state
        };
        let _ = (commit.store.append(state)).and_then(|_| commit.store.sync());
    }
    Ok(Committed {
        shipped: true,
        frame_no: reached.as_ref().and_then(|position| position.frame_no),
        next: match (reached, page1) {
            (Some(position), Some(page1)) => Next::Correct(position, page1),
            (Some(_), None) => Next::Nothing,
            (None, _) => Next::Pull,
        },
    })
}

/// Why a transaction that leaves fewer pages than there were is refused.
pub fn shrinks(transaction: &LocalTransaction, before: u32) -> Result<Error> {
    let (mut page1, size) = (Box::new([0; PAGE_SIZE]), transaction.size());
    transaction.base_page(1, &mut page1)?;
    Ok(match moves_pages(&page1) {
        true => Error::ReadOnly(format!(
            "a transaction that shrinks the database (here from {before} to {size} pages, for it has auto_vacuum on) cannot be given to a primary as pages; write_path=auto or rows can"
        )),
        false => only_shrinks(before, size),
    })
}

impl Commit<'_> {
    fn ship_pages(&self, streams: &mut Streams, try_kept: bool) -> Result<Option<Shipped>> {
        let past = Past {
            base: &self.base.record.position,
            skip: 0,
            path: WritePath::Pages,
            sent: None,
        };
        let send = |ground| self.primary.ship(ground, self.transaction, self.keep);
        let is_ours = |first: &FirstCommit| self.transaction.is(&first.pages);
        let ground = streams.take(|kept| try_kept && self.suits(kept));
        let mut shipped = self.ship(ground, past, &send, &is_ours)?;
        streams.keep(shipped.as_mut().and_then(|shipped| shipped.kept.take()));
        Ok(shipped)
    }

    /// One request is enough where the connection there has nothing to parse
    /// that could be another by now.
    fn suits(&self, kept: &Kept) -> bool {
        let (before, after) = self.transaction.sizes();
        suits(kept, &self.base.record)
            && !kept.is_for_rows()
            && !self.transaction.changes_schema()
            && self.transaction.pages().len() <= SURELY_ONCE
            && (before == after || can_tidy(self.transaction).unwrap_or(false))
    }

    /// Where the primary's log does end, if no other commit is behind this
    /// one already and each page was written once.
    fn reached(&self, shipped: &Shipped) -> Option<Position> {
        let (base, pages) = (&self.base.record.position, &shipped.written);
        if pages.is_empty() || (pages[0] == 1 && shipped.page1.is_none()) {
            return None;
        }
        if shipped.index != base.next().checked_add(pages.len() as u64 - 1) {
            return None;
        }
        if pages.len() > SURELY_ONCE {
            // In which order, only the primary knows.
            return self.primary.position(&base.log_id, shipped.index);
        }
        advanced(base, pages, shipped.page1.as_deref(), self.transaction).ok()
    }
}

/// Where the primary's log will end, if the transaction's frames are surely
/// the pages in order, each once, as they are here: page 1 is stamped there.
fn expected(base: &Position, transaction: &LocalTransaction) -> Result<Option<Position>> {
    let pages = transaction.pages();
    if pages.first() == Some(&1) || pages.len() > SURELY_ONCE {
        return Ok(None);
    }
    advanced(base, pages, None, transaction).map(Some)
}

/// `base` and these frames behind it.
fn advanced(
    base: &Position,
    pages: &[u32],
    page1: Option<&Page>,
    transaction: &LocalTransaction,
) -> Result<Position> {
    let mut checksum = base.checksum;
    let mut page = Box::new([0; PAGE_SIZE]);
    for &pgno in pages {
        let Some(sum) = checksum else { break };
        match page1.filter(|_| pgno == 1) {
            Some(page1) => *page = *page1,
            None => transaction.page(pgno, &mut page)?,
        }
        checksum = Some(chain::next(sum, &page[..]));
    }
    Ok(Position {
        log_id: base.log_id.clone(),
        frame_no: Some(base.next() + pages.len() as u64 - 1),
        checksum,
    })
}
