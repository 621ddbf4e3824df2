//! Row and schema changes as SQL: an ordered list of statements which make of
//! the base state the new one, at a primary that lays out pages its own way.
//! Plain data; who sends them, and under which conditions, is decided elsewhere.

mod bulk;
mod ddl;
mod dml;
mod plan;
mod quote;
mod same;
mod sequence;
mod statement;

pub use bulk::bulk;
pub use plan::plan;
pub use same::is_same;
pub use statement::{Effect, FAIL, Statement};
