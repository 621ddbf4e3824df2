//! `replica_status`, as JSON and as the columns of `replica_databases`.

use serde_json::{Map, Value, json};

use crate::config::Options;
use crate::replica::Replica;
use crate::replica::status::Facts;

/// The fields, in order.
pub const FIELDS: [&str; 16] = [
    "path",
    "sync_url",
    "write_path",
    "frame_no",
    "primary_frame_no",
    "state",
    "last_sync",
    "last_error",
    "encrypted",
    "sync_interval",
    "live",
    "frames_applied",
    "commits_shipped",
    "bytes_received",
    "bytes_sent",
    "offline_since",
];

/// Everything there is to tell of a replica, as of one moment.
pub struct Report {
    path: String,
    facts: Facts,
    options: Options,
    sent: u64,
    received: u64,
}

impl Report {
    pub fn of(replica: &Replica) -> Report {
        let (sent, received) = replica.status.traffic.snapshot();
        Report {
            path: replica.path().to_string(),
            facts: replica.facts(),
            options: replica.options(),
            sent,
            received,
        }
    }

    /// A field's value.
    pub fn field(&self, name: &str) -> Value {
        let Report { facts, options, .. } = self;
        match name {
            "path" => json!(self.path),
            "sync_url" => json!(options.sync_url.as_ref().map(|u| &u.text)),
            "write_path" => json!(facts.write_path),
            "frame_no" => json!(facts.frame_no),
            "primary_frame_no" => json!(facts.primary_frame_no),
            "state" => json!(facts.state.name()),
            "last_sync" => json!(facts.last_sync),
            "last_error" => json!(facts.last_error.as_ref().or(facts.beside.as_ref())),
            "encrypted" => json!(u8::from(options.encryption_key.is_some())),
            "sync_interval" => json!(options.sync_interval.as_secs_f64()),
            "live" => json!(u8::from(options.live)),
            "frames_applied" => json!(facts.frames_applied),
            "commits_shipped" => json!(facts.commits_shipped),
            "bytes_received" => json!(self.received),
            "bytes_sent" => json!(self.sent),
            "offline_since" => json!(facts.offline_since),
            _ => Value::Null,
        }
    }

    pub fn json(&self) -> Value {
        let fields = FIELDS.iter();
        let fields = fields.map(|name| (name.to_string(), self.field(name)));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

/// Of an encrypted database without a primary.
pub fn local(path: &str) -> Value {
    let value = |name: &str| match name {
        "path" => json!(path),
        "state" => json!("local"),
        "encrypted" => json!(1),
        _ => Value::Null,
    };
    Value::Object(
        FIELDS
            .iter()
            .map(|name| (name.to_string(), value(name)))
            .collect::<Map<_, _>>(),
    )
}
