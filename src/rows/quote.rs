//! Names and values in SQL.

use crate::btree::Value;

/// A name in double quotes.
pub fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What stands for a value in a statement, and the value to bind to it.
///
/// An infinite number has no form in every protocol, and bytes that are no
/// text have none in any: concatenation takes a blob's as they are, in the
/// database's encoding (CAST takes a bound blob for UTF-8).
pub fn value(value: &Value) -> (&'static str, Option<Value>) {
    match value {
        Value::Real(real) if *real == f64::INFINITY => ("9e999", None),
        Value::Real(real) if *real == f64::NEG_INFINITY => ("-9e999", None),
        Value::RawText(bytes) => ("(? || '')", Some(Value::Blob(bytes.clone()))),
        value => ("?", Some(value.clone())),
    }
}
