//! The replicas of this process: one for each path, however many connections
//! have it open; the options registered for plain opens; the last error.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Replica;
use super::identity::path_of;
use super::local::foreign;
use super::position::PositionFile;
use super::reader::{Reader, nothing_to_read};
use crate::config::{Options, Secret, SyncUrl};
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
    registered: Mutex<HashMap<String, Options>>,
    last_error: Mutex<Option<String>>,
    child: OnceLock<Box<Process>>,
}

impl Process {
    fn new(id: u32, registered: HashMap<String, Options>) -> Process {
        Process {
            id,
            open: Mutex::default(),
            read: Mutex::default(),
            registered: Mutex::new(registered),
            last_error: Mutex::default(),
            child: OnceLock::new(),
        }
    }
}

fn here() -> &'static Process {
    static FIRST: OnceLock<Process> = OnceLock::new();
    let id = fork::process();
    let mut process = FIRST.get_or_init(|| Process::new(id, HashMap::new()));
    while process.id != id {
        let parent = process;
        process = parent.child.get_or_init(|| {
            // What was registered holds for the child, too.
            let registered = parent.registered.try_lock();
            let registered = registered.map_or_else(HashMap::new, |r| r.clone());
            Box::new(Process::new(id, registered))
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
    mut options: Options,
    access: Access,
) -> Result<Option<Arc<Replica>>> {
    bind(&vfs, path)?;
    if access == Access::Read {
        return open_to_read(vfs, path, options);
    }
    if options.sync_url.is_none() {
        match PositionFile::open(path)? {
            Some(store) => {
                if options.auth_token.is_some() && !store.is_trusted() {
                    return Err(Error::Config(format!(
                        "others can write to '{}', so no auth_token is sent to the primary that it names; name the sync_url, too",
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
    agree(&replica, &options)?;
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
fn open_to_read(vfs: BaseVfs, path: &str, mut options: Options) -> Result<Option<Arc<Replica>>> {
    let found = Reader::find(&vfs, path)?;
    if found.is_none() && options.sync_url.is_none() {
        return Ok(None);
    }
    if std::fs::metadata(path).map_or(0, |meta| meta.len()) == 0 {
        return Err(nothing_to_read(path));
    }
    let reader = found.ok_or_else(|| foreign(path))?;
    let remembered = SyncUrl::parse(&reader.identity().sync_url)?;
    if let Some(named) = &options.sync_url
        && named.base != remembered.base
    {
        return Err(Error::Config(format!(
            "'{path}' is a replica of {}, not of {}",
            remembered.text, named.text
        )));
    }
    options.sync_url.get_or_insert(remembered);
    options.live = false;
    options.sync_interval = Duration::ZERO;
    let mut open = here().read.lock();
    open.retain(|_, replica| replica.strong_count() > 0);
    if let Some(replica) = open.get(path).and_then(Weak::upgrade) {
        return Ok(Some(replica));
    }
    let replica = Arc::new(Replica::to_read(vfs, path, options, reader)?);
    open.insert(path.to_string(), Arc::downgrade(&replica));
    Ok(Some(replica))
}

/// A further connection may bring a newer token and ask for background work,
/// but for no other primary.
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
            replica.configure("auth_token", token.expose())?;
        }
        _ => {}
    }
    if options.live && !current.live {
        replica.configure("live", "1")?;
    }
    let interval = options.sync_interval;
    if !interval.is_zero() && interval != current.sync_interval {
        replica.configure("sync_interval", &interval.as_secs_f64().to_string())?;
    }
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
pub fn register(path: String, options: Options) {
    here().registered.lock().insert(path, options);
}

pub fn registered(path: &str) -> Option<Options> {
    here().registered.lock().get(path).cloned()
}

/// Later plain opens of `path` use its new key.
pub fn key_changed(path: &str, key: &Secret) {
    if let Some(options) = here().registered.lock().get_mut(path)
        && options.encryption_key.is_some()
    {
        options.encryption_key = Some(key.clone());
    }
}

pub fn set_last_error(text: &str) {
    *here().last_error.lock() = Some(text.to_string());
}

pub fn last_error() -> Option<String> {
    here().last_error.lock().clone()
}
