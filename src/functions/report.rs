//! `replica_status`, as JSON and as the columns of `replica_databases`.

use serde_json::{Map, Value, json};

use crate::replica::Replica;

/// The fields, in order.
pub const FIELDS: [&str; 15] = [
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
];

/// A field's value.
pub fn field(replica: &Replica, name: &str) -> Value {
    let (facts, options) = (replica.status.facts(), replica.options());
    let (sent, received) = replica.status.traffic.snapshot();
    match name {
        "path" => json!(replica.path()),
        "sync_url" => json!(options.sync_url.map(|u| u.text)),
        // Nothing is shipped by this version.
        "write_path" => Value::Null,
        "frame_no" => json!(facts.frame_no),
        "primary_frame_no" => json!(facts.primary_frame_no),
        "state" => json!(facts.state.name()),
        "last_sync" => json!(facts.last_sync),
        "last_error" => json!(facts.last_error),
        "encrypted" => json!(u8::from(options.encryption_key.is_some())),
        "sync_interval" => json!(options.sync_interval.as_secs_f64()),
        "live" => json!(u8::from(options.live)),
        "frames_applied" => json!(facts.frames_applied),
        "commits_shipped" => json!(facts.commits_shipped),
        "bytes_received" => json!(received),
        "bytes_sent" => json!(sent),
        _ => Value::Null,
    }
}

pub fn json(replica: &Replica) -> Value {
    Value::Object(
        FIELDS
            .iter()
            .map(|name| (name.to_string(), field(replica, name)))
            .collect::<Map<_, _>>(),
    )
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
