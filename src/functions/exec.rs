//! `replica_exec`: one statement at the primary, its result as JSON.

use serde_json::{Value as Json, json};

use super::args::no_memory;
use crate::error::{Error, Result};
use crate::ffi::function::Argument as Given;
use crate::remote::values::{Answer, Argument};

/// A bound argument of the statement.
pub fn argument(given: Given) -> Result<Argument> {
    Ok(match given {
        Given::Null => Argument::null(),
        Given::Integer(n) => Argument::integer(n),
        Given::Float(x) => Argument::float(x),
        Given::Text(text) => Argument::text(
            std::str::from_utf8(text)
                .map_err(|_| Error::Config("an argument is text that is not UTF-8".into()))?,
        ),
        Given::Blob(blob) => Argument::blob(blob),
        Given::Lost => return Err(no_memory()),
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
