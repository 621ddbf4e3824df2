//! The replicas of this process: one for each path, however many connections
//! have it open; the options registered for plain opens; the last error.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Replica;
use super::beside::{self, Companion};
use super::identity::path_of;
use super::local::foreign;
use super::position::PositionFile;
use super::reader::{Reader, nothing_to_read};
use crate::config::{Given, Options, Secret, SyncUrl};
use crate::crypt::vault;
use crate::error::{Error, Result};
use crate::ffi::file::{FileKind, OsFile};
use crate::ffi::fork;
use crate::ffi::vfs::BaseVfs;

/// What belongs to one process. A forked child begins anew: it cannot use what
/// the parent has open, and a lock that another thread of the parent held at
/// that moment would never be given back.
struct Process {
    id: u32,
    open: Mutex<HashMap<String, Weak<Replica>>>,
    /// Those that are open for reading alone.
    read: Mutex<HashMap<String, Weak<Replica>>>,
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
            read: Mutex::default(),
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

/// What a connection may do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Write,
    Read,
}

/// The replica at `path`, for a connection that opens it. None if the path is
/// no replica's: no primary is given and none is remembered.
pub fn open(
    vfs: BaseVfs,
    path: &str,
    given: &Given,
    mut options: Options,
    access: Access,
) -> Result<Option<Arc<Replica>>> {
    bind(&vfs, path)?;
    if access == Access::Read {
        return open_to_read(vfs, path, given, options);
    }
    if options.sync_url.is_none() {
        match PositionFile::open(path)? {
            Some(store) => {
                if options.auth_token.is_some() && !store.is_trusted() {
                    return Err(Error::Config(format!(
                        "others may write '{}', so no auth_token is sent to the primary that it names; name the sync_url, too",
                        path_of(path)
                    )));
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
    join(&replica, given, &options)?;
    replica
        .ensure_ready()
        .inspect_err(|e| replica.status.failed(e))?;
    replica.start_background();
    Ok(Some(replica))
}

/// A key that was given for a database that exists is looked at before
/// anything that it has to prove.
fn bind(vfs: &BaseVfs, path: &str) -> Result<()> {
    let has_content = std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    if vault::offered(path).is_some() && has_content {
        OsFile::open_to_read(vfs, path, FileKind::Database)?;
    }
    Ok(())
}

/// For a connection that only reads: nothing is made, fetched or started.
fn open_to_read(
    vfs: BaseVfs,
    path: &str,
    given: &Given,
    mut options: Options,
) -> Result<Option<Arc<Replica>>> {
    let found = Reader::find(&vfs, path)?;
    if found.is_none() && options.sync_url.is_none() {
        return Ok(None);
    }
    if std::fs::metadata(path).map_or(0, |meta| meta.len()) == 0 {
        return Err(nothing_to_read(path));
    }
    let reader = found.ok_or_else(|| foreign(path))?;
    let remembered = SyncUrl::parse(&reader.identity().sync_url)?;
    let other_url = options.sync_url.as_ref().is_some_and(|u| *u != remembered);
    let other_namespace =
        given.has("namespace") && options.namespace != reader.identity().namespace;
    if other_url || other_namespace {
        let name = if other_url { "sync_url" } else { "namespace" };
        return Err(Error::Config(format!(
            "'{path}' is a replica of another {name}; leave it out"
        )));
    }
    options.sync_url.get_or_insert(remembered);
    options.live = false;
    options.sync_interval = Duration::ZERO;
    let mut open = here().read.lock();
    open.retain(|_, replica| replica.strong_count() > 0);
    if let Some(replica) = open.get(path).and_then(Weak::upgrade) {
        agree(&replica, given, &options)?;
        return Ok(Some(replica));
    }
    let replica = Arc::new(Replica::to_read(vfs, path, options, reader)?);
    open.insert(path.to_string(), Arc::downgrade(&replica));
    Ok(Some(replica))
}

/// Whose the data is, and who may have it, is one for all connections of the
/// process: a further one may leave it out, or must say the same.
pub fn agree(replica: &Replica, given: &Given, options: &Options) -> Result<()> {
    let now = replica.options();
    let other_token = now.auth_token.is_some() && now.auth_token != options.auth_token;
    let differs = [
        ("sync_url", now.sync_url != options.sync_url),
        ("namespace", now.namespace != options.namespace),
        ("auth_token", other_token),
        ("ca_file", now.ca_file != options.ca_file),
    ];
    let mut differing = differs
        .iter()
        .filter(|(name, differs)| *differs && given.has(name));
    let Some((name, _)) = differing.next() else {
        return Ok(());
    };
    let way_out = match *name {
        "auth_token" => {
            "leave it out, and change it for all of them with `SELECT replica_config('auth_token', …)`"
        }
        _ => "leave it out, or close the other connections first",
    };
    Err(Error::Config(format!(
        "'{}' is open in this process with another {name}; {way_out}",
        replica.path()
    )))
}

/// What a further connection may add, or change for all of them: a token where
/// there is none, background work, and how commits travel.
fn join(replica: &Replica, given: &Given, options: &Options) -> Result<()> {
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
    replica.travel(|shared| {
        if given.has("timeout") {
            shared.timeout = options.timeout;
        }
        if given.has("write_lock") {
            shared.write_lock = options.write_lock;
        }
        if given.has("write_path") {
            shared.write_path = options.write_path;
        }
        if given.has("read_your_writes") {
            shared.read_your_writes = options.read_your_writes;
        }
    });
    Ok(())
}

/// The open replica at `path`.
pub fn find(path: &str) -> Option<Arc<Replica>> {
    let written = here().open.lock().get(path).and_then(Weak::upgrade);
    written.or_else(|| here().read.lock().get(path).and_then(Weak::upgrade))
}

/// Every open replica, by path.
pub fn all() -> Vec<Arc<Replica>> {
    let live = |open: &Mutex<HashMap<String, Weak<Replica>>>| -> Vec<_> {
        open.lock().values().filter_map(Weak::upgrade).collect()
    };
    let mut all: Vec<Arc<Replica>> = live(&here().open);
    all.extend(live(&here().read));
    // Where it is written, too, that one tells more: it comes first.
    all.sort_by(|a, b| a.path().cmp(b.path()));
    all.dedup_by(|a, b| a.path() == b.path());
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
    // Whatever its key proves is looked at when it is opened.
    beside::read(path, Companion::Position).map(|file| file.is_some())
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
