//! Values for and from a statement that is run at the primary.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::hrana_wire::{Empty, Row, StmtResult, Value, ValueKind};
use super::pages::{blob, integer};

/// A value bound to a statement.
#[derive(Clone)]
pub struct Argument(pub(super) Value);

impl Argument {
    pub fn null() -> Argument {
        Argument(ValueKind::Null(Empty {}).into())
    }
    pub fn integer(n: i64) -> Argument {
        Argument(integer(n))
    }
    pub fn float(n: f64) -> Argument {
        Argument(ValueKind::Float(n).into())
    }
    pub fn text(text: &str) -> Argument {
        Argument(ValueKind::Text(text.into()).into())
    }
    pub fn blob(bytes: &[u8]) -> Argument {
        Argument(blob(bytes))
    }
}

/// What a statement gave at the primary.
pub struct Answer(pub(super) StmtResult);

impl Answer {
    pub fn columns(&self) -> Vec<&str> {
        let names = self.0.cols.iter().map(|col| col.name.as_deref());
        names.map(Option::unwrap_or_default).collect()
    }

    pub fn rows(&self) -> Vec<Vec<Json>> {
        let row = |row: &Row| row.values.iter().map(to_json).collect();
        self.0.rows.iter().map(row).collect()
    }

    pub fn affected_rows(&self) -> u64 {
        self.0.affected_row_count
    }

    pub fn last_insert_rowid(&self) -> Option<i64> {
        self.0.last_insert_rowid
    }
}

fn to_json(value: &Value) -> Json {
    match &value.kind {
        None | Some(ValueKind::Null(_)) => Json::Null,
        Some(ValueKind::Integer(n)) => (*n).into(),
        Some(ValueKind::Float(n)) => (*n).into(),
        Some(ValueKind::Text(bytes)) => String::from_utf8_lossy(bytes).into(),
        Some(ValueKind::Blob(bytes)) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}
