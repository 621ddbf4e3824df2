//! The VFS `replica`: decides at open what a file is, and watches the database
//! file of a replica.

mod crypt;
mod main_db;
mod schema_watch;
mod wal_file;

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use libsqlite3_sys as sql;

use self::main_db::MainDb;
use self::wal_file::WalFile;
use crate::config::{Options, Secret};
use crate::error::{Error, Result};
use crate::ffi::file::Real;
use crate::ffi::fork;
use crate::ffi::shim_file::FileHooks;
use crate::ffi::shim_vfs::{Request, ShimVfs, VfsHooks};
use crate::ffi::vfs::BaseVfs;
use crate::log;
use crate::replica::registry;

pub use self::crypt::has_key;
pub use self::crypt::is_open as is_encrypted;
pub use self::main_db::{is_replica, is_writing};

/// For URIs: `vfs=replica`.
const NAME: &CStr = c"replica";
/// Becomes the default once a path is registered by `replica_open`.
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
    ShimVfs::register(
        NAME,
        base,
        Opener {
            base,
            registered_only: false,
        },
    )
    .map_err(failed)?;
    let plain = ShimVfs::register(
        DEFAULT_NAME,
        base,
        Opener {
            base,
            registered_only: true,
        },
    )
    .map_err(failed)?;
    let _ = VFS.set(Registered { raw, base, plain });
    Ok(())
}

/// Has plain opens of `path` be a replica with these options. Answers the full path.
pub fn register_path(path: &str, options: Options) -> Result<String> {
    let vfs = VFS
        .get()
        .ok_or_else(|| Error::Internal("the VFS is not registered".into()))?;
    let path = vfs.base.full_path(path)?;
    registry::register(path.clone(), options);
    match vfs.plain.make_default() {
        0 => Ok(path),
        code => Err(Error::Internal(format!(
            "making the VFS the default failed with code {code}"
        ))),
    }
}

/// Changes the key of the encrypted database at `path`, which is open.
pub fn rekey(path: &str, new: &Secret) -> Result<()> {
    let vfs = VFS
        .get()
        .ok_or_else(|| Error::Internal("the VFS is not registered".into()))?;
    crypt::rekey(&vfs.raw, path, new)
}

struct Opener {
    base: BaseVfs,
    /// Plain opens: only registered paths are ours.
    registered_only: bool,
}

impl Opener {
    fn open_replica(&self, request: &Request) -> Result<Option<MainDb>> {
        let Some(path) = request.path() else {
            return match self.registered_only {
                true => Ok(None),
                false => Err(Error::Config("the path of a replica must be UTF-8".into())),
            };
        };
        // Without a word of its own this open has no key.
        crypt::offer(path, None)?;
        let options = match registry::registered(path) {
            Some(options) => options,
            None if self.registered_only => return Ok(None),
            None => Options::read(|name| request.parameter(name))?,
        };
        crypt::offer(path, options.encryption_key.as_ref())?;
        Ok(registry::open(self.base, path, options)?.map(MainDb::new))
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
    fn lock(&mut self, real: Real, level: c_int) -> c_int {
        match self {
            Watched::Database(file) => file.lock(real, level),
            Watched::Wal(file) => file.lock(real, level),
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
        if !request.is_main_db() {
            return Ok(None);
        }
        let opened = self.open_replica(request).map_err(|e| {
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
