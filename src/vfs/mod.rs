//! The VFS `replica`: decides at open what a file is, and watches the database
//! file of a replica.

mod crypt;
mod main_db;

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use libsqlite3_sys as sql;

use self::main_db::MainDb;
use crate::config::{Options, Secret};
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::ffi::shim_vfs::{Request, ShimVfs, VfsHooks};
use crate::ffi::vfs::BaseVfs;
use crate::replica::registry;

pub use self::crypt::is_open as is_encrypted;
pub use self::main_db::is_replica;

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
    options.check_available()?;
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

impl VfsHooks for Opener {
    type File = MainDb;

    fn open(&self, request: &Request) -> std::result::Result<Option<MainDb>, c_int> {
        if !request.is_main_db() {
            return Ok(None);
        }
        self.open_replica(request).map_err(|e| {
            // xOpen has no place for words; these are kept for replica_last_error().
            let text = e.to_string();
            api::log(e.open_code(), &text);
            // Of a refused key there are better words already.
            if !matches!(&e, Error::Io { code, .. } if *code == sql::SQLITE_NOTADB) {
                registry::set_last_error(&text);
            }
            e.open_code()
        })
    }

    fn opened(&self) {
        crypt::withdraw();
    }
}
