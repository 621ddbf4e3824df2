//! Writing at any primary: a transaction as SQL with bound values.
//!
//! As with pages, every step runs only inside the transaction and after the
//! step before has succeeded. Behind each statement that must affect a known
//! number of rows stands one that fails if it affected another.

use std::sync::Arc;

use super::hrana::stmt;
use super::hrana_wire::{Value, ValueKind};
use super::lease::{Ground, Kept, data_version};
use super::pages::integer;
use super::primary::Primary;
use super::program::{Program, log_end};
use super::transaction::NotShipped;
use super::values::Argument;
use crate::rows::{Effect, FAIL};

/// A request has at most about so many bytes of values and statements,
const REQUEST_BYTES: usize = 8 << 20;
/// and at most so many steps: an answer may have 10 MB.
const REQUEST_STEPS: u32 = 20_000;
/// What a step weighs besides its values.
const STEP_BYTES: usize = 64;

/// A statement of a transaction.
#[derive(Clone)]
pub struct Command {
    pub sql: Arc<str>,
    pub args: Vec<Argument>,
    pub effect: Effect,
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

/// A transaction that the primary has committed.
pub struct ShippedRows {
    /// The end of the log with it; None if it cannot be told from what others
    /// have committed since.
    pub frame_no: Option<u64>,
    pub kept: Option<Kept>,
}

impl Primary {
    /// Runs `commands` in a transaction. `proofs`: as with pages, for ALTER
    /// TABLE does not look at every expression that it adds. `keep`: the
    /// stream stays open for the next one.
    pub fn ship_rows(
        &self,
        ground: Ground,
        proofs: &[String],
        commands: impl Iterator<Item = Command>,
        keep: bool,
    ) -> std::result::Result<ShippedRows, NotShipped> {
        let (stream, log_id, version, begins) = match ground {
            Ground::Lease(lease) => (lease.stream, lease.log_id, lease.data_version, false),
            Ground::Kept(kept) => (kept.stream, kept.log_id, kept.data_version, true),
        };
        let mut program = Program::new(&self.http, stream);
        if begins {
            program.steps.begin();
            program.special.guard = Some(program.steps.guard_version(version));
        }
        program.prove(proofs, None);
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
        let sql = "SELECT data_version FROM pragma_data_version";
        let ask_version = stmt(sql, Vec::new(), true);
        // In this order: whoever's frames the log's end counts in has
        // committed before the version is read.
        let done = program.commit(keep, vec![log_end(), ask_version])?;
        let now = done
            .told
            .get(1)
            .and_then(|told| data_version(told.as_ref()));
        let frame_no = done.index.filter(|_| now == Some(version));
        let kept = done.stream.filter(|_| frame_no.is_some());
        Ok(ShippedRows {
            frame_no,
            kept: kept.map(|stream| Kept::new(stream, log_id, frame_no, version, done.clock, true)),
        })
    }
}

impl Program<'_> {
    fn command(&mut self, command: Command) {
        let args = command.args.into_iter().map(|argument| argument.0);
        let step = self.steps.add(&*command.sql, args.collect());
        match command.effect {
            Effect::Definition => {
                self.special.definitions.insert(step);
            }
            Effect::Guard => {
                self.special.counts.insert(step);
            }
            Effect::Rows(affected) => {
                let sql = format!("{FAIL} WHERE changes()<>?");
                let step = self.steps.add(sql, vec![integer(affected as i64)]);
                self.special.counts.insert(step);
            }
            Effect::Any => {}
        }
    }
}
