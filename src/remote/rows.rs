//! Writing at any primary: a transaction as SQL with bound values.
//!
//! As with pages, every step runs only inside the transaction and after the
//! step before has succeeded. Behind each statement that must affect a known
//! number of rows stands one that fails if it affected another.

use std::sync::Arc;

use super::hrana::stmt;
use super::hrana_wire::{Value, ValueKind};
use super::pages::integer;
use super::primary::{Argument, Lease, NotShipped, Primary, data_version, log_end};
use super::program::Program;

/// A request has at most about so many bytes of values and statements,
const REQUEST_BYTES: usize = 8 << 20;
/// and at most so many steps: an answer may have 10 MB.
const REQUEST_STEPS: u32 = 20_000;
/// What a step weighs besides its values.
const STEP_BYTES: usize = 64;

/// An integer overflow for each row: such a step fails on purpose.
const FAIL: &str = "SELECT abs(-9223372036854775808)";
const COUNT: &str = "SELECT abs(-9223372036854775808) WHERE changes()<>?";

/// A statement of a transaction.
#[derive(Clone)]
pub struct Command {
    pub sql: Arc<str>,
    pub args: Vec<Argument>,
    /// How many rows it has to affect.
    pub affected: Option<u64>,
}

impl Command {
    fn size(&self) -> usize {
        let values = self.args.iter().map(|argument| size(&argument.0));
        self.sql.len() + STEP_BYTES + values.sum::<usize>()
    }
}

fn size(value: &Value) -> usize {
    match &value.kind {
        Some(ValueKind::Text(bytes) | ValueKind::Blob(bytes)) => bytes.len(),
        _ => 8,
    }
}

impl Primary {
    /// Runs `commands` under the lock, and commits. `proofs`: as with pages,
    /// for ALTER TABLE does not look at every expression that it adds. Answers the end of the log
    /// with that commit; None if it cannot be told from what others have
    /// committed since.
    pub fn ship_rows(
        &self,
        lease: Lease,
        proofs: &[String],
        commands: impl Iterator<Item = Command>,
    ) -> std::result::Result<Option<u64>, NotShipped> {
        let mut program = Program::new(&self.http, lease.stream);
        program.prove(proofs);
        let mut bytes = 0;
        for command in commands {
            let size = command.size();
            let full = bytes + size > REQUEST_BYTES || program.steps.len() >= REQUEST_STEPS;
            if bytes > 0 && full {
                program.send_part()?;
                bytes = 0;
            }
            bytes += size;
            program.command(command);
        }
        let version = stmt(
            "SELECT data_version FROM pragma_data_version",
            Vec::new(),
            true,
        );
        // In this order: whoever's frames the log's end counts in has
        // committed before the version is read.
        let done = program.commit(false, vec![log_end(), version])?;
        let now = done
            .told
            .get(1)
            .and_then(|told| data_version(told.as_ref()));
        Ok(done.index.filter(|_| now == Some(lease.data_version)))
    }
}

impl Program<'_> {
    fn command(&mut self, command: Command) {
        let guards = command.sql.starts_with(FAIL);
        let defines = command.args.is_empty() && command.affected.is_none() && !guards;
        let args = command.args.into_iter().map(|argument| argument.0);
        let step = self.steps.add(&*command.sql, args.collect());
        if defines {
            self.special.definitions.insert(step);
        }
        if guards {
            self.special.counts.insert(step);
        }
        if let Some(affected) = command.affected {
            let args = vec![integer(affected as i64)];
            let step = self.steps.add(COUNT, args);
            self.special.counts.insert(step);
        }
    }
}
