//! What leads from the local content back to the primary's own pages, in
//! `app.db-replica-undo`.
//!
//! A commit that was shipped as rows is at the primary in rows, not in bytes:
//! there the pages are laid out another way. Until the primary's pages have
//! come, the local content is logically at the primary's frame, and physically
//! at no frame at all. So before such a commit is published, the pages that it
//! changes are kept here as they were, and the record of the new state says so
//! (`Undo`). Several commits may follow each other: of each page the oldest
//! version is kept. The next pull puts these pages back and its own over them,
//! in one transaction; then nothing of this is needed any more.
//!
//! Layout, integers little-endian:
//! ```text
//!  0  magic "libreplica undo1"
//! 16  id u64
//! 24  entries of 4100 bytes: page number u32, page
//! ```
//! A record names the id, the number of entries and a checksum over them, each
//! entry's XXH3 seeded with that of the one before. What lies behind is of
//! commits that never were. A file that is not as the record says is of no
//! use: then everything is fetched again.
//!
//! Writes happen while the WAL's write lock is held.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};
use crate::wal::{PAGE_SIZE, Page};

const MAGIC: &[u8; 16] = b"libreplica undo1";
const HEADER_SIZE: usize = 24;
const ENTRY_SIZE: usize = 4 + PAGE_SIZE;

/// The file beside a database.
pub fn path_of(db_path: &str) -> String {
    format!("{db_path}-replica-undo")
}

/// What a record says of the undo that its state needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    pub id: u64,
    pub entries: u64,
    pub checksum: u64,
    /// Size in pages of the state it leads to.
    pub page_count: u32,
    /// The primary's frame that the content is logically at; None if the
    /// primary has to be asked.
    pub frame_no: Option<u64>,
}

/// The file, as its writer knows it.
pub struct UndoFile {
    db_path: String,
    /// Up to where the pages in it are known.
    known: Option<(u64, u64)>,
    pages: HashSet<u32>,
}

impl UndoFile {
    pub fn new(db_path: &str) -> UndoFile {
        UndoFile {
            db_path: db_path.to_string(),
            known: None,
            pages: HashSet::new(),
        }
    }

    /// Keeps `pages`, as `read` gives them, unless they are kept already, and
    /// makes that durable. `before`: what the state needs that they are of,
    /// None if it is at a frame of the primary: then `id`, a new one, is given
    /// to the file. `page_count`: the state's size.
    pub fn keep(
        &mut self,
        id: u64,
        before: Option<&Undo>,
        page_count: u32,
        pages: &[u32],
        read: impl Fn(u32, &mut Page) -> Result<()>,
    ) -> Result<Undo> {
        let mut undo = match before {
            Some(undo) => {
                self.learn(undo)?;
                undo.clone()
            }
            None => {
                self.pages.clear();
                Undo {
                    id,
                    entries: 0,
                    checksum: id,
                    page_count,
                    frame_no: None,
                }
            }
        };
        self.known = None;
        self.write(&mut undo, before.is_none(), pages, read)?;
        self.known = Some((undo.id, undo.entries));
        Ok(undo)
    }

    fn write(
        &mut self,
        undo: &mut Undo,
        fresh: bool,
        pages: &[u32],
        read: impl Fn(u32, &mut Page) -> Result<()>,
    ) -> Result<()> {
        let path = path_of(&self.db_path);
        let failed = |e: std::io::Error| os("write", &path, &e);
        let file = OpenOptions::new()
            .write(true)
            .create(fresh)
            .truncate(fresh)
            .open(&path)
            .map_err(failed)?;
        let end = HEADER_SIZE as u64 + undo.entries * ENTRY_SIZE as u64;
        let mut out = BufWriter::with_capacity(1 << 18, &file);
        if fresh {
            out.write_all(MAGIC).map_err(failed)?;
            out.write_all(&undo.id.to_le_bytes()).map_err(failed)?;
        } else {
            file.set_len(end).map_err(failed)?;
            out.seek(SeekFrom::Start(end)).map_err(failed)?;
        }
        let mut page = Box::new([0; PAGE_SIZE]);
        let mut entry = Vec::with_capacity(ENTRY_SIZE);
        for &pgno in pages.iter().filter(|pgno| **pgno <= undo.page_count) {
            if !self.pages.insert(pgno) {
                continue;
            }
            read(pgno, &mut page)?;
            entry.clear();
            entry.extend(pgno.to_le_bytes());
            entry.extend(&page[..]);
            undo.checksum = xxh3_64_with_seed(&entry, undo.checksum);
            undo.entries += 1;
            out.write_all(&entry).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        drop(out);
        file.sync_data().map_err(failed)?;
        if fresh {
            sync_directory(&path);
        }
        Ok(())
    }

    /// Learns which pages are in it, where another process, or an earlier one,
    /// has written it.
    pub fn learn(&mut self, undo: &Undo) -> Result<()> {
        if self.known == Some((undo.id, undo.entries)) {
            return Ok(());
        }
        let mut pages = HashSet::new();
        self.known = None;
        read(&self.db_path, undo, |pgno, _| {
            pages.insert(pgno);
            Ok(())
        })?;
        self.pages = pages;
        self.known = Some((undo.id, undo.entries));
        Ok(())
    }
}

/// Reads the pages that a state needs. `each` is called before all are
/// checked: what it did counts only if this ends well.
pub fn read(
    db_path: &str,
    undo: &Undo,
    mut each: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<()> {
    let path = path_of(db_path);
    let lost = |why: &str| {
        Error::Diverged(format!(
            "'{path}' is needed to take the primary's pages, and {why}"
        ))
    };
    let file = File::open(&path).map_err(|e| lost(&format!("cannot be opened: {e}")))?;
    let mut input = BufReader::with_capacity(1 << 18, file);
    let mut header = [0; HEADER_SIZE];
    let short = |e: std::io::Error| lost(&format!("cannot be read: {e}"));
    input.read_exact(&mut header).map_err(short)?;
    if &header[..16] != MAGIC || header[16..] != undo.id.to_le_bytes() {
        return Err(lost("is another one"));
    }
    let mut entry = vec![0; ENTRY_SIZE];
    let mut checksum = undo.id;
    for _ in 0..undo.entries {
        input.read_exact(&mut entry).map_err(short)?;
        checksum = xxh3_64_with_seed(&entry, checksum);
        let (pgno, page) = entry.split_at(4);
        let pgno = u32::from_le_bytes([pgno[0], pgno[1], pgno[2], pgno[3]]);
        let page: &Page = page.try_into().map_err(|_| lost("is damaged"))?;
        if pgno == 0 || pgno > undo.page_count {
            return Err(lost("is damaged"));
        }
        each(pgno, page)?;
    }
    match checksum == undo.checksum {
        true => Ok(()),
        false => Err(lost("is damaged")),
    }
}

/// Nothing in it is needed any more.
pub fn remove(db_path: &str) {
    // One that stays is written over, or is in nobody's way.
    let _ = std::fs::remove_file(path_of(db_path));
}

/// Makes a new file's name durable; one that is lost costs a fetch of everything.
fn sync_directory(path: &str) {
    let directory = Path::new(path).parent();
    let directory = directory.filter(|d| !d.as_os_str().is_empty());
    if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
        let _ = directory.sync_all();
    }
}

fn os(op: &'static str, path: &str, error: &std::io::Error) -> Error {
    Error::CantOpen(format!("cannot {op} '{path}': {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> String {
        let dir = std::env::temp_dir().join(format!("libreplica-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join("a.db").to_str().unwrap().to_string()
    }

    fn pages(db: &str, undo: &Undo) -> Result<Vec<(u32, u8)>> {
        let mut pages = Vec::new();
        read(db, undo, |pgno, page| {
            pages.push((pgno, page[0]));
            Ok(())
        })
        .map(|()| pages)
    }

    fn of(version: u8) -> impl Fn(u32, &mut Page) -> Result<()> {
        move |pgno, page| {
            *page = [pgno as u8 + version; PAGE_SIZE];
            Ok(())
        }
    }

    #[test]
    fn the_oldest_version_of_each_page_is_kept() {
        let db = temp("undo-oldest");
        let mut file = UndoFile::new(&db);
        let one = file.keep(1, None, 9, &[2, 5, 12], of(0)).unwrap();
        assert_eq!(pages(&db, &one).unwrap(), [(2, 2), (5, 5)]);
        let two = file.keep(2, Some(&one), 20, &[5, 7, 12], of(50)).unwrap();
        assert_eq!(pages(&db, &two).unwrap(), [(2, 2), (5, 5), (7, 57)]);
        assert_eq!(two.page_count, 9);
        // The state before is still served, also by another process.
        assert_eq!(pages(&db, &one).unwrap(), [(2, 2), (5, 5)]);
        let three = UndoFile::new(&db)
            .keep(3, Some(&one), 20, &[2, 3], of(90))
            .unwrap();
        assert_eq!(pages(&db, &three).unwrap(), [(2, 2), (5, 5), (3, 93)]);
        assert!(pages(&db, &two).is_err());
        let four = file.keep(4, None, 4, &[1], of(0)).unwrap();
        assert_eq!(pages(&db, &four).unwrap(), [(1, 1)]);
        assert!(pages(&db, &three).is_err());
    }

    #[test]
    fn a_damaged_or_lost_one_is_no_use() {
        let db = temp("undo-damaged");
        let undo = UndoFile::new(&db).keep(5, None, 9, &[2, 5], of(0)).unwrap();
        let whole = std::fs::read(path_of(&db)).unwrap();
        for at in [3, 17, 24, 30, 24 + 4100, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(path_of(&db), damaged).unwrap();
            assert!(matches!(pages(&db, &undo), Err(Error::Diverged(_))), "{at}");
        }
        std::fs::write(path_of(&db), &whole[..whole.len() - 1]).unwrap();
        assert!(pages(&db, &undo).is_err());
        std::fs::write(path_of(&db), &whole).unwrap();
        assert!(pages(&db, &undo).is_ok());
        remove(&db);
        assert!(pages(&db, &undo).is_err());
        assert!(
            UndoFile::new(&db)
                .keep(6, Some(&undo), 9, &[1], of(0))
                .is_err()
        );
    }
}
