//! A statement with its values.

use std::sync::Arc;

use crate::btree::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Shared by all rows that are written alike.
    pub sql: Arc<str>,
    pub args: Vec<Value>,
    /// How many rows it has to affect; None where the number says nothing.
    pub affected: Option<u64>,
}

impl Statement {
    pub(super) fn one_row(sql: Arc<str>, args: Vec<Value>) -> Statement {
        Statement {
            sql,
            args,
            affected: Some(1),
        }
    }

    pub(super) fn definition(sql: String) -> Statement {
        Statement {
            sql: Arc::from(sql),
            args: Vec::new(),
            affected: None,
        }
    }
}
