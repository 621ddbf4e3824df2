//! What the `sqlite_schema` table says.

pub mod alter;
pub mod compare;
pub mod create;
pub mod index;
pub mod objects;
pub mod shadow;
pub mod token;
