//! The seam between a replica's commits and the ways to carry them: a
//! transaction goes in, an outcome comes out.

use super::hrana::Stream;
use super::lease::Kept;
use crate::error::{Error, Result};
use crate::wal::Page;

/// A local transaction on its way to the primary.
pub trait Transaction {
    /// Size in pages before and after.
    fn sizes(&self) -> (u32, u32);
    /// The pages that differ, ascending; all that were added among them.
    fn pages(&self) -> &[u32];
    /// The pages of sqlite_schema that a new object at its end may touch.
    fn schema_edge(&self) -> Result<Vec<u32>>;
    /// Whether a small object can come to the end of sqlite_schema, and go
    /// again, on a connection that has shipped pages before: no page there is
    /// split, and no table is looked at besides.
    fn schema_has_room(&self) -> Result<bool>;
    /// Whether the schema is another one afterwards.
    fn changes_schema(&self) -> bool;
    /// Statements that prove, run at the primary and undone, that it understands the new schema.
    fn proofs(&self) -> &[String];
    /// A page as it is before the transaction.
    fn base_page(&self, pgno: u32, page: &mut Page) -> Result<()>;
    /// A page as it is after the transaction.
    fn page(&self, pgno: u32, page: &mut Page) -> Result<()>;
}

/// A transaction that the primary has committed.
pub struct Shipped {
    /// The end of the log when the primary was asked after its commit.
    pub index: Option<u64>,
    /// The pages written there, ascending.
    pub written: Vec<u32>,
    /// Page 1 as the primary has it, if it was written and this is known.
    pub page1: Option<Box<Page>>,
    pub kept: Option<Kept>,
}

/// Why a transaction was not committed, or is not known to be.
pub enum NotShipped {
    /// It is not committed, and will not be.
    Refused(Error),
    /// The primary took the lock back; nothing was written.
    LeaseLost,
    /// The primary does not know the stream: that, or something on the way has
    /// sent the commit twice, and this is the second one's answer.
    Gone,
    /// Somebody else has committed since.
    Moved,
    /// No answer to the commit, which went to this stream; or, without one, an
    /// answer that does not say what became of it.
    Unknown(Error, Option<Stream>),
}

impl From<Error> for NotShipped {
    fn from(e: Error) -> NotShipped {
        NotShipped::Refused(e)
    }
}
