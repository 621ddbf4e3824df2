//! `replica_exec`: one statement at the primary, its result as JSON.

use serde_json::{Value as Json, json};
use sqlite_loadable::api::{self, ValueType};
use sqlite_loadable::ext::sqlite3_value;

use crate::error::{Error, Result};
use crate::remote::values::{Answer, Argument};

/// A bound argument of the statement.
pub fn argument(value: &*mut sqlite3_value) -> Result<Argument> {
    Ok(match api::value_type(value) {
        ValueType::Null => Argument::null(),
        ValueType::Integer => Argument::integer(api::value_int64(value)),
        ValueType::Float => Argument::float(api::value_double(value)),
        ValueType::Text => Argument::text(
            api::value_text(value)
                .map_err(|_| Error::Config("an argument is text that is not UTF-8".into()))?,
        ),
        ValueType::Blob => Argument::blob(match api::value_bytes(value) {
            0 => &[],
            _ => api::value_blob(value),
        }),
    })
}

/// `{"columns":[…],"rows":[…],"affected_rows":n,"last_insert_rowid":n}`; a
/// blob is `{"base64":"…"}`, a number JSON has no form for is null.
pub fn answer(answer: &Answer) -> Json {
    json!({
        "columns": answer.columns(),
        "rows": answer.rows(),
        "affected_rows": answer.affected_rows(),
        "last_insert_rowid": answer.last_insert_rowid(),
    })
}
