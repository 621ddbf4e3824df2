//! The VFS below the replica's: files of a path that has a key are sealed,
//! temporary files too once there is one, every other file stays the base
//! VFS' own.

mod database;
mod files;
mod host;
mod rekey;

use std::ffi::{CStr, c_int};

use libsqlite3_sys as sql;

use self::database::Database;
use self::files::{Journal, Log, RealBytes, Sealed, Temporary};
use crate::config::Secret;
use crate::crypt::db;
use crate::crypt::keys::UserKey;
use crate::crypt::vault::{self, Access};
use crate::error::{Error, Result};
use crate::ffi::api;
use crate::ffi::file::{FileKind, OsFile, Real};
use crate::ffi::own;
use crate::ffi::sealed_vfs::SealedHooks;
use crate::ffi::shim_vfs::{Request, ShimVfs};
use crate::ffi::vfs::BaseVfs;
use crate::replica::registry;

pub use self::rekey::rekey;

/// The replica VFS stands on it. It has a name for connections of our own, and
/// opens a database for them and for the replica VFS alone.
pub const NAME: &CStr = c"replica-crypt";

/// Registers the VFS over the process's default one.
pub fn register(base: BaseVfs) -> std::result::Result<BaseVfs, c_int> {
    ShimVfs::register_sealed(NAME, base, Crypt { base }).map(|vfs| vfs.as_base())
}

/// The open of `path` that this thread is about to do is the user's, with this
/// key or without one.
pub fn offer(path: &str, key: Option<&Secret>) -> Result<()> {
    let key = key.map(|k| UserKey::parse(k.expose())).transpose()?;
    vault::offer(path, key);
    Ok(())
}

pub use crate::crypt::vault::withdraw;

/// Whether an encrypted database is open at `path`.
pub fn is_open(path: &str) -> bool {
    vault::find(path).is_some()
}

/// Whether the file at `path` is an encrypted database. `base` sees its bytes.
pub fn is_encrypted_file(base: &BaseVfs, path: &str) -> Result<bool> {
    let file = OsFile::open(base, path, FileKind::Database, false)?;
    match db::slot(&file, &|| database::is_unfinished(base, path)) {
        Ok(_) => Ok(true),
        Err(Error::NotADb(_)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether this connection has the schema's file open with its key.
pub fn has_key(db: *mut sql::sqlite3, schema: &str) -> bool {
    api::file_control(db, schema, FCNTL_IS_SEALED) == sql::SQLITE_OK
}

struct Crypt {
    base: BaseVfs,
}

/// A file that will be sealed.
enum Plan {
    Database(Access),
    Log(std::sync::Arc<vault::Vault>),
    Journal(std::sync::Arc<vault::Vault>),
    Temporary,
}

const TEMPORARY: c_int = sql::SQLITE_OPEN_TEMP_DB
    | sql::SQLITE_OPEN_TEMP_JOURNAL
    | sql::SQLITE_OPEN_TRANSIENT_DB
    | sql::SQLITE_OPEN_SUBJOURNAL;

/// The file control that only a sealed file answers.
const FCNTL_IS_SEALED: c_int = 0x4c52_4353;

impl SealedHooks for Crypt {
    type File = Sealed;
    type Plan = Plan;

    fn plan(&self, request: &Request) -> std::result::Result<Option<Plan>, c_int> {
        if request.is_main_db() {
            return self.plan_database(request);
        }
        Ok(self.plan_companion(request))
    }

    fn attach(
        &self,
        plan: Plan,
        request: &Request,
        real: Real,
    ) -> std::result::Result<Sealed, c_int> {
        let path = request.path().unwrap_or_default();
        let attached = match plan {
            Plan::Database(access) => self.database(path, access, real).map(Sealed::Database),
            Plan::Log(vault) => {
                // A handle of our own reads what is not yet in the wal-index, too.
                let database = match own::is_own() {
                    true => None,
                    false => database::of_log(vault.path()),
                };
                Ok(Sealed::Log(Log::new(vault, database)))
            }
            Plan::Journal(vault) => Ok(Sealed::Journal(Box::new(Journal::new(vault)))),
            Plan::Temporary => {
                host::note_sealed();
                Temporary::new().map(Sealed::Temporary)
            }
        };
        attached.map_err(|e| failed(path, &e))
    }

    fn passed(&self, request: &Request, real: Real) -> c_int {
        if !request.is_main_db() {
            return sql::SQLITE_OK;
        }
        let mut head = [0; 16];
        if RealBytes(real).read(&mut head).is_ok() && db::ours(&head) {
            let path = request.path().unwrap_or_default();
            return failed(
                path,
                &Error::NotADb("it is encrypted; open it with its encryption_key".into()),
            );
        }
        sql::SQLITE_OK
    }
}

impl Crypt {
    fn plan_database(&self, request: &Request) -> std::result::Result<Option<Plan>, c_int> {
        let path = request.path().unwrap_or_default();
        match vault::access(path, own::is_own()) {
            access @ (Access::Key(_) | Access::Inside(_)) => Ok(Some(Plan::Database(access))),
            Access::NoKey | Access::Plain => Ok(None),
            Access::Foreign => Err(failed(
                path,
                &Error::CantOpen(
                    "vfs=replica-crypt is the library's own: open it with vfs=replica".into(),
                ),
            )),
        }
    }

    fn plan_companion(&self, request: &Request) -> Option<Plan> {
        if request.has(TEMPORARY) {
            return vault::ever_used().then_some(Plan::Temporary);
        }
        let path = request.path()?;
        let beside = |suffix: &str| path.strip_suffix(suffix).and_then(vault::find);
        if request.has(sql::SQLITE_OPEN_WAL) {
            return beside("-wal").map(Plan::Log);
        }
        // A super-journal holds names only; to look for its own name SQLite
        // opens the journals of others with its flag, and without their key
        // finds it behind the cells.
        if request.has(sql::SQLITE_OPEN_MAIN_JOURNAL | sql::SQLITE_OPEN_SUPER_JOURNAL) {
            let vault = beside("-journal").or_else(|| beside("-replica-undo"));
            return vault.map(Plan::Journal);
        }
        None
    }

    fn database(&self, path: &str, access: Access, real: Real) -> Result<Database> {
        let raw = RealBytes(real);
        let vault = match access {
            Access::Key(offered) => {
                let unfinished = || database::is_unfinished(&self.base, path);
                offered.admit(db::slot(&raw, &unfinished)?.as_ref())?
            }
            Access::Inside(vault) => vault,
            Access::NoKey | Access::Plain | Access::Foreign => {
                return Err(Error::Internal("no key for an encrypted file".into()));
            }
        };
        Ok(Database::new(path, vault, self.base, real))
    }
}

/// Keeps an error's words where `replica_last_error()` finds them.
fn failed(path: &str, error: &Error) -> c_int {
    let text = match path {
        "" => error.to_string(),
        path => format!("'{path}': {error}"),
    };
    api::log(error.code(), &text);
    registry::set_last_error(&text);
    error.code()
}
