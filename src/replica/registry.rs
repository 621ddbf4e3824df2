//! The replicas of this process: one for each path, however many connections
//! have it open; the options registered for plain opens; the last error.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::Replica;
use super::identity;
use super::position::PositionFile;
use crate::config::{Given, Options, Secret, SyncUrl};
use crate::error::{Error, Result};
use crate::ffi::vfs::BaseVfs;
use crate::ffi::{fork, user};

/// What belongs to one process. A forked child begins anew: it cannot use what
/// the parent has open, and a lock that another thread of the parent held at
/// that moment would never be given back.
struct Process {
    id: u32,
    open: Mutex<HashMap<String, Weak<Replica>>>,
    registered: Mutex<HashMap<String, Given>>,
    adopting: AtomicBool,
    last_error: Mutex<Option<String>>,
    child: OnceLock<Box<Process>>,
}

impl Process {
    fn new(id: u32, registered: HashMap<String, Given>, adopting: bool) -> Process {
        Process {
            id,
            open: Mutex::default(),
            registered: Mutex::new(registered),
            adopting: AtomicBool::new(adopting),
            last_error: Mutex::default(),
            child: OnceLock::new(),
        }
    }
}

fn here() -> &'static Process {
    static FIRST: OnceLock<Process> = OnceLock::new();
    let id = fork::process();
    let mut process = FIRST.get_or_init(|| Process::new(id, HashMap::new(), false));
    while process.id != id {
        let parent = process;
        process = parent.child.get_or_init(|| {
            // What was registered holds for the child, too.
            let registered = parent.registered.try_lock();
            let registered = registered.map_or_else(HashMap::new, |r| r.clone());
            let adopting = parent.adopting.load(Ordering::Acquire);
            Box::new(Process::new(id, registered, adopting))
        });
    }
    process
}

/// The replica at `path`, for a connection that opens it. None if the path is
/// no replica's: no primary is given and none is remembered.
pub fn open(
    vfs: BaseVfs,
    path: &str,
    given: &Given,
    mut options: Options,
) -> Result<Option<Arc<Replica>>> {
    if options.sync_url.is_none() {
        match PositionFile::open(path)? {
            Some(store) => {
                if options.auth_token.is_some() {
                    check_trust(path)?;
                }
                let identity = store.identity();
                options.sync_url = Some(SyncUrl::parse(&identity.sync_url)?);
                options.namespace = options.namespace.or_else(|| identity.namespace.clone());
            }
            None => return Ok(None),
        }
    }
    let replica = {
        let mut open = here().open.lock();
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
    agree(&replica, given, &options)?;
    join(&replica, &options)?;
    replica
        .ensure_ready()
        .inspect_err(|e| replica.status.failed(e))?;
    replica.start_background();
    Ok(Some(replica))
}

/// A token goes where the user, or this library on the user's behalf, said:
/// not where somebody else may have written.
fn check_trust(path: &str) -> Result<()> {
    let beside = identity::path_of(path);
    match std::fs::metadata(&beside) {
        Ok(file) if !user::others_may_write(&file) => Ok(()),
        _ => Err(Error::Config(format!(
            "others may write '{beside}', so no auth_token is sent to the address in it; give the sync_url, too"
        ))),
    }
}

/// What is one for all connections of the process: a further one may leave it
/// out, or must say the same.
pub fn agree(replica: &Replica, given: &Given, options: &Options) -> Result<()> {
    let now = replica.options();
    let other_token = now.auth_token.is_some() && now.auth_token != options.auth_token;
    let differs = [
        ("sync_url", now.sync_url != options.sync_url),
        ("namespace", now.namespace != options.namespace),
        ("auth_token", other_token),
        ("ca_file", now.ca_file != options.ca_file),
        ("timeout", now.timeout != options.timeout),
        ("write_lock", now.write_lock != options.write_lock),
        ("write_path", now.write_path != options.write_path),
        (
            "read_your_writes",
            now.read_your_writes != options.read_your_writes,
        ),
    ];
    let mut differing = differs
        .iter()
        .filter(|(name, differs)| *differs && given.has(name));
    let Some((name, _)) = differing.next() else {
        return Ok(());
    };
    let way_out = match *name {
        "auth_token" | "timeout" => format!(
            "leave it out, and change it for all of them with `SELECT replica_config('{name}', …)`"
        ),
        _ => "leave it out, or close the other connections first".to_string(),
    };
    Err(Error::Config(format!(
        "'{}' is open in this process with another {name}; {way_out}",
        replica.path()
    )))
}

/// What a further connection may add: a token where there is none, and
/// background work.
fn join(replica: &Replica, options: &Options) -> Result<()> {
    let now = replica.options();
    if let (None, Some(token)) = (&now.auth_token, &options.auth_token) {
        replica.configure("auth_token", token.expose())?;
    }
    if options.live && !now.live {
        replica.configure("live", "1")?;
    }
    let interval = options.sync_interval;
    if !interval.is_zero() && interval != now.sync_interval {
        replica.configure("sync_interval", &interval.as_secs_f64().to_string())?;
    }
    Ok(())
}

/// The open replica at `path`.
pub fn find(path: &str) -> Option<Arc<Replica>> {
    here().open.lock().get(path).and_then(Weak::upgrade)
}

/// Every open replica, by path.
pub fn all() -> Vec<Arc<Replica>> {
    let mut all: Vec<_> = here()
        .open
        .lock()
        .values()
        .filter_map(Weak::upgrade)
        .collect();
    all.sort_by(|a, b| a.path().cmp(b.path()));
    all
}

/// Has plain opens of `path` be this replica from now on.
pub fn register(path: String, given: Given) {
    here().registered.lock().insert(path, given);
}

pub fn registered(path: &str) -> Option<Given> {
    here().registered.lock().get(path).cloned()
}

/// Whether every plain open of a replica is that replica.
pub fn adopt(on: bool) {
    here().adopting.store(on, Ordering::Release);
}

pub fn is_adopting() -> bool {
    here().adopting.load(Ordering::Acquire)
}

/// Whether the file beside it says that `path` is a replica.
pub fn is_remembered(path: &str) -> Result<bool> {
    PositionFile::open(path).map(|file| file.is_some())
}

/// Later plain opens of `path` use its new key.
pub fn key_changed(path: &str, key: &Secret) {
    if let Some(given) = here().registered.lock().get_mut(path) {
        given.replace("encryption_key", key);
    }
}

pub fn set_last_error(text: &str) {
    *here().last_error.lock() = Some(text.to_string());
}

pub fn last_error() -> Option<String> {
    here().last_error.lock().clone()
}
