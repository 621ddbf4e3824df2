//! Logical decoding: a SQLite transaction given as pages, answered as changes
//! of rows and of the schema. Pure: no I/O of its own, no SQL, no network.
//!
//! `Known` is what is known of the base state: its schema, and which b-tree
//! every page belongs to. `decode` reads from there what a transaction's pages
//! mean, and answers the `Step` that brings `Known` to the new state.
//!
//! Sources: the SQLite file format document; each part names its section.

mod decode;
mod diff;
mod explore;
mod gather;
mod known;
mod layout;
mod overflow;
pub mod page;
mod record;
pub mod schema;
mod value;
mod varint;
mod view;

pub use decode::{Decoded, TableRows, decode, decode_as};
pub use diff::{Row, RowChange, differs};
pub use known::{Known, SchemaPages, Step};
pub use value::{Encoding, Value};
pub use view::{Pages, Side};

use crate::error::Error;

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("the database is malformed: {what}"))
}
