//! A commit shipped as rows: what the transaction's pages mean, as SQL at the
//! primary; and here the way back to the primary's own pages, for they will
//! not be these.

use std::borrow::Cow;
use std::collections::HashMap;

use super::commit::{Commit, Committed, Next, Streams, suits};
use super::record::Record;
use super::transaction::{LocalTransaction, owned};
use super::undo::{self, Undo, UndoFile};
use crate::btree::{Decoded, Known, Pages, Step, Value, decode};
use crate::config::WritePath;
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::ffi::vfs::BaseVfs;
use crate::remote::outcome::{FirstCommit, Past};
use crate::remote::pages::unused_name;
use crate::remote::rows::Command;
use crate::remote::transaction::Transaction;
use crate::remote::values::Argument;
use crate::rows::{Effect, Statement, bulk, is_same, plan};
use crate::wal::Page;
use crate::wal::writer::LogEnd;

/// So many pages are kept before the primary's are fetched: 16 MiB.
const MAX_UNDO: u64 = 4096;

/// What a writer of rows knows from one commit to the next.
pub struct Rows {
    /// Of the state whose log ends there.
    known: Option<(LogEnd, Known)>,
    undo: UndoFile,
    /// With this undo there are tables here that the primary has not.
    in_part: Option<u64>,
    vfs: BaseVfs,
    path: String,
}

/// What is run at the primary.
struct Program {
    decoded: Decoded,
    /// What the transaction does.
    changes: Vec<Statement>,
    /// What changes the schema cookie, and nothing else.
    cookies: Vec<Statement>,
}

impl Program {
    /// Whether anything is another afterwards, but for where it lies.
    fn has_effect(&self) -> bool {
        self.changes.iter().any(|s| s.effect != Effect::Guard)
    }

    fn commands(&self) -> impl Iterator<Item = Command> {
        let statements = bulk(&self.changes).chain(self.cookies.iter().cloned());
        statements.map(|statement| Command {
            sql: statement.sql,
            args: statement.args.iter().map(argument).collect(),
            effect: statement.effect,
        })
    }
}

impl Rows {
    pub fn new(vfs: BaseVfs, path: &str) -> Rows {
        Rows {
            known: None,
            undo: UndoFile::default(),
            in_part: None,
            vfs,
            path: path.to_string(),
        }
    }

    /// Whether a commit can build upon a state that needs this.
    pub fn can_build_upon(&mut self, undo: &Undo) -> bool {
        let is_there = self.undo.knows(undo) && undo::exists(&self.vfs, &self.path)
            || undo::open(&self.vfs, &self.path, false)
                .and_then(|file| self.undo.learn(&file, undo))
                .is_ok();
        is_there && self.in_part != Some(undo.id)
    }

    pub fn commit(&mut self, commit: Commit, streams: &mut Streams) -> Result<Committed> {
        let Commit {
            base, transaction, ..
        } = commit;
        let known = match self.known.take() {
            Some((end, known)) if base.end == Some(end) => known,
            _ => Known::load(transaction).map_err(not_expressible)?,
        };
        let decoded = decode(&known, transaction).map_err(not_expressible)?;
        let changes = plan(&decoded).map_err(not_expressible)?;
        let program = Program {
            cookies: new_cookies(transaction, &changes)?,
            changes,
            decoded,
        };
        let (size, before) = (transaction.size(), base.record.page_count);
        if size < before && !program.has_effect() {
            return Err(only_shrinks(before, size));
        }
        let before = &base.record.undo;
        let (vfs, path) = (self.vfs, self.path.clone());
        let done = self.publish(commit, streams, &program).inspect_err(|_| {
            if before.is_none() {
                // There is no state that needs it.
                undo::remove(&vfs, &path);
            }
        })?;
        self.note(transaction.end, known, program.decoded.step);
        Ok(done)
    }

    fn note(&mut self, end: LogEnd, mut known: Known, step: Step) {
        if known.advance(step).is_ok() {
            self.known = Some((end, known));
        }
    }

    fn publish(
        &mut self,
        commit: Commit,
        streams: &mut Streams,
        program: &Program,
    ) -> Result<Committed> {
        let (base, transaction) = (&commit.base.record, commit.transaction);
        let read = |pgno, page: &mut Page| transaction.before.read(pgno, page);
        let file = undo::open(&self.vfs, &self.path, base.undo.is_none())?;
        let mut undo = self.undo.keep(
            &file,
            u64::from_le_bytes(api::random()),
            base.undo.as_ref(),
            base.page_count,
            &transaction.touched(),
            read,
        )?;
        let shipped = !(program.changes.is_empty() && program.cookies.is_empty());
        // Recorded and durable before anything is sent: whichever state a
        // crash leaves, there is a record of it. How far the primary then is,
        // it has to be asked.
        undo.frame_no = base.logical().filter(|_| !shipped);
        let mut record = Record {
            undo: Some(undo),
            ..commit.state.clone()
        };
        let appended = commit.store.append(record.clone())?;
        commit.store.sync()?;
        let mut frame_no = base.logical();
        if shipped {
            frame_no = match commit.ship_rows(streams, program) {
                Ok(frame_no) => frame_no,
                Err(e) => return Err(commit.retracted(&appended, e)),
            };
            if let (Some(undo), Some(_)) = (&mut record.undo, frame_no) {
                undo.frame_no = frame_no;
                // It is committed: what fails here costs a question.
                let _ = commit.store.append(record.clone());
            }
        }
        let in_part = program.decoded.schema.new_statistics().next().is_some();
        if in_part {
            self.in_part = record.undo.as_ref().map(|undo| undo.id);
        }
        let kept = record.undo.map_or(0, |undo| undo.entries);
        Ok(Committed {
            shipped,
            frame_no,
            next: match frame_no.is_none() || kept > MAX_UNDO || in_part {
                true => Next::Pull,
                false => Next::Nothing,
            },
        })
    }
}

impl Commit<'_> {
    /// Answers the primary's frame with the commit, if that can be told.
    fn ship_rows(&self, streams: &mut Streams, program: &Program) -> Result<Option<u64>> {
        let base = &self.base.record;
        let past = Past {
            base: &base.position,
            skip: base
                .logical()
                .map_or(0, |n| (n + 1).saturating_sub(base.position.next())),
            path: WritePath::Rows,
            sent: None,
        };
        let send = |ground| {
            let proofs = self.transaction.proofs();
            self.primary
                .ship_rows(ground, proofs, program.commands(), self.keep)
        };
        let is_ours = |first: &FirstCommit| {
            let theirs = Logged::new(self, first)?;
            is_same(&program.decoded, &program.changes, &theirs)
        };
        let ground = streams.take(|kept| kept.is_for_rows() && suits(kept, base));
        let shipped = self.ship(ground, past, &send, &is_ours);
        // How far the log is otherwise, a pull will tell.
        let Some(shipped) = shipped.map_err(with_a_way_out)? else {
            return Ok(None);
        };
        streams.keep(shipped.kept);
        Ok(shipped.frame_no)
    }
}

/// A transaction of the primary's log, upon the primary's own pages.
struct Logged<'a> {
    first: &'a FirstCommit,
    local: &'a LocalTransaction<'a>,
    undo: HashMap<u32, Box<Page>>,
    changed: Vec<u32>,
    sizes: (u32, u32),
}

impl<'a> Logged<'a> {
    fn new(commit: &Commit<'a>, first: &'a FirstCommit) -> Result<Logged<'a>> {
        let mut undo = HashMap::new();
        if let Some(kept) = &commit.base.record.undo {
            undo::read(
                &commit.replica.vfs,
                commit.replica.path(),
                kept,
                |pgno, page| {
                    undo.insert(pgno, Box::new(*page));
                    Ok(())
                },
            )?;
        }
        let mut logged = Logged {
            first,
            local: commit.transaction,
            undo,
            changed: first.pages.keys().copied().collect(),
            sizes: (0, 0),
        };
        let size = |page1: &[u8]| u32::from_be_bytes([page1[28], page1[29], page1[30], page1[31]]);
        logged.sizes = (size(&logged.before(1)?), size(&logged.after(1)?));
        Ok(logged)
    }
}

impl Pages for Logged<'_> {
    fn before(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        let newest = self.first.before.get(&pgno).or(self.undo.get(&pgno));
        if let Some(page) = newest {
            return Ok(Cow::Borrowed(&page[..]));
        }
        owned(|page| self.local.before.read(pgno, page))
    }

    fn after(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        match self.first.pages.get(&pgno) {
            Some(page) => Ok(Cow::Borrowed(&page[..])),
            None => self.before(pgno),
        }
    }

    fn changed(&self) -> &[u32] {
        &self.changed
    }

    fn size_before(&self) -> u32 {
        self.sizes.0
    }

    fn size_after(&self) -> u32 {
        self.sizes.1
    }
}

/// What makes the primary's schema cookie a later one than ours. There the
/// transaction's tables lie at other pages; a connection that knows where they
/// lie here must not find its cookie again once the primary's pages are here.
fn new_cookies(transaction: &LocalTransaction, planned: &[Statement]) -> Result<Vec<Statement>> {
    let ours = transaction.cookie_steps()?;
    let theirs = planned.iter().filter(|s| s.changes_schema()).count() as u32;
    let missing = match ours {
        0 => 0,
        ours => (ours + 1).saturating_sub(theirs),
    };
    let name = unused_name();
    let pair = [
        Statement::definition(format!("CREATE VIEW {name} AS SELECT 1")),
        Statement::definition(format!("DROP VIEW {name}")),
    ];
    let pairs = std::iter::repeat_n(pair, missing.div_ceil(2) as usize);
    Ok(pairs.flatten().collect())
}

/// Neither way can carry that: what is at the primary is a size that is its own.
pub fn only_shrinks(before: u32, size: u32) -> Error {
    Error::ReadOnly(format!(
        "a transaction that only shrinks the database (here from {before} to {size} pages, as VACUUM and PRAGMA incremental_vacuum do) cannot be given to a primary, which vacuums for itself; VACUUM INTO makes a small copy"
    ))
}

fn argument(value: &Value) -> Argument {
    match value {
        Value::Null => Argument::null(),
        Value::Int(n) => Argument::integer(*n),
        Value::Real(n) => Argument::float(*n),
        Value::Text(text) => Argument::text(text),
        Value::RawText(bytes) | Value::Blob(bytes) => Argument::blob(bytes),
    }
}

fn not_expressible(error: Error) -> Error {
    match error {
        Error::ReadOnly(why) | Error::Corrupt(why) => with_a_way_out(Error::ReadOnly(format!(
            "this transaction cannot be given to the primary as SQL: {why}"
        ))),
        e => e,
    }
}

fn with_a_way_out(error: Error) -> Error {
    match error {
        Error::ReadOnly(why)
            if !["replica_exec", "write_path"]
                .iter()
                .any(|way| why.contains(way)) =>
        {
            Error::ReadOnly(format!(
                "{why}; what the primary does take can be run there with replica_exec"
            ))
        }
        e => e,
    }
}
