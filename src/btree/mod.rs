//! What a database's pages say of its schema. Pure: no I/O of its own, no SQL,
//! no network; pages that are no database are an error, never a panic or a loop.
//!
//! Source: the SQLite file format document; each part names its section.

mod page;
mod record;
pub mod schema;
mod value;
mod varint;
mod view;

#[cfg(test)]
pub use value::Value;
pub use view::{Pages, Side};

use crate::error::Error;

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("the database is malformed: {what}"))
}
