//! Plain opens that are replicas all the same: paths that were registered, and
//! replicas that are adopted.

use std::fs::Metadata;

use libsqlite3_sys as sql;

use super::{crypt, is_replica, registered};
use crate::config::{Given, Options};
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::ffi::vfs::BaseVfs;
use crate::replica::registry;

/// `LIBREPLICA_ADOPT=1`: for programs that can load the library and no more.
pub fn adoption_wanted() -> std::result::Result<bool, String> {
    match std::env::var("LIBREPLICA_ADOPT").as_deref() {
        Err(_) | Ok("" | "0") => Ok(false),
        Ok("1") => Ok(true),
        Ok(_) => Err("libreplica: the environment variable LIBREPLICA_ADOPT must be 0 or 1".into()),
    }
}

/// What keeps the library from being loaded on a connection: where replicas
/// are adopted, one that was opened before would be written here, and nowhere
/// else.
pub fn check_early_open(db: *mut sql::sqlite3) -> std::result::Result<(), String> {
    let path = api::db_filename(db, "main").filter(|path| !path.is_empty());
    let Some(path) = path.filter(|_| !is_replica(db, "main")) else {
        return adoption_wanted().map(drop);
    };
    let adopting = adoption_wanted()? || registry::is_adopting();
    if adopting && registry::is_remembered(&path).unwrap_or(true) {
        return Err(format!(
            "libreplica: '{path}' is a replica and was opened before libreplica was loaded; load it on another connection first, as on ':memory:', then open the file"
        ));
    }
    Ok(())
}

/// Has every later plain open of a replica be that replica, or no longer.
pub fn adopt(on: bool) -> Result<()> {
    registry::adopt(on);
    if on {
        registered()?.make_default()
    } else {
        Ok(())
    }
}

/// `foreign_keys` as the open of a connection's database asked for it.
pub fn foreign_keys(db: *mut sql::sqlite3) -> Option<bool> {
    let path = api::db_filename(db, "main")?;
    let known = registry::registered(&path).and_then(|given| given.options().ok());
    let mut options: Options = known.unwrap_or_default();
    if let Some(value) = api::db_parameter(db, c"main", c"foreign_keys") {
        options.set("foreign_keys", &value).ok()?;
    }
    options.foreign_keys
}

/// Has plain opens of `path` be a replica with these options. Answers the full path.
pub fn register_path(path: &str, given: Given) -> Result<String> {
    let vfs = registered()?;
    let path = vfs.base.full_path(path)?;
    match registry::find(&path) {
        Some(replica) => registry::agree(&replica, &given, &given.options()?)?,
        None => check_kind(&vfs.raw, &path)?,
    }
    registry::register(path.clone(), given);
    vfs.make_default().map(|()| path)
}

/// An error where registering `path` would keep the application from opening
/// what it has there, or bring it to write somewhere else.
fn check_kind(raw: &BaseVfs, path: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::Config(format!("'{path}' {why}")));
    let file = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return refuse(&format!("cannot be looked at: {e}")),
        Ok(file) => file,
    };
    if !file.is_file() {
        return refuse("is no file");
    }
    if registry::is_remembered(path)? {
        return Ok(());
    }
    if file.len() == 0 {
        return match is_open_here(&file) {
            true => refuse("is open in this process as another database"),
            false => Ok(()),
        };
    }
    match crypt::is_encrypted_file(raw, path)? {
        true => Ok(()),
        false => {
            refuse("exists and is neither a replica nor encrypted; another path, or remove it")
        }
    }
}

/// Whether this process has a file open, as far as the system tells.
#[cfg(unix)]
fn is_open_here(file: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(open) = std::fs::read_dir("/dev/fd") else {
        return false;
    };
    let same = |other: Metadata| (other.dev(), other.ino()) == (file.dev(), file.ino());
    let mut open = open.flatten().map(|entry| std::fs::metadata(entry.path()));
    open.any(|other| other.is_ok_and(same))
}

#[cfg(not(unix))]
fn is_open_here(_: &Metadata) -> bool {
    false
}
