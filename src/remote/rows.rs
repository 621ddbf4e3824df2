//! Writing at any primary: a transaction as SQL with bound values.
//!
//! As with pages, every step runs only inside the transaction and after the
//! step before has succeeded. Behind each statement that must affect a known
//! number of rows stands one that fails if it affected another.

use std::sync::Arc;

use super::hrana::stmt;
use super::lease::{Ground, Kept, data_version};
use super::pages::integer;
use super::primary::Primary;
use super::program::{Program, log_end};
use super::transaction::NotShipped;
use super::values::Argument;
use crate::rows::{Effect, FAIL};

/// A statement of a transaction.
#[derive(Clone)]
pub struct Command {
    pub sql: Arc<str>,
    pub args: Vec<Argument>,
    pub effect: Effect,
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
        let mut program = Program::new(&self.http.requests, stream);
        if begins {
            program.steps.begin();
            program.special.guard = Some(program.steps.guard_version(version));
        }
        program.prove(proofs, None);
        for command in commands {
            program.send_full()?;
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
