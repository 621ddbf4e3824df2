//! The replicas of this process: one for each path, however many connections
//! have it open; the options registered for plain opens; the last error.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use super::Replica;
use super::position::PositionFile;
use crate::config::{Options, Secret, SyncUrl};
use crate::error::{Error, Result};
use crate::ffi::vfs::BaseVfs;

static OPEN: Lazy<Mutex<HashMap<String, Weak<Replica>>>> = Lazy::new(Mutex::default);
static REGISTERED: Lazy<Mutex<HashMap<String, Options>>> = Lazy::new(Mutex::default);
static LAST_ERROR: Mutex<Option<String>> = Mutex::new(None);

/// The replica at `path`, for a connection that opens it. None if the path is
/// no replica's: no primary is given and none is remembered.
pub fn open(vfs: BaseVfs, path: &str, mut options: Options) -> Result<Option<Arc<Replica>>> {
    options.check_available()?;
    if options.sync_url.is_none() {
        match PositionFile::open(path)? {
            Some(store) => {
                let identity = store.identity();
                options.sync_url = Some(SyncUrl::parse(&identity.sync_url)?);
                options.namespace = options.namespace.or_else(|| identity.namespace.clone());
            }
            None => return Ok(None),
        }
    }
    let replica = {
        let mut open = OPEN.lock();
        open.retain(|_, replica| replica.strong_count() > 0);
        match open.get(path).and_then(Weak::upgrade) {
            Some(replica) => replica,
            None => {
                let replica = Arc::new(Replica::new(vfs, path, options.clone())?);
                open.insert(path.to_string(), Arc::downgrade(&replica));
                replica
            }
        }
    };
    agree(&replica, &options)?;
    replica
        .ensure_ready()
        .inspect_err(|e| replica.status.failed(e))?;
    Ok(Some(replica))
}

/// A further connection may bring a newer token, but no other primary.
fn agree(replica: &Replica, options: &Options) -> Result<()> {
    let current = replica.options();
    if let (Some(ours), Some(theirs)) = (&current.sync_url, &options.sync_url)
        && ours.base != theirs.base
    {
        return Err(Error::Config(format!(
            "'{}' is open in this process with sync_url {}, not {}",
            replica.path(),
            ours.text,
            theirs.text
        )));
    }
    match &options.auth_token {
        Some(token) if current.auth_token.as_ref() != Some(token) => {
            replica.configure("auth_token", token.expose())
        }
        _ => Ok(()),
    }
}

/// The open replica at `path`.
pub fn find(path: &str) -> Option<Arc<Replica>> {
    OPEN.lock().get(path).and_then(Weak::upgrade)
}

/// Every open replica, by path.
pub fn all() -> Vec<Arc<Replica>> {
    let mut all: Vec<_> = OPEN.lock().values().filter_map(Weak::upgrade).collect();
    all.sort_by(|a, b| a.path().cmp(b.path()));
    all
}

/// Has plain opens of `path` be this replica from now on.
pub fn register(path: String, options: Options) {
    REGISTERED.lock().insert(path, options);
}

pub fn registered(path: &str) -> Option<Options> {
    REGISTERED.lock().get(path).cloned()
}

/// Later plain opens of `path` use its new key.
pub fn key_changed(path: &str, key: &Secret) {
    if let Some(options) = REGISTERED.lock().get_mut(path)
        && options.encryption_key.is_some()
    {
        options.encryption_key = Some(key.clone());
    }
}

pub fn set_last_error(text: &str) {
    *LAST_ERROR.lock() = Some(text.to_string());
}

pub fn last_error() -> Option<String> {
    LAST_ERROR.lock().clone()
}
