//! What each function does.

use std::time::Duration;

use super::args::Args;
use super::report::{self, Report};
use super::{Value, exec};
use crate::config::{Given, Options};
use crate::error::{Error, Result};
use crate::replica::{Synced, registry};
use crate::vfs;

fn synced(synced: Synced) -> Value {
    let Synced { frame_no, frames } = synced;
    Value::Text(serde_json::json!({ "frame_no": frame_no, "frames_synced": frames }).to_string())
}

pub fn sync(args: &Args) -> Result<Value> {
    args.idle_replica(0)?.sync().map(synced)
}

pub fn resync(args: &Args) -> Result<Value> {
    args.idle_replica(0)?.resync().map(synced)
}

pub fn freeze(args: &Args) -> Result<Value> {
    let replica = args.idle_replica(0)?;
    replica.freeze()?;
    Ok(Value::Text(replica.path().to_string()))
}

pub fn execute(args: &Args) -> Result<Value> {
    let sql = args.text(0, "the statement")?;
    let bound = (1..args.count()).map(|at| exec::argument(args.0.argument(at)));
    let bound = bound.collect::<Result<_>>()?;
    let answer = args.idle_replica(args.count())?.execute(&sql, bound)?;
    Ok(Value::Text(exec::answer(&answer).to_string()))
}

pub fn rekey(args: &Args) -> Result<Value> {
    // As the option is given: `env:` and `file:` work here, too.
    let mut options = Options::default();
    options.set("encryption_key", &args.text(0, "the new key")?)?;
    let Some(key) = options.encryption_key else {
        return Err(Error::Config("the new key is empty".into()));
    };
    let (schema, path) = args.file(1)?;
    // Whoever has the key, not whoever has a connection to the same path.
    if vfs::is_encrypted(&path) && !vfs::has_key(args.0.db(), &schema) {
        return Err(Error::Config(format!(
            "this connection has '{path}' open without its key: open it with vfs=replica and its encryption_key"
        )));
    }
    vfs::rekey(&path, &key)?;
    Ok(Value::Text(path))
}

pub fn status(args: &Args) -> Result<Value> {
    // An encrypted database without a primary has little to tell.
    let (_, path) = args.file(0)?;
    if registry::find(&path).is_none() && vfs::is_encrypted(&path) {
        return Ok(Value::Text(report::local(&path).to_string()));
    }
    let replica = args.replica(0)?;
    Ok(Value::Text(Report::of(&replica).json().to_string()))
}

pub fn frame_no(args: &Args) -> Result<Value> {
    let frame_no = args.replica(0)?.facts().frame_no;
    Ok(frame_no.map_or(Value::Null, |n| Value::Integer(n as i64)))
}

pub fn wait(args: &Args) -> Result<Value> {
    let frame_no = args.number(0, "the frame number")?;
    let seconds = args
        .number(1, "the number of seconds")?
        .min(86_400.0 * 366.0);
    let reached = args
        .replica(2)?
        .wait(frame_no as u64, Duration::from_secs_f64(seconds))?;
    Ok(Value::Integer(reached.into()))
}

pub fn config(args: &Args) -> Result<Value> {
    let (name, value) = (
        args.text(0, "the option's name")?,
        args.text(1, "the option's value")?,
    );
    args.replica(2)?.configure(&name, &value)?;
    Ok(Value::Text(name))
}

pub fn last_error(_: &Args) -> Result<Value> {
    Ok(registry::last_error().map_or(Value::Null, Value::Text))
}

pub fn open(args: &Args) -> Result<Value> {
    let path = args.text(0, "the path")?;
    if path.is_empty() || path == ":memory:" || path.starts_with("file:") {
        return Err(Error::Config(format!(
            "'{path}' is not the path of a database file"
        )));
    }
    let given = Given::from_json(&args.text(1, "the options")?)?;
    vfs::register_path(&path, given).map(Value::Text)
}

pub fn adopt(args: &Args) -> Result<Value> {
    let on = match args.text(0, "the argument")?.as_str() {
        "0" => false,
        "1" => true,
        _ => return Err(Error::Config("expected 0 or 1".into())),
    };
    vfs::adopt(on)?;
    Ok(Value::Integer(on.into()))
}

/// `replica_version('commit')`: what the library was built from.
pub fn version_part(args: &Args) -> Result<Value> {
    match args.text(0, "the part")?.as_str() {
        "commit" => Ok(Value::Text(env!("LIBREPLICA_COMMIT").into())),
        other => Err(Error::Config(format!(
            "no part '{other}'; there is 'commit'"
        ))),
    }
}
