//! A transaction's steps on their way to the primary, request by request.

use std::sync::Arc;

use super::hrana::{
    Failure, Stream, batch, close, close_soon, execute, executed, pipeline, ran, stmt,
};
use super::hrana_wire::{BatchResult, SqlError, StreamResult};
use super::http::Http;
use super::lease::first_page;
use super::pages::{Steps, unused_name};
use super::transaction::{NotShipped, Transaction};
use crate::error::Error;
use crate::wal::{PAGE_SIZE, Page};

/// Pages of one request.
const REQUEST_PAGES: usize = 4096;

/// A transaction's steps on their way, request by request.
pub struct Program<'a> {
    http: &'a Arc<Http>,
    stream: Stream,
    transaction: &'a dyn Transaction,
    pub steps: Steps,
    /// Steps of the first request with a meaning of their own when they fail.
    proofs: std::ops::Range<u32>,
    growth: Option<u32>,
    pub guard: Option<u32>,
}

pub struct Done {
    pub index: Option<u64>,
    pub page1: Option<Box<Page>>,
    pub stream: Option<Stream>,
}

impl<'a> Program<'a> {
    pub fn new(http: &'a Arc<Http>, stream: Stream, transaction: &'a dyn Transaction) -> Self {
        Program {
            http,
            stream,
            transaction,
            steps: Steps::default(),
            proofs: 0..0,
            growth: None,
            guard: None,
        }
    }

    /// A schema that the primary cannot parse would break it for everybody.
    pub fn prove(&mut self) {
        let proofs = self.transaction.proofs();
        if proofs.is_empty() {
            return;
        }
        let first = self.steps.add("SAVEPOINT libreplica_proof", Vec::new());
        for sql in proofs {
            self.steps.add(sql.as_str(), Vec::new());
        }
        self.steps.add("ROLLBACK TO libreplica_proof", Vec::new());
        self.steps.add("RELEASE libreplica_proof", Vec::new());
        self.proofs = first..self.steps.len();
    }

    pub fn grow(&mut self, page1: &Page) {
        let (before, after) = self.transaction.sizes();
        self.growth = Some(self.steps.grow(page1, before, after, &unused_name()));
    }

    /// Writes `pages` and commits. `read`: asks for page 1 as it then is.
    pub fn run(
        mut self,
        pages: &[u32],
        keep: bool,
        read: bool,
    ) -> std::result::Result<Done, NotShipped> {
        // Page 1 last: with it the schema may change, and the connection there
        // must not look at it again before the commit.
        let (first, rest) = match pages.split_first() {
            Some((1, rest)) => (Some(1), rest),
            _ => (None, pages),
        };
        let mut page = Box::new([0; PAGE_SIZE]);
        let mut count = 0;
        for &pgno in rest.iter().chain(&first) {
            if count == REQUEST_PAGES {
                self.send_part()?;
                count = 0;
            }
            self.transaction.page(pgno, &mut page)?;
            self.steps.page(pgno, &page);
            count += 1;
        }
        self.commit(keep, read)
    }

    /// A request with more to follow.
    fn send_part(&mut self) -> std::result::Result<(), NotShipped> {
        let steps = std::mem::take(&mut self.steps);
        let count = steps.len();
        let requests = vec![batch(steps.into_batch())];
        let results = match pipeline(self.http, &mut self.stream, requests) {
            Ok(results) => results,
            Err(Failure::Gone(_)) => return Err(NotShipped::LeaseLost),
            // COMMIT is still to come, so whatever ran will be undone.
            Err(failure) => {
                self.drop_stream();
                return Err(NotShipped::Refused(failure.into_error()));
            }
        };
        let failed = self.failure(results.into_iter().next(), count);
        (self.proofs, self.growth, self.guard) = (0..0, None, None);
        failed.map_or(Ok(()), |(_, failed)| {
            self.drop_stream();
            Err(failed)
        })
    }

    fn commit(mut self, keep: bool, read: bool) -> std::result::Result<Done, NotShipped> {
        let commit = self.steps.add("COMMIT", Vec::new());
        let count = self.steps.len();
        let mut requests = vec![
            batch(std::mem::take(&mut self.steps).with_rollback()),
            // Its result has the log's end.
            execute(match read {
                true => stmt(
                    "SELECT data FROM sqlite_dbpage WHERE pgno=1",
                    Vec::new(),
                    true,
                ),
                false => stmt("SELECT 1", Vec::new(), true),
            }),
        ];
        if !keep {
            requests.push(close());
        }
        let results = match pipeline(self.http, &mut self.stream, requests) {
            Ok(results) => results,
            Err(Failure::Gone(_)) => return Err(NotShipped::LeaseLost),
            Err(Failure::Refused(e)) => return Err(NotShipped::Refused(e)),
            Err(Failure::Lost(e)) => return Err(NotShipped::Unknown(e, self.stream)),
        };
        let mut results = results.into_iter();
        match self.failure(results.next(), count) {
            Some((step, NotShipped::Refused(e))) if step == commit => {
                return Err(NotShipped::Unknown(e, self.stream));
            }
            Some((_, failed)) => {
                self.drop_stream();
                return Err(failed);
            }
            None => {}
        }
        // It is committed; what the second result says is not needed for that.
        let told = executed(results.next()).ok().and_then(|told| told.ok());
        Ok(Done {
            index: told.as_ref().and_then(|told| told.replication_index),
            page1: told.filter(|_| read).and_then(|told| first_page(&told)),
            stream: keep.then_some(self.stream),
        })
    }

    /// The first step of `count` that has no result, and what that means.
    fn failure(&self, result: Option<StreamResult>, count: u32) -> Option<(u32, NotShipped)> {
        let result = match ran(result) {
            Ok(Ok(result)) => result,
            Ok(Err(error)) if error.code == "TRANSACTION_TIMEOUT" => {
                return Some((0, NotShipped::LeaseLost));
            }
            Ok(Err(error)) => return Some((0, NotShipped::Refused(error.into_error()))),
            Err(e) => return Some((0, NotShipped::Refused(e))),
        };
        let (step, error) = first_failure(&result, count)?;
        let why = match error {
            None => NotShipped::LeaseLost,
            Some(error) if error.code == "TRANSACTION_TIMEOUT" => NotShipped::LeaseLost,
            Some(_) if self.guard == Some(step) => NotShipped::Moved,
            Some(_) if self.growth == Some(step) => NotShipped::Overgrown,
            Some(error) if self.proofs.contains(&step) => {
                NotShipped::Refused(Error::ReadOnly(format!(
                    "the primary does not understand the new schema: {} ({}); what it does understand can be run there with replica_exec",
                    error.message, error.code
                )))
            }
            Some(error) => NotShipped::Refused(error.into_error()),
        };
        Some((step, why))
    }

    fn drop_stream(&mut self) {
        close_soon(self.http, std::mem::take(&mut self.stream));
    }
}

/// The first of `count` steps without a result, and its error if it was run.
pub fn first_failure(result: &BatchResult, count: u32) -> Option<(u32, Option<SqlError>)> {
    (0..count)
        .find(|step| !result.results.contains_key(step))
        .map(|step| (step, result.errors.get(&step).cloned()))
}

#[cfg(test)]
mod tests {
    use super::super::hrana_wire::StmtResult;
    use super::*;

    #[test]
    fn the_first_step_without_a_result_counts() {
        let mut result = BatchResult::default();
        result.results.insert(0, StmtResult::default());
        result.results.insert(2, StmtResult::default());
        assert_eq!(first_failure(&result, 3), Some((1, None)));
        let error = SqlError {
            message: "m".into(),
            code: "c".into(),
        };
        result.errors.insert(1, error.clone());
        assert_eq!(first_failure(&result, 3), Some((1, Some(error))));
        assert_eq!(first_failure(&result, 1), None);
    }
}
