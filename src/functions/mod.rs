//! The SQL surface: arguments in, JSON out. All functions are DIRECTONLY, so
//! that no trigger or view that came with the data can call them.

mod databases;
mod exec;
mod report;

use std::time::Duration;

use sqlite_loadable::ext::{sqlite3, sqlite3_context, sqlite3_value};
use sqlite_loadable::{FunctionFlags, api, define_scalar_function, define_table_function};

use self::report::Report;
use crate::config::Options;
use crate::error::{Error, Result};
use crate::ffi::{api as host, guard};
use crate::replica::{Replica, Synced, registry};
use crate::vfs;

/// What a function answers.
enum Value {
    Null,
    Integer(i64),
    Text(String),
}

/// A call's arguments.
struct Args<'a> {
    db: *mut sqlite3,
    values: &'a [*mut sqlite3_value],
}

type Function = fn(&Args) -> Result<Value>;

/// Name, arguments without the schema, whether a schema may follow, function.
const FUNCTIONS: [(&str, usize, bool, Function); 12] = [
    ("replica_sync", 0, true, sync),
    ("replica_status", 0, true, status),
    ("replica_frame_no", 0, true, frame_no),
    ("replica_wait", 2, true, wait),
    ("replica_config", 2, true, config),
    ("replica_resync", 0, true, resync),
    ("replica_freeze", 0, true, freeze),
    ("replica_rekey", 1, true, rekey),
    ("replica_last_error", 0, false, last_error),
    ("replica_open", 2, false, open),
    ("replica_version", 0, false, version),
    ("replica_version", 1, false, version_part),
];

/// Defines everything on a connection.
pub fn define(db: *mut sqlite3) -> sqlite_loadable::Result<()> {
    for (name, arguments, schema, function) in FUNCTIONS {
        for count in arguments..=arguments + usize::from(schema) {
            define_one(db, name, count as i32, function)?;
        }
    }
    // Any number of bound arguments.
    define_one(db, "replica_exec", -1, execute)?;
    define_table_function::<databases::Databases>(db, "replica_databases", None)
}

fn define_one(
    db: *mut sqlite3,
    name: &'static str,
    arguments: i32,
    function: Function,
) -> sqlite_loadable::Result<()> {
    define_scalar_function(
        db,
        name,
        arguments,
        move |context, values| {
            call(name, context, values, function);
            Ok(())
        },
        FunctionFlags::UTF8 | FunctionFlags::DIRECTONLY,
    )
}

/// Runs a function: no panic leaves it, and an error carries its result code.
fn call(
    name: &str,
    context: *mut sqlite3_context,
    values: &[*mut sqlite3_value],
    function: Function,
) {
    let result = guard::catch(|| {
        let args = Args {
            db: api::context_db_handle(context),
            values,
        };
        let value = function(&args)?;
        answer(context, value)
    })
    .unwrap_or_else(|panic| Err(Error::Internal(panic)));
    if let Err(error) = result {
        let text = format!("{name}: {error}");
        registry::set_last_error(&text);
        // The text first: a code without one would bring SQLite's own.
        let _ = api::result_error(context, &text.replace('\0', " "));
        api::result_error_code(context, error.code());
    }
}

fn answer(context: *mut sqlite3_context, value: Value) -> Result<()> {
    let failed = |_| Error::Internal("the answer does not fit".into());
    match value {
        Value::Null => api::result_null(context),
        Value::Integer(n) => api::result_int64(context, n),
        Value::Text(text) => api::result_text(context, text).map_err(failed)?,
    }
    Ok(())
}

impl Args<'_> {
    fn text(&self, at: usize, what: &str) -> Result<String> {
        let value = self.values.get(at).filter(|v| !api::value_is_null(v));
        let value = value.ok_or_else(|| Error::Config(format!("{what} is NULL")))?;
        api::value_text(value)
            .map(str::to_string)
            .map_err(|_| Error::Config(format!("{what} is not UTF-8")))
    }

    fn number(&self, at: usize, what: &str) -> Result<f64> {
        self.text(at, what)?
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite() && *n >= 0.0)
            .ok_or_else(|| Error::Config(format!("{what} must be a number, 0 or more")))
    }

    /// The schema named by argument `at`, or `main`.
    fn schema(&self, at: usize) -> Result<String> {
        if self.values.len() > at {
            self.text(at, "the schema name")
        } else {
            Ok("main".into())
        }
    }

    /// As `replica`, for what would wait for this connection's own transaction.
    fn idle_replica(&self, at: usize) -> Result<std::sync::Arc<Replica>> {
        if vfs::is_writing(self.db, &self.schema(at)?) {
            return Err(Error::Busy(
                "this connection is inside a write transaction; commit it first".into(),
            ));
        }
        self.replica(at)
    }

    /// The schema named by argument `at`, or `main`, and the file behind it.
    fn file(&self, at: usize) -> Result<(String, String)> {
        let schema = self.schema(at)?;
        let path = host::db_filename(self.db, &schema)
            .ok_or_else(|| Error::Config(format!("no schema '{schema}' on this connection")))?;
        Ok((schema, path))
    }

    /// The replica behind the schema named by argument `at`, or behind `main`.
    fn replica(&self, at: usize) -> Result<std::sync::Arc<Replica>> {
        let (schema, path) = self.file(at)?;
        let file = if path.is_empty() {
            "a temporary database".to_string()
        } else {
            format!("'{path}'")
        };
        let why = match registry::find(&path) {
            Some(replica) if !matches!(replica.is_frozen(), Ok(true)) => return Ok(replica),
            Some(_) => format!("{file} was frozen: it is not a replica any more"),
            None if vfs::is_replica(self.db, &schema) => {
                format!("{file} was opened before this process forked; open it anew")
            }
            None => format!(
                "schema '{schema}' ({file}) is not a replica; open it with vfs=replica and a sync_url"
            ),
        };
        Err(Error::Config(why))
    }
}

fn synced(synced: Synced) -> Value {
    let Synced { frame_no, frames } = synced;
    Value::Text(serde_json::json!({ "frame_no": frame_no, "frames_synced": frames }).to_string())
}

fn sync(args: &Args) -> Result<Value> {
    args.idle_replica(0)?.sync().map(synced)
}

fn resync(args: &Args) -> Result<Value> {
    args.idle_replica(0)?.resync().map(synced)
}

fn freeze(args: &Args) -> Result<Value> {
    let replica = args.idle_replica(0)?;
    replica.freeze()?;
    Ok(Value::Text(replica.path().to_string()))
}

fn execute(args: &Args) -> Result<Value> {
    let sql = args.text(0, "the statement")?;
    let bound = args.values[1..]
        .iter()
        .map(exec::argument)
        .collect::<Result<_>>()?;
    let replica = Args {
        values: &[],
        ..*args
    }
    .idle_replica(0)?;
    let answer = replica.execute(&sql, bound)?;
    Ok(Value::Text(exec::answer(&answer).to_string()))
}

fn rekey(args: &Args) -> Result<Value> {
    // As the option is given: `env:` and `file:` work here, too.
    let mut options = Options::default();
    options.set("encryption_key", &args.text(0, "the new key")?)?;
    let Some(key) = options.encryption_key else {
        return Err(Error::Config("the new key is empty".into()));
    };
    let (schema, path) = args.file(1)?;
    // Whoever has the key, not whoever has a connection to the same path.
    if vfs::is_encrypted(&path) && !vfs::has_key(args.db, &schema) {
        return Err(Error::Config(format!(
            "this connection has '{path}' open without its key: open it with vfs=replica and its encryption_key"
        )));
    }
    vfs::rekey(&path, &key)?;
    Ok(Value::Text(path))
}

fn status(args: &Args) -> Result<Value> {
    // An encrypted database without a primary has little to tell.
    let (_, path) = args.file(0)?;
    if registry::find(&path).is_none() && vfs::is_encrypted(&path) {
        return Ok(Value::Text(report::local(&path).to_string()));
    }
    let replica = args.replica(0)?;
    Ok(Value::Text(Report::of(&replica).json().to_string()))
}

fn frame_no(args: &Args) -> Result<Value> {
    let frame_no = args.replica(0)?.facts().frame_no;
    Ok(frame_no.map_or(Value::Null, |n| Value::Integer(n as i64)))
}

fn wait(args: &Args) -> Result<Value> {
    let frame_no = args.number(0, "the frame number")?;
    let seconds = args
        .number(1, "the number of seconds")?
        .min(86_400.0 * 366.0);
    let reached = args
        .replica(2)?
        .wait(frame_no as u64, Duration::from_secs_f64(seconds))?;
    Ok(Value::Integer(reached.into()))
}

fn config(args: &Args) -> Result<Value> {
    let (name, value) = (
        args.text(0, "the option's name")?,
        args.text(1, "the option's value")?,
    );
    args.replica(2)?.configure(&name, &value)?;
    Ok(Value::Text(name))
}

fn last_error(_: &Args) -> Result<Value> {
    Ok(registry::last_error().map_or(Value::Null, Value::Text))
}

fn open(args: &Args) -> Result<Value> {
    let path = args.text(0, "the path")?;
    if path.is_empty() || path == ":memory:" || path.starts_with("file:") {
        return Err(Error::Config(format!(
            "'{path}' is not the path of a database file"
        )));
    }
    let json: serde_json::Value = serde_json::from_str(&args.text(1, "the options")?)
        .map_err(|e| Error::Config(format!("the options are not JSON: {e}")))?;
    let object = json
        .as_object()
        .ok_or_else(|| Error::Config("the options are not a JSON object".into()))?;
    let mut options = Options::default();
    for (name, value) in object {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Bool(on) => u8::from(*on).to_string(),
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Null => String::new(),
            _ => {
                return Err(Error::Config(format!(
                    "{name}: expected a string, a number or a boolean"
                )));
            }
        };
        options.set(name, &text)?;
    }
    vfs::register_path(&path, options).map(Value::Text)
}

fn version(_: &Args) -> Result<Value> {
    Ok(Value::Text(env!("CARGO_PKG_VERSION").into()))
}

/// `replica_version('commit')`: what the library was built from.
fn version_part(args: &Args) -> Result<Value> {
    match args.text(0, "the part")?.as_str() {
        "commit" => Ok(Value::Text(env!("LIBREPLICA_COMMIT").into())),
        other => Err(Error::Config(format!(
            "no part '{other}'; there is 'commit'"
        ))),
    }
}
