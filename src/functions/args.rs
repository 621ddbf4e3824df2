//! A call's arguments, and what they name.

use std::sync::Arc;

use super::Takes;
use crate::error::{Error, Result};
use crate::ffi::api as host;
use crate::ffi::function::{Argument, Call};
use crate::replica::{Replica, registry};
use crate::vfs;

pub struct Args<'a>(pub &'a Call<'a>);

impl Args<'_> {
    pub fn text(&self, at: usize, what: &str) -> Result<String> {
        match self.0.argument(at) {
            Argument::Null => return Err(Error::Config(format!("{what} is NULL"))),
            Argument::Lost => return Err(no_memory()),
            _ => {}
        }
        let text = self.0.text(at).ok_or_else(no_memory)?;
        let text = std::str::from_utf8(text);
        text.map(str::to_string)
            .map_err(|_| Error::Config(format!("{what} is not UTF-8")))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn number(&self, at: usize, what: &str) -> Result<f64> {
        self.text(at, what)?
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite() && *n >= 0.0)
            .ok_or_else(|| Error::Config(format!("{what} must be a number, 0 or more")))
    }

    /// The schema that a call names.
    pub fn named_schema(&self, takes: Takes) -> Result<String> {
        match takes {
            Takes::Schema(at) => self.schema(at),
            Takes::Exactly(_) | Takes::Bound => Ok("main".into()),
        }
    }

    /// The schema named by argument `at`, or `main`.
    pub fn schema(&self, at: usize) -> Result<String> {
        if self.0.len() > at {
            self.text(at, "the schema name")
        } else {
            Ok("main".into())
        }
    }

    /// As `replica`, for what would wait for this connection's own transaction.
    pub fn idle_replica(&self, at: usize) -> Result<Arc<Replica>> {
        if vfs::is_writing(self.0.db(), &self.schema(at)?) {
            return Err(Error::Busy(
                "this connection is inside a write transaction; commit it first".into(),
            ));
        }
        self.replica(at)
    }

    /// The schema named by argument `at`, or `main`, and the file behind it.
    pub fn file(&self, at: usize) -> Result<(String, String)> {
        let schema = self.schema(at)?;
        let path = host::db_filename(self.0.db(), &schema)
            .ok_or_else(|| Error::Config(format!("no schema '{schema}' on this connection")))?;
        Ok((schema, path))
    }

    /// The replica behind the schema named by argument `at`, or behind `main`.
    pub fn replica(&self, at: usize) -> Result<Arc<Replica>> {
        let (schema, path) = self.file(at)?;
        let file = if path.is_empty() {
            "a temporary database".to_string()
        } else {
            format!("'{path}'")
        };
        let why = match registry::find(&path) {
            Some(replica) if !matches!(replica.is_frozen(), Ok(true)) => return Ok(replica),
            Some(_) => format!("{file} was frozen: it is not a replica any more"),
            None if vfs::is_replica(self.0.db(), &schema) => {
                format!("{file} was opened before this process forked; open it anew")
            }
            None => format!(
                "schema '{schema}' ({file}) is not a replica; open it with vfs=replica and a sync_url"
            ),
        };
        Err(Error::Config(why))
    }
}

pub fn no_memory() -> Error {
    Error::Internal("out of memory".into())
}
