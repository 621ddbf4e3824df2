//! What the `sqlite_schema` table says.

pub mod alter;
pub mod compare;
pub mod create;
mod default;
pub mod index;
pub mod objects;
pub mod parser;
pub mod shadow;
pub mod token;
