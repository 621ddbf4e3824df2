//! The VFS `replica`: decides at open what a file is, and watches the database
//! file of a replica.

mod access;
mod crypt;
mod main_db;
mod plain;
mod schema_watch;
mod transaction;
mod wal_file;

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use libsqlite3_sys as sql;

use self::main_db::MainDb;
use self::wal_file::WalFile;
use crate::config::{Given, Secret};
use crate::error::{Error, Result};
use crate::ffi::attention;
use crate::ffi::connections;
use crate::ffi::file::Real;
use crate::ffi::shim_file::FileHooks;
use crate::ffi::shim_vfs::{Request, ShimVfs, VfsHooks};
use crate::ffi::vfs::BaseVfs;
use crate::ffi::{fork, fs};
use crate::log;
use crate::replica::reader::refuse_without_locks;
use crate::replica::registry::{self, Access};

pub use self::crypt::has_key;
pub use self::crypt::is_open as is_encrypted;
pub use self::main_db::{is_replica, is_writing};
pub use self::plain::{adopt, check_early_open, foreign_keys, register_path};

/// For URIs: `vfs=replica`.
const NAME: &CStr = c"replica";
/// Becomes the default once a path is registered by `replica_open`, or
/// replicas are adopted.
const DEFAULT_NAME: &CStr = c"replica-registered";

static VFS: OnceLock<Registered> = OnceLock::new();

struct Registered {
    /// The process's default VFS at the time: what lies in the files.
    raw: BaseVfs,
    base: BaseVfs,
    plain: ShimVfs,
}

/// Registers the VFS, once in a process.
pub fn register() -> std::result::Result<(), String> {
    if VFS.get().is_some() {
        return Ok(());
    }
    fork::watch();
    let raw = BaseVfs::default().ok_or("libreplica: SQLite has no default VFS")?;
    let failed = |code: c_int| format!("libreplica: registering the VFS failed with code {code}");
    let base = crypt::register(raw).map_err(failed)?;
    ShimVfs::register(NAME, base, Opener { base, plain: false }).map_err(failed)?;
    let plain =
        ShimVfs::register(DEFAULT_NAME, base, Opener { base, plain: true }).map_err(failed)?;
    let _ = VFS.set(Registered { raw, base, plain });
    match plain::adoption_wanted()? {
        true => adopt(true).map_err(|e| format!("libreplica: {e}")),
        false => Ok(()),
    }
}

fn registered() -> Result<&'static Registered> {
    VFS.get()
        .ok_or_else(|| Error::Internal("the VFS is not registered".into()))
}

impl Registered {
    fn make_default(&self) -> Result<()> {
        match self.plain.make_default() {
            sql::SQLITE_OK => Ok(()),
            code => Err(Error::Internal(format!(
                "making the VFS the default failed with code {code}"
            ))),
        }
    }
}

/// Changes the key of the encrypted database at `path`, which is open.
pub fn rekey(path: &str, new: &Secret) -> Result<()> {
    crypt::rekey(&registered()?.raw, path, new)
}

struct Opener {
    base: BaseVfs,
    /// Plain opens: only what was registered or is adopted is ours.
    plain: bool,
}

impl Opener {
    fn open_replica(&self, request: &Request) -> Result<Option<MainDb>> {
        let Some(path) = request.path() else {
            return match self.plain {
                true => Ok(None),
                false => Err(Error::Config("the path of a replica must be UTF-8".into())),
            };
        };
        // Without a word of its own this open has no key.
        crypt::offer(path, None)?;
        let Some(given) = self.given(path, request)? else {
            return Ok(None);
        };
        let options = given.options()?;
        for option in [c"immutable", c"nolock"] {
            if request.is_on(option) {
                refuse_without_locks(path, &option.to_string_lossy())?;
            }
        }
        crypt::offer(path, options.encryption_key.as_ref())?;
        let access = access(request, path);
        Ok(registry::open(self.base, path, &given, options, access)?.map(MainDb::new))
    }

    /// The options of an open. None if it is none of ours.
    fn given(&self, path: &str, request: &Request) -> Result<Option<Given>> {
        let known = registry::registered(path);
        let adopted = self.plain && known.is_none();
        if adopted && !(registry::is_adopting() && registry::is_remembered(path)?) {
            return Ok(None);
        }
        let uri = Given::from_uri(request.parameters())?;
        let mut given = known.unwrap_or_default().merge(&uri)?;
        if adopted {
            given.complete_from_environment()?;
        }
        Ok(Some(given))
    }
}

/// What is asked for, or what the rights leave of it: there SQLite falls back
/// to reading, too.
fn access(request: &Request, path: &str) -> Access {
    let exists = std::fs::metadata(path).is_ok();
    match request.has(sql::SQLITE_OPEN_READONLY) || exists && !fs::may_write(path) {
        true => Access::Read,
        false => Access::Write,
    }
}

/// A file that is watched.
enum Watched {
    Database(MainDb),
    Wal(WalFile),
}

impl FileHooks for Watched {
    fn read_page1(&mut self, bytes: &mut [u8], at: i64) {
        match self {
            Watched::Database(file) => file.read_page1(bytes, at),
            Watched::Wal(file) => file.read_page1(bytes, at),
        }
    }
    fn write(&mut self, real: Real, bytes: &[u8], at: i64) -> c_int {
        match self {
            Watched::Database(file) => file.write(real, bytes, at),
            Watched::Wal(file) => file.write(real, bytes, at),
        }
    }
    fn file_control(&mut self, real: Real, op: c_int, arg: *mut c_void) -> c_int {
        match self {
            Watched::Database(file) => file.file_control(real, op, arg),
            Watched::Wal(file) => file.file_control(real, op, arg),
        }
    }
    fn truncate(&mut self, real: Real, size: i64) -> c_int {
        match self {
            Watched::Database(file) => file.truncate(real, size),
            Watched::Wal(file) => file.truncate(real, size),
        }
    }
    fn before_lock(&mut self) -> Option<Box<dyn FnOnce()>> {
        match self {
            Watched::Database(file) => file.before_lock(),
            Watched::Wal(_) => None,
        }
    }
    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        match self {
            Watched::Database(file) => file.lock(real, level),
            Watched::Wal(file) => file.lock(real, level),
        }
    }
    fn unlock(&mut self, real: Real, level: c_int) -> c_int {
        match self {
            Watched::Database(file) => file.unlock(real, level),
            Watched::Wal(file) => file.unlock(real, level),
        }
    }
    fn shm_opened(&mut self) {
        if let Watched::Database(file) = self {
            file.shm_opened();
        }
    }
    fn shm_closed(&mut self) {
        if let Watched::Database(file) = self {
            file.shm_closed();
        }
    }
    fn shm_shared(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        match self {
            Watched::Database(file) => file.shm_shared(real, slot, count, flags),
            Watched::Wal(_) => real.shm_lock(slot, count, flags),
        }
    }
    fn shm_lock(&mut self, real: Real, slot: c_int, count: c_int, flags: c_int) -> c_int {
        match self {
            Watched::Database(file) => file.shm_lock(real, slot, count, flags),
            Watched::Wal(file) => file.shm_lock(real, slot, count, flags),
        }
    }
}

impl VfsHooks for Opener {
    type File = Watched;

    fn open(&self, request: &Request) -> std::result::Result<Option<Watched>, c_int> {
        if request.is_wal() {
            let Some(Watched::Database(database)) = request.database::<Watched>() else {
                let path = request.path().and_then(|path| path.strip_suffix("-wal"));
                // Whose writes nobody would see: no log of a replica is opened so.
                return match path.and_then(registry::find) {
                    Some(_) => Err(sql::SQLITE_CANTOPEN),
                    None => Ok(None),
                };
            };
            return Ok(Some(Watched::Wal(WalFile(database.transaction()))));
        }
        if request.makes_journal() {
            if let Some(Watched::Database(database)) = request.database::<Watched>() {
                return Err(database.refuse_journal());
            }
            let path = request.path().and_then(|p| p.strip_suffix("-journal"));
            if path.and_then(registry::find).is_some() {
                return Err(sql::SQLITE_READONLY);
            }
        }
        if !request.is_main_db() {
            return Ok(None);
        }
        let open = || self.open_replica(request);
        let opened = attention::listening_to(connections::attaching(), open).map_err(|e| {
            // xOpen has no place for words; these are kept for replica_last_error().
            let text = e.to_string();
            log::error(e.open_code(), &text);
            // Of a refused key there are better words already.
            if !matches!(&e, Error::Io { code, .. } if *code == sql::SQLITE_NOTADB) {
                registry::set_last_error(&text);
            }
            e.open_code()
        })?;
        Ok(opened.map(Watched::Database))
    }

    fn opened(&self) {
        crypt::withdraw();
    }
}
