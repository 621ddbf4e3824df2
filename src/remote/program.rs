//! A transaction's steps on their way to the primary, request by request, and
//! what it means when one of them fails.

use std::collections::HashSet;
use std::ops::Range;

use super::budget::{REQUEST_STEPS, RequestLimit};
use super::hrana::{Failure, Stream, batch, close, execute, executed, ran, stmt};
use super::hrana_wire::{BatchResult, SqlError, Stmt, StmtResult, StreamRequest, StreamResult};
use super::lease::{CLOCK, last_integer};
use super::pages::Steps;
use super::transaction::NotShipped;
use crate::error::Error;
use crate::wal::Page;

pub struct Program<'a> {
    limit: &'a RequestLimit,
    stream: Stream,
    pub steps: Steps,
    /// Steps of what goes next with a meaning of their own when they fail.
    pub special: Special,
}

#[derive(Default)]
pub struct Special {
    /// Prove that the primary understands a new schema.
    pub proofs: Range<u32>,
    /// Are the new schema, or what it takes.
    pub definitions: HashSet<u32>,
    /// Sees to it that the primary's allocator adds the right number of pages.
    pub growth: Option<u32>,
    /// Fails if somebody else has committed.
    pub guard: Option<u32>,
    /// Fail if a statement did not do what it was sent for.
    pub counts: HashSet<u32>,
}

/// A question whose answer has the log's end.
pub fn log_end() -> Stmt {
    stmt(format!("SELECT {CLOCK}"), Vec::new(), true)
}

/// A transaction that is committed.
pub struct Done {
    /// The end of the log when the primary was asked after its commit.
    pub index: Option<u64>,
    /// The primary's clock then, if the first question asks for it, last.
    pub clock: Option<i64>,
    /// What the questions behind the commit gave.
    pub told: Vec<Option<StmtResult>>,
    /// None if it was closed.
    pub stream: Option<Stream>,
}

impl<'a> Program<'a> {
    pub fn new(limit: &'a RequestLimit, stream: Stream) -> Self {
        Program {
            limit,
            stream,
            steps: Steps::default(),
            special: Special::default(),
        }
    }

    /// A schema that the primary cannot parse would break it for everybody.
    /// `page1`: as it is there, if pages are to be written afterwards.
    pub fn prove(&mut self, proofs: &[String], page1: Option<&Page>) {
        if proofs.is_empty() {
            return;
        }
        let first = self.steps.add("SAVEPOINT libreplica_proof", Vec::new());
        // Free pages that are taken do not get their content back from the
        // rollback (pager.c, PAGER_GET_NOCONTENT); new ones vanish.
        if let Some(page1) = page1 {
            self.steps.hide_freelist(page1);
        }
        for sql in proofs {
            self.steps.add(sql.as_str(), Vec::new());
        }
        self.steps.add("ROLLBACK TO libreplica_proof", Vec::new());
        self.steps.add("RELEASE libreplica_proof", Vec::new());
        self.special.proofs = first..self.steps.len();
    }

    /// Sends what is a request's worth by now; COMMIT is still to come.
    pub fn send_full(&mut self) -> std::result::Result<(), NotShipped> {
        if self.steps.bytes() < self.limit.bytes() && self.steps.len() < REQUEST_STEPS {
            return Ok(());
        }
        match self.run(Vec::new(), false) {
            Ok(_) => Ok(()),
            Err(Stop::Step(_, failed)) => Err(failed),
            Err(Stop::Request(Failure::Gone(_), _)) => Err(NotShipped::LeaseLost),
            // Whatever ran will be undone.
            Err(Stop::Request(failure, _)) => Err(NotShipped::Refused(failure.into_error())),
        }
    }

    /// Runs the steps that there are, and what comes `behind` them, in as many
    /// requests as what lies on the way wants; the results behind. `ends`:
    /// nothing of the transaction is open afterwards.
    fn run(
        &mut self,
        behind: Vec<StreamRequest>,
        ends: bool,
    ) -> std::result::Result<Vec<StreamResult>, Stop> {
        let steps = std::mem::take(&mut self.steps);
        let special = std::mem::take(&mut self.special);
        let mut from = 0;
        loop {
            let to = steps.fit(from, self.limit.bytes());
            let last = to == steps.len();
            let mut requests = vec![batch(steps.batch(from..to, ends && last))];
            if last {
                requests.extend(behind.clone());
            }
            let results = match self.stream.ask(requests) {
                Ok(results) => results,
                // Nothing of it was run, and the stream waits for its like.
                Err(Failure::TooLarge(bytes, _)) if to - from > 1 => {
                    self.limit.refused(bytes);
                    continue;
                }
                Err(failure) => return Err(Stop::Request(failure, last)),
            };
            let mut results = results.into_iter();
            if let Some((step, failed)) = special.failure(results.next(), from..to) {
                return Err(Stop::Step(step, failed));
            }
            if last {
                return Ok(results.collect());
            }
            from = to;
        }
    }

    /// Commits, and asks `questions` then; `keep`: the stream stays open.
    pub fn commit(
        mut self,
        keep: bool,
        questions: Vec<Stmt>,
    ) -> std::result::Result<Done, NotShipped> {
        let commit = self.steps.add("COMMIT", Vec::new());
        let asked = questions.len();
        let mut behind: Vec<_> = questions.into_iter().map(execute).collect();
        if !keep {
            behind.push(close());
        }
        let results = match self.run(behind, true) {
            Ok(results) => results,
            // COMMIT was run, and its result says nothing.
            Err(Stop::Step(step, NotShipped::Refused(e))) if step == commit => {
                return Err(NotShipped::Unknown(e, None));
            }
            Err(Stop::Step(_, failed)) => return Err(failed),
            Err(Stop::Request(Failure::Gone(_), true)) => return Err(NotShipped::Gone),
            Err(Stop::Request(Failure::Gone(_), false)) => return Err(NotShipped::LeaseLost),
            Err(Stop::Request(Failure::Lost(lost), true)) => {
                return Err(NotShipped::Unknown(lost.error, Some(self.stream)));
            }
            Err(Stop::Request(failure, _)) => {
                return Err(NotShipped::Refused(failure.into_error()));
            }
        };
        // It is committed; what the questions give is not needed for that.
        let told: Vec<Option<StmtResult>> = results
            .into_iter()
            .take(asked)
            .map(|result| executed(Some(result)).ok().and_then(|told| told.ok()))
            .collect();
        Ok(Done {
            // The first one's result has the log's end.
            index: told
                .first()
                .and_then(|told| told.as_ref()?.replication_index),
            clock: told.first().and_then(|told| last_integer(told.as_ref()?)),
            told,
            stream: keep.then_some(self.stream).filter(Stream::is_open),
        })
    }
}

/// Why not all steps were run.
enum Stop {
    /// At this one.
    Step(u32, NotShipped),
    /// A request has no results; whether it was the last one.
    Request(Failure, bool),
}

impl Special {
    /// The first step of a batch that has no result, and what that means.
    fn failure(
        &self,
        result: Option<StreamResult>,
        batch: Range<u32>,
    ) -> Option<(u32, NotShipped)> {
        let result = match ran(result) {
            Ok(Ok(result)) => result,
            Ok(Err(error)) if error.code == "TRANSACTION_TIMEOUT" => {
                return Some((batch.start, NotShipped::LeaseLost));
            }
            Ok(Err(error)) => return Some((batch.start, NotShipped::Refused(error.into_error()))),
            Err(e) => return Some((batch.start, NotShipped::Refused(e))),
        };
        let (step, error) = first_failure(&result, batch.len() as u32)?;
        let step = batch.start + step;
        let why = match error {
            None => NotShipped::LeaseLost,
            Some(error) if error.code == "TRANSACTION_TIMEOUT" => NotShipped::LeaseLost,
            Some(_) if self.guard == Some(step) => NotShipped::Moved,
            Some(_) if self.growth == Some(step) => NotShipped::Refused(Error::Internal(
                "the primary has added other pages than were asked for; write_path=rows needs none".into(),
            )),
            Some(_) if self.counts.contains(&step) => {
                NotShipped::Refused(Error::ReadOnly(
                    "a statement of this transaction does something else at the primary than here, so all of it was undone there; replica_exec works".into(),
                ))
            }
            Some(error)
                if self.proofs.contains(&step) || self.definitions.contains(&step) =>
            {
                NotShipped::Refused(not_understood(error))
            }
            Some(error) => NotShipped::Refused(error.into_error()),
        };
        Some((step, why))
    }
}

fn not_understood(error: SqlError) -> Error {
    match error.code.as_str() {
        "BLOCKED" | "SQLITE_AUTH" | "SQLITE_BUSY" => error.into_error(),
        _ => Error::ReadOnly(format!(
            "the primary does not understand the new schema: {} ({}); what it does understand can be run there with replica_exec",
            error.message, error.code
        )),
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
    use super::*;
    use crate::remote::hrana_wire::StmtResult;

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
