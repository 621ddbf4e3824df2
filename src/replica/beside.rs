//! What lies beside a database and is ours: opened here and nowhere else.
//!
//! - Each such file has the database's mode and owner, as SQLite's own have.
//! - A link is never followed, and only a regular file is used.
//! - Nothing is overwritten that is not of our making: a foreign file of that
//!   name is refused by its name, and stays as it was.
//! - A file of somebody who has no say in the database is refused: what is
//!   written to it he reads, and what is read from it he wrote.
//! - Nothing is made for a reader.
//!
//! Descriptors of our own are allowed here: on these files nobody holds POSIX
//! locks. On the database, its log and its shared memory they are not.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};

use crate::error::{Error, Result};
use crate::ffi::fs::{self, Rights};
use crate::ffi::vfs::BaseVfs;

/// Names of ours: what is added to the database's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Companion {
    /// Where in the primary's history the content is (`position`).
    Position,
    /// Pages as they were (`undo`).
    Undo,
    /// Who works in the background (`leader`).
    Lock,
}

/// What a file begins with that has one of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Ours,
    /// Nothing, or the zeros that a power cut leaves of nothing.
    Empty,
    Foreign,
}

/// Each is told by its first bytes: two copies of an identity need the most.
const HEAD: usize = 2 * 4096;
/// Other processes make and remove these files at the same time.
const ATTEMPTS: usize = 20;

impl Companion {
    pub fn path(self, db_path: &str) -> String {
        let suffix = match self {
            Companion::Position => "-replica",
            Companion::Undo => "-replica-undo",
            Companion::Lock => "-replica-lock",
        };
        format!("{db_path}{suffix}")
    }

    fn is_ours(self, head: &[u8]) -> bool {
        let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(magic));
        match self {
            // Whatever version, in either copy.
            Companion::Position => has(8, b"libreplica ") || has(4096 + 8, b"libreplica "),
            // As it is, or sealed (`crypt/journal.rs`).
            Companion::Undo => has(0, b"libreplica undo") || has(0, b"\0libreplica-jrnl"),
            // The second: before a note had a mark of its own.
            Companion::Lock => has(0, b"libreplica lock\n") || has(0, b"{\"last_error\":"),
        }
    }

    fn content(self, mut file: &File) -> std::io::Result<Content> {
        let mut head = Vec::with_capacity(HEAD);
        file.rewind()?;
        file.take(HEAD as u64).read_to_end(&mut head)?;
        Ok(match head.iter().all(|byte| *byte == 0) {
            true => Content::Empty,
            false if self.is_ours(&head) => Content::Ours,
            false => Content::Foreign,
        })
    }
}

/// The file, for reading alone; None if there is none.
pub fn read(db_path: &str, companion: Companion) -> Result<Option<File>> {
    open(db_path, companion, false).map(|found| found.map(|(file, _)| file))
}

/// The file, for its locks alone: whose it is and what is in it does not count.
pub fn look(db_path: &str, companion: Companion) -> Option<File> {
    fs::open(&companion.path(db_path), false).ok()
}

/// The file as it is, for writing to it; None if there is none.
pub fn write(db_path: &str, companion: Companion) -> Result<Option<File>> {
    open(db_path, companion, true).map(|found| found.map(|(file, _)| file))
}

/// The file, made if there is none. What is in it may be overwritten.
pub fn make(db_path: &str, companion: Companion) -> Result<File> {
    let path = companion.path(db_path);
    let rights = rights_at(db_path);
    for _ in 0..ATTEMPTS {
        let file = match find(db_path, companion, true)? {
            Some((file, _)) => file,
            None => match fs::create_new(&path, rights.as_ref()) {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(failed("create", &path, &e)),
            },
        };
        // In spite of the umask. Whoever cannot give it its owner has made it
        // as SQLite makes its own.
        if let Some(rights) = &rights {
            let _ = fs::set_rights(&file, rights);
        }
        return Ok(file);
    }
    Err(Error::Busy(format!(
        "other processes keep making and removing '{path}'"
    )))
}

/// Removes the file if it is ours; what stays is in nobody's way.
pub fn discard(vfs: &BaseVfs, db_path: &str, companion: Companion) {
    if let Ok(Some(file)) = find(db_path, companion, false) {
        drop(file);
        let _ = vfs.discard(&companion.path(db_path));
    }
}

/// Whether there is anything that says that the database is a replica.
pub fn is_replica(db_path: &str) -> bool {
    std::fs::symlink_metadata(Companion::Position.path(db_path)).is_ok()
}

/// Whether others than this user and the system's can write to the file.
pub fn is_open_to_others(file: &File) -> bool {
    let rights = file.metadata().ok().as_ref().and_then(fs::rights);
    rights.is_some_and(|r| r.mode & 0o022 != 0 || !(r.owner == fs::user() || r.owner == 0))
}

/// As `find`, and an empty one is refused where content is expected.
fn open(db_path: &str, companion: Companion, write: bool) -> Result<Option<(File, Content)>> {
    let found = find(db_path, companion, write)?;
    if let (Some((_, Content::Empty)), Companion::Position) = (&found, companion) {
        return Err(Error::CantOpen(format!(
            "'{}' is empty: it does not say where the content of '{db_path}' belongs; put the file back that was there, or move both away and open the replica anew with its sync_url",
            companion.path(db_path)
        )));
    }
    Ok(found)
}

fn find(db_path: &str, companion: Companion, write: bool) -> Result<Option<(File, Content)>> {
    let path = companion.path(db_path);
    let file = match fs::open(&path, write) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", &path, &e)),
    };
    let meta = file.metadata().map_err(|e| failed("look at", &path, &e))?;
    if !meta.is_file() {
        return Err(refused(&path, "is no regular file"));
    }
    let (database, theirs) = (rights_at(db_path), fs::rights(&meta));
    if let Some(theirs) = theirs
        && !is_trusted(&theirs, database.as_ref())
    {
        return Err(refused(
            &path,
            &format!(
                "belongs to another user ({}) than the database and this process",
                theirs.owner
            ),
        ));
    }
    let content = companion.content(&file);
    let content = content.map_err(|e| failed("read", &path, &e))?;
    if content == Content::Foreign {
        return Err(refused(
            &path,
            "is no file of this library's, or is damaged",
        ));
    }
    // One that others could write to shows that for as long as nobody has
    // looked at what is in it: `is_open_to_others`.
    let was_open = |r: &Rights, database: &Rights| r.mode & !database.mode & 0o022 != 0;
    let keep = companion == Companion::Position
        && matches!((&theirs, &database), (Some(t), Some(d)) if was_open(t, d));
    if let Some(database) = database.filter(|_| write && !keep) {
        let adjusted = fs::set_rights(&file, &database);
        let wider = theirs.is_some_and(|r| r.mode & !database.mode != 0);
        // In it are pages of the database.
        if companion == Companion::Undo && wider && adjusted.is_err() {
            return Err(refused(
                &path,
                "can be read by more users than the database",
            ));
        }
    }
    Ok(Some((file, content)))
}

/// Whoever can write to the database may have made what lies beside it.
fn is_trusted(theirs: &Rights, database: Option<&Rights>) -> bool {
    theirs.owner == fs::user()
        || theirs.owner == 0
        || database.is_some_and(|database| {
            let shared = database.mode & 0o020 != 0 && database.group == theirs.group;
            database.owner == theirs.owner || shared
        })
}

/// Of the database, if it exists. It is only looked at by name: opening and
/// closing it would drop the process's locks.
fn rights_at(db_path: &str) -> Option<Rights> {
    fs::rights(&std::fs::metadata(db_path).ok()?)
}

fn refused(path: &str, why: &str) -> Error {
    Error::CantOpen(format!(
        "'{path}' {why}; it is left as it is: move it away if it is not needed, or choose another path for the database"
    ))
}

pub fn failed(op: &str, path: &str, error: &std::io::Error) -> Error {
    if fs::is_link(error) {
        return refused(path, "is a symbolic link, which is not followed");
    }
    Error::CantOpen(format!("cannot {op} '{path}': {error}"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn temp(name: &str) -> String {
        let dir = std::env::temp_dir().join(format!("libreplica-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let db = dir.join("a.db");
        std::fs::write(&db, b"").unwrap();
        db.to_str().unwrap().to_string()
    }

    fn mode(path: &str) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_has_the_database_s_mode() {
        let db = temp("mode");
        for wanted in [0o600, 0o660, 0o644] {
            std::fs::set_permissions(&db, std::fs::Permissions::from_mode(wanted)).unwrap();
            for companion in [Companion::Position, Companion::Undo, Companion::Lock] {
                drop(make(&db, companion).unwrap());
                assert_eq!(mode(&companion.path(&db)), wanted, "{companion:?}");
            }
        }
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let db = temp("foreign");
        for companion in [Companion::Position, Companion::Undo, Companion::Lock] {
            let path = companion.path(&db);
            std::fs::write(&path, b"dear diary").unwrap();
            for opened in [read(&db, companion), write(&db, companion)] {
                let text = opened.unwrap_err().to_string();
                assert!(
                    text.contains(&path) && text.contains("left as it is"),
                    "{text}"
                );
            }
            assert!(make(&db, companion).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), b"dear diary");
            std::fs::remove_file(&path).unwrap();
            symlink(&db, &path).unwrap();
            let text = make(&db, companion).unwrap_err().to_string();
            assert!(text.contains("symbolic link"), "{text}");
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
            assert!(make(&db, companion).is_err());
        }
    }

    #[test]
    fn an_empty_position_is_called_so() {
        let db = temp("empty");
        assert!(read(&db, Companion::Position).unwrap().is_none());
        drop(make(&db, Companion::Position).unwrap());
        let text = read(&db, Companion::Position).unwrap_err().to_string();
        assert!(text.contains("is empty"), "{text}");
        drop(make(&db, Companion::Position).unwrap());
        drop(make(&db, Companion::Lock).unwrap());
        assert!(write(&db, Companion::Lock).unwrap().is_some());
    }
}
