//! A statement with its values.

use std::sync::Arc;

use crate::btree::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Shared by all rows that are written alike.
    pub sql: Arc<str>,
    pub args: Vec<Value>,
    pub effect: Effect,
}

/// Fails for each row: the absolute value of the smallest integer is none.
pub const FAIL: &str = "SELECT abs(-9223372036854775808)";

/// What is to be seen of a statement that has done what it was sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has affected so many rows.
    Rows(u64),
    /// It has affected some, or none.
    Any,
    /// It is the new schema, or what that takes.
    Definition,
    /// Nothing: it fails if the database is not what it should be.
    Guard,
}

impl Statement {
    pub fn new(sql: impl Into<Arc<str>>, args: Vec<Value>, effect: Effect) -> Statement {
        Statement {
            sql: sql.into(),
            args,
            effect,
        }
    }

    pub fn definition(sql: impl Into<Arc<str>>) -> Statement {
        Statement::new(sql, Vec::new(), Effect::Definition)
    }

    /// Fails if the condition holds.
    pub(super) fn guard(condition: &str, args: Vec<Value>) -> Statement {
        let sql = format!("{FAIL} WHERE {condition}");
        Statement::new(sql, args, Effect::Guard)
    }

    /// Whether it changes the schema cookie.
    pub fn changes_schema(&self) -> bool {
        let mut words = ["CREATE ", "DROP ", "ALTER "].iter();
        words.any(|word| self.sql.starts_with(word))
    }
}
