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
//!  0  magic "libreplica undo2"
//! 16  id u64
//! 24  key of the checksum (16 bytes, random)
//! 40  entries of 4100 bytes: page number u32, page
//! ```
//! A record names the id, the number of entries and a checksum over them, each
//! entry's SipHash-2-4 behind that of the one before. What lies behind is of
//! commits that never were. A file that is not as the record says is of no
//! use: then everything is fetched again.
//!
//! Of an encrypted database the file is sealed (`crypt/journal.rs`), and the
//! record has a MAC: who cannot know the key of the checksum cannot put cells
//! of older files together to what the record says.
//!
//! Writes happen while the WAL's write lock is held.

use std::collections::HashSet;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::beside::{self, Companion};
use crate::crypt::nonce;
use crate::error::{Error, Result};
use crate::ffi::file::{FileKind, OsFile};
use crate::ffi::vfs::BaseVfs;
use crate::wal::{PAGE_SIZE, Page, Storage};

const MAGIC: &[u8; 16] = b"libreplica undo2";
const HEADER_SIZE: usize = 40;
const ENTRY_SIZE: usize = 4 + PAGE_SIZE;

/// Entries of one write or read.
const RUN: usize = 64;

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

impl Undo {
    /// Tells its entries from all others. By the checksum, too: as many may
    /// have come in the place of those of a commit that never was.
    fn which(&self) -> (u64, u64, u64) {
        (self.id, self.entries, self.checksum)
    }
}

/// The file, as its writer knows it.
#[derive(Default)]
pub struct UndoFile {
    /// The entries whose pages are known.
    known: Option<(u64, u64, u64)>,
    pages: HashSet<u32>,
    key: Key,
}

/// Of a file's checksum.
#[derive(Clone, Copy, Default)]
struct Key([u8; 16]);

impl Key {
    fn next(&self, before: u64, entry: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&before.to_le_bytes());
        hasher.write(entry);
        hasher.finish()
    }
}

impl UndoFile {
    /// Keeps `pages`, as `read` gives them, unless they are kept already, and
    /// makes that durable. `before`: what the state needs that they are of,
    /// None if it is at a frame of the primary: then `id`, a new one, is given
    /// to the file. `page_count`: the state's size.
    pub fn keep(
        &mut self,
        file: &impl Storage,
        id: u64,
        before: Option<&Undo>,
        page_count: u32,
        pages: &[u32],
        read: impl Fn(u32, &mut Page) -> Result<()>,
    ) -> Result<Undo> {
        let mut undo = match before {
            Some(undo) => {
                self.learn(file, undo)?;
                undo.clone()
            }
            None => {
                self.pages.clear();
                self.key = Key(nonce::random()?);
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
        self.write(file, &mut undo, before.is_none(), pages, read)?;
        self.known = Some(undo.which());
        Ok(undo)
    }

    fn write(
        &mut self,
        file: &impl Storage,
        undo: &mut Undo,
        fresh: bool,
        pages: &[u32],
        read: impl Fn(u32, &mut Page) -> Result<()>,
    ) -> Result<()> {
        let mut at = end_of(undo);
        let mut out = Vec::with_capacity(RUN * ENTRY_SIZE + HEADER_SIZE);
        if fresh {
            at = 0;
            out.extend(MAGIC);
            out.extend(undo.id.to_le_bytes());
            out.extend(self.key.0);
        }
        let mut page = Box::new([0; PAGE_SIZE]);
        for &pgno in pages.iter().filter(|pgno| **pgno <= undo.page_count) {
            if !self.pages.insert(pgno) {
                continue;
            }
            read(pgno, &mut page)?;
            let entry = out.len();
            out.extend(pgno.to_le_bytes());
            out.extend(&page[..]);
            undo.checksum = self.key.next(undo.checksum, &out[entry..]);
            undo.entries += 1;
            if out.len() >= RUN * ENTRY_SIZE {
                file.write_at(&out, at)?;
                at += out.len() as u64;
                out.clear();
            }
        }
        file.write_at(&out, at)?;
        file.sync()
    }

    pub fn knows(&self, undo: &Undo) -> bool {
        self.known == Some(undo.which())
    }

    /// Learns which pages are in it, where another process, or an earlier one,
    /// has written it.
    pub fn learn(&mut self, file: &impl Storage, undo: &Undo) -> Result<()> {
        if self.knows(undo) {
            return Ok(());
        }
        let mut pages = HashSet::new();
        self.known = None;
        self.key = read_from(file, undo, |pgno, _| {
            pages.insert(pgno);
            Ok(())
        })?;
        self.pages = pages;
        self.known = Some(undo.which());
        Ok(())
    }
}

/// Whether there is one, of whichever state.
pub fn exists(vfs: &BaseVfs, db_path: &str) -> bool {
    vfs.exists(&Companion::Undo.path(db_path)).unwrap_or(false)
}

/// Opens the file to keep pages in it. `fresh`: what it has is of no use.
pub fn open(vfs: &BaseVfs, db_path: &str, fresh: bool) -> Result<OsFile> {
    // Made or looked at there; then the VFS opens it, which may seal it.
    drop(match fresh {
        true => beside::make(db_path, Companion::Undo)?,
        false => beside::write(db_path, Companion::Undo)?
            .ok_or_else(|| Error::Diverged("is gone".into()))?,
    });
    let file = OsFile::open(vfs, db_path, FileKind::Undo, fresh)?;
    if fresh {
        file.truncate(0)?;
    }
    Ok(file)
}

/// Reads the pages that a state needs. `each` is called before all are
/// checked: what it did counts only if this ends well.
pub fn read(
    vfs: &BaseVfs,
    db_path: &str,
    undo: &Undo,
    each: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<()> {
    let done = open(vfs, db_path, false).and_then(|file| read_from(&file, undo, each));
    done.map(drop).map_err(|e| match e {
        Error::Diverged(why) | Error::Corrupt(why) => Error::Diverged(format!(
            "'{}' is needed to take the primary's pages, and {why}",
            Companion::Undo.path(db_path)
        )),
        e => e,
    })
}

fn read_from(
    file: &impl Storage,
    undo: &Undo,
    mut each: impl FnMut(u32, &Page) -> Result<()>,
) -> Result<Key> {
    let unfit = |why: &str| Error::Diverged(why.to_string());
    let mut header = [0; HEADER_SIZE];
    file.read_at(&mut header, 0)?;
    if &header[..16] != MAGIC || header[16..24] != undo.id.to_le_bytes() {
        return Err(unfit("is another one"));
    }
    let mut key = Key::default();
    key.0.copy_from_slice(&header[24..]);
    if file.size()? < end_of(undo) {
        return Err(unfit("is cut short"));
    }
    let (mut at, mut checksum) = (HEADER_SIZE as u64, undo.id);
    let mut run = vec![0; RUN * ENTRY_SIZE];
    while at < end_of(undo) {
        let length = (end_of(undo) - at).min(run.len() as u64) as usize;
        file.read_at(&mut run[..length], at)?;
        for entry in run[..length].chunks_exact(ENTRY_SIZE) {
            checksum = key.next(checksum, entry);
            let (pgno, page) = entry.split_at(4);
            let pgno = u32::from_le_bytes([pgno[0], pgno[1], pgno[2], pgno[3]]);
            let page: &Page = page.try_into().map_err(|_| unfit("is damaged"))?;
            if pgno == 0 || pgno > undo.page_count {
                return Err(unfit("is damaged"));
            }
            each(pgno, page)?;
        }
        at += length as u64;
    }
    match checksum == undo.checksum {
        true => Ok(key),
        false => Err(unfit("is damaged")),
    }
}

/// Nothing in it is needed any more.
pub fn remove(vfs: &BaseVfs, db_path: &str) {
    beside::discard(vfs, db_path, Companion::Undo);
}

fn end_of(undo: &Undo) -> u64 {
    HEADER_SIZE as u64 + undo.entries * ENTRY_SIZE as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::memory::MemoryFile;

    fn pages(file: &MemoryFile, undo: &Undo) -> Result<Vec<(u32, u8)>> {
        let mut pages = Vec::new();
        read_from(file, undo, |pgno, page| {
            pages.push((pgno, page[0]));
            Ok(())
        })
        .map(|_| pages)
    }

    fn of(version: u8) -> impl Fn(u32, &mut Page) -> Result<()> {
        move |pgno, page| {
            *page = [pgno as u8 + version; PAGE_SIZE];
            Ok(())
        }
    }

    #[test]
    fn the_oldest_version_of_each_page_is_kept() {
        let (db, mut file) = (MemoryFile::default(), UndoFile::default());
        let one = file.keep(&db, 1, None, 9, &[2, 5, 12], of(0)).unwrap();
        assert_eq!(pages(&db, &one).unwrap(), [(2, 2), (5, 5)]);
        let two = file.keep(&db, 2, Some(&one), 20, &[5, 7, 12], of(50));
        let two = two.unwrap();
        assert_eq!(pages(&db, &two).unwrap(), [(2, 2), (5, 5), (7, 57)]);
        assert_eq!(two.page_count, 9);
        // The state before is still served, also by another process.
        assert_eq!(pages(&db, &one).unwrap(), [(2, 2), (5, 5)]);
        let mut other = UndoFile::default();
        let three = other.keep(&db, 3, Some(&one), 20, &[2, 3], of(90)).unwrap();
        assert_eq!(pages(&db, &three).unwrap(), [(2, 2), (5, 5), (3, 93)]);
        assert!(pages(&db, &two).is_err());
        // As many entries, but others: page 7 is not among them any more.
        let again = file.keep(&db, 3, Some(&three), 20, &[7], of(60)).unwrap();
        assert_eq!(
            pages(&db, &again).unwrap(),
            [(2, 2), (5, 5), (3, 93), (7, 67)]
        );
        let four = file.keep(&db, 4, None, 4, &[1], of(0)).unwrap();
        assert_eq!(pages(&db, &four).unwrap(), [(1, 1)]);
        assert!(pages(&db, &three).is_err());
    }

    #[test]
    fn many_pages() {
        let (db, mut file) = (MemoryFile::default(), UndoFile::default());
        let all: Vec<u32> = (1..=200).collect();
        let undo = file.keep(&db, 1, None, 200, &all, of(0)).unwrap();
        let kept = pages(&db, &undo).unwrap();
        assert_eq!(kept, (1..=200).map(|n| (n, n as u8)).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_one_is_no_use() {
        let db = MemoryFile::default();
        let undo = UndoFile::default().keep(&db, 5, None, 9, &[2, 5], of(0));
        let undo = undo.unwrap();
        let whole = db.0.borrow().clone();
        for at in [3, 17, 24, 39, 40, 46, 40 + 4100, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let damaged = MemoryFile(damaged.into());
            assert!(matches!(pages(&damaged, &undo), Err(Error::Diverged(_))));
            let mut file = UndoFile::default();
            assert!(file.keep(&damaged, 6, Some(&undo), 9, &[1], of(0)).is_err());
        }
        let cut = MemoryFile(whole[..whole.len() - 1].to_vec().into());
        assert!(pages(&cut, &undo).is_err());
        assert!(pages(&db, &undo).is_ok());
    }
}
