//! Messages of Hrana 3 over HTTP in its Protobuf encoding
//! (docs/HRANA_3_SPEC.md, libsql-hrana/src/{proto,protobuf}.rs). Encoding and
//! decoding only; what this client never sends or reads is left out.

use std::collections::HashMap;

#[derive(Clone, PartialEq, prost::Message)]
pub struct PipelineRequest {
    #[prost(string, optional, tag = "1")]
    pub baton: Option<String>,
    #[prost(message, repeated, tag = "2")]
    pub requests: Vec<StreamRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PipelineResponse {
    #[prost(string, optional, tag = "1")]
    pub baton: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub base_url: Option<String>,
    #[prost(message, repeated, tag = "3")]
    pub results: Vec<StreamResult>,
}

/// One of its fields is set, as in each message below that has only optional ones.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamRequest {
    #[prost(message, optional, tag = "1")]
    pub close: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    pub execute: Option<Execute>,
    #[prost(message, optional, tag = "3")]
    pub batch: Option<BatchRequest>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Execute {
    #[prost(message, required, tag = "1")]
    pub stmt: Stmt,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchRequest {
    #[prost(message, required, tag = "1")]
    pub batch: Batch,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamResult {
    #[prost(message, optional, tag = "1")]
    pub ok: Option<StreamResponse>,
    #[prost(message, optional, tag = "2")]
    pub error: Option<SqlError>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamResponse {
    #[prost(message, optional, tag = "1")]
    pub close: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    pub execute: Option<ExecuteResponse>,
    #[prost(message, optional, tag = "3")]
    pub batch: Option<BatchResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecuteResponse {
    #[prost(message, required, tag = "1")]
    pub result: StmtResult,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchResponse {
    #[prost(message, required, tag = "1")]
    pub result: BatchResult,
}

/// An error of a statement, in the primary's words; also the body of some HTTP errors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SqlError {
    #[prost(string, tag = "1")]
    pub message: String,
    #[prost(string, tag = "2")]
    pub code: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Stmt {
    #[prost(string, optional, tag = "1")]
    pub sql: Option<String>,
    #[prost(message, repeated, tag = "3")]
    pub args: Vec<Value>,
    #[prost(bool, optional, tag = "5")]
    pub want_rows: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StmtResult {
    #[prost(message, repeated, tag = "1")]
    pub cols: Vec<Col>,
    #[prost(message, repeated, tag = "2")]
    pub rows: Vec<Row>,
    #[prost(uint64, tag = "3")]
    pub affected_row_count: u64,
    #[prost(sint64, optional, tag = "4")]
    pub last_insert_rowid: Option<i64>,
    /// The end of the primary's log when the statement's program ended.
    #[prost(uint64, optional, tag = "5")]
    pub replication_index: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Col {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// Text is kept as bytes: nothing forces a database's text to be UTF-8.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ValueKind {
    #[prost(message, tag = "1")]
    Null(Empty),
    #[prost(sint64, tag = "2")]
    Integer(i64),
    #[prost(double, tag = "3")]
    Float(f64),
    #[prost(bytes, tag = "4")]
    Text(Vec<u8>),
    #[prost(bytes, tag = "5")]
    Blob(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    #[prost(oneof = "ValueKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<ValueKind>,
}

impl From<ValueKind> for Value {
    fn from(kind: ValueKind) -> Value {
        Value { kind: Some(kind) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub steps: Vec<BatchStep>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchStep {
    #[prost(message, optional, tag = "1")]
    pub condition: Option<Condition>,
    #[prost(message, required, tag = "2")]
    pub stmt: Stmt,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchResult {
    /// By step; a step that was skipped or failed has none.
    #[prost(map = "uint32, message", tag = "1")]
    pub results: HashMap<u32, StmtResult>,
    #[prost(map = "uint32, message", tag = "2")]
    pub errors: HashMap<u32, SqlError>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ConditionKind {
    #[prost(uint32, tag = "1")]
    Ok(u32),
    #[prost(message, tag = "3")]
    Not(Box<Condition>),
    #[prost(message, tag = "4")]
    And(Conditions),
    #[prost(message, tag = "6")]
    IsAutocommit(Empty),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Condition {
    #[prost(oneof = "ConditionKind", tags = "1, 3, 4, 6")]
    pub kind: Option<ConditionKind>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Conditions {
    #[prost(message, repeated, tag = "1")]
    pub conds: Vec<Condition>,
}

impl Condition {
    fn of(kind: ConditionKind) -> Condition {
        Condition { kind: Some(kind) }
    }

    /// The stream is inside a transaction.
    pub fn in_transaction() -> Condition {
        let autocommit = Self::of(ConditionKind::IsAutocommit(Empty {}));
        Self::of(ConditionKind::Not(Box::new(autocommit)))
    }

    /// Step `step` succeeded, and the stream is inside a transaction.
    pub fn in_transaction_after(step: u32) -> Condition {
        Self::of(ConditionKind::And(Conditions {
            conds: vec![Self::after(step), Self::in_transaction()],
        }))
    }

    pub fn after(step: u32) -> Condition {
        Self::of(ConditionKind::Ok(step))
    }
}
